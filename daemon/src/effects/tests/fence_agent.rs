//! Fence agents: local commands that end well, badly, never, or are not there.

use std::path::Path;
use std::time::Instant;

use super::*;

/// A node that has one fence agent, `off`, which is a script.
fn node(script: &str) -> HookMeans {
    let command = ["/bin/sh", "-c", script, "off", "an argument"].map(str::to_owned).to_vec();
    means(HookConfig { agents: [("off".parse().expect("a name"), command)].into(), ..HookConfig::default() })
}

fn named(name: &str, timeout: Millis) -> FencingHook {
    FencingHook { url: None, agent: Some(name.to_owned()), timeout, attempts: 3 }
}

async fn run(script: &str) -> HookResult {
    run_hook(&named("off", Millis(10_000)), &ask(), &node(script)).await
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
async fn exit_code_0_is_a_confirmation_and_every_other_end_is_kept_as_it_was() {
    let well = run("exit 0").await;
    assert_eq!((well.ok, well.code, well.status), (true, Some(0), None), "{well:?}");
    let failed = run("echo 'password: hunter2' >&2; exit 3").await;
    assert_eq!((failed.ok, failed.code, failed.status), (false, Some(3), None), "{failed:?}");
    assert_failed(&failed, "fence agent \"off\" exited with 3");
    assert!(!failed.detail.contains("hunter2"), "what a command says stays on this node");
    for (script, words) in [("kill -9 $$", "was ended by signal 9"), ("kill -15 $$", "was ended by signal 15")] {
        let killed = run(script).await;
        assert_eq!(killed.code, None, "{killed:?}");
        assert_failed(&killed, words);
    }
}

#[tokio::test]
async fn an_agent_is_told_whom_to_cut_off_in_both_ways_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let told = dir.path().join("told");
    // The shell adds some of its own.
    let script =
        format!("{{ env | grep -Ev '^(PWD|SHLVL|_|OLDPWD)=' | sort; echo \"$0 $1\"; cat; }} > {}", told.display());
    let result = run(&script).await;
    assert!(result.ok, "{result:?}");
    let path = std::env::var("PATH").expect("a path");
    let expected = format!(
        "BATON_ADDRESS=10.0.0.1:5432\nBATON_ATTEMPT=2\nBATON_INSTANCE=a\nBATON_SERVICE=orders\nBATON_TOKEN=42\n\
         BATON_TRANSITION=tr-57\nPATH={path}\noff an argument\naction=off\nnodename=a\nplug=a\n"
    );
    assert_eq!(std::fs::read_to_string(&told).expect("what it was told"), expected);

    // A holder without an address or a token has none there either, rather than an empty one.
    let unknown = HookAsk { address: None, token: None, ..ask() };
    let result = run_hook(&named("off", Millis(10_000)), &unknown, &node(&script)).await;
    assert!(result.ok, "{result:?}");
    let told = std::fs::read_to_string(&told).expect("what it was told");
    assert!(!told.contains("BATON_ADDRESS") && !told.contains("BATON_TOKEN"), "{told}");
}

#[tokio::test]
async fn whatever_an_agent_says_or_leaves_unread_it_is_judged_by_its_exit_code() {
    assert!(run("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2").await.ok);
    assert!(run("exec <&-; sleep 0.05; exit 0").await.ok);
}

#[tokio::test]
async fn an_agent_that_hangs_is_killed_with_all_that_it_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let (grandchild, itself) = (dir.path().join("grandchild"), dir.path().join("itself"));
    let script =
        format!("sh -c 'echo $$ > {}; exec sleep 60' & echo $$ > {}; wait", grandchild.display(), itself.display());
    let result = run_hook(&named("off", Millis(500)), &ask(), &node(&script)).await;
    assert_failed(&result, "did not end within 500ms and was killed: whether it cut the holder off is not known");
    assert_eq!(result.code, None);
    assert!(result.took >= Duration::from_millis(500) && result.took < Duration::from_secs(2), "{result:?}");
    for path in [grandchild, itself] {
        let pid = read_pid(&path).expect("it was started");
        until("all of the group is killed", || !runs(pid)).await;
    }
}

#[tokio::test]
async fn an_attempt_that_is_broken_off_leaves_nothing_running() {
    let dir = tempfile::tempdir().expect("a directory");
    let itself = dir.path().join("itself");
    let (hook, ask) = (named("off", Millis(60_000)), ask());
    let node = node(&format!("echo $$ > {}; exec sleep 60", itself.display()));
    let mut attempt = Box::pin(run_hook(&hook, &ask, &node));
    let begin = Instant::now();
    while read_pid(&itself).is_none() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it was started");
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut attempt).await.is_err());
    }
    let pid = read_pid(&itself).expect("it was started");
    assert!(runs(pid));
    drop(attempt);
    until("an attempt that is broken off kills its agent", || !runs(pid)).await;
}

#[tokio::test]
async fn an_agent_that_this_node_lacks_is_a_failure_that_names_the_node() {
    let result = run_hook(&named("ipmi", Millis(1_000)), &ask(), &node("exit 0")).await;
    assert_failed(&result, "node 3 has no fence agent \"ipmi\"");
    assert_failed(&result, "[fence_agents.ipmi]");
    let command = vec!["/nonexistent/off".to_owned()];
    let gone =
        means(HookConfig { agents: [("off".parse().expect("a name"), command)].into(), ..HookConfig::default() });
    let result = run_hook(&named("off", Millis(1_000)), &ask(), &gone).await;
    assert_failed(&result, "fence agent \"off\": cannot be started");
    assert_eq!(result.code, None);
}
