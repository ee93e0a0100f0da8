//! How wide things are on a terminal.

/// The width of a text in characters.
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// What is missing of `text` up to a width, in spaces. The standard library's own padding ends
/// the program beyond 65,535.
pub fn padding(text: &str, within: usize) -> String {
    " ".repeat(within.saturating_sub(width(text)))
}

/// The width of each column of a table: that of its widest cell, or of its
/// title.
pub fn widths(header: &[&str], rows: &[Vec<String>]) -> impl Iterator<Item = usize> {
    header.iter().enumerate().map(|(column, title)| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
        cells.fold(width(title), usize::max)
    })
}
