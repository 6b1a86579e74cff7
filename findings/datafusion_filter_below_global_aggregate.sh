#!/usr/bin/env bash
# DataFusion 55.0.0 (PyPI `datafusion`): a condition that is false of a constant column beside count(*) without GROUP BY gives one row
# instead of none. The column is replaced by its constant, and a condition on no column is moved below the aggregate, where it decides
# which rows are counted instead of whether there is a result. CUBE and ROLLUP, whose total is a row as well, behave the same.
# Seen with: SELECT * FROM (SELECT 1 AS x, count(*) …) WHERE x = 2. Source: run of the package, no product of ours involved.
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
context.from_arrow(pa.table({"v": [1, 2, 3]}), name="t")
sql = "SELECT * FROM (SELECT 1 AS x, count(*) AS n FROM t) AS q WHERE x = 2"
found = context.sql(sql).to_pydict()
print(f"rows where x is 1 and x = 2 is asked for: {found}")
sys.exit(0 if found == {"x": [1], "n": [0]} else 1)
PY
"$folder/venv/bin/python" "$folder/run.py"
