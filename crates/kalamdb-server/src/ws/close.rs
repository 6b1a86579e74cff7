//! Why a connection ends, and the close code that says so (RFC 6455, 7.4.1).

use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use crate::refusal::Refusal;

/// The server goes, or can do no more for this connection.
pub(super) const GOING_AWAY: u16 = 1001;
/// Frames that are not as the RFC has them.
const PROTOCOL: u16 = 1002;
/// Text that is not UTF-8.
const INVALID_PAYLOAD: u16 = 1007;
/// Who may not be here.
const POLICY: u16 = 1008;
/// A frame or message that is not even read to its end.
const TOO_BIG: u16 = 1009;

/// The close code for what a client was refused.
pub(super) fn code_of(refusal: &Refusal) -> u16 {
    match refusal.code {
        "PROTOCOL" => PROTOCOL,
        "UNSUPPORTED_DATA" => INVALID_PAYLOAD,
        "MESSAGE_TOO_LARGE" => TOO_BIG,
        "SHUTTING_DOWN" => GOING_AWAY,
        _ => POLICY,
    }
}

/// What to say about a stream that cannot be read on; nothing where nobody listens any more.
pub(super) fn unreadable(error: axum::Error, limit: usize) -> Option<Refusal> {
    match error.into_inner().downcast::<tungstenite::Error>().map(|error| *error) {
        Ok(tungstenite::Error::Capacity(_)) => Some(Refusal::too_large(limit)),
        Ok(tungstenite::Error::Utf8(_)) => Some(Refusal::new("UNSUPPORTED_DATA", "text is UTF-8")),
        Ok(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => None,
        Ok(tungstenite::Error::Protocol(error)) => Some(Refusal::protocol(error.to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: tungstenite::Error, told: Option<(&str, u16)>) {
        let refusal = unreadable(axum::Error::new(error), 10);
        assert_eq!(refusal.map(|refusal| (refusal.code, code_of(&refusal))), told);
    }

    #[test]
    fn each_reason_has_its_code() {
        check(tungstenite::Error::Utf8("x".to_owned()), Some(("UNSUPPORTED_DATA", 1007)));
        check(ProtocolError::NonZeroReservedBits.into(), Some(("PROTOCOL", 1002)));
        let too_long = tungstenite::error::CapacityError::MessageTooLong { size: 11, max_size: 10 };
        check(too_long.into(), Some(("MESSAGE_TOO_LARGE", 1009)));
        check(ProtocolError::ResetWithoutClosingHandshake.into(), None);
        check(tungstenite::Error::ConnectionClosed, None);
        assert_eq!(code_of(&Refusal::new("UNAUTHORIZED", "")), 1008);
    }
}
