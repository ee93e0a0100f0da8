//! `weirctl ipam show`: addresses in use, and who has them.

use std::net::IpAddr;

use serde_json::{Value, json};
use weir_common::audit::release_one::holder;
use weir_common::datastore::{Datastore, Selection, keys};
use weir_common::ipam::docker::{
    ATTRIBUTE_DOCKER_NETWORK, ATTRIBUTE_MAC, DOCKER_INTERFACE, named_by,
};
use weir_common::ipam::{Attribute, Block};
use weir_common::resources::{IpPool, Kind};

use crate::commands::repair::explain;
use crate::output::{boxed, json, line};
use crate::session::{CommandResult, Session};
use crate::store::{self, StoreError};

/// Shows all addresses in use, or those of one pool.
///
/// # Errors
/// [`StoreError::DoesNotExist`] for a pool that is not there; when the
/// datastore fails.
pub async fn show(
    session: &Session<'_>,
    pool: Option<&str>,
    as_json: bool,
) -> Result<String, StoreError> {
    let pools = read_pools(session).await?;
    let wanted = pool.map(|pool| find(&pools, pool)).transpose()?;
    let range = wanted.map(|pool| pool.cidr);
    let (blocks, _) = store::blocks_in(session.datastore, range).await?;
    let in_use = blocks.iter().flat_map(|stored| InUse::all_of(&stored.value));
    let in_use = in_use.filter(|it| range.is_none_or(|range| range.contains(&it.address)));
    if as_json {
        let addresses = in_use.map(|it| it.to_json(&pools));
        return Ok(json::document(&json!({ "addresses": addresses.collect::<Value>() })));
    }
    let rows: Vec<_> = in_use.map(|it| it.to_row()).collect();
    let header = ["IP", "NODE", "BLOCK", "TYPE", "ALLOCATED-TO", "HANDLE"];
    Ok(boxed::table(&header, &rows, session.style))
}

pub(super) async fn read_pools(session: &Session<'_>) -> Result<Vec<IpPool>, StoreError> {
    let mut snapshot = session.datastore.read(&[Selection::Prefix(keys::POOLS.to_owned())]).await?;
    let entries = snapshot.selected.pop().unwrap_or_default();
    Ok(entries.iter().filter_map(store::read_stored_pool).collect())
}

/// The pool of this name or CIDR.
fn find<'a>(pools: &'a [IpPool], wanted: &str) -> Result<&'a IpPool, StoreError> {
    let is_wanted = |pool: &&IpPool| pool.name == wanted || pool.cidr.to_string() == wanted;
    let missing = || StoreError::DoesNotExist { kind: Kind::IpPool, name: wanted.to_owned() };
    pools.iter().find(is_wanted).ok_or_else(missing)
}

/// An address in use.
struct InUse<'a> {
    address: IpAddr,
    block: &'a Block,
    /// Who has it; `None` in a damaged block.
    holder: Option<&'a Attribute>,
}

impl<'a> InUse<'a> {
    fn all_of(block: &'a Block) -> impl Iterator<Item = Self> {
        let taken = block.allocations.iter().enumerate().filter(|(_, index)| index.is_some());
        taken.map(move |(ordinal, _)| Self {
            address: block.address(ordinal),
            block,
            holder: block.holder(ordinal),
        })
    }

    fn fact(&self, key: &str) -> Option<&'a str> {
        self.holder?.fact(key)
    }

    fn handle(&self) -> Option<&'a str> {
        self.holder?.handle_id.as_deref()
    }

    fn to_row(&self) -> Vec<String> {
        let (kind, name) = self.holder.map(kind_and_name).unwrap_or_default();
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let (address, block) = (self.address.to_string(), self.block.cidr.to_string());
        vec![address, text(self.fact("node")), block, kind, name, text(self.handle())]
    }

    fn to_json(&self, pools: &[IpPool]) -> Value {
        let pool = pools.iter().find(|pool| pool.cidr.contains(&self.block.cidr));
        let attributes = self.holder.and_then(|holder| holder.secondary.clone());
        let mut value = json!({
            "address": self.address,
            "pool": pool.map(|pool| &pool.name),
            "block": self.block.cidr,
            "blockOwner": self.block.host(),
            "node": self.fact("node"),
            "handle": self.handle(),
            "attributes": attributes.unwrap_or_default(),
        });
        note_release(self.holder, &mut value);
        value
    }

    /// Whether another node than the block's has it. In a block without an
    /// owner this is so for all that a node has.
    fn is_borrowed(&self) -> bool {
        self.fact("node").is_some_and(|node| Some(node) != self.block.host())
    }
}

/// Shows the addresses that a node has from a block that is not its own.
///
/// # Errors
/// When the datastore fails.
pub async fn show_borrowed(session: &Session<'_>, as_json: bool) -> Result<String, StoreError> {
    let pools = read_pools(session).await?;
    let (blocks, _) = store::blocks_in(session.datastore, None).await?;
    let in_use = blocks.iter().flat_map(|stored| InUse::all_of(&stored.value));
    let borrowed = in_use.filter(InUse::is_borrowed);
    if as_json {
        let addresses = borrowed.map(|it| it.to_json(&pools));
        return Ok(json::document(&json!({ "addresses": addresses.collect::<Value>() })));
    }
    let rows: Vec<_> = borrowed
        .map(|it| {
            let mut row = it.to_row();
            row.pop();
            row.insert(3, it.block.host().unwrap_or_default().to_owned());
            row
        })
        .collect();
    let header = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"];
    Ok(boxed::table(&header, &rows, session.style))
}

/// What has an address, and its name.
fn kind_and_name(holder: &Attribute) -> (String, String) {
    match holder.fact("pod") {
        _ if holder.is_cooling_down() => ("cooling down".to_owned(), String::new()),
        Some(pod) => {
            let namespace = holder.fact("namespace").unwrap_or_default();
            ("pod".to_owned(), format!("{namespace}/{pod}"))
        }
        None => match docker_name(holder) {
            Some(name) => ("docker".to_owned(), name),
            None => (holder.fact("type").unwrap_or_default().to_owned(), String::new()),
        },
    }
}

/// What of Docker's has an address, if it is Docker's, by ids as short as `docker network ls`
/// shows them.
fn docker_name(holder: &Attribute) -> Option<String> {
    let named = named_by(holder.handle_id.as_deref()?)?;
    if holder.interface() != Some(DOCKER_INTERFACE) {
        return None;
    }
    let short = |id: &str| id.chars().take(12).collect::<String>();
    Some(match (holder.fact(ATTRIBUTE_DOCKER_NETWORK), holder.fact(ATTRIBUTE_MAC)) {
        (Some(network), _) => format!("endpoint {} in network {}", short(named), short(network)),
        (None, Some(mac)) => format!("MAC {mac}, without an endpoint"),
        (None, None) => "kept by a network".to_owned(),
    })
}

/// Says whether an address is in use, and by whom.
///
/// # Errors
/// [`Failure`](crate::session::Failure) when the datastore fails.
pub async fn show_one(datastore: &dyn Datastore, address: IpAddr, as_json: bool) -> CommandResult {
    let holder = holder(datastore, address).await.map_err(explain)?;
    if as_json {
        let mut value = json!({
            "address": address,
            "inUse": holder.as_ref().is_some_and(|holder| !holder.is_cooling_down()),
            "handle": holder.as_ref().and_then(|holder| holder.handle_id.as_ref()),
            "attributes": holder.as_ref().and_then(|holder| holder.secondary.clone()).unwrap_or_default(),
        });
        note_release(holder.as_ref(), &mut value);
        return Ok(json::document(&value));
    }
    Ok(match holder {
        Some(holder) => describe(address, &holder),
        None => format!("{address} is not assigned\n"),
    })
}

/// Adds when an address that cools down was released.
fn note_release(holder: Option<&Attribute>, value: &mut Value) {
    if let Some(at) = holder.and_then(Attribute::released_at) {
        value["releasedAt"] = at.to_string().into();
    }
}

fn describe(address: IpAddr, holder: &Attribute) -> String {
    let mut text = match (holder.is_cooling_down(), holder.released_at()) {
        (true, Some(at)) => format!("IP {address} is cooling down: it was released at {at}\n"),
        (true, None) => format!("IP {address} is cooling down\n"),
        (false, _) => format!("IP {address} is in use\n"),
    };
    let handle = holder.handle_id.as_deref().unwrap_or("<none>");
    text.push_str(&line(&format!("Handle ID: {handle}")));
    if let Some(name) = docker_name(holder) {
        text.push_str(&line(&format!("Docker: {name}")));
    }
    let secondary = holder.secondary.clone().unwrap_or_default();
    text.push_str(if secondary.is_empty() { "No attributes defined\n" } else { "Attributes:\n" });
    for (name, value) in secondary {
        text.push_str(&line(&format!("  {name}: {value}")));
    }
    text
}
