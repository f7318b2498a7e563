//! What the demo says, and how it looks: acts, sentences, events as they happen, and on a terminal a line at the bottom that
//! lives. Nothing is decided here.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use baton_core::event::Event;

use crate::terminal::output::{BAD, DIM, GOOD, NEWS, STRONG, paint};
use crate::terminal::words;

/// Pictures of the spinner.
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// The live line's width where the terminal does not say its own: one less than the narrowest usual terminal.
const WIDTH: usize = 79;
/// Characters of an event's reason that are shown: the whole of it is told from the record, once it matters.
const REASON: usize = 64;
/// The width of the line under an act's title.
const RULE: usize = 100;

/// The one mouth of the demo. Shared by all its tasks.
#[derive(Debug)]
pub(super) struct Narrator {
    began: Instant,
    /// Whether a line can be taken back.
    terminal: bool,
    colour: bool,
    width: usize,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    shown: bool,
    turn: usize,
}

impl Narrator {
    /// A narrator for this process's stdout.
    pub(super) fn new() -> Self {
        let out = std::io::stdout();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<usize>().ok());
        Self {
            began: Instant::now(),
            terminal: out.is_terminal() && !dumb,
            colour: anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never,
            width: width.map_or(WIDTH, |columns| columns.saturating_sub(1).max(20)),
            live: Mutex::new(Live::default()),
        }
    }

    /// Writes whole lines, above the live one.
    pub(super) fn print(&self, text: &str) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let clear = if std::mem::take(&mut live.shown) { "\r\u{1b}[2K" } else { "" };
        let text = if self.colour { text.to_owned() } else { anstream::adapter::strip_str(text).to_string() };
        let mut out = std::io::stdout().lock();
        // A reader that is gone (`baton demo | head`) must not keep the demo from cleaning up.
        let _ = writeln!(out, "{clear}{text}").and_then(|()| out.flush());
    }

    /// Shows `text` on the line that lives, if there is one.
    pub(super) fn live(&self, text: &str) {
        if !self.terminal {
            return;
        }
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.shown = true;
        live.turn = (live.turn + 1) % SPINNER.len();
        let line: String = format!("{} {text}", SPINNER[live.turn]).chars().take(self.width).collect();
        let line = if self.colour { paint(DIM, &line) } else { line };
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "\r\u{1b}[2K{line}").and_then(|()| out.flush());
    }

    /// Takes the live line away.
    pub(super) fn quiet(&self) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut live.shown) {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\r\u{1b}[2K").and_then(|()| out.flush());
        }
    }

    /// A new act.
    pub(super) fn act(&self, number: u32, title: &str) {
        let rule = "─".repeat(RULE.saturating_sub(title.chars().count() + 7));
        self.print(&format!("\n{}", paint(NEWS, &format!("── {number}  {} {rule}", paint(STRONG, title)))));
    }

    /// What the demo does, or what has come of it.
    pub(super) fn say(&self, text: &str) {
        self.print(&format!("{}  {text}", paint(DIM, &self.elapsed())));
    }

    /// Why, under what was said.
    pub(super) fn why(&self, text: &str) {
        self.print(&format!("{:9}{} {}", "", paint(DIM, "why:"), words::one_line(text)));
    }

    /// A measured fact, under what was said.
    pub(super) fn fact(&self, text: &str) {
        self.print(&format!("{:9}{text}", ""));
    }

    /// An event, as it came from the stream.
    pub(super) fn event(&self, event: &Event) {
        self.print(&format!("{:9}{} {}", "", paint(DIM, "│"), words::line_with(event, REASON)));
    }

    /// Whether an expectation held.
    pub(super) fn verdict(&self, held: bool, text: &str) {
        let mark = if held { paint(GOOD, "✓") } else { paint(BAD, "✗") };
        self.print(&format!("{:7}{mark} {text}", ""));
    }

    fn elapsed(&self) -> String {
        let ms = self.began.elapsed().as_millis();
        format!("{:>3}.{:01} s", ms / 1_000, ms % 1_000 / 100)
    }
}
