//! The program `amatch`: parses the command line, calls the library, prints, and maps errors to
//! exit codes.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return cli::output::print_answer(&answer),
    };
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            cli::output::note!("error: {error:#}");
            ExitCode::from(cli::exit::of(&error))
        }
    }
}
