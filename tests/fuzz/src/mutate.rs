//! Changes of JSON as a tree.

use serde_json::{Map, Value, json};

/// How deep a value may be wrapped: deeper than serde_json reads.
const DEEPEST: u64 = 140;

/// Changes a JSON text in one to three places, the same ones for the same seed;
/// `None` when it is none, or when its bytes are to be changed instead.
pub fn json(text: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut random = Random(u64::from(seed) | 1 << 40);
    if random.below(4) == 0 {
        return None;
    }
    let mut tree: Value = serde_json::from_slice(text).ok()?;
    for _ in 0..=random.below(3) {
        let donor = subtree(&tree, random.next()).clone();
        let count = size(&tree);
        let place = random.below(count);
        change(nth(&mut tree, place)?, donor, &mut random);
    }
    let mut text = tree.to_string().into_bytes();
    if random.below(8) == 0 {
        repeat_a_key(&mut text, &mut random);
    }
    Some(text)
}

/// A small generator of numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// A number below `limit`, which must not be 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

/// How many values there are in a tree.
fn size(tree: &Value) -> u64 {
    1 + match tree {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(object) => object.values().map(size).sum(),
        _ => 0,
    }
}

fn subtree(tree: &Value, random: u64) -> &Value {
    let mut left = random % size(tree);
    let mut here = tree;
    while left > 0 {
        left -= 1;
        let children: Vec<&Value> = match here {
            Value::Array(items) => items.iter().collect(),
            Value::Object(object) => object.values().collect(),
            _ => break,
        };
        for child in children {
            let inside = size(child);
            if left < inside {
                here = child;
                break;
            }
            left -= inside;
        }
    }
    here
}

fn nth(tree: &mut Value, place: u64) -> Option<&mut Value> {
    if place == 0 {
        return Some(tree);
    }
    let mut left = place - 1;
    let children: Vec<&mut Value> = match tree {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(object) => object.values_mut().collect(),
        _ => return None,
    };
    for child in children {
        let inside = size(child);
        if left < inside {
            return nth(child, left);
        }
        left -= inside;
    }
    None
}

fn change(value: &mut Value, donor: Value, random: &mut Random) {
    match random.below(10) {
        0 => *value = donor,
        1 | 2 => *value = interesting(random),
        3 => *value = wrapped(value.take(), random),
        _ => match value {
            Value::Array(items) => change_list(items, donor, random),
            Value::Object(object) => change_object(object, donor, random),
            Value::String(text) => change_text(text, random),
            Value::Number(_) => *value = near(value, random),
            Value::Null | Value::Bool(_) => *value = interesting(random),
        },
    }
}

fn wrapped(mut value: Value, random: &mut Random) -> Value {
    let depth = if random.below(8) == 0 { random.below(DEEPEST) } else { 1 };
    for _ in 0..depth {
        value = if random.below(2) == 0 { json!([value]) } else { json!({ "items": value }) };
    }
    value
}

fn change_list(items: &mut Vec<Value>, donor: Value, random: &mut Random) {
    let place = random.below(items.len() as u64 + 1) as usize;
    match random.below(5) {
        0 if place < items.len() => drop(items.remove(place)),
        1 if place < items.len() => items.insert(place, items[place].clone()),
        2 => items.truncate(place),
        3 if place < items.len() => items.swap(0, place),
        _ => items.insert(place, donor),
    }
}

fn change_object(object: &mut Map<String, Value>, donor: Value, random: &mut Random) {
    let keys: Vec<String> = object.keys().cloned().collect();
    if keys.is_empty() {
        object.insert("key".to_owned(), donor);
        return;
    }
    let key = random.pick(&keys).clone();
    let mut name = if random.below(2) == 0 { key.clone() } else { random.pick(&keys).clone() };
    change_text(&mut name, random);
    match random.below(5) {
        0 | 1 => drop(object.shift_remove(&key)),
        2 => {
            let value = object.shift_remove(&key).unwrap_or_default();
            object.insert(name, value);
        }
        3 => {
            let value = object[&key].clone();
            object.insert(name, value);
        }
        _ => drop(object.insert(key, donor)),
    }
}

/// Changes a text by a character, a digit, a cut, or another text.
fn change_text(text: &mut String, random: &mut Random) {
    let mut characters: Vec<char> = text.chars().collect();
    let place = random.below(characters.len() as u64 + 1) as usize;
    let odd =
        ['0', '1', '9', '/', '-', '.', ':', '"', '\\', ' ', ',', '\0', '\u{7f}', 'é', '\u{2028}'];
    match random.below(7) {
        0 if place < characters.len() => drop(characters.remove(place)),
        1 => characters.insert(place, *random.pick(&odd)),
        2 if place < characters.len() => characters[place] = *random.pick(&odd),
        3 => characters.truncate(place),
        4 if place < characters.len() => characters.insert(place, characters[place]),
        5 => {
            let digits: Vec<usize> =
                (0..characters.len()).filter(|at| characters[*at].is_ascii_digit()).collect();
            if !digits.is_empty() {
                let at = *random.pick(&digits);
                characters[at] = char::from(b'0' + random.below(10) as u8);
            }
        }
        _ => characters = random.pick(TEXTS).chars().collect(),
    }
    *text = characters.into_iter().collect();
}

fn near(value: &Value, random: &mut Random) -> Value {
    match (value.as_i64(), random.below(4)) {
        (Some(number), 0) => json!(number.wrapping_add(1)),
        (Some(number), 1) => json!(number.wrapping_sub(1)),
        (Some(number), 2) => json!(number.wrapping_mul(2)),
        _ => interesting(random),
    }
}

fn interesting(random: &mut Random) -> Value {
    match random.below(18) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1e308),
        7 => json!(0.5),
        8 => json!([]),
        9 => json!({}),
        10 => json!(4096),
        11 => json!("x".repeat(300)),
        12..15 => json!(random.below(130)),
        _ => json!(random.pick(TEXTS)),
    }
}

/// Texts that mean something somewhere.
const TEXTS: &[&str] = &[
    "",
    ".",
    "..",
    "0",
    "1",
    "4",
    "6",
    "-1",
    "true",
    "false",
    "null",
    "all()",
    "10.0.0.0/26",
    "10.0.0.0/24",
    "10.0.0.64/26",
    "10.0.0.0/0",
    "10.0.0.5",
    "10.0.0.5/32",
    "0.0.0.0",
    "0.0.0.0/0",
    "255.255.255.255",
    "255.255.255.255/32",
    "fd00::/112",
    "fd00::/122",
    "fd00::7",
    "::/0",
    "::",
    "::ffff:10.0.0.1",
    "ffff::/128",
    "fe80::1",
    "224.0.0.1",
    "host:n1",
    "host:n2",
    "host:",
    "virtual:x",
    "n1",
    "n2",
    "net.a",
    "net.fuzz-1",
    "eth0",
    "confirmed",
    "pending",
    "pendingDeletion",
    "Always",
    "Never",
    "CrossSubnet",
    "Manual",
    "Workload",
    "Tunnel",
    "0.1.0",
    "0.2.0",
    "0.4.0",
    "1.0.0",
    "1.1.0",
    "net",
    "weir",
    "weir-ipam",
    "embedded",
    "etcdv3",
    "2026-11-23 03:36:01.859779804 +0000 UTC",
    "2026-11-23T03:36:01Z",
    "99999-12-31 23:59:60 +0000 UTC",
    "18446744073709551616",
    "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-26",
    "/calico/ipam/v2/assignment/ipv4/block/10.0.0.1-26",
    "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-20",
    "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-0",
    "/calico/ipam/v2/assignment/ipv6/block/fd00::-122",
    "/calico/ipam/v2/host/n1/ipv4/block/10.0.0.64-26",
    "/calico/ipam/v2/host/n1/ipv4/block/10.0.0.65-26",
    "/calico/ipam/v2/host/n2/ipv4/block/10.0.0.0-26",
    "/calico/ipam/v2/handle/net.fuzz-1",
    "/calico/ipam/v2/handle/",
    "/calico/ipam/v2/config",
    "/calico/resources/v3/projectcalico.org/ippools/blue",
    "/calico/resources/v3/projectcalico.org/ippools/red",
    "/calico/resources/v3/projectcalico.org/ipreservations/r",
    "/calico/resources/v3/projectcalico.org/nodes/n1",
    "/calico/resources/v3/projectcalico.org/clusterinformations/default",
    "/calico/weir/v1/full/n1/ipv4/10.0.0.0-26",
];

/// Writes a key of some object twice, with different values.
fn repeat_a_key(text: &mut Vec<u8>, random: &mut Random) {
    let opening: Vec<usize> = (0..text.len().saturating_sub(1))
        .filter(|at| text[*at] == b'{' && text[at + 1] == b'"')
        .collect();
    if opening.is_empty() {
        return;
    }
    let at = *random.pick(&opening) + 1;
    let Some(length) = text[at + 1..].iter().position(|byte| *byte == b'"') else { return };
    let mut key = text[at..at + length + 2].to_vec();
    key.extend(b":");
    key.extend(interesting(random).to_string().bytes());
    key.extend(b",");
    text.splice(at..at, key);
}
