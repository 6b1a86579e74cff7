//! Every limit of the server, with its default.

use std::time::Duration;

use serde::Deserialize;

/// What a server allows and how long it waits. Every field has a default and can be set on its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// How long a WebSocket may take to authenticate.
    pub auth_deadline_ms: u64,
    /// How often the server pings.
    pub heartbeat_ms: u64,
    /// How long a client may stay silent.
    pub client_timeout_ms: u64,
    /// Bytes of one WebSocket message from a client, after reassembly and inflation.
    pub message_bytes_max: usize,
    /// Bytes of one HTTP body.
    pub body_bytes_max: usize,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// WebSocket connections.
    pub connections_max: usize,
    /// Subscriptions that begin or read a batch of their snapshot at a time; others wait for their turn.
    pub snapshots_max: usize,
    /// Subscriptions that read on in the log at a time; others wait for their turn.
    pub catch_ups_max: usize,
    /// Live changes that wait for one connection; beyond, its subscriptions read on from the log.
    pub queue_changes_max: usize,
    /// Bytes of live changes that wait for one connection.
    pub queue_bytes_max: usize,
    /// Rows of one batch of a snapshot, where the client asks for no other number, and at the most.
    pub batch_rows_max: usize,
    /// How long a statement may run.
    pub statement_timeout_ms: u64,
    /// How long an access token is good.
    pub access_token_s: u64,
    /// How long a refresh token is good.
    pub refresh_token_s: u64,
    /// Password checks at a time; each takes a core and tens of megabytes for a moment.
    pub logins_max: usize,
    /// Logins that may wait for their turn.
    pub logins_waiting_max: usize,
    /// Origins that browsers may open a WebSocket from; empty for any. Clients that send no origin are no browsers.
    pub allowed_origins: Vec<String>,
    /// How long requests under way may take to finish on shutdown.
    pub shutdown_grace_ms: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            auth_deadline_ms: 3_000,
            heartbeat_ms: 5_000,
            client_timeout_ms: 10_000,
            message_bytes_max: MIB,
            body_bytes_max: 16 * MIB,
            subscriptions_max: 100,
            connections_max: 100_000,
            snapshots_max: 64,
            catch_ups_max: 8,
            queue_changes_max: 1_024,
            queue_bytes_max: 4 * MIB,
            batch_rows_max: 1_000,
            statement_timeout_ms: 60_000,
            access_token_s: 24 * 3_600,
            refresh_token_s: 7 * 24 * 3_600,
            logins_max: 4,
            logins_waiting_max: 1_000,
            allowed_origins: Vec::new(),
            shutdown_grace_ms: 10_000,
        }
    }
}

impl ServerConfig {
    pub(crate) const fn auth_deadline(&self) -> Duration {
        Duration::from_millis(self.auth_deadline_ms)
    }

    /// Never zero: it is the period of a timer.
    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.max(1))
    }

    pub(crate) const fn client_timeout(&self) -> Duration {
        Duration::from_millis(self.client_timeout_ms)
    }

    pub(crate) const fn statement_timeout(&self) -> Duration {
        Duration::from_millis(self.statement_timeout_ms)
    }

    pub(crate) const fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }

    /// The origin of a browser's page, if it sent one, may connect.
    pub(crate) fn allows_origin(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        self.allowed_origins.is_empty() || self.allowed_origins.iter().any(|allowed| allowed == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_checked_only_where_there_is_a_list() {
        let open = ServerConfig::default();
        assert!(open.allows_origin(None) && open.allows_origin(Some("https://any.example")));
        let listed = ServerConfig {
            allowed_origins: vec!["https://app.example".to_owned()],
            ..ServerConfig::default()
        };
        assert!(listed.allows_origin(None) && listed.allows_origin(Some("https://app.example")));
        assert!(!listed.allows_origin(Some("https://app.example.evil")));
    }
}
