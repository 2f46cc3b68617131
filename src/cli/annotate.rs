//! `amatch annotate`.

use std::path::{Path, PathBuf};

use action_matching::annotate::{AnnotateOptions, Annotated, Column, CouplingKind, annotate, write_couplings};
use action_matching::stage::Stage;
use action_matching::{Destination, Replace};
use anyhow::bail;

use super::condition::chosen;
use super::device::DeviceArguments;
use super::ensemble::MemberArgument;
use super::named::{Named, one_of};
use super::output::{is_cells, note, print_result, replace_files};
use super::signal::Signals;
use super::watch::OnScreen;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  amatch annotate runs/cells cells.h5ad --out annotated.h5ad
  amatch annotate runs/cells cells.h5ad --in-place --columns velocity,action
  amatch annotate runs/cells cells.h5ad --out annotated.h5ad --fates celltype --genes
  amatch annotate runs/cells cells.h5ad --couplings tmaps

The copy holds, beside what was in the file and for a model of obsm/X_pca,
  obsm/velocity_pca        velocity, in the units of obsm/X_pca per unit of time
  obsm/velocity_umap       its direction on obsm/X_umap, by the neighbors in obsp/connectivities, or \
the 30 nearest cells
  obs/action               the potential s, which has no unit
  obs/growth_rate          with growth: m' = growth_rate · m for the mass m of a cell
  obs/speed                length of the velocity
  obs/hjb_residual         how far the flow is from an optimal one, per unit of time; 0 is optimal
  uns/amatch               version, digest of the model, configuration, seed, and what was written
and on request
  obs/log_density          --log-density: of the population, in the units of the samples
  obsm/fate                --fates: shares of labels that descendants have at the last time
  layers/velocity          --genes: velocities of genes, with their positions in layers/Ms, \
var/velocity_genes and the genes ranked in uns/amatch/driver_genes
Of an ensemble (training.seeds) these are means over its members, and columns that end in _spread \
are the standard deviations. Cells without samples, a time of the training or a condition get NaN. \
docs/anndata.md shows how scanpy, scVelo and CellRank open the file.")]
pub struct Arguments {
    /// Model file or run folder
    model: PathBuf,
    /// Cells: a .h5ad file of anndata 0.8 or later
    cells: PathBuf,
    /// The annotated copy, a .h5ad file
    #[arg(long, value_name = "FILE", required_unless_present_any = ["in_place", "couplings"])]
    out: Option<PathBuf>,
    /// Annotate the file itself: a copy replaces it once it was opened again and found whole
    #[arg(long, conflicts_with = "out")]
    in_place: bool,
    /// What is written [default: velocity,umap,action,growth-rate,speed,hjb-residual]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', value_parser = one_of(COLUMNS))]
    columns: Vec<Column>,
    /// Write obs/log_density, from Gaussian kernels at the cells of the first time
    #[arg(long)]
    log_density: bool,
    /// Write obsm/fate, for the labels in this column of obs
    #[arg(long, value_name = "COLUMN")]
    fates: Option<String>,
    /// Write layers/velocity and layers/Ms for the highly variable genes (or all, if the file names
    /// none)
    #[arg(long)]
    genes: bool,
    /// Write it for all genes that have loadings
    #[arg(long, requires = "genes")]
    all_genes: bool,
    /// Write couplings of neighboring times into this folder, as CellRank's RealTimeKernel reads
    /// them: balanced, unbalanced or wfr as the pairs of the run
    #[arg(long, value_name = "FOLDER")]
    couplings: Option<PathBuf>,
    /// Couple cells where the model moves them to, instead of where they are
    #[arg(long, requires = "couplings")]
    by_flow: bool,
    /// Samples in the file, such as obsm/X_pca [default: those of the run]
    #[arg(long, value_name = "NAME")]
    samples: Option<String>,
    /// Times in the file, such as obs/day [default: those of the run]
    #[arg(long, value_name = "NAME")]
    times: Option<String>,
    /// Also cells that data.where of the run leaves out
    #[arg(long)]
    every_cell: bool,
    /// Value of a condition of the model, for all cells [default: the columns of the run]
    #[arg(long, value_name = "NAME=VALUE", num_args = 1)]
    condition: Vec<String>,
    /// Seed of the noise of fates
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Replace the output if it exists (never a model or a file of a run), and columns of the same
    /// names that others have written; those of earlier annotations are replaced anyway
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    member: MemberArgument,
    #[command(flatten)]
    device: DeviceArguments,
}

const COLUMNS: &[Named<Column>] = &[
    ("velocity", Column::Velocity, ""),
    ("umap", Column::Umap, ""),
    ("action", Column::Action, ""),
    ("growth-rate", Column::GrowthRate, ""),
    ("speed", Column::Speed, ""),
    ("hjb-residual", Column::HjbResidual, ""),
];

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let signals = Signals::watch()?;
    if !is_cells(&arguments.cells) {
        bail!(
            "{}: is not a .h5ad file (`amatch query --at` writes the same columns for other formats)",
            arguments.cells.display()
        );
    }
    let trained = arguments.member.load(&arguments.model)?;
    let models = trained.files();
    let condition = match &arguments.condition[..] {
        [] => Vec::new(),
        given => chosen("--condition", given, &trained.models[0].coordinates)?,
    };
    let options = AnnotateOptions {
        columns: columns(arguments),
        samples: arguments.samples.clone(),
        times: arguments.times.clone(),
        every_cell: arguments.every_cell,
        condition,
        labels: arguments.fates.clone(),
        all_genes: arguments.all_genes,
        seed: arguments.seed,
        replace: arguments.force,
        ..AnnotateOptions::default()
    };
    let engine = arguments.device.engine()?;
    let threads = arguments.device.threads();
    let to = match (&arguments.out, arguments.in_place) {
        (Some(out), _) => {
            let reads: Vec<&Path> = models.iter().map(PathBuf::as_path).chain([&*arguments.cells]).collect();
            Some(Destination::check(out, &reads, replace_files(arguments.force))?)
        }
        // The file is what is replaced.
        (None, true) => Some(Destination::check(&arguments.cells, &models, Replace::Files)?),
        (None, false) => None,
    };
    if let Some(to) = to {
        let screen = OnScreen::new("cells", &signals);
        let stage = Stage::new(threads, &screen);
        let found = annotate(&trained, &arguments.cells, &to, &options, &*engine, &stage)?;
        drop(screen);
        print(&found, &to)?;
    }
    if let Some(folder) = &arguments.couplings {
        std::fs::create_dir_all(folder)
            .map_err(|error| anyhow::anyhow!("{}: cannot create the folder: {error}", folder.display()))?;
        let kind = if arguments.by_flow { CouplingKind::Flow } else { CouplingKind::Transport };
        let screen = OnScreen::new("problems", &signals);
        let stage = Stage::new(threads, &screen);
        let how = (kind, replace_files(arguments.force));
        let found = write_couplings(&trained, &arguments.cells, folder, how, &options, &*engine, &stage)?;
        drop(screen);
        found.notices.iter().for_each(|notice| note!("{notice}"));
        found.left_out.iter().for_each(|(reason, n)| note!("warning: {n} cells {reason}: they are in no coupling"));
        found.files.iter().for_each(|file| note!("coupling: {}", file.display()));
    }
    Ok(())
}

/// The kinds of columns that are asked for.
fn columns(arguments: &Arguments) -> Vec<Column> {
    let mut columns = arguments.columns.clone();
    if columns.is_empty() {
        columns = Column::DEFAULT.to_vec();
    }
    let asked = [
        (arguments.log_density, Column::LogDensity),
        (arguments.fates.is_some(), Column::Fates),
        (arguments.genes, Column::Genes),
    ];
    columns.extend(asked.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, column)| column));
    columns
}

fn print(found: &Annotated, to: &Destination) -> anyhow::Result<()> {
    /// Genes that are shown.
    const GENES: usize = 10;
    found.notices.iter().for_each(|notice| note!("{notice}"));
    for (reason, n) in &found.left_out {
        note!("warning: {n} of {} cells {reason}: their values are NaN", found.n_cells);
    }
    note!("{} of {} cells: {}", found.n_annotated, found.n_cells, to.path().display());
    found.written.iter().for_each(|path| note!("  {path}"));
    if !found.driver_genes.is_empty() {
        let genes = &found.driver_genes[..found.driver_genes.len().min(GENES)];
        print_result(format!("genes that move most: {}\n", genes.join(", ")))?;
    }
    Ok(())
}
