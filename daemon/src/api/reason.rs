//! Why somebody wants something: a sentence of theirs that is kept in records and told in events. What cannot be read by
//! whoever asks later is refused here, at the edge.

use baton_core::json::Fields;

/// The longest reason, in bytes: it is told in events and kept with what it is about.
const REASON_MAX: usize = 500;

/// The longest name of whoever answers for something, in bytes: a person, a team, a ticket.
const OWNER_MAX: usize = 100;

/// The `reason` of a request: it must be there, say something, and fit on a line.
pub(super) fn reason(fields: &mut Fields<'_, '_>, example: &str) -> Option<String> {
    let text = fields.required("reason", example).and_then(|slot| slot.text(1..=REASON_MAX)).map(str::to_owned)?;
    one_line(fields, "reason", text, "is blank: say why, for whoever asks later")
}

/// The `reason` of a program, which may have none.
pub(super) fn reason_if_any(fields: &mut Fields<'_, '_>) -> Option<String> {
    let text = fields.text("reason", 1..=REASON_MAX)?.to_owned();
    one_line(fields, "reason", text, "is blank: say why, or leave it out")
}

/// The `owner` of a request: who answers for it, where that is somebody else than who asks.
pub(super) fn owner_if_any(fields: &mut Fields<'_, '_>) -> Option<String> {
    let text = fields.text("owner", 1..=OWNER_MAX)?.to_owned();
    one_line(fields, "owner", text, "is blank: name whom to ask, or leave it out")
}

/// What says something and fits on a line.
fn one_line(fields: &mut Fields<'_, '_>, name: &'static str, text: String, blank: &str) -> Option<String> {
    let wrong = if text.trim().is_empty() {
        blank
    } else if text.chars().any(char::is_control) {
        "holds a control character, such as a line break: write one line of plain text"
    } else {
        return Some(text);
    };
    fields.error(name, wrong);
    None
}

#[cfg(test)]
mod tests {
    use baton_core::json::{Json, read};

    use super::*;

    #[test]
    fn a_reason_says_something_on_one_line() {
        let asked = |reason: &str| {
            let body = serde_json::to_vec(&serde_json::json!({ "reason": reason })).expect("JSON");
            let body = Json::parse(&body).expect("JSON");
            read(&body, |fields| super::reason(fields, "\"new disks\""))
                .map_err(|errors| errors.into_iter().map(|error| (error.path, error.message)).collect::<Vec<_>>())
        };
        for good in ["x", " new disks ", "Stromausfall in Köln — alles aus", "注意"] {
            assert_eq!(asked(good), Ok(good.to_owned()));
        }
        let long = "x".repeat(REASON_MAX + 1);
        for (bad, told) in [
            ("", "1"),
            (" ", "blank"),
            ("\t \n", "blank"),
            ("\u{a0}\u{2003}", "blank"),
            ("two\nlines", "control"),
            ("\u{1b}[2J", "control"),
            ("\u{85}x", "control"),
            (long.as_str(), "500"),
        ] {
            let errors = asked(bad).expect_err("refused");
            assert_eq!(errors.len(), 1, "{bad:?}: {errors:?}");
            assert!(errors[0].0 == "reason" && errors[0].1.contains(told), "{bad:?}: {errors:?}");
        }
    }
}
