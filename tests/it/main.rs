//! Every integration test, in one binary, so that it links once.

mod guest;
mod idle_kernel;
mod image;
