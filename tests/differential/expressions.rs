//! Values by seed: arithmetic, conditions, casts, times, aggregates, windows and subqueries.

use super::known;
use super::node::{Kind, Node, Type};
use crate::support::Random;

/// A column that may be named.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) of: Type,
}

/// Columns that a generated expression may use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) columns: Vec<Column>,
    /// Columns of the enclosing queries.
    pub(crate) outer: Vec<Column>,
    /// Arguments of aggregates; none in a query without groups.
    pub(crate) grouped: Option<Vec<Column>>,
    /// Columns that identify a row; empty where window functions are not allowed.
    pub(crate) keys: Vec<String>,
}

impl Scope {
    /// Columns that are visible to a subquery.
    pub(crate) fn around(&self) -> Vec<Column> {
        self.columns.iter().chain(&self.outer).cloned().collect()
    }

    /// The columns alone: no aggregates, no windows.
    pub(crate) fn rows(&self) -> Self {
        Self { grouped: None, keys: Vec::new(), ..self.clone() }
    }
}

/// Makes statements.
pub(crate) struct Generator {
    pub(crate) random: Random,
    /// Names given out.
    pub(crate) names: u32,
    /// Whether values come without subqueries.
    pub(crate) is_flat: bool,
}

const TEXTS: [&str; 8] = ["''", "'a'", "'b'", "'ab'", "'abc'", "'B'", "'10'", "'a%'"];
const COMPARISONS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];
const INTERVALS: [&str; 6] = ["1 day", "2 hours", "1 month", "90 minutes", "1 year", "-3 days"];

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random(seed), names: 0, is_flat: false }
    }

    pub(crate) fn type_of_value(&mut self) -> Type {
        Type::ALL[self.random.at(Type::ALL.len())]
    }

    fn literal(&mut self, of: Type) -> Node {
        if self.random.one_in(15) {
            return Node::text(Kind::Value(of), &format!("CAST(NULL AS {})", of.sql()));
        }
        let small = self.random.below(7);
        let text = match of {
            Type::Int => small.to_string(),
            Type::Double => {
                format!("CAST({}.{} AS DOUBLE PRECISION)", small, self.random.pick(&["0", "5", "25"]))
            }
            Type::Decimal => format!("{small}.{}", self.random.pick(&["0", "5", "25", "125"])),
            Type::Text => self.random.pick(&TEXTS).to_owned(),
            Type::Bool => self.random.pick(&["TRUE", "FALSE"]).to_owned(),
            Type::Timestamp => {
                format!(
                    "TIMESTAMP '2024-0{}-{} 0{small}:30:00'",
                    1 + small % 3,
                    self.random.pick(&["01", "29", "15"]).replace("29", "28")
                )
            }
            Type::Date => format!("DATE '2024-0{}-{}'", 1 + small % 3, self.random.pick(&["01", "28", "15"])),
        };
        Node::text(Kind::Value(of), &text)
    }

    fn column(&mut self, scope: &Scope, of: Type) -> Option<Node> {
        let near: Vec<&Column> = scope.columns.iter().filter(|column| column.of == of).collect();
        let far: Vec<&Column> = scope.outer.iter().filter(|column| column.of == of).collect();
        let from = if near.is_empty() || (!far.is_empty() && self.random.one_in(3)) { far } else { near };
        (!from.is_empty()).then(|| Node::text(Kind::Value(of), &from[self.random.at(from.len())].name))
    }

    fn leaf(&mut self, scope: &Scope, of: Type) -> Node {
        if let Some(columns) = &scope.grouped
            && self.random.one_in(2)
        {
            let rows = Scope { columns: columns.clone(), ..Scope::default() };
            if let Some(aggregate) = self.aggregate(&rows, of) {
                return aggregate;
            }
        }
        if !scope.keys.is_empty() && self.random.one_in(2) {
            return self.window(scope, of);
        }
        if self.random.one_in(6) {
            return self.literal(of);
        }
        self.column(scope, of).unwrap_or_else(|| self.literal(of))
    }

    /// A value; `depth` says how much of it there may be, and whether subqueries may be in it.
    pub(crate) fn value(&mut self, scope: &Scope, of: Type, depth: u32) -> Node {
        if depth == 0 || self.random.one_in(3) {
            return self.leaf(scope, of);
        }
        match self.random.below(24) {
            0 => {
                let condition = self.value(scope, Type::Bool, depth - 1);
                let (then, other) = (self.value(scope, of, depth - 1), self.value(scope, of, depth - 1));
                let other = Node::of(Kind::Optional, " ELSE {}", [other]);
                Node::value(of, "(CASE WHEN {} THEN {}{} END)", [condition, then, other])
            }
            1 => {
                let nodes = [self.value(scope, of, depth - 1), self.value(scope, of, depth - 1)];
                Node::value(of, "COALESCE({}, {})", nodes)
            }
            2 => {
                let nodes = [self.value(scope, of, depth - 1), self.value(scope, of, depth - 1)];
                Node::value(of, "NULLIF({}, {})", nodes)
            }
            3 if !self.is_flat => self.scalar_subquery(scope, of, depth - 1),
            4 if known::CASE_OF_VALUE => {
                let key = self.type_of_value();
                let [case, when] = [self.value(scope, key, depth - 1), self.value(scope, key, 0)];
                let (then, other) = (self.value(scope, of, depth - 1), self.value(scope, of, 0));
                Node::value(of, "(CASE {} WHEN {} THEN {} ELSE {} END)", [case, when, then, other])
            }
            _ => match of {
                Type::Int => self.integer(scope, depth),
                Type::Double => self.double(scope, depth),
                Type::Decimal => self.decimal(scope, depth),
                Type::Text => self.text(scope, depth),
                Type::Bool => self.condition(scope, depth),
                Type::Timestamp => self.timestamp(scope, depth),
                Type::Date => self.date(scope, depth),
            },
        }
    }

    /// A pattern with values of these types in it.
    fn call(&mut self, scope: &Scope, of: Type, pattern: &str, types: &[Type], depth: u32) -> Node {
        let nodes: Vec<Node> = types.iter().map(|of| self.value(scope, *of, depth - 1)).collect();
        Node::value(of, pattern, nodes)
    }

    fn one_of(&mut self, scope: &Scope, of: Type, patterns: &[(&str, &[Type])], depth: u32) -> Node {
        let (pattern, types) = patterns[self.random.at(patterns.len())];
        self.call(scope, of, pattern, types, depth)
    }

    fn integer(&mut self, scope: &Scope, depth: u32) -> Node {
        use Type::{Bool, Date, Decimal, Double, Int, Text, Timestamp};
        let patterns: &[(&str, &[Type])] = &[
            ("({} + {})", &[Int, Int]),
            ("({} - {})", &[Int, Int]),
            ("({} * {})", &[Int, Int]),
            ("({} / NULLIF({}, 0))", &[Int, Int]),
            ("({} / 3)", &[Int]),
            ("({} % 4)", &[Int]),
            ("(- {})", &[Int]),
            ("abs({})", &[Int]),
            ("length({})", &[Text]),
            ("CAST({} AS INT)", &[Bool]),
            ("CAST({} AS BIGINT)", &[Int]),
            ("CAST({} AS INT)", &[Decimal]),
            ("CAST({} AS BIGINT)", &[Double]),
            ("({} - {})", &[Date, Date]),
            ("CAST(extract(year FROM {}) AS INT)", &[Date]),
            ("CAST(extract(month FROM {}) AS INT)", &[Timestamp]),
            ("CAST(extract(dow FROM {}) AS INT)", &[Timestamp]),
            ("CAST(date_part('day', {}) AS INT)", &[Date]),
            ("strpos({}, 'b')", &[Text]),
            ("GREATEST({}, {})", &[Int, Int]),
            ("LEAST({}, {}, 3)", &[Int, Int]),
            ("ascii({})", &[Text]),
        ];
        self.one_of(scope, Int, patterns, depth)
    }

    fn double(&mut self, scope: &Scope, depth: u32) -> Node {
        use Type::{Decimal, Double, Int};
        let patterns: &[(&str, &[Type])] = &[
            ("({} + {})", &[Double, Double]),
            ("({} - {})", &[Double, Double]),
            ("({} * {})", &[Double, Double]),
            ("({} / NULLIF({}, 0))", &[Double, Double]),
            ("({} * {})", &[Double, Int]),
            ("({} + {})", &[Decimal, Double]),
            ("floor({})", &[Double]),
            ("ceil({})", &[Double]),
            ("sqrt(abs({}))", &[Double]),
            ("round({})", &[Double]),
            ("CAST({} AS DOUBLE PRECISION)", &[Int]),
            ("CAST({} AS DOUBLE PRECISION)", &[Decimal]),
            ("power({}, 2)", &[Double]),
            ("(- {})", &[Double]),
        ];
        self.one_of(scope, Double, patterns, depth)
    }

    fn decimal(&mut self, scope: &Scope, depth: u32) -> Node {
        use Type::{Decimal, Double, Int, Timestamp};
        let patterns: &[(&str, &[Type])] = &[
            ("({} + {})", &[Decimal, Decimal]),
            ("({} - {})", &[Decimal, Decimal]),
            ("({} * {})", &[Decimal, Decimal]),
            ("({} + {})", &[Decimal, Int]),
            ("({} * {})", &[Int, Decimal]),
            ("({} / 4.0)", &[Decimal]),
            ("({} / NULLIF({}, 0))", &[Decimal, Decimal]),
            ("({} % 1.5)", &[Decimal]),
            ("round({}, 1)", &[Decimal]),
            ("round({})", &[Decimal]),
            ("trunc({}, 1)", &[Decimal]),
            ("floor({})", &[Decimal]),
            ("ceil({})", &[Decimal]),
            ("abs({})", &[Decimal]),
            ("(- {})", &[Decimal]),
            ("CAST({} AS DECIMAL(12,3))", &[Int]),
            ("CAST({} AS DECIMAL(12,1))", &[Decimal]),
            ("CAST({} AS DECIMAL(12,3))", &[Double]),
            ("extract(hour FROM {})", &[Timestamp]),
            ("extract(second FROM {})", &[Timestamp]),
            ("GREATEST({}, {})", &[Decimal, Decimal]),
        ];
        self.one_of(scope, Decimal, patterns, depth)
    }

    fn text(&mut self, scope: &Scope, depth: u32) -> Node {
        use Type::{Bool, Date, Decimal, Double, Int, Text, Timestamp};
        let patterns: &[(&str, &[Type])] = &[
            ("({} || {})", &[Text, Text]),
            ("({} || {})", &[Text, Int]),
            ("upper({})", &[Text]),
            ("lower({})", &[Text]),
            ("substr({}, 2)", &[Text]),
            ("substring({} FROM 1 FOR 2)", &[Text]),
            ("replace({}, 'a', {})", &[Text, Text]),
            ("trim({})", &[Text]),
            ("left({}, 1)", &[Text]),
            ("right({}, 2)", &[Text]),
            ("lpad({}, 4, '*')", &[Text]),
            ("reverse({})", &[Text]),
            ("concat({}, {})", &[Text, Text]),
            ("CAST({} AS TEXT)", &[Int]),
            ("CAST({} AS TEXT)", &[Bool]),
            ("CAST({} AS TEXT)", &[Date]),
            ("CAST({} AS TEXT)", &[Timestamp]),
            ("CAST({} AS TEXT)", &[Decimal]),
            ("CAST({} AS TEXT)", &[Double]),
            ("split_part({}, 'b', 1)", &[Text]),
            ("to_char({}, 'YYYY-MM-DD')", &[Timestamp]),
        ];
        self.one_of(scope, Text, patterns, depth)
    }

    fn timestamp(&mut self, scope: &Scope, depth: u32) -> Node {
        use Type::{Date, Timestamp};
        let unit = self.random.pick(&["day", "month", "hour", "year", "week", "quarter"]).to_owned();
        let (sign, interval) = (self.random.pick(&["+", "-"]), self.random.pick(&INTERVALS));
        let shift = format!("({{}} {sign} INTERVAL '{interval}')");
        let truncated = format!("date_trunc('{unit}', {{}})");
        let patterns: &[(&str, &[Type])] = &[
            (&shift, &[Timestamp]),
            (&shift, &[Date]),
            (&truncated, &[Timestamp]),
            ("CAST({} AS TIMESTAMP)", &[Date]),
            ("GREATEST({}, {})", &[Timestamp, Timestamp]),
        ];
        self.one_of(scope, Timestamp, patterns, depth)
    }

    fn date(&mut self, scope: &Scope, depth: u32) -> Node {
        use Type::{Date, Timestamp};
        let patterns: &[(&str, &[Type])] = &[
            ("({} + 3)", &[Date]),
            ("({} - 40)", &[Date]),
            ("CAST({} AS DATE)", &[Timestamp]),
            ("LEAST({}, {})", &[Date, Date]),
            ("CAST(({} + INTERVAL '1 month') AS DATE)", &[Date]),
        ];
        self.one_of(scope, Date, patterns, depth)
    }

    fn condition(&mut self, scope: &Scope, depth: u32) -> Node {
        let of = self.type_of_value();
        let comparison = self.random.pick(&COMPARISONS);
        let not = self.random.pick(&["", "NOT "]);
        let is_not = self.random.pick(&["", " NOT"]);
        match self.random.below(if self.is_flat { 14 } else { 18 }) {
            0..=3 => self.call(scope, Type::Bool, &format!("({{}} {comparison} {{}})"), &[of, of], depth),
            4 => self.call(
                scope,
                Type::Bool,
                &format!("({{}} {not}BETWEEN {{}} AND {{}})"),
                &[of, of, of],
                depth,
            ),
            5 => self.call(scope, Type::Bool, &format!("({{}} {not}IN ({{}}, {{}}))"), &[of, of, of], depth),
            6 => {
                let pattern = self.random.pick(&["a%", "%b%", "_b", "%", "a_c"]);
                let like = self.random.pick(&["LIKE", "ILIKE"]);
                self.call(scope, Type::Bool, &format!("({{}} {not}{like} '{pattern}')"), &[Type::Text], depth)
            }
            7 => self.call(scope, Type::Bool, &format!("({{}} IS{is_not} NULL)"), &[of], depth),
            8 => self.call(
                scope,
                Type::Bool,
                &format!("({{}} IS{is_not} DISTINCT FROM {{}})"),
                &[of, of],
                depth,
            ),
            9 => {
                let what = self.random.pick(&["TRUE", "FALSE", "UNKNOWN"]);
                self.call(scope, Type::Bool, &format!("({{}} IS{is_not} {what})"), &[Type::Bool], depth)
            }
            10..=11 => self.call(scope, Type::Bool, "({} AND {})", &[Type::Bool; 2], depth),
            12 => self.call(scope, Type::Bool, "({} OR {})", &[Type::Bool; 2], depth),
            13 => self.call(scope, Type::Bool, "(NOT {})", &[Type::Bool], depth),
            14 => {
                let query = self.query(&scope.around(), &[of], depth - 1);
                Node::value(Type::Bool, &format!("({not}EXISTS ({{}}))"), [query])
            }
            15..=16 => {
                let value = self.value(scope, of, depth - 1);
                let query = self.query(&scope.around(), &[of], depth - 1);
                Node::value(Type::Bool, &format!("({{}} {not}IN ({{}}))"), [value, query])
            }
            _ => {
                let value = self.value(scope, of, depth - 1);
                let query = self.query(&scope.around(), &[of], depth - 1);
                let each = self.random.pick(&["ANY", "ALL"]);
                Node::value(Type::Bool, &format!("({{}} {comparison} {each} ({{}}))"), [value, query])
            }
        }
    }

    /// A query of one row at most, as a value.
    fn scalar_subquery(&mut self, scope: &Scope, of: Type, depth: u32) -> Node {
        if self.random.one_in(2)
            && let Some(query) = self.query_of_aggregate(&scope.around(), of, depth)
        {
            return Node::value(of, "({})", [query]);
        }
        let query = self.query(&scope.around(), &[of], depth);
        Node::value(of, "({} ORDER BY 1 LIMIT 1)", [query])
    }

    /// An aggregate of this type over rows; none where there is no such thing.
    pub(crate) fn aggregate(&mut self, rows: &Scope, of: Type) -> Option<Node> {
        let pattern = match of {
            Type::Int => self.random.pick(&[
                "count({})",
                "count(DISTINCT {})",
                "sum({})",
                "min({})",
                "max({})",
                "count(*)",
                "sum(DISTINCT {})",
            ]),
            Type::Decimal => {
                self.random.pick(&["sum({})", "min({})", "max({})", "avg({})", "sum(DISTINCT {})"])
            }
            Type::Double => self.random.pick(&["sum({})", "min({})", "max({})", "avg({})"]),
            Type::Text => self.random.pick(&[
                "min({})",
                "max({})",
                "string_agg(DISTINCT {}, ',')",
                "string_agg({}, ',')",
            ]),
            Type::Bool => self.random.pick(&["bool_and({})", "bool_or({})"]),
            Type::Timestamp | Type::Date => self.random.pick(&["min({})", "max({})"]),
        };
        if pattern.starts_with("string_agg(DISTINCT") && !known::STRING_AGG_DISTINCT {
            return None;
        }
        let argument = match of {
            Type::Int if pattern.starts_with("count") => self.type_of_value(),
            Type::Decimal if pattern == "avg({})" && self.random.one_in(2) => Type::Int,
            of => of,
        };
        let value = self.value(rows, argument, 1);
        let nodes = if pattern == "count(*)" { Vec::new() } else { vec![value.clone()] };
        let order = value.sql();
        let pattern = match pattern {
            "string_agg(DISTINCT {}, ',')" => format!("string_agg(DISTINCT {order}, ',' ORDER BY {order})"),
            "string_agg({}, ',')" => format!("string_agg({order}, ',' ORDER BY {order})"),
            other => other.to_owned(),
        };
        let nodes = if pattern.contains("{}") { nodes } else { Vec::new() };
        let filter = if self.random.one_in(4) {
            Node::of(Kind::Optional, " FILTER (WHERE {})", [self.value(rows, Type::Bool, 1)])
        } else {
            Node::nothing()
        };
        let nodes: Vec<Node> = nodes.into_iter().chain([filter]).collect();
        Some(Node::value(of, &format!("{pattern}{{}}"), nodes))
    }

    /// A window function, over rows whose order leaves no choice.
    fn window(&mut self, scope: &Scope, of: Type) -> Node {
        let rows = Scope { outer: Vec::new(), ..scope.rows() };
        let value = self.value(&rows, of, 1);
        let order = self.type_of_value();
        let partition = self.type_of_value();
        let partition = Node::of(Kind::Optional, "PARTITION BY {} ", [self.value(&rows, partition, 0)]);
        let direction = self.random.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
        let order = Node::of(Kind::Optional, &format!("{{}}{direction}, "), [self.value(&rows, order, 1)]);
        let total = format!("ORDER BY {{}}{}", scope.keys.join(", "));
        let call = match of {
            Type::Int => self.random.pick(&[
                "row_number()",
                "rank()",
                "dense_rank()",
                "ntile(3)",
                "sum({})",
                "count({})",
                "lag({}, 1)",
            ]),
            Type::Decimal | Type::Double => self.random.pick(&["sum({})", "min({})", "avg({})", "lead({})"]),
            _ => self.random.pick(&[
                "first_value({})",
                "last_value({})",
                "lag({})",
                "lead({}, 2)",
                "nth_value({}, 2)",
            ]),
        };
        let framed =
            ["sum", "count", "min", "avg", "first", "last", "nth"].iter().any(|it| call.starts_with(it));
        let frame = match self.random.below(6) {
            0 => " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW",
            1 => " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING",
            2 => " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
            3 => " ROWS BETWEEN 1 FOLLOWING AND 3 FOLLOWING",
            4 if known::GROUPS_FRAMES => " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
            _ => "",
        };
        let frame =
            if framed && !frame.is_empty() { Node::text(Kind::Optional, frame) } else { Node::nothing() };
        let value = if call.contains("{}") { vec![value] } else { Vec::new() };
        let nodes: Vec<Node> = value.into_iter().chain([partition, order, frame]).collect();
        Node::value(of, &format!("{call} OVER ({{}}{total}{{}})"), nodes)
    }
}
