//! DeadLetterSpy: says what was not delivered in a system.

use crate::dead_letters::{DeadLetter, DeadLetterEvent, DeadLetterEvents, DeadLetterReason};
use crate::path::ActorPath;
use crate::system::ActorSystem;
use std::time::Duration;

/// Sees the dead letters of a system, from the moment on at which it was made.
///
/// ```
/// use otava_actor::{ActorSystem, DeadLetterReason, testkit::{DeadLetterSpy, TestProbe}};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let system = ActorSystem::new("test");
/// let mut spy = DeadLetterSpy::new(&system);
/// let probe = TestProbe::<u8>::new(&system);
/// probe.actor_ref().stop();
/// assert!(probe.actor_ref().tell(1).is_err());
/// let within = Duration::from_secs(1);
/// spy.expect(DeadLetterReason::RefusedStopped, probe.actor_ref().path(), within).await;
/// # }
/// ```
#[derive(Debug)]
pub struct DeadLetterSpy {
    events: DeadLetterEvents,
}

impl DeadLetterSpy {
    /// A spy on `system`.
    pub fn new(system: &ActorSystem) -> Self {
        Self {
            events: system.dead_letters().subscribe(),
        }
    }

    /// The next dead letter, which must come within `within`, is for this reason and was for the
    /// actor of this path.
    ///
    /// # Panics
    /// If nothing or another one comes, or if more came at once than the spy can hold (1,024).
    pub async fn expect(
        &mut self,
        reason: DeadLetterReason,
        path: &ActorPath,
        within: Duration,
    ) -> DeadLetter {
        let Some(letter) = self.next(within).await else {
            panic!("expected a dead letter ({reason:?}, {path}) within {within:?}, but none came");
        };
        assert!(
            letter.reason == reason && letter.path == *path,
            "expected a dead letter ({reason:?}, {path}), but this came: {letter:?}"
        );
        letter
    }

    /// No dead letter comes during `during`.
    ///
    /// # Panics
    /// If one comes.
    pub async fn expect_none(&mut self, during: Duration) {
        if let Some(letter) = self.next(during).await {
            panic!("expected no dead letter for {during:?}, but this came: {letter:?}");
        }
    }

    async fn next(&mut self, within: Duration) -> Option<DeadLetter> {
        match tokio::time::timeout(within, self.events.recv()).await {
            Ok(Some(DeadLetterEvent::Letter(letter))) => Some(letter),
            Ok(Some(DeadLetterEvent::Missed(n))) => {
                panic!("{n} dead letters came faster than the spy looked")
            }
            Ok(None) | Err(_) => None,
        }
    }
}
