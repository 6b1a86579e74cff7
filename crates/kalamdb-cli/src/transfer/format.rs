//! What a file holds, told by its name or by `--format`, and how it is compressed.

use std::path::Path;

use anyhow::bail;

/// The forms of rows in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Comma-separated values with a header line (RFC 4180)
    Csv,
    /// A JSON object a line
    Jsonl,
    /// Apache Parquet
    Parquet,
}

/// How a file of text is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// Not at all.
    None,
    /// `.zst`
    Zstd,
    /// `.gz`
    Gzip,
}

/// What a file of this name holds; `given` decides where it is given. The name `-` is standard input or output.
pub(super) fn of_file(file: &Path, given: Option<Format>) -> anyhow::Result<(Format, Compression)> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let (stem, compression) = match (name.strip_suffix(".zst"), name.strip_suffix(".gz")) {
        (Some(stem), _) => (stem, Compression::Zstd),
        (None, Some(stem)) => (stem, Compression::Gzip),
        (None, None) => (name.as_str(), Compression::None),
    };
    let told = match stem.rsplit_once('.').map(|(_, extension)| extension) {
        Some("csv") => Some(Format::Csv),
        Some("jsonl" | "ndjson") => Some(Format::Jsonl),
        Some("parquet") => Some(Format::Parquet),
        _ => None,
    };
    match given.or(told) {
        Some(Format::Parquet) if compression != Compression::None => {
            bail!("Parquet is compressed inside: a file {name} is not read or written")
        }
        Some(format) => Ok((format, compression)),
        None if name == "-" => bail!("nothing tells the format: say --format csv or --format jsonl"),
        None => bail!(
            "{} ends in none of .csv, .jsonl, .ndjson (each also with .zst or .gz), .parquet: say --format",
            file.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_in_a_file() {
        let told = |name: &str| of_file(Path::new(name), None).ok();
        assert_eq!(told("a/b.csv"), Some((Format::Csv, Compression::None)));
        assert_eq!(told("B.JSONL.ZST"), Some((Format::Jsonl, Compression::Zstd)));
        assert_eq!(told("b.ndjson.gz"), Some((Format::Jsonl, Compression::Gzip)));
        assert_eq!(told("b.parquet"), Some((Format::Parquet, Compression::None)));
        for none in ["b.parquet.gz", "b", "b.json", "-", "csv", "b.zst", ""] {
            assert_eq!(told(none), None, "{none}");
        }
        let said = |name: &str| of_file(Path::new(name), Some(Format::Csv)).ok();
        assert_eq!(said("-"), Some((Format::Csv, Compression::None)));
        assert_eq!(said("dump.txt.zst"), Some((Format::Csv, Compression::Zstd)));
    }
}
