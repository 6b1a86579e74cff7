#!/usr/bin/env bash
# DataFusion 55.0.0 (PyPI `datafusion`): a scalar subquery whose column cannot be NULL is taken for a value that cannot be NULL, though
# it is NULL where the subquery gives no row: `SELECT (SELECT 1 WHERE false)` is refused while it runs. A nullable column in the same
# place gives NULL.
# Source: run of the package, no product of ours involved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datafusion==55.0.0 pyarrow==26.0.1
cat > "$folder/run.py" <<'PY'
import sys
from datafusion import SessionContext

context = SessionContext()


def answer(sql):
    try:
        return context.sql(sql).to_pydict()["x"]
    except Exception as error:  # The package's own error type is not part of its interface.
        return "refused" if "non-nullable" in str(error) else f"refused otherwise: {error}"


certain = answer("SELECT (SELECT 1 WHERE false) AS x")
nullable = answer("SELECT (SELECT nullif(1, 2) WHERE false) AS x")
print(f"a column without NULLs: {certain}; a nullable one: {nullable}")
sys.exit(0 if certain == "refused" and nullable == [None] else 1)
PY
"$folder/venv/bin/python" "$folder/run.py"
