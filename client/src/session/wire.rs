//! The requests of a session, each at one endpoint, and what their answers mean. When they are sent is `live`'s.

use std::time::Duration;

use baton_core::holder::{LeaseAnswer, RoleAnswer};
use baton_core::id::{InstanceId, ServiceName, Token};
use baton_core::policy::OnQuorumLoss;
use baton_core::probe::LocalTime;
use baton_core::state::Phase;
use reqwest::Method;
use serde::Serialize;
use tokio::sync::mpsc;

use super::boot_time;
use super::line::Release;
use crate::error::ClientError;
use crate::http::{Client, query_escape};
use crate::sse::SseParser;
use crate::view::{HeartbeatAnswer, HeartbeatRequest, Role};

/// Silence after which a role stream is given up. Servers send a comment every two seconds.
const STREAM_SILENCE: Duration = Duration::from_secs(7);
/// The wait before a role stream is opened again; it doubles from failure to failure.
const STREAM_BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// The longest such wait.
const STREAM_BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Time for the first try of a release or the like at one endpoint. A committed entry takes milliseconds, and saying it twice does no harm:
/// an endpoint that hangs must not hold up the others.
const SAY_FIRST: Duration = Duration::from_millis(300);
/// Time for later tries: a cluster that is busy answers within its own limit of two seconds.
const SAY_LATER: Duration = Duration::from_millis(2_500);
/// The wait between two rounds through the endpoints; it doubles.
const SAY_PAUSE_FIRST: Duration = Duration::from_millis(10);
/// The longest such wait.
const SAY_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long one that leaves says so at least, and how long at most where its lease has no end: somebody waits for its end.
pub(super) const LEAVE_LEAST: Duration = Duration::from_secs(2);
const LEAVE_MOST: Duration = Duration::from_secs(60);

/// Where an instance is, and who speaks for it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) client: Client,
    pub(super) service: ServiceName,
    pub(super) instance: InstanceId,
    /// The session.
    pub(super) session: String,
}

/// What a heartbeat came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The role, and the lease if there is one.
    Role { answer: RoleAnswer, phase: Phase },
    /// It is the active one, and was granted no time: the cluster is not sure of itself yet, or another is being promoted, which
    /// may still fail. It is neither a lease nor a word to stop.
    NotGranted,
    /// Another registration has taken its place.
    Superseded,
    /// The instance is registered no more.
    Removed,
    /// The cluster says no, for a reason that does not pass.
    Refused(String),
    /// There was no answer, or none that counts.
    Nothing(String),
}

/// What became of something that was said until somebody heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The cluster has heard it.
    Heard,
    /// It means nothing any more: another session, another holder, no such instance.
    Moot,
    /// The instance is the active one: it must name the token.
    Holds,
    /// Nobody could be told in time.
    Late,
}

#[derive(Serialize)]
struct ReleaseBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Token>,
    session: &'a str,
    leaving: bool,
    reason: &'a str,
}

#[derive(Serialize)]
struct AckBody<'a> {
    token: Token,
    session: &'a str,
}

impl Line {
    fn path(&self, what: &str) -> String {
        format!("/v1/services/{}/instances/{}/{what}", self.service, self.instance)
    }

    /// Sends one heartbeat to one endpoint.
    pub(super) async fn beat(&self, index: usize, timeout: Duration) -> Heard {
        let body = HeartbeatRequest { session: self.session.clone(), state: None, lag: None };
        heard(self.client.write_at((Method::POST, index), &self.path("heartbeat"), &body, timeout).await)
    }

    /// Gives a token back. One that stays says so until it is heard: while the cluster does not know, it gives the service to
    /// nobody. One that leaves waits until its lease is over anyway, and is a candidate no more whoever holds the service.
    pub(super) async fn release(&self, first: usize, release: Release, until: LocalTime) {
        let Release { token, leaving, reason } = &release;
        let body = ReleaseBody { token: Some(*token), session: &self.session, leaving: *leaving, reason };
        let now = boot_time();
        let last = leaving.then(|| until.max(now.plus(LEAVE_LEAST)).min(now.plus(LEAVE_MOST)));
        if self.say(first, "release", &body, last).await == Said::Moot && *leaving {
            self.leave(first, reason, boot_time().plus(LEAVE_LEAST)).await;
        }
    }

    /// Says that the instance goes away, and holds nothing.
    pub(super) async fn leave(&self, first: usize, reason: &str, last: LocalTime) -> Said {
        let body = ReleaseBody { token: None, session: &self.session, leaving: true, reason };
        self.say(first, "release", &body, Some(last)).await
    }

    /// Says that the instance serves.
    pub(super) async fn acknowledge(&self, first: usize, token: Token) {
        self.say(first, "ack", &AckBody { token, session: &self.session }, None).await;
    }

    /// Says something at one endpoint after the other until the cluster has heard it, or says that it means nothing, or it is
    /// too late. No other refusal counts: a node that is misled, overloaded or not sure of us does not speak for the cluster.
    async fn say(&self, first: usize, what: &str, body: &(impl Serialize + Sync), last: Option<LocalTime>) -> Said {
        let path = self.path(what);
        let (mut pause, mut limit) = (SAY_PAUSE_FIRST, SAY_FIRST);
        while last.is_none_or(|last| boot_time() < last) {
            for step in 0..self.client.endpoints().count() {
                let limit = last.map_or(limit, |last| limit.min(last.since(boot_time())));
                let at = (Method::POST, first + step);
                match self.client.write_at::<_, serde_json::Value>(at, &path, body, limit).await {
                    Ok(_) => return Said::Heard,
                    Err(ClientError::Problem(problem)) if matches!(problem.status, 404 | 409) => {
                        return if problem.code == "is_active" { Said::Holds } else { Said::Moot };
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SAY_PAUSE_MAX);
            limit = SAY_LATER;
        }
        Said::Late
    }

    /// Follows the role stream at one endpoint after the other, and tells of every push. What is pushed counts for nothing:
    /// the heartbeat that it prompts does.
    pub(super) async fn follow(&self, mut index: usize, prompt: mpsc::Sender<()>) {
        let path = self.path(&format!("role?session={}", query_escape(&self.session)));
        let mut pause = STREAM_BACKOFF_FIRST;
        while !prompt.is_closed() {
            if self.read_stream(index, &path, &prompt).await {
                pause = STREAM_BACKOFF_FIRST;
            }
            index += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(STREAM_BACKOFF_MAX);
        }
    }

    /// Reads one stream to its end; whether anything came.
    async fn read_stream(&self, index: usize, path: &str, prompt: &mpsc::Sender<()>) -> bool {
        let mut any = false;
        let Ok(mut response) = self.client.open_stream(index, path, None, STREAM_SILENCE).await else { return any };
        let mut parser = SseParser::default();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(STREAM_SILENCE, response.chunk()).await {
            let Ok(frames) = parser.push(&chunk) else { return any };
            if !frames.is_empty() {
                any = true;
                // One that waits to be heard is as good as two.
                let _ = prompt.try_send(());
            }
        }
        any
    }
}

fn heard(answer: Result<HeartbeatAnswer, ClientError>) -> Heard {
    match answer {
        Ok(answer) => role(&answer),
        Err(ClientError::Problem(problem)) => match (problem.status, problem.code.as_str()) {
            (409, "unknown_session") => Heard::Superseded,
            (404, "no_such_instance") => Heard::Removed,
            // Too many requests, or a slow one: it passes.
            (408 | 429, _) => Heard::Nothing(ClientError::Problem(problem).to_string()),
            (400..500, _) => Heard::Refused(ClientError::Problem(problem).to_string()),
            _ => Heard::Nothing(ClientError::Problem(problem).to_string()),
        },
        Err(
            error @ (ClientError::Endpoint { .. }
            | ClientError::NoConnection { .. }
            | ClientError::NoAnswer { .. }
            | ClientError::Unexpected { .. }),
        ) => Heard::Nothing(error.to_string()),
    }
}

fn role(answer: &HeartbeatAnswer) -> Heard {
    let (phase, interval) = (answer.phase, Duration::from_millis(answer.interval_ms));
    match (answer.role, answer.token, answer.lease_ms) {
        (Role::Passive, _, _) => Heard::Role { answer: RoleAnswer { lease: None, interval }, phase },
        (Role::Active, Some(token), Some(ms)) => {
            let on_quorum_loss = answer.on_quorum_loss.unwrap_or(OnQuorumLoss::SelfFence);
            let lease = Some(LeaseAnswer { token, ttl: Duration::from_millis(ms), on_quorum_loss });
            Heard::Role { answer: RoleAnswer { lease, interval }, phase }
        }
        (Role::Active, _, _) => Heard::NotGranted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Problem;

    fn told(text: &str) -> Heard {
        heard(Ok(serde_json::from_str(text).expect("an answer")))
    }

    fn refused(status: u16, code: &str) -> Heard {
        let problem = Problem { status, code: code.to_owned(), title: "no".to_owned(), ..Problem::default() };
        heard(Err(ClientError::Problem(Box::new(problem))))
    }

    #[test]
    fn only_an_answer_with_token_and_length_is_a_lease() {
        let lease =
            |ms, on_quorum_loss| LeaseAnswer { token: Token(7), ttl: Duration::from_millis(ms), on_quorum_loss };
        let interval = Duration::from_millis(200);
        let active = |lease| Heard::Role { answer: RoleAnswer { lease: Some(lease), interval }, phase: Phase::Active };
        assert_eq!(
            told(r#"{"role":"active","token":7,"lease_ms":600,"phase":"active","interval_ms":200}"#),
            active(lease(600, OnQuorumLoss::SelfFence))
        );
        assert_eq!(
            told(
                r#"{"role":"active","token":7,"lease_ms":900,"on_quorum_loss":"freeze","phase":"active","interval_ms":200}"#
            ),
            active(lease(900, OnQuorumLoss::Freeze))
        );
        for none in
            [r#"{"role":"active","token":7,"phase":"active"}"#, r#"{"role":"active","lease_ms":5,"phase":"active"}"#]
        {
            assert_eq!(told(none), Heard::NotGranted, "{none}");
        }
        let passive = Heard::Role { answer: RoleAnswer { lease: None, interval }, phase: Phase::Switching };
        assert_eq!(told(r#"{"role":"passive","phase":"switching","interval_ms":200}"#), passive);
    }

    #[test]
    fn a_refusal_ends_the_session_and_a_failure_does_not() {
        assert_eq!(refused(409, "unknown_session"), Heard::Superseded);
        assert_eq!(refused(404, "no_such_instance"), Heard::Removed);
        for (status, code) in [(404, "no_such_service"), (409, "not_heartbeat"), (403, "forbidden")] {
            assert!(matches!(refused(status, code), Heard::Refused(_)), "{code}");
        }
        for (status, code) in [(503, "no_leader"), (500, "internal"), (429, "overloaded")] {
            assert!(matches!(refused(status, code), Heard::Nothing(_)), "{code}");
        }
    }
}
