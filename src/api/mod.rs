//! The VMM's API as values: the [types] of its bodies and one function for each operation ([`vm_info`],
//! [`vm_add_disk`]), which builds a [`Request`]. Nothing here does any input or output.
//!
//! A program that talks to a VMM calls the methods of [`Client`](crate::client::Client), which send these requests. The
//! functions here are for programs that look at a request, change it or send it in their own way.
//!
//! The code is generated from the contracts in `api-spec/`, after the corrections beside them.
//!
//! # Releases
//!
//! One set of types serves all supported releases, [`SUPPORTED`]. The documentation of a field that only some of them
//! have says which ("Since v52.0."). The same facts are data in [`support`], and [`Request::requirements`] lists what a
//! request uses that not every supported release has.
//!
//! # Building values
//!
//! A type's required fields are plain, its optional ones are `Option`. A field that is `None` isn't sent, and the
//! server's default holds. `new` takes the required fields, a type without required ones has a [`Default`], and each
//! optional field has a `with_` method:
//!
//! ```
//! use chv_sandbox::api::types::{CpusConfig, DiskConfig, MemoryConfig, PayloadConfig, VmConfig};
//!
//! let config = VmConfig::default()
//!     .with_cpus(CpusConfig::new(2, 4))
//!     .with_memory(MemoryConfig::new(512 << 20).with_hugepages(true))
//!     .with_payload(PayloadConfig::default().with_kernel("/boot/vmlinux"))
//!     .with_disks([DiskConfig::default().with_path("/vm/root.img").with_readonly(true)]);
//! assert_eq!(config.cpus.unwrap().max_vcpus, 4);
//! ```
//!
//! The types are `#[non_exhaustive]`, because any release may add a field or a value.
//!
//! # Reading what a newer server sends
//!
//! A field that a type doesn't have is kept as text in the type's `unknown` ([`UnknownFields`]). A value that an enum
//! doesn't have is its variant `Unknown`. Neither is an error.

#[rustfmt::skip]
mod generated;
mod open_object;
mod operation;
mod raw;
mod release;
mod request;
mod requirements;
pub mod support;

pub use generated::*;
pub use operation::UnknownOperation;
pub use raw::{RawJson, UnknownFields};
pub use release::{ParseReleaseError, Release};
pub use request::{DecodeError, Method, Request};
pub use requirements::Requirement;
