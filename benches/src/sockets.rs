//! Sockets without a database: who reads them at the least cost, and a server that only writes, to compare with.

use std::time::Instant;

use bytes::Bytes;
use kalamdb_core::clock;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Which row arrived, and when.
pub type Arrivals = mpsc::UnboundedReceiver<(i64, Instant)>;

/// A ping as a server frames it, and a pong as a client does.
const PING: [u8; 2] = [0x89, 0];
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
const NAME: &[u8] = b"\"id\":\"";

/// Tells when which row arrived on each of some sockets, and answers pings. Reads no more of a message than the id in it, which
/// comes in one piece: what is measured is not who reads.
pub fn listen(streams: Vec<TcpStream>) -> (Arrivals, JoinSet<()>) {
    let (sender, arrivals) = mpsc::unbounded_channel();
    let mut listening = JoinSet::new();
    for mut stream in streams {
        let sender = sender.clone();
        listening.spawn(async move {
            while stream.readable().await.is_ok() {
                let mut bytes = [0; 1024];
                let Ok(length) = stream.try_read(&mut bytes) else { continue };
                let read = bytes.get(..length).unwrap_or_default();
                let at = clock::instant();
                if read.is_empty() || (read == PING && stream.write_all(&PONG).await.is_err()) {
                    return;
                }
                if id_of(read).is_some_and(|id| sender.send((id, at)).is_err()) {
                    return;
                }
            }
        });
    }
    (arrivals, listening)
}

fn id_of(message: &[u8]) -> Option<i64> {
    let at = message.windows(NAME.len()).position(|window| window == NAME)?;
    let digits = message.get(at + NAME.len()..)?.split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A server that writes what it is told to all of its sockets, one task for each.
pub struct Plain {
    told: watch::Sender<Bytes>,
    _writing: JoinSet<()>,
}

impl Plain {
    /// The server, and the other ends of that many sockets.
    pub async fn start(count: usize) -> (Self, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let (told, _) = watch::channel(Bytes::new());
        let (mut writing, mut streams) = (JoinSet::new(), Vec::new());
        for _ in 0..count {
            let (here, there) = tokio::join!(TcpStream::connect(address), listener.accept());
            streams.push(here.expect("it connects"));
            let (mut stream, mut news) = (there.expect("it is accepted").0, told.subscribe());
            stream.set_nodelay(true).expect("an option is set");
            writing.spawn(async move {
                while news.changed().await.is_ok() {
                    let message = news.borrow_and_update().clone();
                    if stream.write_all(&message).await.is_err() {
                        return;
                    }
                }
            });
        }
        (Self { told, _writing: writing }, streams)
    }

    /// Writes a message of as many bytes to each.
    pub fn write(&self, id: i64, bytes: usize) {
        let mut message = format!("{{\"id\":\"{id}\"").into_bytes();
        message.resize(bytes, b' ');
        self.told.send_replace(message.into());
    }
}
