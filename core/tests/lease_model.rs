//! The lease rule, model-checked: leases, seals, proofs and promotions under three nodes that elect leaders, two
//! instances, a network that loses, delays and repeats, processes that pause between any two steps, and clocks that err
//! by 1 %. Not the real code: the protocol, small enough to be explored to its last state.
//! docs/decisions/0004-the-lease-rule-is-model-checked.md says what it abstracts.
//!
//! ```text
//! cargo test -p baton-core --test lease_model                                        the quick part
//! BATON_MODEL=full cargo test -p baton-core --release --test lease_model -- --nocapture    every configuration
//! BATON_MODEL_TRACES=write cargo test -p baton-core --release --test lease_model     the transcripts anew
//! BATON_MODEL_ONLY=name ...                                                          one configuration or mutant
//! ```
//!
//! core/tests/lease_model/traces holds, for every clause of the rule, the shortest story in which leaving it out gives
//! two holders.
#![allow(clippy::disallowed_methods, reason = "a test reads its environment and its transcripts, and times itself")]

mod lease_model {
    mod clock;
    pub(crate) mod configs;
    mod holder;
    mod leader;
    pub(crate) mod model;
    pub(crate) mod mutants;
    pub(crate) mod properties;
    mod raft;
    mod service;
    mod state;
    pub(crate) mod transcript;
}

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lease_model::configs::{Config, FULL};
use lease_model::model::LeaseModel;
use lease_model::mutants::Mutant;
use lease_model::properties::{ALWAYS, Kind};
use lease_model::transcript::transcript;
use stateright::{Checker, HasDiscoveries, Model};

/// No exploration takes longer: it would not be complete, and fails.
const LIMIT: Duration = Duration::from_secs(280);

fn wanted(name: &str) -> bool {
    std::env::var("BATON_MODEL_ONLY").map_or(true, |only| only == name)
}

fn full() -> bool {
    std::env::var("BATON_MODEL").is_ok_and(|value| value == "full")
}

fn explore(config: &'static Config) {
    let watched: Vec<Kind> = ALWAYS.iter().chain(config.expects).copied().collect();
    let began = Instant::now();
    let checker = LeaseModel::new(config, None, &watched).checker().threads(1).timeout(LIMIT).spawn_bfs().join();
    let took = began.elapsed();
    println!(
        "{:<22} {:>10} states {:>11} steps, depth {:>2}, {:>6.1} s   {}",
        config.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        took.as_secs_f64(),
        config.about
    );
    let model = LeaseModel::new(config, None, &[]);
    for kind in ALWAYS {
        if let Some(path) = checker.discovery(kind.name()) {
            panic!("{}: the rule breaks \"{}\":\n{}", config.name, kind.name(), transcript(&model, path));
        }
    }
    assert!(took < LIMIT, "{}: not explored to its end in {LIMIT:?}", config.name);
    for kind in config.expects {
        assert!(checker.discovery(kind.name()).is_some(), "{}: never seen: {}", config.name, kind.name());
    }
}

#[test]
fn the_rule_holds_in_every_configuration() {
    for config in FULL {
        if wanted(config.name) && (full() || config.quick) {
            explore(config);
        }
    }
}

fn catch(mutant: Mutant) {
    let (config, breaks) = mutant.case();
    let mut text = format!("{}\n\n{}\n", mutant.name(), mutant.clause());
    for kind in breaks {
        let began = Instant::now();
        let until = HasDiscoveries::AnyOf(BTreeSet::from([kind.name()]));
        let checker = LeaseModel::new(config, Some(mutant), &[*kind])
            .checker()
            .threads(1)
            .timeout(LIMIT)
            .finish_when(until)
            .spawn_bfs()
            .join();
        let path = checker.discovery(kind.name());
        println!(
            "{:<40} {:>10} states, depth {:>2}, {:>6.1} s   {}: {}",
            mutant.name(),
            checker.unique_state_count(),
            checker.max_depth(),
            began.elapsed().as_secs_f64(),
            if path.is_some() { "breaks" } else { "DOES NOT BREAK" },
            kind.name()
        );
        let path = path.unwrap_or_else(|| panic!("{} is not caught in {}", mutant.name(), config.name));
        let model = LeaseModel::new(config, Some(mutant), &[]);
        let steps = path.clone().into_actions().len();
        text.push_str(&format!("\nBroken after {steps} steps: {}.\n\n{}", kind.name(), transcript(&model, path)));
    }
    compare(mutant, &text);
}

/// The transcript in the repository is the one that was found, or becomes it.
fn compare(mutant: Mutant, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/lease_model/traces")
        .join(format!("{}.txt", mutant.name()));
    if std::env::var("BATON_MODEL_TRACES").is_ok_and(|value| value == "write") {
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder for transcripts");
        std::fs::write(&file, text).expect("the transcript is written");
        return;
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(known, text, "{}: BATON_MODEL_TRACES=write writes it anew", file.display());
}

#[test]
fn every_clause_is_needed() {
    for mutant in Mutant::ALL {
        if wanted(mutant.name()) {
            catch(mutant);
        }
    }
}
