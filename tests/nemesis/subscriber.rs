//! A subscriber through all of its connections: it leaves, resumes, begins anew and stops reading at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::oracle::{Events, Query, Rows, add};
use super::pause;
use crate::support::{Random, Socket};

/// What is said while a namespace is away, or about to go.
const AWAY: [&str; 5] =
    ["SUBSCRIPTION_FAILED", "NAMESPACE_NOT_FOUND", "TABLE_NOT_FOUND", "TABLE_DROPPED", "CONFLICT"];

pub(super) struct Subscriber {
    user: String,
    table: &'static str,
    query: &'static Query,
    random: Random,
    /// How often all rows of some table went, or were about to.
    emptied: Arc<AtomicU64>,
    /// The same when it last began anew.
    emptied_before: u64,
    rows: Rows,
    /// The seq of the last frame of a whole commit, and the rows then; none before the first snapshot.
    whole: Option<(u64, Rows)>,
    /// The seq of the last frame.
    last: u64,
    /// Results it had, by the seq that it had them at.
    seen: Vec<(u64, Rows)>,
    pub(super) frames: u64,
    pub(super) sessions: u64,
    pub(super) resumed: u64,
}

/// Why a connection is over.
enum Ended {
    /// The server went, or it has had enough.
    Left,
    /// It is to begin anew.
    Resync,
}

impl Subscriber {
    pub(super) fn new(
        user: String,
        table: &'static str,
        query: &'static Query,
        random: Random,
        emptied: Arc<AtomicU64>,
    ) -> Self {
        Self {
            user,
            table,
            query,
            random,
            emptied,
            emptied_before: 0,
            rows: Rows::new(),
            whole: None,
            last: 0,
            seen: Vec::new(),
            frames: 0,
            sessions: 0,
            resumed: 0,
        }
    }

    pub(super) fn name(&self) -> String {
        format!("{} of {} on {}", self.query.sql, self.user, self.table)
    }

    pub(super) async fn live(mut self, url: String, token: String, is_over: Arc<AtomicBool>) -> Self {
        while !is_over.load(Ordering::SeqCst) {
            if self.random.below(5) == 0 {
                self.whole = None;
            }
            let frames = 1 + self.random.below(300);
            self.session(&url, &token, frames, None).await;
            pause(&mut self.random, 80).await;
        }
        self
    }

    /// Listens until it has what the log says is there.
    pub(super) async fn finish(&mut self, url: &str, token: &str, events: &Events) {
        let expected = events.last_result(self.table, &self.user, self.query);
        while self.whole.as_ref().is_none_or(|(_, rows)| *rows != expected) {
            self.session(url, token, u64::MAX, Some(&expected)).await;
        }
    }

    /// One connection: for so many frames, or until it has what is wanted.
    async fn session(&mut self, url: &str, token: &str, frames: u64, wanted: Option<&Rows>) {
        match self.listen(url, token, frames, wanted).await {
            Ended::Left => {}
            Ended::Resync => {
                // An odd number: it is under way, and may be done already.
                let emptied = self.emptied.load(Ordering::SeqCst);
                let may_resync = self.query.may_resync || emptied > self.emptied_before || emptied % 2 == 1;
                assert!(may_resync, "{}: it was told to begin anew", self.name());
                self.whole = None;
            }
        }
    }

    async fn listen(&mut self, url: &str, token: &str, frames: u64, wanted: Option<&Rows>) -> Ended {
        let Some(mut socket) = Socket::connect_if_there(url, token).await else { return Ended::Left };
        self.sessions += 1;
        let mut options = json!({ "batch_size": 7 });
        // Half a commit is thrown away: it comes once more.
        if let Some((seq, rows)) = &self.whole {
            options["from"] = json!(seq);
            (self.last, self.rows) = (*seq, rows.clone());
            self.resumed += 1;
        } else {
            self.emptied_before = self.emptied.load(Ordering::SeqCst);
        }
        let sql = self.query.sql.replace("{t}", self.table);
        let subscription = json!({ "id": "s", "sql": sql, "options": options });
        if socket.send_if_there(&json!({ "type": "subscribe", "subscription": subscription })).await.is_none()
        {
            return Ended::Left;
        }
        let until = self.frames.saturating_add(frames);
        let mut is_begun = false;
        while self.frames < until && self.whole.as_ref().is_none_or(|(_, rows)| Some(rows) != wanted) {
            if self.random.below(60) == 0 && wanted.is_none() {
                pause(&mut self.random, 600).await;
            }
            // Where nothing comes for a while it leaves, as if it had had enough; a busy machine takes long to begin.
            let patience = Duration::from_millis(if wanted.is_some() || !is_begun { 5000 } else { 500 });
            let Ok(Some(message)) = tokio::time::timeout(patience, socket.next_or_end()).await else {
                return Ended::Left;
            };
            is_begun = true;
            let has_more = message["batch_control"]["has_more"] == true;
            match message["type"].as_str().unwrap() {
                "subscription_ack" => {
                    let begins = message["snapshot_seq"].as_u64().unwrap();
                    match &self.whole {
                        Some((seq, _)) => assert_eq!(*seq, begins, "{}: resumed elsewhere", self.name()),
                        None => {
                            (self.last, self.rows) = (begins, Rows::new());
                            if !has_more {
                                self.is_whole();
                            }
                        }
                    }
                }
                "initial_data_batch" => {
                    self.put(&message["rows"]);
                    if has_more {
                        let next = json!({ "type": "next_batch", "subscription_id": "s" });
                        if socket.send_if_there(&next).await.is_none() {
                            return Ended::Left;
                        }
                    } else {
                        self.is_whole();
                    }
                }
                "change" => self.take_over(&message),
                "schema" => {}
                "error" if message["code"] == "RESYNC_REQUIRED" => return Ended::Resync,
                // It was killed, or what it listens to is not there.
                "error" if AWAY.contains(&message["code"].as_str().unwrap()) => return Ended::Left,
                _ => panic!("{}: {message}", self.name()),
            }
        }
        Ended::Left
    }

    fn take_over(&mut self, frame: &Json) {
        let seqs = (frame["prev_seq"].as_u64().unwrap(), frame["seq"].as_u64().unwrap());
        assert_eq!(seqs.0, self.last, "{}: the chain is broken at {frame}", self.name());
        assert!(seqs.1 >= seqs.0, "{}: seqs do not rise at {frame}", self.name());
        self.last = seqs.1;
        self.frames += 1;
        for row in self.of(&frame["old_values"]) {
            let count = self.rows.get_mut(&row.join("|"));
            let count = count.unwrap_or_else(|| panic!("{row:?} was never there: {frame}"));
            *count -= 1;
        }
        self.rows.retain(|_, count| *count > 0);
        self.put(&frame["rows"]);
        if frame["more"] == false {
            assert!(seqs.1 > seqs.0, "{}: a change came twice: {frame}", self.name());
            self.is_whole();
        }
    }

    fn is_whole(&mut self) {
        self.whole = Some((self.last, self.rows.clone()));
        // Less often the longer it lasts.
        if self.random.below(1 + self.seen.len() as u64 / 300) == 0 {
            self.seen.push((self.last, self.rows.clone()));
        }
    }

    fn put(&mut self, rows: &Json) {
        for row in self.of(rows) {
            add(&mut self.rows, &row);
        }
    }

    /// What is looked at of some rows. None of them is somebody else's.
    fn of(&self, rows: &Json) -> Vec<Vec<String>> {
        let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let row = |row: &Json| {
            let owner = row["owner"].as_str();
            let is_own = self.table == "s" || owner.is_none_or(|owner| owner == self.user);
            assert!(is_own, "{} was given a row of {owner:?}: {row}", self.name());
            self.query.columns.iter().map(|name| text(&row[*name])).collect()
        };
        rows.as_array().map(|rows| rows.iter().map(row).collect()).unwrap_or_default()
    }

    /// Compares what it had with what the log says; how often it did.
    pub(super) fn check(&mut self, events: &Events) -> usize {
        self.seen.sort_by_key(|(seq, _)| *seq);
        let seqs: Vec<u64> = self.seen.iter().map(|(seq, _)| *seq).collect();
        let expected = events.results(self.table, &self.user, self.query, &seqs);
        for ((seq, found), expected) in self.seen.iter().zip(expected) {
            assert_eq!(*found, expected, "{}: at seq {seq}", self.name());
        }
        seqs.len()
    }
}
