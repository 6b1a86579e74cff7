//! Queries by seed: joins, groups, set operations, subqueries in FROM and WITH.

use super::expressions::{Column, Generator, Scope};
use super::known;
use super::node::{Kind, Node, Type};

/// In the place of keys where rows may be alike, so that windows over them have a choice.
pub(crate) const TIES: &str = "";

/// A table of both sides.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Its columns' names, types in SQL, and types here.
    pub(crate) columns: &'static [(&'static str, &'static str, Type)],
    /// Its primary key; none: none.
    pub(crate) key: &'static [&'static str],
    pub(crate) rows: u64,
}

impl Table {
    /// Its name without the namespace.
    pub(crate) fn short(&self) -> &'static str {
        self.name.trim_start_matches("g.")
    }

    /// Its columns and key in parentheses, as CREATE TABLE has them.
    pub(crate) fn definition(&self) -> String {
        let columns = self.columns.iter().map(|(name, sql, _)| format!("{name} {sql}"));
        let key = (!self.key.is_empty()).then(|| format!("PRIMARY KEY ({})", self.key.join(", ")));
        format!("({})", columns.chain(key).collect::<Vec<_>>().join(", "))
    }
}

pub(crate) const TABLES: [Table; 4] = [
    Table {
        name: "g.wide",
        columns: &[
            ("id", "INT", Type::Int),
            ("a", "INT", Type::Int),
            ("b", "BIGINT", Type::Int),
            ("s", "SMALLINT", Type::Int),
            ("d", "DOUBLE PRECISION", Type::Double),
            ("m", "DECIMAL(10,2)", Type::Decimal),
            ("n", "DECIMAL(20,5)", Type::Decimal),
            ("x", "TEXT", Type::Text),
            ("f", "BOOLEAN", Type::Bool),
            ("at", "TIMESTAMP", Type::Timestamp),
            ("day", "DATE", Type::Date),
        ],
        key: &["id"],
        rows: 14,
    },
    Table {
        name: "g.pair",
        columns: &[
            ("k", "INT", Type::Int),
            ("x", "TEXT", Type::Text),
            ("a", "INT", Type::Int),
            ("m", "DECIMAL(10,2)", Type::Decimal),
            ("day", "DATE", Type::Date),
            ("f", "BOOLEAN", Type::Bool),
            ("at", "TIMESTAMP", Type::Timestamp),
        ],
        key: &["k", "x"],
        rows: 12,
    },
    Table {
        name: "g.big",
        columns: &[
            ("id", "BIGINT", Type::Int),
            ("a", "INT", Type::Int),
            ("x", "TEXT", Type::Text),
            ("d", "DOUBLE PRECISION", Type::Double),
            ("s", "SMALLINT", Type::Int),
        ],
        key: &["id"],
        rows: 9,
    },
    Table {
        name: "g.bare",
        columns: &[("a", "INT", Type::Int), ("x", "TEXT", Type::Text), ("n", "DECIMAL(20,5)", Type::Decimal)],
        key: &[],
        rows: 6,
    },
];

/// An item of FROM.
pub(crate) struct Relation {
    pub(crate) node: Node,
    pub(crate) columns: Vec<Column>,
    /// Columns that identify a row.
    pub(crate) keys: Vec<String>,
}

impl Relation {
    fn and(self, other: Self, node: Node) -> Self {
        let columns = self.columns.into_iter().chain(other.columns).collect();
        let keys = self.keys.into_iter().chain(other.keys).collect();
        Self { node, columns, keys }
    }
}

impl Generator {
    pub(crate) fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// A statement, and whether the order of its rows counts is said by its last part.
    pub(crate) fn select(&mut self) -> Node {
        let types: Vec<Type> = (0..=self.random.below(4)).map(|_| self.type_of_value()).collect();
        let depth = self.random.pick(&[&2, &3]).to_owned();
        let query = self.query(&[], &types, depth);
        let united = !known::ORDER_OF_UNIONS && query.sql().contains("UNION");
        let order = match self.random.below(3) {
            _ if united => Node::nothing(),
            0 => Node::nothing(),
            more => {
                let mut by: Vec<String> = (1..=types.len()).map(|it| it.to_string()).collect();
                let first = self.random.at(by.len());
                by[first] += self.random.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
                let limit = self.random.pick(&[" LIMIT 5", " LIMIT 3 OFFSET 2", " OFFSET 4", " LIMIT 0"]);
                let limit = if more == 1 { Node::text(Kind::Optional, limit) } else { Node::nothing() };
                Node::of(Kind::Optional, &format!(" ORDER BY {}{{}}", by.join(", ")), [limit])
            }
        };
        Node::of(Kind::Fixed, "{}{}", [query, order])
    }

    /// A query with columns of these types, which may name `outer`.
    pub(crate) fn query(&mut self, outer: &[Column], types: &[Type], depth: u32) -> Node {
        match self.random.below(16) {
            0 if depth > 0 => {
                let operation = self.random.pick(&[
                    "UNION",
                    "UNION ALL",
                    "INTERSECT",
                    "EXCEPT",
                    "INTERSECT ALL",
                    "EXCEPT ALL",
                ]);
                let nodes = [self.query(outer, types, depth - 1), self.query(outer, types, depth - 1)];
                Node::of(Kind::Query, &format!("(({{}}) {operation} ({{}}))"), nodes)
            }
            1 => self.values(outer, types),
            2 if depth > 1 => self.with(outer, types, depth - 1),
            3..=5 => self.grouped(outer, types, depth),
            6 => {
                let node = (types.len() == 1).then(|| self.query_of_aggregate(outer, types[0], depth));
                node.flatten().unwrap_or_else(|| self.plain(outer, types, depth, true))
            }
            7..=8 => self.plain(outer, types, depth, true),
            _ => self.plain(outer, types, depth, false),
        }
    }

    fn values(&mut self, outer: &[Column], types: &[Type]) -> Node {
        let scope = Scope { outer: outer.to_vec(), ..Scope::default() };
        let mut rows = Vec::new();
        for index in 0..=self.random.below(3) {
            let values = types.iter().map(|of| self.value(&scope, *of, 0)).collect();
            let (kind, pattern) = if index == 0 { (Kind::Fixed, "({})") } else { (Kind::Optional, ", ({})") };
            rows.push(Node::of(kind, pattern, [Node::list(values, ", ")]));
        }
        if self.random.one_in(2) {
            return Node::of(Kind::Query, "(VALUES {})", [Node::list(rows, "")]);
        }
        let name = self.name("v");
        Node::of(Kind::Query, &format!("SELECT * FROM (VALUES {{}}) AS {name}"), [Node::list(rows, "")])
    }

    fn with(&mut self, outer: &[Column], types: &[Type], depth: u32) -> Node {
        let inner: Vec<Type> = (0..2).map(|_| self.type_of_value()).collect();
        let (name, one, other) = (self.name("w"), self.name("c"), self.name("c"));
        let common = self.query(&[], &inner, depth);
        let relation = self.aliased(&name, &[one.clone(), other.clone()], &inner);
        let relation = if self.random.one_in(2) {
            let other_one = self.aliased(&name, &[one.clone(), other.clone()], &inner);
            self.joined(relation, other_one, outer, depth)
        } else {
            relation
        };
        let query = self.rows_of(relation, outer, types, depth, false);
        Node::of(Kind::Query, &format!("(WITH {name} ({one}, {other}) AS ({{}}) {{}})"), [common, query])
    }

    /// A named query, under an alias.
    fn aliased(&mut self, name: &str, columns: &[String], types: &[Type]) -> Relation {
        let alias = self.name("r");
        let columns = columns.iter().zip(types);
        let columns: Vec<Column> =
            columns.map(|(name, of)| Column { name: format!("{alias}.{name}"), of: *of }).collect();
        let keys = vec![TIES.to_owned()];
        Relation { node: Node::text(Kind::Fixed, &format!("{name} AS {alias}")), columns, keys }
    }

    fn base(&mut self) -> Relation {
        let table = &TABLES[self.random.at(TABLES.len())];
        self.base_of(table)
    }

    /// A table under an alias.
    pub(crate) fn base_of(&mut self, table: &Table) -> Relation {
        let alias = self.name("r");
        let qualified = |name: &str| format!("{alias}.{name}");
        let columns: Vec<Column> =
            table.columns.iter().map(|(name, _, of)| Column { name: qualified(name), of: *of }).collect();
        let keys = if table.key.is_empty() {
            vec![TIES.to_owned()]
        } else {
            table.key.iter().map(|name| qualified(name)).collect()
        };
        Relation { node: Node::text(Kind::Fixed, &format!("{} AS {alias}", table.name)), columns, keys }
    }

    /// A subquery in FROM.
    fn derived(&mut self, outer: &[Column], depth: u32) -> Relation {
        let types: Vec<Type> = (0..=self.random.below(3)).map(|_| self.type_of_value()).collect();
        let query = self.query(outer, &types, depth);
        let alias = self.name("q");
        let names: Vec<String> = types.iter().map(|_| self.name("c")).collect();
        let columns: Vec<Column> = names
            .iter()
            .zip(&types)
            .map(|(name, of)| Column { name: format!("{alias}.{name}"), of: *of })
            .collect();
        let keys = vec![TIES.to_owned()];
        let node = Node::of(Kind::Fixed, &format!("({{}}) AS {alias} ({})", names.join(", ")), [query]);
        Relation { node, columns, keys }
    }

    /// Relations, joined.
    pub(crate) fn from(&mut self, outer: &[Column], depth: u32) -> Relation {
        let mut relation =
            if depth > 0 && self.random.one_in(5) { self.derived(&[], depth - 1) } else { self.base() };
        for _ in 0..[0, 0, 1, 0, 1, if depth == 3 { 2 } else { 1 }][self.random.at(6)] {
            relation = if known::LATERAL && depth > 0 && self.random.one_in(6) {
                let around: Vec<Column> = relation.columns.iter().chain(outer).cloned().collect();
                let other = self.derived(&around, depth - 1);
                let pattern =
                    self.random.pick(&["{} CROSS JOIN LATERAL {}", "{} LEFT JOIN LATERAL {} ON TRUE"]);
                let node = Node::of(Kind::Fixed, pattern, [relation.node.clone(), other.node.clone()]);
                relation.and(other, node)
            } else {
                let other = if depth > 0 && self.random.one_in(5) {
                    self.derived(&[], depth - 1)
                } else {
                    self.base()
                };
                self.joined(relation, other, outer, depth)
            };
        }
        relation
    }

    fn joined(&mut self, left: Relation, right: Relation, outer: &[Column], depth: u32) -> Relation {
        let nodes = [left.node.clone(), right.node.clone()];
        let shared: Vec<&str> = ["a", "x"]
            .into_iter()
            .filter(|name| {
                let has = |relation: &Relation| {
                    relation.columns.iter().filter(|it| it.name.ends_with(&format!(".{name}"))).count() == 1
                };
                has(&left) && has(&right)
            })
            .collect();
        let mirrored = if known::RIGHT_JOINS { "RIGHT JOIN" } else { "LEFT JOIN" };
        let join = self.random.pick(&["JOIN", "LEFT JOIN", mirrored, "JOIN", "FULL JOIN"]);
        let node = match self.random.below(8) {
            0 => Node::of(Kind::Fixed, "{} CROSS JOIN {}", nodes),
            1 if !shared.is_empty() => {
                let using = shared[self.random.at(shared.len())];
                Node::of(Kind::Fixed, &format!("{{}} {join} {{}} USING ({using})"), nodes)
            }
            _ => {
                let on = self.join_condition(&left, &right, outer, depth, join == "FULL JOIN");
                let [one, other] = nodes;
                Node::of(Kind::Fixed, &format!("{{}} {join} {{}} ON {{}}"), [one, other, on])
            }
        };
        left.and(right, node)
    }

    fn join_condition(
        &mut self,
        left: &Relation,
        right: &Relation,
        outer: &[Column],
        depth: u32,
        full: bool,
    ) -> Node {
        let mut pairs = Vec::new();
        for one in &left.columns {
            let same = right.columns.iter().filter(|other| other.of == one.of);
            pairs.extend(same.map(|other| format!("({} = {})", one.name, other.name)));
        }
        let equal =
            if pairs.is_empty() { None } else { Some(pairs.swap_remove(self.random.at(pairs.len()))) };
        if full {
            return Node::text(Kind::Fixed, &equal.unwrap_or_else(|| "TRUE".to_owned()));
        }
        let columns = left.columns.iter().chain(&right.columns).cloned().collect();
        let scope = Scope { columns, outer: outer.to_vec(), ..Scope::default() };
        let depth = if known::SUBQUERIES_IN_ON { depth.min(1) } else { 0 };
        match equal {
            Some(equal) if self.random.one_in(3) => Node::value(
                Type::Bool,
                &format!("({equal} AND {{}})"),
                [self.value(&scope, Type::Bool, depth)],
            ),
            Some(equal) if !self.random.one_in(6) => Node::text(Kind::Value(Type::Bool), &equal),
            _ => self.value(&scope, Type::Bool, depth),
        }
    }

    /// A condition in WHERE, or nothing.
    pub(crate) fn filter(&mut self, scope: &Scope, depth: u32) -> Node {
        if self.random.one_in(3) {
            return Node::nothing();
        }
        Node::of(Kind::Optional, " WHERE {}", [self.value(scope, Type::Bool, depth.min(2))])
    }

    fn plain(&mut self, outer: &[Column], types: &[Type], depth: u32, windows: bool) -> Node {
        let relation = self.from(outer, depth);
        self.rows_of(relation, outer, types, depth, windows)
    }

    fn rows_of(
        &mut self,
        relation: Relation,
        outer: &[Column],
        types: &[Type],
        depth: u32,
        windows: bool,
    ) -> Node {
        let Relation { node: from, columns, keys } = relation;
        let scope = Scope { columns, outer: outer.to_vec(), ..Scope::default() };
        let filter = self.filter(&scope, depth);
        let keys = if windows && !keys.iter().any(|key| key == TIES) { keys } else { Vec::new() };
        let distinct =
            if self.random.one_in(6) { Node::text(Kind::Optional, "DISTINCT ") } else { Node::nothing() };
        let listed = Scope { keys, ..scope };
        let items = types.iter().map(|of| self.value(&listed, *of, depth.min(2))).collect();
        let nodes = [distinct, Node::list(items, ", "), from, filter];
        Node::of(Kind::Query, "SELECT {}{} FROM {}{}", nodes)
    }

    /// A query with groups.
    fn grouped(&mut self, outer: &[Column], types: &[Type], depth: u32) -> Node {
        let Relation { node: from, columns, .. } = self.from(outer, depth);
        let scope = Scope { columns: columns.clone(), outer: outer.to_vec(), ..Scope::default() };
        let filter = self.filter(&scope, depth);
        let mut keys: Vec<Column> = Vec::new();
        for _ in 0..=self.random.below(2) {
            let key = columns[self.random.at(columns.len())].clone();
            if keys.iter().all(|it| it.name != key.name) {
                keys.push(key);
            }
        }
        let names: Vec<String> = keys.iter().map(|key| key.name.clone()).collect();
        let listed = names.join(", ");
        let by = match self.random.below(8) {
            0 if known::GROUPING_SETS => format!("ROLLUP ({listed})"),
            1 if known::GROUPING_SETS => format!("GROUPING SETS (({listed}), ({}), ())", names[0]),
            2 if known::GROUPING_SETS => format!("CUBE ({listed})"),
            _ => listed,
        };
        let groups =
            Scope { columns: keys, outer: outer.to_vec(), grouped: Some(columns), ..Scope::default() };
        let inside = depth.min(2);
        let having = if self.random.one_in(3) {
            Node::of(Kind::Optional, " HAVING {}", [self.value(&groups, Type::Bool, inside)])
        } else {
            Node::nothing()
        };
        let items = types.iter().map(|of| self.value(&groups, *of, inside)).collect();
        let nodes = [Node::list(items, ", "), from, filter, having];
        Node::of(Kind::Query, &format!("SELECT {{}} FROM {{}}{{}} GROUP BY {by}{{}}"), nodes)
    }

    /// A query of one row, whatever rows there are.
    pub(crate) fn query_of_aggregate(&mut self, outer: &[Column], of: Type, depth: u32) -> Option<Node> {
        let Relation { node: from, columns, .. } = self.from(outer, depth);
        let scope = Scope { columns: columns.clone(), outer: outer.to_vec(), ..Scope::default() };
        let filter = self.filter(&scope, depth);
        let rows = Scope { columns, ..Scope::default() };
        let aggregate = self.aggregate(&rows, of)?;
        Some(Node::of(Kind::Query, "SELECT {} FROM {}{}", [aggregate, from, filter]))
    }
}
