//! Tokens, as resources ask about them.

use axum::extract::State;
use baton_client::view::{Problem, VerifyAnswer, VerifyRequest};
use baton_core::command::Refusal;
use baton_core::id::ServiceName;
use baton_core::json::{FieldError, Json, read as read_fields};
use baton_core::policy::Mode;

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::extract::{JsonBody, OfService};
use super::holder::token;
use super::longpoll::{read, service_in};
use super::query::{Consistency, Query};

/// Is this the active's token?
///
/// Always linearizable: a token that was overtaken before the question is never called valid. It may be overtaken while the
/// answer is on its way. So a resource that can remember the highest token it has seen, and refuses lower ones, does not ask;
/// this is for one that cannot, and for people.
#[utoipa::path(post, path = "/v1/services/{service}/tokens/verify", tag = "active", operation_id = "verify_token",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Neither needed nor read: nothing is changed"),
    ),
    request_body(content = VerifyRequest, example = json!({"token": 57})),
    responses(
        (status = 200, description = "Whether it is, and which one is", body = VerifyAnswer),
        (status = 409, description = "`not_active_passive`: where all serve, nobody has a token", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn verify(
    State(state): State<ApiState>,
    OfService(name): OfService,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let VerifyRequest { token } = parse(&body).map_err(ApiError::Invalid)?;
    let view = read(&state, Consistency::Linearizable).await?;
    let service = service_in(&view, &name)?;
    if service.spec.mode == Mode::ActiveActive {
        return Err(Refusal::NotActivePassive { service: name }.into());
    }
    let current = service.active_token();
    Ok(Answer::json(&VerifyAnswer { valid: current == Some(token), current })?.at(view.state.meta.revision))
}

fn parse(body: &Json) -> Result<VerifyRequest, Vec<FieldError>> {
    read_fields(body, |fields| Some(VerifyRequest { token: token(fields)? }))
}
