//! What is told where no quorum answers: the same question, put to one node's memory, with a warning. For questions only;
//! what changes something is never asked this way.

use baton_client::ClientError;

use crate::terminal::exit::Exit;
use crate::terminal::output::remark;

/// An answer, and how far it can be relied on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told<T> {
    pub(super) answer: T,
    /// Whether it is one node's memory.
    pub(super) stale: bool,
}

impl<T> Told<T> {
    /// How a command ends that only tells this.
    pub(super) fn exit(&self) -> Exit {
        if self.stale { Exit::Unhealthy } else { Exit::Done }
    }
}

/// The answer to a question or, where the cluster cannot say now what is true, what one node remembers. `what` begins the
/// warning: "the services are".
pub(super) async fn or_remembered<T>(
    asked: Result<T, ClientError>,
    what: &str,
    remembered: impl AsyncFnOnce() -> Result<T, ClientError>,
) -> Result<Told<T>, ClientError> {
    match asked {
        Ok(answer) => Ok(Told { answer, stale: false }),
        Err(error) if error.is_status(503) => {
            let answer = remembered().await?;
            remark(&format!("no quorum answers: {what} told as one node remembers, which may be long ago"));
            Ok(Told { answer, stale: true })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use baton_client::view::Problem;

    use super::*;

    fn problem<T>(status: u16) -> Result<T, ClientError> {
        Err(ClientError::Problem(Box::new(Problem { status, ..Problem::default() })))
    }

    #[tokio::test]
    async fn memory_is_asked_only_where_nobody_can_know() {
        let told = or_remembered(Ok(1), "it is", async || panic!("it was answered")).await.expect("an answer");
        assert_eq!((&told, told.exit()), (&Told { answer: 1, stale: false }, Exit::Done));
        let told = or_remembered(problem(503), "it is", async || Ok(2)).await.expect("an answer");
        assert_eq!((&told, told.exit()), (&Told { answer: 2, stale: true }, Exit::Unhealthy));
        let told = or_remembered::<u8>(problem(404), "it is", async || panic!("it was answered")).await;
        assert!(told.is_err_and(|error| error.is_status(404)), "a refusal is an answer");
        let told = or_remembered::<u8>(problem(503), "it is", async || problem(404)).await;
        assert!(told.is_err_and(|error| error.is_status(404)), "the memory may refuse too");
    }
}
