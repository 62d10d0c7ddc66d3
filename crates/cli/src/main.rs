//! The `sandtrace` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandtrace_cli::run(std::env::args_os())
}
