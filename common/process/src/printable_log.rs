//! Log records for terminals.

use std::io::{Result, Write};

use weir_common::{printable, printable_json};

/// Writes records of a log, each of which comes in one piece, so that whoever looks at them on a
/// terminal sees what they say: they have names and messages of others in them.
#[derive(Debug)]
pub enum PrintableLog<W> {
    /// Records of text. Each becomes one line.
    Text(W),
    /// Records of JSON. They mean the same.
    Json(W),
}

impl<W: Write> Write for PrintableLog<W> {
    fn write(&mut self, record: &[u8]) -> Result<usize> {
        let text = String::from_utf8_lossy(record);
        match self {
            Self::Text(to) => {
                let line = printable(text.trim_end_matches('\n'));
                to.write_all(format!("{line}\n").as_bytes())?;
            }
            Self::Json(to) => to.write_all(printable_json(&text).as_bytes())?,
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Text(to) | Self::Json(to) => to.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stay_on_their_line() {
        let (mut text, mut json) = (Vec::new(), Vec::new());
        PrintableLog::Text(&mut text).write_all(b"handle a\x1b[2J\nb\r\n").unwrap();
        PrintableLog::Json(&mut json).write_all("{\"a\":\"\u{9b}\"}\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "handle a\\u{1b}[2J\\nb\\r\n");
        assert_eq!(String::from_utf8(json).unwrap(), "{\"a\":\"\\u009b\"}\n");
    }
}
