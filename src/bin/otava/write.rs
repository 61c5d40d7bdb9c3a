//! Write: new files for their owner alone, all of them or none, never over what is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Files that are to be written into one folder.
pub(crate) struct Files<'a> {
    folder: &'a Path,
    files: Vec<(&'a str, &'a str)>,
}

impl<'a> Files<'a> {
    pub(crate) fn in_folder(folder: &'a Path) -> Self {
        Self {
            folder,
            files: Vec::new(),
        }
    }

    /// Adds a file with its text.
    pub(crate) fn file(mut self, name: &'a str, text: &'a str) -> Self {
        self.files.push((name, text));
        self
    }

    /// Writes all, and returns where. If one cannot be written, those before it are removed again.
    pub(crate) fn write(self) -> Result<Vec<PathBuf>, WriteError> {
        create_folder(self.folder).map_err(|source| WriteError::Folder {
            path: self.folder.to_owned(),
            source,
        })?;
        let mut written = Vec::new();
        for (name, text) in self.files {
            let path = self.folder.join(name);
            if let Err(source) = create(&path, text) {
                for path in &written {
                    // What cannot be removed stays, and is in the way of the next try.
                    let _ = fs::remove_file(path);
                }
                return Err(match source.kind() {
                    io::ErrorKind::AlreadyExists => WriteError::Exists { path },
                    _ => WriteError::File { path, source },
                });
            }
            written.push(path);
        }
        Ok(written)
    }
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Makes a file that only its owner reads. One that could not be written whole is removed.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let written = fill(file, text);
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn fill(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{} exists, and is never overwritten: choose another folder, or move it away", path.display())]
    Exists { path: PathBuf },
    #[error("cannot write {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot make the folder {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
}
