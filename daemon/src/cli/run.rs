//! `baton run`: what it takes, and what its help promises. What it does is `crate::run`'s.

use std::ffi::OsString;
use std::process::ExitCode;

use baton_core::id::{InstanceId, ServiceName};
use baton_core::policy::{Address, Liveness, Registration};
use baton_core::time::Millis;
use clap::Args;

use super::GlobalArgs;
use crate::run::{self, AckBy, Restart, Rules, RunError};
use crate::terminal::exit::{self, Exit};
use crate::terminal::output::complain;

/// The examples and limits of `baton run`, below its options.
pub(super) const HELP: &str = "\
Examples:
  baton run --service orders --instance a -- /usr/bin/orders --port 8080
  baton run --service jobs --instance $(hostname) --restart on-failure -- sh -c 'exec worker --token $BATON_TOKEN'
  baton --endpoint http://10.0.0.1:7400,http://10.0.0.2:7400,http://10.0.0.3:7400 \\
    run --service db --instance a --address 10.0.0.7:5432 --grace 3s -- postgres -D /data

CMD runs only while this instance is active. It finds BATON_TOKEN, BATON_SESSION, BATON_ROLE=active, BATON_SERVICE and
BATON_INSTANCE in its environment, and must present the token to whatever it writes to. When the lease cannot be renewed, CMD and all of its process
group get TERM, and KILL after the grace, so that they are dead before the lease ends. When CMD ends, the rest of its group
is killed and the service is released at once: another instance need not wait for the lease. TERM and INT end CMD and then
baton run; HUP, QUIT, USR1, USR2 and WINCH are passed on.

Where the service has failover.require_ack, baton run says that CMD serves as soon as it runs. With --ack manual CMD says so itself
once it really does, or the next candidate is tried after failover.activation_timeout:
  curl -X POST $ENDPOINT/v1/services/$BATON_SERVICE/instances/$BATON_INSTANCE/ack \\
    -H 'content-type: application/json' -d \"{\\\"token\\\": $BATON_TOKEN, \\\"session\\\": \\\"$BATON_SESSION\\\"}\"

Exit code: that of CMD (128 + n for signal n; 127 not found, 126 not runnable); 6 if somebody else registers the same id;
3 for wrong arguments or a service that does not exist.

Limits:
  - Give every node's endpoint: with one, the end of that node is the end of the lease.
  - If baton run is killed (kill -9) or stopped, a watchdog process of it kills CMD's group: at once, or before the lease ends. If
    the watchdog is killed in the same moment, CMD runs on. If the whole machine stands still (a paused virtual machine),
    nothing stops CMD until it goes on. The token protects what checks it in each of these cases, and nothing else does.
  - A process that leaves CMD's group is killed too, once its parent has ended (on Linux); what another program starts for CMD (a
    service manager, a container engine) is not.
  - CMD is not in the terminal's foreground group: it must not read from the terminal.
  - A process that the kernel cannot kill (it waits for a dead disk) outlives its lease; that is said on stderr.";

/// The arguments of `baton run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The service; it must exist and be active_passive
    #[arg(long, value_name = "NAME")]
    service: ServiceName,
    /// This instance; no two processes may use the same id
    #[arg(long, value_name = "ID")]
    instance: InstanceId,
    /// Where CMD can be reached; needed where the service has checks that connect
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<Address>,
    /// When CMD is started again after it has ended by itself; the next start waits for another token
    #[arg(long, value_enum, default_value_t)]
    restart: Restart,
    /// Who says that CMD serves, where the service asks for that (failover.require_ack)
    #[arg(long, value_enum, value_name = "BY", default_value_t)]
    ack: AckBy,
    /// Time between TERM and KILL when the lease runs out; at most half of the lease [default: a quarter of it, at most 5s]
    #[arg(long, value_name = "LENGTH")]
    grace: Option<Millis>,
    /// Time between TERM and KILL otherwise, as long as the lease lasts
    #[arg(long, value_name = "LENGTH", default_value = "30s")]
    stop_timeout: Millis,
    /// Higher is rather chosen as the active
    #[arg(long, value_name = "N", default_value_t = 100)]
    priority: u32,
    /// Lower is chosen first, before any priority
    #[arg(long, value_name = "N", default_value_t = 0)]
    tier: u32,
    /// The site or failure domain this is in
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl RunArgs {
    fn registration(&self) -> Registration {
        Registration {
            zone: self.zone.clone(),
            tier: self.tier,
            priority: self.priority,
            liveness: Liveness::Heartbeat,
            deregister_after: Registration::patience(Liveness::Heartbeat),
            ..Registration::at(self.address.clone())
        }
    }
}

/// Keeps a command running while its instance is active.
pub(super) async fn run(global: &GlobalArgs, args: RunArgs) -> ExitCode {
    let registration = args.registration();
    let rules = Rules {
        restart: args.restart,
        ack: args.ack,
        grace: args.grace.map(Millis::as_duration),
        stop_timeout: args.stop_timeout.as_duration(),
    };
    let client = match global.client() {
        Ok(client) => client,
        Err(error) => return failed(&RunError::Client(error)),
    };
    let task = run::Task { command: args.command, service: args.service, instance: args.instance };
    match run::supervise(client, task, registration, rules).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

fn failed(error: &RunError) -> ExitCode {
    complain(&error.to_string());
    let exit = match error {
        RunError::Client(error) => exit::of_error(error),
        RunError::Command(error) => return ExitCode::from(error.code),
        RunError::NotActivePassive { .. } | RunError::Grace(_) => Exit::BadInput,
        RunError::Signals(_) | RunError::Alarm(_) | RunError::Watchdog(_) => Exit::Error,
    };
    exit.into()
}
