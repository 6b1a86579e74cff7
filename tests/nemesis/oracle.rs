//! What the queries mean, said once more, over rows that the log says were there.

use std::collections::BTreeMap;

use serde_json::Value as Json;

pub(super) const TABLES: [&str; 3] = ["a", "b", "s"];
pub(super) const TAGS: [&str; 4] = ["red", "green", "blue", "grey"];

/// A row of any of the tables.
#[derive(Clone, Debug)]
pub(super) struct Row {
    seq: u64,
    id: i64,
    n: Option<i64>,
    tag: String,
    owner: String,
}

/// A live query, and what it means.
pub(super) struct Query {
    /// `{t}` stands for the table.
    pub(super) sql: &'static str,
    /// What is looked at of the rows that come.
    pub(super) columns: &'static [&'static str],
    /// Whether one who resumes may be told to begin anew.
    pub(super) may_resync: bool,
    means: fn(&[Row]) -> Vec<Vec<String>>,
}

const ALL: &[&str] = &["id", "n", "tag", "owner"];

/// Each by the same numbers as the subscribers that ask them.
pub(super) const QUERIES: [Query; 8] = [
    Query {
        sql: "SELECT * FROM nem.{t}",
        columns: ALL,
        may_resync: false,
        means: |rows| all(rows, |_| true),
    },
    Query {
        sql: "SELECT id, n, tag, owner FROM nem.{t} WHERE n > 25",
        columns: ALL,
        may_resync: false,
        means: |rows| all(rows, |row| row.n > Some(25)),
    },
    Query {
        sql: "SELECT * FROM nem.{t} WHERE tag = 'green'",
        columns: ALL,
        may_resync: false,
        means: |rows| all(rows, |row| row.tag == "green"),
    },
    Query {
        sql: "SELECT id, n, tag, owner FROM nem.{t} WHERE n % 2 = 0 AND tag LIKE 'gr%'",
        columns: ALL,
        may_resync: false,
        means: |rows| all(rows, |row| row.n.is_some_and(|n| n % 2 == 0) && row.tag.starts_with("gr")),
    },
    Query {
        sql: "SELECT id, n, tag, owner FROM nem.{t} ORDER BY n DESC NULLS LAST LIMIT 5",
        columns: ALL,
        may_resync: false,
        means: |rows| {
            let mut rows = rows.to_vec();
            rows.sort_by_key(|row| (std::cmp::Reverse(row.n), row.id));
            rows.truncate(5);
            all(&rows, |_| true)
        },
    },
    Query {
        sql: "SELECT count(*) AS c, sum(n) AS s, max(n) AS m FROM nem.{t} WHERE tag <> 'blue'",
        columns: &["c", "s", "m"],
        may_resync: false,
        means: |rows| {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.tag != "blue").collect();
            let numbers = || rows.iter().filter_map(|row| row.n);
            let sum = numbers().next().map(|_| numbers().sum::<i64>());
            vec![vec![rows.len().to_string(), text(sum), text(numbers().max())]]
        },
    },
    Query {
        sql: "SELECT tag, count(*) AS c, min(n) AS m FROM nem.{t} GROUP BY tag",
        columns: &["tag", "c", "m"],
        may_resync: false,
        means: |rows| {
            let mut groups: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
            for row in rows {
                groups.entry(&row.tag).or_default().push(row);
            }
            let group = |(tag, rows): (&str, Vec<&Row>)| {
                let least = rows.iter().filter_map(|row| row.n).min();
                vec![tag.to_owned(), rows.len().to_string(), text(least)]
            };
            groups.into_iter().map(group).collect()
        },
    },
    Query {
        sql: "SELECT id, owner FROM nem.{t} WHERE n < 40 ORDER BY _seq DESC LIMIT 3",
        columns: &["id", "owner"],
        may_resync: true,
        means: |rows| {
            let mut rows: Vec<&Row> = rows.iter().filter(|row| row.n.is_some_and(|n| n < 40)).collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row.seq));
            rows.iter().take(3).map(|row| vec![row.id.to_string(), row.owner.clone()]).collect()
        },
    },
];

fn text(number: Option<i64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn all(rows: &[Row], matches: fn(&Row) -> bool) -> Vec<Vec<String>> {
    let row = |row: &Row| vec![row.id.to_string(), text(row.n), row.tag.clone(), row.owner.clone()];
    rows.iter().filter(|row| matches(row)).map(row).collect()
}

/// A result, in no order: rows as text, and how often each is there.
pub(super) type Rows = BTreeMap<String, u64>;

/// Adds a row to a result.
pub(super) fn add(rows: &mut Rows, row: &[String]) {
    *rows.entry(row.join("|")).or_default() += 1;
}

impl Query {
    fn result(&self, rows: &BTreeMap<i64, Row>) -> Rows {
        let rows: Vec<Row> = rows.values().cloned().collect();
        let mut result = Rows::new();
        for row in (self.means)(&rows) {
            add(&mut result, &row);
        }
        result
    }
}

/// What became of some rows.
enum Change {
    /// A row after it, by id; none where it went.
    Row(i64, Option<Row>),
    /// All went: the table was dropped, or truncated.
    Emptied,
}

/// The changes of each table's rows and their seqs, by owner; those of a shared table have none.
#[derive(Default)]
pub(super) struct Events(BTreeMap<(String, String), Vec<(u64, Change)>>);

impl Events {
    /// Takes a line of `kalamdb tail --format json`.
    pub(super) fn take(&mut self, event: &Json) {
        let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        if word("namespace") != "nem" {
            return;
        }
        let (seq, table) = (event["seq"].as_u64().unwrap(), word("table"));
        if ["TableDropped", "TableTruncated"].contains(&word("event").as_str()) {
            for (_, changes) in self.0.iter_mut().filter(|((of, _), _)| *of == table) {
                changes.push((seq, Change::Emptied));
            }
        }
        if !["insert", "update", "delete"].contains(&word("op").as_str()) {
            return;
        }
        let number = |value: &Json| value.as_i64().or_else(|| value.as_str().and_then(|it| it.parse().ok()));
        let row = |row: &Json| Row {
            seq,
            id: number(&row["id"]).unwrap(),
            n: number(&row["n"]),
            tag: row["tag"].as_str().unwrap().to_owned(),
            owner: row["owner"].as_str().unwrap().to_owned(),
        };
        let after = event["after"].is_object().then(|| row(&event["after"]));
        let id = after.as_ref().map_or_else(|| row(&event["before"]).id, |row| row.id);
        self.0.entry((table, word("user"))).or_default().push((seq, Change::Row(id, after)));
    }

    /// What a query's result was at each of some rising seqs.
    pub(super) fn results(&self, table: &str, owner: &str, query: &Query, seqs: &[u64]) -> Vec<Rows> {
        let owner = if table == "s" { "" } else { owner };
        let changes = self.0.get(&(table.to_owned(), owner.to_owned())).map_or(&[][..], Vec::as_slice);
        let (mut rows, mut next) = (BTreeMap::new(), 0);
        let result_at = |seq: &u64| {
            while let Some((_, change)) = changes.get(next).filter(|(changed, _)| changed <= seq) {
                match change {
                    Change::Row(id, Some(row)) => drop(rows.insert(*id, row.clone())),
                    Change::Row(id, None) => drop(rows.remove(id)),
                    Change::Emptied => rows.clear(),
                }
                next += 1;
            }
            query.result(&rows)
        };
        seqs.iter().map(result_at).collect()
    }

    /// What it is in the end.
    pub(super) fn last_result(&self, table: &str, owner: &str, query: &Query) -> Rows {
        self.results(table, owner, query, &[u64::MAX]).remove(0)
    }
}
