//! Fails on one input in 2^48, which only a fuzzer that sees coverage and comparisons finds: shows that the others could.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let found = bytes.iter().zip(b"canary").take_while(|(byte, wanted)| byte == wanted).count();
    assert_ne!(found, 6, "the canary");
});
