//! Tables without borders, as Go's `text/tabwriter` lays them out with a
//! minimal width of 5 and a padding of 3: every cell, the last one too, is
//! padded.

const MINIMAL_WIDTH: usize = 5;
const PADDING: usize = 3;

/// The table with its header, followed by an empty line, as calicoctl prints
/// it.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
            let widest = cells.fold(width(title), usize::max);
            (widest + PADDING).max(MINIMAL_WIDTH)
        })
        .collect();
    let mut text = line(header.iter().copied(), &widths);
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str), &widths));
    }
    text.push('\n');
    text
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line: String =
        cells.zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    line.push('\n');
    line
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_padded() {
        let rows = vec![vec!["n".to_owned(), String::new()], vec!["ärger".into(), "x".into()]];
        assert_eq!(table(&["NAME", "A"], &rows), "NAME    A    \nn            \närger   x    \n\n");
    }
}
