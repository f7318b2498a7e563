//! What choosing an instance costs: a pick from a thousand by each strategy, the table that it is made from, and the look
//! at one breaker. `cargo bench -p baton-core --bench pick`.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;
use std::sync::Arc;

use baton_core::breaker::Breaker;
use baton_core::id::InstanceId;
use baton_core::pick::{Asked, PickStrategy, Picker, callable};
use baton_core::policy::{BreakerPolicy, Mode, Registration, Spec};
use baton_core::probe::Health;
use baton_core::state::{Admin, Assignment, Instance, Phase, Rails, Service};
use baton_core::time::{ClusterTime, WallTime};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const INSTANCES: u32 = 1_000;
const NOW: ClusterTime = ClusterTime(1_000_000);

/// Healthy, in ten zones, with weights from 1 to 7 and three priorities.
fn instance(number: u32) -> Instance {
    let registration = Registration {
        zone: Some(format!("zone-{}", number % 10)),
        weight: 1 + number % 7,
        priority: 100 + number % 3,
        ..Registration::at("10.0.0.1:80".parse().ok())
    };
    Instance {
        id: format!("instance-{number:04}").parse().expect("an id"),
        registration,
        generation: 1,
        epoch: 1,
        registered_at: WallTime(0),
        session: None,
        verdicts: imbl::OrdMap::new(),
        health: Health::Healthy,
        health_since: ClusterTime(0),
        health_revision: 1,
        first_failure: None,
        suspect_since: None,
        judged: imbl::OrdMap::new(),
        breaker: Breaker::closed(ClusterTime(0)),
        recovery: None,
        admin: Admin::enabled(WallTime(0)),
        left: false,
    }
}

fn service() -> Service {
    let instances = (0..INSTANCES).map(instance).map(|one| (one.id.clone(), Arc::new(one))).collect();
    Service {
        name: "orders".parse().expect("a name"),
        spec: Arc::new(Spec { mode: Mode::ActiveActive, ..Spec::default() }),
        generation: 1,
        created_at: WallTime(0),
        updated_at: WallTime(0),
        changed: 1,
        assignment: Assignment { phase: Phase::Vacant, active: None, transition: None, last_holder: None },
        populated_at: ClusterTime(0),
        rails: Rails::default(),
        instances,
    }
}

fn picks(criterion: &mut Criterion) {
    let service = service();
    let mut group = criterion.benchmark_group("pick of 1000");
    let asked = |strategy, seed| Asked { strategy, exclude: &[], zone: None, trials: true, refused: &[], seed };
    for (name, strategy) in PickStrategy::ALL {
        let (mut picker, mut seed) = (Picker::new(), 0);
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                seed += 1;
                picker.pick(black_box(&service), NOW, &asked(*strategy, seed))
            });
        });
    }
    let (mut picker, excluded) = (Picker::new(), (0..10).map(|number| instance(number * 97).id));
    let exclude: Vec<InstanceId> = excluded.collect();
    group.bench_function("weighted_round_robin in a zone, 10 excluded", |bencher| {
        let asked = Asked { exclude: &exclude, zone: Some("zone-3"), ..asked(PickStrategy::WeightedRoundRobin, 0) };
        bencher.iter(|| picker.pick(black_box(&service), NOW, &asked));
    });
    group.finish();

    criterion.bench_function("the table of 1000, with its first pick", |bencher| {
        let asked = asked(PickStrategy::Best, 0);
        bencher.iter_batched_ref(Picker::new, |picker| picker.pick(&service, NOW, &asked), BatchSize::SmallInput);
    });
    criterion.bench_function("the endpoints of 1000", |bencher| bencher.iter(|| callable(black_box(&service), NOW)));
}

fn breakers(criterion: &mut Criterion) {
    let policy: BreakerPolicy = Spec::default().breaker;
    let closed = Breaker::closed(ClusterTime(0));
    let mut half_open = closed.clone();
    half_open.reset(ClusterTime(0));
    half_open.state = baton_core::breaker::BreakerState::HalfOpen;
    half_open.trials = vec![NOW; 2];
    let mut group = criterion.benchmark_group("breaker check");
    for (name, breaker) in [("closed", &closed), ("half open, 2 of 3 trials out", &half_open)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(breaker).lets_through(black_box(&policy), black_box(NOW)));
        });
    }
    group.finish();
}

criterion_group!(benches, picks, breakers);
criterion_main!(benches);
