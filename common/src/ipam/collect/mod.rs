//! Which addresses a host gives back because their attachments are gone: GC of
//! the CNI specification, and what a reboot left.
//!
//! Always of one network and one host: a runtime's list says nothing about other
//! networks, and nothing about other hosts that share the datastore.

mod engine;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::allocation::Allocation;
use super::assignee::is_ambiguous;
use super::block::{
    ATTRIBUTE_BOOT, ATTRIBUTE_MACHINE, ATTRIBUTE_NETWORK, ATTRIBUTE_NODE, Attribute, Block,
};
use super::machine::MachineId;
use super::ownership::Ownership;

pub use engine::{Claim, CollectScope, Collected, collect, collect_few, collect_own_and};

/// The longest that one ADD takes (`docs/audit.md`): an address that is younger
/// may still be on its way into the kernel.
pub const CALL_DEADLINE: SignedDuration = SignedDuration::from_secs(60);

/// Whether the ADD that made an allocation may still be at work. One that is stamped further
/// in the future was made before the clock was set back.
pub fn may_be_in_progress(made: Timestamp, now: Timestamp) -> bool {
    now.duration_since(made).abs() < CALL_DEADLINE
}

/// An attachment as the runtime names it within one network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentName {
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_IFNAME`
    pub interface: String,
}

/// What is to be given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// The host; other hosts' allocations stay, in whatever block they are.
    pub host: String,
    /// The machine; what others have under the host's name stays.
    pub machine: Option<MachineId>,
    /// The network; other networks' allocations stay.
    pub network: String,
    /// Which of these.
    pub rule: Rule,
}

/// How an attachment is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It is gone unless it is one of these: the runtime's list is authoritative
    /// (spec: "GC").
    Listed(BTreeSet<AttachmentName>),
    /// It is gone only when that can be proved.
    Proved(Evidence),
}

/// What proves an attachment dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The id of the host's present boot. An attachment that was made under
    /// another one died with it.
    pub boot_id: Option<String>,
    /// Attachments of the network that live, whatever else is known of them: they
    /// have a link, or are being made right now.
    pub alive: BTreeSet<AttachmentName>,
    /// Where every attachment of the network has a link, the present moment: one that is not
    /// `alive`, and whose ADD is over ([`may_be_in_progress`]), is dead.
    pub all_linked_at: Option<Timestamp>,
    /// Where an address may be older than what shows that it is in use: what was made since
    /// then may live.
    pub made_before: Option<Timestamp>,
}

impl Collection {
    /// The ordinals of a block to give back, where the host's name is `recorded` for a
    /// machine.
    pub fn stale(&self, block: &Block, recorded: Option<&MachineId>) -> Vec<usize> {
        let of_machine =
            |holder: &Attribute| self.is_of_host(holder) && self.is_own(holder, recorded);
        let is_stale = |ordinal: &usize| {
            let allocation = Allocation::read(block, *ordinal);
            let made = allocation.and_then(|allocation| allocation.made);
            block.holder(*ordinal).is_some_and(|holder| self.is_stale(holder, made))
        };
        block.held_by(of_machine).into_iter().filter(is_stale).collect()
    }

    /// How many addresses of a block another machine of the host's name has in the network:
    /// they are not judged.
    pub fn of_other_machines(&self, block: &Block, recorded: Option<&MachineId>) -> usize {
        let is_others = |holder: &Attribute| {
            self.is_of_host(holder)
                && container_of(holder, &self.network).is_some()
                && !self.is_own(holder, recorded)
        };
        block.held_by(is_others).len()
    }

    /// How many addresses of a block Calico assigned on the host that are not judged: they name
    /// no interface, and the runtime's list, if there is one, cannot name them, as they are not
    /// of this network or say of none (Calico 2). One without a node counts where the block is
    /// the host's.
    pub fn of_calico(&self, block: &Block, recorded: Option<&MachineId>) -> usize {
        let is_listed = |holder: &Attribute| {
            matches!(self.rule, Rule::Listed(_))
                && self.is_of_host(holder)
                && container_of(holder, &self.network).is_some()
        };
        let is_unjudged = |holder: &Attribute| {
            holder.interface().is_none()
                && match holder.fact(ATTRIBUTE_NODE) {
                    Some(node) => node == self.host,
                    None => block.host() == Some(&self.host),
                }
                && self.is_own(holder, recorded)
                && !is_listed(holder)
        };
        let needs_kernel = |ordinal: &usize| {
            let allocation = Allocation::read(block, *ordinal);
            allocation.is_some_and(|it| it.needs_kernel() && !it.is_of_other_use())
        };
        block.held_by(is_unjudged).iter().filter(|it| needs_kernel(it)).count()
    }

    fn is_of_host(&self, holder: &Attribute) -> bool {
        holder.fact(ATTRIBUTE_NODE) == Some(&self.host) && !holder.is_cooling_down()
    }

    fn is_own(&self, holder: &Attribute, recorded: Option<&MachineId>) -> bool {
        Ownership::new(self.machine.as_ref(), recorded).is_own(holder.fact(ATTRIBUTE_MACHINE))
    }

    /// The attachment of the collection's network that an allocation names; `None` for one
    /// of Calico's, which names no interface.
    fn attachment(&self, holder: &Attribute) -> Option<AttachmentName> {
        let container = container_of(holder, &self.network)?;
        let interface = holder.interface()?.to_owned();
        Some(AttachmentName { container_id: container.to_owned(), interface })
    }

    fn is_stale(&self, holder: &Attribute, made: Option<Timestamp>) -> bool {
        if !self.is_of_host(holder) {
            return false;
        }
        let Some(container) = container_of(holder, &self.network) else { return false };
        match &self.rule {
            Rule::Listed(valid) => !names(valid, holder, container),
            Rule::Proved(evidence) => evidence.proves_dead(holder, container, made),
        }
    }
}

impl Evidence {
    /// An allocation of Calico's names no interface; its link is not known to
    /// Weir, nor the boot under which it was made.
    fn proves_dead(&self, holder: &Attribute, container: &str, made: Option<Timestamp>) -> bool {
        if holder.interface().is_none() || names(&self.alive, holder, container) {
            return false;
        }
        let earlier_boot = match (holder.fact(ATTRIBUTE_BOOT), self.boot_id.as_deref()) {
            (Some(made_under), Some(present)) => made_under != present,
            _ => false,
        };
        let link_lost =
            self.all_linked_at.zip(made).is_some_and(|(now, made)| !may_be_in_progress(made, now));
        let is_old = self.made_before.is_none_or(|before| made.is_some_and(|made| made < before));
        earlier_boot || link_lost && is_old
    }
}

/// Whether one of the attachments has this allocation; one without an interface
/// belongs to every interface of its container.
fn names(attachments: &BTreeSet<AttachmentName>, holder: &Attribute, container: &str) -> bool {
    let first = AttachmentName { container_id: container.to_owned(), interface: String::new() };
    let of_container =
        attachments.range(first..).take_while(|attachment| attachment.container_id == container);
    let mut interfaces = of_container.map(|attachment| attachment.interface.as_str());
    interfaces.any(|interface| holder.interface().is_none_or(|held| held == interface))
}

/// The container of an allocation of this network.
///
/// Both parts of a handle may hold dots, so that `a.b.c` may be of network `a` or
/// of `a.b`. Such an allocation says of which it is; one that does not is of
/// neither, and so is never given back by mistake.
fn container_of<'a>(holder: &'a Attribute, network: &str) -> Option<&'a str> {
    let handle = holder.handle_id.as_deref()?;
    let container = handle.strip_prefix(network)?.strip_prefix('.')?;
    let is_of_network = match holder.fact(ATTRIBUTE_NETWORK) {
        Some(named) => named == network,
        None => !is_ambiguous(handle),
    };
    is_of_network.then_some(container)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ipam::ATTRIBUTE_INTERFACE;

    fn name(container_id: &str, interface: &str) -> AttachmentName {
        AttachmentName { container_id: container_id.to_owned(), interface: interface.to_owned() }
    }

    fn holder(handle: &str, facts: &[(&str, &str)]) -> Attribute {
        let facts = facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Attribute {
            handle_id: Some(handle.to_owned()),
            secondary: Some(facts.collect::<BTreeMap<_, _>>()),
            ..Attribute::default()
        }
    }

    fn collection(rule: Rule) -> Collection {
        let (host, network) = ("n1".to_owned(), "pods".to_owned());
        Collection { host, machine: None, network, rule }
    }

    const OWN: [(&str, &str); 2] = [(ATTRIBUTE_NODE, "n1"), (ATTRIBUTE_INTERFACE, "eth0")];

    #[test]
    fn an_empty_list_drops_what_is_the_hosts_and_the_networks_alone() {
        let drop_all = collection(Rule::Listed(BTreeSet::new()));
        let stale = |holder: &Attribute| drop_all.is_stale(holder, None);
        assert!(stale(&holder("pods.c1", &OWN)));
        assert!(!stale(&holder("pod.c1", &OWN)), "another network");
        assert!(!stale(&holder("podsc1", &OWN)), "no network at all");
        let other_host = [(ATTRIBUTE_NODE, "n2"), (ATTRIBUTE_INTERFACE, "eth0")];
        assert!(!stale(&holder("pods.c1", &other_host)));
        assert!(!stale(&holder("pods.c1", &[])), "of no host that is known");
        assert!(!stale(&Attribute::default()), "reserved");
    }

    #[test]
    fn a_handle_that_can_be_read_in_two_ways_counts_by_what_it_says() {
        let drop_all = collection(Rule::Listed(BTreeSet::new()));
        let stale = |network: Option<&str>| {
            let mut facts = OWN.to_vec();
            facts.extend(network.map(|network| (ATTRIBUTE_NETWORK, network)));
            drop_all.is_stale(&holder("pods.blue.c1", &facts), None)
        };
        assert!(!stale(None));
        assert!(!stale(Some("pods.blue")));
        assert!(stale(Some("pods")));
    }

    #[test]
    fn calicos_allocation_belongs_to_every_interface_of_its_container() {
        let calicos = holder("pods.c1", &[(ATTRIBUTE_NODE, "n1"), ("pod", "cart")]);
        let listed = |names: &[AttachmentName]| {
            collection(Rule::Listed(names.iter().cloned().collect())).is_stale(&calicos, None)
        };
        assert!(!listed(&[name("c1", "net1")]));
        assert!(listed(&[name("c2", "eth0")]));
        let evidence = Evidence {
            boot_id: Some("now".to_owned()),
            alive: BTreeSet::new(),
            all_linked_at: Some(Timestamp::UNIX_EPOCH),
            made_before: None,
        };
        assert!(!collection(Rule::Proved(evidence)).is_stale(&calicos, Some(Timestamp::MIN)));
    }

    #[test]
    fn what_was_stamped_under_a_clock_that_went_wrong_is_found() {
        let now = Timestamp::from_second(1_795_405_217).unwrap();
        let hour = SignedDuration::from_hours(1);
        for made in [now - hour, now + hour, now + hour * 24 * 365] {
            assert!(!may_be_in_progress(made, now), "{made}");
        }
        for seconds in [-59, -1, 0, 1, 59] {
            assert!(may_be_in_progress(now + SignedDuration::from_secs(seconds), now));
        }
    }

    /// An allocation of Weir's for `pods` on `n1`, and when it was made.
    fn any_allocation() -> impl Strategy<Value = (Attribute, Option<Timestamp>)> {
        let boot = prop::option::of(prop_oneof![Just("now"), Just("before")]);
        let made = prop::option::of((0i64..200).prop_map(|s| Timestamp::from_second(s).unwrap()));
        (0u8..4, 0u8..2, boot, made).prop_map(|(container, interface, boot, made)| {
            let interface = format!("eth{interface}");
            let mut facts = vec![(ATTRIBUTE_NODE, "n1"), (ATTRIBUTE_INTERFACE, &interface)];
            facts.extend(boot.map(|boot| (ATTRIBUTE_BOOT, boot)));
            (holder(&format!("pods.c{container}"), &facts), made)
        })
    }

    fn any_names() -> impl Strategy<Value = BTreeSet<AttachmentName>> {
        prop::collection::btree_set(
            (0u8..4, 0u8..2).prop_map(|(container, interface)| {
                name(&format!("c{container}"), &format!("eth{interface}"))
            }),
            0..6,
        )
    }

    proptest! {
        /// The list decides alone.
        #[test]
        fn what_is_listed_stays_and_nothing_else(
            (holder, made) in any_allocation(), listed in any_names(),
        ) {
            let container = container_of(&holder, "pods").unwrap();
            let this = name(container, holder.interface().unwrap());
            let stale = collection(Rule::Listed(listed.clone())).is_stale(&holder, made);
            prop_assert_eq!(stale, !listed.contains(&this));
        }

        /// Without a list what lives is spared, and so is all that may live.
        #[test]
        fn only_what_is_proved_dead_goes(
            (holder, made) in any_allocation(),
            alive in any_names(),
            boot_id in prop::option::of(Just("now".to_owned())),
            now in prop::option::of(0i64..200),
            before in prop::option::of(0i64..200),
        ) {
            let container = container_of(&holder, "pods").unwrap();
            let this = name(container, holder.interface().unwrap());
            let at = |second| Timestamp::from_second(second).unwrap();
            let (now, made_before) = (now.map(at), before.map(at));
            let evidence = Evidence {
                boot_id: boot_id.clone(),
                alive: alive.clone(),
                all_linked_at: now,
                made_before,
            };
            if collection(Rule::Proved(evidence)).is_stale(&holder, made) {
                prop_assert!(!alive.contains(&this));
                let of_earlier_boot = holder.fact(ATTRIBUTE_BOOT) == Some("before") && boot_id.is_some();
                let is_old = made_before.is_none() || made < made_before;
                let is_over = is_old && now.zip(made).is_some_and(|(now, made)| {
                    let apart = now.as_second() - made.as_second();
                    !(-59..=59).contains(&apart)
                });
                prop_assert!(of_earlier_boot || is_over);
            }
        }
    }
}
