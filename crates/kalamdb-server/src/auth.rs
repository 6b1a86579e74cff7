//! Who is asking: tokens, and what they prove.
//!
//! Tokens are JWTs, signed with HMAC-SHA-256 and a key of 32 bytes that is made at the first start and kept in the data
//! directory. A token names a user and when that account was created; whether the account still exists and what it may do
//! is looked up when the token is used, so that dropping a user, or making a new one of the same name, ends its tokens.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use kalamdb_core::format::{Role, User, UserId};
use kalamdb_core::{Engine, clock};
use serde::{Deserialize, Serialize};

use crate::config::ServerConfig;
use crate::error::{Error, Result};
use crate::refusal::Refusal;

const KEY_FILE: &str = "jwt.key";
const KEY_BYTES: usize = 32;
/// No token of ours is longer; what is gets no further.
const TOKEN_BYTES_MAX: usize = 4_096;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TokenKind {
    /// Requests and connections.
    Access,
    /// Getting new tokens.
    Refresh,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    kind: TokenKind,
    iat: i64,
    exp: i64,
    /// When the account was created, microseconds since 1970.
    account: i64,
}

/// A token, and until when it is good: seconds since 1970.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires_at: i64,
}

/// A user that has proved to be one.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    pub(crate) role: Role,
    /// Seconds since 1970.
    pub(crate) expires_at: i64,
    /// When the account was created, microseconds since 1970.
    account: i64,
}

impl Identity {
    /// Whether it still stands: refused where the token has expired, or the account is gone or another one by now.
    pub(crate) fn check(&mut self, engine: &Engine) -> Result<(), Refusal> {
        if now_s() >= self.expires_at {
            return Err(expired());
        }
        self.role = account_of(engine, &self.user, self.account)?.role;
        Ok(())
    }

    /// How long its token is good for.
    pub(crate) fn lifetime(&self) -> Duration {
        let left = self.expires_at.saturating_mul(1_000_000).saturating_sub(clock::now_micros());
        Duration::from_micros(left.max(0).cast_unsigned())
    }
}

/// The account of this name that was created then.
fn account_of(engine: &Engine, user: &UserId, created_at: i64) -> Result<User, Refusal> {
    let found = engine.user(user).map_err(|error| Refusal::of_statement(&error))?;
    found
        .filter(|user| user.created_at == created_at)
        .ok_or_else(|| Refusal::new("UNAUTHORIZED", "the user does not exist any more"))
}

/// Makes tokens and checks them.
pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    access_s: u64,
    refresh_s: u64,
}

impl Tokens {
    /// Reads the key in `data_dir`, or makes one.
    pub(crate) fn open(data_dir: &Path, config: &ServerConfig) -> Result<Self> {
        let key = read_or_create_key(data_dir)?;
        Ok(Self {
            encoding: EncodingKey::from_secret(&key),
            decoding: DecodingKey::from_secret(&key),
            access_s: config.access_token_s,
            refresh_s: config.refresh_token_s,
        })
    }

    /// A new token for this user.
    pub(crate) fn issue(&self, user: &User, kind: TokenKind) -> Result<Issued, Refusal> {
        let lifetime_s = match kind {
            TokenKind::Access => self.access_s,
            TokenKind::Refresh => self.refresh_s,
        };
        let now = now_s();
        let expires_at = now.saturating_add_unsigned(lifetime_s);
        let claims =
            Claims { sub: user.id.to_string(), kind, iat: now, exp: expires_at, account: user.created_at };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|error| Refusal::new("INTERNAL_ERROR", format!("the token cannot be made: {error}")))?;
        Ok(Issued { token, expires_at })
    }

    /// The account behind a token, if the token is good now.
    pub(crate) fn account(
        &self,
        engine: &Engine,
        token: &str,
        kind: TokenKind,
    ) -> Result<(User, i64), Refusal> {
        let invalid = || Refusal::new("UNAUTHORIZED", "the token is not valid");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(invalid());
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => expired(),
                _ => invalid(),
            })?
            .claims;
        // The library lets the last second pass; RFC 7519 does not.
        if claims.exp <= now_s() {
            return Err(expired());
        }
        if claims.kind != kind {
            return Err(invalid());
        }
        let user = account_of(engine, &UserId::new(claims.sub), claims.account)?;
        Ok((user, claims.exp))
    }

    /// Who an access token stands for.
    pub(crate) fn identity(&self, engine: &Engine, token: &str) -> Result<Identity, Refusal> {
        let (user, expires_at) = self.account(engine, token, TokenKind::Access)?;
        Ok(Identity { user: user.id, role: user.role, expires_at, account: user.created_at })
    }
}

/// The answer to a token that was good once.
pub(crate) fn expired() -> Refusal {
    Refusal::new("TOKEN_EXPIRED", "the token has expired; refresh it or log in again")
}

pub(crate) fn now_s() -> i64 {
    clock::now_micros().div_euclid(1_000_000)
}

fn read_or_create_key(data_dir: &Path) -> Result<[u8; KEY_BYTES]> {
    let path = data_dir.join(KEY_FILE);
    let failed = |source| Error::KeyFile { path: path.clone(), source };
    match File::open(&path) {
        Ok(file) => {
            let mut found = Vec::new();
            file.take(1 + KEY_BYTES as u64).read_to_end(&mut found).map_err(failed)?;
            let length = Error::KeyLength { path: path.clone(), found: found.len(), expected: KEY_BYTES };
            found.try_into().map_err(|_| length)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut key = [0; KEY_BYTES];
            getrandom::fill(&mut key).map_err(Error::Random)?;
            write_key(data_dir, &path, &key).map_err(failed)?;
            Ok(key)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Whole or not at all: a crash must not leave half a key behind.
fn write_key(data_dir: &Path, path: &Path, key: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("key.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(key)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = read_or_create_key(dir.path()).unwrap();
        assert_eq!(read_or_create_key(dir.path()).unwrap(), first);
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        for bytes in [&b"short"[..], &[7; 33]] {
            std::fs::write(dir.path().join(KEY_FILE), bytes).unwrap();
            let error = read_or_create_key(dir.path()).unwrap_err();
            assert!(matches!(error, Error::KeyLength { .. }), "{error}");
            assert_eq!(std::fs::read(dir.path().join(KEY_FILE)).unwrap(), bytes);
        }
    }
}
