//! What a check finds, and the small questions that all checks ask.

use serde_json::Value;
use weir_tests::{Answer, Failure};

/// What a check found: the evidence that the clause holds, or a [`Fault`].
pub type Verdict = Result<String, Fault>;

/// Why a clause was not seen to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not hold. What came out instead.
    Failed(String),
    /// The plugin does not claim what the clause is about.
    NotOffered(String),
}

/// The most characters of a plugin's words that are shown.
const SHOWN: usize = 160;

/// The clause does not hold, for this reason.
pub fn failed<T>(evidence: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Failed(evidence.into()))
}

/// The plugin does not claim it.
pub fn not_offered<T>(reason: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::NotOffered(reason.into()))
}

/// Fails with this evidence unless `holds`.
pub fn ensure(holds: bool, evidence: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { failed(evidence()) }
}

/// What a plugin did, in one line.
pub fn told(answer: &Answer) -> String {
    let status = match answer.status {
        Some(137) | None => "no answer in time".to_owned(),
        Some(status) => format!("exit {status}"),
    };
    let document: Option<Value> = serde_json::from_str(&answer.stdout).ok();
    let code = document.as_ref().and_then(|document| document.get("code"));
    let words = match (&document, code) {
        (Some(document), Some(code)) => format!(
            "code {code}: {} {}",
            document["msg"].as_str().unwrap_or_default(),
            document["details"].as_str().unwrap_or_default()
        ),
        (Some(document), None) => document.to_string(),
        (None, _) if answer.stdout.trim().is_empty() => "nothing on stdout".to_owned(),
        (None, _) => format!("no JSON on stdout: {:?}", answer.stdout.trim()),
    };
    format!("{status}, {}", shortened(&words))
}

/// At most [`SHOWN`] characters, on one line.
pub fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

/// The one JSON document on standard output of a call that succeeded.
pub fn result(answer: &Answer) -> Result<Value, Fault> {
    ensure(answer.succeeded, || told(answer))?;
    serde_json::from_str(&answer.stdout)
        .or_else(|error| failed(format!("{}; not one JSON document: {error}", told(answer))))
}

/// The call succeeded and printed nothing.
pub fn silent(answer: &Answer) -> Result<(), Fault> {
    ensure(answer.succeeded && answer.stdout.trim().is_empty(), || told(answer))
}

/// The call failed and printed one JSON document, an error.
pub fn refused(answer: &Answer) -> Result<Failure, Fault> {
    let document: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
    let (code, message) = (document["code"].as_u64(), document["msg"].as_str());
    match (answer.succeeded, code, message) {
        (false, Some(code), Some(message)) if !message.is_empty() => {
            let details = document["details"].as_str().unwrap_or_default();
            Ok(Failure { code, text: format!("{message} {details}") })
        }
        _ => failed(format!("no error: {}", told(answer))),
    }
}

/// The call failed with this code. Gives what it said.
pub fn refused_with(answer: &Answer, code: u64) -> Result<Failure, Fault> {
    let failure = refused(answer)?;
    ensure(failure.code == code, || format!("instead of code {code}: {}", told(answer)))?;
    Ok(failure)
}

/// Puts what was tried before the evidence.
pub fn about<T>(what: &str, verdict: Result<T, Fault>) -> Result<T, Fault> {
    verdict.map_err(|fault| match fault {
        Fault::Failed(evidence) => Fault::Failed(format!("{what}: {evidence}")),
        fault @ Fault::NotOffered(_) => fault,
    })
}

/// The members of a list, which may be missing.
pub fn list<'a>(document: &'a Value, member: &str) -> &'a [Value] {
    document[member].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The addresses of a result of version 0.3.0 or later, with prefix length.
pub fn addresses(result: &Value) -> Vec<String> {
    let address = |ip: &Value| Some(ip["address"].as_str()?.to_owned());
    list(result, "ips").iter().filter_map(address).collect()
}

/// An address without its prefix length.
pub fn bare(address: &str) -> &str {
    address.split_once('/').map_or(address, |(bare, _)| bare)
}
