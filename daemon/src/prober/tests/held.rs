//! Held connections: their end is noticed at once and starts a probe, and nobody is pestered for them.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{broadcast, mpsc};

use super::*;

/// How servers end the connections that they keep.
#[derive(Clone, Copy, Debug)]
enum Way {
    Fin,
    Reset,
    /// Never stops sending.
    Flood,
}

/// Keeps connections until told how to end them; tells of each that its client closed.
struct Keeper {
    address: SocketAddr,
    end: broadcast::Sender<Way>,
    accepted: Arc<AtomicUsize>,
    closed: mpsc::Receiver<Duration>,
}

impl Keeper {
    async fn start() -> Self {
        let (end, _) = broadcast::channel(4);
        let (tell, closed) = mpsc::channel(1_000);
        let accepted = Arc::new(AtomicUsize::new(0));
        let (ends, count) = (end.clone(), accepted.clone());
        let address = serve(move |mut stream| {
            count.fetch_add(1, Ordering::Relaxed);
            let (mut ends, tell) = (ends.subscribe(), tell.clone());
            async move {
                let since = Instant::now();
                let mut read = [0; 1];
                tokio::select! {
                    way = ends.recv() => match way {
                        Ok(Way::Reset) => stream.set_zero_linger().expect("a socket"),
                        Ok(Way::Flood) => while stream.write_all(&[0; 4_096]).await.is_ok() {},
                        Ok(Way::Fin) | Err(_) => {}
                    },
                    _ = stream.read(&mut read) => {
                        let _ = tell.try_send(since.elapsed());
                    }
                }
            }
        })
        .await;
        Self { address, end, accepted, closed }
    }
}

fn watching(kind: CheckKind) -> Check {
    Check { watch: true, ..check(kind) }
}

/// A prober that holds a connection to `address` and probes it every hour.
async fn holding(address: SocketAddr, kind: CheckKind) -> (Prober, TargetId) {
    let mut prober = prober();
    let id = prober.insert(target(address, &Check { interval: Millis::secs(3_600), ..watching(kind) }));
    assert_eq!(results(&mut prober).await.remove(0).seen, Ok(Outcome::Success));
    prober.pace(id, Pace::Normal);
    assert!(quiet(&mut prober, Duration::from_millis(100)).await, "nothing more is due for long");
    (prober, id)
}

async fn quiet(prober: &mut Prober, length: Duration) -> bool {
    tokio::time::timeout(length, prober.next()).await.is_err()
}

#[tokio::test]
async fn the_end_of_a_held_connection_makes_a_probe_at_once() {
    for way in [Way::Fin, Way::Reset] {
        let keeper = Keeper::start().await;
        let (mut prober, id) = holding(keeper.address, CheckKind::Tcp).await;
        assert_eq!(keeper.accepted.load(Ordering::Relaxed), 2, "a probe and the held one");
        let begin = Instant::now();
        keeper.end.send(way).expect("a connection");
        let news = prober.next().await;
        assert!(matches!(news[..], [ProberNews::Ended(ended)] if ended == id), "{way:?}: {news:?}");
        let noticed = begin.elapsed();
        assert!(noticed < Duration::from_millis(50), "{way:?} was noticed after {noticed:?}");
        // Whoever now has a doubt does not put the probe off.
        prober.pace(id, Pace::Fast);
        assert_eq!(results(&mut prober).await.remove(0).seen, Ok(Outcome::Success));
        let probed = begin.elapsed();
        assert!(probed < Duration::from_millis(100), "{way:?} made a probe after {probed:?}");
        eprintln!("{way:?}: noticed after {noticed:?}, probed after {probed:?}");
        // It is well, and the connection is not made again so soon.
        assert_eq!(results(&mut prober).await.remove(0).seen, Ok(Outcome::Success));
        assert_eq!(keeper.accepted.load(Ordering::Relaxed), 4, "two probes since");
    }
}

#[tokio::test]
async fn a_dead_server_is_known_within_milliseconds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let server = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let (mut prober, id) = holding(address, CheckKind::Tcp).await;
    let begin = Instant::now();
    server.abort();
    assert!(matches!(prober.next().await[..], [ProberNews::Ended(ended)] if ended == id));
    assert_failed(results(&mut prober).await.remove(0).seen, FailureClass::Connection, "refused");
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_connection_is_made_again_after_a_success_and_an_interval() {
    let keeper = Keeper::start().await;
    let mut prober = prober();
    let id = prober.insert(target(keeper.address, &Check { interval: Millis(200), ..watching(CheckKind::Tcp) }));
    prober.pace(id, Pace::Normal);
    let (mut ended, mut probes) = (Vec::new(), 0);
    let begin = Instant::now();
    while ended.len() < 3 {
        assert!(begin.elapsed() < Duration::from_secs(10), "{ended:?}");
        for news in prober.next().await {
            match news {
                ProberNews::Result(_) => probes += 1,
                ProberNews::Ended(_) => ended.push(begin.elapsed()),
            }
        }
        if keeper.accepted.load(Ordering::Relaxed) - probes > ended.len() {
            tokio::time::sleep(Duration::from_millis(60)).await;
            let _ = keeper.end.send(Way::Fin);
        }
    }
    for pair in ended.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(200), "sooner than an interval: {ended:?}");
    }
}

#[tokio::test]
async fn a_server_that_closes_at_once_is_not_pestered() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let closes = serve(move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { drop(stream) }
    })
    .await;
    let mut prober = prober();
    let id = prober.insert(target(closes, &Check { interval: Millis(50), ..watching(CheckKind::Tcp) }));
    prober.pace(id, Pace::Normal);
    let mut probes = 0;
    while probes < 40 {
        for news in prober.next().await {
            match news {
                ProberNews::Result(_) => probes += 1,
                ProberNews::Ended(_) => panic!("a connection that was never kept has nothing to say"),
            }
        }
    }
    // After 0, 1, 2, 3, 4, 6, 10, 18 and 28 intervals; and 38, perhaps.
    let held = accepted.load(Ordering::Relaxed) - probes;
    assert!((6..=10).contains(&held), "{held} connections were tried beside {probes} probes");
}

#[tokio::test]
async fn a_server_that_talks_without_end_is_let_go() {
    let keeper = Keeper::start().await;
    let (mut prober, _) = holding(keeper.address, CheckKind::Tcp).await;
    keeper.end.send(Way::Flood).expect("a connection");
    assert!(quiet(&mut prober, Duration::from_millis(300)).await, "that is no hint");
    assert!(prober.holds.is_empty(), "it is not held any more");
}

#[tokio::test]
async fn a_target_that_is_let_go_or_not_found_loses_its_connection_at_once() {
    let mut keeper = Keeper::start().await;
    let (mut prober, id) = holding(keeper.address, CheckKind::Tcp).await;
    while keeper.closed.try_recv().is_ok() {}
    prober.remove(id);
    let closed = tokio::time::timeout(Duration::from_millis(50), keeper.closed.recv()).await;
    assert!(matches!(closed, Ok(Some(kept)) if kept >= Duration::from_millis(90)), "{closed:?}");

    // A server whose process stands still: its kernel keeps the connection, and its probes time out.
    let stopped = Arc::new(AtomicUsize::new(0));
    let (tell, mut closed) = mpsc::channel(10);
    let stands = stopped.clone();
    let address = serve(move |mut stream| {
        let (stands, tell) = (stands.clone(), tell.clone());
        async move {
            let length = stream.read(&mut [0; 4_096]).await.unwrap_or(0);
            if length == 0 {
                let _ = tell.try_send(());
            } else if stands.load(Ordering::Relaxed) == 0 {
                let _ = stream.write_all(ok("").as_bytes()).await;
            } else {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    })
    .await;
    let (mut prober, id) = holding(address, CheckKind::Http).await;
    stopped.store(1, Ordering::Relaxed);
    prober.hurry(id);
    assert_failed(results(&mut prober).await.remove(0).seen, FailureClass::Timeout, "no answer");
    let closed = tokio::time::timeout(Duration::from_millis(50), closed.recv()).await;
    assert_eq!(closed, Ok(Some(())), "the connection leads nowhere");
}

#[tokio::test]
async fn no_more_connections_are_held_than_may_be() {
    let keeper = Keeper::start().await;
    let mut prober = prober();
    prober.holds.max = 1;
    for _ in 0..3 {
        prober.insert(target(keeper.address, &watching(CheckKind::Tcp)));
    }
    let unwatched = prober.insert(target(keeper.address, &check(CheckKind::Tcp)));
    let mut probed = std::collections::HashSet::new();
    while probed.len() < 4 || !probed.contains(&unwatched) {
        probed.extend(results(&mut prober).await.into_iter().map(|result| result.target));
        assert!(prober.holds.len() <= 1);
    }
    assert_eq!(prober.holds.len(), 1);
}
