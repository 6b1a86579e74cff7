//! Statements for subscriptions, and what becomes of them.

use crate::support::Random;

/// Subscriptions that are right, or wrong in a way of their own.
const CORPUS: [&str; 30] = [
    "SELECT * FROM fuzz.notes",
    "SELECT id, body FROM fuzz.notes WHERE id = 7",
    "SELECT id, n * 2 AS twice FROM fuzz.notes WHERE n > 10 AND body LIKE 'm%'",
    "SELECT *, _seq, _updated, _deleted FROM fuzz.notes WHERE _deleted OR id < 50",
    "SELECT upper(body), length(body) FROM fuzz.notes WHERE id IN (1, 2, 3, 4, 5)",
    "SELECT id, 100 / (n - 5) FROM fuzz.notes",
    "SELECT CAST(body AS BIGINT) FROM fuzz.notes",
    "SELECT id FROM fuzz.notes WHERE body ~ '^(a+)+$'",
    "SELECT id FROM fuzz.notes WHERE regexp_like(body, '(x|xx)*y{2,200}')",
    "SELECT repeat(body, 1000) FROM fuzz.notes WHERE id < 3",
    "SELECT CASE WHEN n % 2 = 0 THEN 'even' ELSE NULL END, id FROM fuzz.notes",
    "SELECT id, body -> 'a' FROM fuzz.notes",
    "SELECT * FROM fuzz.rooms WHERE open",
    "SELECT name || '!' FROM fuzz.rooms",
    "SELECT * FROM fuzz.typing",
    "SELECT who FROM fuzz.typing WHERE who <> 'nobody'",
    "SELECT * FROM system.changes",
    "SELECT seq, op FROM system.changes WHERE table_name = 'notes'",
    "SELECT * FROM changes('fuzz.notes', 0)",
    "SUBSCRIBE TO SELECT id FROM fuzz.notes WHERE n BETWEEN 1 AND 9",
    "SELECT * FROM fuzz.notes ORDER BY id LIMIT 3",
    "SELECT count(*) FROM fuzz.notes GROUP BY n",
    "SELECT a.id FROM fuzz.notes a JOIN fuzz.notes b ON a.id = b.id",
    "SELECT * FROM fuzz.notes WHERE id IN (SELECT id FROM fuzz.notes)",
    "WITH w AS (SELECT * FROM fuzz.notes) SELECT * FROM w",
    "SELECT * FROM system.live_queries",
    "SELECT now(), random(), id FROM fuzz.notes",
    "SELECT * FROM fuzz.nothing",
    "DELETE FROM fuzz.notes",
    "SELECT $1 FROM fuzz.notes WHERE id = $2",
];

/// What stands in the place of other words.
const WORDS: [&str; 22] = [
    "NULL",
    "id",
    "body",
    "n",
    "*",
    "_seq",
    "(",
    ")",
    "''",
    "NOT",
    "OR",
    "AND",
    "99999999999999999999",
    "-1",
    "1e308",
    "DISTINCT",
    "::JSON",
    "[1]",
    "\u{0}",
    "--",
    "/*",
    "\u{fffd}",
];

/// A statement: from the corpus as it is, or changed.
pub(super) fn statement(random: &mut Random) -> String {
    let sql = random.pick(&CORPUS);
    if random.one_in(2) {
        return sql.to_owned();
    }
    let mut words: Vec<String> = sql.split(' ').map(str::to_owned).collect();
    for _ in 0..=random.below(3) {
        let at = random.at(words.len());
        match random.below(7) {
            0 => random.pick(&WORDS).clone_into(&mut words[at]),
            1 => words.insert(at, random.pick(&WORDS).to_owned()),
            2 if words.len() > 1 => drop(words.remove(at)),
            3 => {
                let other = random.at(words.len());
                words.swap(at, other);
            }
            4 => {
                let times = random.at(300);
                words[at] = format!("{}{}{}", "(".repeat(times), words[at], ")".repeat(times));
            }
            5 => {
                let again = vec![words[at..].join(" "); random.at(40)];
                words.extend(again);
            }
            _ => {
                let from = words[at].char_indices().nth(random.at(3)).map_or(0, |(from, _)| from);
                words[at].truncate(from);
            }
        }
    }
    words.join(" ")
}

/// One of those that begin.
pub(super) fn good(random: &mut Random) -> &'static str {
    CORPUS[random.at(5)]
}
