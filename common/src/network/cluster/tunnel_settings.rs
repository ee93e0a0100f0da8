//! What is configured of tunnels: the settings of the cluster's FelixConfiguration, and of the
//! node's own.

use std::net::IpAddr;

use ipnet::IpNet;

use super::cluster_state::ClusterState;
use super::underlay::Underlay;
use crate::resources::FelixConfiguration;
use crate::tunnel::{Encapsulation, Frames, TunnelKind};

/// The settings of a node's tunnels, as the configurations of cluster and node have them
/// together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelSettings(pub FelixConfiguration);

impl TunnelSettings {
    /// Whether this kind of tunnel is switched off, whatever pools ask for (`vxlanEnabled`).
    pub(super) fn switches_off(&self, kind: TunnelKind) -> bool {
        kind.row().enabled_field.is_some_and(|field| self.0.flags.get(field) == Some(&false))
    }

    /// The UDP port of this kind of tunnel, if it has one.
    pub(super) fn port(&self, kind: TunnelKind) -> Option<u16> {
        let Encapsulation::Udp { port, port_field, .. } = kind.row().encapsulation else {
            return None;
        };
        let configured = self.0.numbers.get(port_field).and_then(|it| u16::try_from(*it).ok());
        Some(configured.unwrap_or(port))
    }

    /// The network identifier.
    pub(super) fn vni(&self, frames: &Frames) -> u32 {
        self.0.numbers.get(frames.vni_field).copied().unwrap_or(frames.vni)
    }

    /// What else than nodes may send packets through a tunnel of this kind.
    pub(super) fn external_nodes(&self, kind: TunnelKind) -> impl Iterator<Item = IpNet> {
        let ranges = self.0.external_nodes.iter().filter(move |_| kind.row().takes_external);
        ranges.flatten().copied().filter(move |range| kind.carries(range.addr()))
    }

    /// The MTU in bytes of the link that tunnels go by: the smallest of those that
    /// `mtuIfacePattern` names; without, that of the link with the node's address `own`, or else
    /// the smallest of all.
    pub(super) fn uplink_mtu(&self, own: Option<IpAddr>, underlay: &Underlay) -> u32 {
        let named = self.0.mtu_interface_pattern.as_ref().and_then(|pattern| {
            let named = underlay.links.iter().filter(|link| pattern.is_match(&link.name));
            named.map(|link| link.mtu).min()
        });
        let owner = || underlay.owner(own?).map(|link| link.mtu);
        named.or_else(owner).unwrap_or_else(|| underlay.smallest_mtu())
    }

    /// The MTU in bytes of a device of this kind, on a link with `uplink_mtu`: at most what fits
    /// into its packets. A configured 0 leaves it to the link.
    pub fn mtu(&self, kind: TunnelKind, uplink_mtu: u32) -> u32 {
        let configured = self.0.numbers.get(kind.row().mtu_field).filter(|mtu| **mtu != 0);
        let largest = uplink_mtu.saturating_sub(kind.row().overhead);
        configured.map_or(largest, |mtu| largest.min(*mtu))
    }

    /// The same where a configuration is silent, and what it says where it is not.
    fn overridden_by(mut self, configuration: &FelixConfiguration) -> Self {
        let FelixConfiguration { flags, numbers, mtu_interface_pattern, external_nodes } =
            configuration.clone();
        self.0.flags.extend(flags);
        self.0.numbers.extend(numbers);
        self.0.mtu_interface_pattern = mtu_interface_pattern.or(self.0.mtu_interface_pattern);
        self.0.external_nodes = external_nodes.or(self.0.external_nodes);
        self
    }
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

    fn settings(spec: &str) -> TunnelSettings {
        let value = format!(r#"{{"metadata":{{"name":"default"}},"spec":{spec}}}"#);
        TunnelSettings(FelixConfiguration::from_json(value.as_bytes()).unwrap())
    }

    fn of_cluster() -> TunnelSettings {
        settings(OF_CLUSTER)
    }

    /// What is configured for the cluster, with this in its place.
    fn with(change: impl FnOnce(&mut FelixConfiguration)) -> TunnelSettings {
        let mut settings = of_cluster();
        change(&mut settings.0);
        settings
    }

    fn vni(settings: &TunnelSettings, kind: TunnelKind) -> u32 {
        settings.vni(kind.row().frames().unwrap())
    }

    #[test]
    fn without_any_configuration_calicos_defaults_count() {
        let settings = ClusterState::default().tunnel_settings("n1");
        for kind in [TunnelKind::Vxlan, TunnelKind::VxlanV6] {
            assert_eq!((vni(&settings, kind), settings.port(kind)), (4096, Some(4789)));
            assert!(!settings.switches_off(kind));
        }
        assert_eq!(settings.port(TunnelKind::Ipip), None);
        assert_eq!(settings, TunnelSettings::default());
        assert_eq!(state(&[("node.n2", OF_CLUSTER)]).tunnel_settings("n1"), settings);
    }

    #[test]
    fn each_kind_has_its_own_settings() {
        let settings = settings(
            r#"{"vxlanEnabled":false,"ipipEnabled":false,"vxlanVNI":7,"vxlanPort":8472,
            "vxlanMTU":1400,"vxlanMTUV6":0,"ipipMTU":1430,"externalNodesList":["10.0.0.5","fd00::5"]}"#,
        );
        for (kind, off, port, mtu, external) in [
            (TunnelKind::Ipip, false, None, 1430, None),
            (TunnelKind::Vxlan, true, Some(8472), 1400, Some("10.0.0.5/32")),
            (TunnelKind::VxlanV6, true, Some(8472), 1430, Some("fd00::5/128")),
        ] {
            assert_eq!((settings.switches_off(kind), settings.port(kind)), (off, port), "{kind}");
            assert_eq!(
                (settings.mtu(kind, 1500), settings.mtu(kind, 1000)),
                (mtu, 1000 - kind.row().overhead),
                "{kind}"
            );
            let told = settings.external_nodes(kind).map(|range| range.to_string());
            assert_eq!(told.collect::<Vec<_>>(), Vec::from_iter(external), "{kind}");
        }
        assert_eq!(vni(&settings, TunnelKind::Vxlan), 7);
    }

    #[test]
    fn each_setting_of_a_node_comes_before_the_clusters() {
        type Set = fn(&mut FelixConfiguration);
        let cases: [(&str, Set); 5] = [
            ("{}", |_| {}),
            (r#"{"vxlanVNI":7,"vxlanEnabled":null}"#, |it| {
                it.numbers.insert("vxlanVNI".into(), 7);
            }),
            (r#"{"vxlanPort":4789,"vxlanEnabled":false}"#, |it| {
                it.numbers.insert("vxlanPort".into(), 4789);
                it.flags.insert("vxlanEnabled".into(), false);
            }),
            (r#"{"vxlanMTU":0,"vxlanMTUV6":1300,"ipipMTU":0}"#, |it| {
                let mtus = [("vxlanMTU", 0), ("vxlanMTUV6", 1300), ("ipipMTU", 0)];
                it.numbers.extend(mtus.map(|(field, mtu)| (field.to_owned(), mtu)));
            }),
            (r#"{"externalNodesList":[],"mtuIfacePattern":"^ib"}"#, |it| {
                it.external_nodes = Some(vec![]);
                it.mtu_interface_pattern = Some("^ib".to_owned().try_into().unwrap());
            }),
        ];
        for (spec, set) in cases {
            let state = state(&[("default", OF_CLUSTER), ("node.n1", spec)]);
            assert_eq!(state.tunnel_settings("n1"), with(set), "{spec}");
            assert_eq!(state.tunnel_settings("n2"), of_cluster(), "{spec}");
        }
    }

    #[test]
    fn a_wrong_setting_is_reported_and_counts_as_not_set() {
        let state =
            state(&[("default", OF_CLUSTER), ("node.n1", r#"{"vxlanVNI":-1,"vxlanMTU":0}"#)]);
        let expected = with(|it| it.numbers.extend([("vxlanMTU".to_owned(), 0)]));
        assert_eq!(state.tunnel_settings("n1"), expected);
        assert_eq!(expected.mtu(TunnelKind::Vxlan, 1500), 1450, "the link's, not the cluster's");
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
