//! The integration tests: the real binary, started, killed and restarted, and its real clients.
//!
//! Each test has a server, a port and a directory of its own. Nothing sleeps: everything that is waited for is waited for by
//! name, with a generous time-out.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it does not expect is to fail on the spot"
)]

/// Starting and killing servers, an HTTP client, a raw WebSocket client.
mod support;

/// The published SDK, unmodified: SQL, `live()`, `live_events()`, resume across a restart.
mod sdk;

/// Live queries that order, limit and aggregate: raw and through the SDK, over a crash.
mod results;

/// What SQL means, in text files: over HTTP, through the SDK and through `kalamdb sql`.
mod conformance;

/// Every type at its ends, through SQL, JSON and Arrow and back.
mod types;

/// Two users, one SQL text: nobody sees anybody else's rows, whatever they try.
mod isolation;

/// A user who wants to see what others have: thousands of statements, in two worlds whose answers must be the same.
mod attack;

/// Statements by seed for KalamDB and for PostgreSQL, where that is installed: their rows must be the same.
mod differential;

/// Statements that must agree with each other: partitions of a query, and one value on every path.
mod metamorphic;

/// What no client should send: a typed error, and the server goes on.
mod malformed;

/// Clients that misbehave by seed: everybody else goes on, each mistake is answered, memory stays bounded.
mod fuzzing;

/// SIGKILL at random points, again and again: nothing acknowledged is lost, nothing is seen twice.
mod crash;

/// Writers, subscribers, disconnects, resumes, kills, flushes and ALTERs at once: each sees what it subscribed to.
mod nemesis;

/// A disk that is full or breaks: reads go on, writes are refused with the reason, space ends it.
mod disk;

/// log-format/SPEC.md is enough to write a reader: here is one, and what it reads.
mod specification;

/// Databases that earlier releases wrote: every row is there.
mod compatibility;

/// A server that is lost, and what is brought back of it: backups on another one, older copies of its directory.
mod backup;

/// Cold files elsewhere: an S3 server that goes away and comes back.
mod storage;

/// Owners of storage locations: copies of a running server, moved directories, locations that overlap.
mod ownership;

/// `kalamdb tail` as a process: of a directory, and of a server over the network.
mod tailing;

/// `kalamdb user` as a process: the way back in after a lost password.
mod users;

/// `kalamdb subscribe` as a process.
mod subscribing;

/// `kalamdb sql` as a process.
mod shell;

/// `kalamdb sql` at a terminal.
mod terminal;

/// `kalamdb import` and `kalamdb export` as processes.
mod import;

/// Values of other programs' files in `kalamdb import`: epochs, exponents, lists, structs, UUIDs.
mod import_values;

/// The project's rules that a program can check.
mod tidy;

/// Live queries that somebody else ends: killed, of another role, of nobody any more.
mod endings;

/// A WebSocket's life: authentication, snapshots in batches, slow readers, limits, expiry, shutdown.
mod connection;

/// Live queries with parameters, fields that are not known, answers to `ping` and to a superfluous `next_batch`.
mod live_params;

/// Live queries that fail for some rows.
mod live_failures;

/// Presence over the wire: silent clients, accounts that go, endings amid a snapshot, shutdown before a login.
mod wire_presence;

/// Order over the wire: coalesced changes, results in batches, evicted rows, each listener's own name.
mod wire_streams;

/// Codes over the wire, each provoked: too long, too much, not allowed, too many, and where in the text.
mod wire_codes;

/// HTTP beside SQL, and formats: tokens, namespaces, Arrow, origins, `MessagePack`, compression.
mod wire_http;
