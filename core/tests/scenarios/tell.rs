//! How a story is told: one line a thing, with its time. Nothing here decides what happens.

use baton_core::event::{Event, EventKind};
use baton_core::id::Revision;
use baton_core::state::{Instance, Service, Source, State};
use baton_core::time::ClusterTime;

/// Something that happened.
#[derive(Debug)]
enum Line {
    Verdict { at: ClusterTime, first: Revision, last: Revision, nodes: Vec<u64>, rest: String },
    Event { at: ClusterTime, revision: Revision, text: String },
    Remark { at: ClusterTime, text: String },
}

/// The output of one input, while it grows.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    lines: Vec<Line>,
    pub(crate) quietly: bool,
}

/// A time of the story: `12.4s`, `5m12.4s`, `1h00m05s`.
pub(crate) fn time(at: ClusterTime) -> String {
    let (minutes, ms) = (at.0 / 60_000, at.0 % 60_000);
    let mut seconds = format!("{}.{:03}", ms / 1_000, ms % 1_000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

impl Teller {
    pub(crate) fn is_silent(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn remark(&mut self, at: ClusterTime, text: impl Into<String>) {
        self.lines.push(Line::Remark { at, text: text.into() });
    }

    /// Tells of an event. Verdicts that nodes reach alike, one after the other at one time, are told together.
    pub(crate) fn event(&mut self, at: ClusterTime, event: &Event) {
        let revision = event.revision;
        if let (EventKind::VerdictChanged, Some(node)) = (event.kind, event.node) {
            let why = event.reason.strip_prefix(&format!("node {node}: ")).unwrap_or(&event.reason);
            let rest = format!("{}, because {why}", change(event));
            if let Some(Line::Verdict { at: then, last, nodes, rest: before, .. }) = self.lines.last_mut()
                && *then == at
                && *before == rest
                && *last + 1 == revision
            {
                *last = revision;
                nodes.push(node);
                return;
            }
            self.lines.push(Line::Verdict { at, first: revision, last: revision, nodes: vec![node], rest });
            return;
        }
        self.lines.push(Line::Event { at, revision, text: text(event) });
    }

    /// The lines as they stand in the transcript.
    pub(crate) fn take(&mut self) -> Vec<String> {
        let lines = std::mem::take(&mut self.lines);
        if std::mem::take(&mut self.quietly) {
            let last = |line: &Line| match line {
                Line::Verdict { last, .. } => Some(*last),
                Line::Event { revision, .. } => Some(*revision),
                Line::Remark { .. } => None,
            };
            let through = lines.iter().filter_map(last).max();
            let told = through.map_or_else(|| "nothing".to_owned(), |revision| format!("events up to r{revision}"));
            return vec![format!("    ({told})")];
        }
        let tell = |line| match line {
            Line::Verdict { at, first, last, nodes, rest } => {
                let revisions = if first == last { format!("r{first}") } else { format!("r{first}-r{last}") };
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                let who = if nodes.len() == 1 { "node" } else { "nodes" };
                row(at, &revisions, &format!("{who} {} on {rest}", nodes.join(", ")))
            }
            Line::Event { at, revision, text } => row(at, &format!("r{revision}"), &text),
            Line::Remark { at, text } => row(at, "", &text),
        };
        lines.into_iter().map(tell).collect()
    }
}

fn row(at: ClusterTime, revision: &str, text: &str) -> String {
    format!("    {:<8} {revision:<8} {text}", time(at))
}

fn change(event: &Event) -> String {
    let side = |side: &Option<Option<String>>| side.clone().flatten().unwrap_or_else(|| "none".to_owned());
    let what = event.instance.as_ref().map_or_else(String::new, |id| format!("{id}: "));
    format!("{what}{} -> {}", side(&event.from), side(&event.to))
}

fn text(event: &Event) -> String {
    let reason = &event.reason;
    let word = match event.kind {
        EventKind::InstanceHealthChanged => "health of",
        EventKind::InstanceBreakerChanged => "breaker of",
        EventKind::InstanceAdminChanged => "admin of",
        EventKind::VerdictChanged => "leader on",
        EventKind::ActiveChanged => {
            let side = |side: &Option<Option<String>>| side.clone().flatten().unwrap_or_else(|| "none".to_owned());
            let token = event.token.map_or_else(String::new, |token| format!(" with token {token}"));
            // The record of a move, told just above, says why.
            let why = event.transition.map_or_else(|| format!(", because {reason}"), |id| format!(" by {id}"));
            return format!("ACTIVE: {} -> {}{token}{why}", side(&event.from), side(&event.to));
        }
        EventKind::TransitionStarted
        | EventKind::TransitionStep
        | EventKind::TransitionFinished
        | EventKind::TransitionAborted => {
            let id = event.transition.map_or_else(String::new, |id| id.to_string());
            return format!("{id} {}: {reason}", event.kind.as_str().trim_start_matches("transition."));
        }
        EventKind::ServiceCreated
        | EventKind::ServiceUpdated
        | EventKind::ServiceDeleted
        | EventKind::InstanceRegistered
        | EventKind::InstanceUpdated
        | EventKind::InstanceDeregistered
        | EventKind::InstanceReset
        | EventKind::AutomationPaused
        | EventKind::AutomationResumed
        | EventKind::AutomationBraked
        | EventKind::NodeJoined
        | EventKind::NodeLost
        | EventKind::NodeBack => return format!("{}: {reason}", event.kind),
    };
    format!("{word} {}, because {reason}", change(event))
}

/// All about one instance, in a line or two.
pub(crate) fn instance(state: &State, service: &Service, instance: &Instance, now: ClusterTime) -> Vec<String> {
    let verdicts: Vec<String> = instance
        .verdicts
        .iter()
        .map(|(node, record)| format!("node {node} {}", record.verdict))
        .chain(instance.judged.iter().map(|(source, record)| format!("{} {}", judged(*source), record.verdict)))
        .collect();
    let breaker = &instance.breaker;
    let counts = state.count(service, instance);
    let mut lines = vec![
        format!(
            "{}: {} since {}, admin {}",
            instance.id,
            instance.health,
            time(instance.health_since),
            instance.admin.state
        ),
        format!(
            "   verdicts: {}; {} of {} say down, {} must",
            if verdicts.is_empty() { "none".to_owned() } else { verdicts.join(", ") },
            counts.down,
            counts.observers,
            counts.quorum
        ),
    ];
    if breaker.generation > 1 {
        let until = breaker.open_until().map_or_else(String::new, |at| format!(", until {}", time(at)));
        lines.push(format!(
            "   breaker: {}, generation {}, {} trips in a row{until}; {} trial calls out, {} went well",
            breaker.state,
            breaker.generation,
            breaker.trips,
            breaker.trials_out(&service.spec.breaker, now),
            breaker.successes
        ));
    }
    if let Some(recovery) = &instance.recovery {
        let policy = &service.spec.recovery;
        let held = recovery.due(policy).map_or_else(String::new, |at| format!(", held back until {}", time(at)));
        let cools = recovery
            .cooling(now)
            .map_or_else(String::new, |left| format!(", cools down until {}", time(now.plus(left))));
        lines.push(format!(
            "   recovery: {} failures in a row, share {}/1000{held}{cools}",
            recovery.failures,
            instance.share(policy, now)
        ));
    }
    lines
}

const fn judged(source: Source) -> &'static str {
    source.as_str()
}

/// How much of its weight each instance gets.
pub(crate) fn weights(service: &Service, now: ClusterTime) -> String {
    let share = |instance: &Instance| {
        let effective = instance.effective_weight(&service.spec.recovery, now);
        format!("{} {}.{:03} of {}", instance.id, effective / 1_000, effective % 1_000, instance.registration.weight)
    };
    service.instances.values().map(|instance| share(instance)).collect::<Vec<_>>().join(", ")
}
