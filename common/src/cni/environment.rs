//! The variables of a call.

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::{Code, Error};
use super::trace::TraceContext;

/// The variables that name something: nothing else may be taken for it.
const NAMES: [&str; 3] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];

/// What the runtime wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CniCommand {
    /// Attach the container.
    Add,
    /// Detach it.
    Del,
    /// See whether it is as ADD made it.
    Check,
    /// Remove what no attachment needs.
    Gc,
    /// Say whether ADD would work.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl CniCommand {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Add, "ADD"),
        (Self::Del, "DEL"),
        (Self::Check, "CHECK"),
        (Self::Gc, "GC"),
        (Self::Status, "STATUS"),
        (Self::Version, "VERSION"),
    ];

    /// The command as written in `CNI_COMMAND`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// Understands `CNI_COMMAND`.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] for an unknown command.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(command, _)| *command).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            Error::new(
                Code::InvalidEnvironment,
                format!("CNI_COMMAND {text:?} is unknown; it is one of {names}"),
            )
        })
    }

    /// Variables this command cannot do without (spec: "Parameters").
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc => &["CNI_PATH"],
            Self::Status | Self::Version => &[],
        }
    }
}

/// The checked variables of a call. Text is empty where a variable is not set:
/// libcni sends empty ones for those that do not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_NETNS`, the path of the container's network namespace, as given.
    pub netns: String,
    /// `CNI_IFNAME`
    pub interface: String,
    /// `CNI_ARGS`
    pub arguments: String,
    /// `CNI_PATH`, the directories that hold plugins.
    pub path: Vec<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: the plugin's own namespace is meant (a variable of skel's).
    pub netns_override: bool,
    /// The trace that the call is part of. A delegated plugin inherits the
    /// variables.
    pub trace: Option<TraceContext>,
}

impl Environment {
    /// Checks the variables for a command; `variable` looks one up.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] naming all variables that are missing, or
    /// the one whose value cannot be used.
    pub fn read(
        command: CniCommand,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let text = |name: &str| {
            variable(name).map_or_else(String::new, |value| value.to_string_lossy().into_owned())
        };
        let missing: Vec<&str> =
            command.required().iter().copied().filter(|name| text(name).is_empty()).collect();
        if !missing.is_empty() {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!(
                    "{} needs {}, which the runtime did not set",
                    command.as_str(),
                    missing.join(", ")
                ),
            ));
        }
        let is_text = |name: &&str| variable(name).is_none_or(|value| value.to_str().is_some());
        if let Some(name) = NAMES.iter().find(|name| !is_text(name)) {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!("{name} {:?} is invalid: it is not UTF-8", text(name)),
            ));
        }
        let environment = Self {
            container_id: text("CNI_CONTAINERID"),
            netns: text("CNI_NETNS"),
            interface: text("CNI_IFNAME"),
            arguments: text("CNI_ARGS"),
            path: std::env::split_paths(&variable("CNI_PATH").unwrap_or_default())
                .filter(|directory| !directory.as_os_str().is_empty())
                .collect(),
            netns_override: matches!(
                text("CNI_NETNS_OVERRIDE").to_lowercase().as_str(),
                "true" | "1"
            ),
            trace: TraceContext::parse(&text("TRACEPARENT"), &text("TRACESTATE")),
        };
        environment.check()?;
        if command == CniCommand::Add {
            environment.check_new()?;
        }
        Ok(environment)
    }

    fn check(&self) -> Result<(), Error> {
        if !self.container_id.is_empty() && !is_identifier(&self.container_id) {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!(
                    "CNI_CONTAINERID {:?} is invalid: it begins with a letter or digit and goes on \
                     with letters, digits, '_', '.', '-'",
                    self.container_id
                ),
            ));
        }
        if !self.interface.is_empty()
            && let Some(reason) = interface_name_flaw(&self.interface)
        {
            return Err(Error::new(
                Code::InvalidEnvironment,
                format!("CNI_IFNAME {:?} is invalid: {reason}", self.interface),
            ));
        }
        Ok(())
    }

    /// What only something new must keep to: what is there must still be deleted.
    fn check_new(&self) -> Result<(), Error> {
        let invalid = |message| Err(Error::new(Code::InvalidEnvironment, message));
        if self.container_id.len() > LONGEST_CONTAINER_ID {
            let begin: String = self.container_id.chars().take(16).collect();
            return invalid(format!(
                "CNI_CONTAINERID {begin}… is invalid: it has {} bytes, and {LONGEST_CONTAINER_ID} \
                 are the most",
                self.container_id.len()
            ));
        }
        match new_interface_flaw(&self.interface) {
            Some(reason) => {
                invalid(format!("CNI_IFNAME {:?} is invalid: {reason}", self.interface))
            }
            None => Ok(()),
        }
    }
}

/// The longest id of a new container, in bytes. Runtimes write 64; Linux holds 255 in the alias
/// of a link.
const LONGEST_CONTAINER_ID: usize = 255;

/// Whether the text may name a container, a network or a node
/// (skel: `pkg/utils/utils.go`).
pub fn is_identifier(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.bytes().all(allowed)
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Why the kernel would not take the text as it is for the name of a new interface
/// (`dev_alloc_name` in `net/core/dev.c`; `net/ipv4/devinet.c` has parameters for all and for
/// new interfaces under two names).
fn new_interface_flaw(name: &str) -> Option<&'static str> {
    if name.contains('%') {
        Some("the kernel would replace '%'")
    } else if name == "all" || name == "default" {
        Some("the kernel has its parameters for all interfaces under that name")
    } else {
        None
    }
}

/// Why the text cannot name an interface (skel: `pkg/utils/utils.go`, after the
/// kernel's dev_valid_name).
fn interface_name_flaw(name: &str) -> Option<&'static str> {
    if name.len() > 15 {
        Some("it is longer than 15 bytes")
    } else if name == "." || name == ".." {
        Some("'.' and '..' are not names")
    } else if name.contains(|letter: char| letter == '/' || letter == ':' || letter.is_whitespace())
    {
        Some("'/', ':' and white space are not allowed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn read(command: CniCommand, variables: &[(&str, &str)]) -> Result<Environment, Error> {
        Environment::read(command, |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn all_missing_variables_are_named() {
        let error = read(CniCommand::Add, &[("CNI_NETNS", "")]).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
            assert!(error.message.contains(name), "{error}");
        }
        assert!(read(CniCommand::Status, &[]).is_ok());
        assert!(read(CniCommand::Del, &[("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "eth0")]).is_ok());
    }

    #[test]
    fn names_that_are_no_text_are_refused() {
        for odd in NAMES {
            let variable = |name: &str| {
                let value = if name == odd { b"a\xff".as_slice() } else { b"a" };
                Some(OsString::from_vec(value.to_vec()))
            };
            let error = Environment::read(CniCommand::Add, variable).unwrap_err();
            assert_eq!(error.code, Code::InvalidEnvironment);
            assert!(error.message.contains(odd) && error.message.contains("UTF-8"), "{error}");
        }
    }

    #[test]
    fn what_is_new_keeps_to_more_than_what_is_deleted() {
        let check = |command, id: &str, interface: &str| {
            let all = [("CNI_CONTAINERID", id), ("CNI_IFNAME", interface), ("CNI_NETNS", "/n")];
            read(command, &all).map_err(|error| error.message)
        };
        let long = "x".repeat(100_000);
        for (id, interface) in
            [(long.as_str(), "eth0"), ("c", "eth%d"), ("c", "all"), ("c", "default")]
        {
            let refused = check(CniCommand::Add, id, interface).unwrap_err();
            assert!(refused.len() < 200 && refused.contains("is invalid"), "{refused}");
            assert!(check(CniCommand::Del, id, interface).is_ok(), "{interface}");
        }
        assert!(check(CniCommand::Add, &long[..255], "eth0").is_ok());
    }

    #[test]
    fn identifiers_and_interface_names_are_checked() {
        let check = |id: &str, interface: &str| {
            read(CniCommand::Del, &[("CNI_CONTAINERID", id), ("CNI_IFNAME", interface)]).is_ok()
        };
        assert!(check("A-1_b.c", "eth0"));
        for id in ["-a", "a/b", "a b", "ä", "../x"] {
            assert!(!check(id, "eth0"), "{id:?}");
        }
        for interface in ["sixteen-bytes-xx", ".", "..", "a/b", "a:b", "a\u{2003}b"] {
            assert!(!check("c", interface), "{interface:?}");
        }
    }
}
