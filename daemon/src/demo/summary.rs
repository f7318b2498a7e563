//! What was expected and what held, and the tables at the end of the play.

use crate::terminal::output::{BAD, GOOD, STRONG, Table, cell, length, paint, styled};

use super::calls::Totals;
use super::feed::Heard;
use baton_core::event::EventKind;

/// One thing that was expected.
#[derive(Debug)]
struct Expectation {
    what: String,
    held: bool,
    measured: String,
}

/// All that was expected until now.
#[derive(Debug, Default)]
pub(super) struct Report {
    expectations: Vec<Expectation>,
    complete: bool,
}

impl Report {
    /// Notes one thing.
    pub(super) fn note(&mut self, what: &str, held: bool, measured: &str) {
        self.expectations.push(Expectation { what: what.to_owned(), held, measured: measured.to_owned() });
    }

    /// Nothing more is expected.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    /// Whether everything held; `None` before the last act.
    pub(super) fn held(&self) -> Option<bool> {
        self.complete.then(|| self.expectations.iter().all(|expectation| expectation.held))
    }

    /// The table of expectations.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(["", "EXPECTED", "MEASURED"]);
        for expectation in &self.expectations {
            let mark = if expectation.held { styled(GOOD, "✓") } else { styled(BAD, "✗") };
            table.row([mark, cell(&expectation.what), cell(&expectation.measured)]);
        }
        table
    }

    /// The last line.
    pub(super) fn verdict(&self) -> String {
        let held = self.expectations.iter().filter(|expectation| expectation.held).count();
        let all = self.expectations.len();
        let style = if held == all { GOOD } else { BAD };
        paint(style.bold(), &format!("{held} of {all} expectations held"))
    }
}

/// The table of calls by server.
pub(super) fn calls_table(totals: &Totals) -> Table {
    let mut table = Table::new(["SERVER", "CALLS", "OK", "FAILED", "MEAN", "SLOWEST"]);
    for (server, count) in &totals.per_server {
        let mean = u32::try_from(count.ok).ok().filter(|&ok| ok > 0).map(|ok| count.total / ok);
        let micros = |time: std::time::Duration| format!("{:.1} ms", time.as_secs_f64() * 1_000.0);
        table.row([
            cell(server),
            cell(count.calls),
            cell(count.ok),
            cell(count.calls - count.ok),
            cell(mean.map_or_else(|| "-".to_owned(), micros)),
            cell(micros(count.slowest)),
        ]);
    }
    table.row([
        styled(STRONG, "all"),
        styled(STRONG, totals.calls()),
        styled(STRONG, totals.ok()),
        styled(STRONG, totals.calls() - totals.ok()),
        cell(""),
        cell(""),
    ]);
    table
}

/// Every promotion in order: who, by which token, how long it took by the cluster's own clock.
pub(super) fn promotions_table(promotions: &[Promotion]) -> Table {
    let mut table = Table::new(["TOKEN", "MOVE", "FROM", "TO", "TOOK", "REVISION"]);
    for promotion in promotions {
        table.row([
            styled(STRONG, promotion.token),
            cell(&promotion.kind),
            cell(promotion.from.as_deref().unwrap_or("-")),
            styled(STRONG, &promotion.to),
            cell(promotion.took_ms.map_or_else(|| "-".to_owned(), length)),
            cell(promotion.revision),
        ]);
    }
    table
}

/// One promotion, as the stream told it and its record explains it.
#[derive(Clone, Debug)]
pub(super) struct Promotion {
    /// The token.
    pub(super) token: u64,
    /// The kind of the move.
    pub(super) kind: String,
    /// Who was active before.
    pub(super) from: Option<String>,
    /// Who is active after.
    pub(super) to: String,
    /// From the first failed probe to the promotion.
    pub(super) took_ms: Option<u64>,
    /// The event's revision.
    pub(super) revision: u64,
}

/// The events that made somebody active.
pub(super) fn promotions_heard(heard: &[Heard]) -> impl Iterator<Item = &Heard> {
    heard.iter().filter(|heard| {
        heard.event.kind == EventKind::ActiveChanged && heard.event.to.as_ref().is_some_and(Option::is_some)
    })
}
