//! `baton serve` and the commands about its configuration. What a node does is `node`'s.

use crate::config::ServeArgs;
use crate::terminal::exit::Exit;
use crate::terminal::output::complain;
use crate::{api, node};

/// Runs a node to its end.
pub(super) async fn run(args: ServeArgs) -> Exit {
    let exit_when_stdin_closes = args.exit_when_stdin_closes;
    let config = match args.resolve() {
        Ok(config) => config,
        Err(error) => {
            complain(&error.to_string());
            return Exit::BadInput;
        }
    };
    match node::serve(config, exit_when_stdin_closes).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(&told(&error));
            match error {
                node::NodeError::LogFilter { .. } => Exit::BadInput,
                node::NodeError::Listen { .. }
                | node::NodeError::Store(_)
                | node::NodeError::Consensus(_)
                | node::NodeError::Metrics(_)
                | node::NodeError::Runtime(_)
                | node::NodeError::Signals(_)
                | node::NodeError::Stopped(_) => Exit::Error,
            }
        }
    }
}

/// Says what a node would run with.
pub(super) fn check(args: ServeArgs) -> Exit {
    match args.resolve() {
        Ok(config) => {
            println!("{config}");
            Exit::Done
        }
        Err(error) => {
            complain(&error.to_string());
            Exit::BadInput
        }
    }
}

/// Prints the OpenAPI description, as it is committed.
pub(super) fn openapi() -> Exit {
    match api::openapi() {
        Ok(json) => {
            print!("{json}");
            Exit::Done
        }
        Err(error) => {
            complain(&error.to_string());
            Exit::Error
        }
    }
}

/// An error with the errors behind it, without saying twice what one repeats of the other.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
