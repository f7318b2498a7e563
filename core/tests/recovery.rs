//! How instances come back, and what an operator may say of them, told as short stories. `pass` lets time go by and does
//! what comes due, as a leader does.

mod support;

use baton_core::breaker::BreakerState;
use baton_core::command::{Command, InstancesDue, Refusal};
use baton_core::event::EventKind;
use baton_core::planner::{Decision, Facts, ManualMove, ManualRequest, instances_due, plan_manual};
use baton_core::policy::{Liveness, Mode, RecoveryPolicy, RecoveryStrategy, Spec};
use baton_core::probe::{Health, Verdict};
use baton_core::state::{AdminState, Source, State};
use baton_core::time::{Millis, WallTime};
use baton_core::transition::{Transition, TransitionKind};
use support::acts::{admin, judgement, reset};
use support::{World, instance, service};

/// `orders` with a, b and c, a active, whose instances come back as `recovery` says.
fn orders(recovery: impl FnOnce(&mut RecoveryPolicy)) -> World {
    let mut world = World::orders();
    let mut policy = Spec::default().recovery;
    recovery(&mut policy);
    world.put_service("orders", |spec| spec.recovery = policy);
    world
}

fn who(world: &World) -> Option<String> {
    world.active("orders").map(|(id, _)| id)
}

fn why_not(world: &World, id: &str) -> String {
    let report = world.plan("orders").report;
    let found =
        report.candidates.into_iter().find(|candidate| candidate.instance == instance(id)).expect("it is told of");
    found
        .rules
        .into_iter()
        .filter(|rule| !rule.pass)
        .map(|rule| format!("{}: {}", rule.rule, rule.why))
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn by_immediate_the_good_probes_are_enough() {
    let mut world = orders(|policy| policy.strategy = RecoveryStrategy::Immediate);
    world.everyone_says("orders", "b", Verdict::Down);
    assert_eq!(world.health("b"), Health::Unhealthy);
    world.everyone_says("orders", "b", Verdict::Up);
    assert_eq!(world.health("b"), Health::Healthy);
    let policy = &world.service("orders").spec.recovery;
    assert_eq!(world.at("orders", "b").effective_weight(policy, world.now), 1_000, "all of its weight at once");
}

#[test]
fn by_gradual_it_is_held_back_longer_each_time_and_then_ramps_up() {
    let mut world = orders(|policy| policy.cooldown_after = 9);
    for (failure, delay) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000)] {
        world.fall_and_rise("b");
        assert_eq!(world.health("b"), Health::Unhealthy, "well again, and not taken back");
        assert!(
            why_not(&world, "b").contains(&format!("held back for another {}", Millis(delay).told())),
            "{}",
            why_not(&world, "b")
        );
        world.pass(Millis(delay - 1));
        assert_eq!(world.health("b"), Health::Unhealthy, "failure {failure}, a millisecond early");
        let row = if failure == 1 { "1 failure in a row".to_owned() } else { format!("{failure} failures in a row") };
        let left = why_not(&world, "b");
        assert!(left.contains("held back for another 1ms") && left.contains(&row), "what is left of it: {left}");
        world.pass(Millis(1));
        assert_eq!(world.health("b"), Health::Healthy, "failure {failure}");
        let told = world.last_of(EventKind::InstanceHealthChanged);
        assert_eq!(told.to, Some(Some("healthy".to_owned())));
    }
    let shares: Vec<u64> = [0, 30_000, 30_000, 60_000]
        .map(|ms| {
            world.pass(Millis(ms));
            world.at("orders", "b").effective_weight(&world.service("orders").spec.recovery, world.now)
        })
        .to_vec();
    assert_eq!(shares, [100, 550, 1_000, 1_000], "thousandths: a tenth, and all of it after a minute");
}

#[test]
fn a_failure_while_it_is_held_back_begins_the_delay_anew_and_counts_once() {
    let mut world = orders(|_| {});
    world.fall_and_rise("b");
    world.pass(Millis(900));
    world.everyone_says("orders", "b", Verdict::Down);
    world.pass(Millis(5_000));
    assert_eq!(world.health("b"), Health::Unhealthy);
    world.everyone_says("orders", "b", Verdict::Up);
    world.pass(Millis(999));
    assert_eq!(world.health("b"), Health::Unhealthy, "the second it must be well begins with being well");
    world.pass(Millis(1));
    assert_eq!(world.health("b"), Health::Healthy);
    assert_eq!(world.at("orders", "b").recovery.as_ref().map(|recovery| recovery.failures), Some(1));
}

#[test]
fn the_third_failure_in_a_row_cools_down_and_that_binds_baton_and_not_an_operator() {
    let mut world = orders(|policy| policy.strategy = RecoveryStrategy::Immediate);
    for _ in 0..3 {
        world.fall_and_rise("b");
        world.pass(Millis::secs(10));
    }
    assert_eq!(world.health("b"), Health::Healthy, "it is well, and serves where it may");
    assert!(why_not(&world, "b").starts_with("out_of_cooldown"), "{}", why_not(&world, "b"));
    let unhealthy = world.events.iter().rev().find(|event| event.to == Some(Some("unhealthy".to_owned())));
    assert!(unhealthy.is_some_and(|event| event.reason.contains("3 failures in a row: cooling down for 5m")));

    // Baton passes it by for the second best.
    world.everyone_says("orders", "a", Verdict::Down);
    world.settle("orders");
    assert_eq!(who(&world).as_deref(), Some("c"));

    // A person need not wait.
    let request = ManualRequest {
        wanted: ManualMove::Switchover,
        to: Some(instance("b")),
        reason: "I know it is well".to_owned(),
        actor: "alice".to_owned(),
        asserts_stopped: false,
    };
    let plan = plan_manual(&world.state, &service("orders"), &request, &Facts::default(), world.now, 1)
        .expect("it may be moved by hand");
    world.must(plan.command.expect("a command"));
    assert_eq!(who(&world).as_deref(), Some("b"));
}

#[test]
fn baton_waits_for_the_end_of_a_cool_down_where_nobody_else_is_left() {
    let mut world = orders(|policy| policy.strategy = RecoveryStrategy::Immediate);
    for _ in 0..3 {
        world.fall_and_rise("b");
    }
    let since = world.now;
    world.everyone_says("orders", "c", Verdict::Down);
    world.everyone_says("orders", "a", Verdict::Down);
    world.settle("orders");
    let plan = world.plan("orders");
    assert_eq!((who(&world), plan.report.decision), (None, Decision::Hold));
    assert_eq!(plan.wake_at, Some(since.plus(Millis::secs(300))), "the leader looks again when it ends");
    world.pass(Millis::secs(299));
    world.settle("orders");
    assert_eq!(who(&world), None);
    world.pass(Millis::secs(1));
    world.settle("orders");
    assert_eq!(who(&world).as_deref(), Some("b"));
}

#[test]
fn whoever_was_well_for_as_long_as_the_cooldown_begins_to_count_anew() {
    let mut world = orders(|policy| policy.strategy = RecoveryStrategy::Immediate);
    for (well_for, failures) in [(0, 1), (299, 2), (300, 1), (1, 2)] {
        world.pass(Millis::secs(well_for));
        world.fall_and_rise("b");
        let recovery = world.at("orders", "b").recovery.clone().expect("it is remembered");
        assert_eq!(recovery.failures, failures, "after {well_for} s");
        assert_eq!(recovery.cooldown_until, None);
    }
}

#[test]
fn a_passive_that_is_dead_for_too_long_is_removed_and_told_of() {
    let mut world = orders(|_| {});
    world.put_instance("orders", "b", |it| (it.priority, it.deregister_after) = (200, Some(Millis::secs(60))));
    world.everyone_says("orders", "b", Verdict::Down);
    world.pass(Millis(59_999));
    assert_eq!(world.health("b"), Health::Unhealthy);
    world.pass(Millis(1));
    assert!(world.state.instance(&service("orders"), &instance("b")).is_none());
    let told = world.last_of(EventKind::InstanceDeregistered);
    assert_eq!((told.instance.clone(), told.actor.clone()), (Some(instance("b")), None));
    assert!(told.reason.contains("deregister_after (1m)"), "{}", told.reason);
}

#[test]
fn one_that_comes_back_in_time_stays() {
    let mut world = orders(|_| {});
    world.put_instance("orders", "b", |it| (it.priority, it.deregister_after) = (200, Some(Millis(500))));
    world.fall_and_rise("b");
    world.pass(Millis::secs(60));
    assert_eq!(world.health("b"), Health::Healthy, "the delay of its recovery is not an absence");
}

#[test]
fn the_holder_is_never_removed_by_time_nor_the_one_that_held_last() {
    let mut world = orders(|_| {});
    for id in ["a", "b", "c"] {
        world.put_instance("orders", id, |it| it.deregister_after = Some(Millis::secs(1)));
        world.everyone_says("orders", id, Verdict::Down);
    }
    world.settle("orders");
    assert_eq!(who(&world), None, "nobody is left to take over");
    world.pass(Millis::secs(60));
    let left: Vec<String> = world.service("orders").instances.keys().map(ToString::to_string).collect();
    assert_eq!(left, ["a"], "a may still work: it is what a proof is owed about");
}

#[test]
fn where_all_serve_all_that_are_dead_are_removed() {
    let mut world = orders(|_| {});
    world.put_service("orders", |spec| spec.mode = Mode::ActiveActive);
    for id in ["a", "b", "c"] {
        world.put_instance("orders", id, |it| it.deregister_after = Some(Millis::secs(60)));
        world.everyone_says("orders", id, Verdict::Down);
    }
    world.pass(Millis::secs(60));
    assert!(world.service("orders").instances.is_empty());
    assert!(world.service("orders").assignment.last_holder.is_some(), "that somebody served is not forgotten");
}

#[test]
fn one_that_heartbeats_and_is_never_heard_is_missing_and_one_that_is_probed_is_not() {
    let mut world = orders(|_| {});
    for (id, liveness) in [("d", Liveness::Heartbeat), ("e", Liveness::Probe)] {
        world.put_instance("orders", id, |it| (it.liveness, it.deregister_after) = (liveness, Some(Millis::secs(60))));
    }
    world.pass(Millis::secs(61));
    assert!(world.state.instance(&service("orders"), &instance("d")).is_none());
    assert_eq!(world.health("e"), Health::Unknown, "that nobody looked is no fault of it");
}

#[test]
fn while_an_operator_has_taken_it_out_nobody_removes_it_and_then_the_patience_begins_anew() {
    for (state, lasts) in [
        (AdminState::Draining, None),
        (AdminState::Isolated, None),
        (AdminState::Draining, Some(Millis::secs(3_600))),
        (AdminState::Maintenance, Some(Millis::secs(3_600))),
    ] {
        let mut world = orders(|_| {});
        world.put_instance("orders", "b", |it| {
            (it.liveness, it.deregister_after) = (Liveness::Heartbeat, Some(Millis::secs(60)));
        });
        world.everyone_says("orders", "b", Verdict::Down);
        world.pass(Millis::secs(30));
        world.admin("b", state, lasts).expect("taken");
        world.pass(Millis::secs(3_599));
        assert_eq!(world.at("orders", "b").admin.state, state);
        match lasts {
            Some(_) => world.pass(Millis::secs(1)),
            None => {
                world.admin("b", AdminState::Enabled, None).expect("taken");
            }
        }
        world.pass(Millis(59_999));
        assert_eq!(world.at("orders", "b").admin.state, AdminState::Enabled, "{state}: it is there still");
        world.pass(Millis(1));
        assert!(world.state.instance(&service("orders"), &instance("b")).is_none(), "{state}");
    }
}

#[test]
fn maintenance_ends_by_itself_and_observers_begin_anew() {
    let mut world = orders(|_| {});
    let (probed, epoch) = (world.at("orders", "b").clone(), world.at("orders", "b").epoch);
    assert_eq!(world.state.observers_of(world.service("orders"), &probed).len(), 3);
    world.judge("b", Source::Calls, Verdict::Up).expect("taken");
    world.admin("b", AdminState::Maintenance, Some(Millis::secs(1_800))).expect("taken");

    let b = world.at("orders", "b");
    assert_eq!((b.health, b.verdicts.len(), b.judged.len()), (Health::Unknown, 0, 0));
    assert!(world.state.observers_of(world.service("orders"), b).is_empty(), "nobody is asked to probe it");
    assert!(why_not(&world, "b").contains("alice set it maintenance until"), "{}", why_not(&world, "b"));
    // What was under way when it began is late, and what comes meanwhile is not asked for.
    world.send(support::verdicts(1, "orders", "b", epoch, Verdict::Down)).expect("dropped in silence");
    world.verdict(1, "orders", "b", Verdict::Down).expect("dropped in silence");
    world.judge("b", Source::Calls, Verdict::Down).expect("dropped in silence");
    let b = world.at("orders", "b");
    assert_eq!((b.health, b.verdicts.len(), b.judged.len()), (Health::Unknown, 0, 0));

    let during = world.at("orders", "b").epoch;
    world.pass(Millis(1_799_999));
    assert_eq!(world.at("orders", "b").admin.state, AdminState::Maintenance);
    let from = world.events.len();
    world.pass(Millis(1));
    let told = &world.events[from];
    assert_eq!((told.kind, told.actor.clone()), (EventKind::InstanceAdminChanged, None));
    assert_eq!(
        (told.from.clone(), told.to.clone()),
        (Some(Some("maintenance".to_owned())), Some(Some("enabled".to_owned())))
    );
    assert!(told.reason.contains("new disks"), "{}", told.reason);
    let b = world.at("orders", "b");
    assert_eq!((b.admin.state, b.admin.ends, b.health), (AdminState::Enabled, None, Health::Unknown));
    assert!(b.epoch > during, "what was seen in between says nothing either");
    world.everyone_says("orders", "b", Verdict::Up);
    assert_eq!(world.health("b"), Health::Healthy);
}

#[test]
fn a_longer_maintenance_replaces_the_end_and_does_not_begin_anew() {
    let mut world = orders(|_| {});
    world.admin("b", AdminState::Maintenance, Some(Millis::secs(60))).expect("taken");
    let epoch = world.at("orders", "b").epoch;
    world.admin("b", AdminState::Maintenance, Some(Millis::secs(600))).expect("taken");
    assert_eq!(world.at("orders", "b").epoch, epoch);
    world.pass(Millis::secs(599));
    assert_eq!(world.at("orders", "b").admin.state, AdminState::Maintenance);
    world.pass(Millis::secs(1));
    assert_eq!(world.at("orders", "b").admin.state, AdminState::Enabled);
}

#[test]
fn the_isolated_active_is_replaced_at_once() {
    let mut world = orders(|_| {});
    world.admin("a", AdminState::Isolated, None).expect("taken");
    assert_eq!(world.health("a"), Health::Isolated);
    world.settle("orders");
    assert_eq!(who(&world).as_deref(), Some("b"));
    let record = world.state.transitions.values().next_back().expect("a record");
    assert_eq!(record.kind, TransitionKind::Failover);
    assert!(record.trigger.reason.contains("isolated by alice: new disks"), "{}", record.trigger.reason);
    // Well or not, it stays out until somebody says otherwise.
    world.pass(Millis::secs(86_400));
    world.everyone_says("orders", "a", Verdict::Up);
    assert_eq!(world.health("a"), Health::Isolated);
    world.admin("a", AdminState::Enabled, None).expect("taken");
    assert_eq!(world.health("a"), Health::Healthy);
}

#[test]
fn an_isolated_or_draining_passive_is_no_candidate() {
    for state in [AdminState::Isolated, AdminState::Draining] {
        let mut world = orders(|_| {});
        world.admin("b", state, None).expect("taken");
        assert!(why_not(&world, "b").starts_with(&format!("enabled: alice set it {state}: new disks")));
        world.everyone_says("orders", "a", Verdict::Down);
        world.settle("orders");
        assert_eq!(who(&world).as_deref(), Some("c"), "{state}");
    }
}

#[test]
fn a_draining_active_stays_active() {
    let mut world = orders(|_| {});
    let before = world.active("orders");
    world.admin("a", AdminState::Draining, None).expect("taken");
    world.settle("orders");
    assert_eq!(world.active("orders"), before);
    assert_eq!(world.health("a"), Health::Healthy, "it is not cut off");
    // It is still watched, and replaced when it dies.
    world.everyone_says("orders", "a", Verdict::Down);
    world.settle("orders");
    assert_eq!(who(&world).as_deref(), Some("b"));
}

#[test]
fn being_taken_out_while_it_is_held_back_neither_spins_nor_shortens_the_delay() {
    for (state, lasts) in [(AdminState::Isolated, None), (AdminState::Maintenance, Some(Millis::secs(60)))] {
        let mut world = orders(|_| {});
        world.fall_and_rise("b");
        world.pass(Millis(500));
        world.admin("b", state, lasts).expect("taken");
        world.pass(Millis::secs(30));
        let due = instances_due(world.service("orders"), world.now, Millis::secs(3_600));
        assert_eq!(due.command, None, "{state}: nothing is due, again and again");
        world.admin("b", AdminState::Enabled, None).expect("taken");
        world.everyone_says("orders", "b", Verdict::Up);
        assert_eq!(world.health("b"), Health::Unhealthy, "{state}: it begins to be well now");
        world.pass(Millis::secs(1));
        assert_eq!(world.health("b"), Health::Healthy, "{state}");
    }
}

#[test]
fn a_reset_clears_all_that_speaks_against_it() {
    let mut world = orders(|_| {});
    for _ in 0..3 {
        world.fall_and_rise("b");
        world.pass(Millis::secs(10));
    }
    world.half_open("b");
    world.judge("b", Source::Calls, Verdict::Down).expect("taken");
    let (epoch, generation) = (world.at("orders", "b").epoch, world.breaker("b").generation);
    assert_eq!(world.health("b"), Health::Unhealthy);

    let from = world.events.len();
    world.reset("b").expect("taken");
    let b = world.at("orders", "b").clone();
    assert_eq!((b.recovery, b.breaker.state, b.breaker.trips), (None, BreakerState::Closed, 0));
    assert_eq!((b.verdicts.len(), b.judged.len(), b.health), (0, 0, Health::Unknown));
    assert!(b.epoch > epoch && b.breaker.generation > generation, "what is still under way about it is late");
    assert_eq!(
        world.kinds_since(from).into_iter().collect::<Vec<_>>(),
        [("instance.breaker_changed", 1), ("instance.health_changed", 1), ("instance.reset", 1)]
    );
    let told = world.events[from].clone();
    assert_eq!((told.kind, told.actor.as_deref()), (EventKind::InstanceReset, Some("alice")));
    assert!(told.reason.contains("the switch was repaired"), "{}", told.reason);
    for effect in &world.events[from + 1..] {
        assert_eq!(effect.cause, Some(told.revision), "{}", effect.kind);
    }

    world.everyone_says("orders", "b", Verdict::Up);
    assert_eq!(world.health("b"), Health::Healthy, "at once: no delay, no ramp, no cool-down");
    assert_eq!(why_not(&world, "b"), "");
    let policy = &world.service("orders").spec.recovery;
    assert_eq!(world.at("orders", "b").share(policy, world.now), 1_000);
}

#[test]
fn a_reset_of_the_active_does_not_move_it() {
    let mut world = orders(|_| {});
    let before = world.active("orders");
    world.reset("a").expect("taken");
    world.settle("orders");
    assert_eq!((world.active("orders"), world.health("a")), (before.clone(), Health::Unknown));
    world.everyone_says("orders", "a", Verdict::Up);
    world.settle("orders");
    assert_eq!(world.active("orders"), before);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut world = orders(|_| {});
    let before = world.state.clone();
    let refusal = world.admin("a", AdminState::Maintenance, Some(Millis::secs(60))).expect_err("it is the active");
    assert!(matches!(refusal, Refusal::IsActive { .. }) && refusal.to_string().contains("switchover"), "{refusal}");
    for command in [
        admin("orders", "nobody", AdminState::Draining, None),
        admin("nothing", "a", AdminState::Draining, None),
        reset("orders", "nobody"),
        reset("nothing", "a"),
        Command::InstancesDue(InstancesDue {
            service: service("nothing"),
            instances: vec![instance("a")],
            missing: Vec::new(),
        }),
    ] {
        let refusal = world.refused(command.clone());
        assert!(
            matches!(refusal, Refusal::NoSuchInstance { .. } | Refusal::NoSuchService { .. }),
            "{command:?}: {refusal}"
        );
    }
    assert_eq!(unclocked(&before), unclocked(&world.state));
}

#[test]
fn what_is_not_due_yet_is_left_alone_whoever_says_so() {
    let mut world = orders(|_| {});
    world.fall_and_rise("b");
    world.admin("c", AdminState::Draining, Some(Millis::secs(60))).expect("taken");
    let before = world.state.clone();
    let instances = ["a", "b", "c", "gone"].map(instance).to_vec();
    world.must(Command::InstancesDue(InstancesDue {
        service: service("orders"),
        instances: instances.clone(),
        missing: instances,
    }));
    assert_eq!(unclocked(&before), unclocked(&world.state));
}

#[test]
fn a_judgement_on_what_was_before_is_dropped() {
    let mut world = orders(|_| {});
    let epoch = world.at("orders", "b").epoch;
    world.reset("b").expect("taken");
    world.send(judgement("orders", "b", epoch, Source::Calls, Verdict::Down)).expect("dropped in silence");
    assert_eq!((world.at("orders", "b").judged.len(), world.health("b")), (0, Health::Unknown));
}

#[test]
fn calls_and_probes_together_and_alone() {
    // 200 on the health page while calls fail: what users see counts.
    let mut world = orders(|policy| policy.strategy = RecoveryStrategy::Immediate);
    world.judge("a", Source::Calls, Verdict::Down).expect("taken");
    assert_eq!(world.health("a"), Health::Unhealthy);
    let verdict = world.last_of(EventKind::VerdictChanged);
    assert_eq!((verdict.source, verdict.node), (Some(Source::Calls), None));
    let told = world.last_of(EventKind::InstanceHealthChanged);
    assert_eq!(told.source, None, "health is counted from all of them");
    assert!(told.reason.contains("its calls say down (30 % of 100 calls failed)"), "{}", told.reason);
    world.settle("orders");
    assert_eq!(who(&world).as_deref(), Some("b"));
    let record = world.state.transitions.values().next_back().expect("a record");
    let judged: Vec<_> = record.judged.iter().map(|one| (one.source, one.verdict, one.evidence.told())).collect();
    assert_eq!(judged, [(Source::Calls, Verdict::Down, "30 % of 100 calls failed".to_owned())]);
    assert_eq!(record.evidence.len(), 3, "what the observers held is there as well: {:?}", record.evidence);
    let mut older = serde_json::to_value(record.as_ref()).expect("it serializes");
    older.as_object_mut().expect("an object").remove("judged").expect("it is told");
    let older: Transition = serde_json::from_value(older).expect("a record of before is read");
    assert!(older.judged.is_empty());
    world.judge("a", Source::Calls, Verdict::Unknown).expect("taken");
    assert_eq!(world.health("a"), Health::Healthy, "nothing to judge by any more: the probes stand");
}

fn unclocked(state: &State) -> State {
    let mut state = state.clone();
    state.meta.cluster_time = Default::default();
    state
}

#[test]
fn one_that_heartbeats_well_is_not_missing_because_nobody_can_probe_it() {
    let mut world = orders(|_| {});
    world.put_instance("orders", "h", |registration| {
        registration.liveness = Liveness::Heartbeat;
        registration.deregister_after = Some(Millis::secs(60));
    });
    world.judge("h", Source::Heartbeats, Verdict::Up).expect("taken");
    assert_eq!(world.health("h"), Health::Unknown, "it has a check, and nobody can look");
    world.pass(Millis::secs(600));
    assert_eq!(world.health("h"), Health::Unknown, "it is still there");
    world.judge("h", Source::Heartbeats, Verdict::Down).expect("taken");
    world.pass(Millis::secs(61));
    assert!(world.state.instance(&service("orders"), &instance("h")).is_none(), "now it is missing");
}

#[test]
fn a_new_leader_removes_nobody_before_they_could_be_seen() {
    let mut world = orders(|_| {});
    world.put_instance("orders", "c", |registration| registration.deregister_after = Some(Millis::secs(60)));
    world.everyone_says("orders", "c", Verdict::Down);
    // Two hours without a quorum: the clock went on, and nobody could say that it is well.
    world.wait(Millis::secs(7_200));
    let due = instances_due(world.service("orders"), world.now, Millis(500));
    assert_eq!((due.command, due.wake_at), (None, Some(world.now.plus(Millis(9_500)))));
    world.wait(Millis(9_500));
    assert!(instances_due(world.service("orders"), world.now, Millis::secs(10)).command.is_some());
}

#[test]
fn a_new_session_is_a_new_incarnation_with_new_patience() {
    let mut world = orders(|_| {});
    let beats = |registration: &mut baton_core::policy::Registration| {
        registration.liveness = Liveness::Heartbeat;
        registration.deregister_after = Some(Millis::secs(60));
        registration.address = None;
    };
    world.put_instance("orders", "h", beats);
    world.judge("h", Source::Heartbeats, Verdict::Up).expect("taken");
    assert_eq!(world.health("h"), Health::Healthy);
    world.put_instance("orders", "h", beats);
    assert_eq!(world.health("h"), Health::Unknown, "the old one's heartbeats say nothing of the new one");
    world.pass(Millis::secs(59));
    world.put_instance("orders", "h", beats);
    world.pass(Millis::secs(59));
    assert!(world.state.instance(&service("orders"), &instance("h")).is_some(), "it registered a minute ago");
}

#[test]
fn another_address_is_another_instance_to_its_breaker() {
    let mut world = orders(|_| {});
    let generation = world.breaker("b").generation;
    world.trip("b", generation, 5).expect("it opens");
    let open = world.breaker("b").generation;
    world.put_instance("orders", "b", |registration| registration.address = "127.0.0.1:81".parse().ok());
    assert_eq!(world.breaker("b").state, BreakerState::Closed);
    assert!(world.breaker("b").generation > open, "calls to the old address are late");
}

#[test]
fn one_that_sees_it_well_vetoes_clients_too() {
    let mut world = orders(|_| {});
    world.put_service("orders", |spec| spec.detection.veto = true);
    world.judge("a", Source::Calls, Verdict::Down).expect("taken");
    assert_eq!(world.health("a"), Health::Suspect, "three observers see it well");
    for node in 1..=3 {
        world.verdict(node, "orders", "a", Verdict::Unknown).expect("taken");
    }
    assert_eq!(world.health("a"), Health::Unhealthy, "nobody does any more");
}

#[test]
fn an_end_that_was_written_as_a_time_of_day_is_told_as_it_was_written() {
    let mut world = orders(|_| {});
    let Command::InstanceAdmin(mut wish) = admin("orders", "b", AdminState::Maintenance, Some(Millis::secs(60))) else {
        panic!("it is an operator's word");
    };
    wish.until = Some(WallTime(1_795_190_400_000));
    world.must(Command::InstanceAdmin(wish));
    assert_eq!(world.at("orders", "b").admin.until, Some(WallTime(1_795_190_400_000)));
    let told = world.last_of(EventKind::InstanceAdminChanged);
    assert!(told.reason.contains("until 2026-11-20T16:00:00.000Z"), "{}", told.reason);
    world.pass(Millis::secs(60));
    assert_eq!(world.at("orders", "b").admin.state, AdminState::Enabled, "the length decides, whatever the label says");
}
