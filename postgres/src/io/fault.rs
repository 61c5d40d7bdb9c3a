//! Fault: what an error of the connection says about what was asked for.

use otava_persistence::JournalError;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::error::{DbError, Severity, SqlState};

/// Why something was not done, or nobody knows.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A row is there already; nothing was written.
    Duplicate(JournalError),
    /// The server said no, and rolled back.
    Refused(JournalError),
    /// It was never asked.
    Unreachable(Arc<str>),
    /// The connection ended before the answer came.
    Lost(Arc<str>),
}

impl Fault {
    /// What an error means that came after `waited`.
    pub(crate) fn new(error: &tokio_postgres::Error, waited: Duration) -> Self {
        match error.as_db_error() {
            // An error that ends the session may come behind the commit.
            Some(said) if said.parsed_severity() == Some(Severity::Error) => {
                let refusal = refusal(said, waited);
                if *said.code() == SqlState::UNIQUE_VIOLATION {
                    Self::Duplicate(refusal)
                } else {
                    Self::Refused(refusal)
                }
            }
            _ => Self::Lost(describe(error).into()),
        }
    }

    /// For what changes something: lost means unknown.
    pub(crate) fn of_write(self) -> JournalError {
        match self {
            Self::Duplicate(error) | Self::Refused(error) => error,
            Self::Unreachable(reason) => JournalError::Unavailable { reason },
            Self::Lost(reason) => JournalError::Unknown { reason },
        }
    }

    /// For what only reads.
    pub(crate) fn of_read(self) -> JournalError {
        match self {
            Self::Duplicate(error) | Self::Refused(error) => error,
            Self::Unreachable(reason) | Self::Lost(reason) => JournalError::Unavailable { reason },
        }
    }
}

fn refusal(said: &DbError, waited: Duration) -> JournalError {
    let code = said.code();
    if [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ]
    .contains(code)
    {
        return JournalError::Busy { waited };
    }
    let reason = describe_db_error(said);
    // Lack of memory, disk or connections; the server starts or stops; it is a standby.
    let passing = ["53", "57"]
        .iter()
        .any(|class| code.code().starts_with(class))
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION;
    if passing {
        JournalError::Unavailable {
            reason: reason.into(),
        }
    } else {
        JournalError::Refused { reason }
    }
}

/// An error in words. Details are left out: they may hold what was to be written.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => describe_db_error(said),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

fn describe_db_error(said: &DbError) -> String {
    format!("{} ({})", said.message(), said.code().code())
}
