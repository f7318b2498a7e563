//! `baton transitions`: the records of moves, as a table; one of them as a timeline.

use baton_client::ClientError;
use baton_client::view::Problem;
use baton_core::id::{ServiceName, TransitionId};
use baton_core::transition::{Durations, HookAttempt, Transition, TransitionStatus};
use clap::Args;

use super::stale::or_remembered;
use super::{GlobalArgs, show};
use crate::terminal::exit::Exit;
use crate::terminal::output::{BAD, Cell, DOUBT, GOOD, STRONG, Table, age, cell, clock, length, styled, wall_now};
use crate::terminal::words::{cut, one_line};

/// How much of a reason a table shows: the whole of it is in the record.
const REASON_SHOWN: usize = 60;

/// The arguments of `baton transitions`.
#[derive(Debug, Args)]
pub(super) struct TransitionsArgs {
    /// Only those of this service; or the record of one move, as in tr-57
    #[arg(value_name = "SERVICE|ID", value_parser = about)]
    about: Option<About>,
    /// The record of this move of the service
    #[arg(value_name = "ID")]
    id: Option<TransitionId>,
    /// How many, the newest first
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    limit: u16,
}

/// A service, or one move.
#[derive(Clone, Debug, PartialEq, Eq)]
enum About {
    Service(ServiceName),
    Move(TransitionId),
}

/// What is written like the id of a move is one.
fn about(text: &str) -> Result<About, String> {
    match text.parse() {
        Ok(id) => Ok(About::Move(id)),
        Err(_) => text.parse().map(About::Service).map_err(|error: baton_core::id::InvalidName| error.to_string()),
    }
}

/// Asks and tells; unhealthy where only one node's memory could be asked.
pub(super) async fn run(global: &GlobalArgs, args: TransitionsArgs) -> Result<Exit, ClientError> {
    let client = global.client()?;
    let (service, id) = match (args.about, args.id) {
        (Some(About::Move(id)), None) => (None, Some(id)),
        // A service may be called that, where the id of a move follows.
        (Some(About::Move(name)), Some(id)) => (name.to_string().parse().ok(), Some(id)),
        (Some(About::Service(service)), id) => (Some(service), id),
        (None, id) => (None, id),
    };
    let Some(id) = id else {
        let (of, limit) = (service.as_ref(), usize::from(args.limit));
        let asked = client.transitions(of, limit).await;
        let told = or_remembered(asked, "the records are", async || client.transitions_stale(of, limit).await).await?;
        show(global, &told.answer, || table(&told.answer).render(""))?;
        return Ok(told.exit());
    };
    let asked = client.transition(id).await;
    let told = or_remembered(asked, "the record is", async || client.transition_stale(id).await).await?;
    let record = &told.answer;
    if let Some(service) = service.filter(|service| *service != record.service) {
        return Err(ClientError::Problem(Box::new(Problem {
            status: 404,
            code: "no_such_transition".to_owned(),
            detail: format!("{id} is a move of \"{}\", not of \"{service}\"", record.service),
            ..Problem::default()
        })));
    }
    show(global, record, || timeline(record))?;
    Ok(told.exit())
}

fn status(record: &Transition) -> Cell {
    match record.status {
        TransitionStatus::Running => styled(DOUBT, record.status),
        TransitionStatus::Finished => styled(GOOD, record.status),
        TransitionStatus::Aborted => styled(BAD, record.status),
    }
}

/// `a → b`, with `none` for nobody.
fn change(record: &Transition) -> String {
    let side = |side: Option<&baton_core::id::InstanceId>| side.map_or_else(|| "none".to_owned(), ToString::to_string);
    format!("{} → {}", side(record.from.as_ref()), side(record.to.as_ref()))
}

fn table(records: &[Transition]) -> Table {
    let mut table =
        Table::new(["ID", "SERVICE", "KIND", "CHANGE", "TOKEN", "STATUS", "PROOF", "BEGAN", "TOOK", "BECAUSE"]);
    let now = wall_now();
    for record in records {
        let proof = record.proof.as_ref();
        table.row([
            cell(record.id),
            styled(STRONG, &record.service),
            cell(record.kind),
            cell(change(record)),
            record.token.map_or_else(|| cell("-"), cell),
            status(record),
            proof.map_or_else(|| cell("-"), |proof| cell(format!("{} ({})", proof.proof, proof.fencing))),
            cell(format!("{} ({} ago)", clock(record.started_at), age(now, record.started_at))),
            record.durations.total_ms.map_or_else(|| cell("-"), |total| cell(length(total))),
            cell(cut(&one_line(&record.trigger.reason), REASON_SHOWN)),
        ]);
    }
    table
}

/// A record on one line.
pub(super) fn line(record: &Transition) -> String {
    let Transition { id, service, kind, status, .. } = record;
    let mut told = format!("{service}: {kind} {id} {status}: {}", change(record));
    if let Some(token) = record.token {
        told.push_str(&format!(", token {token}"));
    }
    if let Some(proof) = &record.proof {
        told.push_str(&format!(", proof {} ({})", proof.proof, proof.fencing));
    }
    if let Some(total) = record.durations.total_ms {
        told.push_str(&format!(", in {}", length(total)));
    }
    told
}

/// A record as it went on, step by step.
fn timeline(record: &Transition) -> String {
    let mut lines = vec![line(record)];
    let mut fact = |name: &str, told: &str| lines.push(format!("  {name:<10}{}", one_line(told)));
    fact("because", &record.trigger.reason);
    if let Some(actor) = &record.actor {
        fact("asked by", actor);
    }
    for seen in &record.evidence {
        fact("seen", &format!("node {} said {} ({})", seen.observer, seen.verdict, seen.evidence.told()));
    }
    for judged in &record.judged {
        fact("judged", &format!("its {} said {} ({})", judged.source, judged.verdict, judged.evidence.told()));
    }
    if let Some(proof) = &record.proof {
        fact("proof", &format!("{} ({}): {}", proof.proof, proof.fencing, proof.evidence));
    }
    if !record.tried.is_empty() {
        let tried: Vec<String> = record.tried.iter().map(ToString::to_string).collect();
        fact("tried", &format!("{} did not acknowledge", tried.join(", ")));
    }
    for attempt in &record.hook {
        fact("hook", &hook(attempt));
    }
    if let Some(took) = durations(&record.durations) {
        fact("took", &took);
    }
    let mut steps = Table::new(["TIME", "AFTER", "STEP", ""]);
    let begin = record.steps.first().map(|step| step.at);
    for step in &record.steps {
        let after = begin.map_or(0, |begin| step.at.since(begin).0);
        steps.row([
            cell(clock(step.time)),
            cell(format!("+{}", length(after))),
            styled(STRONG, one_line(&step.step)),
            cell(one_line(&step.detail)),
        ]);
    }
    lines.push(steps.render("  "));
    lines.join("\n")
}

fn hook(attempt: &HookAttempt) -> String {
    let resumes = if attempt.resumes { ", the attempt before it may have been carried out too" } else { "" };
    let ended = attempt.outcome.as_ref().map_or_else(
        || "no outcome".to_owned(),
        |outcome| {
            let word = if outcome.ok { "confirmed" } else { "failed" };
            format!("{word} after {}: {}", length(outcome.took_ms), outcome.detail)
        },
    );
    format!("attempt {} on node {} in term {}{resumes}: {ended}", attempt.number, attempt.node, attempt.term)
}

/// `first failure → suspect 200 ms, suspect → agreed 400 ms, …; 640 ms in all`.
fn durations(durations: &Durations) -> Option<String> {
    let Durations {
        first_failure_to_suspect_ms,
        suspect_to_agreed_ms,
        agreed_to_proof_ms,
        proof_to_promoted_ms,
        promoted_to_acknowledged_ms,
        total_ms,
    } = durations;
    let parts: Vec<String> = [
        ("first failure → suspect", first_failure_to_suspect_ms),
        ("suspect → agreed", suspect_to_agreed_ms),
        ("agreed → proof", agreed_to_proof_ms),
        ("proof → promoted", proof_to_promoted_ms),
        ("promoted → acknowledged", promoted_to_acknowledged_ms),
    ]
    .into_iter()
    .filter_map(|(name, ms)| ms.map(|ms| format!("{name} {}", length(ms))))
    .collect();
    let total = total_ms.map(|ms| format!("{} to the promotion", length(ms)));
    let told = [parts.join(", "), total.unwrap_or_default()];
    let told: Vec<&str> = told.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    (!told.is_empty()).then(|| told.join("; "))
}
