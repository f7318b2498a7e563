//! How things look on a terminal: tables, colours, times and ages. Nothing here knows what a service is.

use std::fmt::Write as _;
use std::io::Write as _;

use anstyle::{AnsiColor, Style};
use baton_core::time::WallTime;

/// Something good.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something bad.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something in doubt.
pub(crate) const DOUBT: Style = AnsiColor::Yellow.on_default();
/// What matters most on a line.
pub(crate) const STRONG: Style = Style::new().bold();
/// What matters least.
pub(crate) const DIM: Style = Style::new().dimmed();
/// Names of things that happened.
pub(crate) const NEWS: Style = AnsiColor::Cyan.on_default();
/// Nothing special.
pub(crate) const PLAIN: Style = Style::new();

/// `text` in `style`. Colours are taken out again on the way to a place that cannot show them.
pub(crate) fn paint(style: Style, text: &str) -> String {
    if style == PLAIN { text.to_owned() } else { format!("{style}{text}{style:#}") }
}

/// Says what went wrong, on stderr.
pub(crate) fn complain(text: &str) {
    // Nobody is left to be told when stderr is gone.
    let _ = writeln!(anstream::stderr(), "{} {text}", paint(BAD, "error:"));
}

/// Says something beside the data, on stderr.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(anstream::stderr(), "{}", paint(DIM, text));
}

/// Writes data to stdout; false when nobody reads it any more (`baton watch | head`).
pub(crate) fn data(text: &str) -> bool {
    let mut out = anstream::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).is_ok()
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

/// A cell without colour.
pub(crate) fn cell(text: impl ToString) -> Cell {
    styled(PLAIN, text)
}

/// A cell in a style.
pub(crate) fn styled(style: Style, text: impl ToString) -> Cell {
    Cell { text: text.to_string(), style }
}

/// Columns under their heads, as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these heads.
    pub(crate) fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self { rows: vec![heads.iter().map(|head| styled(DIM, head)).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// The lines, each with `indent` before it and no blanks at its end.
    pub(crate) fn render(&self, indent: &str) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(&cell.text)).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            text.push_str(indent);
            let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
            for (column, cell) in row.iter().enumerate().take(last + 1) {
                text.push_str(&paint(cell.style, &cell.text));
                if column < last {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{:1$}", "", widths[column] - width(&cell.text) + 2);
                }
            }
            text.push('\n');
        }
        text.pop();
        text
    }
}

/// Columns a text takes. All that is shown here is Latin, arrows and ticks: a column a character.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// The time of day of an event, in UTC.
pub(crate) fn clock(time: WallTime) -> String {
    let full = time.to_string();
    match full.split_once('T') {
        Some((_, clock)) => clock.trim_end_matches('Z').to_owned(),
        None => full,
    }
}

/// How long ago, in the two largest units: `4s`, `2m 05s`, `3h 07m`, `2d 03h`.
pub(crate) fn age(now: WallTime, then: WallTime) -> String {
    // A label from a clock that is ahead of ours is as good as now.
    let seconds = now.0.saturating_sub(then.0).max(0) / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h {:02}m", minutes % 60),
        (_, _, _) => format!("{days}d {:02}h", hours % 24),
    }
}

/// A measured length: `37 ms`, `1.24 s`.
pub(crate) fn length(ms: u64) -> String {
    if ms < 1_000 {
        return format!("{ms} ms");
    }
    let hundredths = (ms + 5) / 10;
    format!("{}.{:02} s", hundredths / 100, hundredths % 100)
}

/// What this machine's clock says; for ages and labels only.
pub(crate) fn wall_now() -> WallTime {
    WallTime(jiff::Timestamp::now().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let mut table = Table::new(["NAME", "HEALTH", ""]);
        table.row([cell("a"), styled(GOOD, "healthy"), cell("")]);
        table.row([cell("long-name"), styled(BAD, "✗"), cell("why")]);
        assert_eq!(plain(&table.render("  ")), "  NAME       HEALTH\n  a          healthy\n  long-name  ✗        why");
    }

    #[test]
    fn times_of_day_keep_their_milliseconds() {
        assert_eq!(clock(WallTime(1_763_635_320_007)), "10:42:00.007");
        assert_eq!(clock(WallTime(i64::MAX)), format!("{}ms", i64::MAX));
    }

    #[test]
    fn ages_have_two_units() {
        let told = |seconds: i64| age(WallTime(seconds * 1_000), WallTime(0));
        assert_eq!([told(0), told(59), told(65)], ["0s", "59s", "1m 05s"]);
        assert_eq!([told(3 * 3_600 + 420), told(2 * 86_400 + 3 * 3_600)], ["3h 07m", "2d 03h"]);
        assert_eq!(age(WallTime(0), WallTime(5_000)), "0s");
    }

    #[test]
    fn lengths_are_rounded_not_cut() {
        assert_eq!([length(7), length(999), length(1_000), length(1_239)], ["7 ms", "999 ms", "1.00 s", "1.24 s"]);
    }
}
