//! A report as a few plain sentences: what is, since when, what goes on, what is waited for and for how long, what can be done
//! about it, and why the others are no help. For a tired person at night, so it names commands and no internals. It only words
//! what the report holds: nothing is decided or looked up here.

use super::{CandidateReport, Decision, Gate, GateVerdict, OperatorMay, ServiceReport};
use crate::policy::Mode;
use crate::probe::Health;
use crate::rules::PauseScope;
use crate::state::Phase;
use crate::time::Millis;
use crate::transition::TransitionKind;

/// The most instances that are named one by one; whoever wants all of them looks at the report itself.
const NAMED_MAX: usize = 10;

impl ServiceReport {
    /// What `baton explain SERVICE` prints: the report in plain sentences, one subject a line.
    pub fn paragraph(&self) -> String {
        if self.mode == Mode::ActiveActive {
            return format!("\"{}\" is served by several instances at once. {}", self.service, self.summary);
        }
        let mut lines = vec![self.standing(), self.going_on()];
        lines.push(self.what_to_do());
        lines.push(self.others());
        lines.retain(|line| !line.is_empty());
        lines.join("\n")
    }

    /// Who is active, since when, under which token; or nobody, and since which move.
    fn standing(&self) -> String {
        let service = &self.service;
        let Some(active) = &self.active else {
            let before = match &self.last_holder {
                Some(last) => format!("\"{last}\" was the last"),
                None => "there has not been one yet".to_owned(),
            };
            return format!("\"{service}\" has no active instance; {before}.{}", self.open_move());
        };
        let since = self.since.map_or_else(String::new, |since| format!(" since {since}"));
        let token = self.token.map_or_else(String::new, |token| format!(", with token {token}"));
        match self.phase {
            Phase::Promoting => format!(
                "\"{active}\" was made the active instance of \"{service}\"{}{token}, and has not said yet that it serves.{}",
                self.since.map_or_else(String::new, |since| format!(" at {since}")),
                self.open_move()
            ),
            Phase::Vacant | Phase::Active | Phase::Switching | Phase::FailingOver => {
                let health = self.health.map_or_else(String::new, |health| match health {
                    Health::Healthy => " It is healthy.".to_owned(),
                    Health::Suspect | Health::Unhealthy | Health::Isolated | Health::Unknown => {
                        let why = self.gates.iter().find(|gate| gate.gate == "active_down");
                        why.map_or_else(|| format!(" It is {health}."), |gate| format!(" {}.", plain(&gate.why)))
                    }
                });
                format!("\"{active}\" is the active instance of \"{service}\"{since}{token}.{health}")
            }
        }
    }

    fn open_move(&self) -> String {
        let Some(open) = &self.open else { return String::new() };
        let who = open.actor.as_ref().map_or_else(|| "Baton began".to_owned(), |actor| format!("{actor} asked for"));
        let (from, to) = (&open.from, &open.to);
        let from = from.as_ref().map_or_else(String::new, |from| format!(" away from \"{from}\""));
        let to = to.as_ref().filter(|_| open.actor.is_some()).map_or_else(String::new, |to| format!(" to \"{to}\""));
        let kind = match open.kind {
            TransitionKind::Placement => "the first choice of an active instance",
            TransitionKind::Failover => "a failover",
            TransitionKind::Switchover => "a switchover",
            TransitionKind::Failback => "a failback",
        };
        format!(" At {} {who} {kind}{from}{to}: {}.", open.started_at, plain(&open.reason))
    }

    /// What Baton does about it, or what it waits for.
    fn going_on(&self) -> String {
        let first = self.first();
        let whom = first.map_or_else(|| "another instance".to_owned(), |first| format!("\"{}\"", first.instance));
        match self.decision {
            Decision::Nothing => {
                let mut told = match self.health {
                    Some(Health::Healthy) | None => "There is nothing to do.".to_owned(),
                    Some(Health::Suspect | Health::Unknown | Health::Unhealthy | Health::Isolated) => {
                        "That is not enough to replace it.".to_owned()
                    }
                };
                if let Some(later) = self.gates.iter().find(|gate| gate.gate == "failback" && gate.at_most.is_some()) {
                    let left = later.at_most.unwrap_or_default();
                    told = format!(
                        "It will go back to the preferred instance in {}, if nothing happens to either: {}.",
                        left.at_most(),
                        plain(&later.why)
                    );
                }
                if let Some(callers) = &self.callers {
                    told = format!("{told} But callers get nobody: {callers}.");
                }
                told
            }
            Decision::Place => format!("Baton is making {whom} the active instance now."),
            Decision::FailOver if first.is_none() => {
                "Baton is taking the service away from it now, and no other instance can take over yet.".to_owned()
            }
            Decision::FailOver if self.holds("proof").is_some() => {
                let gate = self.holds("proof");
                let why = gate.map_or_else(String::new, |gate| plain(&gate.why));
                let left = gate.and_then(|gate| gate.at_most);
                let left = left.map_or_else(String::new, |left| format!(" (at most {} from now)", left.at_most()));
                format!(
                    "Baton is taking the service away from it now, and {whom} gets it once that is safe: {why}{left}."
                )
            }
            Decision::FailOver | Decision::Promote => format!("Baton is moving it to {whom} now."),
            Decision::FailBack => "Baton is giving it back to the preferred instance now.".to_owned(),
            Decision::GiveUp => "Baton is giving that up now: no instance is registered any more.".to_owned(),
            Decision::Fence => "Baton is running the fencing hook now, to cut the old active instance off.".to_owned(),
            Decision::TryNext => format!("Its time for that is over: Baton is trying {whom} next."),
            Decision::Brake => {
                format!("Baton stops moving it by itself now, until somebody has looked. {}", self.waits())
            }
            Decision::Hold => self.waits(),
        }
    }

    /// The gate of that word, if it holds.
    fn holds(&self, word: &str) -> Option<&Gate> {
        self.gates.iter().find(|gate| gate.gate == word && gate.verdict == GateVerdict::Hold)
    }

    /// The gates that hold what should be done, in the order in which they are told. One that only says that nothing is
    /// wrong, and what would be told twice, is left out.
    fn holding(&self) -> Vec<&Gate> {
        let asked = |gate: &&Gate| match gate.gate.as_str() {
            "active_down" | "failback" => false,
            // A lease of one that may go on holds nothing back.
            "proof" => self.active.is_none() || self.health == Some(Health::Unhealthy),
            "candidate" => self.phase != Phase::Promoting,
            _ => true,
        };
        self.gates.iter().filter(|gate| gate.verdict == GateVerdict::Hold).filter(asked).collect()
    }

    fn waits(&self) -> String {
        let holding = self.holding();
        if holding.is_empty() {
            return format!("Baton waits: {}", self.summary);
        }
        let mut told: Vec<String> = Vec::new();
        for gate in &holding {
            let why = match gate.gate.as_str() {
                "candidate" if self.candidates.is_empty() => "no instance is registered".to_owned(),
                "candidate" => "no instance can take over".to_owned(),
                "acknowledged" => format!("{}; after that the next one is tried", plain(&gate.why)),
                _ => plain(&gate.why),
            };
            if !told.contains(&why) {
                told.push(why);
            }
        }
        format!("Baton waits: {}. {}", told.join("; and "), self.until_when(&holding))
    }

    /// When what holds is over, in a sentence.
    fn until_when(&self, holding: &[&Gate]) -> String {
        let all: Option<Vec<Millis>> = holding.iter().map(|gate| gate.at_most).collect();
        if let Some(longest) = all.and_then(|all| all.into_iter().max()) {
            return format!("That takes {} at most, unless something else happens.", longest.at_most());
        }
        // Of what binds Baton alone, and has no end of its own.
        if holding.iter().any(|gate| gate.operator == Some(OperatorMay::Pass) && gate.at_most.is_none()) {
            return "That does not end by itself: somebody has to act.".to_owned();
        }
        if !holding.iter().any(|gate| gate.gate == "candidate") {
            return "Nobody knows how long that takes.".to_owned();
        }
        // Whatever else holds has to be over too: a pause, an interval, a lease.
        let others = holding.iter().filter(|gate| gate.gate != "candidate");
        let (one, and) = if self.candidates.is_empty() {
            ("one is registered", "")
        } else {
            ("one of them can", "; nobody knows when that is")
        };
        match others.filter_map(|gate| gate.at_most).max() {
            Some(left) => format!(
                "It goes on by itself as soon as {one}, and the rest is over too (that takes {} at most, unless something \
                 else happens){and}.",
                left.at_most()
            ),
            None if holding.len() > 1 => {
                format!("It goes on by itself as soon as {one}, and the rest is over too{and}.")
            }
            None => format!("It goes on by itself as soon as {one}{and}."),
        }
    }

    /// The commands that would help, each with what it is for.
    fn what_to_do(&self) -> String {
        let service = &self.service;
        let holding = self.holding();
        let holds = |names: &[&str]| holding.iter().find(|gate| names.contains(&gate.gate.as_str()));
        let to = self.first().map(|first| &first.instance);
        let mut can: Vec<String> = Vec::new();
        match self.decision {
            Decision::Hold | Decision::Brake => {
                for scope in holding.iter().filter_map(|gate| gate.scope) {
                    can.push(match scope {
                        PauseScope::Service => format!("end the pause: `baton resume {service} --reason …`"),
                        PauseScope::All => "end the pause of all: `baton resume --all --reason …`".to_owned(),
                    });
                }
                if holds(&["brake"]).is_some() {
                    can.push("release the brake: `baton resume --all --reason …`".to_owned());
                }
                if holds(&["latch", "max_in_window"]).is_some() {
                    can.push(format!("say that you have looked: `baton resume {service} --reason …`"));
                }
                let proof = holds(&["proof"]).map(|gate| gate.operator == Some(OperatorMay::SayStopped));
                match (self.last_holder.as_ref().filter(|_| proof == Some(true)), to) {
                    // One move at a time: whoever is to acknowledge is waited for.
                    _ if self.phase == Phase::Promoting => {}
                    // Only the last holder itself is there, and what it did is not proved by its own death.
                    (None, Some(_)) if proof == Some(false) => {}
                    (Some(last), Some(to)) => can.push(format!(
                        "say that \"{last}\" has stopped, if you are sure of it: `baton failover {service} --to {to} --proof \
                         operator --reason …`"
                    )),
                    (None, Some(_)) if self.health == Some(Health::Healthy) => {
                        can.push(format!("give it back now: `baton failback {service} --reason …`"));
                    }
                    (None, Some(to)) => can.push(format!("move it now: `baton failover {service} --to {to} --reason …`")),
                    (Some(_) | None, None) => {}
                }
                let help = self.to_help_candidates();
                let ends = holding.iter().all(|gate| gate.at_most.is_some());
                if help.is_empty() && !ends && self.first().is_none() {
                    can.extend(self.to_repair());
                }
                can.extend(help);
            }
            Decision::Nothing => {
                if self.preferred().is_some() {
                    can.push(format!("give it back to the preferred instance: `baton failback {service} --reason …`"));
                } else if let (Some(to), Some(Health::Healthy)) = (to, self.health) {
                    can.push(format!("move it all the same: `baton switchover {service} --to {to} --reason …`"));
                } else if let Some(to) = to {
                    can.push(format!("move it all the same: `baton failover {service} --to {to} --reason …`"));
                }
            }
            Decision::Place
            | Decision::FailOver
            | Decision::Promote
            | Decision::GiveUp
            | Decision::FailBack
            | Decision::Fence
            | Decision::TryNext => {}
        }
        match can.as_slice() {
            [] => String::new(),
            [one] => format!("You can {one}."),
            many => format!("You can\n  - {}.", many.join(";\n  - ")),
        }
    }

    /// What lets an instance in that is kept out by what can be helped. Only where nobody else can take over.
    fn to_help_candidates(&self) -> Vec<String> {
        if self.first().is_some() {
            return Vec::new();
        }
        let service = &self.service;
        let mut can = Vec::new();
        for candidate in self.candidates.iter().take(NAMED_MAX) {
            let mut failed = candidate.rules.iter().filter(|rule| !rule.pass);
            let (Some(rule), None) = (failed.next(), failed.next()) else { continue };
            let id = &candidate.instance;
            match rule.rule.as_str() {
                "enabled" => {
                    can.push(format!("let \"{id}\" in again: `baton admin {service} {id} enabled --reason …`"));
                }
                "breaker_not_open" | "out_of_cooldown" => {
                    can.push(format!("clear what speaks against \"{id}\": `baton reset {service} {id} --reason …`"));
                }
                "max_lag" => {
                    can.push(format!("let \"{id}\" catch up, or raise failover.max_lag if what it lacks may be lost"));
                }
                "present" => can.push(format!("start \"{id}\" again")),
                _ => {}
            }
        }
        can
    }

    /// What is left where all are sick. Only where nobody can take over and nothing lets one of them in.
    fn to_repair(&self) -> Option<String> {
        let fails = |it: &&CandidateReport, word: &str| it.rules.iter().any(|rule| !rule.pass && rule.rule == word);
        let sick = self.candidates.iter().filter(|it| fails(it, "healthy"));
        let sick: Vec<String> = sick.take(NAMED_MAX).map(|it| format!("\"{}\"", it.instance)).collect();
        let (last, rest) = sick.split_last()?;
        let sick = if rest.is_empty() { last.clone() } else { format!("{} or {last}", rest.join(", ")) };
        Some(format!("start or repair {sick}, or register another instance"))
    }

    /// Who else could take over, and why the rest cannot.
    fn others(&self) -> String {
        let other = |it: &&CandidateReport| self.active.as_ref() != Some(&it.instance);
        let able: Vec<String> = self
            .candidates
            .iter()
            .filter(other)
            .filter(|it| it.eligible)
            .take(NAMED_MAX)
            .map(|it| format!("\"{}\"", it.instance))
            .collect();
        let unable: Vec<&CandidateReport> = self.candidates.iter().filter(other).filter(|it| !it.eligible).collect();
        let mut lines = Vec::new();
        match able.split_last() {
            None => {}
            Some((one, [])) => lines.push(format!("{one} could take over.")),
            Some((last, rest)) => lines.push(format!("{} and {last} could take over, in that order.", rest.join(", "))),
        }
        for candidate in unable.iter().take(NAMED_MAX) {
            if let Some(rule) = candidate.rules.iter().find(|rule| !rule.pass) {
                lines.push(format!("\"{}\" cannot take over: {}.", candidate.instance, plain(&rule.why)));
            }
        }
        if unable.len() > NAMED_MAX {
            lines.push(format!("{} more cannot either.", unable.len() - NAMED_MAX));
        }
        lines.join("\n")
    }

    /// The best that may be promoted.
    fn first(&self) -> Option<&CandidateReport> {
        self.candidates.first().filter(|first| first.eligible)
    }

    /// Whether an operator could give the service back to a preferred instance.
    fn preferred(&self) -> Option<&Gate> {
        self.gates.iter().find(|gate| gate.operator == Some(OperatorMay::FailBack))
    }
}

/// A clause for people: without the stop that follows anyway, and with nodes that say the same named together. Wording alone:
/// nothing is decided or left out by what it reads.
fn plain(why: &str) -> String {
    let why = why.trim_end_matches('.');
    let mut parts: Vec<String> = Vec::new();
    let mut said: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for part in why.split("; ") {
        // What comes before the first node belongs to the sentence: `it is unhealthy: node 1 says down (…)`.
        let (before, node) = part.split_once(": node ").map_or(("", part), |(before, rest)| (before, rest));
        let node = if before.is_empty() { node.strip_prefix("node ") } else { Some(node) };
        match node.and_then(|node| node.split_once(" says ")) {
            Some((node, what)) => match said.iter_mut().find(|(_, other, _)| before.is_empty() && *other == what) {
                Some((_, _, nodes)) => nodes.push(node),
                None => said.push((before, what, vec![node])),
            },
            None => parts.push(part.to_owned()),
        }
    }
    for (before, what, nodes) in said {
        let who = match nodes.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("nodes {} and {last} say", rest.join(", ")),
            Some((last, _)) => format!("node {last} says"),
            None => continue,
        };
        parts.push(if before.is_empty() { format!("{who} {what}") } else { format!("{before}: {who} {what}") });
    }
    parts.join("; ")
}
