//! Which links of a node belong to no attachment that lives.

use std::collections::BTreeSet;

use super::identity::AttachmentIdentity;
use crate::ipam::collect::AttachmentName;

/// Whether the link of that name, which Weir made and whose alias records `identity`, goes:
/// `valid` are the attachments of `network` that live (spec: "GC"). Of one without alias, as an
/// ADD leaves it half-made or has it right now, only the name tells, and only to which
/// attachments it does not belong.
pub fn is_unlisted(
    name: &str,
    identity: Option<&AttachmentIdentity>,
    network: &str,
    valid: &BTreeSet<AttachmentName>,
) -> bool {
    let Some(identity) = identity else {
        let is_named = |attachment: &AttachmentName| {
            let AttachmentName { container_id, interface } = attachment;
            AttachmentIdentity::new(network, container_id, interface)
                .is_ok_and(|identity| identity.host_interface() == name)
        };
        return !valid.iter().any(is_named);
    };
    identity.network() == network && !valid.contains(&identity.name())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(container: u8) -> AttachmentName {
        AttachmentName { container_id: format!("c{container}"), interface: "eth0".to_owned() }
    }

    fn identity(network: &str, container: u8) -> AttachmentIdentity {
        AttachmentIdentity::new(network, format!("c{container}"), "eth0").unwrap()
    }

    proptest! {
        #[test]
        fn what_lives_stays_and_the_rest_of_the_network_goes(
            container in 0u8..5,
            network in prop_oneof![Just("pods"), Just("other")],
            valid in prop::collection::btree_set((0u8..5).prop_map(name), 0..5),
        ) {
            let identity = identity(network, container);
            let link = identity.host_interface();
            let lives = valid.contains(&name(container));
            prop_assert_eq!(
                is_unlisted(&link, Some(&identity), "pods", &valid),
                network == "pods" && !lives
            );
            let kept = network == "pods" && lives;
            prop_assert_eq!(is_unlisted(&link, None, "pods", &valid), !kept);
        }
    }
}
