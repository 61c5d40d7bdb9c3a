//! Marks: durable notes beside the journal of what was acknowledged, so that a loss is noticed.
//!
//! # The problem
//! SQLite finds the end of its write-ahead log by checksums: at the first frame that does not fit it
//! takes the log to end there. One flipped bit in the live log therefore takes back every commit
//! behind it, in silence, when the file is next opened after a crash. Something outside the log has
//! to know how far it went.
//!
//! # Tempting and wrong
//! - *A row in the database*: it goes the same way.
//! - *A note before the commit*: a crash in between leaves a note of what never was, and a healthy
//!   file is refused. So the note comes after the commit, and the answer after the note.
//! - *One note for all processes*: after the commit the lock is gone, so a slow process may overwrite
//!   the note of a later commit with its own. Under the lock it would be safe, but the lock ends
//!   where the commit becomes durable.
//! - *A slot for each process in one file*: who owns a slot after a crash? Process numbers come back.
//!
//! # What is done
//! Each open journal has a file of its own, `<journal>-mark-<random>`, with the newest commit that
//! it acknowledged ([`crate::logic::mark`]). Who opens the journal takes the write lock, reads all
//! marks, compares the newest with the file, and refuses to open below it. Then it writes its own
//! mark with what it found, makes it durable, and only then removes the others.
//!
//! Removing the mark of a process that still runs is safe. It is done under the write lock, so
//! every commit of that process is either in what was found, and therefore below the new mark, or
//! comes later. After each commit a process looks whether its file still has its name, and if not
//! writes a new one before it answers. If it looks just before the name is removed, its commit was
//! already in what was found.
//!
//! # What is durable when
//! A mark is written (to the page cache) before each answer: it survives every end of the process,
//! kill -9 included. It is forced to the disk every 50 ms or so, or before each answer
//! ([`MarkSync`](super::MarkSync)). The log itself is always forced first, so a power cut alone
//! never loses an answer and never makes a mark newer than the log. Only a power cut within those
//! 50 ms *and* a flipped bit in the same stretch of the log would go unnoticed by default.
//! Measured on 2 cores, fsync 0.12 ms: before each answer instead of in the background costs 44 % of
//! the appends of one writer (5,990/s to 3,350/s), 28 % of those of 64 (109,000/s to 78,000/s), 5 % of
//! those of 1,000.
//!
//! When a process is killed between writing its frames and forcing them to disk, the next opener
//! would see a commit which a power cut can still take away: it forces the log to disk before it
//! looks.

use crate::error::OpenError;
use crate::logic::mark::{self, Head};
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The mark of one open journal.
pub(super) struct Mark {
    path: PathBuf,
    file: Arc<SyncFile>,
    /// The slot that is written next.
    slot: usize,
}

/// The part that another thread forces to disk.
pub(super) struct SyncFile {
    current: Mutex<Arc<File>>,
}

impl SyncFile {
    fn current(&self) -> Arc<File> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forces to disk what was written so far.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.current().sync_data()
    }
}

impl Mark {
    /// Makes a new mark, durably and in one step: a crash leaves it whole or not at all.
    pub(super) fn create(journal: &Path, head: Head) -> io::Result<Self> {
        let path = super::beside(journal, &format!("{INFIX}{:016x}", random()));
        let file = write_new(&path, head)?;
        let file = Arc::new(SyncFile {
            current: Mutex::new(Arc::new(file)),
        });
        Ok(Self {
            path,
            file,
            slot: 0,
        })
    }

    /// What [`SyncFile::sync`] is called on.
    pub(super) fn sync_file(&self) -> Arc<SyncFile> {
        Arc::clone(&self.file)
    }

    /// Notes a commit that is durable and not answered yet.
    pub(super) fn note(&mut self, head: Head) -> io::Result<()> {
        if has_name(&self.path)? {
            let mut file = &*self.file.current();
            file.seek(SeekFrom::Start((self.slot * mark::SLOT_BYTES) as u64))?;
            file.write_all(&mark::encode(head))?;
            self.slot = 1 - self.slot;
        } else {
            // Another process has opened the journal since, and has taken over what was noted.
            let file = Arc::new(write_new(&self.path, head)?);
            *self
                .file
                .current
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = file;
        }
        Ok(())
    }
}

/// Whether there is a file of this name.
///
/// `fs::exists` would also ask for its times. Where Linux (6.13 and later) has told those, it gives the next
/// change an exact one, and so does what changes after it, the log: its inode was then written with every
/// commit, 55 us of 225. To ask for the target of a link, which it is not, leaves the times alone.
fn has_name(path: &Path) -> io::Result<bool> {
    match fs::read_link(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        // It is there, and no link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(true),
        Err(error) => Err(error),
        Ok(_) => Ok(true),
    }
}

/// All marks beside a journal. Call it with the write lock held.
pub(super) fn read_all(journal: &Path) -> Result<Vec<(PathBuf, Head)>, OpenError> {
    let mut marks = Vec::new();
    for path in
        names(journal).map_err(|source| file_error("list the folder of", journal, source))?
    {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(file_error("read", &path, source)),
        };
        match mark::decode_file(&bytes) {
            Some(head) => marks.push((path, head)),
            None => return Err(OpenError::MarkDamaged { mark: path }),
        }
    }
    Ok(marks)
}

/// Removes marks that the caller's own mark has made superfluous. A mark that stays does no harm.
pub(super) fn remove(marks: Vec<(PathBuf, Head)>) {
    for (path, _) in marks {
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "an old mark stays");
        }
    }
}

const INFIX: &str = "-mark-";
/// Ends the name of a mark that is being made. Such a file says nothing.
const UNFINISHED: &str = ".new";

fn names(journal: &Path) -> io::Result<Vec<PathBuf>> {
    let begin = super::beside(journal, INFIX);
    let begin = begin.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir(super::folder(journal))? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(begin) && !bytes.ends_with(UNFINISHED.as_bytes()) {
            found.push(super::folder(journal).join(name));
        }
    }
    found.sort();
    Ok(found)
}

fn write_new(path: &Path, head: Head) -> io::Result<File> {
    let unfinished = super::beside(path, UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(&mark::encode_file(head))?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    super::sync_folder(path)?;
    Ok(file)
}

/// Names must differ, nothing more; the keys of a `RandomState` come from the operating system.
fn random() -> u64 {
    RandomState::new().hash_one((std::process::id(), crate::io::wall_clock_ms()))
}

fn file_error(what: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::File {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_has_its_name_until_that_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        assert!(!has_name(&path).unwrap());
        let head = Head::default();
        let file = write_new(&path, head).unwrap();
        assert!(has_name(&path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!has_name(&path).unwrap());
        // Neither there nor gone: nobody knows.
        let within = folder.path().join("file").join("mark");
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(has_name(&within).is_err());
        drop(file);
    }
}
