//! The datastore: where it is, whether it answers, and etcd's clock.

use std::time::Duration;

use weir_common::shell_word;

use super::facts::{ExaminedNode, StoreFacts};
use super::judgement::{Grade, Judgement};
use crate::location::Source;
use crate::same_cluster::SameCluster;

const SUBJECT: &str = "datastore";

/// An answer that takes longer makes each ADD slow.
const SLOW: Duration = Duration::from_millis(100);

/// How far etcd's clock may be from this node's, in seconds: it is told in whole seconds.
/// Further apart, what another node is doing looks old, and certificates are not valid yet.
const CLOCK_TOLERANCE: u64 = 5;

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let store = &facts.store;
    let mut judgements = vec![of_answer(store)];
    if let (Ok(location), Err(why), Ok(_)) = (&store.location, &store.writable, &store.answer) {
        judgements.push(Judgement::told(SUBJECT, Grade::Trouble, location, why));
    }
    judgements.extend(store.elsewhere.iter().map(|(file, place, answer)| {
        let what = match answer {
            SameCluster::Unknown(why) => {
                format!(
                    "whether this network's datastore, {place}, is the same one is unknown: {why}"
                )
            }
            _ => format!("this network has its addresses in another datastore, {place}"),
        };
        Judgement::trouble(SUBJECT, file.display(), what)
            .advise("give weirctl, the agent and the networks of this node one datastore")
    }));
    judgements.extend(store.clocks.iter().map(|(endpoint, ahead)| of_endpoint(endpoint, ahead)));
    judgements
}

/// Whether it may be the wrong one.
pub fn is_in_doubt(store: &StoreFacts) -> bool {
    store.missing.is_some() || !store.elsewhere.is_empty()
}

fn of_answer(store: &StoreFacts) -> Judgement {
    let location = match &store.location {
        Ok(location) => location,
        Err(why) => return Judgement::told(SUBJECT, Grade::Trouble, "", why),
    };
    if let Some(path) = &store.missing {
        let (what, advice) = match location.source {
            Source::Default => (
                "nothing names a datastore, and the default one is not there",
                "name it (etcd_endpoints in /etc/weir/weirctl.yaml or in the network's file), or \
                 make an embedded one: weirctl init --datastore-type=embedded",
            ),
            _ => ("the datastore is not there", "check the path, or make it: weirctl init"),
        };
        let value = format!("{}, named by {}", path.display(), location.source);
        return Judgement::trouble(SUBJECT, value, what).advise(advice);
    }
    match &store.answer {
        Err(why) => Judgement::told(SUBJECT, Grade::Trouble, location, why)
            .or_advise("see that it runs and can be reached: etcdctl endpoint health"),
        Ok(time) if *time > SLOW => {
            let what =
                format!("it answers after {} ms: each ADD waits that long", time.as_millis());
            Judgement::note(SUBJECT, location, what)
                .advise("look at the network to etcd and at its disks: etcdctl endpoint status")
        }
        Ok(time) => {
            let what = format!("it answers after {} ms", time.as_millis().max(1));
            Judgement::good(SUBJECT, location, what)
        }
    }
}

fn of_endpoint(endpoint: &str, ahead: &Result<i64, String>) -> Judgement {
    match ahead {
        Err(why) => {
            Judgement::trouble(SUBJECT, endpoint, format!("this endpoint does not answer: {why}"))
                .advise(format!(
                    "look there: etcdctl --endpoints {} endpoint health",
                    shell_word(endpoint)
                ))
        }
        Ok(seconds) if seconds.unsigned_abs() >= CLOCK_TOLERANCE => {
            let way = if *seconds > 0 { "behind" } else { "ahead of" };
            let what = format!("this node's clock is {} s {way} etcd's", seconds.unsigned_abs());
            Judgement::trouble(SUBJECT, endpoint, what).advise(
                "synchronise the clocks of both machines (timedatectl set-ntp true, or chronyc \
                 tracking)",
            )
        }
        Ok(_) => Judgement::good(SUBJECT, endpoint, "this node's clock agrees with etcd's"),
    }
}
