//! Keeps the daemon what the plan asks for: starts, adopts, configures and stops it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use weir_common::network::{BgpPlan, BirdConfiguration};

use super::client::{Client, ClientError, Confirmation};
use super::decision::{AWAITING, COMPARISON, DaemonStep, RunningDaemon, Situation, Wanted, decide};
use super::passwords::{PASSWORD_FOLDER, read_passwords};
use super::place::Place;
use super::process::{Program, ProgramError};
use super::report::DaemonReport;
use super::status::{ProtocolState, ProtocolStatus};

/// How long a configuration may take until BIRD runs it, and an end until BIRD is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks at sessions of which some are not up.
const SESSION_WATCH: Duration = Duration::from_secs(2);

/// The pause between two looks at something that takes milliseconds.
const SHORT_WHILE: Duration = Duration::from_millis(20);

/// After how many seconds BIRD undoes a configuration with which it cannot be reached.
const UNDO_TIME: u16 = 30;

/// After what time a daemon that died is one that had worked.
const SETTLED: Duration = Duration::from_secs(30);

/// How often a daemon that recovers is looked at before it can be taken down.
const RECOVERY_WATCH: Duration = Duration::from_secs(1);

/// After how many deaths in a row that is told.
const MANY_DEATHS: u32 = 2;

/// The code of a refused configuration.
const NOT_TAKEN: u16 = 8002;

/// Where the daemon, its program and the passwords are.
#[derive(Clone, Debug)]
pub struct BirdSettings {
    /// The daemon's files.
    pub place: Place,
    /// The passwords' files.
    pub passwords: PathBuf,
    /// The program; `None` where something else starts and ends the daemon, such as the runtime
    /// of a container. Then it is only configured, and found by its socket alone.
    pub program: Option<PathBuf>,
}

impl Default for BirdSettings {
    fn default() -> Self {
        Self {
            place: Place::default(),
            passwords: PASSWORD_FOLDER.into(),
            program: Some("bird".into()),
        }
    }
}

/// Keeps the daemon what the latest plan asks for, until the plans' sender is dropped. The daemon
/// outlives that: the next supervisor adopts it. Until there is a plan, what runs is left alone.
pub async fn keep(
    settings: BirdSettings,
    mut plans: watch::Receiver<Option<Arc<BgpPlan>>>,
    report: watch::Sender<DaemonReport>,
) {
    let mut supervisor = Supervisor::new(settings);
    loop {
        let plan = plans.borrow_and_update().clone();
        let (pause, told) = supervisor.look(plan.as_deref()).await;
        publish(&report, told);
        tokio::select! {
            changed = plans.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
            () = end_of(&mut supervisor.child) => {}
        }
    }
}

/// Replaces the report, and logs the problems that are new in it.
fn publish(report: &watch::Sender<DaemonReport>, told: DaemonReport) {
    let before = report.borrow().problems.clone();
    for problem in told.problems.iter().filter(|problem| !before.contains(problem)) {
        tracing::warn!("BGP: {problem}");
    }
    report.send_if_modified(|report| {
        let is_new = *report != told;
        *report = told;
        is_new
    });
}

async fn end_of(child: &mut Option<Child>) {
    match child {
        Some(child) => drop(child.wait().await),
        None => std::future::pending().await,
    }
}

struct Supervisor {
    place: Place,
    passwords: PathBuf,
    /// `None` where something else starts the daemon.
    program: Option<Program>,
    /// The daemon, where this supervisor started it.
    child: Option<Child>,
    /// When this supervisor began.
    began: Instant,
    started: Option<Instant>,
    /// When it last answered, and when it was started then, by its own clock.
    answered: Option<Instant>,
    booted: Option<String>,
    /// Why it did not answer.
    unreachable: Option<ClientError>,
    /// Since when it has been seen alive.
    alive_since: Option<Instant>,
    died: Option<Instant>,
    deaths: u32,
    restarts: u64,
    configured: Option<Instant>,
    configured_at: Option<SystemTime>,
    /// The digest of the configuration that BIRD refused last, and why.
    refused: Option<(String, String)>,
    notes: Vec<String>,
}

/// What stands in the way of a step.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{0}; it is tried again")]
    Client(#[from] ClientError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{0} cannot be written: {1}")]
    File(String, #[source] io::Error),
    #[error("BIRD {0} within {limit} s; look at its log", limit = PATIENCE.as_secs())]
    TooSlow(&'static str),
    #[error(
        "BIRD (process {pid}) does not answer at {socket}; look at its log; if it hangs, kill it: \
         it is started again, and peers keep the routes meanwhile"
    )]
    Silent { pid: u32, socket: String },
    #[error(
        "BIRD does not answer{cause}; start it beside this agent, in the same network and with the \
         same folder {folder}: {command}; if it runs, look at its log"
    )]
    Away { cause: String, folder: String, command: String },
}

impl StepError {
    /// When to look again.
    fn pause(&self) -> Duration {
        match self {
            Self::Away { .. } => AWAITING,
            _ => COMPARISON,
        }
    }
}

/// What runs, as it was found.
enum FoundDaemon {
    Nothing,
    Silent(u32),
    Daemon(Box<Client>, Option<String>),
}

impl Supervisor {
    fn new(settings: BirdSettings) -> Self {
        Self {
            place: settings.place,
            passwords: settings.passwords,
            program: settings.program.map(Program::new),
            child: None,
            began: Instant::now(),
            started: None,
            answered: None,
            booted: None,
            unreachable: None,
            alive_since: None,
            died: None,
            deaths: 0,
            restarts: 0,
            configured: None,
            configured_at: None,
            refused: None,
            notes: Vec::new(),
        }
    }

    /// Compares what runs with what should, takes the next step, and returns when to look again.
    async fn look(&mut self, plan: Option<&BgpPlan>) -> (Duration, DaemonReport) {
        let (configuration, mut problems) = self.wanted(plan);
        let found = self.find().await;
        self.note_life(&found).await;
        let is_external = self.program.is_none();
        let idle = plan.filter(|_| is_external && configuration.is_none()).map(without_sessions);
        let wanted = match (plan, &configuration, &idle) {
            (None, ..) => Wanted::Unknown,
            (_, Some(configuration), _) => Wanted::Configuration(&configuration.digest),
            (_, None, Some(idle)) => Wanted::Idle(&idle.digest),
            (_, None, None) => Wanted::Nothing,
        };
        let file = self.place.digest();
        let step = decide(&self.situation(wanted, &found, file.as_deref()));
        let mut report = DaemonReport {
            is_wanted: configuration.is_some(),
            is_current: matches!((configuration.as_ref().or(idle.as_ref()), &found),
                (Some(wanted), FoundDaemon::Daemon(_, Some(runs))) if wanted.digest == *runs),
            ..DaemonReport::default()
        };
        let mut outcome = Ok(COMPARISON);
        match (step, found) {
            (DaemonStep::Rest(pause), found) => {
                outcome = Ok(pause);
                if let FoundDaemon::Daemon(mut client, _) = found {
                    let told = tell(&mut client, &mut report).await;
                    self.note_boot(&report);
                    outcome = told.map(|()| match report.sessions.iter().all(is_up) {
                        true => pause,
                        false => pause.min(SESSION_WATCH),
                    });
                }
            }
            (DaemonStep::Complain, FoundDaemon::Silent(pid)) => {
                let socket = self.place.socket().display().to_string();
                outcome = Err(StepError::Silent { pid, socket });
            }
            (DaemonStep::Complain, _) if is_external => outcome = Err(self.away()),
            (DaemonStep::Prepare, _) => {
                outcome = self.prepare(&idle.unwrap_or_else(BirdConfiguration::least));
            }
            (DaemonStep::Start { is_recovering }, _) => {
                if let Some(configuration) = &configuration {
                    outcome = self.start(configuration, is_recovering).await;
                }
            }
            (DaemonStep::Resume, _) => {
                outcome = self.spawn(true).map(|()| SHORT_WHILE);
            }
            (DaemonStep::Configure, FoundDaemon::Daemon(mut client, _)) => {
                if let Some(configuration) = &configuration {
                    outcome = self.configure(&mut client, configuration).await;
                } else if let Some(idle) = &idle {
                    outcome = self.make_idle(&mut client, idle).await;
                }
                // What runs is told even where that failed.
                drop(tell(&mut client, &mut report).await);
                self.note_boot(&report);
            }
            (DaemonStep::TakeDown, found) => {
                if let Some(plan) = plan {
                    outcome = self.take_down(plan, found).await;
                }
            }
            (DaemonStep::Complain | DaemonStep::Configure, _) => {}
        }
        let pause = outcome.unwrap_or_else(|error| {
            report.lacks_program = matches!(error, StepError::Program(ProgramError::Missing(_)));
            problems.push(error.to_string());
            error.pause()
        });
        let is_wanted = |digest: &str| {
            configuration.as_ref().is_some_and(|configuration| configuration.digest == digest)
        };
        let refused = self.refused.as_ref().filter(|(digest, _)| is_wanted(digest));
        report.is_refused = refused.is_some();
        problems.extend(refused.map(|(_, problem)| problem.clone()));
        let dies = !is_external && self.deaths >= MANY_DEATHS;
        if report.is_wanted && !report.is_running() && dies {
            problems.push(format!(
                "BIRD ends again and again ({} times in a row); see what it says in the agent's \
                 log (journalctl -u weir-node)",
                self.deaths
            ));
        }
        report.problems.extend(problems);
        report.configured_at = self.configured_at;
        report.restarts = self.restarts;
        report.notes.clone_from(&self.notes);
        (pause, report)
    }

    /// The configuration that a plan asks for, with the passwords as the files have them now.
    fn wanted(&self, plan: Option<&BgpPlan>) -> (Option<BirdConfiguration>, Vec<String>) {
        let Some(plan) = plan.filter(|plan| plan.need.is_some()) else {
            return (None, Vec::new());
        };
        let secrets = plan.sessions.values().filter_map(|session| session.password.as_ref());
        let (passwords, errors) = read_passwords(&self.passwords, secrets);
        let configuration = BirdConfiguration::of(plan, &passwords);
        let of_files = errors.iter().map(ToString::to_string);
        let problems = of_files.chain(configuration.problems.iter().map(ToString::to_string));
        let problems = problems.collect();
        (Some(configuration), problems)
    }

    async fn find(&mut self) -> FoundDaemon {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        let answer = async {
            let mut client = Client::connect(&self.place.socket()).await?;
            let digest = client.digest().await?;
            Ok(FoundDaemon::Daemon(Box::new(client), digest))
        };
        match answer.await {
            Ok(daemon) => {
                (self.answered, self.unreachable) = (Some(Instant::now()), None);
                return daemon;
            }
            Err(error) => self.unreachable = Some(error),
        }
        // A process of another container has its id in there alone.
        if self.program.is_none() {
            return FoundDaemon::Nothing;
        }
        let child = self.child.as_ref().and_then(Child::id);
        child.or_else(|| self.place.process()).map_or(FoundDaemon::Nothing, FoundDaemon::Silent)
    }

    /// Notices that the daemon has died, has settled, or was there before this supervisor.
    async fn note_life(&mut self, found: &FoundDaemon) {
        let now = Instant::now();
        match (found, self.alive_since) {
            (FoundDaemon::Nothing, Some(since)) => {
                let had_settled = now.duration_since(since) >= SETTLED;
                self.deaths = if had_settled { 1 } else { self.deaths.saturating_add(1) };
                self.died = Some(now);
                self.alive_since = None;
                match self.program {
                    Some(_) => tracing::warn!("BGP: BIRD has ended; it is started again"),
                    None => tracing::warn!("BGP: BIRD does not answer any more"),
                }
            }
            (FoundDaemon::Daemon(..), None) => {
                self.alive_since = Some(now);
                if self.started.is_none() {
                    self.note_adoption().await;
                }
            }
            _ => {}
        }
    }

    /// Tells where the program is not the one that runs.
    async fn note_adoption(&mut self) {
        tracing::info!("BGP: the BIRD that runs is adopted");
        let running = match Client::connect(&self.place.socket()).await {
            Ok(mut client) => {
                // The agent before may have ended between a configuration and this word.
                drop(client.confirm().await);
                client.status().await.map(|status| status.version).ok()
            }
            Err(_) => None,
        };
        let Some(program) = &self.program else { return };
        let (Some(running), Some(installed)) = (running, program.version().await) else {
            return;
        };
        if running != installed {
            let socket = self.place.socket();
            self.notes = vec![format!(
                "BIRD {running} runs, and {installed} is installed; to change over without losing \
                 routes: birdc -s {} graceful restart",
                socket.display()
            )];
        }
    }

    /// Counts the starts that were not this supervisor's: no process of its own has died.
    fn note_boot(&mut self, report: &DaemonReport) {
        let Some(status) = report.status.as_ref().filter(|_| self.program.is_none()) else {
            return;
        };
        let before = self.booted.replace(status.last_boot.clone());
        if before.is_some_and(|before| before != status.last_boot) {
            self.restarts += 1;
            tracing::info!("BGP: BIRD was started again");
        }
    }

    fn situation<'a>(
        &'a self,
        wanted: Wanted<'a>,
        found: &'a FoundDaemon,
        file: Option<&'a str>,
    ) -> Situation<'a> {
        let now = Instant::now();
        let running = match found {
            FoundDaemon::Nothing => RunningDaemon::Nothing,
            FoundDaemon::Silent(_) => {
                let started = self.started.filter(|_| self.child.is_some());
                RunningDaemon::Silent(started.map(|started| now.duration_since(started)))
            }
            FoundDaemon::Daemon(_, digest) => RunningDaemon::Daemon(digest.as_deref()),
        };
        Situation {
            wanted,
            running,
            since_begin: now.duration_since(self.began),
            is_external: self.program.is_none(),
            since_answer: now.duration_since(self.answered.unwrap_or(self.began)),
            file,
            has_files: self.place.is_used(),
            refused: self.refused.as_ref().map(|(digest, _)| digest.as_str()),
            since_configured: self.configured.map(|then| now.duration_since(then)),
            deaths: self.deaths,
            since_death: self.died.map(|then| now.duration_since(then)),
        }
    }

    /// Starts the daemon; where its configuration is refused, with the one that it had.
    async fn start(
        &mut self,
        configuration: &BirdConfiguration,
        is_recovering: bool,
    ) -> Result<Duration, StepError> {
        let Some(program) = self.program.clone() else { return Ok(COMPARISON) };
        self.write(&configuration.text)?;
        match program.check(&self.place.candidate()).await {
            Ok(()) => self.accept()?,
            Err(ProgramError::Refused(words)) => {
                self.refuse(configuration, &words)?;
                if !self.place.is_used() {
                    return Ok(COMPARISON);
                }
            }
            Err(error) => {
                // A configuration that was never run is not one to recover from.
                self.drop_candidate()?;
                return Err(error.into());
            }
        }
        self.spawn(is_recovering)?;
        Ok(SHORT_WHILE)
    }

    fn spawn(&mut self, is_recovering: bool) -> Result<(), StepError> {
        let Some(program) = &self.program else { return Ok(()) };
        self.child = Some(program.start(&self.place, is_recovering)?);
        let now = Instant::now();
        if self.died.is_some() {
            self.restarts += 1;
        }
        (self.started, self.alive_since) = (Some(now), Some(now));
        (self.configured, self.configured_at) = (Some(now), Some(SystemTime::now()));
        self.notes.clear();
        tracing::info!(is_recovering, "BGP: BIRD is started");
        Ok(())
    }

    /// Gives the daemon a configuration, and returns when it runs it. BIRD goes back to the one
    /// before by itself if that cannot be confirmed.
    async fn configure(
        &mut self,
        client: &mut Client,
        configuration: &BirdConfiguration,
    ) -> Result<Duration, StepError> {
        self.configured = Some(Instant::now());
        self.write(&configuration.text)?;
        if let Err(error) = client.check(&self.place.candidate()).await {
            return match error {
                ClientError::Refused { code: NOT_TAKEN, text, .. } => {
                    self.refuse(configuration, &text)?;
                    Ok(SHORT_WHILE)
                }
                error => Err(error.into()),
            };
        }
        self.accept()?;
        let file = self.place.configuration();
        client.configure(&file, Confirmation::Within(UNDO_TIME)).await?;
        until_digest(client, &configuration.digest).await?;
        client.confirm().await?;
        self.configured_at = Some(SystemTime::now());
        self.refused = None;
        tracing::info!("BGP: BIRD runs a new configuration");
        Ok(SHORT_WHILE)
    }

    /// Leaves a configuration for the next start of a daemon that something else starts.
    fn prepare(&self, configuration: &BirdConfiguration) -> Result<Duration, StepError> {
        self.write(&configuration.text)?;
        self.accept()?;
        Ok(AWAITING)
    }

    /// Takes all sessions from a daemon that goes on, and so all of its routes.
    async fn make_idle(
        &mut self,
        client: &mut Client,
        idle: &BirdConfiguration,
    ) -> Result<Duration, StepError> {
        // While it recovers it removes nothing from the kernel.
        if client.status().await?.is_recovering {
            return Ok(RECOVERY_WATCH);
        }
        self.configure(client, idle).await
    }

    fn away(&self) -> StepError {
        let cause = self.unreachable.as_ref().map(|cause| format!(" ({cause})"));
        let folder = self.place.folder().display().to_string();
        let command = self.place.command_line();
        StepError::Away { cause: cause.unwrap_or_default(), folder, command }
    }

    /// Ends the daemon so that none of its routes is left, also those of one that died: that one
    /// is started once more, and removes what it finds of its own.
    async fn take_down(
        &mut self,
        plan: &BgpPlan,
        found: FoundDaemon,
    ) -> Result<Duration, StepError> {
        let leaving = without_sessions(plan);
        self.write(&leaving.text)?;
        let mut client = match found {
            FoundDaemon::Daemon(mut client, _) => {
                // While it recovers it removes nothing from the kernel.
                if client.status().await?.is_recovering {
                    self.drop_candidate()?;
                    return Ok(RECOVERY_WATCH);
                }
                client.check(&self.place.candidate()).await?;
                self.accept()?;
                client.configure(&self.place.configuration(), Confirmation::Unneeded).await?;
                *client
            }
            _ => {
                self.accept()?;
                match self.spawn(false) {
                    Err(StepError::Program(ProgramError::Missing(program))) => {
                        self.forget()?;
                        tracing::warn!(
                            "BGP: {program} is not installed, so routes of the one that ran may be \
                             left: ip route show proto bird; ip -6 route show proto bird"
                        );
                        return Ok(COMPARISON);
                    }
                    outcome => outcome?,
                }
                self.until_answer().await?
            }
        };
        until_digest(&mut client, &leaving.digest).await?;
        let pid = self.place.process();
        client.shut_down().await?;
        self.until_ended(pid).await?;
        self.forget()?;
        tracing::info!("BGP: BIRD is not needed and has ended");
        Ok(COMPARISON)
    }

    /// As if no daemon had been there.
    fn forget(&mut self) -> Result<(), StepError> {
        self.place.clear().map_err(|cause| self.file_error(cause))?;
        (self.started, self.alive_since, self.died, self.deaths) = (None, None, None, 0);
        self.notes.clear();
        Ok(())
    }

    async fn until_answer(&mut self) -> Result<Client, StepError> {
        let socket = self.place.socket();
        let connected = async {
            loop {
                if let Ok(client) = Client::connect(&socket).await {
                    return client;
                }
                sleep(SHORT_WHILE).await;
            }
        };
        timeout(PATIENCE, connected).await.map_err(|_| StepError::TooSlow("does not answer"))
    }

    async fn until_ended(&mut self, pid: Option<u32>) -> Result<(), StepError> {
        let ended = async {
            match (&mut self.child, pid.and_then(|pid| pid.try_into().ok())) {
                (Some(child), _) => drop(child.wait().await),
                (None, Some(pid)) => {
                    while kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH) {
                        sleep(SHORT_WHILE).await;
                    }
                }
                (None, None) => {}
            }
        };
        timeout(PATIENCE, ended).await.map_err(|_| StepError::TooSlow("does not end"))?;
        self.child = None;
        Ok(())
    }

    /// Remembers that BIRD does not take a configuration: the one before goes on.
    fn refuse(&mut self, configuration: &BirdConfiguration, words: &str) -> Result<(), StepError> {
        let file = self.place.candidate();
        let place =
            words.strip_prefix(&*file.to_string_lossy()).and_then(|it| it.strip_prefix(':'));
        let line = place.and_then(|it| it.split(':').next()).and_then(|it| it.parse().ok());
        let resource = line.and_then(|line| configuration.resource_at(line));
        let resource = resource.map(|it| format!(", of {it}")).unwrap_or_default();
        let problem = format!(
            "BIRD refuses its new configuration{resource}: {words}; what it ran before goes on; \
             change that resource, and report this: it should have been refused earlier"
        );
        self.refused = Some((configuration.digest.clone(), problem));
        self.drop_candidate()
    }

    fn write(&self, text: &str) -> Result<(), StepError> {
        self.place.write_candidate(text).map_err(|cause| self.file_error(cause))
    }

    fn accept(&self) -> Result<(), StepError> {
        self.place.accept_candidate().map_err(|cause| self.file_error(cause))
    }

    fn drop_candidate(&self) -> Result<(), StepError> {
        self.place.drop_candidate().map_err(|cause| self.file_error(cause))
    }

    fn file_error(&self, cause: io::Error) -> StepError {
        StepError::File(self.place.configuration().display().to_string(), cause)
    }
}

/// The configuration with which no route is left, now or after an end.
fn without_sessions(plan: &BgpPlan) -> BirdConfiguration {
    let (sessions, filters, static_routes) = Default::default();
    let bare = BgpPlan { sessions, filters, static_routes, ..plan.clone() };
    BirdConfiguration::of(&bare, &Default::default()).leaving()
}

/// Waits until the daemon runs the configuration of this digest.
async fn until_digest(client: &mut Client, digest: &str) -> Result<(), StepError> {
    let runs = async {
        while client.digest().await?.as_deref() != Some(digest) {
            sleep(SHORT_WHILE).await;
        }
        Ok(())
    };
    timeout(PATIENCE, runs)
        .await
        .unwrap_or(Err(StepError::TooSlow("does not take on what it read")))
}

fn is_up(session: &ProtocolStatus) -> bool {
    session.state == ProtocolState::Up
}

/// Puts what the daemon says into the report.
async fn tell(client: &mut Client, report: &mut DaemonReport) -> Result<(), StepError> {
    report.status = Some(client.status().await?);
    report.sessions = client.protocols().await?;
    report.sessions.retain(|protocol| protocol.kind == "BGP");
    let is_deaf =
        report.sessions.iter().any(|session| session.info.contains("No listening socket"));
    if is_deaf {
        report.problems.push(
            "BIRD cannot listen on its port, because another program does: find it (ss -ltnp) and \
             end it, or set listenPort in BGPConfiguration"
                .to_owned(),
        );
    }
    Ok(())
}
