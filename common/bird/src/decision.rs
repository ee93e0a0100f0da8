//! What to do with the daemon next: pure, times are given.

use std::time::Duration;

/// How often the daemon is compared with what it should be.
pub const COMPARISON: Duration = Duration::from_secs(8);

/// The least time between two configurations.
const CONFIGURE_INTERVAL: Duration = Duration::from_secs(1);

/// The longest pause before a daemon that died is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long a daemon that was started may take until it answers.
const START_TIME: Duration = Duration::from_secs(5);

/// After what time a daemon that is dead is started again although it is not known what should run.
const UNKNOWN_TIME: Duration = Duration::from_secs(10);

/// How long a daemon that something else starts may be away until that is told.
const AWAY_TIME: Duration = Duration::from_secs(10);

/// How often such a daemon is looked for.
pub const AWAITING: Duration = Duration::from_secs(1);

/// The pause while something is waited for that takes milliseconds.
const SHORT_WHILE: Duration = Duration::from_millis(50);

/// What should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// It is not known yet: what runs is left alone.
    Unknown,
    /// No daemon.
    Nothing,
    /// No session: a daemon that something else starts has the configuration of this digest.
    Idle(&'a str),
    /// A daemon with the configuration of this digest.
    Configuration(&'a str),
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunningDaemon<'a> {
    /// Nothing.
    Nothing,
    /// A process that does not answer; for so long, where this supervisor started it.
    Silent(Option<Duration>),
    /// A daemon with the configuration of this digest, or with one that is not Weir's.
    Daemon(Option<&'a str>),
}

/// All that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What should run.
    pub wanted: Wanted<'a>,
    /// What runs.
    pub running: RunningDaemon<'a>,
    /// How long ago this supervisor began.
    pub since_begin: Duration,
    /// Whether something else starts the daemon, and ends it.
    pub is_external: bool,
    /// How long ago a daemon answered, or this supervisor began.
    pub since_answer: Duration,
    /// Whether files of a daemon are there that was not taken down.
    pub has_files: bool,
    /// The digest of the configuration in the daemon's file, where that is Weir's.
    pub file: Option<&'a str>,
    /// The digest of the configuration that BIRD refused last.
    pub refused: Option<&'a str>,
    /// How long ago a configuration was last given to it.
    pub since_configured: Option<Duration>,
    /// How often it has died in a row, and how long ago.
    pub deaths: u32,
    /// How long ago it died or failed to start.
    pub since_death: Option<Duration>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonStep {
    /// Nothing for so long, unless something changes.
    Rest(Duration),
    /// It has not answered for too long: that is told, and looked at again.
    Complain,
    /// It is started; `is_recovering` where peers may still keep its routes.
    Start {
        /// Whether a daemon ran before.
        is_recovering: bool,
    },
    /// It is started with the configuration that it had.
    Resume,
    /// It finds a configuration in its file when something else starts it.
    Prepare,
    /// It is given the configuration.
    Configure,
    /// It is ended, and none of its routes is left.
    TakeDown,
}

/// What to do next.
pub fn decide(situation: &Situation<'_>) -> DaemonStep {
    if situation.is_external {
        return decide_external(situation);
    }
    let has_pause_left = pause_left(situation);
    match (situation.wanted, situation.running) {
        // The datastore is away, and peers wait for the daemon.
        (Wanted::Unknown, RunningDaemon::Nothing)
            if situation.has_files
                && situation.since_begin >= UNKNOWN_TIME
                && has_pause_left.is_zero() =>
        {
            DaemonStep::Resume
        }
        (Wanted::Unknown, _) => DaemonStep::Rest(COMPARISON),
        (_, RunningDaemon::Silent(Some(since))) if since < START_TIME => {
            DaemonStep::Rest(SHORT_WHILE)
        }
        (_, RunningDaemon::Silent(_)) => DaemonStep::Complain,
        (Wanted::Nothing | Wanted::Idle(_), RunningDaemon::Nothing) if !situation.has_files => {
            DaemonStep::Rest(COMPARISON)
        }
        (_, RunningDaemon::Nothing) if !has_pause_left.is_zero() => {
            DaemonStep::Rest(has_pause_left.min(COMPARISON))
        }
        (Wanted::Nothing | Wanted::Idle(_), _) => DaemonStep::TakeDown,
        (Wanted::Configuration(_), RunningDaemon::Nothing) => {
            DaemonStep::Start { is_recovering: situation.has_files }
        }
        (Wanted::Configuration(wanted), RunningDaemon::Daemon(running)) => {
            configure(situation, wanted, running)
        }
    }
}

/// What to do next with a daemon that is neither started nor ended here. Its file always has a
/// configuration that it took once, or one that every BIRD takes, so that it can start at any time.
fn decide_external(situation: &Situation<'_>) -> DaemonStep {
    match (situation.wanted, situation.running) {
        (Wanted::Unknown | Wanted::Nothing, RunningDaemon::Daemon(_)) => {
            DaemonStep::Rest(COMPARISON)
        }
        (Wanted::Idle(wanted) | Wanted::Configuration(wanted), RunningDaemon::Daemon(running)) => {
            // Where its file has gone, or has what it does not run, its next start would be wrong.
            let is_written = situation.file == Some(wanted);
            configure(situation, wanted, running.filter(|_| is_written))
        }
        _ if !situation.has_files => DaemonStep::Prepare,
        // At its start it takes away the routes of the one before.
        (Wanted::Idle(wanted), _) if situation.file != Some(wanted) => DaemonStep::Prepare,
        (Wanted::Configuration(_), _) if situation.since_answer >= AWAY_TIME => {
            DaemonStep::Complain
        }
        _ => DaemonStep::Rest(AWAITING),
    }
}

fn configure(situation: &Situation<'_>, wanted: &str, running: Option<&str>) -> DaemonStep {
    if running == Some(wanted) || situation.refused == Some(wanted) {
        return DaemonStep::Rest(COMPARISON);
    }
    match situation.since_configured {
        Some(since) if since < CONFIGURE_INTERVAL => DaemonStep::Rest(CONFIGURE_INTERVAL - since),
        _ => DaemonStep::Configure,
    }
}

/// How long to wait before the next start: 1, 2, 4 … 30 s after a death.
fn pause_left(situation: &Situation<'_>) -> Duration {
    let Some(since) = situation.since_death else { return Duration::ZERO };
    let doublings = situation.deaths.saturating_sub(1).min(5);
    let pause = Duration::from_secs(1 << doublings).min(LONGEST_PAUSE);
    pause.saturating_sub(since)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALM: Situation<'_> = Situation {
        wanted: Wanted::Configuration("new"),
        running: RunningDaemon::Daemon(Some("new")),
        since_begin: Duration::from_secs(60),
        is_external: false,
        since_answer: Duration::ZERO,
        has_files: true,
        file: Some("new"),
        refused: None,
        since_configured: None,
        deaths: 0,
        since_death: None,
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn what_runs_is_left_alone_until_it_is_known_what_should_run() {
        let unknown = Situation { wanted: Wanted::Unknown, ..CALM };
        for running in [RunningDaemon::Silent(None), RunningDaemon::Daemon(Some("old"))] {
            let situation = Situation { running, ..unknown };
            assert_eq!(decide(&situation), DaemonStep::Rest(COMPARISON));
        }
        let dead = Situation { running: RunningDaemon::Nothing, ..unknown };
        assert_eq!(decide(&dead), DaemonStep::Resume);
        let at_first = Situation { since_begin: seconds(9), ..dead };
        assert_eq!(decide(&at_first), DaemonStep::Rest(COMPARISON));
        let never_ran = Situation { has_files: false, ..dead };
        assert_eq!(decide(&never_ran), DaemonStep::Rest(COMPARISON));
    }

    #[test]
    fn a_daemon_with_another_configuration_gets_the_wanted_one() {
        assert_eq!(decide(&CALM), DaemonStep::Rest(COMPARISON));
        for running in [Some("old"), None] {
            let other = Situation { running: RunningDaemon::Daemon(running), ..CALM };
            assert_eq!(decide(&other), DaemonStep::Configure);
            let refused = Situation { refused: Some("new"), ..other };
            assert_eq!(decide(&refused), DaemonStep::Rest(COMPARISON));
            let changed_since = Situation { refused: Some("older"), ..other };
            assert_eq!(decide(&changed_since), DaemonStep::Configure);
        }
    }

    #[test]
    fn it_is_configured_once_a_second() {
        let other = Situation { running: RunningDaemon::Daemon(Some("old")), ..CALM };
        let after = |milliseconds| {
            let since_configured = Some(Duration::from_millis(milliseconds));
            decide(&Situation { since_configured, ..other })
        };
        assert_eq!(after(300), DaemonStep::Rest(Duration::from_millis(700)));
        assert_eq!(after(1000), DaemonStep::Configure);
    }

    #[test]
    fn one_that_dies_again_and_again_is_started_ever_more_rarely() {
        for (deaths, pause) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (u32::MAX, 30)] {
            let dead = |since| {
                let running = RunningDaemon::Nothing;
                decide(&Situation { running, deaths, since_death: Some(since), ..CALM })
            };
            assert_eq!(dead(seconds(pause)), DaemonStep::Start { is_recovering: true });
            let left = Duration::from_millis(500);
            assert_eq!(dead(seconds(pause) - left), DaemonStep::Rest(left));
        }
    }

    #[test]
    fn the_first_start_waits_for_no_peers() {
        let first = Situation { running: RunningDaemon::Nothing, has_files: false, ..CALM };
        assert_eq!(decide(&first), DaemonStep::Start { is_recovering: false });
    }

    #[test]
    fn one_that_does_not_answer_is_neither_doubled_nor_killed() {
        let silent = |since| decide(&Situation { running: RunningDaemon::Silent(since), ..CALM });
        assert_eq!(silent(Some(seconds(1))), DaemonStep::Rest(SHORT_WHILE));
        assert_eq!(silent(Some(seconds(6))), DaemonStep::Complain);
        assert_eq!(silent(None), DaemonStep::Complain);
    }

    #[test]
    fn without_need_nothing_is_left() {
        let unwanted = Situation { wanted: Wanted::Nothing, ..CALM };
        assert_eq!(decide(&unwanted), DaemonStep::TakeDown);
        let dead = Situation { running: RunningDaemon::Nothing, ..unwanted };
        assert_eq!(decide(&dead), DaemonStep::TakeDown, "its routes are there still");
        let clear = Situation { has_files: false, ..dead };
        assert_eq!(decide(&clear), DaemonStep::Rest(COMPARISON));
    }

    /// A daemon of a container, which runs what is wanted.
    const EXTERNAL: Situation<'_> = Situation { is_external: true, ..CALM };

    #[test]
    fn one_that_something_else_starts_finds_a_file_to_start_with() {
        let away = Situation { running: RunningDaemon::Nothing, ..EXTERNAL };
        let without_file = Situation { has_files: false, file: None, ..away };
        for wanted in [Wanted::Unknown, Wanted::Idle("idle"), Wanted::Configuration("new")] {
            assert_eq!(decide(&Situation { wanted, ..without_file }), DaemonStep::Prepare);
        }
        // What it took once stays for its next start, unless it should have no sessions then.
        for wanted in [Wanted::Unknown, Wanted::Configuration("newer")] {
            assert_eq!(decide(&Situation { wanted, ..away }), DaemonStep::Rest(AWAITING));
        }
        let unwanted = Situation { wanted: Wanted::Idle("idle"), ..away };
        assert_eq!(decide(&unwanted), DaemonStep::Prepare);
        let prepared = Situation { file: Some("idle"), ..unwanted };
        assert_eq!(decide(&prepared), DaemonStep::Rest(AWAITING));
    }

    #[test]
    fn one_that_is_not_started_is_told_after_a_while_where_it_is_needed() {
        let away = |wanted, since| {
            let (running, since_answer) = (RunningDaemon::Nothing, seconds(since));
            decide(&Situation { wanted, running, since_answer, ..EXTERNAL })
        };
        let wanted = Wanted::Configuration("newer");
        assert_eq!(away(wanted, 9), DaemonStep::Rest(AWAITING));
        assert_eq!(away(wanted, 10), DaemonStep::Complain);
        for not_needed in [Wanted::Unknown, Wanted::Idle("new")] {
            assert_eq!(away(not_needed, 1000), DaemonStep::Rest(AWAITING));
        }
    }

    #[test]
    fn one_that_something_else_started_is_configured_and_not_ended() {
        assert_eq!(decide(&EXTERNAL), DaemonStep::Rest(COMPARISON));
        let unknown = Situation { wanted: Wanted::Unknown, ..EXTERNAL };
        assert_eq!(decide(&unknown), DaemonStep::Rest(COMPARISON));
        let unwanted = Situation { wanted: Wanted::Idle("idle"), ..EXTERNAL };
        assert_eq!(decide(&unwanted), DaemonStep::Configure);
        let (running, file) = (RunningDaemon::Daemon(Some("idle")), Some("idle"));
        assert_eq!(decide(&Situation { running, file, ..unwanted }), DaemonStep::Rest(COMPARISON));
        for file in [None, Some("old")] {
            let would_start_wrong = Situation { file, ..EXTERNAL };
            assert_eq!(decide(&would_start_wrong), DaemonStep::Configure);
        }
    }

    proptest! {
        #[test]
        fn one_that_something_else_starts_is_never_started_or_ended_here(
            wanted in 0_usize..4, running in 0_usize..4, has_files in any::<bool>(),
            file in proptest::option::of(Just("new")), deaths in any::<u32>(),
            since_answer in 0_u64..100,
        ) {
            let all = [Wanted::Unknown, Wanted::Nothing, Wanted::Idle("new"), Wanted::Configuration("new")];
            let running = [
                RunningDaemon::Nothing,
                RunningDaemon::Silent(None),
                RunningDaemon::Daemon(None),
                RunningDaemon::Daemon(Some("new")),
            ][running];
            let since_answer = seconds(since_answer);
            let situation = Situation {
                wanted: all[wanted], running, has_files, file, deaths, since_answer, ..EXTERNAL
            };
            let step = decide(&situation);
            let is_ours =
                matches!(step, DaemonStep::Start { .. } | DaemonStep::Resume | DaemonStep::TakeDown);
            prop_assert!(!is_ours, "{step:?}");
        }

        #[test]
        fn a_second_daemon_is_never_started(silent in any::<bool>(), has_files in any::<bool>(),
                deaths in any::<u32>(), since in proptest::option::of(0_u64..100)) {
            let running = if silent { RunningDaemon::Silent(None) } else { RunningDaemon::Daemon(None) };
            let since_death = since.map(seconds);
            let situation = Situation { running, has_files, deaths, since_death, ..CALM };
            let is_start = matches!(decide(&situation), DaemonStep::Start { .. });
            prop_assert!(!is_start);
        }
    }
}
