//! Proves: of answering, giving up and dropping the port exactly one decides, and the asker learns it.

use super::{Reply, ReplyTo, Slot, State};
use crate::error::AskError;
use crate::models::{Wakings, exhaustive};
use loom::thread;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

fn poll(reply: &mut Reply<u32>, wakings: &Wakings) -> Poll<Result<u32, AskError>> {
    Pin::new(reply).poll(&mut Context::from_waker(&wakings.waker()))
}

/// The asker looks while `other` does something with the port: it sees the outcome, or is woken.
fn outcome(mut reply: Reply<u32>, other: thread::JoinHandle<()>) -> Option<u32> {
    let wakings = Wakings::default();
    let first = poll(&mut reply, &wakings);
    other.join().unwrap();
    let last = match first {
        Poll::Ready(answer) => answer,
        Poll::Pending => {
            assert!(wakings.take(), "the port is gone and nobody woke the asker");
            match poll(&mut reply, &wakings) {
                Poll::Ready(answer) => answer,
                Poll::Pending => panic!("the port is gone"),
            }
        }
    };
    match last {
        Ok(answer) => Some(answer),
        Err(AskError::NoReply { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn loom_an_answer_wakes_the_asker() {
    exhaustive(|| {
        let (port, reply) = ReplyTo::<u32>::channel(None);
        let other = thread::spawn(move || port.send(7).unwrap());
        assert_eq!(outcome(reply, other), Some(7));
    });
}

#[test]
fn loom_a_dropped_port_wakes_the_asker() {
    exhaustive(|| {
        let (port, reply) = ReplyTo::<u32>::channel(None);
        let other = thread::spawn(move || drop(port));
        assert_eq!(outcome(reply, other), None);
    });
}

/// One handle answers while another one is dropped, and a third too.
#[test]
fn loom_an_answer_wins_over_dropped_handles() {
    exhaustive(|| {
        let (port, reply) = ReplyTo::<u32>::channel(None);
        let shared = port.share();
        let dropper = thread::spawn(move || drop(shared));
        let other = thread::spawn(move || port.send(7).unwrap());
        assert_eq!(outcome(reply, other), Some(7));
        dropper.join().unwrap();
    });
}

/// Two handles are dropped at once: the last of them, whichever it is, tells the asker.
#[test]
fn loom_the_last_of_two_dropped_handles_tells_the_asker() {
    exhaustive(|| {
        let (port, reply) = ReplyTo::<u32>::channel(None);
        let shared = port.share();
        let other = thread::spawn(move || {
            let there = thread::spawn(move || drop(shared));
            drop(port);
            there.join().unwrap();
        });
        assert_eq!(outcome(reply, other), None);
    });
}

/// Two answers through two handles: one of them is told that it came too late, and has its value back.
#[test]
fn loom_one_of_two_answers_wins() {
    exhaustive(|| {
        let (port, reply) = ReplyTo::<u32>::channel(None);
        let shared = port.share();
        let other = thread::spawn(move || {
            let there = thread::spawn(move || shared.send(1));
            let here = port.send(2);
            match (there.join().unwrap(), here) {
                (Ok(()), Err(2)) | (Err(1), Ok(())) => {}
                other => panic!("{other:?}"),
            }
        });
        assert!(matches!(outcome(reply, other), Some(1 | 2)));
    });
}

/// The asker gives up while the answer comes: it has the answer, or the one who answers has it back.
#[test]
fn loom_giving_up_and_answering_agree() {
    exhaustive(|| {
        let slot = Arc::new(Slot::new(State::Empty(None), None));
        let port = ReplyTo::new(slot.clone());
        let other = thread::spawn(move || port.send(7));
        let here = slot.abandon(None);
        match (other.join().unwrap(), here) {
            (Ok(()), Some(7)) | (Err(7), None) => {}
            other => panic!("{other:?}"),
        }
    });
}
