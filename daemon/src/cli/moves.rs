//! `baton failover`, `baton switchover` and `baton failback`: an operator moves the active. What is allowed is decided by the
//! cluster; here it is asked for, watched to its end and told.

use std::time::Duration;

use baton_client::view::{MoveAnswer, MoveRequest};
use baton_client::{Client, ClientError};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::planner::{ManualMove, ManualPlan};
use baton_core::policy::ProofKind;
use baton_core::time::Millis;
use baton_core::transition::{Transition, TransitionStatus};
use clap::Args;
use tokio::time::Instant;

use super::{GlobalArgs, show, transitions};
use crate::terminal::exit::Exit;
use crate::terminal::output::remark;
use crate::terminal::words::one_line;

/// The pause between two looks at an open move.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long the last look may take once the patience is over: a node answers in milliseconds, where it can.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// The arguments of the three moves.
#[derive(Debug, Args)]
pub(super) struct MoveArgs {
    /// The service
    service: ServiceName,
    /// The instance to promote; left out, the service's strategy chooses
    #[arg(long, value_name = "INSTANCE")]
    to: Option<InstanceId>,
    /// Why: kept in the transition's record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// You assert that the old active has stopped: kept in the record with your reason
    #[arg(long, value_parser = ["operator"])]
    proof: Option<String>,
    /// How long to wait for the end of a move that needs more than a moment, as for a lease to run out
    #[arg(long, value_name = "LENGTH", default_value = "1m", conflicts_with = "dry_run")]
    wait: Millis,
}

/// Asks for a move.
pub(super) async fn run(global: &GlobalArgs, wanted: ManualMove, args: MoveArgs) -> Result<Exit, ClientError> {
    let MoveArgs { service, to, reason, dry_run, proof, wait } = args;
    let deadline = Instant::now() + wait.as_duration();
    // Answered at once: how long to wait is decided here, and what it waits for is told meanwhile.
    let wait = (!dry_run).then_some(Millis::ZERO);
    let request = MoveRequest { to, reason, dry_run, proof: proof.map(|_| ProofKind::Operator), wait };
    let client = global.client()?;
    match client.make_move(wanted, &service, &request).await? {
        MoveAnswer::Planned(plan) => show(global, plan.as_ref(), || rehearsed(&plan)),
        MoveAnswer::Made(record) => {
            let record = to_its_end(&client, *record, deadline).await;
            show(global, &record, || transitions::line(&record))?;
            Ok(match record.status {
                TransitionStatus::Finished => Exit::Done,
                TransitionStatus::Aborted => Exit::Error,
                TransitionStatus::Running => {
                    remark(&format!(
                        "it is still open: baton explain {service} says what it waits for, baton transitions {} how it goes",
                        record.id
                    ));
                    Exit::Unhealthy
                }
            })
        }
    }
}

/// The record at its end, or as it was seen last. That nobody answers for a moment says nothing about the move.
async fn to_its_end(client: &Client, mut record: Transition, deadline: Instant) -> Transition {
    let mut told = false;
    while record.status == TransitionStatus::Running && Instant::now() < deadline {
        if !std::mem::replace(&mut told, true)
            && let Some(step) = record.steps.last()
        {
            remark(&format!("{} is open: {}", record.id, one_line(&step.detail)));
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_AGAIN)).await;
        // The last look is given a moment too, and none may outlast the patience by the client's own.
        let look = tokio::time::timeout_at(deadline.max(Instant::now() + LOOK_WITHIN), client.transition(record.id));
        if let Ok(Ok(now)) = look.await {
            record = now;
        }
    }
    record
}

/// What a move would do.
fn rehearsed(plan: &ManualPlan) -> String {
    let from = plan.from.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let mut lines = vec![format!(
        "{}: a {} from {from} to {} would be made; nothing was changed",
        plan.report.service, plan.kind, plan.to
    )];
    match (&plan.proof, &plan.waits_for) {
        (Some(proof), _) => {
            lines.push(format!("proof: {} ({}), {}", proof.proof, proof.fencing, one_line(&proof.evidence)));
        }
        (None, Some(why)) => lines.push(match plan.waits_at_most {
            // Up to the next second: what is promised at most may not be cut.
            Some(most) => format!("waits at most {}: {}", Millis::secs(most.0.div_ceil(1_000)), one_line(why)),
            None => format!("waits: {}", one_line(why)),
        }),
        (None, None) => {}
    }
    for gate in &plan.bypasses {
        let why = one_line(&gate.why);
        lines.push(format!("by itself Baton would not, which does not hold your move: {why}"));
    }
    lines.join("\n")
}
