//! How full the pools are, for Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use weir_common::network::{ClusterState, PoolUsage, UseHistory};

type ByLabels = Family<Vec<(&'static str, String)>, Gauge<f64, AtomicU64>>;

/// The gauges, a value for each pool.
#[derive(Debug, Default)]
pub struct PoolMetrics {
    size: ByLabels,
    /// By state.
    addresses: ByLabels,
    borrowed: ByLabels,
    blocks: ByLabels,
    exhaustion: ByLabels,
}

impl PoolMetrics {
    /// Those that this registry shows.
    pub fn register(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, metric: &ByLabels| {
            registry.register(name, help, metric.clone());
        };
        gauge("size_addresses", "Addresses of a pool", &self.size);
        gauge("addresses", "Addresses of a pool by what they are now", &self.addresses);
        gauge(
            "borrowed_addresses",
            "Addresses used by another node than the block's",
            &self.borrowed,
        );
        gauge("blocks", "Blocks of a pool that there are", &self.blocks);
        gauge(
            "exhaustion_seconds",
            "Time until no address is free, at the rate of the last hour",
            &self.exhaustion,
        );
    }

    /// Sets the use of all pools, and after how many seconds each is exhausted.
    pub fn set<'a>(&self, pools: impl Iterator<Item = (&'a str, PoolUsage, f64)>) {
        let all = [&self.size, &self.addresses, &self.borrowed, &self.blocks, &self.exhaustion];
        all.into_iter().for_each(Family::clear);
        for (name, usage, exhaustion) in pools {
            let label = vec![("pool", name.to_owned())];
            self.size.get_or_create(&label).set(usage.size as f64);
            self.borrowed.get_or_create(&label).set(usage.borrowed as f64);
            self.blocks.get_or_create(&label).set(usage.blocks as f64);
            self.exhaustion.get_or_create(&label).set(exhaustion);
            for (state, count) in [
                ("used", usage.used),
                ("cooling", usage.cooling),
                ("reserved", usage.reserved),
                ("free", usage.free()),
            ] {
                let labels = vec![("pool", name.to_owned()), ("state", state.to_owned())];
                self.addresses.get_or_create(&labels).set(count as f64);
            }
        }
    }
}

/// The pause between two looks at all pools while they change.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the pools are looked at although nothing changes: the last hour goes on.
const PERIOD: Duration = Duration::from_secs(60);

/// Looks at the pools when they have changed, and now and then.
#[derive(Debug)]
pub struct PoolWatch {
    histories: BTreeMap<String, UseHistory>,
    began: Instant,
    looked: Option<Instant>,
    due: Option<Instant>,
}

impl PoolWatch {
    /// One that has seen nothing.
    pub fn new(now: Instant) -> Self {
        Self { histories: BTreeMap::new(), began: now, looked: None, due: None }
    }

    /// Notes that blocks, pools or reservations may have changed.
    pub fn expect_changes(&mut self, now: Instant) {
        let due = self.looked.map_or(now, |looked| looked + PAUSE);
        self.due = Some(self.due.map_or(due, |already| already.min(due)));
    }

    /// When to look next; `None` before anything is known.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks at all pools, and sets the metrics.
    pub fn look(&mut self, state: &ClusterState, metrics: &PoolMetrics, now: Instant) {
        let usage = state.pool_usage();
        self.histories.retain(|name, _| usage.contains_key(name.as_str()));
        let since = now.duration_since(self.began);
        metrics.set(usage.into_iter().map(|(name, usage)| {
            let history = self.histories.entry(name.to_owned()).or_default();
            history.note(since, usage.used);
            let seconds = history.seconds_to_exhaustion(&usage);
            (name, usage, seconds)
        }));
        (self.looked, self.due) = (Some(now), Some(now + PERIOD));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_looked_at_once_a_second_at_most_and_each_minute() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs_f64(seconds);
        let (mut watch, metrics) = (PoolWatch::new(now), PoolMetrics::default());
        assert_eq!(watch.due(), None);
        watch.expect_changes(at(0.5));
        assert_eq!(watch.due(), Some(at(0.5)));
        watch.look(&ClusterState::default(), &metrics, at(0.5));
        assert_eq!(watch.due(), Some(at(60.5)));
        for change in [0.6, 0.7, 5.0] {
            watch.expect_changes(at(change));
            assert_eq!(watch.due(), Some(at(1.5)));
        }
    }
}
