//! What the filter of what containers send costs an ADD.

use std::time::Duration;

use serde_json::json;
use weir_tests::{Call, Cluster, Families};

use crate::samples::in_turn;
use crate::timed;

/// How many ADDs of each node there are in one round.
const CALLS: usize = 100;
/// The most that `strict` may take of what `off` takes.
const TARGET: f64 = 1.05;

/// A node, and a call for each of its containers.
struct Subject {
    cluster: Cluster,
    calls: Vec<Call>,
}

impl Subject {
    fn new(source_check: &str) -> Self {
        let cluster = Cluster::embedded();
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/16"}));
        let call = Call::new("weir", cluster.configuration(Families::V4));
        let call = call.configure("/source_check", source_check.into());
        let container = |number| cluster.node.container(&format!("c{number}"));
        let calls = (0..CALLS).map(|number| call.clone().container(&container(number))).collect();
        Self { cluster, calls }
    }
}

/// Adds the containers of two nodes, one of each in turn, and says how long those with the
/// filter take of what those without take: the median of the rounds, and where the median
/// lies in 19 of 20 cases, by the ranks of the ratios.
pub fn measure(rounds: usize) -> String {
    let subjects = ["strict", "off"].map(|check| (check, Subject::new(check)));
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let mut taken = [Duration::ZERO; 2];
        for number in 0..CALLS {
            for (check, subject) in in_turn(&subjects, round + number) {
                let time = timed(&subject.cluster.node, &subject.calls[number], "ADD");
                taken[usize::from(*check == "off")] += time;
            }
        }
        ratios.push(taken[0].as_secs_f64() / taken[1].as_secs_f64());
        for (_, subject) in &subjects {
            subject.calls.iter().for_each(|call| call.delete(&subject.cluster.node));
        }
    }
    ratios.sort_by(f64::total_cmp);
    let margin = 1.96 * (rounds as f64).sqrt() / 2.0;
    let middle = (rounds as f64 - 1.0) / 2.0;
    let at = |rank: f64| ratios[(rank.max(0.0) as usize).min(rounds - 1)];
    let (low, median, high) =
        (at((middle - margin).floor()), at(middle.round()), at((middle + margin).ceil()));
    let verdict = if median <= TARGET { "met" } else { "MISSED" };
    format!(
        "`source_check: strict` takes {median:.3} of `off` (median; 95 %: {low:.3} to {high:.3}; at \
         most {TARGET}: {verdict})"
    )
}
