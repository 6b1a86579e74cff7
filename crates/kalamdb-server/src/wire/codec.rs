//! One connection's way of writing messages as frames, and of reading them.

use std::io::{Read, Write};

use axum::extract::ws::{Message, Utf8Bytes};
use bytes::Bytes;
use flate2::Compression as Level;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::refusal::Refusal;
use crate::wire::messages::{ClientMessage, Compression, Protocol, Serialization};

/// Smaller messages are not worth compressing.
const COMPRESS_BYTES_MIN: usize = 512;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Nesting of a `MessagePack` message; ours have four levels.
const NESTING_MAX: usize = 32;

/// What a connection negotiated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec {
    pub(crate) protocol: Protocol,
    /// Bytes of an inbound message, inflated.
    pub(crate) message_bytes_max: usize,
}

impl Codec {
    /// A message as a frame.
    pub(crate) fn encode<T: Serialize>(&self, message: &T) -> Result<Message, Refusal> {
        let failed = |error: &dyn std::error::Error| Refusal::new("CONVERSION_ERROR", error.to_string());
        match self.protocol.serialization {
            Serialization::Json => serde_json::to_vec(message).map_err(|error| failed(&error)),
            Serialization::MessagePack => rmp_serde::to_vec_named(message).map_err(|error| failed(&error)),
        }
        .and_then(|bytes| self.frame(bytes))
    }

    /// Encoded bytes as a frame: compressed where that was agreed and is worth it.
    pub(crate) fn frame(&self, bytes: Vec<u8>) -> Result<Message, Refusal> {
        if self.protocol.compression == Compression::Gzip && bytes.len() > COMPRESS_BYTES_MIN {
            let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Level::fast());
            let compressed = encoder.write_all(&bytes).and_then(|()| encoder.finish());
            return compressed
                .map(|bytes| Message::Binary(bytes.into()))
                .map_err(|error| Refusal::new("INTERNAL_ERROR", error.to_string()));
        }
        match self.protocol.serialization {
            Serialization::Json => Utf8Bytes::try_from(bytes)
                .map(Message::Text)
                .map_err(|error| Refusal::new("INTERNAL_ERROR", error.to_string())),
            Serialization::MessagePack => Ok(Message::Binary(bytes.into())),
        }
    }

    /// What a client says; nothing where it is a control frame.
    pub(crate) fn decode(&self, message: Message) -> Option<Result<ClientMessage, Refusal>> {
        match message {
            Message::Text(text) => Some(self.decode_text(text.as_str())),
            Message::Binary(bytes) => Some(self.decode_binary(&bytes)),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
        }
    }

    /// A client's text frame.
    fn decode_text(&self, text: &str) -> Result<ClientMessage, Refusal> {
        if text.len() > self.message_bytes_max {
            return Err(Refusal::too_large(self.message_bytes_max));
        }
        serde_json::from_str(text).map_err(|error| Refusal::protocol(format!("not a message: {error}")))
    }

    /// A client's binary frame: compressed, or `MessagePack`, or both.
    fn decode_binary(&self, bytes: &Bytes) -> Result<ClientMessage, Refusal> {
        if bytes.len() > self.message_bytes_max {
            return Err(Refusal::too_large(self.message_bytes_max));
        }
        let inflated = if bytes.starts_with(&GZIP_MAGIC) { Some(self.inflate(bytes)?) } else { None };
        let plain = inflated.as_deref().unwrap_or(bytes);
        match (self.protocol.serialization, &inflated) {
            (Serialization::MessagePack, _) => {
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(plain);
                deserializer.set_max_depth(NESTING_MAX);
                ClientMessage::deserialize(&mut deserializer)
                    .map_err(|error| Refusal::protocol(format!("not a message: {error}")))
            }
            (Serialization::Json, Some(json)) => serde_json::from_slice(json)
                .map_err(|error| Refusal::protocol(format!("not a message: {error}"))),
            (Serialization::Json, None) => Err(Refusal::new(
                "UNSUPPORTED_DATA",
                "binary frames are gzip, or MessagePack where that was negotiated",
            )),
        }
    }

    /// Never inflates more than a message may have, whatever the header promises.
    fn inflate(&self, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        let limit = self.message_bytes_max;
        let mut inflated = Vec::new();
        let mut decoder = MultiGzDecoder::new(bytes).take(limit as u64 + 1);
        decoder
            .read_to_end(&mut inflated)
            .map_err(|error| Refusal::new("UNSUPPORTED_DATA", format!("not gzip: {error}")))?;
        if inflated.len() > limit { Err(Refusal::too_large(limit)) } else { Ok(inflated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 4_096;

    fn codec(serialization: Serialization) -> Codec {
        let protocol = Protocol { serialization, compression: Compression::Gzip };
        Codec { protocol, message_bytes_max: LIMIT }
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Level::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    fn check_refused(result: Result<ClientMessage, Refusal>, code: &str) {
        assert_eq!(result.unwrap_err().code, code);
    }

    #[test]
    fn large_messages_are_compressed_small_ones_are_text() {
        let codec = codec(Serialization::Json);
        assert!(matches!(codec.encode(&"x".repeat(500)).unwrap(), Message::Text(_)));
        let Message::Binary(bytes) = codec.encode(&"x".repeat(600)).unwrap() else {
            panic!("not compressed")
        };
        let mut text = String::new();
        MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), 602);
    }

    #[test]
    fn a_bomb_is_refused_before_it_unfolds() {
        let bomb = gzip(&vec![b' '; 100 << 20]);
        let small = Codec { message_bytes_max: bomb.len(), ..codec(Serialization::Json) };
        check_refused(small.decode_binary(&bomb), "MESSAGE_TOO_LARGE");
        check_refused(
            codec(Serialization::Json).decode_binary(&gzip(&[b' '; LIMIT + 1])),
            "MESSAGE_TOO_LARGE",
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let json = codec(Serialization::Json);
        check_refused(json.decode_text("{"), "PROTOCOL");
        check_refused(json.decode_text(r#"{"type":"nonsense"}"#), "PROTOCOL");
        check_refused(json.decode_text(&"[".repeat(LIMIT)), "PROTOCOL");
        check_refused(json.decode_text(&" ".repeat(LIMIT + 1)), "MESSAGE_TOO_LARGE");
        check_refused(json.decode_binary(&Bytes::from_static(b"\x81\xa4type\xa4ping")), "UNSUPPORTED_DATA");
        check_refused(
            json.decode_binary(&Bytes::from_static(b"\x1f\x8bnot gzip at all")),
            "UNSUPPORTED_DATA",
        );
        let packed = codec(Serialization::MessagePack);
        check_refused(packed.decode_binary(&Bytes::from(vec![0x91; LIMIT])), "PROTOCOL");
        check_refused(packed.decode_binary(&Bytes::from_static(b"\xdd\xff\xff\xff\xff")), "PROTOCOL");
        check_refused(packed.decode_binary(&Bytes::new()), "PROTOCOL");
    }

    #[test]
    fn both_encodings_are_read() {
        assert!(matches!(
            codec(Serialization::Json).decode_text(r#"{"type":"ping"}"#),
            Ok(ClientMessage::Ping { .. })
        ));
        let compressed = gzip(br#"{"type":"ping"}"#);
        assert!(matches!(
            codec(Serialization::Json).decode_binary(&compressed),
            Ok(ClientMessage::Ping { .. })
        ));
        let packed = Bytes::from_static(b"\x81\xa4type\xa4ping");
        assert!(matches!(
            codec(Serialization::MessagePack).decode_binary(&packed),
            Ok(ClientMessage::Ping { .. })
        ));
    }
}
