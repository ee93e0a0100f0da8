//! The kernel: its release, parameters and modules, and the program nft.

use std::collections::BTreeSet;

use weir_common::cni::{Arguments, skeleton};
use weir_common::link::SourceCheck;
use weir_common::network::{Families, HealthProblem, not_forwarding};
use weir_common::tunnel::TunnelKind;

use super::facts::{ExaminedNode, KernelFacts};
use super::judgement::{Grade, Judgement};
use crate::kernel_modules::{KernelModule, OLDEST_KERNEL, checksum_notes, is_new_enough};
use crate::network::plugins;

const SUBJECT: &str = "kernel";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let mut judgements = nft(facts).into_iter().collect::<Vec<_>>();
    let kernel = match &facts.kernel {
        Ok(kernel) => kernel,
        Err(why) => {
            judgements.push(Judgement::unseen(SUBJECT, why));
            return judgements;
        }
    };
    if kernel.is_node == Some(false) {
        let what = "this network namespace is not the node's, so its containers cannot be seen";
        judgements.push(
            Judgement::trouble(SUBJECT, "", what).advise("nsenter --target 1 --net weirctl doctor"),
        );
    }
    judgements.push(release(&kernel.release));
    judgements.extend(checksums(facts, kernel));
    judgements.extend(modules(facts, kernel));
    judgements.extend(forwarding(facts, kernel));
    judgements.extend(rp_filter(facts, kernel));
    judgements
}

fn release(release: &str) -> Judgement {
    if is_new_enough(release) {
        return Judgement::good(SUBJECT, release, "the release is new enough");
    }
    let what = format!("Weir needs Linux {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1);
    Judgement::trouble(SUBJECT, release, what).advise("boot a newer kernel")
}

/// Which of the tunnels that pools ask for this kernel may send wrong checksums through.
fn checksums<'a>(
    facts: &'a ExaminedNode,
    kernel: &'a KernelFacts,
) -> impl Iterator<Item = Judgement> + 'a {
    let pools = facts.cluster.iter().flat_map(|it| it.pools.values());
    let kinds: BTreeSet<TunnelKind> = pools.filter_map(|pool| Some(pool.tunnel?.kind)).collect();
    let notes = checksum_notes(&kernel.release, kinds);
    notes.map(|note| Judgement::told(SUBJECT, Grade::Note, &kernel.release, note))
}

/// The modules that the kernel certainly lacks, where what is configured needs them.
fn modules(facts: &ExaminedNode, kernel: &KernelFacts) -> Vec<Judgement> {
    let checked = configurations(facts).any(|it| it.source_check == SourceCheck::Strict);
    let pools = || facts.cluster.iter().flat_map(|it| it.pools.values());
    let nat = pools().any(|pool| pool.nat_outgoing);
    let is_needed = |name: &str| match name {
        "nf_tables" => checked || nat,
        "nft_fib_inet" => checked,
        "nft_chain_nat" | "nft_ct" | "nft_masq" => nat,
        "nf_conntrack_netlink" => false,
        _ => {
            let is_its = |kind: &TunnelKind| kind.row().module == name;
            let mut kinds = TunnelKind::ALL.into_iter().filter(is_its).peekable();
            kinds.peek().is_none() || kinds.any(|kind| pools().any(|pool| pool.is_of(kind)))
        }
    };
    let needed = kernel.missing_modules.iter().filter(|module| is_needed(module.name));
    let judgement = |module: &&KernelModule| {
        let uses = module.only_for.as_deref().unwrap_or("containers' links");
        let what = format!("the kernel lacks a module for {uses}");
        Judgement::trouble(SUBJECT, module.name, what).advise(format!(
            "install the package with all modules of this kernel, then: modprobe {}; or do without \
             {uses}",
            module.name
        ))
    };
    needed.map(judgement).collect()
}

/// ADD switches forwarding on, so that it is missed only beside containers.
fn forwarding(facts: &ExaminedNode, kernel: &KernelFacts) -> Vec<Judgement> {
    let has = |ipv4: bool| {
        let mut addresses = kernel.attachments.iter().flat_map(|it| &it.addresses);
        addresses.any(|it| it.is_ipv4() == ipv4)
    };
    let families = Families { ipv4: has(true), ipv6: has(false) };
    let off = not_forwarding(families, &kernel.state);
    let wants_ipv6 =
        facts.cluster.as_ref().is_ok_and(|it| it.pools.values().any(|it| it.cidr.addr().is_ipv6()));
    if off.is_empty() {
        let state = &kernel.state;
        let on = |is_on: bool| if is_on { "on" } else { "off, until the first ADD" };
        let ipv6 = if wants_ipv6 {
            format!(", IPv6 {}", on(state.ipv6_forwarding))
        } else {
            String::new()
        };
        let value = format!("IPv4 {}{ipv6}", on(state.ipv4_forwarding));
        return vec![Judgement::good(SUBJECT, value, "forwarding is as containers need it")];
    }
    let judgement = |problem: &HealthProblem| {
        let value = match problem {
            HealthProblem::NotForwarding { parameter } => format!("{parameter} = 0"),
            _ => String::new(),
        };
        Judgement::told(SUBJECT, Grade::Trouble, value, problem)
    };
    off.iter().map(judgement).collect()
}

/// What a container may send from besides its addresses passes the reverse path filter only if
/// that is off: the kernel takes the larger of the parameters for all links and for the link.
fn rp_filter(facts: &ExaminedNode, kernel: &KernelFacts) -> Option<Judgement> {
    let asked = configurations(facts).any(|it| !it.allowed_sources.is_empty());
    let is_used = kernel.attachments.iter().any(|it| !it.allowed_sources.is_empty());
    if !asked && !is_used || kernel.rp_filter == "0" {
        return None;
    }
    let what = "containers are allowed other sources (allowed_source_prefixes), which the reverse \
                path filter drops";
    let value = format!("net.ipv4.conf.all.rp_filter = {}", kernel.rp_filter);
    let advice = "sysctl -w net.ipv4.conf.all.rp_filter=0, and write it into /etc/sysctl.d";
    Some(Judgement::trouble(SUBJECT, value, what).advise(advice))
}

/// nft is run to change Weir's tables: for networks with a source check and pools with NAT.
fn nft(facts: &ExaminedNode) -> Option<Judgement> {
    let checked = configurations(facts).any(|it| it.source_check == SourceCheck::Strict);
    let cluster = facts.cluster.as_ref();
    let is_needed = checked || cluster.is_ok_and(|it| it.pools.values().any(|it| it.nat_outgoing));
    let (value, what) = match &facts.nft {
        Ok(version) if is_too_old(version) => {
            (version.as_str(), "the program nft is older than 0.9.4".to_owned())
        }
        Ok(version) => return Some(Judgement::good(SUBJECT, version, "the program nft runs")),
        Err(why) => ("nft", format!("the program nft does not run: {why}")),
    };
    is_needed.then(|| {
        Judgement::trouble(SUBJECT, value, what).advise(
            "install the package nftables; or set source_check to \"off\" and switch natOutgoing \
             off",
        )
    })
}

/// Whether this is older than 0.9.4, whose JSON is the first that Weir's tables need.
fn is_too_old(version: &str) -> bool {
    let number = version.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('v');
    let numbers: Vec<u32> = number.split('.').filter_map(|it| it.parse().ok()).collect();
    !numbers.is_empty() && numbers < vec![0, 9, 4]
}

fn configurations(
    facts: &ExaminedNode,
) -> impl Iterator<Item = weir_common::cni::NetworkConfiguration> {
    let plugins = facts.networks.files.iter().filter_map(|(_, text)| plugins(text).ok()).flatten();
    let weirs = plugins.filter(|it| it.get("type").is_some_and(|it| it == "weir"));
    weirs.filter_map(|plugin| skeleton::check_add(&plugin, &Arguments::default()).ok())
}
