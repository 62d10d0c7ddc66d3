//! Keys with a name, in their text forms.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use ed25519_dalek as dalek;
use ed25519_dalek::ed25519::signature::Signer as _;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// What a key's signatures are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032) over the text; type 0x01.
    Ed25519,
    /// Ed25519 over the text and a time (c2sp.org/tlog-cosignature,
    /// `cosignature/v1`); type 0x04.
    CosignatureV1,
}

impl Algorithm {
    /// Its number in keys.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::CosignatureV1 => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Ed25519, Self::CosignatureV1]
            .into_iter()
            .find(|algorithm| algorithm.byte() == byte)
    }
}

/// First four bytes of SHA-256(name || 0x0A || type || public key).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// Why a text is no key. It never repeats the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `name+id+base64`.
    #[error("a key has the form <name>+<8 hexadecimal digits>+<base64>")]
    Form,
    /// Not a signing key.
    #[error("a signing key begins with PRIVATE+KEY+")]
    NotPrivate,
    /// The name is empty or has a space or a plus sign.
    #[error("a key's name is not empty and has neither spaces nor plus signs")]
    Name,
    /// A type that this program does not know.
    #[error("keys of type {0:#04x} are not known; known are 0x01 and 0x04")]
    Algorithm(u8),
    /// Not 32 bytes, or no point of the curve.
    #[error("these bytes are no Ed25519 key")]
    Bytes,
    /// The id is not that of this name and key.
    #[error("the key's id does not belong to its name and bytes")]
    Id,
}

/// A public key with its name. Its text form, a "vkey", is
/// `name+hex8(id)+base64(type || key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    algorithm: Algorithm,
    id: KeyId,
    key: dalek::VerifyingKey,
}

impl VerifierKey {
    /// The key with these bytes (RFC 8032, section 5.1.5).
    ///
    /// # Errors
    /// The name is not allowed, or the bytes are no key.
    pub fn new(name: &str, algorithm: Algorithm, key: &[u8; 32]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        let key = dalek::VerifyingKey::from_bytes(key).map_err(|_| KeyError::Bytes)?;
        Ok(Self::of(name, algorithm, key))
    }

    fn of(name: &str, algorithm: Algorithm, key: dalek::VerifyingKey) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(name);
        hasher.update([b'\n', algorithm.byte()]);
        hasher.update(key.as_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        let [a, b, c, d, ..] = hash;
        Self {
            name: name.to_owned(),
            algorithm,
            id: KeyId([a, b, c, d]),
            key,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The key without its name, as [`Self::new`] takes it.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// Whether this is a signature over exactly these bytes. Keys and points
    /// of small order are refused, with which one signature fits many texts.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = dalek::Signature::from_bytes(signature);
        self.key.verify_strict(message, &signature).is_ok()
    }

    /// `None` where the blob of a signature line is wrong, else the time that
    /// it states.
    pub(super) fn check_line(&self, text: &str, blob: &[u8]) -> Option<Option<u64>> {
        match self.algorithm {
            Algorithm::Ed25519 => {
                let signature = blob.try_into().ok()?;
                self.verify(text.as_bytes(), signature).then_some(None)
            }
            Algorithm::CosignatureV1 => {
                let (time, signature) = blob.split_first_chunk()?;
                let time = u64::from_be_bytes(*time);
                let message = cosigned(text, time);
                let signature = signature.try_into().ok()?;
                self.verify(message.as_bytes(), signature)
                    .then_some(Some(time))
            }
        }
    }
}

fn cosigned(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, .. } = self;
        let key = [&[self.algorithm.byte()], &self.key.as_bytes()[..]].concat();
        write!(f, "{name}+{id}+{}", BASE64_STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parts = Parts::parse(text)?;
        let key = Self::new(parts.name, parts.algorithm, &parts.key)?;
        parts.check_id(&key)?;
        Ok(key)
    }
}

/// A private key with its name; its memory is overwritten when it goes.
pub struct SigningKey {
    verifier: VerifierKey,
    secret: dalek::SigningKey,
}

impl SigningKey {
    /// The key with this secret: 32 bytes that nobody else can know.
    ///
    /// # Errors
    /// The name is not allowed.
    pub fn new(name: &str, algorithm: Algorithm, secret: &[u8; 32]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        let secret = dalek::SigningKey::from_bytes(secret);
        Ok(Self {
            verifier: VerifierKey::of(name, algorithm, secret.verifying_key()),
            secret,
        })
    }

    /// Reads `PRIVATE+KEY+name+hex8(id)+base64(type || secret)`.
    ///
    /// # Errors
    /// The text is no such key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.strip_prefix(PRIVATE).ok_or(KeyError::NotPrivate)?;
        let parts = Parts::parse(rest)?;
        let key = Self::new(parts.name, parts.algorithm, &parts.key)?;
        parts.check_id(&key.verifier)?;
        Ok(key)
    }

    /// The form that [`Self::parse`] reads.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut key = Zeroizing::new([self.verifier.algorithm.byte(); 33]);
        let (_, secret) = key.split_at_mut(1);
        secret.copy_from_slice(self.secret.as_bytes());
        let VerifierKey { name, id, .. } = &self.verifier;
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(*key));
        // All at once: a string that grows leaves copies behind.
        let parts = [PRIVATE, name, "+", &id.to_string(), "+", &encoded];
        Zeroizing::new(parts.concat())
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The blob of a signature line.
    pub(super) fn sign(&self, text: &str, time: u64) -> Vec<u8> {
        let sign = |message: &str| self.secret.sign(message.as_bytes()).to_bytes();
        match self.verifier.algorithm {
            Algorithm::Ed25519 => sign(text).to_vec(),
            Algorithm::CosignatureV1 => {
                [&time.to_be_bytes()[..], &sign(&cosigned(text, time))].concat()
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

const PRIVATE: &str = "PRIVATE+KEY+";

/// `name+hex8(id)+base64(type || 32 bytes)`
struct Parts<'a> {
    name: &'a str,
    id: &'a str,
    algorithm: Algorithm,
    key: Zeroizing<[u8; 32]>,
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Result<Self, KeyError> {
        // Base64 has plus signs of its own.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(KeyError::Form);
        };
        let bytes = BASE64_STANDARD.decode(encoded).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| KeyError::Form)?;
        let (&algorithm, key) = bytes.split_first().ok_or(KeyError::Form)?;
        let key: &[u8; 32] = key.try_into().map_err(|_| KeyError::Bytes)?;
        Ok(Self {
            name,
            id,
            algorithm: Algorithm::from_byte(algorithm).ok_or(KeyError::Algorithm(algorithm))?,
            key: Zeroizing::new(*key),
        })
    }

    fn check_id(&self, key: &VerifierKey) -> Result<(), KeyError> {
        if key.id.to_string() == self.id {
            Ok(())
        } else {
            Err(KeyError::Id)
        }
    }
}

pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|char: char| char.is_whitespace() || char == '+')
}
