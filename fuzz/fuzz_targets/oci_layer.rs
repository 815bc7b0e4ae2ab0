#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chv_sandbox::fuzz("oci_layer", bytes));
