//! The replicated state: what a prefix of the log says. A pure function of the entries, as `apply` is; it reads no
//! clock and no table.

use super::clock::Ttl;
use super::model::{Config, Mutant, Start};
use super::state::{BASE_TOKEN, Entry, Instance, Process, Proof, Token, What};

/// A lease that is owed although its holder is no longer the active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Debt {
    pub(crate) token: Token,
    pub(crate) ttl: Ttl,
    pub(crate) by: Process,
}

/// One token's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tenure {
    pub(crate) token: Token,
    /// Copied from the spec when the token was minted.
    pub(crate) ttl: Ttl,
    /// Promoted, and not acknowledged: nobody acknowledges in this model, but for the holder it begins with.
    pub(crate) promoting: bool,
}

/// The service as applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) exists: bool,
    pub(crate) spec: Ttl,
    /// The current session of each instance.
    pub(crate) sessions: [Option<Process>; 2],
    /// Which instances are active. One at most, if all is well.
    pub(crate) active: [Option<Tenure>; 2],
    pub(crate) debt: Option<Debt>,
    /// The last token that was minted.
    pub(crate) minted: Token,
    /// Whether each token was higher than the one before.
    pub(crate) rising: bool,
    /// Promotions since the service was created. Only a mutant looks.
    pub(crate) promotions: u8,
}

impl Service {
    /// What the entries make of the state that the configuration begins with.
    pub(crate) fn of(config: &Config, mutant: Option<Mutant>, entries: &[Entry]) -> Self {
        let mut service = Self::at_start(config.start);
        for (at, entry) in entries.iter().enumerate() {
            service.apply(mutant, at, *entry);
        }
        service
    }

    fn at_start(start: Start) -> Self {
        let vacant = Self {
            exists: true,
            spec: Ttl::Usual,
            sessions: [Some(Process::A), Some(Process::B)],
            active: [None; 2],
            debt: None,
            minted: 0,
            rising: true,
            promotions: 0,
        };
        match start {
            Start::Vacant => vacant,
            Start::Held => {
                let tenure = Tenure { token: BASE_TOKEN, ttl: Ttl::Usual, promoting: false };
                Self { active: [Some(tenure), None], minted: BASE_TOKEN, promotions: 1, ..vacant }
            }
        }
    }

    /// The tenure under a token, and whose it is.
    pub(crate) fn tenure(&self, token: Token) -> Option<(Instance, Tenure)> {
        Instance::ALL
            .into_iter()
            .find_map(|instance| self.active[instance.at()].filter(|t| t.token == token).map(|t| (instance, t)))
    }

    /// The tenure of some active.
    pub(crate) fn holder(&self) -> Option<(Instance, Tenure)> {
        Instance::ALL.into_iter().find_map(|instance| self.active[instance.at()].map(|tenure| (instance, tenure)))
    }

    /// The token for which a lease may still run: the active's, or the debt's.
    pub(crate) fn owed(&self) -> Option<Token> {
        self.holder().map(|(_, tenure)| tenure.token).or(self.debt.map(|debt| debt.token))
    }

    /// The length of the tenure under a token that is held or owed.
    pub(crate) fn ttl_of(&self, token: Token) -> Option<Ttl> {
        self.tenure(token)
            .map(|(_, tenure)| tenure.ttl)
            .or(self.debt.filter(|debt| debt.token == token).map(|debt| debt.ttl))
    }

    /// The one writer.
    pub(crate) fn apply(&mut self, mutant: Option<Mutant>, at: usize, entry: Entry) {
        match entry.what {
            What::First => {}
            What::Promote { to, proof, seen, .. } => self.promote(mutant, at, to, proof, seen),
            What::Release { by, token } => self.release(mutant, by, token),
            What::Register => self.register(mutant),
            What::Delete => self.delete(mutant),
            What::Create => self.create(),
            What::Shorten => self.spec = Ttl::Short,
        }
    }

    fn promote(&mut self, mutant: Option<Mutant>, at: usize, to: Instance, proof: Proof, seen: Token) {
        if !self.exists || self.sessions[to.at()].is_none() {
            return;
        }
        let as_seen = match proof {
            Proof::Vacant => self.owed().is_none(),
            Proof::Lease | Proof::TimedOut => self.owed() == Some(seen),
        };
        if !as_seen && mutant != Some(Mutant::PromotionWithoutCompare) {
            return;
        }
        if let Some((old, _)) = self.tenure(seen) {
            self.active[old.at()] = None;
        }
        self.debt = self.debt.filter(|debt| debt.token != seen);
        self.promotions += 1;
        let token = if mutant == Some(Mutant::TokenCountedPerService) {
            self.promotions
        } else {
            BASE_TOKEN + 1 + u8::try_from(at).expect("a short log")
        };
        self.rising &= token > self.minted;
        self.minted = token;
        self.active[to.at()] = Some(Tenure { token, ttl: self.spec, promoting: true });
    }

    fn release(&mut self, mutant: Option<Mutant>, by: Process, token: Token) {
        let instance = by.instance();
        let named = |held: Token| held == token || mutant == Some(Mutant::ReleaseWithoutToken);
        if self.sessions[instance.at()] == Some(by) && self.active[instance.at()].is_some_and(|t| named(t.token)) {
            self.active[instance.at()] = None;
        }
        self.debt = self.debt.filter(|debt| debt.by != by || !named(debt.token));
    }

    fn register(&mut self, mutant: Option<Mutant>) {
        if !self.exists {
            return;
        }
        if mutant != Some(Mutant::RegistrationInherits) {
            self.end_owing(Instance::A);
        }
        self.sessions[Instance::A.at()] = Some(Process::A2);
    }

    fn delete(&mut self, mutant: Option<Mutant>) {
        if !self.exists {
            return;
        }
        self.exists = false;
        for instance in Instance::ALL {
            self.end_owing(instance);
        }
        if mutant == Some(Mutant::DeletionForgetsDebt) {
            self.debt = None;
        }
        self.sessions = [None; 2];
    }

    fn create(&mut self) {
        if self.exists {
            return;
        }
        self.exists = true;
        self.promotions = 0;
        self.sessions = [None, Some(Process::B)];
    }

    /// Ends the tenure of an instance. Its lease stays owed.
    fn end_owing(&mut self, instance: Instance) {
        let (Some(tenure), Some(by)) = (self.active[instance.at()].take(), self.sessions[instance.at()]) else {
            return;
        };
        self.debt = Some(Debt { token: tenure.token, ttl: tenure.ttl, by });
    }
}
