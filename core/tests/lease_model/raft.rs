//! Raft, as far as the rule rests on it: terms, votes, logs that are copied whole, entries of an old leader that may or
//! may not be committed, a leader that does not know it was deposed.
//!
//! What is simplified, and why nothing is lost by it: a term has one candidate at most (one leader a term is Raft's own
//! promise); a node's answer is part of the step that it answers, and the leader may act on it as late as it likes; a
//! log is copied as a whole, so that what was copied before an entry was appended stands for a copy of a part.

use super::clock::Ticks;
use super::model::{LeaseModel, Mutant};
use super::state::{Node, NodeAt, Role, Seal, Table, Term, What, World};

impl LeaseModel {
    /// The node hears of a term and follows. What it knew as a leader goes with its term.
    fn follow(&self, node: &mut Node, term: Term) {
        if node.term < term || node.role == Role::Candidate {
            node.term = term;
            node.role = Role::Follower;
            node.candidacy = 0;
            let keeps = self.is(Mutant::TableKept) || self.is(Mutant::TableKeyedByFlag);
            node.table = node.table.filter(|_| keeps).map(|table| Table { confirmed: [None; 3], ..table });
        }
    }

    /// Whether a node takes a leader's word, and follows it.
    pub(crate) fn heeds(&self, world: &mut World, leader: NodeAt, by: NodeAt) -> bool {
        let term = world.nodes[leader].term;
        if world.nodes[leader].role != Role::Leader || world.nodes[by].term > term {
            return false;
        }
        self.follow(&mut world.nodes[by], term);
        true
    }

    pub(crate) fn replicate(&self, world: &mut World, leader: NodeAt, to: NodeAt) -> bool {
        if !self.heeds(world, leader, to) {
            return false;
        }
        let Node { log, applied, .. } = world.nodes[leader];
        let follower = &mut world.nodes[to];
        follower.log = log;
        follower.applied = follower.applied.max(applied);
        true
    }

    /// A leader counts only entries of its own term; what is before them is committed with them (Raft, section 5.4.2).
    pub(crate) fn commit(&self, world: &mut World, leader: NodeAt) -> bool {
        let node = world.nodes[leader];
        let own = node.log.entries();
        let common = |other: &Node| own.iter().zip(other.log.entries()).take_while(|(a, b)| a == b).count();
        let others = world.nodes.iter().enumerate().filter(|(at, _)| *at != leader);
        let on_majority = others.map(|(_, other)| common(other)).max().unwrap_or(0);
        let applied = u8::try_from(on_majority).expect("a short log");
        if applied <= node.applied || own[on_majority - 1].term != node.term {
            return false;
        }
        world.nodes[leader].applied = applied;
        self.settle(&mut world.nodes[leader]);
        true
    }

    /// A seal ends, and a record is forgotten, when the token is neither held nor owed any longer.
    fn settle(&self, node: &mut Node) {
        let service = self.applied(node);
        let Some(table) = &mut node.table else { return };
        let moot = |token| service.ttl_of(token).is_none();
        if let Seal::Checked(token) | Seal::Sealed(token) = table.seal
            && moot(token)
        {
            table.seal = Seal::Open;
        }
        table.renewed = table.renewed.filter(|(token, _)| !moot(*token));
    }

    pub(crate) fn campaign(&self, world: &mut World, node: NodeAt, term: Term) -> bool {
        let highest = world.nodes.iter().map(|n| n.term).max().unwrap_or(0);
        let candidate = &mut world.nodes[node];
        if candidate.role == Role::Leader || term <= highest {
            return false;
        }
        candidate.term = term;
        candidate.role = Role::Candidate;
        candidate.candidacy = 0;
        true
    }

    /// With its own vote, one more is a majority. The new leader appends the first entry of its term.
    pub(crate) fn elect(&self, world: &mut World, node: NodeAt, voter: NodeAt, term: Term) -> bool {
        if !self.is(Mutant::WaitFromCandidacy) && !self.campaign(world, node, term) {
            return false;
        }
        let (mine, theirs) = (world.nodes[node].log, world.nodes[voter].log);
        let up_to_date = (mine.last_term(), mine.len()) >= (theirs.last_term(), theirs.len());
        if world.nodes[node].role != Role::Candidate
            || world.nodes[node].term != term
            || world.nodes[voter].term >= term
            || !(up_to_date || self.is(Mutant::VoteForAnyLog))
            || mine.len() >= self.config.longest_log
        {
            return false;
        }
        self.follow(&mut world.nodes[voter], term);
        world.elected = world.elected.max(term);
        let leader = &mut world.nodes[node];
        leader.role = Role::Leader;
        leader.log.push(term, What::First);
        let in_office: Ticks = if self.is(Mutant::WaitFromCandidacy) { leader.candidacy } else { 0 };
        leader.candidacy = 0;
        // An old table is there only where a mutant has kept it.
        leader.table = Some(leader.table.unwrap_or(Table::new(term, in_office)));
        true
    }

    /// The mutant's room looks at the flag, and drops a table when it sees the flag down.
    pub(crate) fn look(&self, world: &mut World, node: NodeAt) -> bool {
        let node = &mut world.nodes[node];
        if node.role == Role::Leader {
            return false;
        }
        node.table = None;
        true
    }
}
