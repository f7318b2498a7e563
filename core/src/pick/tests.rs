//! Who may be called and who is called, as tables. A service is written down as it stands; the picker is asked.

use std::sync::Arc;

use imbl::OrdMap;

use super::*;
use crate::breaker::{Breaker, BreakerState};
use crate::id::{InstanceId, Token, TransitionId};
use crate::policy::{Check, CheckKind, Mode, Registration, Spec};
use crate::probe::Health;
use crate::recovery::Recovery;
use crate::state::{Active, Admin, AdminState, Assignment, Instance, Phase, Rails, Service};
use crate::time::{ClusterTime, Millis, WallTime};
use crate::transition::Fencing;

/// Long after everything that happened in these tests before they began.
const NOW: ClusterTime = ClusterTime(1_000_000);

fn later(seconds: u64) -> ClusterTime {
    NOW.plus(Millis::secs(seconds))
}

fn id(text: &str) -> InstanceId {
    text.parse().expect("an id")
}

fn ids(text: &str) -> Vec<InstanceId> {
    text.split_whitespace().map(id).collect()
}

/// A healthy instance of weight 1 in tier 0.
fn well(name: &str) -> Instance {
    Instance {
        id: id(name),
        registration: Registration::at("10.0.0.1:80".parse().ok()),
        generation: 1,
        epoch: 1,
        registered_at: WallTime(0),
        session: None,
        verdicts: OrdMap::new(),
        health: Health::Healthy,
        health_since: ClusterTime(0),
        health_revision: 1,
        first_failure: None,
        suspect_since: None,
        judged: OrdMap::new(),
        breaker: Breaker::closed(ClusterTime(0)),
        recovery: None,
        admin: Admin::enabled(WallTime(0)),
        left: false,
    }
}

impl Instance {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn health(self, health: Health) -> Self {
        self.with(|it| it.health = health)
    }

    fn admin(self, state: AdminState) -> Self {
        self.with(|it| it.admin.state = state)
    }

    fn tier(self, tier: u32) -> Self {
        self.with(|it| it.registration.tier = tier)
    }

    fn zone(self, zone: &str) -> Self {
        self.with(|it| it.registration.zone = Some(zone.to_owned()))
    }

    fn weight(self, weight: u32) -> Self {
        self.with(|it| it.registration.weight = weight)
    }

    fn priority(self, priority: u32) -> Self {
        self.with(|it| it.registration.priority = priority)
    }

    /// Open since now, for thirty seconds.
    fn open(self) -> Self {
        self.with(|it| {
            it.breaker.state = BreakerState::Open;
            (it.breaker.generation, it.breaker.since, it.breaker.open_for) = (2, NOW, Millis::secs(30));
        })
    }

    /// Half open, with so many trial calls out since now; three may be.
    fn half_open(self, out: usize) -> Self {
        self.with(|it| {
            (it.breaker.state, it.breaker.generation) = (BreakerState::HalfOpen, 3);
            it.breaker.trials = vec![NOW; out];
        })
    }

    fn recovery(self, recovery: Recovery) -> Self {
        self.with(|it| it.recovery = Some(recovery))
    }
}

/// Cools down for twelve more seconds.
fn cooling() -> Recovery {
    Recovery { failures: 3, back_since: Some(ClusterTime(0)), cooldown_until: Some(later(12)), ..Recovery::default() }
}

fn service(instances: impl IntoIterator<Item = Instance>) -> Service {
    let instances = instances.into_iter().map(|instance| (instance.id.clone(), Arc::new(instance))).collect();
    Service {
        name: "orders".parse().expect("a name"),
        spec: Arc::new(Spec { mode: Mode::ActiveActive, checks: vec![Check::of(CheckKind::Tcp)], ..Spec::default() }),
        generation: 1,
        created_at: WallTime(0),
        updated_at: WallTime(0),
        changed: 7,
        assignment: Assignment { phase: Phase::Vacant, active: None, transition: None, last_holder: None },
        populated_at: ClusterTime(0),
        rails: Rails::default(),
        instances,
    }
}

impl Service {
    fn spec(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(Arc::make_mut(&mut self.spec));
        self
    }

    fn fails_open(self) -> Self {
        self.spec(|spec| spec.fail_open = true)
    }

    fn active(self, name: &str) -> Self {
        let mut service = self.spec(|spec| spec.mode = Mode::ActivePassive);
        service.assignment.phase = Phase::Active;
        service.assignment.active = Some(Active {
            instance: id(name),
            token: Token(5),
            since: WallTime(0),
            at: ClusterTime(0),
            fencing: Fencing::Advisory,
            transition: TransitionId(1),
        });
        service
    }

    /// Something happened to it: an event with this revision.
    fn change(&mut self, revision: u64, name: &str, change: impl FnOnce(&mut Instance)) {
        self.changed = revision;
        change(Arc::make_mut(self.instances.get_mut(&id(name)).expect("it is registered")));
    }
}

fn asked(strategy: PickStrategy) -> Asked<'static> {
    Asked { strategy, exclude: &[], zone: None, trials: true, refused: &[], seed: 1 }
}

/// So many picks in a row by one picker.
fn row(service: &Service, strategy: PickStrategy, picks: usize) -> String {
    let mut picker = Picker::new();
    let mut name = || picker.pick(service, NOW, &asked(strategy)).expect("somebody").instance.to_string();
    (0..picks).map(|_| name()).collect::<Vec<_>>().join(" ")
}

/// One pick by a new picker: whom, or why nobody.
fn one(service: &Service, strategy: PickStrategy, exclude: &str, zone: Option<&str>) -> Result<String, String> {
    let exclude = ids(exclude);
    let asked = Asked { exclude: &exclude, zone, ..asked(strategy) };
    Picker::new().pick(service, NOW, &asked).map(|picked| picked.instance.to_string()).map_err(|none| none.why)
}

const ALL: [PickStrategy; 5] = [
    PickStrategy::Next,
    PickStrategy::Random,
    PickStrategy::Best,
    PickStrategy::RoundRobin,
    PickStrategy::WeightedRoundRobin,
];

/// By every strategy, the answer must be the same.
#[track_caller]
fn any(service: &Service, exclude: &str, zone: Option<&str>, expected: Result<&str, &str>) {
    for strategy in ALL {
        let got = one(service, strategy, exclude, zone);
        assert_eq!(
            got.as_ref().map(String::as_str).map_err(String::as_str),
            expected,
            "{strategy}, without {exclude:?}"
        );
    }
}

#[test]
fn smooth_weights_give_the_row_that_nginx_publishes() {
    let row = |weights: &[(&str, u32)], picks| {
        let service = service(weights.iter().map(|(name, weight)| well(name).weight(*weight)));
        self::row(&service, PickStrategy::WeightedRoundRobin, picks)
    };
    assert_eq!(row(&[("a", 5), ("b", 1), ("c", 1)], 14), "a a b a c a a a a b a c a a");
    assert_eq!(row(&[("a", 1), ("b", 1), ("c", 1)], 6), "a b c a b c");
    assert_eq!(row(&[("a", 2), ("b", 1)], 6), "a b a a b a");
    // Where nobody has a weight, all have the same.
    assert_eq!(row(&[("a", 0), ("b", 0)], 4), "a b a b");
}

#[test]
fn round_robin_gives_each_its_turn_and_asks_nobody_for_its_weight() {
    let three = service([well("a").weight(9), well("b"), well("c")]);
    assert_eq!(row(&three, PickStrategy::RoundRobin, 7), "a b c a b c a");
    // Callers of two zones that take turns must not keep half of the instances from theirs.
    let zones = service([well("a").zone("x"), well("b").zone("x"), well("c").zone("y"), well("d").zone("y")]);
    for strategy in [PickStrategy::RoundRobin, PickStrategy::WeightedRoundRobin] {
        let mut picker = Picker::new();
        let mut pick = |zone| {
            let asked = Asked { zone: Some(zone), ..asked(strategy) };
            picker.pick(&zones, NOW, &asked).expect("somebody").instance.to_string()
        };
        let turns: Vec<String> = (0..8).map(|at| pick(if at % 2 == 0 { "x" } else { "y" })).collect();
        assert_eq!(turns.join(" "), "a c b d a c b d", "{strategy}");
    }
}

#[test]
fn best_is_the_first_by_tier_priority_weight_and_id() {
    for (instances, expected) in [
        (vec![well("a"), well("b"), well("c")], "a"),
        (vec![well("a"), well("b").weight(2), well("c").weight(2)], "b"),
        (vec![well("a"), well("b").weight(2), well("c").priority(101)], "c"),
        (vec![well("a").tier(1).priority(900), well("b").tier(1), well("c").priority(1)], "c"),
    ] {
        let service = service(instances);
        assert_eq!(row(&service, PickStrategy::Best, 3), [expected; 3].join(" "));
    }
}

#[test]
fn next_is_the_one_behind_the_last_that_was_tried() {
    let service = service([well("a"), well("b"), well("c"), well("d").tier(1), well("e").tier(1)]);
    for (exclude, expected) in [
        ("", "a"),
        ("a", "b"),
        ("c", "a"),
        ("b a", "c"),
        ("a c", "b"),
        ("b c", "a"),
        ("a b c", "d"),
        ("c b a d", "e"),
        // Whoever is gone is behind nobody and before those that follow by name.
        ("ab", "b"),
        ("zz", "a"),
    ] {
        assert_eq!(one(&service, PickStrategy::Next, exclude, None).as_deref(), Ok(expected), "behind {exclude:?}");
    }
}

#[test]
fn random_is_by_weight_and_the_same_for_the_same_seed() {
    let service = service([well("a").weight(1), well("b").weight(3), well("c").weight(0)]);
    let mut picker = Picker::new();
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..4_000 {
        let picked = picker.pick(&service, NOW, &Asked { seed, ..asked(PickStrategy::Random) }).expect("somebody");
        *counts.entry(picked.instance.to_string()).or_insert(0) += 1;
    }
    // 1,000 and 3,000; five standard deviations of a binomial are 137.
    assert!((863..=1_137).contains(&counts["a"]) && counts.len() == 2, "{counts:?}");
    assert_eq!(row(&service, PickStrategy::Random, 3), ["b"; 3].join(" "));
}

#[test]
fn the_lowest_tier_that_has_anybody_is_called() {
    let tiers = |local: Health, standby: Health| {
        service([well("local").health(local), well("standby").tier(1).health(standby), well("remote").tier(2)])
    };
    any(&tiers(Health::Healthy, Health::Healthy), "", None, Ok("local"));
    any(&tiers(Health::Unhealthy, Health::Healthy), "", None, Ok("standby"));
    any(&tiers(Health::Unhealthy, Health::Unhealthy), "", None, Ok("remote"));
    // A doubt is enough to leave a tier for one that is well, and no reason to give up where none is.
    any(&tiers(Health::Suspect, Health::Healthy), "", None, Ok("standby"));
    any(&tiers(Health::Suspect, Health::Suspect), "remote", None, Ok("local"));
    any(&tiers(Health::Healthy, Health::Healthy), "local standby", None, Ok("remote"));
    // Weight 0 is the last choice, whatever the tier, and one.
    let idle = service([well("a").weight(0), well("b").health(Health::Suspect).tier(1)]);
    any(&idle, "", None, Ok("b"));
    any(&idle, "b", None, Ok("a"));
}

#[test]
fn the_wanted_zone_goes_before_the_others_of_its_tier() {
    let service = service([well("a").zone("x"), well("b").zone("y"), well("c").zone("z").tier(1), well("d").tier(1)]);
    for (exclude, zone, expected) in [
        ("a", None, "b"),
        ("", Some("y"), "b"),
        // The zone is wished for, the tier is not given up for it.
        ("a", Some("z"), "b"),
        ("a", Some("nowhere"), "b"),
        ("b", Some("y"), "a"),
        ("a b", Some("z"), "c"),
        ("a b c", Some("z"), "d"),
    ] {
        any(&service, exclude, zone, Ok(expected));
    }
}

#[test]
fn nobody_is_called_who_is_refused_by_an_operator_or_a_breaker() {
    let hopeless = || {
        [
            well("a").open(),
            well("b").admin(AdminState::Draining),
            well("c").admin(AdminState::Isolated).health(Health::Isolated),
            well("d").admin(AdminState::Maintenance).health(Health::Unknown),
            well("e").half_open(3),
        ]
    };
    let why = "5 registered: 1 breaker open (half open in 30s), 1 breaker half open with all trial calls out, \
               1 draining, 1 in maintenance, 1 isolated";
    any(&service(hopeless()), "", None, Err(why));
    any(&service(hopeless()).fails_open(), "", None, Err(why));
    let another = hopeless().into_iter().chain([well("f")]);
    any(&service(another).fails_open(), "", None, Ok("f"));
}

#[test]
fn when_everybody_is_sick_it_is_said_why() {
    let held = Recovery { failures: 1, failed_at: ClusterTime(0), good_since: Some(NOW), ..Recovery::default() };
    let sick = || {
        [
            well("a").health(Health::Unhealthy),
            well("b").health(Health::Unhealthy),
            well("c").open().with(|it| it.breaker.open_for = Millis(11_001)),
            well("e").recovery(cooling()),
            well("f").health(Health::Unhealthy).recovery(held.clone()),
        ]
    };
    let why = "5 registered: 2 unhealthy, 1 held back after a failure (over in 1s), 1 cooling down (over in 12s), \
               1 breaker open (half open in 12s)";
    any(&service(sick()), "", None, Err(why));
    any(&service([]), "", None, Err("none is registered"));
    // What a request excludes is one more reason, and does not make a service sick.
    let with_one_well = || service(sick().into_iter().chain([well("g")]));
    any(&with_one_well().fails_open(), "", None, Ok("g"));
    let excluded = why.replace("5 registered", "6 registered") + ", 1 excluded by this request";
    any(&with_one_well(), "g", None, Err(&excluded));
    any(&with_one_well().fails_open(), "g", None, Err(&excluded));
}

#[test]
fn a_service_that_fails_open_offers_its_sick_as_degraded() {
    let sick = || {
        service([
            well("a").health(Health::Unhealthy).tier(1),
            well("b").health(Health::Unhealthy),
            well("c").open(),
            well("d").recovery(cooling()),
            well("e").health(Health::Unhealthy).admin(AdminState::Draining),
        ])
        .fails_open()
    };
    let mut picker = Picker::new();
    let mut names = Vec::new();
    for _ in 0..6 {
        let picked = picker.pick(&sick(), NOW, &asked(PickStrategy::RoundRobin)).expect("somebody");
        assert!(picked.degraded, "{picked:?}");
        names.push(picked.instance.to_string());
    }
    assert_eq!(names.join(" "), "b d a b d a", "all tiers together");
    any(&sick(), "b d", None, Ok("a"));
    let why = "5 registered: 1 breaker open (half open in 30s), 1 draining, 3 excluded by this request";
    any(&sick(), "a b d", None, Err(why));
    // Nobody has anything against one of whom nobody knows; where there are no checks, only calls can tell.
    let unknown = service([well("a").health(Health::Unknown), well("b").health(Health::Unhealthy)]);
    any(&unknown, "", None, Ok("a"));
    let better = service([well("a").health(Health::Unknown), well("b").tier(9)]);
    any(&better, "", None, Ok("b"));
    // A doubt is no sickness: where it is the worst, nobody fails open.
    let doubted = service([well("a").health(Health::Suspect), well("b").health(Health::Unhealthy)]).fails_open();
    let picked = Picker::new().pick(&doubted, NOW, &asked(PickStrategy::Best)).expect("somebody");
    assert_eq!((picked.instance, picked.degraded), (id("a"), false));
}

#[test]
fn only_the_active_of_an_active_passive_service_is_called() {
    let with = |active: Instance| service([active, well("b")]).active("a");
    any(&with(well("a")), "", None, Ok("a"));
    any(&with(well("a").weight(0)), "", None, Ok("a"));
    // It was chosen, and is the one until it is agreed to be down.
    any(&with(well("a").health(Health::Suspect)), "", None, Ok("a"));
    any(&with(well("a").health(Health::Unknown)), "", None, Ok("a"));
    any(&with(well("a").recovery(cooling())), "", None, Ok("a"));
    for (active, told) in [
        (well("a").health(Health::Unhealthy), "unhealthy"),
        (well("a").open(), "breaker open (half open in 30s)"),
        (well("a").half_open(3), "breaker half open with all trial calls out"),
        (well("a").admin(AdminState::Draining), "draining"),
        (well("a").admin(AdminState::Isolated).health(Health::Isolated), "isolated"),
        (well("a").admin(AdminState::Maintenance), "in maintenance"),
    ] {
        let why = format!("its active \"a\" is not to be called: {told}");
        any(&with(active.clone()), "", None, Err(&why));
        any(&with(active.clone()).fails_open(), "", None, Err(&why));
        assert!(callable(&with(active).fails_open(), NOW).is_empty(), "{told}");
    }
    any(&with(well("a")), "a", None, Err("its active \"a\" is not to be called: excluded by this request"));
    let mut vacant = with(well("a"));
    (vacant.assignment.active, vacant.assignment.phase) = (None, Phase::FailingOver);
    any(&vacant, "", None, Err("none is active, its phase is failing_over"));
}

#[test]
fn a_trial_is_offered_first_and_no_more_of_them_than_there_are_places() {
    let mut service = service([well("a"), well("b"), well("c").half_open(1)]);
    for strategy in ALL {
        let mut picker = Picker::new();
        let mut pick = |service: &Service, asked: &Asked<'_>| {
            let picked = picker.pick(service, NOW, asked).expect("somebody");
            assert_eq!(picked.trial, (picked.instance == id("c")).then_some(3), "{picked:?}");
            (picked.instance.to_string(), picker.clone())
        };
        // One of three is out; two are offered, and held until it is known how they were answered.
        let names: Vec<String> = (0..4).map(|_| pick(&service, &asked(strategy)).0).collect();
        assert_eq!(names[..2], ["c", "c"], "{strategy}");
        assert!(!names[2..].contains(&"c".to_owned()), "{strategy}: {names:?}");
        let (_, mut picker) = pick(&service, &asked(strategy));
        picker.settled(&id("c"), 3);
        // One that has just been refused is not offered again to the same caller.
        let refused = Asked { refused: &[id("c")], ..asked(strategy) };
        assert_ne!(picker.pick(&service, NOW, &refused).expect("somebody").instance, id("c"));
        let without = Asked { trials: false, ..asked(strategy) };
        assert_ne!(picker.pick(&service, NOW, &without).expect("somebody").instance, id("c"));
        assert_eq!(picker.pick(&service, NOW, &asked(strategy)).expect("somebody").instance, id("c"));
    }
    // Places come and go without an event: the picker looks at the breaker, not at what it knew of it.
    let mut picker = Picker::new();
    let mut pick = |service: &Service, now| {
        let picked = picker.pick(service, now, &asked(PickStrategy::Best)).expect("somebody");
        picker.settled(&picked.instance, picked.generation);
        picked.instance.to_string()
    };
    assert_eq!(pick(&service, NOW), "c");
    let unchanged = service.changed;
    service.change(unchanged, "c", |it| it.breaker.trials = vec![NOW; 3]);
    assert_eq!(pick(&service, NOW), "a");
    assert_eq!(pick(&service, later(10)), "c", "after half_open_timeout a place is free again");
    service.change(unchanged + 1, "c", |it| {
        (it.breaker.state, it.breaker.generation) = (BreakerState::Open, 4);
    });
    assert_eq!(pick(&service, later(10)), "a");
}

#[test]
fn an_offer_to_a_breaker_that_has_moved_on_is_forgotten() {
    let mut service = service([well("a"), well("b").half_open(0)]);
    let mut picker = Picker::new();
    let mut pick = |service: &Service| {
        let picked = picker.pick(service, NOW, &asked(PickStrategy::Best)).expect("somebody");
        (picked.instance.to_string(), picked.trial)
    };
    for _ in 0..3 {
        assert_eq!(pick(&service), ("b".to_owned(), Some(3)));
    }
    assert_eq!(pick(&service), ("a".to_owned(), None));
    service.change(8, "b", |it| it.breaker.generation = 5);
    assert_eq!(pick(&service), ("b".to_owned(), Some(5)));
}

#[test]
fn one_that_comes_back_gets_the_share_of_its_ramp() {
    let back = Recovery { failures: 1, back_since: Some(NOW), ..Recovery::default() };
    let service = service([well("a"), well("b").recovery(back)]);
    let mut picker = Picker::new();
    let mut share = |now| {
        let picks = (0..1_000).map(|_| picker.pick(&service, now, &asked(PickStrategy::WeightedRoundRobin)));
        picks.filter(|picked| picked.as_ref().is_ok_and(|picked| picked.instance == id("b"))).count()
    };
    // A tenth beside a whole one is an eleventh; then half way up, 55 of 155; then half.
    for (now, expected) in [(NOW, 91), (later(30), 355), (later(60), 500)] {
        let got = share(now);
        assert!(got.abs_diff(expected) <= 1, "{got} of 1,000 picks at {now:?}, {expected} were its share");
    }
    // The weight in the answer is that of the moment, at most a second old.
    let weight = |picker: &mut Picker, now| {
        let asked = Asked { exclude: &[id("a")], ..asked(PickStrategy::Best) };
        picker.pick(&service, now, &asked).expect("b").weight
    };
    let mut picker = Picker::new();
    let at = |millis| NOW.plus(Millis(millis));
    let weights = [0, 999, 1_000, 1_999, 30_000].map(|millis| weight(&mut picker, at(millis)));
    assert_eq!(weights, [100, 100, 115, 115, 550]);
}

#[test]
fn the_end_of_a_cool_down_needs_no_event() {
    let service = service([well("a").recovery(cooling()), well("b")]);
    let mut picker = Picker::new();
    let mut best = |now| picker.pick(&service, now, &asked(PickStrategy::Best)).expect("somebody").instance.to_string();
    assert_eq!(best(NOW), "b");
    assert_eq!(best(later(12)), "a");
}

#[test]
fn turns_are_kept_when_the_service_changes() {
    let mut service = service([well("a").weight(5), well("b"), well("c")]);
    let mut picker = Picker::new();
    let mut names = Vec::new();
    for revision in 8..15 {
        names.push(picker.pick(&service, NOW, &asked(PickStrategy::WeightedRoundRobin)).expect("somebody").instance);
        // Something that has nothing to do with weights happens after each pick.
        service.change(revision, "c", |it| it.health_revision = revision);
    }
    assert_eq!(names, ids("a a b a c a a"));
    // What is owed from times of heavy neighbours is cut to what can be made good.
    let mut heavy = self::service([well("a").weight(1_000), well("b"), well("c")]);
    let mut picker = Picker::new();
    for _ in 0..400 {
        picker.pick(&heavy, NOW, &asked(PickStrategy::WeightedRoundRobin)).expect("somebody");
    }
    heavy.change(8, "a", |it| it.registration.weight = 1);
    let mut pick = || picker.pick(&heavy, NOW, &asked(PickStrategy::WeightedRoundRobin)).expect("somebody").instance;
    let turns = (0..12).map(|_| pick()).filter(|instance| *instance == id("a")).count();
    assert!((3..=5).contains(&turns), "a had {turns} of 12 turns");
}

#[test]
fn who_may_be_called_is_listed_with_weights() {
    let listed = |service: &Service| {
        let told = |one: Callable<'_>| {
            format!(
                "{} {}{}{}",
                one.instance.id,
                one.weight,
                if one.trial { " trial" } else { "" },
                if one.degraded { " degraded" } else { "" }
            )
        };
        callable(service, NOW).into_iter().map(told).collect::<Vec<_>>().join(", ")
    };
    let all = || {
        [
            well("a").weight(2),
            well("b").tier(2).half_open(0),
            well("c").half_open(3),
            well("d").health(Health::Suspect),
            well("e").open(),
            well("f").health(Health::Unhealthy),
            well("g").weight(0),
        ]
    };
    assert_eq!(listed(&service(all())), "a 2000, g 0", "nobody who reads a list asks for a trial");
    let on_trial = [well("b").tier(2).half_open(0), well("e").open()];
    assert_eq!(listed(&service(on_trial)), "b 1000 trial");
    let ill = |skip: &'static str| all().into_iter().filter(move |it| !skip.contains(it.id.as_str()));
    assert_eq!(listed(&service(ill("abg"))), "d 1000");
    assert_eq!(listed(&service(ill("abgd"))), "");
    assert_eq!(listed(&service(ill("abgd")).fails_open()), "f 1000 degraded");
    assert_eq!(listed(&service(all()).active("a")), "a 2000");
}

#[test]
fn where_only_calls_can_tell_everybody_is_called_and_breakers_close_again() {
    let unseen = |id: &str| well(id).health(Health::Unknown);
    let mut by_calls = service([well("a"), unseen("b"), unseen("c")]);
    by_calls.spec = Arc::new(Spec { mode: Mode::ActiveActive, ..Spec::default() });
    let mut picker = Picker::new();
    let names: Vec<String> = (0..6)
        .map(|_| picker.pick(&by_calls, NOW, &asked(PickStrategy::RoundRobin)).expect("somebody").instance.to_string())
        .collect();
    assert_eq!(names.join(" "), "a b c a b c", "the one that was reported first is not called alone");
    // Doubted, and its breaker half open: trial calls are made although others are well.
    let on_trial = service([well("a").health(Health::Suspect).half_open(0), well("b")]);
    let picked = Picker::new().pick(&on_trial, NOW, &asked(PickStrategy::Best)).expect("somebody");
    assert_eq!((picked.instance, picked.trial.is_some()), (id("a"), true));
}
