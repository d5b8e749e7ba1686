//! What the types forbid: each file of programs/ must not compile, for the reason beside it.

/// Nothing that outlives its stream, is used after its end, or is written while it is read can be expressed.
#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("programs/*.rs");
}
