//! RequestAddress and ReleaseAddress.
//!
//! dockerd says what an address is for by a hardware address, if it is for a container
//! (`RequiresMACAddress`), and not at all if it is for the network. docs/docker.md says what is
//! assigned to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use jiff::Timestamp;
use weir_common::datastore::Datastore;
use weir_common::ipam::assign::Request;
use weir_common::ipam::collect::AttachmentName;
use weir_common::ipam::docker::{
    ATTRIBUTE_MAC, DOCKER_INTERFACE, DOCKER_NETWORK, MAX_WAITING, NotReleased, Waiting,
    WaitingPlace, named_by, of_network, release, waiting, wired_by_another,
};
use weir_common::ipam::engine::{Assignment, assign_around};
use weir_common::ipam::{ATTRIBUTE_BOOT, AddressProbe, Assignee, Error, FoundAddress, MachineId};
use weir_common::link::{InvalidMac, MacAddress};
use weir_common::{error_chain, printable};
use weir_ipam::{Claims, NodeNetwork, forget_released, note_assigned};
use weir_kernel::Kernel;
use weir_process::{
    AttachmentLocks, DEFAULT_LOCK_FILE, HintsFile, Limit, Lock, WORK, boot_id, within_ipam,
};

use super::driver::Driver;
use super::error::DriverError;
use super::front::Front;
use super::pool_id::{InvalidPoolId, PoolId};
use super::protocol::{
    ADDRESS_TYPE, AddressAnswer, AddressRelease, AddressRequest, GATEWAY, MAC_ADDRESS,
};

/// Why an address is not given.
#[derive(Debug, thiserror::Error)]
pub(super) enum AddressRefusal {
    #[error(transparent)]
    PoolId(#[from] InvalidPoolId),
    #[error(transparent)]
    Mac(#[from] InvalidMac),
    #[error("{:?} is not an address; write it as 10.7.0.5", printable(.0))]
    NoAddress(String),
    #[error(
        "address {address} is not of this network ({network}); ask for another one, or connect \
         the container to the network that has it"
    )]
    OtherNetwork { address: IpAddr, network: String },
    #[error(
        "dockerd names neither a hardware address nor the address that it wants; update Docker, \
         or name an address (--ip)"
    )]
    ForNone,
    #[error(
        "--gateway {0} is not needed: containers reach other networks through their node; leave \
         --gateway out; for a network of another driver (bridge, macvlan) write \
         --ipam-opt gateway={0}"
    )]
    Gateway(IpAddr),
    #[error("--gateway {0} is not the network's, which is {1}; leave --gateway out")]
    OtherGateway(IpAddr, IpAddr),
    #[error(
        "{MAX_WAITING} containers with hardware address {0} wait for their endpoints; start them \
         one after another, or give each its own --mac-address"
    )]
    TooMany(MacAddress),
    #[error(transparent)]
    Ipam(#[from] Error),
}

/// An address that is asked for, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AskedAddress {
    /// The network's gateway, which is known.
    Gateway(IpNet),
    /// One to assign.
    Assigned(AddressUse),
}

/// What an address is to be assigned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressUse {
    /// One for a container with this hardware address: this one, or any.
    Container(MacAddress, Option<IpAddr>),
    /// One that the network keeps from its containers (`--aux-address`).
    Kept(IpAddr),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum GivenAddress {
    /// It was assigned before, or no container gets it anyway.
    Already(IpAddr),
    /// It is assigned now, to this assignee.
    Now(Assignee, Box<Assignment>),
}

/// Where addresses are assigned.
#[derive(Clone, Copy)]
pub(super) struct Here<'a> {
    pub(super) datastore: &'a dyn Datastore,
    pub(super) node: &'a str,
    pub(super) machine: Option<&'a MachineId>,
    /// Blocks that likely have a free address.
    pub(super) likely: &'a [IpNet],
    /// The network around the node.
    pub(super) probe: Option<&'a dyn AddressProbe>,
    pub(super) now: Timestamp,
}

/// Reads and checks a request for an address out of this range.
pub(super) fn read(
    front: Front,
    request: &AddressRequest,
    id: &PoolId,
) -> Result<AskedAddress, AddressRefusal> {
    let option = |name: &str| request.options.get(name).filter(|value| !value.is_empty());
    let address = match request.address.as_str() {
        "" => None,
        text => Some(parse_address(text)?).filter(|address| !address.is_unspecified()),
    };
    if option(ADDRESS_TYPE).is_some_and(|what| what == GATEWAY) {
        let gateway = id.gateway();
        return match address.filter(|address| *address != gateway.addr()) {
            None => Ok(AskedAddress::Gateway(gateway)),
            Some(address) if gateway.addr().is_unspecified() => {
                Err(AddressRefusal::Gateway(address))
            }
            Some(address) => Err(AddressRefusal::OtherGateway(address, gateway.addr())),
        };
    }
    // Calico's driver gives any address of any pool.
    if let Some(address) = address.filter(|it| !front.is_calicos() && !id.contains(*it)) {
        return Err(AddressRefusal::OtherNetwork { address, network: id.to_string() });
    }
    match (option(MAC_ADDRESS), address) {
        (Some(mac), address) => {
            Ok(AskedAddress::Assigned(AddressUse::Container(mac.parse()?, address)))
        }
        (None, Some(address)) => Ok(AskedAddress::Assigned(AddressUse::Kept(address))),
        (None, None) => Err(AddressRefusal::ForNone),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, AddressRefusal> {
    text.parse().map_err(|_| AddressRefusal::NoAddress(text.to_owned()))
}

impl Here<'_> {
    /// Assigns an address to a container. A repeated call finds what the first one got, as long
    /// as that waits for its endpoint.
    pub(super) async fn assign(
        self,
        id: &PoolId,
        mac: MacAddress,
        address: Option<IpAddr>,
    ) -> Result<GivenAddress, AddressRefusal> {
        let assignee = match id.is_wired_by_another() {
            true => wired_by_another(self.node, mac, self.now),
            false => {
                let here = (self.node, self.machine);
                let waits = Waiting::read(self.datastore, here, mac).await?;
                match waits.place(id.wanted(address), self.now) {
                    Some(WaitingPlace::Found(address)) => {
                        return Ok(GivenAddress::Already(address));
                    }
                    Some(WaitingPlace::New(nth)) => waiting(self.node, mac, nth),
                    None => return Err(AddressRefusal::TooMany(mac)),
                }
            }
        };
        let mac_fact = (ATTRIBUTE_MAC.to_owned(), mac.to_string());
        let request = self.request(assignee, id, address, Some(mac_fact));
        let assignment = self.ask(&request).await?;
        Ok(GivenAddress::Now(request.assignee, Box::new(assignment)))
    }

    /// Keeps an address from containers. One that none gets anyway, as that of a router, and
    /// one that the same network keeps on another node, is kept already.
    pub(super) async fn keep(
        self,
        id: &PoolId,
        address: IpAddr,
    ) -> Result<GivenAddress, AddressRefusal> {
        let request = self.request(of_network(self.node, address), id, Some(address), None);
        match self.ask(&request).await {
            Ok(assignment) => Ok(GivenAddress::Now(request.assignee, Box::new(assignment))),
            Err(Error::Withheld { .. }) => Ok(GivenAddress::Already(address)),
            Err(error @ Error::Taken { .. }) => {
                let found = FoundAddress::find(self.datastore, address).await?;
                let holder = found.as_ref().and_then(FoundAddress::holder);
                match holder.is_some_and(|it| it.is_of(&request.assignee.handle_id)) {
                    true => Ok(GivenAddress::Already(address)),
                    false => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn ask(self, request: &Request) -> Result<Assignment, Error> {
        assign_around(self.datastore, request, self.likely, self.now, self.probe).await
    }

    fn request(
        self,
        assignee: Assignee,
        id: &PoolId,
        address: Option<IpAddr>,
        fact: Option<(String, String)>,
    ) -> Request {
        let boot = boot_id().map(|boot| (ATTRIBUTE_BOOT.to_owned(), boot.to_owned()));
        Request {
            assignee: assignee.on(self.machine.cloned()),
            facts: fact.into_iter().chain(boot).collect(),
            wants: vec![id.want(address)],
            gateways: id.gateways(),
            within: id.within(),
        }
    }
}

impl Driver {
    pub(super) async fn request_address(
        &self,
        front: Front,
        request: AddressRequest,
    ) -> Result<AddressAnswer, DriverError> {
        let read = || -> Result<(PoolId, AskedAddress), AddressRefusal> {
            let id: PoolId = request.pool_id.parse()?;
            let asked = read(front, &request, &id)?;
            Ok((id, asked))
        };
        let (id, asked) = read().map_err(|refusal| self.not_given(refusal))?;
        let address = match asked {
            AskedAddress::Gateway(gateway) => gateway,
            AskedAddress::Assigned(usage) => id.told(self.give(&id, usage).await?),
        };
        Ok(AddressAnswer { address: address.to_string(), data: BTreeMap::new() })
    }

    /// Gives an address, under the host's lock.
    async fn give(&self, id: &PoolId, usage: AddressUse) -> Result<IpAddr, DriverError> {
        let limit = Limit::of(WORK);
        let _lock = lock(limit).await?;
        let mut file = HintsFile::read(Path::new(DEFAULT_LOCK_FILE));
        let mut hints = file.hints();
        let giving = async { Ok(self.assign(id, usage, &hints.likely).await) };
        let given = within_ipam("assigning an address", limit, giving).await;
        let address = match given?.map_err(|refusal| self.not_given(refusal))? {
            GivenAddress::Already(address) => address,
            GivenAddress::Now(assignee, assignment) => {
                let added = note_assigned(&assignee, *assignment, &mut hints);
                file.leave(&hints);
                let assigned = added.assignment.addresses.first();
                assigned
                    .map(|it| it.address)
                    .ok_or_else(|| DriverError::new("none was assigned"))?
            }
        };
        Ok(address)
    }

    async fn assign(
        &self,
        id: &PoolId,
        usage: AddressUse,
        likely: &[IpNet],
    ) -> Result<GivenAddress, AddressRefusal> {
        let datastore = self.datastore.as_ref();
        let around = NodeNetwork::open(datastore, self.place.clone(), &self.node)?;
        let here = Here {
            datastore,
            node: &self.node,
            machine: self.machine.as_ref(),
            likely,
            probe: Some(&around),
            now: Timestamp::now(),
        };
        match usage {
            AddressUse::Container(mac, address) => here.assign(id, mac, address).await,
            AddressUse::Kept(address) => here.keep(id, address).await,
        }
    }

    pub(super) async fn release_address(
        &self,
        AddressRelease { pool_id, address }: AddressRelease,
    ) -> Result<(), DriverError> {
        let read = || -> Result<(PoolId, IpAddr), AddressRefusal> {
            Ok((pool_id.parse()?, parse_address(&address)?))
        };
        let (id, address) = read().map_err(|refusal| self.not_given(refusal))?;
        // The gateway that is none, or that nobody was given.
        if address.is_unspecified() || address == id.gateway().addr() {
            return Ok(());
        }
        let limit = Limit::of(WORK);
        let _lock = lock(limit).await?;
        let kernel = Kernel::open()?;
        self.part_ports(address).await?;
        let here = (self.node.as_str(), self.machine.as_ref());
        let locks = AttachmentLocks::open()?;
        let claims = Claims::new(DOCKER_NETWORK, locks);
        let keeps = async |handle: &str| self.keeps(&claims, handle);
        let releasing = async { Ok(release(self.datastore.as_ref(), here, address, keeps).await?) };
        let released = within_ipam("releasing an address", limit, releasing).await;
        match released.map_err(|error| DriverError::caused_by(&error))? {
            Ok(()) => {
                tracing::debug!(%address, "released");
                forget_released(&kernel, BTreeSet::from([address])).await;
            }
            Err(NotReleased::NotInUse) => {}
            Err(NotReleased::OfAnother(handle)) => {
                tracing::info!(%address, handle, "left alone: it is not of this node's Docker");
            }
            Err(NotReleased::Kept(handle)) => {
                tracing::info!(%address, handle, "left alone: an endpoint or another network has it");
            }
        }
        Ok(())
    }

    /// Whether a handle of Docker's keeps its address though dockerd gives it back: a release
    /// that is repeated, or that of a container whose hardware address another one has, may name
    /// an address that is in use. No call begins on an endpoint that is claimed. Where it cannot
    /// be seen, the address stays until the driver looks for what is left.
    fn keeps(&self, claims: &Claims, handle: &str) -> bool {
        let container_id = named_by(handle).unwrap_or_default().to_owned();
        match container_id.parse() {
            Ok(address) => self.has_networks_with(address),
            Err(_) => {
                let interface = DOCKER_INTERFACE.to_owned();
                !claims.claim(&AttachmentName { container_id, interface })
            }
        }
    }

    /// Whether several networks of Weir's driver may keep an address from their containers: one
    /// gives it back, and is still there then (dockerd's `network.delete`: `ipamRelease` comes
    /// before `deleteNetwork`).
    fn has_networks_with(&self, address: IpAddr) -> bool {
        let has = |id: &str| {
            let network = self.network(id);
            network.map_or(true, |it| it.ranges.iter().any(|range| range.contains(&address)))
        };
        self.networks().map_or(true, |ids| ids.iter().filter(|id| has(id)).count() > 1)
    }

    /// The refusal as dockerd is told.
    fn not_given(&self, refusal: AddressRefusal) -> DriverError {
        match refusal {
            AddressRefusal::Ipam(error) => self.refused(&error),
            refusal => DriverError::caused_by(&refusal),
        }
    }

    /// IPAM's refusal as dockerd is told. Where pools are missing it names the datastore: another
    /// one may have been meant.
    pub(super) fn refused(&self, error: &Error) -> DriverError {
        let told = error_chain(error);
        match error.lacks_pools() {
            true => DriverError::new(format!("{told}; looked in {}", self.place)),
            false => DriverError::new(told),
        }
    }
}

/// Waits for this host's other calls that change allocations.
async fn lock(limit: Limit) -> Result<Lock, DriverError> {
    let lock = Lock::wait(Path::new(DEFAULT_LOCK_FILE), limit).await;
    lock.map_err(|error| DriverError::caused_by(&error))
}
