//! Virtual network: a network in memory, on tokio's clock, with cuts, delays, loss and crashes.
//!
//! ```text
//! VirtualWorld ---network(addr, name)---> VirtualNetwork ---connect/accept---> VirtualConnection
//!      |                                                                         (lanes.rs)
//!      '-- world.rs: what arrives when; cuts.rs: what does not; link.rs: one connection
//! ```
//!
//! It behaves as QUIC does where that can be seen from above: lanes keep their order and hold up
//! no other lane, a lost packet costs time and not bytes, a peer that vanishes is noticed by its
//! silence only. It carries bytes and looks at none of them.

mod cuts;
mod lanes;
mod link;
mod world;

use crate::identity::PeerIdentity;
use crate::network::{ConnectError, Connection, Network};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lanes::VirtualConnection;
use link::Answer;
use otava_actor::Time;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use world::World;

/// How long a call may go without an answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// A world of virtual end points, and the hand that breaks things in it. Cheap to clone.
///
/// On a paused, single-threaded runtime (`#[tokio::test(start_paused = true)]`) two runs with the
/// same seed are the same to the last nanosecond.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// use otava_remote::{Network, VirtualWorld};
///
/// let world = VirtualWorld::new(7);
/// let a = world.network("10.0.0.1:1".parse().unwrap(), "node-a");
/// let b = world.network("10.0.0.2:1".parse().unwrap(), "node-b");
/// let (to_b, from_a) = tokio::join!(a.connect(b.local_addr()), b.accept());
/// world.crash(a.local_addr());
/// assert_eq!(from_a.unwrap().closed().await, "idle");
/// # drop(to_b);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct VirtualWorld {
    shared: Arc<Shared>,
}

impl VirtualWorld {
    /// A world without end points: delays between 1 and 2 ms, no loss, an idle timeout of 2 s.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                world: Mutex::new(World::new(seed)),
                driver: Mutex::new(Driver::default()),
                wake: Arc::default(),
            }),
        }
    }

    /// Listens at `addr` as the node `node_name`. An end point that still listens there crashes
    /// first: this is how a node is restarted.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn network(&self, addr: SocketAddr, node_name: &str) -> VirtualNetwork {
        self.network_as(addr, PeerIdentity::member(node_name))
    }

    /// As [`VirtualWorld::network`], for one whose credentials say this of it: a client, or a node
    /// with roles or addresses.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn network_as(&self, addr: SocketAddr, identity: PeerIdentity) -> VirtualNetwork {
        self.shared.start();
        let identity = Arc::new(identity);
        let (run, changed) = self.shared.with(|world| world.listen(addr, identity));
        VirtualNetwork {
            shared: self.shared.clone(),
            addr,
            run,
            changed,
        }
    }

    /// Cuts the path between two end points, both ways. What is sent waits: it arrives when the
    /// path heals, unless the connection has ended before.
    pub fn cut(&self, a: SocketAddr, b: SocketAddr) {
        self.shared.with(|world| {
            world.cut_one_way(a, b);
            world.cut_one_way(b, a);
        });
    }

    /// Cuts the path from one end point to another. Nothing else passes that way; the other way
    /// stays open until the connections, whose keep-alives fail, are closed as idle.
    pub fn cut_one_way(&self, from: SocketAddr, to: SocketAddr) {
        self.shared.with(|world| world.cut_one_way(from, to));
    }

    /// Cuts an end point off from all others, later ones included, until it is to
    /// [`VirtualWorld::rejoin`].
    pub fn isolate(&self, addr: SocketAddr) {
        self.shared.with(|world| world.isolate(addr));
    }

    /// Ends [`VirtualWorld::isolate`]. Single paths that were cut stay cut.
    pub fn rejoin(&self, addr: SocketAddr) {
        self.shared.with(|world| world.rejoin(addr));
    }

    /// Ends the cuts between two end points, both ways.
    pub fn heal(&self, a: SocketAddr, b: SocketAddr) {
        self.shared.with(|world| world.heal(a, b));
    }

    /// Ends all cuts, and lets the isolated rejoin.
    pub fn heal_all(&self) {
        self.shared.with(World::heal_all);
    }

    /// From now on every packet takes a random time in this range. What is under way keeps its.
    pub fn set_delay(&self, delay: Range<Duration>) {
        self.shared.with(|world| world.delay = delay);
    }

    /// From now on a packet is lost with this probability, and sent again. As in QUIC it costs
    /// time, and the order within a lane is kept.
    pub fn set_loss(&self, probability: f64) {
        self.shared.with(|world| world.loss = probability);
    }

    /// From now on a packet is late with this probability, by up to this long: it comes behind others
    /// that were sent after it. As in QUIC that shows between lanes only: what follows on its own
    /// lane waits for it. Packets that come twice do not show at all, so there is no such setting.
    pub fn set_late(&self, probability: f64, by: Duration) {
        self.shared.with(|world| world.late = (probability, by));
    }

    /// Sets after how much silence connections end. It counts for what happens from now on.
    pub fn set_idle_timeout(&self, timeout: Duration) {
        self.shared.with(|world| world.idle_timeout = timeout);
    }

    /// The end point at `addr` vanishes, as a killed process does: it says nothing more, and its
    /// peers notice by their idle timeout. Its own connections and lanes fail at once.
    pub fn crash(&self, addr: SocketAddr) {
        self.shared.with(|world| world.crash(addr));
    }
}

/// An end point in a [`VirtualWorld`]. Dropping it closes it.
pub struct VirtualNetwork {
    shared: Arc<Shared>,
    addr: SocketAddr,
    run: u64,
    changed: Arc<Notify>,
}

impl VirtualNetwork {
    async fn dial(&self, to: SocketAddr) -> Result<Arc<dyn Connection>, ConnectError> {
        let call = self
            .shared
            .with(|world| world.call(self.addr, self.run, to))
            .ok_or(ConnectError::Closed)?;
        // Closes the call if it is given up.
        let connection = VirtualConnection::new(self.shared.clone(), call);
        let unreachable = |reason: &str| {
            let reason = reason.to_owned();
            Err(ConnectError::Unreachable { to, reason })
        };
        match tokio::time::timeout(CONNECT_LIMIT, connection.answer()).await {
            Ok(Some(Answer::Welcome)) => Ok(Arc::new(connection)),
            Ok(Some(Answer::NobodyHere)) => unreachable("nobody listens there"),
            Ok(None) => Err(ConnectError::Closed),
            Err(_) => unreachable("no answer within 3s"),
        }
    }

    async fn next_call(&self) -> Option<Arc<dyn Connection>> {
        loop {
            let changed = self.changed.notified();
            let accepted = self
                .shared
                .with(|world| world.accept(self.addr, self.run))?;
            if let Some(end) = accepted {
                return Some(Arc::new(VirtualConnection::new(self.shared.clone(), end)));
            }
            changed.await;
        }
    }

    fn stop(&self) {
        self.shared
            .with(|world| world.stop(self.addr, self.run, "the node has stopped"));
    }
}

impl Network for VirtualNetwork {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, Result<Arc<dyn Connection>, ConnectError>> {
        self.dial(to).boxed()
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arc<dyn Connection>>> {
        self.next_call().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async { self.stop() }.boxed()
    }
}

impl Drop for VirtualNetwork {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for VirtualNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualNetwork")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// The world behind its lock, and the task that lets its time pass.
struct Shared {
    world: Mutex<World>,
    driver: Mutex<Driver>,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Driver {
    started: Option<Instant>,
    task: Option<JoinHandle<()>>,
}

impl Shared {
    /// Looks at the world, or changes it.
    fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let started = self.driver().started;
        world.now = started.map_or(Time::ZERO, |started| Time::ZERO + started.elapsed());
        let due_before = world.due();
        let result = act(&mut world);
        if world.due() != due_before {
            self.wake.notify_one();
        }
        result
    }

    fn driver(&self) -> std::sync::MutexGuard<'_, Driver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass on this runtime, unless it does already.
    fn start(self: &Arc<Self>) {
        let mut driver = self.driver();
        let started = *driver.started.get_or_insert_with(Instant::now);
        if driver.task.as_ref().is_none_or(JoinHandle::is_finished) {
            let run = drive(Arc::downgrade(self), self.wake.clone(), started);
            driver.task = Some(tokio::spawn(run));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.driver().task.take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

async fn drive(shared: Weak<Shared>, wake: Arc<Notify>, started: Instant) {
    loop {
        let Some(due) = shared.upgrade().map(|shared| {
            shared.with(World::advance);
            shared.with(|world| world.due())
        }) else {
            return;
        };
        let Some(due) = due else {
            wake.notified().await;
            continue;
        };
        let due = started + due.saturating_since(Time::ZERO);
        tokio::select! {
            biased;
            () = wake.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }
}
