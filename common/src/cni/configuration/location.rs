//! Where the datastore is.

use std::path::PathBuf;

use super::super::error::Error;
use super::value::{absolute, invalid, unsupported};
use super::written::WrittenConfiguration;
use crate::datastore::{
    self, ENDPOINT_FORM, EtcdConfiguration, HIDDEN_ENDPOINT, Pem, may_hold_password,
};

impl WrittenConfiguration {
    pub(super) fn datastore(&self) -> Result<datastore::DatastoreConfiguration, Error> {
        self.refuse_relative_paths()?;
        if let Some(service) = &self.etcd_discovery_srv
            && self.etcd_endpoints.is_none()
        {
            let advice = "list the servers in etcd_endpoints";
            // Nobody should have written a user in it; who did is not quoted.
            let service = if service.contains('@') { HIDDEN_ENDPOINT } else { service.as_str() };
            return Err(unsupported("etcd_discovery_srv", service, advice));
        }
        let endpoints = self.endpoints();
        match self.datastore_type.as_deref() {
            // Who writes one of them means an etcd.
            None if endpoints.is_empty() && self.names_etcd() => {
                let advice = "name at least one server, or write \"datastore_type\": \"embedded\"";
                Err(invalid("etcd_endpoints", "", advice))
            }
            None if endpoints.is_empty() => Ok(self.embedded()),
            Some("embedded") => Ok(self.embedded()),
            None | Some("etcdv3") => self.etcd(endpoints),
            Some(other) => Err(unsupported("datastore_type", other, "write etcdv3 or embedded")),
        }
    }

    /// Whether it has a key of etcd's.
    fn names_etcd(&self) -> bool {
        [&self.etcd_ca_cert_file, &self.etcd_cert_file, &self.etcd_key_file]
            .iter()
            .any(|file| file.is_some())
            || [
                &self.etcd_endpoints,
                &self.etcd_authority,
                &self.etcd_scheme,
                &self.etcd_username,
                &self.etcd_password,
            ]
            .iter()
            .any(|text| text.is_some())
    }

    fn refuse_relative_paths(&self) -> Result<(), Error> {
        for (key, path) in [
            ("datastore_path", &self.datastore_path),
            ("etcd_ca_cert_file", &self.etcd_ca_cert_file),
            ("etcd_cert_file", &self.etcd_cert_file),
            ("etcd_key_file", &self.etcd_key_file),
        ] {
            absolute(key, path.as_deref())?;
        }
        Ok(())
    }

    fn embedded(&self) -> datastore::DatastoreConfiguration {
        self.datastore_path
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty())
            .map_or_else(datastore::DatastoreConfiguration::default, |path| {
                datastore::DatastoreConfiguration::Embedded { path: path.clone() }
            })
    }

    fn endpoints(&self) -> Vec<String> {
        if let Some(endpoints) = &self.etcd_endpoints {
            let trimmed =
                endpoints.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty());
            return trimmed.map(str::to_owned).collect();
        }
        let scheme = self.etcd_scheme.as_deref().unwrap_or("http");
        self.etcd_authority.iter().map(|authority| format!("{scheme}://{authority}")).collect()
    }

    fn etcd(&self, endpoints: Vec<String>) -> Result<datastore::DatastoreConfiguration, Error> {
        let given = |path: &Option<PathBuf>| {
            path.clone().filter(|path| !path.as_os_str().is_empty()).map(Pem::File)
        };
        let (certificate, key) = (given(&self.etcd_cert_file), given(&self.etcd_key_file));
        let client_certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(invalid("etcd_key_file", "", "a certificate needs its key"));
            }
            (None, Some(_)) => {
                return Err(invalid("etcd_cert_file", "", "a key needs its certificate"));
            }
        };
        let written = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let credentials = match (written(&self.etcd_username), written(&self.etcd_password)) {
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            (Some(_), None) => return Err(invalid("etcd_password", "", "a user needs a password")),
            (None, Some(_)) => return Err(invalid("etcd_username", "", "a password needs a user")),
        };
        if endpoints.is_empty() {
            let advice = "name at least one server, for example http://127.0.0.1:2379";
            return Err(invalid("etcd_endpoints", "", advice));
        }
        // First of all: endpoints are named in messages and logs.
        if may_hold_password(&endpoints) {
            return Err(invalid("etcd_endpoints", HIDDEN_ENDPOINT, ENDPOINT_FORM));
        }
        let is_no_url = |endpoint: &&String| {
            let rest =
                endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            rest.is_none_or(str::is_empty)
        };
        if let Some(endpoint) = endpoints.iter().find(is_no_url) {
            return Err(invalid(
                "etcd_endpoints",
                endpoint,
                "write http://HOST:PORT or https://HOST:PORT",
            ));
        }
        Ok(datastore::DatastoreConfiguration::Etcd(EtcdConfiguration {
            authorities: given(&self.etcd_ca_cert_file),
            client_certificate,
            credentials,
            ..EtcdConfiguration::new(endpoints)
        }))
    }
}
