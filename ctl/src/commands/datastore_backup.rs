//! `weirctl datastore backup`

use std::path::{Path, PathBuf};

use clap::Args;
use weir_common::datastore::{DatastoreConfiguration, EtcdConfiguration, Pem};
use weir_common::shell_word;
use weir_datastore::Embedded;

use crate::location::Location;
use crate::session::{CommandResult, Failure};

/// Arguments of `weirctl datastore backup`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Containers and the agent may go on meanwhile. For etcd, the command to run \
                        is printed, and nothing is done.\n\n\
                        Example:\n  weirctl datastore backup /var/backups/weir.db"
)]
pub struct BackupArgs {
    /// The new file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Writes a backup of an embedded datastore; says how etcd is backed up.
///
/// # Errors
/// [`Failure`] when there is no datastore, or the file cannot be written; for etcd always.
pub async fn run(arguments: &BackupArgs, location: &Location) -> CommandResult {
    let file = &arguments.file;
    let path = match &location.configuration {
        DatastoreConfiguration::Embedded { path } => path,
        DatastoreConfiguration::Etcd(etcd) => return Err(of_etcd(&snapshot_command(etcd, file))),
    };
    if weir_datastore::missing_file(&location.configuration).is_some() {
        return Err(Failure::new(format!(
            "there is no datastore at {} (named by {}); check the path: weirctl -v get ippool",
            path.display(),
            location.source
        )));
    }
    let datastore = Embedded::open(path).await?;
    let copied = datastore.back_up(file).await?;
    Ok(format!(
        "Backed up {} to {}: {} key(s), revision {}\n",
        path.display(),
        file.display(),
        copied.keys,
        copied.revision
    ))
}

/// What is printed in the place of doing it.
pub fn of_etcd(commands: &str) -> Failure {
    Failure {
        output: format!("{commands}\n"),
        message: "nothing was done: the datastore is etcd, whose own tools do this; run the \
                  command above"
            .to_owned(),
    }
}

/// A snapshot is taken from one member.
fn snapshot_command(etcd: &EtcdConfiguration, file: &Path) -> String {
    let endpoint = etcd.endpoints.first().map(String::as_str).unwrap_or_default();
    let mut command = vec!["etcdctl".to_owned(), format!("--endpoints={}", shell_word(endpoint))];
    let path = |path: &Path| shell_word(&path.display().to_string()).into_owned();
    // What stands in the configuration itself has to be put into a file first.
    let pem = |pem: &Pem, file: &str| match pem {
        Pem::File(file) => path(file),
        Pem::Inline(_) => file.to_owned(),
    };
    if let Some(authorities) = &etcd.authorities {
        command.push(format!("--cacert={}", pem(authorities, "CA-FILE")));
    }
    if let Some((certificate, key)) = &etcd.client_certificate {
        let (certificate, key) = (pem(certificate, "CERT-FILE"), pem(key, "KEY-FILE"));
        command.push(format!("--cert={certificate} --key={key}"));
    }
    if let Some((user, _)) = &etcd.credentials {
        command.push(format!("--user={}", shell_word(user)));
    }
    command.push(format!("snapshot save {}", path(file)));
    command.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_etcd_has_its_flags_and_no_password() {
        let etcd = EtcdConfiguration {
            authorities: Some(Pem::File("/etc/my ca.pem".into())),
            client_certificate: Some((Pem::File("/c.pem".into()), Pem::Inline("hush".into()))),
            credentials: Some(("weir".to_owned(), "hush".to_owned())),
            ..EtcdConfiguration::new(vec!["https://a:2379".into(), "https://b:2379".into()])
        };
        assert_eq!(
            snapshot_command(&etcd, Path::new("/b/it's.db")),
            r"etcdctl --endpoints=https://a:2379 --cacert='/etc/my ca.pem' --cert=/c.pem --key=KEY-FILE --user=weir snapshot save '/b/it'\''s.db'"
        );
    }
}
