//! The rules of the project that a program can check: edges between crates, where RocksDB may stand, sizes of files, and
//! that README's commands exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

/// Which of our crates each may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("log-format", &[]),
    ("kalamdb-log", &["log-format"]),
    ("kalamdb-store", &["log-format"]),
    ("kalamdb-sql", &["log-format"]),
    ("kalamdb-query", &["log-format"]),
    ("kalamdb-core", &["log-format", "kalamdb-log", "kalamdb-store", "kalamdb-sql", "kalamdb-query"]),
    ("kalamdb-server", &["kalamdb-core"]),
    ("kalamdb-cli", &["kalamdb-core", "kalamdb-server"]),
    (
        "kalamdb-benches",
        &["log-format", "kalamdb-log", "kalamdb-store", "kalamdb-sql", "kalamdb-core", "kalamdb-server"],
    ),
];

/// Who may know RocksDB. The benches measure against it.
const MAY_USE_ROCKSDB: &[&str] = &["kalamdb-store", "kalamdb-sql", "kalamdb-benches"];

/// The one module with `unsafe` in it.
const UNSAFE_MODULE: &str = "crates/kalamdb-store/src/cut.rs";

/// Lines of a Rust file.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Our packages, as cargo sees them.
fn packages() -> Vec<Json> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Json = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn files(under: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                files(&path, extension, found);
            }
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
}

fn rust_files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&root(), "rs", &mut found);
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    found.iter().map(|path| (relative(path), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn edges_between_crates_point_where_they_may() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let ours: BTreeSet<&str> = allowed.keys().copied().collect();
    let packages = packages();
    let found: BTreeSet<&str> = packages.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(found, ours, "the workspace has other crates than this test knows");
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let on = dependency["name"].as_str().unwrap();
            assert!(
                !ours.contains(on) || allowed[name].contains(&on),
                "{name} depends on {on}, which ARCHITECTURE.md does not allow"
            );
        }
    }
}

#[test]
fn rocksdb_stands_where_it_may() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let uses = package["dependencies"].as_array().unwrap().iter().any(|it| it["name"] == "rocksdb");
        assert!(!uses || MAY_USE_ROCKSDB.contains(&name), "{name} depends on rocksdb");
    }
    for (path, text) in rust_files() {
        let may = ["crates/kalamdb-store/", "crates/kalamdb-sql/", "benches/", "tests/tidy.rs"];
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            assert!(
                may.iter().any(|prefix| path.starts_with(prefix)) || !line.to_lowercase().contains("rocksdb"),
                "{path} names RocksDB: {line}"
            );
        }
    }
}

#[test]
fn files_are_of_a_size_to_read() {
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines, more than {LINES_MAX}: is it one thing?");
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[ig", "nore"), concat!("unimpl", "emented!")];
    for (path, text) in rust_files() {
        for mark in marks {
            assert!(!text.contains(mark), "{path} has a {mark}");
        }
        if path.starts_with("tests/") {
            assert!(!text.contains(concat!("thread::sl", "eep")), "{path} sleeps");
        }
        let unsafe_code = text.lines().any(|line| {
            let line = line.trim_start();
            !line.starts_with("//")
                && (line.contains(concat!("unsafe", " {")) || line.contains(concat!("unsafe", " fn")))
        });
        assert!(!unsafe_code || path == UNSAFE_MODULE, "{path} has unsafe code");
    }
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in rust_files() {
        let documented = text.starts_with("//!") || text.starts_with("#![doc") || path.ends_with("tests.rs");
        assert!(documented, "{path} has no header that says what it owns");
    }
}

#[test]
fn the_root_holds_what_it_should() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "crates",
        "log-format",
        "benches",
        "tests",
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs",
        "findings",
        "justfile",
        "clippy.toml",
        "rustfmt.toml",
        "deny.toml",
    ];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let generated = matches!(name.as_str(), "target" | "kalamdb-data");
        assert!(
            name.starts_with('.') || generated || allowed.contains(&name.as_str()),
            "{name} stands in the root"
        );
    }
}

/// README's shell commands that run the binary name subcommands that are there.
#[test]
fn readme_commands_exist() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for needed in ["cargo run --release -- demo", "cargo test --workspace"] {
        assert!(readme.contains(needed), "README does not name `{needed}`");
    }
    let mut checked = 0;
    for line in readme.lines() {
        let Some(arguments) =
            line.strip_prefix("cargo run --release -- ").or_else(|| line.strip_prefix("kalamdb "))
        else {
            continue;
        };
        let words =
            arguments.split_whitespace().take_while(|word| word.chars().all(|it| it.is_ascii_lowercase()));
        let output =
            Command::new(env!("CARGO_BIN_EXE_kalamdb")).args(words.take(2)).arg("--help").output().unwrap();
        assert!(output.status.success(), "README's `{line}` does not exist");
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        let flags = arguments.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        for flag in flags.map(|flag| flag.split('=').next().unwrap()) {
            assert!(help.contains(&format!("--{flag}")), "README's `{line}`: there is no --{flag}");
        }
        checked += 1;
    }
    assert!(checked >= 4, "README names too few commands: {checked}");
}
