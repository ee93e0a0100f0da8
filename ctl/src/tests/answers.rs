//! The recorded sessions with calicoctl, replayed.

use super::*;

/// Sessions in which Weir does better on purpose (docs/weirctl.md), which
/// step it is, and what it prints instead.
const BETTER: [(&str, usize, i64, &str); 5] = [
    ("v1 form", 0, 0, "Successfully created 1 'IPPool' resource(s)\n"),
    ("delete by CIDR", 1, 0, "Successfully deleted 1 'IPPool' resource(s)\n"),
    (
        "replace what is not there",
        0,
        1,
        "failed to replace 'IPPool' resource: [resource does not exist: IPPool(good)]\n\
         list what there is with: weirctl get ippool\n",
    ),
    (
        "host bits set",
        0,
        1,
        "failed to create 'IPPool' resource: [error with field IPPool.Spec.CIDR = '10.1.0.1/16' \
         (IPPool CIDR is not strictly masked); write 10.1.0.0/16]\n",
    ),
    (
        "two documents, second bad",
        0,
        1,
        "Partial success: created 2 out of 3 'IPPool' resources:\n\
         created: IPPool(one), IPPool(three)\nnot created: IPPool(two)\n\
         hit error: [error with field IPPool.Spec.CIDR = '10.1.2.0/24' (IPPool(two) CIDR overlaps \
         with IPPool(one) CIDR 10.1.0.0/16); choose another range, or delete that pool first: \
         weirctl delete ippool one]\n",
    ),
];

/// Commands that weirctl does not have yet.
const OTHER_COMMANDS: [&str; 2] = ["ipam configure", "ipam release"];

#[tokio::test]
async fn recorded_sessions_go_the_same_way() {
    let answers = read_in_tree("tests/fixtures/calicoctl-answers.jsonl");
    let mut steps_replayed = 0;
    for line in answers.lines() {
        let session: Value = serde_json::from_str(line).unwrap();
        let name = session["name"].as_str().unwrap();
        let memory = Memory::new();
        let steps = session["steps"].as_array().unwrap();
        for (position, step) in steps.iter().enumerate() {
            let arguments: Vec<_> = step["args"]
                .as_array()
                .unwrap()
                .iter()
                .map(|word| word.as_str().unwrap())
                .collect();
            let command = arguments.join(" ");
            if OTHER_COMMANDS.iter().any(|other| command.starts_with(other)) {
                break;
            }
            let input = step["stdin"].as_str().unwrap();
            let answer = call_with_input(&memory, &arguments, input).await;
            let better =
                BETTER.iter().find(|(better, step, ..)| (*better, *step) == (name, position));
            match better {
                Some((_, _, exit, output)) => {
                    assert_eq!((answer.exit, answer.output.as_str()), (*exit, *output), "{name}");
                }
                None => compare(name, &answer, step),
            }
            steps_replayed += 1;
        }
    }
    assert_eq!(steps_replayed, 61, "steps replayed of 64");
}

/// Where calicoctl succeeds, the output is the same; where it fails, the
/// error names the same field, value and reason.
fn compare(name: &str, answer: &Answer, step: &Value) {
    let expected = step["output"].as_str().unwrap();
    assert_eq!(answer.exit, step["exit"].as_i64().unwrap(), "{name}: {}", answer.output);
    if answer.exit == 0 {
        assert_eq!(masked(&answer.output), masked(expected), "{name}");
        return;
    }
    for part in essential_parts(expected) {
        assert!(answer.output.contains(&part), "{name}: no {part:?} in {}", answer.output);
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
    let (field, reason) = field.split_once(" (").unwrap();
    let mut parts = vec![start.trim_end_matches('[').to_owned(), field.to_owned()];
    if !reason.starts_with("Reason:") {
        parts.push(reason.trim_end_matches([']', ')', '\n']).to_owned());
    }
    parts
}
