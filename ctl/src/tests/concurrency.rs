//! Many `weirctl` at once.

use super::*;
use weir_common::datastore::{
    Error, Outcome, Page, Revision, Selection, Snapshot, Transaction, Watch,
};
use weir_common::resources::{IpPool, Kind};

fn pools_in(memory: &Memory) -> Vec<IpPool> {
    let stored = memory.dump();
    let pools = stored.iter().filter(|(key, _)| Kind::IpPool.name_of(key).is_some());
    pools.map(|(_, value)| IpPool::from_json(value).unwrap()).collect()
}

/// Lets others run between reading and committing.
struct Yielding(Memory);

#[async_trait::async_trait]
impl Datastore for Yielding {
    async fn read(&self, selections: &[Selection]) -> Result<Snapshot, Error> {
        let snapshot = self.0.read(selections).await;
        tokio::task::yield_now().await;
        snapshot
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.0.list(prefix, after, limit).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        tokio::task::yield_now().await;
        self.0.commit(transaction).await
    }

    async fn watch(&self, prefixes: &[String], after: Revision) -> Result<Box<dyn Watch>, Error> {
        self.0.watch(prefixes, after).await
    }
}

#[tokio::test]
async fn of_overlapping_pools_created_at_once_one_survives() {
    let memory = Memory::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        // Every third pool is a /16 that holds up to 66 of the /24.
        let cidr = match number % 3 {
            0 => format!("10.{}.0.0/16", number % 4),
            _ => format!("10.{}.{}.0/24", number % 4, number),
        };
        let store = Yielding(memory.another_process());
        tasks.spawn(async move {
            let answer =
                create(&store, &pool(&format!("p{number}"), &format!("cidr: {cidr}"))).await;
            (number, answer)
        });
    }
    let answers = tasks.join_all().await;
    let survivors = pools_in(&memory);
    for (position, pool) in survivors.iter().enumerate() {
        for other in &survivors[position + 1..] {
            assert!(!pool.cidr.contains(&other.cidr) && !other.cidr.contains(&pool.cidr));
        }
    }
    for (number, answer) in answers {
        let name = format!("p{number}");
        if answer.exit == 0 {
            assert!(survivors.iter().any(|pool| pool.name == name), "{name} is not there");
        } else {
            let blamed = survivors.iter().any(|pool| {
                answer
                    .output
                    .contains(&format!("overlaps with IPPool({}) CIDR {}", pool.name, pool.cidr))
            });
            assert!(blamed, "{name}: {}", answer.output);
        }
    }
}

#[tokio::test]
async fn different_pools_created_at_once_all_survive() {
    let memory = Memory::new();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let store = Yielding(memory.another_process());
        tasks.spawn(async move {
            let spec = format!("cidr: 10.{number}.0.0/16");
            create(&store, &pool(&format!("p{number}"), &spec)).await.exit
        });
    }
    assert!(tasks.join_all().await.iter().all(|exit| *exit == 0));
    assert_eq!(pools_in(&memory).len(), 40);
}
