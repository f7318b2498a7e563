//! What a leader does by the lease rule: read index, grant, seal, promotion. A deposed leader that does not know it
//! does all of this too.

use super::clock::Ticks;
use super::model::{LeaseModel, Mutant, Proposal};
use super::service::Service;
use super::state::{Answer, Beat, Instance, Log, Node, NodeAt, Process, Proof, Role, Seal, Table, Token, What, World};

/// Of two heartbeats in the same place the younger stands for both.
fn younger(old: Option<Beat>, new: Beat) -> Option<Beat> {
    Some(old.filter(|old| old.age <= new.age).unwrap_or(new))
}

impl LeaseModel {
    fn table(world: &mut World, leader: NodeAt) -> Option<&mut Table> {
        let node = &mut world.nodes[leader];
        if node.role == Role::Leader { node.table.as_mut() } else { None }
    }

    /// The heartbeat that a leader may receive now.
    fn received(&self, world: &World, process: Process) -> Option<Beat> {
        if self.config.delay {
            world.beats[process.at()]
        } else {
            self.runs(world, process).then_some(Beat { age: 0, era: world.elected })
        }
    }

    /// Receives, begins a round, hears a majority. Nothing between the receipt and the round can be told from a later
    /// receipt, so they are one step; the answer to the round may be acted on at any later time.
    pub(crate) fn confirm(&self, world: &mut World, leader: NodeAt, by: NodeAt, process: Process) -> bool {
        let Some(beat) = self.received(world, process) else { return false };
        if !self.heeds(world, leader, by) {
            return false;
        }
        let term = world.nodes[leader].term;
        let Some(table) = Self::table(world, leader) else { return false };
        if self.is(Mutant::PendingPassesSeal) && table.seal != Seal::Open {
            return false;
        }
        // All that is asked of an era is whether it is later than this term.
        let beat = Beat { era: beat.era.max(term), ..beat };
        table.confirmed[process.at()] = younger(table.confirmed[process.at()], beat);
        true
    }

    pub(crate) fn round(&self, world: &mut World, leader: NodeAt, by: NodeAt) -> bool {
        if !self.heeds(world, leader, by) {
            return false;
        }
        let Some(table) = Self::table(world, leader) else { return false };
        table.spare_round = true;
        true
    }

    pub(crate) fn receive(&self, world: &mut World, leader: NodeAt, process: Process) -> bool {
        let Some(beat) = self.received(world, process) else { return false };
        let Some(table) = Self::table(world, leader) else { return false };
        if self.is(Mutant::RoundBeforeReceipt) && !std::mem::take(&mut table.spare_round) {
            return false;
        }
        table.confirmed[process.at()] = younger(table.confirmed[process.at()], beat);
        true
    }

    /// The token that a process would be granted from what the leader has applied.
    pub(crate) fn grantable(&self, node: &Node, table: &Table, process: Process) -> Option<Token> {
        // The first entry of its own term is applied, and with it all that any leader before it has committed.
        let own_term = node.term == 1 || node.log.prefix(node.applied).iter().any(|entry| entry.term == node.term);
        if !own_term && !self.is(Mutant::GrantBeforeOwnEntry) {
            return None;
        }
        let service = self.applied(node);
        let token = service.active[process.instance().at()]?.token;
        let current = service.sessions[process.instance().at()] == Some(process);
        let sealed = table.seal == Seal::Sealed(token) && !self.is(Mutant::PendingPassesSeal);
        ((current || self.is(Mutant::SessionNotChecked)) && !sealed).then_some(token)
    }

    /// Check, record, send: one step.
    pub(crate) fn grant(&self, world: &mut World, leader: NodeAt, process: Process) -> bool {
        let node = world.nodes[leader];
        let Some(table) = node.table.filter(|_| node.role == Role::Leader) else { return false };
        let Some(beat) = table.confirmed[process.at()] else { return false };
        let Some(token) = self.grantable(&node, &table, process) else { return false };
        let service = self.applied(&node);
        let Some(ttl) = self.length(&service, token) else { return false };
        let Some(table) = Self::table(world, leader) else { return false };
        table.confirmed[process.at()] = None;
        if self.is(Mutant::RecordedAfterSending) {
            table.unrecorded = token;
        } else {
            table.renewed = Some((token, 0));
        }
        world.deposed_extended |= beat.era > node.term;
        let answer = Answer { to: process, token, ttl, age: beat.age };
        let same = |other: &Answer| (other.to, other.token) == (process, token);
        let left = |answer: &Answer| answer.ttl.lease().saturating_sub(answer.age);
        match world.answers.iter_mut().find(|other| same(other)) {
            Some(other) if left(other) >= left(&answer) => {}
            Some(other) => *other = answer,
            None => world.answers.push(answer),
        }
        world.answers.sort_unstable();
        if !self.config.delay && !self.config.releases {
            self.hear(world, process, token);
        }
        true
    }

    pub(crate) fn record(&self, world: &mut World, leader: NodeAt) -> bool {
        let Some(table) = Self::table(world, leader) else { return false };
        if table.unrecorded == 0 {
            return false;
        }
        table.renewed = Some((std::mem::take(&mut table.unrecorded), 0));
        true
    }

    /// The length that counts for a token: the tenure's own.
    fn length(&self, service: &Service, token: Token) -> Option<super::clock::Ttl> {
        let own = service.ttl_of(token)?;
        Some(if self.is(Mutant::LengthChangesInTenure) { service.spec } else { own })
    }

    /// Whether W has passed since the last recorded renewal of the token and since the leader came into office.
    fn waited(&self, table: &Table, wait: Ticks, token: Token) -> bool {
        let renewed = table.renewed.filter(|(of, _)| *of == token).map(|(_, ago)| ago);
        let in_office = table.in_office >= wait || self.is(Mutant::NoWaitOfNewLeader);
        in_office && renewed.is_none_or(|ago| ago >= wait)
    }

    /// Re-checks the wait and closes, in one step.
    pub(crate) fn seal(&self, world: &mut World, leader: NodeAt) -> bool {
        if self.is_spent(world, &world.nodes[leader]) {
            return false;
        }
        let service = self.applied(&world.nodes[leader]);
        let Some(token) = service.owed() else { return false };
        let Some(wait) = self.length(&service, token).map(|ttl| ttl.wait(self.margin())) else { return false };
        let Some(table) = Self::table(world, leader) else { return false };
        if table.seal != Seal::Open || !self.waited(table, wait, token) {
            return false;
        }
        let open = self.is(Mutant::NoSeal) || self.is(Mutant::SealAtAppend);
        table.seal = if open { Seal::Checked(token) } else { Seal::Sealed(token) };
        true
    }

    pub(crate) fn unseal(&self, world: &mut World, leader: NodeAt) -> bool {
        let node = &mut world.nodes[leader];
        let Some(table) = node.table else { return false };
        let (Seal::Checked(token) | Seal::Sealed(token)) = table.seal else { return false };
        if Self::in_flight(node, token) && !self.is(Mutant::SealTimesOut) {
            return false;
        }
        node.table = Some(Table { seal: Seal::Open, ..table });
        true
    }

    /// Appends what is proposed, if the leader has reason to, and if it would change anything: what an entry does is
    /// settled by those before it, so one that would be refused can be left out, unless the configuration wants to see
    /// refusals.
    pub(crate) fn append(&self, world: &mut World, leader: NodeAt, proposal: Proposal) -> bool {
        let node = &world.nodes[leader];
        let can = node.log.len() < self.config.longest_log && (node.term >= world.elected || !self.is_last(world));
        let Some(table) = node.table.filter(|_| can) else { return false };
        let Some(what) = self.entry(node, &table, proposal) else { return false };
        let mut log: Log = node.log;
        log.push(node.term, what);
        let before = self.foreseen(node);
        let changes = Service::of(self.config, self.mutant, log.entries()) != before;
        let is_promotion = matches!(what, What::Promote { .. });
        let is_wanted = changes || is_promotion && self.config.refusals;
        if !is_wanted {
            return false;
        }
        let promotions = log.entries().iter().filter(|entry| matches!(entry.what, What::Promote { .. })).count();
        if promotions > self.config.promotions {
            return false;
        }
        world.nodes[leader].log = log;
        if let (Proposal::ByLease(_), Seal::Checked(token), true) =
            (proposal, table.seal, self.is(Mutant::SealAtAppend))
        {
            world.nodes[leader].table = Some(Table { seal: Seal::Sealed(token), ..table });
        }
        true
    }

    fn entry(&self, node: &Node, table: &Table, proposal: Proposal) -> Option<What> {
        let service = self.applied(node);
        let once = |what: What| (!node.log.entries().iter().any(|entry| entry.what == what)).then_some(what);
        match proposal {
            Proposal::ByLease(to) => {
                let (Seal::Checked(seen) | Seal::Sealed(seen)) = table.seal else { return None };
                let is_other = service.tenure(seen).is_none_or(|(holder, _)| holder != to);
                is_other.then_some(What::Promote { to, proof: Proof::Lease, seen, early: false })
            }
            Proposal::Vacant(to) => {
                let early = service.minted > 0 && !self.waited(table, service.spec.wait(self.margin()), 0);
                service.owed().is_none().then_some(What::Promote { to, proof: Proof::Vacant, seen: 0, early })
            }
            Proposal::TimedOut(to) => {
                let (holder, tenure) = service.holder()?;
                let promoting: Option<Instance> = (tenure.promoting && holder != to).then_some(to);
                promoting.map(|to| What::Promote { to, proof: Proof::TimedOut, seen: tenure.token, early: false })
            }
            Proposal::Released(by, token) => Some(What::Release { by, token }),
            Proposal::Register => once(What::Register),
            Proposal::Delete => once(What::Delete),
            Proposal::Create => once(What::Create),
            Proposal::Shorten => once(What::Shorten),
        }
    }
}
