//! Transcripts: stories that a person can read, told by the real core and compared with what was told before.
//!
//! Each file in `scenarios/` is one story: lines of input, and indented below each what came of it. A change of behaviour
//! shows as a diff of these files, to be read before it is believed. To write them anew:
//!
//! ```text
//! BATON_UPDATE_SCENARIOS=1 cargo test -p baton-core --test scenarios
//! ```
//!
//! The form is that of etcd-raft's and CockroachDB's data-driven tests. The language is in `scenarios/directive.rs`.

mod support;

mod scenarios {
    pub(crate) mod act;
    pub(crate) mod directive;
    pub(crate) mod judge;
    pub(crate) mod laws;
    pub(crate) mod observer;
    pub(crate) mod say;
    pub(crate) mod script;
    pub(crate) mod story;
    pub(crate) mod tell;
}

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use scenarios::directive;
use scenarios::script::{self, Piece, Wrong};
use scenarios::story::Story;

/// Set to anything, it makes the tests write the transcripts instead of comparing them.
const UPDATE: &str = "BATON_UPDATE_SCENARIOS";

/// What is said with every difference.
const HOW: &str = "If that is what should happen, write it down and read the diff:\n    \
                   BATON_UPDATE_SCENARIOS=1 cargo test -p baton-core --test scenarios";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// Tells a story. Answers the transcript as it is now, and the hash of the state at its end.
fn tell(text: &str) -> Result<(String, String), Wrong> {
    let pieces = script::read(text)?;
    let mut story = Story::new();
    let mut outputs = Vec::new();
    let mut last = Wrong { line: 0, text: String::new(), why: String::new() };
    for piece in &pieces {
        if let Piece::Input(input) = piece {
            let order = directive::read(input)?;
            outputs.push(story.obey(&order).map_err(|why| input.wrong(why))?);
            last = input.wrong("");
        }
    }
    let hash = story.end().map_err(|why| Wrong { why, ..last })?;
    Ok((script::write(&pieces, &outputs), hash))
}

#[expect(clippy::disallowed_methods, reason = "a test reads its transcripts, core itself does not")]
fn compare(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let old = std::fs::read_to_string(&path).expect("the transcript is there");
    let told = |text: &str| tell(text).unwrap_or_else(|wrong| panic!("core/tests/scenarios/{name}.txt, {wrong}"));
    let (new, hash) = told(&old);
    let (again, same) = told(&old);
    assert!(new == again && hash == same, "the same story told twice ends differently");
    if old == new {
        return;
    }
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, new).expect("the transcript can be written");
        return;
    }
    let difference = script::difference(&old, &new);
    panic!("core/tests/scenarios/{name}.txt tells another story now (- before, + now). {HOW}\n\n{difference}");
}

/// One test a transcript, and the list to compare with the folder.
macro_rules! stories {
    ($($name:ident)*) => {
        const STORIES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { compare(stringify!($name)); })*
    };
}

stories! {
    all_observers_blind
    blind_observer
    breaker_closed_to_open_by_a_row
    breaker_closed_to_open_by_rate
    breaker_half_open_to_closed
    breaker_half_open_to_open
    breaker_late_generation
    breaker_open_for_grows
    breaker_open_to_half_open
    breaker_reset
    breaker_sequence
    breaker_trials_bounded
    clock_jumps_ahead
    clock_stands_still
    combination_all
    combination_any
    deregister_after
    detector_accrual
    detector_consecutive
    detector_error_rate
    detector_health_check
    detector_slow
    detector_timeout
    draining
    failover_probes
    flapping
    grey_failure
    isolation
    late_probes
    late_results
    late_session
    maintenance
    mass_failure
    node_stalls
    observers_reassigned
    one_way_cut
    operator_reset
    quorum_number
    recovery_gradual
    recovery_immediate
    recovery_probing
    self_doubt
    veto
}

#[test]
fn no_transcript_is_forgotten() {
    let files: BTreeSet<String> = folder()
        .read_dir()
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    let told: BTreeSet<String> = STORIES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        files, told,
        "each file in core/tests/scenarios has its test in core/tests/scenarios.rs, and none has two"
    );
}

#[test]
fn what_is_not_understood_is_named_with_its_line() {
    for (text, line, why) in [
        ("wait 1s\n", 1, "begins with a comment"),
        ("# Story.\nnodes 3\n\ndance\n", 4, "no line has this form"),
        ("# Story.\nnodes three\n", 2, "not a number"),
        ("# Story.\nwait 5\n", 2, "not a length"),
        ("# Story.\nwait 5w\n", 2, "not a length"),
        ("# Story.\nwait 1s \n", 2, "blanks"),
        ("# Story.\n\twait 1s\n", 2, "a tab"),
        ("# Story.\n    1s  r1  told by nobody\n", 2, "under an input"),
        ("# Story.\n| \"checks\": []\n", 2, "goes on"),
        ("# Story.\nservice orders\n| \"chekcs\": []\n", 2, "chekcs"),
        ("# Story.\nnodes 1\n| \"checks\": []\n", 2, "only `service`"),
        ("# Story.\nservice orders\ninstance a priority\n", 3, "WORD VALUE"),
        ("# Story.\nservice orders\ninstance a size 3\n", 3, "size"),
        ("# Story.\nshow a\n", 2, "no service"),
        ("# Story.\nservice orders\nshow a\n", 3, "no instance a"),
        ("# Story.\nnodes 1\nnode 2 falls silent\n", 3, "no node 2"),
        ("# Story.\nnodes 1\nnode 1 flies\n", 3, "no line has this form"),
        ("# Story.\nservice orders\ninstance a\nnode 9 sees a ok\n", 4, "no node 9"),
        ("# Story.\nall see a sleepy\n", 2, "not an outcome"),
        ("# Story.\nall see a ok, begun yesterday\n", 2, "LENGTH late"),
        ("# Story.\ncalls to a: many ok\n", 2, "not a count"),
        ("# Story.\ncalls to a: 3 sad\n", 2, "none of"),
        ("# Story.\nalice sets a asleep: tired\n", 2, "none of"),
        ("# Story.\nalice resets a:\n", 2, "a reason is missing"),
        ("# Story.\n@ 2s wait 1s\n@ 1s wait 1s\n", 3, "3s old already"),
    ] {
        let wrong = tell(text).expect_err(text);
        assert!(wrong.line == line && wrong.why.contains(why), "{text:?}: {wrong}");
    }
}

#[test]
fn lengths_are_read_as_they_are_told() {
    for (text, ms) in
        [("300ms", 300), ("1.2s", 1_200), ("0.05s", 50), ("5m", 300_000), ("5m12.4s", 312_400), ("1h0m5s", 3_605_000)]
    {
        assert_eq!(directive::length(text).map(|length| length.0), Ok(ms), "{text}");
    }
    for ms in [0, 50, 1_200, 59_999, 60_000, 312_400, 3_605_000] {
        let told = scenarios::tell::time(baton_core::time::ClusterTime(ms));
        assert_eq!(directive::length(&told).map(|length| length.0), Ok(ms), "{told}");
    }
}

#[test]
fn a_difference_shows_its_surroundings() {
    let old: String = (1..=20).map(|line| format!("line {line}\n")).collect();
    let new = old.replace("line 10\n", "line ten\n").replace("line 20\n", "");
    let told = script::difference(&old, &new);
    let lines: Vec<&str> = told.lines().map(str::trim_start).collect();
    assert_eq!(
        lines,
        [
            "7   line 7",
            "8   line 8",
            "9   line 9",
            "10 - line 10",
            "11 + line ten",
            "11   line 11",
            "12   line 12",
            "13   line 13",
            "...",
            "17   line 17",
            "18   line 18",
            "19   line 19",
            "20 - line 20",
        ]
    );
}
