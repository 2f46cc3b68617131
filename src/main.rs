//! amatch
use clap::Parser;
#[path = "cli/bench.rs"]
mod bench;
#[derive(Parser)]
enum Cli {
    Bench(bench::Arguments),
}
fn main() -> anyhow::Result<()> {
    let Cli::Bench(a) = Cli::parse();
    bench::run(&a)
}
