//! How an error is told with its causes.

use crate::printable::printable_lines;

/// An error and its causes in one line, each behind a colon. A cause that the text
/// already ends with is not repeated. What is not printable is escaped.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let told = causes.map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    });
    printable_lines(&told)
}
