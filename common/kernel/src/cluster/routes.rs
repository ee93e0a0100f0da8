//! Changes of routes, many at a time.

use std::collections::BTreeSet;
use std::io;

use futures_util::{StreamExt, stream};
use ipnet::IpNet;
use netlink_packet_route::route::RouteMessage;
use nix::errno::Errno;
use weir_common::network::{Change, RouteKind};

use super::actual::ListedTable;
use super::change::Run;
use super::route_message::{announcement, is_of_cluster, message, takes_the_place, withdrawal};
use crate::Kernel;
use crate::error::Error;
use crate::link::is;
use crate::netlink::into_io;

/// How many requests are under way at a time. The kernel takes them in order.
pub(super) const IN_FLIGHT: usize = 64;

/// What is asked of the kernel.
#[derive(Clone, Copy, Debug)]
enum RouteVerb {
    Add,
    Replace,
    Delete,
}

/// One request, and the change that it is for.
struct RouteRequest<'a> {
    change: &'a Change,
    verb: RouteVerb,
    message: RouteMessage,
}

impl Run<'_> {
    /// Carries out changes that are all of routes.
    pub(super) async fn routes(&mut self, changes: &[Change]) {
        let known = match self.kernel.table_for(changes).await {
            Ok(known) => known,
            Err(error) => {
                let what = format!("{} changes of routes", changes.len());
                self.left_out.extend(changes.iter().map(ToString::to_string));
                return self.failures.push((what, error));
            }
        };
        let mut requests = Vec::with_capacity(changes.len());
        let mut collided = Vec::new();
        for change in changes {
            match self.requests(change, &known) {
                Ok(Some(more)) if more.is_empty() => {
                    self.left_out.insert(change.to_string());
                }
                Ok(Some(more)) => requests.extend(more),
                Ok(None) => collided.push(change),
                Err(error) => self.failures.push((change.to_string(), error)),
            }
        }
        let kernel = self.kernel;
        let mut outcomes =
            stream::iter(requests).map(|one| kernel.request(one)).buffered(IN_FLIGHT);
        while let Some((change, outcome)) = outcomes.next().await {
            match outcome {
                Err(cause) if is(&cause, Errno::EEXIST) => collided.push(change),
                Err(cause) => {
                    self.failures.push((change.to_string(), Error::refused(change, cause)));
                }
                Ok(()) => {}
            }
        }
        self.failures.extend(kernel.collisions(&collided).await);
    }

    /// The requests that carry out a change; none if it needs a tunnel device
    /// that is known to be missing, `None` if another program's route
    /// stands where it is to be.
    fn requests<'a>(
        &mut self,
        change: &'a Change,
        known: &Known,
    ) -> Result<Option<Vec<RouteRequest<'a>>>, Error> {
        let request = |verb, message| RouteRequest { change, verb, message };
        let delete = |route: &RouteMessage| request(RouteVerb::Delete, route.clone());
        Ok(Some(match change {
            Change::AddRoute(range, way) => {
                let route = self.route(*range, way)?;
                route.map(|route| request(RouteVerb::Add, route)).into_iter().collect()
            }
            Change::ReplaceRoute(range, _) if known.occupied.contains(range) => return Ok(None),
            Change::ReplaceRoute(range, way) => {
                let Some(route) = self.route(*range, way)? else {
                    return Ok(Some(Vec::new()));
                };
                // The kernel replaces the first one that has the same place.
                let (same, other): (Vec<_>, Vec<_>) =
                    known.own(*range).partition(|route| takes_the_place(route));
                // A container's route may have taken its place meanwhile.
                let verb = if same.is_empty() { RouteVerb::Add } else { RouteVerb::Replace };
                let replace = request(verb, route);
                let same = same.into_iter().skip(1).map(delete);
                same.chain([replace]).chain(other.into_iter().map(delete)).collect()
            }
            Change::DeleteRoute(range, None) => known.own(*range).map(delete).collect(),
            Change::DeleteRoute(range, Some(way)) => match self.route(*range, way) {
                Ok(route) => route.iter().map(delete).collect(),
                // It went with its link.
                Err(Error::LinkMissing { .. }) => Vec::new(),
                Err(error) => return Err(error),
            },
            Change::Announce(range) => vec![request(RouteVerb::Add, announcement(*range))],
            Change::Withdraw(range) => vec![request(RouteVerb::Delete, withdrawal(*range))],
            _ => Vec::new(),
        }))
    }

    /// The route by `way`; `None` if it needs a tunnel device that is known to
    /// be missing.
    fn route(&mut self, range: IpNet, way: &RouteKind) -> Result<Option<RouteMessage>, Error> {
        Ok(self.index_of(way)?.map(|index| message(range, way, index)))
    }
}

/// What has to be known of the main table before routes are changed; nothing
/// for changes that name exactly what they meet.
#[derive(Default)]
struct Known {
    table: Option<ListedTable>,
    occupied: BTreeSet<IpNet>,
}

impl Known {
    fn own(&self, range: IpNet) -> impl Iterator<Item = &RouteMessage> {
        self.table.iter().flat_map(move |table| table.own(range))
    }
}

impl Kernel {
    async fn table_for(&self, changes: &[Change]) -> Result<Known, Error> {
        let is_vague = |change: &Change| {
            matches!(change, Change::ReplaceRoute(..) | Change::DeleteRoute(_, None))
        };
        if !changes.iter().any(is_vague) {
            return Ok(Known::default());
        }
        let table = self.main_table(&self.host.links().await?).await?;
        Ok(Known { occupied: table.occupied(), table: Some(table) })
    }

    async fn request<'a>(&self, request: RouteRequest<'a>) -> (&'a Change, io::Result<()>) {
        let RouteRequest { change, verb, message } = request;
        let route = self.host.handle().route();
        let outcome = match verb {
            RouteVerb::Add => route.add(message).execute().await,
            RouteVerb::Replace => route.add(message).replace().execute().await,
            RouteVerb::Delete => route.del(message).execute().await,
        };
        let outcome = match (verb, outcome.map_err(into_io)) {
            (RouteVerb::Delete, Err(cause))
                if is(&cause, Errno::ESRCH) || is(&cause, Errno::ENODEV) =>
            {
                Ok(())
            }
            (_, outcome) => outcome,
        };
        (change, outcome)
    }

    /// What stands in the way of these changes. That is nothing where the wanted
    /// route itself is there by now.
    async fn collisions(&self, changes: &[&Change]) -> Vec<(String, Error)> {
        if changes.is_empty() {
            return Vec::new();
        }
        let tables = async {
            let links = self.host.links().await?;
            Ok((self.main_table(&links).await?, self.announced(&links).await?))
        };
        let (main, announced) = match tables.await {
            Ok(tables) => tables,
            Err(error) => return vec![(format!("{} changes of routes", changes.len()), error)],
        };
        let mut failures = Vec::new();
        for change in changes {
            let (range, others, is_there) = match change {
                Change::AddRoute(range, way) | Change::ReplaceRoute(range, way) => {
                    let others = main.in_place_of(*range);
                    let is_wanted = |other| main.way(other).as_ref() == Some(way);
                    let is_there = matches!(others[..], [other] if is_wanted(other));
                    (range, others, is_there)
                }
                Change::Announce(range) => {
                    let others = announced.in_place_of(*range);
                    let is_there = matches!(others[..], [other] if is_of_cluster(other));
                    (range, others, is_there)
                }
                _ => continue,
            };
            if is_there {
                continue;
            }
            let action = change.to_string();
            let error = match self.host.owner(others.first().copied()).await {
                Ok(owner) => {
                    let destination = range.to_string();
                    Error::RouteExists { action: action.clone(), destination, owner }
                }
                Err(error) => error,
            };
            failures.push((action, error));
        }
        failures
    }
}
