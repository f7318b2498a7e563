//! The fencing hook as the log tells it: when a run begins, what its end is worth, who goes on when a leader is lost, and
//! whom a confirmation speaks of.

mod support;

use baton_core::apply::{Position, apply_batch};
use baton_core::command::{AutomationPause, Batch, Command, HookEnd, HookStart, Refusal, Reply};
use baton_core::event::EventKind;
use baton_core::id::NodeId;
use baton_core::lease::LeaseStanding;
use baton_core::planner::{Decision, Facts, ManualMove, ManualRequest, ServicePlan, plan_manual, plan_service};
use baton_core::policy::{FencingHook, ProofKind, ProofPolicy, Spec};
use baton_core::probe::Verdict;
use baton_core::time::{Millis, WallTime};
use baton_core::transition::{HookAttempt, HookOutcome, Transition};
use support::{World, put_service, service};

const TIMEOUT: Millis = Millis(1_000);

/// Node and term of whoever leads.
type Leader = (NodeId, u64);

fn plan(world: &World, leader: Leader) -> ServicePlan {
    let facts = Facts { node: leader.0, term: leader.1, ..Facts::default() };
    plan_service(&world.state, world.service("orders"), &facts, world.now, 7)
}

/// One command in an entry of this term.
fn send(world: &mut World, term: u64, command: Command) -> Reply {
    world.index += 1;
    let batch = Batch { time: world.now, wall: WallTime(0), commands: vec![command] };
    let mut applied = apply_batch(&mut world.state, Position { term, index: world.index }, &batch);
    world.events.extend(applied.events.into_iter().map(|recorded| recorded.event));
    applied.replies.pop().expect("one reply a command")
}

/// Plans and carries out, as a leader does, until there is nothing more to do.
fn settle(world: &mut World, leader: Leader) {
    for _ in 0..10 {
        let Some(command) = plan(world, leader).command else { return };
        send(world, leader.1, command).expect("what is planned is carried out");
    }
    panic!("the planner does not come to rest: {:?}", plan(world, leader).report);
}

fn record(world: &World) -> &Transition {
    world.state.transitions.values().next_back().expect("a record")
}

fn last_run(world: &World) -> HookAttempt {
    record(world).hook.last().expect("a run").clone()
}

fn active(world: &World) -> Option<String> {
    world.active("orders").map(|(id, _)| id)
}

fn end(world: &mut World, attempt: u32, ok: bool) -> Reply {
    let detail = if ok { "fence agent \"off\" exited with 0" } else { "fence agent \"off\" exited with 3" };
    let outcome =
        HookOutcome { ok, code: Some(if ok { 0 } else { 3 }), status: None, detail: detail.to_owned(), took_ms: 40 };
    let transition = record(world).id;
    send(world, 1, Command::HookEnd(HookEnd { service: service("orders"), transition, attempt, outcome }))
}

/// `orders` whose active `a` is down, and where a hook alone can prove that it has stopped; `attempts` may fail.
fn down(attempts: u32) -> World {
    let mut world = World::orders();
    world.put_service("orders", |spec| {
        spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Hook]);
        spec.fencing.hook = Some(FencingHook { url: None, agent: Some("off".to_owned()), timeout: TIMEOUT, attempts });
        spec.failover.min_interval = Millis::ZERO;
    });
    world.everyone_says("orders", "a", Verdict::Down);
    world
}

#[test]
fn a_run_is_in_the_log_before_it_begins_and_its_confirmation_is_the_proof() {
    let mut world = down(3);
    let token = world.service("orders").active_token();
    settle(&mut world, (1, 1));
    assert_eq!(active(&world), None, "nobody is promoted before the hook has confirmed");
    let run = last_run(&world);
    assert_eq!((run.number, run.node, run.term, run.resumes), (1, 1, 1, false));
    assert_eq!((run.instance.as_str(), run.token, run.outcome), ("a", token, None));
    let waits = plan(&world, (1, 1));
    assert_eq!(waits.report.decision, Decision::Hold);
    assert!(
        waits.report.summary.contains("attempt 1 of the fencing hook is under way on node 1"),
        "{:?}",
        waits.report
    );

    end(&mut world, 1, true).expect("taken");
    settle(&mut world, (1, 1));
    assert_eq!(active(&world).as_deref(), Some("b"));
    let record = record(&world);
    let proof = record.proof.as_ref().expect("a proof");
    assert_eq!(proof.proof, ProofKind::Hook);
    let says = ["attempt 1", "\"a\" with token", "is cut off", "exited with 0"];
    assert!(says.iter().all(|words| proof.evidence.contains(words)), "{}", proof.evidence);
    assert_eq!(record.hook[0].outcome.as_ref().and_then(|outcome| outcome.code), Some(0));
    let steps: Vec<&str> = record.steps.iter().map(|step| step.step.as_str()).collect();
    let mut told = steps.iter().filter(|step| matches!(**step, "hook_started" | "hook_ended" | "proof" | "promoted"));
    assert!(
        ["hook_started", "hook_ended", "proof", "promoted"].iter().all(|word| told.next() == Some(word)),
        "{steps:?}"
    );
}

#[test]
fn a_hook_that_fails_is_run_again_after_a_rest_and_not_more_often_than_its_attempts() {
    let mut world = down(2);
    settle(&mut world, (1, 1));
    end(&mut world, 1, false).expect("taken");
    let rests = plan(&world, (1, 1));
    assert_eq!((rests.report.decision, rests.command), (Decision::Hold, None), "it rests first");
    world.now = rests.wake_at.expect("a time to look again");
    settle(&mut world, (1, 1));
    assert_eq!((last_run(&world).number, last_run(&world).resumes), (2, false), "the first one has an outcome");
    end(&mut world, 2, false).expect("taken");
    world.wait(Millis::secs(3_600));
    let over = plan(&world, (1, 1));
    assert_eq!((over.report.decision, over.command), (Decision::Hold, None));
    for word in ["hook", "proof"] {
        let gate = over.report.gates.iter().find(|gate| gate.gate == word).expect("a gate");
        assert!(gate.why.contains("failed 2 times, and attempts is 2"), "{}", gate.why);
        assert!(!gate.why.contains("waiting for the fencing hook"), "{}", gate.why);
    }
    assert_eq!(active(&world), None, "nobody is promoted without a proof");
    let codes: Vec<_> = record(&world).hook.iter().filter_map(|run| run.outcome.as_ref()?.code).collect();
    assert_eq!(codes, [3, 3], "each is kept");
}

#[test]
fn the_next_leader_begins_another_run_and_says_that_the_lost_one_may_have_been_carried_out() {
    let mut world = down(1);
    settle(&mut world, (1, 1));
    // Node 1 is lost. Node 2 leads, in the next term.
    let before = world.events.len();
    settle(&mut world, (2, 2));
    let run = last_run(&world);
    assert_eq!((run.number, run.node, run.term, run.resumes), (2, 2, 2, true));
    let told = world.events[before..].iter().find(|event| event.kind == EventKind::TransitionStep).expect("an event");
    assert!(
        told.reason.contains("attempt 1 on node 1 has no outcome and may have been carried out"),
        "{}",
        told.reason
    );
    assert!(record(&world).steps.iter().any(|step| step.detail == told.reason), "and the record says the same");
    assert_eq!(plan(&world, (2, 2)).command, None, "one at a time");

    // What becomes known of the lost run late is believed all the same.
    end(&mut world, 1, true).expect("taken");
    settle(&mut world, (2, 2));
    assert_eq!(active(&world).as_deref(), Some("b"));
    assert!(record(&world).proof.as_ref().is_some_and(|proof| proof.evidence.contains("attempt 1")));
}

#[test]
fn a_run_that_is_not_the_next_or_not_of_this_term_does_not_begin() {
    let mut world = down(3);
    let command = loop {
        let command = plan(&world, (1, 1)).command.expect("a command");
        if let Command::HookStart(start) = command {
            break start;
        }
        send(&mut world, 1, command).expect("carried out");
    };
    let moved_on = |reply: Reply| matches!(reply, Err(Refusal::MovedOn { .. }));
    let start = |change: fn(&mut HookStart)| {
        let mut start = command.clone();
        change(&mut start);
        Command::HookStart(start)
    };
    assert!(moved_on(send(&mut world, 2, start(|_| {}))), "its node does not lead any more");
    assert!(moved_on(send(&mut world, 1, start(|start| start.attempt = 2))));
    assert!(moved_on(send(&mut world, 1, start(|start| start.transition.0 += 1))));
    assert!(record(&world).hook.is_empty());
    send(&mut world, 1, start(|_| {})).expect("it begins");
    assert!(moved_on(send(&mut world, 1, start(|_| {}))), "it has begun");
    assert!(moved_on(send(&mut world, 1, start(|start| start.attempt = 2))), "one at a time");
    assert_eq!(record(&world).hook.len(), 1);
    assert!(moved_on(end(&mut world, 2, true)), "nobody has run that one");
    end(&mut world, 1, false).expect("taken");
    assert!(moved_on(end(&mut world, 1, true)), "an outcome stays what it was");
    assert_eq!(last_run(&world).outcome.map(|outcome| outcome.ok), Some(false));
}

#[test]
fn a_run_that_tells_nothing_for_too_long_is_followed_by_another_in_the_same_term() {
    let mut world = down(1);
    settle(&mut world, (1, 1));
    let lost_at = plan(&world, (1, 1)).wake_at.expect("a time to look again");
    assert!(lost_at > world.now.plus(TIMEOUT), "it has had its time, and more");
    world.now = lost_at;
    settle(&mut world, (1, 1));
    assert_eq!((last_run(&world).number, last_run(&world).resumes), (2, true));
}

#[test]
fn a_holder_that_steps_down_as_planned_is_not_cut_off_while_its_lease_runs() {
    let mut world = down(1);
    world.everyone_says("orders", "a", Verdict::Up);
    let request = ManualRequest {
        wanted: ManualMove::Switchover,
        to: None,
        reason: "a new kernel".to_owned(),
        actor: "alice".to_owned(),
        asserts_stopped: false,
    };
    let start = plan_manual(&world.state, &service("orders"), &request, &Facts::default(), world.now, 1);
    send(&mut world, 1, start.expect("a plan").command.expect("a command")).expect("carried out");
    let with = |world: &World, lease| {
        let facts = Facts { node: 1, term: 1, lease, ..Facts::default() };
        plan_service(&world.state, world.service("orders"), &facts, world.now, 7)
    };
    let runs = || LeaseStanding::Runs { left: Millis(3_000), renewed_ago: None };
    let waits = with(&world, runs());
    assert_eq!((waits.report.decision, waits.command), (Decision::Hold, None));
    assert!(waits.report.summary.contains("\"a\" is stepping down as planned"), "{}", waits.report.summary);
    assert_eq!(waits.wake_at, Some(world.now.plus(Millis(3_001))), "it is looked at again when the lease has ended");
    assert_eq!(with(&world, LeaseStanding::Unknown).report.decision, Decision::Fence, "it had its time");

    // One that is down is not waited for.
    let mut world = down(1);
    let open = with(&world, runs()).command.expect("a failover");
    send(&mut world, 1, open).expect("carried out");
    assert_eq!(with(&world, runs()).report.decision, Decision::Fence);
}

#[test]
fn cutting_off_one_holder_proves_nothing_of_the_next() {
    let mut world = down(1);
    world.put_service("orders", |spec| {
        spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Hook]);
        let agent = Some("off".to_owned());
        spec.fencing.hook = Some(FencingHook { url: None, agent, timeout: TIMEOUT, attempts: 1 });
        (spec.failover.require_ack, spec.failover.min_interval) = (true, Millis::ZERO);
    });
    settle(&mut world, (1, 1));
    assert_eq!(last_run(&world).instance.as_str(), "a");
    // An operator does not wait for it: b is promoted, and does not acknowledge.
    let request = ManualRequest {
        wanted: ManualMove::Failover,
        to: None,
        reason: "its host has no power".to_owned(),
        actor: "alice".to_owned(),
        asserts_stopped: true,
    };
    let move_it = plan_manual(&world.state, &service("orders"), &request, &Facts::default(), world.now, 1);
    send(&mut world, 1, move_it.expect("a plan").command.expect("a command")).expect("carried out");
    assert_eq!(active(&world).as_deref(), Some("b"));
    let patience = world.service("orders").spec.failover.activation_timeout;
    world.wait(patience);
    let expire = plan(&world, (1, 1)).command.expect("a command");
    assert!(matches!(expire, Command::ActivationExpire(_)), "{expire:?}");
    send(&mut world, 1, expire).expect("carried out");

    // Only now is it known that a was cut off. b was not.
    end(&mut world, 1, true).expect("taken");
    let holder = world.service("orders").assignment.last_holder.clone().expect("a holder");
    assert_eq!((holder.instance.as_str(), holder.fenced), ("b", None));
    let next = plan(&world, (1, 1));
    assert_eq!(next.report.decision, Decision::Fence, "{:?}", next.report);
    settle(&mut world, (1, 1));
    assert_eq!(active(&world), None);
    let run = last_run(&world);
    assert_eq!((run.number, run.instance.as_str(), run.resumes), (2, "b", false), "the one attempt that b may have");
    end(&mut world, 2, true).expect("taken");
    settle(&mut world, (1, 1));
    assert_eq!(active(&world).as_deref(), Some("c"));
}

#[test]
fn an_operators_failover_of_the_open_move_counts_the_attempts_anew() {
    let mut world = down(1);
    settle(&mut world, (1, 1));
    end(&mut world, 1, false).expect("taken");
    world.wait(Millis::secs(60));
    settle(&mut world, (1, 1));
    assert_eq!(last_run(&world).number, 1, "it was its only one");
    let ask = |world: &mut World| {
        let request = ManualRequest {
            wanted: ManualMove::Failover,
            to: None,
            reason: "the fence agent is mended".to_owned(),
            actor: "alice".to_owned(),
            asserts_stopped: false,
        };
        let plan = plan_manual(&world.state, &service("orders"), &request, &Facts::default(), world.now, 1)?;
        send(world, 1, plan.command.expect("a command"))
    };
    for number in [2, 3] {
        ask(&mut world).expect("whoever asks makes it be tried again");
        settle(&mut world, (1, 1));
        assert_eq!(last_run(&world).number, number);
        assert_eq!(ask(&mut world).expect_err("one at a time").code(), "proof_refused");
        end(&mut world, number, number == 3).expect("taken");
        world.wait(Millis::secs(60));
        settle(&mut world, (1, 1));
    }
    assert_eq!(active(&world).as_deref(), Some("b"));
}

#[test]
fn nobody_is_cut_off_for_a_move_that_may_not_be_made_any_more() {
    let mut world = down(3);
    let command = loop {
        let command = plan(&world, (1, 1)).command.expect("a command");
        if matches!(command, Command::HookStart(_)) {
            break command;
        }
        send(&mut world, 1, command).expect("carried out");
    };
    let refused = |change: &dyn Fn(&mut World)| {
        let mut other = World { state: world.state.clone(), index: world.index, now: world.now, events: Vec::new() };
        change(&mut other);
        let refusal = send(&mut other, 1, command.clone()).expect_err("the hook does not begin");
        assert!(record(&other).hook.is_empty());
        refusal.code()
    };
    let respec = |change: fn(&mut Spec)| {
        move |world: &mut World| {
            let mut spec = (*world.service("orders").spec).clone();
            change(&mut spec);
            world.must(put_service("orders", spec));
        }
    };
    let pause = |world: &mut World| {
        world.must(Command::AutomationPause(AutomationPause {
            service: None,
            reason: "new switches".to_owned(),
            owner: "net-team".to_owned(),
            lasts: Millis::secs(60),
            until: None,
            actor: "alice".to_owned(),
        }));
    };
    assert_eq!(refused(&pause), "automation_held");
    assert_eq!(refused(&respec(|spec| spec.failover.automatic = false)), "moved_on");
    let tokens = respec(|spec| spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Token, ProofKind::Hook]));
    assert_eq!(refused(&tokens), "proof_refused", "another proof holds by now");
    assert_eq!(
        refused(&respec(|spec| spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Lease]))),
        "proof_refused"
    );
    send(&mut world, 1, command).expect("it begins");
}
