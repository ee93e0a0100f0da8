//! The file of who had which address: lines are added at its end by the agent alone, and read
//! by `weirctl`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use weir_common::ipam::history::Record;

use crate::files;

/// Where the agent keeps it.
pub const HISTORY_FILE: &str = "/var/lib/weir/history";

/// How large one file becomes, in bytes. There are two: the present one and the one before.
const MAX_SIZE: u64 = 30 << 20;

/// The file, open to be added to.
#[derive(Debug)]
pub struct HistoryFile {
    path: PathBuf,
    max_size: u64,
    file: File,
    size: u64,
}

impl HistoryFile {
    /// Opens it, or makes it (mode 0600). A last line that was not written to its end is ended.
    ///
    /// # Errors
    /// It cannot be opened, or is not a regular file of this user's in a directory that only
    /// this user writes to.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_bounded(path, MAX_SIZE)
    }

    fn open_bounded(path: &Path, max_size: u64) -> io::Result<Self> {
        let mut file = files::open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let mut opened = Self { path: path.to_owned(), max_size, file, size };
        if size > 0 {
            // An empty line is passed over.
            opened.append("\n")?;
        }
        Ok(opened)
    }

    /// Whether these lines make it larger than it may become.
    pub fn is_full_with(&self, lines: &str) -> bool {
        self.size + lines.len() as u64 > self.max_size
    }

    /// Adds whole lines, all or none.
    ///
    /// # Errors
    /// They cannot be written, or there is no room: see [`HistoryFile::rotate`].
    pub fn append(&mut self, lines: &str) -> io::Result<()> {
        if self.is_full_with(lines) {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "too much at once"));
        }
        match self.file.write_all(lines.as_bytes()) {
            Ok(()) => {
                self.size += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.size)?;
                self.file.seek(SeekFrom::Start(self.size))?;
                Err(error)
            }
        }
    }

    /// Sets the file aside in the place of the one before, and begins another one with these
    /// lines.
    ///
    /// # Errors
    /// One of the steps fails. Stopped anywhere, no line is lost that is not so by intent.
    pub fn rotate(&mut self, first: &str) -> io::Result<()> {
        match fs::rename(&self.path, before(&self.path)) {
            // An attempt before came as far as this.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        files::replace(&self.path, first)?;
        *self = Self::open_bounded(&self.path, self.max_size)?;
        Ok(())
    }
}

/// All records in the order in which they were written, of the file before too. Lines that are
/// not records are passed over.
///
/// # Errors
/// A file is there and cannot be read.
pub fn read_history(path: &Path) -> io::Result<impl Iterator<Item = Record> + use<>> {
    let mut opened = Vec::new();
    for path in [before(path), path.to_owned()] {
        match files::existing(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            file => opened.push(BufReader::new(file?)),
        }
    }
    let lines = opened.into_iter().flat_map(|file| file.split(b'\n').map_while(Result::ok));
    Ok(lines.filter_map(|line| Record::read(std::str::from_utf8(&line).ok()?)))
}

fn before(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.1", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::Timestamp;

    use super::*;

    fn line(second: i64) -> String {
        Record::of_life(Timestamp::from_second(second).unwrap()).line()
    }

    fn seconds(path: &Path) -> Vec<i64> {
        read_history(path).unwrap().map(|record| record.moment().at.as_second()).collect()
    }

    #[test]
    fn a_torn_last_line_and_nonsense_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir/history");
        assert_eq!(seconds(&path), [] as [i64; 0]);
        HistoryFile::open(&path).unwrap().append(&line(1)).unwrap();
        let mut whole = fs::read(&path).unwrap();
        for cut in 0..line(2).len() {
            whole.truncate(line(1).len());
            whole.extend(&line(2).as_bytes()[..cut]);
            fs::write(&path, &whole).unwrap();
            HistoryFile::open(&path).unwrap().append(&line(3)).unwrap();
            let read = seconds(&path);
            // Only the line's end may be missing of a whole record.
            let is_whole = cut + 1 == line(2).len();
            assert_eq!(read, if is_whole { vec![1, 2, 3] } else { vec![1, 3] }, "{cut}");
        }
        fs::write(&path, b"{\"t\":99999999999999999}\n\xff\xfe\n[]\n{\"t\":5000}\n").unwrap();
        assert_eq!(seconds(&path), [5]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn two_files_are_all_there_ever_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let mut file = HistoryFile::open_bounded(&path, 200).unwrap();
        for second in 1..=500 {
            if file.is_full_with(&line(second)) {
                assert!(file.append(&line(second)).is_err());
                file.rotate("").unwrap();
            }
            file.append(&line(second)).unwrap();
            let sizes = fs::read_dir(directory.path()).unwrap();
            let sizes = sizes.map(|entry| entry.unwrap().metadata().unwrap().len());
            assert!(sizes.sum::<u64>() <= 400);
        }
        let read = seconds(&path);
        assert!(read.len() > 10, "{read:?}");
        assert_eq!(read, (501 - read.len() as i64..=500).collect::<Vec<_>>());
        // An attempt that came only as far as the first step.
        fs::rename(&path, before(&path)).unwrap();
        file.rotate(&line(501)).unwrap();
        assert_eq!(seconds(&path).last(), Some(&501));
    }
}
