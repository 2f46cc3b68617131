//! What a model says about each cell of a file of AnnData, written into a copy of it: velocities
//! under the keys that scVelo and CellRank read, the action, growth, fates, genes; and couplings of
//! the cells of neighboring times.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use action_matching::annotate::{AnnotateOptions, annotate};
//! use action_matching::prelude::*;
//! use action_matching::{Destination, Replace, Trained};
//!
//! let trained = Trained::load(Path::new("runs/cells"))?;
//! let (cells, to) = (Path::new("cells.h5ad"), Path::new("annotated.h5ad"));
//! let to = Destination::check(to, &[cells], Replace::Nothing)?;
//! let options = AnnotateOptions::default();
//! let found = annotate(&trained, cells, &to, &options, &CpuEngine::new(0), &Stage::default())?;
//! assert!(found.written.contains(&"obsm/velocity_pca".to_string()));
//! # Ok::<(), Error>(())
//! ```

mod couplings;
mod fates;
mod fields;
mod genes;
mod neighbors;
mod population;
mod projection;

use std::path::Path;

use self::couplings::snapshots_at;
pub use self::couplings::{CouplingKind, Couplings, write_couplings};
use self::fates::{Descent, fates};
use self::fields::Fields;
use self::genes::{Loadings, frame};
use self::neighbors::nearest;
use self::population::Population;
use self::projection::projected;
use crate::config::digest_of_file;
use crate::data::{Cells, Graph, Item, write_extended};
use crate::destination::Destination;
use crate::engine::Engine;
use crate::error::{Error, InputKind, Result};
use crate::log_density::StartDensity;
use crate::model::ConditionValue;
use crate::stage::Stage;
use crate::trained::Trained;

/// A kind of column that [`annotate`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Column {
    /// `obsm/velocity_<basis>` f32, in the units of the samples per unit of time.
    Velocity,
    /// `obsm/velocity_umap` f32, if there is `obsm/X_umap`: directions by the neighbors of each
    /// cell, without a unit.
    Umap,
    /// `obs/action`: the potential s, which has no unit.
    Action,
    /// `obs/growth_rate`, of a model with growth: m' = growth_rate · m, per unit of time.
    GrowthRate,
    /// `obs/speed`: length of the velocity.
    Speed,
    /// `obs/hjb_residual`, per unit of time: see [`Local::hjb_residual`](crate::Local). Without
    /// growth less its mean over the cells of a time.
    HjbResidual,
    /// `obs/log_density`, in the units of the samples: see
    /// [`Model::log_density`](crate::model::Model::log_density), from kernels at the cells of the
    /// first time.
    LogDensity,
    /// `obsm/fate` f32 `[n, labels]` and their names in `uns/amatch/fates`: the shares of each
    /// label that the descendants of a cell have at the last time.
    Fates,
    /// `layers/velocity` f32 `[n, genes]`, `layers/Ms` with the positions that they belong to, if
    /// the file has none of another program, and `var/velocity_genes`, by the loadings of the
    /// components; `uns/amatch/driver_genes` ranks the genes.
    Genes,
}

impl Column {
    /// All kinds.
    pub const ALL: [Column; 9] = [
        Column::Velocity,
        Column::Umap,
        Column::Action,
        Column::GrowthRate,
        Column::Speed,
        Column::HjbResidual,
        Column::LogDensity,
        Column::Fates,
        Column::Genes,
    ];

    /// Those that take little time.
    pub const DEFAULT: [Column; 6] =
        [Column::Velocity, Column::Umap, Column::Action, Column::GrowthRate, Column::Speed, Column::HjbResidual];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Column::Velocity => "velocity",
            Column::Umap => "umap",
            Column::Action => "action",
            Column::GrowthRate => "growth-rate",
            Column::Speed => "speed",
            Column::HjbResidual => "hjb-residual",
            Column::LogDensity => "log-density",
            Column::Fates => "fates",
            Column::Genes => "genes",
        }
    }
}

/// Settings of [`annotate`].
#[derive(Clone, Debug, PartialEq)]
pub struct AnnotateOptions {
    /// What is written.
    pub columns: Vec<Column>,
    /// Where the samples are, such as `obsm/X_pca`; those of the run if `None`.
    pub samples: Option<String>,
    /// Where the times are, such as `obs/day`; those of the run if `None`.
    pub times: Option<String>,
    /// Also cells that the filter of the run leaves out.
    pub every_cell: bool,
    /// The condition of all cells, for a model with conditions; those of their columns if empty.
    pub condition: Vec<ConditionValue>,
    /// Column of `obs` with the labels of [`Column::Fates`].
    pub labels: Option<String>,
    /// [`Column::Genes`]: also genes that are not highly variable.
    pub all_genes: bool,
    /// Particles that a cell sends for its fate, with diffusion.
    pub copies: usize,
    /// Cells that count as the neighbors of a place.
    pub neighbors: usize,
    /// Seed of noise, and of the division of large snapshots.
    pub seed: u64,
    /// Replace what is there under the same name, even if it is not ours.
    pub replace: bool,
}

impl Default for AnnotateOptions {
    fn default() -> Self {
        AnnotateOptions {
            columns: Column::DEFAULT.to_vec(),
            samples: None,
            times: None,
            every_cell: false,
            condition: Vec::new(),
            labels: None,
            all_genes: false,
            copies: 30,
            neighbors: 30,
            seed: 0,
            replace: false,
        }
    }
}

/// What [`annotate`] has done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotated {
    /// The paths that were written, such as `obsm/velocity_pca`.
    pub written: Vec<String>,
    /// Number of cells of the file.
    pub n_cells: usize,
    /// Those that have values; the others have NaN.
    pub n_annotated: usize,
    /// Why cells have no values, and how many for each reason.
    pub left_out: Vec<(String, usize)>,
    /// The genes that move most, the first first: of [`Column::Genes`].
    pub driver_genes: Vec<String>,
    /// What was guessed or left out, one sentence each.
    pub notices: Vec<String>,
}

/// Where scVelo and CellRank look for the positions that `layers/velocity` belongs to.
const POSITIONS: &str = "layers/Ms";

/// Place of the provenance.
const PROVENANCE: &str = "uns/amatch";

/// What is ours in a file.
struct Ours {
    has_provenance: bool,
    /// The paths of earlier annotations that are still there.
    paths: Vec<String>,
}

impl Ours {
    fn of(file: &Cells) -> Ours {
        let lists = ["columns", "earlier_columns"].map(|list| file.texts(&format!("{PROVENANCE}/{list}")));
        let paths = lists.concat().into_iter().filter(|path| file.has(path)).collect();
        Ours { has_provenance: file.has(PROVENANCE), paths }
    }
}

/// The item of a path, and what it means.
struct Addition {
    path: String,
    item: Item,
    meaning: String,
}

/// Writes the file `cells` with what `trained` says about its cells to `to`, which may be `cells`
/// itself: a copy replaces it once it was opened again and found whole. Cells that lack samples,
/// a time of the training or a condition get NaN.
///
/// # Errors
/// [`Error::Input`] for cells that do not suit the model, and for columns that are there already
/// and are not ours; those of the engine; [`Error::Interrupted`].
pub fn annotate(
    trained: &Trained,
    cells: &Path,
    to: &Destination,
    options: &AnnotateOptions,
    engine: &dyn Engine,
    stage: &Stage,
) -> Result<Annotated> {
    let mut file = Cells::open(cells)?;
    let population = Population::read(&mut file, cells, trained, options, stage)?;
    let basis = basis_of(&population.samples);
    let ours = Ours::of(&file);
    check_names(&file, cells, &basis, &ours, trained, options)?;
    let mut found = Annotated {
        n_cells: population.times.len(),
        n_annotated: population.n_asked(),
        left_out: population.left_out.clone(),
        ..Annotated::default()
    };
    let dim = population.dim;
    let mut additions = Vec::new();
    let mut add = |path: String, item: Item, meaning: &str| {
        additions.push(Addition { path, item, meaning: meaning.to_string() });
    };
    if options.columns.contains(&Column::Fates) {
        let labels = file.labels(options.labels.as_deref().unwrap_or_default())?;
        let column = options.labels.clone().unwrap_or_default();
        let descent = Descent { copies: options.copies, neighbors: options.neighbors.max(1), seed: options.seed };
        let shares = fates(&population, &labels, &column, descent, engine, stage)?;
        let item = Item::F32 { values: shares, columns: Some(labels.names.len()) };
        add("obsm/fate".into(), item, "shares of the labels in uns/amatch/fates at the last time");
        add(format!("{PROVENANCE}/fates"), Item::Texts(labels.names), "names of the columns of obsm/fate");
    }
    if options.columns.contains(&Column::LogDensity) {
        let item = Item::F64(log_densities(&population, engine, stage)?);
        add("obs/log_density".into(), item, "log of the density, from kernels at the cells of the first time");
    }
    let (fields, spread) = Fields::of(&population, engine, stage)?;
    if options.columns.contains(&Column::Umap) && file.has("obsm/X_umap") {
        let (n, width, umap) = file.dense("obsm/X_umap")?;
        if n != population.times.len() {
            let problem = format!("has {n} rows, but there are {} cells", population.times.len());
            return Err(Error::input(cells, "obsm/X_umap", problem, "save the file again with anndata's write_h5ad"));
        }
        let umap: Vec<f32> = umap.into_iter().map(|x| x as f32).collect();
        let graph = match file.graph("obsp/connectivities")? {
            Some(graph) => graph,
            None => {
                let n = options.neighbors;
                found
                    .notices
                    .push(format!("there is no obsp/connectivities: velocity_umap uses the {n} nearest cells of each"));
                nearest_cells(&population, n, stage)?
            }
        };
        let velocities = projected((dim, &population.rows, &fields.velocity), (width, &umap), &graph, stage)?;
        let item = Item::F32 { values: velocities, columns: Some(width) };
        add("obsm/velocity_umap".into(), item, "directions by the neighbors of each cell, without a unit");
    }
    let loadings = match options.columns.contains(&Column::Genes) {
        true => Some(Loadings::read(&file, cells, &population, options.all_genes)?),
        false => None,
    };
    let has_their_positions = file.has(POSITIONS) && !ours.paths.iter().any(|path| path == POSITIONS);
    found.notices.extend(file.take_notices());
    drop(file);

    let has_growth = trained.models[0].objective.growth > 0.0;
    for (suffix, fields, what) in
        [("", Some(&fields), ""), ("_spread", spread.as_ref(), ", standard deviation over the members")]
    {
        let Some(fields) = fields else { continue };
        for (column, values, meaning) in [
            (Column::Action, &fields.action, "potential s, without a unit"),
            (Column::GrowthRate, &fields.growth_rate, "growth rate of mass, per unit of time"),
            (
                Column::HjbResidual,
                &fields.hjb_residual,
                "residual of the Hamilton-Jacobi-Bellman equation, per unit of time",
            ),
        ] {
            if options.columns.contains(&column) && (column != Column::GrowthRate || has_growth) {
                let name = column.name().replace('-', "_");
                add(format!("obs/{name}{suffix}"), Item::F64(values.clone()), &format!("{meaning}{what}"));
            }
        }
    }
    if options.columns.contains(&Column::Speed) {
        let item = Item::F64(fields.speed(dim));
        add("obs/speed".into(), item, "length of the velocity, units of the samples per unit of time");
    }
    let velocity = fields.into_velocity();
    if let Some(loadings) = loadings {
        let layer = loadings.velocities(dim, &velocity, stage);
        let ranked = loadings.ranked(&layer);
        found.driver_genes = ranked.iter().map(|(name, ..)| name.clone()).collect();
        let meaning = "velocity of genes by the loadings of the components, per unit of time";
        let item = Item::F32 { values: layer, columns: Some(loadings.genes.len()) };
        add("layers/velocity".into(), item, meaning);
        if !has_their_positions {
            let center = &trained.models[0].coordinates.mean;
            let values = loadings.positions(&population.rows, center, stage);
            let item = Item::F32 { values, columns: Some(loadings.genes.len()) };
            let meaning = match population.components {
                Some(_) => "expression of genes by the loadings of the components",
                None => "expression of genes by the loadings of the components, less the mean of each gene",
            };
            add(POSITIONS.into(), item, meaning);
        }
        add("var/velocity_genes".into(), Item::Bools(loadings.has_velocity()), "genes that have a velocity");
        add(format!("{PROVENANCE}/driver_genes"), frame(&ranked), "genes by the root mean square of their velocity");
    }
    let is_in_file = population.samples.starts_with("obsm/") && population.components.is_none();
    if options.columns.contains(&Column::Velocity) {
        let meaning = "velocity, units of the samples per unit of time";
        let item = Item::F32 { values: velocity, columns: Some(dim) };
        add(format!("obsm/velocity_{basis}"), item, meaning);
        if let Some(spread) = spread {
            let item = Item::F32 { values: spread.velocity, columns: Some(dim) };
            let meaning = format!("{meaning}, standard deviation over the members");
            add(format!("obsm/velocity_{basis}_spread"), item, &meaning);
        }
        if !is_in_file {
            // The space of the model is not in the file: it goes beside the velocity.
            let mean = trained.models[0].coordinates.mean.iter().cycle();
            let values = population.rows.iter().zip(mean).map(|(&x, mean)| (f64::from(x) + mean) as f32).collect();
            let item = Item::F32 { values, columns: Some(dim) };
            add(format!("obsm/X_{basis}"), item, "the samples of the model");
        }
    }
    let [samples, times_at] = population.into_places();
    found.written = additions.iter().map(|addition| addition.path.clone()).collect();
    let items = with_provenance(additions, ours, trained, options, [&basis, &samples, &times_at])?;
    write_extended(cells, to, items)?;
    Ok(found)
}

/// What scVelo calls the space of `samples`: `pca` of `obsm/X_pca`, and `amatch` of one that is not
/// in the file.
fn basis_of(samples: &str) -> String {
    match samples.strip_prefix("obsm/") {
        Some(name) => name.strip_prefix("X_").unwrap_or(name).to_string(),
        None => "amatch".into(),
    }
}

/// Refuses, before the work, columns whose names are taken, and settings that lack something.
fn check_names(
    file: &Cells,
    cells: &Path,
    basis: &str,
    ours: &Ours,
    trained: &Trained,
    options: &AnnotateOptions,
) -> Result<()> {
    if options.columns.contains(&Column::Fates) && options.labels.is_none() {
        let fix = "set `AnnotateOptions::labels` to a column of obs";
        return Err(Error::input(cells, "fates", "are asked for, but no labels are named", fix));
    }
    if options.columns.contains(&Column::LogDensity) && trained.models.len() > 1 {
        let problem = "is asked for, but a density belongs to the flow of one model";
        return Err(Error::input(cells, "log-density", problem, "take one member of the run"));
    }
    let names = |column: &Column| -> Vec<String> {
        match column {
            Column::Velocity => vec![format!("obsm/velocity_{basis}"), format!("obsm/velocity_{basis}_spread")],
            Column::Umap => vec!["obsm/velocity_umap".into()],
            Column::Fates => vec!["obsm/fate".into()],
            Column::Genes => vec!["layers/velocity".into(), "var/velocity_genes".into()],
            column => {
                let name = column.name().replace('-', "_");
                vec![format!("obs/{name}"), format!("obs/{name}_spread")]
            }
        }
    };
    let taken = options.columns.iter().flat_map(names).find(|name| file.has(name) && !ours.paths.contains(name));
    match taken.filter(|_| !options.replace) {
        Some(name) => {
            let problem = "is there already, and was not written by this program";
            let fix = "leave that column out, or replace it with `AnnotateOptions::replace`";
            Err(Error::input(cells, name, problem, fix).of_kind(InputKind::Exists))
        }
        None => Ok(()),
    }
}

/// The items, with where they come from.
fn with_provenance(
    additions: Vec<Addition>,
    ours: Ours,
    trained: &Trained,
    options: &AnnotateOptions,
    [basis, samples, times]: [&str; 3],
) -> Result<Vec<(String, Item)>> {
    let text = |text: &str| Item::Text(text.to_string());
    let name = trained.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut provenance = vec![
        ("version".to_string(), text(env!("CARGO_PKG_VERSION"))),
        ("model".into(), Item::Text(name)),
        ("model_sha256".into(), Item::Text(digest_of_file(&trained.file)?)),
        ("members".into(), Item::Count(trained.models.len() as u64)),
        ("seed".into(), Item::Count(options.seed)),
        ("basis".into(), text(basis)),
        ("samples".into(), text(samples)),
        ("times".into(), text(times)),
    ];
    if let Some(config) = &trained.config {
        let json = serde_json::to_string(config).map_err(|error| {
            Error::input("configuration", "values", error.to_string(), "use values that JSON holds")
        })?;
        provenance.push(("config".into(), Item::Text(json)));
    }
    let (mut items, mut columns, mut meanings) = (Vec::new(), Vec::new(), Vec::new());
    for Addition { path, item, meaning } in additions {
        columns.push(path.clone());
        meanings.push(meaning);
        match path.strip_prefix(PROVENANCE).and_then(|rest| rest.strip_prefix('/')) {
            Some(name) => provenance.push((name.to_string(), item)),
            None => items.push((path, item)),
        }
    }
    // Of another model, perhaps, than the one that is named here.
    let earlier = ours.paths.into_iter().filter(|path| !columns.contains(path)).collect();
    provenance.push(("earlier_columns".into(), Item::Texts(earlier)));
    provenance.push(("columns".into(), Item::Texts(columns)));
    provenance.push(("meanings".into(), Item::Texts(meanings)));
    match ours.has_provenance {
        true => items.extend(provenance.into_iter().map(|(name, item)| (format!("{PROVENANCE}/{name}"), item))),
        false => items.push((PROVENANCE.into(), Item::Dict(provenance))),
    }
    Ok(items)
}

/// The `k` nearest cells of each, among those that are asked about.
fn nearest_cells(population: &Population, k: usize, stage: &Stage) -> Result<Graph> {
    let dim = population.dim;
    let mut asked: Vec<u32> = population.groups.iter().flat_map(|group| group.cells.iter().copied()).collect();
    asked.sort_unstable();
    let rows: Vec<f32> =
        asked.iter().flat_map(|&cell| population.rows[cell as usize * dim..][..dim].iter().copied()).collect();
    // A cell is the nearest to itself.
    let found = nearest(dim, &rows, &rows, k + 1, stage)?;
    let each = found.len().checked_div(asked.len()).unwrap_or(0);
    let mut starts = vec![0; population.times.len() + 1];
    asked.iter().for_each(|&cell| starts[cell as usize + 1] = each);
    (1..starts.len()).for_each(|cell| starts[cell] += starts[cell - 1]);
    Ok(Graph { starts, neighbors: found.into_iter().map(|found| asked[found as usize]).collect() })
}

/// log q `[n]` of each cell; NaN for those that are left out.
fn log_densities(population: &Population, engine: &dyn Engine, stage: &Stage) -> Result<Vec<f64>> {
    let mut all = vec![f64::NAN; population.times.len()];
    for group in &population.groups {
        let model = &group.models[0];
        let coordinates = &model.coordinates;
        let first = snapshots_at(population, group, coordinates.time_range[0]);
        let start = StartDensity::of_rows(population.dim, &population.network_rows(&first, coordinates))?;
        let x = population.positions(&group.cells, coordinates);
        let found = model.log_density(engine, &x, &population.times_of(&group.cells), &start, stage)?;
        group.cells.iter().zip(found).for_each(|(&cell, found)| all[cell as usize] = found);
    }
    Ok(all)
}
