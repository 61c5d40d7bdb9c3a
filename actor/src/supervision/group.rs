//! Group: actors that restart together, in a fixed order, at the most so often.
//!
//! A group is an actor whose children are the members. A member whose strategy says escalate does
//! not end: it keeps its mailbox, holds still, and tells the group. The group has the affected
//! members give their instances up, the last started first, one after the other, and then has them
//! make new ones, the first started first; each begins when the one before it is ready. Members are
//! restarted in place, so references to them stay good.
//!
//! What can go wrong: a member fails again while it is being started (one more round, counted
//! against the limit), or another one fails meanwhile (its signal is out of date when it was
//! restarted too: the port tells), or a member ends (it leaves the roster, and whoever waits for it
//! learns that at once), or the group is stopped (every wait of the group looks at that).

use super::history::Window;
use super::member::{Membership, Port};
use super::plan::{Plan, Strategy};
use super::strategy::Supervision;
use crate::actor::Actor;
use crate::actor_ref::ActorRef;
use crate::cell::Node;
use crate::context::Context;
use crate::error::SpawnError;
use crate::life::unless;
use crate::mailbox::Phase;
use crate::path::ActorPath;
use crate::props::Props;
use crate::sync::lock;
use crate::system::{ActorSystem, Core};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many rounds of restarts a group makes within [`WITHIN_DEFAULT`] unless configured otherwise.
const LIMIT_DEFAULT: u32 = 3;
/// The window of that limit.
const WITHIN_DEFAULT: Duration = Duration::from_secs(5);

/// Who restarts when a member of a group has failed.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum GroupStrategy {
    /// All members.
    #[default]
    AllForOne,
    /// Only the member that failed. The limit is still the whole group's.
    OneForOne,
    /// The member that failed, and all that were started after it.
    RestForOne,
}

/// A handle on a group of actors that restart together. Cheap to clone; dropping it stops nothing.
///
/// Members must be made by a factory. Those for which no strategy was chosen leave every failure to
/// the group. A strategy of their own comes first: a member may restart alone, and escalate what it
/// cannot deal with ([`Props::decide`], [`Props::escalate_at_limit`]). A member that ends, because it
/// was stopped or its own strategy said so, leaves the group, and that is no failure of the group.
///
/// Members stop in the reverse order of their start, each when the one after it has ended.
///
/// # Examples
/// ```
/// use otava_actor::{Actor, ActorRef, ActorSystem, Context, Group, Props};
/// # use std::convert::Infallible;
/// # struct Store;
/// # impl Actor for Store {
/// #     type Msg = u64;
/// #     type Err = Infallible;
/// #     async fn handle(&mut self, _: u64, _: &mut Context<Self>) -> Result<(), Infallible> { Ok(()) }
/// # }
/// # struct Reader(ActorRef<u64>);
/// # impl Actor for Reader {
/// #     type Msg = u64;
/// #     type Err = Infallible;
/// #     async fn handle(&mut self, n: u64, _: &mut Context<Self>) -> Result<(), Infallible> {
/// #         let _ = self.0.tell(n);
/// #         Ok(())
/// #     }
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), otava_actor::SpawnError> {
/// let system = ActorSystem::new("example");
/// // A reader is of no use without the state of the store that it has seen.
/// let group = system.spawn_group("files", Group::rest_for_one())?;
/// let store = group.spawn("store", Props::new(|| Store))?;
/// let reader = group.spawn("reader", Props::new(move || Reader(store.clone())))?;
/// # let _ = reader;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Group {
    actor: ActorRef<GroupSignal>,
    roster: Arc<Roster>,
    core: Arc<Core>,
}

impl Group {
    /// A group that restarts all members when one has failed.
    pub fn all_for_one() -> GroupBuilder {
        GroupBuilder::new(GroupStrategy::AllForOne)
    }

    /// A group that restarts only the member that failed, with one limit for all.
    pub fn one_for_one() -> GroupBuilder {
        GroupBuilder::new(GroupStrategy::OneForOne)
    }

    /// A group that restarts the member that failed and those that were started after it.
    pub fn rest_for_one() -> GroupBuilder {
        GroupBuilder::new(GroupStrategy::RestForOne)
    }

    /// Starts the next member.
    ///
    /// # Errors
    /// [`SpawnError::BadName`]; [`SpawnError::NameTaken`] by a living member;
    /// [`SpawnError::NoFactory`] for an actor given by value; [`SpawnError::Stopping`] if the group
    /// is stopping or has ended.
    pub fn spawn<A: Actor>(
        &self,
        name: &str,
        mut props: Props<A>,
    ) -> Result<ActorRef<A::Msg>, SpawnError> {
        let plan = props.plan();
        plan.strategy
            .get_or_insert(Strategy::Fixed(Supervision::Escalate));
        let (place, port) = self.roster.enter();
        let roster = self.roster.clone();
        plan.member = Some(Membership::new(
            port.clone(),
            self.actor.clone(),
            roster,
            place,
        ));
        let parent: Arc<dyn Node> = self.actor.target().clone();
        self.core
            .spawn_into(Some(parent), Some(name), props, |ctx| {
                let actor: Arc<dyn Node> = ctx.me().target().clone();
                port.attach(&actor);
            })
    }

    /// Starts a group as the next member of this one.
    ///
    /// # Errors
    /// As for [`Group::spawn`].
    pub fn spawn_group(&self, name: &str, builder: GroupBuilder) -> Result<Self, SpawnError> {
        let roster = Arc::new(Roster::default());
        let actor = self.spawn(name, builder.props(&roster))?;
        let core = self.core.clone();
        Ok(Self {
            actor,
            roster,
            core,
        })
    }

    /// The actor of the group, to be watched.
    pub fn actor_ref(&self) -> &ActorRef<GroupSignal> {
        &self.actor
    }

    /// Stops the members, the last started first, and then the group.
    pub fn stop(&self) {
        self.actor.stop();
    }

    fn start(
        core: &Arc<Core>,
        parent: Option<Arc<dyn Node>>,
        name: &str,
        builder: GroupBuilder,
    ) -> Result<Self, SpawnError> {
        let roster = Arc::new(Roster::default());
        let actor = core.spawn(parent, Some(name), builder.props(&roster))?;
        let core = core.clone();
        Ok(Self {
            actor,
            roster,
            core,
        })
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.actor).finish()
    }
}

impl ActorSystem {
    /// Starts a group at the top of the tree. It has no members yet: [`Group::spawn`].
    ///
    /// # Errors
    /// As for [`ActorSystem::spawn`].
    pub fn spawn_group(&self, name: &str, builder: GroupBuilder) -> Result<Group, SpawnError> {
        Group::start(self.core(), None, name, builder)
    }
}

impl<A: Actor> Context<A> {
    /// Starts a group as a child. It has no members yet: [`Group::spawn`].
    ///
    /// # Errors
    /// As for [`Context::spawn`].
    pub fn spawn_group(&self, name: &str, builder: GroupBuilder) -> Result<Group, SpawnError> {
        let parent: Arc<dyn Node> = self.me().target().clone();
        Group::start(
            self.me().target().cell().core(),
            Some(parent),
            name,
            builder,
        )
    }
}

/// The settings of a group that is about to start.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct GroupBuilder {
    strategy: GroupStrategy,
    limit: u32,
    within: Duration,
    on_failure: Option<Supervision>,
}

impl GroupBuilder {
    /// A group with this strategy, and a limit of 3 rounds of restarts within 5 seconds.
    pub fn new(strategy: GroupStrategy) -> Self {
        Self {
            strategy,
            limit: LIMIT_DEFAULT,
            within: WITHIN_DEFAULT,
            on_failure: None,
        }
    }

    /// How many rounds of restarts are allowed in any window of length `within`. The failure that
    /// would need one more is a failure of the group. `u32::MAX` means that there is no limit.
    pub fn limit(mut self, restarts: u32, within: Duration) -> Self {
        (self.limit, self.within) = (restarts, within);
        self
    }

    /// What to do when the group itself fails. By default it stops, and its members with it; as a
    /// member of another group it escalates. A restart takes all members down and brings them up
    /// again in place. There is nothing to resume: [`Supervision::Resume`] is a stop here.
    pub fn on_failure(mut self, supervision: impl Into<Supervision>) -> Self {
        self.on_failure = Some(match supervision.into() {
            Supervision::Resume => Supervision::Stop,
            other => other,
        });
        self
    }

    fn props(self, roster: &Arc<Roster>) -> Props<GroupActor> {
        let (own, mut is_first) = (roster.clone(), true);
        let props = Props::new(move || GroupActor {
            settings: self,
            is_first: std::mem::replace(&mut is_first, false),
            rounds: Window::default(),
            roster: own.clone(),
        });
        let mut props = props.keep_children();
        let plan: &mut Plan<GroupActor> = props.plan();
        plan.strategy = self.on_failure.map(Strategy::Fixed);
        plan.leads = Some(roster.clone());
        props
    }
}

/// Why a group failed: what its own strategy, or its parent, is told.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupFailure {
    /// A member failed after as many rounds of restarts as are allowed.
    #[error("{member} failed after {limit} restarts of its group within {within:?}: {failure}")]
    LimitReached {
        /// The member that failed last.
        member: ActorPath,
        /// What was wrong with it.
        failure: String,
        /// The limit.
        limit: u32,
        /// The window of the limit.
        within: Duration,
    },
    /// The group was restarted, and a member did not get ready.
    #[error("{member} did not start again with its group: {failure}")]
    NotStarted {
        /// The member.
        member: ActorPath,
        /// What was wrong with it.
        failure: String,
    },
}

/// What a member tells its group. Only this crate makes them.
pub struct GroupSignal {
    place: u64,
}

impl GroupSignal {
    pub(crate) fn failed(place: u64) -> Self {
        Self { place }
    }
}

impl fmt::Debug for GroupSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupSignal(..)")
    }
}

/// The members of a group by the order of their start.
#[derive(Default)]
pub(crate) struct Roster(Mutex<Members>);

#[derive(Default)]
struct Members {
    next: u64,
    by_place: BTreeMap<u64, Arc<Port>>,
}

impl Roster {
    fn enter(&self) -> (u64, Arc<Port>) {
        let mut members = lock(&self.0);
        members.next += 1;
        let (place, port) = (members.next, Arc::new(Port::default()));
        members.by_place.insert(place, port.clone());
        (place, port)
    }

    pub(crate) fn leave(&self, place: u64) {
        let port = lock(&self.0).by_place.remove(&place);
        drop(port);
    }

    fn port(&self, place: u64) -> Option<Arc<Port>> {
        lock(&self.0).by_place.get(&place).cloned()
    }

    fn range(&self, places: impl RangeBounds<u64>) -> Vec<(u64, Arc<Port>)> {
        let members = lock(&self.0);
        let members = members.by_place.range(places);
        members
            .map(|(place, port)| (*place, port.clone()))
            .collect()
    }

    /// Whom a failure at `place` concerns, in the order of their start.
    fn affected(&self, strategy: GroupStrategy, place: u64) -> Vec<(u64, Arc<Port>)> {
        match strategy {
            GroupStrategy::AllForOne => self.range(..),
            GroupStrategy::OneForOne => self.range(place..=place),
            GroupStrategy::RestForOne => self.range(place..),
        }
    }

    /// Stops all members, each when the one after it has ended.
    pub(crate) async fn stop_all(&self) {
        for (_, port) in self.range(..).iter().rev() {
            // Whoever is not there yet is stopped with the other children.
            if let Some(actor) = port.actor() {
                actor.request(Phase::Stopping);
                // It resolves to an error: that is the news.
                let _ = port.gone().await;
            }
        }
    }
}

/// The actor of a group.
struct GroupActor {
    settings: GroupBuilder,
    /// Nothing was taken down before this instance.
    is_first: bool,
    rounds: Window,
    roster: Arc<Roster>,
}

impl Actor for GroupActor {
    type Msg = GroupSignal;
    type Err = GroupFailure;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), GroupFailure> {
        if self.is_first {
            return Ok(());
        }
        match start(ctx, &self.roster.range(..)).await {
            None => Ok(()),
            Some(Unready { port, failure, .. }) => Err(GroupFailure::NotStarted {
                member: path_of(&port, ctx),
                failure,
            }),
        }
    }

    async fn handle(
        &mut self,
        signal: GroupSignal,
        ctx: &mut Context<Self>,
    ) -> Result<(), GroupFailure> {
        let GroupBuilder {
            strategy,
            limit,
            within,
            ..
        } = self.settings;
        let mut place = signal.place;
        let Some(port) = self.roster.port(place) else {
            return Ok(());
        };
        // None: it was restarted since, for another reason.
        let Some(mut failure) = port.failure() else {
            return Ok(());
        };
        let mut member = path_of(&port, ctx);
        while !ctx.is_stop_requested() {
            if !self.rounds.allow(ctx.now(), limit, within) {
                return Err(GroupFailure::LimitReached {
                    member,
                    failure,
                    limit,
                    within,
                });
            }
            let affected = self.roster.affected(strategy, place);
            tracing::warn!(group = %ctx.path(), %member, failure, "a group restarts");
            halt(ctx, &affected).await;
            let Some(unready) = start(ctx, &affected).await else {
                break;
            };
            member = path_of(&unready.port, ctx);
            failure = unready.failure;
            place = unready.place;
        }
        Ok(())
    }

    async fn restarting(&mut self, ctx: &mut Context<Self>) {
        halt(ctx, &self.roster.range(..)).await;
    }
}

/// A member that was to start and failed.
struct Unready {
    place: u64,
    port: Arc<Port>,
    failure: String,
}

/// Takes `members` down, the last one first.
async fn halt(ctx: &Context<GroupActor>, members: &[(u64, Arc<Port>)]) {
    for (_, port) in members.iter().rev() {
        // An error means that the member has ended, which will do.
        let _ = unless_stopped(ctx, port.halt()).await;
    }
}

/// Brings `members` up, each when the one before it is ready, until one fails.
async fn start(ctx: &Context<GroupActor>, members: &[(u64, Arc<Port>)]) -> Option<Unready> {
    for (place, port) in members {
        if let Some(Ok(Err(failure))) = unless_stopped(ctx, port.start()).await {
            let (place, port) = (*place, port.clone());
            return Some(Unready {
                place,
                port,
                failure,
            });
        }
    }
    None
}

/// `None` if the group is asked to stop.
async fn unless_stopped<T>(
    ctx: &Context<GroupActor>,
    future: impl Future<Output = T>,
) -> Option<T> {
    unless(|| ctx.is_stop_requested(), future).await
}

fn path_of(port: &Port, ctx: &Context<GroupActor>) -> ActorPath {
    port.actor()
        .map_or_else(|| ctx.path().clone(), |actor| actor.path().clone())
}
