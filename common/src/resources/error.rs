//! What can be wrong with a resource.

use std::fmt::{Display, Formatter};

use crate::printable::printable;

/// Why a text or a stored value is not a valid resource.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stored value is not JSON.
    #[error("the stored {kind} is not JSON; look at it with the datastore's own client")]
    NotJson {
        /// The kind expected (`IPPool`).
        kind: &'static str,
        /// Where reading stopped.
        #[source]
        cause: serde_json::Error,
    },
    /// A stored value is JSON but not an object.
    #[error("the stored {kind} is {found} instead of an object")]
    NotAnObject {
        /// The kind expected (`IPPool`).
        kind: &'static str,
        /// What was found, in JSON's words.
        found: &'static str,
    },
    /// Fields have values that they cannot have. Never empty.
    #[error("{}", list(.0))]
    Invalid(Vec<FieldError>),
}

impl Error {
    /// Whether the text says what to do about all that is wrong.
    pub fn has_advice(&self) -> bool {
        match self {
            Self::NotJson { .. } | Self::NotAnObject { .. } => false,
            Self::Invalid(fields) => fields.iter().all(|field| field.advice.is_some()),
        }
    }
}

/// One field with a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field as Calico names it in its messages (`IPPool.Spec.CIDR`).
    pub field: String,
    /// The value as written; `None` when there is none.
    pub value: Option<String>,
    /// What is wrong, in Calico's words where Calico has a word for it.
    pub reason: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl FieldError {
    /// An error without a value and without advice.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), value: None, reason: reason.into(), advice: None }
    }

    /// The same error, showing this value.
    #[must_use]
    pub fn value(mut self, value: impl Display) -> Self {
        self.value = Some(value.to_string());
        self
    }

    /// The same error, saying what to do.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl Display for FieldError {
    /// Calico's form (`libcalico-go/lib/errors/errors.go`), with the advice
    /// behind it.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&printable(&self.field))?;
        if let Some(value) = &self.value {
            write!(formatter, " = '{}'", printable(value))?;
        }
        write!(formatter, " ({})", printable(&self.reason))?;
        match &self.advice {
            Some(advice) => write!(formatter, "; {}", printable(advice)),
            None => Ok(()),
        }
    }
}

fn list(fields: &[FieldError]) -> String {
    if let [field] = fields {
        return format!("error with field {field}");
    }
    let lines = fields.iter().map(|field| format!("-  {field}\n"));
    format!("error with the following fields:\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_reported_in_calicos_form() {
        let one = FieldError::new("IPPool.Spec.CIDR", "IPPool CIDR must be specified");
        assert_eq!(
            Error::Invalid(vec![one.clone()]).to_string(),
            "error with field IPPool.Spec.CIDR (IPPool CIDR must be specified)"
        );
        let two = FieldError::new("A", "b").value(3).advice("do so");
        assert_eq!(
            Error::Invalid(vec![one, two]).to_string(),
            "error with the following fields:\n\
             -  IPPool.Spec.CIDR (IPPool CIDR must be specified)\n\
             -  A = '3' (b); do so\n"
        );
    }
}
