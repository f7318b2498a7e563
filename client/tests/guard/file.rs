//! `FileGuard`: what it admits, what it keeps, what it will not believe.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use baton_client::guard::{FileGuard, Guard, GuardError, Stale};
use baton_core::id::Token;
use tempfile::TempDir;

use crate::child::{Process, until};

fn room() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The refusal, if that is what it was.
fn stale(result: Result<(), GuardError>) -> Option<Stale> {
    match result {
        Err(GuardError::Stale(stale)) => Some(stale),
        Ok(()) | Err(_) => None,
    }
}

#[test]
fn a_lower_token_is_refused_and_an_equal_one_is_not() {
    let room = room();
    let guard = FileGuard::create(room.path().join("token"), None).expect("made");
    assert_eq!(guard.highest().expect("read"), None);
    guard.check(Token(7)).expect("the first one is the highest");
    guard.check(Token(7)).expect("an equal one is the same holder");
    assert_eq!(stale(guard.check(Token(6))), Some(Stale { presented: Token(6), highest: Token(7) }));
    assert_eq!(guard.highest().expect("read"), Some(Token(7)));
    guard.check(Token(1 << 52)).expect("a higher one");
    assert_eq!(
        guard.check(Token(7)).expect_err("refused").to_string(),
        "token 7 is stale: 4503599627370496 has been seen"
    );
}

#[test]
fn refused_work_is_not_done() {
    let room = room();
    let guard = FileGuard::create(room.path().join("token"), Some(Token(7))).expect("made");
    let mut done = Vec::new();
    for token in [6, 7, 8, 7] {
        // Which of them are refused is what `done` shows.
        let _ = guard.admit(Token(token), || done.push(token));
    }
    assert_eq!(done, [7, 8]);
}

#[test]
fn what_was_admitted_is_on_the_disk_before_the_work_begins() {
    let room = room();
    let path = room.path().join("token");
    let guard = FileGuard::create(&path, None).expect("made");
    let seen = guard.admit(Token(7), || fs::read_to_string(&path).expect("read")).expect("admitted");
    assert!(seen.starts_with("baton-guard 1 7 "), "{seen}");
}

#[test]
fn opened_again_it_remembers() {
    let room = room();
    let path = room.path().join("token");
    FileGuard::create(&path, None).expect("made").check(Token(7)).expect("admitted");
    for again in [FileGuard::open(&path), FileGuard::open_or_create(&path)] {
        let again = again.expect("opened");
        assert!(stale(again.check(Token(6))).is_some());
        again.check(Token(7)).expect("the holder goes on");
    }
    let made = FileGuard::create(&path, None).expect_err("it is there").to_string();
    assert!(made.contains("cannot create"), "{made}");
    assert_eq!(FileGuard::open(&path).expect("opened").highest().expect("read"), Some(Token(7)), "left as it was");
}

#[test]
fn a_missing_file_is_not_a_fresh_one_unless_that_is_asked_for() {
    let room = room();
    let path = room.path().join("token");
    assert!(matches!(FileGuard::open(&path), Err(GuardError::Io { step: "read", .. })));
    let guard = FileGuard::open_or_create(&path).expect("made");
    guard.check(Token(7)).expect("admitted");
    fs::remove_file(&path).expect("lost");
    assert!(matches!(guard.check(Token(6)), Err(GuardError::Io { step: "read", .. })), "lost under its hands");
}

/// Every way in which one byte, or the end, of a file may be wrong.
#[test]
fn a_torn_or_garbled_file_admits_nobody() {
    let room = room();
    let path = room.path().join("token");
    let guard = FileGuard::create(&path, Some(Token(1234))).expect("made");
    let good = fs::read(&path).expect("read");
    let mut bad: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
    for at in 0..good.len() {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128] {
            let mut one = good.clone();
            one[at] ^= flip;
            bad.push(one);
        }
    }
    bad.push([good.as_slice(), b"x"].concat());
    bad.push([good.as_slice(), good.as_slice()].concat());
    bad.push(vec![0; good.len()]);
    bad.push(vec![b'9'; 1 << 20]);
    bad.push(b"0".to_vec());
    bad.push(b"1234\n".to_vec());
    for bytes in bad {
        fs::write(&path, &bytes).expect("written");
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        for result in [guard.check(Token(1)), guard.check(Token(9999)), FileGuard::open(&path).map(|_| ())] {
            let error = result.expect_err(&shown);
            assert!(matches!(error, GuardError::Garbled { .. }), "{shown:?}: {error}");
        }
        assert!(FileGuard::open_or_create(&path).is_err(), "{shown:?} is not a missing file");
    }
    fs::write(&path, &good).expect("written");
    guard.check(Token(1234)).expect("put right by hand, it goes on");
}

#[test]
fn a_link_is_refused_since_a_rename_would_replace_it() {
    let room = room();
    let (path, link) = (room.path().join("token"), room.path().join("link"));
    FileGuard::create(&path, Some(Token(7))).expect("made");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    let error = FileGuard::open_or_create(&link).expect_err("refused").to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn what_a_dead_writer_left_behind_does_not_matter() {
    let room = room();
    let path = room.path().join("token");
    let guard = FileGuard::create(&path, Some(Token(7))).expect("made");
    fs::write(room.path().join("token.new"), "baton-guard 1 99").expect("written");
    guard.check(Token(8)).expect("admitted");
    assert_eq!(guard.highest().expect("read"), Some(Token(8)));
}

#[test]
fn after_a_failed_write_it_admits_nobody_until_it_is_opened_again() {
    let room = room();
    let path = room.path().join("token");
    let guard = FileGuard::create(&path, Some(Token(7))).expect("made");
    // A directory where the new file is to be written fails for everybody, root too.
    let in_the_way = room.path().join("token.new");
    fs::create_dir(&in_the_way).expect("made");
    assert!(matches!(guard.check(Token(8)), Err(GuardError::Io { .. })));
    fs::remove_dir(&in_the_way).expect("removed");
    assert!(matches!(guard.check(Token(7)), Err(GuardError::Broken { .. })));
    let again = FileGuard::open(&path).expect("opened");
    again.check(Token(7)).expect("8 was never admitted");
}

/// Many threads on several guards of one file: work under the guard is never that of a token lower than what was done
/// before.
#[test]
fn threads_and_guards_take_turns() {
    let room = room();
    let path = room.path().join("token");
    FileGuard::create(&path, None).expect("made");
    let last = Arc::new(AtomicU64::new(0));
    let inside = Arc::new(AtomicU64::new(0));
    let start = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8_u64)
        .map(|thread| {
            let guard = FileGuard::open(&path).expect("opened");
            let (last, inside, start) = (Arc::clone(&last), Arc::clone(&inside), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                for step in 0..25_u64 {
                    let token = 1 + step * 8 + (thread * 5 + step * 3) % 8;
                    let admitted = guard.admit(Token(token), || {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                        let before = last.swap(token, Ordering::SeqCst);
                        assert!(before <= token, "work of {token} after that of {before}");
                        // Longer than it takes another one to make its token durable, so that who comes in is met.
                        thread::sleep(Duration::from_millis(3));
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                    // A refusal is as good an outcome here; nothing else is.
                    if let Err(error) = admitted {
                        assert!(matches!(error, GuardError::Stale(_)), "{error}");
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no thread saw a fault");
    }
    let highest = FileGuard::open(&path).expect("opened").highest().expect("read");
    assert_eq!(highest, Some(Token(last.load(Ordering::SeqCst))));
}

#[test]
fn another_process_in_the_guard_is_waited_for_and_its_death_lets_go() {
    let room = room();
    let path = room.path().join("token");
    let guard = FileGuard::create(&path, None).expect("made");
    let mut holder = Process::start("hold", room.path(), "7");
    until("the other process is inside", || room.path().join("inside").exists());
    let waiting = thread::spawn(move || {
        guard.check(Token(8)).expect("admitted");
        guard
    });
    // Nothing can be waited for where nothing is to happen: a moment in which it would have come through.
    thread::sleep(Duration::from_millis(100));
    assert!(!waiting.is_finished(), "it came in beside the other process");
    holder.kill();
    let guard = waiting.join().expect("it comes in when the other one is dead");
    assert!(stale(guard.check(Token(7))).is_some(), "what the dead one was admitted with counts");
}

#[test]
fn work_that_panics_lets_the_guard_go() {
    let room = room();
    let path = room.path().join("token");
    let guard = FileGuard::create(&path, None).expect("made");
    let ended =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guard.admit(Token(7), || panic!("on purpose"))));
    assert!(ended.is_err());
    guard.check(Token(8)).expect("in the same guard");
    let other = FileGuard::open(&path).expect("opened");
    other.check(Token(8)).expect("and in another");
}
