//! The settings that say where a datastore is, in all their spellings.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};
use weir_common::nearest;

/// Weir's own configuration file.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/weir/weirctl.yaml";

/// The settings that a file may have and, in upper case, the environment.
const NAMES: [&str; 11] = [
    "datastore_path",
    "datastore_type",
    "etcd_authority",
    "etcd_ca_cert_file",
    "etcd_cert_file",
    "etcd_discovery_srv",
    "etcd_endpoints",
    "etcd_key_file",
    "etcd_password",
    "etcd_scheme",
    "etcd_username",
];

/// Those that only a file may have.
const INLINE: [&str; 3] = ["etcdCACert", "etcdCert", "etcdKey"];

/// calicoctl's, about Kubernetes (`libcalico-go/lib/apiconfig/apiconfig.go`, KubeConfig).
const KUBERNETES: [&str; 13] = [
    "calicoAPIGroup",
    "k8sAPIEndpoint",
    "k8sAPIToken",
    "k8sCAFile",
    "k8sCertFile",
    "k8sClientQPS",
    "k8sCurrentContext",
    "k8sDisableNodePoll",
    "k8sInsecureSkipTLSVerify",
    "k8sKeyFile",
    "kubeconfig",
    "kubeconfigInline",
    "usePodCIDR",
];

/// The prefix that calicoctl's variables may have (`lib/apiconfig/load.go`: envconfig with
/// the prefix `calico`, which counts more than the bare name).
const PREFIX: &str = "CALICO_";

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
    /// `etcd_discovery_srv`
    pub discovery: Option<String>,
    /// `etcd_authority`, the one endpoint of old configurations
    host: Option<String>,
    /// `etcd_scheme`, which belongs to that
    scheme: Option<String>,
}

/// What is wrong in a file of settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not a mapping.
    #[error(
        "it is not YAML with one setting a line; write for example \
         etcd_endpoints: http://127.0.0.1:2379"
    )]
    Malformed(#[source] serde_norway::Error),
    /// A key that nobody reads.
    #[error(
        "the key {key:?} is unknown; {}",
        meant.map_or("leave it out".to_owned(), |meant| format!("did you mean {meant}?"))
    )]
    UnknownKey {
        /// As written.
        key: String,
        /// A known one that is close to it.
        meant: Option<&'static str>,
    },
    /// A value of the wrong type, which may be secret.
    #[error("the value of {0} is not text; write it in quotation marks")]
    NotText(String),
}

/// Whether a key is one of these settings, or close to one.
pub fn is_setting(key: &str) -> bool {
    nearest(key, NAMES, 2).is_some()
}

/// The first of these names of variables that nobody reads, but that is close to one that is
/// read, or is one with a wrong prefix; with that one.
pub fn misspelt_variable<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<(String, String)> {
    const FARTHEST: usize = 2;
    let near = |name: &str, farthest| nearest(name, NAMES, farthest);
    let meant = |name: &'a str| {
        let bare = name.strip_prefix(PREFIX).unwrap_or(name);
        let is_known = near(bare, 0).is_some();
        let bare = bare.strip_prefix("WEIR_").unwrap_or(bare);
        near(bare, FARTHEST)
            .filter(|_| !is_known)
            .map(|meant| (name.to_owned(), meant.to_ascii_uppercase()))
    };
    names.into_iter().find_map(meant)
}

/// Whether a variable of this name may be meant to name the datastore.
pub fn is_doubtful_variable(name: &str) -> bool {
    const PLACES: [&str; 5] = ["ENDP", "URL", "SERVER", "ADDR", "HOST"];
    let name = name.to_ascii_uppercase();
    name.contains("ETCD") && PLACES.iter().any(|place| name.contains(place))
        || name.contains("WEIR") && (name.contains("ENDP") || name.contains("DATASTORE"))
}

impl Settings {
    /// The settings among these names and values. The spelling of names does
    /// not matter: `ETCD_ENDPOINTS` (environment), `etcd_endpoints` (CNI
    /// configuration) and `etcdEndpoints` (calicoctl's file) are one. Empty
    /// values are none; other names are passed over. So are certificates and keys as text,
    /// which calicoctl too takes from its file only.
    pub fn from_pairs<N: AsRef<str>>(pairs: impl IntoIterator<Item = (N, String)>) -> Self {
        let mut settings = Self::default();
        for (name, value) in pairs {
            settings.set(&plain(name.as_ref()), value);
        }
        settings.completed()
    }

    /// The settings among these variables, with calicoctl's prefix and without.
    pub fn from_environment(variables: &[(String, String)]) -> Self {
        let is_prefixed = |(name, _): &&(String, String)| name.starts_with(PREFIX);
        let (prefixed, bare): (Vec<_>, Vec<_>) = variables.iter().partition(is_prefixed);
        let pairs = bare.into_iter().chain(prefixed);
        Self::from_pairs(
            pairs.map(|(name, value)| (name.strip_prefix(PREFIX).unwrap_or(name), value.clone())),
        )
    }

    /// The settings in Weir's own file or in calicoctl's, which has them under
    /// `spec`. As in calicoctl, one that is about Kubernetes and names no type is of that type.
    ///
    /// # Errors
    /// When the text is not a YAML mapping; a key that is unknown, a value that is not text.
    pub fn from_yaml(text: &str) -> Result<Self, SettingsError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let deserializer = serde_norway::Deserializer::from_str(text);
        let document =
            Map::<String, Value>::deserialize(deserializer).map_err(SettingsError::Malformed)?;
        let mut settings = Self::default();
        let mut is_about_kubernetes = false;
        for (key, value) in entries(&document) {
            if KUBERNETES.contains(&key.as_str()) {
                is_about_kubernetes |= !matches!(value, Value::Null | Value::Bool(false))
                    && value.as_str() != Some("");
            } else {
                settings.read(key, value)?;
            }
        }
        let settings = settings.completed();
        let kubernetes = is_about_kubernetes && !settings.says_where();
        Ok(if kubernetes { Self { kind: Some("kubernetes".into()), ..settings } } else { settings })
    }

    fn read(&mut self, key: &str, value: &Value) -> Result<(), SettingsError> {
        const FARTHEST: usize = 3;
        let known = || NAMES.into_iter().chain(INLINE);
        if nearest(key, known(), 0).is_none() {
            let meant = nearest(key, known(), FARTHEST);
            return Err(SettingsError::UnknownKey { key: key.to_owned(), meant });
        }
        let value = text(value).ok_or_else(|| SettingsError::NotText(key.to_owned()))?;
        let inline = Some(value.clone()).filter(|value| !value.is_empty());
        match plain(key).as_str() {
            "etcdcacert" => self.inline_authority = inline,
            "etcdcert" => self.inline_certificate = inline,
            "etcdkey" => self.inline_key = inline,
            name => self.set(name, value),
        }
        Ok(())
    }

    /// The endpoint of old configurations, where there is no newer one.
    fn completed(mut self) -> Self {
        if let Some(host) = self.host.take().filter(|_| self.endpoints.is_empty()) {
            let scheme = self.scheme.as_deref().unwrap_or("http");
            self.endpoints = vec![format!("{scheme}://{host}")];
        }
        self
    }

    /// Whether they say where the datastore is, or of which type.
    pub fn says_where(&self) -> bool {
        let is_etcd = !self.endpoints.is_empty() || self.discovery.is_some();
        is_etcd || self.kind.is_some() || self.path.is_some()
    }

    /// These settings, completed by others.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let own = self.clone();
        Self {
            authority: own.authority.or_else(|| other.authority.clone()),
            certificate: own.certificate.or_else(|| other.certificate.clone()),
            key: own.key.or_else(|| other.key.clone()),
            username: own.username.or_else(|| other.username.clone()),
            password: own.password.or_else(|| other.password.clone()),
            ..self.clone()
        }
    }

    fn set(&mut self, name: &str, value: String) {
        if value.is_empty() {
            return;
        }
        match name {
            "datastoretype" => self.kind = Some(value),
            "etcdendpoints" => {
                let endpoints = value.split(',').map(str::trim).filter(|part| !part.is_empty());
                self.endpoints = endpoints.map(str::to_owned).collect();
                // Then they are missing.
                if self.endpoints.is_empty() {
                    self.kind.get_or_insert_with(|| "etcdv3".to_owned());
                }
            }
            "etcdcacertfile" => self.authority = Some(value.into()),
            "etcdcertfile" => self.certificate = Some(value.into()),
            "etcdkeyfile" => self.key = Some(value.into()),
            "etcdusername" => self.username = Some(value),
            "etcdpassword" => self.password = Some(value),
            "datastorepath" => self.path = Some(value.into()),
            "etcdauthority" => self.host = Some(value),
            "etcdscheme" => self.scheme = Some(value),
            "etcddiscoverysrv" => self.discovery = Some(value),
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

/// A name in the one spelling in which names are compared.
fn plain(name: &str) -> String {
    name.replace('_', "").to_ascii_lowercase()
}

/// The settings of a document: its own, and those of its `spec`.
fn entries(document: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries = Vec::new();
    for (key, value) in document {
        match (key.as_str(), value) {
            ("apiVersion" | "kind" | "metadata", _) | ("spec", Value::Null) => {}
            ("spec", Value::Object(spec)) => entries.extend(spec),
            _ => entries.push((key, value)),
        }
    }
    entries
}

/// The text of a value, a list of texts as one, and nothing as empty; `None` for another value.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let texts = items.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            Some(texts.join(","))
        }
        _ => None,
    }
}
