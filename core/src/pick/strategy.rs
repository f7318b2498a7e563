//! The strategies, over rows of plain numbers. They choose among those that are left; who is left is the picker's.

use std::cmp::Reverse;
use std::ops::Range;

use crate::assign::mix;
use crate::id::InstanceId;

/// What there is to know of one instance in order to choose. One row an instance, in order of rank, tier and id.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    /// Lower wins first.
    pub(super) tier: u32,
    /// Higher wins.
    pub(super) priority: u32,
    /// Its weight in thousandths of the registered unit.
    pub(super) weight: u64,
    /// The number of its zone; 0 for none.
    pub(super) zone: u32,
    /// The generation of its breaker.
    pub(super) generation: u64,
    /// The breaker is half open, so that each call takes one of its places.
    pub(super) half_open: bool,
    /// Free places for calls, as of the present pick.
    pub(super) places: u32,
    /// The last pick that excluded it.
    pub(super) excluded: u64,
    /// The last pick in which it had its turn; 0: none yet.
    pub(super) turn: u64,
    /// What smooth weighted round robin owes it.
    pub(super) owed: i64,
}

/// Among whom is chosen: a range of rows, without the excluded and those without a place, in one zone or in all.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) rows: Range<usize>,
    pub(super) zone: Option<u32>,
    pub(super) pick: u64,
}

impl Scope {
    pub(super) fn has(&self, row: &Row) -> bool {
        row.excluded != self.pick && row.places > 0 && self.zone.is_none_or(|zone| zone == row.zone)
    }

    fn of<'r>(&'r self, rows: &'r [Row]) -> impl Iterator<Item = (usize, &'r Row)> {
        let first = self.rows.start;
        let within = rows[self.rows.clone()].iter().enumerate();
        within.filter(|(_, row)| self.has(row)).map(move |(at, row)| (first + at, row))
    }

    /// The first one that needs a trial call.
    pub(super) fn trial(&self, rows: &[Row]) -> Option<usize> {
        self.of(rows).find(|(_, row)| row.half_open).map(|(at, _)| at)
    }

    /// The first one behind `last`, and around.
    pub(super) fn next(&self, rows: &[Row], ids: &[InstanceId], last: Option<(u32, &InstanceId)>) -> Option<usize> {
        let first = self.of(rows).next().map(|(at, _)| at);
        let Some(last) = last else { return first };
        self.of(rows).find(|(at, row)| (row.tier, &ids[*at]) > last).map(|(at, _)| at).or(first)
    }

    /// The best one.
    pub(super) fn best(&self, rows: &[Row]) -> Option<usize> {
        // Rows are in order of ids, and of equals the first is taken.
        let key = |row: &Row| (row.tier, Reverse(row.priority), Reverse(row.weight));
        self.of(rows).min_by_key(|(_, row)| key(row)).map(|(at, _)| at)
    }

    /// Any by weight: the seed is stretched over the sum of the weights, and falls into somebody's share.
    pub(super) fn random(&self, rows: &[Row], seed: u64) -> Option<usize> {
        let total: u64 = self.of(rows).map(|(_, row)| share(row)).sum();
        // Lemire's multiplication ("Fast random integer generation in an interval", 2019), whose bias is total ÷ 2^64.
        let mut drawn = ((u128::from(mix(seed)) * u128::from(total)) >> 64) as u64;
        let mut last = None;
        for (at, row) in self.of(rows) {
            last = Some(at);
            match drawn.checked_sub(share(row)) {
                Some(rest) => drawn = rest,
                None => return last,
            }
        }
        last
    }

    /// The one whose last turn is the longest ago. With everybody in the scope that is each in turn; requests with other
    /// zones or exclusions share the turns instead of disturbing them, as they would a common position.
    pub(super) fn round_robin(&self, rows: &mut [Row]) -> Option<usize> {
        let (at, _) = self.of(rows).min_by_key(|(_, row)| row.turn)?;
        rows[at].turn = self.pick;
        Some(at)
    }

    /// nginx's smooth weighted round robin (M. Dounin, "Upstream: smooth weighted round-robin balancing", 2012, nginx 1.3.1,
    /// `ngx_http_upstream_get_peer`): all are owed their weight, the one who is owed the most is taken and gives back what
    /// all of them got. Weights of 5, 1 and 1 give a a b a c a a.
    pub(super) fn weighted_round_robin(&self, rows: &mut [Row]) -> Option<usize> {
        let mut total = 0;
        let mut most: Option<(usize, i64)> = None;
        for at in self.rows.clone() {
            let row = &mut rows[at];
            if !self.has(row) {
                continue;
            }
            let share = i64::try_from(share(row)).unwrap_or(i64::MAX);
            total += share;
            row.owed += share;
            if most.is_none_or(|(_, owed)| row.owed > owed) {
                most = Some((at, row.owed));
            }
        }
        let (at, _) = most?;
        rows[at].owed -= total;
        Some(at)
    }
}

/// What counts as the weight: never nothing, so that those whose weight is 0 share evenly where they are all there is.
fn share(row: &Row) -> u64 {
    row.weight.max(1)
}
