//! The `ipam` section, and what was asked for one container.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::super::arguments::Arguments;
use super::super::error::{Code, Error};
use super::super::result::CniRoute;
use super::value::{absolute, invalid, parse_address, parse_mac, parse_prefix, read_flag};
use super::written::{Requested, WrittenConfiguration, WrittenIpam};
use crate::ipam::assign::Want;
use crate::ipam::{Family, PoolReference};
use crate::link::{MacAddress, SourceCheck};
use crate::resources::parse_cidr;

/// The key of what a container may send from besides its addresses.
const ALLOWED_SOURCES: &str = "allowed_source_prefixes";

/// How many prefixes it may have: each is a name of the container's host end.
const MAX_ALLOWED_SOURCES: usize = 64;

/// The part of the configuration that the IPAM plugin goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamConfiguration {
    /// The IPAM plugin to delegate to.
    pub plugin: String,
    /// The addresses the attachment wants.
    pub wants: Vec<Want>,
    /// The gateways that main plugins other than `weir` are told of, with the
    /// prefix lengths of their subnets. They are given to no container.
    pub gateways: Vec<IpNet>,
    /// The routes that the main plugin is to give the container.
    pub routes: Vec<CniRoute>,
    /// The lock that keeps calls on one host from overtaking each other.
    pub lock_file: Option<PathBuf>,
}

impl WrittenConfiguration {
    /// What was asked for this container, the strongest source first
    /// (as the plugins static and bridge have it: runtimeConfig, args, CNI_ARGS).
    fn requested(&self) -> impl Iterator<Item = (&'static str, &Requested)> {
        let args = self.args.as_ref().and_then(|args| args.cni.as_ref());
        let runtime = self.runtime_config.as_ref().map(|requested| ("runtimeConfig", requested));
        runtime.into_iter().chain(args.map(|requested| ("args.cni", requested)))
    }

    fn addresses(&self, arguments: &Arguments) -> Result<Vec<IpAddr>, Error> {
        if let Some((source, requested)) =
            self.requested().find(|(_, requested)| !requested.ips.is_empty())
        {
            let key = format!("{source}.ips");
            return requested.ips.iter().map(|text| parse_address(&key, text)).collect();
        }
        let texts = arguments.ip.iter().flat_map(|list| list.split(','));
        texts.map(|text| parse_address("CNI_ARGS IP", text)).collect()
    }

    pub(super) fn mac(&self, arguments: &Arguments) -> Result<Option<MacAddress>, Error> {
        let written = self.requested().find_map(|(source, requested)| {
            Some((format!("{source}.mac"), requested.mac.clone()?))
        });
        let argument = || Some(("CNI_ARGS MAC".to_owned(), arguments.mac.clone()?));
        written.or_else(argument).map(|(key, text)| parse_mac(&key, &text)).transpose()
    }

    /// The prefixes of the network and those asked for this container together. Where no
    /// source is checked they say nothing more.
    pub(super) fn allowed_sources(&self, check: SourceCheck) -> Result<BTreeSet<IpNet>, Error> {
        let own = (ALLOWED_SOURCES.to_owned(), &self.allowed_source_prefixes);
        let asked = self.requested().map(|(source, requested)| {
            (format!("{source}.{ALLOWED_SOURCES}"), &requested.allowed_source_prefixes)
        });
        let mut allowed = BTreeSet::new();
        for (key, texts) in std::iter::once(own).chain(asked) {
            for text in texts {
                allowed.insert(parse_prefix(&key, text)?);
            }
        }
        match check {
            _ if allowed.len() > MAX_ALLOWED_SOURCES => Err(Error::new(
                Code::InvalidConfiguration,
                format!(
                    "{ALLOWED_SOURCES} has {} prefixes in all; write at most {MAX_ALLOWED_SOURCES}",
                    allowed.len()
                ),
            )),
            SourceCheck::Strict => Ok(allowed),
            SourceCheck::Off => Ok(BTreeSet::new()),
        }
    }

    pub(super) fn ipam(&self, arguments: &Arguments) -> Result<Option<IpamConfiguration>, Error> {
        let Some(ipam) = &self.ipam else {
            return Ok(None);
        };
        let plugin = ipam.plugin.clone().unwrap_or_default();
        if plugin.is_empty() || plugin.contains('/') {
            return Err(invalid("ipam.type", &plugin, "name a plugin, for example weir-ipam"));
        }
        let mut addresses = self.addresses(arguments)?;
        let mut asked = BTreeSet::new();
        addresses.retain(|address| asked.insert(*address));
        let lock_file = absolute("ipam_lock_file", self.ipam_lock_file.as_deref())?;
        Ok(Some(IpamConfiguration {
            wants: ipam.wants(addresses)?,
            gateways: ipam.gateways()?,
            routes: ipam.routes.clone(),
            plugin,
            lock_file,
        }))
    }
}

impl WrittenIpam {
    /// Addresses asked for take the place of those that a family would get by
    /// itself.
    fn wants(&self, addresses: Vec<IpAddr>) -> Result<Vec<Want>, Error> {
        let mut wants = Vec::new();
        for (family, key, flag, pools) in [
            (Family::V4, "ipam.assign_ipv4", &self.assign_ipv4, &self.ipv4_pools),
            (Family::V6, "ipam.assign_ipv6", &self.assign_ipv6, &self.ipv6_pools),
        ] {
            let asked = addresses.iter().filter(|address| Family::of(**address) == family);
            let exactly: Vec<Want> = asked.map(|address| Want::Exactly(*address)).collect();
            if exactly.is_empty() && read_flag(key, flag, family == Family::V4)? {
                let pools = self.pools_of(family, pools)?;
                wants.push(Want::Any { family, pools });
            }
            wants.extend(exactly);
        }
        if wants.is_empty() {
            let advice = "switch on at least one of assign_ipv4 and assign_ipv6";
            return Err(invalid("ipam.assign_ipv4", "false", advice));
        }
        Ok(wants)
    }

    fn gateways(&self) -> Result<Vec<IpNet>, Error> {
        let advice = "write addresses with their subnets' lengths, for example 10.7.0.1/24";
        let gateways = self
            .gateways
            .iter()
            .map(|text| parse_cidr(text).map_err(|_| invalid("ipam.gateways", text, advice)));
        gateways.collect()
    }

    fn pools_of(&self, family: Family, pools: &[String]) -> Result<Vec<PoolReference>, Error> {
        let mut references: Vec<PoolReference> = Vec::new();
        if let Some(subnet) = &self.subnet {
            let cidr = parse_cidr(subnet).map_err(|_| {
                invalid("ipam.subnet", subnet, "write the CIDR of a configured pool")
            })?;
            if Family::of(cidr.addr()) == family {
                references.push(PoolReference::Cidr(cidr.trunc()));
            }
        }
        let named = pools.iter().map(|pool| match pool.parse() {
            Ok(reference) => reference,
            Err(never) => match never {},
        });
        references.extend(named);
        Ok(references)
    }
}
