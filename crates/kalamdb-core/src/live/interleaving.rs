//! Feed and router once more, over locks whose every wait a scheduler decides: publishing, altering the table, joining, falling
//! behind, leaving and closing meet in thousands of orders, and in each a subscriber gets every commit once, in order, as the
//! table was or as it is, and nobody waits for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use kalamdb_log::LogIndex;
use kalamdb_sql::LiveProgress;
use log_format::{ArchivedChangeEvent, ChangeEvent, Frame, Role, Seq, TableId};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread;

use self::feed::{After, Feed};
use self::router::{Position, Router, Subscriber};
use super::sink::{Sink, SubscriptionId};
use super::{change, ids, projection, query, result, sink};
use crate::catalog::Catalog;
use crate::sql::{LivePlan, live_plan};
use crate::testing::{root, session};
use crate::{Engine, EngineOptions, Error};

mod sync {
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

#[allow(dead_code, unreachable_pub, reason = "a second copy, of which the test uses a part")]
#[path = "feed.rs"]
mod feed;
#[allow(dead_code, unreachable_pub, reason = "a second copy, of which the test uses a part")]
#[path = "router.rs"]
mod router;

/// Commits of rows that are published, half of them before the table is altered.
const COMMITS: usize = 6;

/// What a subscriber was given by the router, and whether it was set aside.
#[derive(Default)]
struct Given {
    seqs: Vec<Seq>,
    is_behind: bool,
}

/// A sink with room for one commit.
struct Narrow {
    given: sync::Mutex<Given>,
    news: sync::Condvar,
}

impl Sink for Narrow {
    fn deliver(&self, _: SubscriptionId, frames: Vec<change::ChangeFrame>) -> bool {
        let mut given = self.given.lock().unwrap();
        if !given.seqs.is_empty() {
            return false;
        }
        given.seqs.extend(frames.iter().map(|frame| frame.payload.seq));
        self.news.notify_all();
        true
    }

    fn lagging(&self, _: SubscriptionId) {
        self.given.lock().unwrap().is_behind = true;
        self.news.notify_all();
    }

    fn ended(&self, _: SubscriptionId, _: Error) {}
}

/// What every schedule begins with.
struct Scene {
    /// The commit that creates the table.
    created: Vec<ChangeEvent>,
    table: TableId,
    /// The same query before and after the table is altered.
    plans: [LivePlan; 2],
    frames: Vec<Frame>,
    start: Seq,
}

/// The events of a commit.
fn events(frame: &Frame) -> Vec<ChangeEvent> {
    frame.events().map(|(_, event)| event.unwrap().to_event().unwrap()).collect()
}

fn alters(frame: &Frame) -> bool {
    frame.events().any(|(_, event)| matches!(event, Ok(ArchivedChangeEvent::TableAltered(_))))
}

impl Scene {
    /// Real commits of a real table.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = EngineOptions::new(directory.path());
        options.root_password = Some("root".to_owned());
        let (engine, _) = Engine::open(options).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (ann, dba) = (session("ann", Role::User), root());
        let execute = |who: &crate::Session, sql: &str| {
            let executed = runtime.block_on(engine.execute(&mut who.clone(), sql, &[]));
            assert!(executed.error.is_none(), "{sql}: {:?}", executed.error);
        };
        let plan = || {
            runtime.block_on(live_plan(&engine, &ann, "SELECT id FROM default.t WHERE tag = 1", &[])).unwrap()
        };
        let after = |seq| match engine.router().feed().after(seq) {
            super::FeedAfter::Frames(frames) => frames,
            other => panic!("it holds all: {other:?}"),
        };
        let begun = engine.published();
        execute(&dba, "CREATE USER TABLE default.t (id BIGINT PRIMARY KEY, gone INT, tag INT)");
        let (created, start) = (events(&after(begun)[0]), engine.published());
        let before = plan();
        for id in 0..COMMITS {
            if id == COMMITS / 2 {
                execute(&dba, "ALTER TABLE default.t DROP COLUMN gone, ADD COLUMN late TEXT");
            }
            execute(&ann, &format!("INSERT INTO default.t (id, tag) VALUES ({id}, 1)"));
        }
        let frames = after(start);
        let scene = Self { created, table: before.info.id(), plans: [before, plan()], frames, start };
        engine.close();
        scene
    }

    /// The query against the table as a catalog has it now.
    fn compile(&self, catalog: &Catalog) -> query::LiveQuery {
        let info = catalog.by_id(self.table).unwrap();
        let plan = &self.plans[info.version().get() as usize - 1];
        let projections = projection::Projections::default();
        let query =
            query::LiveQuery::compile(&plan.state, &plan.select, info, plan.partition.clone(), &projections);
        query.unwrap()
    }

    /// One schedule: a publisher, the router, three subscribers of which one leaves early.
    fn play(self: &Arc<Self>) {
        let catalog = Arc::new(Catalog::empty().unwrap());
        catalog.apply(&self.created).unwrap();
        let feed = Arc::new(Feed::new(self.start, usize::MAX));
        let nowhere = std::path::Path::new("/nowhere");
        let log_index = Arc::new(LogIndex::new());
        let router =
            Arc::new(Router::new(Arc::clone(&feed), Arc::clone(&catalog), nowhere.into(), log_index));
        let routing = Arc::clone(&router);
        let router_thread = thread::spawn(move || routing.run());
        let reader = |(id, until, start)| {
            let (router, catalog, scene) = (Arc::clone(&router), Arc::clone(&catalog), Arc::clone(self));
            move || scene.read(&router, &catalog, (id, start), until)
        };
        // Its snapshot has the ALTER, which nobody has heard of yet.
        let altered = self.frames.iter().find(|frame| alters(frame)).unwrap().last_seq();
        let late = reader((3, COMMITS / 2, altered));
        let (publishing, altering, scene) = (Arc::clone(&feed), Arc::clone(&catalog), Arc::clone(self));
        let publisher = thread::spawn(move || scene.publish(&publishing, &altering, late));
        let early = [(1, COMMITS), (2, 2)].map(|(id, until)| thread::spawn(reader((id, until, self.start))));
        for reader in early {
            self.check(self.start, &reader.join().unwrap());
        }
        self.check(altered, &publisher.join().unwrap().join().unwrap());
        feed.close();
        router_thread.join().unwrap();
    }

    /// What a reader saw is every commit of rows after its start, up to where it left.
    fn check(&self, start: Seq, seen: &[Seq]) {
        let rows = self.frames.iter().filter(|frame| !alters(frame) && frame.first_seq() > start);
        let expected: Vec<Seq> = rows.map(Frame::last_seq).collect();
        assert_eq!(seen, expected.get(..seen.len()).unwrap());
    }

    /// As the sequencer does: a change of the catalog stands alone, and is in the catalog before anybody hears of it. Then
    /// somebody may come who sees it.
    fn publish(
        &self,
        feed: &Feed,
        catalog: &Catalog,
        late: impl FnOnce() -> Vec<Seq> + Send + 'static,
    ) -> thread::JoinHandle<Vec<Seq>> {
        let (mut late, mut comer) = (Some(late), None);
        for run in self.frames.chunk_by(|left, right| !alters(left) && !alters(right)) {
            for group in run.chunks(2) {
                if alters(&group[0]) {
                    catalog.apply(&events(&group[0])).unwrap();
                    comer = late.take().map(thread::spawn);
                }
                feed.publish(group);
            }
        }
        comer.unwrap()
    }

    fn subscriber(&self, id: u64, start: Seq, catalog: &Catalog) -> (Arc<Subscriber>, Arc<Narrow>) {
        let sink = Arc::new(Narrow { given: sync::Mutex::new(Given::default()), news: sync::Condvar::new() });
        let position = Position { cursor: start, prev_seq: start };
        let subscriber = Subscriber {
            id: SubscriptionId::new(id),
            query: self.compile(catalog),
            sink: Arc::clone(&sink) as _,
            position: sync::Mutex::new(position),
            progress: Arc::new(LiveProgress::default()),
            notify_flush: false,
            notify_evicted: false,
            result: None,
        };
        (Arc::new(subscriber), sink)
    }

    /// Reads as a subscription does, until it has seen that many commits: by itself until it is live, then what the router
    /// gives, and by itself again once it is set aside.
    fn read(&self, router: &Router, catalog: &Catalog, (id, start): (u64, Seq), until: usize) -> Vec<Seq> {
        let (mut subscriber, sink) = self.subscriber(id, start, catalog);
        router.join(&subscriber.query.partition);
        let (mut seen, mut unread) = (Vec::new(), VecDeque::new());
        while seen.len() < until {
            if router.is_outdated(&subscriber.query) {
                subscriber = Arc::new(subscriber.with_query(self.compile(catalog)));
            }
            if let Some(frame) = unread.pop_front() {
                take(&frame, &subscriber, &mut seen);
            } else if router.attach(&subscriber) {
                wait_until_set_aside(&sink, &mut seen, until);
            } else {
                let cursor = subscriber.position().cursor;
                let After::Frames(frames) = router.feed().after(cursor) else { panic!("the feed holds all") };
                unread.extend(frames);
            }
        }
        router.leave(subscriber.id, &subscriber.query.partition);
        // What came between the last look and leaving.
        seen.append(&mut sink.given.lock().unwrap().seqs);
        seen
    }
}

/// Matches one commit: its rows are of no newer version than the query.
fn take(frame: &Frame, subscriber: &Subscriber, seen: &mut Vec<Seq>) {
    let query = &subscriber.query;
    let mut position = subscriber.position();
    for (_, changes) in change::changes_by_partition(frame, |it| *it == query.partition).unwrap() {
        let mut batches = change::ChangeBatches::new(&query.info, &changes).unwrap();
        for frame in batches.frames(query, position.prev_seq, 0).unwrap() {
            seen.push(frame.payload.seq);
            position.prev_seq = frame.payload.seq;
        }
    }
    position.cursor = frame.last_seq();
}

fn wait_until_set_aside(sink: &Narrow, seen: &mut Vec<Seq>, until: usize) {
    let mut given = sink.given.lock().unwrap();
    loop {
        seen.append(&mut given.seqs);
        if seen.len() >= until {
            return;
        }
        if std::mem::take(&mut given.is_behind) {
            return;
        }
        given = sink.news.wait(given).unwrap();
    }
}

fn run(scheduler: impl Scheduler + 'static) {
    let scene = Arc::new(Scene::new());
    let mut config = shuttle::Config::new();
    // Arrow and DataFusion need more than the usual stack.
    config.stack_size = 4 << 20;
    shuttle::Runner::new(scheduler, config).run(move || scene.play());
}

#[test]
fn every_commit_comes_once_in_random_orders() {
    run(RandomScheduler::new(400));
}

#[test]
fn every_commit_comes_once_in_orders_with_few_but_unlikely_turns() {
    run(PctScheduler::new(3, 400));
}
