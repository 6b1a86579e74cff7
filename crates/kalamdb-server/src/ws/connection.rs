//! The one task of a connection: everything that is sent is sent from here, so that what belongs together stays in order.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kalamdb_core::arrow::array::RecordBatch;
use kalamdb_core::arrow::datatypes::Schema;
use kalamdb_core::format::Seq;
use kalamdb_core::{
    CaughtUp, ChangeFrame, Error as EngineError, FlushNotice, Session, Sink, Snapshot, SubscribeRequest,
    Subscription,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::jobs::{self, Batch, Cursor, Done, Outcome};
use super::liveness::Liveness;
use super::outbox::{Item, Outbox};
use super::reader::{self, COMMANDS_MAX, Command};
use super::subscriptions::{Phase, Subscriptions};
use super::writer::{Ended, Step, Writer};
use super::{Wishes, close, handshake};
use crate::app::App;
use crate::auth::Identity;
use crate::refusal::Refusal;
use crate::wire::cells::Rows;
use crate::wire::change;
use crate::wire::messages::{BatchControl, ClientMessage, ServerMessage, SubscriptionRequest};
use crate::wire::schema::WireSchema;

/// Steps of catching up of one connection that are under way, or found and not yet sent, at a time.
const CATCH_UPS_MAX: usize = 2;

/// How long the other side may take to confirm a close.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// Serves a connection until it ends.
pub(super) async fn serve(app: Arc<App>, mut socket: WebSocket, identity: Option<Identity>, wishes: Wishes) {
    let Some((identity, codec)) = handshake::authenticate(&app, &mut socket, identity, wishes).await else {
        return;
    };
    let (sink, stream) = socket.split();
    let liveness = Liveness::new();
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    let outbox = Outbox::new(app.config.queue_changes_max, app.config.queue_bytes_max);
    let connection = Connection {
        id: connection_id().into(),
        session: Session::new(identity.user.clone(), identity.role, None),
        writer: Writer::new(codec, sink, &liveness, app.config.client_timeout()),
        outbox: Arc::new(outbox),
        subscriptions: Subscriptions::default(),
        jobs: JoinSet::new(),
        catch_ups: Arc::new(Semaphore::new(CATCH_UPS_MAX)),
        parked: None,
        identity,
        app,
    };
    let understand = |message| codec.decode(message);
    let reading = reader::read(stream, codec.message_bytes_max, understand, &liveness, sender);
    both(reading, connection.run(commands)).await;
}

/// Reads and works until either is over.
pub(super) async fn both(reading: impl Future<Output = ()>, working: impl Future<Output = Ended>) {
    // It is polled only when there is something to read: much is written between two messages of a client, and whoever tries to
    // read clears a buffer first.
    let mut reading: FuturesUnordered<_> = std::iter::once(Box::pin(reading)).collect();
    let mut working = Box::pin(working);
    // When the reader is done first, what it commanded is still to be carried out; an end without a command is noticed
    // through the closed channel.
    let (reader_done, ended) = tokio::select! {
        _ = reading.next() => (true, working.as_mut().await),
        ended = &mut working => (false, ended),
    };
    drop(working);
    if !reader_done && matches!(ended, Ended::Told) {
        // The stream is read on, so that the other side's close is seen and ours is not cut off.
        let _ = tokio::time::timeout(FAREWELL, reading.next()).await;
    }
}

/// Tells connections apart, in `system.live_queries` and across restarts.
fn connection_id() -> String {
    getrandom::u64()
        .map_or_else(|_| format!("{:016x}", kalamdb_core::clock::now_micros()), |id| format!("{id:016x}"))
}

struct Connection<'a> {
    app: Arc<App>,
    id: Arc<str>,
    identity: Identity,
    session: Session,
    writer: Writer<'a>,
    outbox: Arc<Outbox>,
    subscriptions: Subscriptions,
    jobs: JoinSet<Done>,
    /// Places of steps of catching up, until what they found is sent.
    catch_ups: Arc<Semaphore>,
    /// An item for a subscription whose job is just coming back with what must be sent before it.
    parked: Option<Item>,
}

impl Connection<'_> {
    async fn run(mut self, mut commands: mpsc::Receiver<Command<ClientMessage>>) -> Ended {
        let mut stop = self.app.stop.clone();
        let mut stopping = std::pin::pin!(stopped(&mut stop));
        let mut beat = tokio::time::interval(self.app.config.heartbeat());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outbox = Arc::clone(&self.outbox);
        let mut expiry = Box::pin(tokio::time::sleep(self.identity.lifetime()));
        loop {
            let outcome = tokio::select! {
                () = &mut stopping => self.shut_down().await,
                () = &mut expiry => {
                    // There may be a newer token by now.
                    expiry.set(tokio::time::sleep(self.identity.lifetime()));
                    self.identify().await
                }
                _ = beat.tick() => self.beat().await,
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => match done {
                    Ok(done) => self.finish(done).await,
                    // A job that panicked has dropped its subscription: nothing of it can be trusted to be whole.
                    Err(error) => self.abandon(&error).await,
                },
                command = commands.recv() => match command {
                    Some(command) => self.carry_out(command).await,
                    None => Err(Ended::Gone),
                },
                item = outbox.next(), if self.parked.is_none() => self.pass_on(item).await,
            };
            if let Err(ended) = outcome {
                return ended;
            }
        }
    }

    // What is sent.

    async fn complain(&mut self, id: &str, refusal: &Refusal) -> Step {
        metrics::counter!("kalamdb_ws_errors_total", "code" => refusal.code).increment(1);
        self.writer.send(&ServerMessage::error(id, refusal)).await
    }

    async fn send_changes(&mut self, number: u64, id: &str, frames: &[ChangeFrame]) -> Step {
        let before = self.writer.sent_bytes;
        for frame in frames {
            let encoded = change::encode(self.writer.codec.protocol.serialization, id, frame);
            match encoded.and_then(|bytes| self.writer.codec.frame(bytes)) {
                Ok(message) => self.writer.put(message).await?,
                Err(refusal) => {
                    self.subscriptions.remove(number);
                    return self.complain(id, &refusal).await;
                }
            }
        }
        if let (Some(progress), Some(last)) = (self.subscriptions.progress(number), frames.last()) {
            progress.add_bytes(self.writer.sent_bytes - before);
            let rows = frames.iter().map(ChangeFrame::rows).sum();
            progress.advance(last.payload.seq, rows, last.payload.commit_time);
        }
        Ok(())
    }

    // What time brings.

    async fn beat(&mut self) -> Step {
        if self.writer.liveness.silent_for() > self.app.config.client_timeout() {
            tracing::debug!(connection = &*self.id, "a client has gone silent");
            return Err(Ended::Gone);
        }
        self.identify().await?;
        self.writer.put(Message::Ping(bytes::Bytes::new())).await?;
        self.writer.flush().await
    }

    /// Goes on only where the user is still who they were, and may still be connected.
    async fn identify(&mut self) -> Step {
        match self.identity.check(&self.app.engine) {
            Ok(()) => Ok(()),
            Err(refusal) => {
                self.complain("", &refusal).await?;
                self.writer.close(close::code_of(&refusal), refusal.code).await
            }
        }
    }

    async fn shut_down(&mut self) -> Step {
        let refusal = Refusal::shutting_down();
        let mut ids = self.subscriptions.ids();
        if ids.is_empty() {
            ids.push("".into());
        }
        let retry_after_ms = self.app.retry_after_ms();
        for id in ids {
            metrics::counter!("kalamdb_ws_errors_total", "code" => refusal.code).increment(1);
            self.writer.send(&ServerMessage::shutting_down(&id, &refusal, retry_after_ms)).await?;
        }
        self.writer.close(close::GOING_AWAY, "SHUTTING_DOWN").await
    }

    // What the client says.

    async fn carry_out(&mut self, command: Command<ClientMessage>) -> Step {
        let warnings = match &command {
            Command::Obey(message) => message.warnings(),
            Command::Complain(_) | Command::End(_) => Vec::new(),
        };
        match command {
            Command::Complain(refusal) => self.complain("", &refusal).await,
            Command::End(refusal) => {
                self.complain("", &refusal).await?;
                self.writer.close(close::code_of(&refusal), refusal.code).await
            }
            Command::Obey(ClientMessage::Ping { id, .. }) => {
                self.writer.send(&ServerMessage::Pong { id: id.as_ref(), warnings: &warnings }).await
            }
            Command::Obey(ClientMessage::Authenticate { token, .. }) => self.renew(&token, &warnings).await,
            Command::Obey(ClientMessage::Subscribe { subscription, .. }) => {
                self.subscribe(*subscription, warnings).await
            }
            Command::Obey(ClientMessage::NextBatch { subscription_id, .. }) => {
                self.next_batch(&subscription_id, warnings).await
            }
            Command::Obey(ClientMessage::Unsubscribe { subscription_id }) => {
                match self.subscriptions.number_of(&subscription_id) {
                    Some(number) => {
                        self.subscriptions.remove(number);
                        Ok(())
                    }
                    None => self.complain(&subscription_id, &no_such_subscription()).await,
                }
            }
        }
    }

    /// A newer token keeps the connection.
    async fn renew(&mut self, token: &str, warnings: &[String]) -> Step {
        match self.app.tokens.identity(&self.app.engine, token) {
            Ok(identity) if identity.user == self.identity.user => {
                self.identity = identity;
                let user = self.identity.user.clone();
                let role = kalamdb_core::role_name(self.identity.role);
                let protocol = self.writer.codec.protocol;
                let user = user.as_str();
                self.writer.send(&ServerMessage::AuthSuccess { user, role, protocol, warnings }).await
            }
            Ok(_) => {
                let refusal = Refusal::new("UNAUTHORIZED", "a connection belongs to one user");
                self.complain("", &refusal).await
            }
            Err(refusal) => self.complain("", &refusal).await,
        }
    }

    async fn subscribe(&mut self, request: SubscriptionRequest, warnings: Vec<String>) -> Step {
        self.identify().await?;
        let SubscriptionRequest { id, sql, params, options, .. } = request;
        let config = &self.app.config;
        let batch_rows_max = config.batch_rows_max.max(1);
        let wished = options.as_ref().and_then(|options| options.batch_size).unwrap_or(batch_rows_max);
        let rows_max = wished.clamp(1, batch_rows_max);
        // Those that were given up count until their jobs are done.
        if self.jobs.len() >= config.subscriptions_max.saturating_mul(2) {
            let message = "too many subscriptions are on their way; wait for their answers";
            return self.complain(&id, &Refusal::new("SUBSCRIPTION_LIMIT_EXCEEDED", message)).await;
        }
        let id: Arc<str> = id.into();
        let number = match self.subscriptions.begin(&id, rows_max, config.subscriptions_max) {
            Ok(number) => number,
            Err(refusal) => return self.complain(&id, &refusal).await,
        };
        if let Some(entry) = self.subscriptions.get_mut(number) {
            entry.warnings = warnings;
        }
        let options_json = options
            .as_ref()
            .and_then(|options| serde_json::to_string(options).ok())
            .map(String::into_boxed_str);
        // Without options no rows to begin with are asked for, only changes from now on.
        let last_rows = options.as_ref().map_or(Some(0), |options| options.last_rows);
        let options = options.unwrap_or_default();
        let request = SubscribeRequest {
            connection_id: Arc::clone(&self.id),
            query_id: id,
            sql,
            params: params.unwrap_or_default().into(),
            last_rows,
            from: options.from.map(Seq::new),
            on_gap: options.on_gap.map(Into::into).unwrap_or_default(),
            coalesce: options.coalesce,
            notify_flush: options.notify_flush,
            notify_evicted: options.notify_evicted,
            options_json,
        };
        let session = self.session();
        let sink: Arc<dyn Sink> = Arc::clone(&self.outbox) as _;
        self.query(jobs::subscribe(number, Arc::clone(&self.app), session, request, sink));
        Ok(())
    }

    async fn next_batch(&mut self, id: &str, warnings: Vec<String>) -> Step {
        self.identify().await?;
        let Some(number) = self.subscriptions.number_of(id) else {
            return self.complain(id, &no_such_subscription()).await;
        };
        let Some(entry) = self.subscriptions.get_mut(number) else { return Ok(()) };
        entry.warnings.extend(warnings);
        match std::mem::replace(&mut entry.phase, Phase::Working) {
            Phase::Snapshot(subscription, cursor) => {
                self.pull(number, subscription, cursor);
                Ok(())
            }
            other => {
                entry.phase = other;
                if entry.is_loaded {
                    return self.say_all_is_there(number, id).await;
                }
                // The batch that is on its way is the answer, or that there is none.
                entry.asked_early = true;
                Ok(())
            }
        }
    }

    /// Answers a client that asks for more of a snapshot than there is: with no rows, and that this was all.
    async fn say_all_is_there(&mut self, number: u64, id: &str) -> Step {
        let mut warnings = self.subscriptions.take_warnings(number);
        warnings.push("the snapshot has no further batch: next_batch is ignored".to_owned());
        let none = RecordBatch::new_empty(Arc::new(Schema::empty()));
        let rows = match Rows::new(&none) {
            Ok(rows) => rows,
            Err(error) => {
                return self.complain(id, &Refusal::new("CONVERSION_ERROR", error.to_string())).await;
            }
        };
        let message = ServerMessage::InitialDataBatch {
            subscription_id: id,
            rows: rows.named(),
            batch_control: BatchControl::new(0, false, None),
            warnings: &warnings,
        };
        self.writer.send(&message).await
    }

    /// The session of its user as they are now; shared by all that it has open.
    fn session(&mut self) -> Session {
        if self.session.role() != self.identity.role {
            self.session = Session::new(self.identity.user.clone(), self.identity.role, None);
        }
        self.session.clone()
    }

    fn pull(&mut self, number: u64, subscription: Box<Subscription>, cursor: Box<Cursor>) {
        self.query(jobs::pull_batch(number, Arc::clone(&self.app), subscription, cursor));
    }

    /// A job that reads as a query does runs where queries run.
    fn query(&mut self, job: impl Future<Output = Done> + Send + 'static) {
        self.jobs.spawn_on(job, self.app.engine.query_threads());
    }

    fn catch_up(&mut self, number: u64, subscription: Box<Subscription>) {
        let (app, of_connection) = (Arc::clone(&self.app), Arc::clone(&self.catch_ups));
        self.jobs.spawn(jobs::catch_up(number, app, of_connection, subscription));
    }

    // What jobs come back with.

    async fn finish(&mut self, done: Done) -> Step {
        let Done { number, outcome, turn } = done;
        // Given up while the job was under way: what it brings is dropped.
        if let Some(entry) = self.subscriptions.get(number) {
            let (id, rows_max) = (Arc::clone(&entry.id), entry.rows_max);
            match outcome {
                Outcome::Subscribed(Ok(subscription)) => {
                    self.acknowledge(number, &id, rows_max, subscription).await
                }
                Outcome::Batch(subscription, cursor, batch) => {
                    self.send_batch(number, &id, subscription, cursor, batch).await
                }
                Outcome::Refused(refusal) => {
                    self.subscriptions.remove(number);
                    self.complain(&id, &refusal).await
                }
                Outcome::CaughtUp(subscription, Ok(caught_up)) => {
                    self.go_on(number, &id, subscription, caught_up).await
                }
                Outcome::Subscribed(Err(error)) | Outcome::CaughtUp(_, Err(error)) => {
                    self.end(number, &id, &error).await
                }
            }?;
        }
        drop(turn);
        match self.parked.take() {
            Some(item) => self.pass_on(item).await,
            None => Ok(()),
        }
    }

    async fn end(&mut self, number: u64, id: &str, error: &EngineError) -> Step {
        let warnings = self.subscriptions.take_warnings(number);
        self.subscriptions.remove(number);
        let refusal = Refusal::of_subscription(error);
        metrics::counter!("kalamdb_ws_errors_total", "code" => refusal.code).increment(1);
        self.writer.send(&ServerMessage::engine_error(id, &refusal, error, &warnings)).await
    }

    async fn acknowledge(
        &mut self,
        number: u64,
        id: &str,
        rows_max: usize,
        mut subscription: Box<Subscription>,
    ) -> Step {
        self.subscriptions.name(number, &subscription);
        // IMPORTANT: now that it is listed and named: what ends it from here on is told through the outbox.
        self.identify().await?;
        if let Err(error) = subscription.check() {
            return self.end(number, id, &error).await;
        }
        let says_something = |it: &Snapshot| it.total_rows > 0 || it.failure.is_some();
        let snapshot = subscription.take_snapshot().filter(says_something);
        let start_seq = subscription.start_seq().get();
        let schema = Arc::clone(subscription.schema());
        let total_rows = snapshot.as_ref().map_or(0, |snapshot| snapshot.total_rows);
        let loading = snapshot.is_some();
        let warnings = self.subscriptions.take_warnings(number);
        let mut asked_early = false;
        if let Some(entry) = self.subscriptions.get_mut(number) {
            entry.is_loaded = !loading;
            asked_early = std::mem::take(&mut entry.asked_early);
        }
        let ack = ServerMessage::SubscriptionAck {
            subscription_id: id,
            total_rows: u32::try_from(total_rows).unwrap_or(u32::MAX),
            batch_control: BatchControl::new(0, loading, (!loading).then_some(start_seq)),
            schema: WireSchema(&schema),
            snapshot_seq: start_seq,
            warnings: &warnings,
        };
        self.writer.send(&ack).await?;
        match snapshot {
            Some(snapshot) => {
                self.pull(number, subscription, Box::new(Cursor::new(snapshot, rows_max)));
            }
            None => {
                self.catch_up(number, subscription);
                if asked_early {
                    return self.say_all_is_there(number, id).await;
                }
            }
        }
        Ok(())
    }

    async fn send_batch(
        &mut self,
        number: u64,
        id: &str,
        subscription: Box<Subscription>,
        cursor: Box<Cursor>,
        batch: Batch,
    ) -> Step {
        if let Err(error) = subscription.check() {
            return self.end(number, id, &error).await;
        }
        let rows = match Rows::new(&batch.rows) {
            Ok(rows) => rows,
            Err(error) => {
                self.subscriptions.remove(number);
                return self.complain(id, &Refusal::new("CONVERSION_ERROR", error.to_string())).await;
            }
        };
        let warnings = self.subscriptions.take_warnings(number);
        let message = ServerMessage::InitialDataBatch {
            subscription_id: id,
            rows: rows.named(),
            batch_control: BatchControl::new(batch.number, batch.has_more, batch.last_seq),
            warnings: &warnings,
        };
        let before = self.writer.sent_bytes;
        self.writer.send(&message).await?;
        if let Some(progress) = self.subscriptions.progress(number) {
            progress.add_bytes(self.writer.sent_bytes - before);
        }
        if !batch.has_more {
            if let Some((failure, seq)) = cursor.failure() {
                self.writer.send(&ServerMessage::row_failure(id, failure, seq)).await?;
            }
            drop(cursor);
            if let Some(entry) = self.subscriptions.get_mut(number) {
                entry.is_loaded = true;
            }
            self.catch_up(number, subscription);
        } else if let Some(entry) = self.subscriptions.get_mut(number) {
            entry.phase = Phase::Snapshot(subscription, cursor);
        }
        Ok(())
    }

    async fn go_on(
        &mut self,
        number: u64,
        id: &str,
        subscription: Box<Subscription>,
        caught_up: CaughtUp,
    ) -> Step {
        if let Some(frame) = &caught_up.schema {
            let message = ServerMessage::Schema {
                subscription_id: id,
                schema: WireSchema(&frame.schema),
                schema_version: frame.version.get(),
                prev_seq: frame.prev_seq.get(),
            };
            self.writer.send(&message).await?;
        }
        // What comes next is made while this is sent: it comes back through the jobs, after this.
        let live = if caught_up.to_make {
            self.query(jobs::make_anew(number, Arc::clone(&self.app), subscription));
            None
        } else if caught_up.live {
            Some(subscription)
        } else {
            self.catch_up(number, subscription);
            None
        };
        self.send_changes(number, id, &caught_up.frames).await?;
        self.writer.flush().await?;
        if let Some(subscription) = live
            && let Some(entry) = self.subscriptions.get_mut(number)
        {
            entry.phase = Phase::Live(subscription);
        }
        Ok(())
    }

    async fn abandon(&mut self, error: &tokio::task::JoinError) -> Step {
        tracing::error!(%error, connection = &*self.id, "a subscription's job failed: the connection ends");
        self.complain("", &Refusal::new("INTERNAL_ERROR", "a subscription failed; connect again")).await?;
        self.writer.close(close::GOING_AWAY, "INTERNAL_ERROR").await
    }

    // What the engine brings.

    async fn pass_on(&mut self, item: Item) -> Step {
        self.put_item(item).await?;
        // Whoever comes next does it, unless that has to wait.
        if self.outbox.is_empty() || self.parked.is_some() { self.writer.flush().await } else { Ok(()) }
    }

    /// Puts what an item is for the client; nothing where its subscription was given up.
    async fn put_item(&mut self, item: Item) -> Step {
        let Some(number) = self.subscriptions.number_of_engine_id(item.subscription()) else { return Ok(()) };
        let Some(entry) = self.subscriptions.get_mut(number) else { return Ok(()) };
        if matches!(entry.phase, Phase::Working) {
            // It went live in a job that is about to come back.
            self.parked = Some(item);
            return Ok(());
        }
        let id = Arc::clone(&entry.id);
        match item {
            Item::Changes(_, frames) => self.send_changes(number, &id, &frames).await,
            Item::Lagging(_) => {
                // All that was delivered before has been put: the queue is in order.
                let phase = self.subscriptions.get_mut(number).map(|entry| &mut entry.phase);
                if let Some(phase) = phase
                    && let Phase::Live(subscription) = std::mem::replace(phase, Phase::Working)
                {
                    self.catch_up(number, subscription);
                }
                Ok(())
            }
            Item::Ended(_, error) => self.end(number, &id, &error).await,
            Item::Flushed(_, FlushNotice { rows, file, seq }) => {
                let (subscription_id, file, seq) = (id.as_ref(), file.as_deref(), seq.get());
                self.writer.put_message(&ServerMessage::Flush { subscription_id, rows, file, seq }).await
            }
        }
    }
}

/// Completes when the server is to stop, or is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn no_such_subscription() -> Refusal {
    Refusal::new("NOT_FOUND", "there is no subscription with this id on the connection")
}
