//! Config: the settings of producers and consumers.

use super::queue::DeliveryQueue;
use crate::logic::delivery::sink::SinkSettings;
use crate::logic::delivery::source::SourceSettings;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a [`super::Producer`], a [`super::WorkProducer`] or a [`super::KeyedProducer`].
#[derive(Clone)]
#[non_exhaustive]
pub struct ProducerConfig {
    /// How many messages may be unconfirmed; `send` waits when there are as many. Default 1,000.
    pub buffer_max: usize,
    /// How many bytes they may have. One message may always be under way. Default 16 MiB.
    pub buffer_bytes_max: usize,
    /// The most bytes of a message that are sent at once; what is larger goes in chunks. It must fit
    /// into a frame of the remote layer (1 MiB by default). From 1 KiB to 512 KiB; default 64 KiB.
    pub chunk_bytes: usize,
    /// The largest message, in its encoded form. Consumers should have the same limit
    /// ([`ConsumerConfig::message_bytes_max`]). Default 8 MiB.
    pub message_bytes_max: usize,
    /// The shortest time without news after which a consumer is asked where it is; four round trips
    /// if that is longer. Default 200 ms.
    pub resend_min: Duration,
    /// The longest. The time doubles while there are no news. Default 5 s.
    pub resend_max: Duration,
    /// For work pulling: how many messages one worker may have unconfirmed, whatever it grants. Few,
    /// so that a worker that is new or fast gets some. Default 8.
    pub per_worker_max: usize,
    /// For many consumers by key ([`super::KeyedProducer`]): for how many keys messages may be under way at once.
    /// Those for one more wait. Default 1,000.
    pub keys_max: usize,
    /// Where messages are kept until they are confirmed. Default: nowhere but in memory.
    pub queue: Option<Arc<dyn DeliveryQueue>>,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            buffer_max: 1_000,
            buffer_bytes_max: 16 << 20,
            chunk_bytes: 64 << 10,
            message_bytes_max: 8 << 20,
            resend_min: Duration::from_millis(200),
            resend_max: Duration::from_secs(5),
            per_worker_max: 8,
            keys_max: 1_000,
            queue: None,
        }
    }
}

impl ProducerConfig {
    /// Sets how many messages, and how many bytes of them, may be unconfirmed.
    #[must_use]
    pub fn with_buffer(mut self, messages: usize, bytes: usize) -> Self {
        self.buffer_max = messages;
        self.buffer_bytes_max = bytes;
        self
    }

    /// Sets [`ProducerConfig::chunk_bytes`].
    #[must_use]
    pub fn with_chunk_bytes(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// Sets [`ProducerConfig::message_bytes_max`].
    #[must_use]
    pub fn with_message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Sets [`ProducerConfig::per_worker_max`].
    #[must_use]
    pub fn with_per_worker_max(mut self, messages: usize) -> Self {
        self.per_worker_max = messages;
        self
    }

    /// Sets [`ProducerConfig::keys_max`].
    #[must_use]
    pub fn with_keys_max(mut self, keys: usize) -> Self {
        self.keys_max = keys;
        self
    }

    /// Keeps messages in `queue` before they are sent, so that another run of the producer sends what
    /// this one could not.
    #[must_use]
    pub fn with_queue(mut self, queue: Arc<dyn DeliveryQueue>) -> Self {
        self.queue = Some(queue);
        self
    }

    pub(super) fn source(&self) -> SourceSettings {
        let resend_min = self.resend_min.max(Duration::from_millis(1));
        SourceSettings {
            chunk_bytes: self.chunk_bytes.clamp(1 << 10, CHUNK_BYTES_MAX),
            resend_min,
            resend_max: self.resend_max.max(resend_min),
        }
    }
}

/// What fits into a frame of the smallest size that the remote layer can be set to.
const CHUNK_BYTES_MAX: usize = 512 << 10;

impl fmt::Debug for ProducerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducerConfig")
            .field("buffer_max", &self.buffer_max)
            .field("buffer_bytes_max", &self.buffer_bytes_max)
            .field("chunk_bytes", &self.chunk_bytes)
            .field("has_queue", &self.queue.is_some())
            .finish_non_exhaustive()
    }
}

/// The settings of a [`super::Consumer`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerConfig {
    /// How many messages of one producer may be under way to the handler. Those of several chunks
    /// count as that many. Default 50.
    pub window: u32,
    /// The largest message that is put together. Default 8 MiB.
    pub message_bytes_max: usize,
    /// How many bytes of one producer may wait here; what is more is taken for lost and comes again.
    /// Default 32 MiB.
    pub buffer_bytes_max: usize,
    /// The pause before a message that was not confirmed is handed again. Default 1 s.
    pub retry_after: Duration,
    /// How many producers are served. When one more comes, the one that was heard of least lately and
    /// has nothing under way is forgotten. Default 64.
    pub producers_max: usize,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            window: 50,
            message_bytes_max: 8 << 20,
            buffer_bytes_max: 32 << 20,
            retry_after: Duration::from_secs(1),
            producers_max: 64,
        }
    }
}

impl ConsumerConfig {
    /// Sets [`ConsumerConfig::window`].
    #[must_use]
    pub fn with_window(mut self, messages: u32) -> Self {
        self.window = messages;
        self
    }

    /// Sets [`ConsumerConfig::message_bytes_max`].
    #[must_use]
    pub fn with_message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Sets [`ConsumerConfig::retry_after`].
    #[must_use]
    pub fn with_retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = pause;
        self
    }

    pub(super) fn sink(&self) -> SinkSettings {
        SinkSettings {
            window: u64::from(self.window.max(1)),
            message_bytes_max: self.message_bytes_max,
            buffer_bytes_max: self.buffer_bytes_max,
            retry_after: self.retry_after,
        }
    }
}
