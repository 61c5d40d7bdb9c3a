//! View: the frames of users, messages and answers, read where they lie.
//!
//! These are nearly all frames there are. What is none of them, or malformed, is for
//! [`super::Frame::decode`], which also says what is wrong with it.

use super::body::Body;
use super::codes::FrameKind;
use super::frame::{ExportId, Malformed, Target};
use bytes::Bytes;

/// A user's frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum View<'a> {
    Message(MessageView<'a>),
    Answer { port: ExportId, payload: &'a [u8] },
}

/// A message, or a question.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MessageView<'a> {
    pub(crate) target: TargetView<'a>,
    pub(crate) tag: u64,
    pub(crate) payload: &'a [u8],
    /// As they are written, one behind the other.
    ports: &'a [[u8; PORT_BYTES]],
}

const PORT_BYTES: usize = size_of::<u128>();

/// Whom a message is for, as it is written: equal bytes mean the same actor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TargetView<'a>(pub(crate) &'a [u8]);

impl TargetView<'_> {
    /// # Errors
    /// [`Malformed`], if the name is none.
    pub(crate) fn decode(self) -> Result<Target, Malformed> {
        Body::new(Bytes::copy_from_slice(self.0)).target()
    }
}

impl<'a> MessageView<'a> {
    /// Where somebody waits for an answer.
    pub(crate) fn ports(self) -> impl Iterator<Item = ExportId> + 'a {
        let port = |bytes: &[u8; PORT_BYTES]| ExportId(u128::from_le_bytes(*bytes));
        self.ports.iter().map(port)
    }

    fn of(body: &'a [u8], ports: &'a [[u8; PORT_BYTES]]) -> Option<Self> {
        let target_length = match body {
            [0, ..] => 1 + PORT_BYTES,
            [1, low, high, ..] => 3 + usize::from(u16::from_le_bytes([*low, *high])),
            _ => return None,
        };
        let (target, rest) = body.split_at_checked(target_length)?;
        let (tag, payload) = rest.split_first_chunk()?;
        Some(Self {
            target: TargetView(target),
            tag: u64::from_le_bytes(*tag),
            payload,
            ports,
        })
    }
}

impl<'a> View<'a> {
    /// `None` for every other frame, and for one that is cut short.
    pub(crate) fn of(frame: &'a [u8]) -> Option<Self> {
        let (&code, body) = frame.split_first()?;
        if code == FrameKind::Answer as u8 {
            let (port, payload) = body.split_first_chunk()?;
            let port = ExportId(u128::from_le_bytes(*port));
            return Some(Self::Answer { port, payload });
        }
        if code == FrameKind::Message as u8 {
            return MessageView::of(body, &[]).map(Self::Message);
        }
        if code != FrameKind::Question as u8 {
            return None;
        }
        let (&number, before) = body.split_last()?;
        let begin = before.len().checked_sub(usize::from(number) * PORT_BYTES)?;
        let (body, ports) = before.split_at(begin);
        MessageView::of(body, ports.as_chunks().0).map(Self::Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire_format::Frame;
    use proptest::prelude::*;

    /// The frame without its length.
    fn encoded(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode_into(&mut bytes);
        bytes.split_off(4)
    }

    /// Both readers must agree on every frame that either of them takes.
    fn agree(bytes: &[u8]) {
        let whole = Frame::decode(Bytes::copy_from_slice(bytes));
        match View::of(bytes) {
            Some(View::Message(message)) => match message.target.decode() {
                Ok(target) => {
                    let (tag, payload) = (message.tag, Bytes::copy_from_slice(message.payload));
                    let read = if bytes[0] == FrameKind::Question as u8 {
                        Frame::Question {
                            target,
                            tag,
                            payload,
                            ports: message.ports().collect(),
                        }
                    } else {
                        Frame::Message {
                            target,
                            tag,
                            payload,
                        }
                    };
                    assert_eq!(whole, Ok(read));
                }
                Err(_) => assert!(whole.is_err()),
            },
            Some(View::Answer { port, payload }) => {
                let payload = Bytes::copy_from_slice(payload);
                assert_eq!(whole, Ok(Frame::Answer { port, payload }));
            }
            None => assert!(!matches!(
                whole,
                Ok(Frame::Message { .. } | Frame::Question { .. } | Frame::Answer { .. })
            )),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for target in [Target::Export(ExportId(7)), Target::Name("a name".into())] {
            let bytes = encoded(&Frame::Message {
                target,
                tag: 9,
                payload: Bytes::from_static(b"payload"),
            });
            assert!(View::of(&bytes).is_some());
            agree(&bytes);
            for end in 0..bytes.len() {
                agree(&bytes[..end]);
            }
        }
        for ports in 0..3 {
            let bytes = encoded(&Frame::Question {
                target: Target::Export(ExportId(7)),
                tag: 9,
                payload: Bytes::from_static(b"payload"),
                ports: (0..ports).map(ExportId).collect(),
            });
            assert!(View::of(&bytes).is_some());
            for end in 0..=bytes.len() {
                agree(&bytes[..end]);
            }
        }
        agree(&encoded(&Frame::Answer {
            port: ExportId(1 << 100),
            payload: Bytes::new(),
        }));
        agree(&encoded(&Frame::Goodbye));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_alike(kind in 14_u8..23, body in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = vec![kind];
            bytes.extend_from_slice(&body);
            agree(&bytes);
        }

        #[test]
        fn any_name_is_read_alike(name in prop::collection::vec(any::<u8>(), 0..300), claimed in 0_u16..300) {
            let mut bytes = vec![FrameKind::Message as u8, 1];
            bytes.extend_from_slice(&claimed.to_le_bytes());
            bytes.extend_from_slice(&name);
            agree(&bytes);
        }
    }
}
