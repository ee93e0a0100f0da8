//! The versions of the specification.

use super::error::{Code, Error};

/// A version of the CNI specification that Weir speaks, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpecVersion {
    /// 0.1.0, also meant when a configuration names none.
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.3.0: several addresses and interfaces.
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0
    V1_0_0,
    /// 1.1.0: GC and STATUS.
    V1_1_0,
}

impl SpecVersion {
    /// All versions, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest: what is answered in as long as no other version is asked for.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as written in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Understands `cniVersion`; it must be one of [`SpecVersion::ALL`] to the
    /// letter (skel: `pkg/version/plugin.go`).
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`] with the versions there are.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::new(
                Code::IncompatibleVersion,
                format!("cniVersion {text:?} is not supported; use one of {known}"),
            )
            .with_details(format!("supported versions: {known}"))
        })
    }
}
