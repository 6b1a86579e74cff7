//! Fields of a client's message that this server does not know: newer clients send more, and others misspell.
//!
//! They are passed over, and the answer names them (`warnings`).

use std::fmt;

use kalamdb_core::nearest_name;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Warnings in one answer at the most.
const WARNINGS_MAX: usize = 10;
/// Characters of a field's name that are shown.
const NAME_CHARS_MAX: usize = 64;

/// The names of the first fields of an object that are none of those it has.
#[derive(Debug, Default)]
pub(crate) struct UnknownFields(Vec<String>);

impl<'de> Deserialize<'de> for UnknownFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = UnknownFields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<UnknownFields, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = fields.next_entry::<String, IgnoredAny>()? {
                    if names.len() < WARNINGS_MAX {
                        names.push(name);
                    }
                }
                Ok(UnknownFields(names))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

impl UnknownFields {
    /// Adds a warning for each, with the known field that is most like it. `object` says where they stand.
    pub(crate) fn warn(&self, object: &str, known: &[&str], warnings: &mut Vec<String>) {
        for name in &self.0 {
            if warnings.len() >= WARNINGS_MAX {
                return;
            }
            let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
            let nearest = nearest_name(&shown.to_lowercase(), known.iter().copied());
            let instead = match nearest {
                Some(near) => format!("did you mean {near}?"),
                None => format!("the fields are {}", known.join(", ")),
            };
            warnings.push(format!("{object} has the unknown field {shown:?}, which is ignored; {instead}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_named_with_the_closest_known_one() {
        let unknown: UnknownFields =
            serde_json::from_str(r#"{"lastRows": 1, "zzzzzz": [1, {"a": 2}]}"#).unwrap();
        let mut warnings = Vec::new();
        unknown.warn("options", &["batch_size", "last_rows"], &mut warnings);
        assert_eq!(
            warnings,
            [
                "options has the unknown field \"lastRows\", which is ignored; did you mean last_rows?",
                "options has the unknown field \"zzzzzz\", which is ignored; the fields are batch_size, last_rows",
            ]
        );
    }

    #[test]
    fn very_many_unknown_fields_make_few_warnings() {
        let fields: Vec<String> = (0..1000).map(|at| format!("\"{}{at}\": 1", "x".repeat(500))).collect();
        let unknown: UnknownFields = serde_json::from_str(&format!("{{{}}}", fields.join(","))).unwrap();
        let mut warnings = Vec::new();
        unknown.warn("the message", &["type"], &mut warnings);
        assert_eq!(warnings.len(), WARNINGS_MAX);
        assert!(warnings.iter().all(|warning| warning.len() < 200));
    }
}
