//! Work producer: sends each message to one of many workers, which pull as much as they can do.

use super::config::ProducerConfig;
use super::error::{SendError, StartError};
use super::intake::{Intake, Parcel, Sent, Token};
use super::keeper::{Keeper, Kept};
use super::payload;
use super::queue::{QueueError, StoredMessage};
use super::wire::{ConsumerMessage, ProducerMessage, ToSource};
use crate::logic::delivery::dealer::{Dealer, DealerSettings, Job, Output};
use crate::receptionist::{ClusterListing, ClusterReceptionist};
use otava_actor::{Actor, ActorRef, Context, Rng, ServiceKey, Time};
use otava_remote::RemoteMessage;
use std::collections::BTreeMap;
use std::fmt;

/// Sends each message to one of the workers that are registered under a key. A handle, cheap to clone.
///
/// A worker is a [`Consumer`](super::Consumer) that is registered with the receptionist; it gets work when it
/// has confirmed what it had, so fast ones do more. Many producers may share workers.
///
/// ```no_run
/// use otava_actor::{ActorRef, ServiceKey};
/// use otava_cluster::ClusterReceptionist;
/// use otava_cluster::delivery::{
///     Consumer, ConsumerConfig, ConsumerMessage, Delivered, ProducerConfig, WorkProducer,
/// };
/// # use otava_remote::RemoteMessage;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Deserialize, Serialize)]
/// struct Resize { picture: String }
/// # impl RemoteMessage for Resize { const NAME: &'static str = "pictures.Resize"; }
///
/// static RESIZERS: ServiceKey<ConsumerMessage<Resize>> = ServiceKey::new("resizers");
///
/// # async fn f(receptionist: ClusterReceptionist, system: otava_actor::ActorSystem,
/// #     resizer: ActorRef<Delivered<Resize>>) -> Result<(), Box<dyn std::error::Error>> {
/// // On every node that works,
/// let worker = Consumer::start(&system, "resizer-in", resizer, ConsumerConfig::default())?;
/// receptionist.register(&RESIZERS, worker.actor_ref())?;
/// // and on one that has work.
/// let config = ProducerConfig::default();
/// let work = WorkProducer::start(&receptionist, "resize-out", &RESIZERS, config).await?;
/// work.send(Resize { picture: "cat.png".into() }).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Delivery
/// At least once. A message that a worker has not confirmed when its node is out of the cluster, or when it is no
/// longer registered, goes to another one. Messages are begun in their order, and may be done in
/// another.
pub struct WorkProducer<M: Send + 'static> {
    intake: Intake,
    actor: ActorRef<Command<M>>,
}

impl<M: RemoteMessage> WorkProducer<M> {
    /// Starts a producer for the workers under `key`. With a queue, what an earlier run could not deliver is
    /// sent first.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Cancel safety
    /// If dropped, the queue may have been claimed, and an earlier run refused from then on.
    pub async fn start(
        receptionist: &ClusterReceptionist,
        name: &str,
        key: &ServiceKey<ConsumerMessage<M>>,
        config: ProducerConfig,
    ) -> Result<Self, StartError> {
        let system = receptionist.remote().system();
        let (keeper, state) =
            Keeper::claim(system, &config, |bytes| payload::open::<M>(bytes).map(drop)).await?;
        let intake = Intake::new(&config);
        let mut dealer = Dealer::new(DealerSettings {
            source: config.source(),
            per_worker_max: config.per_worker_max,
        });
        for StoredMessage { number, bytes, .. } in state.unconfirmed {
            let token = intake.restored(bytes.len());
            let job = Job {
                number,
                bytes,
                token,
            };
            dealer.push(system.now(), job);
        }
        let inner = Inner {
            intake: intake.clone(),
            last: state.last,
            dealer,
            keeper,
            workers: BTreeMap::new(),
            rng: system.rng(),
            reference: None,
        };
        let actor = system.spawn(name, inner)?;
        if let Err(error) = receptionist.subscribe(key, &actor) {
            actor.stop();
            return Err(error.into());
        }
        Ok(Self { intake, actor })
    }

    /// Takes a message to deliver it, and waits until there is room for it: as many messages may be
    /// unconfirmed as [`ProducerConfig::buffer_max`] says.
    ///
    /// `Ok` means that this run of the producer delivers it. Whether it was stored or handled is learned
    /// from [`Sent`].
    ///
    /// # Errors
    /// [`SendError`], which gives the message back.
    ///
    /// # Cancel safety
    /// If dropped before it returns, the message was not taken.
    pub async fn send(&self, message: M) -> Result<Sent, SendError<M>> {
        self.intake.send(&self.actor, Command::Push, message).await
    }

    /// As [`WorkProducer::send`], without waiting.
    ///
    /// # Errors
    /// [`SendError`], which gives the message back.
    pub fn try_send(&self, message: M) -> Result<Sent, SendError<M>> {
        self.intake.try_send(&self.actor, Command::Push, message)
    }

    /// How many messages were taken and are not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.intake.taken()
    }

    /// Ends the producer. What is not confirmed is forgotten, unless a queue keeps it.
    pub fn stop(&self) {
        self.actor.stop();
    }
}

impl<M: Send + 'static> Clone for WorkProducer<M> {
    fn clone(&self) -> Self {
        Self {
            intake: self.intake.clone(),
            actor: self.actor.clone(),
        }
    }
}

impl<M: Send + 'static> fmt::Debug for WorkProducer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WorkProducer").field(&self.actor).finish()
    }
}

enum Command<M: Send + 'static> {
    /// The queue has answered.
    Kept(Kept),
    Listing(ClusterListing<ConsumerMessage<M>>),
    Push(Parcel),
    Tick,
    Wire(ProducerMessage<M>),
}

impl<M: Send + 'static> From<ClusterListing<ConsumerMessage<M>>> for Command<M> {
    fn from(listing: ClusterListing<ConsumerMessage<M>>) -> Self {
        Self::Listing(listing)
    }
}

struct Inner<M: Send + 'static> {
    intake: Intake,
    /// The number of the message that was taken last.
    last: u64,
    dealer: Dealer<Token>,
    keeper: Keeper<Job<Token>>,
    /// By their series.
    workers: BTreeMap<u64, ActorRef<ConsumerMessage<M>>>,
    rng: Rng,
    /// How workers reach this actor; known once it runs.
    reference: Option<ActorRef<ProducerMessage<M>>>,
}

impl<M: RemoteMessage> Actor for Inner<M> {
    type Msg = Command<M>;
    type Err = QueueError;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), QueueError> {
        self.reference = Some(ctx.me().adapt(Command::Wire));
        Ok(())
    }

    async fn handle(
        &mut self,
        command: Command<M>,
        ctx: &mut Context<Self>,
    ) -> Result<(), QueueError> {
        let now = ctx.now();
        match command {
            Command::Kept(answer) => {
                for job in self.keeper.kept(now, answer)? {
                    self.dealer.push(now, job);
                }
            }
            Command::Listing(listing) => self.follow(now, &listing),
            Command::Push(parcel) => self.push(now, parcel),
            Command::Tick => {
                self.dealer.handle_timeout(now);
                self.keeper.handle_timeout(ctx, Command::Kept);
            }
            Command::Wire(ProducerMessage(ToSource::Report(report))) => {
                if let Err(error) = self.dealer.handle(now, &report.into()) {
                    tracing::warn!(producer = %ctx.path(), %error, "a report is ignored");
                }
            }
            // Workers are those that are listed.
            Command::Wire(ProducerMessage(ToSource::Register { .. })) => {}
        }
        self.carry_out(ctx);
        Ok(())
    }
}

impl<M: RemoteMessage> Inner<M> {
    fn push(&mut self, now: Time, parcel: Parcel) {
        self.last += 1;
        let job = Job {
            number: self.last,
            bytes: parcel.bytes,
            token: parcel.token,
        };
        let message = |job: &Job<Token>| StoredMessage {
            number: job.number,
            chunks: 1,
            bytes: job.bytes.clone(),
        };
        if let Some(job) = self.keeper.store(job, message, parcel.stored) {
            self.dealer.push(now, job);
        }
    }

    /// Takes up the workers that have come, and gives up those that are gone.
    fn follow(&mut self, now: Time, listing: &ClusterListing<ConsumerMessage<M>>) {
        let mut gone: BTreeMap<_, _> = std::mem::take(&mut self.workers);
        for service in listing.all() {
            let known = gone.iter().find(|(_, worker)| **worker == service.actor);
            let known = known.map(|(series, _)| *series);
            if let Some(series) = known {
                gone.remove(&series);
                self.dealer.set_reachable(now, series, service.is_reachable);
                self.workers.insert(series, service.actor.clone());
            } else {
                let series = self.rng.next_u64();
                self.dealer.add(now, series);
                self.dealer.set_reachable(now, series, service.is_reachable);
                self.workers.insert(series, service.actor.clone());
            }
        }
        for series in gone.into_keys() {
            self.dealer.remove(now, series);
        }
    }

    /// Does what the dealer and the queue want, and sets the timer.
    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.dealer.poll_output() {
            let (series, message) = match output {
                Output::Confirmed(number, token) => {
                    token.confirm();
                    self.keeper.confirm(number);
                    continue;
                }
                Output::Chunk(series, chunk) => (series, ConsumerMessage::chunk(chunk)),
                Output::Probe(series, probe) => {
                    let Some(reference) = self.reference.clone() else {
                        continue;
                    };
                    (series, ConsumerMessage::probe(probe, 0, reference))
                }
            };
            if let Some(worker) = self.workers.get(&series) {
                // What is refused is lost, as on the way; the worker's end is seen in the listing.
                let _ = worker.tell(message);
            }
        }
        let next = self.dealer.poll_timeout();
        self.keeper
            .carry_out(ctx, next, Command::Kept, Command::Tick);
    }
}

impl<M: Send + 'static> Drop for Inner<M> {
    fn drop(&mut self) {
        self.intake.close();
    }
}
