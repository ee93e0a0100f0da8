//! Tables without borders, as Go's `text/tabwriter` lays them out with a
//! minimal width of 5 and a padding of 3: every cell, the last one too, is
//! padded.

use super::records;
use super::style::Style;
use super::width::{padding, widths};

const MINIMAL_WIDTH: usize = 5;
const PADDING: usize = 3;

/// The table with its header, followed by an empty line, as calicoctl prints
/// it; records where there is no room for a table.
pub fn table(header: &[&str], rows: &[Vec<String>], style: Style) -> String {
    let rows = &super::printable_cells(rows);
    let padded = |width| usize::max(width + PADDING, MINIMAL_WIDTH);
    let widths: Vec<usize> = widths(header, rows).map(padded).collect();
    // The padding behind the last column may be cut off.
    if !style.has_room_for(widths.iter().sum::<usize>().saturating_sub(PADDING)) {
        return records::text(header, rows, style);
    }
    let mut text = style.title(line(header.iter().copied(), &widths).trim_end_matches('\n'));
    text.push('\n');
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str), &widths));
    }
    text.push('\n');
    text
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line: String =
        cells.zip(widths).map(|(cell, width)| cell.to_owned() + &padding(cell, *width)).collect();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_without_room_becomes_records() {
        let rows = vec![vec!["a".to_owned(), "b".into()]];
        let style = |width| Style { colour: true, width: Some(width) };
        let table = |width| table(&["FIRST", "SECOND"], &rows, style(width));
        assert_eq!(table(14), "\u{1b}[1mFIRST   SECOND   \u{1b}[0m\na       b        \n\n");
        assert!(table(13).contains("\u{1b}[1mSECOND\u{1b}[0m  b\n"));
    }

    #[test]
    fn a_cell_may_be_of_any_width() {
        let rows = vec![vec!["x".repeat(100_000), String::new()], vec!["y".into(), "z".into()]];
        let text = table(&["NAME", "A"], &rows, Style::default());
        assert_eq!(text.trim_end().lines().count(), 3);
        assert!(text.lines().take(3).all(|line| line.len() == 100_008));
    }

    #[test]
    fn every_cell_is_padded() {
        let rows = vec![vec!["n".to_owned(), String::new()], vec!["ärger".into(), "x".into()]];
        assert_eq!(
            table(&["NAME", "A"], &rows, Style::default()),
            "NAME    A    \nn            \närger   x    \n\n"
        );
    }
}
