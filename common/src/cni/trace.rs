//! The trace that a runtime's call is part of (W3C Trace Context), which libcni's
//! callers pass in `TRACEPARENT` and `TRACESTATE`.

/// The longest `tracestate` that is passed on, in bytes (W3C Trace Context,
/// section 3.3.1.5).
const MAX_STATE: usize = 512;

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace: 32 hexadecimal digits.
    pub trace_id: String,
    /// The caller's span in it: 16 hexadecimal digits.
    pub parent_id: String,
    /// What the systems that take part keep with it; empty if nothing.
    pub state: String,
}

impl TraceContext {
    /// Understands the two variables. `None` for what is not a context: a trace that
    /// is broken is as good as none (section 3.2.2).
    pub fn parse(parent: &str, state: &str) -> Option<Self> {
        let mut parts = parent.split('-');
        let (version, trace_id, parent_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hexadecimal = |text: &str, length: usize| {
            text.len() == length
                && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_id = |text: &str, length| {
            is_hexadecimal(text, length) && text.bytes().any(|byte| byte != b'0')
        };
        // Later versions may have more parts.
        let whole = version != "00" || parts.next().is_none();
        let valid = is_hexadecimal(version, 2)
            && version != "ff"
            && is_id(trace_id, 32)
            && is_id(parent_id, 16)
            && is_hexadecimal(flags, 2);
        let state_is_valid =
            state.len() <= MAX_STATE && state.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        (valid && whole).then(|| Self {
            trace_id: trace_id.to_owned(),
            parent_id: parent_id.to_owned(),
            state: if state_is_valid { state.to_owned() } else { String::new() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_taken_apart() {
        let context = TraceContext::parse(PARENT, "congo=t61rcWkgMzE").unwrap();
        assert_eq!(context.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent_id, "00f067aa0ba902b7");
        assert_eq!(context.state, "congo=t61rcWkgMzE");
        assert_eq!(TraceContext::parse(PARENT, "a=\n").unwrap().state, "");
        assert!(TraceContext::parse(&PARENT.replacen("00", "01", 1), "").is_some());
    }

    #[test]
    fn what_is_no_context_is_none() {
        for parent in [
            String::new(),
            "00".to_owned(),
            PARENT.to_uppercase(),
            PARENT.replacen("00", "ff", 1),
            format!("{PARENT}-00"),
            PARENT.replace("00f067aa0ba902b7", "0000000000000000"),
            PARENT.replace("4bf92f3577b34da6", "4bf92f3577b34da"),
            PARENT.replace("-01", "-é"),
        ] {
            assert_eq!(TraceContext::parse(&parent, ""), None, "{parent}");
        }
    }
}
