//! The history of addresses against a model that remembers every moment.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use proptest::prelude::*;
use weir_common::ipam::history::{HistoryQuestion, Ledger, Moment, Record, answer, present};
use weir_common::ipam::{ATTRIBUTE_NODE, Attribute, Block};

const BLOCKS: [&str; 2] = ["10.7.3.0/30", "fd00::40/126"];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_400_000 + second).unwrap()
}

fn holder(number: u8) -> Attribute {
    let facts = [(ATTRIBUTE_NODE.to_owned(), format!("n{}", number % 2))].into();
    let handle_id = Some(format!("pods.container{number}"));
    Attribute { handle_id, secondary: Some(facts), ..Attribute::default() }
}

fn blocks() -> BTreeMap<IpNet, Block> {
    let blocks = BLOCKS.map(|cidr| cidr.parse().unwrap());
    blocks.into_iter().map(|cidr| (cidr, Block::new(cidr, "n1", 1))).collect()
}

/// Who has each address.
fn holders(blocks: &BTreeMap<IpNet, Block>) -> BTreeMap<IpAddr, String> {
    let of_block = |block: &Block| {
        let handle = |ordinal| block.holder(ordinal)?.handle_id.clone();
        let held = (0..block.allocations.len())
            .filter_map(|ordinal| Some((block.address(ordinal), handle(ordinal)?)));
        held.collect::<Vec<_>>()
    };
    blocks.values().flat_map(of_block).collect()
}

#[derive(Clone, Debug)]
enum Step {
    /// An ordinal of a block gets this holder, or none.
    Set(usize, usize, Option<u8>),
    /// A block is deleted.
    Delete(usize),
    /// The agent ends, and its next run lists; meanwhile all this happens.
    Restart(Vec<(usize, usize, Option<u8>)>),
    /// The file is set aside, and the next begins with what is so.
    Rotate,
}

fn change() -> impl Strategy<Value = (usize, usize, Option<u8>)> {
    (0..2_usize, 0..4_usize, proptest::option::of(0..5_u8))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => change().prop_map(|(block, ordinal, holder)| Step::Set(block, ordinal, holder)),
        1 => (0..2_usize).prop_map(Step::Delete),
        1 => proptest::collection::vec(change(), 0..4).prop_map(Step::Restart),
        1 => Just(Step::Rotate),
    ]
}

fn set(
    blocks: &mut BTreeMap<IpNet, Block>,
    (block, ordinal, to): (usize, usize, Option<u8>),
) -> IpNet {
    let cidr: IpNet = BLOCKS[block].parse().unwrap();
    let block = blocks.entry(cidr).or_insert_with(|| Block::new(cidr, "n1", 1));
    block.release(&[ordinal]);
    if let Some(number) = to {
        block.assign(ordinal, holder(number));
    }
    cidr
}

/// The lines as read again.
fn read(lines: &[String]) -> Vec<Record> {
    lines.iter().map(|line| Record::read(line.trim_end()).unwrap()).collect()
}

proptest! {
    #[test]
    fn every_moment_is_answered_as_it_was(steps in proptest::collection::vec(step(), 1..40)) {
        let (mut blocks, mut ledger) = (blocks(), Ledger::default());
        let mut lines = vec![Record::of_life(at(0)).line()];
        // Who had what after each step, and whether the change was seen as it happened.
        let mut model = vec![(holders(&blocks), true)];
        for (number, step) in (1..).zip(&steps) {
            let now = Moment::exactly(at(number * 10));
            let mut is_seen = true;
            let records = match step {
                Step::Set(block, ordinal, to) => {
                    let cidr = set(&mut blocks, (*block, *ordinal, *to));
                    ledger.take(&blocks[&cidr], now)
                }
                Step::Delete(block) => {
                    let cidr = BLOCKS[*block].parse().unwrap();
                    blocks.remove(&cidr);
                    ledger.drop_block(cidr, now)
                }
                Step::Restart(changes) => {
                    is_seen = false;
                    changes.iter().for_each(|change| {
                        set(&mut blocks, *change);
                    });
                    ledger = Ledger::of(read(&lines));
                    // A listing that breaks off changes nothing.
                    ledger.begin_listing();
                    ledger.keep(BLOCKS[0].parse().unwrap());
                    ledger.begin_listing();
                    let gap = Moment { after: Some(at(number * 10 - 10)), at: now.at };
                    let found = blocks.values().flat_map(|block| ledger.take(block, gap));
                    let mut records: Vec<Record> = found.collect();
                    records.extend(ledger.end_listing(gap));
                    records
                }
                Step::Rotate => present(read(&lines)).into_values().collect(),
            };
            lines.extend(records.iter().map(Record::line));
            model.push((holders(&blocks), is_seen));
        }
        let records = read(&lines);
        for cidr in BLOCKS {
            for address in cidr.parse::<IpNet>().unwrap().hosts() {
                let said = answer(&HistoryQuestion::Address(address), records.clone());
                for (number, (holders, _)) in model.iter().enumerate() {
                    let time = at(number as i64 * 10 + 1);
                    let is_gap_ahead = model.get(number + 1).is_some_and(|(_, is_seen)| !is_seen);
                    let sure: Vec<_> = said.tenures.iter().filter(|it| it.covers(time) == Some(true)).collect();
                    let perhaps = said.tenures.iter().filter(|it| it.covers(time).is_some());
                    let expected = holders.get(&address);
                    if let Some(name) = expected {
                        prop_assert!(perhaps.clone().any(|it| it.holder.handle.as_ref() == Some(name)), "{address} {number}");
                    }
                    if !is_gap_ahead {
                        let found = sure.first().and_then(|it| it.holder.handle.as_ref());
                        prop_assert_eq!(found, expected, "{} after step {}", address, number);
                    }
                    prop_assert!(sure.len() <= 1);
                }
            }
        }
        // By container the same holds as by address.
        for number in 0..5_u8 {
            let name = format!("container{number}");
            let said = answer(&HistoryQuestion::Container(name.clone()), records.clone());
            for (step, (holders, _)) in model.iter().enumerate() {
                if model.get(step + 1).is_some_and(|(_, is_seen)| !is_seen) {
                    continue;
                }
                let time = at(step as i64 * 10 + 1);
                let mut found: Vec<IpAddr> = said.tenures.iter()
                    .filter(|it| it.covers(time) == Some(true)).map(|it| it.address).collect();
                found.sort();
                let own = holders.iter().filter(|(_, handle)| **handle == format!("pods.{name}"));
                prop_assert_eq!(found, own.map(|(address, _)| *address).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_gap_is_not_taken_for_knowledge() {
    let records =
        [Record::of_life(at(0)), Record::of_gap(at(60), at(600)), Record::of_life(at(900))];
    let said = answer(&HistoryQuestion::Container("c".to_owned()), records);
    for (second, is_known) in [(-1, false), (30, true), (300, false), (600, true), (901, false)] {
        assert_eq!(said.is_known(at(second)), is_known, "{second}");
    }
}

#[test]
fn an_assignment_in_a_gap_has_the_time_that_it_names() {
    let made = |second| {
        let mut attribute = holder(1);
        let time = at(second).strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string();
        attribute.secondary.as_mut().unwrap().insert("timestamp".to_owned(), time);
        attribute
    };
    let gap = Moment { after: Some(at(100)), at: at(200) };
    for (second, had_another, expected) in [
        (150, false, Moment::exactly(at(150))),
        (50, false, Moment::exactly(at(50))),
        (50, true, gap),
        (250, false, gap),
    ] {
        let mut block = Block::new(BLOCKS[0].parse().unwrap(), "n1", 1);
        let mut ledger = Ledger::default();
        if had_another {
            block.assign(0, holder(2));
            ledger.take(&block, Moment::exactly(at(90)));
        }
        block.release(&[0]);
        block.assign(0, made(second));
        let records = ledger.take(&block, gap);
        assert_eq!(records.iter().map(Record::moment).collect::<Vec<_>>(), [expected], "{second}");
    }
}

/// What a change costs in the file, with a handle of Kubernetes.
#[test]
fn a_record_is_short() {
    let names = [
        ("node", "worker-17"),
        ("namespace", "shop"),
        ("pod", "cart-7d9f8b6c5-x2x9z"),
        ("interface", "eth0"),
    ];
    let facts = names.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let handle_id = Some(format!("k8s-pod-network.{}", "c0ffee01".repeat(8)));
    let mut block = Block::new(BLOCKS[0].parse().unwrap(), "n1", 1);
    block.assign(1, Attribute { handle_id, secondary: Some(facts.into()), ..Attribute::default() });
    let mut ledger = Ledger::default();
    let assigned = ledger.take(&block, Moment::exactly(at(0)))[0].line();
    block.release(&[1]);
    let released = ledger.take(&block, Moment::exactly(at(1)))[0].line();
    assert!(assigned.len() < 220 && released.len() < 60, "{} {}", assigned, released);
}
