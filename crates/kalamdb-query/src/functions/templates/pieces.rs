//! Templates of times, taken apart.

/// Patterns, longer ones before those they begin with. Each is also one in lower case.
const PATTERNS: [&str; 55] = [
    "A.D.", "A.M.", "AD", "AM", "B.C.", "BC", "CC", "DAY", "DDD", "DD", "DY", "D", "FF1", "FF2", "FF3",
    "FF4", "FF5", "FF6", "HH24", "HH12", "HH", "IDDD", "ID", "IW", "IYYY", "IYY", "IY", "I", "J", "MI", "MM",
    "MONTH", "MON", "MS", "OF", "P.M.", "PM", "Q", "RM", "SSSSS", "SSSS", "SS", "TZH", "TZM", "TZ", "US",
    "WW", "W", "Y,YYY", "YYYY", "YYY", "YY", "Y", "FX", "SP",
];

/// The letters of a word that stands for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    Upper,
    Lower,
    Capitalized,
}

/// A pattern and what stands around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    /// The pattern in upper case.
    pub(super) name: &'static str,
    pub(super) letters: Letters,
    /// Whether blanks and leading zeros are left out (`FM`).
    pub(super) is_plain: bool,
    /// Whether the suffix of an ordinal number follows (`TH`, `th`).
    pub(super) ordinal: Option<Letters>,
}

/// A piece of a template.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Pattern(Pattern),
    Text(String),
}

/// The pattern at the beginning of a text.
fn pattern_at(rest: &str) -> Option<(&'static str, Letters)> {
    let capitalized = [("Month", "MONTH"), ("Mon", "MON"), ("Day", "DAY"), ("Dy", "DY")];
    if let Some((_, name)) = capitalized.into_iter().find(|(written, _)| rest.starts_with(written)) {
        return Some((name, Letters::Capitalized));
    }
    let is_here = |name: &&&'static str| {
        rest.get(..name.len()).is_some_and(|head| head == **name || head == name.to_ascii_lowercase())
    };
    let name = PATTERNS.iter().find(is_here)?;
    Some((*name, if rest.starts_with(*name) { Letters::Upper } else { Letters::Lower }))
}

/// Takes a template apart.
pub(super) fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = template;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let (text, behind) = quoted(rest.get(1..).unwrap_or_default());
            pieces.push(Piece::Text(text));
            rest = behind;
            continue;
        }
        let plain = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm"));
        let is_plain = plain.is_some();
        let behind = plain.unwrap_or(rest);
        // Names by `TM` are English too, without blanks.
        let translated = behind.strip_prefix("TM").or_else(|| behind.strip_prefix("tm"));
        let behind = translated.unwrap_or(behind);
        if let Some((name, letters)) = pattern_at(behind) {
            rest = behind.get(name.len()..).unwrap_or_default();
            let ordinal = match rest.get(..2) {
                Some("TH") => Some(Letters::Upper),
                Some("th") => Some(Letters::Lower),
                _ => None,
            };
            if ordinal.is_some() {
                rest = rest.get(2..).unwrap_or_default();
            }
            let is_plain = is_plain || translated.is_some() && matches!(name, "MONTH" | "DAY");
            if !matches!(name, "FX" | "SP") {
                pieces.push(Piece::Pattern(Pattern { name, letters, is_plain, ordinal }));
            }
            continue;
        }
        let behind = if is_plain { plain.unwrap_or_default() } else { rest };
        let behind = behind.strip_prefix('\\').filter(|it| it.starts_with('"')).unwrap_or(behind);
        let Some(first) = behind.chars().next() else { break };
        match pieces.last_mut() {
            Some(Piece::Text(text)) => text.push(first),
            _ => pieces.push(Piece::Text(first.to_string())),
        }
        rest = behind.get(first.len_utf8()..).unwrap_or_default();
    }
    pieces
}

/// The text up to a quotation mark, in which a backslash takes the next character as it is, and what follows the mark.
pub(super) fn quoted(rest: &str) -> (String, &str) {
    let mut text = String::new();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (text, rest.get(at + 1..).unwrap_or_default()),
            '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
            other => text.push(other),
        }
    }
    (text, "")
}

/// The suffix of an ordinal number, by its digits.
pub(super) fn ordinal_suffix(digits: &str, letters: Letters) -> &'static str {
    let mut last = digits.bytes().rev();
    let suffix = match (last.next(), last.next()) {
        (_, Some(b'1')) => ("TH", "th"),
        (Some(b'1'), _) => ("ST", "st"),
        (Some(b'2'), _) => ("ND", "nd"),
        (Some(b'3'), _) => ("RD", "rd"),
        _ => ("TH", "th"),
    };
    if letters == Letters::Upper { suffix.0 } else { suffix.1 }
}
