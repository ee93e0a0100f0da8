//! The file that tells which endpoint of a datastore answered last.

use std::io::Read;
use std::path::{Path, PathBuf};

use weir_common::datastore::{DatastoreConfiguration, LastEndpoint};

use crate::files;

/// Where the files are, one for each datastore with several endpoints.
const DIRECTORY: &str = "/run/weir";

/// The longest URL that is read, in bytes.
const MAX_URL: u64 = 4096;

/// The file of one datastore. It holds the URL of an endpoint, and nothing secret.
#[derive(Debug)]
pub struct EndpointFile {
    path: PathBuf,
}

impl EndpointFile {
    /// The file of a datastore, which need not be there.
    pub fn of(datastore: &DatastoreConfiguration) -> Self {
        Self::in_directory(Path::new(DIRECTORY), datastore)
    }

    fn in_directory(directory: &Path, datastore: &DatastoreConfiguration) -> Self {
        Self { path: directory.join(format!("etcd-{}", datastore.place_id())) }
    }
}

impl LastEndpoint for EndpointFile {
    fn recall(&self) -> Option<String> {
        let mut text = String::new();
        let mut file = files::existing(&self.path).ok()?.take(MAX_URL);
        file.read_to_string(&mut text).ok()?;
        Some(text.trim_end().to_owned())
    }

    fn leave(&self, url: &str) {
        // weirctl may run as somebody who may not write here.
        if let Err(error) = files::replace(&self.path, &format!("{url}\n")) {
            let file = self.path.display();
            tracing::debug!(%file, %error, "the next call is not told which endpoint answers");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use weir_common::datastore::EtcdConfiguration;

    use super::*;

    fn etcd(endpoints: &[&str]) -> DatastoreConfiguration {
        let endpoints = endpoints.iter().map(|it| (*it).to_owned()).collect();
        DatastoreConfiguration::Etcd(EtcdConfiguration::new(endpoints))
    }

    #[test]
    fn each_datastore_has_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = |endpoints| EndpointFile::in_directory(directory.path(), &etcd(endpoints));
        let one = file(&["http://a:1", "http://b:1"]);
        assert_eq!(one.recall(), None);
        one.leave("http://b:1");
        one.leave("http://a:1");
        assert_eq!(one.recall().as_deref(), Some("http://a:1"));
        let same = file(&["http://b:1", "http://a:1/"]);
        assert_eq!(same.recall().as_deref(), Some("http://a:1"));
        assert_eq!(file(&["http://c:1"]).recall(), None);
        let mode = fs::metadata(&one.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_such_file_is_no_memory() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, "kept").unwrap();
        let file = EndpointFile::in_directory(directory.path(), &etcd(&["http://a:1"]));
        symlink(&secret, &file.path).unwrap();
        assert_eq!(file.recall(), None);
        file.leave("http://a:1");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "kept");
        assert_eq!(file.recall().as_deref(), Some("http://a:1"), "the link was replaced");
        fs::write(&file.path, [0xff, 0xfe]).unwrap();
        assert_eq!(file.recall(), None);
        fs::write(&file.path, vec![b'x'; 1 << 20]).unwrap();
        assert!(file.recall().unwrap().len() as u64 <= MAX_URL);
        fs::remove_file(&file.path).unwrap();
        nix::unistd::mkfifo(&file.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(file.recall(), None);
    }
}
