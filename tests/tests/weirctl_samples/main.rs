//! Command lines that nobody recorded: what `weirctl` makes of each, on both
//! datastores.

mod bgp;
mod documents;
mod felix;
mod lines;

use weir_tests::Cluster;

/// A session: lines one after the other over a pool `blue` (10.7.0.0/24) and a
/// node `n1`.
pub struct Session {
    name: &'static str,
    steps: &'static [Step],
}

/// A line, what it reads, and what it does.
pub struct Step {
    line: &'static str,
    input: &'static str,
    exit: i32,
    /// What standard output and standard error say, in this order.
    says: &'static [&'static str],
}

/// A step that succeeds.
pub const fn done(line: &'static str, input: &'static str, says: &'static [&'static str]) -> Step {
    Step { line, input, exit: 0, says }
}

/// A step that fails.
pub const fn refused(
    line: &'static str,
    input: &'static str,
    says: &'static [&'static str],
) -> Step {
    Step { line, input, exit: 1, says }
}

const START: &str = "
- apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: blue}
  spec: {cidr: 10.7.0.0/24}
- apiVersion: projectcalico.org/v3
  kind: Node
  metadata: {name: n1}
";

/// The words of a line; what stands between single quotes is one.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(number, part)| match number % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

fn run(session: &Session, cluster: &Cluster) -> Result<(), String> {
    cluster.store.clear();
    let answer = cluster.weirctl_with(&["create", "-f", "-"], START);
    assert!(answer.succeeded, "{answer:?}");
    for step in session.steps {
        let words = words(step.line);
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let answer = cluster.weirctl_with(&arguments, step.input);
        let output = format!("{}{}", answer.stdout, answer.stderr);
        let mut rest = output.as_str();
        let says = step.says.iter().all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        });
        if answer.status != Some(step.exit) || !says {
            let (name, line, exit) = (session.name, step.line, answer.status);
            return Err(format!("{name}: weirctl {line}: {exit:?}: {output}"));
        }
    }
    Ok(())
}

fn run_all(cluster: &Cluster) {
    let of_kinds = bgp::SESSIONS.iter().chain(felix::SESSIONS);
    let sessions = of_kinds.chain(documents::SESSIONS).chain(lines::SESSIONS);
    let failures: Vec<_> = sessions.filter_map(|session| run(session, cluster).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn on_the_embedded_store() {
    run_all(&Cluster::embedded());
}

#[test]
fn on_etcd() {
    run_all(&Cluster::etcd());
}
