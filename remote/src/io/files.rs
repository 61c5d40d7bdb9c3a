//! Files: credentials that lie in files, read at the start and again when they change.

use crate::io::credentials::{CredentialsError, Inner, Present};
use crate::io::revocation::Fingerprints;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::{Duration, SystemTime};

/// A file that is larger is no certificate.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where credentials lie, and how often they are looked at ([`crate::Credentials::from_files`]).
///
/// ```no_run
/// use otava_remote::{CredentialFiles, Credentials};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // As `otava cert node --out /etc/otava` has written them.
/// let credentials = Credentials::from_files(CredentialFiles::in_folder("/etc/otava"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct CredentialFiles {
    authorities: PathBuf,
    chain: PathBuf,
    key: PathBuf,
    revoked: Option<PathBuf>,
    every: Duration,
}

impl CredentialFiles {
    /// The name of the file with the authorities to trust, in a folder.
    pub const AUTHORITIES: &'static str = "authority.pem";
    /// The name of the file with the certificate.
    pub const CERTIFICATE: &'static str = "certificate.pem";
    /// The name of the file with its key.
    pub const KEY: &'static str = "key.pem";

    /// `authority.pem`, `certificate.pem` and `key.pem` in a folder.
    pub fn in_folder(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        Self::new(
            folder.join(Self::AUTHORITIES),
            folder.join(Self::CERTIFICATE),
            folder.join(Self::KEY),
        )
    }

    /// These files.
    pub fn new(
        authorities: impl Into<PathBuf>,
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        Self {
            authorities: authorities.into(),
            chain: chain.into(),
            key: key.into(),
            revoked: None,
            every: Duration::from_secs(5),
        }
    }

    /// Also the certificates that count no more, in this file, which must be there: one SHA-256
    /// fingerprint a line, as `otava cert show` prints it, with or without colons; what follows a `#` is
    /// a comment. A file with any other line is not taken at all, nor is one of no bytes: a list of
    /// nobody is a comment. Put a longer list in place with a rename, so that it is never seen half
    /// written.
    ///
    /// A peer whose certificate, or one between it and its authority, is in the list is refused, and
    /// connections that are there are closed as soon as the list is taken. A list guards this node
    /// only: give it to all.
    pub fn revoked(mut self, path: impl Into<PathBuf>) -> Self {
        self.revoked = Some(path.into());
        self
    }

    /// How often a network looks whether they have changed. Default 5 s. What is in them counts, not
    /// their dates, so any way to write them will do; a moment in which they do not fit each other
    /// does no harm.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = interval.max(Duration::from_millis(1));
        self
    }

    pub(crate) fn read(&self) -> Result<Present, CredentialsError> {
        let [authorities, chain, key] =
            [&self.authorities, &self.chain, &self.key].map(|path| read_file(path));
        let present = Present::from_pem(&authorities?, &chain?, &key?)?;
        let Some(path) = &self.revoked else {
            return Ok(present);
        };
        let revoked = Fingerprints::parse(&read_file(path)?);
        let revoked = revoked.map_err(|line| FilesError::NoFingerprint {
            path: path.clone(),
            line,
        })?;
        Ok(present.without(revoked))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, FilesError> {
    let unreadable = |source| FilesError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FilesError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// Why a file with credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// A line of the list of revoked certificates is none.
    #[error("line {line} of {} is no SHA-256 fingerprint", path.display())]
    NoFingerprint {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
    },
    /// It is larger than any certificate.
    #[error("{} is larger than 1 MiB: it is no certificate or key", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Looks at the files of `credentials`, again and again, as long as anybody uses them and the
/// network that has asked for it is there. Without files there is nothing to do.
pub(crate) async fn watch(credentials: Weak<Inner>) {
    let mut told = Findings::default();
    loop {
        let every = match credentials.upgrade().as_deref().and_then(Inner::files) {
            Some(files) => files.every,
            None => return,
        };
        tokio::time::sleep(every).await;
        let Some(credentials) = credentials.upgrade() else {
            return;
        };
        // Reading may take its time on a disk that is not here.
        match tokio::task::spawn_blocking(move || Findings::of(&credentials)).await {
            Ok(found) => {
                found.tell(&told);
                told = found;
            }
            Err(_) => return,
        }
    }
}

/// What has to be said about the files.
#[derive(Debug, Default)]
struct Findings {
    problem: Option<String>,
    expiry: Option<SystemTime>,
}

impl Findings {
    /// Takes what is new, and says what is wrong.
    fn of(credentials: &Inner) -> Self {
        let problem = credentials.reload().err().map(|error| error.to_string());
        let expiry = credentials.present().expires_soon(SystemTime::now());
        Self { problem, expiry }
    }

    /// Says what was not said before.
    fn tell(&self, before: &Self) {
        if let Some(problem) = &self.problem
            && self.problem != before.problem
        {
            tracing::warn!(problem, "the credentials in the files are not taken");
        }
        if let Some(until) = self.expiry
            && self.expiry != before.expiry
        {
            let until = crate::certificates::show_time(until);
            tracing::warn!(until, "the certificate of this node expires soon");
        }
    }
}
