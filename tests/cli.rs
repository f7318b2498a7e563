//! The command line: help with an example, exit codes that mean something, mistakes that are named.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::process::{BATON, Process, baton, clean, run};
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, ports, scenario, until, when};

/// The names in the list of commands.
async fn commands() -> Vec<String> {
    let help = baton(&["--help"]).await;
    assert_eq!(help.code, Some(0), "{}", help.stderr);
    let list = help.stdout.split("Commands:").nth(1).unwrap_or_else(|| panic!("no list of commands: {}", help.stdout));
    let lines = list.lines().skip(1).take_while(|line| !line.trim().is_empty());
    // Names stand in the third column; what continues a description stands further right.
    lines
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|rest| rest.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_command_helps_with_an_example() {
    scenario(Load::Light, async {
        let commands = commands().await;
        for name in [
            "serve",
            "demo",
            "status",
            "watch",
            "check-config",
            "failover",
            "switchover",
            "failback",
            "pause",
            "resume",
            "explain",
            "transitions",
        ] {
            assert!(commands.iter().any(|command| command == name), "no {name} in {commands:?}");
        }
        for name in ["openapi", "example-server"] {
            assert!(
                !commands.iter().any(|command| command == name),
                "{name} is for us, not for the list: {commands:?}"
            );
        }
        for command in commands.iter().filter(|name| *name != "help") {
            let help = baton(&[command, "--help"]).await;
            assert_eq!(help.code, Some(0), "{command}: {}", help.stderr);
            assert!(help.stdout.contains("Example"), "{command} shows no example: {}", help.stdout);
            assert!(
                help.stdout.contains(&format!("baton {command}")),
                "{command}'s example does not use it: {}",
                help.stdout
            );
            assert!(help.stderr.is_empty(), "help is data: {}", help.stderr);
        }
        let version = baton(&["--version"]).await;
        assert!(version.stdout.starts_with("baton "), "{}", version.stdout);
    });
}

#[test]
fn what_is_not_understood_is_bad_input() {
    scenario(Load::Light, async {
        let rows: &[&[&str]] = &[
            &["--no-such-flag"],
            &["no-such-command"],
            &["serve", "--no-such-flag"],
            &["status", "--endpoint"],
            &["status", "--endpoint", "not a url"],
            &["status", "-o", "poem"],
            &["demo", "--twice"],
            &["check-config", "--config", "/nonexistent/baton.toml"],
        ];
        for args in rows {
            let outcome = baton(args).await;
            assert_eq!(outcome.code, Some(3), "{args:?}: {} {}", outcome.stdout, outcome.stderr);
            assert!(!outcome.stderr.trim().is_empty() && outcome.stdout.is_empty(), "{args:?}: messages go to stderr");
            assert!(!outcome.stderr.contains("panicked"), "{args:?}: {}", outcome.stderr);
        }
    });
}

#[test]
fn a_bad_serve_line_is_refused_with_the_name_of_what_is_wrong() {
    scenario(Load::Light, async {
        let data = tempfile::tempdir().expect("a temporary directory");
        let data = data.path().join("data");
        let (listen, peer) = (ports::free().to_string(), ports::free().to_string());
        let one = format!("1={peer}");
        let rows: &[(&str, &str, &str)] = &[
            ("--node-id", "0", "node-id"),
            ("--node-id", "one", "node-id"),
            ("--node-id", "-1", "node-id"),
            ("--node-id", "2", "initial-cluster"),
            ("--initial-cluster", "nonsense", "initial-cluster"),
            ("--initial-cluster", "1", "initial-cluster"),
            ("--initial-cluster", "1=nowhere", "initial-cluster"),
            ("--initial-cluster", "1=127.0.0.1:7401,1=127.0.0.1:7411", "initial-cluster"),
            ("--initial-cluster", "1=127.0.0.1:7401,2=127.0.0.1:7401", "initial-cluster"),
            ("--initial-cluster", "", "initial-cluster"),
            ("--listen", "nowhere", "listen"),
            ("--listen", "127.0.0.1:99999", "listen"),
            ("--listen", "0.0.0.0:7400", "insecure"),
            ("--peer-listen", "0.0.0.0:7401", "insecure"),
            ("--listen", "192.0.2.1:7400", "insecure"),
        ];
        for (flag, value, named) in rows {
            let mut args = vec!["serve", "--data-dir"];
            let shown = data.display().to_string();
            args.push(&shown);
            let mut settings =
                [("--node-id", "1"), ("--listen", &listen), ("--peer-listen", &peer), ("--initial-cluster", &one)];
            for setting in &mut settings {
                if setting.0 == *flag {
                    setting.1 = value;
                }
            }
            let joined: Vec<String> = settings.iter().map(|(flag, value)| format!("{flag}={value}")).collect();
            args.extend(joined.iter().map(String::as_str));
            let outcome = baton(&args).await;
            assert_eq!(outcome.code, Some(3), "{flag} {value}: {} {}", outcome.stdout, outcome.stderr);
            assert!(outcome.stderr.contains(named), "{flag} {value}: {named} is not named: {}", outcome.stderr);
            assert!(!outcome.stderr.contains("panicked"), "{flag} {value}: {}", outcome.stderr);
        }
        assert!(!data.exists(), "a refused start leaves nothing behind");

        // A port that is taken: an error, not bad input, and it says which.
        let taken = std::net::TcpListener::bind(&listen).expect("a free port");
        let shown = data.display().to_string();
        let outcome = baton(&["serve", "--data-dir", &shown, "--listen", &listen, "--peer-listen", &peer]).await;
        drop(taken);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(&listen), "{}", outcome.stderr);
    });
}

#[test]
fn settings_come_from_flags_then_the_environment_then_the_file() {
    scenario(Load::Light, async {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, environment, flag) = (ports::free(), ports::free(), ports::free());
        let config = dir.path().join("baton.toml");
        let text = |listen: &str| {
            format!(
                "node_id = 1\ndata_dir = {:?}\nlisten = \"{listen}\"\npeer_listen = \"{}\"\n",
                dir.path().join("data"),
                ports::free()
            )
        };
        std::fs::write(&config, text(&file.to_string())).expect("a file");
        for (from_environment, from_flag, wanted) in
            [(false, false, file), (true, false, environment), (true, true, flag)]
        {
            let mut command = clean(BATON);
            command.arg("serve").arg("--config").arg(&config);
            if from_environment {
                command.env("BATON_LISTEN", environment.to_string());
            }
            if from_flag {
                command.args(["--listen", &flag.to_string()]);
            }
            let mut node = Process::start("node", command, &dir.path().join(format!("{wanted}.log")));
            let api = crate::support::http::Api::new(format!("http://{wanted}"), None);
            until(SOON, &format!("a node at {wanted}"), async || {
                if let Some(status) = node.ended() {
                    panic!("the node ended: {status}: {}", node.output());
                }
                let answer = api.call(reqwest::Method::GET, "/readyz").send(SOON).await?;
                when(answer.status == 200, answer.text)
            })
            .await;
            // On start one line says where it listens.
            assert!(node.output().contains(&wanted.to_string()), "{}", node.output());
            node.signal(Signal::TERM);
            assert_eq!(node.end(SOON).await.code(), Some(0), "SIGTERM drains and exits 0: {}", node.output());
        }
    });
}

#[test]
fn status_and_watch_show_a_living_cluster() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        cluster.api(2).put("/v1/services/shown", &json!({"mode": "active_active"})).await.done();
        let endpoints = format!("http://127.0.0.1:1,{},{}", cluster.api(1).base(), cluster.api(2).base());

        // A dead endpoint in the list is passed over.
        let table = baton(&["status", "--endpoint", &endpoints]).await;
        assert_eq!(table.code, Some(0), "{} {}", table.stdout, table.stderr);
        assert!(table.stdout.contains("shown") && table.stdout.contains("leader"), "{}", table.stdout);
        assert!(!table.stdout.contains('\u{1b}'), "no colour into a pipe: {:?}", table.stdout);
        let machine = baton(&["status", "--endpoint", &endpoints, "-o", "json"]).await;
        assert_eq!(machine.code, Some(0), "{}", machine.stderr);
        let parsed: Value = serde_json::from_str(&machine.stdout).unwrap_or_else(|e| panic!("{e}: {}", machine.stdout));
        assert!(parsed.is_object(), "{parsed}");
        let mut command = clean(BATON);
        command.arg("status").env("BATON_ENDPOINT", cluster.api(3).base());
        let from_environment = run(command, SOON).await;
        assert_eq!(from_environment.code, Some(0), "{}", from_environment.stderr);

        let mut command = clean(BATON);
        command.args(["watch", "--endpoint", cluster.api(3).base()]);
        let mut watch = Process::start("watch", command, &cluster.dir().join("watch.log"));
        // Its first lines may come before or after; what is written until it shows is what it must show.
        let mut number = 0;
        until(SOON, "watch to show what happens", async || {
            number += 1;
            cluster.api(1).put(&format!("/v1/services/born-{number}"), &json!({"mode": "active_active"})).await.done();
            assert!(watch.ended().is_none(), "watch ended: {}", watch.output());
            let output = watch.output();
            when(output.contains("service.created") && output.contains("born-"), output)
        })
        .await;
        watch.signal(Signal::INT);
        watch.end(SOON).await;
        assert!(!watch.output().contains("panicked"), "{}", watch.output());
    });
}

#[test]
fn nobody_there_is_exit_code_two() {
    scenario(Load::Light, async {
        for command in ["status", "watch"] {
            let outcome = baton(&[command, "--endpoint", "http://127.0.0.1:1"]).await;
            assert_eq!(outcome.code, Some(2), "{command}: {} {}", outcome.stdout, outcome.stderr);
            assert!(outcome.stderr.contains("127.0.0.1:1"), "{command} says where nobody was: {}", outcome.stderr);
        }
    });
}

#[test]
fn an_operator_moves_a_service_and_reads_how_it_went() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(1).await;
        let (a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        let api = cluster.api(1);
        api.put("/v1/services/db", &watched()).await.done();
        api.put("/v1/services/db/instances/a", &a.registration(200)).await.done();
        api.put("/v1/services/db/instances/b", &b.registration(100)).await.done();
        cluster.health(1, "db", "b", "healthy").await;
        cluster.active(1, "db", "a").await;
        let at = api.base().to_owned();
        let run = async |args: &[&str]| {
            let line: Vec<&str> = args.iter().copied().chain(["--endpoint", at.as_str()]).collect();
            baton(&line).await
        };
        let json = |text: &str| -> Value { serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}")) };

        // A rehearsal tells, and changes nothing.
        let plan = run(&["switchover", "db", "--to", "b", "--reason", "what if", "--dry-run"]).await;
        assert_eq!(plan.code, Some(0), "{}", plan.stderr);
        assert!(
            plan.stdout.starts_with("db: a switchover from a to b would be made; nothing was changed"),
            "{}",
            plan.stdout
        );
        assert!(plan.stdout.contains("proof: token (advisory)"), "{}", plan.stdout);
        let plan = run(&["failover", "db", "--reason", "what if", "--dry-run", "-o", "json"]).await;
        assert_eq!(json(&plan.stdout)["to"], "b", "{}", plan.stdout);
        assert_eq!(cluster.active(1, "db", "a").await["instance"], "a");

        // The move, and its record: in a line, in a table, step by step.
        let moved = run(&["switchover", "db", "--reason", "kernel update"]).await;
        assert_eq!(moved.code, Some(0), "{} {}", moved.stdout, moved.stderr);
        assert!(moved.stdout.starts_with("db: switchover tr-"), "{}", moved.stdout);
        assert!(moved.stdout.contains(" finished: a → b, token "), "{}", moved.stdout);
        let back = run(&["failback", "db", "--reason", "db-1 is well", "-o", "json"]).await;
        assert_eq!(back.code, Some(0), "{}", back.stderr);
        let record = json(&back.stdout);
        assert_eq!((&record["kind"], &record["to"]), (&json!("failback"), &json!("a")), "{record:#}");
        let id = record["id"].as_str().expect("an id").to_owned();
        let table = run(&["transitions"]).await;
        assert_eq!((table.code, table.stdout.lines().count()), (Some(0), 4), "{}", table.stdout);
        let rows: Vec<&str> = table.stdout.lines().collect();
        assert!(rows[0].starts_with("ID") && rows[1].starts_with(&id) && rows[1].contains("b → a"), "{}", table.stdout);
        assert!(rows[3].contains("placement") && rows[3].contains("none → a"), "{}", table.stdout);
        assert_eq!(run(&["transitions", "db", "--limit", "1"]).await.stdout.lines().count(), 2);
        assert_eq!(json(&run(&["transitions", "db", "-o", "json"]).await.stdout).as_array().map(Vec::len), Some(3));
        for line in [vec!["transitions", &id], vec!["transitions", "db", &id]] {
            let told = run(&line).await;
            assert_eq!(told.code, Some(0), "{}", told.stderr);
            for part in ["because", "db-1 is well", "asked by", "local", "proof", "started", "promoted", "+0 ms"] {
                assert!(told.stdout.contains(part), "{part} is not in {}", told.stdout);
            }
        }
        assert_eq!(run(&["transitions", "tr-999999"]).await.code, Some(3));
        let nothing = run(&["transitions", "nope"]).await;
        assert!(nothing.code == Some(3) && nothing.stderr.contains("no_such_service"), "{}", nothing.stderr);
        let other = run(&["transitions", "other", &id]).await;
        assert!(other.code == Some(3) && other.stderr.contains("of \"db\""), "{:?} {}", other.code, other.stderr);

        // What is refused says which rule refuses it, and ends with 6; what makes no sense with 3.
        let again = run(&["failback", "db", "--reason", "again"]).await;
        assert!(again.code == Some(6) && again.stdout.is_empty(), "{:?} {}", again.code, again.stdout);
        assert!(again.stderr.contains("already_active"), "{}", again.stderr);
        assert_eq!(run(&["switchover", "db", "--to", "nobody", "--reason", "x"]).await.code, Some(3));
        assert_eq!(run(&["switchover", "nothing", "--reason", "x"]).await.code, Some(3));
        assert_eq!(run(&["failover", "db"]).await.code, Some(3), "a reason is wanted");

        // Pauses.
        let nothing = run(&["resume", "db", "--reason", "x"]).await;
        assert!(nothing.code == Some(6) && nothing.stderr.contains("nothing_to_do"), "{}", nothing.stderr);
        let paused = run(&["pause", "db", "--reason", "new switches", "--for", "2h", "--owner", "network team"]).await;
        assert_eq!(paused.code, Some(0), "{}", paused.stderr);
        assert!(paused.stdout.starts_with("db: paused until "), "{}", paused.stdout);
        assert!(paused.stdout.trim_end().ends_with(" by network team: new switches"), "{}", paused.stdout);
        let all = run(&["pause", "--all", "--reason", "new switches", "--for", "2h", "-o", "json"]).await;
        assert_eq!(json(&all.stdout)["paused"]["owner"], "local", "{}", all.stdout);
        let resumed = run(&["resume", "db", "--reason", "they are in"]).await;
        assert_eq!(
            resumed.stdout.trim_end(),
            "nothing holds automatic moves of db any more but what holds every service",
            "{}",
            resumed.stderr
        );
        assert!(resumed.stderr.contains("still held: paused until"), "{}", resumed.stderr);
        let resumed = run(&["resume", "--all", "--reason", "they are in"]).await;
        assert_eq!(resumed.stdout.trim_end(), "nothing holds automatic moves of every service at once any more");
        assert!(resumed.code == Some(0) && resumed.stderr.is_empty(), "{}", resumed.stderr);
        assert_eq!(run(&["pause", "db", "--reason", "x", "--for", "721h"]).await.code, Some(3));

        // Why.
        let told = run(&["explain", "db"]).await;
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        assert!(told.stdout.contains("db") && told.stdout.contains('a'), "{}", told.stdout);
        assert_eq!(json(&run(&["explain", "db", "-o", "json"]).await.stdout)["active"], "a");
        assert_eq!(run(&["explain", "nothing"]).await.code, Some(3));

        // What is gone has still been moved.
        let before = run(&["transitions", "db"]).await.stdout.lines().count();
        api.delete("/v1/services/db").await.is(200);
        let after = run(&["transitions", "db"]).await;
        assert_eq!((after.code, after.stdout.lines().count()), (Some(0), before), "{}", after.stderr);
    });
}

#[test]
fn a_move_that_waits_is_waited_for_and_says_so() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let spec = json!({"lease": {"ttl": "60s"}, "failover": {"min_interval": "0s", "max_in_window": 100}});
        api.put("/v1/services/db", &spec).await.done();
        let mut sessions = Vec::new();
        for (instance, priority) in [("a", 200), ("b", 100)] {
            let path = format!("/v1/services/db/instances/{instance}");
            let stored = api.put(&path, &json!({"liveness": "heartbeat", "priority": priority})).await.done().json;
            let session = stored["session"].as_str().expect("a session").to_owned();
            api.post(&format!("{path}/heartbeat"), &json!({"session": session})).await.is(200);
            cluster.health(1, "db", instance, "healthy").await;
            cluster.active(1, "db", "a").await;
            sessions.push(session);
        }
        // Granted, so that there is a lease to wait for.
        let beat = json!({"session": sessions[0]});
        let granted = api.post("/v1/services/db/instances/a/heartbeat", &beat).await.is(200).json;
        assert!(granted["lease_ms"].is_u64(), "{granted}");
        let token = granted["token"].as_u64().expect("a token");

        let plan = baton(&["switchover", "db", "--reason", "what if", "--dry-run", "--endpoint", api.base()]).await;
        assert!(plan.code == Some(0) && plan.stdout.contains("\nwaits at most "), "{} {}", plan.stdout, plan.stderr);
        assert_eq!(plan.stdout.lines().count(), 2, "what would happen, and what is waited for: {}", plan.stdout);
        // What holds Baton itself is told, once, and that it does not hold this.
        baton(&["pause", "db", "--reason", "switches", "--for", "1h", "--endpoint", api.base()]).await;
        let plan = baton(&["failover", "db", "--reason", "what if", "--dry-run", "--endpoint", api.base()]).await;
        let bypassed = "by itself Baton would not, which does not hold your move: ";
        assert_eq!(plan.stdout.matches(bypassed).count(), 1, "{}", plan.stdout);
        assert!(plan.stdout.contains("switches"), "{}", plan.stdout);

        // Still open when the patience is over: said, with another exit code than done.
        // The lease runs for a minute, and by itself the server would hold the answer back for ten seconds.
        let asked = Instant::now();
        let open = baton(&["switchover", "db", "--reason", "update", "--wait", "1s", "--endpoint", api.base()]).await;
        let took = asked.elapsed();
        assert!((1..8).contains(&took.as_secs()), "--wait 1s took {took:?}");
        assert!(open.stderr.contains(" is open: ") && open.stderr.contains("waiting for "), "{}", open.stderr);
        assert_eq!(open.code, Some(5), "{} {}", open.stdout, open.stderr);
        assert!(open.stdout.contains(" running: a → b"), "{}", open.stdout);
        assert!(open.stderr.contains("still open") && open.stderr.contains("baton explain db"), "{}", open.stderr);
        let refused = baton(&["switchover", "db", "--reason", "again", "--endpoint", api.base()]).await;
        assert!(refused.code == Some(6) && refused.stderr.contains("transition_in_progress"), "{}", refused.stderr);

        // The old one steps down, and that is all it takes.
        let release = json!({"token": token, "session": sessions[0]});
        api.post("/v1/services/db/instances/a/release", &release).await.is(200);
        cluster.active(1, "db", "b").await;
        let told = baton(&["transitions", "db", "--limit", "1", "--endpoint", api.base()]).await;
        assert!(told.stdout.contains("release (enforced)"), "{}", told.stdout);
    });
}

#[test]
fn without_a_quorum_one_nodes_memory_is_told_as_such() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let a = Target::start("a", cluster.dir()).await;
        cluster.api(1).put("/v1/services/db", &watched()).await.done();
        cluster.api(1).put("/v1/services/db/instances/a", &a.registration(200)).await.done();
        cluster.active(1, "db", "a").await;
        cluster.same_state_everywhere().await;
        let at = cluster.api(1).base().to_owned();
        for node in [2, 3] {
            cluster.kill9(node);
        }
        let run = async |args: &[&str]| {
            let line: Vec<&str> = args.iter().copied().chain(["--endpoint", at.as_str()]).collect();
            baton(&line).await
        };
        for (line, part) in [
            (["explain", "db"].as_slice(), "\"a\""),
            (&["transitions", "db"], "none → a"),
            (&["transitions"], "none → a"),
            (&["status", "db"], "db"),
        ] {
            let told = run(line).await;
            assert_eq!(told.code, Some(5), "{line:?}: {} {}", told.stdout, told.stderr);
            assert!(told.stdout.contains(part), "{line:?}: {}", told.stdout);
            assert!(told.stderr.contains("no quorum answers: "), "{line:?}: {}", told.stderr);
        }
        let status = until(SOON, "the loss of the leader to be told", async || {
            let status = run(&["status"]).await;
            when(status.stdout.contains("no leader"), status.stdout)
        })
        .await;
        assert!(status.contains("nobody knows how many live"), "{status}");
        assert!(!status.contains("3 live"), "{status}");
        assert_eq!(run(&["explain", "nothing"]).await.code, Some(3), "a name that it does not remember either");
    });
}
