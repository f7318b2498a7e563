//! How a command ends, as scripts see it. One number, one meaning, for every subcommand.

use std::process::ExitCode;

use baton_client::ClientError;

/// The exit codes of `baton`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// Something went wrong that has no number of its own.
    Error = 1,
    /// No endpoint could be reached, or none answered.
    NoConnection = 2,
    /// What was asked for makes no sense: wrong arguments, unknown names.
    BadInput = 3,
    /// The server failed, or cannot answer now.
    ServerError = 4,
    /// The answer is here, and it is that something is not well.
    Unhealthy = 5,
    /// It may not be done as things stand: a conflict, a generation that has moved on.
    PreconditionFailed = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The code for a request that failed.
pub(crate) fn of_error(error: &ClientError) -> Exit {
    match error {
        ClientError::Endpoint { .. } => Exit::BadInput,
        ClientError::NoConnection { .. } | ClientError::NoAnswer { .. } => Exit::NoConnection,
        ClientError::Problem(problem) => match problem.status {
            409 | 412 | 428 => Exit::PreconditionFailed,
            400..=499 => Exit::BadInput,
            _ => Exit::ServerError,
        },
        ClientError::Unexpected { .. } => Exit::ServerError,
    }
}

#[cfg(test)]
mod tests {
    use baton_client::view::Problem;

    use super::*;

    #[test]
    fn statuses_have_their_codes() {
        for (status, exit) in [
            (400, Exit::BadInput),
            (404, Exit::BadInput),
            (409, Exit::PreconditionFailed),
            (412, Exit::PreconditionFailed),
            (500, Exit::ServerError),
            (503, Exit::ServerError),
        ] {
            let error = ClientError::Problem(Box::new(Problem { status, ..Problem::default() }));
            assert_eq!(of_error(&error), exit, "{status}");
        }
    }
}
