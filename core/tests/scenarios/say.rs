//! What an observer says: the verdicts that differ from the committed ones, and those that it keeps to itself because it
//! may be the node that is ill. The rules of that are `baton_core::sight`'s; they are asked here as the daemon's monitor asks
//! them.

use std::time::Duration;

use baton_core::command::{VerdictReport, VerdictsRecord};
use baton_core::detector::Detector;
use baton_core::id::InstanceId;
use baton_core::probe::{Evidence, Health, LocalTime, Verdict};
use baton_core::sight::{Accusation, Look, Others, Said, Stock};
use baton_core::state::{Service, State};
use baton_core::time::ClusterTime;

use super::observer::{Observer, Sight, Watch};

/// What other observers get, beside the time of one look, to look into a doubt; and what a look around gets.
const GRACE: Duration = Duration::from_millis(500);

/// The least time between two looks around.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// A look around: who was looked at, since when, and until when their answers are waited for.
#[derive(Debug)]
pub(crate) struct Survey {
    begun: LocalTime,
    ends: LocalTime,
    asked: Vec<InstanceId>,
}

impl Observer {
    /// When there may be something to say that there is not now: an ill node looks around again, and who holds an
    /// accusation back waits for answers, or for the others to look into its doubt.
    pub(super) fn wants_to_speak(&self) -> Option<ClusterTime> {
        let held_back = |watch: &&Watch| watch.detector.verdict() == Verdict::Down && watch.accused_at.is_some();
        let waits = self.watches.values().filter(held_back);
        let looked_into = waits.filter_map(|watch| Some(watch.accused_at?.plus(watch.longest_look() + GRACE)));
        let survey = self.survey.iter().flat_map(|survey| [survey.ends, survey.begun.plus(ROUND_EVERY)]);
        looked_into.chain(survey).filter(|at| *at > self.spoke_at).min().map(|at| self.cluster(at))
    }

    /// What it proposes, and what is worth telling of its thoughts.
    pub(crate) fn proposal(
        &mut self,
        state: &State,
        service: &Service,
        now: ClusterTime,
    ) -> (Option<VerdictsRecord>, Vec<String>) {
        self.spoke_at = self.local(now);
        let Sight::Clear { since } = self.sight else { return (None, Vec::new()) };
        if self.stopped || !state.nodes.get(&self.node).is_some_and(|node| node.live) {
            return (None, Vec::new());
        }
        let mut told = Vec::new();
        self.examine_itself(service, now, &mut told);
        let was_ill = self.trust.is_ill();
        let mut verdicts = self.gather(service, since, now);
        if self.trust.is_ill() && !was_ill {
            // It fell ill over one of them, which says something about all of them.
            told.push(format!("node {} does not trust its sight any more", self.node));
            self.watches.values_mut().for_each(|watch| watch.sent = None);
            verdicts = self.gather(service, since, now);
        }
        ((!verdicts.is_empty()).then_some(VerdictsRecord { observer: self.node, verdicts }), told)
    }

    fn gather(&mut self, service: &Service, since: LocalTime, now: ClusterTime) -> Vec<VerdictReport> {
        let ids: Vec<InstanceId> = self.watches.keys().cloned().collect();
        ids.iter().filter_map(|id| self.report(service, id, since, now)).collect()
    }

    fn report(
        &mut self,
        service: &Service,
        id: &InstanceId,
        since: LocalTime,
        now: ClusterTime,
    ) -> Option<VerdictReport> {
        let (node, local) = (self.node, self.local(now));
        let stock = self.stock(service, local);
        let weathered = self.weather.contains_key(id);
        let instance = service.instances.get(id)?;
        let watch = self.watches.get_mut(id)?;
        let committed = instance.verdicts.get(&node).map_or(Verdict::Unknown, |record| record.verdict);
        watch.accused_at = match committed {
            Verdict::Suspect | Verdict::Down => Some(watch.accused_at.unwrap_or(local)),
            Verdict::Up | Verdict::Unknown => None,
        };
        let unheard = weathered && watch.unheard(local);
        let mut evidence = watch.detector.evidence(local);
        if unheard {
            evidence = watch.silence(local);
            watch.detector.reset();
            watch.failing_since = None;
        }
        let held = watch.detector.verdict();
        let others = Others::of(instance, node);
        let looked = stock.filter(|(begun, _)| watch.failing_since.is_none_or(|since| *begun >= since));
        let looked_into = watch.accused_at.is_some_and(|since| local.since(since) >= watch.longest_look() + GRACE);
        let accusation = Accusation { others, stock: looked.map(|(_, stock)| stock), looked_into };
        let Said { verdict, ill } = self.trust.say(held, committed, accusation);
        let fresh = watch.heard_enough(since, &evidence);
        let (failing, failing_since) = (watch.is_failing(), watch.failing_since);
        if verdict == committed {
            watch.sent = None;
        }
        if failing && others == Others::Well && looked.is_none() && !ill {
            self.look_around(service, failing_since, now);
        }
        let watch = self.watches.get_mut(id)?;
        let may = unheard || ill || (verdict != Verdict::Unknown && fresh);
        if verdict == committed || !may || watch.sent == Some(verdict) {
            return None;
        }
        watch.sent = Some(verdict);
        if ill {
            evidence = self_doubt(stock.map(|(_, stock)| stock));
        }
        let (service, instance, epoch) = (service.name.clone(), id.clone(), watch.epoch);
        Some(VerdictReport { service, instance, epoch, verdict, evidence })
    }

    fn examine_itself(&mut self, service: &Service, now: ClusterTime, told: &mut Vec<String>) {
        if !self.trust.is_ill() {
            return;
        }
        let local = self.local(now);
        if let Some((_, stock)) = self.stock(service, local)
            && self.trust.look_around(stock).is_some()
        {
            let Stock { seen_well, failing_well, .. } = stock;
            told.push(format!(
                "node {} trusts its sight again: {failing_well} of {seen_well} that others see well fail to it",
                self.node
            ));
            // What it saw meanwhile says nothing: its way to them was cut.
            self.watches.values_mut().filter(|watch| watch.is_failing()).for_each(|watch| watch.forget(local));
            return;
        }
        self.look_around(service, Some(local), now);
    }

    /// Looks at everything at once, unless it has done so since `since`, is still doing so, or only just did.
    fn look_around(&mut self, service: &Service, since: Option<LocalTime>, now: ClusterTime) {
        let local = self.local(now);
        let again = self.survey.as_ref().is_none_or(|survey| {
            since.is_none_or(|since| survey.begun < since)
                && local.since(survey.begun) >= ROUND_EVERY
                && self.stock(service, local).is_some()
        });
        if !again {
            return;
        }
        let alive = |id: &InstanceId| service.instances.get(id).is_some_and(|it| it.health != Health::Unhealthy);
        let asked: Vec<InstanceId> = self.watches.keys().filter(|id| alive(id)).cloned().collect();
        let mut longest = Duration::ZERO;
        for id in &asked {
            if let Some(watch) = self.watches.get_mut(id) {
                watch.hurry(now);
                longest = longest.max(watch.longest_look());
            }
        }
        self.survey = Some(Survey { begun: local, ends: local.plus(longest + GRACE), asked });
    }

    /// What the last look around came to. `None` while answers are waited for.
    fn stock(&self, service: &Service, now: LocalTime) -> Option<(LocalTime, Stock)> {
        let survey = self.survey.as_ref()?;
        let look = |id: &InstanceId| {
            let (watch, instance) = (self.watches.get(id)?, service.instances.get(id)?);
            Some((watch.look_since(survey.begun), Others::of(instance, self.node)))
        };
        let looks: Vec<(Option<bool>, Others)> = survey.asked.iter().filter_map(look).collect();
        let answered =
            || looks.iter().filter_map(|(failed, others)| Some(Look { failed: (*failed)?, others: *others }));
        let complete = answered().count() == looks.len();
        (complete || now >= survey.ends).then(|| (survey.begun, Stock::of(answered())))
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
