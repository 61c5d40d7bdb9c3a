//! Tags: the bytes of the tags of one event or state at rest. Pure: texts in, bytes out.
//!
//! Each tag is `u16 length | text in UTF-8`, little endian, in the order in which it was given.

use std::sync::Arc;

/// The bytes; none when there are no tags. Each tag is at most 256 bytes long: that is checked when
/// it enters the store.
pub(crate) fn encode(tags: &[Arc<str>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for tag in tags {
        let length = u16::try_from(tag.len()).expect("within the limit of a tag");
        bytes.extend(length.to_le_bytes());
        bytes.extend(tag.as_bytes());
    }
    bytes
}

/// The tags; `None` when these are no bytes of tags.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<Arc<str>>> {
    let mut tags = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (tag, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        tags.push(std::str::from_utf8(tag).ok()?.into());
        bytes = rest;
    }
    bytes.is_empty().then_some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tags(tags: &[&str]) -> Vec<Arc<str>> {
        tags.iter().map(|tag| Arc::from(*tag)).collect()
    }

    /// P8: these bytes are on disks; they never change.
    #[test]
    fn the_bytes_are_fixed() {
        let bytes = encode(&tags(&["a", "", "ä"]));
        assert_eq!(bytes, [1, 0, b'a', 0, 0, 2, 0, 0xC3, 0xA4]);
        assert_eq!(encode(&[]), []);
        assert_eq!(decode(&[]), Some(vec![]));
    }

    #[test]
    fn what_is_cut_or_no_text_is_refused() {
        for bytes in [&[1][..], &[1, 0], &[2, 0, b'a'], &[1, 0, 0xFF], &[0, 0, 7]] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn all_tags_come_back(tags in prop::collection::vec(".{0,60}", 0..32)) {
            let tags: Vec<Arc<str>> = tags.into_iter().map(Into::into).collect();
            prop_assert_eq!(decode(&encode(&tags)), Some(tags));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(tags) = decode(&bytes) {
                prop_assert_eq!(encode(&tags), bytes);
            }
        }
    }
}
