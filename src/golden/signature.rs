//! Signatures of manifests, with [`SigningKey`] and [`PublicKey`]. A signature is Ed25519 over the exact bytes of
//! `manifest.json`, and lies beside it in the file `manifest.sig`.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signature, Signer};
use zeroize::Zeroizing;

use crate::files::{ReadError, Symlinks, open_regular};
use crate::hex::{self, Hex};

/// The signature's file name within the golden snapshot's folder.
pub(super) const FILE: &str = "manifest.sig";

/// The prefix of the signed message. It ensures that a signature of a manifest is not valid for a message of another
/// kind that the same key signs.
const DOMAIN: &[u8] = b"chv-sandbox golden manifest, format 2\0";

/// The prefix of a signature's text. 128 hexadecimal digits and a line feed follow.
const PREFIX: &str = "ed25519:";

/// The length of the longest key file that is read, in bytes.
const MAX_KEY: usize = 4096;

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file can't be read.
    #[error("cannot read the key {}", path.display())]
    Read {
        /// The key file.
        path: PathBuf,
        /// Why it can't be read.
        source: io::Error,
    },
    /// Users other than its owner may access the file of a private key.
    #[error(
        "the private key {} has mode {mode:04o}: only its owner may have access (chmod 600)",
        path.display()
    )]
    TooOpen {
        /// The key file.
        path: PathBuf,
        /// The file's permission bits.
        mode: u32,
    },
    /// The file does not contain an Ed25519 key of the expected kind.
    #[error("{} has no Ed25519 {what} key: neither PEM nor 32 bytes", path.display())]
    NotAKey {
        /// The key file.
        path: PathBuf,
        /// The expected kind: `private` or `public`.
        what: &'static str,
    },
}

/// An Ed25519 key that signs manifests. It is wiped from memory when it is dropped, and `Debug` shows only its public
/// key.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    /// Reads a private key: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it, or the 32 bytes of the
    /// seed.
    ///
    /// # Errors
    ///
    /// - [`KeyError::Read`]: the file can't be read, is not a regular file or is longer than 4,096 bytes.
    /// - [`KeyError::TooOpen`]: the file's mode gives access to users other than its owner.
    /// - [`KeyError::NotAKey`]: the file has no private key in it.
    pub fn load(path: &Path) -> Result<SigningKey, KeyError> {
        let (bytes, mode) = read_key(path)?;
        if mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(KeyError::TooOpen { path, mode });
        }
        let key = match <&[u8; 32]>::try_from(&bytes[..]) {
            Ok(seed) => Some(ed25519_dalek::SigningKey::from_bytes(seed)),
            Err(_) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|pem| ed25519_dalek::SigningKey::from_pkcs8_pem(pem).ok()),
        };
        key.map(SigningKey).ok_or_else(|| KeyError::NotAKey {
            path: path.to_owned(),
            what: "private",
        })
    }

    /// The public key that verifies the signatures of this key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Returns the content of `manifest.sig` for a `manifest.json` with the bytes `manifest`. With it a golden snapshot
    /// can be signed after it was minted.
    pub fn sign(&self, manifest: &[u8]) -> String {
        let signature = self.0.sign(&message(manifest)).to_bytes();
        format!("{PREFIX}{}\n", Hex(&signature))
    }
}

/// An Ed25519 key that verifies the signature of a manifest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", Hex(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PublicKey {
    /// Reads a public key: PEM, as `openssl pkey -pubout` writes it, or the key's 32 bytes.
    ///
    /// # Errors
    ///
    /// - [`KeyError::Read`]: the file can't be read, is not a regular file or is longer than 4,096 bytes.
    /// - [`KeyError::NotAKey`]: the file has no public key in it, or a weak one, for which one signature can fit
    ///   several messages.
    pub fn load(path: &Path) -> Result<PublicKey, KeyError> {
        let (bytes, _) = read_key(path)?;
        let key = match <&[u8; 32]>::try_from(&bytes[..]) {
            Ok(raw) => ed25519_dalek::VerifyingKey::from_bytes(raw).ok(),
            Err(_) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|pem| ed25519_dalek::VerifyingKey::from_public_key_pem(pem).ok()),
        };
        // For a weak key, one signature can be valid for more than one message.
        let key = key.filter(|key| !key.is_weak());
        key.map(PublicKey).ok_or_else(|| KeyError::NotAKey {
            path: path.to_owned(),
            what: "public",
        })
    }

    /// The key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether `text`, the content of `manifest.sig`, is a signature of the bytes `manifest` by this key.
    pub(super) fn verifies(&self, manifest: &[u8], text: &[u8]) -> bool {
        let signature = parse(text).map(|bytes| Signature::from_bytes(&bytes));
        signature.is_some_and(|signature| {
            let message = message(manifest);
            self.0.verify_strict(&message, &signature).is_ok()
        })
    }
}

fn message(manifest: &[u8]) -> Vec<u8> {
    [DOMAIN, manifest].concat()
}

/// Returns the file's content and its permission bits.
fn read_key(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), KeyError> {
    // The buffer is allocated in full at once: a buffer that grows would leave a copy of the private key in freed
    // memory.
    let mut bytes = Zeroizing::new(vec![0; MAX_KEY + 1]);
    let mut filled = 0;
    let mut read = || -> io::Result<u32> {
        let opened = open_regular(path, Symlinks::Follow);
        let (mut file, metadata) = opened.map_err(|error| match error {
            ReadError::NotRegular => io::Error::other(
                "it is not a regular file; what a pipe gives has to be copied into one first",
            ),
            error => error.into(),
        })?;
        while filled < bytes.len() {
            match file.read(&mut bytes[filled..])? {
                0 => return Ok(metadata.mode() & 0o7777),
                count => filled += count,
            }
        }
        Err(io::Error::other("the file is too long for a key"))
    };
    let mode = read().map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    bytes.truncate(filled);
    Ok((bytes, mode))
}

/// Reads a signature's file. There is one text for each signature: digits in upper case are refused.
fn parse(text: &[u8]) -> Option<[u8; 64]> {
    let digits = text.strip_prefix(PREFIX.as_bytes())?.strip_suffix(b"\n")?;
    hex::parse(digits)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key_file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        file
    }

    /// A key pair for this test only, written by `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout`.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEICp4v1MiPXaIMVLcWRxCqnd76ga+v0cXXnXzUN/3S8In\n\
        -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAy5o2xTYF1kXxNsKjtiXHNW/9Mt+ARxEXo/Su+GalAlI=\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn a_signature_verifies_only_its_manifest_and_key() {
        let key = SigningKey::load(key_file(&[7; 32], 0o600).path()).unwrap();
        let other = SigningKey::load(key_file(&[8; 32], 0o400).path()).unwrap();
        let signature = key.sign(b"manifest");
        let check = |key: &SigningKey, manifest: &[u8], text: &str, expected: bool| {
            let verified = key.public().verifies(manifest, text.as_bytes());
            assert_eq!(verified, expected, "{text:?} of {manifest:?}");
        };
        check(&key, b"manifest", &signature, true);
        check(&key, b"manifesT", &signature, false);
        check(&key, b"", &signature, false);
        check(&other, b"manifest", &signature, false);
        let last = signature.trim_end().chars().last().unwrap();
        let spoilt = match last {
            '0' => "1",
            _ => "0",
        };
        let flipped = format!("{}{spoilt}\n", &signature[..signature.len() - 2]);
        check(&key, b"manifest", &flipped, false);
        let digits = &signature[PREFIX.len()..];
        let upper = format!("{PREFIX}{}", digits.to_ascii_uppercase());
        assert_ne!(upper, signature);
        for text in [
            "",
            "ed25519:\n",
            &signature[8..],
            signature.trim_end(),
            &upper,
        ] {
            check(&key, b"manifest", text, false);
        }
        check(
            &key,
            b"manifest",
            &signature.replace("ed25519", "ed448"),
            false,
        );
    }

    #[test]
    fn the_keys_of_openssl_are_read() {
        let private = SigningKey::load(key_file(PRIVATE.as_bytes(), 0o600).path()).unwrap();
        let public = PublicKey::load(key_file(PUBLIC.as_bytes(), 0o644).path()).unwrap();
        assert_eq!(private.public(), public);
    }

    #[test]
    fn an_unusable_key_file_is_refused() {
        let check = |content: &[u8], mode: u32, expected: fn(&KeyError) -> bool| {
            let error = SigningKey::load(key_file(content, mode).path()).unwrap_err();
            assert!(expected(&error), "{error}");
        };
        let not_a_key = |error: &KeyError| matches!(error, KeyError::NotAKey { .. });
        check(b"", 0o600, not_a_key);
        check(&[7; 31], 0o600, not_a_key);
        check(PUBLIC.as_bytes(), 0o600, not_a_key);
        check(&[0xff; 64], 0o600, not_a_key);
        let unreadable = |error: &KeyError| matches!(error, KeyError::Read { .. });
        check(&[b'a'; MAX_KEY + 1], 0o600, unreadable);
        for mode in [0o640, 0o604, 0o660, 0o644] {
            let too_open = |error: &KeyError| matches!(error, KeyError::TooOpen { .. });
            check(&[7; 32], mode, too_open);
        }
        let error = PublicKey::load("/no/such/key".as_ref()).unwrap_err();
        assert!(unreadable(&error), "{error}");
        // The point of order one is a weak public key.
        let mut weak = [0; 32];
        weak[0] = 1;
        let error = PublicKey::load(key_file(&weak, 0o600).path()).unwrap_err();
        assert!(not_a_key(&error), "{error}");
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let key = SigningKey::load(key_file(&[7; 32], 0o600).path()).unwrap();
        assert!(!format!("{key:?}").contains(&Hex(&[7; 32]).to_string()));
    }
}
