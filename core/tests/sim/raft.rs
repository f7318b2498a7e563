//! Raft (Ongaro and Ousterhout: "In Search of an Understandable Consensus Algorithm", 2014), small and honest: terms,
//! votes that are kept, a log that is repaired where it differs, commitment by entries of the own term, read-index
//! rounds (Ongaro's dissertation, section 6.4). No pre-vote, no leases among nodes, no check of the quorum: a deposed
//! leader may believe in itself for as long as it hears nobody. Messages go in, messages come out; whoever holds this
//! has the clock and the network.

use std::collections::BTreeSet;
use std::rc::Rc;

use baton_core::command::Batch;

/// A node, by its place: node 0 is "n1" in transcripts, and number 1 to `core`.
pub(crate) type NodeAt = usize;

/// The most entries in one message: few, so that a follower that is behind catches up in steps.
const ENTRIES_MAX: usize = 20;

/// One entry. The first of each term is empty.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) batch: Option<Rc<Batch>>,
}

/// What nodes say to each other.
#[derive(Clone, Debug)]
pub(crate) enum RaftMessage {
    Vote { term: u64, last_index: u64, last_term: u64 },
    VoteReply { term: u64, granted: bool },
    Append { term: u64, prev_index: u64, prev_term: u64, entries: Vec<Entry>, commit: u64, round: u64 },
    AppendReply { term: u64, matched: Option<u64>, last_index: u64, round: u64 },
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Follower,
    Candidate {
        votes: BTreeSet<NodeAt>,
    },
    /// It believes so. It may have been deposed.
    Leader {
        next: Vec<u64>,
        matched: Vec<u64>,
        /// The last round that each node has answered.
        answered: Vec<u64>,
    },
}

/// Something that whoever holds this must know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A majority has voted for it in this term.
    Elected,
    /// It leads, or runs, no longer.
    SteppedDown,
}

/// One node's part.
#[derive(Clone, Debug)]
pub(crate) struct Raft {
    me: NodeAt,
    size: usize,
    // What survives a crash: it is on disk before any message goes out.
    pub(crate) term: u64,
    voted_for: Option<NodeAt>,
    log: Vec<Entry>,
    // What does not.
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeAt>,
    pub(crate) commit: u64,
    round: u64,
    /// Messages to be sent.
    pub(crate) out: Vec<(NodeAt, RaftMessage)>,
    /// Turns to be told, in order.
    pub(crate) turns: Vec<Turn>,
    /// Entries that were taken back, as they never were committed.
    pub(crate) taken_back: u64,
    /// Whether it heard a leader, or voted: its patience begins anew.
    pub(crate) heard: bool,
}

impl Raft {
    pub(crate) const fn new(me: NodeAt, size: usize) -> Self {
        Self {
            me,
            size,
            term: 0,
            voted_for: None,
            log: Vec::new(),
            role: Role::Follower,
            leader: None,
            commit: 0,
            round: 0,
            out: Vec::new(),
            turns: Vec::new(),
            taken_back: 0,
            heard: false,
        }
    }

    /// What is left of it after a crash.
    pub(crate) fn restart(&mut self) {
        let fresh = Self::new(self.me, self.size);
        let (term, voted_for, log) = (self.term, self.voted_for, std::mem::take(&mut self.log));
        *self = Self { term, voted_for, log, ..fresh };
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Entry> {
        self.log.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.log.len() as u64
    }

    fn term_at(&self, index: u64) -> u64 {
        self.entry(index).map_or(0, |entry| entry.term)
    }

    pub(crate) const fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    fn others(&self) -> impl Iterator<Item = NodeAt> + use<> {
        let me = self.me;
        (0..self.size).filter(move |node| *node != me)
    }

    const fn is_majority(&self, count: usize) -> bool {
        count > self.size / 2
    }

    fn follow(&mut self, term: u64) {
        if term > self.term {
            self.term = term;
            self.voted_for = None;
            self.leader = None;
        }
        if self.role != Role::Follower {
            self.role = Role::Follower;
            self.turns.push(Turn::SteppedDown);
        }
    }

    /// Its patience has run out.
    pub(crate) fn campaign(&mut self) {
        if self.leads() {
            return;
        }
        self.term += 1;
        self.voted_for = Some(self.me);
        self.leader = None;
        self.role = Role::Candidate { votes: BTreeSet::from([self.me]) };
        let (last_index, term) = (self.last_index(), self.term);
        let vote = RaftMessage::Vote { term, last_index, last_term: self.term_at(last_index) };
        self.out.extend(self.others().map(|node| (node, vote.clone())));
        self.count_votes();
    }

    fn count_votes(&mut self) {
        let Role::Candidate { votes } = &self.role else { return };
        if !self.is_majority(votes.len()) {
            return;
        }
        let next = self.last_index() + 1;
        self.role =
            Role::Leader { next: vec![next; self.size], matched: vec![0; self.size], answered: vec![0; self.size] };
        self.leader = Some(self.me);
        self.round = 0;
        self.turns.push(Turn::Elected);
        self.append(None);
    }

    /// Appends to its own log and sends to all. The index of the entry, if it leads.
    pub(crate) fn append(&mut self, batch: Option<Rc<Batch>>) -> Option<u64> {
        if !self.leads() {
            return None;
        }
        self.log.push(Entry { term: self.term, batch });
        let index = self.last_index();
        self.send_to_all();
        self.count_commit();
        Some(index)
    }

    /// Says to all that it leads, with whatever they lack.
    pub(crate) fn send_to_all(&mut self) {
        for node in self.others() {
            self.send(node);
        }
    }

    fn send(&mut self, node: NodeAt) {
        let Role::Leader { next, .. } = &self.role else { return };
        let from = next[node];
        let entries: Vec<Entry> =
            self.log.iter().skip(usize::try_from(from).expect("a short log") - 1).take(ENTRIES_MAX).cloned().collect();
        let (prev_index, prev_term) = (from - 1, self.term_at(from - 1));
        let (term, commit, round) = (self.term, self.commit, self.round);
        self.out.push((node, RaftMessage::Append { term, prev_index, prev_term, entries, commit, round }));
    }

    /// Begins a read-index round: it is confirmed once a majority has answered something that was sent after this.
    pub(crate) fn begin_round(&mut self) -> u64 {
        self.round += 1;
        self.send_to_all();
        self.round
    }

    /// The last round that a majority has answered in this term.
    pub(crate) fn confirmed_round(&self) -> u64 {
        let Role::Leader { answered, .. } = &self.role else { return 0 };
        self.on_majority(answered, self.round)
    }

    /// The highest number that a majority has reached, where this node has reached `own`.
    fn on_majority(&self, reached: &[u64], own: u64) -> u64 {
        let mut all: Vec<u64> = self.others().map(|node| reached[node]).collect();
        all.push(own);
        all.sort_unstable();
        all[(self.size - 1) / 2]
    }

    fn count_commit(&mut self) {
        let Role::Leader { matched, .. } = &self.role else { return };
        let index = self.on_majority(matched, self.last_index());
        // Only entries of the own term are counted (section 5.4.2); what is before them is committed with them.
        if index > self.commit && self.term_at(index) == self.term {
            self.commit = index;
        }
    }

    pub(crate) fn receive(&mut self, from: NodeAt, message: RaftMessage) {
        match message {
            RaftMessage::Vote { term, last_index, last_term } => self.vote(from, term, last_index, last_term),
            RaftMessage::VoteReply { term, granted } => self.voted(from, term, granted),
            RaftMessage::Append { term, prev_index, prev_term, entries, commit, round } => {
                let matched = self.appended(from, term, prev_index, prev_term, entries, commit);
                // A message of an older term, perhaps of the same leader, speaks for no round of this one.
                let round = if term == self.term { round } else { 0 };
                let reply = RaftMessage::AppendReply { term: self.term, matched, last_index: self.last_index(), round };
                self.out.push((from, reply));
            }
            RaftMessage::AppendReply { term, matched, last_index, round } => {
                self.append_reply(from, term, matched, last_index, round);
            }
        }
    }

    fn vote(&mut self, from: NodeAt, term: u64, last_index: u64, last_term: u64) {
        if term > self.term {
            self.follow(term);
        }
        let own_last = (self.term_at(self.last_index()), self.last_index());
        let free = self.voted_for.is_none_or(|node| node == from);
        let granted = term == self.term && free && self.role == Role::Follower && (last_term, last_index) >= own_last;
        if granted {
            self.voted_for = Some(from);
            self.heard = true;
        }
        self.out.push((from, RaftMessage::VoteReply { term: self.term, granted }));
    }

    fn voted(&mut self, from: NodeAt, term: u64, granted: bool) {
        if term > self.term {
            self.follow(term);
        }
        if let Role::Candidate { votes } = &mut self.role
            && granted
            && term == self.term
        {
            votes.insert(from);
            self.count_votes();
        }
    }

    /// Takes a leader's entries. How far the log agrees with the leader's, unless it does not.
    fn appended(
        &mut self,
        from: NodeAt,
        term: u64,
        prev_index: u64,
        prev_term: u64,
        entries: Vec<Entry>,
        commit: u64,
    ) -> Option<u64> {
        if term < self.term {
            return None;
        }
        self.follow(term);
        self.leader = Some(from);
        self.heard = true;
        if prev_index > self.last_index() || self.term_at(prev_index) != prev_term {
            return None;
        }
        let matched = prev_index + entries.len() as u64;
        for (index, entry) in (prev_index + 1..).zip(entries) {
            if self.term_at(index) != entry.term {
                assert!(index > self.commit, "a committed entry is never taken back");
                self.taken_back += self.last_index() - (index - 1);
                self.log.truncate(usize::try_from(index - 1).expect("a short log"));
                self.log.push(entry);
            }
        }
        self.commit = self.commit.max(commit.min(matched));
        Some(matched)
    }

    fn append_reply(&mut self, from: NodeAt, term: u64, agreed: Option<u64>, last_index: u64, round: u64) {
        if term > self.term {
            self.follow(term);
        }
        let Role::Leader { next, matched, answered } = &mut self.role else { return };
        if term != self.term {
            return;
        }
        answered[from] = answered[from].max(round);
        match agreed {
            Some(index) => {
                matched[from] = matched[from].max(index);
                next[from] = next[from].max(index + 1);
                self.count_commit();
            }
            None => next[from] = (next[from] - 1).min(last_index + 1).max(matched[from] + 1),
        }
        let Role::Leader { next, .. } = &self.role else { return };
        let behind = next[from] <= self.last_index();
        // An answer to an older message than the last is no reason to send the same again.
        let again = agreed.is_none_or(|index| index + 1 == next[from]);
        if behind && again {
            self.send(from);
        }
    }
}
