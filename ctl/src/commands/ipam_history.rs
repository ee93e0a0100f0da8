//! `weirctl ipam history`: who had an address when, as it was recorded on this node.

use clap::Args;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weir_common::ipam::history::{HistoryQuestion, Moment, PastTenures, Tenure, answer};

use crate::location::Location;
use crate::output::{Style, boxed, json, line, yaml};
use crate::recorded::RecordedHistory;
use crate::session::{CommandResult, Failure};

/// Arguments of `weirctl ipam history`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Reads, as root, what the embedded datastore has recorded of itself, else \
                  /var/lib/weir/history, where this node's agent records the blocks of all nodes. \
                  Times are in UTC where no offset is written.\nExit status 1 when changes around \
                  that time were not seen.\n\nExamples:\n  \
                  weirctl ipam history 10.7.3.9\n  \
                  weirctl ipam history 10.7.3.9 --at '2026-11-24 14:02'\n  \
                  weirctl ipam history shop/cart-0 --at -2h")]
pub struct HistoryArgs {
    /// An address, or a container by its id, pod (perhaps NAMESPACE/POD) or handle
    #[arg(value_name = "ADDRESS|CONTAINER")]
    pub what: String,
    /// Only what was so at this time: 2026-11-24T14:02:00+01:00, '2026-11-24 14:02', or -2h for
    /// two hours ago
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub at: Option<String>,
    /// Print it as JSON or YAML; docs/weirctl.md has the fields
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json", "yaml"])]
    pub output: Option<String>,
}

/// Answers from what is recorded of the datastore at `location`.
///
/// # Errors
/// [`Failure`] when that cannot be read, the time is none, or nothing is known of it.
pub async fn run(
    arguments: &HistoryArgs,
    location: &Location,
    now: Timestamp,
    style: Style,
) -> CommandResult {
    let recorded = RecordedHistory::of(&location.configuration).await.map_err(Failure::new)?;
    run_on(recorded, arguments, now, style)
}

fn run_on(
    recorded: RecordedHistory,
    arguments: &HistoryArgs,
    now: Timestamp,
    style: Style,
) -> CommandResult {
    let at = arguments.at.as_deref().map(|text| parse_time(text, now)).transpose()?;
    let wanted = match arguments.what.parse() {
        Ok(address) => HistoryQuestion::Address(address),
        Err(_) => HistoryQuestion::Container(arguments.what.clone()),
    };
    let RecordedHistory { records, recorder } = recorded;
    let mut answer = answer(&wanted, records);
    let (Some(since), Some(until)) = (answer.since, answer.until) else {
        return Err(Failure::new(
            "nothing is recorded on this node yet; with etcd its agent does that, so start it: \
             weirctl node run",
        ));
    };
    let is_live = now <= until + SLACK;
    answer.until = Some(if is_live { now } else { until });
    if let Some(at) = at {
        answer.tenures.retain(|tenure| tenure.covers(at).is_some());
    }
    let is_known = at.is_none_or(|at| answer.is_known(at));
    let output = match arguments.output.as_deref() {
        Some("yaml") => yaml::document(&value(&answer, at, is_known)),
        Some(_) => json::document(&value(&answer, at, is_known)),
        None => {
            let open_end = if is_live { "now".to_owned() } else { format!("after {until}") };
            text(&answer, (&arguments.what, at.filter(|_| is_known)), &open_end, style)
        }
    };
    match at.filter(|_| !is_known) {
        None => Ok(output),
        Some(at) => Err(Failure {
            output,
            message: format!(
                "what changed around {at} was not seen; {recorder} has recorded from {since} until \
                 {until}{}",
                but_for(&answer.gaps)
            ),
        }),
    }
}

/// How long ago the agent's last sign of life is while it runs and nothing changes.
const SLACK: SignedDuration = SignedDuration::from_mins(2);

fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let ago = || now.checked_sub(text.strip_prefix('-')?.parse::<SignedDuration>().ok()?).ok();
    let in_utc = || TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok();
    let time = text.parse().ok().or_else(ago).or_else(in_utc);
    time.filter(|time| *time <= now).ok_or_else(|| {
        Failure::new(format!(
            "--at {text:?} is not a time in the past; write for example 2026-11-24T14:02:00Z, \
             '2026-11-24 14:02' (UTC), or -2h"
        ))
    })
}

fn but_for(gaps: &[(Timestamp, Timestamp)]) -> String {
    match gaps.last() {
        None => String::new(),
        Some((after, at)) => {
            format!(", with {} gap(s), the last one from {after} until {at}", gaps.len())
        }
    }
}

fn text(
    answer: &PastTenures,
    (what, known_at): (&str, Option<Timestamp>),
    open_end: &str,
    style: Style,
) -> String {
    if !answer.tenures.is_empty() {
        let rows = answer.tenures.iter().map(|tenure| row(tenure, open_end));
        return boxed::table(&HEADER, &rows.collect::<Vec<_>>(), style);
    }
    line(&match known_at {
        Some(at) => format!("Nothing is recorded of {what} at {at}: not in use"),
        None => format!("Nothing is recorded of {what}"),
    })
}

const HEADER: [&str; 7] = ["IP", "FROM", "UNTIL", "NODE", "ALLOCATED-TO", "INTERFACE", "HANDLE"];

fn row(tenure: &Tenure, open_end: &str) -> Vec<String> {
    let holder = &tenure.holder;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = match &holder.pod {
        Some(pod) => format!("{}/{pod}", text(&holder.namespace)),
        None => text(&holder.use_type),
    };
    vec![
        tenure.address.to_string(),
        moment(tenure.from),
        tenure.until.map_or_else(|| open_end.to_owned(), moment),
        text(&holder.node),
        name,
        text(&holder.interface),
        text(&holder.handle),
    ]
}

/// A moment, as far as it is known.
pub fn moment(moment: Moment) -> String {
    match moment.after {
        None => moment.at.to_string(),
        Some(after) if after == Timestamp::UNIX_EPOCH => format!("before {}", moment.at),
        Some(after) => format!("between {after} and {}", moment.at),
    }
}

fn value(answer: &PastTenures, at: Option<Timestamp>, is_known: bool) -> Value {
    let time = |time: Timestamp| time.to_string();
    let holder = |tenure: &Tenure| {
        let holder = &tenure.holder;
        let is_certain = |at| is_known && tenure.covers(at) == Some(true);
        json!({
            "address": tenure.address,
            "fromEarliest": time(tenure.from.earliest()),
            "from": time(tenure.from.at),
            "untilEarliest": tenure.until.map(|until| time(until.earliest())),
            "until": tenure.until.map(|until| time(until.at)),
            "certain": at.map(is_certain),
            "handle": holder.handle,
            "container": holder.container(),
            "node": holder.node,
            "namespace": holder.namespace,
            "pod": holder.pod,
            "interface": holder.interface,
            "network": holder.network,
            "type": holder.use_type,
        })
    };
    let gap =
        |(after, at): &(Timestamp, Timestamp)| json!({"from": time(*after), "until": time(*at)});
    json!({
        "at": at.map(time),
        "recordedFrom": answer.since.map(time),
        "recordedUntil": answer.until.map(time),
        "gaps": answer.gaps.iter().map(gap).collect::<Value>(),
        "holders": answer.tenures.iter().map(holder).collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::tests::golden::{WIDTHS, check, style};

    const NOW: i64 = 1_795_500_000_000;

    /// An address of two pods, one of which was released while the agent was away; a tunnel's;
    /// one of a handle that would clear the screen.
    const RECORDS: &str = r#"{"t":1795400000000}
{"t":1795400000000,"b":0,"a":"10.7.3.9","o":{"h":"pods.c0ffee0123456789","n":"n1","s":"shop","p":"cart-0","i":"eth0"}}
{"t":1795400000000,"a":"10.7.3.1","o":{"h":"ipip-tunnel-addr-n1","n":"n1","y":"ipipTunnelAddress"}}
{"t":1795410000500,"a":"10.7.3.10","o":{"h":"pods.\u001b[2J","n":"n1","i":"eth0"}}
{"t":1795420000000,"b":1795410000500,"a":"10.7.3.9"}
{"t":1795420000000,"b":1795410000500}
{"t":1795430000000,"a":"10.7.3.9","o":{"h":"pods.decaf00123456789","n":"n2","s":"shop","p":"cart-1","i":"eth0"}}
{"t":1795430001000,"a":"10.7.3.10"}
{"t":17954400"#;

    fn answer_to(line: &str, records: &str, now: i64, style: Style) -> CommandResult {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("history");
        std::fs::write(&file, records).unwrap();
        #[derive(clap::Parser)]
        struct Parsed {
            #[command(flatten)]
            arguments: HistoryArgs,
        }
        let words = std::iter::once("history").chain(line.split(' '));
        let parsed = <Parsed as clap::Parser>::parse_from(words);
        let now = Timestamp::from_millisecond(now).unwrap();
        let recorded = RecordedHistory::of_agent(&file).unwrap();
        run_on(recorded, &parsed.arguments, now, style)
    }

    #[test]
    fn holders_are_shown() {
        let lines = [
            "10.7.3.9",
            "10.7.3.9 -o json --at 2026-11-24T20:00",
            "10.7.3.9 --at 2026-11-23T03:00:00Z",
            "10.7.3.9 --at 2026-11-23T00:00:00+00:00",
            "10.7.3.9 --at -5h",
            "10.7.3.9 --at tomorrow",
            "10.7.3.9 --at 2036-11-24T20:00",
            "10.7.3.10 -o yaml",
            "10.7.3.10",
            "10.7.3.11",
            "c0ffee01",
            "c0ffee",
            "shop/cart-1",
            "cart-0",
            "other/cart-0",
            "ipip-tunnel-addr-n1",
        ];
        for width in WIDTHS {
            let mut text = String::new();
            for (now, records) in [(NOW, RECORDS.to_owned()), (NOW, live()), (NOW, String::new())] {
                for line in lines {
                    let (output, message) = match answer_to(line, &records, now, style(width)) {
                        Ok(output) => (output, String::new()),
                        Err(failure) => (failure.output, format!("{}\n", failure.message)),
                    };
                    write!(text, "$ weirctl ipam history {line}\n{output}{message}\n").unwrap();
                    if records.is_empty() {
                        break;
                    }
                }
            }
            assert!(!text.contains('\u{1b}'));
            check("ipam-history", width, &text);
        }
    }

    /// The same, and the agent still runs.
    fn live() -> String {
        format!("{RECORDS}\n{{\"t\":{}}}\n", NOW - 30_000)
    }

    #[test]
    fn times_are_read_in_each_form() {
        let now = "2026-11-24T16:00:00Z".parse().unwrap();
        let expected = "2026-11-24T14:02:00Z".parse::<Timestamp>().unwrap();
        for text in [
            "2026-11-24T14:02:00Z",
            "2026-11-24T15:02:00+01:00",
            "2026-11-24 14:02",
            "2026-11-24T14:02",
            "-1h58m",
            "-118m",
        ] {
            assert_eq!(parse_time(text, now).unwrap(), expected, "{text}");
        }
        for text in
            ["", "-", "-x", "2h", "yesterday", "2026-11-24T16:00:01Z", "--2h", "-9999999999h"]
        {
            assert!(parse_time(text, now).is_err(), "{text}");
        }
    }
}
