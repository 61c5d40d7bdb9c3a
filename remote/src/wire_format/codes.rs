//! Wire codes: kinds and reasons as numbers of the wire, added to and never changed.

use otava_actor::{Ended, Refusal};

/// The kinds of frames, with their numbers on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Hello = 1,
    Welcome = 2,
    Refuse = 3,
    Control = 4,
    System = 5,
    SystemAck = 6,
    Goodbye = 7,
    Message = 16,
    Answer = 17,
    PortDropped = 18,
    Flush = 19,
    Flushed = 20,
    Question = 21,
    NoAnswer = 22,
    /// Since version 2; see `packed.rs`.
    Packed = 23,
    /// Since version 3.
    Credit = 24,
}

impl FrameKind {
    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Refuse,
            4 => Self::Control,
            5 => Self::System,
            6 => Self::SystemAck,
            7 => Self::Goodbye,
            16 => Self::Message,
            17 => Self::Answer,
            18 => Self::PortDropped,
            19 => Self::Flush,
            20 => Self::Flushed,
            21 => Self::Question,
            22 => Self::NoAnswer,
            23 => Self::Packed,
            24 => Self::Credit,
            _ => return None,
        })
    }
}

/// Why a node refuses another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefuseReason {
    ClusterNameDiffers,
    Duplicate,
    Malformed,
    NameNotProven,
    /// A reason of a later version.
    Other(u8),
    Quarantined,
    ShuttingDown,
    StaleIncarnation,
    VersionUnsupported,
}

impl RefuseReason {
    /// The reason that the wire knows under this number.
    pub(crate) const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::ClusterNameDiffers,
            2 => Self::Duplicate,
            3 => Self::NameNotProven,
            4 => Self::Quarantined,
            5 => Self::ShuttingDown,
            6 => Self::VersionUnsupported,
            7 => Self::Malformed,
            8 => Self::StaleIncarnation,
            other => Self::Other(other),
        }
    }

    /// Its number on the wire.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::ClusterNameDiffers => 1,
            Self::Duplicate => 2,
            Self::NameNotProven => 3,
            Self::Quarantined => 4,
            Self::ShuttingDown => 5,
            Self::VersionUnsupported => 6,
            Self::Malformed => 7,
            Self::StaleIncarnation => 8,
            Self::Other(code) => code,
        }
    }
}

/// Why an actor ended, as a number of the wire: [`Ended`] may grow, this only with a new version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EndedCode {
    Failed,
    NodeLost,
    Stopped,
    /// Not known, or a reason of a later version.
    Unknown,
}

impl EndedCode {
    pub(crate) const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Stopped,
            2 => Self::Failed,
            3 => Self::NodeLost,
            _ => Self::Unknown,
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Stopped => 1,
            Self::Failed => 2,
            Self::NodeLost => 3,
        }
    }
}

impl From<Ended> for EndedCode {
    fn from(reason: Ended) -> Self {
        match reason {
            Ended::Failed => Self::Failed,
            Ended::NodeLost => Self::NodeLost,
            Ended::Stopped => Self::Stopped,
            _ => Self::Unknown,
        }
    }
}

impl From<EndedCode> for Ended {
    fn from(code: EndedCode) -> Self {
        match code {
            EndedCode::Failed => Self::Failed,
            EndedCode::NodeLost => Self::NodeLost,
            EndedCode::Stopped => Self::Stopped,
            EndedCode::Unknown => Self::Unknown,
        }
    }
}

/// Why a question is not answered, as a number of the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefusalCode {
    Full,
    NotPermitted,
    NotStarted,
    NotUnderstood,
    /// A reason of a later version.
    Other(u8),
    Stopped,
    Unreachable,
}

impl RefusalCode {
    pub(crate) const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Stopped,
            2 => Self::Full,
            3 => Self::NotUnderstood,
            4 => Self::NotPermitted,
            5 => Self::NotStarted,
            6 => Self::Unreachable,
            other => Self::Other(other),
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Stopped => 1,
            Self::Full => 2,
            Self::NotUnderstood => 3,
            Self::NotPermitted => 4,
            Self::NotStarted => 5,
            Self::Unreachable => 6,
            Self::Other(code) => code,
        }
    }

    /// What this program knows of it.
    pub(crate) const fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Full => Some(Refusal::Full),
            Self::NotPermitted => Some(Refusal::NotPermitted),
            Self::NotStarted => Some(Refusal::NotStarted),
            Self::NotUnderstood => Some(Refusal::NotUnderstood),
            Self::Stopped => Some(Refusal::Stopped),
            Self::Unreachable => Some(Refusal::Unreachable),
            Self::Other(_) => None,
        }
    }
}

impl From<Refusal> for RefusalCode {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::NotPermitted => Self::NotPermitted,
            Refusal::NotStarted => Self::NotStarted,
            Refusal::NotUnderstood => Self::NotUnderstood,
            Refusal::Stopped => Self::Stopped,
            Refusal::Unreachable => Self::Unreachable,
            // Not known to this version: the port counts as dropped over there.
            _ => Self::Other(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_they_are_written() {
        for code in 0..=u8::MAX {
            assert_eq!(RefuseReason::from_code(code).code(), code);
            assert_eq!(RefusalCode::from_code(code).code(), code);
        }
        for reason in [
            Ended::Failed,
            Ended::NodeLost,
            Ended::Stopped,
            Ended::Unknown,
        ] {
            let code = EndedCode::from(reason).code();
            assert_eq!(Ended::from(EndedCode::from_code(code)), reason);
        }
        assert_eq!(EndedCode::from_code(200), EndedCode::Unknown);
        for refusal in [
            Refusal::Full,
            Refusal::NotPermitted,
            Refusal::NotStarted,
            Refusal::NotUnderstood,
            Refusal::Stopped,
            Refusal::Unreachable,
        ] {
            let code = RefusalCode::from(refusal).code();
            assert_eq!(RefusalCode::from_code(code).refusal(), Some(refusal));
        }
    }
}
