//! Whom addresses are assigned to.

use super::block::{ATTRIBUTE_MACHINE, ATTRIBUTE_NETWORK, ATTRIBUTE_NODE, Attribute};
use super::handle_id;
use super::machine::MachineId;
use super::purpose::Purpose;

/// Whom addresses are assigned to: an interface of a container in a network on a
/// host, or the host's tunnel device.
///
/// A handle alone does not say who it is. Several hosts share a datastore, and nothing
/// keeps two of them from using one container id (cnitool's is a hash of the
/// namespace's path). And both parts of a handle may hold dots, so that `a.b.c` may be
/// of network `a` or of `a.b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignee {
    /// The host.
    pub host: String,
    /// The machine that runs under the host's name; `None` where it has no identity.
    pub machine: Option<MachineId>,
    /// The network; `None` for a tunnel device.
    pub network: Option<String>,
    /// The handle, see [`handle_id`].
    pub handle_id: String,
    /// What the addresses are for.
    pub purpose: Purpose,
}

impl Assignee {
    /// The assignee of `interface` (CNI_IFNAME) of the container `container_id`
    /// (CNI_CONTAINERID) in the network named `network` on `host`.
    pub fn interface(host: &str, network: &str, container_id: &str, interface: &str) -> Self {
        Self {
            host: host.to_owned(),
            machine: None,
            network: Some(network.to_owned()),
            handle_id: handle_id(network, container_id),
            purpose: Purpose::Interface(interface.to_owned()),
        }
    }

    /// The same assignee on this machine.
    #[must_use]
    pub fn on(self, machine: Option<MachineId>) -> Self {
        Self { machine, ..self }
    }

    /// Whether an allocation is this assignee's, where the host's name is `recorded` for a
    /// machine.
    ///
    /// Handle, host, network and interface must agree, each as far as the allocation
    /// names it. One without an interface was made by Calico, which knows one interface
    /// a container; one without a network by Calico too, or its handle leaves no doubt.
    /// Calico names the host always: an allocation without one was made by hand or long
    /// ago, and its handle is all that tells whose it is. If it were nobody's, no DEL
    /// could ever give it back. Which machine it was made on counts as [`super::Ownership`] says.
    pub fn has(&self, holder: &Attribute, recorded: Option<&MachineId>) -> bool {
        let named = Named {
            handle: holder.handle_id.as_deref(),
            host: holder.fact(ATTRIBUTE_NODE),
            network: holder.fact(ATTRIBUTE_NETWORK),
            interface: holder.interface(),
            machine: holder.fact(ATTRIBUTE_MACHINE),
        };
        !holder.is_cooling_down() && self.agrees(named, recorded)
    }

    /// [`Assignee::has`] of an allocation that names these.
    pub(super) fn agrees(&self, named: Named<'_>, recorded: Option<&MachineId>) -> bool {
        let agrees = |named: Option<&str>, own: &str| named.is_none_or(|named| named == own);
        named.handle == Some(&self.handle_id)
            && agrees(named.host, &self.host)
            && self.network.as_ref().is_none_or(|own| agrees(named.network, own))
            && agrees(named.interface, self.purpose.interface())
            && self.ownership(recorded).is_own(named.machine)
    }

    /// The network, where the handle leaves it open.
    pub(super) fn network_to_record(&self) -> Option<&str> {
        self.network.as_deref().filter(|_| is_ambiguous(&self.handle_id))
    }
}

/// What an allocation names of its assignee.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub handle: Option<&'a str>,
    pub host: Option<&'a str>,
    pub network: Option<&'a str>,
    pub interface: Option<&'a str>,
    pub machine: Option<&'a str>,
}

/// Whether a handle can be read as one of several networks.
pub(super) fn is_ambiguous(handle_id: &str) -> bool {
    handle_id.matches('.').count() > 1
}

#[cfg(test)]
mod tests {
    use super::super::ATTRIBUTE_INTERFACE;
    use super::*;

    fn holder(handle: &str, facts: &[(&str, &str)]) -> Attribute {
        let facts = facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Attribute {
            handle_id: Some(handle.to_owned()),
            secondary: Some(facts.collect()),
            ..Attribute::default()
        }
    }

    const OWN: [(&str, &str); 3] =
        [(ATTRIBUTE_NODE, "n1"), (ATTRIBUTE_INTERFACE, "eth0"), (ATTRIBUTE_NETWORK, "a")];

    #[test]
    fn all_that_an_allocation_names_must_agree() {
        let assignee = Assignee::interface("n1", "a", "b.c", "eth0");
        assert!(assignee.has(&holder("a.b.c", &OWN), None));
        assert!(!assignee.has(&holder("a.b", &OWN), None), "another handle");
        for (index, (key, _)) in OWN.into_iter().enumerate() {
            let mut facts = OWN;
            facts[index] = (key, "another");
            assert!(!assignee.has(&holder("a.b.c", &facts), None), "another {key}");
            let mut facts = OWN.to_vec();
            facts.remove(index);
            assert!(assignee.has(&holder("a.b.c", &facts), None), "no {key}");
        }
        let alone = Attribute { handle_id: Some("a.b.c".to_owned()), ..Attribute::default() };
        assert!(assignee.has(&alone, None));
    }

    #[test]
    fn the_network_is_recorded_where_the_handle_can_be_read_in_two_ways() {
        let recorded = |network: &str, container: &str| {
            let assignee = Assignee::interface("n1", network, container, "eth0");
            assignee.network_to_record().map(str::to_owned)
        };
        assert_eq!(recorded("a", "b"), None);
        assert_eq!(recorded("a", "b.c").as_deref(), Some("a"));
        assert_eq!(recorded("a.b", "c").as_deref(), Some("a.b"));
    }
}
