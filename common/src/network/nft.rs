//! Weir's tables in nftables, as data.

use serde_json::{Value, json};
use sha1::{Digest, Sha1};

/// A table of Weir's, of family `inet`. Its rules are only ever replaced as a whole; some tables
/// have sets besides that calls fill.
pub trait NftTable {
    /// Its name.
    const NAME: &'static str;
    /// What asks for it.
    const REASON: &'static str;
    /// What to do in order to need it no more.
    const ALTERNATIVE: &'static str;

    /// The commands, in nft's JSON (libnftables-json(5)), that fill the table
    /// once it is there, each rule with this comment.
    fn contents(&self, comment: &str) -> Vec<Value>;

    /// How many rules it has.
    fn rules(&self) -> usize;

    /// A hexadecimal fingerprint (SHA-1) of all that nft is told, also of what
    /// is in sets. Every rule carries it as its comment, so that the kernel
    /// itself tells which table is installed.
    fn fingerprint(&self) -> String {
        fingerprint_of(self)
    }

    /// The document, in nft's JSON, that replaces whatever table of the name
    /// there is by this one in a single transaction.
    fn ruleset(&self) -> Value {
        let mut commands = removal_commands(Self::NAME);
        commands.push(json!({ "add": table(Self::NAME) }));
        commands.extend(self.contents(&self.fingerprint()));
        json!({ "nftables": commands })
    }

    /// The document that removes the table, there or not.
    fn removal() -> Value {
        json!({ "nftables": removal_commands(Self::NAME) })
    }

    /// What a table of the name that is not wanted any more becomes; `None` where
    /// it can simply go.
    fn retired() -> Option<Self>
    where
        Self: Sized;
}

/// The fingerprint of what nft is told of a table.
pub(super) fn fingerprint_of(table: &(impl NftTable + ?Sized)) -> String {
    let told = Value::Array(table.contents("")).to_string();
    Sha1::digest(told.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Deleting a table that is not there is an error; adding one that is there is
/// none.
fn removal_commands(name: &str) -> Vec<Value> {
    vec![json!({ "add": table(name) }), json!({ "delete": table(name) })]
}

fn table(name: &str) -> Value {
    json!({ "table": { "family": "inet", "name": name } })
}

/// The command that makes a chain, called like its hook, that lets through what
/// none of its rules is for.
pub(super) fn chain(table: &str, hook: &str, kind: &str, priority: i32) -> Value {
    json!({ "add": { "chain": {
        "family": "inet", "table": table, "name": hook,
        "type": kind, "hook": hook, "prio": priority, "policy": "accept",
    } } })
}

/// The command that adds a rule to a chain.
pub(super) fn rule(table: &str, chain: &str, comment: &str, expression: Vec<Value>) -> Value {
    json!({ "add": { "rule": {
        "family": "inet", "table": table, "chain": chain, "comment": comment, "expr": expression,
    } } })
}

/// The commands that make a chain of [`chain`], and take out the rules that are in it: of a table
/// that is installed beside what its sets have ([`ruleset_beside`]).
pub(super) fn emptied_chain(table: &str, hook: &str, kind: &str, priority: i32) -> [Value; 2] {
    let named = json!({ "family": "inet", "table": table, "name": hook });
    [chain(table, hook, kind, priority), json!({ "flush": { "chain": named } })]
}

/// The document of [`NftTable::ruleset`] for a table whose sets calls fill: they stay as they are,
/// since two calls may install it at the same moment.
pub(super) fn ruleset_beside<T: NftTable>(table_of: &T) -> Value {
    let mut commands = vec![json!({ "add": table(T::NAME) })];
    commands.extend(table_of.contents(&table_of.fingerprint()));
    json!({ "nftables": commands })
}

/// What a rule does with a packet that may not pass.
pub(super) fn drop_packet() -> Value {
    json!({ "drop": null })
}

/// A fact about a packet that is not in it, as `iifname`.
pub(super) fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

/// A field of a packet's header.
pub(super) fn payload(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

/// The part of a rule that looks for packets of IPv4, or of IPv6, that carry this protocol.
pub(super) fn of_protocol(is_ipv6: bool, number: u8) -> Value {
    let (protocol, field) = if is_ipv6 { ("ip6", "nexthdr") } else { ("ip", "protocol") };
    matches(payload(protocol, field), "==", json!(number))
}

/// The part of a rule that compares.
pub(super) fn matches(left: Value, operator: &str, right: Value) -> Value {
    json!({ "match": { "op": operator, "left": left, "right": right } })
}
