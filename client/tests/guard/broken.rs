//! Resources that are wrong on purpose, each in one way that people really get wrong. The conformance run must find
//! each of them out, and by the rule that names the mistake.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_client::guard::conformance::{self, Options, Outcome, Resource, Rule, Standing, Unanswered};
use tokio::task::yield_now;

/// What a resource does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    ForgetsOnRestart,
    ForgetsTheLastOneOnRestart,
    LosesItsValueOnRestart,
    RefusesAfterARestart,
    AcceptsEverything,
    AcceptsOneLower,
    RemembersTheLastInsteadOfTheHighest,
    RefusesEqual,
    ComparesText,
    CutsTo32Bits,
    RoundsToFloat,
    NeedsNoToken,
    WritesWhatItRefuses,
    WritesNothing,
    ChecksThenRecords,
    RecordsThenWrites,
    RefusesWhenBusy,
    NeverAnswers,
    FailsNowAndThen,
}

#[derive(Clone, Copy, Default)]
struct Kept {
    highest: u64,
    value: u64,
}

struct InMemory {
    fault: Fault,
    kept: Mutex<Kept>,
    busy: Mutex<BTreeSet<u64>>,
}

impl InMemory {
    fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, kept: Mutex::default(), busy: Mutex::default() })
    }

    fn kept<T>(&self, work: impl FnOnce(&mut Kept) -> T) -> T {
        work(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether `token` may pass where `highest` was seen, as this resource has it.
    fn passes(&self, token: u64, highest: u64) -> bool {
        match self.fault {
            Fault::AcceptsEverything => true,
            Fault::AcceptsOneLower => token + 1 >= highest,
            Fault::RefusesEqual => token > highest,
            Fault::ComparesText => highest == 0 || token.to_string() >= highest.to_string(),
            #[expect(clippy::cast_possible_truncation, reason = "the very mistake")]
            Fault::CutsTo32Bits => token as u32 >= highest as u32,
            #[expect(clippy::cast_precision_loss, reason = "the very mistake")]
            Fault::RoundsToFloat => token as f32 >= highest as f32,
            Fault::Nothing
            | Fault::ForgetsOnRestart
            | Fault::ForgetsTheLastOneOnRestart
            | Fault::LosesItsValueOnRestart
            | Fault::RefusesAfterARestart
            | Fault::RemembersTheLastInsteadOfTheHighest
            | Fault::NeedsNoToken
            | Fault::WritesWhatItRefuses
            | Fault::WritesNothing
            | Fault::ChecksThenRecords
            | Fault::RecordsThenWrites
            | Fault::RefusesWhenBusy
            | Fault::NeverAnswers
            | Fault::FailsNowAndThen => token >= highest,
        }
    }

    /// Comparison, record and work in one step, as it should be.
    fn at_once(&self, token: u64, value: u64) -> Outcome {
        self.kept(|kept| {
            if !self.passes(token, kept.highest) {
                if self.fault == Fault::WritesWhatItRefuses {
                    kept.value = value;
                }
                if self.fault == Fault::RemembersTheLastInsteadOfTheHighest {
                    kept.highest = token;
                }
                return Outcome::Refused;
            }
            kept.highest = token;
            if self.fault != Fault::WritesNothing {
                kept.value = value;
            }
            Outcome::Accepted
        })
    }
}

impl Resource for InMemory {
    async fn write(&self, token: u64, value: u64) -> Result<Outcome, Unanswered> {
        // Where a real one would read from its disk.
        yield_now().await;
        match self.fault {
            Fault::NeverAnswers => std::future::pending().await,
            Fault::FailsNowAndThen if value % 40 == 39 => Err(Unanswered::wrong("status 500")),
            Fault::ChecksThenRecords => {
                if !self.passes(token, self.kept(|kept| kept.highest)) {
                    return Ok(Outcome::Refused);
                }
                yield_now().await;
                self.kept(|kept| *kept = Kept { highest: token, value });
                Ok(Outcome::Accepted)
            }
            Fault::RecordsThenWrites => {
                let passed = self.kept(|kept| {
                    let passes = token >= kept.highest;
                    kept.highest = kept.highest.max(token);
                    passes
                });
                if !passed {
                    return Ok(Outcome::Refused);
                }
                yield_now().await;
                self.kept(|kept| kept.value = value);
                Ok(Outcome::Accepted)
            }
            Fault::RefusesWhenBusy => {
                let alone = {
                    let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
                    busy.insert(value);
                    busy.len() == 1
                };
                yield_now().await;
                let outcome = if alone { self.at_once(token, value) } else { Outcome::Refused };
                self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&value);
                Ok(outcome)
            }
            Fault::Nothing
            | Fault::ForgetsOnRestart
            | Fault::ForgetsTheLastOneOnRestart
            | Fault::LosesItsValueOnRestart
            | Fault::RefusesAfterARestart
            | Fault::AcceptsEverything
            | Fault::AcceptsOneLower
            | Fault::RemembersTheLastInsteadOfTheHighest
            | Fault::RefusesEqual
            | Fault::ComparesText
            | Fault::CutsTo32Bits
            | Fault::RoundsToFloat
            | Fault::NeedsNoToken
            | Fault::WritesWhatItRefuses
            | Fault::WritesNothing
            | Fault::FailsNowAndThen => Ok(self.at_once(token, value)),
        }
    }

    async fn write_bare(&self, value: u64) -> Result<Option<Outcome>, Unanswered> {
        if self.fault != Fault::NeedsNoToken {
            return Ok(Some(Outcome::Refused));
        }
        self.kept(|kept| kept.value = value);
        Ok(Some(Outcome::Accepted))
    }

    async fn read(&self) -> Result<Standing, Unanswered> {
        let value = self.kept(|kept| kept.value);
        Ok(if value == 0 { Standing::Nothing } else { Standing::Value(value) })
    }

    async fn restart(&self) -> Result<bool, Unanswered> {
        self.kept(|kept| match self.fault {
            Fault::ForgetsOnRestart => kept.highest = 0,
            Fault::ForgetsTheLastOneOnRestart => kept.highest -= 1,
            Fault::LosesItsValueOnRestart => kept.value = 0,
            Fault::RefusesAfterARestart => kept.highest += 1,
            Fault::Nothing
            | Fault::AcceptsEverything
            | Fault::AcceptsOneLower
            | Fault::RemembersTheLastInsteadOfTheHighest
            | Fault::RefusesEqual
            | Fault::ComparesText
            | Fault::CutsTo32Bits
            | Fault::RoundsToFloat
            | Fault::NeedsNoToken
            | Fault::WritesWhatItRefuses
            | Fault::WritesNothing
            | Fault::ChecksThenRecords
            | Fault::RecordsThenWrites
            | Fault::RefusesWhenBusy
            | Fault::NeverAnswers
            | Fault::FailsNowAndThen => {}
        });
        Ok(true)
    }
}

fn options(seed: u64) -> Options {
    Options { seed, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_right_passes_every_rule_under_many_seeds() {
    for seed in 0..25 {
        let report = conformance::run(InMemory::new(Fault::Nothing), options(seed)).await;
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        let tried: Vec<Rule> = report.held.iter().map(|(rule, _)| *rule).collect();
        assert_eq!(tried, Rule::ALL, "every rule is tried");
        assert!(report.skipped.is_empty(), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mistake_is_found_out_by_its_rule_under_every_seed() {
    for (fault, rules) in [
        (Fault::ForgetsOnRestart, &[Rule::RestartRemembers][..]),
        (Fault::ForgetsTheLastOneOnRestart, &[Rule::RestartRemembers]),
        (Fault::LosesItsValueOnRestart, &[Rule::RestartRemembers]),
        (Fault::RefusesAfterARestart, &[Rule::RestartRemembers]),
        (Fault::AcceptsEverything, &[Rule::LowerRefused]),
        (Fault::AcceptsOneLower, &[Rule::LowerRefused]),
        (Fault::RemembersTheLastInsteadOfTheHighest, &[Rule::LowerRefused]),
        (Fault::RefusesEqual, &[Rule::EqualAccepted]),
        (Fault::ComparesText, &[Rule::LowerRefused, Rule::WholeNumbers]),
        (Fault::CutsTo32Bits, &[Rule::WholeNumbers]),
        (Fault::RoundsToFloat, &[Rule::WholeNumbers]),
        (Fault::NeedsNoToken, &[Rule::NoTokenRefused]),
        (Fault::WritesWhatItRefuses, &[Rule::RefusedIsNotDone]),
        (Fault::WritesNothing, &[Rule::AcceptedIsDone]),
        // Which of these is seen first hangs on how the writers meet.
        (Fault::ChecksThenRecords, &[Rule::RaceLowerRefused, Rule::RaceHighestStands]),
        (Fault::RecordsThenWrites, &[Rule::RaceHighestStands]),
        (Fault::RefusesWhenBusy, &[Rule::RaceHigherAccepted, Rule::RaceLowerRefused]),
        (Fault::NeverAnswers, &[Rule::Answered]),
        (Fault::FailsNowAndThen, &[Rule::Answered]),
    ] {
        for seed in 0..5 {
            let mut options = options(seed);
            if fault == Fault::NeverAnswers {
                options.answer_within = Duration::from_millis(50);
            }
            let ended = conformance::run(InMemory::new(fault), options).await;
            let failure = ended.expect_err(&format!("{fault:?} is found out under seed {seed}"));
            assert!(rules.contains(&failure.rule), "{fault:?} is found out by {rules:?}, not by\n{failure}");
        }
    }
}

/// A resource of which nothing can be had but its answers to writes.
struct WriteOnly(InMemory);

impl Resource for WriteOnly {
    async fn write(&self, token: u64, value: u64) -> Result<Outcome, Unanswered> {
        self.0.write(token, value).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_writes_can_be_seen_the_rest_is_said_to_be_skipped_and_a_race_is_still_found_out() {
    let only = |fault| Arc::new(WriteOnly(InMemory { fault, kept: Mutex::default(), busy: Mutex::default() }));
    let report = conformance::run(only(Fault::Nothing), options(1)).await.unwrap_or_else(|failure| panic!("{failure}"));
    let skipped: Vec<Rule> = report.skipped.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(
        skipped,
        [
            Rule::NoTokenRefused,
            Rule::AcceptedIsDone,
            Rule::RefusedIsNotDone,
            Rule::RestartRemembers,
            Rule::RaceHighestStands
        ]
    );
    assert!(report.to_string().contains("skipped  a restart forgets nothing: it cannot be started again from here"));
    for seed in 0..5 {
        let ended = conformance::run(only(Fault::ChecksThenRecords), options(seed)).await;
        assert_eq!(ended.expect_err("found out").rule, Rule::RaceLowerRefused);
    }
}

#[tokio::test]
async fn a_failure_tells_the_rule_the_sequence_and_the_seed() {
    let failure = conformance::run(InMemory::new(Fault::AcceptsOneLower), options(7)).await.expect_err("found out");
    assert_eq!(
        failure.to_string(),
        "broken   a lower token is refused\n  \
         token 1000 was accepted, and the highest before it was 1001\n  \
         seed 7, first token 1000: the same on a fresh resource tries the same again\n  \
         what was done (8 steps):\n       \
         1  write without a token, value 1 → refused\n       \
         2  write token 1000, value 2 → accepted\n       \
         3  read → 2\n       \
         4  write token 1000, value 3 → accepted\n       \
         5  read → 3\n       \
         6  write token 1001, value 4 → accepted\n       \
         7  read → 4\n       \
         8  write token 1000, value 5 → accepted"
    );
}

#[tokio::test]
async fn the_same_seed_walks_the_same_way() {
    let walk = async |seed| {
        let options = Options { rounds: 0, ..options(seed) };
        // It fails late, with the whole walk in its history.
        conformance::run(InMemory::new(Fault::CutsTo32Bits), options).await.expect_err("found out").history
    };
    assert_eq!(walk(5).await, walk(5).await);
    assert_ne!(walk(5).await, walk(6).await);
}

#[tokio::test]
async fn a_resource_that_has_seen_more_is_not_called_wrong_without_saying_so() {
    let resource = InMemory::new(Fault::Nothing);
    let report =
        conformance::run(Arc::clone(&resource), options(1)).await.unwrap_or_else(|failure| panic!("{failure}"));
    let failure = conformance::run(Arc::clone(&resource), options(1)).await.expect_err("1000 is old now");
    assert!(failure.what.contains("take a fresh resource"), "{failure}");
    let above = Options { first: report.highest + 1, ..options(1) };
    conformance::run(resource, above).await.unwrap_or_else(|failure| panic!("{failure}"));
}
