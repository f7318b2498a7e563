//! What breaks: processes and nodes that die, stop and sleep, networks that are cut in all the ways in which networks
//! are cut, clocks that change their rate. And how all of it is put right at the end.

use super::clock::{MS, Micros};
use super::message::Event;
use super::net::{Addr, Weather};
use super::seen::Sight;
use super::shape::Fault;
use super::world::{World, tell};

impl World {
    pub(crate) fn nemesis_acts(&mut self) {
        if !self.shaking {
            return;
        }
        match self.rng.weighted(&self.shape.faults) {
            Fault::StopProcess => self.stop_process(),
            Fault::KillProcess => self.kill_process(),
            Fault::StartTwin => self.start_twin(),
            Fault::StepDown => self.step_down_process(),
            Fault::StopNode => self.stop_node(),
            Fault::KillNode => self.kill_node(),
            Fault::StickDisk => self.stick_disk(),
            Fault::KillAllActives => self.kill_all_actives(),
            Fault::KillAllNodes => self.kill_all_nodes(),
            Fault::Campaign => self.campaign(),
            Fault::Coup => self.coup(),
            Fault::Exile => self.exile(),
            Fault::CutNode => self.cut_node(),
            Fault::CutPair => self.cut_pair(),
            Fault::CutOneWay => self.cut_one_way(),
            Fault::CutHalf => self.cut_half(),
            Fault::CutProcess => self.cut_process(),
            Fault::CutAnswers => self.cut_answers(),
            Fault::HealNet => self.heal_net(),
            Fault::Weather => self.change_weather(),
            Fault::Clock => self.change_clock(),
        }
        let after = self.rng.about(self.shape.nemesis_every);
        self.plan(after, Event::Nemesis);
    }

    /// Somebody who runs, rather the one that is active than another.
    fn some_process(&mut self) -> Option<usize> {
        let up: Vec<usize> = self.processes.iter().filter(|process| process.up).map(|process| process.at).collect();
        let active: Vec<usize> =
            up.iter().copied().filter(|at| self.processes[*at].may_act(self.now).is_some()).collect();
        let of = if !active.is_empty() && self.rng.chance(600) { active } else { up };
        (!of.is_empty()).then(|| self.rng.one(&of))
    }

    /// A node that runs, rather the leader than another.
    fn some_node(&mut self) -> Option<usize> {
        let up: Vec<usize> = self.nodes.iter().filter(|node| node.up).map(|node| node.at).collect();
        let leads: Vec<usize> = up.iter().copied().filter(|at| self.nodes[*at].raft.leads()).collect();
        let of = if !leads.is_empty() && self.rng.chance(600) { leads } else { up };
        (!of.is_empty()).then(|| self.rng.one(&of))
    }

    /// For how long something lasts: about as long as a lease, or a moment, or long.
    fn a_while(&mut self) -> Micros {
        let mean = self.rng.one(&[20 * MS, 300 * MS, 300 * MS, 1_500 * MS]);
        1 + self.rng.about(mean)
    }

    fn stop_process(&mut self) {
        let Some(at) = self.some_process() else { return };
        let (actor, asleep, long) = (Addr::Process(at), self.rng.chance(self.shape.asleep), self.a_while());
        self.seen.note(Sight::ProcessPauses);
        self.stop(actor, asleep);
        self.plan(long, Event::Resume { actor });
    }

    fn kill_process(&mut self) {
        let Some(at) = self.some_process() else { return };
        self.crash(Addr::Process(at));
        self.seen.note(Sight::ProcessRestarts);
        if self.processes[at].slot == 0 {
            let after = self.a_while();
            self.start_later(Addr::Process(at), after);
        }
    }

    /// Somebody starts a second process under the name of one that runs.
    fn start_twin(&mut self) {
        let twins: Vec<usize> = self.processes.iter().filter(|it| it.slot > 0 && !it.up).map(|it| it.at).collect();
        if !twins.is_empty() {
            let at = self.rng.one(&twins);
            self.seen.note(Sight::Twins);
            self.start_process(at);
        }
    }

    /// A process stops of itself: it steps down, or its child has ended. One that holds nothing may leave.
    fn step_down_process(&mut self) {
        let Some(at) = self.some_process() else { return };
        if self.is_stopped(Addr::Process(at)) {
            return;
        }
        let leaving = self.rng.chance(400);
        if self.processes[at].may_act(self.now).is_some() {
            self.seen.note(Sight::ReleasesSaid);
            self.steps_down(at, leaving);
        } else if leaving {
            self.leaves(at);
        }
    }

    /// The disk of a node, rather of the leader than of another, takes nothing for a while. Whatever needs no disk goes on.
    fn stick_disk(&mut self) {
        let Some(at) = self.some_node() else { return };
        self.seen.note(Sight::DisksStuck);
        let long = self.a_while();
        self.nodes[at].stuck_until = self.now + long;
        tell!(self, "the disk of n{} is stuck for {} ms", at + 1, long / MS);
    }

    /// What all actives have in common ends.
    fn kill_all_actives(&mut self) {
        tell!(self, "all that are active die");
        self.seen.note(Sight::MassFailures);
        for at in 0..self.processes.len() {
            if self.processes[at].may_act(self.now).is_some() {
                self.crash(Addr::Process(at));
                if self.processes[at].slot == 0 {
                    let after = 500 * MS + self.a_while();
                    self.start_later(Addr::Process(at), after);
                }
            }
        }
    }

    /// The power fails. What is on disks is all that is left of the cluster.
    fn kill_all_nodes(&mut self) {
        self.seen.note(Sight::PowerCuts);
        for at in 0..self.nodes.len() {
            self.crash(Addr::Node(at));
            let after = self.a_while();
            self.start_later(Addr::Node(at), after);
        }
    }

    fn stop_node(&mut self) {
        let Some(at) = self.some_node() else { return };
        let (actor, asleep, long) = (Addr::Node(at), self.rng.chance(200), self.a_while());
        self.seen.note(Sight::NodePauses);
        self.stop(actor, asleep);
        self.plan(long, Event::Resume { actor });
    }

    fn kill_node(&mut self) {
        let Some(at) = self.some_node() else { return };
        let actor = Addr::Node(at);
        self.crash(actor);
        let after = self.a_while();
        self.start_later(actor, after);
    }

    /// One node from all others, and perhaps with some clients on its side.
    fn cut_node(&mut self) {
        self.seen.note(Sight::Partitions);
        let Some(alone) = self.some_node() else { return };
        let others = (0..self.nodes.len()).filter(|other| *other != alone);
        for other in others.clone() {
            self.net.cut_both(Addr::Node(alone), Addr::Node(other));
        }
        for process in 0..self.processes.len() {
            if self.rng.chance(400) {
                for other in others.clone() {
                    self.net.cut_both(Addr::Process(process), Addr::Node(other));
                }
            }
        }
        tell!(self, "n{} is cut off", alone + 1);
    }

    /// One pair of nodes.
    fn cut_pair(&mut self) {
        self.seen.note(Sight::Partitions);
        let (one, other) = (self.rng.at(self.nodes.len()), self.rng.at(self.nodes.len()));
        self.net.cut_both(Addr::Node(one), Addr::Node(other));
        tell!(self, "n{} and n{} are cut from each other", one + 1, other + 1);
    }

    /// One way only.
    fn cut_one_way(&mut self) {
        self.seen.note(Sight::Partitions);
        let (from, to) = (self.rng.at(self.nodes.len()), self.rng.at(self.nodes.len()));
        self.net.cut(Addr::Node(from), Addr::Node(to));
        tell!(self, "n{} reaches n{} no longer", from + 1, to + 1);
    }

    /// A node hears no other, or is heard by none.
    fn cut_half(&mut self) {
        self.seen.note(Sight::Partitions);
        let Some(node) = self.some_node() else { return };
        let deaf = self.rng.chance(500);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let (from, to) = if deaf { (other, node) } else { (node, other) };
            self.net.cut(Addr::Node(from), Addr::Node(to));
        }
        tell!(self, "n{} {}", node + 1, if deaf { "hears nobody" } else { "is heard by nobody" });
    }

    /// A process from the cluster, but not from what it works on.
    fn cut_process(&mut self) {
        self.seen.note(Sight::Partitions);
        let Some(process) = self.some_process() else { return };
        for node in 0..self.nodes.len() {
            self.net.cut_both(Addr::Process(process), Addr::Node(node));
        }
        tell!(self, "p{process} is cut off from the cluster");
    }

    /// What the cluster says to a process is lost.
    fn cut_answers(&mut self) {
        self.seen.note(Sight::Partitions);
        let Some(process) = self.some_process() else { return };
        for node in 0..self.nodes.len() {
            self.net.cut(Addr::Node(node), Addr::Process(process));
        }
        tell!(self, "p{process} hears nothing from the cluster");
    }

    /// The leader hears nobody any more, but for what is under way, and another is elected.
    fn coup(&mut self) {
        let leads = |at: &usize| self.nodes[*at].up && self.nodes[*at].raft.leads();
        let Some(leader) = (0..self.nodes.len()).find(leads) else { return };
        self.seen.note(Sight::Partitions);
        for other in (0..self.nodes.len()).filter(|other| *other != leader) {
            self.net.cut(Addr::Node(other), Addr::Node(leader));
        }
        tell!(self, "n{} hears nobody", leader + 1);
        self.campaign();
    }

    /// A node that does not lead is cut off from the others for about as long as leases last, runs for leader in vain, and
    /// does so again when it is back.
    fn exile(&mut self) {
        let may: Vec<usize> = self.nodes.iter().filter(|it| it.up && !it.raft.leads()).map(|it| it.at).collect();
        if may.is_empty() {
            return;
        }
        self.seen.note(Sight::Partitions);
        let node = self.rng.one(&may);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.net.cut_both(Addr::Node(node), Addr::Node(other));
        }
        let ttl = self.rng.one(&self.shape.ttls) * MS;
        let long = self.rng.between(ttl, 3 * ttl);
        tell!(self, "n{} is exiled for {} ms", node + 1, long / MS);
        self.plan(long, Event::Return { node });
    }

    pub(crate) fn return_from_exile(&mut self, node: usize) {
        if self.shaking {
            self.heal_net();
            self.run_for_leader(node);
        }
    }

    /// A node loses its patience before its time, rather one that does not lead.
    fn campaign(&mut self) {
        let may: Vec<usize> = self.nodes.iter().filter(|it| it.up && !it.raft.leads()).map(|it| it.at).collect();
        if !may.is_empty() {
            let at = self.rng.one(&may);
            tell!(self, "n{} loses its patience", at + 1);
            self.run_for_leader(at);
        }
    }

    fn heal_net(&mut self) {
        self.net.heal();
        tell!(self, "the network is whole");
    }

    fn change_weather(&mut self) {
        self.net.weather = Weather::any(&mut self.rng);
        tell!(self, "the weather changes: {:?}", self.net.weather);
    }

    fn change_clock(&mut self) {
        let now = self.now;
        if self.rng.chance(500) {
            let (at, error) = (self.rng.at(self.nodes.len()), self.shape.node_error(&mut self.rng));
            self.nodes[at].clock.drift(now, error);
        } else {
            let (at, error) = (self.rng.at(self.processes.len()), self.shape.process_error(&mut self.rng));
            self.processes[at].clock.drift(now, error);
        }
    }

    /// The end of the shaking: the network is whole, everybody runs, each service is wanted.
    pub(crate) fn heal_everything(&mut self) {
        tell!(self, "everything is healed");
        self.shaking = false;
        self.net.heal();
        self.net.weather = Weather::FAIR;
        (self.shape.think, self.shape.apply_lag, self.shape.batching) = (MS, MS, MS);
        for node in &mut self.nodes {
            node.stuck_until = 0;
        }
        let actors = (0..self.nodes.len()).map(Addr::Node).chain((0..self.processes.len()).map(Addr::Process));
        for actor in actors.collect::<Vec<_>>() {
            self.resume(actor);
        }
        for at in 0..self.nodes.len() {
            if !self.nodes[at].up {
                self.start_node(at);
            }
        }
        for at in 0..self.processes.len() {
            let slot = self.processes[at].slot;
            if slot > 0 && self.processes[at].up {
                // Of two under one name one goes, or they would take the name from each other for ever.
                self.crash(Addr::Process(at));
            }
        }
        for at in 0..self.processes.len() {
            if !self.processes[at].up && self.processes[at].slot == 0 {
                self.start_process(at);
            }
        }
        self.restore_services();
    }
}
