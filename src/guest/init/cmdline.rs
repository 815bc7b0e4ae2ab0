//! Reads the guest's options from the kernel's command line: `chv.port=N`, the vsock port.

use std::path::PathBuf;

use super::InitError;
use crate::guest::protocol::DEFAULT_PORT;

/// The vsock port to serve: that of `chv.port=N`, otherwise [`DEFAULT_PORT`]. The kernel itself ignores words with a
/// dot.
pub(super) fn port() -> Result<u32, InitError> {
    let path = PathBuf::from("/proc/cmdline");
    match std::fs::read(&path) {
        Ok(line) => parse_port(&String::from_utf8_lossy(&line)),
        Err(source) => Err(InitError::File {
            what: "read",
            path,
            source,
        }),
    }
}

fn parse_port(line: &str) -> Result<u32, InitError> {
    let mut words = line.split_ascii_whitespace();
    match words.find_map(|word| word.strip_prefix("chv.port=")) {
        None => Ok(DEFAULT_PORT),
        Some(value) => match value.parse() {
            Ok(port) if port != u32::MAX => Ok(port),
            _ => Err(InitError::Port {
                value: value.to_owned(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found() {
        #[track_caller]
        fn check(line: &str, expected: Option<u32>) {
            assert_eq!(parse_port(line).ok(), expected, "{line}");
        }
        check("", Some(1024));
        check("console=hvc0 root=/dev/vda ro\n", Some(1024));
        check("console=hvc0 chv.port=9000 ro\n", Some(9000));
        check("xchv.port=9000", Some(1024));
        check("chv.port=", None);
        check("chv.port=x", None);
        check("chv.port=-1", None);
        // VMADDR_PORT_ANY, which stands for any port.
        check("chv.port=4294967295", None);
    }
}
