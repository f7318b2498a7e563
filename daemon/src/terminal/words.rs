//! Events in human words, one line each: shared by `baton watch` and the demo.

use anstyle::Style;
use baton_core::event::{Event, EventKind};

use super::output::{BAD, DIM, DOUBT, GOOD, NEWS, PLAIN, STRONG, clock, paint};

/// How a kind of event is coloured.
fn style(event: &Event) -> Style {
    match event.kind {
        EventKind::ActiveChanged => STRONG,
        EventKind::InstanceHealthChanged | EventKind::VerdictChanged => {
            match event.to.as_ref().and_then(Option::as_deref) {
                Some("healthy" | "up") => GOOD,
                Some("suspect") => DOUBT,
                Some("unhealthy" | "down" | "isolated") => BAD,
                Some(_) | None => PLAIN,
            }
        }
        EventKind::InstanceBreakerChanged => match event.to.as_ref().and_then(Option::as_deref) {
            Some("closed") => GOOD,
            Some("half_open") => DOUBT,
            Some(_) | None => BAD,
        },
        EventKind::TransitionStarted
        | EventKind::TransitionStep
        | EventKind::TransitionFinished
        | EventKind::InstanceReset => NEWS,
        EventKind::InstanceAdminChanged => match event.to.as_ref().and_then(Option::as_deref) {
            Some("enabled") => GOOD,
            Some("isolated") => BAD,
            Some(_) | None => NEWS,
        },
        EventKind::AutomationPaused => DOUBT,
        EventKind::AutomationResumed => GOOD,
        EventKind::AutomationBraked | EventKind::TransitionAborted | EventKind::NodeLost => BAD,
        EventKind::NodeJoined | EventKind::NodeBack => GOOD,
        EventKind::ServiceCreated
        | EventKind::ServiceUpdated
        | EventKind::ServiceDeleted
        | EventKind::InstanceRegistered
        | EventKind::InstanceUpdated
        | EventKind::InstanceDeregistered => PLAIN,
    }
}

/// `a → b`, with `none` for nobody; empty where the event has neither.
fn change(event: &Event) -> String {
    let side = |side: &Option<Option<String>>| side.as_ref().map(|value| value.as_deref().unwrap_or("none").to_owned());
    match (side(&event.from), side(&event.to)) {
        (Some(from), Some(to)) => format!("{from} → {to}"),
        (None, Some(to)) => format!("→ {to}"),
        (Some(from), None) => format!("{from} →"),
        (None, None) => String::new(),
    }
}

/// Whom the event is about: `orders/a`, `orders`, `node 2`; with the observer where one speaks.
fn subject(event: &Event) -> String {
    let mut text = match (&event.service, &event.instance) {
        (Some(service), Some(instance)) if event.kind != EventKind::ActiveChanged => format!("{service}/{instance}"),
        (Some(service), _) => service.to_string(),
        (None, Some(instance)) => instance.to_string(),
        (None, None) => String::new(),
    };
    if let Some(node) = event.node {
        let told = if text.is_empty() { format!("node {node}") } else { format!(" (node {node})") };
        text.push_str(&told);
    }
    text
}

/// The event as a line: `14:03:07.123  r42  orders  active.changed  a → b  token 57  because …`, with all of its reason.
pub(crate) fn line(event: &Event) -> String {
    line_with(event, usize::MAX)
}

/// The same with a reason of at most `reason_max` characters, for where the whole of it is told elsewhere.
pub(crate) fn line_with(event: &Event, reason_max: usize) -> String {
    let style = style(event);
    let mut parts = vec![
        paint(DIM, &clock(event.time)),
        paint(DIM, &format!("r{:<5}", event.revision)),
        format!("{:<20}", subject(event)),
        paint(style, &format!("{:<24}", event.kind)),
    ];
    let change = change(event);
    if !change.is_empty() {
        parts.push(paint(style, &change));
    }
    if let Some(token) = event.token {
        parts.push(paint(STRONG, &format!("token {token}")));
    }
    if let Some(transition) = event.transition {
        parts.push(paint(DIM, &transition.to_string()));
    }
    if !event.reason.is_empty() {
        parts.push(paint(DIM, &format!("because {}", cut(&one_line(&event.reason), reason_max))));
    }
    if let Some(actor) = &event.actor {
        parts.push(paint(DIM, &format!("by {}", one_line(actor))));
    }
    parts.join("  ").trim_end().to_owned()
}

/// At most `max` characters, the last of them `…` where something is missing.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

/// Text from elsewhere, kept from moving the cursor.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use baton_core::id::{Token, TransitionId};
    use baton_core::time::WallTime;

    use super::*;

    fn event(kind: EventKind) -> Event {
        Event {
            revision: 42,
            time: WallTime(1_763_635_320_007),
            kind,
            service: "orders".parse().ok(),
            instance: "b".parse().ok(),
            node: None,
            source: None,
            from: Some(None),
            to: Some(Some("b".to_owned())),
            token: Some(Token(57)),
            transition: Some(TransitionId(56)),
            reason: "it is\nthe best".to_owned(),
            actor: None,
            cause: None,
        }
    }

    fn told(event: &Event) -> String {
        anstream::adapter::strip_str(&line(event)).to_string()
    }

    #[test]
    fn a_change_of_the_active_reads_as_a_sentence() {
        assert_eq!(
            told(&event(EventKind::ActiveChanged)),
            "10:42:00.007  r42     orders                active.changed            none → b  token 57  tr-56  because it is the best"
        );
    }

    #[test]
    fn a_long_reason_may_be_cut() {
        let told = anstream::adapter::strip_str(&line_with(&event(EventKind::ActiveChanged), 6)).to_string();
        assert!(told.ends_with("because it is…"), "{told}");
        assert_eq!(cut("it is", 5), "it is");
    }

    #[test]
    fn a_verdict_names_who_holds_it() {
        let verdict = Event {
            node: Some(3),
            from: None,
            to: Some(Some("down".to_owned())),
            token: None,
            transition: None,
            reason: String::new(),
            ..event(EventKind::VerdictChanged)
        };
        assert_eq!(told(&verdict), "10:42:00.007  r42     orders/b (node 3)     verdict.changed           → down");
    }

    #[test]
    fn a_breaker_and_an_operators_word_read_as_sentences() {
        let about = |kind, from: &str, to: &str, reason: &str, actor: Option<&str>| {
            told(&Event {
                from: Some(Some(from.to_owned())),
                to: Some(Some(to.to_owned())),
                token: None,
                transition: None,
                reason: reason.to_owned(),
                actor: actor.map(str::to_owned),
                ..event(kind)
            })
        };
        let opened = about(EventKind::InstanceBreakerChanged, "closed", "open", "5 of 8 calls failed", None);
        assert_eq!(
            opened,
            "10:42:00.007  r42     orders/b              instance.breaker_changed  closed → open  because 5 of 8 calls failed"
        );
        let drained = about(EventKind::InstanceAdminChanged, "enabled", "draining", "new disks", Some("alice"));
        assert!(
            drained.ends_with("instance.admin_changed    enabled → draining  because new disks  by alice"),
            "{drained}"
        );
    }
}
