//! Couplings of the cells of neighboring times, in files that CellRank's `RealTimeKernel` reads.

use std::path::{Path, PathBuf};

use super::AnnotateOptions;
use super::population::{Group, Population};
use crate::config::{Config, Mass, Pairing};
use crate::data::{Cells, Coupled, Snapshots, write_coupling};
use crate::density_path::{Coupling, optimal_couplings};
use crate::destination::{Destination, Replace};
use crate::display::shortest;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::integrate::{Solver, Trajectories};
use crate::model::Coordinates;
use crate::stage::Stage;
use crate::trained::Trained;
use crate::transport::MAX_POINTS;

/// What is coupled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CouplingKind {
    /// The cells as they are, by the kind of optimal transport that the run was trained with:
    /// balanced, unbalanced, or of Wasserstein–Fisher–Rao.
    #[default]
    Transport,
    /// The cells where the model moves them to, by balanced optimal transport between these places,
    /// with the mass that cells have gained on the way, and the cells of the next time.
    Flow,
}

/// What [`write_couplings`] has written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Couplings {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Why cells are in none, and how many for each reason.
    pub left_out: Vec<(String, usize)>,
    /// What was guessed or approximated, one sentence each.
    pub notices: Vec<String>,
}

/// Cells of `group` at the data time `time`.
pub(super) fn snapshots_at(population: &Population, group: &Group, time: f64) -> Vec<u32> {
    let [first, last] = group.models[0].coordinates.time_range;
    let is_near = |&cell: &u32| (population.times[cell as usize] - time).abs() <= 1e-6 * (last - first);
    group.cells.iter().copied().filter(is_near).collect()
}

/// Writes `amatch_<t0>_<t1>.h5ad` into `folder` for each pair of neighboring times of `cells`: how
/// much of the mass that arrives at each cell of the next time comes from which one, 1 in all. With
/// pairs that are not balanced, cells that vanish have empty rows, and those that appear empty
/// columns. More than [`MAX_POINTS`] cells of a time (of pairs that are not balanced, as many as in
/// training) are divided at random into problems that are solved exactly. Cells of different
/// conditions are not coupled.
///
/// # Errors
/// [`Error::Input`] for cells that do not suit the model, or at fewer than two times, and for files
/// that exist already, unless `replace` admits them; those of the engine; [`Error::Interrupted`].
pub fn write_couplings(
    trained: &Trained,
    cells: &Path,
    folder: &Path,
    (kind, replace): (CouplingKind, Replace),
    options: &AnnotateOptions,
    engine: &dyn Engine,
    stage: &Stage,
) -> Result<Couplings> {
    let mut file = Cells::open(cells)?;
    let population = Population::read(&mut file, cells, trained, options, stage)?;
    let names = file.names()?;
    let mut found =
        Couplings { left_out: population.left_out.clone(), notices: file.take_notices(), ..Couplings::default() };
    drop(file);
    let asked: Vec<u32> = population.groups.iter().flat_map(|group| group.cells.iter().copied()).collect();
    let times: Vec<(f64, usize)> =
        population.by_time(&asked).into_iter().map(|(time, cells)| (time, cells.len())).collect();
    if times.len() < 2 {
        let problem = format!("has {} time of the training, and a coupling needs two", times.len());
        return Err(Error::input(cells, &population.times_at, problem, "name a column with two times or more"));
    }
    let unbalanced = Unbalanced::of(trained, kind, options, &times)?;
    let most = unbalanced.as_ref().map_or(MAX_POINTS, |unbalanced| unbalanced.most_rows);
    if times.iter().any(|(_, n)| *n > most) {
        found.notices.push(format!(
            "times with more than {most} cells are divided at random into problems that are solved exactly"
        ));
    }
    found.notices.extend(unbalanced.as_ref().map(|unbalanced| unbalanced.notice.clone()));
    let destinations = times.windows(2).map(|pair| {
        let name = format!("amatch_{}_{}.h5ad", shortest(pair[0].0), shortest(pair[1].0));
        Destination::check(&folder.join(name), &[cells], replace)
    });
    let destinations: Vec<Destination> = destinations.collect::<Result<_>>()?;
    for (k, (destination, pair)) in destinations.iter().zip(times.windows(2)).enumerate() {
        stage.check()?;
        let pairs = |snapshots: Snapshots| match &unbalanced {
            Some(unbalanced) => unbalanced.coupling(snapshots, k, stage),
            None => Ok(optimal_couplings(&snapshots, MAX_POINTS, options.seed, stage)?.remove(0)),
        };
        let coupled = coupled(&population, &names, [pair[0].0, pair[1].0], kind, &pairs, options, engine, stage)?;
        destination.write_seekable(|writer| write_coupling(writer, &coupled))?;
        found.files.push(destination.path().to_owned());
    }
    Ok(found)
}

/// How a run was trained whose pairs gain and lose mass.
struct Unbalanced {
    config: Config,
    /// Most rows that one problem pairs.
    most_rows: usize,
    /// Mass at each time, if it is neither ignored nor counted.
    totals: Option<Vec<f64>>,
    notice: String,
}

impl Unbalanced {
    /// `None` if the pairs of the run are balanced, or cells are coupled by the flow.
    ///
    /// # Errors
    /// [`Error::Input`] if the run knows the masses of other times than `times`.
    fn of(
        trained: &Trained,
        kind: CouplingKind,
        options: &AnnotateOptions,
        times: &[(f64, usize)],
    ) -> Result<Option<Unbalanced>> {
        let Some(config) = trained.config.as_ref().filter(|_| kind == CouplingKind::Transport) else { return Ok(None) };
        let (name, most_rows) = match config.objective.pairing {
            Pairing::Unbalanced { rows, .. } => ("unbalanced", rows),
            Pairing::Wfr { rows } => ("of Wasserstein–Fisher–Rao", rows),
            _ => return Ok(None),
        };
        let mut notice = format!("couplings are {name}, as the pairs that the run was trained on");
        let totals = match &config.objective.mass {
            Mass::Totals { values } if values.len() != times.len() => {
                let problem = format!("has {} for {} times of the cells", values.len(), times.len());
                let fix = "give the cells of the training, or couple them by the flow";
                return Err(Error::input("configuration", "objective.mass.values", problem, fix));
            }
            Mass::Totals { values } => Some(values.clone()),
            Mass::Growth => {
                notice += "; the growth rates of single cells are not read, and all times have the same mass";
                Some(vec![1.0; times.len()])
            }
            _ => None,
        };
        let mut config = config.clone();
        config.training.seed = options.seed;
        config.objective.growth = Some(trained.models[0].objective.growth); // whatever `auto` has become
        Ok(Some(Unbalanced { config, most_rows, totals, notice }))
    }

    /// The pairs of two snapshots, the earlier one of time `k`.
    fn coupling(&self, snapshots: Snapshots, k: usize, stage: &Stage) -> Result<Coupling> {
        let mut config = self.config.clone();
        if let Some(totals) = &self.totals {
            config.objective.mass = Mass::Totals { values: totals[k..k + 2].to_vec() };
        }
        let path = config.unpaired_path(snapshots)?;
        Ok(config.couplings(&path, stage)?.remove(0))
    }
}

/// The coupling of the cells at two times by `pairs` of those of a group.
#[allow(clippy::too_many_arguments)] // of one call
fn coupled(
    population: &Population,
    names: &[String],
    times: [f64; 2],
    kind: CouplingKind,
    pairs: &dyn Fn(Snapshots) -> Result<Coupling>,
    options: &AnnotateOptions,
    engine: &dyn Engine,
    stage: &Stage,
) -> Result<Coupled> {
    let mut sides: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
    let mut moves: Vec<(usize, usize, f64)> = Vec::new();
    for group in &population.groups {
        let cells = times.map(|time| snapshots_at(population, group, time));
        let offsets = [0, 1].map(|side: usize| sides[side].len());
        if cells.iter().all(|cells| !cells.is_empty()) {
            let snapshots = pair_of(population, group, &cells, times, kind, options, engine, stage)?;
            let n = cells[0].len() as f64;
            // What vanishes or appears moves nowhere.
            let moving = pairs(snapshots)?;
            let moving = moving.moves().filter(|(_, _, mass)| mass.iter().all(|&end| end > 0.0));
            moves.extend(moving.map(|(i, j, [_, arriving])| (offsets[0] + i, offsets[1] + j, n * arriving)));
        }
        sides.iter_mut().zip(cells).for_each(|(side, cells)| side.extend(cells));
    }
    moves.sort_by_key(|&(i, j, _)| (i, j));
    let total: f64 = moves.iter().map(|(.., mass)| mass).sum();
    let mut starts = vec![0u64; sides[0].len() + 1];
    moves.iter().for_each(|(i, ..)| starts[i + 1] += 1);
    (1..starts.len()).for_each(|i| starts[i] += starts[i - 1]);
    Ok(Coupled {
        names: sides.map(|cells| cells.iter().map(|&cell| names[cell as usize].clone()).collect()),
        starts,
        indices: moves.iter().map(|(_, j, _)| *j as u32).collect(),
        masses: moves.iter().map(|(.., mass)| (mass / total) as f32).collect(),
    })
}

/// The cells of a group at two times as snapshots, network coordinates.
#[allow(clippy::too_many_arguments)] // of one call
fn pair_of(
    population: &Population,
    group: &Group,
    cells: &[Vec<u32>; 2],
    times: [f64; 2],
    kind: CouplingKind,
    options: &AnnotateOptions,
    engine: &dyn Engine,
    stage: &Stage,
) -> Result<Snapshots> {
    let model = &group.models[0];
    let coordinates: &Coordinates = &model.coordinates;
    let mut from = population.network_rows(&cells[0], coordinates);
    let to = population.network_rows(&cells[1], coordinates);
    let mut log_weights = vec![0.0f32; cells[0].len()];
    if kind == CouplingKind::Flow {
        let [start, end] = times.map(|time| coordinates.network_time(time).clamp(0.0, 1.0));
        let plan = Solver::suited_to(&model.objective, options.seed).plan(start, vec![end]);
        let weights = (model.objective.growth > 0.0).then_some(&mut log_weights[..]);
        let out = Trajectories { log_weights: weights, ..Trajectories::of(&mut from) };
        engine.integrate(model, &plan, out, stage.watch)?;
    }
    let snapshots = Snapshots::from_rows(population.dim, [(0.0, from), (1.0, to)])?;
    match log_weights.iter().all(|&weight| weight == 0.0) {
        true => Ok(snapshots),
        false => {
            let grown = log_weights.iter().map(|&weight| f64::from(weight).exp());
            snapshots.weighted(grown.chain(cells[1].iter().map(|_| 1.0)).collect())
        }
    }
}
