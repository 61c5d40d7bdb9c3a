//! Proves: what users' destructors do, they do under no lock of this crate.

use crate::support::{Adder, SOON, Sums, system};
use otava_actor::{Props, ReplyTo};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A waker that does something when the last of its clones is dropped, as the waker of a task does
/// that drops what the task holds.
struct OnDrop(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl OnDrop {
    fn waker(work: impl FnOnce() + Send + 'static) -> Waker {
        Waker::from(Arc::new(Self(Mutex::new(Some(Box::new(work))))))
    }
}

impl Wake for OnDrop {
    fn wake(self: Arc<Self>) {}
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        let work = self.0.get_mut().unwrap().take();
        work.into_iter().for_each(|work| work());
    }
}

/// The task that was waiting for an answer held the port, and goes away when another one waits.
#[test]
fn a_waker_of_an_asker_may_hold_the_port() {
    let (port, reply) = ReplyTo::<u64>::channel(None);
    let mut reply = pin!(reply);
    let waker = OnDrop::waker(move || port.send(7).unwrap());
    assert!(
        reply
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    drop(waker);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(reply.as_mut().poll(&mut cx).is_pending());
    assert_eq!(reply.as_mut().poll(&mut cx), Poll::Ready(Ok(7)));
}

/// A sender in line is polled by another task, and then goes away: what its wakers held asks the
/// same mailbox.
#[tokio::test(start_paused = true)]
async fn a_waker_of_a_sender_in_line_may_hold_another_sender() {
    let system = system();
    let props = Props::once(Adder(0)).mailbox_capacity(NonZeroUsize::MIN);
    let adder = system.spawn_with("a", props).unwrap();
    let held = tokio::spawn(adder.ask(|r| Sums::Late(r, SOON / 10)).into_future());
    tokio::time::sleep(Duration::from_millis(1)).await;
    adder.tell(Sums::Add(1)).unwrap();
    let looks = Arc::new(Mutex::new(0));
    let look = |looks: &Arc<Mutex<u32>>| {
        let (looks, adder) = (looks.clone(), adder.clone());
        OnDrop::waker(move || {
            let mut other = Box::pin(adder.send(Sums::Add(100)));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(other.as_mut().poll(&mut cx).is_pending());
            *looks.lock().unwrap() += 1;
        })
    };
    {
        let mut sender = Box::pin(adder.send(Sums::Add(10)));
        for _ in 0..2 {
            let waker = look(&looks);
            assert!(
                sender
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        assert_eq!(*looks.lock().unwrap(), 1, "the first waker was replaced");
    }
    assert_eq!(*looks.lock().unwrap(), 2, "the second one left the line");
    held.await.unwrap().unwrap();
    assert_eq!(adder.ask(Sums::Get).await, Ok(1));
}
