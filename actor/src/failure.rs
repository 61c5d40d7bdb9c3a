//! Failure: one form for a returned error and for a panic, and the guards that catch the latter.

use futures_util::FutureExt;
use std::any::Any;
use std::fmt::{self, Display};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What went wrong in a hook or a handler, as text for the log.
#[derive(Debug)]
pub(crate) enum Failure {
    Error(String),
    Panic(String),
}

impl Failure {
    /// A handler returned this.
    #[cold]
    pub(crate) fn of<E: Display>(error: E) -> Self {
        let text = print_error(&error);
        drop_guarded(error);
        Self::Error(text)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(text) => f.write_str(text),
            Self::Panic(text) => write!(f, "panic: {text}"),
        }
    }
}

/// Runs `future`, each poll guarded against panics.
pub(crate) async fn guarded<E: Display>(
    future: impl Future<Output = Result<(), E>>,
) -> Result<(), Failure> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Error(print_error(&error))),
        Err(panic) => Err(Failure::Panic(describe_panic(panic))),
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

/// The error as text; its `Display` is code of a user.
fn print_error(error: &impl Display) -> String {
    catch_unwind(AssertUnwindSafe(|| error.to_string())).unwrap_or_else(|panic| {
        format!(
            "(an error whose Display panicked: {})",
            describe_panic(panic)
        )
    })
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
}
