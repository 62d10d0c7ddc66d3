//! Marks that OverlayFS keeps as extended attributes, which a sandbox may have forged.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    sandtrace_capture::filesystem::fuzzing::overlay_marks(bytes);
});
