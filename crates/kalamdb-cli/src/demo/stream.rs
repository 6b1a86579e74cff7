//! The stream itself: writers and subscribers side by side, and a crash between the first half and the second.
//!
//! It owns the phases and what each waits for: all subscribed, half of the rows acknowledged, all acknowledged,
//! everything delivered (or nothing arriving any more). It measures; judging is the verdict's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::cold::ColdFiles;
use super::counters::{Account, Counters, reach};
use super::data::{Chat, Inbox};
use super::progress::Progress;
use super::report::{Figures, Latency};
use super::server_process::ServerProcess;
use super::setup;
use super::subscriber::{self, Sightings};
use super::verdict::Verdict;
use super::writer::{self, Written};
use crate::client::Client;

/// Nothing arrives for so long: what is missing will not come.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How to run.
#[derive(Debug)]
pub(super) struct Plan {
    /// How many of the users watch live.
    pub(super) subscribers: usize,
    /// How many connections write.
    pub(super) writers: usize,
    /// How many rows an INSERT holds at most.
    pub(super) batch_rows: usize,
    /// Of user `root`.
    pub(super) root_password: String,
}

/// What happened.
#[derive(Debug)]
pub(super) struct Run {
    accounts: Vec<Arc<Account>>,
    /// Of the first accounts, in their order.
    sightings: Vec<Sightings>,
    wrong_tables: Vec<String>,
    written: Written,
    write_time: Duration,
    total_time: Duration,
    crash: Crash,
}

#[derive(Debug, Clone, Copy)]
struct Crash {
    killed_us: u64,
    recovery: Duration,
}

/// Prepares the server, streams the chat through it, and reads what it holds in the end.
pub(super) async fn run(
    server: &mut ServerProcess,
    chat: Chat,
    plan: &Plan,
    progress: &Progress,
) -> anyhow::Result<Run> {
    let client = Client::new(&server.url(), None)?;
    let accounts = {
        let bar = progress.bar("users", chat.inboxes.len() as u64);
        let prepared = setup::prepare(&client, &plan.root_password, chat.inboxes, &bar);
        let accounts = server.while_alive(prepared).await?;
        bar.finish();
        accounts
    };
    let counters = Arc::new(Counters::new());
    let watched = accounts.get(..plan.subscribers).unwrap_or(&accounts);
    let audience = Audience::subscribe(server, watched, &counters).await?;
    progress.say(&format!("{} live subscribers", watched.len()));

    let rows =
        |accounts: &[Arc<Account>]| accounts.iter().map(|account| account.inbox.messages.len() as u64).sum();
    let (all_rows, watched_rows): (u64, u64) = (rows(&accounts), rows(watched));
    let bars = (
        progress.follow("written", all_rows, &counters.acknowledged),
        progress.follow("delivered", watched_rows, &counters.delivered),
    );
    let started_us = counters.now_us();
    let mut writers = start_writers(server, &accounts, &counters, plan);
    let half = async {
        reach(&counters.acknowledged, all_rows / 2).await;
        Ok(())
    };
    let mut early = None;
    tokio::select! {
        biased;
        reached = server.while_alive(half) => reached?,
        written = &mut writers => early = Some(written??),
    }
    let crash = crash(server, &counters, progress).await?;
    let written = match early {
        Some(written) => written,
        None => server.while_alive(async { writers.await? }).await?,
    };
    let written_us = counters.now_us();
    server.while_alive(silence_or_everything(&counters, watched.len() as u64)).await?;
    let delivered_us = counters.now_us();
    let sightings = server.while_alive(audience.dismiss()).await?;
    drop(bars);
    let wrong_tables = server.while_alive(setup::wrong_tables(&client, &accounts)).await?;
    let since = |us: u64| Duration::from_micros(us.saturating_sub(started_us));
    let (write_time, total_time) = (since(written_us), since(delivered_us));
    Ok(Run { accounts, sightings, wrong_tables, written, write_time, total_time, crash })
}

impl Run {
    /// What everybody had to receive.
    pub(super) fn inboxes(&self) -> impl Iterator<Item = &Inbox> {
        self.accounts.iter().map(|account| &account.inbox)
    }

    /// What was measured.
    pub(super) fn figures(&self, log_bytes: u64, cold: Option<&ColdFiles>) -> Figures {
        let resubscribed = self.sightings.iter().filter_map(|sightings| {
            sightings
                .subscribed_us
                .iter()
                .copied()
                .find(|&subscribed_us| subscribed_us > self.crash.killed_us)
        });
        let outage_us = (self.crash.killed_us, resubscribed.max().unwrap_or(self.crash.killed_us));
        Figures {
            users: self.accounts.len(),
            subscribers: self.sightings.len(),
            written: self.written,
            write_time: self.write_time,
            total_time: self.total_time,
            recovery: self.crash.recovery,
            latency: Latency::outside(
                outage_us,
                self.sightings.iter().flat_map(|sightings| &sightings.timings),
            ),
            log_bytes,
            cold: cold.map(|cold| (cold.files, cold.rows, cold.bytes)),
        }
    }

    /// Whether everything is as it must be.
    pub(super) fn verdict(&self, cold: Option<&ColdFiles>) -> Verdict {
        let wrong_files = cold.map_or_else(Vec::new, |cold| cold.wrong.clone());
        Verdict::new(self.inboxes().zip(&self.sightings), self.wrong_tables.clone(), wrong_files)
    }
}

/// All subscribers, each a task.
struct Audience {
    tasks: Vec<JoinHandle<Sightings>>,
    stop: watch::Sender<bool>,
}

impl Audience {
    /// Returns when the last one is subscribed.
    async fn subscribe(
        server: &mut ServerProcess,
        accounts: &[Arc<Account>],
        counters: &Arc<Counters>,
    ) -> anyhow::Result<Self> {
        let stop = watch::Sender::new(false);
        let url = format!("{}/v1/ws?compress=false", server.url().replacen("http", "ws", 1));
        let tasks = accounts
            .iter()
            .map(|account| {
                let (account, counters) = (Arc::clone(account), Arc::clone(counters));
                tokio::spawn(subscriber::watch_inbox(account, counters, url.clone(), stop.subscribe()))
            })
            .collect();
        let all = async {
            reach(&counters.subscribed, accounts.len() as u64).await;
            Ok(())
        };
        server.while_alive(all).await?;
        match counters.failure() {
            Some(reason) => anyhow::bail!("can't subscribe: {reason}"),
            None => Ok(Audience { tasks, stop }),
        }
    }

    /// Lets each read to the end of what the server has sent.
    async fn dismiss(self) -> anyhow::Result<Vec<Sightings>> {
        self.stop.send_replace(true);
        let mut sightings = Vec::with_capacity(self.tasks.len());
        for task in self.tasks {
            sightings.push(task.await?);
        }
        Ok(sightings)
    }
}

/// All writers as one task, which ends with the first that fails.
fn start_writers(
    server: &ServerProcess,
    accounts: &[Arc<Account>],
    counters: &Arc<Counters>,
    plan: &Plan,
) -> JoinHandle<anyhow::Result<Written>> {
    let mut writers = JoinSet::new();
    for share in writer::assign(accounts, plan.writers) {
        writers.spawn(writer::write_all(share, Arc::clone(counters), server.url(), plan.batch_rows));
    }
    tokio::spawn(async move {
        let mut total = Written::default();
        while let Some(written) = writers.join_next().await {
            total += written??;
        }
        Ok(total)
    })
}

async fn crash(
    server: &mut ServerProcess,
    counters: &Counters,
    progress: &Progress,
) -> anyhow::Result<Crash> {
    let killed_us = counters.now_us();
    server.crash_and_restart().await?;
    let recovery = Duration::from_micros(counters.now_us().saturating_sub(killed_us));
    progress.say(&format!("server killed (SIGKILL) and back after {:.0} ms", recovery.as_secs_f64() * 1e3));
    Ok(Crash { killed_us, recovery })
}

/// Waits until every subscriber has everything, or until nothing has arrived for a while.
async fn silence_or_everything(counters: &Counters, subscribers: u64) -> anyhow::Result<()> {
    let mut delivered = counters.delivered.subscribe();
    let silence =
        async { while let Ok(Ok(())) = tokio::time::timeout(SILENCE_MAX, delivered.changed()).await {} };
    tokio::select! {
        () = reach(&counters.complete, subscribers) => {}
        () = silence => {}
    }
    Ok(())
}
