//! IP pools.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::cidr;
use super::error::{Error, FieldError};
use super::fields::{self, Fields, Problems};
use super::selector::Selector;
use super::types::display;
use crate::tunnel::TunnelKind;

mod modes;
mod rules;

pub use modes::{AllowedUse, AssignmentMode, EncapsulationMode};
pub use rules::{check_blocks, check_overlap, check_range, check_update};

/// A pool of addresses, as validated: every field has its value or default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPool {
    /// The name under which it is stored.
    pub name: String,
    /// The addresses in it; no host bits are set.
    pub cidr: IpNet,
    /// The prefix length of its blocks: 20 to 32, or 116 to 128 for IPv6.
    pub block_size: u8,
    /// When packets between nodes are wrapped, by the field that says so
    /// ([`TunnelRow::mode_field`](crate::tunnel::TunnelRow::mode_field)).
    pub modes: BTreeMap<&'static str, EncapsulationMode>,
    /// Whether packets to outside of all pools get the node's address.
    pub nat_outgoing: bool,
    /// Whether new addresses are refused. Existing ones stay.
    pub disabled: bool,
    /// Whether its blocks are kept from BGP peers.
    pub disable_bgp_export: bool,
    /// The nodes that take addresses from it.
    pub node_selector: Selector,
    /// The namespaces that take addresses from it; empty for all.
    pub namespace_selector: Selector,
    /// What its addresses may be used for. Never empty.
    pub allowed_uses: Vec<AllowedUse>,
    /// Whether it is used only when asked for.
    pub assignment_mode: AssignmentMode,
    /// What of it cannot be read, as where a newer Calico wrote it: it serves nobody then.
    pub flaw: Option<String>,
}

impl IpPool {
    /// A pool with these addresses and Calico's defaults for all else. The
    /// host bits of `cidr` are dropped.
    pub fn new(name: impl Into<String>, cidr: IpNet) -> Self {
        Self {
            name: name.into(),
            cidr: cidr.trunc(),
            block_size: default_block_size(cidr),
            modes: BTreeMap::new(),
            nat_outgoing: false,
            disabled: false,
            disable_bgp_export: false,
            node_selector: Selector::default(),
            namespace_selector: Selector::default(),
            allowed_uses: vec![AllowedUse::Workload, AllowedUse::Tunnel],
            assignment_mode: AssignmentMode::Automatic,
            flaw: None,
        }
    }

    /// Reads a pool from its stored JSON (v3), fills in defaults and checks
    /// it by the rules that hold for what people write. Unknown fields are
    /// passed over.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        Self::from_object(&fields::object("IPPool", value)?)
    }

    /// As [`IpPool::from_json`], from JSON that is parsed already.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn from_object(object: &serde_json::Map<String, serde_json::Value>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let read = read(object, &mut problems);
        let pool = read.map(|(pool, written)| {
            rules::check(&pool, written, &mut problems);
            pool
        });
        problems.into_result(pool)
    }

    /// Reads a pool for the ways between nodes, which the containers that it has
    /// depend on: only its CIDR, modes and NAT need to be good. What is wrong
    /// besides is handed out with it; such fields have their defaults.
    ///
    /// # Errors
    /// As [`IpPool::from_json`], for what is needed.
    pub fn for_routes(value: &[u8]) -> Result<(Self, Option<Error>), Error> {
        let object = fields::object("IPPool", value)?;
        let mut problems = Problems::default();
        let read = read(&object, &mut problems);
        // What the ways between nodes depend on. Host bits in the CIDR do no harm.
        let modes = TunnelKind::of_modes().map(mode_path);
        let needed: Vec<String> = modes.chain(["IPPool.Spec.NATOutgoing".to_owned()]).collect();
        problems.refuse(&needed.iter().map(String::as_str).collect::<Vec<_>>())?;
        let Some((pool, written)) = read else {
            return problems.into_result(None);
        };
        rules::check(&pool, written, &mut problems);
        Ok((pool, problems.into_error()))
    }

    /// Reads a pool to give addresses from. As [`IpPool::for_routes`], but what is wrong stands
    /// in the pool.
    ///
    /// # Errors
    /// As [`IpPool::for_routes`].
    pub fn for_assignment(value: &[u8]) -> Result<Self, Error> {
        let (pool, flaw) = Self::for_routes(value)?;
        Ok(Self { flaw: flaw.map(|flaw| flaw.to_string().trim_end().replace('\n', " ")), ..pool })
    }

    /// The tunnel by which packets to its addresses go between nodes, and whether only to
    /// nodes in other subnets.
    pub fn tunnel(&self) -> Option<(TunnelKind, EncapsulationMode)> {
        let carrying = TunnelKind::ALL.into_iter().filter(|kind| kind.carries(self.cidr.addr()));
        let mut modes = carrying.map(|kind| (kind, self.mode(kind)));
        modes.find(|(_, mode)| *mode != EncapsulationMode::Never)
    }

    /// When packets between nodes are wrapped, by the field that asks for a kind of tunnel.
    pub fn mode(&self, kind: TunnelKind) -> EncapsulationMode {
        let mode = self.modes.get(kind.row().mode_field);
        mode.copied().unwrap_or(EncapsulationMode::Never)
    }

    /// Whether this pool's addresses may serve this purpose.
    pub fn allows(&self, purpose: AllowedUse) -> bool {
        self.allowed_uses.contains(&purpose)
    }
}

/// The default block size for a pool of this family: Calico's /26 and /122.
pub(super) fn default_block_size(cidr: IpNet) -> u8 {
    match cidr {
        IpNet::V4(_) => 26,
        IpNet::V6(_) => 122,
    }
}

fn read_cidr(spec: &Fields<'_>, problems: &mut Problems) -> Option<IpNet> {
    let field = spec.path("CIDR");
    let Some(text) = spec.text("cidr", "CIDR", problems) else {
        problems.add(
            FieldError::new(field, "IPPool CIDR must be specified")
                .advice("add one to spec, for example cidr: 10.1.0.0/16"),
        );
        return None;
    };
    parse_cidr(text).map_err(|problem| problems.add(problem)).ok()
}

/// Reads a pool's CIDR as Go does; host bits stay.
///
/// # Errors
/// What is wrong with it.
pub fn parse_cidr(text: &str) -> Result<IpNet, FieldError> {
    cidr::parse(text).map_err(|why| {
        let example = "write an address and a prefix length, for example 10.1.0.0/16";
        let problem = FieldError::new("IPPool.Spec.CIDR", "IPPool CIDR must be a valid subnet");
        problem.value(text).advice(why.advice(example))
    })
}

/// Reads all fields, and the CIDR with the host bits that were written; `None` without
/// a CIDR.
fn read(
    object: &serde_json::Map<String, serde_json::Value>,
    problems: &mut Problems,
) -> Option<(IpPool, IpNet)> {
    let resource = Fields::new(object, "");
    let name = fields::name(&resource, problems);
    let spec = resource.object("spec", "IPPool.Spec", problems);
    let cidr = read_cidr(&spec, problems)?;
    Some((read_spec(name.unwrap_or_default(), cidr, &spec, problems), cidr))
}

/// How messages call the field that asks for a kind of tunnel.
fn mode_path(kind: TunnelKind) -> String {
    format!("IPPool.Spec.{}", display(kind.row().mode_field))
}

/// Reads all fields but name and CIDR.
fn read_spec(name: String, cidr: IpNet, spec: &Fields<'_>, problems: &mut Problems) -> IpPool {
    IpPool {
        block_size: rules::read_block_size(cidr, spec, problems),
        modes: TunnelKind::of_modes()
            .filter_map(|kind| modes::read_encapsulation(kind.row().mode_field, spec, problems))
            .collect(),
        nat_outgoing: spec.boolean("natOutgoing", "NATOutgoing", problems).unwrap_or(false),
        disabled: spec.boolean("disabled", "Disabled", problems).unwrap_or(false),
        disable_bgp_export: spec
            .boolean("disableBGPExport", "DisableBGPExport", problems)
            .unwrap_or(false),
        node_selector: spec.selector("nodeSelector", "NodeSelector", problems).unwrap_or_default(),
        namespace_selector: spec
            .selector("namespaceSelector", "NamespaceSelector", problems)
            .unwrap_or_default(),
        allowed_uses: modes::read_allowed_uses(spec, problems),
        assignment_mode: modes::read_assignment_mode(spec, problems),
        ..IpPool::new(name, cidr)
    }
}

#[cfg(test)]
mod tests;
