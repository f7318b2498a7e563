//! Which instances this node watches, as nodes come and go, specs change and operators speak.

use std::time::Instant;

use baton_core::command::InstanceAdmin;
use baton_core::policy::{Combine, RecoveryStrategy};
use baton_core::state::AdminState;

use super::*;

const FIVE: u64 = 5;

impl World {
    /// Five nodes, one service that wants so many observers, so many instances at ports of their own.
    fn of_five(observers: u32, instances: u16) -> Self {
        let mut world = Self::of_nodes(FIVE);
        world.wants(observers);
        for number in 0..instances {
            world.instance(&format!("i-{number}"), &format!("127.0.0.1:{}", 1_000 + number));
        }
        world
    }

    fn wants(&mut self, observers: u32) {
        let mut spec = Spec { checks: vec![Check::of(CheckKind::Http)], ..Spec::default() };
        spec.detection.observers = observers;
        self.spec(spec);
    }

    /// The instances that are probed here.
    fn probed(&self) -> BTreeSet<String> {
        self.prober.targets.values().map(|(target, _)| format!("i-{}", target.address.port - 1_000)).collect()
    }

    /// The instances that these of the nodes are assigned to, by the state.
    fn assigned(&self, node: NodeId) -> BTreeSet<String> {
        let service = self.state.service(&name("web")).expect("a service");
        let observed = service.instances.values().filter(|it| self.state.observers_of(service, it).contains(&node));
        observed.map(|instance| instance.id.to_string()).collect()
    }

    fn lost(&mut self, node: NodeId) {
        self.commit(Command::ObserverLost { node, silent_for: Millis(3_000) });
    }

    fn back(&mut self, node: NodeId) {
        self.commit(Command::ObserverBack { node });
    }

    fn target_of(&self, instance: &str) -> TargetId {
        let port: u16 = 1_000 + instance.trim_start_matches("i-").parse::<u16>().expect("a number");
        let found = self.prober.targets.iter().find(|(_, (target, _))| target.address.port == port);
        *found.unwrap_or_else(|| panic!("{instance} is not probed here")).0
    }

    /// Sees it well often enough to say so, and says so.
    fn see_up(&mut self, instance: &str) {
        for _ in 0..2 {
            self.now += 200;
            self.see(self.target_of(instance), Ok(good()));
        }
        assert_eq!(self.say(), vec![(instance.to_owned(), Verdict::Up)]);
    }
}

#[test]
fn what_a_lost_node_watched_is_shared_by_the_others_until_it_is_back() {
    let mut world = World::of_five(2, 100);
    let before = world.assigned(ME);
    assert_eq!(world.probed(), before);
    assert!((20..=60).contains(&before.len()), "two fifths of a hundred, not {}", before.len());

    let of_the_lost = world.assigned(4);
    world.lost(4);
    let meanwhile = world.assigned(ME);
    assert_eq!(world.probed(), meanwhile);
    let taken_over: BTreeSet<String> = meanwhile.difference(&before).cloned().collect();
    assert!(!taken_over.is_empty() && taken_over.is_subset(&of_the_lost), "{taken_over:?}");
    assert!(before.is_subset(&meanwhile), "nothing else moves");
    for instance in &taken_over {
        assert_eq!(world.prober.targets[&world.target_of(instance)].1, Pace::Fast, "its first looks are quick");
    }

    // It is back before this node has seen enough of what it took over to say anything: no reason to stay.
    world.back(4);
    assert_eq!(world.probed(), before);
}

#[test]
fn a_node_that_is_released_stands_in_until_the_assigned_have_looked() {
    let mut world = World::of_five(2, 100);
    let before = world.assigned(ME);
    world.lost(4);
    let taken_over: Vec<String> = world.assigned(ME).difference(&before).cloned().collect();
    let instance = taken_over[0].as_str();
    world.see_up(instance);

    world.back(4);
    assert!(!world.assigned(ME).contains(instance));
    assert!(world.probed().contains(instance), "node 4 has not looked yet");
    assert_eq!(world.probed().len(), before.len() + 1, "and what this node has not spoken of it lets go");
    // While it stands in, its word counts: what it sees now is said.
    for _ in 0..3 {
        world.now += 200;
        world.see(world.target_of(instance), Ok(bad()));
    }
    assert_eq!(world.say(), vec![(instance.to_owned(), Verdict::Down)]);
    let others: Vec<NodeId> = {
        let service = world.state.service(&name("web")).expect("a service");
        world.state.observers_of(service, &service.instances[&id(instance)])
    };
    world.other(others[0], instance, Verdict::Up);
    assert!(world.probed().contains(instance), "one of two has looked");
    world.other(others[1], instance, Verdict::Up);
    assert_eq!(world.probed(), before, "now all have: its watch is over");
    assert_eq!(world.say(), [], "and there is nothing more to say");
    assert_eq!(world.health(instance), Health::Healthy);
}

#[test]
fn a_node_that_is_counted_out_keeps_its_own_watch() {
    let mut world = World::of_five(2, 100);
    let before = world.assigned(ME);
    let target = world.target_of(before.first().expect("some"));
    world.lost(ME);
    assert!(world.assigned(ME).is_empty());
    assert_eq!(world.probed(), before, "so that it has looked already when it is back");
    world.back(ME);
    assert_eq!(world.probed(), before);
    assert!(world.prober.targets.contains_key(&target), "the very same watch");
}

#[test]
fn nobody_watches_what_is_in_maintenance() {
    let mut world = World::of_five(5, 3);
    world.see_up("i-1");
    let mut admin = |state, lasts| {
        world.commit(Command::InstanceAdmin(InstanceAdmin {
            service: name("web"),
            instance: id("i-1"),
            state,
            reason: "a new disk".to_owned(),
            lasts,
            until: None,
            actor: "test".to_owned(),
        }));
        (world.probed().contains("i-1"), world.say())
    };
    assert_eq!(admin(AdminState::Maintenance, Some(Millis::secs(60))), (false, vec![]));
    assert_eq!(admin(AdminState::Draining, None), (true, vec![]), "it is looked at anew");
    assert_eq!(admin(AdminState::Isolated, None), (true, vec![]), "out, and still watched");
    assert_eq!(admin(AdminState::Enabled, None), (true, vec![]));
    world.see_up("i-1");
}

#[test]
fn as_many_observe_as_the_spec_says() {
    let mut world = World::of_five(5, 60);
    assert_eq!(world.probed().len(), 60);
    world.wants(1);
    assert_eq!(world.probed(), world.assigned(ME));
    assert!((3..=30).contains(&world.probed().len()), "a fifth of 60, not {}", world.probed().len());
    world.wants(9);
    assert_eq!(world.probed().len(), 60, "more than there are: all of them");
}

#[test]
fn another_way_to_judge_keeps_the_target_and_what_is_committed() {
    let mut world = World::of_five(5, 1);
    world.see_up("i-0");
    let target = world.target_of("i-0");
    let mut spec = Spec { checks: vec![Check::of(CheckKind::Http)], ..Spec::default() };
    spec.detection.combine = Combine::All;
    spec.detection.error_rate.min_requests = 5;
    world.spec(spec.clone());
    assert_eq!(world.target_of("i-0"), target);
    assert_eq!((world.say(), world.health("i-0")), (vec![], Health::Healthy), "nothing is taken back");
    assert_eq!(world.pace(), Pace::Fast, "but it is looked at again");
    world.see_all([good(), good()]);
    assert_eq!((world.say(), world.pace()), (vec![], Pace::Normal));
    // All must say down: the row of failures does, and the share of failures does not until there are five looks.
    world.see_all([bad(), bad(), bad()]);
    assert_eq!(world.say(), vec![("i-0".to_owned(), Verdict::Down)], "three of five failed, and three in a row");

    // `probing`: what was down shows itself `probes` times more than `rise`.
    spec.detection.combine = Combine::Any;
    spec.recovery.strategy = RecoveryStrategy::Probing;
    spec.recovery.probes = 2;
    world.spec(spec);
    assert_eq!(world.target_of("i-0"), target);
    world.see_all([bad(), bad(), bad()]);
    assert_eq!(world.say(), [], "down, as committed");
    world.see_all([good(), good(), good()]);
    assert_eq!(world.say(), [], "two for rise, one more");
    world.see_all([good()]);
    assert_eq!(world.say(), vec![("i-0".to_owned(), Verdict::Up)]);
}

/// A node is lost among ten thousand instances: what that costs this node's loop is printed.
#[test]
fn ten_thousand_instances_are_shared_anew_in_no_time() {
    let mut world = World::of_five(2, 10_000);
    let before = world.probed().len();
    let begin = Instant::now();
    world.book.rescan(&world.state, &mut world.prober);
    let same = begin.elapsed();
    let applied = {
        world.index += 1;
        let lost = Command::ObserverLost { node: 4, silent_for: Millis(3_000) };
        let batch = Batch { time: ClusterTime(world.now), wall: WallTime(0), commands: vec![lost] };
        apply_batch(&mut world.state, world.index, &batch)
    };
    let begin = Instant::now();
    world.book.changed(&world.state, &applied.changes, &mut world.prober);
    let moved = begin.elapsed();
    eprintln!(
        "10,000 instances, two of five observe each: a scan without news {same:?}; one node lost, {} watches more: {moved:?}",
        world.probed().len() - before
    );
    assert_eq!(world.probed(), world.assigned(ME));
    assert!(world.probed().len() > before);
    assert!(moved.as_secs() < 2, "{moved:?}, in a build that is not optimised");
}
