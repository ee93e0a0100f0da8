//! Which endpoint is asked, and when: decisions without sockets and clocks.
//!
//! One endpoint is asked. If it is silent for [`HEAD_START`], all are probed with a small read
//! (a hung server still accepts connections, so that only an answer counts). If the one that was asked answers its probe, it is slow but alive, and
//! is waited for. Else the first that answers its probe is asked as well. So a request goes to
//! a second endpoint only if the first one failed or is silent, and a cluster that is slow as
//! a whole is not asked twice. (RFC 8305 does so with connections.)

use std::time::Duration;

/// How long the endpoint that was asked may be silent before the others are probed.
pub(super) const HEAD_START: Duration = Duration::from_millis(150);

/// The order in which `count` endpoints are asked, if `first` is the first one.
pub(super) fn order(count: usize, first: usize) -> Vec<usize> {
    (0..count).map(|step| (first + step) % count).collect()
}

/// Which of the endpoints was left as the one that answered last. One that is not configured
/// (any more) is none.
pub(super) fn remembered(endpoints: &[String], left: Option<&str>) -> Option<usize> {
    endpoints.iter().position(|endpoint| Some(endpoint.as_str()) == left)
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RaceStep {
    /// Send the request to this endpoint.
    Ask(usize),
    /// Find out whether this endpoint answers at all.
    Probe(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Untried,
    Probed,
    /// It has answered its probe, and was not asked.
    Ready,
    /// It has not answered yet.
    Asked {
        was_probed: bool,
        is_alive: bool,
    },
    Failed,
}

/// One request and the endpoints that may answer it.
#[derive(Debug)]
pub(super) struct Race {
    stages: Vec<(usize, Stage)>,
}

impl Race {
    /// A race among these endpoints, in the order of preference.
    pub(super) fn new(order: impl IntoIterator<Item = usize>) -> Self {
        Self { stages: order.into_iter().map(|index| (index, Stage::Untried)).collect() }
    }

    /// The first step.
    pub(super) fn begin(&mut self) -> Vec<RaceStep> {
        self.ask_next().into_iter().collect()
    }

    /// Nothing was heard for [`HEAD_START`] since an endpoint was asked last.
    pub(super) fn head_start_is_over(&mut self) -> Vec<RaceStep> {
        if self.is_one_alive() || !self.stages.iter().any(|(_, it)| *it == Stage::Untried) {
            return Vec::new();
        }
        let mut steps = Vec::new();
        for (index, stage) in &mut self.stages {
            match stage {
                Stage::Untried => *stage = Stage::Probed,
                Stage::Asked { was_probed, .. } if !*was_probed => *was_probed = true,
                _ => continue,
            }
            steps.push(RaceStep::Probe(*index));
        }
        steps
    }

    /// An endpoint has answered its probe.
    pub(super) fn probe_answered(&mut self, index: usize) -> Vec<RaceStep> {
        match self.stage(index) {
            Some(Stage::Asked { is_alive, .. }) => *is_alive = true,
            Some(stage @ Stage::Probed) => *stage = Stage::Ready,
            _ => return Vec::new(),
        }
        if self.is_one_alive() { Vec::new() } else { self.ask_next().into_iter().collect() }
    }

    /// A probe has failed. An endpoint that was asked may answer all the same. Returns
    /// whether that is what this endpoint failed by.
    pub(super) fn probe_failed(&mut self, index: usize) -> bool {
        match self.stage(index) {
            Some(stage @ Stage::Probed) => {
                *stage = Stage::Failed;
                true
            }
            _ => false,
        }
    }

    /// An endpoint that was asked has failed, so that another one may be asked.
    pub(super) fn ask_failed(&mut self, index: usize) -> Vec<RaceStep> {
        if let Some(stage) = self.stage(index) {
            *stage = Stage::Failed;
        }
        if self.is_one_alive() { Vec::new() } else { self.ask_next().into_iter().collect() }
    }

    /// Those that were asked and have shown no sign of life.
    pub(super) fn silent(&self) -> impl Iterator<Item = usize> {
        let is_silent =
            |stage: &Stage| matches!(stage, Stage::Asked { was_probed: true, is_alive: false });
        self.stages.iter().filter(move |(_, stage)| is_silent(stage)).map(|(index, _)| *index)
    }

    fn stage(&mut self, index: usize) -> Option<&mut Stage> {
        self.stages.iter_mut().find(|(it, _)| *it == index).map(|(_, stage)| stage)
    }

    fn is_one_alive(&self) -> bool {
        self.stages.iter().any(|(_, stage)| matches!(stage, Stage::Asked { is_alive: true, .. }))
    }

    /// Asks one that has answered a probe, else the next one that was not tried.
    fn ask_next(&mut self) -> Option<RaceStep> {
        let position = |wanted: Stage| self.stages.iter().position(|(_, it)| *it == wanted);
        let next = position(Stage::Ready).or_else(|| position(Stage::Untried))?;
        let (index, stage) = &mut self.stages[next];
        let answered = *stage == Stage::Ready;
        *stage = Stage::Asked { was_probed: answered, is_alive: answered };
        Some(RaceStep::Ask(*index))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_one_that_answered_last_is_first() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 2), [2, 0, 1]);
        let endpoints = ["http://a:1".to_owned(), "http://b:1".to_owned()];
        assert_eq!(remembered(&endpoints, Some("http://b:1")), Some(1));
        for nonsense in [None, Some(""), Some("http://c:1"), Some("http://a:1\nhttp://b:1")] {
            assert_eq!(remembered(&endpoints, nonsense), None);
        }
    }

    #[test]
    fn one_that_is_slow_but_alive_is_waited_for() {
        let mut race = Race::new([0, 1]);
        assert_eq!(race.begin(), [RaceStep::Ask(0)]);
        assert_eq!(race.head_start_is_over(), [RaceStep::Probe(0), RaceStep::Probe(1)]);
        assert_eq!(race.probe_answered(0), []);
        assert_eq!(race.probe_answered(1), []);
        assert_eq!(race.ask_failed(0), [RaceStep::Ask(1)]);
    }

    #[test]
    fn where_there_is_one_it_is_not_probed() {
        let mut race = Race::new([3]);
        assert_eq!(race.begin(), [RaceStep::Ask(3)]);
        assert_eq!(race.head_start_is_over(), []);
    }

    /// How an endpoint behaves: after how many milliseconds it answers a request, and a
    /// probe; `Err` for a failure, `None` for silence.
    #[derive(Clone, Copy, Debug)]
    struct Behaviour {
        ask: Option<(u64, bool)>,
        probe: Option<(u64, bool)>,
    }

    fn behaviour() -> impl Strategy<Value = Behaviour> {
        let healthy = (0..20_u64).prop_map(|ms| Some((ms, true)));
        let slow = (200..900_u64).prop_map(|ms| Some((ms, true)));
        let refused = (0..20_u64).prop_map(|ms| Some((ms, false)));
        let same = prop_oneof![healthy.clone(), refused, Just(None)];
        prop_oneof![
            4 => same.prop_map(|it| Behaviour { ask: it, probe: it }),
            1 => (slow, healthy).prop_map(|(ask, probe)| Behaviour { ask, probe }),
        ]
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Event {
        Asked(usize, bool),
        Probed(usize, bool),
        HeadStart(u32),
    }

    /// What a race comes to in virtual time.
    struct Outcome {
        /// Who answered, and when.
        answer: Option<(usize, u64)>,
        asked: Vec<usize>,
        probed: Vec<usize>,
    }

    fn run(behaviours: &[Behaviour], first: usize) -> Outcome {
        let mut race = Race::new(order(behaviours.len(), first));
        let mut events = BTreeSet::new();
        let mut outcome = Outcome { answer: None, asked: vec![], probed: vec![] };
        let (mut now, mut head_start) = (0, 0);
        let mut alive = BTreeMap::new();
        let mut steps = race.begin();
        loop {
            for step in steps.drain(..) {
                match step {
                    RaceStep::Ask(index) => {
                        let waited_for = outcome.asked.iter().any(|it| alive.contains_key(it));
                        assert!(!waited_for, "{index} although another one is alive");
                        outcome.asked.push(index);
                        if let Some((ms, good)) = behaviours[index].ask {
                            events.insert((now + ms, Event::Asked(index, good)));
                        }
                        head_start += 1;
                        let over = now + HEAD_START.as_millis() as u64;
                        events.insert((over, Event::HeadStart(head_start)));
                    }
                    RaceStep::Probe(index) => {
                        outcome.probed.push(index);
                        if let Some((ms, good)) = behaviours[index].probe {
                            events.insert((now + ms, Event::Probed(index, good)));
                        }
                    }
                }
            }
            let Some((then, event)) = events.pop_first() else { return outcome };
            now = then;
            steps = match event {
                Event::Asked(index, true) => {
                    outcome.answer = Some((index, now));
                    return outcome;
                }
                Event::Asked(index, false) => {
                    alive.remove(&index);
                    race.ask_failed(index)
                }
                Event::Probed(index, true) => {
                    alive.insert(index, ());
                    race.probe_answered(index)
                }
                Event::Probed(index, false) => {
                    race.probe_failed(index);
                    vec![]
                }
                Event::HeadStart(number) if number == head_start => race.head_start_is_over(),
                Event::HeadStart(_) => vec![],
            };
        }
    }

    fn no_duplicates(indexes: &[usize]) -> bool {
        indexes.iter().collect::<BTreeSet<_>>().len() == indexes.len()
    }

    proptest! {
        #[test]
        fn whoever_can_answer_does(
            behaviours in prop::collection::vec(behaviour(), 1..6),
            first in 0..6_usize,
        ) {
            let first = first % behaviours.len();
            let outcome = run(&behaviours, first);
            prop_assert!(no_duplicates(&outcome.asked) && no_duplicates(&outcome.probed));
            let is_good = |it: &Behaviour| it.ask.is_some_and(|(_, good)| good);
            prop_assert_eq!(outcome.answer.is_some(), behaviours.iter().any(is_good));
            let is_quick = |it: &Behaviour| matches!(it.ask, Some((ms, true)) if ms < 20);
            if behaviours.iter().all(|it| is_quick(it) || it.ask.is_none_or(|(_, good)| !good))
                && let Some((_, ms)) = outcome.answer
            {
                // Each failure takes up to 20 ms, then one head start, a probe and the answer.
                let failures = 20 * behaviours.len() as u64;
                prop_assert!(ms <= failures + HEAD_START.as_millis() as u64 + 40, "{} ms", ms);
            }
        }

        #[test]
        fn a_first_one_that_is_well_is_the_only_one_that_hears_of_it(
            mut behaviours in prop::collection::vec(behaviour(), 1..6),
            ms in 0..149_u64,
        ) {
            behaviours[0] = Behaviour { ask: Some((ms, true)), probe: Some((0, true)) };
            let outcome = run(&behaviours, 0);
            prop_assert_eq!(outcome.answer, Some((0, ms)));
            prop_assert_eq!(outcome.asked, [0]);
            prop_assert!(outcome.probed.is_empty());
        }

        #[test]
        fn a_slow_cluster_is_asked_once(count in 1..6_usize, ms in 151..2000_u64) {
            // The one that was asked is as quick with its probe as the others.
            let slow = Behaviour { ask: Some((ms, true)), probe: Some((5, true)) };
            let outcome = run(&vec![slow; count], 0);
            prop_assert_eq!(outcome.asked, [0]);
        }
    }
}
