//! What the attacker tries: statements of many shapes, made by seed.

use crate::support::Random;

/// How two answers to the same statement are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Status, code, and rows in any order.
    Rows,
    /// Status, code and number of rows: what is in them is a matter of seqs, times or ids.
    Counts,
    /// Not at all.
    Nothing,
}

/// A statement, and how its answers in two worlds are compared.
pub(super) type Attack = (String, Compared);

const VALUES: [&str; 22] = [
    "id",
    "n",
    "body",
    "body || '!'",
    "upper(body)",
    "reverse(body)",
    "left(body, 4)",
    "length(body)",
    "md5(body)",
    "n % 7",
    "n * 3",
    "n / (id - 3)",
    "1 / (n - n)",
    "CAST(body AS BIGINT)",
    "CAST(n AS SMALLINT)",
    "CAST(body AS DATE)",
    "CASE WHEN id > 5 THEN body ELSE 'small' END",
    "coalesce(NULL, body)",
    "NULLIF(n, 3)",
    "extra ->> 'of'",
    "CAST(n AS TEXT)",
    "current_user()",
];
const AGGREGATES: [&str; 12] = [
    "count(*)",
    "count(DISTINCT n)",
    "sum(id)",
    "min(body)",
    "max(body)",
    "min(n)",
    "max(n)",
    "bit_xor(n)",
    "count(*) FILTER (WHERE n > 5)",
    "bool_or(body LIKE 'tag%')",
    "string_agg(body, ',' ORDER BY id)",
    "max(id) - min(id)",
];
const CONDITIONS: [&str; 27] = [
    "true",
    "id = 3",
    "id IN (1, 2, 9)",
    "id BETWEEN 2 AND 400000000000000000",
    "n > 5",
    "n >= 0 OR id < 0",
    "body LIKE 'tag%'",
    "body > 'a'",
    "body <> ''",
    "body IS NOT NULL",
    "NOT (id = 1)",
    "_deleted OR NOT _deleted",
    "_seq > 0",
    "current_user() = 'alice'",
    "current_user() = 'mallory'",
    "id % 2 = 0",
    "n = id",
    "body ~ '[0-9a-f]{8}'",
    "extra IS NOT NULL",
    "id > 1000",
    "length(body) > 3",
    "id = 3 OR id = 4 OR 1 = 1",
    "n < 9000000000000000000",
    "extra ->> 'of' <> 'mallory'",
    "id >= 1 AND id <= 30",
    "id < 10 OR body LIKE '%e%'",
    "n IS NULL OR n > -1",
];
const SOURCES: [&str; 14] = [
    "app.notes",
    "app.notes",
    "\"app\".\"notes\"",
    "(SELECT * FROM app.notes) AS s",
    "(SELECT * FROM app.notes UNION ALL SELECT * FROM app.notes) AS s",
    "(SELECT a.* FROM app.notes a JOIN app.notes b ON a.id = b.id) AS s",
    "(SELECT a.* FROM app.notes a LEFT JOIN app.keys k ON k.at = a.id) AS s",
    "(SELECT a.* FROM app.notes a CROSS JOIN app.board b) AS s",
    "(SELECT * FROM app.notes WHERE id IN (SELECT at FROM app.keys)) AS s",
    "(SELECT * FROM app.notes a WHERE EXISTS (SELECT 1 FROM app.notes b WHERE b.n = a.n)) AS s",
    "(SELECT * FROM app.notes EXCEPT SELECT * FROM app.notes WHERE id < 3) AS s",
    "(SELECT at AS id, at AS n, name AS body, CAST(NULL AS TEXT) AS extra FROM app.keys) AS s",
    "(SELECT * FROM app.notes ORDER BY id LIMIT 9) AS s",
    "(WITH RECURSIVE w(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM w WHERE id < 30) \
     SELECT a.* FROM w JOIN app.notes a ON a.id = w.id) AS s",
];
/// About the system: what differs from world to world by its nature is compared by number.
const SYSTEM: [(&str, Compared); 30] = [
    (
        "SELECT op, key, before, after, user_id FROM system.changes WHERE op IN ('insert', 'update', 'delete')",
        Compared::Rows,
    ),
    ("SELECT count(*) FROM system.changes WHERE user_id <> 'mallory'", Compared::Rows),
    ("SELECT count(*), max(length(after)) FROM system.changes", Compared::Nothing),
    ("SELECT * FROM system.changes", Compared::Nothing),
    (
        "SELECT op, key, after FROM changes('app.notes', 0) WHERE op <> 'flush' AND op <> 'compact'",
        Compared::Rows,
    ),
    ("SELECT op, key, before FROM changes('app.keys', 0) WHERE key IS NOT NULL", Compared::Rows),
    ("SELECT * FROM changes('app.events', 0)", Compared::Nothing),
    ("SELECT count(*) FROM system.live_queries", Compared::Rows),
    ("SELECT query, user_id FROM system.live", Compared::Rows),
    ("SELECT * FROM system.live_queries WHERE user_id = 'alice'", Compared::Rows),
    ("SELECT * FROM system.jobs", Compared::Rows),
    ("SELECT count(*) FROM system.jobs", Compared::Rows),
    ("SELECT username, role FROM system.users", Compared::Rows),
    ("SELECT * FROM system.users WHERE username IN ('alice', 'bob', 'root')", Compared::Rows),
    ("SELECT * FROM system.tables", Compared::Counts),
    ("SELECT * FROM system.table_schemas", Compared::Counts),
    ("SELECT * FROM system.namespaces", Compared::Counts),
    ("SELECT * FROM system.settings", Compared::Rows),
    ("SELECT * FROM system.storage_locations", Compared::Rows),
    ("SELECT * FROM system.log_segments", Compared::Rows),
    (
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'app'",
        Compared::Rows,
    ),
    ("SELECT * FROM information_schema.tables", Compared::Rows),
    ("SELECT * FROM information_schema.schemata", Compared::Rows),
    ("SELECT count(*) FROM app.notes n JOIN system.users u ON u.username <> n.body", Compared::Rows),
    ("SHOW STATS FOR TABLE app.notes", Compared::Rows),
    ("SHOW STATS FOR TABLE app.keys", Compared::Rows),
    ("SHOW TABLES", Compared::Counts),
    ("SHOW CREATE TABLE app.notes", Compared::Rows),
    ("DESCRIBE TABLE app.keys", Compared::Counts),
    ("DESCRIBE TABLE app.notes HISTORY", Compared::Counts),
];
/// What a user may not do, each with a code that says no more than that.
const FORBIDDEN: [&str; 18] = [
    "EXECUTE AS USER 'alice' (SELECT * FROM app.notes)",
    "EXECUTE AS USER 'bob' (DELETE FROM app.notes)",
    "EXECUTE AS USER 'nobody' (SELECT 1)",
    "STORAGE FLUSH TABLE app.notes",
    "STORAGE COMPACT TABLE app.notes",
    "TRUNCATE TABLE app.notes",
    "DROP TABLE app.notes",
    "BACKUP DATABASE app TO '/tmp/kalamdb-attack'",
    "RESTORE DATABASE app FROM '/tmp/kalamdb-attack' AS mine",
    "SHOW BACKUP FROM '/tmp/kalamdb-attack'",
    "SHOW BACKUPS",
    "ALTER TABLE app.notes ADD COLUMN x INT",
    "ALTER USER alice SET PASSWORD 'mine'",
    "CREATE USER eve WITH PASSWORD 'x' ROLE dba",
    "UPDATE system.users SET role = 'dba' WHERE username = 'mallory'",
    "INSERT INTO system.live_queries VALUES (1)",
    "COPY app.notes TO '/tmp/kalamdb-attack.csv'",
    "SELECT * FROM alice.app.notes",
];

fn condition(random: &mut Random) -> String {
    let mut condition = random.pick(&CONDITIONS).to_owned();
    for _ in 0..random.below(3) {
        let other = random.pick(&CONDITIONS);
        condition = format!("({condition}) {} ({other})", random.pick(&["AND", "OR", "AND NOT"]));
    }
    condition
}

fn select(random: &mut Random) -> Attack {
    let (source, condition) = (random.pick(&SOURCES), condition(random));
    // System columns are those of a table, not of a subquery.
    let bare = !source.contains("SELECT");
    let filter = if bare || !condition.contains('_') { condition } else { "n > 0".to_owned() };
    let value = random.pick(&VALUES);
    let sql = match random.below(8) {
        0..=2 => format!("SELECT id, {value} FROM {source} WHERE {filter}"),
        3 => format!(
            "SELECT {}, {} FROM {source} WHERE {filter}",
            random.pick(&AGGREGATES),
            random.pick(&AGGREGATES)
        ),
        4 => format!(
            "SELECT n % 5 AS g, {} FROM {source} WHERE {filter} GROUP BY n % 5",
            random.pick(&AGGREGATES)
        ),
        5 => format!(
            "SELECT id, row_number() OVER (ORDER BY id, n), lag(n) OVER (ORDER BY id, n) FROM {source} WHERE {filter}"
        ),
        6 => format!(
            "SELECT * FROM {source} WHERE {filter} ORDER BY id DESC, n, body LIMIT {}",
            1 + random.below(9)
        ),
        _ => format!(
            "SELECT (SELECT {} FROM app.notes), {value} FROM {source} WHERE {filter}",
            random.pick(&AGGREGATES)
        ),
    };
    match random.below(12) {
        0 => (format!("EXPLAIN {sql}"), Compared::Counts),
        1 => (format!("EXPLAIN ANALYZE {sql}"), Compared::Nothing),
        2 if bare => {
            (format!("SELECT *, _seq, _updated, _deleted FROM {source} WHERE {filter}"), Compared::Counts)
        }
        _ => (sql, Compared::Rows),
    }
}

/// Changes rows whose keys others have, too.
fn change(random: &mut Random) -> Attack {
    let (id, n, condition) = (random.below(30), random.below(20), condition(random));
    let body = format!("of mallory {n}");
    let returning = random.pick(&["", " RETURNING *", " RETURNING id, body, n"]);
    let sql = match random.below(9) {
        0 => format!("INSERT INTO app.notes (id, n, body) VALUES ({id}, {n}, '{body}'){returning}"),
        1 => format!(
            "INSERT INTO app.notes (id, n, body) VALUES ({id}, {n}, '{body}'), ({}, 1, 'x') ON CONFLICT DO NOTHING{returning}",
            id + 1
        ),
        2 => format!(
            "INSERT INTO app.notes (id, n, body) VALUES ({id}, {n}, '{body}') ON CONFLICT (id) \
             DO UPDATE SET body = left(notes.body || excluded.body, 60), n = notes.n + 1{returning}"
        ),
        3 => format!("UPDATE app.notes SET body = '{body}' WHERE id = {id}{returning}"),
        4 => format!("UPDATE app.notes SET n = {n} WHERE {condition}{returning}"),
        5 => format!("DELETE FROM app.notes WHERE id = {id}{returning}"),
        6 => format!("DELETE FROM app.notes WHERE ({condition}) AND id % 3 = {}{returning}", random.below(3)),
        7 => format!(
            "BEGIN; UPDATE app.notes SET n = n + 1; DELETE FROM app.notes WHERE id = {id}; SELECT count(*) FROM app.notes; COMMIT"
        ),
        _ => format!(
            "INSERT INTO app.keys (name, at) SELECT CAST(n AS TEXT), id FROM app.notes WHERE {condition} \
             ON CONFLICT (name, at) DO NOTHING"
        ),
    };
    (sql, Compared::Rows)
}

/// The next statement.
pub(super) fn next(random: &mut Random) -> Attack {
    match random.below(20) {
        0..=9 => select(random),
        10..=13 => change(random),
        14..=17 => {
            let (sql, compared) = SYSTEM[random.at(SYSTEM.len())];
            (sql.to_owned(), compared)
        }
        18 => (random.pick(&FORBIDDEN).to_owned(), Compared::Rows),
        _ => {
            let inner =
                random.pick(&["SELECT * FROM app.notes", "DELETE FROM app.notes", "SELECT * FROM app.keys"]);
            (
                format!("EXECUTE AS USER '{}' ({inner})", random.pick(&["alice", "bob", "root"])),
                Compared::Rows,
            )
        }
    }
}

/// A live query: with a condition that lets the row of this id through.
pub(super) fn live(random: &mut Random, barrier: u64) -> String {
    let value = random.pick(&[
        "id",
        "n",
        "body",
        "upper(body)",
        "n % 7",
        "length(body)",
        "extra ->> 'of'",
        "md5(body)",
        "current_user()",
        "current_role()",
    ]);
    format!("SELECT id, {value} AS v FROM app.notes WHERE ({}) OR id = {barrier}", condition(random))
}
