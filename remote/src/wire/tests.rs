//! Tests: what stands for references in messages, by the bytes of version 1.

use super::*;
use crate::wire_format::encode;
use std::path::Path;

const WHEN_BYTES_CHANGE: &str = "references are not written as in wire version 1 any more, so nodes of \
    both programs would misread each other's messages. Take the change back; or raise \
    WIRE_VERSION_MAX, keep this form for peers of version 1, and put the new bytes into fixtures/v2";

fn reference(target: TargetForm) -> RefForm {
    RefForm {
        node: NodeId::new(
            "node-1",
            ([10, 1, 2, 3], 7001).into(),
            0x0102_0304_0506_0708,
        ),
        target,
        path: "node-1@10.1.2.3:7001#1/bank/alice".into(),
        uid: 300,
        tag: 0x0807_0605_0403_0201,
    }
}

fn port(within: Option<Duration>) -> PortForm {
    PortForm {
        node: None,
        port: 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210,
        within,
    }
}

/// The bytes of version 1; with `UPDATE=1` a file that is not there yet is written.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1");
    let path = folder.join(format!("{name}.bin"));
    if std::env::var_os("UPDATE").is_some() && !path.exists() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(path).unwrap()
}

/// R10: what version 1 wrote is read for good, and is written the same.
#[test]
fn golden_references_of_version_1() {
    let export = TargetForm::Export(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
    let references = [
        ("reference_to_export", reference(export)),
        (
            "reference_to_name",
            reference(TargetForm::Name("bänk/account".into())),
        ),
    ];
    for (name, form) in references {
        let bytes = encode(&form).unwrap();
        assert_eq!(bytes, golden(name, &bytes), "{name}: {WHEN_BYTES_CHANGE}");
        let read = decode::<RefForm>(&bytes).unwrap();
        assert_eq!((read.node, read.path), (form.node, form.path));
        assert_eq!((read.uid, read.tag), (form.uid, form.tag));
    }
    let ports = [
        ("port", port(None)),
        (
            "port_with_deadline",
            port(Some(Duration::from_millis(5_300))),
        ),
    ];
    for (name, form) in ports {
        let bytes = encode(&form).unwrap();
        assert_eq!(bytes, golden(name, &bytes), "{name}: {WHEN_BYTES_CHANGE}");
        let read = decode::<PortForm>(&bytes).unwrap();
        assert_eq!((read.port, read.within), (form.port, form.within));
    }
}

#[test]
fn outside_of_a_message_references_have_no_form() {
    let (port, _reply) = ReplyTo::<u64>::channel(None);
    let error = encode(&Writing(&port)).unwrap_err();
    assert!(
        error.to_string().contains("inside messages between nodes"),
        "{error}"
    );
    let bytes = encode(&self::port(None)).unwrap();
    assert!(decode::<Reading<ReplyTo<u64>>>(&bytes).is_err());
}
