//! Socket: a UDP socket that can be given back while others still hold it.
//!
//! quinn keeps its socket open as long as any handle on any connection lives, closed ones included.
//! A node that stops must free its port at once, so that its next run can have it: every use goes
//! through this one place, which can be emptied.

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
    inner: RwLock<Option<Arc<dyn AsyncUdpSocket>>>,
    addr: SocketAddr,
    segments: (usize, usize),
    may_fragment: bool,
}

impl Socket {
    /// Binds to `addr`, inside a tokio runtime.
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Arc<Self>> {
        let socket = UdpSocket::bind(addr)?;
        let addr = socket.local_addr()?;
        enlarge(&socket);
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self {
            addr,
            segments: (inner.max_transmit_segments(), inner.max_receive_segments()),
            may_fragment: inner.may_fragment(),
            inner: RwLock::new(Some(inner)),
        }))
    }

    /// Frees the port. From now on nothing is sent, and nothing arrives.
    pub(crate) fn release(&self) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        *inner = None;
    }

    fn inner(&self) -> Option<Arc<dyn AsyncUdpSocket>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.clone()
    }
}

fn enlarge(socket: &UdpSocket) {
    let result = UdpSocketState::new(socket.into()).and_then(|state| {
        state.set_recv_buffer_size(socket.into(), BUFFER_BYTES)?;
        state.set_send_buffer_size(socket.into(), BUFFER_BYTES)
    });
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
        self.inner()
            .map_or(Ok(()), |inner| inner.try_send(transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // A released socket wakes nobody: what waits here is the driver, which has other reasons.
        self.inner()
            .map_or(Poll::Pending, |inner| inner.poll_recv(cx, bufs, meta))
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
        let poller = self.waiting.get_or_insert_with(|| inner.create_io_poller());
        let result = poller.as_mut().poll_writable(cx);
        if result.is_ready() {
            self.waiting = None;
        }
        result
    }
}
