//! Every error of the API, and the only place in Baton where a status code is chosen. What an operator sees (the log,
//! with the source) and what a stranger sees (a problem document, with a number to find that line by) differ.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use baton_client::view::{PROBLEM_JSON, Problem};
use baton_core::command::{Done, Refusal};
use baton_core::id::{InstanceId, Revision, ServiceName, TransitionId};
use baton_core::json::FieldError;
use baton_core::pick::NoInstance;
use baton_core::policy::Mode;
use baton_core::state::Phase;

use crate::consensus::{ProposeError, ReadError};
use crate::reports::HeartbeatError;
use crate::store::EventsError;

/// What a client is told to wait before it tries again without a quorum: an election is over by then, as a rule.
const RETRY_AFTER_SECONDS: u16 = 1;

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The state machine, or the planner, said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A command was not carried out, or nobody knows whether it was.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// A default read needs a quorum.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A heartbeat names another session than the instance's present one.
    #[error(
        "this is not the present session of \"{instance}\": a newer registration has taken its place, or the service was \
         told anew. Stop what acts for the old session; whoever is still meant to run registers again and goes on with \
         the session that the answer names"
    )]
    UnknownSession {
        /// The instance.
        instance: InstanceId,
    },
    /// A heartbeat for an instance that is judged by probes.
    #[error(
        "\"{instance}\" is registered with liveness \"probe\", so nobody listens to its heartbeats: register it with \
         \"liveness\": \"heartbeat\", or send none"
    )]
    NotHeartbeat {
        /// The instance.
        instance: InstanceId,
    },
    /// A heartbeat did not get to a leader.
    #[error(transparent)]
    Heartbeat(HeartbeatError),
    /// The history could not be read.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// The body is not JSON at all, or says something twice.
    #[error("the body is not valid JSON: {0}")]
    NotJson(FieldError),
    /// The body, a parameter or a header says what it may not.
    #[error("{}", told(.0))]
    Invalid(Vec<FieldError>),
    /// The body is too long.
    #[error("the body is longer than {limit} bytes")]
    BodyTooLarge {
        /// The most that is read.
        limit: usize,
    },
    /// The body did not come in time.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The body ended before its end.
    #[error("the body could not be read to its end")]
    BodyBroken,
    /// The body is not declared as JSON.
    #[error("the body is \"{given}\": send \"application/json\"")]
    MediaType {
        /// What it is declared as.
        given: String,
    },
    /// No such path.
    #[error("there is nothing at this path: GET /docs lists what there is")]
    NoSuchPath,
    /// The path is there, the method is not.
    #[error("this path does not know the method {method}")]
    MethodNotAllowed {
        /// The method.
        method: String,
    },
    /// The `Host` is not one that this node answers to.
    #[error(
        "this node does not answer to the host \"{host}\": use an IP address or localhost, or add the name to \
         `allowed_hosts`"
    )]
    HostNotAllowed {
        /// The name.
        host: String,
    },
    /// A page of another site asks for a change.
    #[error("a page of \"{origin}\" may not change anything here")]
    OriginNotAllowed {
        /// The other site.
        origin: String,
    },
    /// There is no such transition, or its record is no longer kept.
    #[error("there is no transition \"{0}\", or its record is no longer kept")]
    NoSuchTransition(TransitionId),
    /// A move was taken, and this node has not come so far as to know its record.
    #[error(
        "the move is taken as {0}, and this node has not applied it yet: GET /v1/transitions/{0} will say how it went"
    )]
    MoveUnseen(TransitionId),
    /// The client wants repeats to be harmless, and they are not.
    #[error(
        "Idempotency-Key is not honoured yet, so a repeated request may act twice: send it without the key, and look \
         before you repeat it"
    )]
    IdempotencyKey,
    /// The service has no active now.
    #[error("{}", no_active(service, *mode, *phase))]
    NoActive {
        /// The service.
        service: ServiceName,
        /// Whether it could have one.
        mode: Mode,
        /// Where it stands.
        phase: Phase,
    },
    /// Nobody may be called now.
    #[error(transparent)]
    NoInstance(#[from] NoInstance),
    /// The node has not applied what the client has seen already.
    #[error("this node has applied revision {applied}, and you have seen {seen}: ask again, or ask another node")]
    Behind {
        /// What the client has seen.
        seen: Revision,
        /// What this node has applied.
        applied: Revision,
    },
    /// The node does not serve default reads.
    #[error("this node is not ready: {0}")]
    NotReady(String),
    /// `If-Match` asks for an object that is not there, or an entity tag that none of ours can be.
    #[error("{0}")]
    PreconditionFailed(String),
    /// The state machine answered another question than was asked: a defect.
    #[error("unexpected reply {0:?}")]
    Reply(Done),
    /// A defect, or a failure below. The source goes to the log, not to the client.
    #[error("{what}")]
    Internal {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A handler panicked: a defect. The panic hook has told the log.
    #[error("a handler panicked: {0}")]
    Panicked(String),
}

/// One field's error, said by the API itself.
pub(crate) fn invalid(path: &str, message: impl std::fmt::Display) -> ApiError {
    ApiError::Invalid(vec![FieldError { path: path.to_owned(), message: message.to_string() }])
}

fn no_active(service: &ServiceName, mode: Mode, phase: Phase) -> String {
    match mode {
        Mode::ActivePassive => {
            format!("\"{service}\" has no active: its phase is {phase}; GET /v1/services/{service}/explain says why")
        }
        Mode::ActiveActive => format!(
            "\"{service}\" is active_active: all that may be called serve; ask GET /v1/services/{service}/endpoints or \
             POST /v1/services/{service}/pick"
        ),
    }
}

fn told(errors: &[FieldError]) -> String {
    match errors {
        [only] => only.to_string(),
        several => format!("{} fields are wrong; `errors` names them", several.len()),
    }
}

/// What a stranger is told: the status, the stable word, and the kind of error in a few words.
type Kind = (StatusCode, &'static str, &'static str);

fn refusal(refusal: &Refusal) -> Kind {
    let (status, title) = match refusal {
        Refusal::NoSuchService { .. } => (StatusCode::NOT_FOUND, "No such service"),
        Refusal::NoSuchInstance { .. } => (StatusCode::NOT_FOUND, "No such instance"),
        Refusal::GenerationMismatch { .. } => (StatusCode::PRECONDITION_FAILED, "The generation has moved on"),
        Refusal::AlreadyActive { .. } => (StatusCode::CONFLICT, "It is active already"),
        Refusal::TransitionInProgress { .. } => (StatusCode::CONFLICT, "A transition is running"),
        Refusal::NotEligible { .. } => (StatusCode::CONFLICT, "The instance may not be promoted"),
        Refusal::NoCandidate { .. } => (StatusCode::CONFLICT, "No instance may be promoted"),
        Refusal::ProofRefused { .. } => (StatusCode::CONFLICT, "The proof does not hold"),
        Refusal::NoActive { .. } => (StatusCode::CONFLICT, "There is no active to move"),
        Refusal::ActiveNotWell { .. } => (StatusCode::CONFLICT, "The active is not well"),
        Refusal::NotActivePassive { .. } => (StatusCode::CONFLICT, "Not an active_passive service"),
        Refusal::NoTrial { .. } => (StatusCode::CONFLICT, "No trial call now"),
        Refusal::IsActive { .. } => (StatusCode::CONFLICT, "It is the active"),
        Refusal::UnknownSession { .. } => (StatusCode::CONFLICT, "Another session"),
        Refusal::NotHolder { .. } => (StatusCode::CONFLICT, "It does not hold the service"),
        Refusal::AutomationHeld { .. } => (StatusCode::CONFLICT, "Automation is held"),
        Refusal::NothingToDo { .. } => (StatusCode::CONFLICT, "There is nothing to do"),
        Refusal::MovedOn { .. } => (StatusCode::CONFLICT, "The world has moved on"),
        Refusal::LimitReached { .. } => (StatusCode::CONFLICT, "A limit is reached"),
    };
    (status, refusal.code(), title)
}

const NO_QUORUM: Kind = (StatusCode::SERVICE_UNAVAILABLE, "no_quorum", "No quorum");
const STOPPING: Kind = (StatusCode::SERVICE_UNAVAILABLE, "stopping", "The node is stopping");
const INTERNAL: Kind = (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is wrong in Baton");

impl ApiError {
    /// A failure below that the client can do nothing about.
    pub(crate) fn internal(what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal { what, source: Box::new(source) }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Refused(reason) => refusal(reason),
            Self::Propose(error) => match error {
                ProposeError::NoLeader => NO_QUORUM,
                ProposeError::Unknown => {
                    (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", "It may still happen, or not")
                }
                ProposeError::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much at once"),
                ProposeError::Stopped => STOPPING,
                ProposeError::Unencodable => INTERNAL,
            },
            Self::Read(error) => match error {
                ReadError::NoQuorum => NO_QUORUM,
                ReadError::Stopped => STOPPING,
            },
            Self::UnknownSession { .. } => (StatusCode::CONFLICT, "unknown_session", "Another session"),
            Self::NotHeartbeat { .. } => (StatusCode::CONFLICT, "not_heartbeat", "It is probed, not heard"),
            Self::Heartbeat(error) => match error {
                HeartbeatError::NoLeader => NO_QUORUM,
                HeartbeatError::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much at once"),
                HeartbeatError::Stopped => STOPPING,
                HeartbeatError::NoSuchService => (StatusCode::NOT_FOUND, "no_such_service", "No such service"),
                HeartbeatError::NoSuchInstance => (StatusCode::NOT_FOUND, "no_such_instance", "No such instance"),
                HeartbeatError::NotHeartbeat => (StatusCode::CONFLICT, "not_heartbeat", "It is probed, not heard"),
                HeartbeatError::UnknownSession => (StatusCode::CONFLICT, "unknown_session", "Another session"),
            },
            Self::Events(error) => match error {
                EventsError::Compacted { .. } => (StatusCode::GONE, "compacted", "That history is forgotten"),
                EventsError::Store { .. } => INTERNAL,
            },
            Self::NotJson(_) => (StatusCode::BAD_REQUEST, "invalid_json", "Not valid JSON"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_input", "The input is not valid"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly"),
            Self::BodyBroken => (StatusCode::BAD_REQUEST, "body_broken", "The body is incomplete"),
            Self::MediaType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Not JSON"),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path", "No such path"),
            Self::MethodNotAllowed { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed")
            }
            Self::HostNotAllowed { .. } => (StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", "Host not allowed"),
            Self::OriginNotAllowed { .. } => (StatusCode::FORBIDDEN, "origin_not_allowed", "Origin not allowed"),
            Self::NoSuchTransition(_) => (StatusCode::NOT_FOUND, "no_such_transition", "No such transition"),
            Self::MoveUnseen(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", "It is taken, and not seen yet")
            }
            Self::IdempotencyKey => {
                (StatusCode::BAD_REQUEST, "idempotency_key_unsupported", "Idempotency keys are not known yet")
            }
            Self::NoActive { .. } => (StatusCode::SERVICE_UNAVAILABLE, "no_active", "No instance is active"),
            Self::NoInstance(_) => (StatusCode::SERVICE_UNAVAILABLE, "no_instance", "No instance may be called"),
            Self::Behind { .. } => (StatusCode::SERVICE_UNAVAILABLE, "behind", "This node is behind"),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "Not ready"),
            Self::PreconditionFailed(_) => {
                (StatusCode::PRECONDITION_FAILED, "precondition_failed", "The precondition does not hold")
            }
            Self::Reply(_) | Self::Internal { .. } | Self::Panicked(_) => INTERNAL,
        }
    }

    fn detail(&self) -> String {
        if self.kind() == INTERNAL {
            // The number joins the two stories without telling the stranger the inner one.
            let incident = uuid::Uuid::now_v7();
            tracing::error!(%incident, error = %chain(self), "a request failed inside");
            return format!("the request failed inside the node; its log tells more under incident {incident}");
        }
        if let Self::Propose(ProposeError::Unknown) = self {
            return "the request was handed on and no answer came back: it may still happen, or have happened. Look \
                    before you repeat it"
                .to_owned();
        }
        if let Self::Propose(ProposeError::NoLeader) = self {
            return "no majority of the nodes answers, so nothing can be decided; nothing was changed".to_owned();
        }
        if let Self::Read(ReadError::NoQuorum) = self {
            return "no majority of the nodes answers, so this node cannot know what is true now; ?consistency=stale \
                    answers from its own copy"
                .to_owned();
        }
        self.to_string()
    }

    /// The error as a stranger is told it.
    fn problem(self) -> (StatusCode, Problem) {
        let (status, code, title) = self.kind();
        let mut problem = Problem {
            kind: format!("urn:baton:problem:{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
            code: code.to_owned(),
            ..Problem::default()
        };
        if let Self::NoActive { phase, .. } = self {
            problem.phase = Some(phase);
        } else if let Self::Events(EventsError::Compacted { through }) = self {
            problem.compacted_through = Some(through);
        } else if let Self::Invalid(errors) = self {
            problem.errors = errors;
        } else if let Self::NotJson(error) = self {
            problem.errors = vec![error];
        }
        (status, problem)
    }
}

/// An error with what led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        told.push_str(": ");
        told.push_str(&inner.to_string());
        source = inner.source();
    }
    told
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, problem) = self.problem();
        // A problem is made of texts and numbers: it always serializes. Were it otherwise, the status would have to do.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: ApiError) -> (u16, Problem) {
        let (status, problem) = error.problem();
        assert_eq!(
            (status.as_u16(), problem.kind.clone()),
            (problem.status, format!("urn:baton:problem:{}", problem.code))
        );
        (problem.status, problem)
    }

    #[test]
    fn refusals_keep_their_word_and_get_a_status() {
        let service: ServiceName = "orders".parse().expect("a name");
        let missing = told(Refusal::NoSuchService { service: service.clone() }.into());
        assert_eq!((missing.0, missing.1.code.as_str()), (404, "no_such_service"));
        let moved = told(Refusal::GenerationMismatch { expected: 1, actual: 2 }.into());
        assert_eq!((moved.0, moved.1.code.as_str()), (412, "generation_mismatch"));
        let other = told(Refusal::NotActivePassive { service }.into());
        assert_eq!((other.0, other.1.code.as_str()), (409, "not_active_passive"));
    }

    #[test]
    fn without_a_quorum_nothing_happened_and_without_an_answer_it_may_have() {
        let none = told(ProposeError::NoLeader.into());
        assert_eq!((none.0, none.1.code.as_str()), (503, "no_quorum"));
        assert!(none.1.detail.contains("nothing was changed"), "{}", none.1.detail);
        let unknown = told(ProposeError::Unknown.into());
        assert_eq!((unknown.0, unknown.1.code.as_str()), (503, "outcome_unknown"));
        assert!(unknown.1.detail.contains("may still happen"), "{}", unknown.1.detail);
        assert_eq!(told(ReadError::NoQuorum.into()).1.code, "no_quorum");
        let response = ApiError::from(ReadError::NoQuorum).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    }

    #[test]
    fn extra_members_are_there_when_they_are_meant() {
        let phase = Phase::FailingOver;
        let no_active = |mode| ApiError::NoActive { service: "orders".parse().expect("a name"), mode, phase };
        let none = told(no_active(Mode::ActivePassive));
        assert_eq!((none.0, none.1.phase), (503, Some(phase)));
        assert!(none.1.detail.contains("failing_over") && none.1.detail.contains("/explain"), "{}", none.1.detail);
        let all = told(no_active(Mode::ActiveActive)).1.detail;
        assert!(all.contains("all that may be called serve") && all.contains("/v1/services/orders/pick"), "{all}");
        let gone = told(EventsError::Compacted { through: 9 }.into());
        assert_eq!((gone.0, gone.1.compacted_through), (410, Some(9)));
        let text = serde_json::to_string(&told(invalid("limit", "is wrong")).1).expect("it serializes");
        assert!(text.contains(r#""errors":[{"path":"limit","message":"is wrong"}]"#), "{text}");
        assert!(!text.contains("phase") && !text.contains("compacted"), "{text}");
    }

    #[test]
    fn a_stranger_is_not_told_the_inside() {
        let source = std::io::Error::other("/var/lib/secret is on fire");
        let (status, problem) = told(ApiError::internal("reading", source));
        assert_eq!((status, problem.code.as_str()), (500, "internal"));
        assert!(!problem.detail.contains("fire") && problem.detail.contains("incident"), "{}", problem.detail);
        assert!(!told(ApiError::Panicked("index out of bounds".to_owned())).1.detail.contains("bounds"));
    }
}
