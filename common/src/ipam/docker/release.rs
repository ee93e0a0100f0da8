//! One address of Docker's, given back by itself: dockerd names neither endpoint nor hardware
//! address then.

use std::net::IpAddr;

use super::super::assignee::Assignee;
use super::super::block::Attribute;
use super::super::error::Error;
use super::super::find::FoundAddress;
use super::super::handle::Handle;
use super::super::machine::MachineId;
use super::super::ownership::MachineRecord;
use super::super::ready::Guarded;
use super::super::release::give_back_one;
use super::{DOCKER_INTERFACE, DOCKER_NETWORK, named_by};
use crate::datastore::{Datastore, Decision, Selection, keys, transact};

/// Why an address was not given back: in each case it is not for this node's dockerd to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReleased {
    /// It is in use by no program.
    NotInUse,
    /// Another program, another node or another machine has it, with this handle.
    OfAnother(Option<String>),
    /// It is this handle's, which is to be kept.
    Kept(String),
}

/// Gives an address of Docker's back that this `machine` with the name `host` got, unless its
/// holder's handle is one that `keeps` it. The other addresses of the handle stay.
///
/// # Errors
/// [`Error::NotReady`], [`Error::Malformed`], [`Error::Contended`], [`Error::Datastore`].
pub async fn release(
    datastore: &dyn Datastore,
    (host, machine): (&str, Option<&MachineId>),
    address: IpAddr,
    keeps: impl AsyncFn(&str) -> bool,
) -> Result<Result<(), NotReleased>, Error> {
    let keeps = &keeps;
    transact(datastore, |_| async move {
        let record = Selection::Key(keys::machine(host));
        let selections: Vec<_> =
            std::iter::once(record).chain(FoundAddress::selections(address)).collect();
        let guarded = Guarded::read(datastore, selections).await?;
        let recorded = MachineRecord::read(guarded.entry(0))?.map(|record| record.value.machine);
        let found = FoundAddress::read(address, guarded.selected[1..].iter().flatten())?;
        let holder = found.as_ref().and_then(FoundAddress::holder);
        let (Some(found), Some(holder)) = (&found, holder.filter(|it| !it.is_cooling_down()))
        else {
            return Ok(Decision::Done(Err(NotReleased::NotInUse)));
        };
        let id = match own_handle(holder, (host, machine), recorded.as_ref()) {
            None => {
                let not_released = NotReleased::OfAnother(holder.handle_id.clone());
                return Ok(Decision::Done(Err(not_released)));
            }
            Some(id) if keeps(id).await => {
                return Ok(Decision::Done(Err(NotReleased::Kept(id.to_owned()))));
            }
            Some(id) => id,
        };
        let handle = datastore.read(&[Selection::Key(keys::handle(id))]).await?;
        let handle = handle.stored(0, Handle::from_json)?;
        let mut transaction = guarded.transaction();
        give_back_one(&found.block, found.ordinal, handle.as_ref(), &mut transaction);
        Ok(Decision::Commit(transaction, Ok(())))
    })
    .await
}

/// The handle of a holder that is Docker's on this machine.
fn own_handle<'a>(
    holder: &'a Attribute,
    (host, machine): (&str, Option<&MachineId>),
    recorded: Option<&MachineId>,
) -> Option<&'a str> {
    let id = holder.handle_id.as_deref()?;
    let named = named_by(id)?;
    let its_own = Assignee::interface(host, DOCKER_NETWORK, named, DOCKER_INTERFACE);
    its_own.on(machine.cloned()).has(holder, recorded).then_some(id)
}
