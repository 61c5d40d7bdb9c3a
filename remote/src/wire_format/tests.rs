//! Wire format tests: golden bytes, refusals, and what hostile bytes may cost.

use super::*;
use bytes::Bytes;

#[test]
fn a_message_crosses() {
    let mut out = Vec::new();
    let target = Target::Name("bank".into());
    let value = (7_u64, "ä".to_owned(), vec![u128::MAX, 1]);
    encode_message(&mut out, &target, 9, 1000, |out| {
        encode_into(&value, out, 1000)
    })
    .unwrap();
    let mut splitter = FrameSplitter::new(1000);
    splitter.push(Bytes::from(out));
    let frame = Frame::decode(splitter.next().unwrap().unwrap()).unwrap();
    let Frame::Message { payload, .. } = frame else {
        panic!("{frame:?}");
    };
    assert_eq!(decode(&payload), Ok(value));
}
