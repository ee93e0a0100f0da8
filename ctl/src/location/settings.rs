//! The settings that say where a datastore is, in all their spellings.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// What one source says about the datastore.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `datastore_type`
    pub kind: Option<String>,
    /// `etcd_endpoints`
    pub endpoints: Vec<String>,
    /// `etcd_ca_cert_file`
    pub authority: Option<PathBuf>,
    /// `etcd_cert_file`
    pub certificate: Option<PathBuf>,
    /// `etcd_key_file`
    pub key: Option<PathBuf>,
    /// `etcdCACert`, as text
    pub inline_authority: Option<String>,
    /// `etcdCert`, as text
    pub inline_certificate: Option<String>,
    /// `etcdKey`, as text
    pub inline_key: Option<String>,
    /// `etcd_username`
    pub username: Option<String>,
    /// `etcd_password`
    pub password: Option<String>,
    /// `datastore_path`, for the embedded one
    pub path: Option<PathBuf>,
}

impl Settings {
    /// The settings among these names and values. The spelling of names does
    /// not matter: `ETCD_ENDPOINTS` (environment), `etcd_endpoints` (CNI
    /// configuration) and `etcdEndpoints` (calicoctl's file) are one. Empty
    /// values are none; other names are passed over. So are certificates and keys as text,
    /// which calicoctl too takes from its file only.
    pub fn from_pairs<N: AsRef<str>>(pairs: impl IntoIterator<Item = (N, String)>) -> Self {
        let mut settings = Self::default();
        for (name, value) in named(pairs) {
            settings.set(&name, value);
        }
        settings
    }

    /// The settings in Weir's own file or in calicoctl's, which has them under
    /// `spec`.
    ///
    /// # Errors
    /// When the text is not a YAML mapping.
    pub fn from_yaml(text: &str) -> Result<Self, serde_norway::Error> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let document = serde_json::Map::<String, Value>::deserialize(
            serde_norway::Deserializer::from_str(text),
        )?;
        let nested = document.get("spec").map(texts).unwrap_or_default();
        let mut settings = Self::default();
        for (name, value) in named(texts(&Value::Object(document)).into_iter().chain(nested)) {
            match name.as_str() {
                "etcdcacert" => settings.inline_authority = Some(value),
                "etcdcert" => settings.inline_certificate = Some(value),
                "etcdkey" => settings.inline_key = Some(value),
                name => settings.set(name, value),
            }
        }
        Ok(settings)
    }

    /// Whether they say where the datastore is, or of which type.
    pub fn says_where(&self) -> bool {
        self.kind.is_some() || !self.endpoints.is_empty() || self.path.is_some()
    }

    /// These settings, completed by others.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let own = self.clone();
        Self {
            kind: own.kind,
            endpoints: own.endpoints,
            authority: own.authority.or_else(|| other.authority.clone()),
            certificate: own.certificate.or_else(|| other.certificate.clone()),
            key: own.key.or_else(|| other.key.clone()),
            username: own.username.or_else(|| other.username.clone()),
            password: own.password.or_else(|| other.password.clone()),
            path: own.path,
            inline_authority: own.inline_authority,
            inline_certificate: own.inline_certificate,
            inline_key: own.inline_key,
        }
    }

    fn set(&mut self, name: &str, value: String) {
        match name {
            "datastoretype" => self.kind = Some(value),
            "etcdendpoints" => {
                let endpoints = value.split(',').map(str::trim).filter(|part| !part.is_empty());
                self.endpoints = endpoints.map(str::to_owned).collect();
            }
            "etcdcacertfile" => self.authority = Some(value.into()),
            "etcdcertfile" => self.certificate = Some(value.into()),
            "etcdkeyfile" => self.key = Some(value.into()),
            "etcdusername" => self.username = Some(value),
            "etcdpassword" => self.password = Some(value),
            "datastorepath" => self.path = Some(value.into()),
            _ => {}
        }
    }
}

impl std::fmt::Debug for Settings {
    /// Leaves out what is secret, and the endpoints, which may hold a password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("kind", &self.kind)
            .field("username", &self.username)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Names in the one spelling in which they are compared, with values that are not empty.
fn named<N: AsRef<str>>(
    pairs: impl IntoIterator<Item = (N, String)>,
) -> impl Iterator<Item = (String, String)> {
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    pairs.map(|(name, value)| (name.as_ref().replace('_', "").to_ascii_lowercase(), value))
}

/// The texts among an object's values; a list of texts as one.
fn texts(object: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            Some(items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
        }
        _ => None,
    };
    let entries = object.as_object().into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}
