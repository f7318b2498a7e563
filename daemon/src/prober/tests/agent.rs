//! Agent checks: local commands that end well, badly, never, or are not there.

use std::path::Path;

use super::*;

/// A node that has one agent, `look`, which is a script.
fn node(script: &str) -> ProbeConfig {
    let command = ["/bin/sh", "-c", script, "look", "an argument"].map(str::to_owned);
    let agents = BTreeMap::from([("look".parse().expect("a name"), command.to_vec())]);
    ProbeConfig { agents, ..ProbeConfig::default() }
}

fn named(name: &str) -> Check {
    Check { name: name.to_owned(), timeout: Millis(2_000), ..check(CheckKind::Agent) }
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:81".parse().expect("an address")
}

async fn run(script: &str) -> Result<Outcome, Distrust> {
    probe_with(&node(script), anywhere(), &named("look")).await.0
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(5), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The process whose number is in this file.
fn read_pid(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))?.trim().parse().ok()
}

/// Whether the process runs. One that has ended and that nobody has waited for yet does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn an_agent_says_by_its_exit_code_how_it_stands() {
    assert_eq!(run("exit 0").await, Ok(Outcome::Success));
    assert_failed(run("exit 3").await, FailureClass::Malformed, "agent \"look\" exited with 3");
    assert_failed(run("kill -11 $$").await, FailureClass::Malformed, "agent \"look\" was ended by signal 11");
    // Killed by somebody, and not by this node: the system was short of memory, which says nothing about the instance.
    match run("kill -9 $$").await {
        Err(Distrust::NodeShort { detail }) => assert!(detail.contains("was killed (signal 9)"), "{detail}"),
        other => panic!("{other:?}"),
    }
    // However much it says, and whatever it leaves unread.
    assert_eq!(run("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2").await, Ok(Outcome::Success));
    assert_eq!(run("cat").await, Ok(Outcome::Success), "there is nothing to read");
}

#[tokio::test]
async fn an_agent_is_told_what_is_asked_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let told = dir.path().join("told");
    // The shell adds some of its own.
    let script = format!("env | grep -Ev '^(PWD|SHLVL|_|OLDPWD)=' | sort > {0}; echo \"$0 $1\" >> {0}", told.display());
    let with_port = Check { port: Some(82), ..named("look") };
    assert_eq!(probe_with(&node(&script), anywhere(), &with_port).await.0, Ok(Outcome::Success));
    let path = std::env::var("PATH").expect("a path");
    let expected = format!(
        "BATON_ADDRESS=127.0.0.1:82\nBATON_CHECK=look\nBATON_HOST=127.0.0.1\nBATON_INSTANCE=a\nBATON_PORT=82\n\
         BATON_SERVICE=web\nPATH={path}\nlook an argument\n"
    );
    assert_eq!(std::fs::read_to_string(&told).expect("what it was told"), expected);
}

#[tokio::test]
async fn an_agent_that_hangs_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let (grandchild, itself) = (dir.path().join("grandchild"), dir.path().join("itself"));
    let script =
        format!("sh -c 'echo $$ > {}; exec sleep 60' & echo $$ > {}; wait", grandchild.display(), itself.display());
    let hangs = Check { timeout: Millis(500), ..named("look") };
    let (seen, took) = probe_with(&node(&script), anywhere(), &hangs).await;
    assert_failed(seen, FailureClass::Timeout, "the agent did not end within 500ms");
    assert!(took < Duration::from_millis(900), "{took:?}");
    for path in [grandchild, itself] {
        let pid = read_pid(&path).expect("it was started");
        until("all of the group is killed", || !runs(pid)).await;
    }
}

#[tokio::test]
async fn nothing_outlives_an_agent_or_its_probe() {
    let dir = tempfile::tempdir().expect("a directory");
    let left = dir.path().join("left");
    let leaves =
        format!("sh -c 'echo $$ > {0}; exec sleep 60' & until [ -s {0} ]; do sleep 0.01; done", left.display());
    assert_eq!(run(&leaves).await, Ok(Outcome::Success));
    let pid = read_pid(&left).expect("it was started");
    until("what it left behind is killed", || !runs(pid)).await;

    let itself = dir.path().join("itself");
    let mut prober = prober_with(&node(&format!("echo $$ > {}; exec sleep 60", itself.display())));
    let id = prober.insert(target(anywhere(), &Check { timeout: Millis(60_000), ..named("look") }));
    let begin = Instant::now();
    while read_pid(&itself).is_none() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it was started");
        assert!(tokio::time::timeout(Duration::from_millis(10), results(&mut prober)).await.is_err());
    }
    let pid = read_pid(&itself).expect("it was started");
    assert!(runs(pid));
    prober.remove(id);
    until("a probe that is broken off kills its agent", || !runs(pid)).await;
}

#[tokio::test]
async fn an_agent_that_this_node_lacks_accuses_nobody() {
    let agents = |program: &str| ProbeConfig {
        agents: BTreeMap::from([("look".parse().expect("a name"), vec![program.to_owned()])]),
        ..ProbeConfig::default()
    };
    for (config, name, words) in [
        (agents("/bin/true"), "other", "no agent \"other\""),
        (agents("/nonexistent/look"), "look", "agent \"look\": cannot be started"),
        (agents("/etc/passwd"), "look", "agent \"look\": cannot be started"),
    ] {
        match probe_with(&config, anywhere(), &named(name)).await.0 {
            Err(Distrust::NodeShort { detail }) => assert!(detail.contains(words), "\"{detail}\" does not say {words}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_agents_wait_for_each_other_and_hold_up_nothing_else() {
    let mut prober = prober_with(&node("exec sleep 60"));
    prober.in_flight_max = 4;
    let hangs = Check { timeout: Millis(500), ..named("look") };
    let count = AGENTS_MAX * 2;
    for number in 0..u64::try_from(count).expect("few") {
        prober.insert(Target { hash: number, ..target(anywhere(), &hangs) });
    }
    let well = prober.insert(target(answers(ok("")).await, &check(CheckKind::Http)));
    let (begin, mut successes, mut failures) = (Instant::now(), 0, HashMap::<TargetId, usize>::new());
    while failures.len() < count {
        assert!(begin.elapsed() < Duration::from_secs(20), "only {} of {count} agents had their turn", failures.len());
        for result in results(&mut prober).await {
            assert!(prober.agents <= AGENTS_MAX);
            if result.target == well {
                successes += usize::from(result.seen == Ok(Outcome::Success));
            } else if result.seen.is_ok() {
                assert_failed(result.seen, FailureClass::Timeout, "the agent did not end");
                *failures.entry(result.target).or_default() += 1;
            }
        }
    }
    assert!(successes >= 10, "{successes} probes of another kind while agents hung");
}
