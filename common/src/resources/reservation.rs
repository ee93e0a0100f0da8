//! Reservations: addresses that are never assigned automatically.

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::cidr;
use super::error::{Error, FieldError};
use super::fields::{self, Fields, Problems};

/// Addresses that no attachment gets unless it asks for them by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpReservation {
    /// The name under which it is stored.
    pub name: String,
    /// The reserved ranges; a single address is one of full length.
    pub reserved_cidrs: Vec<IpNet>,
}

impl IpReservation {
    /// Reads a reservation from its stored JSON (v3). Unknown fields are
    /// passed over.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        Self::from_object(&fields::object("IPReservation", value)?)
    }

    /// As [`IpReservation::from_json`], from JSON that is parsed already.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let resource = Fields::new(object, "");
        let name = fields::name(&resource, &mut problems).unwrap_or_default();
        let spec = resource.object("spec", "IPReservation.Spec", &mut problems);
        let mut reserved_cidrs = Vec::new();
        for text in spec.texts("reservedCIDRs", "ReservedCIDRs", &mut problems) {
            match cidr::parse_range(text) {
                Ok(cidr) => reserved_cidrs.push(cidr),
                Err(why) => problems.add(
                    FieldError::new(spec.path("ReservedCIDRs"), "must be an address or a CIDR")
                        .value(text)
                        .advice(why.advice("write for example 10.1.0.7 or 10.1.0.0/30")),
                ),
            }
        }
        problems.into_result(Some(Self { name, reserved_cidrs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(cidrs: &str) -> Result<IpReservation, Error> {
        let value =
            format!(r#"{{"metadata":{{"name":"kept"}},"spec":{{"reservedCIDRs":{cidrs}}}}}"#);
        IpReservation::from_json(value.as_bytes())
    }

    #[test]
    fn addresses_and_ranges_are_read() {
        let reservation = stored(r#"["10.1.0.0/30", "10.1.1.7", "fd00:7::/126"]"#).unwrap();
        let cidrs: Vec<_> = reservation.reserved_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.1.0.0/30", "10.1.1.7/32", "fd00:7::/126"]);
    }

    #[test]
    fn other_things_are_named() {
        let zeros = stored(r#"["010.33.0.0/16"]"#).unwrap_err().to_string();
        assert!(zeros.contains("without leading zeros, for example 10.33.0.0/16"), "{zeros}");
        let error = stored(r#"["10.1.0.0/30", "10.1.1"]"#).unwrap_err().to_string();
        assert!(error.contains("IPReservation.Spec.ReservedCIDRs = '10.1.1'"), "{error}");
        assert!(stored(r#""10.1.0.0/30""#).unwrap_err().to_string().contains("a list of texts"));
    }
}
