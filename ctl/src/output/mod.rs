//! How results look: tables, YAML and JSON, as calicoctl prints them.

pub mod boxed;
pub mod columns;
pub mod json;
pub mod number;
mod records;
mod style;
mod width;
pub mod yaml;

pub use style::Style;

use weir_common::printable;

/// A line of a result: what is not printable in it is escaped.
pub fn line(text: &str) -> String {
    format!("{}\n", printable(text))
}

/// The cells of a table, made printable.
fn printable_cells(rows: &[Vec<String>]) -> Vec<Vec<String>> {
    let row = |row: &Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect();
    rows.iter().map(row).collect()
}
