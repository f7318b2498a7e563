//! The supervisor's decisions on injected time, as transcripts; and a machine that is played with at random, whose rules are
//! looked at after every step.

use std::time::Duration;

use baton_client::{Release, SessionEvent, SessionOver};
use baton_core::id::Token;
use baton_core::probe::LocalTime;
use rustix::process::Signal;

use super::rules::{AckBy, Restart, Rules, margin};
use super::supervisor::{Input, Output, Supervisor};
use super::words::Ended;

const fn at(ms: u64) -> LocalTime {
    LocalTime(Duration::from_millis(ms))
}

/// A supervisor and what it did.
struct Play {
    supervisor: Supervisor,
    now: u64,
    told: Vec<String>,
}

fn told(output: &Output) -> String {
    match output {
        Output::Start(token) => format!("START {token}"),
        Output::Signal(signal) => format!("SIGNAL {}", signal.as_raw()),
        Output::Kill => "KILL".to_owned(),
        Output::Release(Release { token, leaving, .. }) => {
            format!("RELEASE {token} {}", if *leaving { "leaving" } else { "staying" })
        }
        Output::Acknowledge(token) => format!("ACK {token}"),
        Output::Leave(_) => "LEAVE".to_owned(),
        Output::Say(line) => line.clone(),
        Output::Exit(code) => format!("EXIT {code}"),
    }
}

impl Play {
    /// Leases of 10 s: a grace of 2.5 s, a margin of 0.5 s.
    fn new(restart: Restart) -> Self {
        let rules = Rules { restart, ack: AckBy::Manual, grace: None, stop_timeout: Duration::from_secs(30) };
        Self { supervisor: Supervisor::new("orders/a".to_owned(), "CMD".to_owned(), rules), now: 0, told: Vec::new() }
    }

    /// Lets the time pass and every deadline within it.
    fn wait(&mut self, until: u64) -> &mut Self {
        while let Some(wake) = self.supervisor.wake_at().filter(|wake| *wake <= at(until)) {
            let wake = u64::try_from(wake.0.as_millis()).expect("short");
            assert!(wake > self.now, "at {} it wants to be woken at {wake}: it would never sleep", self.now);
            self.now = wake;
            self.step(Input::Time);
        }
        self.now = until;
        self
    }

    fn step(&mut self, input: Input) {
        let outputs = self.supervisor.step(at(self.now), input);
        self.told.extend(outputs.iter().map(|output| format!("{:>6} {}", self.now, told(output))));
    }

    fn hears(&mut self, event: SessionEvent) -> &mut Self {
        self.step(Input::Session(event));
        self
    }

    fn active(&mut self, token: u64, until: u64) -> &mut Self {
        self.hears(SessionEvent::Active { token: Token(token), until: at(until), ttl: Duration::from_secs(10) })
    }

    fn extended(&mut self, token: u64, until: u64) -> &mut Self {
        self.hears(SessionEvent::Extended { token: Token(token), until: at(until) })
    }

    fn step_down(&mut self, token: u64) -> &mut Self {
        self.hears(SessionEvent::StepDown { token: Token(token), reason: "switchover to b".to_owned() })
    }

    fn released(&mut self, token: u64) -> &mut Self {
        self.hears(SessionEvent::Released { token: Token(token) })
    }

    /// The child itself ends, and a moment later its group is empty.
    fn ends(&mut self, how: Ended) -> &mut Self {
        self.step(Input::Ended(how));
        self.now += 1;
        self.step(Input::Empty);
        self
    }

    fn asked(&mut self, signal: Signal) -> &mut Self {
        self.step(Input::Asked(signal));
        self
    }

    /// What it did must be this, line by line.
    #[track_caller]
    fn did(&self, wanted: &str) {
        let wanted: Vec<&str> = wanted.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let told: Vec<&str> = self.told.iter().map(|line| line.trim()).collect();
        assert_eq!(told, wanted, "\n{}\n", self.told.join("\n"));
    }
}

#[test]
fn a_child_runs_while_its_lease_is_renewed_and_its_end_ends_everything() {
    let mut play = Play::new(Restart::Never);
    play.hears(SessionEvent::Passive { active: "b".parse().ok() });
    play.hears(SessionEvent::Passive { active: "b".parse().ok() });
    play.wait(1_000).active(17, 11_000).wait(5_000).extended(17, 15_000).wait(9_000).extended(17, 19_000);
    // Late answers to older requests take nothing back.
    play.extended(17, 12_000).extended(16, 99_000);
    play.wait(15_900).ends(Ended::Code(7)).wait(15_910).released(17);
    play.did(
        "0 orders/a is passive, waiting (active: b)
         1000 orders/a is active with token 17, starting CMD
         1000 START 17
         15900 KILL
         15901 CMD ended (exit code 7): releasing token 17
         15901 RELEASE 17 leaving
         15910 EXIT 7",
    );
}

#[test]
fn a_lease_that_is_not_renewed_ends_the_child_before_it_ends_itself() {
    let mut play = Play::new(Restart::Never);
    play.active(17, 10_000).wait(3_300).extended(17, 13_300);
    play.hears(SessionEvent::Unreachable { why: "connection refused".to_owned() });
    play.wait(20_000).ends(Ended::Signal(9));
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         3300 orders/a gets no answer from the cluster: connection refused
         10300 orders/a: the lease of token 17 cannot be renewed since 7 s: stopping CMD, 2.5 s at most
         10300 SIGNAL 15
         12800 CMD has not stopped in time: killing it
         12800 KILL
         13800 the lease of token 17 is over and a process of CMD lives although it was killed: only what checks tokens is safe from it
         20000 KILL
         20001 CMD ended (signal 9): releasing token 17
         20001 RELEASE 17 staying",
    );
}

#[test]
fn a_renewal_after_the_polite_word_does_not_take_it_back() {
    let mut play = Play::new(Restart::Always);
    play.active(17, 10_000).wait(7_500).extended(17, 17_500).wait(8_000).ends(Ended::Code(0)).released(17);
    play.wait(8_500).active(18, 18_500);
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         7000 orders/a: the lease of token 17 cannot be renewed since 7 s: stopping CMD, 2.5 s at most
         7000 SIGNAL 15
         8000 KILL
         8001 CMD ended (exit code 0): releasing token 17
         8001 RELEASE 17 staying
         8500 orders/a is active with token 18, starting CMD
         8500 START 18",
    );
}

#[test]
fn who_slept_through_its_lease_kills_at_once() {
    let mut play = Play::new(Restart::Never);
    play.active(17, 10_000);
    play.now = 60_000;
    play.step(Input::Time);
    play.wait(60_001).ends(Ended::Signal(9)).released(17);
    play.hears(SessionEvent::Passive { active: "b".parse().ok() });
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         60000 orders/a: the lease of token 17 has not been renewed since 60 s: killing CMD
         60000 KILL
         60001 KILL
         60002 CMD ended (signal 9): releasing token 17
         60002 RELEASE 17 staying
         60002 orders/a is passive, waiting (active: b)",
    );
}

#[test]
fn a_step_down_is_polite_until_the_lease_ends_and_the_instance_stays_a_candidate() {
    let mut play = Play::new(Restart::Never);
    play.active(17, 10_000).wait(4_000).step_down(17).wait(6_000).ends(Ended::Code(0)).released(17);
    play.hears(SessionEvent::Passive { active: "b".parse().ok() }).wait(9_000).active(21, 19_000);
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         4000 orders/a steps down (switchover to b): stopping CMD, 5.5 s at most
         4000 SIGNAL 15
         6000 KILL
         6001 CMD ended (exit code 0): releasing token 17
         6001 RELEASE 17 staying
         6001 orders/a is passive, waiting (active: b)
         9000 orders/a is active with token 21, starting CMD
         9000 START 21",
    );
    let mut play = Play::new(Restart::Never);
    play.active(17, 10_000).wait(4_000).step_down(17).wait(9_600);
    assert_eq!(play.told[4..].join("|").trim(), "9500 CMD has not stopped in time: killing it|  9500 KILL");
}

#[test]
fn a_signal_is_passed_on_and_the_childs_code_is_the_answer() {
    let mut play = Play::new(Restart::Always);
    play.active(17, 10_000).wait(2_000).asked(Signal::INT).wait(3_300).extended(17, 13_300);
    play.wait(12_000).extended(17, 22_000).wait(13_000).ends(Ended::Code(3)).released(17);
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         2000 SIGNAL 2
         13000 KILL
         13001 CMD ended (exit code 3): releasing token 17
         13001 RELEASE 17 leaving
         13001 EXIT 3",
    );
}

#[test]
fn patience_with_a_signal_ends_with_the_time_out_with_the_lease_or_with_a_second_signal() {
    let killed = |play: &Play| play.told.iter().any(|line| line.ends_with(" KILL"));
    let mut play = Play::new(Restart::Never);
    play.active(17, 40_000).asked(Signal::TERM).wait(29_999);
    assert!(!killed(&play));
    assert!(killed(play.wait(30_000)), "the time-out");
    let mut play = Play::new(Restart::Never);
    play.active(17, 10_000).asked(Signal::TERM).wait(9_499);
    assert!(!killed(&play));
    assert!(killed(play.wait(9_500)), "a margin before the lease ends");
    let mut play = Play::new(Restart::Never);
    play.active(17, 10_000).asked(Signal::TERM).wait(1_000).asked(Signal::TERM);
    assert!(killed(&play), "the second signal");
}

#[test]
fn who_waits_says_that_it_goes_and_ends() {
    let mut play = Play::new(Restart::Never);
    play.hears(SessionEvent::Passive { active: None }).asked(Signal::TERM).wait(5).hears(SessionEvent::Left);
    play.did(
        "0 orders/a is passive, waiting (nobody is active)
         0 LEAVE
         5 EXIT 143",
    );
    let mut play = Play::new(Restart::Never);
    play.asked(Signal::TERM).wait(5).asked(Signal::TERM);
    play.did("0 LEAVE\n 5 EXIT 143");
    // Promoted in that very moment.
    let mut play = Play::new(Restart::Never);
    play.asked(Signal::TERM).wait(5).active(17, 10_000).wait(6).hears(SessionEvent::Left).wait(10).released(17);
    play.did("0 LEAVE\n 5 RELEASE 17 leaving\n 10 EXIT 143");
}

#[test]
fn who_is_asked_to_end_while_its_release_is_not_heard_says_that_it_goes() {
    let stepped_down = || {
        let mut play = Play::new(Restart::Never);
        play.active(17, 10_000).wait(100).step_down(17).wait(200).ends(Ended::Code(0)).told.clear();
        play
    };
    let mut play = stepped_down();
    // The word that it stays is heard; that it goes is not yet.
    play.wait(300).asked(Signal::TERM).wait(310).released(17).wait(320).hears(SessionEvent::Left);
    play.did("300 LEAVE\n 320 EXIT 143");
    // It is active again meanwhile, and nobody was started for that.
    let mut play = stepped_down();
    play.wait(300).active(18, 10_300).asked(Signal::TERM).wait(310).released(17).wait(320).released(18);
    play.did("300 RELEASE 18 leaving\n 320 EXIT 143");
}

#[test]
fn what_was_not_started_yet_is_given_back_when_the_old_child_is_gone() {
    let replaced = || {
        let mut play = Play::new(Restart::Never);
        play.active(17, 10_000).wait(100).active(18, 10_100).told.clear();
        play
    };
    let mut play = replaced();
    play.wait(150).step_down(18).wait(200).ends(Ended::Code(0)).wait(210).released(17).released(18);
    play.did(
        "200 KILL
         201 CMD ended (exit code 0): releasing token 17
         201 RELEASE 17 staying
         201 RELEASE 18 staying",
    );
    let mut play = replaced();
    play.wait(150).asked(Signal::TERM).wait(200).ends(Ended::Code(0)).wait(210).released(17).released(18);
    play.did(
        "200 KILL
         201 CMD ended (exit code 0): releasing token 17
         201 RELEASE 17 staying
         201 RELEASE 18 leaving
         210 EXIT 0",
    );
    // Taken back by a newer answer: it is used.
    let mut play = replaced();
    play.wait(150).step_down(18).active(18, 10_150).wait(200).ends(Ended::Code(0)).released(17);
    assert_eq!(play.told.last().map(|line| line.trim()), Some("201 START 18"));
    // And while the old one is only being given back.
    let mut play = replaced();
    play.wait(200).ends(Ended::Code(0)).step_down(18).released(17);
    assert_eq!(play.told.last().map(|line| line.trim()), Some("201 RELEASE 18 staying"));
}

#[test]
fn a_child_that_runs_is_said_to_serve_unless_somebody_else_says_so() {
    for (ack, said) in [(AckBy::Started, true), (AckBy::Manual, false)] {
        let rules = Rules { restart: Restart::Never, ack, grace: None, stop_timeout: Duration::from_secs(30) };
        let mut play = Play::new(Restart::Never);
        play.supervisor = Supervisor::new("orders/a".to_owned(), "CMD".to_owned(), rules);
        play.active(17, 10_000).step(Input::Started);
        assert_eq!(play.told.last().is_some_and(|line| line.ends_with("ACK 17")), said, "{:?}", play.told);
    }
}

#[test]
fn a_failing_child_is_started_again_with_a_new_token_and_ever_longer_waits() {
    let mut play = Play::new(Restart::OnFailure);
    play.active(17, 10_000).wait(10).ends(Ended::Code(1)).released(17).active(18, 10_020).wait(200);
    play.ends(Ended::Signal(11)).released(18).wait(300).active(19, 10_300).wait(350).extended(19, 10_350).wait(500);
    play.ends(Ended::Code(0)).released(19);
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         10 KILL
         11 CMD ended (exit code 1), it may start again in 100 ms: releasing token 17
         11 RELEASE 17 staying
         11 orders/a is active with token 18, CMD starts in 100 ms
         111 orders/a is active with token 18, starting CMD
         111 START 18
         200 KILL
         201 CMD ended (signal 11), it may start again in 200 ms: releasing token 18
         201 RELEASE 18 staying
         300 orders/a is active with token 19, CMD starts in 101 ms
         401 orders/a is active with token 19, starting CMD
         401 START 19
         500 KILL
         501 CMD ended (exit code 0): releasing token 19
         501 RELEASE 19 leaving
         501 EXIT 0",
    );
}

#[test]
fn a_child_that_was_well_for_long_waits_as_after_the_first_end() {
    let mut play = Play::new(Restart::Always);
    play.active(17, 100_000).wait(10).ends(Ended::Code(1)).released(17).active(18, 100_000);
    play.wait(60_000).ends(Ended::Code(1));
    assert!(play.told.iter().any(|line| line.contains("60001 CMD ended (exit code 1), it may start again in 100 ms")));
}

#[test]
fn a_superseded_session_stops_and_releases_nothing() {
    let mut play = Play::new(Restart::Always);
    play.active(17, 10_000).wait(100).hears(SessionEvent::Over(SessionOver::Superseded)).wait(200).ends(Ended::Code(0));
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         100 orders/a has lost its session: somebody else has registered under this id; two processes must not share one
         100 SIGNAL 15
         200 KILL
         201 CMD ended (exit code 0)
         201 EXIT 6",
    );
}

#[test]
fn a_token_that_was_replaced_is_given_up_before_the_new_one_is_used() {
    let mut play = Play::new(Restart::Never);
    play.active(17, 10_000).wait(100).active(18, 10_100).wait(200).ends(Ended::Code(0)).wait(210).released(17);
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         100 orders/a is active with token 18 instead of 17: stopping CMD
         100 SIGNAL 15
         200 KILL
         201 CMD ended (exit code 0): releasing token 17
         201 RELEASE 17 staying
         210 orders/a is active with token 18, starting CMD
         210 START 18",
    );
}

#[test]
fn what_cannot_be_started_gives_its_token_back() {
    let mut play = Play::new(Restart::Never);
    play.active(17, 10_000).step(Input::NotStarted { code: 127, why: "no such file".to_owned() });
    play.released(17);
    play.did(
        "0 orders/a is active with token 17, starting CMD
         0 START 17
         0 CMD cannot be started: no such file
         0 CMD ended (exit code 127): releasing token 17
         0 RELEASE 17 leaving
         0 EXIT 127",
    );
}

#[test]
fn a_lease_that_is_nearly_over_starts_nobody() {
    let mut play = Play::new(Restart::Never);
    play.wait(7_000).active(17, 10_000).wait(7_100).extended(17, 17_100);
    play.did(
        "7100 orders/a is active with token 17, starting CMD
         7100 START 17",
    );
    let mut play = Play::new(Restart::Never);
    play.wait(7_000).active(17, 10_000).wait(20_000).extended(17, 30_000);
    play.did("10000 RELEASE 17 staying");
}

/// A generator of numbers (Marsaglia's xorshift, 2003), so that a failing play can be played again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What is true of the world that the machine acts upon.
#[derive(Default)]
struct World {
    /// The token of the group that lives.
    group: Option<u64>,
    leader_ended: bool,
    killed: bool,
    /// The newest end of each token's lease.
    until: std::collections::BTreeMap<u64, u64>,
    releasing: Option<u64>,
    /// It has been said that the instance goes.
    goes: bool,
    /// That is not answered yet.
    leaving: bool,
    /// The highest token that was given back.
    released: u64,
    over: bool,
    exited: bool,
}

impl World {
    fn apply(&mut self, seed: u64, now: u64, outputs: Vec<Output>) {
        for output in outputs {
            assert!(!self.exited, "seed {seed}, at {now}: {output:?} after the exit");
            match output {
                Output::Start(token) => {
                    assert_eq!(self.group, None, "seed {seed}, at {now}: a second group");
                    assert!(now < self.until[&token.0], "seed {seed}, at {now}: started without a lease");
                    let (until, released) = (std::mem::take(&mut self.until), self.released);
                    *self = Self { group: Some(token.0), until, released, ..Self::default() };
                }
                Output::Signal(_) => assert!(self.group.is_some(), "seed {seed}, at {now}: nobody to signal"),
                Output::Kill => self.killed = true,
                Output::Acknowledge(_) => panic!("seed {seed}, at {now}: that is not its to say"),
                Output::Release(Release { token, leaving, .. }) => {
                    assert_eq!(self.group, None, "seed {seed}, at {now}: {token} released while a group acts");
                    (self.releasing, self.goes) = (Some(token.0), self.goes | leaving);
                    self.released = self.released.max(token.0);
                }
                Output::Leave(_) => (self.goes, self.leaving) = (true, true),
                Output::Say(_) => {}
                Output::Exit(_) => {
                    assert_eq!(self.group, None, "seed {seed}, at {now}: its group survives it");
                    let newest = self.until.last_key_value().map_or(0, |(token, _)| *token);
                    assert!(self.over || self.goes, "seed {seed}, at {now}: it went without a word");
                    assert!(self.over || self.released == newest, "seed {seed}, at {now}: {newest} was not given back");
                    self.exited = true;
                }
            }
        }
        if let Some(token) = self.group {
            let ttl = Duration::from_secs(10);
            let last = self.until[&token] - u64::try_from(margin(ttl).as_millis()).expect("short");
            assert!(
                now < last || self.killed,
                "seed {seed}, at {now}: not killed a margin before {}",
                self.until[&token]
            );
        }
    }
}

#[test]
fn whatever_happens_no_group_lives_beyond_its_lease_and_no_token_is_given_back_before() {
    let mut ended = 0;
    for seed in 1..=3_000_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let restart =
            [Restart::Never, Restart::OnFailure, Restart::Always][usize::try_from(dice.below(3)).expect("0..3")];
        let mut play = Play::new(restart);
        let mut world = World::default();
        let mut newest = 0_u64;
        for _ in 0..60 {
            let until = play.now + dice.below(4_000);
            while let Some(wake) = play.supervisor.wake_at().filter(|wake| *wake <= at(until)) {
                play.now = u64::try_from(wake.0.as_millis()).expect("short");
                world.apply(seed, play.now, play.supervisor.step(at(play.now), Input::Time));
            }
            play.now = until;
            let lease = play.now + dice.below(10_000);
            let some = Token(newest.saturating_sub(dice.below(2)));
            let input = match dice.below(12) {
                0 | 1 => {
                    newest += 1;
                    world.until.insert(newest, lease);
                    let token = Token(newest);
                    Input::Session(SessionEvent::Active { token, until: at(lease), ttl: Duration::from_secs(10) })
                }
                2..=4 => {
                    // A lease that is over is not renewed; what was promised is not taken back.
                    let Some(end) = world.until.get_mut(&some.0).filter(|end| **end > play.now) else { continue };
                    *end = (*end).max(lease);
                    Input::Session(SessionEvent::Extended { token: some, until: at(lease) })
                }
                5 => Input::Session(SessionEvent::StepDown { token: some, reason: String::new() }),
                6 => Input::Session(SessionEvent::Passive { active: None }),
                7 if dice.below(8) == 0 => {
                    world.over = true;
                    Input::Session(SessionEvent::Over(SessionOver::Superseded))
                }
                8 if dice.below(8) == 0 => Input::Asked(Signal::TERM),
                9 if world.group.is_some() && !world.leader_ended => {
                    world.leader_ended = true;
                    Input::Ended(Ended::Code(u8::from(dice.below(2) == 0)))
                }
                10 if world.leader_ended => {
                    world.group = None;
                    world.leader_ended = false;
                    Input::Empty
                }
                _ => match world.releasing.take() {
                    Some(token) => Input::Session(SessionEvent::Released { token: Token(token) }),
                    None if std::mem::take(&mut world.leaving) => Input::Session(SessionEvent::Left),
                    None => Input::Time,
                },
            };
            world.apply(seed, play.now, play.supervisor.step(at(play.now), input));
        }
        ended += u32::from(world.exited);
    }
    assert!((500..2_500).contains(&ended), "{ended} of 3000 plays came to an end: the dice are loaded");
}
