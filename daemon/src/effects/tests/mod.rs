//! Fencing hooks against real sockets and real processes: what counts as a confirmation, and everything that does not.

mod fence_agent;
mod wanted;
mod webhook;

use std::time::Duration;

use baton_core::id::{Token, TransitionId};
use baton_core::policy::FencingHook;
use baton_core::time::Millis;

use super::hook::{HookAsk, HookConfig, HookMeans, HookResult, run_hook};
use crate::prober::ProbeConfig;

fn ask() -> HookAsk {
    HookAsk {
        transition: TransitionId(57),
        attempt: 2,
        service: "orders".parse().expect("a name"),
        instance: "a".parse().expect("a name"),
        address: Some("10.0.0.1:5432".parse().expect("an address")),
        token: Some(Token(42)),
        reason: "2 of 3 observers say down".to_owned(),
    }
}

fn means(config: HookConfig) -> HookMeans {
    HookMeans::new(3, config, &ProbeConfig::default())
}

#[track_caller]
fn assert_failed(result: &HookResult, words: &str) {
    assert!(!result.ok, "{result:?}");
    assert!(result.detail.contains(words), "\"{}\" does not say \"{words}\"", result.detail);
}

#[tokio::test]
async fn a_hook_of_both_kinds_or_of_none_is_not_guessed_at() {
    for (url, agent) in [(None, None), (Some("http://127.0.0.1:1/"), Some("off"))] {
        let (url, agent) = (url.map(str::to_owned), agent.map(str::to_owned));
        let hook = FencingHook { url, agent, timeout: Millis(1_000), attempts: 1 };
        assert_failed(&run_hook(&hook, &ask(), &means(HookConfig::default())).await, "one of `url` and `agent`");
    }
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let name = "é".repeat(300);
    let hook = FencingHook { url: None, agent: Some(name), timeout: Millis(1_000), attempts: 1 };
    let result = run_hook(&hook, &ask(), &means(HookConfig::default())).await;
    assert!(!result.ok && result.detail.len() <= 240 && result.detail.len() > 200, "{}", result.detail.len());
    assert!(result.took < Duration::from_secs(1), "{result:?}");
}
