//! A path through the model as a text that a person reads. Only words may enter.

use std::fmt::Write as _;

use stateright::Path;

use super::clock::Ticks;
use super::model::{Action, LeaseModel, Mutant, Proposal};
use super::properties::acting;
use super::state::{Beat, Instance, NodeAt, Process, Proof, Role, Seal, Term, Token, What, World};

/// How wide a line may become.
const WIDTH: usize = 120;

fn process(of: Process) -> &'static str {
    match of {
        Process::A => "a",
        Process::B => "b",
        Process::A2 => "a's second process",
    }
}

fn instance(of: Instance) -> &'static str {
    match of {
        Instance::A => "a",
        Instance::B => "b",
    }
}

fn node(at: NodeAt) -> String {
    format!("n{}", at + 1)
}

fn ago(age: Ticks) -> String {
    match age {
        0 => "just now".to_owned(),
        1 => "1 tick ago".to_owned(),
        more => format!("{more} ticks ago"),
    }
}

/// What the steps of a path were, and how it ends.
pub(crate) fn transcript(model: &LeaseModel, path: Path<World, Action>) -> String {
    let mut text = String::new();
    let mut now = 0;
    let steps = path.into_vec();
    let after = steps.iter().skip(1).map(|(world, _)| world);
    for ((before, action), after) in steps.iter().zip(after) {
        let Some(action) = action else { continue };
        if matches!(action, Action::Tick) {
            now += 1;
        } else {
            if matches!(action, Action::TickAsleep(_)) {
                now += 1;
            }
            line(&mut text, now, &words(model, before, *action, after));
        }
    }
    if let Some((last, _)) = steps.last() {
        line(&mut text, now, &ending(last));
    }
    text
}

/// One step: a moment, and what happened, on as many lines as it takes.
fn line(text: &mut String, now: u32, words: &str) {
    let mut current = format!("{now:>3}  ");
    for word in words.split(' ') {
        if current.chars().count() + word.chars().count() > WIDTH {
            writeln!(text, "{}", current.trim_end()).expect("a string takes all");
            current = " ".repeat(7);
        }
        current.push_str(word);
        current.push(' ');
    }
    writeln!(text, "{}", current.trim_end()).expect("a string takes all");
}

fn ending(world: &World) -> String {
    let acting: Vec<_> = acting(world)
        .map(|(of, token, left)| match left {
            0 => format!("{} acts under token {token} for the last moment of its lease", process(of)),
            left => format!("{} acts under token {token}, and may for {left} more", process(of)),
        })
        .collect();
    if acting.is_empty() { "Nobody acts.".to_owned() } else { format!("So {}.", acting.join("; ")) }
}

fn received(model: &LeaseModel, before: &World, of: Process) -> Option<Beat> {
    if model.config.delay { before.beats[of.at()] } else { Some(Beat { age: 0, era: 0 }) }
}

fn beat_age(beat: Option<Beat>) -> String {
    beat.map_or_else(|| "never sent".to_owned(), |beat| format!("sent {}", ago(beat.age)))
}

fn words(model: &LeaseModel, before: &World, action: Action, after: &World) -> String {
    let term = |at: NodeAt| before.nodes[at].term;
    let deposed = |at: NodeAt| if term(at) < before.elected { ", which was deposed and does not know," } else { "" };
    match action {
        Action::Tick => String::new(),
        Action::TickAsleep(of) => {
            format!("(a tick in which {}'s host sleeps, and its clock stands still)", process(of))
        }
        Action::Beat(of) => format!("{} sends a heartbeat.", process(of)),
        Action::Confirm(leader, by, of) => format!(
            "{}{} receives the heartbeat of {} ({}) and begins a read-index round; {} confirms term {}.",
            node(leader),
            deposed(leader),
            process(of),
            beat_age(received(model, before, of)),
            node(by),
            term(leader)
        ),
        Action::Round(leader, by) => {
            format!("{} has a read-index round under way; {} confirms term {}.", node(leader), node(by), term(leader))
        }
        Action::Receive(leader, of) => format!(
            "{}{} receives the heartbeat of {} ({}).",
            node(leader),
            deposed(leader),
            process(of),
            beat_age(received(model, before, of))
        ),
        Action::Grant(leader, of) => grant(model, before, (leader, of), after),
        Action::Record(leader) => format!("{} records the renewal that it has sent.", node(leader)),
        Action::Hear(of, token) => hear(before, of, token, after),
        Action::Stop(of) => {
            format!("{} stops, and says that it releases token {}.", process(of), before.holders[of.at()].token)
        }
        Action::Seal(leader) => seal(before, leader, after),
        Action::Unseal(leader) if model.is(Mutant::SealTimesOut) => {
            format!("{}'s seal has stood for long, and is lifted.", node(leader))
        }
        Action::Unseal(leader) => format!("{} gives its plan up before it has entered the log.", node(leader)),
        Action::Append(leader, proposal) => append(leader, proposal, after),
        Action::Replicate(leader, to) => {
            let log = before.nodes[leader].log.len();
            format!("{}'s log ({log} entries) reaches {}.", node(leader), node(to))
        }
        Action::Commit(leader) => commit(model, before, leader, after),
        Action::Campaign(at, term) => format!("{} becomes a candidate of term {term}.", node(at)),
        Action::Elect(at, voter, term) => elect(model, before, (at, voter, term), after),
        Action::Look(at) => format!("Somebody sees that {} is no leader.", node(at)),
    }
}

fn elect(model: &LeaseModel, before: &World, (at, voter, term): (NodeAt, NodeAt, Term), after: &World) -> String {
    let stands = if model.is(Mutant::WaitFromCandidacy) {
        String::new()
    } else {
        format!("{} becomes a candidate of term {term}; ", node(at))
    };
    let old = before.nodes.iter().position(|n| n.role == Role::Leader && n.term < term);
    let unaware = old.filter(|old| *old != voter).map(|old| format!(" {} does not know.", node(old)));
    let kept = match after.nodes[at].table {
        Some(table) if table.term < term => format!(" It still has its table of term {}.", table.term),
        Some(_) | None => String::new(),
    };
    format!(
        "{stands}{} votes for it, a majority: {} leads.{kept}{}",
        node(voter),
        node(at),
        unaware.unwrap_or_default()
    )
}

fn grant(model: &LeaseModel, before: &World, (leader, of): (NodeAt, Process), after: &World) -> String {
    let at = before.nodes[leader];
    let age = at.table.and_then(|table| table.confirmed[of.at()]);
    let service = model.applied(&at);
    let token = service.active[of.instance().at()].map_or(0, |tenure| tenure.token);
    let record = if model.is(Mutant::RecordedAfterSending) { "sends" } else { "records and sends" };
    let deposed = if at.term < before.elected { ", deposed since," } else { "" };
    let sent = format!(
        "{}{deposed} {record} a renewal of token {token} to {} (for the heartbeat {}).",
        node(leader),
        process(of),
        beat_age(age)
    );
    if after.holders[of.at()] == before.holders[of.at()] {
        return sent;
    }
    format!("{}; {}", sent.trim_end_matches('.'), hear(before, of, token, after))
}

fn hear(before: &World, of: Process, token: Token, after: &World) -> String {
    let was = before.holders[of.at()];
    let holder = after.holders[of.at()];
    if holder == was {
        return format!("{} hears an answer that names token {token}, and nothing changes.", process(of));
    }
    let left = holder.left.unwrap_or(0);
    let verb = if was.left.is_some() { "goes on acting" } else { "acts" };
    format!("{} hears the answer: it {verb} under token {token}, and may for {left} more by its clock.", process(of))
}

fn seal(before: &World, leader: NodeAt, after: &World) -> String {
    let table = before.nodes[leader].table;
    let renewed = table.and_then(|table| table.renewed).map_or_else(
        || "it has recorded no renewal of it".to_owned(),
        |(_, at)| format!("its last recorded renewal was {}", ago(at)),
    );
    let sealed = match after.nodes[leader].table.map(|table| table.seal) {
        Some(Seal::Sealed(token)) => format!("and seals token {token}"),
        Some(Seal::Checked(token)) => format!("for token {token}, and seals nothing"),
        Some(Seal::Open) | None => String::new(),
    };
    format!("{} finds the wait over ({renewed}), {sealed}.", node(leader))
}

fn append(leader: NodeAt, proposal: Proposal, after: &World) -> String {
    let index = after.nodes[leader].log.len();
    let what = match proposal {
        Proposal::ByLease(to) => format!("\"promote {}, by lease\"", instance(to)),
        Proposal::Vacant(to) => format!("\"promote {}, nothing is owed\"", instance(to)),
        Proposal::TimedOut(to) => format!("\"promote {}, the active has not acknowledged in time\"", instance(to)),
        Proposal::Released(by, token) => format!("the word of {} that it released token {token}", process(by)),
        Proposal::Register => "the registration of a second process as a".to_owned(),
        Proposal::Delete => "\"delete the service\"".to_owned(),
        Proposal::Create => "\"create the service\", with b registered".to_owned(),
        Proposal::Shorten => "a spec with a shorter ttl".to_owned(),
    };
    format!("{} appends {what} (entry {index}).", node(leader))
}

fn commit(model: &LeaseModel, before: &World, leader: NodeAt, after: &World) -> String {
    let from = usize::from(before.nodes[leader].applied);
    let to = after.nodes[leader].applied;
    let service = model.applied(&after.nodes[leader]);
    let promoted = after.nodes[leader].log.prefix(to)[from..]
        .iter()
        .any(|entry| matches!(entry.what, What::Promote { proof: Proof::Lease | Proof::Vacant | Proof::TimedOut, .. }));
    let actives: Vec<_> = Instance::ALL
        .into_iter()
        .filter_map(|of| service.active[of.at()].map(|t| format!("{} is active under token {}", instance(of), t.token)))
        .collect();
    let outcome = if promoted && !actives.is_empty() { format!(": {}", actives.join(", and ")) } else { String::new() };
    format!("{} knows that a majority has the log up to entry {to}, and applies it{outcome}.", node(leader))
}
