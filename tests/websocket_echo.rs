//! An echo server with the WebSocket of KalamDB, for conformance suites: docs/websocket-conformance.md.
//!
//! `cargo run --release --example websocket_echo -- 127.0.0.1:9001 [BYTES]`, where BYTES is the limit of a message.

use kalamdb_server::ServerConfig;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let mut config = ServerConfig::default();
    if let Some(bytes) = arguments.next() {
        config.message_bytes_max = bytes.parse()?;
    }
    let listener = TcpListener::bind(address).await?;
    eprintln!("echo on ws://{}/", listener.local_addr()?);
    match kalamdb_server::echo(listener, config).await? {}
}
