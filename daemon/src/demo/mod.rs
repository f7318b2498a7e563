//! `baton demo`: a whole cluster on this machine, real processes and real kills, told as it happens.
//!
//! `script` plays the acts about servers on a `stage` of `children`, `leader` the one about nodes; `feed` hears the events, `calls` is the client that wants to be served,
//! `narrator` speaks, `summary` says what held. Nothing here has a private door into a node: it all goes through the API.

mod calls;
mod children;
mod feed;
mod finale;
mod leader;
mod narrator;
mod script;
mod stage;
mod summary;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use baton_client::ClientError;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::narrator::Narrator;
use self::stage::Stage;
use crate::terminal::exit::Exit;
use crate::terminal::output::{BAD, paint};

/// The arguments of `baton demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// End after the last act; exit code 0 only if each expectation held
    #[arg(long)]
    once: bool,
}

/// Why the play cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// The machine did not let us.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        source: io::Error,
    },
    /// Baton did not let us.
    #[error("{what}: {source}")]
    Client {
        /// What was asked.
        what: String,
        /// What came of it.
        source: ClientError,
    },
    /// A process of ours ended though nobody killed it.
    #[error("{name} has ended by itself ({how})")]
    Ended {
        /// Which one.
        name: String,
        /// How.
        how: String,
    },
    /// What was waited for did not happen.
    #[error("waited {} s for {what}", limit.as_secs_f32())]
    Deadline {
        /// What was waited for.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// What was seen makes no sense.
    #[error("{what}")]
    Wrong {
        /// What was seen.
        what: String,
    },
}

/// How a play came to its end.
enum End {
    /// By itself.
    Played(Result<bool, DemoError>),
    /// By a signal.
    Interrupted,
}

/// Plays the demo.
pub(crate) async fn run(args: DemoArgs) -> Exit {
    let narrator = Arc::new(Narrator::new());
    let interrupted = match interruption() {
        Ok(interrupted) => interrupted,
        Err(source) => {
            narrator.print(&format!("{} signals cannot be heard: {source}", paint(BAD, "error:")));
            return Exit::Error;
        }
    };
    let mut stage = match Stage::new(Arc::clone(&narrator)) {
        Ok(stage) => stage,
        Err(error) => {
            narrator.print(&format!("{} {error}", paint(BAD, "error:")));
            return Exit::Error;
        }
    };
    let end = tokio::select! {
        played = play(&mut stage, args.once) => End::Played(played),
        () = interrupted => End::Interrupted,
    };
    narrator.quiet();
    let exit = match end {
        End::Played(Ok(true)) => Exit::Done,
        End::Played(Ok(false)) => Exit::Error,
        End::Played(Err(error)) => {
            narrator.print(&format!("\n{} {error}", paint(BAD, "The play stops:")));
            for (name, tail) in stage.log_tails() {
                narrator.print(&format!("\n{}\n{tail}", paint(BAD, &format!("the end of {name}:"))));
            }
            Exit::Error
        }
        End::Interrupted => {
            narrator.print("\nThe end: every process is stopped, its files are removed.");
            match stage.report().held() {
                Some(true) => Exit::Done,
                Some(false) | None => Exit::Error,
            }
        }
    };
    // Here every process is killed, and then its directory is removed; a panic on the way comes by here too.
    drop(stage);
    exit
}

/// Resolves at SIGINT, SIGTERM or SIGHUP. Heard from here on, so that none of them finds the default handler any more.
fn interruption() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

/// All acts, and whether all that was expected held.
async fn play(stage: &mut Stage, once: bool) -> Result<bool, DemoError> {
    script::acts(stage).await?;
    leader::the_leader_is_killed(stage).await?;
    let held = finale::summary(stage).await?;
    if once {
        return Ok(held);
    }
    finale::encore(stage).await?;
    Ok(held)
}
