//! `baton drain`, `baton admin` and `baton reset`: an operator's word about one instance. What it does is decided by the
//! cluster; here it is asked for and told.

use baton_client::ClientError;
use baton_client::view::{AdminRequest, InstanceView, ResetRequest, Role};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::state::AdminState;
use baton_core::time::Millis;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::says::says;
use super::{GlobalArgs, Output};
use crate::terminal::exit::Exit;
use crate::terminal::output::{data, remark};
use crate::terminal::words::one_line;

/// Which instance, and why.
#[derive(Debug, Args)]
struct About {
    /// The service
    service: ServiceName,
    /// The instance
    instance: InstanceId,
    /// Why: told in the event, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// The arguments of `baton drain`.
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    about: About,
    /// End by itself after this long, as in 30m
    #[arg(long = "for", value_name = "LENGTH")]
    lasts: Option<Millis>,
    /// Let it in again
    #[arg(long, conflicts_with = "lasts")]
    undo: bool,
}

/// The arguments of `baton admin`.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// The service
    service: ServiceName,
    /// The instance
    instance: InstanceId,
    /// What is allowed from now on
    #[arg(value_parser = states())]
    state: AdminState,
    /// Why: told in the event, kept with the instance
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// End by itself after this long, as in 30m; must be given for maintenance
    #[arg(long = "for", value_name = "LENGTH", required_if_eq("state", "maintenance"))]
    lasts: Option<Millis>,
}

/// The arguments of `baton reset`.
#[derive(Debug, Args)]
pub(super) struct ResetArgs {
    #[command(flatten)]
    about: About,
}

fn states() -> impl TypedValueParser<Value = AdminState> {
    let words = AdminState::ALL.iter().map(|(word, _)| *word);
    // No other words come through than these.
    let state = |text: String| AdminState::ALL.iter().find(|(word, _)| *word == text).map(|(_, state)| *state);
    PossibleValuesParser::new(words).try_map(move |text| state(text).ok_or("no such state"))
}

/// Takes an instance out of what is chosen, or lets it in again.
pub(super) async fn drain(global: &GlobalArgs, args: DrainArgs) -> Result<Exit, ClientError> {
    let DrainArgs { about: About { service, instance, reason }, lasts, undo } = args;
    let state = if undo { AdminState::Enabled } else { AdminState::Draining };
    admin(global, AdminArgs { service, instance, state, reason, lasts }).await
}

/// Sets what an instance is allowed.
pub(super) async fn admin(global: &GlobalArgs, args: AdminArgs) -> Result<Exit, ClientError> {
    let AdminArgs { service, instance, state, reason, lasts } = args;
    let request = AdminRequest { state, reason, until: None, lasts };
    tell(global, &global.client()?.set_admin(&service, &instance, &request).await?)
}

/// Clears an instance of what speaks against it.
pub(super) async fn reset(global: &GlobalArgs, args: ResetArgs) -> Result<Exit, ClientError> {
    let About { service, instance, reason } = args.about;
    tell(global, &global.client()?.reset(&service, &instance, &ResetRequest { reason }).await?)
}

fn tell(global: &GlobalArgs, instance: &InstanceView) -> Result<Exit, ClientError> {
    let text = match global.output {
        Output::Table => line(instance),
        Output::Json => serde_json::to_string_pretty(instance)
            .map_err(|error| ClientError::Unexpected { what: "writing JSON".to_owned(), why: error.to_string() })?,
    };
    data(&text);
    if let Some(warning) = warning(instance) {
        remark(&warning);
    }
    Ok(Exit::Done)
}

/// What the word has done that nobody may have meant: a drained active stays active, and nobody is sent to it.
fn warning(instance: &InstanceView) -> Option<String> {
    (instance.role == Role::Active && instance.admin.state == AdminState::Draining).then(|| {
        format!(
            "warning: {} is the active and stays it; callers that pick get nobody now: baton switchover {} moves the \
             service",
            instance.id, instance.service
        )
    })
}

/// The instance as it is after the word.
fn line(instance: &InstanceView) -> String {
    let (id, role) = (&instance.id, instance.role.as_str());
    let told = format!("{}/{id} is {}, {role}, {}", instance.service, instance.admin.state, instance.health);
    format!("{told}: {}", one_line(&says(instance)))
}

#[cfg(test)]
mod tests {
    use super::super::says::tests::instance;
    use super::*;

    #[test]
    fn the_answer_is_a_sentence() {
        assert_eq!(line(&instance(Vec::new())), "orders/a is enabled, passive, suspect: nobody has looked");
    }

    #[test]
    fn who_drains_the_active_is_warned() {
        let mut one = instance(Vec::new());
        one.admin.state = AdminState::Draining;
        assert_eq!(warning(&one), None, "a passive is not called anyway");
        one.role = Role::Active;
        let told = warning(&one).expect("a warning");
        assert!(told.contains("get nobody now: baton switchover orders moves the service"), "{told}");
        one.admin.state = AdminState::Enabled;
        assert_eq!(warning(&one), None);
    }
}
