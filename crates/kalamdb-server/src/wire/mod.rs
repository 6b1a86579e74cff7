//! What travels: rows, messages, and the bytes they become.
//!
//! - `cells`: a row's values, as JSON and `MessagePack` show them.
//! - `schema`: columns and their types.
//! - `messages`: what clients and server say to each other.
//! - `codec`: serialization and compression of one connection.
//! - `unknown`: what clients say that the server does not know.
//! - `change`: changes, encoded once for everyone they go to.

pub(crate) mod cells;
pub(crate) mod change;
pub(crate) mod codec;
pub(crate) mod messages;
pub(crate) mod schema;
pub(crate) mod unknown;

#[cfg(test)]
mod doc_tests;
