//! Proves: mistakes with `#[protocol]` are errors at the right place. The messages stand in `ui/`.
//!
//! After a change, look at them and keep them with `TRYBUILD=overwrite`.

#[test]
fn mistakes_are_errors_at_their_place() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
