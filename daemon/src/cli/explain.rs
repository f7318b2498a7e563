//! `baton explain`: why a service is where it is, and what would change that. The words are the planner's own.

use baton_client::ClientError;
use baton_core::id::ServiceName;
use baton_core::planner::{GateVerdict, ServiceReport};
use clap::Args;

use super::{GlobalArgs, show};
use crate::terminal::exit::Exit;
use crate::terminal::words::one_line;

/// The arguments of `baton explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The service
    service: ServiceName,
}

/// Asks and tells.
pub(super) async fn run(global: &GlobalArgs, args: ExplainArgs) -> Result<Exit, ClientError> {
    let report = global.client()?.explain(&args.service).await?;
    show(global, &report, || told(&report))
}

/// The report as a person reads it.
fn told(report: &ServiceReport) -> String {
    let mut lines = vec![one_line(&report.summary)];
    for gate in report.gates.iter().filter(|gate| gate.verdict == GateVerdict::Hold) {
        lines.push(format!("{} holds: {}", one_line(&gate.gate), one_line(&gate.why)));
    }
    lines.join("\n")
}
