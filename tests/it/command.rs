//! Command: certificates that `otava cert` makes are what nodes need, kept to their owner, never replaced.

use otava_remote::{ConnectError, CredentialFiles, Credentials, Network as _, QuicNetwork};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Output};

fn otava(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otava"));
    let arguments = arguments.split_whitespace();
    command
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs it, and returns what it says.
fn done(folder: &Path, arguments: &str) -> String {
    let output = otava(folder, arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs it, and returns why it failed.
fn failed(folder: &Path, arguments: &str) -> String {
    let output = otava(folder, arguments);
    assert!(!output.status.success(), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn network(folder: &Path, name: &str) -> QuicNetwork {
    let files = CredentialFiles::in_folder(folder.join(name));
    let credentials = Credentials::from_files(files).unwrap();
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    QuicNetwork::builder(name, any_port, credentials)
        .bind()
        .unwrap()
}

/// X1: nodes with certificates of one authority form a connection, one of another authority does not.
#[tokio::test]
async fn nodes_with_certificates_of_one_authority_accept_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done(at, "cert authority --out authority");
    done(at, "cert authority --out others");
    for name in ["node-1", "node-2"] {
        done(
            at,
            &format!("cert node --name {name} --authority authority --out {name}"),
        );
    }
    done(
        at,
        "cert node --name node-3 --authority others --out node-3",
    );
    let [one, two, three] = ["node-1", "node-2", "node-3"].map(|name| network(at, name));
    let (to_two, from_one) = tokio::join!(one.connect(two.local_addr()), two.accept());
    assert!(to_two.unwrap().proves_name("node-2"));
    assert!(from_one.unwrap().proves_name("node-1"));
    for (caller, called) in [(&three, &two), (&one, &three)] {
        let error = caller.connect(called.local_addr()).await.err().unwrap();
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    }
}

#[test]
fn what_was_made_is_shown_and_no_key_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let told = done(at, "cert authority --out authority --name Bank");
    assert!(told.contains("authority-key.pem makes any node"), "{told}");
    done(
        at,
        "cert node --name node-1 --role worker --role web --address 127.0.0.1:7001 --days 2 --authority authority --out n",
    );
    let shown = done(at, "cert show n/certificate.pem");
    for line in [
        "kind         node",
        "subject      node-1",
        "issuer       Bank",
        "nodes        node-1",
        "roles        web, worker",
        "addresses    127.0.0.1:7001",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "{line} in {shown}"
        );
    }
    assert!(!shown.contains("clients"), "{shown}");
    done(
        at,
        "cert node --name reports --client --authority authority --out c",
    );
    let shown = done(at, "cert show c/certificate.pem");
    assert!(
        shown.contains("clients      reports") && !shown.contains("nodes"),
        "{shown}"
    );
    let shown = done(at, "cert show authority/authority.pem");
    assert!(shown.contains("kind         authority"), "{shown}");
    let nothing = failed(at, "cert show authority/authority-key.pem");
    assert!(nothing.contains("holds no certificate"), "{nothing}");
    // What the most used tool says of the same file.
    let openssl = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(at.join("n/certificate.pem"))
        .output();
    if let Ok(openssl) = openssl {
        let fingerprint = text(&openssl.stdout);
        let (_, fingerprint) = fingerprint.trim().split_once('=').unwrap();
        let shown = done(at, "cert show n/certificate.pem");
        assert!(shown.contains(fingerprint), "{fingerprint} in {shown}");
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_reads_what_was_made() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done(at, "cert authority --out authority");
    done(at, "cert node --name a --authority authority --out a");
    for made in ["authority", "a"] {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&at.join(made)), 0o700);
        for file in fs::read_dir(at.join(made)).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn nothing_is_overwritten_and_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    done(at, "cert authority --out authority");
    let before = fs::read(at.join("authority/authority-key.pem")).unwrap();
    let error = failed(at, "cert authority --out authority");
    assert!(error.contains("never overwritten"), "{error}");
    assert_eq!(
        fs::read(at.join("authority/authority-key.pem")).unwrap(),
        before
    );

    // One file is in the way: none is written.
    fs::create_dir(at.join("n")).unwrap();
    fs::write(at.join("n/key.pem"), "mine").unwrap();
    let error = failed(at, "cert node --name n --authority authority --out n");
    assert!(error.contains("n/key.pem exists"), "{error}");
    assert_eq!(fs::read_dir(at.join("n")).unwrap().count(), 1);
    assert_eq!(fs::read(at.join("n/key.pem")).unwrap(), b"mine");

    done(at, "cert authority --out short --days 10");
    done(at, "cert authority --out mixed");
    fs::copy(
        at.join("authority/authority-key.pem"),
        at.join("mixed/authority-key.pem"),
    )
    .unwrap();
    for (arguments, expected) in [
        (
            "cert node --name a --authority nowhere --out a",
            "nowhere/authority.pem",
        ),
        (
            "cert node --name a/b --authority authority --out a",
            "\"a/b\" cannot stand",
        ),
        (
            "cert node --name a --role x/y --authority authority --out a",
            "\"x/y\" cannot stand",
        ),
        (
            "cert node --name a --days 0 --authority authority --out a",
            "cannot be valid for 0",
        ),
        (
            "cert node --name a --days 11 --authority short --out a",
            "expires before",
        ),
        (
            "cert node --name a --authority mixed --out a",
            "would be refused by its peers",
        ),
        (
            "cert authority --days 4000000 --out a",
            "cannot be valid for",
        ),
        (
            "cert node --name a --address 10.0.0.1 --authority authority --out a",
            "--address",
        ),
        ("cert show nothing.pem", "cannot read nothing.pem"),
    ] {
        let error = failed(at, arguments);
        assert!(error.contains(expected), "{arguments}: {error}");
        assert!(!at.join("a").exists(), "{arguments}");
    }
}
