//! TLS under a check: whom this node trusts, what a check makes of it, and the handshake. No session is ever resumed, so
//! that each probe sees the certificate that the server has now. Nothing here reads or writes what is said over it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::policy::CheckTls;
use baton_core::probe::{FailureClass, LocalTime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fault::{self, Fault};

/// The largest file of trusted certificates. The system's own bundles have a quarter of a megabyte.
const CA_FILE_MAX: u64 = 1 << 20;

/// The one provider of cryptography. Said each time: a default for the whole process would be somebody else's to set.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// Why certificates cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The file is too large to be one.
    #[error("is {0} bytes long: a file of certificates has at most {CA_FILE_MAX}")]
    TooLarge(u64),
    /// The text is not PEM.
    #[error("is not PEM: {0}")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// There is no certificate in it.
    #[error("has no certificate: write PEM text, with \"-----BEGIN CERTIFICATE-----\"")]
    Empty,
    /// One of them is no certificate.
    #[error("certificate {0} of it cannot be used: {1}")]
    Certificate(usize, #[source] Error),
    /// They make no verifier.
    #[error("cannot be used to verify with: {0}")]
    Verifier(#[source] VerifierBuilderError),
}

/// Certificates from PEM text, each of them good for a root.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(CaError::Pem)?;
    if found.is_empty() {
        return Err(CaError::Empty);
    }
    store_of(&found)?;
    Ok(found)
}

/// Certificates from a file of PEM text.
pub(crate) fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let size = std::fs::metadata(path).map_err(CaError::Read)?.len();
    if size > CA_FILE_MAX {
        return Err(CaError::TooLarge(size));
    }
    certificates(&std::fs::read(path).map_err(CaError::Read)?)
}

fn store_of(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, CaError> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        store.add(certificate.clone()).map_err(|error| CaError::Certificate(index + 1, error))?;
    }
    Ok(store)
}

fn verifier_of(store: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, CaError> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), PROVIDER.clone()).build().map_err(CaError::Verifier)
}

/// How often trusted certificates are read again: authorities are replaced within days, not minutes.
const RELOAD_EVERY: Duration = Duration::from_secs(3_600);

/// How often they are read again at most because a server's authority is not known. Reading them takes some ten
/// milliseconds, and a server that nobody vouches for is met with each probe.
const RELOAD_REST: Duration = Duration::from_secs(60);

/// Whom this node trusts: the system's certificates and the node's own, loaded when they are first needed, and again from
/// time to time. One copy serves all checks. Time is an argument.
#[derive(Clone, Debug)]
pub(crate) struct Roots(Arc<RootsInner>);

#[derive(Debug)]
struct RootsInner {
    own_file: Option<PathBuf>,
    /// Held while they are loaded, so that they are loaded once. What is inside are the node's own, as last read.
    loading: tokio::sync::Mutex<Vec<CertificateDer<'static>>>,
    held: Mutex<HeldRoots>,
}

#[derive(Debug, Default)]
struct HeldRoots {
    trust: Option<Trust>,
    /// When they were loaded last, or it was tried.
    tried: LocalTime,
    /// Since then a server was met whose authority nobody knows.
    doubted: bool,
}

/// Whom this node trusted at some time.
#[derive(Clone, Debug)]
struct Trust {
    /// Which loading it was, from 1.
    number: u64,
    /// `None`: nobody.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl HeldRoots {
    fn is_due(&self, now: LocalTime) -> bool {
        let age = now.since(self.tried);
        self.trust.is_none() || age >= RELOAD_EVERY || (self.doubted && age >= RELOAD_REST)
    }
}

impl Roots {
    /// The system's certificates and these, which were read from this file, if from any.
    pub(crate) fn with(own: &[CertificateDer<'static>], own_file: Option<&Path>) -> Self {
        let (own_file, loading) = (own_file.map(Path::to_owned), tokio::sync::Mutex::new(own.to_vec()));
        Self(Arc::new(RootsInner { own_file, loading, held: Mutex::default() }))
    }

    fn held(&self) -> MutexGuard<'_, HeldRoots> {
        // Whole after each statement.
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom this node trusts, if that need not be loaded now.
    fn fresh(&self, now: LocalTime) -> Option<Trust> {
        let held = self.held();
        held.trust.clone().filter(|_| !held.is_due(now))
    }

    /// A server's authority is not known. Whether that may be because it is newer than what was loaded: then everything is
    /// loaded again before the next handshake.
    fn doubt(&self, now: LocalTime) -> bool {
        let mut held = self.held();
        held.doubted = true;
        held.is_due(now)
    }

    /// Whom this node trusts. What cannot be loaded again is kept as it was.
    async fn trust(&self, now: LocalTime) -> Result<Trust, Fault> {
        if let Some(fresh) = self.fresh(now) {
            return Ok(fresh);
        }
        let mut own = self.0.loading.lock().await;
        if let Some(fresh) = self.fresh(now) {
            return Ok(fresh);
        }
        let (known, file) = (own.clone(), self.0.own_file.clone());
        // Hundreds of files, on some systems.
        let loaded = tokio::task::spawn_blocking(move || load(known, file.as_deref())).await;
        let loaded = loaded
            .unwrap_or_else(|error| Err(Fault::Node { detail: format!("loading trusted certificates: {error}") }));
        let mut held = self.held();
        (held.tried, held.doubted) = (now, false);
        let trust = match (loaded, held.trust.take()) {
            (Ok((_, None)), Some(before)) if before.verifier.is_some() => {
                tracing::warn!("there are no trusted certificates any more: those of before are kept");
                before
            }
            (Ok((read, verifier)), before) => {
                *own = read;
                Trust { number: before.map_or(1, |before| before.number + 1), verifier }
            }
            (Err(fault), Some(before)) => {
                tracing::warn!(?fault, "trusted certificates cannot be read again: those of before are kept");
                before
            }
            (Err(fault), None) => return Err(fault),
        };
        held.trust = Some(trust.clone());
        Ok(trust)
    }
}

/// What was loaded: the node's own, and the verifier by all.
type Loaded = (Vec<CertificateDer<'static>>, Option<Arc<WebPkiServerVerifier>>);

fn load(known: Vec<CertificateDer<'static>>, own_file: Option<&Path>) -> Result<Loaded, Fault> {
    let node = |error: &dyn std::error::Error| Fault::Node { detail: format!("loading trusted certificates: {error}") };
    let own = match own_file.map(|path| (path, read_ca_file(path))) {
        None => known,
        Some((_, Ok(read))) => read,
        // It was good when the node started; it may be in the middle of being replaced.
        Some((path, Err(error))) => {
            tracing::warn!(path = %path.display(), %error, "a file of trusted certificates is not what it was");
            known
        }
    };
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        // What this node is short of now, it may have again at the next probe; anything else stays as it is.
        if let rustls_native_certs::ErrorKind::Io { inner, .. } = &error.kind
            && fault::is_own(inner)
        {
            return Err(node(error));
        }
        tracing::warn!(%error, "some of the system's trusted certificates cannot be read");
    }
    let mut store = store_of(&own).map_err(|error| node(&error))?;
    // A system's bundle may hold a few that are too odd to be used; they vouch for nobody then.
    let (added, ignored) = store.add_parsable_certificates(system.certs);
    tracing::info!(own = own.len(), system = added, ignored, "trusted certificates were loaded");
    if store.is_empty() {
        return Ok((own, None));
    }
    let verifier = verifier_of(store).map_err(|error| node(&error))?;
    Ok((own, Some(verifier)))
}

/// How a check speaks TLS, made ready.
#[derive(Debug)]
pub(crate) struct TlsPlan {
    verify: bool,
    name: Option<ServerName<'static>>,
    ca: Option<Arc<WebPkiServerVerifier>>,
    protocol: Option<&'static [u8]>,
    /// Made at the first probe, since the node's roots are not loaded before, and again when they were; with the number of
    /// that loading, 0 where they do not matter.
    config: Mutex<Option<(u64, Arc<ClientConfig>)>>,
}

/// Why a check's TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsPlanError {
    #[error("its server_name is not a name")]
    ServerName(#[source] rustls::pki_types::InvalidDnsNameError),
    #[error("its ca cannot be used")]
    Ca(#[source] CaError),
}

impl TlsPlan {
    /// Makes settings ready. `protocol` is what the two sides must agree to speak (ALPN).
    pub(crate) fn of(tls: &CheckTls, protocol: Option<&'static [u8]>) -> Result<Self, TlsPlanError> {
        let name = tls.server_name.clone().map(ServerName::try_from).transpose().map_err(TlsPlanError::ServerName)?;
        let own = |pem: &String| verifier_of(store_of(&certificates(pem.as_bytes())?)?);
        let ca = tls.ca.as_ref().map(own).transpose().map_err(TlsPlanError::Ca)?;
        Ok(Self { verify: tls.verify, name, ca, protocol, config: Mutex::default() })
    }

    fn config(&self) -> MutexGuard<'_, Option<(u64, Arc<ClientConfig>)>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next handshake needs nothing to be loaded first.
    pub(crate) fn is_ready(&self, roots: &Roots, now: LocalTime) -> bool {
        let wanted = if self.verify { roots.fresh(now).map(|trust| trust.number) } else { Some(0) };
        wanted.is_some() && self.config().as_ref().map(|(number, _)| *number) == wanted
    }

    /// Loads what the handshakes need. Takes its time, none of which is the instance's. A failure is the node's.
    pub(crate) async fn prepare(&self, roots: &Roots, now: LocalTime) -> Result<(), Fault> {
        let (number, verifier): (_, Arc<dyn ServerCertVerifier>) = if self.verify {
            let Trust { number, verifier } = roots.trust(now).await?;
            match (&self.ca, verifier) {
                (Some(own), Some(node)) => (number, Arc::new(EitherVouches { own: own.clone(), node })),
                (Some(own), None) => (number, own.clone()),
                (None, Some(node)) => (number, node),
                // Nobody's certificate could be good, so no instance is to blame.
                (None, None) => {
                    return Err(Fault::Node { detail: "TLS: this node has no trusted certificates".to_owned() });
                }
            }
        } else {
            (0, Arc::new(AnyCertificate))
        };
        let config = self.made_with(verifier)?;
        *self.config() = Some((number, config));
        Ok(())
    }

    fn made_with(&self, verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, Fault> {
        let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Fault::Node { detail: format!("TLS: {error}") })?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = self.protocol.map(<[u8]>::to_vec).into_iter().collect();
        Ok(Arc::new(config))
    }

    /// Shakes hands over `stream` with whoever should be `host`. The caller bounds the time.
    pub(crate) async fn shake(
        &self,
        host: &str,
        stream: TcpStream,
        roots: &Roots,
        now: LocalTime,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(|_| {
                let detail = format!("TLS: no certificate can be valid for \"{host}\": give the check a server_name");
                Fault::target(FailureClass::Connection, detail)
            })?,
        };
        let Some(config) = self.config().as_ref().map(|(_, config)| config.clone()) else {
            return Err(Fault::Node { detail: "TLS: nothing is prepared".to_owned() });
        };
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
            let unknown =
                error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).is_some_and(is_of_nobody_known);
            if unknown && roots.doubt(now) {
                let detail = "TLS: unknown issuer; trusted certificates are read again before that counts".to_owned();
                return Fault::Node { detail };
            }
            Fault::of_io("TLS handshake", &error)
        })
    }
}

/// Whether a certificate was refused because nobody who is trusted vouches for it: by name, or by a key that is not (any
/// more, or yet) the one of that name.
const fn is_of_nobody_known(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature))
}

/// Trusts whom the check's own certificates or the node's vouch for. Two verifiers and not one store for both, because
/// the node's is shared by all checks and large.
#[derive(Debug)]
struct EitherVouches {
    own: Arc<WebPkiServerVerifier>,
    node: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for EitherVouches {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.own.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // Its own authority does not know it, or only somebody of the same name does: only then it is the node's to say.
            Err(own) if is_of_nobody_known(&own) => {
                match self.node.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                    // Nobody knows it: then what the check's own authority says is the more telling.
                    Err(node) if is_of_nobody_known(&node) => Err(own),
                    verified => verified,
                }
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.own.supported_verify_schemes()
    }
}

/// Takes any certificate, for checks with `verify: false`: what is wanted to know is whether the server answers, not who
/// it is. Its signatures are not looked at either, since a certificate too old to be parsed would fail there.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

/// What went wrong with TLS, in words that a person who knows certificates understands.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls has many and adds to them; those met every day have words")]
pub(crate) fn in_words(error: &Error) -> String {
    if let Error::InvalidCertificate(why) = error {
        return match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "TLS: certificate expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "TLS: certificate not valid yet".to_owned()
            }
            CertificateError::UnknownIssuer => "TLS: unknown issuer".to_owned(),
            CertificateError::NotValidForNameContext { expected, .. } => {
                format!("TLS: certificate not valid for name \"{}\"", expected.to_str())
            }
            CertificateError::Other(OtherError(other)) => format!("TLS: certificate not accepted: {other}"),
            other => format!("TLS: certificate not accepted: {other}"),
        };
    }
    match error {
        Error::InvalidMessage(_) => "TLS: the answer is not TLS".to_owned(),
        Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "TLS: the server does not speak the protocol that the check needs".to_owned()
        }
        Error::AlertReceived(alert) => format!("TLS: the server ended it with the alert {alert:?}"),
        Error::PeerIncompatible(why) => format!("TLS: nothing in common with the server ({why:?})"),
        other => format!("TLS: {other}"),
    }
}
