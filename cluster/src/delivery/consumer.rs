//! Consumer: receives what producers send, and hands it to an actor one message at a time.

use super::config::ConsumerConfig;
use super::payload;
use super::wire::{ConsumerMessage, ConsumerRef, ProducerMessage, ProducerRef, ToSink, ToSource};
use crate::logic::delivery::sink::{Output, Sink};
use crate::logic::delivery::{Chunk, Probe, Report};
use otava_actor::{
    Actor, ActorRef, ActorSystem, Context, ReplyTo, SpawnError, TellError, Terminated, Time,
};
use otava_remote::RemoteMessage;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Receives messages for an actor, its handler. A handle, cheap to clone.
///
/// It ends when the handler has ended. Several producers may send to it; of each of them the handler has
/// one message at a time.
pub struct Consumer<M: Send + 'static> {
    actor: ActorRef<Command<M>>,
    reference: ActorRef<ConsumerMessage<M>>,
}

/// A message for the handler.
#[non_exhaustive]
pub struct Delivered<M> {
    /// The message.
    pub message: M,
    /// Its number at its producer, as long as that one delivers to this consumer. Numbers grow, not always by one.
    pub number: u64,
    /// Says that it was handled.
    pub confirm: Confirm,
}

/// Says that a message was handled. Dropped instead, the message is handed again after a pause
/// ([`ConsumerConfig::retry_after`]).
#[must_use = "dropping this says that the message was not handled"]
pub struct Confirm {
    /// `None` when it has said so.
    line: Option<Line>,
}

struct Line {
    series: u64,
    number: u64,
    verdicts: Arc<Verdicts>,
}

impl Confirm {
    /// The message was handled: the handler gets the next one, and the producer may forget it.
    pub fn send(mut self) {
        self.say(true);
    }

    /// A reply port whose answer confirms, for handlers that are asked. Refused, or dropped unanswered, it
    /// gives the message back.
    #[must_use]
    pub fn into_reply_to<R: Send + 'static>(self) -> ReplyTo<R> {
        let answered = move |answer: Result<R, _>| {
            if answer.is_ok() {
                self.send();
            }
        };
        ReplyTo::from_outcome(answered, None)
    }

    fn say(&mut self, was_handled: bool) {
        if let Some(line) = self.line.take() {
            line.verdicts.say(Verdict {
                series: line.series,
                number: line.number,
                was_handled,
            });
        }
    }
}

impl Drop for Confirm {
    fn drop(&mut self) {
        self.say(false);
    }
}

/// What handlers have said and the actor has not taken yet. Beside its mailbox, which may be full: then
/// the next message in it has this taken.
struct Verdicts {
    said: Mutex<Vec<Verdict>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

struct Verdict {
    series: u64,
    number: u64,
    was_handled: bool,
}

impl Verdicts {
    fn say(&self, verdict: Verdict) {
        let said = self.said.lock();
        said.unwrap_or_else(PoisonError::into_inner).push(verdict);
        (self.wake)();
    }

    fn take(&self) -> Vec<Verdict> {
        let said = self.said.lock();
        std::mem::take(&mut said.unwrap_or_else(PoisonError::into_inner))
    }
}

impl<M: RemoteMessage> Consumer<M> {
    /// Starts a consumer that hands messages to `handler`.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn start(
        system: &ActorSystem,
        name: &str,
        handler: ActorRef<Delivered<M>>,
        config: ConsumerConfig,
    ) -> Result<Self, SpawnError> {
        let actor = system.spawn(name, Inner::new(handler, config))?;
        Ok(Self::of(actor))
    }

    /// As [`Consumer::start`], as a child of the actor of `ctx`: it ends before that one does.
    ///
    /// # Errors
    /// [`SpawnError`].
    pub fn start_beside<A: Actor>(
        ctx: &Context<A>,
        name: &str,
        handler: ActorRef<Delivered<M>>,
        config: ConsumerConfig,
    ) -> Result<Self, SpawnError> {
        let actor = ctx.spawn(name, Inner::new(handler, config))?;
        Ok(Self::of(actor))
    }

    fn of(actor: ActorRef<Command<M>>) -> Self {
        let reference = actor.adapt(Command::Wire);
        Self { actor, reference }
    }

    /// What producers deliver to. It may be published, registered under a key, or sent to other nodes.
    #[must_use]
    pub fn actor_ref(&self) -> &ActorRef<ConsumerMessage<M>> {
        &self.reference
    }

    /// Tells a producer to deliver to this consumer from now on, again and again until it does. When the
    /// producer ends it is tried anew, as long as its reference may lead to another run of it
    /// ([`otava_remote::Remote::resolve_at`]).
    pub async fn register_with(&self, producer: &ActorRef<ProducerMessage<M>>) {
        // It ends with its handler; then there is nothing to deliver to.
        let _ = self
            .actor
            .send(Command::RegisterWith(producer.clone()))
            .await;
    }

    /// Ends the consumer. What is not confirmed goes to the next one.
    pub fn stop(&self) {
        self.actor.stop();
    }
}

impl<M: Send + 'static> Clone for Consumer<M> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            reference: self.reference.clone(),
        }
    }
}

impl<M: Send + 'static> fmt::Debug for Consumer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Consumer").field(&self.actor).finish()
    }
}

impl<M> fmt::Debug for Delivered<M> {
    /// Without the message: it need not be printable, and may be private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivered")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirm(..)")
    }
}

enum Command<M: Send + 'static> {
    /// The handler, which had no room, has or has not taken a message.
    Handed(Result<(), TellError<Delivered<M>>>),
    RegisterWith(ActorRef<ProducerMessage<M>>),
    /// It is time for something, or handlers have said something.
    Wake,
    Wire(ConsumerMessage<M>),
}

struct Inner<M: Send + 'static> {
    config: ConsumerConfig,
    handler: ActorRef<Delivered<M>>,
    /// Known once it runs.
    me: Option<Me<M>>,
    /// What comes from each producer, by its numbering.
    lines: BTreeMap<u64, Inlet<M>>,
    /// Counts, to know who was heard of least lately.
    probes: u64,
    registrations: BTreeMap<u64, Registration<M>>,
    next_registration: u64,
    timer: Option<Time>,
}

/// This run of the actor.
struct Me<M: Send + 'static> {
    number: u64,
    /// How others reach it.
    reference: ActorRef<ConsumerMessage<M>>,
    verdicts: Arc<Verdicts>,
}

/// What comes from one producer.
struct Inlet<M: Send + 'static> {
    sink: Sink,
    producer: ActorRef<ProducerMessage<M>>,
    heard: u64,
}

/// A producer that is to deliver to this consumer.
struct Registration<M: Send + 'static> {
    producer: ActorRef<ProducerMessage<M>>,
    /// When it is told again; `None` when it does deliver.
    next: Option<Time>,
    pause: Duration,
}

/// How often a producer is told that there is a consumer.
const REGISTER_MIN: Duration = Duration::from_millis(200);
const REGISTER_MAX: Duration = Duration::from_secs(5);

impl<M: RemoteMessage> Actor for Inner<M> {
    type Msg = Command<M>;
    type Err = Infallible;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Infallible> {
        let me = ctx.me().clone();
        let wake = move || {
            // If it is full, another message has it look.
            let _ = me.tell(Command::Wake);
        };
        self.me = Some(Me {
            number: ctx.system().rng().next_u64(),
            reference: ctx.me().adapt(Command::Wire),
            verdicts: Arc::new(Verdicts {
                said: Mutex::default(),
                wake: Box::new(wake),
            }),
        });
        ctx.watch(&self.handler);
        Ok(())
    }

    async fn handle(
        &mut self,
        command: Command<M>,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        match command {
            Command::Handed(Ok(())) | Command::Wake => {}
            // The handler's end follows.
            Command::Handed(Err(refused)) => drop(refused),
            Command::RegisterWith(producer) => {
                ctx.watch(&producer);
                let registration = Registration {
                    producer,
                    next: Some(ctx.now()),
                    pause: REGISTER_MIN,
                };
                self.registrations
                    .insert(self.next_registration, registration);
                self.next_registration += 1;
            }
            Command::Wire(ConsumerMessage(ToSink::Chunk(form))) => {
                let chunk: Chunk = form.into();
                if let Some(inlet) = self.lines.get_mut(&chunk.session.series) {
                    inlet.sink.chunk(chunk);
                }
            }
            Command::Wire(ConsumerMessage(ToSink::Probe {
                probe,
                registration,
                producer: ProducerRef(producer),
            })) => {
                if let Some(known) = self.registrations.get_mut(&registration) {
                    known.next = None;
                }
                self.probe(ctx, &probe.into(), producer);
            }
        }
        self.work(ctx);
        Ok(())
    }

    async fn terminated(
        &mut self,
        who: Terminated,
        ctx: &mut Context<Self>,
    ) -> Result<(), Infallible> {
        if who.is(&self.handler) {
            ctx.stop_self();
            return Ok(());
        }
        let now = ctx.now();
        for registration in self.registrations.values_mut() {
            if who.is(&registration.producer) {
                registration.pause = REGISTER_MIN;
                registration.next = Some(now + REGISTER_MIN);
            }
        }
        self.work(ctx);
        Ok(())
    }

    /// What handlers have confirmed just before the end would be handled again, if nobody heard of it.
    async fn stopped(&mut self, ctx: &mut Context<Self>) {
        self.take_verdicts(ctx.now());
        for inlet in self.lines.values_mut() {
            inlet.sink.say_last();
            while let Some(output) = inlet.sink.poll_output() {
                if let Output::Report(report) = output {
                    inlet.tell(&report);
                }
            }
        }
    }
}

impl<M: RemoteMessage> Inlet<M> {
    fn tell(&self, report: &Report) {
        let report = ProducerMessage(ToSource::Report((*report).into()));
        // What is refused is lost, as on the way: the producer will ask.
        let _ = self.producer.tell(report);
    }
}

impl<M: RemoteMessage> Inner<M> {
    fn new(handler: ActorRef<Delivered<M>>, config: ConsumerConfig) -> Self {
        Self {
            config,
            handler,
            me: None,
            lines: BTreeMap::new(),
            probes: 0,
            registrations: BTreeMap::new(),
            next_registration: 1,
            timer: None,
        }
    }

    fn probe(
        &mut self,
        ctx: &Context<Self>,
        probe: &Probe,
        producer: ActorRef<ProducerMessage<M>>,
    ) {
        let Some(me) = &self.me else {
            return;
        };
        self.probes += 1;
        let series = probe.session.series;
        if let Some(inlet) = self.lines.get_mut(&series) {
            inlet.heard = self.probes;
            if inlet.sink.probe(probe) {
                inlet.producer = producer;
            }
            return;
        }
        if self.lines.len() >= self.config.producers_max.max(1) {
            let idle = self.lines.iter().filter(|(_, inlet)| inlet.sink.is_idle());
            let oldest = idle.min_by_key(|(_, inlet)| inlet.heard);
            let Some(oldest) = oldest.map(|(series, _)| *series) else {
                tracing::warn!(consumer = %ctx.path(), "too many producers, one more is not served");
                return;
            };
            self.lines.remove(&oldest);
        }
        let inlet = Inlet {
            sink: Sink::new(self.config.sink(), me.number, probe),
            producer,
            heard: self.probes,
        };
        self.lines.insert(series, inlet);
    }

    /// Takes what handlers have said.
    fn take_verdicts(&mut self, now: Time) {
        let said = self.me.as_ref().map(|me| me.verdicts.take());
        for verdict in said.into_iter().flatten() {
            let Some(inlet) = self.lines.get_mut(&verdict.series) else {
                continue;
            };
            if verdict.was_handled {
                inlet.sink.confirm(verdict.number);
            } else {
                inlet.sink.give_back(now, verdict.number);
            }
        }
    }

    /// Takes what handlers have said, does what the sinks want, tells producers, and sets the timer.
    fn work(&mut self, ctx: &mut Context<Self>) {
        let now = ctx.now();
        let Some(me) = &self.me else {
            return;
        };
        let verdicts = me.verdicts.clone();
        self.take_verdicts(now);
        for (series, inlet) in &mut self.lines {
            inlet.sink.handle_timeout(now);
            while let Some(output) = inlet.sink.poll_output() {
                match output {
                    Output::Broken(error) => {
                        let producer = inlet.producer.path();
                        tracing::warn!(consumer = %ctx.path(), %producer, %error, "not served");
                    }
                    Output::Hand { number, bytes } => {
                        let confirm = Confirm {
                            line: Some(Line {
                                series: *series,
                                number,
                                verdicts: verdicts.clone(),
                            }),
                        };
                        hand(ctx, &self.handler, number, &bytes, confirm);
                    }
                    Output::Report(report) => inlet.tell(&report),
                }
            }
        }
        self.register(now);
        let sinks = self.lines.values().map(|inlet| inlet.sink.poll_timeout());
        let registrations = self.registrations.values().map(|known| known.next);
        let timer = sinks.chain(registrations).flatten().min();
        if timer != self.timer {
            self.timer = timer;
            match timer {
                Some(at) => ctx.timer_at("tick", at, Command::Wake),
                None => drop(ctx.cancel_timer("tick")),
            }
        }
    }

    /// Tells producers that do not deliver here yet.
    fn register(&mut self, now: Time) {
        let Some(me) = &self.me else {
            return;
        };
        self.registrations.retain(|number, known| {
            if known.next.is_none_or(|next| next > now) {
                return true;
            }
            known.next = Some(now + known.pause);
            known.pause = (known.pause * 2).min(REGISTER_MAX);
            let message = ProducerMessage(ToSource::Register {
                consumer: ConsumerRef(me.reference.clone()),
                registration: *number,
            });
            !matches!(known.producer.tell(message), Err(TellError::Stopped(_)))
        });
    }
}

/// Hands a message over. One that cannot be read is not skipped: it comes again, and the log has it each
/// time.
fn hand<M: RemoteMessage>(
    ctx: &mut Context<Inner<M>>,
    handler: &ActorRef<Delivered<M>>,
    number: u64,
    bytes: &[u8],
    confirm: Confirm,
) {
    let message = match payload::open(bytes) {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(consumer = %ctx.path(), number, %error, "a message is not handed over");
            return;
        }
    };
    let delivered = Delivered {
        message,
        number,
        confirm,
    };
    if let Err(TellError::Full(delivered)) = handler.tell(delivered) {
        let handler = handler.clone();
        let send = async move { handler.send(delivered).await };
        ctx.pipe_to_self(send, Command::Handed);
    }
}
