//! Signatures of webhooks, by Standard Webhooks 1.0.0 (symmetric, `v1`): HMAC-SHA256 of `id.timestamp.body`, in base64.
//! Only the arithmetic is here, and the secret, which leaves this room in no form but a signature.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// What a secret begins with whose rest is base64, as Standard Webhooks writes them.
const PREFIX: &str = "whsec_";

/// The shortest key, in bytes, as Standard Webhooks asks for (192 bits). Whoever can guess it can have a machine cut off.
const KEY_MIN: usize = 24;

/// The longest text of a secret, in bytes: far more than any key needs (64 bytes are the most that Standard Webhooks
/// foresees), and less than a wrong file that was named by mistake.
pub(crate) const SECRET_MAX: usize = 1_024;

/// Why a text is no secret. None of these repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidSecret {
    /// Too short to be safe.
    #[error("has a key of {0} bytes, and fewer than {KEY_MIN} can be guessed: make one with `openssl rand -base64 32`")]
    Short(usize),
    /// Too long to be meant.
    #[error("is longer than the {SECRET_MAX} bytes that a secret has at most")]
    Long,
    /// Not what its beginning says.
    #[error("begins with \"{PREFIX}\", and what follows is not base64")]
    Base64,
}

/// The secret that webhooks are signed with. It has no text: neither logs nor errors can show it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Arc<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    /// `whsec_` and base64, as the libraries of Standard Webhooks take it; any other text is the key as it stands.
    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        if text.len() > SECRET_MAX {
            return Err(InvalidSecret::Long);
        }
        let key = match text.strip_prefix(PREFIX) {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| InvalidSecret::Base64)?,
            None => text.as_bytes().to_vec(),
        };
        if key.len() < KEY_MIN {
            return Err(InvalidSecret::Short(key.len()));
        }
        Ok(Self(key.into()))
    }
}

impl Secret {
    /// The value of the header `webhook-signature`. `timestamp` is in seconds since 1970.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut signed = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        signed.update(format!("{id}.{timestamp}.").as_bytes());
        signed.update(body);
        format!("v1,{}", STANDARD.encode(signed.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_others_compute_for_the_same() {
        // By Python: base64.b64encode(hmac.new(base64.b64decode("MfKQ…"), b"msg_….1614265330.{…}", sha256).digest())
        let secret: Secret = "whsec_MfKQ9r8GKYqUTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret");
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,vYUpvSjY5ulGDkl3leRwnNsaI1bTvDEFcvmXWir28TI=");
        // The case 2 of RFC 4231 signs less than a webhook has, and its key is shorter than one may be.
        let jefe = Secret(Arc::from(b"Jefe".as_slice()));
        assert_ne!(jefe.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#), signature);
    }

    #[test]
    fn a_secret_is_long_enough_and_never_shown() {
        let plain: Secret = "a plain text of 24 bytes".parse().expect("a secret");
        assert_eq!(format!("{plain:?}"), "Secret(not shown)");
        assert_eq!(plain, "whsec_YSBwbGFpbiB0ZXh0IG9mIDI0IGJ5dGVz".parse().expect("the same in base64"));
        for (text, why) in [
            ("", InvalidSecret::Short(0)),
            ("only 23 bytes, one less", InvalidSecret::Short(23)),
            ("whsec_YSBwbGFpbiB0ZXh0IG9mIDI0", InvalidSecret::Short(18)),
            ("whsec_not base64 at all, and long", InvalidSecret::Base64),
            (&"x".repeat(SECRET_MAX + 1), InvalidSecret::Long),
        ] {
            assert_eq!(text.parse::<Secret>(), Err(why), "{text}");
        }
    }
}
