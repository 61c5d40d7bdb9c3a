//! Security: a whole node holds to what its builder was told of certificates and rights, over QUIC.

use otava::certificates::Subject;
use otava::prelude::*;
use otava::{Client, Credentials, Node, NodeError, Rights};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[derive(Deserialize, Serialize)]
struct Hours(#[serde(with = "otava::wire")] ReplyTo<u64>);

impl RemoteMessage for Hours {
    const NAME: &'static str = "test.Hours";
}

#[derive(Deserialize, Serialize)]
struct Secrets(#[serde(with = "otava::wire")] ReplyTo<u64>);

impl RemoteMessage for Secrets {
    const NAME: &'static str = "test.Secrets";
}

struct Desk;

impl Actor for Desk {
    type Msg = Hours;
    type Err = Infallible;

    async fn handle(
        &mut self,
        Hours(reply_to): Hours,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let _ = reply_to.send(9);
        Ok(())
    }
}

struct Safe;

impl Actor for Safe {
    type Msg = Secrets;
    type Err = Infallible;

    async fn handle(
        &mut self,
        Secrets(reply_to): Secrets,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        let _ = reply_to.send(42);
        Ok(())
    }
}

fn credentials(folder: &Path, subject: &Subject) -> Credentials {
    Credentials::development_for(&folder.join("authority"), subject).unwrap()
}

/// X9: a client with a certificate of its own kind reaches what the node exports to clients, and learns that
/// it may not reach the rest. The second contact is not there.
#[tokio::test]
async fn a_client_reaches_what_a_node_exports_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::builder("test", "node-1")
        .data(folder.path())
        .rights(Rights::default().export_to_clients::<Hours>())
        .start()
        .await
        .unwrap();
    node.join().await.unwrap();
    let desk = node.system().spawn_anonymous(Props::once(Desk)).unwrap();
    let safe = node.system().spawn_anonymous(Props::once(Safe)).unwrap();
    node.remote().publish("desk", &desk).unwrap();
    node.remote().publish("safe", &safe).unwrap();

    let nobody: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let of_client = credentials(folder.path(), &Subject::client("reports"));
    let client = Client::start("test", "reports", of_client, [nobody, node.id().addr]).unwrap();
    client.connected(SOON).await.unwrap();
    let desk = client.published::<Hours>("desk").actor().unwrap();
    assert_eq!(desk.ask(Hours).within(SOON).await, Ok(9));
    let safe = client.published::<Secrets>("safe").actor().unwrap();
    let refused = safe.ask(Secrets).within(SOON).await;
    assert!(
        matches!(refused, Err(AskError::NotPermitted { .. })),
        "{refused:?}"
    );
    assert_eq!(node.remote().stats().not_permitted, 1);
    assert_eq!(node.state().members.len(), 1);
    client.shutdown().await;

    let alone = credentials(folder.path(), &Subject::client("alone"));
    let client = Client::start("test", "alone", alone, [nobody]).unwrap();
    let error = client
        .connected(Duration::from_millis(200))
        .await
        .unwrap_err();
    assert_eq!(error.contacts, [nobody]);
    client.shutdown().await;
    node.leave().await;
}

/// X2, X4: what cannot be is said at the start: a member with the certificate of a client, and a node that has
/// certificates and is to do without.
#[tokio::test]
async fn a_node_says_at_its_start_what_is_wrong_with_its_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let start = |change: fn(otava::NodeBuilder) -> otava::NodeBuilder, subject: Option<Subject>| {
        let mut node = Node::builder("test", "node-1").data(folder.path());
        if let Some(subject) = subject {
            node = node.credentials(credentials(folder.path(), &subject));
        }
        change(node).start()
    };
    let client = start(|node| node, Some(Subject::client("node-1"))).await;
    assert!(
        matches!(client, Err(NodeError::ClientCertificate { .. })),
        "{client:?}"
    );
    let other = start(|node| node, Some(Subject::node("node-2"))).await;
    assert!(matches!(other, Err(NodeError::Bind(_))), "{other:?}");
    let both = start(otava::NodeBuilder::insecure, Some(Subject::node("node-1"))).await;
    assert!(
        matches!(both, Err(NodeError::InsecureWithCredentials)),
        "{both:?}"
    );
    let everywhere =
        |node: otava::NodeBuilder| node.listen("0.0.0.0:0".parse().unwrap()).insecure();
    let open = start(everywhere, None).await;
    assert!(matches!(open, Err(NodeError::Bind(_))), "{open:?}");
    let insecure = start(otava::NodeBuilder::insecure, None).await.unwrap();
    insecure.join().await.unwrap();
    insecure.leave().await;
}
