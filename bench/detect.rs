//! What judging costs: one observation recorded and judged by each detector, one call summed, one look at a breaker's
//! signal, and how many bytes each holds for one instance.
//!
//! ```text
//! cargo bench -p baton-core --bench detect
//! ```
//!
//! What is measured is the CPU time of the measuring thread, so that others on the machine do not count as costs of ours. The
//! time that detectors are told is injected: each observation is told ten milliseconds after the one before, so that slices end and windows slide
//! as they would with a hundred of them a second, of which one in ten failed.

use std::hint::black_box;
use std::mem::size_of;
use std::time::Duration;

use baton_core::calls::{Call, CallOutcome, CallSlice};
use baton_core::detector::{
    AccrualDetector, CallJudge, CheckSet, Combination, Consecutive, ConsecutiveCalls, Detector, ErrorRateDetector,
    HealthCheckDetector, Heartbeat, HeartbeatState, Observation, ProbeDetector, Rule, SlowCallDetector,
    TimeoutDetector,
};
use baton_core::policy::{Combine, Spec};
use baton_core::probe::{FailureClass, LocalTime, Outcome};
use criterion::Criterion;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Time from one observation to the next.
const STEP: Duration = Duration::from_millis(10);

/// The name of the check.
const CHECK: &str = "web";

/// Measures by the CPU time of this thread.
struct CpuTime;

/// Only its way to write lengths of time is used.
static WALL_TIME: WallTime = WallTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
    }

    fn end(&self, began: Duration) -> Duration {
        self.start().saturating_sub(began)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WALL_TIME.formatter()
    }
}

fn rule() -> Rule {
    Rule { check: CHECK.to_owned(), connect_only: false, rise: 2, fall: 3, extra: 0 }
}

fn probe_detector() -> ProbeDetector {
    ProbeDetector::new([rule()], Combine::Any, &Spec::default().detection.error_rate)
}

fn call_judge() -> CallJudge {
    let spec = Spec::default();
    CallJudge::new(&spec.detection, &spec.breaker)
}

fn error_rate() -> ErrorRateDetector {
    ErrorRateDetector::new(Duration::from_secs(10), 10, 0.5)
}

fn accrual() -> AccrualDetector {
    AccrualDetector::new(8.0, Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(10))
}

/// A second's tenth of calls, as a node sums it: `calls` of them around 20 ms, one in ten of them failed.
fn slice(calls: u64) -> CallSlice {
    let mut slice = CallSlice::default();
    for place in 0..calls {
        let outcome = if place % 10 == 9 { CallOutcome::ServerError } else { CallOutcome::Success };
        let latency = Some(Duration::from_micros(15_000 + place * 97 % 10_000));
        slice.record(&Call { outcome, latency, count: 1 });
    }
    slice
}

/// One observation after another: recorded, judged, and the verdict read.
fn observe<D: Detector>(c: &mut Criterion<CpuTime>, name: &str, mut detector: D, seen: &[Observation<'_>]) {
    let mut now = LocalTime(Duration::from_secs(1_000));
    let mut turns = seen.iter().cycle();
    c.bench_function(name, |b| {
        b.iter(|| {
            now = now.plus(STEP);
            if let Some(seen) = turns.next() {
                black_box(detector.observe(black_box(seen), now));
            }
            black_box(detector.verdict())
        });
    });
}

fn probes(c: &mut Criterion<CpuTime>) {
    let (good, bad) = (Outcome::Success, Outcome::failure(FailureClass::ServerError, "status 500, expected 200-299"));
    let mut seen = vec![Observation::Probe { check: 0, outcome: &good }; 9];
    seen.push(Observation::Probe { check: 0, outcome: &bad });
    let row = || Consecutive::new(CHECK, 2, 3);
    observe(c, "probe/Consecutive", row(), &seen);
    observe(c, "probe/Consecutive, an outage", row(), &seen[9..]);
    observe(c, "probe/TimeoutDetector", TimeoutDetector::new(0, row()), &seen);
    observe(c, "probe/HealthCheckDetector", HealthCheckDetector::new(0, row()), &seen);
    observe(c, "probe/CheckSet", CheckSet::new([rule()]), &seen);
    observe(c, "probe/ErrorRateDetector", error_rate(), &seen);
    let parts: Vec<Box<dyn Detector + Send>> = vec![Box::new(row()), Box::new(error_rate())];
    observe(c, "probe/Combination of two boxed", Combination::new(Combine::All, parts), &seen);
    observe(c, "probe/ProbeDetector", probe_detector(), &seen);
}

fn calls(c: &mut Criterion<CpuTime>) {
    for count in [1, 1_000] {
        let slices = [slice(count), slice(count + 1)];
        let seen: Vec<Observation<'_>> = slices.iter().map(Observation::Calls).collect();
        let spec = Spec::default();
        observe(c, &format!("slice of {count}/ConsecutiveCalls"), ConsecutiveCalls::new(5, STEP * 3_000), &seen);
        observe(c, &format!("slice of {count}/ErrorRateDetector"), error_rate(), &seen);
        observe(c, &format!("slice of {count}/SlowCallDetector"), SlowCallDetector::new(&spec.detection.slow), &seen);
        observe(c, &format!("slice of {count}/CallJudge"), call_judge(), &seen);
    }
}

fn heartbeats(c: &mut Criterion<CpuTime>) {
    let ok = Observation::Heartbeat(Heartbeat { state: HeartbeatState::Ok });
    // Ten milliseconds are an extra heartbeat to one who expects a second: learning is what costs, so let it learn.
    let ten_ms = AccrualDetector::new(8.0, STEP, STEP * 2, STEP * 100);
    observe(c, "heartbeat/AccrualDetector", ten_ms, &[ok]);
    let mut silent = accrual();
    silent.observe(&ok, LocalTime::default());
    let mut now = LocalTime::default();
    c.bench_function("heartbeat/AccrualDetector, a tick", |b| {
        b.iter(|| {
            now = now.plus(Duration::from_nanos(1));
            black_box(silent.tick(black_box(now)))
        });
    });
}

fn single(c: &mut Criterion<CpuTime>) {
    let calls = [
        Call { outcome: CallOutcome::Success, latency: Some(Duration::from_micros(20_345)), count: 1 },
        Call { outcome: CallOutcome::ServerError, latency: Some(Duration::from_micros(345)), count: 1 },
        Call { outcome: CallOutcome::Success, latency: Some(Duration::from_micros(812)), count: 3 },
    ];
    let mut held = CallSlice::default();
    let mut turns = calls.iter().cycle();
    c.bench_function("call/CallSlice::record", |b| {
        b.iter(|| turns.next().map(|call| held.record(black_box(call))));
    });
    let later = slice(100);
    c.bench_function("call/CallSlice::merge_after", |b| b.iter(|| held.merge_after(black_box(&later))));
    let mut judge = call_judge();
    judge.observe(&Observation::Calls(&slice(100)), LocalTime::default());
    c.bench_function("breaker/signal", |b| b.iter(|| black_box(black_box(&judge).breaker_signal())));
}

/// What one instance costs in bytes: the type itself and, for probes, what it holds on the heap with one check named
/// [`CHECK`]. All else is in the type.
fn memory() {
    // A set of one check is one element on the heap; its size is known from outside by that of what it wraps.
    let check = size_of::<HealthCheckDetector>() + size_of::<usize>() + CHECK.len();
    println!("\nbytes for one instance");
    for (name, bytes, heap) in [
        ("CallSlice (at the node that takes the reports)", size_of::<CallSlice>(), 0),
        ("CallJudge (at the leader)", size_of::<CallJudge>(), 0),
        ("ProbeDetector with one check (at each observer)", size_of::<ProbeDetector>(), check),
        ("AccrualDetector (at the leader)", size_of::<AccrualDetector>(), 0),
    ] {
        println!("  {name:<50} {bytes:>6} + {heap} on the heap");
    }
    println!();
}

fn main() {
    memory();
    let mut c = Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    single(&mut c);
    probes(&mut c);
    calls(&mut c);
    heartbeats(&mut c);
    c.final_summary();
}
