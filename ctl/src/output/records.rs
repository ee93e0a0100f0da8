//! Tables that are too wide for the terminal: each row as a record with a line
//! for each column.

use super::style::Style;
use super::width::width;

/// The rows, each followed by an empty line.
pub fn text(header: &[&str], rows: &[Vec<String>], style: Style) -> String {
    let widest = header.iter().map(|title| width(title)).max().unwrap_or_default();
    let record = |row: &Vec<String>| {
        let line = |(title, cell): (&&str, &String)| {
            let line = format!("{}  {cell}", style.title(&format!("{title:<widest$}")));
            format!("{}\n", line.trim_end())
        };
        header.iter().zip(row).map(line).collect::<String>() + "\n"
    };
    rows.iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_a_record() {
        let rows = vec![vec!["blue".to_owned(), "10.7.0.0/16".into()], vec!["x".into(), "".into()]];
        assert_eq!(
            text(&["NAME", "SUBNET"], &rows, Style::default()),
            "NAME    blue\nSUBNET  10.7.0.0/16\n\nNAME    x\nSUBNET\n\n"
        );
    }
}
