//! Authority: the development authority is made once, kept to its owner, and never replaced.

use crate::network::{ANY_PORT, quic};
use otava_remote::certificates::CertificateError;
use otava_remote::{BindError, Credentials, CredentialsError, Network, QuicNetwork};
use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

const FILE: &str = "development-authority.pem";

#[tokio::test]
async fn all_that_begin_at_once_agree_on_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("not/there/yet");
    let barrier = Barrier::new(8);
    let issue = |n: usize| {
        barrier.wait();
        Credentials::development(&inside, &format!("node-{n}")).unwrap()
    };
    let all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || issue(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let networks: Vec<_> = all
        .into_iter()
        .enumerate()
        .map(|(n, credentials)| {
            let builder = QuicNetwork::builder(&format!("node-{n}"), ANY_PORT, credentials);
            builder.bind().unwrap()
        })
        .collect();
    for (n, network) in networks.iter().enumerate().skip(1) {
        let (connected, accepted) =
            tokio::join!(networks[0].connect(network.local_addr()), network.accept());
        assert!(connected.unwrap().proves_name(&format!("node-{n}")));
        assert!(accepted.unwrap().proves_name("node-0"));
    }
    let left: Vec<_> = fs::read_dir(&inside)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, [FILE], "no drafts stay behind");
}

#[cfg(unix)]
#[test]
fn only_the_owner_reads_the_key() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("otava");
    Credentials::development(&inside, "a").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inside), 0o700);
    assert_eq!(mode(&inside.join(FILE)), 0o600);
}

#[test]
fn what_is_damaged_is_an_error_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    Credentials::development(folder.path(), "a").unwrap();
    let path = folder.path().join(FILE);
    let whole = fs::read_to_string(&path).unwrap();
    let key_from = whole.find("-----BEGIN PRIVATE").unwrap();
    for damaged in ["", &whole[..100], &whole[..key_from], &whole[key_from..]] {
        fs::write(&path, damaged).unwrap();
        match Credentials::development(folder.path(), "a") {
            Err(CredentialsError::Pem { .. }) => {}
            other => panic!("{} bytes: {other:?}", damaged.len()),
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
    // The certificate of one authority with the key of another.
    let other = tempfile::tempdir().unwrap();
    Credentials::development(other.path(), "a").unwrap();
    let theirs = fs::read_to_string(other.path().join(FILE)).unwrap();
    let their_key = &theirs[theirs.find("-----BEGIN PRIVATE").unwrap()..];
    fs::write(&path, whole[..key_from].to_owned() + their_key).unwrap();
    let mixed = Credentials::development(folder.path(), "a");
    assert!(
        matches!(mixed, Err(CredentialsError::NotAccepted { .. })),
        "{mixed:?}"
    );
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = Credentials::development(&file.join("inside"), "a").unwrap_err();
    assert!(
        matches!(error, CredentialsError::Folder { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(FILE), "{error}");
}

#[test]
fn names_that_fit_no_certificate_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["", &"_".repeat(128), "a b", "a/b"] {
        let error = Credentials::development(folder.path(), name).unwrap_err();
        let named = matches!(
            error,
            CredentialsError::Certificate(CertificateError::Name { .. })
        );
        assert!(named, "{error:?}");
    }
    for name in ["a", "Shop_1.eu-west", &"x".repeat(128)] {
        let credentials = Credentials::development(folder.path(), name).unwrap();
        assert!(credentials.proves_name(name) && !credentials.proves_name("b"));
    }
}

#[tokio::test]
async fn nobody_listens_under_a_name_that_is_not_his() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = Credentials::development(folder.path(), "a").unwrap();
    let bound = QuicNetwork::builder("b", ANY_PORT, credentials).bind();
    assert!(matches!(bound, Err(BindError::Name { name }) if name == "b"));
}

#[tokio::test]
async fn two_authorities_do_not_know_each_other() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (quic(one.path(), "a"), quic(two.path(), "b"));
    let connected = a.connect(b.local_addr()).await;
    let error = connected.err().unwrap();
    assert!(
        matches!(error, otava_remote::ConnectError::Refused { .. }),
        "{error:?}"
    );
}

#[test]
fn debug_shows_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let shown = format!(
        "{:?}",
        Credentials::development(folder.path(), "a").unwrap()
    );
    assert_eq!(shown, "Credentials { authorities: 1, .. }");
}
