//! The chat that the demo streams, and who must receive what of it.
//!
//! It owns the reading of the data (the sample built into the binary, or a file, compressed or not) and the rule that
//! the verdict is measured by: a message goes to every participant of its conversation, and the participants are those
//! who ever send in it. It knows nothing of servers.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde::Deserialize;

const SAMPLE: &[u8] = include_bytes!("../../data/chitchat-sample.jsonl.zst");
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// One message, exactly as in the data.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    /// Unique.
    pub(super) id: i64,
    /// RFC 3339.
    #[serde(rename = "ts")]
    pub(super) sent_at: String,
    /// Which conversation it belongs to.
    pub(super) conversation: i64,
    /// Who wrote it.
    pub(super) sender: String,
    /// What was written.
    pub(super) text: String,
    /// Its place in the data; later messages have greater ones.
    #[serde(skip)]
    pub(super) ordinal: usize,
}

/// Everything that one user must receive, in order.
#[derive(Debug)]
pub(super) struct Inbox {
    /// Whose it is.
    pub(super) user: String,
    /// The messages of every conversation that the user takes part in, in the order of the data.
    pub(super) messages: Vec<Arc<Message>>,
}

/// A chat, distributed to its participants.
#[derive(Debug)]
pub(super) struct Chat {
    /// One per participant, in order of first appearance.
    pub(super) inboxes: Vec<Inbox>,
    /// Messages in the data.
    pub(super) message_count: usize,
    /// Conversations in the data.
    pub(super) conversation_count: usize,
}

impl Chat {
    /// The sample built into the binary.
    pub(super) fn sample() -> anyhow::Result<Self> {
        Self::from_bytes(SAMPLE).context("the built-in sample")
    }

    /// A file of one JSON object a line, zstd-compressed or plain.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        Self::from_bytes(&bytes).with_context(|| path.display().to_string())
    }

    fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        if bytes.starts_with(&ZSTD_MAGIC) {
            let plain = zstd::stream::decode_all(bytes).context("can't decompress")?;
            return Self::from_json_lines(&plain);
        }
        Self::from_json_lines(bytes)
    }

    fn from_json_lines(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut messages = Vec::new();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let mut message: Message =
                serde_json::from_slice(line).with_context(|| format!("line {}", index + 1))?;
            message.ordinal = messages.len();
            messages.push(Arc::new(message));
        }
        anyhow::ensure!(!messages.is_empty(), "there is no message in it");
        let distinct: BTreeSet<i64> = messages.iter().map(|message| message.id).collect();
        anyhow::ensure!(distinct.len() == messages.len(), "ids are not unique");
        Ok(Self::distribute(&messages))
    }

    fn distribute(messages: &[Arc<Message>]) -> Self {
        let mut inboxes: Vec<Inbox> = Vec::new();
        let mut index_by_user: HashMap<&str, usize> = HashMap::new();
        let mut participants: HashMap<i64, BTreeSet<usize>> = HashMap::new();
        for message in messages {
            let user = *index_by_user.entry(&message.sender).or_insert_with(|| {
                inboxes.push(Inbox { user: message.sender.clone(), messages: Vec::new() });
                inboxes.len() - 1
            });
            participants.entry(message.conversation).or_default().insert(user);
        }
        for message in messages {
            for &user in participants.get(&message.conversation).into_iter().flatten() {
                if let Some(inbox) = inboxes.get_mut(user) {
                    inbox.messages.push(Arc::clone(message));
                }
            }
        }
        Chat { inboxes, message_count: messages.len(), conversation_count: participants.len() }
    }

    /// Keeps the first `count` users only; what is addressed to the others is left out.
    pub(super) fn keep_users(&mut self, count: usize) {
        self.inboxes.truncate(count);
    }

    /// How many rows all inboxes hold together.
    pub(super) fn row_count(&self) -> usize {
        self.inboxes.iter().map(|inbox| inbox.messages.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = r#"
        {"id":1,"ts":"2018-04-10T18:02:17Z","conversation":1,"sender":"a","text":"hi 👋"}
        {"id":2,"ts":"2018-04-10T18:02:17Z","conversation":2,"sender":"c","text":"alone"}
        {"id":5,"ts":"2018-04-10T18:02:18Z","conversation":1,"sender":"b","text":"it's\n\"you\""}
    "#;

    fn ids(chat: &Chat) -> Vec<(&str, Vec<i64>)> {
        let ids = |inbox: &Inbox| inbox.messages.iter().map(|message| message.id).collect();
        chat.inboxes.iter().map(|inbox| (inbox.user.as_str(), ids(inbox))).collect()
    }

    #[test]
    fn participants_receive_the_whole_conversation_even_what_came_before_they_spoke() {
        let chat = Chat::from_bytes(THREE.as_bytes()).unwrap();
        assert_eq!(ids(&chat), [("a", vec![1, 5]), ("c", vec![2]), ("b", vec![1, 5])]);
        assert_eq!((chat.message_count, chat.conversation_count, chat.row_count()), (3, 2, 5));
    }

    #[test]
    fn fewer_users_means_fewer_rows() {
        let mut chat = Chat::from_bytes(THREE.as_bytes()).unwrap();
        chat.keep_users(2);
        assert_eq!(ids(&chat), [("a", vec![1, 5]), ("c", vec![2])]);
    }

    #[test]
    fn compressed_and_plain_are_the_same() {
        let compressed = zstd::stream::encode_all(THREE.as_bytes(), 3).unwrap();
        let (plain, compressed) = (Chat::from_bytes(THREE.as_bytes()), Chat::from_bytes(&compressed));
        assert_eq!(ids(&plain.unwrap()), ids(&compressed.unwrap()));
    }

    #[test]
    fn the_sample_is_what_its_readme_says() {
        let chat = Chat::sample().unwrap();
        assert_eq!((chat.message_count, chat.conversation_count, chat.inboxes.len()), (9_997, 287, 199));
        assert_eq!(chat.row_count(), 19_676);
        for inbox in &chat.inboxes {
            assert!(
                inbox.messages.is_sorted_by(|a, b| a.id < b.id && a.sent_at <= b.sent_at),
                "{}",
                inbox.user
            );
        }
    }

    #[test]
    fn bad_data_is_refused_with_its_line() {
        let broken = Chat::from_bytes(b"{\"id\":1}").unwrap_err();
        assert!(format!("{broken:#}").contains("line 1"), "{broken:#}");
        assert!(Chat::from_bytes(b"\n").is_err());
        let line = r#"{"id":1,"ts":"","conversation":1,"sender":"a","text":""}"#;
        assert!(Chat::from_bytes(format!("{line}\n{line}").as_bytes()).is_err());
    }
}
