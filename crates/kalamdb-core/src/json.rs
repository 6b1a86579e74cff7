//! What SQL can do with JSON: the functions of `datafusion-functions-json`, and `->` and `->>` as PostgreSQL has them.

use datafusion::common::DFSchema;
use datafusion::error::Result as QueryResult;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::{functions, udfs};

/// Makes them known to every statement. Those whose result has a type that no client knows are left out.
pub(crate) fn register(registry: &mut dyn FunctionRegistry) -> QueryResult<()> {
    for function in [
        udfs::json_as_text_udf(),
        udfs::json_contains_udf(),
        udfs::json_get_bool_udf(),
        udfs::json_get_float_udf(),
        udfs::json_get_int_udf(),
        udfs::json_get_json_udf(),
        udfs::json_get_str_udf(),
        udfs::json_length_udf(),
    ] {
        registry.register_udf(function)?;
    }
    registry.register_expr_planner(std::sync::Arc::new(JsonOperators))
}

/// `json -> key` is JSON, `json ->> key` is text.
#[derive(Debug)]
struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> QueryResult<PlannerResult<RawBinaryExpr>> {
        Ok(match expr.op {
            BinaryOperator::Arrow => PlannerResult::Planned(functions::json_get_json(expr.left, expr.right)),
            BinaryOperator::LongArrow => {
                PlannerResult::Planned(functions::json_as_text(expr.left, expr.right))
            }
            _ => PlannerResult::Original(expr),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::SubscribeRequest;
    use crate::testing::{Kept, arrived, materialise, root};
    use crate::tests::{ok, open};

    #[tokio::test]
    async fn a_live_query_looks_into_json() {
        let directory = tempfile::tempdir().unwrap();
        let engine = open(directory.path());
        ok(&engine, &root(), "CREATE SHARED TABLE t (id BIGINT PRIMARY KEY, j JSON)", &[]).await;
        ok(&engine, &root(), r#"INSERT INTO t VALUES (1, '{"a": {"kind": "note"}}'), (2, '[]')"#, &[]).await;
        let sql = "SELECT id FROM t WHERE j -> 'a' ->> 'kind' = 'note' AND id > 0".to_owned();
        let request = SubscribeRequest { sql, ..SubscribeRequest::default() };
        let sink = Kept::with_room(100);
        let mut live = engine.subscribe(&root(), request, Arc::clone(&sink) as _).await.unwrap();
        let mut rows = BTreeMap::new();
        materialise(&mut live, &mut rows).await;
        assert_eq!(rows.into_keys().collect::<Vec<_>>(), [1]);
        for sql in [
            r#"UPDATE t SET j = '{"a": {"kind": "note", "more": 1}}' WHERE id = 2"#,
            r#"INSERT INTO t VALUES (3, '{"a": {"kind": "other"}}')"#,
            "UPDATE t SET j = '{}' WHERE id = 1",
        ] {
            ok(&engine, &root(), sql, &[]).await;
        }
        let told = tokio::time::timeout(Duration::from_mins(1), async {
            let mut frames = arrived(&sink, &mut live);
            while frames.len() < 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                frames.extend(arrived(&sink, &mut live));
            }
            frames
        });
        let kinds: Vec<_> =
            told.await.unwrap().iter().map(|frame| format!("{:?}", frame.payload.kind)).collect();
        assert_eq!(kinds, ["Insert", "Delete"]);
        drop(live);
        engine.close();
    }
}
