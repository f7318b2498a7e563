//! In which order things are tried: a script whose every step has a reason, a random walk, and races. What each answer
//! must be follows from one number, the highest token so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::super::http::TOKEN_MAX;
use super::judge::{Read, Span, Write, judge_reads, judge_writes};
use super::report::{Failure, Report, Rule};
use super::seed::Seeded;
use super::{Options, Outcome, Resource, Standing, Unanswered};

/// How far a restored backup raises the tokens (2^40): farther than 32 bits reach.
const RESTORE_JUMP: u64 = 1 << 40;
/// The lowest first token: below it there must be one that can be refused.
const FIRST_MIN: u64 = 2;
/// The highest first token that leaves room for a whole run below the largest one.
const FIRST_MAX: u64 = TOKEN_MAX - 2 * RESTORE_JUMP;
/// The longest step upwards of the random walk.
const WALK_UP: u64 = 1_000;
/// In one of so many steps the random walk starts the resource again. Restarts are slow, so they are few.
const WALK_RESTART: u64 = 50;
/// A writer of a race lets others go before it up to so many times, so that the races differ.
const YIELDS: u64 = 4;

/// What is said of a resource that can be read and has nothing to show.
const NOTHING_STANDS: &str = "there is no value to read, though writes were accepted";

/// The test cannot go on.
type Broken = Box<Failure>;

/// One run against one resource.
pub(super) struct Run<R> {
    resource: Arc<R>,
    options: Options,
    random: Seeded,
    /// The highest token so far. Before the first write nothing is known.
    highest: u64,
    /// The value of the last write that was accepted.
    stands: Option<u64>,
    value: u64,
    readable: bool,
    restarts: bool,
    bare: bool,
    held: BTreeMap<Rule, u64>,
    history: Vec<String>,
}

impl<R: Resource> Run<R> {
    pub(super) fn new(resource: Arc<R>, mut options: Options) -> Self {
        options.first = options.first.clamp(FIRST_MIN, FIRST_MAX);
        Self {
            resource,
            options,
            random: Seeded::new(options.seed),
            highest: 0,
            stands: None,
            value: 0,
            readable: false,
            restarts: false,
            bare: false,
            held: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    pub(super) async fn all(mut self) -> Result<Report, Broken> {
        self.begin().await?;
        self.small_steps().await?;
        self.across_a_digit().await?;
        self.over_a_restart().await?;
        for _ in 0..self.options.steps {
            self.walk().await?;
        }
        for _ in 0..self.options.rounds {
            self.race().await?;
        }
        self.over_a_restart().await?;
        self.across_32_bits().await?;
        self.over_a_restart().await?;
        self.without_a_token().await?;
        Ok(self.report())
    }

    /// The first token, on a resource that has seen none as high.
    async fn begin(&mut self) -> Result<(), Broken> {
        self.without_a_token().await?;
        let first = self.options.first;
        if self.write(first).await? == Outcome::Refused {
            let what = format!(
                "the very first token, {first}, was refused: take a fresh resource, or begin above the highest token \
                 that this one has seen"
            );
            return Err(self.broken(Rule::HigherAccepted, what));
        }
        self.accepted(first);
        self.stands_as(Rule::AcceptedIsDone).await
    }

    async fn small_steps(&mut self) -> Result<(), Broken> {
        let first = self.options.first;
        for (token, rule) in [
            (first, Rule::EqualAccepted),
            (first + 1, Rule::HigherAccepted),
            (first, Rule::LowerRefused),
            // A refusal must not have changed what is remembered, downwards or upwards.
            (first, Rule::LowerRefused),
            (first + 1, Rule::EqualAccepted),
            (first + 50, Rule::HigherAccepted),
            (first + 49, Rule::LowerRefused),
            (first + 1, Rule::LowerRefused),
            (1, Rule::LowerRefused),
            (first + 50, Rule::EqualAccepted),
        ] {
            self.step(token, rule).await?;
        }
        Ok(())
    }

    /// 9,999 is less than 10,000, though not as text.
    async fn across_a_digit(&mut self) -> Result<(), Broken> {
        let mut power = 10;
        while power <= self.highest + 1 {
            power *= 10;
        }
        if power > FIRST_MAX {
            // The largest tokens all have as many digits.
            return Ok(());
        }
        for token in [power - 1, power, power - 1, power] {
            self.step(token, Rule::WholeNumbers).await?;
        }
        Ok(())
    }

    /// A jump as after a restored backup: cut to 32 bits it is no jump at all, and rounded to a short float its steps
    /// vanish.
    async fn across_32_bits(&mut self) -> Result<(), Broken> {
        let low = self.highest;
        let high = low + RESTORE_JUMP;
        for token in [high, low + 1, low, high + 1, high, high + 1] {
            self.step(token, Rule::WholeNumbers).await?;
        }
        Ok(())
    }

    async fn over_a_restart(&mut self) -> Result<(), Broken> {
        let resource = Arc::clone(&self.resource);
        self.restarts = self.answer("restart", resource.restart()).await?;
        if !self.restarts {
            return Ok(());
        }
        self.history.push("restart".to_owned());
        self.stands_as(Rule::RestartRemembers).await?;
        for token in [self.highest - 1, self.highest] {
            self.step(token, Rule::RestartRemembers).await?;
        }
        Ok(())
    }

    async fn without_a_token(&mut self) -> Result<(), Broken> {
        self.value += 1;
        let resource = Arc::clone(&self.resource);
        let outcome = self.answer("write without a token", resource.write_bare(self.value)).await?;
        let Some(outcome) = outcome else { return Ok(()) };
        self.bare = true;
        self.history.push(format!("write without a token, value {} → {}", self.value, word(outcome)));
        self.hold(Rule::NoTokenRefused, outcome == Outcome::Refused, || "it was accepted".to_owned())
    }

    /// One step of the random walk.
    async fn walk(&mut self) -> Result<(), Broken> {
        let highest = self.highest;
        match self.random.below(WALK_RESTART + 1) {
            0 => self.over_a_restart().await,
            n if n % 4 == 0 => {
                let token = highest + 1 + self.random.below(WALK_UP);
                self.step(token, Rule::HigherAccepted).await
            }
            n if n % 4 == 1 => self.step(highest, Rule::EqualAccepted).await,
            n if n % 4 == 2 => self.step(highest - 1, Rule::LowerRefused).await,
            _ => {
                let token = 1 + self.random.below(highest - 1);
                self.step(token, Rule::LowerRefused).await
            }
        }
    }

    /// Writes at once, each writer with its own token, all of them new.
    async fn race(&mut self) -> Result<(), Broken> {
        let writers = self.options.writers.max(2);
        let mut tokens: Vec<u64> = (1..=writers as u64).map(|above| self.highest + above).collect();
        self.random.shuffle(&mut tokens);
        let clock = Arc::new(AtomicU64::new(0));
        let start = Arc::new(Barrier::new(writers));
        let mut running = JoinSet::new();
        for (writer, token) in tokens.into_iter().enumerate() {
            let first_value = self.value + 1;
            // Some write once: what lands late is then on top of them for good.
            self.value += 1 + self.random.below(self.options.writes as u64);
            let task = Writer {
                writer,
                token,
                values: first_value..=self.value,
                random: Seeded::new(self.random.next()),
                limit: self.options.answer_within,
            };
            running.spawn(task.write(Arc::clone(&self.resource), Arc::clone(&clock), Arc::clone(&start)));
        }
        let mut seen = Seen::default();
        let mut missing = None;
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(Ok(one)) => {
                    seen.writes.extend(one.writes);
                    seen.reads.extend(one.reads);
                }
                Ok(Err(unanswered)) => missing = Some(unanswered),
                Err(error) => missing = Some(Unanswered::wrong(format!("a writer ended before its time: {error}"))),
            }
        }
        self.history.extend(seen.told());
        if let Some(Unanswered { why, silent }) = missing {
            return Err(self.unanswered(why, silent));
        }
        *self.held.entry(Rule::Answered).or_default() += seen.writes.len() as u64;
        let judged = judge_writes(&seen.writes).and_then(|()| judge_reads(&seen.writes, &seen.reads));
        if let Err((rule, what)) = judged {
            return Err(self.broken(rule, what));
        }
        for rule in [Rule::RaceLowerRefused, Rule::RaceHigherAccepted] {
            *self.held.entry(rule).or_default() += 1;
        }
        self.after_a_race(&seen.writes).await
    }

    /// What stands after a race, and whether the highest token of it is remembered.
    async fn after_a_race(&mut self, writes: &[Write]) -> Result<(), Broken> {
        self.highest += self.options.writers.max(2) as u64;
        let top = self.highest;
        let resource = Arc::clone(&self.resource);
        match self.answer("read", resource.read()).await? {
            Standing::NotOffered => {}
            Standing::Nothing => return Err(self.broken(Rule::RaceHighestStands, NOTHING_STANDS.to_owned())),
            Standing::Value(value) => {
                self.history.push(format!("read → {value}"));
                let of_top = writes.iter().any(|write| write.token == top && write.value == value);
                self.hold(Rule::RaceHighestStands, of_top, || {
                    format!("value {value} stands, which was not written with the highest token, {top}")
                })?;
                self.stands = Some(value);
            }
        }
        self.step(top - 1, Rule::RaceLowerRefused).await?;
        self.step(top, Rule::RaceHigherAccepted).await
    }

    /// Writes with `token`, and blames `rule` when the answer is not what follows from the highest one.
    async fn step(&mut self, token: u64, rule: Rule) -> Result<(), Broken> {
        let before = self.highest;
        let outcome = self.write(token).await?;
        let right = if token >= before { Outcome::Accepted } else { Outcome::Refused };
        self.hold(rule, outcome == right, || {
            format!("token {token} was {}, and the highest before it was {before}", word(outcome))
        })?;
        match outcome {
            Outcome::Accepted => {
                self.accepted(token);
                self.stands_as(Rule::AcceptedIsDone).await
            }
            Outcome::Refused => self.stands_as(Rule::RefusedIsNotDone).await,
        }
    }

    async fn write(&mut self, token: u64) -> Result<Outcome, Broken> {
        self.value += 1;
        let resource = Arc::clone(&self.resource);
        let outcome = self.answer(&format!("write token {token}"), resource.write(token, self.value)).await?;
        *self.held.entry(Rule::Answered).or_default() += 1;
        self.history.push(format!("write token {token}, value {} → {}", self.value, word(outcome)));
        Ok(outcome)
    }

    fn accepted(&mut self, token: u64) {
        self.highest = self.highest.max(token);
        self.stands = Some(self.value);
    }

    /// Reads, where that is offered, and blames `rule` when it is not the value of the last accepted write.
    async fn stands_as(&mut self, rule: Rule) -> Result<(), Broken> {
        let resource = Arc::clone(&self.resource);
        let value = match self.answer("read", resource.read()).await? {
            Standing::NotOffered => return Ok(()),
            Standing::Nothing => return Err(self.broken(rule, NOTHING_STANDS.to_owned())),
            Standing::Value(value) => value,
        };
        self.readable = true;
        let stands = self.stands;
        self.history.push(format!("read → {value}"));
        self.hold(rule, stands == Some(value), || {
            format!("value {value} is read, and the last accepted write was {}", stands.unwrap_or_default())
        })
    }

    async fn answer<T>(
        &mut self,
        what: &str,
        answer: impl Future<Output = Result<T, Unanswered>> + Send,
    ) -> Result<T, Broken> {
        match within(self.options.answer_within, answer).await {
            Ok(answer) => Ok(answer),
            Err(Unanswered { why, silent }) => {
                self.history.push(format!("{what} → {why}"));
                Err(self.unanswered(format!("{what}: {why}"), silent))
            }
        }
    }

    fn hold(&mut self, rule: Rule, holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
        if !holds {
            return Err(self.broken(rule, what()));
        }
        *self.held.entry(rule).or_default() += 1;
        Ok(())
    }

    fn unanswered(&mut self, what: String, silent: bool) -> Broken {
        let mut broken = self.broken(Rule::Answered, what);
        broken.silent = silent;
        broken
    }

    fn broken(&mut self, rule: Rule, what: String) -> Broken {
        let Options { seed, first, .. } = self.options;
        Box::new(Failure { rule, what, silent: false, seed, first, history: std::mem::take(&mut self.history) })
    }

    fn report(self) -> Report {
        let skipped = Rule::ALL.into_iter().filter(|rule| !self.held.contains_key(rule));
        let why = |rule| match rule {
            Rule::AcceptedIsDone | Rule::RefusedIsNotDone | Rule::RaceHighestStands if !self.readable => {
                "the value cannot be read"
            }
            Rule::RestartRemembers if !self.restarts => "it cannot be started again from here",
            Rule::NoTokenRefused if !self.bare => "a token cannot be left out",
            Rule::Answered
            | Rule::HigherAccepted
            | Rule::EqualAccepted
            | Rule::LowerRefused
            | Rule::WholeNumbers
            | Rule::NoTokenRefused
            | Rule::AcceptedIsDone
            | Rule::RefusedIsNotDone
            | Rule::RestartRemembers
            | Rule::RaceLowerRefused
            | Rule::RaceHigherAccepted
            | Rule::RaceHighestStands => "the options left no room for it",
        };
        Report {
            seed: self.options.seed,
            writes: self.value,
            highest: self.highest,
            skipped: skipped.map(|rule| (rule, why(rule))).collect(),
            held: self.held.iter().map(|(rule, times)| (*rule, *times)).collect(),
        }
    }
}

/// What was done in a race.
#[derive(Default)]
struct Seen {
    writes: Vec<Write>,
    reads: Vec<Read>,
}

impl Seen {
    /// All of it, in the order in which it was begun.
    fn told(&self) -> Vec<String> {
        let mut steps: Vec<(u64, String)> = self.writes.iter().map(|write| (write.span.called, write.told())).collect();
        steps.extend(self.reads.iter().map(|read| (read.span.called, read.told())));
        steps.sort();
        steps.into_iter().map(|(_, step)| step).collect()
    }
}

/// One writer of a race.
struct Writer {
    writer: usize,
    token: u64,
    values: std::ops::RangeInclusive<u64>,
    random: Seeded,
    limit: Duration,
}

impl Writer {
    /// Writes its values, and looks after each accepted one what stands.
    async fn write<R: Resource>(
        mut self,
        resource: Arc<R>,
        clock: Arc<AtomicU64>,
        start: Arc<Barrier>,
    ) -> Result<Seen, Unanswered> {
        let Self { writer, token, limit, .. } = self;
        let mut seen = Seen::default();
        start.wait().await;
        for value in self.values {
            for _ in 0..self.random.below(YIELDS) {
                tokio::task::yield_now().await;
            }
            let (outcome, span) = timed(&clock, limit, resource.write(token, value)).await?;
            seen.writes.push(Write { writer, token, value, span, outcome });
            if outcome == Outcome::Refused {
                continue;
            }
            for _ in 0..self.random.below(YIELDS) {
                tokio::task::yield_now().await;
            }
            if let (Standing::Value(value), span) = timed(&clock, limit, resource.read()).await? {
                seen.reads.push(Read { writer, value, span });
            }
        }
        Ok(seen)
    }
}

/// An answer, and when it was asked for and came.
async fn timed<T>(
    clock: &AtomicU64,
    limit: Duration,
    answer: impl Future<Output = Result<T, Unanswered>>,
) -> Result<(T, Span), Unanswered> {
    let called = clock.fetch_add(1, Ordering::SeqCst);
    let answer = within(limit, answer).await?;
    Ok((answer, Span { called, returned: clock.fetch_add(1, Ordering::SeqCst) }))
}

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, Unanswered>>) -> Result<T, Unanswered> {
    let late = || Unanswered::silent(format!("no answer within {} ms", limit.as_millis()));
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Refused => "refused",
    }
}
