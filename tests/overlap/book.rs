//! The history and its checker. Nothing here knows what was done to the cluster; of processes it knows only which were stopped
//! and woken, because of those less can be claimed.
//!
//! What is claimed, and of which writes:
//!
//! 1. *No two holders.* From the first to the last line of a token is its interval. No interval begins before every interval of
//!    a lower token has ended; nor does a line of a lower token stand behind one of a higher (the file has the order in which
//!    the kernel wrote). Lines count that were written by a process that had not been stopped, and those of a stopped process
//!    from before it was woken: a process that is killed is judged to its last line, whoever killed it, the processes orphaned
//!    by a kill -9 of `baton run` included, since its watchdog ends them.
//!    A process that is stopped for longer than its lease and woken is beyond the reach of any lease, and beyond its own
//!    supervisor where that was stopped with it: it may have had one write under way and makes a few more until it is killed. These lines are
//!    counted and not judged here: they are what 3 is for.
//! 2. *One token, one process*: all lines of a token come from one process of one instance.
//! 3. *The guard* accepts no token lower than one it accepted before; and it refuses nobody but processes that were stopped
//!    and woken: a refusal of any other is the sight of two holders at once.
//! 4. *Answers*: `GET …/active` answers with a token; an answer that was asked for after another had come has no lower token,
//!    whichever nodes were asked.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::guard::Tried;

/// Breaches that are kept: one more says nothing new.
const BREACHES_MAX: usize = 20;

/// One token's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tenure {
    pub(super) token: u64,
    pub(super) instance: String,
    pub(super) pid: u32,
    /// The time of its first line and of its last, in nanoseconds.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Lines that are judged.
    pub(super) lines: u64,
}

/// An answer of `GET …/active`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) node: u64,
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) token: u64,
}

/// What is seen over a whole run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) lines: u64,
    pub(super) after_waking: u64,
    pub(super) holders: usize,
    /// The smallest distance between two neighbouring intervals, and the largest, in nanoseconds.
    pub(super) nearest: Option<u64>,
    pub(super) gap: Option<u64>,
}

/// A process that was stopped, once or more.
#[derive(Clone, Copy, Debug, Default)]
struct Stopped {
    /// When it was woken last, and the highest token of which a line was there by then: by a higher one it works anew.
    woken: Option<(u64, u64)>,
}

impl Stopped {
    /// Whether what it did at this time by this token is beyond any lease.
    fn excuses(self, at: u64, token: u64) -> bool {
        self.woken.is_some_and(|(woken, highest)| at >= woken && token <= highest)
    }
}

/// The history as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Book {
    path: PathBuf,
    offset: u64,
    rest: String,
    tenures: BTreeMap<u64, Tenure>,
    stopped: BTreeMap<u32, Stopped>,
    highest_line: u64,
    /// The newest judged line.
    newest: Option<(u64, u64)>,
    after_waking: u64,
    tried: usize,
    accepted: u64,
    breaches: Vec<String>,
}

impl Book {
    pub(super) fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// This process is about to be stopped.
    pub(super) fn stops(&mut self, pid: u32) {
        self.stopped.entry(pid).or_default();
    }

    /// This process is about to be woken; what was written before has been read.
    pub(super) fn wakes(&mut self, pid: u32, at: u64) {
        let highest = self.highest_line;
        self.stopped.insert(pid, Stopped { woken: Some((at, highest)) });
    }

    /// Reads what was added to the file.
    pub(super) fn read(&mut self) {
        let mut file = File::open(&self.path).expect("the shared file");
        file.seek(SeekFrom::Start(self.offset)).expect("a place in the file");
        let mut text = std::mem::take(&mut self.rest);
        let before = text.len();
        file.read_to_string(&mut text).expect("lines of text");
        self.offset += u64::try_from(text.len() - before).expect("a length");
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.rest = text.split_off(whole);
        for line in text.lines() {
            self.line(line);
        }
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let parsed = || {
            let &[at, instance, token, pid] = words.as_slice() else { return None };
            Some((at.parse::<u64>().ok()?, instance, token.parse::<u64>().ok()?, pid.parse::<u32>().ok()?))
        };
        let Some((at, instance, token, pid)) = parsed() else { return self.breach(&format!("no line: {line:?}")) };
        let stopped = self.stopped.get(&pid);
        if stopped.is_some_and(|stopped| stopped.excuses(at, token)) {
            self.after_waking += 1;
            return;
        }
        // Of a stopped process one write may have been under way, and come to be when it woke.
        if token < self.highest_line && stopped.is_none() {
            let highest = self.highest_line;
            self.breach(&format!("a line of token {token} ({instance}, pid {pid}) at {at} behind one of {highest}"));
        }
        self.highest_line = self.highest_line.max(token);
        self.newest = self.newest.max(Some((at, token)));
        let fresh = || Tenure { token, instance: instance.to_owned(), pid, first: at, last: at, lines: 0 };
        let tenure = self.tenures.entry(token).or_insert_with(fresh);
        tenure.lines += 1;
        tenure.first = tenure.first.min(at);
        tenure.last = tenure.last.max(at);
        if tenure.pid != pid || tenure.instance != instance {
            let first = format!("{} of {}", tenure.pid, tenure.instance);
            self.breach(&format!("token {token} was held by process {first} and by {pid} of {instance}"));
        }
    }

    /// Reads what was asked of the guard since the last look at it.
    pub(super) fn guarded(&mut self, tried: &[Tried]) {
        self.tried += tried.len();
        for try_ in tried {
            let Tried { at, token, pid, highest } = *try_;
            if try_.accepted() {
                if token < self.accepted {
                    self.breach(&format!("the guard accepted {token} after {}", self.accepted));
                }
                self.accepted = self.accepted.max(token);
            } else if !self.stopped.get(&pid).is_some_and(|stopped| stopped.excuses(at, token)) {
                self.breach(&format!(
                    "pid {pid}, never woken, presented {token} at {at}, after {highest} was presented"
                ));
            }
        }
    }

    /// How many tries were read.
    pub(super) fn tried(&self) -> usize {
        self.tried
    }

    /// The newest line's token and time.
    pub(super) fn newest(&self) -> Option<(u64, &Tenure)> {
        self.newest.and_then(|(at, token)| self.tenures.get(&token).map(|tenure| (at, tenure)))
    }

    /// All tenures of which a line was read, by token.
    pub(super) fn tenures(&self) -> impl Iterator<Item = &Tenure> {
        self.tenures.values()
    }

    fn breach(&mut self, what: &str) {
        if self.breaches.len() < BREACHES_MAX {
            self.breaches.push(what.to_owned());
        }
    }

    /// Everything that must not be, as far as the history was read.
    pub(super) fn breaches(&self) -> Vec<String> {
        let mut found = self.breaches.clone();
        let mut before: Option<&Tenure> = None;
        for tenure in self.tenures.values() {
            if let Some(older) = before
                && tenure.first <= older.last
            {
                let by = older.last - tenure.first;
                found.push(format!("two holders for {by} ns: {tenure:?} began before the end of {older:?}"));
            }
            if before.is_none_or(|older| older.last < tenure.last) {
                before = Some(tenure);
            }
        }
        found
    }

    /// The figures so far.
    pub(super) fn figures(&self) -> Figures {
        let mut figures = Figures { after_waking: self.after_waking, ..Figures::default() };
        let mut before: Option<u64> = None;
        for tenure in self.tenures.values() {
            figures.lines += tenure.lines;
            figures.holders += 1;
            if let Some(ended) = before {
                let distance = tenure.first.saturating_sub(ended);
                figures.nearest = Some(figures.nearest.map_or(distance, |least| least.min(distance)));
                figures.gap = figures.gap.max(Some(distance));
            }
            before = before.max(Some(tenure.last));
        }
        figures
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: Option<u64>| {
            ns.map_or_else(|| "-".to_owned(), |ns| format!("{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000))
        };
        let Self { lines, after_waking, holders, nearest, gap } = *self;
        let (nearest, gap) = (ms(nearest), ms(gap));
        write!(f, "{holders} holders, {lines} lines, {after_waking} lines after waking; ")?;
        write!(f, "smallest distance between two holders {nearest}, longest gap without one {gap}")
    }
}

/// Answers that went back in time.
pub(super) fn stale_answers(told: &[Told]) -> Vec<String> {
    let mut by_end: Vec<&Told> = told.iter().collect();
    by_end.sort_by_key(|told| told.answered);
    let mut by_start = by_end.clone();
    by_start.sort_by_key(|told| told.asked);
    let mut ended = by_end.into_iter().peekable();
    let mut known: Option<&Told> = None;
    let mut found = Vec::new();
    for answer in by_start {
        while let Some(earlier) = ended.next_if(|earlier| earlier.answered < answer.asked) {
            if known.is_none_or(|best| best.token < earlier.token) {
                known = Some(earlier);
            }
        }
        if let Some(earlier) = known.filter(|earlier| earlier.token > answer.token)
            && found.len() < BREACHES_MAX
        {
            let nodes = (answer.node, earlier.node);
            found.push(format!("{answer:?} was asked for after {earlier:?} had come; nodes {nodes:?}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, woken: &[(u32, u64)]) -> Book {
        let mut book = Book::default();
        for (pid, at) in woken {
            book.stopped.insert(*pid, Stopped { woken: Some((*at, 8)) });
        }
        text.lines().for_each(|line| book.line(line.trim()));
        book
    }

    #[test]
    fn holders_one_after_the_other_are_well() {
        let book = read("1000000 a 5 70\n3000000 a 5 70\n9500000 b 8 71\n9900000 b 8 71\n10000000 a 9 72", &[]);
        assert_eq!(book.breaches(), Vec::<String>::new());
        let said = book.figures().to_string();
        assert!(
            said.starts_with("3 holders, 5 lines") && said.contains("0.100 ms") && said.contains("6.500 ms"),
            "{said}"
        );
        assert_eq!(book.newest().map(|(at, tenure)| (at, tenure.token)), Some((10_000_000, 9)));
    }

    #[test]
    fn two_holders_at_once_are_seen() {
        for (what, text) in [
            ("two holders for 1000 ns", "1000 a 5 70\n3000 a 5 70\n2000 b 8 71"),
            ("two holders for 0 ns", "1000 a 5 70\n2000 a 5 70\n2000 b 8 71"),
            ("a line of token 5", "1000 a 5 70\n5000 b 8 71\n4000 a 5 70"),
            ("two holders for 2000 ns", "1000 a 5 70\n2000 b 8 71\n3000 c 9 72\n4000 a 5 70"),
            ("held by process 70 of a and by 71 of a", "1000 a 5 70\n2000 a 5 71"),
            ("held by process 70 of a and by 70 of b", "1000 a 5 70\n2000 b 5 70"),
            ("no line", "1000 a 5"),
        ] {
            let found = read(text, &[]).breaches();
            assert!(found.iter().any(|breach| breach.contains(what)), "{what}: {found:?}");
        }
    }

    #[test]
    fn a_process_that_was_woken_is_judged_to_the_moment_when_it_woke() {
        let late = "1000 a 5 70\n5000 b 8 71\n1500 a 5 70\n9000 a 5 70\n9500 b 8 71";
        assert_eq!(read(late, &[(70, 8_000)]).breaches(), Vec::<String>::new());
        assert_eq!(read(late, &[(70, 8_000)]).figures().after_waking, 1);
        // By a new token it works anew, and is judged again.
        let anew = "1000 a 5 70\n5000 b 8 71\n9000 a 9 70\n9100 b 8 71";
        assert_eq!(read(anew, &[(70, 8_000)]).breaches().len(), 2);
        // One that worked on while it was believed to be stopped is judged.
        let on = "1000 a 5 70\n5000 b 8 71\n6000 a 5 70";
        assert_eq!(read(on, &[(70, 8_000)]).breaches().len(), 1);
    }

    #[test]
    fn the_guard_sees_two_holders_too() {
        let tried = |token, pid, highest| Tried { at: 9_000, token, pid, highest };
        let mut book = read("", &[(70, 8_000)]);
        book.guarded(&[tried(5, 70, 5), tried(8, 71, 8), tried(5, 70, 8), tried(8, 71, 8)]);
        assert_eq!(book.breaches(), Vec::<String>::new(), "one that woke late is refused, and that is right");
        book.guarded(&[tried(7, 72, 8)]);
        assert!(book.breaches()[0].contains("never woken"), "{:?}", book.breaches());
        // A guard that does not guard.
        let mut book = Book::default();
        book.guarded(&[tried(8, 71, 8), tried(5, 70, 5)]);
        assert!(book.breaches()[0].contains("accepted 5 after 8"), "{:?}", book.breaches());
    }

    #[test]
    fn an_answer_that_went_back_in_time_is_seen() {
        let told = |asked, answered, token| Told { node: 1, asked, answered, token };
        assert_eq!(stale_answers(&[told(1, 4, 5), told(2, 3, 8), told(5, 6, 8), told(3, 9, 5)]), Vec::<String>::new());
        let found = stale_answers(&[told(4, 5, 5), told(1, 3, 8)]);
        assert!(found.len() == 1 && found[0].contains("token: 5"), "{found:?}");
    }
}
