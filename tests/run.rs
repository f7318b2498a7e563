//! `baton run`: a child under a lease. Real supervisors, real children; what is told here is what an operator sees.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::process::{BATON, Process, clean};
use crate::support::{Load, SOON, scenario, until, when};

/// A service whose instances speak for themselves; no rail holds a move back.
fn service(ttl: &str) -> Value {
    json!({
        "lease": {"ttl": ttl},
        "recovery": {"strategy": "immediate"},
        "failover": {"min_interval": "0s", "max_in_window": 1000}
    })
}

/// One `baton run`, with its child's traces in a directory.
struct Run {
    name: String,
    process: Process,
    dir: PathBuf,
}

impl Run {
    /// In the script `$D` is the run's directory. It must write its own number to `$D/pid`, as [`TELLS`] does.
    fn start(cluster: &Cluster, instance: &str, extra: &[&str], script: &str) -> Self {
        let runs = cluster.ids().len();
        let dir = cluster.dir().join(format!("run-{instance}-{}-{runs}", unique()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let process = Process::start(
            &format!("run {instance}"),
            command(cluster, instance, extra, &script.replace("$D", &dir.display().to_string())),
            &dir.join("log"),
        );
        Self { name: instance.to_owned(), process, dir }
    }

    fn has(&self, mark: &str) -> bool {
        self.dir.join(mark).exists()
    }

    fn read(&self, mark: &str) -> Result<String, String> {
        let text = std::fs::read_to_string(self.dir.join(mark)).map_err(|error| format!("{mark}: {error}"))?;
        when(text.ends_with('\n'), text).map(|text| text.trim().to_owned())
    }

    /// A number that the child has written.
    async fn pid(&self, mark: &str) -> Pid {
        let text = until(SOON, &format!("{mark} of a child"), async || self.read(mark)).await;
        text.parse().ok().and_then(Pid::from_raw).unwrap_or_else(|| panic!("{mark} is {text:?}"))
    }

    /// Waits for a line of the supervisor that holds this.
    async fn says(&self, part: &str) -> String {
        until(SOON, &format!("the line \"{part}\""), async || {
            let output = self.process.output();
            output.lines().rev().find(|line| line.contains(part)).map(str::to_owned).ok_or(output)
        })
        .await
    }

    async fn code(&mut self) -> Option<i32> {
        self.process.end(SOON).await.code()
    }

    /// The supervisor's other child.
    fn watchdog(&self, child: Pid) -> Pid {
        let of = format!("/proc/{}/task", self.process.id());
        let tasks = std::fs::read_dir(of).expect("the supervisor lives").flatten();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let all: Vec<Pid> = lists
            .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<i32>>())
            .filter_map(Pid::from_raw)
            .filter(|pid| *pid != child)
            .collect();
        assert_eq!(all.len(), 1, "a watchdog beside {child}: {all:?}");
        all[0]
    }
}

/// Says who it is and what it works by, and works.
const TELLS: &str = "echo $BATON_TOKEN > $D/token; echo $$ > $D/pid; while :; do sleep 0.05; done";

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn command(cluster: &Cluster, instance: &str, extra: &[&str], script: &str) -> Command {
    of("jobs", cluster, instance, extra, &["sh", "-c", script])
}

fn of(service: &str, cluster: &Cluster, instance: &str, extra: &[&str], child: &[&str]) -> Command {
    let endpoints: Vec<&str> = cluster.ids().into_iter().map(|id| cluster.api(id).base()).collect();
    let mut command = clean(BATON);
    command.args(["--endpoint", &endpoints.join(","), "run", "--service", service, "--instance", instance]);
    command.args(extra).arg("--").args(child);
    command
}

/// Whether a process is there and does anything. One that is dead and not waited for does nothing.
fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    test_kill_process(pid).is_ok() && !matches!(state, None | Some(Some('Z' | 'X')))
}

async fn dead(pid: Pid) {
    until(SOON, &format!("process {pid} to be dead"), async || if lives(pid) { Err("it lives") } else { Ok(()) }).await;
}

/// The last finished move of the service.
async fn last_move(cluster: &Cluster, node: u64) -> Value {
    let all = cluster.api(node).all("/v1/transitions?service=jobs").await;
    let done = all.into_iter().filter(|it| it["status"] == "finished");
    done.max_by_key(|it| it["token"].as_u64()).unwrap_or(Value::Null)
}

#[test]
fn the_end_of_a_child_hands_over_at_once_and_its_code_is_passed_on() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let api = cluster.api(1);
        api.put("/v1/services/jobs", &service("10s")).await.done();
        let mut a = Run::start(&cluster, "a", &["--priority", "200"], TELLS);
        cluster.active(1, "jobs", "a").await;
        let child = a.pid("pid").await;
        let active = cluster.active(1, "jobs", "a").await;
        assert_eq!(active["token"].to_string(), a.read("token").expect("it is told its token"));
        let b = Run::start(&cluster, "b", &[], TELLS);
        b.says("is passive, waiting (active: a)").await;
        cluster.health(1, "jobs", "b", "healthy").await;

        let killed = Instant::now();
        kill_process(child, Signal::KILL).expect("it lives");
        let next = cluster.active(1, "jobs", "b").await;
        println!("kill -9 of the child to the new active: {:?}", killed.elapsed());
        assert!(killed.elapsed() < Duration::from_secs(5), "the lease of 10 s was waited for: {:?}", killed.elapsed());
        assert!(next["token"].as_u64() > active["token"].as_u64());
        assert_eq!(a.code().await, Some(128 + 9), "by default the child's end is the end");
        b.pid("pid").await;
        let record = last_move(&cluster, 1).await;
        assert_eq!(record["proof"]["proof"], "release", "{record:#}");

        // A signal to the supervisor is for the child, which says how it ends.
        let script = "trap 'touch $D/told; sleep 0.2; exit 42' TERM; trap 'touch $D/usr1' USR1; \
                      echo $$ > $D/pid; while :; do sleep 0.02; done";
        let mut b = b;
        b.process.signal(Signal::INT);
        assert_eq!(b.code().await, Some(128 + 2));
        let mut c = Run::start(&cluster, "c", &[], script);
        let child = c.pid("pid").await;
        c.process.signal(Signal::USR1);
        until(SOON, "USR1 to be passed on", async || if c.has("usr1") { Ok(()) } else { Err("not yet") }).await;
        assert!(lives(child));
        let d = Run::start(&cluster, "d", &[], TELLS);
        d.says("is passive").await;
        cluster.health(1, "jobs", "d", "healthy").await;
        let told = Instant::now();
        c.process.signal(Signal::TERM);
        assert_eq!((c.code().await, c.has("told")), (Some(42), true));
        cluster.active(1, "jobs", "d").await;
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    });
}

#[test]
fn a_switchover_is_a_polite_word_a_release_and_another_start() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let api = cluster.api(1);
        api.put("/v1/services/jobs", &service("20s")).await.done();
        let script = "trap 'sleep 0.2; touch $D/finished; exit 0' TERM; echo $$ > $D/pid; while :; do sleep 0.02; done";
        let a = Run::start(&cluster, "a", &["--priority", "200"], script);
        let child = a.pid("pid").await;
        let b = Run::start(&cluster, "b", &[], TELLS);
        b.says("is passive").await;
        cluster.health(1, "jobs", "b", "healthy").await;
        let asked = Instant::now();
        let answer = api.post("/v1/services/jobs/switchover", &json!({"to": "b", "reason": "a test"})).await;
        assert!(answer.status < 300, "{}", answer.text);
        cluster.active(1, "jobs", "b").await;
        assert!(asked.elapsed() < Duration::from_secs(10), "the lease of 20 s was waited for: {:?}", asked.elapsed());
        assert!(a.has("finished") && !lives(child), "b was promoted before a had finished");
        assert_eq!(last_move(&cluster, 1).await["proof"]["proof"], "release");
        b.pid("pid").await;
        a.says("is passive, waiting (active: b)").await;
        println!("{}", a.says("steps down").await);
    });
}

#[test]
fn nobody_of_the_group_is_left_when_the_service_moves_on() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        cluster.api(1).put("/v1/services/jobs", &service("10s")).await.done();
        // One that will not stop, and one that leaves the group and the session; then their parent ends.
        let script = "(trap '' TERM; echo $BASHPID > $D/stubborn; while :; do sleep 0.05; done) & \
                      setsid sh -c 'trap \"\" TERM; echo $$ > $D/gone; while :; do sleep 0.05; done' & \
                      while test ! -e $D/gone || test ! -e $D/stubborn; do sleep 0.02; done; echo $$ > $D/pid; sleep 0.3; exit 4";
        let script = script.replace("echo $BASHPID", "sh -c 'echo $PPID'");
        let mut a = Run::start(&cluster, "a", &["--restart", "on-failure"], &script);
        let (stubborn, gone) = (a.pid("stubborn").await, a.pid("gone").await);
        a.says("exit code 4").await;
        assert!(!lives(stubborn), "a grandchild outlived the release");
        assert!(!lives(gone), "one that had left the group outlived the release");
        // Alone, it gets the service back with another token, a little later.
        a.says("it may start again in 100 ms").await;
        until(SOON, "the second start", async || {
            let starts = a.process.output().matches("starting sh").count();
            when(starts >= 2, starts)
        })
        .await;
        a.process.signal(Signal::TERM);
        a.code().await;
    });
}

/// The run that is active just now, its child and its token; the others. On a machine that is busy a lease of half a second
/// is lost now and then, which is nobody's fault.
async fn holder<'a>(cluster: &Cluster, runs: &'a mut [Run; 2]) -> (&'a mut Run, &'a mut Run, Pid, u64) {
    let (at, child, token) = until(SOON, "a holder whose child works", async || {
        let active = cluster.api(1).get("/v1/services/jobs/active").await.json;
        let (name, token) = (active["instance"].as_str(), active["token"].as_u64().unwrap_or(0));
        let at = runs.iter().position(|run| name == Some(&run.name)).ok_or_else(|| active.clone())?;
        let pid = runs[at].read("pid").ok().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        let same = runs[at].read("token").ok() == Some(token.to_string());
        pid.filter(|pid| same && lives(*pid)).map(|pid| (at, pid, token)).ok_or(active)
    })
    .await;
    let [first, second] = runs;
    if at == 0 { (first, second, child, token) } else { (second, first, child, token) }
}

#[test]
fn who_is_stopped_beyond_its_lease_is_passive_when_it_wakes_and_its_child_is_dead() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        cluster.api(1).put("/v1/services/jobs", &service("500ms")).await.done();
        let mut runs = ["a", "b"].map(|instance| Run::start(&cluster, instance, &[], TELLS));
        for instance in ["a", "b"] {
            cluster.health(1, "jobs", instance, "healthy").await;
        }
        for with_watchdog in [false, true] {
            let (old, new, child, token) = holder(&cluster, &mut runs).await;
            let watchdog = old.watchdog(child);
            let groups = if with_watchdog { vec![watchdog, child] } else { vec![child] };
            for group in &groups {
                // It may be gone this very moment: then it is dead, as it has to be.
                let _ = kill_process_group(*group, Signal::STOP);
            }
            old.process.signal_group(Signal::STOP);
            let stopped = Instant::now();
            if !with_watchdog {
                dead(child).await;
                println!("the watchdog killed the child {:?} after all else was stopped", stopped.elapsed());
            }
            let next = until(SOON, "the other one to be active", async || {
                let active = cluster.api(1).get("/v1/services/jobs/active").await.json;
                when(active["instance"] == new.name && active["token"].as_u64() > Some(token), active)
            })
            .await;
            println!("{} was active {:?} after {} was stopped", new.name, stopped.elapsed(), old.name);
            assert!(next["token"].as_u64() > Some(token));
            // Nobody of it runs, so it cannot work; now all of it goes on.
            for group in &groups {
                let _ = kill_process_group(*group, Signal::CONT);
            }
            old.process.signal_group(Signal::CONT);
            dead(child).await;
            old.says(&format!("releasing token {token}")).await;
            old.says("is passive, waiting").await;
        }
    });
}

#[test]
fn a_supervisor_that_is_killed_takes_its_child_along() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        cluster.api(1).put("/v1/services/jobs", &service("1s")).await.done();
        let mut a = Run::start(&cluster, "a", &["--priority", "200"], TELLS);
        let child = a.pid("pid").await;
        let b = Run::start(&cluster, "b", &[], TELLS);
        b.says("is passive").await;
        cluster.health(1, "jobs", "b", "healthy").await;
        // A watchdog that was killed is replaced.
        let watchdog = a.watchdog(child);
        kill_process(watchdog, Signal::KILL).expect("it lives");
        a.says("another has been started").await;
        assert!(lives(child));
        let killed = Instant::now();
        a.process.kill9();
        dead(child).await;
        println!("the child was dead {:?} after its supervisor", killed.elapsed());
        cluster.active(1, "jobs", "b").await;
        let record = last_move(&cluster, 1).await;
        assert_eq!(record["proof"]["proof"], "lease", "nobody was left to release: {record:#}");
        b.pid("pid").await;
    });
}

#[test]
fn a_second_process_of_the_same_id_ends_the_first_and_inherits_nothing() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        cluster.api(1).put("/v1/services/jobs", &service("2s")).await.done();
        let mut first = Run::start(&cluster, "a", &[], TELLS);
        let child = first.pid("pid").await;
        let token: u64 = first.read("token").expect("a token").parse().expect("a number");
        let second = Run::start(&cluster, "a", &[], TELLS);
        assert_eq!(first.code().await, Some(6));
        first.says("somebody else has registered under this id").await;
        assert!(!lives(child));
        second.pid("pid").await;
        let next: u64 = second.read("token").expect("a token").parse().expect("a number");
        assert!(next > token, "{next} after {token}");
    });
}

#[test]
fn nodes_come_and_go_and_the_child_works_on_until_all_are_gone() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        cluster.api(1).put("/v1/services/jobs", &service("6s")).await.done();
        let a = Run::start(&cluster, "a", &[], TELLS);
        let child = a.pid("pid").await;
        let token = a.read("token").expect("a token");
        // The first endpoint hangs, then the leader dies.
        cluster.signal(1, Signal::STOP);
        let (leader, _) = cluster.leader_among(&[2, 3]).await;
        let other = if leader == 2 { 3 } else { 2 };
        let end = Instant::now() + Duration::from_secs(8);
        until(SOON, "more than a lease to pass", async || if Instant::now() > end { Ok(()) } else { Err("not yet") })
            .await;
        cluster.signal(1, Signal::CONT);
        cluster.ready(1).await;
        cluster.kill9(leader);
        cluster.leader_among(&[1, other]).await;
        let end = Instant::now() + Duration::from_secs(8);
        until(SOON, "more than a lease to pass", async || if Instant::now() > end { Ok(()) } else { Err("not yet") })
            .await;
        assert!(lives(child), "it was disturbed:\n{}", a.process.output());
        assert_eq!(cluster.active(other, "jobs", "a").await["token"].to_string(), token);

        cluster.kill9_all();
        let alone = Instant::now();
        a.says("cannot be renewed").await;
        dead(child).await;
        println!("the child was dead {:?} after the last node", alone.elapsed());
        assert!(alone.elapsed() < Duration::from_secs(6), "it outlived its lease: {:?}", alone.elapsed());
        cluster.restart_all().await;
        let before: Option<u64> = token.parse().ok();
        until(SOON, "another start with a higher token", async || {
            let now = a.read("token")?;
            when(now.parse().ok() > before, now).map(drop)
        })
        .await;
    });
}

#[test]
fn who_must_acknowledge_does_and_who_does_not_makes_room_for_the_next() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let api = cluster.api(1);
        let mut wanted = service("10s");
        wanted["failover"]["require_ack"] = json!(true);
        wanted["failover"]["activation_timeout"] = json!("3s");
        api.put("/v1/services/jobs", &wanted).await.done();
        // The first one says nothing: its turn passes, and its child with it.
        let a = Run::start(&cluster, "a", &["--priority", "200", "--ack", "manual"], TELLS);
        let child = a.pid("pid").await;
        let b = Run::start(&cluster, "b", &[], TELLS);
        cluster.active(1, "jobs", "b").await;
        b.pid("pid").await;
        dead(child).await;
        a.says("steps down").await;
        let record = until(SOON, "the move to be finished", async || {
            let record = last_move(&cluster, 1).await;
            when(record["to"] == "b", record)
        })
        .await;
        assert!(record["durations"]["promoted_to_acknowledged_ms"].is_u64(), "{record:#}");
        assert!(record.to_string().contains("did not acknowledge within 3s"), "{record:#}");
    });
}

#[test]
fn the_child_may_acknowledge_itself() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let mut wanted = service("10s");
        wanted["failover"]["require_ack"] = json!(true);
        api.put("/v1/services/jobs", &wanted).await.done();
        let script = "echo $BATON_SESSION > $D/session; echo $BATON_TOKEN > $D/token; echo $$ > $D/pid; sleep 600";
        let a = Run::start(&cluster, "a", &["--ack", "manual"], script);
        a.pid("pid").await;
        let (session, token) = (a.read("session").expect("a session"), a.read("token").expect("a token"));
        assert_eq!(api.get("/v1/services/jobs").await.json["phase"], "promoting");
        let said = json!({"token": token.parse::<u64>().expect("a number"), "session": session});
        api.post("/v1/services/jobs/instances/a/ack", &said).await.is(200);
        assert_eq!(api.get("/v1/services/jobs").await.json["phase"], "active");
    });
}

#[test]
fn one_that_waits_says_that_it_goes() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.put("/v1/services/jobs", &service("10s")).await.done();
        let a = Run::start(&cluster, "a", &["--priority", "200"], TELLS);
        a.pid("pid").await;
        let mut b = Run::start(&cluster, "b", &[], TELLS);
        b.says("is passive, waiting (active: a)").await;
        b.process.signal(Signal::TERM);
        assert_eq!(b.code().await, Some(128 + 15));
        let told = api.get("/v1/services/jobs/instances/b").await.is(200).json;
        assert_eq!(told["left"], true, "{told:#}");
    });
}

#[test]
fn a_frozen_child_works_on_without_a_cluster_and_ends_with_its_supervisor() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let mut wanted = service("1s");
        wanted["on_quorum_loss"] = json!("freeze");
        cluster.api(1).put("/v1/services/jobs", &wanted).await.done();
        let mut a = Run::start(&cluster, "a", &[], TELLS);
        let child = a.pid("pid").await;
        let watchdog = a.watchdog(child);
        cluster.kill9_all();
        a.says("gets no answer from the cluster").await;
        let end = Instant::now() + Duration::from_secs(3);
        until(SOON, "three leases to pass", async || when(Instant::now() > end, ())).await;
        assert!(lives(child) && a.watchdog(child) == watchdog, "{}", a.process.output());
        assert!(!a.process.output().contains("watchdog"), "{}", a.process.output());
        a.process.kill9();
        dead(child).await;
    });
}

#[test]
fn a_service_of_which_all_work_at_a_time_is_none_for_it() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.put("/v1/services/jobs", &service("2s")).await.done();
        let mut a = Run::start(&cluster, "a", &[], TELLS);
        let child = a.pid("pid").await;
        let mut wanted = service("2s");
        wanted["mode"] = json!("active_active");
        api.put("/v1/services/jobs", &wanted).await.done();
        a.says("is active_active now").await;
        assert_eq!(a.code().await, Some(3));
        assert!(!lives(child));
    });
}

#[test]
fn what_cannot_be_supervised_is_refused_with_the_remedy() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.put("/v1/services/jobs", &service("10s")).await.done();
        let run = async |service: &str, extra: &[&str], child: &[&str]| {
            let outcome = crate::support::process::run(of(service, &cluster, "a", extra, child), SOON).await;
            (outcome.code, outcome.stderr)
        };
        let (code, told) = run("jobs", &["--grace", "8s"], &["true"]).await;
        assert_eq!(code, Some(3), "{told}");
        assert!(told.contains("at most --grace 5s, or raise lease.ttl of the service to 16s"), "{told}");
        let (code, told) = run("nowhere", &[], &["true"]).await;
        assert_eq!(code, Some(3), "{told}");
        api.put("/v1/services/all", &json!({"mode": "active_active"})).await.done();
        let (code, told) = run("all", &[], &["true"]).await;
        assert_eq!(code, Some(3), "{told}");
        assert!(told.contains("active_passive services"), "{told}");
        // Whoever has nothing to run takes the service from nobody: it does not even register.
        let (code, told) = run("jobs", &[], &["no-such-program"]).await;
        assert_eq!(code, Some(127), "{told}");
        let plain = cluster.dir().join("plain");
        std::fs::write(&plain, "no program").expect("a file");
        let (code, told) = run("jobs", &[], &[plain.to_str().expect("UTF-8")]).await;
        assert_eq!(code, Some(126), "{told}");
        let known = api.get("/v1/services/jobs/instances").await.done();
        assert_eq!(known.items(), [] as [Value; 0], "nobody is registered");
        let (code, told) = run("jobs", &[], &["true"]).await;
        assert_eq!(code, Some(0), "{told}");
        assert!(!told.contains("watchdog"), "its end is no death of the supervisor: {told}");
    });
}
