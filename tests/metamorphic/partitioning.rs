//! Ternary logic partitioning: a condition is true, false or unknown for each row, and for no row two of those.

use serde_json::Value;

use super::own::{self, OWN_CONDITIONS};
use super::{Disagreement, Outcome};
use crate::differential::ask;
use crate::differential::expressions::{Generator, Scope};
use crate::differential::node::{Node, Type};
use crate::differential::pair::{State, create_tables, fill};
use crate::differential::queries::TABLES;
use crate::differential::values::{Cells, our_cells, rows_of, same, shown};
use crate::support::Api;

/// Queries from one set of rows to the next, which has another storage state.
const QUERIES_OF_ROWS: u64 = 40;
/// Smaller conditions that are tried for a disagreement.
const ATTEMPTS: usize = 60;

/// A query without its condition.
#[derive(Clone, Debug)]
struct Partitioned {
    form: Form,
    from: Node,
    /// Values of the rows, or an argument of an aggregate.
    value: String,
    /// A grouping column.
    key: String,
    condition: Node,
}

/// A form of a query, which says how its parts make the whole.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Rows: all parts' rows.
    Rows,
    /// DISTINCT: all parts' rows, each once.
    Distinct,
    /// An aggregate, and the one that makes the whole of the parts' values.
    Aggregate(&'static str, &'static str),
    /// An aggregate for each group.
    Grouped(&'static str, &'static str),
    /// Groups, with a condition on each.
    Having,
}

/// Aggregates with those of their parts' values.
const AGGREGATES: [(&str, &str); 6] = [
    ("count({})", "sum(v)"),
    ("count(*)", "sum(v)"),
    ("sum({})", "sum(v)"),
    ("min({})", "min(v)"),
    ("max({})", "max(v)"),
    ("count(*) FILTER (WHERE {} IS NULL)", "sum(v)"),
];

impl Partitioned {
    /// Generates a query over one or two relations.
    fn new(generator: &mut Generator) -> Self {
        generator.names = 0;
        let relation = generator.from(&[], 1);
        let scope = Scope { columns: relation.columns.clone(), ..Scope::default() };
        let (one, other) = AGGREGATES[generator.random.at(AGGREGATES.len())];
        let form = match generator.random.below(8) {
            0 | 1 => Form::Distinct,
            2 => Form::Aggregate(one, other),
            3 | 4 => Form::Grouped(one, other),
            5 => Form::Having,
            _ => Form::Rows,
        };
        // Sums of doubles depend on the order of the rows.
        let of = match form {
            Form::Aggregate(..) | Form::Grouped(..) => {
                if one.starts_with("sum") {
                    Type::Int
                } else {
                    Type::Text
                }
            }
            _ => generator.type_of_value(),
        };
        let key = relation.columns[generator.random.at(relation.columns.len())].clone();
        let condition = if matches!(form, Form::Having) {
            let grouped = Some(relation.columns.clone());
            let groups = Scope { columns: vec![key.clone()], grouped, ..Scope::default() };
            generator.value(&groups, Type::Bool, 2)
        } else {
            generator.value(&scope, Type::Bool, 3)
        };
        let value = generator.value(&scope, of, 1).sql();
        Self { form, from: relation.node, value, key: key.name, condition }
    }

    /// The query with this clause, which begins with WHERE or HAVING, or is empty.
    fn part(&self, clause: &str) -> String {
        let Self { form, value, key, .. } = self;
        let from = self.from.sql();
        match form {
            Form::Rows => format!("SELECT {value} AS v FROM {from}{clause}"),
            Form::Distinct => format!("SELECT DISTINCT {value} AS v FROM {from}{clause}"),
            Form::Aggregate(one, _) => {
                format!("SELECT {} AS v FROM {from}{clause}", one.replace("{}", value))
            }
            Form::Grouped(one, _) => {
                let one = one.replace("{}", value);
                format!("SELECT {key} AS k, {one} AS v FROM {from}{clause} GROUP BY {key}")
            }
            Form::Having => format!("SELECT {key} AS k, count(*) AS v FROM {from} GROUP BY {key}{clause}"),
        }
    }

    /// The query of the whole, and the one that makes the whole of its parts.
    fn both(&self) -> [String; 2] {
        let condition = self.condition.sql();
        let word = if matches!(self.form, Form::Having) { " HAVING" } else { " WHERE" };
        let parts = [
            self.part(&format!("{word} {condition}")),
            self.part(&format!("{word} NOT {condition}")),
            self.part(&format!("{word} {condition} IS NULL")),
        ];
        let parts = parts.join(" UNION ALL ");
        let composed = match self.form {
            Form::Rows | Form::Having => parts,
            Form::Distinct => format!("SELECT DISTINCT v FROM ({parts}) AS parts"),
            Form::Aggregate(_, other) => format!("SELECT {other} AS v FROM ({parts}) AS parts"),
            Form::Grouped(_, other) => format!("SELECT k, {other} AS v FROM ({parts}) AS parts GROUP BY k"),
        };
        [self.part(""), composed]
    }

    /// Smaller queries, those with the smallest conditions first.
    fn smaller(&self) -> Vec<Self> {
        let conditions = self.condition.smaller().into_iter();
        conditions.map(|condition| Self { condition, ..self.clone() }).collect()
    }
}

/// The rows of a query; a panic is a disagreement of its own, any other refusal none.
async fn rows(api: &Api, sql: &str) -> Result<Cells, String> {
    let answer: Result<Value, String> = ask(api, sql, &[]).await;
    answer.map(|answer| our_cells(&answer))
}

/// Compares a query with its parts; none where one of both is refused.
async fn compare(api: &Api, [whole, parts]: &[String; 2]) -> Option<Result<(), Disagreement>> {
    let (one, other) = (rows(api, whole).await, rows(api, parts).await);
    let panicked = [&one, &other].iter().any(|it| it.as_ref().is_err_and(|error| error.contains("PANICKED")));
    let disagreement = |one: String, other: String| Disagreement {
        class: whole.clone(),
        text: format!("  {one}\n{parts}\n  {other}"),
    };
    match (one, other) {
        _ if panicked => Some(Err(disagreement("panicked".to_owned(), "or panicked".to_owned()))),
        (Ok(one), Ok(other)) if !same(one.clone(), other.clone(), false) => {
            Some(Err(disagreement(shown(&Ok(rows_of(&one))), shown(&Ok(rows_of(&other))))))
        }
        (Ok(_), Ok(_)) => Some(Ok(())),
        _ => None,
    }
}

/// The smallest condition for which a query and its parts still disagree.
async fn shrink(api: &Api, mut query: Partitioned, mut found: Disagreement) -> Disagreement {
    let mut attempts = 0;
    'smaller: loop {
        for smaller in query.smaller() {
            attempts += 1;
            if attempts > ATTEMPTS {
                return found;
            }
            if let Some(Err(other)) = compare(api, &smaller.both()).await {
                (query, found) = (smaller, other);
                continue 'smaller;
            }
        }
        return found;
    }
}

/// Compares so many generated queries with their parts, then those with KalamDB's own types.
pub(crate) async fn run(root: &Api, generator: &mut Generator, queries: u64) -> Outcome {
    let mut outcome = Outcome::default();
    if queries == 0 {
        return outcome;
    }
    create_tables(root).await;
    for number in 0..queries {
        if number % QUERIES_OF_ROWS == 0 {
            let rows: Vec<_> = TABLES.iter().map(|table| generator.rows_of_table(table)).collect();
            let states = State::ALL;
            let state = states[usize::try_from(number / QUERIES_OF_ROWS).unwrap() % states.len()];
            fill(root, &rows, state).await;
        }
        let query = Partitioned::new(generator);
        match compare(root, &query.both()).await {
            None => outcome.refused += 1,
            Some(Ok(())) => outcome.compared += 1,
            Some(Err(found)) => outcome.disagreements.push(shrink(root, query, found).await),
        }
    }
    outcome.add(run_own(root).await);
    outcome
}

/// Forms of a query with this table and clause, and the query that makes the whole of the parts.
const OWN_FORMS: [(&str, &str); 4] = [
    ("SELECT id FROM {t}{w}", "{p}"),
    ("SELECT DISTINCT u, j FROM {t}{w}", "SELECT DISTINCT u, j FROM ({p}) AS parts"),
    ("SELECT count(*) AS v FROM {t}{w}", "SELECT sum(v) FROM ({p}) AS parts"),
    ("SELECT i AS k, max(u) AS v FROM {t}{w} GROUP BY i", "SELECT k, max(v) FROM ({p}) AS parts GROUP BY k"),
];

/// Compares queries of KalamDB's own types and functions with their parts, each form over another table; none may be refused.
async fn run_own(root: &Api) -> Outcome {
    let mut outcome = Outcome::default();
    own::create_tables(root).await;
    for (number, condition) in OWN_CONDITIONS.iter().enumerate() {
        for (index, (form, composed)) in OWN_FORMS.iter().enumerate() {
            let table = own::TABLES[(number + index) % own::TABLES.len()];
            let part = |clause: &str| form.replace("{t}", table).replace("{w}", clause);
            let parts = [
                part(&format!(" WHERE {condition}")),
                part(&format!(" WHERE NOT ({condition})")),
                part(&format!(" WHERE ({condition}) IS NULL")),
            ];
            let composed = composed.replace("{p}", &parts.join(" UNION ALL "));
            match compare(root, &[part(""), composed.clone()]).await {
                None => outcome.disagreements.push(Disagreement {
                    class: format!("refused: {condition}"),
                    text: format!("{composed}\n  {:?}", ask(root, &composed, &[]).await),
                }),
                Some(Ok(())) => outcome.compared += 1,
                Some(Err(found)) => outcome.disagreements.push(found),
            }
        }
    }
    outcome
}
