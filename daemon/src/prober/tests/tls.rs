//! Checks over TLS, of servers with every kind of certificate, and of some that have none.

use baton_core::policy::CheckTls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::prober::fault::Fault;
use crate::prober::tls::{Roots, TlsPlan, certificates};

/// An authority, which lives as long as a test.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// For how long a certificate is good.
#[derive(Clone, Copy)]
pub(super) enum Good {
    Now,
    Until2001,
    From2999,
}

impl Authority {
    pub(super) fn called(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// What a server needs that is `name`. Certificates of rcgen are good from 1975 on.
    pub(super) fn server(&self, name: &str, good: Good, protocols: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        match good {
            Good::Now => {}
            Good::Until2001 => params.not_after = date_time_ymd(2001, 1, 1),
            Good::From2999 => params.not_before = date_time_ymd(2999, 1, 1),
        }
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a configuration");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Answers each request over TLS with these bytes, and keeps the connection open.
async fn answers_over(acceptor: TlsAcceptor, bytes: &str) -> SocketAddr {
    let bytes: Arc<str> = bytes.into();
    serve(move |stream| {
        let (acceptor, bytes) = (acceptor.clone(), bytes.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    })
    .await
}

fn by(ca: &Authority) -> CheckTls {
    CheckTls { verify: true, server_name: None, ca: Some(ca.pem()) }
}

fn over(tls: CheckTls, kind: CheckKind) -> Check {
    Check { tls: Some(tls), timeout: Millis(1_000), ..check(kind) }
}

#[tokio::test]
async fn a_good_certificate_is_good_for_its_name_and_its_address() {
    let ca = Authority::called("one");
    let well = answers_over(ca.server("127.0.0.1", Good::Now, &[]), &ok("well")).await;
    assert_eq!(probe(well, &over(by(&ca), CheckKind::Tls)).await.0, Ok(Outcome::Success));
    let http = Check { expect_body: Some("^well$".to_owned()), ..over(by(&ca), CheckKind::Http) };
    assert_eq!(probe(well, &http).await.0, Ok(Outcome::Success));

    let named = answers_over(ca.server("web.example", Good::Now, &["http/1.1"]), &ok("")).await;
    let asks = CheckTls { server_name: Some("web.example".to_owned()), ..by(&ca) };
    for kind in [CheckKind::Tls, CheckKind::Http] {
        assert_eq!(probe(named, &over(asks.clone(), kind)).await.0, Ok(Outcome::Success), "{kind}");
        let (seen, _) = probe(named, &over(by(&ca), kind)).await;
        assert_failed(seen, FailureClass::Connection, "TLS: certificate not valid for name \"127.0.0.1\"");
    }
    let sick = answers_over(ca.server("127.0.0.1", Good::Now, &[]), "HTTP/1.1 503 Busy\r\n\r\n").await;
    assert_failed(probe(sick, &over(by(&ca), CheckKind::Http)).await.0, FailureClass::ServerError, "answered 503");
}

#[tokio::test]
async fn a_bad_certificate_is_told_by_what_is_bad_and_may_be_overlooked() {
    let (ca, other) = (Authority::called("one"), Authority::called("two"));
    for (good, trusted, words) in [
        (Good::Until2001, &ca, "TLS: certificate expired"),
        (Good::From2999, &ca, "TLS: certificate not valid yet"),
        (Good::Now, &other, "TLS: unknown issuer"),
    ] {
        let server = answers_over(ca.server("127.0.0.1", good, &[]), &ok("")).await;
        for kind in [CheckKind::Tls, CheckKind::Http] {
            assert_failed(probe(server, &over(by(trusted), kind)).await.0, FailureClass::Connection, words);
            let lenient = CheckTls { verify: false, server_name: None, ca: None };
            assert_eq!(probe(server, &over(lenient, kind)).await.0, Ok(Outcome::Success), "{words}: overlooked");
        }
    }
}

#[tokio::test]
async fn the_nodes_own_authorities_vouch_beside_the_checks() {
    let (ca, other) = (Authority::called("one"), Authority::called("two"));
    let server = answers_over(ca.server("127.0.0.1", Good::Now, &[]), &ok("")).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, format!("# Ours.\n{}{}", other.pem(), ca.pem())).expect("written");
    let node = ProbeConfig { ca: read_ca_file(&path).expect("certificates"), ..ProbeConfig::default() };
    assert_eq!(node.ca.len(), 2);
    assert_eq!(probe_with(&node, server, &check(CheckKind::Tls)).await.0, Ok(Outcome::Success));
    assert_eq!(probe_with(&node, server, &over(by(&other), CheckKind::Tls)).await.0, Ok(Outcome::Success));
    let neither = Authority::called("three");
    let node = ProbeConfig { ca: node.ca[..1].to_vec(), ..node };
    let (seen, _) = probe_with(&node, server, &over(by(&neither), CheckKind::Tls)).await;
    assert_failed(seen, FailureClass::Connection, "TLS: unknown issuer");

    for (text, words) in [
        ("", "has no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "certificate 1 of it cannot be used"),
        ("-----BEGIN CERTIFICATE-----\nA\n", "is not PEM"),
    ] {
        std::fs::write(&path, text).expect("written");
        let error = read_ca_file(&path).expect_err(words).to_string();
        assert!(error.contains(words), "\"{error}\" does not say \"{words}\"");
    }
    assert!(read_ca_file(dir.path()).is_err() && read_ca_file(&dir.path().join("none")).is_err());
}

#[tokio::test]
async fn an_authority_of_the_same_name_with_another_key_leaves_the_word_to_the_node() {
    // The check brings the authority of before its key was replaced, the node the new one.
    let (old, new) = (Authority::called("one"), Authority::called("one"));
    let server = answers_over(new.server("127.0.0.1", Good::Now, &[]), &ok("")).await;
    let node = |ca: &Authority| ProbeConfig {
        ca: certificates(ca.pem().as_bytes()).expect("a certificate"),
        ..ProbeConfig::default()
    };
    assert_eq!(probe_with(&node(&new), server, &over(by(&old), CheckKind::Tls)).await.0, Ok(Outcome::Success));
    let (seen, _) = probe_with(&node(&old), server, &over(by(&old), CheckKind::Tls)).await;
    assert_failed(seen, FailureClass::Connection, "TLS: ");
}

/// A node's roots with a file of its own, and a check that trusts nobody else.
struct Trusting {
    file: std::path::PathBuf,
    roots: Roots,
    plan: TlsPlan,
}

impl Trusting {
    fn of(dir: &tempfile::TempDir, ca: &Authority) -> Self {
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, ca.pem()).expect("written");
        let roots = Roots::with(&read_ca_file(&file).expect("certificates"), Some(&file));
        let tls = CheckTls { verify: true, server_name: None, ca: None };
        Self { file, roots, plan: TlsPlan::of(&tls, None).expect("a plan") }
    }

    fn rotate(&self, ca: &str) {
        std::fs::write(&self.file, ca).expect("written");
    }

    /// A handshake at this second.
    async fn shake(&self, server: SocketAddr, second: u64) -> Result<(), Fault> {
        let now = LocalTime(Duration::from_secs(second));
        if !self.plan.is_ready(&self.roots, now) {
            self.plan.prepare(&self.roots, now).await.expect("it is loaded");
            assert!(self.plan.is_ready(&self.roots, now));
        }
        let stream = TcpStream::connect(server).await.expect("it listens");
        self.plan.shake("127.0.0.1", stream, &self.roots, now).await.map(drop)
    }
}

fn unknown_issuer() -> Result<(), Fault> {
    Err(Fault::target(FailureClass::Connection, "TLS: unknown issuer"))
}

#[tokio::test]
async fn a_new_authority_is_noticed_when_a_server_has_it_and_its_instance_is_not_blamed() {
    let [one, two, three] = ["one", "two", "three"].map(Authority::called);
    let dir = tempfile::tempdir().expect("a directory");
    let node = Trusting::of(&dir, &one);
    let of_two = answers_over(two.server("127.0.0.1", Good::Now, &[]), "").await;
    assert_eq!(node.shake(of_two, 0).await, unknown_issuer(), "what is known is new");
    node.rotate(&two.pem());
    assert_eq!(node.shake(of_two, 59).await, unknown_issuer(), "they are not read again with each probe");
    assert_eq!(node.shake(of_two, 60).await, Ok(()), "but a minute later");

    let of_three = answers_over(three.server("127.0.0.1", Good::Now, &[]), "").await;
    node.rotate(&three.pem());
    match node.shake(of_three, 120).await {
        Err(Fault::Node { detail }) => assert!(detail.contains("read again before that counts"), "{detail}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.shake(of_three, 120).await, Ok(()), "read again, it is known");
    assert_eq!(node.shake(of_two, 121).await, unknown_issuer());
}

#[tokio::test]
async fn trusted_certificates_are_read_again_every_hour_and_kept_where_they_cannot_be() {
    let (old, new) = (Authority::called("one"), Authority::called("two"));
    let server = answers_over(old.server("127.0.0.1", Good::Now, &[]), "").await;
    let dir = tempfile::tempdir().expect("a directory");
    let node = Trusting::of(&dir, &old);
    assert_eq!(node.shake(server, 0).await, Ok(()));
    node.rotate("half a file");
    assert_eq!(node.shake(server, 3_600).await, Ok(()), "what is being replaced is kept");
    node.rotate(&new.pem());
    assert_eq!(node.shake(server, 7_199).await, Ok(()), "nothing made it look");
    assert_eq!(node.shake(server, 7_200).await, unknown_issuer(), "whoever is not trusted any more vouches for nobody");
}

#[tokio::test]
async fn whoever_does_not_speak_tls_is_told_so() {
    let ca = Authority::called("one");
    let tls = || over(by(&ca), CheckKind::Tls);
    let plain = answers("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_failed(probe(plain, &tls()).await.0, FailureClass::Connection, "TLS: the answer is not TLS");
    let closes = serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 4_096]).await;
    })
    .await;
    assert_failed(probe(closes, &tls()).await.0, FailureClass::Connection, "TLS handshake: the connection was closed");
    assert_failed(probe(closed_port().await, &tls()).await.0, FailureClass::Connection, "connection refused");
    let hangs = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let (seen, took) = probe(hangs, &Check { timeout: TIMEOUT, ..tls() }).await;
    assert_failed(seen, FailureClass::Timeout, "connected, but no TLS handshake within 300ms");
    assert!(took >= TIMEOUT.as_duration() && took < TIMEOUT.as_duration() * 2, "{took:?}");
    // An HTTP check says what it is there for, and a server for something else refuses.
    let other = answers_over(ca.server("127.0.0.1", Good::Now, &["h2"]), "").await;
    let (seen, _) = probe(other, &over(by(&ca), CheckKind::Http)).await;
    assert_failed(seen, FailureClass::Connection, "TLS: the server does not speak the protocol");
}

#[tokio::test]
async fn no_session_is_resumed() {
    let ca = Authority::called("one");
    let acceptor = ca.server("127.0.0.1", Good::Now, &[]);
    let (tell, mut told) = tokio::sync::mpsc::channel(4);
    let address = serve(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = tell.send(stream.get_ref().1.handshake_kind()).await;
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(ok("").as_bytes()).await;
        }
    })
    .await;
    let mut prober = prober();
    // One that reads an answer reads the tickets for another session on the way.
    prober.insert(target(address, &over(by(&ca), CheckKind::Http)));
    for _ in 0..3 {
        assert_eq!(results(&mut prober).await.remove(0).seen, Ok(Outcome::Success));
        assert_eq!(told.recv().await.flatten(), Some(rustls::HandshakeKind::Full));
    }
}
