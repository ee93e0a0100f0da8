//! Tables in a box of `+`, `-` and `|`, as calicoctl's IPAM commands print
//! them: titles centred, numbers to the right, all else to the left.

use super::records;
use super::style::Style;
use super::width::{padding, width, widths};

/// The table with its header; records where there is no room for a table.
pub fn table(header: &[&str], rows: &[Vec<String>], style: Style) -> String {
    let rows = &super::printable_cells(rows);
    let widths: Vec<usize> = widths(header, rows).collect();
    let rule: String =
        widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>()
            + "+\n";
    if !style.has_room_for(rule.chars().count() - 1) {
        return records::text(header, rows, style);
    }
    let titles = header.iter().zip(&widths);
    let titles = line(titles.map(|(title, width)| style.title(&centred(title, *width))));
    let body: String = rows
        .iter()
        .map(|row| line(row.iter().zip(&widths).map(|(cell, width)| aligned(cell, *width))))
        .collect();
    format!("{rule}{titles}{rule}{body}{rule}")
}

fn line(cells: impl Iterator<Item = String>) -> String {
    cells.map(|cell| format!("| {cell} ")).collect::<String>() + "|\n"
}

fn centred(text: &str, within: usize) -> String {
    let gap = within.saturating_sub(width(text));
    let left = gap / 2;
    format!("{}{text}{}", " ".repeat(left), " ".repeat(gap - left))
}

fn aligned(text: &str, within: usize) -> String {
    let padding = padding(text, within);
    if is_number(text) { padding + text } else { text.to_owned() + &padding }
}

/// Digits, perhaps with a sign and decimals.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    match text.split_once('.') {
        Some((whole, decimals)) => digits(whole) && digits(decimals),
        None => digits(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_centred_and_numbers_stand_right() {
        let rows = vec![vec!["a longer cell".to_owned(), "7".into()]];
        assert_eq!(
            table(&["WHAT", "COUNT"], &rows, Style::default()),
            "+---------------+-------+\n\
             |     WHAT      | COUNT |\n\
             +---------------+-------+\n\
             | a longer cell |     7 |\n\
             +---------------+-------+\n"
        );
    }

    #[test]
    fn addresses_are_no_numbers() {
        assert!(is_number("-12.5") && is_number("0"));
        assert!(
            !is_number("10.7.0.1") && !is_number("1.8e+19") && !is_number("") && !is_number("-")
        );
    }
}
