//! TLS under a check: whom this node trusts, what a check makes of it, and the handshake. No session is ever resumed, so
//! that each probe sees the certificate that the server has now. Nothing here reads or writes what is said over it.

use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use baton_core::policy::CheckTls;
use baton_core::probe::FailureClass;
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
use tokio::sync::OnceCell;
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

/// Whom this node trusts: the system's certificates and the node's own, loaded when they are first needed and kept until
/// the node ends. One copy serves all checks.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    own: Arc<[CertificateDer<'static>]>,
    verifier: Arc<OnceCell<Option<Arc<WebPkiServerVerifier>>>>,
}

impl Roots {
    /// The system's certificates and these.
    pub(crate) fn with(own: &[CertificateDer<'static>]) -> Self {
        Self { own: own.into(), verifier: Arc::default() }
    }

    /// Verifies by these roots. `None`: there are none.
    async fn verifier(&self) -> Result<Option<Arc<WebPkiServerVerifier>>, Fault> {
        let load = || async {
            let own = self.own.clone();
            // Hundreds of files, on some systems.
            let loaded = tokio::task::spawn_blocking(move || load(&own)).await;
            loaded.unwrap_or_else(|error| Err(Fault::Node { detail: format!("loading trusted certificates: {error}") }))
        };
        self.verifier.get_or_try_init(load).await.cloned()
    }
}

fn load(own: &[CertificateDer<'static>]) -> Result<Option<Arc<WebPkiServerVerifier>>, Fault> {
    let node = |error: &dyn std::error::Error| Fault::Node { detail: format!("loading trusted certificates: {error}") };
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
    let mut store = store_of(own).map_err(|error| node(&error))?;
    // A system's bundle may hold a few that are too odd to be used; they vouch for nobody then.
    let (added, ignored) = store.add_parsable_certificates(system.certs);
    tracing::info!(own = own.len(), system = added, ignored, "trusted certificates were loaded");
    if store.is_empty() {
        return Ok(None);
    }
    verifier_of(store).map(Some).map_err(|error| node(&error))
}

/// How a check speaks TLS, made ready.
#[derive(Debug)]
pub(crate) struct TlsPlan {
    verify: bool,
    name: Option<ServerName<'static>>,
    ca: Option<Arc<WebPkiServerVerifier>>,
    protocol: Option<&'static [u8]>,
    /// Made at the first probe, since the node's roots are not loaded before; then the same for all probes.
    config: OnceCell<Arc<ClientConfig>>,
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
        Ok(Self { verify: tls.verify, name, ca, protocol, config: OnceCell::new() })
    }

    /// Whether the next handshake needs nothing to be loaded first.
    pub(crate) fn is_ready(&self) -> bool {
        self.config.initialized()
    }

    /// Loads what the handshakes need. Takes its time, none of which is the instance's. A failure is the node's.
    pub(crate) async fn prepare(&self, roots: &Roots) -> Result<(), Fault> {
        self.config.get_or_try_init(|| self.made_with(roots)).await.map(|_| ())
    }

    async fn made_with(&self, roots: &Roots) -> Result<Arc<ClientConfig>, Fault> {
        let verifier: Arc<dyn ServerCertVerifier> = if self.verify {
            let node = roots.verifier().await?;
            match (&self.ca, node) {
                (Some(own), Some(node)) => Arc::new(EitherVouches { own: own.clone(), node }),
                (Some(own), None) => own.clone(),
                (None, Some(node)) => node,
                // Nobody's certificate could be good, so no instance is to blame.
                (None, None) => {
                    return Err(Fault::Node { detail: "TLS: this node has no trusted certificates".to_owned() });
                }
            }
        } else {
            Arc::new(AnyCertificate)
        };
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
    pub(crate) async fn shake(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, Fault> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(|_| {
                let detail = format!("TLS: no certificate can be valid for \"{host}\": give the check a server_name");
                Fault::target(FailureClass::Connection, detail)
            })?,
        };
        let Some(config) = self.config.get() else {
            return Err(Fault::Node { detail: "TLS: nothing is prepared".to_owned() });
        };
        TlsConnector::from(config.clone())
            .connect(name, stream)
            .await
            .map_err(|error| Fault::of_io("TLS handshake", &error))
    }
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
            // Its own authority does not know it: only then it is the node's to say.
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                self.node.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
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
