use proptest::prelude::*;

use super::*;
use crate::{ChangeEvent, EpochStarted, Partition, RowInserted, SegmentHeader, TableId, UserId};

fn event(row: Vec<u8>) -> EncodedEvent {
    let partition = Partition::of_user(TableId::new(1), UserId::new("somebody-or-other"));
    ChangeEvent::RowInserted(Box::new(RowInserted { partition, key: vec![1], row })).encode().unwrap()
}

fn fields(first_seq: u64) -> FrameFields {
    FrameFields {
        first_seq: Seq::new(first_seq),
        epoch: 2,
        previous_crc: 3,
        commit_time: -4,
        durable_seq: Seq::new(first_seq.saturating_sub(1)),
    }
}

fn aligned(bytes: &[u8]) -> Bytes {
    let mut buffer = FrameBuffer::new();
    buffer.extend_from_slice(bytes);
    Bytes::from_owner(buffer)
}

proptest! {
    #[test]
    fn frames_come_back_as_they_went_in(rows in prop::collection::vec(any::<Vec<u8>>(), 1..9), frames in 1_usize..4) {
        let mut encoder = FrameEncoder::new();
        let events: Vec<_> = rows.into_iter().map(event).collect();
        for number in 0..frames {
            encoder.push(&fields(1 + (number * events.len()) as u64), &events).unwrap();
        }
        let whole = aligned(encoder.as_bytes());
        let made = encoder.take_frames();
        prop_assert!(encoder.is_empty() && encoder.as_bytes().is_empty());
        let mut at = 0;
        for frame in made {
            let read = Frame::parse(&whole.slice(at..)).unwrap();
            prop_assert_eq!(read.header(), frame.header());
            prop_assert_eq!(read.as_bytes(), frame.as_bytes());
            for (index, (seq, archived)) in frame.events().enumerate() {
                prop_assert_eq!(seq, read.first_seq().plus(index as u64));
                let again = archived.unwrap().to_event().unwrap().encode().unwrap();
                prop_assert_eq!(again.as_bytes(), events[index].as_bytes());
            }
            at += frame.as_bytes().len();
        }
        prop_assert_eq!(at, whole.len());
    }

    #[test]
    fn no_bytes_make_a_frame_panic(bytes: Vec<u8>) {
        prop_assert!(Frame::parse(&aligned(&bytes)).is_err());
        prop_assert!(SegmentHeader::parse(&bytes).is_err());
        let _ = ArchivedChangeEvent::access(&aligned(&bytes));
    }

    /// Changes that the checksum does not see: an attacker's, not an accident's.
    #[test]
    fn no_forged_frame_makes_a_reader_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut encoder = FrameEncoder::new();
        encoder.push(&fields(1), &[event(vec![1; 40]), event(vec![2; 7])]).unwrap();
        let mut bytes = encoder.take().to_vec();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[4 + at.index(length - 4)] = byte;
        }
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        if let Ok(frame) = Frame::parse(&aligned(&bytes)) {
            for (_, event) in frame.events() {
                if let Ok(event) = event {
                    let _ = event.to_event();
                }
            }
        }
    }
}

#[test]
fn a_frame_over_its_limit_leaves_the_others_alone() {
    let mut encoder = FrameEncoder::new();
    encoder.push(&fields(1), &[event(vec![])]).unwrap();
    let before = encoder.as_bytes().to_vec();
    let large = vec![event(vec![0; 33 << 20]), event(vec![0; 33 << 20])];
    assert!(matches!(encoder.push(&fields(2), &large), Err(Error::TooLarge { .. })));
    assert!(matches!(encoder.push(&fields(2), &[]), Err(Error::Encode { .. })));
    assert_eq!(encoder.as_bytes(), before);
    assert_eq!(encoder.take_frames().len(), 1);
}

#[test]
fn only_stream_rows_need_not_wait_for_the_disk() {
    assert!(!event(vec![]).is_stream());
    let epoch = ChangeEvent::EpochStarted(Box::new(EpochStarted { previous_end: 0 }));
    assert!(!epoch.encode().unwrap().is_stream());
}
