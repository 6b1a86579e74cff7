//! What the simulated users do: statements, each with a tag of its own in every row it writes.

use kalamdb_log::simulation::Random;
use log_format::Role;

use crate::Session;
use crate::testing::session;

/// Keys are few, so that statements meet.
const KEYS: usize = 40;
const USERS: [&str; 4] = ["ann", "bob", "cid", "dot"];

/// What exists before anything else is done.
pub(super) const SCHEMA: &str = "CREATE NAMESPACE sim;
    CREATE USER TABLE sim.own (id BIGINT PRIMARY KEY, tag BIGINT, body TEXT);
    CREATE USER TABLE sim.more (id BIGINT PRIMARY KEY, tag BIGINT, body TEXT);
    CREATE SHARED TABLE sim.shared (id BIGINT PRIMARY KEY, tag BIGINT, body TEXT) WITH (ACCESS_LEVEL = 'public');
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
    ["sim.own", "sim.more", "sim.shared"][random.below(3)]
}

/// Inserts of one key by one user, as those who race for it hand them in: one may go through.
pub(super) fn rush(random: &mut Random, tags: impl Iterator<Item = u64>) -> Vec<Work> {
    let (who, table, key) = (anybody(random), keyed(random), random.below(KEYS));
    let insert = |tag| format!("INSERT INTO {table} VALUES ({key}, {tag}, '')");
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
            (format!("INSERT INTO {table} VALUES {}", rows.collect::<Vec<_>>().join(", ")), tagged)
        }
        45..65 => (format!("UPDATE {table} SET tag = {tag}, body = '{body}' WHERE id = {key}"), tagged),
        65..70 => (format!("UPDATE {table} SET tag = {tag} WHERE id % 5 = {}", key % 5), tagged),
        70..80 => (format!("DELETE FROM {table} WHERE id = {key}"), None),
        80..83 => (format!("DELETE FROM {table} WHERE id > {key}"), None),
        83..93 => (format!("INSERT INTO sim.stream VALUES ({key}, {tag}, '{body}')"), tagged),
        93..97 => {
            *extra += 1;
            (format!("CREATE USER TABLE sim.extra{extra} (id BIGINT PRIMARY KEY, tag BIGINT)"), None)
        }
        _ => (
            format!("DROP TABLE IF EXISTS sim.extra{}", random.below(1 + usize::try_from(*extra).unwrap())),
            None,
        ),
    };
    let who = if sql.contains("extra") { session("root", Role::Dba) } else { who };
    Work { who, sql, tag }
}
