//! Files with resources, as `weirctl` reads them, and patches.

use serde_json::{Value, json};
use weir_common::resources::{
    Birth, DocumentError, IpPool, Kind, Patch, PatchType, Resource, check_overlap, document,
};

/// What is validated and written is read again alike, by the same validator; what
/// is refused says why.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match document::read(text) {
        Ok(resources) => {
            let mut pools: Vec<IpPool> = Vec::new();
            for resource in &resources {
                check(resource, &mut pools);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    patch(text);
}

fn check(resource: &Resource, pools: &mut Vec<IpPool>) {
    if let Err(error) = resource.check() {
        assert!(!error.to_string().is_empty());
        return;
    }
    if resource.kind == Kind::IpPool {
        let pool = resource.pool().expect("it was checked");
        let others = pools.iter().filter(|other| other.name != pool.name);
        let overlaps = others.into_iter().any(|other| {
            other.cidr.contains(&pool.cidr.addr()) || pool.cidr.contains(&other.cidr.addr())
        });
        assert_eq!(check_overlap(&pool, pools).is_err(), overlaps, "{}", pool.cidr);
        pools.push(pool);
    }
    let birth = Birth { uid: "0".to_owned(), timestamp: "2026-11-23T03:36:01Z".to_owned() };
    let created = resource.clone().created(birth);
    let stored = created.to_stored(None).expect("what was checked can be stored");
    let read = Resource::from_stored(resource.kind, &stored).expect("what was stored can be read");
    assert_eq!(read.check().map_err(|error| error.to_string()), Ok(()));
    let again = read.to_stored(Some(&stored)).expect("what was read can be stored");
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&stored));
    if resource.kind == Kind::IpPool {
        assert_eq!(read.pool().ok(), resource.pool().ok(), "the stored pool is another one");
    }
    let exported = json!({"kind": "List", "apiVersion": "v1", "items": [Value::Object(read.exported().object)]});
    let imported = document::read(&exported.to_string());
    let known: Result<Vec<_>, DocumentError> =
        imported.map(|all| all.iter().map(Resource::check).map(|it| it.is_ok()).collect());
    match known {
        Ok(checks) => assert_eq!(checks, [true]),
        Err(error) => panic!("what was written is refused: {error}"),
    }
}

/// The text as a patch of a pool.
fn patch(text: &str) {
    let pool = json!({
        "kind": "IPPool", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "blue", "labels": {"a": "b"}}, "spec": {"cidr": "10.0.0.0/24"},
    });
    let Value::Object(object) = pool else { return };
    let pool = Resource::new(Kind::IpPool, object);
    for form in [PatchType::Strategic, PatchType::Merge, PatchType::Json] {
        let patched = Patch::parse(text, form).and_then(|patch| patch.apply(&pool));
        match patched {
            Ok(patched) => assert_eq!(patched.name(), "blue"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
