# The commands of daily work; `just` lists them.

default:
    @just --list

# Everything CI runs.
ci:
    bash .ci/run

# The main job: real chat, live subscribers, a crash half way, a verdict.
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# A server on ./kalamdb-data.
serve *ARGS:
    cargo run --release -- serve {{ARGS}}

# All tests.
test *ARGS:
    cargo test --workspace {{ARGS}}

# The crash test, for longer than the suite does.
crash rounds="500":
    cargo test --test crash -- --rounds {{rounds}}

# Clients that misbehave on the WebSocket, for longer than the suite has them.
fuzz-clients rounds="50":
    cargo test --test fuzzing -- --rounds {{rounds}}

# A user who wants to see what others have, for longer than the suite lets them.
attack rounds="50":
    cargo test --test attack -- --rounds {{rounds}}

# Statements by seed, answered as PostgreSQL answers them, where that is installed; and metamorphic checks.
differential statements="10000" *ARGS:
    cargo test --test differential -- --statements {{statements}} {{ARGS}}

# Inputs in a directory's files of faults, with the answers that they state or PostgreSQL gives.
faults dir:
    cargo test --test faults -- --dir {{dir}}

# SQLite's sqllogictest files of a directory.
slt dir *ARGS:
    cargo test --test slt -- --dir {{dir}} {{ARGS}}

# TPC-H beside DataFusion alone, from a directory of Parquet files.
tpch dir *ARGS:
    cargo test --test tpch -- --dir {{dir}} {{ARGS}}

# A fuzz target (segment, frame, footer, event, row, key, directory) for so many seconds, from the golden vectors on.
fuzz target seconds="600":
    log-format/fuzz/seed.sh
    cd log-format/fuzz && RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{target}} -- -max_total_time={{seconds}}

# The comparison with plain RocksDB.
floor:
    cargo bench --workspace --bench floor

# An echo server with KalamDB's WebSocket, for conformance suites (docs/websocket-conformance.md).
echo address="127.0.0.1:9001" *ARGS:
    cargo run --example websocket_echo -- {{address}} {{ARGS}}

# Golden vectors, written anew. Only for a new format version: a released vector never changes.
vectors:
    KALAMDB_WRITE_VECTORS=1 cargo test -p log-format

# The database of the present format that later releases must read (tests/compatibility.rs). Only for a new format version.
fixture:
    KALAMDB_WRITE_FIXTURE=1 cargo test --workspace --test main -- compatibility
