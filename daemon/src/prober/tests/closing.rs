//! How connections are let go, by a reset once everything has been said and with the usual farewell otherwise, and what
//! a probe takes up.

use std::io;

use tokio::sync::mpsc;

use super::*;

/// Answers once and tells what it reads after that.
async fn farewells(answer: String) -> (SocketAddr, mpsc::Receiver<io::Result<usize>>) {
    let (tell, told) = mpsc::channel(4);
    let address = serve(move |mut stream| {
        let (tell, answer) = (tell.clone(), answer.clone());
        async move {
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = tell.send(stream.read(&mut [0; 16]).await).await;
        }
    })
    .await;
    (address, told)
}

#[tokio::test]
async fn a_complete_answer_leaves_no_socket_behind() {
    let http = check(CheckKind::Http);
    let (well, mut told) = farewells(ok("well")).await;
    assert_eq!(probe(well, &http).await.0, Ok(Outcome::Success));
    let farewell = told.recv().await.expect("an end");
    assert_eq!(farewell.expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);

    let (sick, mut told) = farewells("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    assert_failed(probe(sick, &http).await.0, FailureClass::ServerError, "503");
    assert_eq!(told.recv().await.expect("an end").expect("the usual farewell"), 0);
}

#[tokio::test]
async fn the_task_of_a_probe_is_small() {
    let prober = prober();
    let target = Arc::new(target(closed_port().await, &check(CheckKind::Http)));
    let due = prober.clock.now();
    let probe = Probe { id: TargetId(1), target, due, means: prober.means.clone() };
    let size = size_of_val(&probe.run());
    assert!(size <= 4_096, "{size} bytes are taken up and given back for each probe");
}
