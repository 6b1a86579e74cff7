#!/usr/bin/env bash
# DataFusion 55.0.0 (PyPI `datafusion`): a condition on columns of both sides of a RIGHT JOIN, where the columns have one name, loses
# rows of Parquet files, without an error and with every setting at its default. On the way down the condition's columns are found
# by name, so that both become the column of one side; what the statistics of a file refuse by that is skipped, though the other
# side's column would have kept its rows. The same tables in memory, which take no conditions, give all rows.
# Seen with: l.f OR r.f over two files of two rows. Source: run of the package, no product of ours involved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datafusion==55.0.0 pyarrow==26.0.1
cat > "$folder/run.py" <<'PY'
import sys
import pyarrow as pa
import pyarrow.parquet as pq
from datafusion import SessionConfig, SessionContext

folder = sys.argv[1]
near = pa.table({"k": [1, 2], "v": [10, 20], "f": [True, True]})
far = pa.table({"k": [1, 2], "v": [10, 20], "f": [False, False]})


def answer(context):
    sql = "SELECT r.k AS k FROM near AS l RIGHT JOIN far AS r ON l.v = r.v WHERE l.f OR r.f"
    return sorted(context.sql(sql).to_pydict().get("k", []))


files, memory = SessionContext(), SessionContext()
for name, table in [("near", near), ("far", far)]:
    pq.write_table(table, f"{folder}/{name}.parquet")
    files.register_parquet(name, f"{folder}/{name}.parquet")
    memory.from_arrow(table, name=name)
of_files, of_memory = answer(files), answer(memory)
print(f"rows from files: {of_files}; from memory: {of_memory}")
sys.exit(0 if of_files == [] and of_memory == [1, 2] else 1)
PY
"$folder/venv/bin/python" "$folder/run.py" "$folder"
