//! The command `chv-sandbox`.

fn main() {}
