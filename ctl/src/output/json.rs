//! JSON as calicoctl prints it.

use serde_json::Value;
use weir_common::printable_json;
use weir_common::resources::escape_as_go;

/// The value over several lines, indented by two spaces, with what Go escapes
/// escaped, and what is not printable.
pub fn document(value: &Value) -> String {
    printable_json(&escape_as_go(&format!("{value:#}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_indented_and_escaped() {
        assert_eq!(
            document(&json!({"b": "a && c", "a": {}})),
            "{\n  \"b\": \"a \\u0026\\u0026 c\",\n  \"a\": {}\n}\n"
        );
    }
}
