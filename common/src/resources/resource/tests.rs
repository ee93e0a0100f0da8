use super::*;
use crate::datastore::Revision;
use crate::resources::schema::Shape;
use crate::resources::{Patch, PatchType, document};

fn birth() -> Birth {
    Birth { uid: "u".into(), timestamp: "2026-01-02T03:04:05Z".into() }
}

fn written(text: &str) -> Resource {
    document::read(text).unwrap().remove(0)
}

fn stored(resource: &Resource) -> String {
    String::from_utf8(resource.to_stored(None).unwrap()).unwrap()
}

#[test]
fn a_created_pool_is_stored_as_calico_stores_it() {
    let pool = written(
        "{spec: {natOutgoing: false, vxlanMode: CrossSubnet, nodeSelector: 'a == \"b\" && has(c)', \
         cidr: 'FD00:0::/48'}, metadata: {name: blue, resourceVersion: '7', uid: old}, \
         kind: IPPool, apiVersion: projectcalico.org/v3}",
    );
    assert_eq!(
        stored(&pool.created(birth())),
        r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"blue","uid":"u","creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"cidr":"fd00::/48","vxlanMode":"CrossSubnet","ipipMode":"Never","blockSize":122,"nodeSelector":"a == \"b\" \u0026\u0026 has(c)","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}"#
    );
}

#[test]
fn a_replaced_pool_keeps_its_birth_and_what_weir_does_not_know() {
    let old = br#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","uid":"old","creationTimestamp":"2025-01-01T00:00:00Z","labels":{"a":"b"},"future":1},"spec":{"cidr":"10.1.0.0/16","natOutgoing":true,"future":{"x":[]}},"status":{"conditions":[]},"future":0}"#;
    let old = Resource::from_stored(Kind::IpPool, old).unwrap();
    let new = written(
        "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p, uid: mine}, \
         spec: {cidr: 10.1.0.0/16, disabled: true}}",
    );
    assert_eq!(
        stored(&new.replacing(&old)),
        r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","uid":"old","creationTimestamp":"2025-01-01T00:00:00Z","future":1},"spec":{"cidr":"10.1.0.0/16","vxlanMode":"Never","ipipMode":"Never","disabled":true,"blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic","future":{"x":[]}},"status":{"conditions":[]},"future":0}"#
    );
}

#[test]
fn a_replaced_node_keeps_what_weir_does_not_know_inside_of_what_it_has() {
    let old = br#"{"metadata":{"name":"n1"},"spec":{"bgp":{"asNumber":1,"later":2},"wireguard":{"later":3}}}"#;
    let old = Resource::from_stored(Kind::Node, old).unwrap();
    let new = written(
        "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n1}, \
         spec: {bgp: {ipv4Address: 10.0.0.1/24}}}",
    );
    assert_eq!(
        Value::Object(new.replacing(&old).object)["spec"],
        json!({"bgp": {"ipv4Address": "10.0.0.1/24", "later": 2}}),
        "wireguard is taken out"
    );
}

#[test]
fn an_ipam_configuration_is_stored_in_its_own_form() {
    let config = written(
        "{apiVersion: projectcalico.org/v3, kind: IPAMConfiguration, metadata: {name: default}, \
         spec: {strictAffinity: true, maxBlocksPerHost: 4}}",
    );
    config.check().unwrap();
    let before = br#"{"auto_allocate_blocks":true,"ipCooldownSeconds":9}"#;
    let after = config.to_stored(Some(before)).unwrap();
    assert_eq!(
        String::from_utf8(after.clone()).unwrap(),
        r#"{"auto_allocate_blocks":true,"ipCooldownSeconds":9,"strict_affinity":true,"maxBlocksPerHost":4}"#
    );
    let read = Resource::from_stored(Kind::IpamConfig, &after).unwrap();
    assert_eq!(read.spec("maxBlocksPerHost"), Some(&json!(4)));
    let other = written(
        "{apiVersion: projectcalico.org/v3, kind: IPAMConfig, metadata: {name: other}, spec: {}}",
    );
    assert!(other.check().unwrap_err().to_string().contains("Metadata.Name = 'other'"));
}

/// Paths of the fields that can be false or 0, with that value.
fn zeros(fields: &[schema::Field], path: &str) -> Vec<(String, Value)> {
    let zeros = fields.iter().flat_map(|field| {
        let path = format!("{path}/{}", field.name);
        match field.shape {
            Shape::Flag => vec![(path, json!(false))],
            Shape::Integer | Shape::AsNumber => vec![(path, json!(0))],
            Shape::Object(fields) => zeros(fields, &path),
            Shape::List(fields) => zeros(fields, &format!("{path}/0")),
            _ => vec![],
        }
    });
    zeros.collect()
}

/// The value with `inner` at the path, in new objects and lists.
fn with(mut value: Value, path: &[&str], inner: &Value) -> Value {
    match path {
        [] => inner.clone(),
        ["0", rest @ ..] => json!([with(Value::Null, rest, inner)]),
        [name, rest @ ..] => {
            value[*name] = with(value[*name].take(), rest, inner);
            value
        }
    }
}

/// Created, read, changed elsewhere by a patch, and replaced by what was read.
#[test]
fn an_explicit_false_or_zero_stays_what_it_is() {
    // Where absence means something else than false or 0: in Calico's structures pointers, or
    // written always.
    const KEPT: [&str; 17] = [
        "/spec/autoAllocateBlocks",
        "/spec/nodeToNodeMeshEnabled",
        "/spec/ipv4NormalRoutePriority",
        "/spec/password/secretKeyRef/optional",
        "/spec/numAllowedLocalASNumbers",
        "/spec/localASNumber",
        "/spec/exportV4/0/prefixLength/min",
        "/spec/importV6/0/prefixLength/max",
        "/spec/exportV6/0/operations/0/setPriority/value",
        "/spec/updatePeriodSeconds",
        "/spec/bgp/asNumber",
        "/spec/vxlanEnabled",
        "/spec/vxlanMTU",
        "/spec/failsafeInboundHostPorts/0/port",
        "/metadata/deletionGracePeriodSeconds",
        "/metadata/ownerReferences/0/controller",
        "/metadata/ownerReferences/0/blockOwnerDeletion",
    ];
    let mut kept = Vec::new();
    for kind in Kind::ALL {
        for (path, zero) in zeros(schema::fields(kind), "") {
            let base = json!({"kind": kind.name(), "apiVersion": API_VERSION,
            "metadata": {"name": "default"}, "spec": match kind {
                Kind::IpPool => json!({"cidr": "10.1.0.0/16"}),
                Kind::IpamConfig => json!({"strictAffinity": true}),
                _ => json!({}),
            }});
            let document = with(base, &path.split('/').skip(1).collect::<Vec<_>>(), &zero);
            let stores_no_metadata = kind == Kind::IpamConfig && !path.starts_with("/spec");
            // The default, in Calico as well; only the datastore decides on the other ones.
            if stores_no_metadata || path == "/spec/blockSize" || path.starts_with("/status") {
                continue;
            }
            let written = Resource::new(kind, document.as_object().unwrap().clone());
            let read = |resource: &Resource, before: Option<&[u8]>| {
                let stored = resource.to_stored(before).unwrap();
                let read = Resource::from_stored(kind, &stored).unwrap();
                (read.read_at(Revision(7)), stored)
            };
            let (created, stored) = read(&written.clone().created(birth()), None);
            let other = match kind {
                Kind::IpamConfig => r#"{"spec":{"maxBlocksPerHost":0}}"#,
                _ => r#"{"metadata":{"labels":{"a":"b"}}}"#,
            };
            let patch = Patch::parse(other, PatchType::Merge).unwrap();
            let patched = patch.apply(&created).unwrap().replacing(&created);
            let (patched, _) = read(&patched, Some(&stored));
            let (replaced, _) = read(&written.replacing(&created), Some(&stored));
            for (how, resource) in
                [("created", created), ("patched", patched), ("replaced", replaced)]
            {
                let value = Value::Object(resource.object);
                match value.pointer(&path) {
                    Some(found) => assert_eq!(*found, zero, "{kind} {path}, {how}: {value}"),
                    None => {
                        assert!(!KEPT.contains(&path.as_str()), "{kind} {path}, {how}: {value}");
                    }
                }
            }
            kept.extend(KEPT.contains(&path.as_str()).then_some(path));
        }
    }
    assert!(KEPT.iter().all(|path| kept.iter().any(|it| it == path)), "{kept:?}");
}

#[test]
fn the_revision_stands_where_calico_puts_it() {
    let pool = br#"{"kind":"IPPool","metadata":{"name":"p","uid":"u","creationTimestamp":"t"},"spec":{"cidr":"10.1.0.0/16"}}"#;
    let pool = Resource::from_stored(Kind::IpPool, pool).unwrap().read_at(Revision(7));
    assert_eq!(
        pool.object["metadata"].to_string(),
        r#"{"name":"p","uid":"u","resourceVersion":"7","creationTimestamp":"t"}"#
    );
}
