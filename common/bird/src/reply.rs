//! BIRD's replies: lines with codes, the last one marked by a space behind its code.

/// The most bytes of one reply: `show protocols all` of a thousand sessions has two million.
const LARGEST_REPLY: usize = 16 << 20;

/// A line of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyLine {
    /// What kind of line it is: 0xxx fine, 1xxx data, 2xxx a heading, 8xxx an error at run time,
    /// 9xxx a syntax error.
    pub code: u16,
    /// The rest.
    pub text: String,
}

/// A whole reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Its lines. The last one says how it ended.
    pub lines: Vec<ReplyLine>,
}

/// A line that is not one of a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// It has no code.
    #[error("{0:?} has no reply code")]
    NoCode(String),
    /// There are too many of them.
    #[error("a reply of more than {LARGEST_REPLY} bytes")]
    TooLarge,
}

impl Reply {
    /// The code of the last line.
    pub fn code(&self) -> u16 {
        self.lines.last().map_or(0, |line| line.code)
    }

    /// The text of the last line.
    pub fn text(&self) -> &str {
        self.lines.last().map_or("", |line| &line.text)
    }

    /// Whether BIRD did not do as it was told.
    pub fn is_error(&self) -> bool {
        self.code() >= 8000
    }

    /// The texts of the lines with this code.
    pub fn with_code(&self, code: u16) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(move |line| line.code == code).map(|line| line.text.as_str())
    }
}

/// A reply that is being read, line by line.
#[derive(Debug, Default)]
pub struct ReplyParser {
    reply: Reply,
    size: usize,
}

impl ReplyParser {
    /// Takes a line without its end, and returns whether it was the last one.
    pub fn push(&mut self, line: &str) -> Result<bool, ReplyError> {
        self.size += line.len() + 1;
        if self.size > LARGEST_REPLY {
            return Err(ReplyError::TooLarge);
        }
        // A line that goes on begins with a space and has the code of the one before.
        if let (Some(rest), Some(last)) = (line.strip_prefix(' '), self.reply.lines.last()) {
            let code = last.code;
            self.reply.lines.push(ReplyLine { code, text: rest.to_owned() });
            return Ok(false);
        }
        let (code, rest) = line.split_at_checked(4).ok_or_else(|| no_code(line))?;
        let is_number = code.bytes().all(|byte| byte.is_ascii_digit());
        let code = code.parse().ok().filter(|_| is_number).ok_or_else(|| no_code(line))?;
        let is_last = match rest.bytes().next() {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(no_code(line)),
        };
        let text = rest.get(1..).unwrap_or_default().to_owned();
        self.reply.lines.push(ReplyLine { code, text });
        Ok(is_last)
    }

    /// The reply, after its last line.
    pub fn finish(self) -> Reply {
        self.reply
    }
}

fn no_code(line: &str) -> ReplyError {
    ReplyError::NoCode(line.chars().take(80).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The reply that these lines are.
    pub fn reply(text: &str) -> Reply {
        let mut parser = ReplyParser::default();
        let ends: Vec<bool> = text.lines().map(|line| parser.push(line).unwrap()).collect();
        assert_eq!(ends.iter().position(|is_last| *is_last), Some(ends.len() - 1), "{text}");
        parser.finish()
    }

    #[test]
    fn a_line_that_goes_on_has_the_code_before() {
        let reply =
            reply("1000-BIRD 2.0.12\n1011-Router ID is 10.0.1.11\n Hostname is n1\n0013 up");
        let codes: Vec<u16> = reply.lines.iter().map(|line| line.code).collect();
        assert_eq!(codes, [1000, 1011, 1011, 13]);
        assert_eq!((reply.code(), reply.text(), reply.is_error()), (13, "up", false));
        let of_router: Vec<&str> = reply.with_code(1011).collect();
        assert_eq!(of_router, ["Router ID is 10.0.1.11", "Hostname is n1"]);
    }

    #[test]
    fn the_end_of_a_reply_may_have_no_text() {
        assert_eq!(reply("0000").code(), 0);
        assert_eq!(reply("0000 ").text(), "");
        assert!(reply("8002 x.conf:1:2 syntax error").is_error());
    }

    #[test]
    fn what_has_no_code_is_refused() {
        for line in ["", "abc", " text", "12-x", "12345 x", "+123 x", "00é x"] {
            assert!(ReplyParser::default().push(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_reply_without_end_is_given_up() {
        let mut parser = ReplyParser::default();
        let line = format!("1000-{}", "x".repeat(1 << 20));
        let refused = (0..20).find_map(|_| parser.push(&line).err());
        assert_eq!(refused, Some(ReplyError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(lines in proptest::collection::vec("\\PC{0,12}", 0..8)) {
            let mut parser = ReplyParser::default();
            for line in lines {
                let _ = parser.push(&line);
            }
        }
    }
}
