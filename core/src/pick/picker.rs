//! One service's table of those who may be called, and whose turn it is. The table is made anew when the service has
//! changed, or when time has changed a weight or ended a cool-down; in between a pick walks over plain numbers.

use std::collections::BTreeMap;

use super::PickStrategy;
use super::standing::{NoInstance, Standing, cooldown_end, fails_open, places, standing, why_nobody};
use super::strategy::{Row, Scope};
use crate::id::{InstanceId, Revision};
use crate::state::Service;
use crate::time::{ClusterTime, Millis};

/// How often the weights of ramps are computed anew. A ramp lasts a minute by default: a second moves it by 1.5 %.
const RAMP_STEP: Millis = Millis::secs(1);

/// Where an instance stands in the order of choice. Those of a lower rank are chosen among first, by tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Nothing stands against it.
    Well,
    /// Somebody doubts it.
    Doubted,
    /// It has no share of the calls, and would answer.
    Weightless,
    /// What is seen of it stands against it: only where the service fails open.
    Sick,
}

/// Those of one rank and tier; of the sick all tiers.
#[derive(Clone, Debug)]
struct Group {
    rank: Rank,
    rows: std::ops::Range<usize>,
}

/// A trial call that was offered, and of which it is not known yet whether it is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asking {
    instance: InstanceId,
    generation: u64,
    count: u32,
}

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// How to choose.
    pub strategy: PickStrategy,
    /// Never these.
    pub exclude: &'a [InstanceId],
    /// Rather somebody of this zone.
    pub zone: Option<&'a str>,
    /// Whether a trial call may be offered.
    pub trials: bool,
    /// No trial call of these: they have just been refused.
    pub refused: &'a [InstanceId],
    /// Decides for `random`: evenly spread from pick to pick.
    pub seed: u64,
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The instance.
    pub instance: InstanceId,
    /// Its weight now, in thousandths of the registered unit.
    pub weight: u64,
    /// It is a trial call: this generation of the breaker must grant it first, and [`Picker::settled`] be told.
    pub trial: Option<u64>,
    /// The generation of the breaker, to be named when it is reported how the call went.
    pub generation: u64,
    /// It is sick, and offered only because all are.
    pub degraded: bool,
}

/// Chooses instances of one service, and remembers whose turn it is.
#[derive(Clone, Debug, Default)]
pub struct Picker {
    /// The service's revision that the table was made of.
    made_of: Option<Revision>,
    /// From when on the table is too old although the service has not changed.
    good_until: Option<ClusterTime>,
    /// In order of rank, tier and id.
    rows: Vec<Row>,
    /// The id of each row.
    ids: Vec<InstanceId>,
    /// The rows in order of ids.
    by_id: Vec<usize>,
    /// The rows that are half open.
    half_open: Vec<usize>,
    groups: Vec<Group>,
    /// The numbers of the zones, from 1.
    zones: BTreeMap<String, u32>,
    /// Trial calls between offer and grant.
    asking: Vec<Asking>,
    /// How many picks there were; the number of the present one.
    pick: u64,
}

impl Picker {
    /// A picker that has chosen nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses an instance of `service` that may be called at `now`, or says why there is none.
    ///
    /// It must always be the same service, and no older a view of it than the last time. O(n) over the instances that may
    /// be called, plus O(m log n) over the excluded; it allocates nothing unless the table is made anew or nobody is found.
    pub fn pick(&mut self, service: &Service, now: ClusterTime, asked: &Asked<'_>) -> Result<Picked, NoInstance> {
        let old = self.made_of != Some(service.changed) || self.good_until.is_some_and(|until| now >= until);
        if old {
            self.make(service, now);
        }
        self.pick += 1;
        for id in asked.exclude {
            if let Some(at) = self.row_of(id) {
                self.rows[at].excluded = self.pick;
            }
        }
        self.count_places(service, now, asked);
        let chosen =
            self.scope(asked.zone).and_then(|(rank, scope)| Some((rank, self.choose(service, &scope, asked)?)));
        let Some((rank, at)) = chosen else { return Err(why_nobody(service, now, asked.exclude)) };
        let row = &self.rows[at];
        let picked = Picked {
            instance: self.ids[at].clone(),
            weight: row.weight,
            trial: row.half_open.then_some(row.generation),
            generation: row.generation,
            degraded: rank == Rank::Sick,
        };
        if row.half_open {
            self.ask(&picked.instance, picked.generation);
        }
        Ok(picked)
    }

    /// A trial call that was offered is granted or refused, or its caller has gone: from now on only the state counts.
    pub fn settled(&mut self, instance: &InstanceId, generation: u64) {
        for asking in &mut self.asking {
            if asking.instance == *instance && asking.generation == generation {
                asking.count = asking.count.saturating_sub(1);
            }
        }
        self.asking.retain(|asking| asking.count > 0);
    }

    fn ask(&mut self, instance: &InstanceId, generation: u64) {
        let same = |asking: &&mut Asking| asking.instance == *instance && asking.generation == generation;
        match self.asking.iter_mut().find(same) {
            Some(asking) => asking.count += 1,
            None => self.asking.push(Asking { instance: instance.clone(), generation, count: 1 }),
        }
    }

    fn row_of(&self, id: &InstanceId) -> Option<usize> {
        let found = self.by_id.binary_search_by(|at| self.ids[*at].cmp(id)).ok()?;
        Some(self.by_id[found])
    }

    /// Looks at the places behind half-open breakers: they come and go without an event.
    fn count_places(&mut self, service: &Service, now: ClusterTime, asked: &Asked<'_>) {
        for &at in &self.half_open {
            let id = &self.ids[at];
            let free = match service.instances.get(id) {
                Some(instance) if asked.trials && !asked.refused.contains(id) => places(service, instance, now),
                Some(_) | None => 0,
            };
            let asking = self.asking.iter().find(|asking| asking.instance == *id);
            self.rows[at].places = free.saturating_sub(asking.map_or(0, |asking| asking.count));
        }
    }

    /// The first rank and tier in which there is somebody, and in it the wanted zone if somebody is there.
    fn scope(&self, zone: Option<&str>) -> Option<(Rank, Scope)> {
        let wanted = zone.and_then(|zone| self.zones.get(zone).copied());
        for group in &self.groups {
            if group.rank == Rank::Sick && self.anybody_well() {
                return None;
            }
            let all = Scope { rows: group.rows.clone(), zone: None, pick: self.pick };
            let near = Scope { zone: wanted, ..all.clone() };
            let somebody = |scope: &Scope| self.rows[scope.rows.clone()].iter().any(|row| scope.has(row));
            if wanted.is_some() && somebody(&near) {
                return Some((group.rank, near));
            }
            if somebody(&all) {
                return Some((group.rank, all));
            }
        }
        None
    }

    /// Whether anybody but the sick may be called, by whomever: what one request excludes makes nobody sick.
    fn anybody_well(&self) -> bool {
        let well = self.groups.iter().filter(|group| group.rank != Rank::Sick);
        well.flat_map(|group| &self.rows[group.rows.clone()]).any(|row| row.places > 0)
    }

    fn choose(&mut self, service: &Service, scope: &Scope, asked: &Asked<'_>) -> Option<usize> {
        // None is looked for where there is none: this is the common case.
        let trial = if self.half_open.is_empty() { None } else { scope.trial(&self.rows) };
        trial.or_else(|| match asked.strategy {
            PickStrategy::Next => {
                let tier = |id| service.instances.get(id).map(|instance| instance.registration.tier);
                // Whoever is gone is taken to have been in the tier that is chosen from.
                let here = self.rows[scope.rows.start].tier;
                let last = asked.exclude.last().map(|id| (tier(id).unwrap_or(here), id));
                scope.next(&self.rows, &self.ids, last)
            }
            PickStrategy::Random => scope.random(&self.rows, asked.seed),
            PickStrategy::Best => scope.best(&self.rows),
            PickStrategy::RoundRobin => scope.round_robin(&mut self.rows),
            PickStrategy::WeightedRoundRobin => scope.weighted_round_robin(&mut self.rows),
        })
    }

    /// Makes the table. Turns and what is owed are kept of those who stay in it.
    fn make(&mut self, service: &Service, now: ClusterTime) {
        let offers_sick = fails_open(service);
        let mut good_until: Option<ClusterTime> = None;
        let mut until = |end: ClusterTime| good_until = Some(good_until.map_or(end, |sooner| sooner.min(end)));
        let mut zones = BTreeMap::new();
        let mut made: Vec<(Rank, Row, InstanceId)> = Vec::with_capacity(service.instances.len());
        for instance in service.instances.values() {
            if let Some(end) = cooldown_end(instance, now) {
                until(end);
            }
            let registration = &instance.registration;
            let weight = instance.effective_weight(&service.spec.recovery, now);
            let rank = match standing(service, instance, now) {
                Standing::Well | Standing::Doubted if weight == 0 => Rank::Weightless,
                Standing::Well => Rank::Well,
                // Trial calls are few, and nothing else can close its breaker: they are made beside the calls to the well.
                Standing::Doubted if places(service, instance, now) < u32::MAX => Rank::Well,
                Standing::Doubted => Rank::Doubted,
                Standing::Sick(_) if offers_sick => Rank::Sick,
                Standing::Sick(_) | Standing::Refused(_) => continue,
            };
            if weight < u64::from(registration.weight) * 1_000 {
                until(now.plus(RAMP_STEP));
            }
            let half_open = places(service, instance, now) < u32::MAX;
            let kept = self.row_of(&instance.id).map(|at| self.rows[at]);
            let row = Row {
                tier: registration.tier,
                priority: registration.priority,
                weight,
                zone: registration.zone.as_ref().map_or(0, |zone| number_of(&mut zones, zone)),
                generation: instance.breaker.generation,
                half_open,
                places: u32::MAX,
                excluded: 0,
                turn: kept.map_or(0, |kept| kept.turn),
                owed: kept.map_or(0, |kept| kept.owed),
            };
            made.push((rank, row, instance.id.clone()));
        }
        made.sort_by(|a, b| (a.0, a.1.tier, &a.2).cmp(&(b.0, b.1.tier, &b.2)));
        self.groups = groups(&made);
        self.half_open = (0..made.len()).filter(|at| made[*at].1.half_open).collect();
        (self.rows, self.ids) = made.into_iter().map(|(_, row, id)| (row, id)).unzip();
        self.by_id = (0..self.ids.len()).collect();
        self.by_id.sort_by(|a, b| self.ids[*a].cmp(&self.ids[*b]));
        for group in &self.groups {
            forgive(&mut self.rows[group.rows.clone()]);
        }
        self.asking.retain(|asking| {
            let instance = service.instances.get(&asking.instance);
            instance.is_some_and(|instance| instance.breaker.generation == asking.generation)
        });
        (self.zones, self.good_until, self.made_of) = (zones, good_until, Some(service.changed));
    }
}

/// A debt from before, when weights were greater, is cut to what a round of now can make good: else one whose neighbours
/// were heavy would wait for its turn, or have all the turns, for as long as they were heavy.
fn forgive(rows: &mut [Row]) {
    let total = rows.iter().map(|row| i64::try_from(row.weight).unwrap_or(i64::MAX)).sum::<i64>();
    for row in rows {
        row.owed = row.owed.clamp(-total, total);
    }
}

fn number_of(zones: &mut BTreeMap<String, u32>, zone: &str) -> u32 {
    if let Some(number) = zones.get(zone) {
        return *number;
    }
    let number = zones.len() as u32 + 1;
    zones.insert(zone.to_owned(), number);
    number
}

fn groups(made: &[(Rank, Row, InstanceId)]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (at, (rank, row, _)) in made.iter().enumerate() {
        let joins = |group: &&mut Group| {
            group.rank == *rank && (*rank == Rank::Sick || made[group.rows.start].1.tier == row.tier)
        };
        match groups.last_mut().filter(joins) {
            Some(group) => group.rows.end = at + 1,
            None => groups.push(Group { rank: *rank, rows: at..at + 1 }),
        }
    }
    groups
}
