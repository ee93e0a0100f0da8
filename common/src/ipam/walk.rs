//! The order in which a host looks for a block to claim in a pool.

use ipnet::IpNet;
use sha1::{Digest, Sha1};

use super::block::{host_bits, nth_address};

/// How many blocks of one pool are considered at the most: all of an IPv4 /8. An
/// IPv6 pool has more than can be walked, and where this many are taken or
/// reserved the next ones are too.
pub(super) const MAX_WALK: usize = 1 << 18;

/// All blocks of `prefix_length` in `pool`, each once, in an order that is the
/// host's own.
///
/// Hosts that start at different places and go on in different strides rarely
/// try for the same block, and in a pool of which a share `u` is claimed a host
/// finds a block after about `1 / (1 - u)` looks, whatever the pool's size.
/// (Calico starts at a place of the host's own and goes on one by one, after
/// listing every block of the cluster.) The stride is odd and the number of
/// blocks a power of two, so the walk comes by every block.
///
/// Empty when the pool is smaller than a block.
pub fn walk(pool: IpNet, prefix_length: u8, host: &str) -> impl Iterator<Item = IpNet> + use<> {
    let bits = prefix_length.saturating_sub(pool.prefix_len());
    let fits = pool.prefix_len() <= prefix_length && prefix_length <= pool.max_prefix_len();
    let blocks: u128 = if fits { 1u128 << bits.min(127) } else { 0 };
    let shift = pool.max_prefix_len().saturating_sub(prefix_length);
    let (start, stride) = seeds(host);
    (0..blocks).map(move |step| {
        let index = start.wrapping_add(step.wrapping_mul(stride)) & (blocks - 1);
        let first = nth_address(pool, index << shift);
        IpNet::new_assert(first, prefix_length)
    })
}

/// How many blocks of `prefix_length` the pool has, as a power of two.
pub fn block_bits(pool: IpNet, prefix_length: u8) -> u8 {
    host_bits(pool).saturating_sub(pool.max_prefix_len().saturating_sub(prefix_length))
}

/// A start and an odd stride for this host.
fn seeds(host: &str) -> (u128, u128) {
    let half = |purpose: &str| {
        let digest = Sha1::digest(format!("{purpose} {host}"));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        u128::from_be_bytes(bytes)
    };
    (half("start"), half("stride") | 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comes_by_every_block_once(length in 16u8..=26, host in "[a-z]{1,12}") {
            let pool: IpNet = format!("10.0.0.0/{length}").parse().unwrap();
            let blocks: BTreeSet<IpNet> = walk(pool, 26, &host).collect();
            prop_assert_eq!(blocks.len(), 1 << (26 - length));
            prop_assert!(blocks.iter().all(|block| pool.contains(block)));
        }
    }

    #[test]
    fn works_in_the_largest_pools() {
        let pool: IpNet = "fd00::/8".parse().unwrap();
        for block in walk(pool, 122, "n1").take(100) {
            assert!(pool.contains(&block), "{block}");
            assert_eq!(block, block.trunc());
        }
    }

    #[test]
    fn hosts_differ() {
        let pool: IpNet = "10.0.0.0/8".parse().unwrap();
        let first = |host: &str| walk(pool, 26, host).next();
        assert_ne!(first("n1"), first("n2"));
        assert_eq!(first("n1"), first("n1"));
    }

    #[test]
    fn a_pool_smaller_than_a_block_has_none() {
        assert_eq!(walk("10.0.0.0/27".parse().unwrap(), 26, "n1").count(), 0);
    }
}
