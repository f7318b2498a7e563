//! `baton tokens`: whether a token is the one that counts, and whether a resource refuses those that do not. The first
//! is asked of the cluster; the second is tried on the resource by `baton_client::guard::conformance`. Here both are
//! asked for and told.

use std::sync::Arc;
use std::time::Duration;

use baton_client::ClientError;
use baton_client::guard::conformance::{self, Failure, HttpResource, Method, Options, Report};
use baton_core::id::{ServiceName, Token};
use baton_core::time::Millis;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{GlobalArgs, Output};
use crate::terminal::exit::Exit;
use crate::terminal::output::{complain, data, remark, wall_now};

/// The most writers at once: each is a connection, and more than this test the machine rather than the guard.
const WRITERS_MAX: u64 = 64;
/// The most rounds, random steps and writes of a writer: with all at their bound a run takes hours, not for ever.
const TIMES_MAX: u64 = 100_000;

/// What can be asked about tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokensCommand {
    /// Ask the cluster whether a token is that of the present holder
    #[command(after_help = "Example:\n  baton tokens verify orders 42\n\n\
                      Exit code 6 when it is not. For a resource that cannot remember the highest token itself; it may\n\
                      be told \"valid\" a moment before that changes, where a guard beside the data cannot be fooled.")]
    Verify(VerifyArgs),
    /// Try whether a resource refuses old tokens: rising, equal and lower ones, restarts, many writers at once
    #[command(after_help = "Examples:\n  baton tokens conformance --url http://127.0.0.1:8080/value\n  \
                      baton tokens conformance --url http://127.0.0.1:8080/value --restart './restart-it.sh' --rounds 200\n\n\
                      NEVER run it against a resource in use: it overwrites the value and raises the highest token far above\n\
                      Baton's own, so that the real holder would be refused.\n\n\
                      A write is PUT (or POST) with the header Baton-Token and a number in the body: 2xx is accepted, 409 or\n\
                      412 refused. GET, where it answers 200, reads that number back.\n\n\
                      Exit code 5 when a rule is broken, a wrong answer among them; 2 when nobody answers.")]
    Conformance(ConformanceArgs),
}

/// The arguments of `baton tokens verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The service
    service: ServiceName,
    /// The token
    token: u64,
}

/// The arguments of `baton tokens conformance`.
#[derive(Debug, Args)]
pub(super) struct ConformanceArgs {
    /// Where the resource is written and read, by plain HTTP
    #[arg(long, value_name = "URL")]
    url: String,
    /// How a write is spelt
    #[arg(long, value_enum, default_value_t = Spelling::Put)]
    method: Spelling,
    /// A shell command that kills the resource and starts it again; without one, nothing is learned about restarts
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    /// The first token; the resource has not seen one as high
    #[arg(long, value_name = "TOKEN", default_value_t = Options::default().first)]
    first: u64,
    /// What the random parts grow from; left out, another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Random writes, one after the other
    #[arg(long, value_name = "N", default_value_t = Options::default().steps, value_parser = times(0))]
    steps: usize,
    /// Rounds of many writers at once
    #[arg(long, value_name = "N", default_value_t = Options::default().rounds, value_parser = times(0))]
    rounds: usize,
    /// Writers at once
    #[arg(long, value_name = "N", default_value_t = Options::default().writers,
          value_parser = RangedU64ValueParser::<usize>::new().range(2..=WRITERS_MAX))]
    writers: usize,
    /// Writes of each of them in a round
    #[arg(long, value_name = "N", default_value_t = Options::default().writes, value_parser = times(1))]
    writes: usize,
    /// How long one write, or one restart, may take
    #[arg(long, value_name = "LENGTH", default_value = "10s")]
    answer_within: Millis,
}

fn times(least: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=TIMES_MAX)
}

/// How a write is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Spelling {
    /// PUT.
    Put,
    /// POST.
    Post,
}

/// The body of `POST …/tokens/verify`.
#[derive(Debug, Serialize)]
struct Asked {
    token: Token,
}

/// What it is answered with.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verified {
    /// Whether it is the token of the present holder.
    valid: bool,
    /// That token; null where nobody is active.
    current: Option<Token>,
}

/// Runs one of them.
pub(super) async fn run(global: &GlobalArgs, command: TokensCommand) -> Result<Exit, ClientError> {
    match command {
        TokensCommand::Verify(args) => verify(global, args).await,
        TokensCommand::Conformance(args) => Ok(conformance(global.output, args).await),
    }
}

async fn verify(global: &GlobalArgs, args: VerifyArgs) -> Result<Exit, ClientError> {
    let VerifyArgs { service, token } = args;
    let token = Token(token);
    let path = format!("/v1/services/{service}/tokens/verify");
    let verified: Verified = global.client()?.post(&path, &Asked { token }).await?;
    data(&match global.output {
        Output::Table => sentence(&service, token, &verified),
        Output::Json => json!(verified).to_string(),
    });
    Ok(if verified.valid { Exit::Done } else { Exit::PreconditionFailed })
}

fn sentence(service: &ServiceName, token: Token, verified: &Verified) -> String {
    match (verified.valid, verified.current) {
        (true, _) => format!("token {token} is that of the holder of {service}"),
        (false, Some(current)) => format!("token {token} is not valid: {service} is held with {current}"),
        (false, None) => format!("token {token} is not valid: nobody holds {service}"),
    }
}

async fn conformance(output: Output, args: ConformanceArgs) -> Exit {
    let method = match args.method {
        Spelling::Put => Method::Put,
        Spelling::Post => Method::Post,
    };
    let resource = match HttpResource::new(&args.url, method) {
        Ok(resource) => resource,
        Err(error) => {
            complain(&error.to_string());
            return Exit::BadInput;
        }
    };
    let resource = match &args.restart {
        Some(command) => resource.restarted_by(command),
        None => resource,
    };
    let options = Options {
        seed: args.seed.unwrap_or_else(|| wall_now().0.unsigned_abs()),
        first: args.first,
        steps: args.steps,
        rounds: args.rounds,
        writers: args.writers,
        writes: args.writes,
        answer_within: Duration::from_millis(args.answer_within.0),
    };
    remark(&format!("writing to {}, with tokens from {}; seed {}", args.url, options.first, options.seed));
    let ended = conformance::run(Arc::new(resource), options).await;
    data(&match output {
        Output::Table => ended.as_ref().map_or_else(ToString::to_string, ToString::to_string),
        Output::Json => told(&ended).to_string(),
    });
    exit_of(&ended)
}

fn exit_of(ended: &Result<Report, Box<Failure>>) -> Exit {
    match ended {
        Ok(_) => Exit::Done,
        Err(failure) if failure.silent => Exit::NoConnection,
        Err(_) => Exit::Unhealthy,
    }
}

fn told(ended: &Result<Report, Box<Failure>>) -> Value {
    match ended {
        Ok(Report { seed, writes, highest, held, skipped }) => json!({
            "passed": true,
            "seed": seed,
            "writes": writes,
            "highest": highest,
            "held": held.iter().map(|(rule, times)| json!({"rule": rule.as_str(), "times": times})).collect::<Vec<_>>(),
            "skipped": skipped.iter().map(|(rule, why)| json!({"rule": rule.as_str(), "why": why})).collect::<Vec<_>>(),
        }),
        Err(failure) => {
            let Failure { rule, what, silent: _, seed, first, history } = failure.as_ref();
            json!({"passed": false, "rule": rule.as_str(), "what": what, "seed": seed, "first": first, "history": history})
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_client::guard::conformance::Rule;

    use super::*;

    fn failure(rule: Rule, silent: bool) -> Result<Report, Box<Failure>> {
        let history = vec!["write token 7, value 1 → accepted".to_owned()];
        Err(Box::new(Failure { rule, what: "token 6 was accepted".to_owned(), silent, seed: 3, first: 7, history }))
    }

    #[test]
    fn what_was_verified_is_a_sentence() {
        let orders: ServiceName = "orders".parse().expect("a name");
        let told =
            |valid, current: Option<u64>| sentence(&orders, Token(7), &Verified { valid, current: current.map(Token) });
        assert_eq!(told(true, Some(7)), "token 7 is that of the holder of orders");
        assert_eq!(told(false, Some(9)), "token 7 is not valid: orders is held with 9");
        assert_eq!(told(false, None), "token 7 is not valid: nobody holds orders");
    }

    #[test]
    fn a_broken_rule_and_a_silent_resource_end_differently() {
        assert_eq!(exit_of(&failure(Rule::LowerRefused, false)), Exit::Unhealthy);
        assert_eq!(exit_of(&failure(Rule::Answered, true)), Exit::NoConnection);
        assert_eq!(exit_of(&failure(Rule::Answered, false)), Exit::Unhealthy, "a wrong status is an answer");
    }

    #[test]
    fn a_failure_is_told_to_programs_with_its_seed_and_its_history() {
        assert_eq!(
            told(&failure(Rule::LowerRefused, false)),
            json!({"passed": false, "rule": "lower_refused", "what": "token 6 was accepted", "seed": 3, "first": 7,
                   "history": ["write token 7, value 1 → accepted"]})
        );
    }
}
