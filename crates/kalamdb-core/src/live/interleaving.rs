//! Feed and router once more, over locks whose every wait a scheduler decides: publishing, joining, falling behind, leaving
//! and closing meet in thousands of orders, and in each a subscriber gets every commit once, in order, and nobody waits for
//! ever.

use std::sync::Arc;

use kalamdb_log::LogIndex;
use kalamdb_sql::LiveProgress;
use log_format::{Frame, Role, Seq};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::thread;

use self::feed::{After, Feed};
use self::router::{Position, Router, Sink, Subscriber, SubscriptionId};
use super::{change, projection, query};
use crate::catalog::Catalog;
use crate::sql::live_plan;
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

/// Commits that are published.
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
    catalog: Arc<Catalog>,
    query: Arc<query::LiveQuery>,
    frames: Vec<Frame>,
    start: Seq,
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
        execute(&dba, "CREATE USER TABLE default.t (id BIGINT PRIMARY KEY)");
        let start = engine.published();
        for id in 0..COMMITS {
            execute(&ann, &format!("INSERT INTO default.t VALUES ({id})"));
        }
        let plan = runtime.block_on(live_plan(&engine, &ann, "SELECT id FROM default.t")).unwrap();
        let projections = projection::Projections::default();
        let query =
            query::LiveQuery::compile(&plan.state, &plan.select, plan.info, plan.partition, &projections);
        let super::FeedAfter::Frames(frames) = engine.router().feed().after(start) else {
            panic!("it holds all")
        };
        let scene = Self { catalog: engine.shared_catalog(), query: Arc::new(query.unwrap()), frames, start };
        engine.close();
        scene
    }

    /// One schedule: a publisher, the router, two subscribers of which one leaves early.
    fn play(&self) {
        let feed = Arc::new(Feed::new(self.start, usize::MAX));
        let nowhere = std::path::Path::new("/nowhere");
        let router = Arc::new(Router::new(
            Arc::clone(&feed),
            Arc::clone(&self.catalog),
            nowhere.into(),
            Arc::new(LogIndex::new()),
        ));
        let routing = Arc::clone(&router);
        let router_thread = thread::spawn(move || routing.run());
        let (publishing, frames) = (Arc::clone(&feed), self.frames.clone());
        let publisher = thread::spawn(move || frames.chunks(2).for_each(|group| publishing.publish(group)));
        let readers: Vec<_> = [(1, COMMITS), (2, 2)]
            .into_iter()
            .map(|(id, until)| {
                let (router, subscriber) = (Arc::clone(&router), self.subscriber(id));
                thread::spawn(move || read(&router, &subscriber.0, &subscriber.1, until))
            })
            .collect();
        let expected: Vec<Seq> = self.frames.iter().map(Frame::last_seq).collect();
        for reader in readers {
            let seen = reader.join().unwrap();
            assert_eq!(seen, expected.get(..seen.len()).unwrap());
        }
        publisher.join().unwrap();
        feed.close();
        router_thread.join().unwrap();
    }

    fn subscriber(&self, id: u64) -> (Subscriber, Arc<Narrow>) {
        let sink = Arc::new(Narrow { given: sync::Mutex::new(Given::default()), news: sync::Condvar::new() });
        let position = Position { cursor: self.start, prev_seq: self.start };
        let subscriber = Subscriber {
            id: SubscriptionId::new(id),
            query: Arc::clone(&self.query),
            sink: Arc::clone(&sink) as _,
            position: Arc::new(sync::Mutex::new(position)),
            progress: Arc::new(LiveProgress::default()),
        };
        (subscriber, sink)
    }
}

/// Reads as a subscription does, until it has seen that many commits: by itself until it is live, then what the router gives,
/// and by itself again once it is set aside.
fn read(router: &Router, subscriber: &Subscriber, sink: &Narrow, until: usize) -> Vec<Seq> {
    router.join(&subscriber.query.partition);
    let mut seen = Vec::new();
    while seen.len() < until {
        if router.attach(subscriber) {
            wait_until_set_aside(sink, &mut seen, until);
            continue;
        }
        let cursor = subscriber.position().cursor;
        let After::Frames(frames) = router.feed().after(cursor) else { panic!("the feed holds all") };
        for frame in frames {
            seen.push(frame.last_seq());
            *subscriber.position() = Position { cursor: frame.last_seq(), prev_seq: frame.last_seq() };
        }
    }
    router.leave(subscriber.id, &subscriber.query.partition);
    // What came between the last look and leaving.
    seen.append(&mut sink.given.lock().unwrap().seqs);
    seen
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
    let scene = Scene::new();
    let mut config = shuttle::Config::new();
    // Arrow needs more than the usual stack.
    config.stack_size = 1 << 20;
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
