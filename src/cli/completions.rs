//! `amatch completions` and `amatch man`: what shells and readers of manuals take of the command
//! line.

use std::path::{Path, PathBuf};

use action_matching::{Destination, Error, Replace};
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::output::{note, print_result, replace_files};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch completions bash > ~/.local/share/bash-completion/completions/amatch
  amatch completions zsh > ~/.zfunc/_amatch     with fpath+=~/.zfunc before compinit in ~/.zshrc
  amatch completions fish > ~/.config/fish/completions/amatch.fish")]
pub struct Arguments {
    /// Shell
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "amatch", &mut script);
    print_result(String::from_utf8_lossy(&script))
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch man ~/.local/share/man/man1
  man amatch-train")]
pub struct ManArguments {
    /// Folder, which must exist: receives amatch.1 and a page for each command
    folder: PathBuf,
    /// Replace pages that exist
    #[arg(long)]
    force: bool,
}

pub fn write_pages(arguments: &ManArguments) -> anyhow::Result<()> {
    let mut program = Cli::command();
    program.build();
    let commands = program.get_subcommands().filter(|command| command.get_name() != "help").cloned();
    let commands: Vec<clap::Command> = [program.clone()].into_iter().chain(commands).collect();
    let replace = replace_files(arguments.force);
    let pages = commands.into_iter().map(|command| page(command, &arguments.folder, replace));
    let pages = pages.collect::<action_matching::Result<Vec<_>>>()?;
    for (destination, text) in &pages {
        destination.write(|out| out.write_all(text))?;
    }
    note!("{} pages: {}", pages.len(), arguments.folder.display());
    Ok(())
}

/// The page of `command` and where it goes.
fn page(command: clap::Command, folder: &Path, replace: Replace) -> action_matching::Result<(Destination, Vec<u8>)> {
    let page = clap_mangen::Man::new(command);
    let path = folder.join(page.get_filename());
    let destination = Destination::check(&path, &[] as &[&Path], replace)?;
    let mut text = Vec::new();
    page.render(&mut text).map_err(Error::io(path, "write"))?;
    Ok((destination, text))
}
