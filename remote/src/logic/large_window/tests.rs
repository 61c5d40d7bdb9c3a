//! Proves: a large lane goes on whatever its credits are, and has under way what its path needs.

use super::*;
use otava_actor::Rng;
use std::collections::BTreeMap;

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const SECOND: u64 = 1_000 * MS;

const DATAGRAM: usize = 8 << 10;

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

/// A path with one line: `delay` either way, and `nanos_per_kib` for what is on the line.
struct Path {
    delay: u64,
    nanos_per_kib: u64,
}

impl Path {
    /// Sends as fast as it may for this long. Returns the bytes that arrived, and the window then.
    fn send_for(&self, length: u64) -> (u64, u64) {
        let mut window = LargeWindow::new();
        // What has arrived over there, by time; credits that arrive here, by time.
        let (mut arrivals, mut credits) = (BTreeMap::new(), BTreeMap::new());
        let (mut now, mut free, mut taken, mut credited) = (0, 0, 0, 0);
        while now < length {
            loop {
                let room = window.room(usize::MAX);
                if room == 0 {
                    break;
                }
                let before = window.sent;
                window.sent(room, at(now));
                for end in (before..window.sent).step_by(DATAGRAM) {
                    free = now.max(free) + DATAGRAM as u64 * self.nanos_per_kib / 1_024;
                    let end = window.sent.min(end + DATAGRAM as u64);
                    arrivals.insert(free + self.delay, end);
                }
            }
            let arrival = arrivals.first_key_value().map_or(u64::MAX, |(at, _)| *at);
            let credit = credits.first_key_value().map_or(u64::MAX, |(at, _)| *at);
            now = arrival.min(credit);
            assert!(now < u64::MAX, "it stands still");
            if let Some(end) = arrivals.remove(&now) {
                taken = end;
                if taken - credited >= CREDIT_BYTES {
                    credited = taken;
                    credits.insert(now + self.delay, taken);
                }
            }
            if let Some(taken) = credits.remove(&now) {
                window.take(taken, at(now)).unwrap();
            }
        }
        (taken, window.window)
    }
}

/// R5: two processes of one machine: 4 us a KiB (250 MB/s) and 20 us one way. A message on another lane waits
/// for the least window, and the line is never idle.
#[test]
fn a_short_path_has_the_least_window_under_way() {
    let path = Path {
        delay: 20 * US,
        nanos_per_kib: 4 * US,
    };
    let (taken, window) = path.send_for(SECOND);
    assert!(window < 2 * LEAST, "{window}");
    assert!(taken > 240 << 20, "{taken}");
}

/// 10 GbE with 1 ms there and back: what it carries in a trip is 1.2 MB.
#[test]
fn a_long_path_is_filled() {
    let path = Path {
        delay: MS / 2,
        nanos_per_kib: 820,
    };
    let (taken, window) = path.send_for(SECOND);
    assert!((1 << 20..2 << 20).contains(&window), "{window}");
    assert!(taken > 1_000 << 20, "{taken}");
    let (_, window) = Path {
        delay: 50 * MS,
        nanos_per_kib: 1,
    }
    .send_for(60 * SECOND);
    assert_eq!(window, MOST);
}

/// A path that became a longer one: the shortest trip is forgotten, and the window grows.
#[test]
fn what_was_short_is_forgotten() {
    let mut window = LargeWindow::new();
    let mut now = 0;
    let mut trips = |window: &mut LargeWindow, trip: u64, length: u64| {
        let end = now + length;
        while now < end {
            while window.room(usize::MAX) > 0 {
                window.sent(PIECE, at(now));
            }
            now += trip;
            window.take(window.sent, at(now)).unwrap();
        }
        window.window
    };
    assert!(trips(&mut window, 100 * US, SECOND) > LEAST);
    let at_first = trips(&mut window, 2 * MS, SECOND);
    assert_eq!(at_first, LEAST, "as if it were a queue");
    assert!(trips(&mut window, 2 * MS, 12 * SECOND) > 4 * LEAST);
}

/// Whatever is wanted, and whenever credits come by the rule: with all of them there is room again, and
/// no more is under way than the window.
#[test]
fn it_never_stands_still() {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().unwrap());
    for seed in seed..seed + 200 {
        let mut rng = Rng::seeded(seed);
        let (mut window, mut now, mut credited) = (LargeWindow::new(), 0, 0);
        for _ in 0..2_000 {
            now += rng.next_u64() % MS;
            let wanted = 1 + (rng.next_u64() % (128 << 10)) as usize;
            match window.room(wanted) {
                0 => {
                    let taken = credited + CREDIT_BYTES;
                    assert!(taken <= window.sent, "seed {seed}: nobody sends a credit");
                    credited = taken + rng.next_u64() % (window.sent - taken + 1);
                    window.take(credited, at(now)).unwrap();
                }
                room => {
                    assert!(room <= wanted, "seed {seed}");
                    window.sent(room, at(now));
                    let under_way = window.sent - window.taken;
                    assert!(under_way <= window.window.max(MOST), "seed {seed}");
                }
            }
        }
    }
}

/// X: a peer may not claim to have taken what was not sent; one that says less, or the same again, has
/// no effect.
#[test]
fn credits_are_not_believed_blindly() {
    let mut window = LargeWindow::new();
    window.sent(10_000, at(0));
    let refused = window.take(10_001, at(1));
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("10001 bytes") && error.contains("10000 were"),
        "{error}"
    );
    for taken in [10_000, 4, 10_000, 0] {
        window.take(taken, at(1)).unwrap();
        assert_eq!(window.taken, 10_000);
    }
    assert_eq!(window.take(u64::MAX, at(2)).unwrap_err().sent, 10_000);
}

/// However small what is sent is, and however much: what is remembered of it is bounded.
#[test]
fn what_is_remembered_is_bounded() {
    let mut window = LargeWindow::new();
    let mut most = 0;
    for n in 0..2_000_000_u64 {
        match window.room(30) {
            0 => _ = window.take(window.taken + CREDIT_BYTES, at(n)).unwrap(),
            room => window.sent(room, at(n)),
        }
        most = most.max(window.pieces.len() as u64);
    }
    assert!((1..=MOST / APART).contains(&most), "{most}");
}

#[test]
fn without_credits_to_come_everything_has_room() {
    let mut window = LargeWindow::new();
    window.sent(PIECE, at(0));
    window.lift();
    for _ in 0..1_000 {
        let room = window.room(usize::MAX);
        assert_eq!(room, PIECE);
        window.sent(room, at(0));
    }
    assert!(window.pieces.is_empty());
}
