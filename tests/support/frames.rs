//! A WebSocket that sends whatever bytes it is told to, and takes what comes apart by itself.

use std::collections::VecDeque;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::in_time;

/// What a server may send in one frame: more than anything it has to say here.
const FRAME_BYTES_MAX: u64 = 64 << 20;
/// Frames that are read before anybody wants them; then the server has to wait.
const FRAMES_AHEAD: usize = 64;

/// A frame of a server.
#[derive(Debug)]
pub(crate) enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping,
    Pong,
    Close(Option<u16>, String),
    /// No frame of a server.
    Nonsense(String),
    /// The connection has ended.
    End,
}

/// A frame of a client: the first byte as it is, then the length, the mask and the masked payload.
pub(crate) fn frame(first: u8, payload: &[u8], mask: u32) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => bytes.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            bytes.push(0x80 | 0x7e);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 0x7f);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let mask = mask.to_be_bytes();
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A connection. Dropping it ends it without a word.
pub(crate) struct Raw {
    writer: OwnedWriteHalf,
    frames: mpsc::Receiver<Seen>,
    ahead: VecDeque<Seen>,
}

impl Raw {
    /// Sends a request for an upgrade; an error is the status line of a refusal.
    pub(crate) async fn connect(address: &str, query: &str, token: &str) -> Result<Self, String> {
        let authorization =
            if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let request = format!(
            "GET /v1/ws?{query} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{authorization}\r\n"
        );
        let stream = in_time("connecting", TcpStream::connect(address)).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        in_time("asking for an upgrade", writer.write_all(request.as_bytes())).await.unwrap();
        let (mut first, mut line) = (String::new(), String::new());
        in_time("an answer", reader.read_line(&mut first)).await.unwrap();
        while line != "\r\n" {
            line.clear();
            if in_time("a header", reader.read_line(&mut line)).await.unwrap() == 0 {
                break;
            }
        }
        if !first.contains(" 101 ") {
            return Err(first);
        }
        let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
        tokio::spawn(read(reader, sender));
        Ok(Self { writer, frames, ahead: VecDeque::new() })
    }

    /// Sends bytes, and takes what comes meanwhile; false where the server does not want them any more.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        let Self { writer, frames, ahead } = self;
        let mut sending = std::pin::pin!(writer.write_all(bytes));
        let sending = async {
            loop {
                tokio::select! {
                    sent = &mut sending => return sent.is_ok(),
                    Some(seen) = frames.recv() => ahead.push_back(seen),
                }
            }
        };
        in_time("sending", sending).await
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Seen {
        match self.ahead.pop_front() {
            Some(seen) => seen,
            None => in_time("a frame", self.frames.recv()).await.unwrap_or(Seen::End),
        }
    }
}

async fn read(mut reader: BufReader<OwnedReadHalf>, frames: mpsc::Sender<Seen>) {
    loop {
        let seen = next_frame(&mut reader).await.unwrap_or(Seen::End);
        let last = matches!(seen, Seen::End | Seen::Nonsense(_));
        if frames.send(seen).await.is_err() || last {
            return;
        }
    }
}

async fn next_frame(reader: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Seen> {
    let (first, second) = (reader.read_u8().await?, reader.read_u8().await?);
    let length = match second {
        126 => u64::from(reader.read_u16().await?),
        127 => reader.read_u64().await?,
        0..=125 => u64::from(second),
        _ => return Ok(Seen::Nonsense(format!("a masked frame: {first:x} {second:x}"))),
    };
    if length > FRAME_BYTES_MAX {
        return Ok(Seen::Nonsense(format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    reader.read_exact(&mut payload).await?;
    Ok(match first {
        0x81 => Seen::Text(payload),
        0x82 => Seen::Binary(payload),
        0x88 if payload.len() < 2 => Seen::Close(None, String::new()),
        0x88 => {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            Seen::Close(Some(code), String::from_utf8_lossy(&payload[2..]).into_owned())
        }
        0x89 => Seen::Ping,
        0x8a => Seen::Pong,
        _ => Seen::Nonsense(format!("a frame that begins with {first:x}")),
    })
}
