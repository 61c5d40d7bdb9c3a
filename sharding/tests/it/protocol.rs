//! Proves: local references, references to other nodes and entities have the same methods of a protocol.

use crate::support::{Cluster, SECOND, addr};
use otava_actor::protocol::{Protocol, Recipient};
use otava_actor::{ActorRef, AskError, Context, Props};
use otava_remote::{NodeId, Remote, RemoteMessage};
use otava_sharding::logic::view::{Host, View};
use otava_sharding::{Entities, MemoryAllocationStore, Sharding, ShardingConfig, client};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;

const KIND: &str = "account";
const SHARDS: u32 = 8;

/// An account, wherever it is.
#[otava_actor::protocol(id = "bank.account", version = 2, remote)]
pub(crate) trait AccountApi {
    async fn deposit(&mut self, cents: u64);
    async fn balance(&mut self) -> u64;
    /// Tells `who` of each deposit, and `others` too.
    #[since(2)]
    async fn follow(&mut self, who: ActorRef<NoticeMsg>, others: Vec<ActorRef<NoticeMsg>>);
    #[since(2)]
    async fn note(&mut self, #[serde(default)] text: String) -> Result<usize, String>;
}

#[otava_actor::protocol(id = "bank.notice", remote)]
pub(crate) trait NoticeApi {
    async fn deposited(&mut self, cents: u64);
    async fn total(&mut self) -> u64;
}

#[derive(Default)]
struct Account {
    cents: u64,
    followers: Vec<ActorRef<NoticeMsg>>,
}

#[otava_actor::actor]
impl AccountApi for Account {
    type Err = Infallible;

    async fn deposit(&mut self, cents: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.cents += cents;
        self.followers
            .retain(|follower| follower.deposited(cents).is_ok());
        Ok(())
    }

    async fn balance(&mut self, _: &mut Context<Self>) -> Result<u64, Infallible> {
        Ok(self.cents)
    }

    async fn follow(
        &mut self,
        who: ActorRef<NoticeMsg>,
        others: Vec<ActorRef<NoticeMsg>>,
        _: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        self.followers.push(who);
        self.followers.extend(others);
        Ok(())
    }

    async fn note(
        &mut self,
        text: String,
        _: &mut Context<Self>,
    ) -> Result<Result<usize, String>, Infallible> {
        Ok(if text.is_empty() {
            Err("no text".to_owned())
        } else {
            Ok(text.len())
        })
    }
}

#[derive(Default)]
struct Notices(u64);

#[otava_actor::actor]
impl NoticeApi for Notices {
    type Err = Infallible;

    async fn deposited(&mut self, cents: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0 += cents;
        Ok(())
    }

    async fn total(&mut self, _: &mut Context<Self>) -> Result<u64, Infallible> {
        Ok(self.0)
    }
}

/// Two nodes that host accounts, and the handles of the entities on each.
fn accounts(cluster: &Cluster) -> [(Remote, Entities<AccountMsg>); 2] {
    let remotes = [1, 2].map(|n| cluster.outsider(n));
    let hosts: BTreeMap<NodeId, Host> = remotes
        .iter()
        .map(|remote| (remote.id().clone(), Host::Up))
        .collect();
    let oldest = Some(remotes[0].id().clone());
    let store = Arc::new(MemoryAllocationStore::new());
    remotes.map(|remote| {
        let mut view = View::empty(remote.id().clone());
        (view.oldest, view.hosts) = (oldest.clone(), hosts.clone());
        // Nobody joins or leaves: the sender may go.
        let (_, views) = watch::channel(view);
        let config = ShardingConfig::default().shards(SHARDS);
        let factory = |_| Props::new(Account::default);
        let started =
            Sharding::start_with::<Account>(&remote, views, KIND, store.clone(), config, factory);
        (remote, started.unwrap())
    })
}

/// What every caller does, whatever it has in hand.
async fn save<A: Recipient<AccountMsg>>(account: &A, cents: u64) -> Result<u64, AskError> {
    account.deposit(cents).unwrap();
    account.balance().await
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_reference_has_the_methods_of_its_protocol() {
    let cluster = Cluster::new(21);
    let [(one, here), (_two, there)] = accounts(&cluster);
    here.all_hosted().await;
    for id in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(save(&here.entity(id), 5).await, Ok(5));
        assert_eq!(save(&there.entity(id), 2).await, Ok(7));
    }

    let outside = cluster.outsider(9);
    let far = client::<AccountMsg>(&outside, KIND, &[addr(1)], SHARDS).unwrap();
    assert_eq!(save(&far.entity("a"), 1).await, Ok(8));
    let noted = far.entity("a").note("x".to_owned()).within(SECOND).await;
    assert_eq!(noted, Ok(Ok(1)));

    let local = one.system().spawn("account", Account::default()).unwrap();
    one.publish("account", &local).unwrap();
    assert_eq!(save(&local, 3).await, Ok(3));
    let remote = outside.resolve_at::<AccountMsg>(addr(1), "account");
    assert_eq!(save(&remote, 4).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn references_travel_in_the_arguments_of_a_method() {
    let cluster = Cluster::new(22);
    let [(_one, here), (_two, there)] = accounts(&cluster);
    there.all_hosted().await;
    let outside = cluster.outsider(9);
    let notices = ["x", "y"].map(|name| outside.system().spawn(name, Notices(0)).unwrap());
    let far = client::<AccountMsg>(&outside, KIND, &[addr(2)], SHARDS).unwrap();
    let [x, y] = notices;
    far.entity("a").follow(x.clone(), vec![y.clone()]).unwrap();
    far.entity("a").balance().await.unwrap();
    here.entity("a").deposit(30).unwrap();
    there.entity("a").deposit(12).unwrap();
    assert_eq!(here.entity("a").balance().await, Ok(42));
    tokio::time::sleep(SECOND).await;
    assert_eq!(x.total().await, Ok(42));
    assert_eq!(y.total().await, Ok(42));
}

/// The same account with other types on the wire, as an older or a mistaken program has it.
mod other {
    #[otava_actor::protocol(id = "bank.account", remote)]
    pub(super) trait AccountApi {
        async fn deposit(&mut self, cents: u32);
        async fn balance(&mut self) -> u64;
    }
}

/// The account as it was in its first version, with another order in the source.
mod first {
    #[otava_actor::protocol(id = "bank.account", remote)]
    pub(super) trait AccountApi {
        async fn balance(&mut self) -> u64;
        #[name = "deposit"]
        async fn pay_in(&mut self, amount: u64);
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_version_is_understood_and_another_layout_is_refused() {
    let cluster = Cluster::new(23);
    let (one, two) = (cluster.outsider(1), cluster.outsider(2));
    let account = one.system().spawn("account", Account::default()).unwrap();
    one.publish("account", &account).unwrap();

    let old = two.resolve::<first::AccountMsg>(one.id(), "account");
    first::AccountClient::pay_in(&old, 11).unwrap();
    let balance = first::AccountClient::balance(&old).within(SECOND).await;
    assert_eq!(balance, Ok(11));

    let mistaken = two.resolve::<other::AccountMsg>(one.id(), "account");
    other::AccountClient::deposit(&mistaken, 1).unwrap();
    let balance = other::AccountClient::balance(&mistaken)
        .within(SECOND)
        .await;
    assert!(
        matches!(balance, Err(AskError::NotUnderstood { .. })),
        "{balance:?}"
    );
    assert_eq!(account.balance().await, Ok(11));
    assert_eq!(one.stats().undelivered, 2);
}

#[derive(Default)]
struct FirstAccount(u64);

#[otava_actor::actor]
impl first::AccountApi for FirstAccount {
    type Err = Infallible;

    async fn balance(&mut self, _: &mut Context<Self>) -> Result<u64, Infallible> {
        Ok(self.0)
    }

    async fn pay_in(&mut self, amount: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
        self.0 += amount;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_does_not_know_a_method_refuses_it_and_counts() {
    let cluster = Cluster::new(24);
    let (one, two) = (cluster.outsider(1), cluster.outsider(2));
    let account = one.system().spawn("account", FirstAccount(0)).unwrap();
    one.publish("account", &account).unwrap();
    let newer = two.resolve::<AccountMsg>(one.id(), "account");
    newer.deposit(5).unwrap();
    let noted = newer.note("x".to_owned()).within(SECOND).await;
    assert!(
        matches!(noted, Err(AskError::NotUnderstood { .. })),
        "{noted:?}"
    );
    assert_eq!(one.stats().undelivered, 1);
    assert_eq!(newer.balance().await, Ok(5));
}

/// R10: the same through sharding, over a relay: an entity of an older program is asked by a newer one.
#[tokio::test(start_paused = true)]
async fn an_entity_of_an_older_program_says_what_it_does_not_know() {
    let cluster = Cluster::new(25);
    let remote = cluster.outsider(1);
    let mut view = View::empty(remote.id().clone());
    view.oldest = Some(remote.id().clone());
    view.hosts = BTreeMap::from([(remote.id().clone(), Host::Up)]);
    let (_, views) = watch::channel(view);
    let store = Arc::new(MemoryAllocationStore::new());
    let config = ShardingConfig::default().shards(SHARDS);
    let factory = |_| Props::new(|| FirstAccount(0));
    let old =
        Sharding::start_with::<FirstAccount>(&remote, views, KIND, store, config, factory).unwrap();
    old.all_hosted().await;

    let outside = cluster.outsider(9);
    let newer = client::<AccountMsg>(&outside, KIND, &[addr(1)], SHARDS).unwrap();
    let account = newer.entity("a");
    assert_eq!(save(&account, 5).await, Ok(5));
    let hour = std::time::Duration::from_secs(3_600);
    let noted = account.note("x".to_owned()).within(hour).await;
    assert!(
        matches!(noted, Err(AskError::NotUnderstood { .. })),
        "{noted:?}"
    );
    assert_eq!(save(&account, 2).await, Ok(7));
    assert_eq!(remote.stats().not_understood, 1);
}

#[test]
fn the_name_between_nodes_is_the_id_and_the_layout() {
    fn name<M: RemoteMessage>() -> (&'static str, u16) {
        (M::NAME, M::VERSION)
    }
    assert_eq!(AccountMsg::ID, AccountMsg::NAME);
    assert_eq!(name::<AccountMsg>().0, "bank.account");
    assert_eq!(name::<AccountMsg>(), name::<first::AccountMsg>());
    assert_ne!(name::<AccountMsg>(), name::<other::AccountMsg>());
}
