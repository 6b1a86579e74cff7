//! Live queries by seed, kept by a client as it is told of changes, beside what their SELECT says.

use std::time::Duration;

use serde_json::{Value, json};

use super::expressions::{Column, Generator, Scope};
use super::node::{Kind, Node, Type};
use super::queries::{Relation, TABLES};
use super::values::{Cells, of_objects, our_cells, same};
use super::{Found, ask};

use crate::support::{Api, Server, Socket};

/// The table whose changes tell that all changes before were told.
const MARKS: &str = "marks.marks";
/// Time in which a result that is not right may become so: its query may have been demoted to catch-up.
const CATCH_UP: Duration = Duration::from_secs(5);

impl Generator {
    /// A query that may be live: of one table, without subqueries.
    pub(crate) fn live(&mut self) -> Node {
        self.is_flat = true;
        let table = &TABLES[self.random.at(TABLES.len())];
        let relation = self.base_of(table);
        let node = match self.random.below(4) {
            0 => self.live_groups(relation),
            1 if !relation.keys.iter().any(String::is_empty) => self.live_order(relation),
            _ => self.live_rows(relation).0,
        };
        self.is_flat = false;
        node
    }

    /// Values with names, which a client tells columns apart by.
    fn named(&mut self, scope: &Scope) -> Node {
        let mut items = Vec::new();
        for number in 0..=self.random.below(3) {
            let of = self.type_of_value();
            items.push(Node::of(Kind::Fixed, &format!("{{}} AS c{number}"), [self.value(scope, of, 2)]));
        }
        Node::list(items, ", ")
    }

    /// Rows of a table, and the table.
    fn live_rows(&mut self, relation: Relation) -> (Node, Relation) {
        let scope = Scope { columns: relation.columns.clone(), ..Scope::default() };
        let nodes = [self.named(&scope), relation.node.clone(), self.filter(&scope, 2)];
        (Node::of(Kind::Query, "SELECT {} FROM {}{}", nodes), relation)
    }

    /// The first rows by an order that leaves no choice.
    fn live_order(&mut self, relation: Relation) -> Node {
        let (rows, relation) = self.live_rows(relation);
        let scope = Scope { columns: relation.columns, ..Scope::default() };
        let of = self.type_of_value();
        let direction = self.random.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        // A constant alone would be the number of a column, or refused.
        let values = [self.value(&scope, of, 1), self.value(&scope, of, 0)];
        let first = Node::of(Kind::Optional, &format!("COALESCE({{}}, {{}}){direction}, "), values);
        let limit = self.random.pick(&["LIMIT 5", "LIMIT 3 OFFSET 2", "LIMIT 1"]);
        let pattern = format!(" ORDER BY {{}}{} {limit}", relation.keys.join(", "));
        Node::of(Kind::Fixed, "{}{}", [rows, Node::of(Kind::Fixed, &pattern, [first])])
    }

    /// Aggregates, of all rows or by a column.
    fn live_groups(&mut self, relation: Relation) -> Node {
        let rows = Scope { columns: relation.columns.clone(), ..Scope::default() };
        let filter = self.filter(&rows, 2);
        let mut items = Vec::new();
        for number in 0..=self.random.below(2) {
            items.push(Node::of(Kind::Fixed, &format!("{{}} AS c{number}"), [self.live_aggregate(&rows)]));
        }
        let list = Node::list(items, ", ");
        if self.random.one_in(3) {
            return Node::of(Kind::Query, "SELECT {} FROM {}{}", [list, relation.node, filter]);
        }
        let Column { name, .. } = relation.columns[self.random.at(relation.columns.len())].clone();
        let having = Node::of(Kind::Optional, " HAVING {} > 1", [Node::text(Kind::Fixed, "count(*)")]);
        let having = if self.random.one_in(3) { having } else { Node::nothing() };
        let pattern = format!("SELECT {name} AS g, {{}} FROM {{}}{{}} GROUP BY {name}{{}}");
        Node::of(Kind::Query, &pattern, [list, relation.node, filter, having])
    }

    /// An aggregate that live queries have, of values without subqueries.
    fn live_aggregate(&mut self, rows: &Scope) -> Node {
        let of = self.random.pick(&[&Type::Int, &Type::Decimal, &Type::Double]).to_owned();
        let any = self.type_of_value();
        let ordered = if any == Type::Bool { Type::Text } else { any };
        let (pattern, of) = match self.random.below(6) {
            0 => return Node::text(Kind::Fixed, "count(*)"),
            1 => ("count({}){}", any),
            2 => ("min({}){}", ordered),
            3 => ("max({}){}", ordered),
            4 => ("avg({}){}", of),
            _ => ("sum({}){}", of),
        };
        let filter = if self.random.one_in(4) {
            Node::of(Kind::Optional, " FILTER (WHERE {})", [self.value(rows, Type::Bool, 1)])
        } else {
            Node::nothing()
        };
        Node::of(Kind::Fixed, pattern, [self.value(rows, of, 1), filter])
    }
}

/// A live query and its result as a client keeps it.
#[derive(Clone, Debug)]
struct Watched {
    id: String,
    node: Node,
    sql: String,
    schema: Value,
    rows: Vec<Value>,
    /// The seq of its last frame.
    last: u64,
}

impl Watched {
    /// The result as cells.
    fn cells(&self) -> Cells {
        of_objects(&self.rows, &self.schema)
    }

    /// Applies a frame of changes; an error says why that cannot be.
    fn apply(&mut self, change: &Value) -> Result<(), String> {
        if change["prev_seq"] != json!(self.last) {
            return Err(format!("it was at seq {}, and is told {change}", self.last));
        }
        self.last = change["seq"].as_u64().unwrap();
        for row in change["old_values"].as_array().into_iter().flatten() {
            let row = without_seq(row);
            let at = self.rows.iter().position(|it| *it == row);
            let at = at.ok_or_else(|| format!("it has no row as {change} says"))?;
            self.rows.swap_remove(at);
        }
        self.rows.extend(change["rows"].as_array().into_iter().flatten().map(without_seq));
        Ok(())
    }
}

/// A row without its `_seq`, which a SELECT does not have.
fn without_seq(row: &Value) -> Value {
    let mut row = row.clone();
    row.as_object_mut().unwrap().remove("_seq");
    row
}

/// A connection with live queries.
pub(crate) struct Watcher {
    socket: Socket,
    watched: Vec<Watched>,
    names: u64,
    marks: u64,
}

impl Watcher {
    /// Connects, and begins the live query of marks.
    pub(crate) async fn begin(server: &Server, root: &Api) -> Self {
        root.sql("CREATE NAMESPACE marks").await;
        root.sql(&format!("CREATE SHARED TABLE {MARKS} (mark BIGINT PRIMARY KEY)")).await;
        let mut socket = Socket::connect(server, &root.token).await;
        socket.snapshot("marks", &format!("SELECT mark FROM {MARKS}"), json!({})).await;
        Self { socket, watched: Vec::new(), names: 0, marks: 0 }
    }

    /// Ends all live queries, so that their tables may be truncated.
    pub(crate) async fn end_all(&mut self) {
        for watched in std::mem::take(&mut self.watched) {
            self.end(&watched.id).await;
        }
    }

    /// Ends one live query, and takes what was on its way.
    async fn end(&mut self, id: &str) {
        self.socket.send(json!({ "type": "unsubscribe", "subscription_id": id })).await;
        self.socket.send(json!({ "type": "ping", "id": id })).await;
        while self.socket.next().await["type"] != "pong" {}
    }

    /// Begins a live query; a refusal is an error unless the SELECT is refused, too.
    pub(crate) async fn subscribe(&mut self, root: &Api, node: &Node) -> Result<(), Found> {
        let sql = &node.sql();
        self.names += 1;
        let id = format!("q{}", self.names);
        self.socket.subscribe(&id, sql, json!({ "batch_size": 5 })).await;
        let (schema, rows) = (Value::Null, Vec::new());
        let node = node.clone();
        let mut watched = Watched { id: id.clone(), node, sql: sql.clone(), schema, rows, last: 0 };
        let mut has_more = true;
        while has_more {
            let message = self.socket.next().await;
            assert_eq!(message["subscription_id"], json!(id), "{message}");
            match message["type"].as_str().unwrap() {
                "subscription_ack" => {
                    watched.schema = message["schema"].clone();
                    watched.last = message["snapshot_seq"].as_u64().unwrap();
                }
                "initial_data_batch" => {
                    watched.rows.extend(message["rows"].as_array().unwrap().iter().map(without_seq));
                    if message["batch_control"]["has_more"] == true {
                        self.socket.send(json!({ "type": "next_batch", "subscription_id": id })).await;
                    }
                }
                _ if ask(root, sql, &[]).await.is_err() => return Ok(()),
                _ => return Err(refused(sql, &message)),
            }
            has_more = message["batch_control"]["has_more"].as_bool().unwrap();
        }
        self.watched.push(watched);
        Ok(())
    }

    /// Takes what is told of all commits so far; a frame that does not fit is an error, with its live query.
    async fn take(&mut self, root: &Api) -> Result<(), (String, Watched)> {
        self.marks += 1;
        root.sql(&format!("INSERT INTO {MARKS} VALUES ({})", self.marks)).await;
        loop {
            let message = self.socket.next().await;
            if message["subscription_id"] == "marks" {
                assert_eq!(message["rows"][0]["mark"], json!(self.marks.to_string()), "{message}");
                return Ok(());
            }
            self.take_message(root, &message).await?;
        }
    }

    /// Applies a message to its live query; a frame that does not fit is an error.
    async fn take_message(&mut self, root: &Api, message: &Value) -> Result<(), (String, Watched)> {
        let Some(at) = self.watched.iter().position(|it| message["subscription_id"] == json!(it.id)) else {
            return Ok(());
        };
        if message["type"] == "change" {
            let watched = &mut self.watched[at];
            return watched.apply(message).map_err(|error| (error, watched.clone()));
        }
        // A live query may end where an expression of it fails, which its SELECT then says, too.
        let watched = self.watched.remove(at);
        match ask(root, &watched.sql, &[]).await {
            Err(_) => Ok(()),
            Ok(_) => Err((message.to_string(), watched)),
        }
    }

    /// Takes what is told, and gives the first live query that is not what its SELECT says.
    pub(crate) async fn compare_all(&mut self, root: &Api) -> Option<(Found, Node)> {
        if let Err((error, watched)) = self.take(root).await {
            return Some((difference(&watched.sql, error, String::new()), watched.node));
        }
        for at in 0..self.watched.len() {
            let sql = self.watched[at].sql.clone();
            // Rows of which a value cannot be computed are not compared.
            let Ok(answer) = ask(root, &sql, &[]).await else { continue };
            let is_same = |watcher: &Self| same(watcher.watched[at].cells(), our_cells(&answer), false);
            if !is_same(self) && self.catch_up(root, &is_same).await.is_none() {
                let watched = &self.watched[at];
                let shown = Value::Array(watched.rows.clone()).to_string();
                let found = difference(&sql, shown, answer["rows"].to_string());
                return Some((found, watched.node.clone()));
            }
        }
        None
    }

    /// Takes messages until a result is right; none where that takes too long.
    async fn catch_up(&mut self, root: &Api, is_right: &impl Fn(&Self) -> bool) -> Option<()> {
        let until_right = async {
            while !is_right(self) {
                let message = self.socket.next().await;
                if self.take_message(root, &message).await.is_err() {
                    return None;
                }
            }
            Some(())
        };
        tokio::time::timeout(CATCH_UP, until_right).await.ok().flatten()
    }
}

/// A difference of a live query's result.
fn difference(sql: &str, ours: String, theirs: String) -> Found {
    Found { class: "live query beside its SELECT".to_owned(), sql: sql.to_owned(), ours, theirs }
}

/// The difference that a refused subscription is.
fn refused(sql: &str, message: &Value) -> Found {
    let error = format!("{} {}", message["code"].as_str().unwrap_or_default(), message["message"]);
    let rows = Err(error.clone());
    Found::new(sql, &rows, &Ok(Vec::new())).unwrap_or_else(|| difference(sql, error, String::new()))
}
