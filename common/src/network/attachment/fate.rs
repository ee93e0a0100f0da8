//! Which links of a node belong to no attachment that lives.

use std::collections::BTreeSet;

use super::identity::AttachmentIdentity;
use crate::ipam::collect::AttachmentName;

/// What is to become of a link that Weir made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is another network's, or of an attachment that lives.
    Keep,
    /// It goes.
    Remove,
    /// It goes unless it gets its alias meanwhile: an ADD left it half-made, or is
    /// at it right now.
    RemoveIfUnfinished,
}

/// Decides on the link of that name, whose alias records `identity`; `None` for
/// one without alias, of which only the name tells, and only to whom it does not
/// belong. `valid` are the attachments of `network` that live (spec: "GC").
pub fn fate(
    name: &str,
    identity: Option<&AttachmentIdentity>,
    network: &str,
    valid: &BTreeSet<AttachmentName>,
) -> Fate {
    let Some(identity) = identity else {
        let is_named = |attachment: &AttachmentName| {
            let AttachmentName { container_id, interface } = attachment;
            AttachmentIdentity::new(network, container_id, interface)
                .is_ok_and(|identity| identity.host_interface() == name)
        };
        let lives = valid.iter().any(is_named);
        return if lives { Fate::Keep } else { Fate::RemoveIfUnfinished };
    };
    let stays = identity.network() != network || valid.contains(&identity.name());
    if stays { Fate::Keep } else { Fate::Remove }
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
            let stays = network == "other" || lives;
            let decided = fate(&link, Some(&identity), "pods", &valid);
            prop_assert_eq!(decided, if stays { Fate::Keep } else { Fate::Remove });
            let unfinished = fate(&link, None, "pods", &valid);
            let kept = network == "pods" && lives;
            prop_assert_eq!(unfinished == Fate::Keep, kept);
            prop_assert_ne!(unfinished, Fate::Remove);
        }
    }
}
