//! Credits: a large lane waits for what the peer says it has taken, so that little is under way on it.
//!
//! ```text
//! here                                         there
//! CreditedWriter ~~~~~~~ large lane ~~~~~~~~~> CreditedReader
//!   waits for room                               | each 16 KiB that were taken
//! Credits <~~~~~~~~~~~ lane of credits ~~~~~~~~~~'
//! ```
//!
//! QUIC has windows of its own, one size for all lanes of a connection. Ordinary lanes need a larger one
//! than a large message may use, for whatever follows waits behind it ([`crate::logic::large_window`]).

use crate::core::Core;
use crate::io::lanes::{FrameReader, LaneFault};
use crate::logic::large_window::{CREDIT_BYTES, FalseCredit, LargeWindow};
use crate::network::{LaneError, LaneReader, LaneWriter};
use crate::wire_format::Frame;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What the peer of one connection has taken of this node's large lane.
pub(crate) struct Credits {
    window: Mutex<LargeWindow>,
    /// There is room where there was none.
    room: Notify,
}

impl Credits {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            window: Mutex::new(LargeWindow::new()),
            room: Notify::new(),
        })
    }

    fn window(&self) -> MutexGuard<'_, LargeWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what comes on the lane of credits, until it ends.
    pub(crate) async fn read(&self, core: &Core, mut lane: FrameReader) -> Result<(), LaneFault> {
        loop {
            match lane.next().await? {
                Some(Frame::Credit { taken }) => self.take(core, taken)?,
                Some(other) => return Err(LaneFault::unexpected(&other)),
                None => break,
            }
        }
        // What is still under way is the network's business.
        self.window().lift();
        self.room.notify_one();
        Ok(())
    }

    fn take(&self, core: &Core, taken: u64) -> Result<(), FalseCredit> {
        if self.window().take(taken, core.system.now())? {
            self.room.notify_one();
        }
        Ok(())
    }

    /// Waits until some of `wanted` bytes may be sent, and takes note that they are.
    async fn reserve(&self, core: &Core, wanted: usize) -> usize {
        loop {
            {
                let mut window = self.window();
                let room = window.room(wanted);
                if room > 0 {
                    window.sent(room, core.system.now());
                    return room;
                }
            }
            self.room.notified().await;
        }
    }
}

/// The sending end of a large lane.
pub(crate) struct CreditedWriter {
    pub(crate) lane: Box<dyn LaneWriter>,
    pub(crate) credits: Arc<Credits>,
    pub(crate) core: Arc<Core>,
}

impl LaneWriter for CreditedWriter {
    /// Given up in between it leaves a part that nothing may follow.
    fn write(&mut self, mut bytes: Bytes) -> BoxFuture<'_, Result<(), LaneError>> {
        async move {
            while !bytes.is_empty() {
                let room = self.credits.reserve(&self.core, bytes.len()).await;
                self.lane.write(bytes.split_to(room)).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn finish(&mut self) -> BoxFuture<'_, ()> {
        self.lane.finish()
    }
}

/// The receiving end of a large lane.
pub(crate) struct CreditedReader {
    lane: Box<dyn LaneReader>,
    /// `None` once the peer takes no more of them: what it has sent is read nevertheless.
    credits: Option<Box<dyn LaneWriter>>,
    taken: u64,
    /// Up to here there is a credit.
    credited: u64,
}

impl CreditedReader {
    pub(crate) fn new(lane: Box<dyn LaneReader>, credits: Box<dyn LaneWriter>) -> Self {
        Self {
            lane,
            credits: Some(credits),
            taken: 0,
            credited: 0,
        }
    }

    /// Sends a credit if one is due.
    async fn credit(&mut self) {
        let taken = self.taken;
        let Some(credits) = &mut self.credits else {
            return;
        };
        if taken - self.credited < CREDIT_BYTES {
            return;
        }
        let mut credit = Vec::new();
        Frame::Credit { taken }.encode_into(&mut credit);
        if credits.write(credit.into()).await.is_err() {
            self.credits = None;
        }
        self.credited = taken;
    }
}

impl LaneReader for CreditedReader {
    /// Whoever asks for more has taken what came before.
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LaneError>> {
        async move {
            self.credit().await;
            let bytes = self.lane.read(max).await?;
            match (&bytes, &mut self.credits) {
                (Some(bytes), _) => self.taken += bytes.len() as u64,
                (None, Some(credits)) => credits.finish().await,
                (None, None) => {}
            }
            Ok(bytes)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of 11 KiB that have arrived, then the end.
    struct Arrived(usize);

    impl LaneReader for Arrived {
        fn read(&mut self, _: usize) -> BoxFuture<'_, Result<Option<Bytes>, LaneError>> {
            let piece = (self.0 > 0).then(|| Bytes::from(vec![7; 11 << 10]));
            self.0 = self.0.saturating_sub(1);
            std::future::ready(Ok(piece)).boxed()
        }
    }

    /// A lane that takes so many writes.
    struct Takes(usize);

    impl LaneWriter for Takes {
        fn write(&mut self, _: Bytes) -> BoxFuture<'_, Result<(), LaneError>> {
            let left = self.0.checked_sub(1).ok_or(LaneError::new("closed"));
            std::future::ready(left.map(|left| self.0 = left)).boxed()
        }

        fn finish(&mut self) -> BoxFuture<'_, ()> {
            assert!(self.0 > 0, "it is closed");
            std::future::ready(()).boxed()
        }
    }

    /// A peer that has said all and gone takes no credit; what it said is read nevertheless.
    #[test]
    fn what_has_arrived_is_read_whether_credits_go_out_or_not() {
        for writes in [0, 1, 9] {
            let mut reader = CreditedReader::new(Box::new(Arrived(6)), Box::new(Takes(writes)));
            let mut read = 0;
            while let Some(bytes) = reader.read(1).now_or_never().unwrap().unwrap() {
                read += bytes.len();
            }
            assert_eq!(read, 66 << 10, "{writes}");
        }
    }
}
