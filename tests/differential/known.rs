//! Known differences between KalamDB's and PostgreSQL's answers; the table in docs/sql.md has their reasons.

/// The two databases' answers to a statement, as text: an error begins with `error: `.
pub(crate) struct Answers<'a> {
    pub(crate) ours: &'a str,
    pub(crate) theirs: &'a str,
}

/// An intended difference.
pub(crate) struct Known {
    /// The first cell of its row in the table of docs/sql.md, which has the reason.
    pub(crate) row: &'static str,
    pub(crate) applies: fn(&Answers<'_>) -> bool,
}

/// The intended differences, and how they are told from others.
pub(crate) const KNOWN: &[Known] = &[
    Known {
        row: "integer literals",
        applies: |it| {
            let is_narrow = ["integer out of range", "smallint out of range"];
            is_narrow.iter().any(|error| it.theirs.contains(error)) && !it.ours.starts_with("error: ")
        },
    },
    Known {
        row: "FULL JOIN without an equality",
        applies: |it| it.theirs.contains("FULL JOIN is only supported"),
    },
    Known {
        row: "FETCH … WITH TIES, GROUPING SETS in a correlated subquery with `grouping()` or outer columns in the sets, a subquery on both \
              sides of an outer join in its ON",
        applies: |it| it.ours.contains("a subquery of columns of both sides in the ON of an outer join"),
    },
    Known {
        row: "subqueries in RETURNING and ON CONFLICT",
        applies: |it| it.ours.contains("a subquery in RETURNING or ON CONFLICT"),
    },
    Known {
        row: "a literal in quotes",
        applies: |it| {
            it.theirs.contains("has type unknown") || it.theirs.contains("must appear in argument list")
        },
    },
];

/// Statements that KalamDB refuses and PostgreSQL does not fail a run. They do not: DataFusion has no plan for some of the forms that
/// are made, and says so; a refusal is counted and printed, as it misleads nobody, and may not become common.
pub(crate) const REFUSALS_FAIL: bool = false;
/// Whether the generator emits LATERAL subqueries.
pub(crate) const LATERAL: bool = true;
/// Whether it emits subqueries in ON.
pub(crate) const SUBQUERIES_IN_ON: bool = true;
/// Whether it emits ROLLUP, CUBE and GROUPING SETS.
pub(crate) const GROUPING_SETS: bool = true;
/// Whether it emits ORDER BY above set operations.
pub(crate) const ORDER_OF_UNIONS: bool = true;
/// Whether it emits window frames in GROUPS.
pub(crate) const GROUPS_FRAMES: bool = true;
/// Whether rows are written with zeros that have a sign.
pub(crate) const NEGATIVE_ZERO: bool = true;
/// Whether it emits `CASE value WHEN …`.
pub(crate) const CASE_OF_VALUE: bool = true;
/// Whether it emits `string_agg(DISTINCT …)`.
pub(crate) const STRING_AGG_DISTINCT: bool = true;
/// Whether it emits RIGHT JOIN.
pub(crate) const RIGHT_JOINS: bool = true;

/// Fails where a known difference is not in the table of docs/sql.md.
pub(crate) fn check() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sql.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("## Differences from PostgreSQL").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    for known in KNOWN {
        assert!(section.contains(&format!("\n| {} | ", known.row)), "docs/sql.md has no row {:?}", known.row);
    }
}
