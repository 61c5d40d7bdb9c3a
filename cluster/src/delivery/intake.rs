//! Intake: what a message passes before it is a producer's: encoding, limits, room; and what its sender
//! learns of it later.

use super::config::ProducerConfig;
use super::error::{SendError, Unconfirmed};
use super::payload;
use otava_actor::{ActorRef, TellError};
use otava_remote::RemoteMessage;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// What limits a producer's messages.
#[derive(Clone)]
pub(super) struct Intake {
    messages: Arc<Semaphore>,
    messages_max: usize,
    bytes: Arc<Semaphore>,
    bytes_max: u32,
    message_bytes_max: usize,
    has_queue: bool,
}

/// An encoded message with its place.
pub(super) struct Parcel {
    pub(super) bytes: Arc<[u8]>,
    pub(super) stored: Option<oneshot::Sender<()>>,
    pub(super) token: Token,
}

/// What is kept beside a message until it is confirmed.
#[derive(Debug, Default)]
pub(super) struct Token {
    confirmed: Option<oneshot::Sender<()>>,
    _place: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Token {
    pub(super) fn confirm(self) {
        if let Some(confirmed) = self.confirmed {
            // Whether somebody waits for it does not matter.
            let _ = confirmed.send(());
        }
    }
}

impl Intake {
    pub(super) fn new(config: &ProducerConfig) -> Self {
        let messages_max = config.buffer_max.clamp(1, Semaphore::MAX_PERMITS);
        let bytes_max = config.buffer_bytes_max.clamp(1, BYTES_MAX);
        Self {
            messages: Arc::new(Semaphore::new(messages_max)),
            messages_max,
            bytes: Arc::new(Semaphore::new(bytes_max)),
            bytes_max: bytes_max as u32,
            message_bytes_max: config.message_bytes_max.min(BYTES_MAX),
            has_queue: config.queue.is_some(),
        }
    }

    /// Encodes a message, waits for its place, and gives it to `actor`.
    pub(super) async fn send<M: RemoteMessage, C: Send + 'static>(
        &self,
        actor: &ActorRef<C>,
        wrap: impl FnOnce(Parcel) -> C,
        message: M,
    ) -> Result<Sent, SendError<M>> {
        let (message, bytes) = self.encode(message)?;
        let Ok(place) = self.messages.clone().acquire_owned().await else {
            return Err(SendError::Ended(message));
        };
        let wanted = self.share(bytes.len());
        let Ok(share) = self.bytes.clone().acquire_many_owned(wanted).await else {
            return Err(SendError::Ended(message));
        };
        let (parcel, sent) = self.parcel(bytes, (place, share));
        match actor.send(wrap(parcel)).await {
            Ok(()) => Ok(sent),
            Err(_) => Err(SendError::Ended(message)),
        }
    }

    /// The same without waiting.
    pub(super) fn try_send<M: RemoteMessage, C: Send + 'static>(
        &self,
        actor: &ActorRef<C>,
        wrap: impl FnOnce(Parcel) -> C,
        message: M,
    ) -> Result<Sent, SendError<M>> {
        let (message, bytes) = self.encode(message)?;
        let Some(place) = self.place(bytes.len()) else {
            return Err(if self.messages.is_closed() {
                SendError::Ended(message)
            } else {
                SendError::Full(message)
            });
        };
        let (parcel, sent) = self.parcel(bytes, place);
        match actor.tell(wrap(parcel)) {
            Ok(()) => Ok(sent),
            Err(TellError::Full(_)) => Err(SendError::Full(message)),
            Err(_) => Err(SendError::Ended(message)),
        }
    }

    /// For a message that an earlier run has taken; it has a place if there is one.
    pub(super) fn restored(&self, bytes: usize) -> Token {
        Token {
            confirmed: None,
            _place: self.place(bytes),
        }
    }

    /// How many messages have a place.
    pub(super) fn taken(&self) -> usize {
        self.messages_max - self.messages.available_permits().min(self.messages_max)
    }

    /// Takes nothing any more.
    pub(super) fn close(&self) {
        self.messages.close();
        self.bytes.close();
    }

    fn encode<M: RemoteMessage>(&self, message: M) -> Result<(M, Arc<[u8]>), SendError<M>> {
        let bytes = match payload::seal(&message) {
            Ok(bytes) => bytes,
            Err(why) => return Err(SendError::NotEncodable(message, why)),
        };
        if bytes.len() > self.message_bytes_max {
            return Err(SendError::TooLarge {
                message,
                bytes: bytes.len(),
                bytes_max: self.message_bytes_max,
            });
        }
        Ok((message, bytes))
    }

    fn place(&self, bytes: usize) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let place = self.messages.clone().try_acquire_owned().ok()?;
        let share = self.bytes.clone().try_acquire_many_owned(self.share(bytes));
        Some((place, share.ok()?))
    }

    /// One that is larger than the buffer has all of it.
    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).map_or(self.bytes_max, |bytes| bytes.min(self.bytes_max))
    }

    fn parcel(
        &self,
        bytes: Arc<[u8]>,
        place: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> (Parcel, Sent) {
        let (confirm, confirmed) = oneshot::channel();
        let (store, stored) = if self.has_queue {
            let (store, stored) = oneshot::channel();
            (Some(store), Some(stored))
        } else {
            (None, None)
        };
        let parcel = Parcel {
            bytes,
            stored: store,
            token: Token {
                confirmed: Some(confirm),
                _place: Some(place),
            },
        };
        (parcel, Sent { stored, confirmed })
    }
}

/// The largest number of bytes that is counted.
const BYTES_MAX: usize = 1 << 30;

/// A message that a producer has taken. It is delivered whether this is waited for or dropped.
pub struct Sent {
    stored: Option<oneshot::Receiver<()>>,
    confirmed: oneshot::Receiver<()>,
}

impl Sent {
    /// Waits until the queue of the producer keeps the message, so that it outlives this run. At once if
    /// the producer has no queue.
    ///
    /// # Errors
    /// [`Unconfirmed`]: whether it is stored is not known.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect; it may be called again.
    pub async fn stored(&mut self) -> Result<(), Unconfirmed> {
        if let Some(stored) = &mut self.stored {
            stored.await.map_err(|_| Unconfirmed)?;
            self.stored = None;
        }
        Ok(())
    }

    /// Waits until the consumer's handler has confirmed the message.
    ///
    /// # Errors
    /// [`Unconfirmed`]: whether it was handled is not known.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect on the message.
    pub async fn confirmed(self) -> Result<(), Unconfirmed> {
        self.confirmed.await.map_err(|_| Unconfirmed)
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sent(..)")
    }
}
