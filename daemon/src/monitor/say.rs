//! What the book says: the verdicts that differ from the committed ones, and those that it keeps to itself because it may
//! be this node that is ill. The rules of that are `baton_core::sight`'s; here is what they are asked about.

use std::time::Duration;

use baton_core::command::{VerdictReport, VerdictsRecord};
use baton_core::detector::Detector;
use baton_core::probe::{Evidence, Health, LocalTime, Verdict};
use baton_core::sight::{Accusation, Look, Others, Said, Stock, Turn};
use baton_core::state::State;

use super::Probing;
use super::book::{Book, Sight};
use super::survey::{Survey, pick};
use super::watch::Key;

/// The most verdicts in one command: a log entry of a few hundred kilobytes at most.
pub(crate) const REPORTS_MAX: usize = 500;

/// How long an accepted proposal may take to be seen in this node's own state before it is made again.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// The first wait after a proposal failed, and the longest; each failure doubles it. Short, because a failover may wait
/// for this very verdict, and one try costs the cluster little.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// The moment at which a proposal is made, and what is known then.
#[derive(Clone, Copy)]
struct Moment {
    now: LocalTime,
    /// Only probes begun at this or later count.
    sees_since: LocalTime,
    /// When this node last looked around, and what came of it; none while it is still looking.
    stock: Option<(LocalTime, Stock)>,
}

impl Book {
    /// Compares everything that is held with what is committed, at the next proposal.
    pub(crate) fn compare_all(&mut self) {
        for (name, known) in &self.watches {
            self.dirty.extend(known.keys().map(|id| (name.clone(), id.clone())));
        }
    }

    /// Compares again what was proposed a while ago and has not been seen since, and what was held back.
    pub(crate) fn compare_overdue(&mut self, now: LocalTime) {
        let overdue: Vec<Key> = self
            .awaiting
            .iter()
            .filter(|(name, id)| {
                let sent = self.watches.get(name).and_then(|known| known.get(id)).and_then(|watch| watch.sent);
                sent.is_none_or(|(_, at)| now.since(at) >= CONFIRM_WITHIN)
            })
            .cloned()
            .collect();
        for key in overdue {
            self.awaiting.remove(&key);
            self.dirty.insert(key);
        }
        self.dirty.append(&mut self.held_back);
    }

    /// When there may be something to propose, if there may be.
    pub(crate) fn wants_to_speak(&self) -> Option<LocalTime> {
        match self.sight {
            Sight::Clear { .. } if !self.dirty.is_empty() => Some(self.not_before),
            Sight::Clear { .. } | Sight::Lost { .. } => None,
        }
    }

    /// What to propose now: the verdicts that differ from the committed ones, at most [`REPORTS_MAX`] at once.
    pub(crate) fn proposal(
        &mut self,
        state: &State,
        now: LocalTime,
        prober: &mut impl Probing,
    ) -> Option<VerdictsRecord> {
        let Sight::Clear { since: sees_since } = self.sight else { return None };
        // One who is counted out is not asked. When the node counts again, a change of it brings everything up.
        if !state.nodes.get(&self.node).is_some_and(|node| node.live) {
            self.dirty.clear();
            return None;
        }
        self.examine_itself(state, now, prober);
        let moment = Moment { now, sees_since, stock: self.stock(state, now) };
        let was_ill = self.trust.is_ill();
        let mut verdicts = self.gather(state, moment, prober);
        if self.trust.is_ill() && !was_ill {
            // It fell ill over one of them, which says something about all of them.
            self.fell_ill(moment.stock);
            verdicts = self.gather(state, moment, prober);
        }
        (!verdicts.is_empty()).then_some(VerdictsRecord { observer: self.node, verdicts })
    }

    fn gather(&mut self, state: &State, moment: Moment, prober: &mut impl Probing) -> Vec<VerdictReport> {
        let mut verdicts = Vec::new();
        while verdicts.len() < REPORTS_MAX
            && let Some(key) = self.dirty.pop_first()
        {
            if let Some(report) = self.report(state, &key, moment, prober) {
                verdicts.push(report);
                self.awaiting.insert(key);
            }
        }
        verdicts
    }

    /// What must be said about one instance. `None`: nothing, or nothing yet; whatever changes that makes it dirty again.
    fn report(&mut self, state: &State, key: &Key, moment: Moment, prober: &mut impl Probing) -> Option<VerdictReport> {
        let Moment { now, sees_since, stock } = moment;
        let watch = self.watches.get_mut(&key.0)?.get_mut(&key.1)?;
        let instance = state.instance(&key.0, &key.1).filter(|instance| instance.epoch == watch.epoch)?;
        let committed = instance.verdicts.get(&self.node).map_or(Verdict::Unknown, |record| record.verdict);
        watch.note_committed(committed, now);
        watch.tick(now);
        let unheard = watch.unheard_too_long(now);
        if unheard && watch.detector().verdict() != Verdict::Unknown {
            // Everything is to be earned again, by probes that can be believed.
            watch.forget_verdict();
        }
        let held = watch.detector().verdict();
        let others = Others::of(instance, self.node);
        // It looked around since this one began to fail.
        let looked = stock.filter(|(begun, _)| watch.failing_since().is_none_or(|since| *begun >= since));
        let seen = looked.map(|(_, stock)| stock);
        let accusation = Accusation { others, stock: seen, looked_into: watch.looked_into(now) };
        let Said { verdict, ill } = self.trust.say(held, committed, accusation);
        watch.settled = verdict == committed && (verdict == held || ill);
        let failing_since = watch.failing_since();
        let (failing, fresh) = (watch.is_failing(), watch.heard_enough_since(sees_since, now));
        if verdict != held && !ill {
            self.held_back.insert(key.clone());
        }
        if failing && others == Others::Well && looked.is_none() && !ill {
            self.look_around(state, failing_since, now, prober);
        }
        let watch = self.watches.get_mut(&key.0)?.get_mut(&key.1)?;
        if verdict == committed {
            watch.sent = None;
            self.awaiting.remove(key);
            return None;
        }
        // Being unsure for a moment takes nothing back: the committed verdict stays until fresh probes have spoken. But
        // a node that has believed none of its probes for long, or does not trust itself, says that it does not know.
        if !unheard && !ill && (verdict == Verdict::Unknown || !fresh) {
            return None;
        }
        if watch.sent.is_some_and(|(sent, at)| sent == verdict && now.since(at) < CONFIRM_WITHIN) {
            self.awaiting.insert(key.clone());
            return None;
        }
        watch.sent = Some((verdict, now));
        let evidence = match (ill, unheard) {
            (true, _) => self_doubt(stock.map(|(_, stock)| stock)),
            (false, true) => watch.silence(now),
            (false, false) => watch.detector().evidence(now),
        };
        Some(VerdictReport { service: key.0.clone(), instance: key.1.clone(), epoch: watch.epoch, verdict, evidence })
    }

    /// The last proposal was accepted.
    pub(crate) fn accepted(&mut self) {
        self.backoff = BACKOFF_MIN;
    }

    /// The last proposal failed, or may have: only what is held now will be said, a little later.
    pub(crate) fn failed(&mut self, now: LocalTime) {
        self.not_before = now.plus(self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.unsay();
    }

    fn unsay(&mut self) {
        for key in std::mem::take(&mut self.awaiting) {
            if let Some(watch) = self.watch_mut(&key) {
                watch.sent = None;
            }
            self.dirty.insert(key);
        }
    }

    // -- Whether it trusts itself -----------------------------------------------------------------------------------

    /// Whether this node believes what it sees.
    pub(crate) fn trusts_itself(&self) -> bool {
        !self.trust.is_ill()
    }

    /// An ill node takes stock: it is well again when it sees what others see, or when they see what it saw. Until then
    /// it looks around again and again. Asked at every proposal and every look at the vitals.
    pub(crate) fn examine_itself(&mut self, state: &State, now: LocalTime, prober: &mut impl Probing) {
        if !self.trust.is_ill() {
            return;
        }
        if let Some((_, stock)) = self.stock(state, now)
            && let Some(Turn::Recovered) = self.trust.look_around(stock)
        {
            tracing::info!(
                "this node trusts its sight again: {} of {} instances that others see well fail to it",
                stock.failing_well,
                stock.seen_well
            );
            // What it saw meanwhile says nothing: its way to them was cut.
            for watch in self.watches.values_mut().flat_map(|known| known.values_mut()).filter(|it| it.is_failing()) {
                watch.reset(prober);
            }
            self.compare_all();
            return;
        }
        self.look_around(state, Some(now), now, prober);
    }

    /// It found that it is ill: what it was about to say, and all that it has said against anybody, is taken back.
    fn fell_ill(&mut self, stock: Option<(LocalTime, Stock)>) {
        let Stock { seen_well, failing_well, .. } = stock.map(|(_, stock)| stock).unwrap_or_default();
        tracing::warn!(
            "this node does not trust its sight: {failing_well} of {seen_well} instances that others see well fail to it; \
             it says unknown of all that fails to it"
        );
        metrics::counter!("baton_monitor_self_doubts_total", "reason" => "sight").increment(1);
        self.unsay();
        self.compare_all();
    }

    /// Looks at some instances at once, unless it has done so since `since`, is still doing so, or only just did.
    fn look_around(&mut self, state: &State, since: Option<LocalTime>, now: LocalTime, prober: &mut impl Probing) {
        let again = self.survey.as_ref().is_none_or(|survey| {
            since.is_none_or(|since| survey.begun < since) && survey.rested(now) && self.stock(state, now).is_some()
        });
        if !again {
            return;
        }
        // What the cluster agrees to be dead tells nothing about this node.
        let alive = |key: &Key| {
            state.instance(&key.0, &key.1).is_some_and(|instance| match instance.health {
                Health::Unhealthy => false,
                Health::Unknown | Health::Healthy | Health::Suspect | Health::Isolated => true,
            })
        };
        let all = self.watches.iter().flat_map(|(name, known)| known.keys().map(|id| (name.clone(), id.clone())));
        let all: Vec<Key> = all.filter(alive).collect();
        self.surveys = self.surveys.wrapping_add(1);
        let asked = pick(&all, self.surveys);
        let watches = asked.iter().filter_map(|key| self.watches.get(&key.0)?.get(&key.1));
        let mut longest = Duration::ZERO;
        for watch in watches {
            watch.hurry(prober);
            longest = longest.max(watch.longest_look());
        }
        self.survey = Some(Survey::begin(now, asked, longest));
    }

    /// What the last look around came to, beside what the others say now. `None` while answers are waited for.
    fn stock(&self, state: &State, now: LocalTime) -> Option<(LocalTime, Stock)> {
        let survey = self.survey.as_ref()?;
        let look = |key: &Key| {
            let watch = self.watches.get(&key.0)?.get(&key.1)?;
            let instance = state.instance(&key.0, &key.1)?;
            Some((watch.look_since(survey.begun), Others::of(instance, self.node)))
        };
        let looks: Vec<(Option<bool>, Others)> = survey.asked.iter().filter_map(look).collect();
        let answered =
            || looks.iter().filter_map(|(failed, others)| Some(Look { failed: (*failed)?, others: *others }));
        let complete = answered().count() == looks.len();
        (complete || survey.over(now)).then(|| (survey.begun, Stock::of(answered())))
    }
}

/// The evidence of one who does not believe what it sees.
fn self_doubt(stock: Option<Stock>) -> Evidence {
    let detail = match stock {
        Some(Stock { seen_well, failing_well, .. }) => format!(
            "this node does not trust its sight: {failing_well} of {seen_well} instances that others see well fail to it"
        ),
        None => "this node does not trust its sight, and is looking around".to_owned(),
    };
    Evidence { check: String::new(), class: None, detail, streak: 0, first_failure_age: None }
}
