//! Test kit: what a test needs to talk to actors, to look at them, and to run one by itself.
//!
//! | part | what it is for |
//! | --- | --- |
//! | [`TestProbe`] | stands in for an actor and says what reached it |
//! | [`DeadLetterSpy`] | says what was not delivered |
//! | [`LogSpy`] | says what was logged |
//! | [`ActorRunner`] | runs one actor on the thread of the test, and shows its effects |
//!
//! It is behind the cargo feature `testkit`; enable it for tests only:
//!
//! ```toml
//! [dev-dependencies]
//! otava-actor = { version = "0.1", features = ["testkit"] }
//! ```

mod dead_letter_spy;
mod log_spy;
mod probe;
mod runner;

pub use crate::effects::{Effect, Effects};
pub use dead_letter_spy::DeadLetterSpy;
pub use log_spy::{LogSpy, LoggedEvent, LoggedSpan};
pub use probe::{Fish, TestProbe};
pub use runner::ActorRunner;
