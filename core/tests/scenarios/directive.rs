//! What an input line means. Every form of every line is in one `match`; what matches none is an error that says which
//! forms there are. What a directive does is `story`'s.

use std::time::Duration;

use baton_core::calls::CallOutcome;
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::json::Json;
use baton_core::planner::ManualMove;
use baton_core::policy::{Registration, Spec, parse_registration, parse_spec};
use baton_core::probe::{FailureClass, Outcome, class_of_status};
use baton_core::state::AdminState;
use baton_core::time::Millis;

use super::script::{Input, Wrong};

/// Every form of a line, as it is told to whoever wrote another one.
pub(crate) const FORMS: &str = "\
  nodes N                                         N nodes announce themselves; node 1 leads
  service NAME                                    with the spec's members in `|` lines below it
  instance ID [WORD VALUE]...                     registered, or registered again: priority 300, tier 1, liveness heartbeat ...
  deregister ID
  node N sees IDS OUTCOME [on CHECK] [, TIMING]   one probe; also `nodes N,N see` and `all see`; IDS: a or a,b or everything
  from now node N sees IDS OUTCOME [on CHECK]     each probe from now on, at the checks' own pace
     OUTCOME: ok refused reset unreachable timeout wrong_body not_serving tls_expired or an HTTP status
     TIMING: begun LENGTH late, or ended LENGTH late
  node N runs LENGTH late | in time               its own timers, from now on
  node N falls silent | is heard again            neither does the leader hear it, nor it the leader
  node N stands still | goes on                   the process is stopped
  node N's messages are held | arrive             what it proposes is late
  node N leads
  calls to ID [of generation N]: 8 ok, 2 500 ...  what clients tell: [COUNT] OUTCOME [in LENGTH], ...
     OUTCOME: success ok timeout connection server_error rate_limit malformed slow client_error or an HTTP status
  from now ID gets each second: 8 ok, 2 500 ...   the same once a second, as far as its breaker lets calls through
  from now ID gets no calls
  trial call to ID [of generation N]              asks whether one may be made
  ID beats [STATE]                                STATE: ok degraded failing
  from now ID beats every LENGTH | no more
  WHO sets ID STATE [for LENGTH]: REASON          STATE: enabled draining maintenance isolated
  WHO resets ID: REASON
  WHO fails over [to ID] [asserting]: REASON      also `switches over`; asserting: the old active has stopped
  wait LENGTH                                     with everything that time brings on the way
  jump LENGTH                                     nothing runs meanwhile, and all that is overdue comes at once
  again                                           the last log entry comes once more
  show IDS | explain | observers of ID | weights
  @ LENGTH LINE                                   waits until the story is that old, then does the line
  quietly LINE                                    tells only how much happened";

/// Which nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nodes {
    All,
    These(Vec<NodeId>),
}

/// Which instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Everything,
    These(Vec<InstanceId>),
}

/// How a probe goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) outcome: Outcome,
    /// Whether it lasts as long as its time-out lets it.
    pub(crate) hangs: bool,
    /// The check by name; every check where it is none.
    pub(crate) check: Option<String>,
}

/// How late the node's own clock was about one probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) begun: Duration,
    pub(crate) ended: Duration,
}

/// Calls that went alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) count: u32,
    pub(crate) outcome: CallOutcome,
    pub(crate) latency: Option<Duration>,
}

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    RunsLate(Duration),
    FallsSilent,
    IsHeardAgain,
    StandsStill,
    GoesOn,
    MessagesHeld,
    MessagesArrive,
    Leads,
}

/// One line's meaning.
#[derive(Debug)]
pub(crate) enum Directive {
    Nodes(u64),
    Service(ServiceName, Box<Spec>),
    Instance(InstanceId, Box<Registration>),
    Deregister(InstanceId),
    See(Nodes, Which, Seen, Late),
    FromNowSee(Nodes, Which, Seen),
    Node(NodeId, Fate),
    Calls(InstanceId, Option<u64>, Vec<Told>),
    FromNowCalls(InstanceId, Vec<Told>),
    TrialCall(InstanceId, Option<u64>),
    Beat(InstanceId, String),
    FromNowBeat(InstanceId, Option<Millis>),
    Admin { actor: String, instance: InstanceId, state: AdminState, lasts: Option<Millis>, reason: String },
    Reset { actor: String, instance: InstanceId, reason: String },
    Move { actor: String, wanted: ManualMove, to: Option<InstanceId>, asserting: bool, reason: String },
    Wait(Millis),
    Jump(Millis),
    Again,
    Show(Which),
    Explain,
    Observers(InstanceId),
    Weights,
}

/// A line: when, how loud, and what.
#[derive(Debug)]
pub(crate) struct Order {
    /// How old the story is when it is done.
    pub(crate) at: Option<Millis>,
    pub(crate) quietly: bool,
    pub(crate) what: Directive,
}

/// Reads an input line.
pub(crate) fn read(input: &Input<'_>) -> Result<Order, Wrong> {
    order(input).map_err(|why| input.wrong(why))
}

fn order(input: &Input<'_>) -> Result<Order, String> {
    let mut rest = input.text;
    let mut at = None;
    if let Some(timed) = rest.strip_prefix("@ ") {
        let (time, line) = timed.split_once(' ').ok_or("write `@ LENGTH LINE`")?;
        (at, rest) = (Some(length(time)?), line);
    }
    let quietly = rest.strip_prefix("quietly ");
    let what = directive(quietly.unwrap_or(rest), &input.more)?;
    Ok(Order { at, quietly: quietly.is_some(), what })
}

fn directive(line: &str, more: &[&str]) -> Result<Directive, String> {
    let (head, tail) = match (line.split_once(": "), line.strip_suffix(':')) {
        (Some((head, tail)), _) => (head, Some(tail.trim())),
        (None, Some(head)) => (head, Some("")),
        (None, None) => (line, None),
    };
    let words: Vec<&str> = head.split_whitespace().collect();
    if let ["service", name] = words[..] {
        let members = more.join("\n");
        let spec = parse(&format!("{{{members}}}"), parse_spec)?;
        return Ok(Directive::Service(name.parse().map_err(told)?, Box::new(spec)));
    }
    if !more.is_empty() {
        return Err("only `service` goes on in `|` lines".to_owned());
    }
    let found = match tail {
        None => without_tail(line, &words)?,
        Some(tail) => with_tail(&words, tail)?,
    };
    found.ok_or_else(|| format!("no line has this form. There are:\n{FORMS}"))
}

fn without_tail(line: &str, words: &[&str]) -> Result<Option<Directive>, String> {
    Ok(Some(match words {
        ["nodes", count] => Directive::Nodes(number(count)?),
        ["instance", id, settings @ ..] => {
            Directive::Instance(instance(id)?, Box::new(registration(instance(id)?.as_str(), settings)?))
        }
        ["deregister", id] => Directive::Deregister(instance(id)?),
        ["wait", time] => Directive::Wait(length(time)?),
        ["jump", time] => Directive::Jump(length(time)?),
        ["again"] => Directive::Again,
        ["explain"] => Directive::Explain,
        ["weights"] => Directive::Weights,
        ["show", ids] => Directive::Show(which(ids)?),
        ["observers", "of", id] => Directive::Observers(instance(id)?),
        ["trial", "call", "to", id] => Directive::TrialCall(instance(id)?, None),
        ["trial", "call", "to", id, "of", "generation", generation] => {
            Directive::TrialCall(instance(id)?, Some(number(generation)?))
        }
        ["from", "now", id, "gets", "no", "calls"] => Directive::FromNowCalls(instance(id)?, Vec::new()),
        ["from", "now", id, "beats", "every", time] => Directive::FromNowBeat(instance(id)?, Some(length(time)?)),
        ["from", "now", id, "beats", "no", "more"] => Directive::FromNowBeat(instance(id)?, None),
        ["from", "now", rest @ ..] => match sighting(rest)? {
            Some((nodes, which, seen)) => Directive::FromNowSee(nodes, which, seen),
            None => return Ok(None),
        },
        [id, "beats"] => Directive::Beat(instance(id)?, "ok".to_owned()),
        [id, "beats", state] => Directive::Beat(instance(id)?, (*state).to_owned()),
        ["node", node, fate @ ..] if fate.first() != Some(&"sees") => {
            let node = number(node.strip_suffix("'s").unwrap_or(node))?;
            let fate = match fate {
                ["runs", "in", "time"] => Fate::RunsLate(Duration::ZERO),
                ["runs", time, "late"] => Fate::RunsLate(length(time)?.as_duration()),
                ["falls", "silent"] => Fate::FallsSilent,
                ["is", "heard", "again"] => Fate::IsHeardAgain,
                ["stands", "still"] => Fate::StandsStill,
                ["goes", "on"] => Fate::GoesOn,
                ["messages", "are", "held"] => Fate::MessagesHeld,
                ["messages", "arrive"] => Fate::MessagesArrive,
                ["leads"] => Fate::Leads,
                _ => return Ok(None),
            };
            Directive::Node(node, fate)
        }
        _ => {
            let (what, timing) = line.split_once(", ").unwrap_or((line, ""));
            let words: Vec<&str> = what.split_whitespace().collect();
            let late = match timing.split_whitespace().collect::<Vec<_>>()[..] {
                [] => Late::default(),
                ["begun", time, "late"] => Late { begun: length(time)?.as_duration(), ..Late::default() },
                ["ended", time, "late"] => Late { ended: length(time)?.as_duration(), ..Late::default() },
                _ => return Err("a probe is `begun LENGTH late` or `ended LENGTH late`".to_owned()),
            };
            match sighting(&words)? {
                Some((nodes, which, seen)) => Directive::See(nodes, which, seen, late),
                None => return Ok(None),
            }
        }
    }))
}

fn with_tail(words: &[&str], tail: &str) -> Result<Option<Directive>, String> {
    let reason = || if tail.is_empty() { Err("a reason is missing") } else { Ok(tail.to_owned()) };
    Ok(Some(match words {
        ["calls", "to", id] => Directive::Calls(instance(id)?, None, calls(tail)?),
        ["calls", "to", id, "of", "generation", generation] => {
            Directive::Calls(instance(id)?, Some(number(generation)?), calls(tail)?)
        }
        ["from", "now", id, "gets", "each", "second"] => Directive::FromNowCalls(instance(id)?, calls(tail)?),
        [actor, "sets", id, state, rest @ ..] => {
            let lasts = match rest {
                [] => None,
                ["for", time] => Some(length(time)?),
                _ => return Ok(None),
            };
            let state = word(AdminState::ALL, state)?;
            Directive::Admin { actor: (*actor).to_owned(), instance: instance(id)?, state, lasts, reason: reason()? }
        }
        [actor, "resets", id] => {
            Directive::Reset { actor: (*actor).to_owned(), instance: instance(id)?, reason: reason()? }
        }
        [actor, verb @ ("fails" | "switches"), "over", rest @ ..] => {
            let wanted = if *verb == "fails" { ManualMove::Failover } else { ManualMove::Switchover };
            let (to, asserting) = match rest {
                [] => (None, false),
                ["asserting"] => (None, true),
                ["to", id] => (Some(instance(id)?), false),
                ["to", id, "asserting"] => (Some(instance(id)?), true),
                _ => return Ok(None),
            };
            Directive::Move { actor: (*actor).to_owned(), wanted, to, asserting, reason: reason()? }
        }
        _ => return Ok(None),
    }))
}

/// `node 2 sees a refused on tcp`, and its kin.
fn sighting(words: &[&str]) -> Result<Option<(Nodes, Which, Seen)>, String> {
    let (nodes, rest) = match words {
        ["all", "see", rest @ ..] => (Nodes::All, rest),
        ["node", node, "sees", rest @ ..] => (Nodes::These(vec![number(node)?]), rest),
        ["nodes", nodes, "see", rest @ ..] => {
            (Nodes::These(nodes.split(',').map(number).collect::<Result<_, _>>()?), rest)
        }
        _ => return Ok(None),
    };
    let (ids, saw, check) = match rest {
        [ids, saw] => (ids, saw, None),
        [ids, saw, "on", check] => (ids, saw, Some((*check).to_owned())),
        _ => return Ok(None),
    };
    let failed = |class, detail: &str| Outcome::failure(class, detail);
    let outcome = match *saw {
        "ok" => Outcome::Success,
        "refused" => failed(FailureClass::Connection, "connection refused"),
        "reset" => failed(FailureClass::Connection, "connection reset"),
        "unreachable" => failed(FailureClass::Connection, "no route to host"),
        "timeout" => failed(FailureClass::Timeout, "no answer in time"),
        "wrong_body" => failed(FailureClass::Malformed, "the body does not match"),
        "not_serving" => failed(FailureClass::ServerError, "NOT_SERVING"),
        "tls_expired" => failed(FailureClass::Connection, "the certificate has expired"),
        status => {
            let code = status.parse().ok().filter(|code| (100..=599).contains(code));
            let code: u16 = code.ok_or_else(|| format!("`{status}` is not an outcome of a probe"))?;
            Outcome::failure(class_of_status(code), format!("status {code}"))
        }
    };
    Ok(Some((nodes, which(ids)?, Seen { outcome, hangs: *saw == "timeout", check })))
}

/// `8 ok in 40ms, 2 500`.
fn calls(text: &str) -> Result<Vec<Told>, String> {
    text.split(',').map(|part| some_calls(part.trim())).collect()
}

fn some_calls(text: &str) -> Result<Told, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (count, outcome, latency) = match words[..] {
        [count, outcome] => (count, outcome, None),
        [count, outcome, "in", time] => (count, outcome, Some(length(time)?.as_duration())),
        _ => return Err(format!("`{text}`: write `COUNT OUTCOME [in LENGTH]`")),
    };
    let outcome = match outcome {
        "ok" => CallOutcome::Success,
        other => match other.parse::<u16>() {
            Ok(status) => baton_core::calls::classify(None, Some(status), None, Duration::MAX),
            Err(_) => word(CallOutcome::ALL, other)?,
        },
    };
    let count = count.parse().map_err(|_| format!("`{count}` is not a count"))?;
    Ok(Told { count, outcome, latency })
}

fn registration(id: &str, settings: &[&str]) -> Result<Registration, String> {
    if !settings.len().is_multiple_of(2) {
        return Err("settings come as `WORD VALUE`".to_owned());
    }
    let mut members: Vec<String> = settings
        .chunks(2)
        .map(|pair| {
            let bare = pair[1].parse::<u64>().is_ok() || pair[1] == "null";
            if bare { format!("\"{}\": {}", pair[0], pair[1]) } else { format!("\"{}\": \"{}\"", pair[0], pair[1]) }
        })
        .collect();
    if !settings.contains(&"address") {
        members.push(format!("\"address\": \"{id}.example:80\""));
    }
    parse(&format!("{{{}}}", members.join(", ")), parse_registration)
}

fn parse<T, E: std::fmt::Debug>(text: &str, read: impl Fn(&Json) -> Result<T, Vec<E>>) -> Result<T, String> {
    let json = Json::parse(text.as_bytes()).map_err(|error| format!("{error:?} in {text}"))?;
    read(&json).map_err(|errors| format!("{errors:?}"))
}

fn word<T: Copy>(words: &[(&str, T)], text: &str) -> Result<T, String> {
    let found = words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    let all = || words.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("`{text}` is none of {}", all()))
}

fn which(text: &str) -> Result<Which, String> {
    if text == "everything" {
        return Ok(Which::Everything);
    }
    Ok(Which::These(text.split(',').map(instance).collect::<Result<_, _>>()?))
}

fn instance(text: &str) -> Result<InstanceId, String> {
    text.parse().map_err(told)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

/// `300ms`, `1.2s`, `5m`, `5m12.4s`: as the transcript itself writes times.
pub(crate) fn length(text: &str) -> Result<Millis, String> {
    let wrong = || format!("`{text}` is not a length of time: write 300ms, 1.2s, 5m or 5m12.4s");
    let mut rest = text;
    let mut all = 0;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(wrong)?;
        let letters = rest[digits..].find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len() - digits);
        let unit = match &rest[digits..digits + letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let (whole, parts) = rest[..digits].split_once('.').unwrap_or((&rest[..digits], ""));
        let mut length = whole.parse::<u64>().map_err(|_| wrong())? * unit;
        for (place, digit) in parts.chars().enumerate() {
            let digit = u64::from(digit.to_digit(10).ok_or_else(wrong)?);
            length += digit * unit / 10_u64.pow(u32::try_from(place).map_err(|_| wrong())? + 1);
        }
        all += length;
        rest = &rest[digits + letters..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Millis(all)) }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}
