//! The rules for pools, with Calico's reasons
//! (`libcalico-go/lib/clientv3/ippool.go`, `lib/validator/v3/validator.go`).

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::modes::{AllowedUse, EncapsulationMode};
use super::{IpPool, default_block_size, mode_path};
use crate::printable::shell_word;
use crate::resources::cidr::overlap;
use crate::resources::error::FieldError;
use crate::resources::fields::{Fields, Problems};
use crate::resources::special::special_ranges;
use crate::tunnel::TunnelKind;

const CIDR: &str = "IPPool.Spec.CIDR";
const BLOCK_SIZE: &str = "IPPool.Spec.BlockSize";

const LINK_LOCAL_V4: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(169, 254, 0, 0), 16);
const LINK_LOCAL_V6: Ipv6Net =
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);

/// Reads `blockSize`: absent and 0 mean the default.
pub(super) fn read_block_size(cidr: IpNet, spec: &Fields<'_>, problems: &mut Problems) -> u8 {
    let default = default_block_size(cidr);
    let size = match spec.integer("blockSize", "BlockSize", problems) {
        None | Some(0) => return default,
        Some(size) => size,
    };
    let (allowed, reason) = match cidr {
        IpNet::V4(_) => (20..=32, "IPv4 block size must be between 20 and 32"),
        IpNet::V6(_) => (116..=128, "IPv6 block size must be between 116 and 128"),
    };
    match u8::try_from(size) {
        Ok(size) if allowed.contains(&size) => size,
        _ => {
            problems.add(
                FieldError::new(BLOCK_SIZE, reason)
                    .value(size)
                    .advice(format!("leave it out for the default, {default}")),
            );
            default
        }
    }
}

/// Checks one pool by itself. `written` is its CIDR with the host bits that
/// were written.
pub(super) fn check(pool: &IpPool, written: IpNet, problems: &mut Problems) {
    check_cidr(pool, written, problems);
    check_encapsulation(pool, problems);
    check_load_balancer(pool, problems);
}

fn check_cidr(pool: &IpPool, written: IpNet, problems: &mut Problems) {
    if written != pool.cidr {
        problems.add(
            FieldError::new(CIDR, "IPPool CIDR is not strictly masked")
                .value(written)
                .advice(format!("write {}", pool.cidr)),
        );
    }
    if !pool.disabled && pool.cidr.prefix_len() > pool.block_size {
        let reason = "IP pool size is too small for use with Calico IPAM. \
                      It must be equal to or greater than the block size.";
        problems.add(FieldError::new(CIDR, reason).value(written).advice(format!(
            "widen the CIDR or set blockSize to at least {} (it is {})",
            pool.cidr.prefix_len(),
            pool.block_size
        )));
    }
    let link_local = match pool.cidr {
        IpNet::V4(_) => (IpNet::V4(LINK_LOCAL_V4), "IPv4 Link Local range 169.254.0.0/16"),
        IpNet::V6(_) => (IpNet::V6(LINK_LOCAL_V6), "IPv6 Link Local range fe80::/10"),
    };
    if overlap(pool.cidr, link_local.0) {
        problems.add(
            FieldError::new(CIDR, format!("IPPool CIDR overlaps with {}", link_local.1))
                .value(written)
                .advice("choose a range that nothing else uses, for example 10.1.0.0/16"),
        );
    }
}

fn check_encapsulation(pool: &IpPool, problems: &mut Problems) {
    let is_on = |kind: &TunnelKind| pool.mode(*kind) != EncapsulationMode::Never;
    let on: Vec<TunnelKind> = TunnelKind::of_modes().filter(is_on).collect();
    let field = |kind: TunnelKind| kind.row().mode_field;
    if let [one, .., other] = on[..] {
        let reason = format!("Cannot enable both {other} and {one} on the same IPPool");
        problems.add(
            FieldError::new(mode_path(other), reason).value(pool.mode(other)).advice(format!(
                "set {} or {} to Never",
                field(other),
                field(one)
            )),
        );
    }
    let is_carried = |mode: TunnelKind| {
        let mut kinds = TunnelKind::ALL.into_iter().filter(|kind| kind.shares_mode(mode));
        kinds.any(|kind| kind.carries(pool.cidr.addr()))
    };
    for kind in on.into_iter().filter(|kind| !is_carried(*kind)) {
        let family = if pool.cidr.addr().is_ipv6() { "IPv6" } else { "IPv4" };
        let reason = format!("{kind} is not supported on an {family} IP pool");
        problems.add(
            FieldError::new(mode_path(kind), reason)
                .value(pool.mode(kind))
                .advice(format!("set {} to Never", field(kind))),
        );
    }
}

fn check_load_balancer(pool: &IpPool, problems: &mut Problems) {
    if !pool.allows(AllowedUse::LoadBalancer) {
        return;
    }
    if pool.allowed_uses.len() > 1 {
        let uses: Vec<_> = pool.allowed_uses.iter().map(ToString::to_string).collect();
        let reason = "LoadBalancer cannot be used together with another use";
        problems.add(
            FieldError::new("IPPool.Spec.AllowedUses", reason)
                .value(uses.join(","))
                .advice("make a pool of its own for it"),
        );
    }
    if pool.node_selector.to_string() != "all()" {
        let reason = "a pool for LoadBalancer must select all nodes";
        problems.add(
            FieldError::new("IPPool.Spec.NodeSelector", reason)
                .value(&pool.node_selector)
                .advice("write all()"),
        );
    }
}

/// Checks that a new pool overlaps none of the existing ones. A pool of the
/// same name is passed over: that it exists is another error.
///
/// # Errors
/// One [`FieldError`] for each pool in the way, naming it.
pub fn check_overlap(pool: &IpPool, existing: &[IpPool]) -> Result<(), Vec<FieldError>> {
    let in_the_way =
        existing.iter().filter(|other| other.name != pool.name && overlap(other.cidr, pool.cidr));
    fail_if_any(in_the_way.map(|other| {
        let reason = format!(
            "IPPool({}) CIDR overlaps with IPPool({}) CIDR {}",
            pool.name, other.name, other.cidr
        );
        FieldError::new(CIDR, reason).value(pool.cidr).advice(format!(
            "choose another range, or delete that pool first: weirctl delete ippool {}",
            shell_word(&other.name)
        ))
    }))
}

/// Checks that a new pool has no addresses that are no container's anywhere. One that is stored
/// already stays: its other addresses are good.
///
/// # Errors
/// One [`FieldError`] for each such range.
pub fn check_range(pool: &IpPool) -> Result<(), Vec<FieldError>> {
    fail_if_any(special_ranges(pool.cidr).map(|(range, purpose)| {
        FieldError::new(CIDR, format!("IPPool CIDR overlaps with {range} ({purpose})"))
            .value(pool.cidr)
            .advice("choose a range that nothing else uses, for example 10.1.0.0/16")
    }))
}

/// Checks that no existing block in a new pool's range has another size than
/// the pool's blocks.
///
/// # Errors
/// One [`FieldError`], naming the first such block.
pub fn check_blocks(pool: &IpPool, blocks: &[IpNet]) -> Result<(), Vec<FieldError>> {
    let clash = blocks
        .iter()
        .find(|block| block.prefix_len() != pool.block_size && overlap(**block, pool.cidr));
    fail_if_any(clash.into_iter().map(|block| {
        let reason =
            "IPPool blocksSize conflicts with existing allocations that use a different blockSize";
        FieldError::new(BLOCK_SIZE, reason).value(pool.block_size).advice(format!(
            "block {block} is there already: set blockSize to {}, \
             or release its addresses; weirctl ipam show --show-blocks lists them",
            block.prefix_len()
        ))
    }))
}

/// Checks that what replaces a pool keeps what cannot change: CIDR, block
/// size, and use for load balancers.
///
/// # Errors
/// One [`FieldError`] for each.
pub fn check_update(old: &IpPool, new: &IpPool) -> Result<(), Vec<FieldError>> {
    let advice =
        "create a pool under another name, or delete this one first: weirctl delete ippool ";
    let advice = format!("{advice}{}", shell_word(&old.name));
    let mut problems = Vec::new();
    if old.cidr != new.cidr {
        problems.push(FieldError::new(CIDR, "IPPool CIDR cannot be modified").value(new.cidr));
    }
    if old.block_size != new.block_size {
        let reason = "IPPool BlockSize cannot be modified";
        problems.push(FieldError::new(BLOCK_SIZE, reason).value(new.block_size));
    }
    if old.allows(AllowedUse::LoadBalancer) && !new.allows(AllowedUse::LoadBalancer) {
        let reason = "IPPool allowed use cannot be changed from LoadBalancer to Workload or Tunnel";
        problems.push(FieldError::new("IPPool.Spec.AllowedUses", reason));
    }
    fail_if_any(problems.into_iter().map(|problem| problem.advice(advice.clone())))
}

fn fail_if_any(problems: impl Iterator<Item = FieldError>) -> Result<(), Vec<FieldError>> {
    let problems: Vec<_> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
