//! Many `weirctl` at once.

use super::*;
use weir_common::resources::{IpPool, Kind};

fn pools_in(memory: &Memory) -> Vec<IpPool> {
    let stored = memory.dump();
    let pools = stored.iter().filter(|(key, _)| Kind::IpPool.name_of(key).is_some());
    pools.map(|(_, value)| IpPool::from_json(value).unwrap()).collect()
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
        let store = memory.another_process();
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
        let store = memory.another_process();
        tasks.spawn(async move {
            let spec = format!("cidr: 10.{number}.0.0/16");
            create(&store, &pool(&format!("p{number}"), &spec)).await.exit
        });
    }
    assert!(tasks.join_all().await.iter().all(|exit| *exit == 0));
    assert_eq!(pools_in(&memory).len(), 40);
}
