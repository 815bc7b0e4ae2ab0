//! The dispatcher that runs inside the guest.

fn main() {}
