//! Lanes: one end of a virtual connection, as the layers above hold it.

use super::Shared;
use super::link::{Answer, End, Now, Parcel, PipeId};
use super::world::{EndId, World};
use crate::identity::PeerIdentity;
use crate::network::{Connection, LaneError, LaneReader, LaneWriter};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// As for QUIC: how long a finished lane waits for the peer to have everything.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Closes its end when it is dropped.
pub(crate) struct VirtualConnection {
    shared: Arc<Shared>,
    id: EndId,
    changed: Arc<Notify>,
    peer_addr: SocketAddr,
}

impl VirtualConnection {
    /// Takes the one handle on an end that exists.
    pub(crate) fn new(shared: Arc<Shared>, id: EndId) -> Self {
        let (changed, peer_addr) = shared.with(|world| {
            let changed = world.end(id).map(|end| end.changed.clone());
            let peer_addr = world.end(id.other()).map(|end| end.addr);
            (changed, peer_addr)
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            shared,
            id,
            changed: changed.unwrap_or_default(),
            peer_addr: peer_addr.unwrap_or(nowhere),
        }
    }

    /// The answer to the call of this end; `None` if this end was closed before.
    pub(crate) async fn answer(&self) -> Option<Answer> {
        let answer = || {
            self.shared.with(|world| {
                let link = world.links.get(&self.id.link)?;
                let closed = link.ends[self.id.side].closed().is_some();
                Some(match link.answer {
                    Some(answer) if !closed => Now::Ready(answer),
                    None if !closed => Now::Wait,
                    _ => return None,
                })
            })
        };
        loop {
            let changed = self.changed.notified();
            match answer()? {
                Now::Ready(answer) => return Some(answer),
                Now::Wait => changed.await,
            }
        }
    }

    /// Waits until `look` finds something at this end.
    async fn wait_for<T>(
        &self,
        look: impl Fn(&mut End) -> Result<Now<T>, Arc<str>>,
    ) -> Result<T, LaneError> {
        loop {
            let changed = self.changed.notified();
            match self.shared.with(|world| at_end(world, self.id, &look))? {
                Now::Ready(found) => return Ok(found),
                Now::Wait => changed.await,
            }
        }
    }
}

/// Asks an end for something. An end that was forgotten had no handles any more.
fn at_end<T>(
    world: &mut World,
    id: EndId,
    look: impl FnOnce(&mut End) -> Result<T, Arc<str>>,
) -> Result<T, LaneError> {
    let end = world.end(id).ok_or_else(|| LaneError::new("closed"))?;
    look(end).map_err(|reason| LaneError::new(&*reason))
}

impl Connection for VirtualConnection {
    fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    fn proves_name(&self, name: &str) -> bool {
        self.identity_as(name).is_some()
    }

    fn identity_as(&self, name: &str) -> Option<PeerIdentity> {
        let peer = self.id.other();
        let identity = self
            .shared
            .with(|world| Some(world.end(peer)?.identity.clone()));
        identity
            .filter(|identity| identity.name() == name)
            .as_deref()
            .cloned()
    }

    fn open_lane(&self) -> BoxFuture<'_, Result<Box<dyn LaneWriter>, LaneError>> {
        async move {
            let (lane, changed) = self.wait_for(End::open_lane).await?;
            Ok(Box::new(VirtualLaneWriter {
                shared: self.shared.clone(),
                id: self.id,
                lane,
                changed,
                rest: Bytes::new(),
                finished: false,
            }) as Box<dyn LaneWriter>)
        }
        .boxed()
    }

    fn accept_lane(&self) -> BoxFuture<'_, Result<Box<dyn LaneReader>, LaneError>> {
        async move {
            let (lane, changed) = self.wait_for(End::accept_lane).await?;
            Ok(Box::new(VirtualLaneReader {
                shared: self.shared.clone(),
                id: self.id,
                lane,
                changed,
            }) as Box<dyn LaneReader>)
        }
        .boxed()
    }

    fn close(&self, reason: &str) {
        self.shared.with(|world| world.close(self.id, reason));
    }

    fn closed(&self) -> BoxFuture<'_, String> {
        async move {
            let closed = |end: &mut End| {
                let reason = end.closed().map(|reason| reason.to_string());
                Ok(reason.map_or(Now::Wait, Now::Ready))
            };
            self.wait_for(closed).await.unwrap_or_else(|e| e.reason)
        }
        .boxed()
    }
}

impl Drop for VirtualConnection {
    fn drop(&mut self) {
        self.shared.with(|world| world.release(self.id));
    }
}

struct VirtualLaneWriter {
    shared: Arc<Shared>,
    id: EndId,
    lane: u64,
    changed: Arc<Notify>,
    /// What a write that was given up has left over; it goes first.
    rest: Bytes,
    finished: bool,
}

impl VirtualLaneWriter {
    async fn flush(&mut self) -> Result<(), LaneError> {
        let Self { id, lane, rest, .. } = self;
        while !rest.is_empty() {
            let changed = self.changed.notified();
            let written = self.shared.with(|world| {
                let written = at_end(world, *id, |end| end.write(*lane, rest))?;
                if let Now::Ready(sent) = written {
                    world.send(*id, sent);
                    return Ok(true);
                }
                Ok(false)
            })?;
            if !written {
                changed.await;
            }
        }
        Ok(())
    }

    async fn finish_all(&mut self) {
        if self.flush().await.is_err() {
            return;
        }
        if !std::mem::replace(&mut self.finished, true) {
            self.send(Parcel::Finish);
        }
        loop {
            let changed = self.changed.notified();
            let is_done = |end: &mut End| Ok(end.is_done(self.lane));
            let done = self.shared.with(|world| at_end(world, self.id, is_done));
            if done.unwrap_or(true) {
                return;
            }
            changed.await;
        }
    }

    fn send(&self, parcel: Parcel) {
        let pipe = PipeId::Lane(self.lane);
        self.shared
            .with(|world| world.send(self.id, (pipe, parcel)));
    }
}

impl LaneWriter for VirtualLaneWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), LaneError>> {
        async move {
            if self.finished {
                return Err(LaneError::new("it is finished"));
            }
            self.flush().await?;
            self.rest = bytes;
            self.flush().await
        }
        .boxed()
    }

    fn finish(&mut self) -> BoxFuture<'_, ()> {
        async move {
            if tokio::time::timeout(FINISH_LIMIT, self.finish_all())
                .await
                .is_err()
            {
                tracing::debug!("a finished lane was not taken in time");
            }
        }
        .boxed()
    }
}

impl Drop for VirtualLaneWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.send(Parcel::Reset);
        }
    }
}

struct VirtualLaneReader {
    shared: Arc<Shared>,
    id: EndId,
    lane: u64,
    changed: Arc<Notify>,
}

impl LaneReader for VirtualLaneReader {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LaneError>> {
        async move {
            loop {
                let changed = self.changed.notified();
                let read = self.shared.with(|world| {
                    let read = at_end(world, self.id, |end| end.read(self.lane, max.max(1)))?;
                    Ok(match read {
                        Now::Ready((bytes, answer)) => {
                            if let Some(answer) = answer {
                                world.send(self.id, answer);
                            }
                            Some(bytes)
                        }
                        Now::Wait => None,
                    })
                })?;
                match read {
                    Some(bytes) => return Ok(bytes),
                    None => changed.await,
                }
            }
        }
        .boxed()
    }
}

impl Drop for VirtualLaneReader {
    fn drop(&mut self) {
        self.shared.with(|world| {
            let answer = world
                .end(self.id)
                .and_then(|end| end.drop_reader(self.lane));
            if let Some(answer) = answer {
                world.send(self.id, answer);
            }
        });
    }
}
