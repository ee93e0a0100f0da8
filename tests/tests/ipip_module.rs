//! Weir alone makes the kernel load ipip. Needs a kernel that could and has not yet, and
//! that nobody else uses: `scripts/guest-kernel.sh --emulate`.

use std::path::Path;

use serde_json::json;
use weir_tests::{Fleet, Subnet};

fn is_loaded() -> bool {
    Path::new("/sys/module/ipip").exists()
}

#[test]
fn an_add_makes_the_kernel_load_ipip() {
    assert!(!is_loaded(), "run this by \"scripts/guest-kernel.sh --emulate\"");
    let fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    (0..2).for_each(|member| fleet.register(member));
    let spec = |mode| json!({"cidr": "10.62.0.0/24", "blockSize": 28, "ipipMode": mode});
    fleet.apply_pool("blue", spec("Never"));
    fleet.named_pod(0, "blue", "before");
    assert!(!is_loaded(), "no pool has asked for it");
    fleet.apply_pool("blue", spec("Always"));
    fleet.named_pod(0, "blue", "after");
    assert!(is_loaded() && fleet.members[0].has_tunnel());
}
