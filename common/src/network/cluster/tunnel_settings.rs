//! What is configured of tunnels: the settings of the cluster's FelixConfiguration, and of the
//! node's own.

use std::net::IpAddr;

use ipnet::IpNet;
use regex_lite::Regex;

use super::cluster_state::ClusterState;
use super::underlay::Underlay;
use crate::resources::FelixConfiguration;
use crate::tunnel::{TunnelKind, VXLAN_PORT, VXLAN_VNI};

/// The settings of a node's tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Whether the node has a VXLAN device; `None` where the pools decide.
    pub enabled: Option<bool>,
    /// The number of the VXLAN network.
    pub vni: u32,
    /// The UDP port that VXLAN is spoken on.
    pub port: u16,
    /// The MTU of the VXLAN device for IPv4 in bytes; `None` where the node's links decide.
    pub mtu: Option<u32>,
    /// The same for IPv6.
    pub mtu_v6: Option<u32>,
    /// Whether the node has an IPIP device; `None` where the pools decide.
    pub ipip_enabled: Option<bool>,
    /// The MTU of the IPIP device in bytes; `None` where the node's links decide.
    pub ipip_mtu: Option<u32>,
    /// The links whose MTU decides that of tunnels, as a regular expression.
    pub mtu_interface_pattern: Option<String>,
    /// What else than nodes may send packets through tunnels.
    pub external_nodes: Vec<IpNet>,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            enabled: None,
            vni: VXLAN_VNI,
            port: VXLAN_PORT,
            mtu: None,
            mtu_v6: None,
            ipip_enabled: None,
            ipip_mtu: None,
            mtu_interface_pattern: None,
            external_nodes: Vec::new(),
        }
    }
}

impl TunnelSettings {
    /// Whether this kind of tunnel is switched off, whatever pools ask for (`vxlanEnabled`).
    /// Calico's own routes by IPIP are BIRD's, which does not ask for `ipipEnabled`.
    pub(super) fn switches_off(&self, kind: TunnelKind) -> bool {
        kind.is_vxlan() && self.enabled == Some(false)
    }

    /// The MTU in bytes of the link that tunnels go by: the smallest of those that
    /// `mtuIfacePattern` names; without, that of the link with the node's address `own`, or else
    /// the smallest of all.
    pub(super) fn uplink_mtu(&self, own: Option<IpAddr>, underlay: &Underlay) -> u32 {
        let pattern = self.mtu_interface_pattern.as_deref();
        let pattern = pattern.and_then(|pattern| Regex::new(pattern).ok());
        let named = pattern.and_then(|pattern| {
            let named = underlay.links.iter().filter(|link| pattern.is_match(&link.name));
            named.map(|link| link.mtu).min()
        });
        let owner = || underlay.owner(own?).map(|link| link.mtu);
        named.or_else(owner).unwrap_or_else(|| underlay.smallest_mtu())
    }

    /// The MTU in bytes of a device of this kind, on a link with `uplink_mtu`: at most what fits
    /// into its packets.
    pub fn mtu(&self, kind: TunnelKind, uplink_mtu: u32) -> u32 {
        let configured = match kind {
            TunnelKind::Ipip => self.ipip_mtu,
            TunnelKind::Vxlan => self.mtu,
            TunnelKind::VxlanV6 => self.mtu_v6,
        };
        let largest = uplink_mtu.saturating_sub(kind.row().overhead);
        configured.map_or(largest, |mtu| mtu.min(largest))
    }

    /// The same where a configuration is silent, and what it says where it is not.
    fn overridden_by(self, configuration: &FelixConfiguration) -> Self {
        let FelixConfiguration {
            vxlan_enabled,
            vxlan_vni,
            vxlan_port,
            vxlan_mtu,
            vxlan_mtu_v6,
            ipip_enabled,
            ipip_mtu,
            mtu_interface_pattern,
            external_nodes,
        } = configuration.clone();
        Self {
            enabled: vxlan_enabled.or(self.enabled),
            vni: vxlan_vni.unwrap_or(self.vni),
            port: vxlan_port.unwrap_or(self.port),
            mtu: mtu(vxlan_mtu, self.mtu),
            mtu_v6: mtu(vxlan_mtu_v6, self.mtu_v6),
            ipip_enabled: ipip_enabled.or(self.ipip_enabled),
            ipip_mtu: mtu(ipip_mtu, self.ipip_mtu),
            mtu_interface_pattern: mtu_interface_pattern.or(self.mtu_interface_pattern),
            external_nodes: external_nodes.unwrap_or(self.external_nodes),
        }
    }
}

/// 0 leaves it to the node's links, whatever is configured for the cluster.
fn mtu(configured: Option<u32>, otherwise: Option<u32>) -> Option<u32> {
    configured.map_or(otherwise, |mtu| (mtu != 0).then_some(mtu))
}

impl ClusterState {
    /// The settings of a node's tunnels. Each setting is that of the node's FelixConfiguration
    /// (`node.NAME`), else the cluster's (`default`), else Calico's default.
    pub fn tunnel_settings(&self, node: &str) -> TunnelSettings {
        let layers = ["default".to_owned(), format!("node.{node}")];
        let layers = layers.iter().filter_map(|name| self.felix.get(name));
        layers.fold(TunnelSettings::default(), TunnelSettings::overridden_by)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{ClusterCache, ObservedRevision, StateDiff};
    use super::*;
    use crate::datastore::{Entry, Event, Revision, keys};

    fn key(name: &str) -> String {
        format!("{}{name}", keys::FELIX_CONFIGURATIONS)
    }

    fn entry(name: &str, spec: &str, revision: i64) -> Entry {
        let value = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
        Entry { key: key(name), value: value.into(), revision: Revision(revision) }
    }

    fn state(entries: &[(&str, &str)]) -> ClusterState {
        let mut state = ClusterState::default();
        for (revision, (name, spec)) in (1..).zip(entries) {
            assert!(state.put(&entry(name, spec, revision)), "{name} made no difference");
            assert!(!state.put(&entry(name, spec, revision)), "the same once more");
        }
        state
    }

    fn at(revision: i64) -> ObservedRevision {
        ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() }
    }

    const OF_CLUSTER: &str = r#"{"vxlanEnabled":true,"vxlanVNI":5000,"vxlanPort":8472,
        "vxlanMTU":1400,"vxlanMTUV6":1380,"ipipEnabled":true,"ipipMTU":1430,
        "mtuIfacePattern":"^eth.*","externalNodesList":["10.0.0.5"],"logSeverityScreen":"Info"}"#;

    fn of_cluster() -> TunnelSettings {
        TunnelSettings {
            enabled: Some(true),
            vni: 5000,
            port: 8472,
            mtu: Some(1400),
            mtu_v6: Some(1380),
            ipip_enabled: Some(true),
            ipip_mtu: Some(1430),
            mtu_interface_pattern: Some("^eth.*".to_owned()),
            external_nodes: vec!["10.0.0.5/32".parse().unwrap()],
        }
    }

    #[test]
    fn without_any_configuration_calicos_defaults_count() {
        let settings = ClusterState::default().tunnel_settings("n1");
        assert_eq!((settings.vni, settings.port), (4096, 4789));
        assert_eq!(settings, TunnelSettings::default());
        assert_eq!(state(&[("node.n2", OF_CLUSTER)]).tunnel_settings("n1"), settings);
    }

    #[test]
    fn each_setting_of_a_node_comes_before_the_clusters() {
        let cases = [
            ("{}", of_cluster()),
            (r#"{"vxlanVNI":7,"vxlanEnabled":null}"#, TunnelSettings { vni: 7, ..of_cluster() }),
            (
                r#"{"vxlanPort":4789,"vxlanEnabled":false}"#,
                TunnelSettings { port: 4789, enabled: Some(false), ..of_cluster() },
            ),
            (
                r#"{"vxlanMTU":0,"vxlanMTUV6":1300,"ipipMTU":0}"#,
                TunnelSettings { mtu: None, mtu_v6: Some(1300), ipip_mtu: None, ..of_cluster() },
            ),
            (
                r#"{"externalNodesList":[],"mtuIfacePattern":"^ib","ipipEnabled":false}"#,
                TunnelSettings {
                    external_nodes: vec![],
                    mtu_interface_pattern: Some("^ib".to_owned()),
                    ipip_enabled: Some(false),
                    ..of_cluster()
                },
            ),
        ];
        for (spec, expected) in cases {
            let state = state(&[("default", OF_CLUSTER), ("node.n1", spec)]);
            assert_eq!(state.tunnel_settings("n1"), expected, "{spec}");
            assert_eq!(state.tunnel_settings("n2"), of_cluster(), "{spec}");
        }
    }

    #[test]
    fn a_wrong_setting_is_reported_and_counts_as_not_set() {
        let state =
            state(&[("default", OF_CLUSTER), ("node.n1", r#"{"vxlanVNI":-1,"vxlanMTU":0}"#)]);
        let expected = TunnelSettings { mtu: None, ..of_cluster() };
        assert_eq!(state.tunnel_settings("n1"), expected);
        assert!(state.flawed[&key("node.n1")].contains("VXLANVNI = '-1'"), "{:?}", state.flawed);
        assert!(state.unreadable.is_empty());
    }

    #[test]
    fn a_value_that_cannot_be_read_leaves_what_was_before() {
        let mut cache = ClusterCache::default();
        cache.replace(state(&[("default", OF_CLUSTER)]), &at(1));
        let broken = Entry { value: b"{".into(), ..entry("default", "{}", 2) };
        assert_eq!(cache.apply(&[Event::Put(broken.clone())]), StateDiff::everything());
        assert_eq!(cache.state().tunnel_settings("n1"), of_cluster());
        assert_eq!(cache.state().unreadable.keys().collect::<Vec<_>>(), [&key("default")]);
        // The next listing has it so.
        let mut fresh = ClusterState::default();
        fresh.put(&broken);
        assert_eq!(fresh.tunnel_settings("n1"), TunnelSettings::default());
        assert!(!cache.replace(fresh, &at(2)));
        assert_eq!(cache.state().tunnel_settings("n1"), of_cluster());
        let gone = Event::Delete { key: key("default"), revision: Revision(3) };
        assert_eq!(cache.apply(&[gone]), StateDiff::everything());
        assert_eq!(cache.state().tunnel_settings("n1"), TunnelSettings::default());
        assert_eq!(cache.state().unreadable, BTreeMap::new());
    }

    #[test]
    fn what_a_restored_datastore_has_lost_counts_until_it_is_written_again() {
        let mut cache = ClusterCache::default();
        cache.replace(state(&[("default", OF_CLUSTER)]), &at(50));
        assert!(cache.replace(ClusterState::default(), &at(20)));
        assert_eq!((cache.retained(), cache.state().tunnel_settings("n1")), (1, of_cluster()));
        let text = serde_json::to_string(&cache).unwrap();
        let next: ClusterCache = serde_json::from_str(&text).unwrap();
        assert_eq!(next.state().tunnel_settings("n1"), of_cluster(), "the next process has it");
        assert!(cache.apply(&[Event::Put(entry("default", "{}", 21))]).whole);
        assert_eq!(cache.retained(), 0);
        assert_eq!(cache.state().tunnel_settings("n1"), TunnelSettings::default());
    }

    /// At a higher revision too, since each listing has them.
    #[test]
    fn a_configuration_that_went_back_shows_a_restored_datastore() {
        let mut cache = ClusterCache::default();
        let listed = |spec: &str, revision| {
            let mut state = ClusterState::default();
            state.put(&entry("default", spec, revision));
            state
        };
        cache.replace(listed(OF_CLUSTER, 5), &at(50));
        assert!(!cache.replace(listed(r#"{"vxlanVNI":7}"#, 60), &at(60)));
        assert!(cache.replace(listed(OF_CLUSTER, 5), &at(70)));
    }
}
