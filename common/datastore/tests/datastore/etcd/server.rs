//! A real etcd for one test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;
use weir_common::datastore::EtcdConfiguration;
use weir_datastore::Etcd;

use super::certificates::Certificates;

const PATIENCE: Duration = Duration::from_secs(30);

/// An etcd on 127.0.0.1, with its data in a directory of its own. Killed when
/// it is dropped, also by a test that fails.
pub struct Server {
    child: Child,
    address: String,
    scheme: &'static str,
    /// Removed after the process is gone, as fields are dropped in order.
    _directory: TempDir,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with("http", &[])
    }

    /// An etcd that wants clients to show a certificate of the same authority.
    pub fn start_with_tls(certificates: &Certificates) -> Self {
        let path = |name: &str| certificates.path(name).to_str().unwrap().to_owned();
        Self::start_with(
            "https",
            &[
                "--client-cert-auth",
                "--trusted-ca-file",
                &path("ca.crt"),
                "--cert-file",
                &path("server.crt"),
                "--key-file",
                &path("server.key"),
            ],
        )
    }

    /// An etcd that shows this certificate, and asks for none.
    pub fn start_showing(certificates: &Certificates, name: &str) -> Self {
        let path = |kind: &str| {
            let path = certificates.path(&format!("{name}.{kind}"));
            path.to_str().unwrap().to_owned()
        };
        Self::start_with("https", &["--cert-file", &path("crt"), "--key-file", &path("key")])
    }

    pub fn start_with(scheme: &'static str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child =
            command(directory.path(), scheme, arguments).spawn().unwrap_or_else(|error| {
                panic!("these tests need etcd (Debian: etcd-server) in the PATH: {error}")
            });
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { child, address: String::new(), scheme, _directory: directory };
        server.address = wait_until_ready(log);
        server
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub async fn open(&self) -> Etcd {
        Etcd::open(&EtcdConfiguration::new(vec![self.url()])).await.unwrap()
    }

    /// etcd's own view, not through Weir's code.
    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.url()], None).await.unwrap()
    }

    /// Stops the process as a whole: the kernel still accepts connections for
    /// it, but nothing answers.
    pub fn hang(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        // Its threads run on until one of them has taken the signal.
        let state = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(state, WaitStatus::Stopped(..)), "{state:?}");
    }

    pub fn resume(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Works on a stopped process, too. It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The client port is asked from the kernel; peers, of which there are none,
/// get a socket file in the directory.
fn command(directory: &Path, scheme: &str, arguments: &[&str]) -> Command {
    let client = format!("{scheme}://127.0.0.1:0");
    let mut command = Command::new("etcd");
    command
        .current_dir(directory)
        .args(["--name", "test", "--data-dir", "data", "--enable-grpc-gateway=false"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        // The only member need not wait long for others before it leads.
        .args(["--heartbeat-interval", "10", "--election-timeout", "100"])
        .args(["--listen-peer-urls", "unix://localhost:1"])
        .args(["--initial-advertise-peer-urls", "http://localhost:1"])
        .args(["--initial-cluster", "test=http://localhost:1"])
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Reads etcd's log until it says where it listens, and on in the background,
/// so that etcd can go on writing it.
fn wait_until_ready(log: BufReader<ChildStderr>) -> String {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            // The test may have stopped listening.
            let _ = sender.send(line);
        }
    });
    let mut lines = Vec::new();
    while let Ok(line) = receiver.recv_timeout(PATIENCE) {
        if let Some((_, address)) = line.split_once("client requests on ") {
            return address.split(',').next().unwrap_or_default().to_owned();
        }
        lines.push(line);
    }
    panic!("etcd did not become ready:\n{}", lines.join("\n"));
}

/// A URL where nothing listens.
pub fn refusing_url() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}")
}
