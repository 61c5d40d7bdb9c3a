//! Cert: the command `otava cert`: an authority in a folder, and certificates that it makes.

use crate::write::{Files, WriteError};
use clap::{Args, Subcommand};
use otava_remote::certificates::{
    Authority, CertificateError, CertificateInfo, Subject, show_time,
};
use otava_remote::{CredentialFiles, CredentialsError};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file with the key of an authority, beside its certificate.
const AUTHORITY_KEY: &str = "authority-key.pem";
/// Larger files hold no certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Makes an authority: its certificate, which all nodes trust, and its key, which makes any node.
    Authority(AuthorityArgs),
    /// Makes the certificate of a node or client, with its key, and puts that of the authority beside it.
    Node(NodeArgs),
    /// Shows what the certificates in a file say.
    Show {
        /// A file of PEM. Keys in it are not shown.
        file: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct AuthorityArgs {
    /// The folder for `authority.pem` and `authority-key.pem`, made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What people call it. Only the key tells authorities apart.
    #[arg(long, default_value = "Otava authority")]
    name: String,
    /// For how many days it is valid.
    #[arg(long, default_value_t = 3_650)]
    days: u32,
}

#[derive(Args)]
pub(crate) struct NodeArgs {
    /// The name of the node or client, as its program says it.
    #[arg(long)]
    name: String,
    /// A role, for rights that ask for it. May be given more than once.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Where it may listen, as `10.0.0.1:7001`. May be given more than once; without any, everywhere.
    #[arg(long = "address", value_name = "ADDR")]
    addresses: Vec<SocketAddr>,
    /// It is a client: it reaches what is exported to clients, and can never be a member.
    #[arg(long)]
    client: bool,
    /// The folder of the authority.
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// The folder for `certificate.pem`, `key.pem` and `authority.pem`, made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// For how many days it is valid.
    #[arg(long, default_value_t = 365)]
    days: u32,
}

/// Runs the command, and returns what to tell.
pub(crate) fn run(command: &Command) -> Result<String, CertCommandError> {
    match command {
        Command::Authority(args) => make_authority(args),
        Command::Node(args) => make_node(args),
        Command::Show { file } => show(file),
    }
}

fn make_authority(args: &AuthorityArgs) -> Result<String, CertCommandError> {
    let authority = Authority::generate(&args.name, days(args.days))?;
    let key = authority.key_pem();
    let written = Files::in_folder(&args.out)
        .file(CredentialFiles::AUTHORITIES, authority.certificate_pem())
        .file(AUTHORITY_KEY, &key)
        .write()?;
    let mut told = String::new();
    tell(&mut told, &written, authority.certificate_pem())?;
    let key = args.out.join(AUTHORITY_KEY);
    let _ = writeln!(
        told,
        "whoever has {} makes any node: keep it where no node runs",
        key.display()
    );
    Ok(told)
}

fn make_node(args: &NodeArgs) -> Result<String, CertCommandError> {
    let [certificate, key] =
        [CredentialFiles::AUTHORITIES, AUTHORITY_KEY].map(|name| read(&args.authority.join(name)));
    let authority = Authority::from_pem(&certificate?, &key?)?;
    let subject = match args.client {
        true => Subject::client(&args.name),
        false => Subject::node(&args.name),
    };
    let subject = args.roles.iter().fold(subject, |it, role| it.role(role));
    let subject = args
        .addresses
        .iter()
        .fold(subject, |it, addr| it.address(*addr));
    let issued = authority.issue(&subject, days(args.days))?;
    let (chain, key) = (issued.chain_pem(), issued.key_pem());
    // What peers would refuse is not written: an authority whose parts do not fit, or that has expired.
    let trusted = authority.certificate_pem();
    otava_remote::Credentials::from_pem(trusted.as_bytes(), chain.as_bytes(), key.as_bytes())?;
    let written = Files::in_folder(&args.out)
        .file(CredentialFiles::AUTHORITIES, trusted)
        .file(CredentialFiles::CERTIFICATE, &chain)
        .file(CredentialFiles::KEY, &key)
        .write()?;
    let mut told = String::new();
    tell(&mut told, &written, &chain)?;
    Ok(told)
}

fn show(file: &Path) -> Result<String, CertCommandError> {
    let shown = CertificateInfo::read(read(file)?.as_bytes())?;
    let shown: Vec<String> = shown.iter().map(CertificateInfo::to_string).collect();
    Ok(shown.join("\n"))
}

fn tell(told: &mut String, written: &[PathBuf], chain: &str) -> Result<(), CertCommandError> {
    for path in written {
        let _ = writeln!(told, "wrote {}", path.display());
    }
    for info in CertificateInfo::read(chain.as_bytes())? {
        let _ = writeln!(told, "valid until {}", show_time(info.not_after));
    }
    Ok(())
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

fn read(path: &Path) -> Result<String, CertCommandError> {
    let unreadable = |source| CertCommandError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let too_large = fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX;
    if too_large {
        return Err(unreadable(io::Error::other(
            "it is too large for a certificate",
        )));
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// Why nothing was made or shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertCommandError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
}
