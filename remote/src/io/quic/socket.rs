//! Socket: a UDP socket that can be given back while others still hold it.
//!
//! quinn keeps its socket open as long as any handle on any connection lives, closed ones included.
//! A node that stops must free its port at once, so that its next run can have it: every use goes
//! through this one place, which can be emptied.

use crate::io::standby::here;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

/// Bytes asked of the system for each direction. The system gives what it allows; more only spares
/// packets when the process is busy.
const BUFFER_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Socket {
    inner: RwLock<Option<Inner>>,
    addr: SocketAddr,
    segments: (usize, usize),
    may_fragment: bool,
}

#[derive(Clone, Debug)]
struct Inner {
    /// As the runtime has it.
    watched: Arc<dyn AsyncUdpSocket>,
    /// For the thread that stands in for the runtime ([`crate::io::standby`]): it does not wait for
    /// the runtime to say that there is something to read.
    bare: Arc<(UdpSocket, UdpSocketState)>,
}

impl Socket {
    /// Binds to `addr`, inside a tokio runtime.
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Arc<Self>> {
        let socket = UdpSocket::bind(addr)?;
        let addr = socket.local_addr()?;
        let bare = socket.try_clone()?;
        let state = UdpSocketState::new((&bare).into())?;
        enlarge(&bare, &state);
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self {
            addr,
            segments: (inner.max_transmit_segments(), inner.max_receive_segments()),
            may_fragment: inner.may_fragment(),
            inner: RwLock::new(Some(Inner {
                watched: inner,
                bare: Arc::new((bare, state)),
            })),
        }))
    }

    /// Frees the port. From now on nothing is sent, and nothing arrives.
    pub(crate) fn release(&self) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        *inner = None;
    }

    fn inner(&self) -> Option<Inner> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.clone()
    }
}

fn enlarge(socket: &UdpSocket, state: &UdpSocketState) {
    let result = state
        .set_recv_buffer_size(socket.into(), BUFFER_BYTES)
        .and_then(|()| state.set_send_buffer_size(socket.into(), BUFFER_BYTES));
    if let Err(error) = result {
        tracing::debug!(%error, "the buffers of the socket stay as they are");
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(inner) = self.inner() else {
            return Ok(());
        };
        if here() {
            let (socket, state) = &*inner.bare;
            return match state.send(socket.into(), transmit) {
                // Nobody would say when there is room again. It is lost, as packets may be.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                sent => sent,
            };
        }
        inner.watched.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // A released socket wakes nobody: what waits here is the driver, which has other reasons.
        let Some(inner) = self.inner() else {
            return Poll::Pending;
        };
        if here() {
            let (socket, state) = &*inner.bare;
            match state.recv(socket.into(), bufs, meta) {
                // The runtime must be asked too, so that it says when there is something again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
        inner.watched.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn max_transmit_segments(&self) -> usize {
        self.segments.0
    }

    fn max_receive_segments(&self) -> usize {
        self.segments.1
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

/// Waits until the socket can be written to. It holds the inner socket only while it waits.
#[derive(Debug)]
struct Poller {
    socket: Arc<Socket>,
    waiting: Option<Pin<Box<dyn UdpPoller>>>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(inner) = self.socket.inner() else {
            self.waiting = None;
            return Poll::Ready(Ok(()));
        };
        if here() {
            return Poll::Ready(Ok(()));
        }
        let poller = self
            .waiting
            .get_or_insert_with(|| inner.watched.create_io_poller());
        let result = poller.as_mut().poll_writable(cx);
        if result.is_ready() {
            self.waiting = None;
        }
        result
    }
}
