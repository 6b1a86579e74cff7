#!/usr/bin/env bash
# DataFusion 55.0.0 (PyPI `datafusion`): beside IS NOT DISTINCT FROM in a join, `=` takes NULL for equal to NULL, with every setting at its
# default. The join by IS NOT DISTINCT FROM is marked as one of which NULL equals NULL; an equality of the WHERE clause, or the keys of the
# inner join below it, are then made keys of that same join.
# Seen with: two forms over tables with NULLs, each with a row that is none. Source: run of the package, no product of ours involved.
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
rows = pa.table({"x": [1, None, 2], "z": [None, 1, 2]})
context.from_arrow(rows, name="a")
context.from_arrow(rows, name="b")


def count(sql):
    return context.sql(sql).to_pydict()["n"][0]


plain = count("SELECT count(*) AS n FROM a JOIN b ON a.z = b.z WHERE a.x = b.x OR (a.x IS NULL AND b.x IS NULL)")
where = count("SELECT count(*) AS n FROM a JOIN b ON a.x IS NOT DISTINCT FROM b.x WHERE a.z = b.z")
below = count("SELECT count(*) AS n FROM a JOIN b ON a.x = b.x JOIN b AS c ON c.z IS NOT DISTINCT FROM a.z")
print(f"rows: {plain} written out, {where} with =, in WHERE; {below} of 2 with = in the join below")
sys.exit(0 if (plain, where, below) == (2, 3, 3) else 1)
PY
"$folder/venv/bin/python" "$folder/run.py"
