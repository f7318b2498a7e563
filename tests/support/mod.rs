//! What every behaviour needs: a stage to play on, processes, requests, streams, hosts.
//!
//! Nothing here knows what is being tested, and nothing here sleeps in order to wait: a wait names what it waits for
//! and has a deadline.

pub(crate) mod cluster;
pub(crate) mod http;
pub(crate) mod misbehave;
pub(crate) mod netns;
pub(crate) mod patient;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod sse;
pub(crate) mod target;

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// How long an ordinary wait may last. Generous, since the machine may be busy with something else; a test that passes
/// never spends it.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How long one test may take, once it has its place on the machine.
const SCENARIO_LIMIT: Duration = Duration::from_secs(240);

/// The pause between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Places on this machine: two lone nodes at a time, or one cluster. More would make elections a matter of luck.
const PLACES: u32 = 2;
static STAGE: Semaphore = Semaphore::const_new(PLACES as usize);

/// How much of the machine a test needs.
#[derive(Clone, Copy)]
pub(crate) enum Load {
    /// One daemon, or only commands.
    Light,
    /// A cluster.
    Heavy,
}

/// Plays one test: waits for a place on the machine, then runs it in this thread (so that its output belongs to it)
/// and ends it with a panic when it takes too long, while everything that it built still stands and can show its logs.
pub(crate) fn scenario(load: Load, test: impl Future<Output = ()>) {
    scenario_within(SCENARIO_LIMIT, load, test);
}

/// The same for a test that may be told to take longer.
pub(crate) fn scenario_within(limit: Duration, load: Load, test: impl Future<Output = ()>) {
    let places = match load {
        Load::Light => 1,
        Load::Heavy => PLACES,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let _place = STAGE.acquire_many(places).await.expect("the stage is never closed");
        let mut test = pin!(test);
        tokio::select! {
            () = &mut test => {}
            () = tokio::time::sleep(limit) => panic!("the test took longer than {limit:?}"),
        }
    });
}

/// Looks again and again until `look` finds what it looks for; `Err` says what was seen instead, for the day it fails.
pub(crate) async fn until<T, E: Debug>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= end => panic!("waited {deadline:?} for {what}; last seen: {seen:?}"),
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// `Ok` with the value when the condition holds, else the value as what was seen instead: for use inside `until`.
pub(crate) fn when<T>(holds: bool, value: T) -> Result<T, T> {
    if holds { Ok(value) } else { Err(value) }
}
