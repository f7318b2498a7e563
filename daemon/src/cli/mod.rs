//! The command line: which words there are, what they take, and how a command ends. What a command does is its own room's.

mod automation;
mod explain;
mod moves;
mod operator;
mod run;
mod says;
mod serve;
mod stale;
mod status;
mod tokens;
mod transitions;
mod watch;

use std::process::ExitCode;

use baton_client::{Client, ClientError};
use baton_core::planner::ManualMove;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::config::ServeArgs;
use crate::terminal::exit::{self, Exit};
use crate::terminal::output;
use crate::{demo, example_server, run as supervisor};

/// Decides which instance of a service is active, proves that the old one has stopped, and tells everyone.
#[derive(Debug, Parser)]
#[command(
    name = "baton",
    version,
    after_help = "Examples:\n  baton demo                 three nodes, three servers, real failovers, on this machine\n  \
                  baton status               the cluster and its services\n  baton watch                what happens, as it happens\n\n\
                  Exit codes: 0 done, 1 error, 2 no connection, 3 bad input, 4 server error, 5 unhealthy, 6 precondition failed"
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Where the API is; several are tried in turn
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "BATON_ENDPOINT",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7400"
    )]
    endpoint: Vec<String>,
    /// How answers are written
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl GlobalArgs {
    fn client(&self) -> Result<Client, ClientError> {
        Client::new(&self.endpoint)
    }
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: alone, or as one of three or five
    #[command(
        after_help = "Examples:\n  baton serve --data-dir /var/lib/baton\n  baton serve --node-id 1 --data-dir d1 \
                      --listen 127.0.0.1:7400 --peer-listen 127.0.0.1:7401 \\\n    \
                      --initial-cluster 1=127.0.0.1:7401,2=127.0.0.1:7411,3=127.0.0.1:7421\n\n\
                      Flags win over BATON_* variables, and those over the file of --config."
    )]
    Serve(Box<ServeArgs>),
    /// Check a configuration without running anything, and print what a node would run with
    #[command(after_help = "Example:\n  baton check-config --config /etc/baton/baton.toml")]
    CheckConfig(Box<ServeArgs>),
    /// Show it all on this machine: three nodes, three example servers, failovers with their reasons and times
    #[command(
        after_help = "Examples:\n  baton demo            play every act, then keep running: kill things yourself, Ctrl-C ends it\n  \
                      baton demo --once     play every act and end; exit code 0 only if each expectation held"
    )]
    Demo(demo::DemoArgs),
    /// The cluster, its services, who is active and who says what
    #[command(after_help = "Examples:\n  baton status\n  baton status orders -o json | jq '.services[0].active'\n  \
                      baton --endpoint http://10.0.0.1:7400,http://10.0.0.2:7400 status\n\n\
                      Exit code 5 when none of a service's instances serves it, the cluster has no leader, or a node is lost.")]
    Status(status::StatusArgs),
    /// Keep a command running while its instance is active, and only then
    #[command(after_long_help = run::HELP, after_help = "Example:\n  baton run --service orders --instance a -- \
                      /usr/bin/orders --port 8080\n\n--help says what is promised, and what is not.")]
    Run(Box<run::RunArgs>),
    /// The watchdog of `baton run`: kills a process group when its supervisor cannot
    #[command(hide = true, after_help = "Example:\n  baton run-watchdog    (by baton run alone)")]
    RunWatchdog,
    /// Follow what happens, one line an event
    #[command(after_help = "Examples:\n  baton watch\n  baton watch --service orders --type active.changed\n  \
                      baton watch -o json | jq -r 'select(.token) | .token'")]
    Watch(watch::WatchArgs),
    /// Take an instance out of what is chosen without cutting it off, or let it in again
    #[command(after_help = "Examples:\n  baton drain orders b --reason \"kernel update\"\n  \
                      baton drain orders b --reason \"kernel update\" --for 30m\n  \
                      baton drain orders b --reason \"it is back\" --undo\n\n\
                      The active stays active, and callers that pick get nobody: `baton switchover` moves the service.")]
    Drain(operator::DrainArgs),
    /// Set what an instance is allowed: enabled, draining, maintenance or isolated
    #[command(after_help = "Examples:\n  baton admin orders b maintenance --reason \"new disks\" --for 2h\n  \
                      baton admin orders a isolated --reason \"it corrupts data\"\n  \
                      baton admin orders a enabled --reason \"repaired\"\n\n\
                      draining: not chosen, not cut off. maintenance: not probed either, and never the active.\n\
                      isolated: out; where it is the active, the service is moved.")]
    Admin(operator::AdminArgs),
    /// Forget all that speaks against an instance: breaker, cool-down, recovery, what was seen of it
    #[command(after_help = "Example:\n  baton reset orders a --reason \"the switch was repaired\"")]
    Reset(operator::ResetArgs),
    /// Replace the active, well or not
    #[command(after_help = "Examples:\n  baton failover orders --reason \"db-1 answers and corrupts data\"\n  \
                      baton failover orders --to b --reason \"what if\" --dry-run\n  \
                      baton failover orders --reason \"db-1 is unplugged\" --proof operator\n\n\
                      Forced: it works on a well active too. It waits for nobody to be down, and still needs a proof that\n\
                      the old active has stopped; with --proof operator that is your word.\n\n\
                      Exit code 5 when the move is still open after --wait, 1 when it was given up.")]
    Failover(moves::MoveArgs),
    /// Move the active, both sides being well: the old one steps down first
    #[command(after_help = "Examples:\n  baton switchover orders --reason \"kernel update on db-1\"\n  \
                      baton switchover orders --to b --reason \"kernel update on db-1\" --dry-run\n\n\
                      Exit code 5 when the move is still open after --wait, 1 when it was given up.")]
    Switchover(moves::MoveArgs),
    /// Move the active back to the instance that is preferred by tier and priority
    #[command(after_help = "Examples:\n  baton failback orders --reason \"db-1 is repaired\"\n  \
                      baton failback orders --reason \"what if\" --dry-run -o json | jq .waits_for\n\n\
                      Exit code 5 when the move is still open after --wait, 1 when it was given up.")]
    Failback(moves::MoveArgs),
    /// Keep Baton from moving a service, or any, by itself for a while
    #[command(after_help = "Examples:\n  baton pause orders --reason \"the switches are being replaced\" --for 2h\n  \
                      baton pause --all --reason \"the switches are being replaced\" --for 2h --owner \"network team\"\n\n\
                      You can move services all the same: failover, switchover and failback pass it.")]
    Pause(automation::PauseArgs),
    /// Let Baton move a service, or any, by itself again: ends a pause, a latch, the brake
    #[command(after_help = "Examples:\n  baton resume orders --reason \"the new switches are in\"\n  \
                      baton resume --all --reason \"the new switches are in\"\n\n\
                      Exit code 6 when nothing holds it.")]
    Resume(automation::ResumeArgs),
    /// Why a service is where it is, and what would change that
    #[command(after_help = "Examples:\n  baton explain orders\n  \
                      baton explain orders -o json | jq '.gates[] | select(.verdict == \"hold\")'")]
    Explain(explain::ExplainArgs),
    /// The records of moves; one of them step by step
    #[command(after_help = "Examples:\n  baton transitions\n  baton transitions orders --limit 5\n  \
                      baton transitions tr-57\n  baton transitions orders tr-57 -o json | jq .durations")]
    Transitions(transitions::TransitionsArgs),
    /// Whether a token counts, and whether a resource refuses those that do not
    #[command(
        subcommand,
        after_help = "Examples:\n  baton tokens verify orders 42\n  baton tokens conformance --url http://127.0.0.1:8080/value"
    )]
    Tokens(tokens::TokensCommand),
    /// A small HTTP server that fails on command, for demos and tests
    #[command(
        hide = true,
        after_help = "Example:\n  baton example-server --listen 127.0.0.1:8001 --name alpha --fail-after 100 --fail-duration 10s"
    )]
    ExampleServer(example_server::ExampleServerArgs),
    /// Print the OpenAPI description of the API
    #[command(hide = true, after_help = "Example:\n  baton openapi > openapi/openapi.json")]
    Openapi,
}

/// Runs the command line of this process to its end.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, on stdout with code 0; everything else is bad input. That nobody reads
            // what is printed changes nothing about that.
            let _ = error.print();
            return if error.use_stderr() { Exit::BadInput } else { Exit::Done }.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("the runtime cannot be started: {error}"));
            return Exit::Error.into();
        }
    };
    let exit = runtime.block_on(run(cli));
    // Threads that wait for a line on stdin would hold the process back for ever.
    runtime.shutdown_background();
    exit
}

async fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Demo(args) => return demo::run(args).await.into(),
        Command::ExampleServer(args) => return example_server::run(args).await.into(),
        Command::Serve(args) => return serve::run(*args).await.into(),
        Command::CheckConfig(args) => return serve::check(*args).into(),
        Command::Openapi => return serve::openapi().into(),
        // The only command whose code may be another program's.
        Command::Run(args) => return run::run(&cli.global, *args).await,
        Command::RunWatchdog => return supervisor::watchdog().await.into(),
        Command::Status(args) => status::run(&cli.global, args).await,
        Command::Drain(args) => operator::drain(&cli.global, args).await,
        Command::Admin(args) => operator::admin(&cli.global, args).await,
        Command::Reset(args) => operator::reset(&cli.global, args).await,
        Command::Failover(args) => moves::run(&cli.global, ManualMove::Failover, args).await,
        Command::Switchover(args) => moves::run(&cli.global, ManualMove::Switchover, args).await,
        Command::Failback(args) => moves::run(&cli.global, ManualMove::Failback, args).await,
        Command::Pause(args) => automation::pause(&cli.global, args).await,
        Command::Resume(args) => automation::resume(&cli.global, args).await,
        Command::Explain(args) => explain::run(&cli.global, args).await,
        Command::Transitions(args) => transitions::run(&cli.global, args).await,
        Command::Tokens(command) => tokens::run(&cli.global, command).await,
        Command::Watch(args) => watch::run(&cli.global, args).await,
    };
    done.unwrap_or_else(|error| {
        output::complain(&error.to_string());
        exit::of_error(&error)
    })
    .into()
}

/// Writes an answer: in words for people, as it came for programs.
fn show<T: Serialize>(global: &GlobalArgs, answer: &T, words: impl FnOnce() -> String) -> Result<Exit, ClientError> {
    let text = match global.output {
        Output::Table => words(),
        Output::Json => serde_json::to_string_pretty(answer)
            .map_err(|error| ClientError::Unexpected { what: "writing JSON".to_owned(), why: error.to_string() })?,
    };
    output::data(&text);
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains("baton "), "{}", command.get_name());
        }
    }

    #[test]
    fn an_operators_word_is_read_whole_or_not_at_all() {
        let reads = |args: &str| Cli::try_parse_from(args.split(' ')).map(|_| ()).map_err(|error| error.to_string());
        for good in [
            "baton drain orders a --reason x --for 30m",
            "baton drain orders a --reason x --undo",
            "baton admin orders a isolated --reason x",
            "baton admin orders a maintenance --reason x --for 2h",
            "baton reset orders a --reason x",
            "baton switchover orders --to b --reason x --dry-run",
            "baton failover orders --reason x --proof operator --wait 0s",
            "baton failback orders --reason x",
            "baton pause orders --reason x --for 2h --owner ops",
            "baton pause --all --reason x --for 2h",
            "baton resume --all --reason x",
            "baton transitions tr-57",
            "baton transitions orders tr-57",
            "baton transitions --limit 1000",
            "baton tokens verify orders 42",
            "baton tokens conformance --url http://127.0.0.1:1/x --writers 2 --rounds 0",
        ] {
            assert_eq!(reads(good), Ok(()), "{good}");
        }
        for (bad, told) in [
            ("baton drain orders a", "--reason"),
            ("baton drain orders --reason x", "INSTANCE"),
            ("baton drain orders a --reason x --for soon", "duration"),
            ("baton drain orders a --reason x --for 5m --undo", "cannot be used with"),
            ("baton admin orders a off --reason x", "maintenance"),
            ("baton admin orders a maintenance --reason x", "--for"),
            ("baton reset orders A! --reason x", "A!"),
            ("baton failover orders", "--reason"),
            ("baton failover orders --reason x --proof lease", "operator"),
            ("baton failover orders --reason x --dry-run --wait 1m", "cannot be used with"),
            ("baton pause orders --reason x", "--for"),
            ("baton pause --reason x --for 1m", "--all"),
            ("baton pause orders --all --reason x --for 1m", "cannot be used with"),
            ("baton resume orders", "--reason"),
            ("baton transitions Orders!", "Orders!"),
            ("baton transitions orders 57", "57"),
            ("baton transitions --limit 0", "0"),
            ("baton tokens verify orders", "TOKEN"),
            ("baton tokens verify orders -1", "-1"),
            ("baton tokens conformance", "--url"),
            ("baton tokens conformance --url http://127.0.0.1:1/x --writers 1", "2..=64"),
        ] {
            assert!(reads(bad).is_err_and(|error| error.contains(told)), "{bad}: {:?}", reads(bad));
        }
    }

    #[test]
    fn endpoints_may_be_repeated_or_separated() {
        let cli = Cli::try_parse_from(["baton", "status", "--endpoint", "a:1,b:2", "--endpoint", "c:3"]).expect("good");
        assert_eq!(cli.global.endpoint, ["a:1", "b:2", "c:3"]);
    }
}
