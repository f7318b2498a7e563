//! What is done to the cluster and to its instances: each fault is one round, begun when all is well and ended when all is well
//! again. Which fault comes when, and its moment within a lease, is drawn from a seed.

use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use super::stage::{Holder, SERVICE, Stage, signal, spec};
use crate::support::SOON;
use crate::support::sse::Stream;

/// Longer than an election of the daemon's own settings takes, mostly: it begins after 650 ms at most.
const ELECTION: Duration = Duration::from_millis(1_300);
/// An operator who does not wait for the cluster to notice asks again so often, and waits for so long.
const ASKS_AGAIN: Duration = Duration::from_millis(20);
const WAITS: Duration = Duration::from_millis(500);

/// splitmix64: the same numbers for the same seed, on every machine.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    /// A length between two.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + Duration::from_micros(self.below(u64::try_from((most - least).as_micros()).unwrap_or(1).max(1)))
    }

    /// One of these.
    pub(super) fn one_of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[usize::try_from(self.below(u64::try_from(choice.len()).expect("a length"))).expect("an index")]
    }

    /// In an order of its own.
    pub(super) fn shuffled<T: Copy>(&mut self, choice: &[T]) -> Vec<T> {
        let mut left = choice.to_vec();
        let mut drawn = Vec::new();
        while !left.is_empty() {
            let at = self.below(u64::try_from(left.len()).expect("a length"));
            drawn.push(left.swap_remove(usize::try_from(at).expect("an index")));
        }
        drawn
    }
}

/// Each kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9 of the worker.
    WorkerKilled,
    /// kill -9 of what keeps the lease; of a worker that keeps it itself there is nothing else.
    KeeperKilled,
    /// SIGSTOP of the keeper's process group and of the worker's, for longer than the lease.
    GroupStopped,
    /// SIGSTOP of every process of the instance, as if its machine had been paused; then they go on.
    HostPaused,
    /// The holder is cut off from the whole cluster, not from the file.
    HolderCutOff,
    /// What the holder sends is lost; it hears everything.
    HolderMute,
    /// The holder hears nothing; what it sends arrives.
    HolderDeaf,
    /// The leader dies right after a new holder's first grant.
    LeaderKilledAfterGrant,
    /// The holder is cut off, and the leader dies when the lease is about to end, or has just ended.
    LeaderKilledAtLeaseEnd,
    /// The holder is cut off and the leader dies soon after: the next one is elected, and told to fail over, within the lease.
    LeaderKilledWithinLease,
    /// The leader dies when the promotion is proposed, or has just been committed.
    LeaderKilledAtPromotion,
    /// The leader is stopped until another leads, then wakes.
    LeaderPaused,
    /// The same with the holder cut off meanwhile: somebody else is promoted before the old leader wakes.
    LeaderPausedHolderCutOff,
    /// The leader and the holder are on the minority's side.
    LeaderAndHolderInMinority,
    /// Leader and one follower do not see each other; the third node sees both. Meanwhile the worker is killed.
    PartialPartition,
    /// What the leader sends to the other nodes is lost.
    LeaderMute,
    /// What the other nodes send to the leader is lost.
    LeaderDeaf,
    /// A node dies and returns.
    NodeRestarted,
    /// All nodes die at once and return.
    AllNodesRestarted,
    /// A polite switchover.
    Switchover,
    /// Failovers and switchovers of several operators at several nodes, and a killed worker, all at once.
    MovesRaced,
    /// A second process registers under the holder's id.
    RegisteredTwice,
    /// An operator deregisters the holder, which knows nothing of it.
    HolderDeregistered,
    /// An operator deletes the service and makes another of the same name.
    ServiceMadeAnew,
}

/// All of them.
pub(super) const FAULTS: [Fault; 24] = [
    Fault::WorkerKilled,
    Fault::KeeperKilled,
    Fault::GroupStopped,
    Fault::HostPaused,
    Fault::HolderCutOff,
    Fault::HolderMute,
    Fault::HolderDeaf,
    Fault::LeaderKilledAfterGrant,
    Fault::LeaderKilledAtLeaseEnd,
    Fault::LeaderKilledWithinLease,
    Fault::LeaderKilledAtPromotion,
    Fault::LeaderPaused,
    Fault::LeaderPausedHolderCutOff,
    Fault::LeaderAndHolderInMinority,
    Fault::PartialPartition,
    Fault::LeaderMute,
    Fault::LeaderDeaf,
    Fault::NodeRestarted,
    Fault::AllNodesRestarted,
    Fault::Switchover,
    Fault::MovesRaced,
    Fault::RegisteredTwice,
    Fault::HolderDeregistered,
    Fault::ServiceMadeAnew,
];

impl Stage {
    /// One round.
    pub(super) async fn play(&mut self, fault: Fault, dice: &mut Dice) {
        let holder = self.holder().expect("somebody works");
        let (leader, term) = self.cluster.leader().await;
        self.note(&format!("{fault:?}: {holder:?} works, node {leader} leads in term {term}"));
        let others = self.cluster.others(leader);
        let wait = self.wait();
        // In every second round somebody orders a failover as soon as a node takes the order. Then it is the lease alone
        // that is waited for, and not the cluster's own notice of a failure.
        let impatient = dice.below(2) == 0;
        let asked = impatient.then(|| self.cluster.ids());
        // Anywhere between two heartbeats.
        tokio::time::sleep(dice.between(Duration::ZERO, self.ttl / 5)).await;
        match fault {
            Fault::WorkerKilled => {
                signal(holder.pid, Signal::KILL);
                self.next_holder(&holder).await;
            }
            Fault::KeeperKilled => {
                let index = self.index(&holder);
                self.instances[index].process.kill9();
                self.next_holder(&holder).await;
            }
            Fault::GroupStopped => self.paused(&holder, false, asked, dice).await,
            Fault::HostPaused => self.paused(&holder, true, asked, dice).await,
            Fault::HolderCutOff => {
                self.lan.cut(holder.host);
                let _operator = asked.as_deref().map(|nodes| self.operator(nodes));
                self.next_holder(&holder).await;
                self.lan.heal(holder.host);
            }
            Fault::HolderMute => self.lost(&[(holder.host, self.cluster.ids())], &holder, asked).await,
            Fault::HolderDeaf => {
                let ways: Vec<(u64, Vec<u64>)> =
                    self.cluster.ids().iter().map(|node| (*node, vec![holder.host])).collect();
                self.lost(&ways, &holder, asked).await;
            }
            Fault::LeaderKilledAfterGrant => {
                signal(holder.pid, Signal::KILL);
                let next = self.next_holder(&holder).await;
                self.cluster.kill9(leader);
                // It may go on, or lose its lease while there is no leader: both are well.
                self.cluster.leader_among(&others).await;
                self.note(&format!("{:?} has a new leader", next.token));
                self.cluster.restart(leader).await;
            }
            Fault::LeaderKilledAtLeaseEnd | Fault::LeaderKilledWithinLease => {
                let late = fault == Fault::LeaderKilledAtLeaseEnd;
                let (first, last) = if late {
                    (wait - self.ttl / 5, wait + Duration::from_millis(40))
                } else {
                    (Duration::ZERO, self.ttl / 5)
                };
                self.lan.cut(holder.host);
                tokio::time::sleep(dice.between(first, last)).await;
                self.cluster.kill9(leader);
                let _operator = (impatient || !late).then(|| self.operator(&others));
                self.next_holder(&holder).await;
                self.lan.heal(holder.host);
                self.cluster.restart(leader).await;
            }
            Fault::LeaderKilledAtPromotion => self.leader_killed_at_promotion(&holder, leader, &others, dice).await,
            Fault::LeaderPaused => {
                self.cluster.signal(leader, Signal::STOP);
                self.cluster.leader_among(&others).await;
                tokio::time::sleep(dice.between(Duration::ZERO, ELECTION + wait)).await;
                self.cluster.signal(leader, Signal::CONT);
            }
            Fault::LeaderPausedHolderCutOff => {
                let first = dice.below(2) == 0;
                if first {
                    self.lan.cut(holder.host);
                    tokio::time::sleep(dice.between(Duration::ZERO, wait)).await;
                }
                self.cluster.signal(leader, Signal::STOP);
                if !first {
                    self.lan.cut(holder.host);
                }
                let _operator = impatient.then(|| self.operator(&others));
                self.next_holder(&holder).await;
                tokio::time::sleep(dice.between(Duration::ZERO, wait)).await;
                // The holder is heard again before anybody has told the old leader what happened meanwhile.
                self.lan.heal(holder.host);
                self.cluster.signal(leader, Signal::CONT);
            }
            Fault::LeaderAndHolderInMinority => {
                let majority: Vec<u64> = others
                    .iter()
                    .copied()
                    .chain(self.instances.iter().map(|it| it.host).filter(|host| *host != holder.host))
                    .collect();
                let minority = [leader, holder.host];
                let both: Vec<(u64, Vec<u64>)> = minority
                    .iter()
                    .map(|from| (*from, majority.clone()))
                    .chain(majority.iter().map(|from| (*from, minority.to_vec())))
                    .collect();
                self.lost(&both, &holder, impatient.then_some(others)).await;
            }
            Fault::PartialPartition => {
                let follower = dice.one_of(&others);
                self.lose(&[(leader, vec![follower]), (follower, vec![leader])]);
                tokio::time::sleep(dice.between(Duration::ZERO, ELECTION + wait)).await;
                let holder = self.holder().expect("somebody works");
                signal(holder.pid, Signal::KILL);
                self.next_holder(&holder).await;
                self.find(&[(leader, vec![follower]), (follower, vec![leader])]);
            }
            Fault::LeaderMute => self.disturbed(&[(leader, others)]).await,
            Fault::LeaderDeaf => {
                let ways: Vec<(u64, Vec<u64>)> = others.iter().map(|node| (*node, vec![leader])).collect();
                self.disturbed(&ways).await;
            }
            Fault::NodeRestarted => {
                let node = dice.one_of(&self.cluster.ids());
                self.cluster.kill9(node);
                tokio::time::sleep(dice.between(Duration::ZERO, ELECTION + wait)).await;
                self.cluster.restart(node).await;
            }
            Fault::AllNodesRestarted => {
                self.cluster.kill9_all();
                tokio::time::sleep(dice.between(Duration::ZERO, wait)).await;
                self.cluster.restart_all().await;
            }
            Fault::Switchover => {
                let order = json!({"reason": "a polite one"});
                let node = dice.one_of(&self.cluster.ids());
                let answer = self.cluster.api(node).post(&format!("/v1/services/{SERVICE}/switchover"), &order).await;
                self.note(&format!("answered {} {}", answer.status, answer.text));
                // On a machine that is busy with something else, the holder may have lost its lease a moment ago.
                assert!(matches!(answer.status, 200 | 202 | 409), "{} {}", answer.status, answer.text);
                if answer.status != 409 {
                    self.next_holder(&holder).await;
                }
            }
            Fault::MovesRaced => self.moves_raced(&holder, dice).await,
            Fault::RegisteredTwice => {
                let index = self.index(&holder);
                // In another host, so that both reach the cluster at once.
                let host = self.instances[1 - index].host;
                let mut second = self.process(&holder.id, host);
                self.next_holder(&holder).await;
                second.kill9();
                self.instances[index].process.kill9();
            }
            Fault::HolderDeregistered | Fault::ServiceMadeAnew => {
                // A holder that is cut off goes on to the end of its lease.
                let cut = dice.below(2) == 0;
                if cut {
                    self.lan.cut(holder.host);
                }
                let path = format!("/v1/services/{SERVICE}");
                let node = dice.one_of(&self.cluster.ids());
                if fault == Fault::HolderDeregistered {
                    self.deleted(node, &format!("{path}/instances/{}", holder.id)).await;
                } else {
                    self.deleted(node, &path).await;
                    self.cluster.api(node).put(&path, &spec(self.ttl)).await.done();
                }
                self.next_holder(&holder).await;
                if cut {
                    self.lan.heal(holder.host);
                }
            }
        }
        self.note("healed");
        self.settled().await;
        self.judge();
    }

    fn index(&self, holder: &Holder) -> usize {
        self.instances.iter().position(|it| it.id == holder.id).expect("one of the instances")
    }

    async fn deleted(&self, node: u64, path: &str) {
        let answer = self.cluster.api(node).delete(path).await;
        assert!(matches!(answer.status, 200 | 204), "{} {}", answer.status, answer.text);
    }

    fn lose(&self, ways: &[(u64, Vec<u64>)]) {
        ways.iter().for_each(|(from, to)| to.iter().for_each(|to| self.lan.lose(*from, *to)));
    }

    fn find(&self, ways: &[(u64, Vec<u64>)]) {
        ways.iter().for_each(|(from, to)| to.iter().for_each(|to| self.lan.find(*from, *to)));
    }

    /// Loses what goes these ways until there is a new holder.
    async fn lost(&mut self, ways: &[(u64, Vec<u64>)], holder: &Holder, asked: Option<Vec<u64>>) {
        self.lose(ways);
        let _operator = asked.as_deref().map(|nodes| self.operator(nodes));
        self.next_holder(holder).await;
        self.find(ways);
    }

    /// Loses what goes these ways for as long as an election and a new leader's wait take: the holder may go on, or not.
    async fn disturbed(&mut self, ways: &[(u64, Vec<u64>)]) {
        self.lose(ways);
        tokio::time::sleep(ELECTION + self.wait()).await;
        self.find(ways);
    }

    /// Stops the holder for longer than its lease and wakes it when another has taken over.
    async fn paused(&mut self, holder: &Holder, whole: bool, asked: Option<Vec<u64>>, dice: &mut Dice) {
        let index = self.index(holder);
        let family = if whole { self.family(index) } else { vec![self.instances[index].process.number(), holder.pid] };
        self.stop(&family);
        let _operator = asked.as_deref().map(|nodes| self.operator(nodes));
        self.next_holder(holder).await;
        tokio::time::sleep(dice.between(Duration::ZERO, self.wait())).await;
        self.wake(&family);
    }

    /// Somebody who orders a failover at one of these nodes after the other until it is taken; ends with its value.
    fn operator(&self, nodes: &[u64]) -> JoinSet<()> {
        let apis: Vec<_> = nodes.iter().map(|node| self.cluster.api(*node).clone()).collect();
        let mut operator = JoinSet::new();
        operator.spawn(async move {
            let order = json!({"reason": "an operator who does not wait"});
            for api in apis.iter().cycle() {
                let call = api.call(Method::POST, &format!("/v1/services/{SERVICE}/failover")).json(&order);
                if call.send(WAITS).await.is_ok_and(|answer| matches!(answer.status, 200 | 202)) {
                    return;
                }
                tokio::time::sleep(ASKS_AGAIN).await;
            }
        });
        operator
    }

    /// The leader dies when it says that a move has begun, or some milliseconds behind.
    async fn leader_killed_at_promotion(&mut self, holder: &Holder, leader: u64, others: &[u64], dice: &mut Dice) {
        let path = format!("/v1/watch?service={SERVICE}");
        let mut stream = Stream::open(self.cluster.api(leader), &path, None).await;
        stream.next(SOON).await.expect("a snapshot");
        // By lease, or by a release.
        let cut = dice.below(2) == 0;
        if cut {
            self.lan.cut(holder.host);
        } else {
            signal(holder.pid, Signal::KILL);
        }
        stream.change_where(SOON, "transition.started", |_| true).await;
        tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(10))).await;
        self.cluster.kill9(leader);
        self.cluster.leader_among(others).await;
        self.next_holder(holder).await;
        if cut {
            self.lan.heal(holder.host);
        }
        self.cluster.restart(leader).await;
    }

    /// Moves by several operators at once. Each is carried out or refused; nothing else.
    async fn moves_raced(&mut self, holder: &Holder, dice: &mut Dice) {
        let mut asked = JoinSet::new();
        for number in 0..6 {
            let node = dice.one_of(&self.cluster.ids());
            let kind = dice.one_of(&["failover", "switchover"]);
            let to = dice.one_of(&[None, Some("a"), Some("b")]);
            let mut body = json!({"reason": format!("operator {number}")});
            if let Some(to) = to {
                body["to"] = json!(to);
            }
            let after = dice.between(Duration::ZERO, Duration::from_millis(200));
            let call = self.cluster.api(node).call(Method::POST, &format!("/v1/services/{SERVICE}/{kind}"));
            asked.spawn(async move {
                tokio::time::sleep(after).await;
                call.json(&body).send(Duration::from_secs(10)).await
            });
        }
        tokio::time::sleep(dice.between(Duration::ZERO, Duration::from_millis(100))).await;
        signal(holder.pid, Signal::KILL);
        while let Some(answer) = asked.join_next().await {
            let answer = answer.expect("an answer").expect("an answer");
            self.note(&format!("an operator was answered {} {}", answer.status, answer.text));
            assert!(matches!(answer.status, 200 | 202 | 409), "{} {}", answer.status, answer.text);
        }
        self.next_holder(holder).await;
    }
}
