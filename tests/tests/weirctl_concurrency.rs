//! Many weirctl at once, as processes of their own, on etcd.

use std::thread;

use ipnet::Ipv4Net;
use weir_common::resources::{IpPool, Kind};
use weir_tests::{Answer, Cluster};

const PROCESSES: usize = 200;

/// A generator of numbers that look random and are the same each time
/// (Marsaglia's xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

/// Ranges between a /12 and a /24 in 10.0.0.0/8; most overlap some others.
fn ranges() -> Vec<Ipv4Net> {
    let mut numbers = Numbers(20_260_102);
    let mut range = || {
        let address = (10 << 24) | numbers.below(1 << 24);
        let length = u8::try_from(12 + numbers.below(13)).expect("at most 24");
        Ipv4Net::new(address.into(), length).expect("a prefix length").trunc()
    };
    (0..PROCESSES).map(|_| range()).collect()
}

fn document(number: usize, range: Ipv4Net) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: p{number}}}\n\
         spec: {{cidr: {range}}}\n"
    )
}

fn pools(cluster: &Cluster) -> Vec<IpPool> {
    let entries = cluster.store.entries();
    let pools = entries.iter().filter(|(key, _)| Kind::IpPool.name_of(key).is_some());
    pools.map(|(_, value)| IpPool::from_json(value.as_bytes()).expect("a pool")).collect()
}

#[test]
fn of_two_hundred_pools_created_at_once_the_survivors_are_disjoint() {
    let cluster = Cluster::etcd();
    let ranges = ranges();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let create = |(number, range): (usize, &Ipv4Net)| {
            let (cluster, text) = (&cluster, document(number, *range));
            scope.spawn(move || cluster.weirctl_with(&["create", "-f", "-"], &text))
        };
        let running: Vec<_> = ranges.iter().enumerate().map(create).collect();
        running.into_iter().map(|thread| thread.join().expect("a call of weirctl")).collect()
    });
    let survivors = pools(&cluster);
    for (position, pool) in survivors.iter().enumerate() {
        for other in &survivors[position + 1..] {
            let disjoint = !pool.cidr.contains(&other.cidr) && !other.cidr.contains(&pool.cidr);
            assert!(disjoint, "{} and {} overlap", pool.cidr, other.cidr);
        }
    }
    let mut losers = 0;
    for (number, answer) in answers.iter().enumerate() {
        let name = format!("p{number}");
        let survived = survivors.iter().any(|pool| pool.name == name);
        assert_eq!(answer.succeeded, survived, "{name}: {answer:?}");
        if !survived {
            // Nothing is deleted here, so that a competitor that existed has
            // survived.
            let names_a_survivor = survivors.iter().any(|pool| {
                let blame = format!("overlaps with IPPool({}) CIDR {}", pool.name, pool.cidr);
                answer.stderr.contains(&blame)
            });
            assert!(names_a_survivor, "{name} {}: {answer:?}", ranges[number]);
            losers += 1;
        }
    }
    assert!(losers > 0 && survivors.len() > 1, "{losers} lost, {} survived", survivors.len());
}
