#!/usr/bin/env bash
# DataFusion 55.0.0 (PyPI `datafusion`): a user-defined aggregate that is called with ORDER BY inside its parentheses gets its rows
# unsorted, and the sort key as one more argument. The built-in array_agg and string_agg sort by that argument themselves; an
# aggregate of one's own that does not is given another answer than the ORDER BY asks for, and no error.
# Seen with: join_all(id ORDER BY id DESC) over the ids 1, 2, 3. Source: run of the package, no product of ours involved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datafusion==55.0.0 pyarrow==26.0.1
cat > "$folder/run.py" <<'PY'
import sys
import pyarrow as pa
from datafusion import Accumulator, SessionContext, udaf

arguments = set()


class JoinAll(Accumulator):
    def __init__(self):
        self.seen = []

    def update(self, *values):
        arguments.add(len(values))
        self.seen += values[0].to_pylist()

    def merge(self, states):
        for state in states:
            self.seen += state.to_pylist()

    def state(self):
        return [pa.scalar(self.seen, pa.list_(pa.int64()))]

    def evaluate(self):
        return pa.scalar(",".join(str(value) for value in self.seen))


context = SessionContext()
context.register_udaf(udaf(JoinAll, [pa.int64()], pa.string(), [pa.list_(pa.int64())], "immutable", name="join_all"))
context.from_pydict({"id": [1, 2, 3]}, name="t")


def answer(sql):
    return context.sql(sql).to_pydict()["x"][0]


own = answer("SELECT join_all(id ORDER BY id DESC) AS x FROM t")
built_in = answer("SELECT array_agg(id ORDER BY id DESC) AS x FROM t")
print(f"own aggregate: {own}, with {sorted(arguments)} arguments; array_agg: {built_in}")
sys.exit(0 if own == "1,2,3" and arguments == {2} and built_in == [3, 2, 1] else 1)
PY
"$folder/venv/bin/python" "$folder/run.py"
