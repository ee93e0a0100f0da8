//! The configuration of IPAM: one value for the whole cluster.

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::error::{Error, FieldError};
use super::fields::{self, Fields, Problems};
use super::kind::IPAM_CONFIG_NAME;

/// How addresses are assigned in the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamConfig {
    /// Whether a node may use only blocks of its own, never borrow.
    pub strict_affinity: bool,
    /// Whether a node may claim blocks.
    pub auto_allocate_blocks: bool,
    /// The most blocks a node may hold; 0 for no limit.
    pub max_blocks_per_host: u32,
    /// The value as it was stored, with the fields that Weir does not know.
    pub stored: Map<String, Value>,
}

impl Default for IpamConfig {
    /// What holds when nothing is stored (`libcalico-go/lib/ipam/ipam.go`,
    /// GetIPAMConfig).
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 0,
            stored: Map::new(),
        }
    }
}

impl IpamConfig {
    /// Reads the stored value. A field that is absent from it is false or 0,
    /// as Calico leaves out fields with these values.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        let stored = fields::object("IPAMConfig", value)?;
        let mut problems = Problems::default();
        let config = Fields::new(&stored, "IPAMConfig");
        let strict_affinity = config.boolean("strict_affinity", "StrictAffinity", &mut problems);
        let auto_allocate_blocks =
            config.boolean("auto_allocate_blocks", "AutoAllocateBlocks", &mut problems);
        let max_blocks_per_host = max_blocks("maxBlocksPerHost", &config, &mut problems);
        problems.into_result(Some(Self {
            strict_affinity: strict_affinity.unwrap_or(false),
            auto_allocate_blocks: auto_allocate_blocks.unwrap_or(false),
            max_blocks_per_host,
            stored,
        }))
    }

    /// The value to store: what was stored, with these settings.
    pub fn to_json(&self) -> Vec<u8> {
        let mut stored = self.stored.clone();
        let flag = |value: bool| value.then_some(Value::Bool(true));
        set(&mut stored, "strict_affinity", flag(self.strict_affinity));
        set(&mut stored, "auto_allocate_blocks", flag(self.auto_allocate_blocks));
        let limit = (self.max_blocks_per_host > 0).then(|| self.max_blocks_per_host.into());
        set(&mut stored, "maxBlocksPerHost", limit);
        Value::Object(stored).to_string().into_bytes()
    }

    /// How long a released address is kept back (`ipCooldownSeconds`), as newer versions of
    /// Calico do, which allow 1200 seconds at most; Weir does not set it.
    pub fn cooldown(&self) -> SignedDuration {
        let seconds = self.stored.get("ipCooldownSeconds").and_then(Value::as_i64);
        SignedDuration::from_secs(seconds.unwrap_or_default().clamp(0, 1200))
    }

    /// Checks that the settings go together (`libcalico-go/lib/ipam/ipam.go`,
    /// SetIPAMConfig).
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let mut problems = Problems::default();
        if !self.strict_affinity && !self.auto_allocate_blocks {
            problems.add(
                FieldError::new(
                    "IPAMConfig.AutoAllocateBlocks",
                    "Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time",
                )
                .value(false)
                .advice("set one of them to true"),
            );
        }
        if !self.strict_affinity && self.max_blocks_per_host > 0 {
            problems.add(
                FieldError::new(
                    "IPAMConfig.MaxBlocksPerHost",
                    "MaxBlocksPerHost requires StrictAffinity to be enabled",
                )
                .value(self.max_blocks_per_host)
                .advice("set strictAffinity to true as well"),
            );
        }
        problems.into_result(Some(()))
    }
}

/// Reads the v3 form (`kind: IPAMConfiguration`).
pub(super) fn from_document(document: &Map<String, Value>) -> Result<IpamConfig, Error> {
    let mut problems = Problems::default();
    let resource = Fields::new(document, "");
    let name = fields::name(&resource, &mut problems);
    if let Some(name) = name.filter(|name| name != IPAM_CONFIG_NAME) {
        let reason = "there is one IPAM configuration, and it is called default";
        problems.add(FieldError::new("Metadata.Name", reason).value(name).advice("write default"));
    }
    let spec = resource.object("spec", "IPAMConfiguration.Spec", &mut problems);
    let strict_affinity = spec.boolean("strictAffinity", "StrictAffinity", &mut problems);
    let auto_allocate_blocks =
        spec.boolean("autoAllocateBlocks", "AutoAllocateBlocks", &mut problems);
    let max_blocks_per_host = max_blocks("maxBlocksPerHost", &spec, &mut problems);
    problems.into_result(Some(IpamConfig {
        strict_affinity: strict_affinity.unwrap_or(false),
        auto_allocate_blocks: auto_allocate_blocks.unwrap_or(true),
        max_blocks_per_host,
        stored: Map::new(),
    }))
}

/// The `spec` of the v3 form.
pub(super) fn to_spec(config: &IpamConfig) -> Map<String, Value> {
    let mut spec = Map::new();
    spec.insert("strictAffinity".into(), config.strict_affinity.into());
    if config.max_blocks_per_host > 0 {
        spec.insert("maxBlocksPerHost".into(), config.max_blocks_per_host.into());
    }
    spec.insert("autoAllocateBlocks".into(), config.auto_allocate_blocks.into());
    spec
}

/// Reads the limit of blocks a host, which cannot be negative.
fn max_blocks(key: &str, config: &Fields<'_>, problems: &mut Problems) -> u32 {
    let Some(limit) = config.integer(key, "MaxBlocksPerHost", problems) else {
        return 0;
    };
    u32::try_from(limit).unwrap_or_else(|_| {
        let reason = "must be a number of blocks, 0 to 4294967295";
        problems.add(FieldError::new(config.path("MaxBlocksPerHost"), reason).value(limit));
        0
    })
}

/// Sets a field where it stands, adds it at the end, or takes it out.
fn set(object: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => object.insert(key.to_owned(), value),
        None => object.shift_remove(key),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_of_a_stored_value_are_off() {
        let config = IpamConfig::from_json(br#"{"strict_affinity":true}"#).unwrap();
        assert!(config.strict_affinity && !config.auto_allocate_blocks);
        assert_eq!(config.max_blocks_per_host, 0);
    }

    #[test]
    fn unknown_fields_survive_a_change() {
        let stored =
            br#"{"auto_allocate_blocks":true,"ipCooldownSeconds":30,"maxBlocksPerHost":3}"#;
        let mut config = IpamConfig::from_json(stored).unwrap();
        assert_eq!(config.to_json(), stored);
        config.strict_affinity = true;
        config.max_blocks_per_host = 0;
        assert_eq!(
            String::from_utf8(config.to_json()).unwrap(),
            r#"{"auto_allocate_blocks":true,"ipCooldownSeconds":30,"strict_affinity":true}"#
        );
    }

    #[test]
    fn settings_must_go_together() {
        let off = IpamConfig { auto_allocate_blocks: false, ..IpamConfig::default() };
        assert!(off.check().unwrap_err().to_string().contains("Cannot disable"));
        let limited = IpamConfig { max_blocks_per_host: 2, ..IpamConfig::default() };
        assert!(limited.check().unwrap_err().to_string().contains("MaxBlocksPerHost = '2'"));
        assert!(IpamConfig::default().check().is_ok());
        assert!(IpamConfig::from_json(br#"{"maxBlocksPerHost":-1}"#).is_err());
    }
}
