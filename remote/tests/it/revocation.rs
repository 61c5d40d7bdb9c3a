//! Proves: a certificate that is revoked lets nobody in any more, and nobody stays in with it.

use crate::nodes::Command;
use crate::rotation::{Home, Node, authority, network, over, until};
use otava_remote::{CredentialFiles, Credentials, CredentialsError, FilesError, RemoteEvent};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// X3: a revoked node is cut off as soon as the list says so, others are not; it comes back with
/// another certificate, or when the list no longer has it.
#[tokio::test]
async fn a_revoked_certificate_ends_its_connections() {
    let trusted = authority();
    let [mut home_of_a, home_of_b, home_of_c] =
        ["a", "b", "c"].map(|name| Home::new(name, &trusted));
    home_of_a.revoke("# nobody yet\n");
    let credentials_of_a = home_of_a.credentials();
    let a = Node {
        remote: over("a", Arc::new(network("a", credentials_of_a.clone()))),
    };
    let [b, c] = [&home_of_b, &home_of_c].map(Node::start);
    let _counter = a.counter();
    let [from_b, from_c] = [&b, &c].map(|node| {
        let counter = node.remote.resolve::<Command>(a.remote.id(), "counter");
        (node, counter)
    });
    for (_, counter) in [&from_b, &from_c] {
        assert_eq!(counter.ask(Command::Get).within(SOON).await, Ok(0));
    }
    let mut events = a.remote.events();
    let mut at_c = c.remote.events();
    let stolen = home_of_b.credentials().certificate().unwrap().fingerprint;
    home_of_a.revoke(&format!("{stolen} # lost with the laptop\n"));
    let gone = async {
        loop {
            if let Some(RemoteEvent::Disconnected(node)) = events.recv().await {
                return node.name.to_string();
            }
        }
    };
    assert_eq!(timeout(SOON, gone).await.as_deref(), Ok("b"));
    // It calls again, and is refused.
    let asked = from_b.1.ask(Command::Get).within(Duration::from_secs(2));
    assert!(asked.await.is_err());
    // Whoever has stolen it has it for good.
    let [authorities, chain, key] = [
        CredentialFiles::AUTHORITIES,
        CredentialFiles::CERTIFICATE,
        CredentialFiles::KEY,
    ]
    .map(|file| std::fs::read(home_of_b.path(file)).unwrap());
    let thief = Credentials::from_pem(&authorities, &chain, &key).unwrap();
    let caller = network("b", thief);
    until(&caller, a.addr(), false).await;
    // This node does not call it either.
    let back = a.remote.resolve::<Command>(b.remote.id(), "counter");
    let asked = back.ask(Command::Get).within(Duration::from_secs(2));
    assert!(asked.await.is_err());

    // A list that is no list changes nothing.
    home_of_a.revoke("all of them\n");
    assert!(credentials_of_a.reload().is_err());
    until(&caller, a.addr(), false).await;
    assert_eq!(from_c.1.ask(Command::Get).within(SOON).await, Ok(0));
    let heard = timeout(Duration::from_millis(1), at_c.recv()).await;
    assert!(heard.is_err(), "another node noticed: {heard:?}");

    // Another certificate for the same node is another one.
    home_of_a.revoke(&stolen.to_lowercase().replace(':', ""));
    home_of_b.certify(&trusted);
    let renewed = network("b", home_of_b.credentials());
    until(&renewed, a.addr(), true).await;
    until(&caller, a.addr(), false).await;
    home_of_a.revoke("# nobody\n");
    until(&caller, a.addr(), true).await;
}

/// A list that is asked for must be there, and be one.
#[test]
fn a_list_that_is_no_list_is_no_credential() {
    let mut home = Home::new("a", &authority());
    home.revoke("# none\n\nnode-7\n");
    let files = home.files();
    let error = Credentials::from_files(files.clone()).unwrap_err();
    assert!(
        matches!(
            error,
            CredentialsError::Files(FilesError::NoFingerprint { line: 3, .. })
        ),
        "{error}"
    );
    let missing = files.revoked(home.path("nowhere"));
    let error = Credentials::from_files(missing).unwrap_err();
    assert!(
        matches!(
            error,
            CredentialsError::Files(FilesError::Unreadable { .. })
        ),
        "{error}"
    );
}
