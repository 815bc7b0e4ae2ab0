//! The guest's dispatcher, served over a socket pair as a host sees it.

mod functions;
mod host;
mod hostile;
mod isolation;
mod limits;
mod outcomes;
mod protocol;
mod records;
mod stand_in;
mod streams;
mod tools;
mod transfers;
mod warm;
