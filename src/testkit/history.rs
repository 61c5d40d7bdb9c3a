//! History: writes down what clients did and saw, and names what cannot be true.

use crate::logic::diagnosis::{Diagnosis, examine};
use crate::logic::linear::{End, Model, Operation};
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the clients of entities did, and what they were answered; shared by all of them.
///
/// A client says [`History::begin`] before it sends a command, and [`Pending::answered`] with the
/// answer. A command that was not answered may have been done or not, or may be done later: its
/// [`Pending`] is dropped. In the end [`History::check`] compares all of it with a [`Model`]: is there, for
/// each entity, one order of the commands that respects time and explains every answer?
///
/// # Examples
/// ```
/// use otava::testkit::{History, Model, Violation};
///
/// struct Counter;
///
/// impl Model for Counter {
///     type Command = u64;
///     type Answer = u64;
///     type State = u64;
///
///     fn initial(&self, _entity: &str) -> u64 {
///         0
///     }
///
///     fn apply(&self, total: &mut u64, add: &u64) -> u64 {
///         *total += add;
///         *total
///     }
/// }
///
/// let history = History::new(Counter);
/// history.begin("a", 5).answered(5);
/// history.begin("a", 1).answered(6);
/// assert!(history.check().is_ok());
///
/// // Nobody remembers the 6.
/// history.begin("a", 2).answered(7);
/// let violation = history.check().unwrap_err();
/// assert!(matches!(violation, Violation::LostAcknowledgement { .. }), "{violation}");
/// ```
pub struct History<M: Model> {
    shared: Arc<Shared<M>>,
}

struct Shared<M: Model> {
    model: M,
    seen: Mutex<Seen<M>>,
}

type Told<M> = Operation<<M as Model>::Command, <M as Model>::Answer>;

struct Seen<M: Model> {
    /// Counts what happens; two things have no other order than that.
    clock: u64,
    operations: BTreeMap<String, Vec<Told<M>>>,
    /// How many instances of an entity live.
    live: BTreeMap<String, usize>,
    violation: Option<Violation>,
}

/// What was promised and did not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A command took effect more than once.
    #[error("{key}: {command} was done twice\n{story}")]
    DoneTwice {
        /// The entity.
        key: String,
        /// What was done twice.
        command: String,
        /// The operations on the entity.
        story: String,
    },
    /// A command was answered, and what follows does not know of it.
    #[error("{key}: {command} was acknowledged and is lost\n{story}")]
    LostAcknowledgement {
        /// The entity.
        key: String,
        /// What is lost.
        command: String,
        /// The operations on the entity.
        story: String,
    },
    /// A read was answered with a state of another time.
    #[error(
        "{key}: {command} was not answered with the state of any time at which it ran\n{story}"
    )]
    NonLinearRead {
        /// The entity.
        key: String,
        /// The read.
        command: String,
        /// The operations on the entity.
        story: String,
    },
    /// What one sender sent was taken in another order, or twice.
    #[error("{key}: number {second} of sender {sender} was taken after its number {first}")]
    Reordered {
        /// The entity.
        key: String,
        /// Who sent both.
        sender: u64,
        /// What was taken first.
        first: u64,
        /// What was taken next.
        second: u64,
    },
    /// Two instances of one entity lived at the same time.
    #[error("{key}: two instances lived at the same time")]
    TwoLive {
        /// The entity.
        key: String,
    },
    /// There are too many possible orders: more commands at once, or of unknown outcome, than can be
    /// searched. Use fewer clients an entity, or check earlier.
    #[error("{key}: too many orders are possible to decide\n{story}")]
    Undecided {
        /// The entity.
        key: String,
        /// The operations on the entity.
        story: String,
    },
    /// No order of the commands explains an answer, and no single loss or repetition does.
    #[error("{key}: nothing explains the answer of {command}\n{story}")]
    Unexplained {
        /// The entity.
        key: String,
        /// Whose answer cannot be.
        command: String,
        /// The operations on the entity.
        story: String,
    },
}

impl<M: Model> History<M> {
    /// Nothing has happened.
    #[must_use]
    pub fn new(model: M) -> Self {
        let seen = Seen {
            clock: 0,
            operations: BTreeMap::new(),
            live: BTreeMap::new(),
            violation: None,
        };
        let seen = Mutex::new(seen);
        Self {
            shared: Arc::new(Shared { model, seen }),
        }
    }

    /// A client is about to send `command` to the entity `key`.
    #[must_use = "say how it was answered; dropped at once, its outcome is unknown"]
    pub fn begin(&self, key: &str, command: M::Command) -> Pending<M> {
        let mut seen = self.seen();
        let began = seen.tick();
        let end = End::Unknown;
        let operation = Operation {
            command,
            began,
            end,
        };
        let all = seen.operations.entry(key.to_owned()).or_default();
        all.push(operation);
        let at = all.len() - 1;
        Pending {
            history: self.clone(),
            key: key.to_owned(),
            at,
        }
    }

    /// An instance of the entity `key` lives, until the guard is dropped. For entities that are given a
    /// history by their factory. That two lives overlap is a violation where moves are planned; after a
    /// cut an old instance may live on for a while, and only its writes are refused.
    #[must_use = "the instance ends when this is dropped"]
    pub fn starts(&self, key: &str) -> Life<M> {
        let mut seen = self.seen();
        let live = seen.live.entry(key.to_owned()).or_default();
        *live += 1;
        if *live > 1 {
            let key = key.to_owned();
            seen.violation.get_or_insert(Violation::TwoLive { key });
        }
        drop(seen);
        Life {
            history: self.clone(),
            key: key.to_owned(),
        }
    }

    /// How many commands were begun, and how many of them were answered.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let seen = self.seen();
        let all = || seen.operations.values().flatten();
        let answered = all().filter(|operation| operation.end.at().is_some());
        (all().count(), answered.count())
    }

    fn seen(&self) -> MutexGuard<'_, Seen<M>> {
        let seen = self.shared.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Model<Command: Debug, Answer: Debug>> History<M> {
    /// Compares everything that was seen with the model, entity by entity.
    ///
    /// # Errors
    /// The first [`Violation`], with the operations on its entity.
    pub fn check(&self) -> Result<(), Violation> {
        let seen = self.seen();
        if let Some(violation) = &seen.violation {
            return Err(violation.clone());
        }
        for (key, operations) in &seen.operations {
            let Some(diagnosis) = examine(&self.shared.model, key, operations) else {
                continue;
            };
            return Err(violation::<M>(key, operations, diagnosis));
        }
        Ok(())
    }
}

/// What an entity took, in its order: the numbers of each sender must grow. So is found what overtook
/// another, and what was taken twice.
///
/// # Errors
/// [`Violation::Reordered`].
pub fn check_order(
    key: &str,
    taken: impl IntoIterator<Item = (u64, u64)>,
) -> Result<(), Violation> {
    let mut last = BTreeMap::new();
    for (sender, second) in taken {
        if let Some(first) = last.insert(sender, second).filter(|first| *first >= second) {
            let key = key.to_owned();
            return Err(Violation::Reordered {
                key,
                sender,
                first,
                second,
            });
        }
    }
    Ok(())
}

impl<M: Model> Seen<M> {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

impl<M: Model> Clone for History<M> {
    fn clone(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        Self { shared }
    }
}

impl<M: Model> Debug for History<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begun, answered) = self.counts();
        let mut out = f.debug_struct("History");
        out.field("begun", &begun).field("answered", &answered);
        out.finish()
    }
}

/// A command that was begun. Dropped, its outcome stays unknown.
#[must_use = "say how it was answered"]
pub struct Pending<M: Model> {
    history: History<M>,
    key: String,
    at: usize,
}

impl<M: Model> Pending<M> {
    /// It was done, and answered so.
    pub fn answered(self, answer: M::Answer) {
        let mut seen = self.history.seen();
        let now = seen.tick();
        let all = seen.operations.get_mut(&self.key);
        if let Some(operation) = all.and_then(|all| all.get_mut(self.at)) {
            operation.end = End::Answered(now, answer);
        }
    }
}

impl<M: Model> Debug for Pending<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pending").field(&self.key).finish()
    }
}

/// One instance of an entity. It ends when this is dropped.
pub struct Life<M: Model> {
    history: History<M>,
    key: String,
}

impl<M: Model> Drop for Life<M> {
    fn drop(&mut self) {
        let mut seen = self.history.seen();
        if let Some(live) = seen.live.get_mut(&self.key) {
            *live = live.saturating_sub(1);
        }
    }
}

impl<M: Model> Debug for Life<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Life").field(&self.key).finish()
    }
}

/// Operations that are told before and after the one in question.
const STORY: usize = 12;

fn violation<M: Model<Command: Debug, Answer: Debug>>(
    key: &str,
    operations: &[Told<M>],
    diagnosis: Diagnosis,
) -> Violation {
    let at = match diagnosis {
        Diagnosis::Lost(at)
        | Diagnosis::Twice(at)
        | Diagnosis::Read(at)
        | Diagnosis::Unexplained(at) => at,
        Diagnosis::TooLong => operations.len(),
    };
    let from = at.saturating_sub(STORY);
    let to = (at + STORY).min(operations.len());
    let line = |(place, operation): (usize, &Told<M>)| {
        let mark = if place == at { "-> " } else { "   " };
        let Operation {
            command,
            began,
            end,
        } = operation;
        let end = match end {
            End::Answered(ended, answer) => format!("to {ended}: {answer:?}"),
            End::Done(_) | End::Unknown => "to ?: unknown".to_owned(),
        };
        format!("{mark}{began} {end} <- {command:?}")
    };
    let around = operations.iter().enumerate().take(to).skip(from);
    let story: Vec<_> = around.map(line).collect();
    let (key, story) = (key.to_owned(), story.join("\n"));
    let command = operations.get(at).map(|it| format!("{:?}", it.command));
    let command = command.unwrap_or_default();
    match diagnosis {
        Diagnosis::Lost(_) => Violation::LostAcknowledgement {
            key,
            command,
            story,
        },
        Diagnosis::Twice(_) => Violation::DoneTwice {
            key,
            command,
            story,
        },
        Diagnosis::Read(_) => Violation::NonLinearRead {
            key,
            command,
            story,
        },
        Diagnosis::Unexplained(_) => Violation::Unexplained {
            key,
            command,
            story,
        },
        Diagnosis::TooLong => Violation::Undecided { key, story },
    }
}
