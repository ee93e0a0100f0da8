//! Reading a selector's text.
//!
//! ```text
//! or        = and { "||" and }
//! and       = condition { "&&" condition }
//! condition = { "!" } ( "(" or ")" | "all()" | "global()" | "has(" key ")" | key comparison )
//! ```

use super::SelectorError;
use super::expression::{Expression, Operator};

/// How deep parentheses may nest: beyond any use, and far from the end of the
/// stack.
const DEEPEST_NESTING: usize = 100;

/// Reads a whole text as one selector.
pub(super) fn parse(text: &str) -> Result<Expression, SelectorError> {
    let mut parser = Parser { text, offset: 0 };
    parser.skip_blanks();
    if parser.rest().is_empty() {
        return Ok(Expression::All);
    }
    let expression = parser.alternatives(0)?;
    if parser.rest().is_empty() {
        Ok(expression)
    } else {
        Err(parser.error("\"&&\", \"||\" or the end"))
    }
}

/// A text and how far it has been read. Between calls the offset stands
/// before something other than a blank.
struct Parser<'a> {
    text: &'a str,
    offset: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.offset..]
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.offset += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    /// Reads `token` and the blanks behind it, if it is next.
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.offset += token.len();
            self.skip_blanks();
        }
        found
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.take(token) { Ok(()) } else { Err(self.error(expected)) }
    }

    fn error(&self, expected: &'static str) -> SelectorError {
        let rest = self.rest();
        let found = if rest.is_empty() {
            "the end".to_owned()
        } else {
            format!("{:?}", rest.chars().take(20).collect::<String>()).replace("\\'", "'")
        };
        let position = self.text[..self.offset].chars().count();
        SelectorError { position, expected, found }
    }

    fn alternatives(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.conjunction(depth)?];
        while self.rest().starts_with('|') {
            self.expect("||", "\"||\"")?;
            parts.push(self.conjunction(depth)?);
        }
        Ok(one_or_all(parts, Expression::Or))
    }

    fn conjunction(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.condition(depth)?];
        while self.rest().starts_with('&') {
            self.expect("&&", "\"&&\"")?;
            parts.push(self.condition(depth)?);
        }
        Ok(one_or_all(parts, Expression::And))
    }

    fn condition(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let expression = self.plain_condition(depth)?;
        Ok(if negated { Expression::Not(Box::new(expression)) } else { expression })
    }

    fn plain_condition(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        if depth > DEEPEST_NESTING {
            return Err(self.error("fewer nested parentheses"));
        }
        if self.take("(") {
            let inner = self.alternatives(depth + 1)?;
            self.expect(")", "\")\"")?;
            return Ok(inner);
        }
        if self.take("all(") {
            return self.expect(")", "\")\"").map(|()| Expression::All);
        }
        if self.take("global(") {
            return self.expect(")", "\")\"").map(|()| Expression::Global);
        }
        if self.take("has(") {
            let key = self.key("a label name")?;
            return self.expect(")", "\")\"").map(|()| Expression::Has(key));
        }
        let key = self.key("a condition: has(label), all() or a label name")?;
        self.comparison(key)
    }

    /// The operators need no blank behind them (`a in{'b'}`), as in Calico.
    fn comparison(&mut self, key: String) -> Result<Expression, SelectorError> {
        let rest = self.rest();
        if rest.starts_with('=') {
            self.expect("==", "\"==\"")?;
            self.compare(key, Operator::Equal)
        } else if self.take("!=") {
            self.compare(key, Operator::NotEqual)
        } else if self.take("contains") {
            self.compare(key, Operator::Contains)
        } else if self.take("starts") {
            self.expect("with", "\"with\"")?;
            self.compare(key, Operator::StartsWith)
        } else if self.take("ends") {
            self.expect("with", "\"with\"")?;
            self.compare(key, Operator::EndsWith)
        } else if self.take("not") {
            self.expect("in", "\"in\"")?;
            Ok(Expression::NotIn { key, values: self.values()? })
        } else if self.take("in") {
            Ok(Expression::In { key, values: self.values()? })
        } else {
            Err(self.error("an operator: ==, !=, in, not in, contains, starts with, ends with"))
        }
    }

    fn compare(&mut self, key: String, operator: Operator) -> Result<Expression, SelectorError> {
        let value = self.value("a value in quotes")?;
        Ok(Expression::Compare { key, operator, value })
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        self.expect("{", "\"{\"")?;
        let mut values = Vec::new();
        while !self.take("}") {
            values.push(self.value("a value in quotes or \"}\"")?);
            if !self.take(",") {
                self.expect("}", "\",\" or \"}\"")?;
                break;
            }
        }
        Ok(values)
    }

    fn key(&mut self, expected: &'static str) -> Result<String, SelectorError> {
        let rest = self.rest();
        let end = rest.find(|character| !is_key_character(character)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error(expected));
        }
        self.offset += end;
        self.skip_blanks();
        Ok(rest[..end].to_owned())
    }

    fn value(&mut self, expected: &'static str) -> Result<String, SelectorError> {
        let rest = self.rest();
        let quote = rest.chars().next().filter(|first| matches!(first, '\'' | '"'));
        let value = quote.and_then(|quote| rest[1..].split_once(quote)).map(|(value, _)| value);
        let value = value.ok_or_else(|| self.error(expected))?;
        self.offset += value.len() + 2;
        self.skip_blanks();
        Ok(value.to_owned())
    }
}

fn is_key_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '/' | '-')
}

fn one_or_all(mut parts: Vec<Expression>, all: fn(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1 { parts.remove(0) } else { all(parts) }
}
