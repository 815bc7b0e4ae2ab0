//! The comparison of contracts.

mod history;
