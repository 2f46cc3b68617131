//! The program `amatch`: parses the command line, calls the library, prints, and maps errors to exit codes.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            cli::output::note!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
