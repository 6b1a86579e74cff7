//! Rows of texts as an aligned table or as records.
//!
//! The module owns column widths: it cuts the widest columns first where a table is wider than the terminal.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr};

/// The narrowest that a column is cut to.
const COLUMN_WIDTH_MIN: usize = 8;
/// The width of what stands at both sides of a cell, with the line between two cells.
const MARGIN_WIDTH: usize = 3;

/// An empty table in the style of this program; numbers go right through [`right_aligned`].
pub(crate) fn new_table<I: IntoIterator<Item = S>, S: Into<String>>(header: I) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.into_iter().map(|name| Cell::new(name.into())));
    table
}

/// A cell whose text ends at the column's right edge.
pub(crate) fn right_aligned(text: impl Into<String>) -> Cell {
    Cell::new(text.into()).set_alignment(CellAlignment::Right)
}

/// Names of columns, and rows with a text for each.
pub(super) struct Sheet {
    pub(super) names: Vec<String>,
    pub(super) is_numeric: Vec<bool>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Sheet {
    /// The widths of its columns.
    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.names.iter().map(|name| text_width(name)).collect();
        for row in &self.rows {
            for (width, text) in widths.iter_mut().zip(row) {
                *width = text_width(text).max(*width);
            }
        }
        widths
    }

    /// The width of the whole table.
    pub(super) fn width(&self) -> usize {
        self.widths().iter().map(|width| width + MARGIN_WIDTH).sum::<usize>() + 1
    }

    /// A table no wider than that, as far as cutting values makes it so.
    pub(super) fn aligned(&self, width: Option<usize>) -> String {
        let limit = match width {
            Some(width) if self.width() > width => {
                widest(&self.widths(), width.saturating_sub(1 + MARGIN_WIDTH * self.names.len()))
            }
            _ => usize::MAX,
        };
        let mut table = new_table(self.names.iter().map(|name| cut(name, limit)));
        for row in &self.rows {
            table.add_row(row.iter().zip(&self.is_numeric).map(|(text, is_numeric)| {
                let text = cut(text, limit);
                if *is_numeric { right_aligned(text) } else { Cell::new(text) }
            }));
        }
        format!("{table}\n")
    }

    /// A line for each value, with a rule before each row.
    pub(super) fn records(&self) -> String {
        let name_width = self.names.iter().map(|name| text_width(name)).max().unwrap_or_default();
        let value_width = self.rows.iter().flatten().map(|text| text_width(text)).max().unwrap_or_default();
        let rule_width = (name_width + MARGIN_WIDTH + value_width).min(72);
        let mut out = String::new();
        for (at, row) in self.rows.iter().enumerate() {
            let title = format!("─[ record {} ]", at + 1);
            let rule = "─".repeat(rule_width.saturating_sub(title.width()));
            // A string takes everything.
            let _ = writeln!(out, "{title}{rule}");
            for (name, text) in self.names.iter().zip(row) {
                for (nth, line) in text.split('\n').enumerate() {
                    let name = if nth == 0 { name.replace('\n', " ") } else { String::new() };
                    let padding = " ".repeat(name_width.saturating_sub(name.width()));
                    let _ = writeln!(out, "{}", format!("{name}{padding} │ {line}").trim_end());
                }
            }
        }
        out
    }
}

/// The most that columns may be wide so that together they are no wider than `space`.
fn widest(widths: &[usize], space: usize) -> usize {
    let most = widths.iter().copied().max().unwrap_or_default();
    let fits = |limit: usize| widths.iter().map(|width| (*width).min(limit)).sum::<usize>() <= space;
    (COLUMN_WIDTH_MIN..=most).rev().find(|limit| fits(*limit)).unwrap_or(COLUMN_WIDTH_MIN)
}

/// The width of a text's widest line.
fn text_width(text: &str) -> usize {
    text.split('\n').map(UnicodeWidthStr::width).max().unwrap_or_default()
}

/// A text whose lines are no wider than that.
fn cut(text: &str, limit: usize) -> String {
    if text_width(text) <= limit {
        return text.to_owned();
    }
    text.split('\n').map(|line| cut_line(line, limit)).collect::<Vec<_>>().join("\n")
}

fn cut_line(line: &str, limit: usize) -> String {
    if line.width() <= limit {
        return line.to_owned();
    }
    let mut shown = String::new();
    let mut width = 1;
    for character in line.chars() {
        width += character.width().unwrap_or_default();
        if width > limit {
            break;
        }
        shown.push(character);
    }
    shown + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_columns_are_cut_first() {
        assert_eq!(widest(&[5, 100, 40], 60), 27);
        assert_eq!(widest(&[5, 100, 40], 130), 85);
        assert_eq!(widest(&[5, 100, 40], 10), COLUMN_WIDTH_MIN);
        assert_eq!(widest(&[], 10), COLUMN_WIDTH_MIN);
    }

    #[test]
    fn a_cut_text_is_no_wider_whatever_its_letters_are() {
        assert_eq!(cut("12345678", 8), "12345678");
        assert_eq!(cut("123456789", 8), "1234567…");
        assert_eq!(cut("日本語日本語", 8), "日本語…");
        assert_eq!(cut("short\nand a long line", 8), "short\nand a l…");
    }

    #[test]
    fn lines_of_a_value_stand_under_each_other() {
        let sheet = Sheet {
            names: vec!["a".to_owned(), "long".to_owned()],
            is_numeric: vec![true, false],
            rows: vec![vec!["1".to_owned(), "one\ntwo".to_owned()]],
        };
        assert_eq!(sheet.records(), "─[ record 1 ]\na    │ 1\nlong │ one\n     │ two\n");
    }
}
