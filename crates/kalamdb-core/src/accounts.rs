//! Accounts: passwords and the first user.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use kalamdb_sql::SystemTables;
use log_format::{User, UserId};

use crate::error::{Error, Result};

/// The user every database begins with, a dba.
pub(crate) const ROOT: &str = "root";

/// Bytes of a password at the most: hashing more would only cost time.
const PASSWORD_BYTES_MAX: usize = 1024;

/// The argon2id hash of a password, in PHC form. Takes some 20 ms, on a thread of its own.
pub(crate) async fn hash_password(password: &str) -> Result<String> {
    let password = password.to_owned();
    let (reply, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(reply.send(hash_password_blocking(&password))));
    answer.await.map_err(|_| Error::PasswordHash { reason: "the hashing thread died".to_owned() })?
}

/// As [`hash_password`], on this thread.
pub(crate) fn hash_password_blocking(password: &str) -> Result<String> {
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err(Error::definition(format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")));
    }
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| Error::PasswordHash { reason: error.to_string() })
}

/// The account of this name, if the password is right. Takes as long for a name that is not there.
pub(crate) fn authenticate(system: &SystemTables, user: &str, password: &str) -> Result<User> {
    /// The hash of a password that nobody has: its salt and output are all zeros.
    const NOBODY: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let found = system.get_user(&UserId::new(user))?;
    let stored = found.as_ref().map_or(NOBODY, |user| user.password_hash.as_str());
    let hash =
        PasswordHash::new(stored).map_err(|error| Error::PasswordHash { reason: error.to_string() })?;
    let right = password.len() <= PASSWORD_BYTES_MAX
        && Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
    found.filter(|_| right).ok_or(Error::Unauthorized)
}

/// A token that no other directory has: 64 random bits, in hexadecimal.
pub(crate) fn generate_token() -> Result<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| Error::PasswordHash { reason: error.to_string() })?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

/// A password nobody can guess: 128 random bits, in hexadecimal.
pub(crate) fn generate_password() -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::PasswordHash { reason: error.to_string() })?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_verifies_against_its_hash_alone() {
        let directory = tempfile::tempdir().unwrap();
        let system = SystemTables::open(directory.path()).unwrap();
        // Nobody is there: the made-up hash must be one that parses and never matches.
        assert!(matches!(authenticate(&system, "ann", "x"), Err(Error::Unauthorized)));
        let hash = hash_password_blocking("secret").unwrap();
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password(b"secret", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"Secret", &parsed).is_err());
        assert!(hash_password_blocking("").is_err());
    }
}
