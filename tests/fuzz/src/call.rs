//! A CNI call from its variables and its input to its answer: the skeleton, around
//! a plugin that decides as Weir's two do, on a datastore in memory, and leaves
//! processes and the kernel alone.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;

use jiff::Timestamp;
use serde_json::{Value, json};
use weir::attachment::{attachment_of, expected_of, result_of};
use weir_common::cni::skeleton::{Call, Plugin, ProcessIo, run};
use weir_common::cni::{
    AddResult, Code, Error, NodeName, SpecVersion, assigned, assignee_of, check_held, request_of,
};
use weir_common::datastore::keys;
use weir_common::ipam::assign::Request;
use weir_common::ipam::collect::{CollectScope, Collection, Evidence, Rule, collect};
use weir_common::ipam::engine;
use weir_common::ipam::explain::{explain, newcomer};
use weir_common::network::{Expected, Found, Mtu, MtuSource, compare, plan_attachment};
use weir_datastore::Memory;

/// The machine's present boot.
const BOOT: &str = "5e1e0c1a-0000-4000-8000-000000000000";

/// The MTU where the configuration has none.
const MTU: Mtu = Mtu { bytes: 1500, source: MtuSource::Uplink };

/// The moment of every call.
pub const NOW: Timestamp = Timestamp::constant(1_795_405_217, 284_097_480);

/// What a call came to.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The exit status.
    pub status: u8,
    /// What was printed on standard output; null if nothing.
    pub document: Value,
}

/// A store with a pool of each family.
pub fn pools() -> Memory {
    let store = Memory::new();
    for (name, cidr, size) in [("blue", "10.0.0.0/24", 26), ("six", "fd00::/112", 122)] {
        let pool = json!({
            "kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
            "spec": {"cidr": cidr, "blockSize": size, "nodeSelector": "all()"},
        });
        store.seed([(keys::pool(name), pool.to_string().into_bytes())]);
    }
    store
}

/// Waits for what never waits for anything but other tasks.
pub fn finish<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers needs nothing");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

/// Makes a call, and asserts what holds of every answer.
pub fn call(store: &Memory, variables: &BTreeMap<String, OsString>, input: &[u8]) -> Answer {
    let (mut output, mut messages) = (Vec::new(), Vec::new());
    let mut input = input;
    let failures = Cell::new(0);
    let status = run(
        &Pure(store.clone()),
        ProcessIo {
            variable: &|name| variables.get(name).cloned(),
            input: Some(&mut input),
            output: &mut output,
            messages: &mut messages,
            failed: &|_, _| failures.set(failures.get() + 1),
        },
    );
    assert_eq!(failures.get(), u32::from(status), "a failure is told once");
    let document = match output.as_slice() {
        [] => Value::Null,
        [document @ .., b'\n'] => serde_json::from_slice(document).expect("the answer is JSON"),
        _ => panic!("the answer has no end"),
    };
    let answer = Answer { status, document };
    answer.assert_sound();
    answer
}

impl Answer {
    fn assert_sound(&self) {
        let Self { status, document } = self;
        if !document.is_null() {
            assert!(document["cniVersion"].is_string(), "{document}");
        }
        match status {
            0 => assert!(document.get("code").is_none(), "{document}"),
            1 => {
                let code = document["code"].as_u64().expect("an error has a code");
                assert_ne!(code, 0, "{document}");
                assert_ne!(code, u64::from(Code::Internal.number()), "{document}");
                assert!(!document["msg"].as_str().unwrap_or_default().is_empty(), "{document}");
                let version = document["cniVersion"].as_str().unwrap_or_default();
                SpecVersion::parse(version).expect("an error is of a version that there is");
            }
            _ => panic!("exit status {status}"),
        }
    }
}

/// Both plugins, without a process around them.
struct Pure(Memory);

impl Plugin for Pure {
    fn about(&self) -> String {
        "pure".to_owned()
    }

    fn add(&self, call: &Call) -> Result<AddResult, Error> {
        let ipam = call.configuration.require_ipam()?;
        let request = request_of(call, &host(call), None, Some(BOOT))?;
        let result = assigned(ipam, &finish(engine::assign(&self.0, &request, &[], NOW))?);
        let mtu = call.configuration.mtu.map_or(MTU, Mtu::configured);
        let attachment = attachment_of(call, &result, mtu, forwarding(call))?;
        assert!(!plan_attachment(&attachment).is_empty());
        assert_missing(&Expected::of(&attachment));
        Ok(result_of(call, &attachment, result))
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        call.configuration.require_ipam()?;
        finish(engine::release(
            &self.0,
            &assignee_of(call, &host(call), None),
            &Default::default(),
        ))?;
        Ok(())
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        call.configuration.require_ipam()?;
        let result = call.configuration.require_prev_result()?;
        let assignee = assignee_of(call, &host(call), None);
        let held = finish(engine::lookup(&self.0, &assignee))?;
        let reserved = check_held(call, result, &assignee, &held);
        assert_missing(&expected_of(call, result, forwarding(call))?);
        reserved
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        let boot_id = Some(BOOT.to_owned());
        let collection = Collection {
            host: host(call),
            machine: None,
            network: call.configuration.network.clone(),
            rule: match call.configuration.valid_attachments.clone() {
                Some(valid) => Rule::Listed(valid),
                None => Rule::Proved(Evidence { boot_id, ..Evidence::default() }),
            },
        };
        let collected = finish(collect(&self.0, &collection, CollectScope::AllBlocks, &|_| true));
        Error::joined(collected.errors.into_iter().map(Error::from)).map_or(Ok(()), Err)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        let ipam = call.configuration.require_ipam()?;
        let gateways = ipam.gateways.clone();
        let request = Request { gateways, ..newcomer(&host(call), ipam.wants.clone()) };
        let explanation = finish(explain(&self.0, &request, Vec::new(), NOW))?;
        explanation.outcome?;
        Ok(())
    }
}

fn host(call: &Call) -> String {
    match &call.configuration.node_name {
        Ok(NodeName::Given(name)) => name.clone(),
        _ => "n1".to_owned(),
    }
}

fn forwarding(call: &Call) -> Option<bool> {
    Some(call.configuration.allow_ip_forwarding)
}

/// Compares with a kernel that has nothing.
fn assert_missing(expected: &Expected) {
    let differences = compare(expected, &Found::default());
    assert!(differences.iter().all(|difference| !difference.to_string().is_empty()));
    assert!(!differences.is_empty(), "nothing is there");
}
