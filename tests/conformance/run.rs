//! Runs the checks, a few at once, each with a time limit.

use std::any::Any;
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use weir_tests::{Call, Node};

use crate::bench::{Bench, Pair, Role, VERSIONS};
use crate::checks::{self, Check};
use crate::verdict::{Fault, Verdict, list, shortened, told};

/// How many checks run at the same time.
const AT_ONCE: usize = 2;

/// How long one check may take.
const CHECK_LIMIT: Duration = Duration::from_secs(120);

/// What one check found out about one plugin.
pub struct Finding {
    /// The check.
    pub check: Check,
    /// The plugin.
    pub role: Role,
    /// What came out.
    pub verdict: Verdict,
}

/// What was found out about a pair.
pub struct Report {
    /// The plugins: the main one, then the IPAM plugin.
    pub benches: [Bench; 2],
    /// In the order of the clauses.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether some clause does not hold.
    pub fn has_failures(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding.verdict, Err(Fault::Failed(_))))
    }
}

/// Runs all checks, or those that are named or whose clause is. Fails when a plugin is not
/// there or does not say its versions, or nothing of that name is there.
pub fn examine(pair: &Pair, only: &[String]) -> Result<Report, String> {
    let main = claims(pair, &pair.main.name)?;
    let ipam = claims(pair, &pair.ipam.name)?;
    let both = main.iter().copied().filter(|version| ipam.contains(version)).collect();
    let bench = |role, claimed, versions| Bench { pair: pair.clone(), role, claimed, versions };
    let benches = [bench(Role::Main, main, both), bench(Role::Ipam, ipam.clone(), ipam)];
    let mut tasks = Vec::new();
    let is_chosen = |check: &Check| {
        only.is_empty() || only.iter().any(|it| it == check.name || it == check.clause())
    };
    for check in checks::all().into_iter().filter(is_chosen) {
        tasks.extend(benches.iter().filter(|it| check.is_for(it.role)).map(|it| (check, it)));
    }
    if tasks.is_empty() {
        return Err(format!("there is no check or clause {}; see --document", only.join(", ")));
    }
    // What breaks off is a finding, told with the others.
    panic::set_hook(Box::new(|_| {}));
    let findings = run_all(&tasks);
    drop(panic::take_hook());
    Ok(Report { benches, findings })
}

/// The versions that a plugin claims, oldest first.
fn claims(pair: &Pair, name: &str) -> Result<Vec<&'static str>, String> {
    let program = pair.program(name).ok_or_else(|| format!("{name} is not in {}", pair.path()))?;
    let call = Call::at(program, json!({"cniVersion": "1.0.0"}), &pair.path());
    let answer = call.run(&Node::bare("n1"), "VERSION");
    let document: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
    let listed = list(&document, "supportedVersions");
    let claimed = |version: &&str| listed.iter().any(|it| it == version);
    let versions: Vec<_> = VERSIONS.into_iter().filter(claimed).collect();
    if versions.is_empty() {
        return Err(format!("{name} says no version of the specification: {}", told(&answer)));
    }
    Ok(versions)
}

fn run_all(tasks: &[(Check, &Bench)]) -> Vec<Finding> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        while let Some((check, bench)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = run(*check, bench);
            let finding = Finding { check: *check, role: bench.role, verdict };
            done.lock().expect("findings are only put together").push(finding);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let mut findings = done.into_inner().expect("findings are only put together");
    let place = |finding: &Finding| {
        tasks.iter().position(|(check, bench)| {
            check.name == finding.check.name && bench.role == finding.role
        })
    };
    findings.sort_by_key(place);
    findings
}

/// Runs one check. What it made goes with it: its nodes end with their values
/// or, if it does not come to its end, with this process.
fn run(check: Check, bench: &Bench) -> Verdict {
    let (sender, receiver) = channel();
    let bench = bench.clone();
    let thread = thread::spawn(move || sender.send((check.work)(&bench)).is_ok());
    match receiver.recv_timeout(CHECK_LIMIT) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Timeout) => {
            Err(Fault::Failed(format!("not done within {} s", CHECK_LIMIT.as_secs())))
        }
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(cause) => Err(Fault::Failed(shortened(&words(cause.as_ref())))),
            Ok(_) => Err(Fault::Failed("broke off".to_owned())),
        },
    }
}

fn words(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("broke off").to_owned()
}
