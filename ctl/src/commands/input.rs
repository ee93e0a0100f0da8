//! The resources named by `-f`: a file, a directory or standard input.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use weir_common::resources::{DocumentError, Resource, document};

use crate::session::{Failure, HostEnvironment};

/// Which resources a command works on.
#[derive(Args, Clone, Debug, Default)]
pub struct FileArgs {
    /// File with resources in YAML or JSON; "-" for standard input; of a
    /// directory every .yaml, .yml and .json file
    #[arg(short, long, value_name = "FILE")]
    pub filename: Option<PathBuf>,
    /// Go through directories inside the directory as well
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Accept files without resources
    #[arg(long)]
    pub skip_empty: bool,
}

/// Why the resources cannot be read.
#[derive(Debug, thiserror::Error)]
enum InputError {
    #[error("failed to execute command: {cause}{}", in_file(path))]
    Document { path: PathBuf, cause: DocumentError },
    #[error(
        "failed to execute command: {path} cannot be read: {cause}; \
         name a file or directory that can be",
        path = path.display()
    )]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error(
        "no resources specified in {what} {path}; \
         write one, as in weirctl create --help, or accept that with --skip-empty",
        path = path.display()
    )]
    Empty { what: &'static str, path: PathBuf },
    #[error("no file given; name one with -f FILE, or -f - for standard input")]
    NoFile,
}

/// The largest input, in bytes: a hundred thousand pools.
const LARGEST: u64 = 64 << 20;

/// Reads a text of at most 64 MiB.
///
/// # Errors
/// When it cannot be read, is larger, or is not UTF-8.
pub fn read_text(from: impl Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(std::io::Error::other("it is larger than 64 MiB; split it"));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8 text"))
}

fn in_file(path: &Path) -> String {
    if path == Path::new("-") { String::new() } else { format!(" (in {})", path.display()) }
}

impl FileArgs {
    /// Reads all resources, in order.
    ///
    /// # Errors
    /// [`Failure`] when a file cannot be read, is not a document or, unless that
    /// is accepted, is empty.
    pub fn read(&self, environment: &dyn HostEnvironment) -> Result<Vec<Resource>, Failure> {
        self.try_read(environment).map_err(|error| Failure::new(error.to_string()))
    }

    fn try_read(&self, environment: &dyn HostEnvironment) -> Result<Vec<Resource>, InputError> {
        let path = self.filename.as_ref().ok_or(InputError::NoFile)?;
        if path == Path::new("-") {
            let unreadable =
                |cause| InputError::Unreadable { path: "standard input".into(), cause };
            return self.parse(path, &environment.read_input().map_err(unreadable)?);
        }
        let mut files = Vec::new();
        collect_files(path, self.recursive, true, &mut files)?;
        if files.is_empty() && !self.skip_empty {
            return Err(InputError::Empty { what: "directory", path: path.clone() });
        }
        let mut resources = Vec::new();
        for file in files {
            let text = File::open(&file)
                .and_then(read_text)
                .map_err(|cause| InputError::Unreadable { path: file.clone(), cause })?;
            resources.extend(self.parse(&file, &text)?);
        }
        Ok(resources)
    }

    fn parse(&self, path: &Path, text: &str) -> Result<Vec<Resource>, InputError> {
        let resources = document::read(text)
            .map_err(|cause| InputError::Document { path: path.to_owned(), cause })?;
        if resources.is_empty() && !self.skip_empty {
            return Err(InputError::Empty { what: "file", path: path.to_owned() });
        }
        Ok(resources)
    }
}

/// Whether a file of a directory has resources, by its name, in any case.
fn is_resource_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Adds a file, or the files of a directory in order of their names.
fn collect_files(
    path: &Path,
    recursive: bool,
    is_named: bool,
    files: &mut Vec<PathBuf>,
) -> Result<(), InputError> {
    let unreadable = |cause| InputError::Unreadable { path: path.to_owned(), cause };
    let metadata = match std::fs::metadata(path) {
        // A link that leads nowhere is none of the files.
        Err(_) if !is_named && !is_resource_file(path) => return Ok(()),
        metadata => metadata.map_err(unreadable)?,
    };
    if !metadata.is_dir() {
        if is_named || is_resource_file(path) {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    if !is_named && !recursive {
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(unreadable)?;
    let entries = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(unreadable)?;
    entries.sort();
    entries.iter().try_for_each(|entry| collect_files(entry, recursive, false, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_input_ends() {
        let error = read_text(std::io::repeat(b'#')).unwrap_err().to_string();
        assert_eq!(error, "it is larger than 64 MiB; split it");
        assert_eq!(read_text(&b"kind: List"[..]).unwrap(), "kind: List");
        assert!(read_text(&b"\xff"[..]).is_err());
    }

    #[test]
    fn a_directory_gives_its_resource_files_in_any_case() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["b.YAML", "a.Json", "c.yml", "note.txt"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", path("d.txt")).unwrap();
        let collect = || {
            let mut files = Vec::new();
            collect_files(directory.path(), false, true, &mut files).map(|()| files)
        };
        assert_eq!(collect().unwrap(), [path("a.Json"), path("b.YAML"), path("c.yml")]);

        std::os::unix::fs::symlink("nowhere", path("e.yaml")).unwrap();
        let error = collect().unwrap_err().to_string();
        assert!(error.contains(path("e.yaml").to_str().unwrap()), "{error}");
    }
}
