//! Producer: sends messages to one consumer, each until it is confirmed.

use super::config::ProducerConfig;
use super::error::{SendError, StartError};
use super::intake::{Intake, Parcel, Sent, Token};
use super::keeper::{Keeper, Kept};
use super::payload;
use super::queue::{QueueError, QueueState, StoredMessage};
use super::wire::{ConsumerMessage, ConsumerRef, ProducerMessage, ToSource};
use crate::logic::delivery::source::{Outgoing, Output, Source};
use otava_actor::{Actor, ActorRef, ActorSystem, Context, Terminated, Time};
use otava_remote::RemoteMessage;
use std::fmt;

/// Sends messages to one [`Consumer`](super::Consumer), in order, each until its handler has confirmed it. A
/// handle, cheap to clone.
///
/// The consumer comes to it ([`Consumer::register_with`](super::Consumer::register_with)) or is named
/// ([`Producer::deliver_to`]). Who comes last takes the place of the one before, and begins with the
/// first message that is not confirmed.
///
/// # Delivery
/// At least once, in order. Exactly once to the handler of one run of a consumer that confirms what it has
/// handled, as long as both ends live; see [`crate::delivery`].
pub struct Producer<M: Send + 'static> {
    intake: Intake,
    actor: ActorRef<Command<M>>,
    reference: ActorRef<ProducerMessage<M>>,
}

impl<M: RemoteMessage> Producer<M> {
    /// Starts a producer. With a queue, what an earlier run could not deliver is sent first.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Cancel safety
    /// If dropped, the queue may have been claimed, and an earlier run refused from then on.
    pub async fn start(
        system: &ActorSystem,
        name: &str,
        config: ProducerConfig,
    ) -> Result<Self, StartError> {
        let (keeper, state) =
            Keeper::claim(system, &config, |bytes| payload::open::<M>(bytes).map(drop)).await?;
        let intake = Intake::new(&config);
        let source = restored(&config, &intake, state)?;
        let inner = Inner {
            intake: intake.clone(),
            source,
            keeper,
            consumer: None,
            registration: 0,
            reference: None,
        };
        let actor = system.spawn(name, inner)?;
        let reference = actor.adapt(Command::Wire);
        Ok(Self {
            intake,
            actor,
            reference,
        })
    }

    /// What consumers register with. It may be published, registered under a key, or sent to other nodes.
    #[must_use]
    pub fn actor_ref(&self) -> &ActorRef<ProducerMessage<M>> {
        &self.reference
    }

    /// Delivers to this consumer from now on.
    pub async fn deliver_to(&self, consumer: &ActorRef<ConsumerMessage<M>>) {
        // If it has ended, `send` says so.
        let _ = self.actor.send(Command::DeliverTo(consumer.clone())).await;
    }

    /// Takes a message to deliver it, and waits until there is room for it: as many messages may be
    /// unconfirmed as [`ProducerConfig::buffer_max`] says. Messages that one task sends one after the
    /// other are delivered in that order.
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

    /// As [`Producer::send`], without waiting.
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

/// A source with what the queue keeps.
fn restored(
    config: &ProducerConfig,
    intake: &Intake,
    state: QueueState,
) -> Result<Source<Token>, StartError> {
    let first = state.unconfirmed.first();
    let confirmed = first.map_or(state.last, |m| m.number.saturating_sub(m.chunks));
    let mut source = Source::new(config.source(), state.series, state.claim, confirmed);
    for StoredMessage {
        number,
        chunks,
        bytes,
    } in state.unconfirmed
    {
        let token = intake.restored(bytes.len());
        let message = Outgoing {
            number,
            chunks,
            bytes,
            token,
        };
        if !source.restore(message) {
            return Err(StartError::Unreadable {
                number,
                why: "it does not follow the message before".into(),
            });
        }
    }
    if config.queue.is_some() {
        source.store_first();
    }
    Ok(source)
}

impl<M: Send + 'static> Clone for Producer<M> {
    fn clone(&self) -> Self {
        Self {
            intake: self.intake.clone(),
            actor: self.actor.clone(),
            reference: self.reference.clone(),
        }
    }
}

impl<M: Send + 'static> fmt::Debug for Producer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Producer").field(&self.actor).finish()
    }
}

enum Command<M: Send + 'static> {
    DeliverTo(ActorRef<ConsumerMessage<M>>),
    /// The queue has answered.
    Kept(Kept),
    Push(Parcel),
    Tick,
    Wire(ProducerMessage<M>),
}

struct Inner<M: Send + 'static> {
    intake: Intake,
    source: Source<Token>,
    keeper: Keeper<u64>,
    consumer: Option<ActorRef<ConsumerMessage<M>>>,
    /// The newest registration of that consumer.
    registration: u64,
    /// How others reach this actor; known once it runs.
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
            Command::DeliverTo(consumer) => self.turn_to(ctx, consumer, 0),
            Command::Kept(answer) => {
                if let Some(last) = self.keeper.kept(now, answer)?.last() {
                    self.source.stored(now, *last);
                }
            }
            Command::Push(parcel) => self.push(now, parcel),
            Command::Tick => {
                self.source.handle_timeout(now);
                self.keeper.handle_timeout(ctx, Command::Kept);
            }
            Command::Wire(ProducerMessage(message)) => match message {
                ToSource::Register {
                    consumer: ConsumerRef(consumer),
                    registration,
                } => self.turn_to(ctx, consumer, registration),
                ToSource::Report(report) => {
                    if let Err(error) = self.source.handle(now, &report.into()) {
                        tracing::warn!(producer = %ctx.path(), %error, "a report is ignored");
                    }
                }
            },
        }
        self.carry_out(ctx);
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        ctx: &mut Context<Self>,
    ) -> Result<(), QueueError> {
        if self.consumer.as_ref().is_some_and(|known| who.is(known)) {
            self.consumer = None;
            self.source.close();
            self.carry_out(ctx);
        }
        Ok(())
    }
}

impl<M: RemoteMessage> Inner<M> {
    fn push(&mut self, now: Time, parcel: Parcel) {
        let Parcel {
            bytes,
            stored,
            token,
        } = parcel;
        let (number, chunks) = self.source.push(now, bytes.clone(), token);
        let message = |number: &u64| StoredMessage {
            number: *number,
            chunks,
            bytes,
        };
        // Without a queue the source sends it at once.
        let _ = self.keeper.store(number, message, stored);
    }

    fn turn_to(
        &mut self,
        ctx: &mut Context<Self>,
        consumer: ActorRef<ConsumerMessage<M>>,
        registration: u64,
    ) {
        self.registration = registration;
        if self.consumer.as_ref() == Some(&consumer) {
            // If it is another run of it, its report will say so.
            self.source.ask(ctx.now());
            return;
        }
        if let Some(before) = self.consumer.take() {
            ctx.unwatch(&before);
        }
        ctx.watch(&consumer);
        self.consumer = Some(consumer);
        self.source.open(ctx.now());
    }

    /// Does what the source and the queue want, and sets the timer.
    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.source.poll_output() {
            let message = match output {
                Output::Confirmed { number, token } => {
                    token.confirm();
                    self.keeper.confirm(number);
                    continue;
                }
                Output::Chunk(chunk) => ConsumerMessage::chunk(chunk),
                Output::Probe(probe) => {
                    let Some(reference) = self.reference.clone() else {
                        continue;
                    };
                    ConsumerMessage::probe(probe, self.registration, reference)
                }
            };
            if let Some(consumer) = &self.consumer {
                // What is refused is lost, as on the way; the consumer's end is told apart.
                let _ = consumer.tell(message);
            }
        }
        let next = self.source.poll_timeout();
        self.keeper
            .carry_out(ctx, next, Command::Kept, Command::Tick);
    }
}

impl<M: Send + 'static> Drop for Inner<M> {
    fn drop(&mut self) {
        self.intake.close();
    }
}
