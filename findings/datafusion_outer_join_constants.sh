#!/usr/bin/env bash
# DataFusion 55.0.0 (PyPI `datafusion`): ORDER BY of a column from the side of an outer join that gives NULLs is left out of the plan
# where a literal, or a condition in ON, makes the column constant on its side. The NULLs that the join adds are then not in their order,
# and with LIMIT other rows are given. Every setting is at its default, and there is no error.
# Seen with: a RIGHT JOIN, ORDER BY … NULLS FIRST LIMIT 1, where NULL is right. Source: run of the package, no product of ours involved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datafusion==55.0.0 pyarrow==26.0.1
cat > "$folder/run.py" <<'PY'
import sys
import pyarrow as pa
from datafusion import SessionContext

context = SessionContext()
context.from_arrow(pa.table({"k": [1, 1]}), name="few")
context.from_arrow(pa.table({"k": [1, 2]}), name="more")
query = "SELECT q.c FROM (SELECT {} AS c, k FROM few) q RIGHT JOIN more m ON q.k = m.k ORDER BY q.c NULLS FIRST LIMIT 1"
constant = context.sql(query.format("'a'")).to_pydict()["c"]
computed = context.sql(query.format("CASE WHEN k > 0 THEN 'a' ELSE 'b' END")).to_pydict()["c"]
print(f"first value, NULLs first: {constant} of a literal, {computed} of an expression that is always the literal")
sys.exit(0 if constant == ["a"] and computed == [None] else 1)
PY
"$folder/venv/bin/python" "$folder/run.py"
