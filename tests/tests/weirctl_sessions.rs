//! weirctl answers as calicoctl did, on both datastores.

use weir_tests::{
    Answer, Cluster, Entries, Exchange, masked, recorded_outputs, recorded_sessions, recorded_store,
};

/// Sessions in which Weir does better on purpose (`docs/weirctl.md`), which
/// step it is, and what it prints instead.
const BETTER: [(&str, usize, bool, &str); 5] = [
    ("v1 form", 0, true, "Successfully created 1 'IPPool' resource(s)\n"),
    ("delete by CIDR", 1, true, "Successfully deleted 1 'IPPool' resource(s)\n"),
    (
        "replace what is not there",
        0,
        false,
        "failed to replace 'IPPool' resource: [resource does not exist: IPPool(good)]\n\
         list what there is with: weirctl get ippool\n",
    ),
    (
        "host bits set",
        0,
        false,
        "failed to create 'IPPool' resource: [error with field IPPool.Spec.CIDR = '10.1.0.1/16' \
         (IPPool CIDR is not strictly masked); write 10.1.0.0/16]\n",
    ),
    (
        "two documents, second bad",
        0,
        false,
        "Partial success: created 2 out of 3 'IPPool' resources:\n\
         created: IPPool(one), IPPool(three)\nnot created: IPPool(two)\n\
         hit error: [error with field IPPool.Spec.CIDR = '10.1.2.0/24' (IPPool(two) CIDR overlaps \
         with IPPool(one) CIDR 10.1.0.0/16); choose another range, or delete that pool first: \
         weirctl delete ippool one]\n",
    ),
];

/// What a call printed on either output.
fn printed(answer: &Answer) -> String {
    format!("{}{}", answer.stdout, answer.stderr)
}

fn replay_sessions(cluster: &Cluster) {
    let mut steps_replayed = 0;
    for session in recorded_sessions() {
        cluster.store.clear();
        // An embedded store must be there before the calls that create nothing.
        cluster.store.load(&Entries::new());
        for (position, step) in session.steps.iter().enumerate() {
            let arguments: Vec<&str> = step.args.iter().map(String::as_str).collect();
            let answer = cluster.weirctl_with(&arguments, &step.stdin);
            let this = (session.name.as_str(), position);
            match BETTER.iter().find(|(name, step, ..)| (*name, *step) == this) {
                Some((_, _, succeeds, output)) => {
                    let found = (answer.succeeded, printed(&answer));
                    assert_eq!(found, (*succeeds, (*output).to_owned()), "{this:?}");
                }
                None => compare(&session.name, &answer, step),
            }
            steps_replayed += 1;
        }
    }
    assert_eq!(steps_replayed, 64, "recorded steps");
}

/// Where calicoctl succeeded, the output is the same; where it failed, the
/// error names the same field, value and reason.
fn compare(session: &str, answer: &Answer, step: &Exchange) {
    let output = printed(answer);
    assert_eq!(answer.status, Some(step.exit), "{session}: {output}");
    if answer.succeeded {
        assert_eq!(masked(&output), masked(&step.output), "{session}");
        return;
    }
    for part in essential_parts(&step.output) {
        assert!(output.contains(&part), "{session}: no {part:?} in {output}");
    }
}

/// What of calicoctl's error has to appear: `Field = 'value'`, the reason if
/// it is not about calicoctl's own inside, and else the whole text but for
/// what only Go programmers understand.
fn essential_parts(error: &str) -> Vec<String> {
    let error = error.trim_end().trim_end_matches(" with error: <nil>");
    if error.starts_with("Usage:") {
        return vec!["Usage: weirctl".into()];
    }
    let Some((start, field)) = error.split_once("error with field ") else {
        let (syntax, _) = error.split_once(": yaml:").unwrap_or((error, ""));
        return vec![syntax.to_owned()];
    };
    let (field, reason) = field.split_once(" (").expect("a reason follows the field");
    let mut parts = vec![start.trim_end_matches('[').to_owned(), field.to_owned()];
    if !reason.starts_with("Reason:") {
        parts.push(reason.trim_end_matches([']', ')', '\n']).to_owned());
    }
    parts
}

fn repeat_outputs(cluster: &Cluster) {
    let mut count = 0;
    for case in ["small", "seed", "busy"] {
        cluster.store.clear();
        cluster.store.load(&recorded_store(case));
        for (arguments, expected) in recorded_outputs(case) {
            // That one is about Kubernetes; Weir's is another command.
            if arguments[..2] == ["ipam", "check"] {
                continue;
            }
            let line: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let answer = cluster.weirctl(&line);
            assert!(answer.succeeded, "{line:?}: {answer:?}");
            assert_eq!(masked(&answer.stdout), masked(&expected), "{case}: {line:?}");
            assert_eq!(answer.stderr, "", "{case}: {line:?}");
            count += 1;
        }
    }
    assert_eq!(count, 3 * 13, "recorded outputs");
}

#[test]
fn sessions_go_the_same_way_on_the_embedded_store() {
    replay_sessions(&Cluster::embedded());
}

#[test]
fn sessions_go_the_same_way_on_etcd() {
    replay_sessions(&Cluster::etcd());
}

#[test]
fn output_over_calicos_stores_is_the_same_on_the_embedded_store() {
    repeat_outputs(&Cluster::embedded());
}

#[test]
fn output_over_calicos_stores_is_the_same_on_etcd() {
    repeat_outputs(&Cluster::etcd());
}
