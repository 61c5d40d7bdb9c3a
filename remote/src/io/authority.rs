//! Authority: the development authority in a folder, made once and shared by all its processes.
//!
//! One file holds both its certificate and its key, so that they always fit. It is written whole
//! under another name and then linked to its own name, which only one process can do; the others
//! use what that one made.

use crate::certificates::{Authority, CertificateError};
use crate::io::credentials::CredentialsError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FILE: &str = "development-authority.pem";

/// The authority in `folder`, made if there is none.
pub(crate) fn in_folder(folder: &Path) -> Result<Authority, CredentialsError> {
    let path = folder.join(FILE);
    let pem = read_or_create(folder, &path).map_err(|source| CredentialsError::Folder {
        path: path.clone(),
        source,
    })?;
    Authority::from_pem(&pem, &pem).map_err(|error| match error {
        CertificateError::Unreadable { what, reason } => CredentialsError::Pem { what, reason },
        other => other.into(),
    })
}

fn read_or_create(folder: &Path, path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    create_folder(folder)?;
    let authority = Authority::for_development().map_err(io::Error::other)?;
    let pem = authority.certificate_pem().to_owned() + &authority.key_pem();

    let draft = Draft::write(folder, &pem)?;
    match fs::hard_link(&draft.path, path) {
        Ok(()) => {
            File::open(folder)?.sync_all()?;
            tracing::info!(path = %path.display(), "made a development authority");
        }
        // Another process was faster; its file was whole before it had this name.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    fs::read_to_string(path)
}

fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A file that has not got its name yet. Removed when dropped, whatever became of it.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(folder: &Path, text: &str) -> io::Result<Self> {
        let number = getrandom::u64().map_err(io::Error::other)?;
        let path = folder.join(format!(".{FILE}.{number:016x}"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        let draft = Self { path };
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a draft");
        }
    }
}
