//! Conformance kit: what every network must do, as functions that any implementer can call.
//!
//! ```no_run
//! # use otava_remote::{conformance, VirtualWorld};
//! # use std::sync::Arc;
//! # use std::net::SocketAddr;
//! # use std::sync::atomic::{AtomicU16, Ordering};
//! #[tokio::test(start_paused = true)]
//! async fn my_network_conforms() {
//!     let world = VirtualWorld::new(7);
//!     let port = AtomicU16::new(1);
//!     conformance::network(async |name| {
//!         let port = port.fetch_add(1, Ordering::Relaxed);
//!         Arc::new(world.network(SocketAddr::from(([10, 0, 0, 1], port)), name))
//!     })
//!     .await;
//! }
//! ```
//!
//! Every case makes end points of its own. The kit needs tokio's runtime around it, paused time is
//! fine. It cannot test what needs a cut, a crash or bad credentials: those tests stand beside each
//! network.
#![allow(clippy::unwrap_used, reason = "a failed case is meant to panic")]

use crate::network::{ConnectError, Connection, LaneReader, LaneWriter, Network};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// Far above what any case takes.
const CASE_LIMIT: Duration = Duration::from_secs(30);

type Net = Arc<dyn Network>;
type Conn = Arc<dyn Connection>;

/// Runs all cases. `factory` makes an end point of that name at an address of its own; all that it
/// makes can reach, and accept, each other.
///
/// # Panics
/// In the first case that fails; the message names it.
pub async fn network<N: Network>(factory: impl AsyncFn(&str) -> Arc<N>) {
    macro_rules! cases {
        ($($name:ident),* $(,)?) => {
            $({
                let (a, b) = (factory("node-a").await, factory("Node_B.2").await);
                case(stringify!($name), $name(a, b)).await;
            })*
        };
    }
    cases!(
        both_ends_know_each_other,
        either_side_opens_lanes,
        bytes_arrive_in_order,
        a_read_takes_at_most_what_was_asked,
        a_slow_reader_holds_the_writer_up,
        an_unread_lane_holds_up_no_other,
        a_finished_lane_ends,
        a_dropped_writer_is_no_end,
        a_dropped_reader_stops_the_writer,
        a_read_that_was_given_up_loses_nothing,
        a_write_that_was_given_up_leaves_no_gap,
        many_lanes_one_after_another,
    );
    cases!(
        a_close_is_seen_with_its_reason,
        a_closed_connection_carries_nothing,
        a_dropped_connection_closes,
        a_closed_network_accepts_no_more,
        a_dropped_network_closes_its_connections,
        nobody_is_not_reached,
        an_accept_that_was_given_up_loses_nothing,
        many_connections_at_once,
        both_call_each_other,
    );
}

/// Runs one case and names it when it fails or hangs.
async fn case(name: &str, run: impl Future<Output = ()>) {
    let limited = tokio::time::timeout(CASE_LIMIT, run);
    match AssertUnwindSafe(limited).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => panic!("conformance case `{name}` failed: it hangs"),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let message = text
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic");
            panic!("conformance case `{name}` failed: {message}");
        }
    }
}

async fn pair(a: &dyn Network, b: &dyn Network) -> (Conn, Conn) {
    let (to_b, from_a) = tokio::join!(a.connect(b.local_addr()), b.accept());
    (to_b.unwrap(), from_a.unwrap())
}

/// A lane on which a first byte has passed.
async fn lane(from: &Conn, to: &Conn) -> (Box<dyn LaneWriter>, Box<dyn LaneReader>) {
    let mut writer = from.open_lane().await.unwrap();
    let (written, reader) = tokio::join!(writer.write(Bytes::from_static(b"!")), to.accept_lane());
    written.unwrap();
    let mut reader = reader.unwrap();
    assert_eq!(reader.read(10).await.unwrap().unwrap(), "!");
    (writer, reader)
}

/// Bytes that differ at every place. Cases that need many make them before they connect: on a busy
/// machine that takes longer than a connection may be silent.
fn sample(length: usize) -> Bytes {
    (0..length as u32)
        .flat_map(|n| (n.wrapping_mul(0x9E37_79B9)).to_le_bytes())
        .take(length)
        .collect()
}

async fn read_all(reader: &mut Box<dyn LaneReader>) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(bytes) = reader.read(64 << 10).await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    all.freeze()
}

async fn read_exactly(reader: &mut Box<dyn LaneReader>, length: usize) -> Bytes {
    let mut all = BytesMut::new();
    while all.len() < length {
        let bytes = reader.read(length - all.len()).await.unwrap();
        all.extend_from_slice(&bytes.expect("the lane ended early"));
    }
    all.freeze()
}

async fn both_ends_know_each_other(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    assert!(to_b.proves_name("Node_B.2"));
    assert!(from_a.proves_name("node-a"));
    for wrong in ["", "node-b", "node_b.2", "node-a ", "*", "2"] {
        assert!(!to_b.proves_name(wrong), "{wrong:?}");
        assert!(!from_a.proves_name(wrong), "{wrong:?}");
    }
    assert!(!to_b.proves_name("node-a") && !from_a.proves_name("Node_B.2"));
    assert_eq!(to_b.peer_addr(), b.local_addr());
    assert_eq!(from_a.peer_addr().ip(), a.local_addr().ip());
    assert_ne!(a.local_addr(), b.local_addr());
}

async fn either_side_opens_lanes(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut there, mut at_b) = lane(&to_b, &from_a).await;
    let (mut back, mut at_a) = lane(&from_a, &to_b).await;
    there.write(Bytes::from_static(b"there")).await.unwrap();
    back.write(Bytes::from_static(b"back")).await.unwrap();
    assert_eq!(read_exactly(&mut at_b, 5).await, "there");
    assert_eq!(read_exactly(&mut at_a, 4).await, "back");
}

async fn bytes_arrive_in_order(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    let all = sample(100_000);
    let write = async {
        let mut rest = all.clone();
        for n in 0.. {
            let piece = rest.split_to(rest.len().min(n % 700));
            writer.write(piece).await.unwrap();
            if rest.is_empty() {
                break;
            }
        }
        writer.finish().await;
    };
    let ((), read) = tokio::join!(write, read_all(&mut reader));
    assert!(read == all, "{} bytes of {}", read.len(), all.len());
}

async fn a_read_takes_at_most_what_was_asked(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    let all = sample(1000);
    writer.write(all.clone()).await.unwrap();
    let mut read = BytesMut::new();
    for max in [1, 2, 3, 500, 1, 493] {
        let mut taken = 0;
        while taken < max {
            let bytes = reader.read(max - taken).await.unwrap().unwrap();
            assert!(
                (1..=max - taken).contains(&bytes.len()),
                "{} of {max}",
                bytes.len()
            );
            taken += bytes.len();
            read.extend_from_slice(&bytes);
        }
    }
    assert!(read == all);
}

async fn a_slow_reader_holds_the_writer_up(a: Net, b: Net) {
    let all = sample(6 << 20);
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    let mut write = Box::pin(async {
        writer.write(all.clone()).await.unwrap();
        writer.finish().await;
    });
    // Nobody reads: the buffers on the way fill up, and then nothing goes on.
    let stuck = tokio::time::timeout(Duration::from_millis(300), &mut write).await;
    assert!(
        stuck.is_err(),
        "{} bytes were taken and not read",
        all.len()
    );
    let ((), read) = tokio::join!(write, read_all(&mut reader));
    assert!(read == all, "{} bytes of {}", read.len(), all.len());
}

async fn an_unread_lane_holds_up_no_other(a: Net, b: Net) {
    let fill = sample(6 << 20);
    let (to_b, from_a) = pair(&*a, &*b).await;
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(lane(&to_b, &from_a).await);
    }
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    let full = join_all(
        unread
            .iter_mut()
            .map(|(writer, _)| writer.write(fill.clone())),
    );
    let other = async {
        for _ in 0..20 {
            let bytes = sample(100_000);
            let read = read_exactly(&mut reader, bytes.len());
            let (written, read) = tokio::join!(writer.write(bytes.clone()), read);
            written.unwrap();
            assert!(read == bytes);
        }
    };
    tokio::select! {
        biased;
        _ = full => panic!("an unread lane took everything"),
        () = other => {}
    }
}

async fn a_finished_lane_ends(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    writer.write(Bytes::from_static(b"last")).await.unwrap();
    writer.finish().await;
    assert!(writer.write(Bytes::from_static(b"more")).await.is_err());
    writer.finish().await;
    drop(writer);
    assert_eq!(read_all(&mut reader).await, "last");
    assert_eq!(reader.read(1).await, Ok(None));
    // An empty one, too: its end is the first that the peer sees of it.
    let mut writer = to_b.open_lane().await.unwrap();
    let ((), reader) = tokio::join!(writer.finish(), from_a.accept_lane());
    assert_eq!(reader.unwrap().read(1).await, Ok(None));
}

async fn a_dropped_writer_is_no_end(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    writer
        .write(Bytes::from_static(b"half a mess"))
        .await
        .unwrap();
    drop(writer);
    loop {
        match reader.read(100).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a lane that was given up looks finished"),
            Err(_) => break,
        }
    }
}

async fn a_dropped_reader_stops_the_writer(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, reader) = lane(&to_b, &from_a).await;
    drop(reader);
    while writer.write(sample(10_000)).await.is_ok() {}
    // The connection lives on.
    lane(&to_b, &from_a).await;
}

async fn a_read_that_was_given_up_loses_nothing(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    let all = sample(20_000);
    let write = async {
        for piece in all.chunks(100) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            tokio::task::yield_now().await;
        }
        writer.finish().await;
    };
    let read = async {
        let mut read = BytesMut::new();
        loop {
            // A future that is polled once and dropped.
            match reader.read(70).now_or_never() {
                Some(bytes) => match bytes.unwrap() {
                    Some(bytes) => read.extend_from_slice(&bytes),
                    None => break,
                },
                None => {
                    let Some(bytes) = reader.read(70).await.unwrap() else {
                        break;
                    };
                    read.extend_from_slice(&bytes);
                }
            }
        }
        read
    };
    let ((), read) = tokio::join!(write, read);
    assert!(read == all, "{} bytes of {}", read.len(), all.len());
}

async fn a_write_that_was_given_up_leaves_no_gap(a: Net, b: Net) {
    let all = sample(6 << 20);
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    assert!(writer.write(all.clone()).now_or_never().is_none());
    let last = Bytes::from_static(b"last");
    let write = async {
        writer.write(last.clone()).await.unwrap();
        writer.finish().await;
    };
    let ((), read) = tokio::join!(write, read_all(&mut reader));
    // It may have arrived or not, but what follows it follows all of it or none of it.
    assert!(
        read == last || read == [&all[..], &last].concat(),
        "{} bytes",
        read.len()
    );
}

async fn many_lanes_one_after_another(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let write = async {
        for n in 0..60_u32 {
            let mut writer = to_b.open_lane().await.unwrap();
            writer.write(Bytes::from(n.to_string())).await.unwrap();
            writer.finish().await;
        }
    };
    let read = async {
        for n in 0..60_u32 {
            let mut reader = from_a.accept_lane().await.unwrap();
            assert_eq!(read_all(&mut reader).await, n.to_string());
        }
    };
    tokio::join!(write, read);
}

async fn a_close_is_seen_with_its_reason(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (mut writer, mut reader) = lane(&to_b, &from_a).await;
    to_b.close("the weather");
    to_b.close("another one");
    assert_eq!(from_a.closed().await, "the weather");
    assert_eq!(to_b.closed().await, "the weather");
    assert_eq!(reader.read(1).await.unwrap_err().reason, "the weather");
    assert!(writer.write(Bytes::from_static(b"x")).await.is_err());
    // It was a connection that was closed, and not a network.
    pair(&*a, &*b).await;
}

async fn a_closed_connection_carries_nothing(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (lane_there, lane_back) = tokio::join!(to_b.accept_lane(), async {
        from_a.close("done");
        from_a.accept_lane().await
    });
    for result in [lane_there.map(|_| ()), lane_back.map(|_| ())] {
        assert_eq!(result.unwrap_err().reason, "done");
    }
    assert!(to_b.open_lane().await.is_err());
    assert!(from_a.open_lane().await.is_err());
}

async fn a_dropped_connection_closes(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let other_handle = to_b.clone();
    drop(to_b);
    let (mut writer, _reader) = lane(&other_handle, &from_a).await;
    drop(other_handle);
    from_a.closed().await;
    // Lanes do not keep it open.
    assert!(writer.write(Bytes::from_static(b"x")).await.is_err());
}

async fn a_closed_network_accepts_no_more(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    let (accepted, ()) = tokio::join!(b.accept(), b.close());
    assert!(accepted.is_none());
    assert!(b.accept().await.is_none());
    to_b.closed().await;
    from_a.closed().await;
    let connected = b.connect(a.local_addr()).await;
    assert_eq!(connected.err(), Some(ConnectError::Closed));
    b.close().await;
}

async fn a_dropped_network_closes_its_connections(a: Net, b: Net) {
    let (to_b, from_a) = pair(&*a, &*b).await;
    drop(b);
    to_b.closed().await;
    from_a.closed().await;
}

async fn nobody_is_not_reached(a: Net, b: Net) {
    b.close().await;
    match a.connect(b.local_addr()).await {
        Err(ConnectError::Unreachable { to, .. }) => assert_eq!(to, b.local_addr()),
        Err(other) => panic!("expected Unreachable, got {other:?}"),
        Ok(_) => panic!("connected to nobody"),
    }
}

async fn an_accept_that_was_given_up_loses_nothing(a: Net, b: Net) {
    assert!(b.accept().now_or_never().is_none());
    let to_b = a.connect(b.local_addr()).await.unwrap();
    let from_a = b.accept().await.unwrap();
    assert!(to_b.accept_lane().now_or_never().is_none());
    lane(&from_a, &to_b).await;
}

async fn many_connections_at_once(a: Net, b: Net) {
    let connects = join_all((0..24).map(|_| a.connect(b.local_addr())));
    let accepts = async {
        let mut accepted = Vec::new();
        for _ in 0..24 {
            accepted.push(b.accept().await.unwrap());
        }
        accepted
    };
    let (connected, accepted) = tokio::join!(connects, accepts);
    let write = join_all(
        connected
            .iter()
            .enumerate()
            .map(|(n, connection)| async move {
                let mut writer = connection.as_ref().unwrap().open_lane().await.unwrap();
                writer.write(Bytes::from(n.to_string())).await.unwrap();
                writer.finish().await;
            }),
    );
    let read = join_all(accepted.iter().map(|connection| async move {
        let mut reader = connection.accept_lane().await.unwrap();
        read_all(&mut reader).await
    }));
    let (_, mut read) = tokio::join!(write, read);
    read.sort_unstable();
    let mut expected: Vec<_> = (0..24).map(|n: u32| Bytes::from(n.to_string())).collect();
    expected.sort_unstable();
    assert_eq!(read, expected);
}

async fn both_call_each_other(a: Net, b: Net) {
    let ((to_b, from_a), (to_a, from_b)) = tokio::join!(pair(&*a, &*b), pair(&*b, &*a));
    to_b.close("one of two");
    from_a.closed().await;
    lane(&to_a, &from_b).await;
}
