//! The text of a transcript: which lines are input, which are comments, which are output. What an input line means is
//! `directive`'s; nothing here knows a cluster.
//!
//! ```text
//!   # a comment, kept as it is
//!   from now all see a refused            input: begins in column 0
//!   | "more": "of it"                     the line above goes on
//!       1.2s  r12  health a: ...          output: indented; dropped when read, made anew when written
//! ```

use std::fmt;

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Its number, from 1.
    pub(crate) line: usize,
    /// The line itself.
    pub(crate) text: String,
    /// What is wrong with it, and what would be right.
    pub(crate) why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: `{}`: {}", self.line, self.text, self.why)
    }
}

/// A line, or an input with all that belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A comment or an empty line.
    Kept(&'a str),
    /// An input.
    Input(Input<'a>),
}

/// An input line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Input<'a> {
    /// Its number, from 1.
    pub(crate) line: usize,
    /// The line itself.
    pub(crate) text: &'a str,
    /// The lines by which it goes on, without their `|`.
    pub(crate) more: Vec<&'a str>,
}

impl Input<'_> {
    /// Says what is wrong with it.
    pub(crate) fn wrong(&self, why: impl Into<String>) -> Wrong {
        Wrong { line: self.line, text: self.text.to_owned(), why: why.into() }
    }
}

/// Reads a transcript. Output lines are dropped.
pub(crate) fn read(text: &str) -> Result<Vec<Piece<'_>>, Wrong> {
    let mut pieces = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |why: &str| Wrong { line: number + 1, text: line.to_owned(), why: why.to_owned() };
        if line.starts_with('\t') {
            return Err(wrong("a tab: output is indented with blanks, input begins in column 0"));
        } else if line.starts_with(' ') {
            match pieces.last() {
                Some(Piece::Input(_)) => {}
                Some(Piece::Kept(_)) | None => return Err(wrong("output belongs directly under an input")),
            }
        } else if line.is_empty() || line.starts_with('#') {
            pieces.push(Piece::Kept(line));
        } else if let Some(more) = line.strip_prefix('|') {
            match pieces.last_mut() {
                Some(Piece::Input(input)) => input.more.push(more),
                Some(Piece::Kept(_)) | None => return Err(wrong("a line goes on, and there is none above it")),
            }
        } else if line.trim_end() == line {
            pieces.push(Piece::Input(Input { line: number + 1, text: line, more: Vec::new() }));
        } else {
            return Err(wrong("blanks at its end"));
        }
    }
    match pieces.first() {
        Some(Piece::Kept(first)) if first.starts_with('#') => Ok(pieces),
        Some(_) | None => Err(Wrong {
            line: 1,
            text: text.lines().next().unwrap_or_default().to_owned(),
            why: "a transcript begins with a comment that tells its intuition".to_owned(),
        }),
    }
}

/// Writes a transcript: each input with what came of it. `outputs` has one entry an input, in order.
pub(crate) fn write(pieces: &[Piece<'_>], outputs: &[Vec<String>]) -> String {
    let mut text = String::new();
    let mut outputs = outputs.iter();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    for piece in pieces {
        match piece {
            Piece::Kept(kept) => line(kept),
            Piece::Input(input) => {
                line(input.text);
                input.more.iter().for_each(|more| line(&format!("|{more}")));
                outputs.next().into_iter().flatten().for_each(|output| line(output));
            }
        }
    }
    text
}

/// Lines around a difference that are shown with it.
const AROUND: usize = 3;

/// What differs between two texts, line by line: `-` stands only in `old`, `+` only in `new`.
pub(crate) fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // The longest common subsequence; a transcript has some hundred lines.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for (i, before) in old.iter().enumerate().rev() {
        for (j, after) in new.iter().enumerate().rev() {
            common[i][j] =
                if before == after { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines: Vec<(char, usize, &str)> = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', i + 1, old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', i + 1, old[i]));
            i += 1;
        } else {
            lines.push(('+', i + 1, new[j]));
            j += 1;
        }
    }
    let near = |place: usize| {
        let from = place.saturating_sub(AROUND);
        let to = (place + AROUND + 1).min(lines.len());
        lines[from..to].iter().any(|(mark, ..)| *mark != ' ')
    };
    let mut told = String::new();
    let mut gap = false;
    for (place, (mark, number, line)) in lines.iter().enumerate() {
        if near(place) {
            told.push_str(&format!("{number:>4} {mark} {line}\n"));
            gap = true;
        } else if std::mem::take(&mut gap) {
            told.push_str("     ...\n");
        }
    }
    told
}
