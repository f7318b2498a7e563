//! What speaks for and against an instance, in one line of `baton status`: the operator's word, the breaker, the recovery,
//! who judges it, and what each observer holds. Only what somebody should know: a closed breaker is not told.

use baton_client::view::{AdminView, BreakerView, InstanceView, RecoveryView};
use baton_core::breaker::BreakerState;
use baton_core::probe::Verdict;
use baton_core::state::AdminState;
use baton_core::time::WallTime;

use crate::terminal::output::{age, clock};
use crate::terminal::words::one_line;

/// `draining by alice (kernel update); breaker open, trial calls in 12s; 1, 3 up; 2 down (http failed 3 in a row, connection: …)`.
pub(super) fn says(instance: &InstanceView) -> String {
    let mut told: Vec<String> = Vec::new();
    told.extend(of_admin(&instance.admin));
    told.extend(of_breaker(&instance.breaker));
    told.extend(instance.recovery.as_ref().and_then(of_recovery));
    for judged in &instance.judged {
        match judged.verdict {
            Verdict::Suspect | Verdict::Down => {
                told.push(format!("{} say {} ({})", judged.source, judged.verdict, one_line(&judged.evidence.told())));
            }
            Verdict::Up | Verdict::Unknown => {}
        }
    }
    told.extend(of_observers(instance));
    told.join("; ")
}

fn of_admin(admin: &AdminView) -> Option<String> {
    if admin.state == AdminState::Enabled {
        return None;
    }
    let end = match (admin.until, admin.ends_in_ms) {
        (Some(until), Some(ms)) => format!(" until {} (for {})", clock(until), span(ms)),
        (Some(until), None) => format!(" until {}", clock(until)),
        (None, _) => String::new(),
    };
    let actor = admin.actor.as_deref().map_or_else(String::new, |actor| format!(" by {}", one_line(actor)));
    Some(format!("{}{actor}{end} ({})", admin.state, one_line(&admin.reason)))
}

fn of_breaker(breaker: &BreakerView) -> Option<String> {
    let numbers = breaker.numbers.as_ref();
    let failed = numbers.map(|numbers| format!(" ({} of {} calls failed)", numbers.failures, numbers.calls));
    match breaker.state {
        BreakerState::Closed => None,
        BreakerState::Open => {
            let next = breaker.half_open_in_ms.map_or_else(String::new, |ms| format!(", trial calls in {}", span(ms)));
            Some(format!("breaker open{next}{}", failed.unwrap_or_default()))
        }
        BreakerState::HalfOpen => {
            let BreakerView { trials_out, successes, .. } = breaker;
            Some(format!("breaker half open, {trials_out} trial calls out, {successes} went well"))
        }
    }
}

fn of_recovery(recovery: &RecoveryView) -> Option<String> {
    let mut told = Vec::new();
    if let Some(ms) = recovery.back_in_ms.filter(|_| recovery.held_back) {
        told.push(format!("held back for {}", span(ms)));
    }
    if let Some(ms) = recovery.cooldown_ms {
        told.push(format!("cools down for {}", span(ms)));
    }
    if told.is_empty() {
        return None;
    }
    let failures = recovery.failures;
    Some(format!("{} ({failures} {} in a row)", told.join(", "), if failures == 1 { "failure" } else { "failures" }))
}

/// A length in the two largest units.
pub(super) fn span(ms: u64) -> String {
    age(WallTime(i64::try_from(ms).unwrap_or(i64::MAX)), WallTime(0))
}

/// `1, 3 up; 2 down (http failed 3 in a row, connection: connection refused)`: those who say the same are told together.
fn of_observers(instance: &InstanceView) -> Vec<String> {
    if instance.verdicts.is_empty() {
        if !instance.judged.is_empty() {
            // Whoever is heard needs nobody to look. What the leader holds against it is told already.
            let well = instance.judged.iter().filter(|judged| judged.verdict == Verdict::Up);
            return well.map(|judged| format!("{} {}", judged.source, judged.verdict)).collect();
        }
        // Nobody is asked to look while it is in maintenance.
        let asked = instance.admin.state != AdminState::Maintenance;
        return asked.then(|| "nobody has looked".to_owned()).into_iter().collect();
    }
    let mut told: Vec<(String, Vec<String>)> = Vec::new();
    for held in &instance.verdicts {
        let word = match held.verdict {
            Verdict::Up | Verdict::Unknown => held.verdict.to_string(),
            Verdict::Suspect | Verdict::Down => format!("{} ({})", held.verdict, one_line(&held.evidence.told())),
        };
        let observer = held.observer.to_string();
        match told.iter_mut().find(|(known, _)| *known == word) {
            Some((_, observers)) => observers.push(observer),
            None => told.push((word, vec![observer])),
        }
    }
    told.iter().map(|(word, observers)| format!("{} {word}", observers.join(", "))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use baton_client::view::{JudgedView, Role, VerdictView};
    use baton_core::calls::BreakerNumbers;
    use baton_core::detector::ERROR_RATE;
    use baton_core::policy::{Liveness, Overrides};
    use baton_core::probe::{Evidence, FailureClass, Health};
    use baton_core::state::{HealthInputs, Source};

    use super::*;

    pub(in crate::cli) fn instance(verdicts: Vec<VerdictView>) -> InstanceView {
        InstanceView {
            id: "a".parse().expect("a name"),
            service: "orders".parse().expect("a name"),
            address: "127.0.0.1:80".parse().ok(),
            role: Role::Passive,
            health: Health::Suspect,
            counts: HealthInputs {
                observers: 2,
                quorum: 2,
                up: 1,
                suspect: 0,
                down: 1,
                probes: Verdict::Suspect,
                calls: None,
                heartbeats: None,
                verdict: Verdict::Suspect,
                vetoed: false,
            },
            verdicts,
            judged: Vec::new(),
            breaker: BreakerView {
                state: BreakerState::Closed,
                generation: 1,
                since_ms: 5_000,
                trips: 0,
                open_for_ms: None,
                half_open_in_ms: None,
                trials_out: 0,
                successes: 0,
                numbers: None,
            },
            admin: AdminView {
                state: AdminState::Enabled,
                reason: String::new(),
                actor: None,
                since: WallTime(0),
                until: None,
                ends_in_ms: None,
            },
            recovery: None,
            zone: None,
            tier: 0,
            priority: 100,
            weight: 1,
            effective_weight: 1.0,
            failure_counts: None,
            liveness: Liveness::Probe,
            deregister_after: None,
            metadata: std::collections::BTreeMap::new(),
            overrides: Overrides::default(),
            session: None,
            lag: None,
            left: false,
            generation: 1,
            registered_at: WallTime(0),
        }
    }

    fn evidence(detail: &str) -> Evidence {
        Evidence { check: "web".to_owned(), class: None, detail: detail.to_owned(), streak: 3, first_failure_age: None }
    }

    pub(in crate::cli) fn verdict(observer: u64, verdict: Verdict) -> VerdictView {
        let evidence = Evidence { class: Some(FailureClass::Connection), ..evidence("connection\nrefused") };
        VerdictView { observer, verdict, since: WallTime(1_763_635_320_007), evidence }
    }

    #[test]
    fn who_says_what_is_told_on_one_line() {
        let told = [verdict(2, Verdict::Down), verdict(3, Verdict::Down), verdict(1, Verdict::Up)];
        let told = says(&instance(told.to_vec()));
        assert_eq!(told, "2, 3 down (web failed 3 in a row, connection: connection refused); 1 up");
        assert_eq!(says(&instance(Vec::new())), "nobody has looked");
        let mut rate = verdict(1, Verdict::Down);
        rate.evidence.check = ERROR_RATE.to_owned();
        rate.evidence.detail = "10 of 10 probes failed within 5s".to_owned();
        let told = says(&instance(vec![rate]));
        assert_eq!(told, "1 down (error_rate, connection: 10 of 10 probes failed within 5s)", "a rate is no row");
    }

    #[test]
    fn whoever_is_heard_needs_nobody_to_look() {
        let mut heard = instance(Vec::new());
        let beats = |verdict| JudgedView {
            source: Source::Heartbeats,
            verdict,
            since: WallTime(0),
            evidence: evidence("late"),
        };
        heard.judged = vec![beats(Verdict::Up)];
        assert_eq!(says(&heard), "heartbeats up");
        heard.judged = vec![beats(Verdict::Down)];
        assert_eq!(says(&heard), "heartbeats say down (late)");
    }

    #[test]
    fn an_operators_word_and_its_end_come_first() {
        let mut one = instance(vec![verdict(1, Verdict::Up)]);
        one.admin = AdminView {
            state: AdminState::Draining,
            reason: "kernel\nupdate".to_owned(),
            actor: Some("alice".to_owned()),
            ..one.admin
        };
        assert_eq!(says(&one), "draining by alice (kernel update); 1 up");
        one.verdicts.clear();
        one.admin.state = AdminState::Maintenance;
        (one.admin.until, one.admin.ends_in_ms) = (Some(WallTime(1_763_635_320_007)), Some(1_799_000));
        assert_eq!(says(&one), "maintenance by alice until 10:42:00.007 (for 29m 59s) (kernel update)");
    }

    #[test]
    fn a_breaker_a_recovery_and_calls_are_told_where_they_are_against_it() {
        let mut one = instance(vec![verdict(1, Verdict::Up)]);
        one.breaker.state = BreakerState::Open;
        one.breaker.half_open_in_ms = Some(12_400);
        one.breaker.numbers = Some(BreakerNumbers { consecutive_failures: 5, calls: 8, failures: 6, class: None });
        one.recovery = Some(RecoveryView {
            failures: 3,
            held_back: true,
            back_in_ms: Some(4_000),
            cooldown_ms: Some(300_000),
            share: 1.0,
        });
        let calls = |verdict| JudgedView {
            source: Source::Calls,
            verdict,
            since: WallTime(0),
            evidence: evidence("30 % of 100 calls failed"),
        };
        one.judged = vec![calls(Verdict::Down)];
        assert_eq!(
            says(&one),
            "breaker open, trial calls in 12s (6 of 8 calls failed); held back for 4s, cools down for 5m 00s (3 failures \
             in a row); calls say down (30 % of 100 calls failed); 1 up"
        );
        one.breaker.state = BreakerState::HalfOpen;
        one.recovery = None;
        one.judged = vec![calls(Verdict::Up)];
        assert_eq!(says(&one), "breaker half open, 0 trial calls out, 0 went well; 1 up");
    }
}
