//! Proves: a node has no role that its certificate does not name, where that is asked for.

use crate::ontop::{MS, SECOND, addr};
use otava_actor::ActorSystem;
use otava_cluster::{Cluster, ClusterConfig, Dissemination, JoinError, Refusal, Status, Strategy};
use otava_remote::{PeerIdentity, Remote, VirtualWorld};
use std::sync::Arc;
use tokio::time::timeout;

struct Node {
    cluster: Cluster,
    _remote: Remote,
    _system: ActorSystem,
}

/// Node `n` with these roles in its certificate and in its mouth; `guards` says whether it looks at
/// those of others.
fn start(net: &VirtualWorld, n: u16, certified: &[&str], claimed: &[&str], guards: bool) -> Node {
    let name = format!("node-{n}");
    let system = ActorSystem::builder(&name).seed(n.into()).build();
    let identity = certified
        .iter()
        .fold(PeerIdentity::member(&name), |identity, role| {
            identity.role(role)
        });
    let network = Arc::new(net.network_as(addr(n), identity));
    let remote = Remote::builder(&system, "test", &name, network);
    let remote = remote.seeded(n.into()).start().unwrap();
    let mut config = ClusterConfig::default()
        .with_roles(claimed.iter().copied())
        .with_seeds((1..=3).map(addr))
        .with_downing(Strategy::Manual)
        .with_dissemination(Dissemination::Seeded(n.into()));
    config.roles_in_certificates = guards;
    Node {
        cluster: Cluster::start(&remote, config).unwrap(),
        _remote: remote,
        _system: system,
    }
}

fn world() -> VirtualWorld {
    let net = VirtualWorld::new(1);
    net.set_delay(MS..MS * 10);
    net
}

/// X4, X9: who claims a role without a certificate for it is refused, and learns why.
#[tokio::test(start_paused = true)]
async fn a_role_without_a_certificate_is_refused_at_the_door() {
    let net = world();
    let one = start(&net, 1, &["web", "db"], &["web"], true);
    one.cluster.join().await.unwrap();
    let honest = start(&net, 2, &["db"], &["db"], true);
    honest.cluster.join().await.unwrap();
    let plain = start(&net, 4, &[], &[], true);
    plain.cluster.join().await.unwrap();
    let liar = start(&net, 3, &["web"], &["web", "db"], true);
    let Err(JoinError::Refused(refusal)) = liar.cluster.join().await else {
        panic!("it was let in");
    };
    let expected = Refusal::SettingDiffers {
        setting: "roles_in_certificates".into(),
        ours: "db,web".into(),
        theirs: "web".into(),
    };
    assert_eq!(refusal, expected);
    assert_eq!(one.cluster.state().members.len(), 3);
}

/// X9: a node that let itself in, or was let in by one that does not look, is put down by those who do.
#[tokio::test(start_paused = true)]
async fn a_member_that_lies_is_put_down() {
    let net = world();
    let liar = start(&net, 1, &[], &["db"], false);
    liar.cluster.join().await.unwrap();
    // It forms the cluster and lets others in, until one of them looks.
    let careless = start(&net, 2, &[], &[], false);
    careless.cluster.join().await.unwrap();
    let guard = start(&net, 3, &[], &[], true);
    timeout(SECOND * 30, liar.cluster.downed()).await.unwrap();
    let id = liar.cluster.me().clone();
    for node in [&careless, &guard] {
        let mut state = node.cluster.subscribe();
        let out = state.wait_for(|state| {
            let status = state.get(&id).map(|member| member.status);
            state.members.len() > 1 && status.is_none_or(|status| status >= Status::Down)
        });
        timeout(SECOND * 30, out).await.unwrap().unwrap();
    }
    guard.cluster.join().await.unwrap();
    assert!(guard.cluster.state().get(careless.cluster.me()).is_some());
}

/// Who does not ask for it believes what others say.
#[tokio::test(start_paused = true)]
async fn roles_are_believed_unless_told_otherwise() {
    let net = world();
    let one = start(&net, 1, &[], &[], false);
    one.cluster.join().await.unwrap();
    let two = start(&net, 2, &[], &["db"], false);
    two.cluster.join().await.unwrap();
    let state = one.cluster.state();
    assert!(state.get(two.cluster.me()).unwrap().has_role("db"));
}
