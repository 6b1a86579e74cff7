#!/usr/bin/env bash
# DataFusion 55.0.0 (PyPI `datafusion`): the number of groups beside each group (count(*) OVER () above GROUP BY) is wrong where the
# result is ordered by the group and has a LIMIT, with every setting at its default. The limit is handed down to the aggregation
# through the window, which then counts the groups that the limit left. Other windows, such as running sums, are wrong the same way, and
# so is a result column that is computed and has the name of the group's column: its order is taken for the group's.
# Seen with: two groups, LIMIT 1, where 2 is right. Source: run of the package, no product of ours involved.
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
context.from_arrow(pa.table({"g": [7, 8, 7]}), name="t")


def rows(sql):
    return list(zip(*context.sql(sql).to_pydict().values()))


whole = rows("SELECT g, count(*) OVER () AS n FROM t GROUP BY g ORDER BY g")
limited = rows("SELECT g, count(*) OVER () AS n FROM t GROUP BY g ORDER BY g LIMIT 1")
negated = rows("SELECT -g AS g FROM t GROUP BY t.g ORDER BY 1 LIMIT 1")
print(f"without LIMIT: {whole}; with LIMIT 1: {limited}; least of -7 and -8: {negated}")
sys.exit(0 if whole == [(7, 2), (8, 2)] and limited == [(7, 1)] and negated == [(-7,)] else 1)
PY
"$folder/venv/bin/python" "$folder/run.py"
