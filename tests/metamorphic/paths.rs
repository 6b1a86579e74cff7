//! One expression over one row, computed in every way there is: the values, or the errors, must be the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::own::{self, COLUMNS, OWN_EXPRESSIONS, ROWS, TABLES};
use super::{Disagreement, Outcome};
use crate::differential::ask;
use crate::differential::expressions::Generator;
use crate::support::{Api, Socket};

/// A value with its type, or the fact that there is none.
#[derive(Clone, Debug, PartialEq)]
enum Computed {
    Value(Value, Value),
    Failed(String),
}

impl Computed {
    /// Compares two outcomes; errors are alike in that they are errors, but for a panic.
    fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(one), Self::Failed(other)) => {
                one.contains("PANICKED") == other.contains("PANICKED")
            }
            _ => self == other,
        }
    }
}

/// A statement that computes an expression of a row, with its parameters.
struct Path {
    name: &'static str,
    sql: String,
    params: Vec<Value>,
}

impl Path {
    /// A path without parameters.
    fn new(name: &'static str, sql: String) -> Self {
        Self { name, sql, params: Vec::new() }
    }
}

/// The expression with this in the place of each of the table's columns.
fn with_columns(expression: &str, mut put_in: impl FnMut(usize) -> String) -> String {
    let (mut done, mut rest) = (String::new(), expression);
    while let Some(at) = rest.find("t.") {
        let is_inside = rest[..at].ends_with(|it: char| it.is_alphanumeric() || "_.'".contains(it));
        let name: String = rest[at + 2..].chars().take_while(char::is_ascii_lowercase).collect();
        let column = COLUMNS.iter().position(|(column, ..)| *column == name);
        match column {
            Some(column) if !is_inside => {
                done.push_str(&rest[..at]);
                done.push_str(&put_in(column));
            }
            _ => done.push_str(&rest[..at + 2 + name.len()]),
        }
        rest = &rest[at + 2 + name.len()..];
    }
    done + rest
}

/// Paths that read a row of a table.
fn of_table(expression: &str, table: &str, id: usize) -> Vec<Path> {
    let row = format!("FROM {table} AS t WHERE t.id = {id}");
    vec![
        Path::new("read by key", format!("SELECT {expression} {row}")),
        Path::new("scan", format!("SELECT {expression} FROM {table} AS t WHERE t.id + 0 = {id}")),
    ]
}

/// Further paths that read a row of a table, by the query engine.
fn of_query(expression: &str, table: &str, id: usize) -> Vec<Path> {
    let row = format!("FROM {table} AS t WHERE t.id = {id}");
    let both = format!("FROM {table} AS t JOIN {table} AS o ON o.id = t.id WHERE o.id = {id}");
    vec![
        Path::new("CASE", format!("SELECT CASE WHEN t.id = {id} THEN {expression} END {row}")),
        Path::new("ORDER BY", format!("SELECT {expression} AS v {row} ORDER BY v")),
        Path::new(
            "ORDER BY of the table",
            format!(
                "SELECT v FROM (SELECT t.id, {expression} AS v FROM {table} AS t ORDER BY {expression}, t.id) AS q WHERE q.id = {id}"
            ),
        ),
        Path::new("DISTINCT", format!("SELECT DISTINCT {expression} {row}")),
        Path::new("GROUP BY", format!("SELECT {expression} AS v {row} GROUP BY v")),
        Path::new("subquery", format!("SELECT (SELECT {expression} {row})")),
        Path::new(
            "WITH",
            format!(
                "WITH c AS (SELECT t.id, {expression} AS v FROM {table} AS t) SELECT v FROM c WHERE id = {id}"
            ),
        ),
        Path::new("UNION", format!("SELECT {expression} {row} UNION ALL SELECT {expression} {row} LIMIT 1")),
        Path::new("join", format!("SELECT {expression} {both}")),
        Path::new(
            "WHERE",
            format!(
                "SELECT {expression} {row} AND ({expression}) IS NOT DISTINCT FROM (SELECT {expression} {row})"
            ),
        ),
        Path {
            name: "key as a parameter",
            sql: format!("SELECT {expression} FROM {table} AS t WHERE t.id = $1"),
            params: vec![json!(id)],
        },
    ]
}

/// Paths that write a row, which must not be in the table before the first.
fn of_write(expression: &str, table: &str, row: usize, values: &[Value]) -> Vec<Path> {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let params: Vec<String> = (1..=COLUMNS.len()).map(|number| format!("${number}")).collect();
    let (names, places) = (names.join(", "), params.join(", "));
    let insert = own::insert(&format!("{table} AS t"), row);
    let id = row + 1;
    vec![
        Path::new("INSERT RETURNING", format!("{insert} RETURNING {expression}")),
        Path::new(
            "UPDATE RETURNING",
            format!("UPDATE {table} AS t SET i = t.i WHERE t.id = {id} RETURNING {expression}"),
        ),
        Path::new(
            "DELETE RETURNING",
            format!("DELETE FROM {table} AS t WHERE t.id = {id} RETURNING {expression}"),
        ),
        Path {
            name: "INSERT of parameters RETURNING",
            sql: format!("INSERT INTO {table} AS t ({names}) VALUES ({places}) RETURNING {expression}"),
            params: values.to_vec(),
        },
    ]
}

/// Paths that read no table: constants, and parameters with what a result has for the row's values.
fn of_constants(expression: &str, row: usize, values: &[Value]) -> Vec<Path> {
    let constant = with_columns(expression, |column| own::constant(column, row));
    let (mut params, mut constants) = (Vec::new(), BTreeMap::from([("id", own::constant(0, row))]));
    let with_params = with_columns(expression, |column| {
        let (name, of, _) = COLUMNS[column];
        constants.insert(name, own::constant(column, row));
        params.push(values[column].clone());
        format!("CAST(${} AS {of})", params.len())
    });
    let names: Vec<&str> = constants.keys().copied().collect();
    let row_of_values: Vec<&str> = constants.values().map(String::as_str).collect();
    let (row_of_values, names) = (row_of_values.join(", "), names.join(", "));
    vec![
        Path::new("constants", format!("SELECT {constant}")),
        Path::new("VALUES", format!("SELECT {expression} FROM (VALUES ({row_of_values})) AS t ({names})")),
        Path { name: "parameters", sql: format!("SELECT {with_params}"), params },
    ]
}

/// A server's two interfaces.
pub(crate) struct Connection {
    pub(crate) root: Api,
    pub(crate) socket: Socket,
    /// Live queries so far, which their names are made of.
    pub(crate) live_queries: u64,
}

impl Connection {
    /// The next message about a live query.
    async fn next(&mut self, id: &str) -> Value {
        loop {
            let message = self.socket.next().await;
            if message["subscription_id"] == json!(id) {
                return message;
            }
        }
    }

    /// Computes an expression of a row by the snapshot of a live query.
    async fn compute_live(&mut self, sql: &str) -> Computed {
        self.live_queries += 1;
        let id = format!("q{}", self.live_queries);
        self.socket.subscribe(&id, sql, json!({})).await;
        let ack = self.next(&id).await;
        if ack["type"] != "subscription_ack" {
            return Computed::Failed(ack.to_string());
        }
        let data_type = ack["schema"][0]["data_type"].clone();
        let batch = self.next(&id).await;
        self.socket.send(json!({ "type": "unsubscribe", "subscription_id": id })).await;
        match batch["rows"].as_array().map(Vec::as_slice) {
            Some([row]) => Computed::Value(data_type, row["v"].clone()),
            _ => Computed::Failed(batch.to_string()),
        }
    }
}

/// Computes an expression of a row by a statement.
async fn compute(root: &Api, path: &Path) -> Computed {
    match ask(root, &path.sql, &path.params).await {
        Err(error) => Computed::Failed(error),
        Ok(answer) => {
            let rows = answer["rows"].as_array().map_or(&[][..], Vec::as_slice);
            match rows {
                [row] => Computed::Value(answer["schema"][0]["data_type"].clone(), row[0].clone()),
                rows => Computed::Failed(format!("{} rows", rows.len())),
            }
        }
    }
}

/// An expression over a row, with its value on the first path.
struct Compared<'a> {
    root: &'a Api,
    expression: &'a str,
    first: Option<(Path, Computed)>,
    outcome: Outcome,
}

impl Compared<'_> {
    /// Compares a value with the first.
    fn add(&mut self, path: Path, computed: Computed) {
        let Some((first_path, first)) = &self.first else {
            self.first = Some((path, computed));
            return;
        };
        self.outcome.compared += 1;
        if !first.agrees(&computed) {
            let class = format!("{}: {} and {}", self.expression, first_path.name, path.name);
            let text =
                format!("{}\n  {first:?}\n{} {:?}\n  {computed:?}", first_path.sql, path.sql, path.params);
            self.outcome.disagreements.push(Disagreement { class, text });
        }
    }

    /// Computes the expression in these ways, and compares each value with the first.
    async fn all(&mut self, paths: Vec<Path>) {
        for path in paths {
            let computed = compute(self.root, &path).await;
            self.add(path, computed);
        }
    }
}

/// Values that results have for the rows, which parameters take back.
async fn values(root: &Api) -> Vec<Vec<Value>> {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let rows = root.rows(&format!("SELECT {} FROM {} ORDER BY id", names.join(", "), TABLES[0])).await;
    rows.iter().map(|row| row.as_array().unwrap().clone()).collect()
}

/// Generated expressions of a run for each row over which it computes KalamDB's own.
const EXPRESSIONS_OF_ROW: usize = 40;

/// Computes KalamDB's own expressions over some rows, then so many generated ones over one row each.
pub(crate) async fn run(connection: &mut Connection, generator: &mut Generator, expressions: u64) -> Outcome {
    let expressions = usize::try_from(expressions).unwrap();
    if expressions == 0 {
        return Outcome::default();
    }
    let root = connection.root.clone();
    own::create_tables(&root).await;
    root.sql("CREATE NAMESPACE writing").await;
    root.sql(&own::create("SHARED", "writing.t")).await;
    let values = values(&root).await;
    let mut outcome = Outcome::default();
    for (number, expression) in OWN_EXPRESSIONS.iter().enumerate() {
        for pass in 0..ROWS.min(expressions.div_ceil(EXPRESSIONS_OF_ROW)) {
            let row = (number + pass) % ROWS;
            outcome.add(compare(connection, expression, row, &values[row], number / ROWS + pass).await);
        }
    }
    let scope = own::scope();
    generator.is_flat = true;
    for number in 0..expressions {
        let of = generator.type_of_value();
        let expression = generator.value(&scope, of, 3).sql();
        outcome.add(compare(connection, &expression, number % ROWS, &values[number % ROWS], number).await);
    }
    generator.is_flat = false;
    outcome
}

/// Computes an expression over a row on every path; the query engine's own paths on one table, by `turn`.
async fn compare(
    connection: &mut Connection,
    expression: &str,
    row: usize,
    values: &[Value],
    turn: usize,
) -> Outcome {
    let root = connection.root.clone();
    let mut compared = Compared { root: &root, expression, first: None, outcome: Outcome::default() };
    for table in TABLES {
        compared.all(of_table(expression, table, row + 1)).await;
    }
    let table = TABLES[turn % TABLES.len()];
    compared.all(of_query(expression, table, row + 1)).await;
    let sql = format!("SELECT {expression} AS v FROM {table} AS t WHERE t.id = {}", row + 1);
    let live = connection.compute_live(&sql).await;
    compared.add(Path::new("live query", sql), live);
    compared.all(of_constants(expression, row, values)).await;
    compared.all(of_write(expression, "writing.t", row, values)).await;
    root.sql("DELETE FROM writing.t").await;
    compared.outcome
}

#[test]
fn columns_are_put_in_where_they_stand_alone() {
    let named = |column: usize| format!("<{column}>");
    assert_eq!(with_columns("t.i + t.id || 't.i' || at.i", named), "<1> + <0> || 't.i' || at.i");
}
