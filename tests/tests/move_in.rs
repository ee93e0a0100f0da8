//! Weir's agent and plugins take Calico's place on a node of a recorded cluster, as
//! far as that needs no tunnel. `ipip/move_in.rs` has the rest.

use weir_tests::{Families, Moved};

#[test]
fn weir_takes_calicos_place_in_a_small_cluster() {
    let moved = Moved::new("small");
    let routes =
        [("192.168.217.0/26", "via 172.18.0.12 dev eth0"), ("192.168.40.128/26", "blackhole")];
    moved.assert_routes(&routes);
    moved.assert_containers_disturb_nobody(Families::V4);
    moved.assert_routes(&routes);
}
