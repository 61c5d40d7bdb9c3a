//! Keyed producer: sends messages to many consumers, each known by a key, such as entities by their ids.

use super::config::ProducerConfig;
use super::error::{SendError, StartError};
use super::intake::{Intake, Parcel, Sent, Token};
use super::keeper::{Keeper, Kept};
use super::payload;
use super::queue::{QueueError, StoredMessage};
use super::wire::{ConsumerMessage, ProducerMessage, ToSource};
use crate::logic::delivery::outlets::{Letter, Outlets, OutletsSettings, Output};
use otava_actor::{Actor, ActorRef, ActorSystem, Context, Time};
use otava_remote::RemoteMessage;
use std::fmt;
use std::sync::Arc;

/// Sends messages to the consumer of a key, in order for each key, until they are confirmed. A handle, cheap
/// to clone.
///
/// Where a key leads is for a function to say. Whatever it leads to may move, end and come back: what is not
/// confirmed is sent again. For entities `otava-sharding` has this ready: `Entities::producer`.
///
/// # Delivery
/// At least once, in order for each key; one run of a consumer hands a message over once, as long as this run of the
/// producer lives.
pub struct KeyedProducer<M: Send + 'static> {
    intake: Intake,
    actor: ActorRef<Command<M>>,
}

/// Sends a message to the consumer of a key, as far as it can without waiting; it may be lost.
type Route<M> = Box<dyn Fn(&str, ConsumerMessage<M>) + Send>;

impl<M: RemoteMessage> KeyedProducer<M> {
    /// Starts a producer. `route` sends a message to the consumer of a key, and must not wait. With a queue,
    /// what an earlier run could not deliver is sent first.
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
        route: impl Fn(&str, ConsumerMessage<M>) + Send + 'static,
    ) -> Result<Self, StartError> {
        let check = |bytes: &[u8]| {
            let (_, bytes) = payload::split_key(bytes)?;
            payload::open::<M>(bytes).map(drop)
        };
        let (keeper, state) = Keeper::claim(system, &config, check).await?;
        let intake = Intake::new(&config);
        let settings = OutletsSettings {
            source: config.source(),
            keys_max: config.keys_max,
        };
        let mut outlets = Outlets::new(settings, system.rng());
        for StoredMessage { number, bytes, .. } in state.unconfirmed {
            let (key, bytes) =
                payload::split_key(&bytes).map_err(|why| StartError::unreadable(number, &why))?;
            let letter = Letter {
                key: key.into(),
                number,
                token: intake.restored(bytes.len()),
                bytes: bytes.into(),
            };
            outlets.push(system.now(), letter);
        }
        let inner = Inner {
            intake: intake.clone(),
            last: state.last,
            outlets,
            keeper,
            route: Box::new(route),
            reference: None,
        };
        let actor = system.spawn(name, inner)?;
        // What was restored is sent.
        let _ = actor.tell(Command::Tick);
        Ok(Self { intake, actor })
    }

    /// Takes a message for the consumer of `key`, and waits until there is room for it: as many messages may be
    /// unconfirmed as [`ProducerConfig::buffer_max`] says. A key has 1 to 512 bytes.
    ///
    /// `Ok` means that this run of the producer delivers it. Whether it was stored or handled is learned
    /// from [`Sent`].
    ///
    /// # Errors
    /// [`SendError`], which gives the message back.
    ///
    /// # Cancel safety
    /// If dropped before it returns, the message was not taken.
    pub async fn send(&self, key: impl AsRef<str>, message: M) -> Result<Sent, SendError<M>> {
        let key = key.as_ref();
        if !is_key(key) {
            return Err(SendError::BadKey(message));
        }
        let wrap = |parcel| Command::Push(key.into(), parcel);
        self.intake.send(&self.actor, wrap, message).await
    }

    /// As [`KeyedProducer::send`], without waiting.
    ///
    /// # Errors
    /// [`SendError`], which gives the message back.
    pub fn try_send(&self, key: impl AsRef<str>, message: M) -> Result<Sent, SendError<M>> {
        let key = key.as_ref();
        if !is_key(key) {
            return Err(SendError::BadKey(message));
        }
        let wrap = |parcel| Command::Push(key.into(), parcel);
        self.intake.try_send(&self.actor, wrap, message)
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

fn is_key(key: &str) -> bool {
    (1..=payload::KEY_BYTES_MAX).contains(&key.len())
}

impl<M: Send + 'static> Clone for KeyedProducer<M> {
    fn clone(&self) -> Self {
        Self {
            intake: self.intake.clone(),
            actor: self.actor.clone(),
        }
    }
}

impl<M: Send + 'static> fmt::Debug for KeyedProducer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyedProducer").field(&self.actor).finish()
    }
}

enum Command<M: Send + 'static> {
    /// The queue has answered.
    Kept(Kept),
    Push(Arc<str>, Parcel),
    Tick,
    Wire(ProducerMessage<M>),
}

struct Inner<M: Send + 'static> {
    intake: Intake,
    /// The number of the message that was taken last.
    last: u64,
    outlets: Outlets<Token>,
    keeper: Keeper<Letter<Token>>,
    route: Route<M>,
    /// How consumers reach this actor; known once it runs.
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
                for letter in self.keeper.kept(now, answer)? {
                    self.outlets.push(now, letter);
                }
            }
            Command::Push(key, parcel) => self.push(now, key, parcel),
            Command::Tick => {
                self.outlets.handle_timeout(now);
                self.keeper.handle_timeout(ctx, Command::Kept);
            }
            Command::Wire(ProducerMessage(ToSource::Report(report))) => {
                if let Err(error) = self.outlets.handle(now, &report.into()) {
                    tracing::warn!(producer = %ctx.path(), %error, "a report is ignored");
                }
            }
            // Consumers are those that the keys lead to.
            Command::Wire(ProducerMessage(ToSource::Register { .. })) => {}
        }
        self.carry_out(ctx);
        Ok(())
    }
}

impl<M: RemoteMessage> Inner<M> {
    fn push(&mut self, now: Time, key: Arc<str>, parcel: Parcel) {
        self.last += 1;
        let letter = Letter {
            key,
            number: self.last,
            bytes: parcel.bytes,
            token: parcel.token,
        };
        let message = |letter: &Letter<Token>| StoredMessage {
            number: letter.number,
            chunks: 1,
            bytes: payload::with_key(&letter.key, &letter.bytes),
        };
        if let Some(letter) = self.keeper.store(letter, message, parcel.stored) {
            self.outlets.push(now, letter);
        }
    }

    /// Does what the outlets and the queue want, and sets the timer.
    fn carry_out(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.outlets.poll_output() {
            match output {
                Output::Confirmed(number, token) => {
                    token.confirm();
                    self.keeper.confirm(number);
                }
                Output::Chunk(key, chunk) => (self.route)(&key, ConsumerMessage::chunk(chunk)),
                Output::Probe(key, probe) => {
                    if let Some(reference) = self.reference.clone() {
                        let message = ConsumerMessage::probe(probe, 0, reference);
                        (self.route)(&key, message);
                    }
                }
            }
        }
        let next = self.outlets.poll_timeout();
        self.keeper
            .carry_out(ctx, next, Command::Kept, Command::Tick);
    }
}

impl<M: Send + 'static> Drop for Inner<M> {
    fn drop(&mut self) {
        self.intake.close();
    }
}
