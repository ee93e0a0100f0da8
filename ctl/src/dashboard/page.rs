//! The page as one text, and what its browser may do with it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The page with its style and its script.
pub fn text() -> String {
    PAGE.replacen("<!-- style -->", STYLE, 1).replacen("<!-- script -->", SCRIPT, 1)
}

/// The Content-Security-Policy: the style and the script are these and no others.
pub fn policy() -> String {
    format!(
        "default-src 'none'; connect-src 'self'; img-src data:; script-src '{}'; style-src '{}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        source(SCRIPT),
        source(STYLE)
    )
}

/// What names a text in a policy (Content Security Policy Level 3, section 2.3.1).
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole() {
        for marker in ["<!-- style -->", "<!-- script -->"] {
            assert_eq!(PAGE.matches(marker).count(), 1, "{marker}");
        }
        let text = text();
        assert!(text.contains(&format!("<style>{STYLE}</style>")));
        assert!(text.contains(&format!("<script>{SCRIPT}</script>")));
        assert!(!STYLE.contains("</style") && !SCRIPT.contains("</script"));
    }

    /// The digest of the empty text, as RFC 6234's programs print it.
    #[test]
    fn sources_are_digests() {
        assert_eq!(source(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }
}
