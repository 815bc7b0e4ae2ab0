//! [`read_bounded`] reads a whole regular file of limited size.

use std::io::{self, Read};
use std::path::Path;

use super::{Symlinks, open_regular};

/// Why a file was not read. The caller knows the path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The system refused an operation.
    #[error("could not {operation} it")]
    Failed {
        /// `open`, `examine` or `read`.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The path leads to a directory, a pipe, a device or a socket.
    #[error("it is not a regular file")]
    NotRegular,
    /// The file has more bytes than the caller accepts. None of its bytes are returned.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// Its size in bytes, or `limit + 1` if the file has more bytes than its metadata says.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

impl ReadError {
    /// For `map_err`: wraps the system's error.
    pub(super) fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> ReadError {
        move |source| ReadError::Failed { operation, source }
    }
}

/// Keeps the system's error if there is one.
impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> io::Error {
        match error {
            ReadError::Failed { source, .. } => source,
            ReadError::NotRegular => io::Error::other(error),
            ReadError::TooLarge { .. } => io::Error::new(io::ErrorKind::FileTooLarge, error),
        }
    }
}

/// Reads the whole regular file at `path`, which may have at most `limit` bytes.
///
/// The size is checked before anything is read, and again after reading, because the file may grow in the meantime, and
/// a file in `/proc` has more bytes than its metadata says.
pub(crate) fn read_bounded(
    path: &Path,
    limit: u64,
    symlinks: Symlinks,
) -> Result<Vec<u8>, ReadError> {
    let (file, metadata) = open_regular(path, symlinks)?;
    read_within(file, metadata.len(), limit)
}

/// Reads `file`, whose metadata say that it has `size` bytes, to its end.
pub(super) fn read_within(file: impl Read, size: u64, limit: u64) -> Result<Vec<u8>, ReadError> {
    if size > limit {
        return Err(ReadError::TooLarge { size, limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(ReadError::failed("read"))?;
    match bytes.len() as u64 {
        size if size > limit => Err(ReadError::TooLarge { size, limit }),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_of_up_to_the_limit_is_read_whole_and_a_larger_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let check = |length: usize, limit: u64, is_accepted: bool| {
            let content = vec![b'x'; length];
            fs::write(&path, &content).unwrap();
            match read_bounded(&path, limit, Symlinks::Follow) {
                Ok(bytes) => assert!(is_accepted && bytes == content, "{length} of {limit}"),
                Err(error) => {
                    let is_too_large = matches!(
                        error,
                        ReadError::TooLarge { size, limit: told } if size == length as u64 && told == limit
                    );
                    assert!(!is_accepted && is_too_large, "{length} of {limit}: {error}");
                }
            }
        };
        for limit in [0, 1, 4095, 4096, 4097] {
            let length = usize::try_from(limit).unwrap();
            check(0, limit, true);
            check(length, limit, true);
            check(length + 1, limit, false);
            check(length + 5000, limit, false);
        }
        check(5000, u64::MAX, true);
    }

    #[test]
    fn a_file_with_more_bytes_than_its_metadata_says_is_refused_too() {
        let path = Path::new("/proc/self/stat");
        assert_eq!(path.metadata().unwrap().len(), 0);
        assert!(
            !read_bounded(path, 4096, Symlinks::Refuse)
                .unwrap()
                .is_empty()
        );
        let error = read_bounded(path, 10, Symlinks::Refuse).unwrap_err();
        assert!(
            matches!(
                error,
                ReadError::TooLarge {
                    size: 11,
                    limit: 10
                }
            ),
            "{error:?}"
        );
    }

    #[test]
    fn as_an_io_error_it_keeps_the_kind_and_the_reason() {
        let check = |error: ReadError, kind: io::ErrorKind, text: &str| {
            let error = io::Error::from(error);
            assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        };
        let missing = io::Error::new(io::ErrorKind::NotFound, "gone");
        let missing = ReadError::failed("open")(missing);
        check(missing, io::ErrorKind::NotFound, "gone");
        check(
            ReadError::NotRegular,
            io::ErrorKind::Other,
            "it is not a regular file",
        );
        check(
            ReadError::TooLarge { size: 3, limit: 2 },
            io::ErrorKind::FileTooLarge,
            "it is larger than 2 bytes",
        );
    }
}
