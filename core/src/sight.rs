//! Whether a node may trust its own eyes: "everything that others see well fails to me, at once, so it is I who am ill".
//!
//! The intuition: a node whose way to the instances is cut (a cable, a route, a firewall rule, its own exhausted ports)
//! sees what it would see if they had all died. Its own looks cannot tell it which. What tells is the others: they heard
//! its doubt, looked at once, and still say `up`. One instance that fails to this node alone is worth an accusation, for
//! the way to that one may be cut for clients too, and one accuser is no quorum. All of them at once is not.
//!
//! ```text
//!   fails to me ─▶ suspect, at once: it makes the others look
//!        │ long enough to be down
//!        ▼
//!   half of the others doubt it, or none has looked ─────▶ down       (a death; a lone node)
//!        │ more of them say up
//!        ▼
//!   a fresh look at other instances ─ some are well ─────▶ down       (the way to this one is cut)
//!        │ they fail too, and others see them well
//!        ▼
//!   others have had time to look into my doubt ─ not yet ▶ suspect    (wait)
//!        │ and still say up
//!        ▼
//!   ill: unknown, for everything that fails to me
//! ```
//!
//! Nobody waits for ever. An ill node only stands back while more of the others say `up` of what it sees failing than
//! doubt it, so while it would be in the minority with those who see as it does: two blinded nodes of five do not vouch for
//! each other. A real mass failure makes everybody doubt, and doubts that were committed are what lets the others accuse. A lone observer, or one whose fellows have not looked, accuses as it always did. The idea is Lifeguard's (Dadgar,
//! Phillips and Currey, "Lifeguard: Local health awareness for more accurate failure detection", 2018): whoever hears
//! many failures should first look for the fault in itself.
//!
//! Only counting: no time, no state of the cluster, no probing. Whoever looks and waits is the daemon's monitor.

use crate::id::NodeId;
use crate::probe::Verdict;
use crate::state::Instance;

/// Fewer instances than this that fail to this node alone say nothing about the node: one way may be cut.
pub const FAILING_MIN: usize = 2;

/// The share of what others see well, in percent, from which its failing to this node makes the node ill.
const ILL_PERCENT: usize = 80;

/// The share below which an ill node is well again. Far from the first, so that a half-mended way does not make it
/// change its mind with every look.
const WELL_PERCENT: usize = 50;

/// What the other observers of an instance say of it, as committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nothing: there are none, or none has looked.
    Silent,
    /// More say `up` than anything else.
    Well,
    /// At least as many say `suspect` or `down` as say `up`: with this node, the majority of those who say anything.
    Doubt,
}

impl Others {
    /// What is said of `instance` by all but `me`. Whoever is counted out or ill holds no verdict, and is not heard here.
    pub fn of(instance: &Instance, me: NodeId) -> Self {
        let records = instance.verdicts.iter().filter(|(observer, _)| **observer != me);
        Self::saying(records.map(|(_, record)| record.verdict))
    }

    /// What these verdicts of others come to.
    pub fn saying(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let (up, doubt) = verdicts.into_iter().fold((0_usize, 0_usize), |(up, doubt), verdict| match verdict {
            Verdict::Up => (up + 1, doubt),
            Verdict::Suspect | Verdict::Down => (up, doubt + 1),
            Verdict::Unknown => (up, doubt),
        });
        match (up, doubt) {
            (0, 0) => Self::Silent,
            (up, doubt) if doubt >= up => Self::Doubt,
            (..) => Self::Well,
        }
    }
}

/// One instance as a fresh look of this node saw it, beside what the others say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether the look failed.
    pub failed: bool,
    /// What the others say.
    pub others: Others,
}

/// What was seen when this node looked around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Instances that others see well.
    pub seen_well: usize,
    /// Those of them that fail to this node.
    pub failing_well: usize,
    /// All that fail to this node.
    pub failing: usize,
}

impl Stock {
    /// Counts looks.
    pub fn of(looks: impl IntoIterator<Item = Look>) -> Self {
        looks.into_iter().fold(Self::default(), |stock, look| {
            let well = look.others == Others::Well;
            Self {
                seen_well: stock.seen_well + usize::from(well),
                failing_well: stock.failing_well + usize::from(well && look.failed),
                failing: stock.failing + usize::from(look.failed),
            }
        })
    }

    /// Everything seems to fail, to this node alone.
    const fn looks_ill(self) -> bool {
        let Self { seen_well, failing_well, failing } = self;
        failing_well >= FAILING_MIN && failing_well * 100 >= seen_well * ILL_PERCENT && failing_well * 2 > failing
    }

    /// Enough is seen as the others see it, or the others see most of the failures too.
    const fn looks_well(self) -> bool {
        let Self { seen_well, failing_well, failing } = self;
        failing_well * 100 < seen_well * WELL_PERCENT || failing_well * 2 < failing || seen_well == 0
    }
}

/// An instance has failed to this node for long enough to be held `down`: what is known beside that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accusation {
    /// What the others say of it.
    pub others: Others,
    /// What this node saw when it looked around since the failing began; none where it has not, or is still looking.
    pub stock: Option<Stock>,
    /// Whether this node's doubt is committed for so long that the others have looked into it.
    pub looked_into: bool,
}

/// What a node says of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The verdict.
    pub verdict: Verdict,
    /// Whether it is `unknown` because the node does not trust itself.
    pub ill: bool,
}

/// What may be said of an instance that is held `down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// That it is down.
    Down,
    /// Only that it is doubted, until more is known.
    Doubt,
    /// Nothing: this node does not trust itself.
    Unknown,
}

/// A change of a node's trust in itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It no longer trusts what it sees.
    FellIll,
    /// It does again. What it saw while it was ill must be forgotten.
    Recovered,
}

/// Whether a node trusts what it sees. It does at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelfTrust {
    ill: bool,
}

impl SelfTrust {
    /// Whether it does not.
    pub const fn is_ill(self) -> bool {
        self.ill
    }

    /// What to say of an instance whose detectors hold `held` and of which `committed` is what was said last. Makes the
    /// node ill where that is the better explanation of what it sees.
    pub const fn say(&mut self, held: Verdict, committed: Verdict, accusation: Accusation) -> Said {
        let word = match held {
            Verdict::Up | Verdict::Unknown => return Said { verdict: held, ill: false },
            Verdict::Suspect if self.ill => Word::Unknown,
            Verdict::Suspect => return Said { verdict: held, ill: false },
            Verdict::Down => self.word(accusation),
        };
        let verdict = match (word, committed) {
            // What was said with good reason is not taken back while it is looked into.
            (Word::Down, _) | (Word::Doubt, Verdict::Down) => Verdict::Down,
            (Word::Doubt, Verdict::Unknown | Verdict::Up | Verdict::Suspect) => Verdict::Suspect,
            (Word::Unknown, _) => Verdict::Unknown,
        };
        Said { verdict, ill: matches!(word, Word::Unknown) }
    }

    /// What may be said of an instance that fails.
    const fn word(&mut self, accusation: Accusation) -> Word {
        if self.ill {
            return Word::Unknown;
        }
        match (accusation.others, accusation.stock) {
            (Others::Silent | Others::Doubt, _) => Word::Down,
            (Others::Well, None) => Word::Doubt,
            (Others::Well, Some(stock)) if !stock.looks_ill() => Word::Down,
            (Others::Well, Some(_)) if !accusation.looked_into => Word::Doubt,
            (Others::Well, Some(_)) => {
                self.ill = true;
                Word::Unknown
            }
        }
    }

    /// Takes note of another look around. Only an ill node learns from it: what makes it ill is an accusation.
    pub const fn look_around(&mut self, stock: Stock) -> Option<Turn> {
        if self.ill && stock.looks_well() {
            self.ill = false;
            return Some(Turn::Recovered);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks as a word: `w` others well and so do I, `W` others well and it fails to me, `d` and `D` others doubt it,
    /// `s` and `S` others are silent.
    fn stock(looks: &str) -> Stock {
        Stock::of(looks.chars().map(|look| Look {
            failed: look.is_ascii_uppercase(),
            others: match look.to_ascii_lowercase() {
                'w' => Others::Well,
                'd' => Others::Doubt,
                _ => Others::Silent,
            },
        }))
    }

    #[test]
    fn what_is_said_follows_from_what_is_held_and_from_trust() {
        use Verdict::{Down, Suspect, Unknown, Up};
        let accusation =
            |looks: Option<&str>| Accusation { others: Others::Well, stock: looks.map(stock), looked_into: true };
        // Held, committed, what it saw when it looked around, what it says.
        for (held, committed, looks, said, ill) in [
            (Up, Down, None, Up, false),
            (Unknown, Up, None, Unknown, false),
            (Suspect, Up, Some("WWWW"), Suspect, false),
            // It has not looked around yet: a doubt, unless it said more with good reason before.
            (Down, Up, None, Suspect, false),
            (Down, Suspect, None, Suspect, false),
            (Down, Down, None, Down, false),
            (Down, Suspect, Some("Wwww"), Down, false),
            (Down, Suspect, Some("WWWW"), Unknown, true),
        ] {
            let mut trust = SelfTrust::default();
            let told = trust.say(held, committed, accusation(looks));
            assert_eq!(told, Said { verdict: said, ill }, "{held}, {committed}, {looks:?}");
            assert_eq!(trust.is_ill(), ill);
        }
        let mut ill = SelfTrust { ill: true };
        for (held, said, is_ill) in [(Up, Up, false), (Suspect, Unknown, true), (Down, Unknown, true)] {
            assert_eq!(ill.say(held, Up, accusation(None)), Said { verdict: said, ill: is_ill }, "{held}");
        }
    }

    fn accuse(looks: &str) -> Word {
        let mut trust = SelfTrust::default();
        let word = trust.word(Accusation { others: Others::Well, stock: Some(stock(looks)), looked_into: true });
        assert_eq!(trust.is_ill(), word == Word::Unknown);
        word
    }

    #[test]
    fn others_doubt_when_those_who_doubt_are_no_fewer_than_those_who_say_up() {
        use Verdict::{Down, Suspect, Unknown, Up};
        for (said, others) in [
            (vec![], Others::Silent),
            (vec![Unknown, Unknown], Others::Silent),
            (vec![Up, Unknown], Others::Well),
            (vec![Suspect, Unknown], Others::Doubt),
            (vec![Up, Down], Others::Doubt),
            (vec![Up, Up, Down], Others::Well),
            (vec![Up, Suspect, Down], Others::Doubt),
            (vec![Up, Up, Suspect, Down], Others::Doubt),
            (vec![Up, Up, Up, Down], Others::Well),
        ] {
            assert_eq!(Others::saying(said.clone()), others, "{said:?}");
        }
    }

    #[test]
    fn everything_that_others_see_well_failing_at_once_is_the_nodes_own_illness() {
        for (looks, word) in [
            ("WW", Word::Unknown),
            ("WWWWWWWW", Word::Unknown),
            // Four of five are enough, three of four are not.
            ("WWWWw", Word::Unknown),
            ("WWWw", Word::Down),
            // One alone says nothing about the node.
            ("W", Word::Down),
            ("WwwwW", Word::Down),
            // What others doubt too, or nobody else has seen, is no sign of the node's own illness.
            ("WWDD", Word::Down),
            ("WWD", Word::Unknown),
            ("WWSS", Word::Down),
            ("Wd", Word::Down),
        ] {
            assert_eq!(accuse(looks), word, "{looks}");
        }
    }

    #[test]
    fn whoever_is_not_contradicted_accuses_without_looking_around() {
        for others in [Others::Silent, Others::Doubt] {
            let mut trust = SelfTrust::default();
            for stock in [None, Some(stock("WWWW"))] {
                let accusation = Accusation { others, stock, looked_into: false };
                assert_eq!(trust.word(accusation), Word::Down, "{accusation:?}");
            }
        }
    }

    #[test]
    fn a_contradicted_accuser_looks_around_and_waits_for_the_others() {
        let mut trust = SelfTrust::default();
        let mut word = |stock, looked_into| trust.word(Accusation { others: Others::Well, stock, looked_into });
        assert_eq!(word(None, true), Word::Doubt, "it has not looked around");
        assert_eq!(word(Some(stock("WWWW")), false), Word::Doubt, "they have not looked into it");
        assert_eq!(word(Some(stock("Wwww")), false), Word::Down, "its sight is good: only this one fails");
        assert_eq!(word(Some(stock("WWWW")), true), Word::Unknown);
        assert_eq!(word(Some(stock("Wwww")), true), Word::Unknown, "until it has looked around again");
        assert!(trust.is_ill());
    }

    #[test]
    fn an_ill_node_is_well_when_it_sees_half_or_when_others_see_what_it_saw() {
        for (looks, recovers) in [
            ("WWWW", false),
            ("WWWw", false),
            ("WWww", false),
            ("Wwww", true),
            ("www", true),
            // A real mass failure: the others doubt as well.
            ("WWDD", false),
            ("WDDD", true),
            ("DDDD", true),
            // Nobody contradicts it any more.
            ("SSSS", true),
            ("", true),
        ] {
            let mut trust = SelfTrust { ill: true };
            assert_eq!(trust.look_around(stock(looks)), recovers.then_some(Turn::Recovered), "{looks}");
            assert_eq!(trust.is_ill(), !recovers, "{looks}");
        }
        let mut well = SelfTrust::default();
        assert_eq!(well.look_around(stock("WWWW")), None, "looking alone makes nobody ill");
        assert!(!well.is_ill());
    }

    /// Two to five observers, whose ways to a mass of instances really end at different times: however the news of
    /// doubts and verdicts run, a quorum says down in the end.
    #[test]
    fn no_order_of_looks_makes_all_observers_stand_back_from_a_real_mass_failure() {
        for observers in 2..=5_usize {
            // In each round one observer speaks of one of the instances; its number decides the order.
            for order in 0..200_usize {
                let mut trust = vec![SelfTrust::default(); observers];
                let mut said = vec![Verdict::Up; observers];
                for round in 0..8 * observers {
                    let me = (order / (1 + round % 7) + round * (1 + order % observers)) % observers;
                    // In the last rounds everybody has its turn.
                    let me = if round >= 6 * observers { round % observers } else { me };
                    let others = said.iter().enumerate().filter(|(other, _)| *other != me);
                    let others = Others::saying(others.map(|(_, verdict)| *verdict));
                    let stock = Stock::of([Look { failed: true, others }; 4]);
                    let _ = trust[me].look_around(stock);
                    let looked_into = said[me] == Verdict::Suspect;
                    said[me] = match trust[me].word(Accusation { others, stock: Some(stock), looked_into }) {
                        Word::Down => Verdict::Down,
                        Word::Doubt => Verdict::Suspect,
                        Word::Unknown => Verdict::Unknown,
                    };
                }
                let down = said.iter().filter(|verdict| **verdict == Verdict::Down).count();
                assert!(down > observers / 2, "{observers} observers in order {order}: {said:?}");
            }
        }
    }
}
