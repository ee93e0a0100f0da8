//! Writing the resources of a file, as `create`, `apply` and `replace` do.

use weir_common::resources::Resource;

use super::input::FileArgs;
use super::range;
use super::report::{ChangeReport, Verb};
use crate::session::{CommandResult, Session};
use crate::store::{self, StoreError};

/// What is done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// It is created.
    Create {
        /// Whether one that is there already counts as created.
        skip_exists: bool,
    },
    /// It is created or changed.
    Apply,
    /// It is changed.
    Replace,
}

impl WriteMode {
    fn verb(self) -> Verb {
        let (infinitive, participle) = match self {
            Self::Create { .. } => ("create", "created"),
            Self::Apply => ("apply", "applied"),
            Self::Replace => ("replace", "replaced"),
        };
        Verb { infinitive, participle }
    }
}

/// Writes the resources of a file, as many as can be.
///
/// # Errors
/// [`Failure`](crate::session::Failure) when the file is wrong or a resource
/// could not be written.
pub async fn run(mode: WriteMode, files: &FileArgs, session: &Session<'_>) -> CommandResult {
    let resources = files.read(session.environment)?;
    let mut report = ChangeReport::new(mode.verb());
    let (total, mut new) = (resources.len(), Vec::new());
    for (done, resource) in resources.iter().enumerate() {
        session.environment.progress(done, total);
        let written = write(mode, resource, session).await;
        if written.is_ok() {
            new.push(resource);
        }
        report.add(resource, written);
    }
    if mode != WriteMode::Replace {
        range::warn_of(&new, session).await;
    }
    if !new.is_empty() {
        session.ensure_cluster_guid().await;
    }
    report.finish()
}

async fn write(
    mode: WriteMode,
    resource: &Resource,
    session: &Session<'_>,
) -> Result<(), StoreError> {
    let (datastore, birth) = (session.datastore, || session.environment.birth());
    match mode {
        WriteMode::Create { skip_exists } => {
            match store::create(datastore, resource, &birth()).await {
                Err(StoreError::AlreadyExists { .. }) if skip_exists => Ok(()),
                result => result,
            }
        }
        WriteMode::Apply => {
            let resource = super::resolve(session, resource.clone()).await?;
            store::apply(datastore, &resource, &birth()).await
        }
        WriteMode::Replace => {
            let resource = super::resolve(session, resource.clone()).await?;
            store::replace(datastore, &resource).await
        }
    }
}
