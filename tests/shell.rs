//! `kalamdb sql` as a process: scripts in every encoding, errors with their lines, backslash commands, one notation in every output.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::import::run_as;
use crate::support::{ROOT_PASSWORD, Server, in_time};

/// Runs `kalamdb sql` as root with this on standard input; its exit code, stdout and stderr.
async fn sql(server: &Server, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    run_as(("root", ROOT_PASSWORD), server, &[&["sql"], arguments].concat(), input).await
}

/// Runs a script as root; it must succeed.
async fn shown(server: &Server, arguments: &[&str], input: &str) -> String {
    let (code, out, said) = sql(server, arguments, input.as_bytes()).await;
    assert_eq!((code, said.as_str()), (0, ""), "{input}: {out}");
    out
}

fn utf16(text: &str, write: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(write).collect()
}

#[tokio::test]
async fn a_script_may_begin_with_a_byte_order_mark() {
    let server = Server::start().await;
    let text = "SELECT 'ü' AS v;\nSELECT 2 AS w;\n";
    let twice = format!("\u{feff}{text}\u{feff}{text}\u{feff}SELECT 3 AS x");
    let expected = "v\nü\nw\n2\n";
    for (bytes, expected) in [
        (text.as_bytes().to_vec(), expected.to_owned()),
        (format!("\u{feff}{text}").into_bytes(), expected.to_owned()),
        (utf16(text, u16::to_le_bytes), expected.to_owned()),
        (utf16(text, u16::to_be_bytes), expected.to_owned()),
        (twice.into_bytes(), format!("{expected}{expected}x\n3\n")),
    ] {
        let (code, out, said) = sql(&server, &["--format=csv"], &bytes).await;
        assert_eq!((code, out, said.as_str()), (0, expected, ""), "{bytes:?}");
    }
    let (code, _, said) = sql(&server, &[], b"SELECT 1;\nSELECT '\xfc';\n").await;
    assert!(code == 1 && said.contains("<stdin>:2: this line is not UTF-8 from byte 9 on"), "{code} {said}");
}

#[tokio::test]
async fn an_error_names_the_line_of_its_file() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = write(
        "bad.sql",
        "SELECT 1 AS a;\n\n-- what follows is wrong\nSELECT 2,\n  nope\nFROM x;\nSELECT 3 AS c;\n",
    );
    let good = write("good.sql", "SELECT 4 AS d");
    let (code, out, said) = sql(&server, &["-f", "csv", &bad, &good], b"").await;
    assert_eq!((code, out.as_str()), (1, "a\n1\n"), "{said}");
    assert!(said.starts_with(&format!("{bad}:6: error[TABLE_NOT_FOUND]: ")), "{said}");

    let go_on = ["-f", "csv", "--on-error=continue", "--file", &good, &bad];
    let (code, out, said) = sql(&server, &go_on, b"").await;
    assert_eq!((code, out.as_str()), (1, "a\n1\nc\n3\nd\n4\n"), "{said}");

    let outer = write("outer.sql", &format!("SELECT 0 AS z;\n\\i {bad}\nSELECT 9;\n"));
    let (code, out, said) = sql(&server, &["-f", "csv", &outer], b"").await;
    assert!(code == 1 && out == "z\n0\na\n1\n" && said.starts_with(&format!("{bad}:6: ")), "{out} {said}");

    let syntax = "SELECT 1;\n\\d\n\nSELECT\n  1 +;";
    let (code, _, said) = sql(&server, &[], syntax.as_bytes()).await;
    assert!(code == 1 && said.starts_with("<stdin>:5: error[INVALID_SQL]: "), "{said}");
    assert!(said.contains("\n5 |   1 +\n") && !said.contains("at line 2"), "{said}");
    let (code, _, said) = sql(&server, &["-c", "SELECT 1;\nSELECT nope"], b"").await;
    assert!(code == 1 && said.starts_with("error[") && said.contains("1 | SELECT nope\n"), "{said}");
    let (code, _, said) = sql(&server, &[], b"SELECT 1;\n\\nope\n").await;
    assert!(code == 1 && said == "<stdin>:2: error: \\nope is not a command; \\? lists them\n", "{said}");
    let (code, _, said) = sql(&server, &["/nowhere.sql"], b"").await;
    assert!(code == 1 && said.contains("can't read /nowhere.sql"), "{said}");
}

#[tokio::test]
async fn every_output_has_the_same_dates_times_and_spans() {
    let server = Server::start().await;
    let table = "CREATE NAMESPACE app; CREATE SHARED TABLE app.times (id INT PRIMARY KEY, d DATE, t TIME, ts TIMESTAMP, tz \
                 DATETIME); INSERT INTO app.times VALUES (1, '2026-12-01', '12:34:56.5', '2026-12-01 12:34:56', \
                 '2026-12-01T12:34:56Z')";
    shown(&server, &[], table).await;
    let query = "SELECT d, t, ts, tz FROM app.times";
    let texts = ["2026-12-01", "12:34:56.500", "2026-12-01T12:34:56", "2026-12-01T12:34:56Z"];
    for format in ["table", "csv", "json", "line"] {
        let out = shown(&server, &["-f", format], query).await;
        for text in texts {
            assert!(out.contains(text), "{format}: no {text} in {out}");
        }
    }
    let spans = "SELECT interval '1 day' AS a, timestamp '2026-01-02' - timestamp '2026-01-01' AS b, \
                 interval '60 hours' AS c, interval '1 month 3 days' AS d";
    let out = shown(&server, &["-f", "csv"], spans).await;
    assert_eq!(out, "a,b,c,d\n1 day,1 day,60:00:00,1 mon 3 days\n");
    let out = shown(&server, &["-f", "json"], spans).await;
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(rows, json!([{"a": "P1D", "b": "P1D", "c": "PT60H", "d": "P1M3D"}]));
    // A text that looks like one is a text.
    assert_eq!(shown(&server, &["-f", "csv"], "SELECT 'P1D' AS a").await, "a\nP1D\n");
}

#[tokio::test]
async fn backslash_commands_stand_anywhere() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out.csv").display().to_string();
    let script = "CREATE NAMESPACE app;\nCREATE SHARED TABLE app.notes (id INT PRIMARY KEY);\n\\f\n";
    let (code, _, said) = sql(&server, &[], script.as_bytes()).await;
    assert!(code == 1 && said.contains("<stdin>:3: error: \\f is not a command"), "{said}");

    let within = "SELECT 1 AS a\n\\dt app.*\n, 2 AS b\n;\nSELECT 3 AS c \\g\nSELECT 4 AS d \\gx\n\\g\n";
    let out = shown(&server, &["-f", "csv"], within).await;
    let tables = "namespace,name,type\napp,notes,BASE TABLE\n";
    assert_eq!(out, format!("{tables}a,b\n1,2\nc\n3\nd\n4\nd\n4\n"));

    let into = format!("\\o {file}\nSELECT 1 AS a;\n\\o\nSELECT 2 AS b;\n\\watch 0 2\n\\echo done\n");
    assert_eq!(shown(&server, &["-f", "csv"], &into).await, "b\n2\nb\n2\nb\n2\ndone\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a\n1\n");

    let records = "\\x\nSELECT 1 AS a, NULL AS b;\n\\x off\n\\pset null n/a\n\\pset format csv\nSELECT 1 AS a;\n\\c app\n\\d notes\n";
    let out = shown(&server, &[], records).await;
    assert!(out.starts_with("─[ record 1 ]\na │ 1\nb │ ∅\n(1 row)\na\n1\n"), "{out}");
    assert!(out.contains("\nid,"), "{out}");

    for leave in ["exit\nSELECT 1;", "quit;\nSELECT 1;", "SELECT\n\\q\n1;"] {
        assert_eq!(shown(&server, &[], leave).await, "", "{leave}");
    }
    assert!(shown(&server, &[], "help\n").await.contains("\\watch"));
    assert!(shown(&server, &[], "\\h create user\n").await.contains("WITH PASSWORD"));
    let (code, _, said) = sql(&server, &[], b"\\copy app.notes FROM 'a.csv'\n").await;
    assert!(code == 1 && said.contains("kalamdb import a.csv INTO app.notes"), "{said}");
}

#[tokio::test]
async fn the_environment_says_where_and_who() {
    let server = Server::start().await;
    let run = async |url: Option<&str>, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kalamdb"));
        command.arg("sql").args(arguments).stdin(Stdio::null());
        command.env("KALAMDB_USER", "root").env("KALAMDB_PASSWORD", ROOT_PASSWORD);
        if let Some(url) = url {
            command.env("KALAMDB_URL", url);
        }
        let output = in_time("the command", command.output()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let select = ["-f", "csv", "-c", "SELECT 1 AS a", "-c", "SELECT CURRENT_USER() AS b"];
    let expected = (0, "a\n1\nb\nroot\n".to_owned(), String::new());
    let url = server.url();
    let bare = url.strip_prefix("http://").unwrap();
    assert_eq!(run(Some(&url), &select).await, expected);
    assert_eq!(run(Some(bare), &select).await, expected);
    assert_eq!(run(None, &[&["--url", bare], &select[..]].concat()).await, expected);
    let (code, _, said) = run(Some("postgres://localhost"), &select).await;
    assert!(code == 2 && said.contains("postgres:// is not spoken here"), "{code} {said}");
    let (code, _, said) = run(Some("127.0.0.1:1"), &select).await;
    assert!(code == 1 && said.contains("kalamdb serve"), "{code} {said}");
}
