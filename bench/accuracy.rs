//! How well detection sees: a long run of real faults over real sockets, each known to this program, against what three
//! real nodes say of them. Counted: faults seen and missed, the time to see them beside the time that the settings promise,
//! and accusations of instances that were well.
//!
//! ```text
//! cargo bench -p baton --bench accuracy                                  # two minutes, seed 1
//! cargo bench -p baton --bench accuracy -- --minutes 30 --seed 7
//! ```
//!
//! For each way to fall ill (`tests/support/patient.rs`) there are two patients, who fall ill and recover at times drawn
//! from the seed, and one that is always well. A fault counts as seen when the cluster agrees that the instance is
//! unhealthy while it is ill. An accusation is false when the instance is well and had been for longer than recovering
//! takes. The program ends with exit code 1 where anything was missed or falsely accused.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

#[path = "../tests/support/patient.rs"]
mod patient;
#[path = "../tests/support/ports.rs"]
mod ports;

use patient::{ILLNESSES, Illness, Papers, Patient};

type Failure = Box<dyn Error + Send + Sync>;

/// How often the news is asked for: the grain of the times seen.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long an ill one stays ill at least, beyond what its detection may take.
const ILL_BEYOND: Duration = Duration::from_secs(2);
/// How long a patient that recovered may still be called ill: what it did while it was ill is still in flight and, for a
/// rate, in the window.
const RECOVERING: Duration = Duration::from_secs(5);
/// How long anything may take to come up.
const DEADLINE: Duration = Duration::from_secs(60);

struct Nodes {
    children: Vec<Child>,
    api: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Nodes {
    fn start() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let (api, peers): (Vec<_>, Vec<_>) = (0..3).map(|_| (ports::free(), ports::free())).unzip();
        let cluster: Vec<String> = peers.iter().enumerate().map(|(at, peer)| format!("{}={peer}", at + 1)).collect();
        let mut children = Vec::new();
        for (at, (listen, peer)) in api.iter().zip(&peers).enumerate() {
            let log = File::create(dir.path().join(format!("node-{}.log", at + 1)))?;
            let child = Command::new(env!("CARGO_BIN_EXE_baton"))
                .args(["serve", "--node-id", &(at + 1).to_string(), "--log", "warn", "--data-dir"])
                .arg(dir.path().join(format!("node-{}", at + 1)))
                .args(["--listen", &listen.to_string(), "--peer-listen", &peer.to_string()])
                .args(["--initial-cluster", &cluster.join(",")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()?;
            children.push(child);
        }
        Ok(Self { children, api: api.iter().map(|address| format!("http://{address}")).collect(), _dir: dir })
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// splitmix64: the same seed, the same faults.
struct Draw(u64);

impl Draw {
    fn seconds(&mut self, from: f64, to: f64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        #[expect(clippy::cast_precision_loss, reason = "a share of a range")]
        let share = (mixed >> 11) as f64 / (1u64 << 53) as f64;
        Duration::from_secs_f64(from + (to - from) * share)
    }
}

/// One patient under watch.
struct Case {
    illness: Illness,
    patient: Patient,
    ill_since: Option<Instant>,
    well_since: Instant,
    /// When it changes next; none for the one that is always well.
    next: Option<Instant>,
    seen: bool,
    unhealthy: bool,
}

/// What was counted of one illness.
#[derive(Default)]
struct Tally {
    faults: u32,
    missed: u32,
    late: u32,
    times: Vec<Duration>,
    false_accusations: u32,
    doubts: u32,
}

struct Run {
    client: reqwest::Client,
    base: String,
    cases: BTreeMap<(String, String), Case>,
    tallies: BTreeMap<&'static str, Tally>,
    draw: Draw,
    after: u64,
}

impl Run {
    fn change_what_is_due(&mut self, now: Instant) {
        for case in self.cases.values_mut() {
            if case.next.is_none_or(|next| now < next) {
                continue;
            }
            let tally = self.tallies.entry(case.illness.name()).or_default();
            match case.ill_since.take() {
                None => {
                    tally.faults += 1;
                    (case.ill_since, case.seen) = (Some(now), false);
                    case.next = Some(now + case.illness.promised() + ILL_BEYOND + self.draw.seconds(0.0, 4.0));
                    case.patient.set_ill(true);
                }
                Some(_) => {
                    tally.missed += u32::from(!case.seen);
                    case.well_since = now;
                    case.next = Some(now + RECOVERING + self.draw.seconds(2.0, 10.0));
                    case.patient.set_ill(false);
                }
            }
        }
    }

    async fn read_news(&mut self) -> Result<(), Failure> {
        let url = format!("{}/v1/events?after={}&limit=1000", self.base, self.after);
        let page: Value = self.client.get(url).send().await?.json().await?;
        let now = Instant::now();
        for event in page["items"].as_array().into_iter().flatten() {
            self.after = event["revision"].as_u64().unwrap_or(self.after).max(self.after);
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            let Some(case) = self.cases.get_mut(&(text("service"), text("instance"))) else { continue };
            let tally = self.tallies.entry(case.illness.name()).or_default();
            let well = case.ill_since.is_none() && now.duration_since(case.well_since) > RECOVERING;
            match (text("type").as_str(), text("to").as_str()) {
                ("instance.health_changed", "unhealthy") => {
                    case.unhealthy = true;
                    match case.ill_since {
                        Some(since) if !case.seen => {
                            case.seen = true;
                            let took = now.duration_since(since);
                            tally.late += u32::from(took > case.illness.promised());
                            tally.times.push(took);
                        }
                        Some(_) => {}
                        None if well => {
                            println!("FALSE: {}", event["reason"]);
                            tally.false_accusations += 1;
                        }
                        None => {}
                    }
                }
                ("instance.health_changed", _) => case.unhealthy = false,
                ("verdict.changed", "suspect" | "down") if well => tally.doubts += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn report(&mut self) -> bool {
        println!(
            "{:>20}  {:>12}  {:>6}  {:>6}  {:>9}  {:>9}  {:>9}  {:>5}  {:>5}  {:>6}",
            "illness", "class", "faults", "missed", "median ms", "worst ms", "promised", "late", "false", "doubts"
        );
        let (mut faults, mut wrong, mut late) = (0, 0, 0);
        for illness in ILLNESSES {
            let tally = self.tallies.entry(illness.name()).or_default();
            tally.times.sort_unstable();
            let at = |index: usize| tally.times.get(index).map_or(0, Duration::as_millis);
            println!(
                "{:>20}  {:>12}  {:>6}  {:>6}  {:>9}  {:>9}  {:>9}  {:>5}  {:>5}  {:>6}",
                illness.name(),
                illness.class(),
                tally.faults,
                tally.missed,
                at(tally.times.len() / 2),
                at(tally.times.len().saturating_sub(1)),
                illness.promised().as_millis(),
                tally.late,
                tally.false_accusations,
                tally.doubts
            );
            faults += tally.faults;
            wrong += tally.missed + tally.false_accusations;
            late += tally.late;
        }
        println!("{faults} faults, {wrong} missed or falsely accused, {late} seen later than promised");
        wrong == 0
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let begun = Instant::now();
    while !holds().await.unwrap_or(false) {
        if begun.elapsed() > DEADLINE {
            return Err(format!("waited {DEADLINE:?} for {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn run(length: Duration, seed: u64) -> Result<bool, Failure> {
    let nodes = Nodes::start()?;
    let (client, base) = (reqwest::Client::new(), nodes.api[0].clone());
    for api in &nodes.api {
        until("a node to be ready", async || Ok(client.get(format!("{api}/readyz")).send().await?.status() == 200))
            .await?;
    }
    let papers = Papers::new();
    let mut run = Run {
        client: client.clone(),
        base: base.clone(),
        cases: BTreeMap::new(),
        tallies: BTreeMap::new(),
        draw: Draw(seed),
        after: 0,
    };
    for illness in ILLNESSES {
        let url = format!("{base}/v1/services/{}", illness.name());
        client.put(&url).json(&illness.spec(&papers.ca)).send().await?.error_for_status()?;
        for id in ["a", "b", "well"] {
            let patient = Patient::start(illness, &papers).await;
            let registration = json!({"address": patient.address.to_string()});
            client.put(format!("{url}/instances/{id}")).json(&registration).send().await?.error_for_status()?;
            let now = Instant::now();
            let case =
                Case { illness, patient, ill_since: None, well_since: now, next: None, seen: false, unhealthy: false };
            run.cases.insert((illness.name().to_owned(), id.to_owned()), case);
        }
    }
    for (service, id) in run.cases.keys() {
        let url = format!("{base}/v1/services/{service}/instances/{id}");
        until("everybody to be healthy", async || {
            Ok(client.get(&url).send().await?.json::<Value>().await?["health"] == "healthy")
        })
        .await?;
    }
    let begun = Instant::now();
    for ((_, id), case) in &mut run.cases {
        case.well_since = begun;
        case.next = (id != "well").then(|| begun + run.draw.seconds(1.0, 8.0));
    }
    while begun.elapsed() < length {
        run.change_what_is_due(Instant::now());
        run.read_news().await?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    // Whoever is ill now has not had its time.
    for case in run.cases.values() {
        if case.ill_since.is_some() && !case.seen {
            run.tallies.entry(case.illness.name()).or_default().faults -= 1;
        }
    }
    Ok(run.report())
}

fn main() -> Result<ExitCode, Failure> {
    let (mut minutes, mut seed) = (2.0, 1);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--minutes" => minutes = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--bench" => {}
            other => return Err(format!("unknown option {other}: --minutes N, --seed N").into()),
        }
    }
    println!("{minutes} minutes, seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let good = runtime.block_on(run(Duration::from_secs_f64(minutes * 60.0), seed))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
