//! Lanes: a QUIC connection and its streams, as the layers above see them.

use crate::identity::PeerIdentity;
use crate::io::certificates::names::CertificateNames;
use crate::io::credentials::Inner;
use crate::network::{Connection, LaneError, LaneRank, LaneReader, LaneWriter};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::slice;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Code of every close and reset: the reason stands in words beside it, or in the layer above.
pub(crate) const CODE: VarInt = VarInt::from_u32(0);

/// Characters of a peer's reason that are kept.
const REASON_CHARS_MAX: usize = 200;

/// How long a finished lane waits for the peer to have everything. A peer that is gone ends the
/// connection long before.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct QuicConnection {
    connection: quinn::Connection,
    /// Checked in the handshake.
    certificate: CertificateDer<'static>,
    closed_here: OnceLock<String>,
}

impl QuicConnection {
    /// `None`, with the connection closed, if the peer has shown no certificate. TLS does not let
    /// that happen; nothing may depend on it in silence.
    pub(crate) fn start(
        connection: quinn::Connection,
        credentials: &Inner,
    ) -> Option<Arc<dyn Connection>> {
        let identity = connection.peer_identity();
        let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let chain = chain.map_or_else(Vec::new, |chain| *chain);
        let Some(certificate) = chain.first().cloned() else {
            connection.close(CODE, b"no certificate");
            return None;
        };
        let connection: Arc<dyn Connection> = Arc::new(Self {
            connection,
            certificate,
            closed_here: OnceLock::new(),
        });
        credentials.note(&connection, chain);
        Some(connection)
    }

    fn error(&self, error: &ConnectionError) -> LaneError {
        LaneError::new(self.why(error))
    }

    fn why(&self, error: &ConnectionError) -> String {
        match (error, self.closed_here.get()) {
            (ConnectionError::LocallyClosed, Some(reason)) => reason.clone(),
            _ => reason(error),
        }
    }
}

impl Connection for QuicConnection {
    fn peer_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    fn proves_name(&self, name: &str) -> bool {
        self.identity_as(name).is_some()
    }

    fn identity_as(&self, name: &str) -> Option<PeerIdentity> {
        CertificateNames::of(&self.certificate).identity_as(name)
    }

    fn open_lane(&self) -> BoxFuture<'_, Result<Box<dyn LaneWriter>, LaneError>> {
        async move {
            let stream = self.connection.open_uni().await;
            let stream = stream.map_err(|e| self.error(&e))?;
            Ok(Box::new(QuicLaneWriter {
                stream,
                rest: Bytes::new(),
                finished: false,
            }) as Box<dyn LaneWriter>)
        }
        .boxed()
    }

    fn accept_lane(&self) -> BoxFuture<'_, Result<Box<dyn LaneReader>, LaneError>> {
        async move {
            let stream = self.connection.accept_uni().await;
            let stream = stream.map_err(|e| self.error(&e))?;
            Ok(Box::new(QuicLaneReader::new(stream)) as Box<dyn LaneReader>)
        }
        .boxed()
    }

    fn close(&self, reason: &str) {
        // The first reason counts, as it does for the peer.
        let _ = self.closed_here.set(reason.to_owned());
        self.connection.close(CODE, reason.as_bytes());
    }

    fn closed(&self) -> BoxFuture<'_, String> {
        async move { self.why(&self.connection.closed().await) }.boxed()
    }
}

impl Drop for QuicConnection {
    fn drop(&mut self) {
        self.connection.close(CODE, b"dropped");
    }
}

struct QuicLaneWriter {
    stream: SendStream,
    /// What a write that was given up has left over; it goes first.
    rest: Bytes,
    finished: bool,
}

impl QuicLaneWriter {
    async fn flush(&mut self) -> Result<(), WriteError> {
        while !self.rest.is_empty() {
            self.stream
                .write_chunks(slice::from_mut(&mut self.rest))
                .await?;
        }
        Ok(())
    }
}

impl LaneWriter for QuicLaneWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), LaneError>> {
        async move {
            self.flush().await.map_err(|e| write_error(&e))?;
            self.rest = bytes;
            self.flush().await.map_err(|e| write_error(&e))
        }
        .boxed()
    }

    fn set_rank(&mut self, rank: LaneRank) {
        let priority = match rank {
            LaneRank::First => 1,
            LaneRank::Middle => 0,
            LaneRank::Last => -1,
        };
        // Fails if the lane is closed, which shows when it is used.
        let _ = self.stream.set_priority(priority);
    }

    fn finish(&mut self) -> BoxFuture<'_, ()> {
        async move {
            let all = async {
                self.flush().await.ok()?;
                self.finished = true;
                // Fails if it is finished already.
                let _ = self.stream.finish();
                self.stream.stopped().await.ok()
            };
            if tokio::time::timeout(FINISH_LIMIT, all).await.is_err() {
                tracing::debug!("a finished lane was not taken in time");
            }
        }
        .boxed()
    }
}

impl Drop for QuicLaneWriter {
    /// quinn would finish the stream, and the reader would take what it has for the whole.
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(CODE);
        }
    }
}

struct QuicLaneReader {
    stream: RecvStream,
    /// Room for what is read at once; all empty between two reads.
    chunks: Box<[Bytes]>,
    /// What was read and not yet asked for.
    rest: Bytes,
}

/// A packet brings one chunk. So many are taken at once, some 64 KiB of them.
const CHUNKS_MAX: usize = 48;

impl QuicLaneReader {
    fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            chunks: vec![Bytes::new(); CHUNKS_MAX].into(),
            rest: Bytes::new(),
        }
    }

    /// Reads what has arrived, in one piece; `false` when nothing follows.
    async fn fill(&mut self) -> Result<bool, ReadError> {
        let Some(read) = self.stream.read_chunks(&mut self.chunks).await? else {
            return Ok(false);
        };
        let chunks = &mut self.chunks[..read];
        self.rest = match &mut *chunks {
            [one] => std::mem::take(one),
            many => many.concat().into(),
        };
        chunks.fill(Bytes::new());
        Ok(true)
    }
}

impl LaneReader for QuicLaneReader {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LaneError>> {
        async move {
            if self.rest.is_empty() && !self.fill().await.map_err(|e| read_error(&e))? {
                return Ok(None);
            }
            let taken = self.rest.len().min(max.max(1));
            Ok(Some(self.rest.split_to(taken)))
        }
        .boxed()
    }
}

fn write_error(error: &WriteError) -> LaneError {
    match error {
        WriteError::ConnectionLost(error) => LaneError::new(reason(error)),
        WriteError::Stopped(_) => LaneError::new("the reader is gone"),
        other => LaneError::new(other.to_string()),
    }
}

fn read_error(error: &ReadError) -> LaneError {
    match error {
        ReadError::ConnectionLost(error) => LaneError::new(reason(error)),
        ReadError::Reset(_) => LaneError::new("the writer is gone"),
        other => LaneError::new(other.to_string()),
    }
}

/// Why a connection ended, in words. What a peer wrote is cut to a length and cleaned.
pub(crate) fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason)
            .chars()
            .take(REASON_CHARS_MAX)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
        ConnectionError::LocallyClosed => "closed".to_owned(),
        ConnectionError::TimedOut => "idle".to_owned(),
        other => other
            .to_string()
            .chars()
            .take(REASON_CHARS_MAX)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect(),
    }
}
