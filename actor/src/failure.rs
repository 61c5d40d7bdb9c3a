//! Failure: one form for a returned error and for a panic, and the guards that catch the latter.

use crate::path::ActorPath;
use crate::supervision::Fault;
use crate::watch::Ended;
use pin_project_lite::pin_project;
use std::any::Any;
use std::convert::Infallible;
use std::fmt::{self, Display};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What went wrong in a hook, a handler, a factory, or in a child. Without a type for the error it
/// can only be a panic.
#[derive(Debug)]
pub(crate) enum Failure<E = Infallible> {
    Child { path: ActorPath, failure: String },
    Error(E),
    Linked { path: ActorPath, reason: Ended },
    Panic(String),
}

impl Failure {
    /// The same failure, where errors are possible too.
    pub(crate) fn widen<E>(self) -> Failure<E> {
        match self {
            Self::Child { path, failure } => Failure::Child { path, failure },
            Self::Linked { path, reason } => Failure::Linked { path, reason },
            Self::Panic(text) => Failure::Panic(text),
        }
    }
}

impl<E> Failure<E> {
    pub(crate) fn fault(&self) -> Fault<'_, E> {
        match self {
            Self::Child { path, failure } => Fault::Child { path, failure },
            Self::Error(error) => Fault::Error(error),
            Self::Linked { path, reason } => Fault::Linked {
                path,
                reason: *reason,
            },
            Self::Panic(text) => Fault::Panic(text),
        }
    }
}

impl<E: Display> Failure<E> {
    /// The failure as text. The error's `Display` is code of a user and may panic.
    pub(crate) fn describe(&self) -> String {
        guarded_call(|| self.to_string())
            .unwrap_or_else(|panic| format!("(an error whose Display panicked: {panic})"))
    }
}

impl<E: Display> Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.fault(), f)
    }
}

/// Runs `future`, each poll guarded against panics, and its drop too.
pub(crate) fn guarded<F: Future>(future: F) -> Guarded<F> {
    Guarded {
        future: Some(future),
    }
}

/// What [`guarded`] and [`guarded_call`] say of code that may also return an error.
pub(crate) fn flatten<T, E>(result: Result<Result<T, E>, Failure>) -> Result<T, Failure<E>> {
    result.map_err(Failure::widen)?.map_err(Failure::Error)
}

/// The same, where the error stays behind and only its text goes on.
pub(crate) fn in_words<E: Display>(
    result: Result<Result<(), E>, Failure>,
) -> Result<(), Failure<String>> {
    let Err(error) = result.map_err(Failure::widen)? else {
        return Ok(());
    };
    let failure = Failure::Error(error);
    let text = failure.describe();
    drop_guarded(failure);
    Err(Failure::Error(text))
}

pin_project! {
    /// The future of [`guarded`].
    pub(crate) struct Guarded<F> {
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for Guarded<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut future = this.project().future;
            if future.is_some()
                && let Err(failure) = guarded_call(|| future.set(None))
            {
                tracing::warn!(%failure, "dropping a future of an actor failed");
            }
        }
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut future = self.project().future;
        let polled = guarded_call(|| {
            let future = future.as_mut().as_pin_mut();
            future
                .expect("a future is not polled after its end")
                .poll(cx)
        });
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(failure) => Err(failure),
        };
        // It is over, also if it panicked. What it still holds goes here, where that is guarded.
        match (guarded_call(|| future.set(None)), result) {
            (Err(failure), Ok(output)) => {
                drop_guarded(output);
                Poll::Ready(Err(failure))
            }
            (_, result) => Poll::Ready(result),
        }
    }
}

/// Runs a plain piece of user code, guarded against panics.
pub(crate) fn guarded_call<T>(call: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| Failure::Panic(describe_panic(panic)))
}

/// Drops a value of a user's type: its `Drop` may panic too.
pub(crate) fn drop_guarded<T>(value: T) {
    if let Err(failure) = guarded_call(move || drop(value)) {
        tracing::warn!(%failure, "dropping a value of an actor failed");
    }
}

/// The text of a panic's payload. The payload itself may be any value, also one whose drop panics.
pub fn describe_panic(payload: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "(not a text)".to_owned()
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        // A payload that panics when dropped may do so again and again: let it be.
        std::mem::forget(again);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Grenade;

    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn payloads_of_any_kind_are_described() {
        let caught = |f: fn()| describe_panic(catch_unwind(f).unwrap_err());
        assert_eq!(caught(|| panic!("plain")), "plain");
        assert_eq!(caught(|| panic!("{}", 1 + 1)), "2");
        assert_eq!(caught(|| std::panic::panic_any(7_u8)), "(not a text)");
        assert_eq!(caught(|| std::panic::panic_any(Grenade)), "(not a text)");
    }

    #[test]
    fn a_panicking_drop_is_contained() {
        drop_guarded(Grenade);
    }

    /// Panics when polled, and again when dropped.
    struct TwiceBad;

    impl Future for TwiceBad {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            panic!("polled")
        }
    }

    impl Drop for TwiceBad {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[tokio::test]
    async fn a_future_that_panics_when_polled_and_when_dropped_is_contained() {
        let failure = guarded(TwiceBad).await.unwrap_err();
        assert_eq!(failure.describe(), "panic: polled");
    }

    #[tokio::test]
    async fn a_future_that_panics_only_when_dropped_has_failed() {
        let grenade = Grenade;
        let future = std::future::poll_fn(move |_| {
            let _held = &grenade;
            Poll::Ready(7)
        });
        assert_eq!(
            guarded(future).await.unwrap_err().describe(),
            "panic: dropped"
        );
    }

    #[test]
    fn an_error_that_cannot_be_printed_is_described() {
        struct Unspeakable;
        impl Display for Unspeakable {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("mute")
            }
        }
        let text = Failure::Error(Unspeakable).describe();
        assert_eq!(text, "(an error whose Display panicked: panic: mute)");
    }
}
