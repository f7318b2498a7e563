//! The command line: help with an example, exit codes that mean something, mistakes that are named.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::process::{BATON, Process, baton, clean, run};
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
        for name in ["serve", "demo", "status", "watch", "check-config"] {
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
