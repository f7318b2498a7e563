//! `baton watch`: what happens, as it happens, one line an event.

use baton_client::view::Snapshot;
use baton_client::{ClientError, EventStream, StreamItem, WatchFilter};
use baton_core::id::{Revision, ServiceName};
use clap::Args;

use super::{GlobalArgs, Output};
use crate::terminal::exit::Exit;
use crate::terminal::output::{data, remark};
use crate::terminal::words::{line, one_line};

/// The arguments of `baton watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Only this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Only events of this type, as in active.changed
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Begin after this revision instead of now
    #[arg(long, value_name = "REVISION")]
    after: Option<Revision>,
}

/// Follows the stream until nobody reads what is written, or no endpoint ever answered.
pub(super) async fn run(global: &GlobalArgs, args: WatchArgs) -> Result<Exit, ClientError> {
    let filter = WatchFilter { service: args.service, kind: args.kind, after: args.after };
    let mut stream = EventStream::new(global.client()?, &filter);
    let mut told_of_loss = false;
    loop {
        match stream.next().await? {
            StreamItem::Connected { endpoint } => {
                remark(&format!("following {endpoint}, times are UTC"));
                told_of_loss = false;
            }
            StreamItem::Snapshot { data, .. } => remark(&snapshot(&data)),
            StreamItem::Event { event, raw } => {
                let shown = match global.output {
                    Output::Table => line(&event),
                    Output::Json => raw,
                };
                if !data(&shown) {
                    return Ok(Exit::Done);
                }
            }
            StreamItem::Bookmark { .. } => {}
            StreamItem::Reset { data } => remark(&format!("the stream was reset: {}", one_line(&data))),
            StreamItem::Unknown { event, data: json } => {
                let written = match global.output {
                    Output::Table => {
                        remark(&format!("an event that this version does not know: {event} {}", one_line(&json)));
                        true
                    }
                    Output::Json => data(&one_line(&json)),
                };
                if !written {
                    return Ok(Exit::Done);
                }
            }
            // Told once, not at every try.
            StreamItem::Lost { why, .. } => {
                if !std::mem::replace(&mut told_of_loss, true) {
                    remark(&format!("the connection is lost ({why}): looking for another"));
                }
            }
        }
    }
}

/// What stood when the stream began, in a line.
fn snapshot(json: &str) -> String {
    let Ok(snapshot) = serde_json::from_str::<Snapshot>(json) else {
        return "the state is told in a form that this version does not know".to_owned();
    };
    let services: Vec<String> = snapshot
        .services
        .iter()
        .map(|service| match &service.active {
            Some(active) => format!("{} → {} (token {})", service.name, active.instance, active.token),
            None => format!("{} {}", service.name, service.phase),
        })
        .collect();
    let told = if services.is_empty() { "no services".to_owned() } else { services.join(", ") };
    format!("at revision {}: {told}", snapshot.revision)
}
