//! Authority: the development authority in a folder, made once and shared by all its processes.
//!
//! One file holds both its certificate and its key, so that they always fit. It is written whole
//! under another name and then linked to its own name, which only one process can do; the others
//! use what that one made.

use crate::io::credentials::{CredentialsError, certificates};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FILE: &str = "development-authority.pem";

/// What a node gets from the authority.
pub(crate) struct Issued {
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Issues a certificate for a node. It lives in memory only.
pub(crate) fn issue(
    folder: &Path,
    node_name: &str,
    certificate_name: &str,
) -> Result<Issued, CredentialsError> {
    let path = folder.join(FILE);
    let pem = read_or_create(folder, &path).map_err(|source| CredentialsError::Folder {
        path: path.clone(),
        source,
    })?;
    let authority = certificates("the development authority", pem.as_bytes())?.swap_remove(0);
    let key = read_key(&pem).map_err(|reason| CredentialsError::Pem {
        what: "the key of the development authority",
        reason,
    })?;
    let issuer = Issuer::new(authority_params(), key);
    issue_with(&issuer, node_name, certificate_name, authority).map_err(|e| {
        CredentialsError::Issue {
            reason: e.to_string(),
        }
    })
}

fn read_key(pem: &str) -> Result<KeyPair, String> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
    KeyPair::try_from(&key).map_err(|e| e.to_string())
}

fn issue_with(
    issuer: &Issuer<'_, KeyPair>,
    node_name: &str,
    certificate_name: &str,
    authority: CertificateDer<'static>,
) -> Result<Issued, rcgen::Error> {
    let mut params = CertificateParams::new([certificate_name.to_owned()])?;
    params.distinguished_name = common_name(node_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Issued {
        authority,
        certificate: certificate.der().clone(),
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    })
}

/// The same in every process: an issuer is known by its name and its key.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Otava development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn read_or_create(folder: &Path, path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        read => return read,
    }
    create_folder(folder)?;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = authority_params()
        .self_signed(&key)
        .map_err(io::Error::other)?;
    let pem = certificate.pem() + &key.serialize_pem();

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
