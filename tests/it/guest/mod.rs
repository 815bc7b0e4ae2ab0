//! The guest's dispatcher, served over a socket pair as a host sees it.

mod host;
mod outcomes;
mod protocol;
mod tools;
