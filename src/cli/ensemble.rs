//! The members of an ensemble on the command line: one of them, or what they say together.

use std::path::{Path, PathBuf};

use action_matching::display::{shortest, significant};
use action_matching::train::RunFolder;
use action_matching::{Trained, TrajectorySpread};
use anyhow::bail;

use super::output::{is_trained, load, note};

/// Choice of a member.
#[derive(clap::Args)]
pub struct MemberArgument {
    /// One member of an ensemble, counted from 1; 1 is model.safetensors [default: all of them]
    #[arg(long, value_name = "K")]
    member: Option<usize>,
}

impl MemberArgument {
    /// Member `number`, if one is asked for.
    pub fn new(member: Option<usize>) -> Self {
        MemberArgument { member }
    }

    /// What to load of `path`: the model of the member that is asked for, or `path` itself.
    pub fn of(&self, path: &Path) -> anyhow::Result<PathBuf> {
        let Some(number) = self.member else { return Ok(path.to_owned()) };
        if !path.is_dir() {
            bail!("--member: {} is one model (name the run folder, or leave --member out)", path.display());
        }
        let run = RunFolder::new(path);
        let last = (1..).take_while(|&number| run.member(number).model().exists()).count();
        if !(1..=last.max(1)).contains(&number) {
            bail!("--member: is {number}, but {} has {last} members (use 1 to {last})", path.display());
        }
        Ok(run.member(number).model())
    }

    /// What was trained at `path`: of the member that is asked for, or all of it.
    pub fn load(&self, path: &Path) -> anyhow::Result<Trained> {
        Ok(load(&self.of(path)?)?)
    }
}

/// How far members disagree on `n` particles at each of some times.
pub struct Disagreement {
    n_members: usize,
    /// Time, and spread of the positions relative to the width of the particles, or to the scale of
    /// the data if they have none.
    at: Vec<(f64, f64)>,
    is_of_width: bool,
}

impl Disagreement {
    /// For the means `positions [times, n, dim]` of the particles of `n_members`, in network
    /// coordinates.
    pub fn of(n_members: usize, times: &[f64], dim: usize, positions: &[f32], spread: &TrajectorySpread) -> Self {
        let slab = (positions.len() / times.len().max(1)).max(dim);
        let slabs = || positions.chunks_exact(slab).zip(spread.positions.chunks_exact(slab));
        let widths: Vec<f64> = slabs().map(|(rows, _)| width(dim, rows)).collect();
        let is_of_width = widths.iter().all(|width| *width > 0.0);
        let n = (slab / dim) as f64;
        let at = times.iter().zip(slabs()).zip(&widths).map(|((&time, (_, spread)), width)| {
            let sum: f64 = spread.iter().map(|&x| f64::from(x).powi(2)).sum();
            let scale = if is_of_width { *width } else { (dim as f64).sqrt() };
            (time, (sum / n).sqrt() / scale)
        });
        Disagreement { n_members, at: at.collect(), is_of_width }
    }

    /// Prints it, with what it says of times outside `range`, where the models were not trained.
    pub fn print(&self, range: [f64; 2]) {
        /// Share of the width from which on a mean of positions is no longer where particles are.
        const LARGE: f64 = 0.3;
        /// Times in a line.
        const SHOWN: usize = 8;
        let step = self.at.len().div_ceil(SHOWN).max(1);
        // The last time is always among them.
        let shown = self.at.iter().rev().step_by(step).collect::<Vec<_>>().into_iter().rev();
        let shown: Vec<String> = shown
            .map(|(time, share)| format!("{} % at time {}", significant(100.0 * share, 2), shortest(*time)))
            .collect();
        let scale = if self.is_of_width { "the width of the particles" } else { "the scale of the data" };
        note!("spread of {} members, relative to {scale}: {}", self.n_members, shown.join(", "));
        if self.at.iter().any(|(_, share)| *share > LARGE) {
            note!(
                "warning: members disagree by more than {} % of that: the mean of their particles may lie where none of \
                 them takes any; --all-members writes the particles of each",
                100.0 * LARGE
            );
        }
        if self.at.iter().any(|(time, _)| !is_trained(range, *time)) {
            note!(
                "outside the times of the data the spread is the only sign of uncertainty. It shows what the seed of a \
                 training changes, and nothing that all members share: the path between snapshots, few or noisy data, and \
                 that the population goes on as before. The error may be far larger."
            );
        }
    }
}

/// Root mean square distance of rows from their mean.
fn width(dim: usize, rows: &[f32]) -> f64 {
    let n = (rows.len() / dim).max(1) as f64;
    let mut mean = vec![0.0; dim];
    rows.iter().enumerate().for_each(|(i, &x)| mean[i % dim] += f64::from(x) / n);
    let squares = rows.iter().enumerate().map(|(i, &x)| (f64::from(x) - mean[i % dim]).powi(2));
    (squares.sum::<f64>() / n).sqrt()
}
