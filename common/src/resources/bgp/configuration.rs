//! BGPConfiguration: what all nodes do (`default`), or one (`node.NAME`).

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::community::Community;
use super::read::{self, Annotations, RESTART_SECONDS};
use super::values::{Bfd, LogSeverity, SecretReference};
use crate::resources::as_number;
use crate::resources::error::{Error, FieldError};
use crate::resources::fields::{self, Fields, Problems};

/// The name of the cluster's configuration.
pub const BGP_DEFAULT_NAME: &str = "default";

/// What only the cluster's configuration may set
/// (`libcalico-go/lib/clientv3/bgpconfig.go`, ValidateDefaultOnlyFields).
const OF_THE_CLUSTER: [(&str, &str); 7] = [
    ("nodeToNodeMeshEnabled", "NodeToNodeMeshEnabled"),
    ("asNumber", "ASNumber"),
    ("nodeMeshPassword", "NodeMeshPassword"),
    ("nodeMeshMaxRestartTime", "NodeMeshMaxRestartTime"),
    ("serviceClusterIPs", "ServiceClusterIPs"),
    ("serviceExternalIPs", "ServiceExternalIPs"),
    ("serviceLoadBalancerIPs", "ServiceLoadBalancerIPs"),
];

/// What Weir keeps and does not serve.
const NOT_SERVED: [&str; 10] = [
    "serviceClusterIPs",
    "serviceExternalIPs",
    "serviceLoadBalancerIPs",
    "serviceLoadBalancerAggregation",
    "localWorkloadPeeringIPV4",
    "localWorkloadPeeringIPV6",
    "ipv4NormalRoutePriority",
    "ipv4ElevatedRoutePriority",
    "ipv6NormalRoutePriority",
    "ipv6ElevatedRoutePriority",
];

/// The BGP configuration of a cluster or of one node. A field that is not set is `None`, so
/// that the one of a node may leave it to the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpConfiguration {
    /// What BIRD logs.
    pub log_severity: Option<LogSeverity>,
    /// Whether every node peers with every other one. Of the cluster alone.
    pub node_to_node_mesh: Option<bool>,
    /// The AS number of nodes without one of their own. Of the cluster alone.
    pub as_number: Option<u32>,
    /// The TCP port that BGP is spoken on.
    pub listen_port: Option<u16>,
    /// Whether BIRD listens on the node's own address alone (`bindMode: NodeIP`).
    pub binds_to_node_address: Option<bool>,
    /// The password of the mesh. Of the cluster alone.
    pub mesh_password: Option<SecretReference>,
    /// How long in seconds nodes of the mesh keep the routes of one that restarts.
    pub mesh_restart_time: Option<u32>,
    /// Interfaces whose subnets BIRD does not look at, as shell patterns of letters, digits and
    /// `_ . - : @ *`.
    pub ignored_interfaces: Vec<String>,
    /// What prefixes are announced with, names resolved.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
    /// How quickly lost nodes of the mesh are noticed (annotation `weir/bfd`).
    pub bfd: Option<Bfd>,
    /// Whether nodes tell other nodes' blocks to routers too (annotation `weir/re-export`). Of the
    /// cluster alone.
    pub re_exports: bool,
    /// Whether BGP programs no routes to the cluster's own blocks (`programClusterRoutes:
    /// Disabled`).
    pub leaves_cluster_routes: bool,
    /// Fields that are set and that Weir keeps and does not serve, as `serviceClusterIPs`.
    pub not_served: Vec<String>,
}

/// The communities that a prefix, and what lies in it, is announced with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixAdvertisement {
    /// The prefix.
    pub cidr: IpNet,
    /// Its communities.
    pub communities: Vec<Community>,
}

impl BgpConfiguration {
    /// Reads a configuration from its stored JSON (v3). Unknown fields are passed over, and so
    /// is in a node's one what only the cluster's may set, as in Calico.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        Self::from_object(&fields::object("BGPConfiguration", value)?)
    }

    /// As [`BgpConfiguration::from_json`], from JSON that is parsed already.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let resource = Fields::new(object, "");
        let name = fields::configuration_name(&resource, "BGPConfiguration", &mut problems);
        let spec = resource.object("spec", "BGPConfiguration.Spec", &mut problems);
        let annotations = Annotations::of(&resource, &mut problems);
        let read = Self::read(&spec, &annotations, &mut problems);
        let configuration = if name.as_deref() == Some(BGP_DEFAULT_NAME) {
            check_mesh(&read, &spec, &mut problems);
            read
        } else {
            read.of_a_node()
        };
        problems.into_result(Some(configuration))
    }

    fn read(spec: &Fields<'_>, annotations: &Annotations<'_>, problems: &mut Problems) -> Self {
        let mesh_restart_time = read::seconds(
            spec,
            "nodeMeshMaxRestartTime",
            "NodeMeshMaxRestartTime",
            RESTART_SECONDS,
            problems,
        );
        let bind_modes = [("None", false), ("NodeIP", true)];
        let routes = read_cluster_routes(spec, problems);
        let mut not_served = read_not_served(spec, problems);
        if routes == ClusterRoutes::NotServed {
            not_served.push("programClusterRoutes".to_owned());
        }
        Self {
            log_severity: spec.word(
                "logSeverityScreen",
                "LogSeverityScreen",
                &LOG_SEVERITIES,
                problems,
            ),
            node_to_node_mesh: spec.boolean(
                "nodeToNodeMeshEnabled",
                "NodeToNodeMeshEnabled",
                problems,
            ),
            as_number: read_as_number(spec, problems),
            listen_port: spec
                .ranged("listenPort", "ListenPort", 0..=65535, problems)
                .filter(|port| *port != 0),
            binds_to_node_address: spec.word("bindMode", "BindMode", &bind_modes, problems),
            mesh_password: read::secret(spec, "nodeMeshPassword", "NodeMeshPassword", problems),
            mesh_restart_time,
            ignored_interfaces: read_ignored_interfaces(spec, problems),
            prefix_advertisements: read_advertisements(spec, problems),
            bfd: annotations.bfd(problems),
            re_exports: annotations.flag("weir/re-export", problems),
            leaves_cluster_routes: routes == ClusterRoutes::Left,
            not_served,
        }
    }

    /// The same without what only the cluster's may set.
    fn of_a_node(self) -> Self {
        let is_of_the_cluster = |field: &String| OF_THE_CLUSTER.iter().any(|(key, _)| key == field);
        let not_served = self.not_served.into_iter().filter(|field| !is_of_the_cluster(field));
        Self {
            node_to_node_mesh: None,
            as_number: None,
            mesh_password: None,
            mesh_restart_time: None,
            not_served: not_served.collect(),
            ..self
        }
    }
}

const LOG_SEVERITIES: [(&str, LogSeverity); 6] = [
    ("Debug", LogSeverity::Debug),
    ("Info", LogSeverity::Info),
    ("Warning", LogSeverity::Warning),
    ("Error", LogSeverity::Error),
    ("Fatal", LogSeverity::Fatal),
    ("None", LogSeverity::None),
];

/// Refuses of a configuration that is written what Calico's client refuses, though its
/// daemons pass it over: in a node's one what only the cluster's may set.
///
/// # Errors
/// [`Error::Invalid`] with each such field.
pub(in crate::resources) fn check_written(object: &Map<String, Value>) -> Result<(), Error> {
    let mut problems = Problems::default();
    let resource = Fields::new(object, "");
    let spec = resource.object("spec", "BGPConfiguration.Spec", &mut problems);
    let name = object.get("metadata").and_then(|metadata| metadata.get("name"));
    if name.is_some_and(|name| name != BGP_DEFAULT_NAME) {
        for (_, display) in OF_THE_CLUSTER.into_iter().filter(|(key, _)| spec.is_set(key)) {
            problems.add(
                FieldError::new(spec.path(display), "is of the whole cluster, not of one node")
                    .advice("set it in the BGPConfiguration default"),
            );
        }
    }
    problems.into_result(Some(()))
}

/// What the mesh is given has to be given to a mesh.
fn check_mesh(configuration: &BgpConfiguration, spec: &Fields<'_>, problems: &mut Problems) {
    if configuration.node_to_node_mesh != Some(false) {
        return;
    }
    for (key, display) in [
        ("nodeMeshPassword", "NodeMeshPassword"),
        ("nodeMeshMaxRestartTime", "NodeMeshMaxRestartTime"),
    ] {
        if spec.is_set(key) {
            problems.add(
                FieldError::new(spec.path(display), "needs the mesh between nodes, which is off")
                    .advice(format!("leave {key} out, or set nodeToNodeMeshEnabled to true")),
            );
        }
    }
}

/// AS 0 is no AS (RFC 7607).
fn read_as_number(spec: &Fields<'_>, problems: &mut Problems) -> Option<u32> {
    let number = as_number::read(spec, "asNumber", "ASNumber", problems)?;
    if number == 0 {
        problems.add(
            FieldError::new(spec.path("ASNumber"), "must be an AS number, which 0 is not").value(0),
        );
    }
    Some(number)
}

fn read_ignored_interfaces(spec: &Fields<'_>, problems: &mut Problems) -> Vec<String> {
    let patterns = spec.texts("ignoredInterfaces", "IgnoredInterfaces", problems);
    let path = spec.path("IgnoredInterfaces");
    patterns
        .into_iter()
        .filter_map(|pattern| read::interface(pattern, path.clone(), problems))
        .collect()
}

/// Who programs the routes to the cluster's own blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClusterRoutes {
    /// BGP those of pools without a tunnel.
    Programmed,
    /// Not BGP.
    Left,
    /// BGP those of tunnels as well, which BIRD cannot do.
    NotServed,
}

fn read_cluster_routes(spec: &Fields<'_>, problems: &mut Problems) -> ClusterRoutes {
    let words = [
        ("EnabledNoEncapOnly", ClusterRoutes::Programmed),
        ("Disabled", ClusterRoutes::Left),
        ("Enabled", ClusterRoutes::NotServed),
        ("EnabledIPIPOnly", ClusterRoutes::NotServed),
    ];
    let read = spec.word("programClusterRoutes", "ProgramClusterRoutes", &words, problems);
    read.unwrap_or(ClusterRoutes::Programmed)
}

/// Checks what is not served, and names what of it is set.
fn read_not_served(spec: &Fields<'_>, problems: &mut Problems) -> Vec<String> {
    for (key, display) in OF_THE_CLUSTER.iter().filter(|(key, _)| key.starts_with("service")) {
        for block in spec.objects(key, display, problems) {
            read::range(&block, problems);
        }
    }
    let defaults = [json!("Enabled"), json!(1024)];
    let is_asked_for = |key: &&str| {
        spec.is_set(key) && spec.any(key).is_some_and(|value| !defaults.contains(value))
    };
    NOT_SERVED.into_iter().filter(is_asked_for).map(str::to_owned).collect()
}

/// Reads what prefixes are announced with; a community is written out, or by its name in
/// `communities`.
fn read_advertisements(spec: &Fields<'_>, problems: &mut Problems) -> Vec<PrefixAdvertisement> {
    let named = read_communities(spec, problems);
    let written = spec.objects("prefixAdvertisements", "PrefixAdvertisements", problems);
    if written.is_empty() && spec.is_set("communities") {
        let reason = "communities are defined and no prefix is announced with them";
        problems.add(
            FieldError::new(spec.path("Communities"), reason)
                .advice("use them in prefixAdvertisements, or leave them out"),
        );
    }
    let mut read = Vec::new();
    for advertisement in written {
        let cidr = read::range(&advertisement, problems);
        if !advertisement.is_set("cidr") {
            problems.add(FieldError::new(advertisement.path("CIDR"), "must be specified"));
        }
        let texts = advertisement.texts("communities", "Communities", problems);
        if texts.is_empty() {
            let reason = "must have a community at least";
            problems.add(FieldError::new(advertisement.path("Communities"), reason));
        }
        let resolve = |text: &str| named.get(text).copied().or_else(|| text.parse().ok());
        let mut communities = Vec::new();
        for text in texts {
            match resolve(text) {
                Some(community) => communities.push(community),
                None => problems.add(
                    FieldError::new(
                        advertisement.path("Communities"),
                        "must be a community (aa:nn or aa:nn:mm), or the name of one in \
                         spec.communities",
                    )
                    .value(text),
                ),
            }
        }
        read.extend(cidr.map(|cidr| PrefixAdvertisement { cidr, communities }));
    }
    read
}

fn read_communities<'a>(
    spec: &Fields<'a>,
    problems: &mut Problems,
) -> BTreeMap<&'a str, Community> {
    let mut named = BTreeMap::new();
    for community in spec.objects("communities", "Communities", problems) {
        let name = community.text("name", "Name", problems);
        let value = community.text("value", "Value", problems).unwrap_or_default();
        let value = read::community(value, community.path("Value"), problems);
        match (name, value) {
            (None, _) => {
                problems.add(FieldError::new(community.path("Name"), "must be specified"));
            }
            (Some(name), Some(value)) if named.insert(name, value).is_some() => {
                let reason = "there is another community of this name";
                problems.add(FieldError::new(community.path("Name"), reason).value(name));
            }
            _ => {}
        }
    }
    named
}

#[cfg(test)]
mod tests;
