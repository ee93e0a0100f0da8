//! A daemon in a network of its own beside a peer's.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use weir_bird::{BgpState, BirdSettings, Client, DaemonReport, Place, keep};
use weir_common::network::{BgpNeed, BgpPlan, BgpSession};

use super::{plan, session, with};

pub const LOCAL: &str = "10.0.1.11";
pub const PEER: &str = "10.0.1.12";

/// What the peer announces, and where the node's kernel has it then.
pub const OF_PEER: &str = "10.244.2.0/26";

/// Runs a test in a network namespace of its own, with a runtime of one thread: what it starts
/// is in there.
pub fn in_network<F: Future<Output = ()>>(test: impl FnOnce(Network) -> F + Send + 'static) {
    beside(64512, &[OF_PEER], test);
}

/// The same beside a peer of this AS, which announces these prefixes.
pub fn beside<F: Future<Output = ()>>(
    as_number: u32,
    prefixes: &'static [&'static str],
    test: impl FnOnce(Network) -> F + Send + 'static,
) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut network = Network::new();
        network.start_peer(as_number, prefixes);
        runtime.unwrap().block_on(async { test(network).await });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A node and a peer on one link, and the daemon's files.
pub struct Network {
    pub folder: tempfile::TempDir,
    /// Holds the peer's network.
    holder: Child,
    peer: Option<Child>,
}

impl Network {
    pub fn new() -> Self {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sh", "-c", "echo; exec sleep infinity"]).stdout(Stdio::piped());
        let mut holder = holder.spawn().expect("unshare (package util-linux) must be installed");
        // The first line says that the namespace is there.
        let mut line = String::new();
        let output = std::io::BufReader::new(holder.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut { output }, &mut line).unwrap();
        let pid = holder.id().to_string();
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        run("ip", &["address", "add", &format!("{LOCAL}/24"), "dev", "eth0"]);
        run("ip", &["link", "set", "eth0", "up"]);
        let network = Self { folder: tempfile::tempdir().unwrap(), holder, peer: None };
        network.at_peer(&["ip", "address", "add", &format!("{PEER}/24"), "dev", "eth0"]);
        network.at_peer(&["ip", "link", "set", "eth0", "up"]);
        network
    }

    pub fn at_peer(&self, command: &[&str]) {
        let pid = self.holder.id().to_string();
        run("nsenter", &[&["-t", &pid, "-n"], command].concat());
    }

    /// A BIRD as the other side, which says what it has received in its log.
    pub fn start_peer(&mut self, as_number: u32, prefixes: &[&str]) {
        let file = |name: &str| self.folder.path().join(name);
        let routes = prefixes.iter().map(|it| format!("route {it} blackhole; "));
        let routes: String = routes.collect();
        let text = format!(
            "log \"{}\" all; router id {PEER}; protocol device {{ }}\n\
             protocol static {{ ipv4; {routes}}}\n\
             protocol bgp node {{ local {PEER} as {as_number}; neighbor {LOCAL} as 64512; multihop; \
             graceful restart on; connect delay time 1; connect retry time 1; \
             error wait time 1, 2; debug {{ states, routes }};\n ipv4 {{ import all; export all; }}; }}\n",
            file("peer.log").display()
        );
        std::fs::write(file("peer.conf"), text).unwrap();
        let mut bird = Command::new("nsenter");
        bird.args(["-t", &self.holder.id().to_string(), "-n", "bird", "-f", "-c"]);
        bird.arg(file("peer.conf")).arg("-s").arg(file("peer.ctl"));
        self.peer = Some(bird.spawn().expect("bird (package bird2) must be installed"));
    }

    pub fn log_of_peer(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("peer.log")).unwrap_or_default()
    }

    pub fn place(&self) -> Place {
        Place::at(self.folder.path().join("bird"))
    }

    pub fn passwords(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    pub fn settings(&self) -> BirdSettings {
        BirdSettings { place: self.place(), passwords: self.passwords(), ..BirdSettings::default() }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.place().socket()).await.unwrap()
    }

    /// What is in the daemon's folder. Its log goes where that of this process goes, which the test
    /// keeps short.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("bird")).unwrap();
        let mut names: Vec<String> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Requires that nobody else can read the daemon's folder and its configuration.
    pub fn assert_private(&self) {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = self.folder.path().join("bird");
        assert_eq!((mode(&folder), mode(&self.place().configuration())), (0o700, 0o600));
    }

    pub fn pid(&self) -> i32 {
        self.place().process().expect("a daemon that runs").try_into().unwrap()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(pid) = self.place().process() {
            let _ = kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL);
        }
        for child in self.peer.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A supervisor that runs.
pub struct Kept {
    pub plans: watch::Sender<Option<Arc<BgpPlan>>>,
    pub report: watch::Receiver<DaemonReport>,
    pub task: JoinHandle<()>,
}

impl Kept {
    pub fn start(settings: BirdSettings, plan: Option<BgpPlan>) -> Self {
        let (plans, of_plans) = watch::channel(plan.map(Arc::new));
        let (sender, report) = watch::channel(DaemonReport::default());
        Self { plans, report, task: tokio::spawn(keep(settings, of_plans, sender)) }
    }

    pub fn plan(&self, plan: BgpPlan) {
        self.plans.send_replace(Some(Arc::new(plan)));
    }

    /// The first report of which this holds.
    pub async fn until(&mut self, holds: impl Fn(&DaemonReport) -> bool) -> DaemonReport {
        let found = timeout(Duration::from_secs(40), self.report.wait_for(|it| holds(it))).await;
        let found = found.map(|report| report.unwrap().clone());
        found.unwrap_or_else(|_| panic!("{:#?}", self.report.borrow()))
    }

    pub async fn until_current(&mut self) -> DaemonReport {
        self.until(|report| report.is_current && report.is_running()).await
    }

    /// Ends as an agent does that is killed.
    pub async fn abort(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The routes of BIRD in the kernel's main table.
pub fn routes() -> String {
    run("ip", &["route", "show", "proto", "bird"])
}

pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A plan with a session with the peer.
pub fn wanted() -> BgpPlan {
    let session = BgpSession { is_passive: false, ..session(LOCAL, PEER) };
    let need = Some(BgpNeed::OtherSpeaker("n2".to_owned()));
    BgpPlan { need, ..with(plan(LOCAL), "Mesh", session) }
}

pub async fn until_established(network: &Network) {
    let is_up = async || {
        let sessions = network.client().await.protocols().await.unwrap();
        sessions.iter().any(|it| it.bgp_state == Some(BgpState::Established))
    };
    until("an Established session", is_up).await;
    until("the peer's route", async || routes().contains(OF_PEER)).await;
}
