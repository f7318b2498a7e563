//! `baton explain`: why a service is where it is, and what would change that. The words are the planner's own.

use baton_client::ClientError;
use baton_core::id::ServiceName;
use clap::Args;

use super::stale::or_remembered;
use super::{GlobalArgs, show};
use crate::terminal::exit::Exit;
use crate::terminal::words::one_line;

/// The arguments of `baton explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The service
    service: ServiceName,
}

/// Asks and tells; unhealthy where only one node's memory could be asked.
pub(super) async fn run(global: &GlobalArgs, args: ExplainArgs) -> Result<Exit, ClientError> {
    let client = global.client()?;
    let asked = client.explain(&args.service).await;
    let told = or_remembered(asked, "the report is", async || client.explain_stale(&args.service).await).await?;
    let report = &told.answer;
    // What others wrote is in it; line by line, so that its own lines stay.
    show(global, report, || report.paragraph().lines().map(one_line).collect::<Vec<_>>().join("\n"))?;
    Ok(told.exit())
}
