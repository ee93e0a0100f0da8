//! The fields that documents may have, in the order in which Calico writes
//! them (`api/pkg/apis/projectcalico/v3`, `libcalico-go/lib/apis/v3/node.go`,
//! Kubernetes' ObjectMeta and SecretKeySelector).

mod felix;

use serde_json::{Map, Value};

use super::kind::Kind;
use crate::nearest::nearest;

/// One field of an object.
pub(super) struct Field {
    /// Its name in documents.
    pub(super) name: &'static str,
    /// What is inside.
    pub(super) shape: Shape,
    /// Whether Calico writes it even when it is empty: always, or where its absence means
    /// something else than false or 0.
    kept_when_empty: bool,
    /// Whether the object in it may have other fields too, unless their names look like misspelt
    /// known ones.
    is_open: bool,
}

/// What is inside a field.
pub(super) enum Shape {
    /// Any value.
    Any,
    /// Text.
    Text,
    /// Text with an IPv4 address, or none.
    Ipv4Address,
    /// Text with an IPv6 address, or none.
    Ipv6Address,
    /// True or false.
    Flag,
    /// A whole number.
    Integer,
    /// An AS number: a number, or text that is one.
    AsNumber,
    /// A list of texts.
    Texts,
    /// A list of AS numbers.
    AsNumbers,
    /// An object of texts, with any keys.
    TextMap,
    /// An object with these fields.
    Object(&'static [Field]),
    /// A list of objects with these fields.
    List(&'static [Field]),
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, kept_when_empty: false, is_open: false }
}

const fn text(name: &'static str) -> Field {
    field(name, Shape::Text)
}

const fn ipv4(name: &'static str) -> Field {
    field(name, Shape::Ipv4Address)
}

const fn ipv6(name: &'static str) -> Field {
    field(name, Shape::Ipv6Address)
}

const fn flag(name: &'static str) -> Field {
    field(name, Shape::Flag)
}

const fn integer(name: &'static str) -> Field {
    field(name, Shape::Integer)
}

const fn as_number(name: &'static str) -> Field {
    field(name, Shape::AsNumber)
}

const fn as_numbers(name: &'static str) -> Field {
    field(name, Shape::AsNumbers)
}

const fn texts(name: &'static str) -> Field {
    field(name, Shape::Texts)
}

const fn kept(field: Field) -> Field {
    Field { kept_when_empty: true, ..field }
}

const fn open(field: Field) -> Field {
    Field { is_open: true, ..field }
}

const fn object(name: &'static str, fields: &'static [Field]) -> Field {
    field(name, Shape::Object(fields))
}

const fn kept_object(name: &'static str, fields: &'static [Field]) -> Field {
    kept(object(name, fields))
}

const fn list(name: &'static str, fields: &'static [Field]) -> Field {
    field(name, Shape::List(fields))
}

const OWNER_REFERENCE: &[Field] = &[
    kept(text("apiVersion")),
    kept(text("kind")),
    kept(text("name")),
    kept(text("uid")),
    kept(flag("controller")),
    kept(flag("blockOwnerDeletion")),
];

const MANAGED_FIELDS: &[Field] = &[
    text("manager"),
    text("operation"),
    text("apiVersion"),
    text("time"),
    text("fieldsType"),
    field("fieldsV1", Shape::Any),
    text("subresource"),
];

const CONDITION: &[Field] = &[
    kept(text("type")),
    kept(text("status")),
    integer("observedGeneration"),
    kept(text("lastTransitionTime")),
    kept(text("reason")),
    kept(text("message")),
];

const METADATA: &[Field] = &[
    text("name"),
    text("generateName"),
    text("namespace"),
    text("selfLink"),
    text("uid"),
    text("resourceVersion"),
    integer("generation"),
    kept(text("creationTimestamp")),
    text("deletionTimestamp"),
    kept(integer("deletionGracePeriodSeconds")),
    field("labels", Shape::TextMap),
    field("annotations", Shape::TextMap),
    list("ownerReferences", OWNER_REFERENCE),
    texts("finalizers"),
    list("managedFields", MANAGED_FIELDS),
];

const IP_POOL: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    kept_object("metadata", METADATA),
    kept_object(
        "spec",
        &[
            kept(text("cidr")),
            text("vxlanMode"),
            text("ipipMode"),
            flag("natOutgoing"),
            flag("disabled"),
            flag("disableBGPExport"),
            integer("blockSize"),
            text("nodeSelector"),
            text("namespaceSelector"),
            texts("allowedUses"),
            text("assignmentMode"),
        ],
    ),
    object("status", &[kept(list("conditions", CONDITION))]),
];

const IP_RESERVATION: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    kept_object("metadata", METADATA),
    kept_object("spec", &[texts("reservedCIDRs")]),
];

const NODE: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    kept_object("metadata", METADATA),
    kept_object(
        "spec",
        &[
            object(
                "bgp",
                &[
                    kept(as_number("asNumber")),
                    text("ipv4Address"),
                    text("ipv6Address"),
                    text("ipv4IPIPTunnelAddr"),
                    ipv4("routeReflectorClusterID"),
                ],
            ),
            ipv4("ipv4VXLANTunnelAddr"),
            text("vxlanTunnelMACAddr"),
            ipv6("ipv6VXLANTunnelAddr"),
            text("vxlanTunnelMACAddrV6"),
            list("orchRefs", &[text("nodeName"), kept(text("orchestrator"))]),
            object("wireguard", &[ipv4("interfaceIPv4Address"), ipv6("interfaceIPv6Address")]),
            list("addresses", &[kept(text("address")), text("type")]),
        ],
    ),
    kept_object(
        "status",
        &[text("wireguardPublicKey"), text("wireguardPublicKeyV6"), texts("podCIDRs")],
    ),
];

const IPAM_CONFIG: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    kept_object("metadata", METADATA),
    kept_object(
        "spec",
        &[
            kept(flag("strictAffinity")),
            integer("maxBlocksPerHost"),
            kept(flag("autoAllocateBlocks")),
        ],
    ),
];

const PASSWORD: &[Field] =
    &[object("secretKeyRef", &[text("name"), kept(text("key")), kept(flag("optional"))])];

const CIDR_BLOCK: &[Field] = &[text("cidr")];

const BGP_CONFIGURATION: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    kept_object("metadata", METADATA),
    kept_object(
        "spec",
        &[
            text("logSeverityScreen"),
            kept(flag("nodeToNodeMeshEnabled")),
            kept(as_number("asNumber")),
            list("serviceLoadBalancerIPs", CIDR_BLOCK),
            list("serviceExternalIPs", CIDR_BLOCK),
            list("serviceClusterIPs", CIDR_BLOCK),
            text("serviceLoadBalancerAggregation"),
            list("communities", &[text("name"), text("value")]),
            list("prefixAdvertisements", &[text("cidr"), texts("communities")]),
            integer("listenPort"),
            object("nodeMeshPassword", PASSWORD),
            text("nodeMeshMaxRestartTime"),
            text("bindMode"),
            texts("ignoredInterfaces"),
            text("localWorkloadPeeringIPV4"),
            text("localWorkloadPeeringIPV6"),
            text("programClusterRoutes"),
            kept(integer("ipv4NormalRoutePriority")),
            kept(integer("ipv4ElevatedRoutePriority")),
            kept(integer("ipv6NormalRoutePriority")),
            kept(integer("ipv6ElevatedRoutePriority")),
        ],
    ),
];

const BGP_PEER: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    kept_object("metadata", METADATA),
    kept_object(
        "spec",
        &[
            text("node"),
            text("nodeSelector"),
            text("peerIP"),
            as_number("asNumber"),
            kept(as_number("localASNumber")),
            text("peerSelector"),
            flag("keepOriginalNextHop"),
            object("password", PASSWORD),
            text("sourceAddress"),
            text("maxRestartTime"),
            text("keepaliveTime"),
            kept(integer("numAllowedLocalASNumbers")),
            kept(integer("ttlSecurity")),
            text("reachableBy"),
            texts("filters"),
            text("localWorkloadSelector"),
            text("reversePeering"),
            text("nextHopMode"),
        ],
    ),
];

const FILTER_RULE: &[Field] = &[
    text("cidr"),
    object("prefixLength", &[kept(integer("min")), kept(integer("max"))]),
    text("source"),
    text("interface"),
    text("matchOperator"),
    text("peerType"),
    object("communities", &[kept(texts("values"))]),
    as_numbers("asPathPrefix"),
    kept(integer("priority")),
    kept(text("action")),
    list(
        "operations",
        &[
            object("addCommunity", &[kept(text("value"))]),
            object("prependASPath", &[kept(as_numbers("prefix"))]),
            object("setPriority", &[kept(integer("value"))]),
        ],
    ),
];

const BGP_FILTER: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    kept_object("metadata", METADATA),
    kept_object(
        "spec",
        &[
            list("exportV4", FILTER_RULE),
            list("importV4", FILTER_RULE),
            list("exportV6", FILTER_RULE),
            list("importV6", FILTER_RULE),
        ],
    ),
];

const BGP_DAEMON: &[Field] = &[
    text("state"),
    text("version"),
    text("routerID"),
    text("lastBootTime"),
    text("lastReconfigurationTime"),
];

const STATUS_PEER: &[Field] = &[text("peerIP"), text("type"), text("state"), text("since")];

const STATUS_ROUTE: &[Field] = &[
    text("type"),
    text("destination"),
    text("gateway"),
    text("interface"),
    kept_object("learnedFrom", &[text("sourceType"), text("peerIP")]),
];

const NODE_STATUS: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    kept_object("metadata", METADATA),
    kept_object("spec", &[text("node"), texts("classes"), kept(integer("updatePeriodSeconds"))]),
    object(
        "status",
        &[
            kept(text("lastUpdated")),
            kept_object(
                "agent",
                &[kept_object("birdV4", BGP_DAEMON), kept_object("birdV6", BGP_DAEMON)],
            ),
            kept_object(
                "bgp",
                &[
                    kept(integer("numberEstablishedV4")),
                    kept(integer("numberNotEstablishedV4")),
                    kept(integer("numberEstablishedV6")),
                    kept(integer("numberNotEstablishedV6")),
                    list("peersV4", STATUS_PEER),
                    list("peersV6", STATUS_PEER),
                ],
            ),
            kept_object(
                "routes",
                &[list("routesV4", STATUS_ROUTE), list("routesV6", STATUS_ROUTE)],
            ),
        ],
    ),
];

/// The fields of the v1 form of a pool (projectcalico/libcalico-go v1.7.3,
/// `lib/api/ippool.go`).
pub(super) const V1_IP_POOL: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    object("metadata", &[text("cidr")]),
    object(
        "spec",
        &[object("ipip", &[flag("enabled"), text("mode")]), flag("nat-outgoing"), flag("disabled")],
    ),
];

/// The fields of the v1 form of a peer (projectcalico/libcalico-go v1.7.3,
/// `lib/api/bgppeer.go`).
pub(super) const V1_BGP_PEER: &[Field] = &[
    text("kind"),
    text("apiVersion"),
    object("metadata", &[text("scope"), text("node"), text("peerIP")]),
    object("spec", &[as_number("asNumber")]),
];

/// The fields of the v3 form of a kind.
pub(super) fn fields(kind: Kind) -> &'static [Field] {
    match kind {
        Kind::IpPool => IP_POOL,
        Kind::IpReservation => IP_RESERVATION,
        Kind::Node => NODE,
        Kind::IpamConfig => IPAM_CONFIG,
        Kind::BgpConfiguration => BGP_CONFIGURATION,
        Kind::BgpPeer => BGP_PEER,
        Kind::BgpFilter => BGP_FILTER,
        Kind::CalicoNodeStatus => NODE_STATUS,
        Kind::FelixConfiguration => felix::FELIX_CONFIGURATION,
    }
}

/// Whether some document has a field of this name that is true or false.
pub(super) fn is_flag(name: &str) -> bool {
    fn has_flag(fields: &[Field], name: &str) -> bool {
        fields.iter().any(|field| match field.shape {
            Shape::Flag => field.name == name,
            Shape::Object(fields) | Shape::List(fields) => has_flag(fields, name),
            _ => false,
        })
    }
    Kind::ALL
        .into_iter()
        .map(fields)
        .chain([V1_IP_POOL, V1_BGP_PEER])
        .any(|fields| has_flag(fields, name))
}

/// Whether documents of a kind have a field of this name in their metadata or
/// their spec.
pub(super) fn has(kind: Kind, name: &str) -> bool {
    let places = fields(kind).iter().filter_map(|field| match field.shape {
        Shape::Object(fields) => Some(fields),
        _ => None,
    });
    places.flatten().any(|field| field.name == name)
}

/// A field that no document of its kind has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// The field's name.
    pub name: String,
    /// A field of that place with almost the same name.
    pub similar: Option<&'static str>,
}

/// The first field, if any, that is not among `fields`.
pub(super) fn find_unknown(object: &Map<String, Value>, fields: &[Field]) -> Option<Unknown> {
    find_added(object, &Map::new(), fields)
}

/// The first field, if any, that is neither among `fields` nor in the same
/// place of the object as it was `before`.
pub(super) fn find_added(
    object: &Map<String, Value>,
    before: &Map<String, Value>,
    fields: &[Field],
) -> Option<Unknown> {
    find_added_in(object, before, fields, false)
}

fn find_added_in(
    object: &Map<String, Value>,
    before: &Map<String, Value>,
    fields: &[Field],
    is_open: bool,
) -> Option<Unknown> {
    let nothing = Map::new();
    object.iter().find_map(|(name, value)| {
        let before = before.get(name);
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            let similar = similar_field(name, fields);
            let is_wrong = before.is_none() && (!is_open || similar.is_some());
            return is_wrong.then(|| Unknown { name: name.clone(), similar });
        };
        match (&field.shape, value) {
            (Shape::Object(fields), Value::Object(object)) => {
                let before = before.and_then(Value::as_object).unwrap_or(&nothing);
                find_added_in(object, before, fields, field.is_open)
            }
            (Shape::List(fields), Value::Array(items)) => {
                let before = |index: usize| before?.get(index)?.as_object();
                let mut items = items.iter().enumerate();
                items.find_map(|(index, item)| {
                    find_added(item.as_object()?, before(index).unwrap_or(&nothing), fields)
                })
            }
            _ => None,
        }
    })
}

/// Takes over from `old` the fields that are not among `fields`, in every object that both have
/// and that is not open: of an open one the new object can say all.
pub(super) fn keep_unknown(
    new: &mut Map<String, Value>,
    old: &Map<String, Value>,
    fields: &[Field],
) {
    keep_unknown_in(new, old, fields, false);
}

fn keep_unknown_in(
    new: &mut Map<String, Value>,
    old: &Map<String, Value>,
    fields: &[Field],
    is_open: bool,
) {
    for (name, value) in old {
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            if !is_open {
                new.entry(name.clone()).or_insert_with(|| value.clone());
            }
            continue;
        };
        let parts = (&field.shape, new.get_mut(name), value);
        if let (Shape::Object(fields), Some(Value::Object(new)), Value::Object(old)) = parts {
            keep_unknown_in(new, old, fields, field.is_open);
        }
    }
}

/// The object with its fields in Calico's order and without those that Calico
/// leaves out when they are empty. Fields that are not in the table come last
/// and stay as they are.
pub(super) fn arranged(mut object: Map<String, Value>, fields: &[Field]) -> Map<String, Value> {
    let mut result = Map::new();
    for field in fields {
        let Some(value) = object.shift_remove(field.name) else {
            if let (Shape::Object(_), true) = (&field.shape, field.kept_when_empty) {
                result.insert(field.name.to_owned(), Value::Object(Map::new()));
            }
            continue;
        };
        let value = arranged_value(value, &field.shape);
        if field.kept_when_empty || !is_empty(&value) {
            result.insert(field.name.to_owned(), value);
        }
    }
    result.extend(object);
    result
}

fn arranged_value(value: Value, shape: &Shape) -> Value {
    match (shape, value) {
        (Shape::Object(fields), Value::Object(object)) => Value::Object(arranged(object, fields)),
        (Shape::List(fields), Value::Array(items)) => {
            let items = items.into_iter();
            Value::Array(items.map(|item| arranged_value(item, &Shape::Object(fields))).collect())
        }
        (_, value) => value,
    }
}

/// Empty as Go's `omitempty` has it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

fn similar_field(name: &str, fields: &[Field]) -> Option<&'static str> {
    const FARTHEST: usize = 3;
    nearest(name, fields.iter().map(|field| field.name), FARTHEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn unknown(object: Value) -> Option<Unknown> {
        find_unknown(object.as_object().unwrap(), fields(Kind::IpPool))
    }

    #[test]
    fn unknown_fields_are_found_where_they_are() {
        let found = unknown(json!({"metadata": {"name": "p"}, "spec": {"natOutgoin": true}}));
        let similar = Some("natOutgoing");
        assert_eq!(found, Some(Unknown { name: "natOutgoin".into(), similar }));
        let found = unknown(json!({"spec": {"colour": "blue"}})).unwrap();
        assert_eq!(found.similar, None);
        assert_eq!(unknown(json!({"metadata": {"labels": {"a": "b"}}, "spec": {}})), None);
    }

    /// Calico has more of them with each version, and Weir obeys few.
    #[test]
    fn felix_has_settings_that_are_not_known_here() {
        let unknown = |object: Value| {
            find_unknown(object.as_object().unwrap(), fields(Kind::FelixConfiguration))
        };
        let spec = json!({"bpfEnabled": true, "istioAmbientMode": "Enabled", "later": {"a": 1}});
        assert_eq!(unknown(json!({"spec": spec})), None);
        for (name, meant) in
            [("vxlanVni", "vxlanVNI"), ("vxlanProt", "vxlanPort"), ("ipipMtu", "ipipMTU")]
        {
            let similar = Some(meant);
            let expected = Some(Unknown { name: name.into(), similar });
            assert_eq!(unknown(json!({"spec": {name: 1}})), expected);
        }
        // Only its settings are so many.
        for object in [
            json!({"later": 1}),
            json!({"metadata": {"later": 1}}),
            json!({"spec": {"routeTableRange": {"later": 1}}}),
        ] {
            assert!(unknown(object.clone()).is_some(), "{object}");
        }
    }

    #[test]
    fn arranging_orders_drops_empties_and_keeps_the_unknown() {
        let object = json!({
            "later": {"b": 0, "a": false}, "spec": {"natOutgoing": false, "ipipMode": "Never",
            "cidr": ""}, "kind": "IPPool"
        });
        let arranged = arranged(object.as_object().unwrap().clone(), fields(Kind::IpPool));
        assert_eq!(
            Value::Object(arranged).to_string(),
            r#"{"kind":"IPPool","metadata":{},"spec":{"cidr":"","ipipMode":"Never"},"later":{"b":0,"a":false}}"#
        );
    }
}
