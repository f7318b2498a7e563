//! `baton pause` and `baton resume`: whether Baton moves services by itself. What that means is decided by the cluster; here
//! it is asked for and told.

use baton_client::ClientError;
use baton_client::view::{ClusterAutomation, PauseRequest, PauseView, ResumeRequest, ServiceAutomation};
use baton_core::id::ServiceName;
use baton_core::rules::times;
use baton_core::time::Millis;
use clap::Args;
use serde::Serialize;

use super::says::span;
use super::{GlobalArgs, show};
use crate::terminal::exit::Exit;
use crate::terminal::output::{clock, remark};
use crate::terminal::words::one_line;

/// One service, or all of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The service
    service: Option<ServiceName>,
    /// All services
    #[arg(long)]
    all: bool,
}

/// The arguments of `baton pause`.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    #[command(flatten)]
    which: Which,
    /// Why: told in the event, and to whoever asks why nothing moves
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// For how long, as in 2h; at most 30 days
    #[arg(long = "for", value_name = "LENGTH")]
    lasts: Millis,
    /// Who answers for it; you, where it is left out
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
}

/// The arguments of `baton resume`.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    which: Which,
    /// Why: told in the event
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Keeps Baton from moving a service, or all, by itself.
pub(super) async fn pause(global: &GlobalArgs, args: PauseArgs) -> Result<Exit, ClientError> {
    let PauseArgs { which: Which { service, .. }, reason, lasts, owner } = args;
    let request = PauseRequest { reason, until: None, lasts: Some(lasts), owner };
    let client = global.client()?;
    match service {
        Some(service) => tell(global, service.as_str(), ANY_MORE, &client.pause(&service, &request).await?, of_service),
        None => tell(global, "every service", ANY_MORE, &client.pause_all(&request).await?, of_cluster),
    }
}

/// Lets Baton move a service, or all, by itself again.
pub(super) async fn resume(global: &GlobalArgs, args: ResumeArgs) -> Result<Exit, ClientError> {
    let ResumeArgs { which: Which { service, .. }, reason } = args;
    let request = ResumeRequest { reason };
    let client = global.client()?;
    let Some(service) = service else {
        return tell(global, "every service", "at once any more", &client.resume_all(&request).await?, of_cluster);
    };
    let automation = client.resume(&service, &request).await?;
    // What holds all of them holds this one too, and whoever has resumed it thinks that nothing does.
    let all = client.cluster().await.map(|cluster| of_cluster(&cluster.automation)).unwrap_or_default();
    let scope = if all.is_empty() { ANY_MORE } else { "any more but what holds every service" };
    let done = tell(global, service.as_str(), scope, &automation, of_service)?;
    for held in all {
        remark(&format!("still held: {held}; baton resume --all lets it go"));
    }
    Ok(done)
}

/// That nothing is left, where nothing is.
const ANY_MORE: &str = "any more";

fn tell<T: Serialize>(
    global: &GlobalArgs,
    whom: &str,
    scope: &str,
    automation: &T,
    held: impl Fn(&T) -> Vec<String>,
) -> Result<Exit, ClientError> {
    show(global, automation, || {
        let held = held(automation);
        if held.is_empty() {
            return format!("nothing holds automatic moves of {whom} {scope}");
        }
        held.iter().map(|why| format!("{whom}: {why}")).collect::<Vec<_>>().join("\n")
    })
}

/// What holds one service, a sentence each; nothing where nothing does.
pub(super) fn of_service(automation: &ServiceAutomation) -> Vec<String> {
    let latched = automation.latched.as_ref().map(|latch| {
        format!(
            "latched since {}: it was moved {} within {}, look why and resume it",
            clock(latch.since),
            times(latch.moves as usize),
            latch.window
        )
    });
    automation.paused.as_ref().map(paused).into_iter().chain(latched).collect()
}

/// What holds all services, a sentence each; nothing where nothing does.
pub(super) fn of_cluster(automation: &ClusterAutomation) -> Vec<String> {
    let braked = automation.braked.as_ref().map(|brake| {
        format!(
            "braked since {}: {} of {} services wanted to fail over at once, look why and resume all",
            clock(brake.since),
            brake.wanting,
            brake.of
        )
    });
    automation.paused.as_ref().map(paused).into_iter().chain(braked).collect()
}

fn paused(pause: &PauseView) -> String {
    format!(
        "paused until {} (for {}) by {}: {}",
        clock(pause.until),
        span(pause.ends_in_ms),
        one_line(&pause.owner),
        one_line(&pause.reason)
    )
}

#[cfg(test)]
mod tests {
    use baton_core::state::{Brake, Latch};
    use baton_core::time::WallTime;

    use super::*;

    #[test]
    fn what_holds_is_told_with_its_remedy() {
        let time = WallTime(1_763_635_320_007);
        let pause = PauseView {
            reason: "new\nswitches".to_owned(),
            owner: "network team".to_owned(),
            actor: "alice".to_owned(),
            since: time,
            until: time,
            ends_in_ms: 7_199_000,
        };
        let latch = Latch { since: time, moves: 3, window: Millis::secs(3_600) };
        let once = Latch { moves: 1, ..latch.clone() };
        let once = of_service(&ServiceAutomation { paused: None, latched: Some(once) });
        assert_eq!(once, ["latched since 10:42:00.007: it was moved once within 1h, look why and resume it"]);
        let held = of_service(&ServiceAutomation { paused: Some(pause.clone()), latched: Some(latch) });
        assert_eq!(
            held,
            [
                "paused until 10:42:00.007 (for 1h 59m) by network team: new switches",
                "latched since 10:42:00.007: it was moved 3 times within 1h, look why and resume it",
            ]
        );
        assert_eq!(of_service(&ServiceAutomation::default()), Vec::<String>::new());
        let brake = Brake { since: time, wanting: 3, of: 4 };
        let held = of_cluster(&ClusterAutomation { paused: None, braked: Some(brake) });
        assert_eq!(
            held,
            ["braked since 10:42:00.007: 3 of 4 services wanted to fail over at once, look why and resume all"]
        );
    }
}
