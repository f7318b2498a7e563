//! One probe, from its start to its result: connects, asks as its plan says, within the plan's time. What it came to is
//! told once; nothing of it is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ::http::uri::Scheme;
use baton_core::policy::Address;
use baton_core::probe::{Distrust, FailureClass, LocalTime, Outcome, Timing, trusted};
use baton_core::time::Millis;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Clock;
use super::agent::{Agents, Asked};
use super::fault::Fault;
use super::grpc::Call;
use super::lag::LagMeter;
use super::plan::PlanKind;
use super::resolve::Resolver;
use super::schedule::TargetId;
use super::tls::{Roots, TlsPlan};
use super::{ProbeResult, Target, grpc, http, tcp};

/// What all probes of a node share.
#[derive(Debug)]
pub(crate) struct Means {
    pub(crate) clock: Clock,
    pub(crate) lag: LagMeter,
    pub(crate) resolver: Resolver,
    pub(crate) roots: Roots,
    pub(crate) agents: Agents,
}

/// How far a probe got, for whoever must say what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waiting for a connection.
    Connecting,
    /// Waiting for the TLS handshake.
    Handshake,
    /// Waiting for the status line and the headers.
    Head,
    /// Waiting for the body.
    Body,
    /// Waiting for a local command.
    Agent,
}

const STAGES: [Stage; 5] = [Stage::Connecting, Stage::Handshake, Stage::Head, Stage::Body, Stage::Agent];

/// Where a probe is. Read when it is given up, at which time nobody can be asked any more.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

impl Progress {
    /// The probe has come to `stage`.
    pub(crate) fn reached(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }

    fn waited_for(&self, timeout: Duration) -> String {
        let timeout = Millis(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        match STAGES.get(usize::from(self.0.load(Ordering::Relaxed))) {
            None | Some(Stage::Connecting) => format!("no connection within {timeout}"),
            Some(Stage::Handshake) => format!("connected, but no TLS handshake within {timeout}"),
            Some(Stage::Head) => format!("connected, but no answer within {timeout}"),
            Some(Stage::Agent) => format!("the agent did not end within {timeout}"),
            Some(Stage::Body) => format!("the body was not complete within {timeout}"),
        }
    }
}

/// One probe.
pub(crate) struct Probe {
    pub(crate) id: TargetId,
    pub(crate) target: Arc<Target>,
    /// When it was to begin.
    pub(crate) due: LocalTime,
    pub(crate) means: Arc<Means>,
}

impl Probe {
    /// Runs it.
    pub(crate) async fn run(mut self) -> ProbeResult {
        let clock = self.means.clock;
        let timeout = self.target.plan.timeout;
        if let Some(tls) = self.target.plan.tls()
            && !tls.is_ready(&self.means.roots, clock.now())
        {
            let prepared = tls.prepare(&self.means.roots, clock.now()).await;
            // This took its time before the first probe of a check, and does once an hour. It is nobody's lateness.
            self.due = clock.now();
            if let Err(Fault::Node { detail } | Fault::Target { detail, .. }) = prepared {
                let timing = Timing { due: self.due, started: self.due, ended: self.due, timeout };
                return ProbeResult { target: self.id, timing, seen: Err(Distrust::NodeShort { detail }) };
            }
        }
        let started = clock.now();
        let progress = Progress::default();
        let outcome = match tokio::time::timeout(timeout, self.attempt(&progress)).await {
            Ok(Ok(())) => Ok(Outcome::Success),
            Ok(Err(Fault::Target { class, detail })) => Ok(Outcome::failure(class, detail)),
            Ok(Err(Fault::Node { detail })) => Err(Distrust::NodeShort { detail }),
            Err(_) => Ok(Outcome::failure(FailureClass::Timeout, progress.waited_for(timeout))),
        };
        let timing = Timing { due: self.due, started, ended: clock.now(), timeout };
        let seen = outcome.and_then(|outcome| match outcome {
            Outcome::Success => Ok(Outcome::Success),
            Outcome::Failure { .. } => trusted(&timing, self.means.lag.worst_since(self.due)).map(|()| outcome),
        });
        ProbeResult { target: self.id, timing, seen }
    }

    async fn attempt(&self, progress: &Progress) -> Result<(), Fault> {
        let Target { of, address, plan, .. } = self.target.as_ref();
        let port = plan.port.unwrap_or(address.port);
        // What is large and rare is boxed: its size would be that of every probe's task.
        if let PlanKind::Agent = plan.kind {
            progress.reached(Stage::Agent);
            return Box::pin(self.means.agents.run(&Asked { check: &plan.name, of, address, port })).await;
        }
        let mut stream = tcp::connect(&self.means.resolver, &address.host, port).await?;
        if let Some(tls) = plan.tls() {
            return Box::pin(self.over_tls(tls, stream, port, progress)).await;
        }
        match &plan.kind {
            PlanKind::Agent | PlanKind::Tls(_) | PlanKind::Tcp => tcp::let_go(&stream),
            PlanKind::Http(http, _) => {
                http::ask(http, &self.authority(port), &mut stream, progress).await?;
                tcp::let_go(&stream);
            }
            PlanKind::Grpc(message, _) => {
                tcp::without_delay(&stream);
                let authority = self.authority(port);
                let call = Call { scheme: Scheme::HTTP, authority, message, timeout: plan.timeout };
                Box::pin(grpc::ask(call, stream, progress)).await?;
            }
        }
        Ok(())
    }

    async fn over_tls(&self, tls: &TlsPlan, stream: TcpStream, port: u16, progress: &Progress) -> Result<(), Fault> {
        let plan = &self.target.plan;
        progress.reached(Stage::Handshake);
        tcp::without_delay(&stream);
        let Means { clock, roots, .. } = self.means.as_ref();
        let mut stream = tls.shake(&self.target.address.host, stream, roots, clock.now()).await?;
        match &plan.kind {
            PlanKind::Agent | PlanKind::Tcp | PlanKind::Tls(_) => {
                // Said goodbye to, so that the server's log has no complaint. Whether it hears it is not asked.
                let _ = stream.shutdown().await;
            }
            PlanKind::Http(http, _) => {
                http::ask(http, &self.authority(port), &mut stream, progress).await?;
                tcp::let_go(stream.get_ref().0);
            }
            PlanKind::Grpc(message, _) => {
                let authority = self.authority(port);
                let call = Call { scheme: Scheme::HTTPS, authority, message, timeout: plan.timeout };
                grpc::ask(call, stream, progress).await?;
            }
        }
        Ok(())
    }

    /// What the instance is called in a request.
    fn authority(&self, port: u16) -> String {
        Address { host: self.target.address.host.clone(), port }.to_string()
    }
}
