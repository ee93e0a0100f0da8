//! The plan of what attachments need of the node as a whole.

use super::step::{Side, Step};
use crate::network::nat::NatTable;

/// What the attachments of a node need of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNeeds {
    /// Whether IPv4 is forwarded.
    pub ipv4: bool,
    /// Whether IPv6 is forwarded.
    pub ipv6: bool,
    /// The NAT.
    pub nat: Nat,
}

/// What is to become of the node's NAT table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// It stays as it is: the addresses come from somebody else's pools.
    #[default]
    AsItIs,
    /// It becomes this one; with `None` there are to be no rules.
    Exactly(Option<NatTable>),
}

/// What decides the plan, as the kernel has it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Whether the node forwards IPv4 (`net.ipv4.ip_forward`).
    pub ipv4_forwarding: bool,
    /// Whether the node forwards IPv6 (`net.ipv6.conf.all.forwarding`).
    pub ipv6_forwarding: bool,
    /// The interfaces that take router advertisements as long as the node does
    /// not forward: those with `accept_ra` 1. Of interest only while the node
    /// does not forward IPv6.
    pub taking_advertisements: Vec<String>,
}

/// The steps that give the node what it `needs`; none when all is there but
/// the check of the NAT table, which is a step that changes nothing then.
///
/// NAT comes first, because it is the step most likely to fail (nft may be
/// missing), and what the node forwards concerns more than Weir. Forwarding of
/// IPv6 would make the kernel deaf to router advertisements on every interface
/// with `accept_ra` 1, and a node that lives by them would lose its default
/// route; so these get 2 first, which means "also when forwarding"
/// (`Documentation/networking/ip-sysctl.rst`).
pub fn plan_node(needs: &NodeNeeds, state: &NodeState) -> Vec<Step> {
    let mut steps = match &needs.nat {
        Nat::AsItIs => Vec::new(),
        Nat::Exactly(table) => vec![Step::EnsureNat(table.clone())],
    };
    if needs.ipv6 && !state.ipv6_forwarding {
        let accept_ra = |interface| format!("net/ipv6/conf/{interface}/accept_ra");
        steps.extend(
            state
                .taking_advertisements
                .iter()
                .map(|name| Step::sysctl(Side::Host, &accept_ra(name), "2")),
        );
        steps.push(Step::sysctl(Side::Host, "net/ipv6/conf/all/forwarding", "1"));
    }
    if needs.ipv4 && !state.ipv4_forwarding {
        steps.push(Step::sysctl(Side::Host, "net/ipv4/ip_forward", "1"));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(steps: &[Step]) -> Vec<String> {
        let text = |step: &Step| match step {
            Step::SetSysctl(sysctl) => Some(format!("{}={}", sysctl.key, sysctl.value)),
            _ => None,
        };
        steps.iter().filter_map(text).collect()
    }

    #[test]
    fn nothing_is_written_when_all_is_there() {
        let needs = NodeNeeds { ipv4: true, ipv6: true, nat: Nat::Exactly(None) };
        let state = NodeState {
            ipv4_forwarding: true,
            ipv6_forwarding: true,
            taking_advertisements: vec!["eth0".to_owned()],
        };
        assert_eq!(plan_node(&needs, &state), [Step::EnsureNat(None)]);
    }

    #[test]
    fn only_the_families_in_use_are_forwarded() {
        let needs = NodeNeeds { ipv4: true, ..NodeNeeds::default() };
        let state =
            NodeState { taking_advertisements: vec!["eth0".to_owned()], ..NodeState::default() };
        assert_eq!(written(&plan_node(&needs, &state)), ["net/ipv4/ip_forward=1"]);
    }

    #[test]
    fn advertisements_are_kept_before_ipv6_is_forwarded() {
        let needs = NodeNeeds { ipv6: true, ..NodeNeeds::default() };
        let state =
            NodeState { taking_advertisements: vec!["eth0".to_owned()], ..NodeState::default() };
        assert_eq!(
            written(&plan_node(&needs, &state)),
            ["net/ipv6/conf/eth0/accept_ra=2", "net/ipv6/conf/all/forwarding=1"]
        );
    }
}
