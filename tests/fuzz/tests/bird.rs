//! What is printed for BIRD is what BIRD itself takes.

use std::process::Command;

use weir_common::network::BirdConfiguration;
use weir_fuzz::bird;

/// How many plans; BIRD takes 4 ms for each.
const PLANS: u64 = 500;

/// Bytes that are the same for the same seed (xorshift).
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..600).map(|_| next()).collect()
}

#[test]
fn bird_takes_every_plan() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bird.conf");
    let mut sessions = 0;
    for seed in 0..PLANS {
        let (plan, passwords) = bird::plan(&bytes(seed));
        let configuration = BirdConfiguration::of(&plan, &passwords);
        bird::assert_sound(&plan, &passwords, &configuration);
        sessions += configuration.text.matches("\nprotocol bgp ").count();
        std::fs::write(&path, &configuration.text).expect("a file");
        let checked = Command::new("bird").arg("-p").arg("-c").arg(&path).output();
        let checked = checked.expect("bird (package bird2) must be installed");
        let words = String::from_utf8_lossy(&checked.stderr);
        assert!(
            checked.status.success(),
            "{seed}: {words}\n{}\n{:?}",
            configuration.text,
            configuration.problems
        );
    }
    assert!(sessions as u64 > PLANS / 4, "only {sessions} sessions");
}
