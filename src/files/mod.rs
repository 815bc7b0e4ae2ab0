//! Files whose content or path comes from outside: opened without waiting, read within a limit, created private, and
//! replaced whole.

mod bounded;
mod open;
mod pipe;
mod private;
mod temporary_sibling;

pub(crate) use bounded::{ReadError, read_bounded};
pub(crate) use open::{Symlinks, is_at, open_for_reading, open_lock_file, open_regular};
pub(crate) use pipe::read_file_or_pipe;
pub(crate) use private::{create_private, create_private_directory, new_private, write_private};
#[cfg(any(feature = "replay", feature = "spec"))]
pub(crate) use temporary_sibling::replace_file;
pub(crate) use temporary_sibling::{FileError, TemporarySibling, directory_of};
