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

/// The pause while something is waited for that takes milliseconds.
const SHORT_WHILE: Duration = Duration::from_millis(50);

/// What should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// It is not known yet: what runs is left alone.
    Unknown,
    /// No daemon.
    Nothing,
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
    /// Whether files of a daemon are there that was not taken down.
    pub has_files: bool,
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
    /// It is given the configuration.
    Configure,
    /// It is ended, and none of its routes is left.
    TakeDown,
}

/// What to do next.
pub fn decide(situation: &Situation<'_>) -> DaemonStep {
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
        (Wanted::Nothing, RunningDaemon::Nothing) if !situation.has_files => {
            DaemonStep::Rest(COMPARISON)
        }
        (_, RunningDaemon::Nothing) if !has_pause_left.is_zero() => {
            DaemonStep::Rest(has_pause_left.min(COMPARISON))
        }
        (Wanted::Nothing, _) => DaemonStep::TakeDown,
        (Wanted::Configuration(_), RunningDaemon::Nothing) => {
            DaemonStep::Start { is_recovering: situation.has_files }
        }
        (Wanted::Configuration(wanted), RunningDaemon::Daemon(running)) => {
            configure(situation, wanted, running)
        }
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
        has_files: true,
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

    proptest! {
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
