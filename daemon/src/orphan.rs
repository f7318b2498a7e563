//! Ending when the parent ends. A parent that is killed with SIGKILL cannot tell its children; but the pipe that it holds
//! to their stdin closes. Only for children that were told to (`--exit-when-stdin-closes`): a service manager's stdin is
//! `/dev/null`, which is closed from the start.

use std::io::Read;

use tokio::sync::oneshot;

/// Resolves when stdin has come to its end. What is read is thrown away.
pub(crate) async fn stdin_closed() {
    let (done, wait) = oneshot::channel::<()>();
    // A thread of its own: a read from stdin cannot be cancelled, and the process must not wait for it when it ends.
    let spawned = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 256];
        while stdin.read(&mut buffer).is_ok_and(|length| length > 0) {}
        // Nobody waits any more: then the process is ending already.
        let _ = done.send(());
    });
    match spawned {
        Ok(_) => {
            // An error means that the thread is gone, and with it the watch over stdin: the same thing.
            let _ = wait.await;
        }
        // Without the thread the pipe cannot be watched. Living on is the lesser harm.
        Err(_) => std::future::pending().await,
    }
}
