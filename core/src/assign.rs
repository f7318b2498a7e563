//! Which nodes observe which instance: rendezvous hashing over the live nodes (Thaler and Ravishankar, "Using name-based
//! mappings to increase hit rates", 1998). Every node computes the same answer from the same state; when a node is lost,
//! only what it observed moves, and moves back when it is back.

use crate::id::{InstanceId, NodeId, ServiceName};

/// The `wanted` nodes that observe an instance, best first; all of `live` where there are no more of them.
pub fn observers_of(
    live: impl Iterator<Item = NodeId>,
    service: &ServiceName,
    instance: &InstanceId,
    wanted: u32,
) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = live.collect();
    let of = fnv(fnv(FNV_OFFSET, service.as_str().as_bytes()) ^ u64::from(b'/'), instance.as_str().as_bytes());
    nodes.sort_by_key(|node| (std::cmp::Reverse(mix(of ^ mix(*node))), *node));
    nodes.truncate(wanted as usize);
    nodes
}

/// FNV-1a's offset basis and prime for 64 bits. The numbers are part of the cluster's agreement: with others, nodes of
/// two versions would observe other instances than each other thinks.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// The step of splitmix64 from one number to the next.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number that splitmix64 makes of a state: FNV alone mixes its high bits poorly.
pub(crate) const fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(GOLDEN);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn assigned(live: &[NodeId], instance: u32, wanted: u32) -> Vec<NodeId> {
        let service = "orders".parse().expect("a name");
        let instance = format!("i-{instance}").parse().expect("an id");
        observers_of(live.iter().copied(), &service, &instance, wanted)
    }

    #[test]
    fn the_work_is_spread_evenly() {
        let mut load: BTreeMap<NodeId, u32> = BTreeMap::new();
        for instance in 0..10_000 {
            for node in assigned(&[1, 2, 3, 4, 5], instance, 3) {
                *load.entry(node).or_default() += 1;
            }
        }
        // 6,000 each; five standard deviations of a binomial are 245.
        assert!(load.values().all(|count| (5_755..=6_245).contains(count)), "{load:?}");
    }

    #[test]
    fn only_what_a_lost_node_observed_moves() {
        for instance in 0..1_000 {
            let all = assigned(&[1, 2, 3, 4, 5], instance, 3);
            let without = assigned(&[1, 2, 4, 5], instance, 3);
            let kept = all.iter().filter(|node| without.contains(node)).count();
            assert_eq!(kept, all.iter().filter(|node| **node != 3).count(), "{all:?} {without:?}");
        }
    }

    #[test]
    fn with_few_nodes_all_of_them_observe() {
        let mut three = assigned(&[1, 2, 3], 7, 3);
        three.sort_unstable();
        assert_eq!(three, [1, 2, 3]);
        assert_eq!(assigned(&[9], 7, 3), [9]);
        assert_eq!(assigned(&[], 7, 3), Vec::<NodeId>::new());
    }

    #[test]
    fn the_answer_never_changes_between_versions() {
        assert_eq!(assigned(&[1, 2, 3, 4, 5], 1, 3), assigned(&[5, 4, 3, 2, 1], 1, 3));
        let seen: Vec<Vec<NodeId>> = (0..3).map(|instance| assigned(&[1, 2, 3, 4, 5], instance, 2)).collect();
        assert_eq!(seen, PINNED);
    }

    /// Seen once and kept: nodes of two versions must agree.
    const PINNED: [[NodeId; 2]; 3] = [[5, 2], [1, 5], [2, 3]];
}
