//! One attempt of a fencing hook: whichever of the two kinds it is, asked once, within its time, and judged by its answer.
//! Whether there is another attempt, and when, is decided elsewhere.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use baton_core::id::{InstanceId, NodeId, ServiceName, Token, TransitionId};
use baton_core::policy::{Address, FencingHook};

use super::signature::Secret;
use super::{fence_agent, webhook};
use crate::clock::Clock;
use crate::net::target::resolve::Resolver;
use crate::net::target::tls::Roots;
use crate::prober::ProbeConfig;

/// The longest detail, in bytes: it is committed and kept in a record of which there may be thousands.
const DETAIL_MAX: usize = 240;

/// What this node's own configuration says about fencing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HookConfig {
    /// What webhooks are signed with.
    pub(crate) secret: Option<Secret>,
    /// The local commands that hooks name: the program and its arguments.
    pub(crate) agents: BTreeMap<InstanceId, Vec<String>>,
}

/// What all hooks of a node share.
#[derive(Debug)]
pub(crate) struct HookMeans {
    /// This node, for whoever must know where a command is missing.
    pub(crate) node: NodeId,
    pub(crate) config: HookConfig,
    pub(crate) clock: Clock,
    pub(crate) resolver: Resolver,
    pub(crate) roots: Roots,
    /// Whether it was said that webhooks are not signed.
    pub(crate) unsigned_said: AtomicBool,
}

impl HookMeans {
    /// For this node, which trusts whom its probes trust.
    pub(crate) fn new(node: NodeId, config: HookConfig, trust: &ProbeConfig) -> Self {
        let resolver = Resolver::new(Clock);
        let roots = Roots::with(&trust.ca, trust.ca_file.as_deref());
        Self { node, config, clock: Clock, resolver, roots, unsigned_said: AtomicBool::new(false) }
    }
}

/// Who is to be cut off, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HookAsk {
    /// The transition that wants the proof.
    pub(crate) transition: TransitionId,
    /// Which attempt of it, from 1.
    pub(crate) attempt: u32,
    pub(crate) service: ServiceName,
    /// The holder.
    pub(crate) instance: InstanceId,
    /// Where it listens, if it said so.
    pub(crate) address: Option<Address>,
    /// Its token, if it has one.
    pub(crate) token: Option<Token>,
    /// Why the transition began, in a sentence.
    pub(crate) reason: String,
}

/// How an attempt came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HookResult {
    /// Whether the holder was cut off. Anything but a clear yes is a no.
    pub(crate) ok: bool,
    /// The exit code of a fence agent that ended by itself.
    pub(crate) code: Option<i32>,
    /// The status that a webhook answered.
    pub(crate) status: Option<u16>,
    /// What happened, in a sentence, of at most [`DETAIL_MAX`] bytes.
    pub(crate) detail: String,
    /// How long it took.
    pub(crate) took: Duration,
}

impl HookResult {
    /// Nothing was run.
    pub(super) fn not_run(why: &str) -> Self {
        Self { ok: false, code: None, status: None, detail: why.to_owned(), took: Duration::ZERO }
    }
}

/// What one kind of hook says about an attempt.
pub(super) struct Told {
    pub(super) ok: bool,
    pub(super) code: Option<i32>,
    pub(super) status: Option<u16>,
    pub(super) detail: String,
}

impl Told {
    /// It failed without an exit code or a status.
    pub(super) fn failure(detail: impl Into<String>) -> Self {
        Self { ok: false, code: None, status: None, detail: detail.into() }
    }
}

/// Runs one attempt. Ends within the hook's time and a moment; whoever drops it breaks it off, and kills what it started.
pub(crate) async fn run_hook(hook: &FencingHook, ask: &HookAsk, means: &HookMeans) -> HookResult {
    let began = means.clock.now();
    let timeout = hook.timeout;
    let told = match (&hook.url, &hook.agent) {
        (Some(url), None) => webhook::call(url, timeout, ask, means).await,
        (None, Some(agent)) => fence_agent::run(agent, timeout, ask, means).await,
        // Specs are validated when they are stored, so this speaks of a spec from elsewhere.
        (Some(_), Some(_)) | (None, None) => Told::failure("fencing.hook must name one of `url` and `agent`"),
    };
    let Told { ok, code, status, mut detail } = told;
    detail.truncate(detail.floor_char_boundary(DETAIL_MAX));
    let took = means.clock.now().since(began);
    let HookAsk { transition, attempt, service, instance, .. } = ask;
    if ok {
        tracing::info!(%transition, attempt, %service, %instance, ?took, detail, "a fencing hook cut the holder off");
    } else {
        tracing::warn!(%transition, attempt, %service, %instance, ?took, detail, "a fencing hook failed");
    }
    HookResult { ok, code, status, detail, took }
}
