//! Numbers of addresses, from 1 to 2^128.

/// The digits of a number that are shown.
const DIGITS: usize = 5;

/// A number with five significant digits, as C's `%.5g` writes it: `65536`,
/// `1.8447e+19`.
pub fn short(number: f64) -> String {
    let scientific = format!("{number:.*e}", DIGITS - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..5).contains(&exponent) {
        let decimals = usize::try_from(4 - exponent).unwrap_or(0);
        return without_trailing_zeros(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_trailing_zeros(mantissa), exponent.unsigned_abs())
}

/// A part of a whole with its percentage: `25 (78%)`.
pub fn share(part: f64, whole: f64) -> String {
    let percentage = if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
    format!("{} ({percentage:.0}%)", short(part))
}

fn without_trailing_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cut_to_five_digits() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (250.0, "250"),
            (65_536.0, "65536"),
            (100_000.0, "1e+05"),
            (262_144.0, "2.6214e+05"),
            (16_777_216.0, "1.6777e+07"),
            (2_f64.powi(64), "1.8447e+19"),
            (99_999.7, "1e+05"),
        ];
        for (number, text) in cases {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn halves_are_rounded_to_even() {
        assert_eq!(share(1.0, 8.0), "1 (12%)");
        assert_eq!(share(7.0, 8.0), "7 (88%)");
        assert_eq!(share(25.0, 32.0), "25 (78%)");
        assert_eq!(share(0.0, 0.0), "0 (0%)");
    }
}
