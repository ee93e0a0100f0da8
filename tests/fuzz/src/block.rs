//! One stored block: its bytes, and what is done with what they say.

use std::collections::BTreeSet;

use weir_common::ipam::{Attribute, Block};

/// What is read is written alike; every address handed out was free, is taken then,
/// and comes back; what is written can be read.
pub fn run(input: &[u8]) {
    let Ok(block) = Block::from_json(input) else { return };
    assert_eq!(reread(&block), block, "what was read is not what is written");
    let free: Vec<usize> = block.free().collect();
    for ordinal in &free {
        assert!(block.holder(*ordinal).is_none(), "{ordinal} is free and taken");
    }
    let taken: BTreeSet<usize> = block.held_by(|_| true).into_iter().collect();
    let mut changed = block.clone();
    let mut handed_out = BTreeSet::new();
    for _ in 0..3 {
        let Some(ordinal) = changed.free().next() else { break };
        assert!(!taken.contains(&ordinal) && handed_out.insert(ordinal), "{ordinal} twice");
        let handle_id = Some(format!("net.fuzz-{ordinal}"));
        changed.assign(ordinal, Attribute { handle_id, ..Attribute::default() });
        changed.advance();
        let address = changed.address(ordinal);
        assert_eq!(changed.ordinal(address), Some(ordinal));
        assert!(changed.cidr.contains(&address), "{address} is not in {}", changed.cidr);
    }
    let mut changed = reread(&changed);
    let held: BTreeSet<usize> = changed.held_by(|_| true).into_iter().collect();
    assert_eq!(held, taken.union(&handed_out).copied().collect(), "who has what");
    let ordinals: Vec<usize> = handed_out.iter().copied().collect();
    changed.release(&ordinals);
    changed.advance();
    let changed = reread(&changed);
    assert_eq!(changed.held_by(|_| true).into_iter().collect::<BTreeSet<_>>(), taken);
    for ordinal in taken {
        assert_eq!(changed.holder(ordinal), block.holder(ordinal), "the holder of {ordinal}");
    }
}

fn reread(block: &Block) -> Block {
    match Block::from_json(&block.to_json()) {
        Ok(block) => block,
        Err(error) => panic!("what was written cannot be read: {error}"),
    }
}
