//! The command `chv-sandbox`: see `chv-sandbox --help`, and [`chv_sandbox`] for the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
