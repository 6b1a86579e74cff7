//! What the simulated users do: statements, each with a tag of its own in every row it writes.

use kalamdb_log::simulation::Random;
use log_format::{NamespaceId, Partition, Role};

use crate::testing::session;
use crate::{Engine, Session};

/// Keys are few, so that statements meet.
const KEYS: usize = 40;
pub(super) const USERS: [&str; 4] = ["ann", "bob", "cid", "dot"];

/// Tables whose rows have a key, and whose columns change.
const KEYED: [&str; 3] = ["sim.own", "sim.more", "sim.shared"];

/// What exists before anything else is done.
pub(super) const SCHEMA: &str = "CREATE NAMESPACE sim;
    CREATE USER TABLE sim.own (id BIGINT PRIMARY KEY, tag BIGINT, body TEXT, n SMALLINT DEFAULT 1);
    CREATE USER TABLE sim.more (id BIGINT PRIMARY KEY, tag BIGINT, body TEXT, n SMALLINT DEFAULT 1);
    CREATE SHARED TABLE sim.shared (id BIGINT PRIMARY KEY, tag BIGINT, body TEXT, n SMALLINT DEFAULT 1)
        WITH (ACCESS_LEVEL = 'public');
    CREATE STREAM TABLE sim.stream (id BIGINT, tag BIGINT, body TEXT) RETENTION '1h'";

/// A statement of somebody.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) who: Session,
    pub(super) sql: String,
    /// In every row it writes; none where it writes no rows.
    pub(super) tag: Option<u64>,
}

/// Somebody.
pub(super) fn anybody(random: &mut Random) -> Session {
    let name = USERS.get(random.below(USERS.len())).copied().unwrap_or("ann");
    session(name, Role::User)
}

/// A table whose rows have a key.
pub(super) fn keyed(random: &mut Random) -> &'static str {
    KEYED[random.below(KEYED.len())]
}

/// The partitions of the keyed tables that have cold rows, or hot ones.
pub(super) fn partitions(engine: &Engine, are_cold: bool) -> Vec<Partition> {
    let mut found = Vec::new();
    for (namespace, name) in KEYED.iter().filter_map(|name| name.split_once('.')) {
        let Some(info) = engine.catalog().find(&NamespaceId::new(namespace), name) else { continue };
        found.extend(if are_cold {
            engine.store().cold_partitions(info.id()).unwrap()
        } else {
            engine.store().cut().unwrap().hot_partitions(info.keyspace(), info.id()).unwrap()
        });
    }
    found
}

/// Something to watch: some of a table's columns, or all that it has by then.
pub(super) fn query(random: &mut Random) -> String {
    let conditions = [
        "",
        "WHERE id = 7",
        "WHERE tag % 3 = 0",
        "WHERE body = ''",
        "WHERE id < 20 AND tag > 9",
        "WHERE n = 1",
        "WHERE n > 1",
    ];
    let condition = conditions[random.below(conditions.len())];
    let columns = if random.per_mille(250) { "*" } else { "id" };
    format!("SELECT {columns}, _seq FROM {} {condition}", keyed(random))
}

/// Who reads which tables, so that together they read all rows.
pub(super) fn readers() -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = KEYED.into_iter().filter(|table| *table != "sim.shared");
    own.flat_map(|table| USERS.map(|user| (table, user))).chain([("sim.shared", "ann")])
}

/// Inserts of one key by one user, as those who race for it hand them in: one may go through.
pub(super) fn rush(random: &mut Random, tags: impl Iterator<Item = u64>) -> Vec<Work> {
    let (who, table, key) = (anybody(random), keyed(random), random.below(KEYS));
    let insert = |tag| format!("INSERT INTO {table} (id, tag, body) VALUES ({key}, {tag}, '')");
    tags.map(|tag| Work { who: who.clone(), sql: insert(tag), tag: Some(tag) }).collect()
}

/// Something to do. `extra` counts tables that come and go.
pub(super) fn any(random: &mut Random, tag: u64, extra: &mut u64) -> Work {
    let who = anybody(random);
    let table = keyed(random);
    let key = random.below(KEYS);
    // Some rows are large enough that frames span sectors and segments fill.
    let body = "x".repeat(if random.per_mille(100) { 3000 } else { random.below(40) });
    let tagged = Some(tag);
    let (sql, tag) = match random.below(100) {
        0..45 => {
            let rows =
                (0..=random.below(4)).map(|at| format!("({}, {tag}, '{body}')", (key + at * 7) % KEYS));
            let rows = rows.collect::<Vec<_>>().join(", ");
            (format!("INSERT INTO {table} (id, tag, body) VALUES {rows}"), tagged)
        }
        45..65 => (format!("UPDATE {table} SET tag = {tag}, body = '{body}' WHERE id = {key}"), tagged),
        65..70 => {
            let n = key % 3;
            (format!("UPDATE {table} SET tag = {tag}, n = {n} WHERE id % 5 = {}", key % 5), tagged)
        }
        70..80 => (format!("DELETE FROM {table} WHERE id = {key}"), None),
        80..83 => (format!("DELETE FROM {table} WHERE id > {key}"), None),
        83..88 => (alter(random, table), None),
        88..93 => (format!("INSERT INTO sim.stream VALUES ({key}, {tag}, '{body}')"), tagged),
        93..97 => {
            *extra += 1;
            (format!("CREATE USER TABLE sim.extra{extra} (id BIGINT PRIMARY KEY, tag BIGINT)"), None)
        }
        _ => (
            format!("DROP TABLE IF EXISTS sim.extra{}", random.below(1 + usize::try_from(*extra).unwrap())),
            None,
        ),
    };
    let is_of_root = sql.contains("extra") || sql.starts_with("ALTER");
    let who = if is_of_root { session("root", Role::Dba) } else { who };
    Work { who, sql, tag }
}

/// Another version of a table. Some are refused: for what is there already, or because somebody watches.
fn alter(random: &mut Random, table: &str) -> String {
    let (x, other) = (random.below(3), random.below(3));
    let wider = ["INT", "BIGINT"][random.below(2)];
    let change = match random.below(10) {
        0..3 => format!("ADD COLUMN IF NOT EXISTS x{x} SMALLINT DEFAULT {}", 5 + x),
        3 => format!("ADD COLUMN IF NOT EXISTS x{x} INT"),
        4 => {
            format!("ADD COLUMN IF NOT EXISTS x{x} INT NOT NULL, SET (DELETED_RETENTION = '{}h')", 1 + other)
        }
        5..7 => format!("DROP COLUMN IF EXISTS x{x}"),
        7 => format!("RENAME COLUMN x{x} TO x{other}"),
        8 => format!("MODIFY COLUMN x{x} {wider}"),
        _ => format!("MODIFY COLUMN n {wider}"),
    };
    format!("ALTER TABLE {table} {change}")
}
