//! Memory files (`memfd_create(2)`).

use std::ffi::CStr;
use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

/// Creates an empty memory file that can be sealed and can't be executed. `/proc` shows the file under `name`.
pub(super) fn memory_file(name: &CStr) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 don't know the flag.
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?.into()),
        made => Ok(made?.into()),
    }
}
