//! A subscriber that lives through every end of the engine, and what it has seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use log_format::Seq;

use crate::live::Router;
use crate::testing::{Kept, arrived, materialise, take_over};
use crate::{Engine, Error, Session, SubscribeRequest, Subscription};

/// Commits its sink has room for: few, so that it falls behind.
const ROOM: usize = 3;

pub(super) struct Watcher {
    pub(super) who: Session,
    pub(super) sql: String,
    sink: Arc<Kept>,
    subscription: Option<Subscription>,
    /// Where it stands, once it has begun.
    last: Option<Seq>,
    /// By id: the seq of the row.
    pub(super) rows: BTreeMap<i64, i64>,
}

impl Watcher {
    pub(super) fn new(who: Session, sql: String) -> Self {
        Self { who, sql, sink: Kept::with_room(ROOM), subscription: None, last: None, rows: BTreeMap::new() }
    }

    /// Takes what is there; begins or resumes first where it has to. `may_resync` says that what it saw may be gone.
    pub(super) async fn look(&mut self, engine: &Engine, may_resync: bool) {
        if self.subscription.is_none() {
            self.subscribe(engine, may_resync).await;
        }
        let (Some(subscription), Some(last)) = (&mut self.subscription, &mut self.last) else { return };
        take_over(&arrived(&self.sink, subscription), last, &mut self.rows);
    }

    async fn subscribe(&mut self, engine: &Engine, may_resync: bool) {
        let request =
            SubscribeRequest { sql: self.sql.clone(), from: self.last, ..SubscribeRequest::default() };
        self.sink.take();
        match engine.subscribe(&self.who, request, Arc::clone(&self.sink) as _).await {
            Ok(mut subscription) => {
                let begun = materialise(&mut subscription, &mut self.rows).await;
                self.last.get_or_insert(begun);
                self.subscription = Some(subscription);
            }
            Err(Error::ResyncRequired { from, floor, end }) => {
                assert!(may_resync, "{} cannot resume from {from}: the log has {floor} to {end}", self.sql);
                self.last = None;
                self.rows.clear();
            }
            Err(error) => panic!("{}: {error}", self.sql),
        }
    }

    /// Takes all there is, however often the router and the sink take turns.
    pub(super) async fn catch_up(&mut self, engine: &Engine, router: &Router, may_resync: bool) {
        let mut idle = 0;
        // One look may make it live, and only then does the router have something for it.
        while idle < 2 {
            let before = (self.last, self.subscription.is_some());
            router.turn();
            self.look(engine, may_resync).await;
            idle = if before == (self.last, true) { idle + 1 } else { 0 };
        }
    }

    /// The connection is gone; what was seen stays.
    pub(super) fn disconnect(&mut self) {
        // What the sink already has was not seen by the client.
        self.subscription = None;
        self.sink.take();
    }
}
