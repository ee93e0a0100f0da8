//! Containers that got their addresses under Calico 2.

use super::assignee::Assignee;
use super::block::{ATTRIBUTE_NODE, Attribute};
use super::machine::MachineId;
use super::purpose::ATTRIBUTE_TYPE;

/// A container as Calico 2 recorded it: its handle names no network, and is the container's
/// id, or `namespace.pod` where Kubernetes runs it. Calico's plugin releases it after the
/// handle of today (`cni-plugin/pkg/ipamplugin/ipam_plugin.go`, cmdDel).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Where the container is detached, and on which machine.
    assignee: Assignee,
    /// The handle.
    pub handle_id: String,
    /// Kubernetes' namespace and name of the pod.
    pod: Option<(String, String)>,
}

impl Workload {
    /// The container `container_id` of this assignee, and its `pod`, if it is one.
    ///
    /// `None` for a bare id with a dot: that is how `NETWORK.CONTAINERID` looks, the handle
    /// of another container. No runtime of Calico 2's time gave such ids.
    pub fn new(
        assignee: &Assignee,
        container_id: &str,
        pod: Option<(String, String)>,
    ) -> Option<Self> {
        let handle_id = match &pod {
            Some((namespace, name)) => format!("{namespace}.{name}"),
            None if container_id.contains('.') => return None,
            None => container_id.to_owned(),
        };
        Some(Self { assignee: assignee.clone(), handle_id, pod })
    }

    /// Whether an allocation is this container's, where the host's name is `recorded` for a
    /// machine. Calico 2 named neither interface nor type; node and pod must agree where they
    /// are named.
    pub fn has(&self, holder: &Attribute, recorded: Option<&MachineId>) -> bool {
        let agrees = |key: &str, own: &str| holder.fact(key).is_none_or(|named| named == own);
        let is_pods = self
            .pod
            .as_ref()
            .is_none_or(|(namespace, name)| agrees("namespace", namespace) && agrees("pod", name));
        holder.is_of(&self.handle_id)
            && holder.interface().is_none()
            && holder.fact(ATTRIBUTE_TYPE).is_none()
            && agrees(ATTRIBUTE_NODE, &self.assignee.host)
            && is_pods
            && self.assignee.ownership(recorded).is_own(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(handle: &str, facts: &[(&str, &str)]) -> Attribute {
        let facts = facts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Attribute {
            handle_id: Some(handle.to_owned()),
            secondary: Some(facts.collect()),
            ..Attribute::default()
        }
    }

    fn pod() -> Option<(String, String)> {
        Some(("shop".to_owned(), "cart".to_owned()))
    }

    #[test]
    fn the_handle_is_the_bare_id_or_names_the_pod() {
        let assignee = Assignee::interface("n1", "net", "c0ffee", "eth0");
        let handle = |id: &str, pod| Workload::new(&assignee, id, pod).map(|it| it.handle_id);
        assert_eq!(handle("c0ffee", None).as_deref(), Some("c0ffee"));
        assert_eq!(handle("c0ffee", pod()).as_deref(), Some("shop.cart"));
        assert_eq!(handle("net.c0ffee", None), None, "another container's handle");
    }

    #[test]
    fn what_names_something_else_is_not_the_containers() {
        let assignee = Assignee::interface("n1", "net", "c0ffee", "eth0");
        let workload = Workload::new(&assignee, "c0ffee", pod()).unwrap();
        let has = |facts: &[(&str, &str)]| workload.has(&holder("shop.cart", facts), None);
        assert!(has(&[]) && has(&[("node", "n1"), ("namespace", "shop"), ("pod", "cart")]));
        for (key, value) in [
            ("node", "n2"),
            ("namespace", "bank"),
            ("pod", "till"),
            // Weir's, of network `shop`.
            ("interface", "eth0"),
            ("type", "ipipTunnelAddress"),
        ] {
            assert!(!has(&[(key, value)]), "{key}");
        }
        let bare = Workload::new(&assignee, "ipip-tunnel-addr-n1", None).unwrap();
        let tunnel = holder("ipip-tunnel-addr-n1", &[("type", "ipipTunnelAddress")]);
        assert!(!bare.has(&tunnel, None), "a container with the name of a tunnel's handle");
        let own = MachineId::from_source("another");
        assert!(!workload.has(&holder("shop.cart", &[]), Some(&own)), "another machine's");
    }
}
