//! Workloads of `amatch bench` that were timed on an H100, and the counts of the kernels that were
//! timed.
//!
//! Both tables lie beside this file. `times.csv` has the times of
//! `benches/runs/2026-11-26-h100.md`, in milliseconds, and the rows with which each workload was
//! counted: fewer than were timed where batches are large ([`Timed::counted_rows`]). `counts.csv`
//! has the counts of the kernels of that run, those of commit d7d78ad, made with its program
//! `amatch` by
//!
//! ```text
//! cargo bench -p vgpu --bench counters -- count PROGRAM
//! ```

use std::str::FromStr;

use super::time::{Card, Launch, Traffic, Turns};
use crate::counters::{Counters, Launches};

/// Workloads that [`super::time::H100_MEASURED`] is fitted to, with their precision and rows. The
/// others are the check.
pub const FITTED: [(&str, &str, u64); 10] = [
    ("hydrogen", "bf16", 65_536),
    ("hydrogen", "bf16", 1000),
    ("embryoid", "bf16", 512),
    ("toy2d", "bf16", 65_536),
    ("toy2d", "bf16", 4096),
    ("sampling-hydrogen", "bf16", 200_000),
    ("hydrogen", "tf32", 65_536),
    ("hydrogen", "tf32", 1000),
    ("hydrogen", "f32", 65_536),
    ("hydrogen", "f32", 1000),
];

/// A measured time of a workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    pub workload: String,
    pub precision: String,
    /// Rows of each kind, or particles.
    pub rows: u64,
    /// Those with which it was counted.
    pub counted_rows: u64,
    /// Of a training step, or of an integration.
    pub seconds: f64,
}

/// One kernel of a workload, in one step or integration.
#[derive(Clone, Debug, PartialEq)]
pub struct Count {
    pub workload: String,
    pub precision: String,
    pub rows: u64,
    pub kernel: String,
    pub launches: Launches,
    pub counters: Counters,
}

/// The measured times.
pub fn timed() -> Vec<Timed> {
    let line = |line: &str| {
        let [workload, precision, rows, counted_rows, milliseconds] = *line.split(',').collect::<Vec<_>>() else {
            return None;
        };
        Some(Timed {
            workload: workload.into(),
            precision: precision.into(),
            rows: rows.parse().ok()?,
            counted_rows: counted_rows.parse().ok()?,
            seconds: 1e-3 * milliseconds.parse::<f64>().ok()?,
        })
    };
    include_str!("times.csv").lines().filter_map(line).collect()
}

/// The counts of the kernels that were timed.
pub fn counts() -> Vec<Count> {
    read_counts(include_str!("counts.csv"))
}

/// The lines of a table of counts, without its header.
pub fn read_counts(table: &str) -> Vec<Count> {
    table.lines().filter_map(|line| line.parse().ok()).collect()
}

/// What the launches of a workload depend on beside their counts.
struct Shape {
    width: u64,
    /// Numbers of a row that the sweeps of a wide network keep: five of each unit, and with a probe
    /// five more.
    kept: u64,
    /// Velocities of a particle; 1 in training.
    passes: f64,
    /// Products with all weights that an interior row takes, and the mean of its kind and two
    /// boundary rows of 3.
    largest: f64,
}

fn shape(workload: &str) -> Option<Shape> {
    let plain = 6.0 / 4.0;
    let (width, kept, passes, largest) = match workload {
        "hydrogen" => (256, 5 * 4 * 256, 1.0, plain),
        "entropic-hydrogen" => (256, 10 * 4 * 256, 1.0, 9.0 / 5.0),
        "embryoid" => (512, 5 * 3 * 512, 1.0, plain),
        "toy2d" => (64, 5 * 3 * 64, 1.0, plain),
        "wide" => (512, 5 * 4 * 512, 1.0, plain),
        "sampling-hydrogen" => (256, 0, 100.0, 1.0),
        "sampling-toy2d" => (64, 0, 200.0, 1.0),
        _ => return None,
    };
    Some(Shape { width, kept, passes, largest })
}

const TILE_ROWS: u64 = 128;
// How the engine divides a batch. Tiles of a launch at most, where each has a slot or each block;
// in a gibibyte, with a kibibyte of inputs and outputs for each row.
const MOST_TILES: u64 = (1 << 15) / TILE_ROWS;
const MOST_NARROW_TILES: u64 = (1 << 18) / TILE_ROWS;
const MOST_BYTES: u64 = 1 << 30;
const OTHER_BYTES: u64 = 1 << 10;
/// Partial sums of a weight gradient, or blocks of a narrow network's sweep, at most.
const MOST_PARTS: u64 = 16;
const MOST_NARROW_PARTS: u64 = 256;

/// Partial sums of the weight gradient of so many tiles, and the tiles of each, but for the last.
fn parts_of(n_tiles: u64, is_narrow: bool) -> (u64, u64) {
    if is_narrow {
        return (n_tiles.min(MOST_NARROW_PARTS), 1);
    }
    let of_each = n_tiles.div_ceil(MOST_PARTS).max(1);
    (n_tiles.div_ceil(of_each).max(1), of_each)
}

impl Timed {
    /// True if the model is fitted to it.
    pub fn is_fitted(&self) -> bool {
        FITTED.contains(&(self.workload.as_str(), self.precision.as_str(), self.rows))
    }

    /// The launches of a step or run with its rows, from the counts of another number of rows: how
    /// often each is launched, and its kernel. `None` if there are no counts.
    pub fn launches(&self, counts: &[Count]) -> Option<Vec<(u64, String, Launch)>> {
        let counts: Vec<&Count> = (counts.iter())
            .filter(|count| count.workload == self.workload && count.precision == self.precision)
            .filter(|count| count.rows == self.counted_rows)
            .collect();
        let shape = shape(&self.workload)?;
        counts.first()?;
        let sweep = counts.iter().find(|count| count.kernel.starts_with("sweep"));
        let is_narrow = sweep.is_some_and(|sweep| sweep.kernel.starts_with("sweep_narrow"));
        // Tiles of the three kinds of rows, as many of each.
        let tiles = |rows: u64| 3 * rows.div_ceil(TILE_ROWS);
        let (counted, all) = (tiles(self.counted_rows), tiles(self.rows));
        let bytes = if self.precision.ends_with("32") { 4 } else { 2 };
        let fit = MOST_BYTES / (TILE_ROWS * (bytes * shape.kept + OTHER_BYTES));
        let most = if is_narrow { MOST_NARROW_TILES } else { MOST_TILES.min(fit) };
        // Launches of so many tiles each: full ones, and the rest.
        let chunks = [(all / most, most), (u64::from(all % most > 0), all % most)];
        let parts_of = |n_tiles: u64| parts_of(n_tiles.min(most), is_narrow);
        let parts = |n_tiles: u64| parts_of(n_tiles).0;
        let mut launches = Vec::new();
        for Count { kernel, launches: Launches { launches: n, blocks, resident }, counters, .. } in counts {
            let mut push = |n: u64, counters: Counters, blocks: u64, largest: f64, traffic: Traffic| {
                if n > 0 {
                    let turns = Turns::of(&counters);
                    let launch = Launch { counters, blocks, resident: *resident, largest, traffic, turns };
                    launches.push((n, kernel.clone(), launch));
                }
            };
            let of_tiles = |n_tiles: u64| n_tiles as f64 / counted as f64;
            if kernel.starts_with("integrate") {
                // A block takes several tiles one after the other: waves, as if each had its own.
                let traffic = Traffic::Sweeps { passes: shape.passes };
                push(*n, counters.scaled(of_tiles(all)), blocks * all / counted, shape.largest, traffic);
            } else if kernel.starts_with("sweep") {
                // So do the blocks of narrow networks. Only a launch of all kinds of tiles has some
                // that are larger than its mean.
                let largest = if all <= most { shape.largest } else { 1.0 };
                for (n, n_tiles) in chunks {
                    let blocks = blocks * n_tiles / counted;
                    push(n, counters.scaled(of_tiles(n_tiles)), blocks, largest, Traffic::Sweeps { passes: 1.0 });
                }
            } else if kernel.starts_with("weight_grad") {
                const GRAD_TILE: u64 = 128;
                let readers = shape.width.div_ceil(GRAD_TILE) as f64;
                for (n, n_tiles) in chunks {
                    // The last part counts as if it were as large as the others.
                    let (parts_now, of_each) = parts_of(n_tiles);
                    let counters = counters.scaled(of_tiles(parts_now * of_each));
                    let blocks = blocks / parts(counted) * parts_now;
                    push(n, counters, blocks, 1.0, Traffic::Operands { readers });
                }
            } else if kernel.starts_with("draw") {
                for (n, n_tiles) in chunks {
                    push(n, counters.scaled(of_tiles(n_tiles)), blocks * n_tiles / counted, 1.0, Traffic::Cached);
                }
            } else {
                let adds_parts = kernel.starts_with("gather_gradient");
                let factor = if adds_parts { parts(all) as f64 / parts(counted) as f64 } else { 1.0 };
                push(*n, counters.scaled(factor / *n as f64), blocks / n, 1.0, Traffic::Cached);
            }
        }
        Some(launches)
    }

    /// The modelled time of a step or run in seconds; `None` if there are no counts.
    pub fn modelled(&self, counts: &[Count], card: &Card) -> Option<f64> {
        let launches = self.launches(counts)?;
        Some(launches.iter().map(|(n, _, launch)| *n as f64 * launch.time(card).seconds).sum())
    }
}

impl Count {
    /// The first line of a table of counts.
    pub fn header() -> String {
        let (mut launches, counters) = (Launches::default(), Counters::default());
        let launches = launches.fields().map(|(name, _)| name.to_string());
        let names: Vec<String> =
            launches.into_iter().chain(counters.named().into_iter().map(|count| count.0)).collect();
        format!("workload,precision,rows,kernel,{}", names.join(","))
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Count { workload, precision, rows, kernel, mut launches, counters } = self.clone();
        write!(f, "{workload},{precision},{rows},{kernel}")?;
        launches.fields().into_iter().try_for_each(|(_, number)| write!(f, ",{number}"))?;
        counters.named().into_iter().try_for_each(|(_, count)| write!(f, ",{count}"))
    }
}

/// A line that is no count.
#[derive(Debug)]
pub struct NoCount;

impl FromStr for Count {
    type Err = NoCount;

    fn from_str(line: &str) -> Result<Count, NoCount> {
        let mut fields = line.split(',');
        let mut next = || fields.next().ok_or(NoCount);
        let (workload, precision) = (next()?.to_string(), next()?.to_string());
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoCount);
        let rows = number(next()?)?;
        let kernel = next()?.to_string();
        let (mut launches, mut counters) = (Launches::default(), Counters::default());
        for (_, value) in launches.fields() {
            *value = number(next()?)?;
        }
        for (_, value) in counters.fields() {
            *value = number(next()?)?;
        }
        Ok(Count { workload, precision, rows, kernel, launches, counters })
    }
}

/// Times as a table in Markdown: measured / modelled by the counts of the kernels that were timed,
/// and the error of the model, `*` where it was fitted.
pub fn table(card: &Card) -> String {
    let (timed, counts) = (timed(), counts());
    let mut table =
        "| workload | rows or particles | bf16 | f16 | tf32 | f32 |\n| --- | --- | --- | --- | --- | --- |\n"
            .to_string();
    for first in timed.iter().filter(|timed| timed.precision == "bf16") {
        let cell = |precision: &str| {
            let is_it = |timed: &&Timed| {
                (&timed.workload, timed.rows, timed.precision.as_str()) == (&first.workload, first.rows, precision)
            };
            let Some((timed, modelled)) =
                timed.iter().find(is_it).and_then(|timed| Some((timed, timed.modelled(&counts, card)?)))
            else {
                return "—".to_string();
            };
            let error = 100.0 * (modelled / timed.seconds - 1.0);
            let mark = if timed.is_fitted() { "*" } else { "" };
            format!("{} / {} ({error:+.0} %){mark}", milliseconds(timed.seconds), milliseconds(modelled))
        };
        let cells = ["bf16", "f16", "tf32", "f32"].map(cell).join(" | ");
        table += &format!("| {} | {} | {cells} |\n", first.workload, first.rows);
    }
    table
}

/// Three figures.
pub fn milliseconds(seconds: f64) -> String {
    let milliseconds = 1e3 * seconds;
    let digits = (2 - milliseconds.log10().floor() as i32).clamp(0, 4) as usize;
    format!("{milliseconds:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::super::time::H100_MEASURED;
    use super::super::{H100, busiest};
    use super::*;

    #[test]
    fn counts_are_read_back() {
        let counts = counts();
        assert!(!counts.is_empty());
        let text: Vec<String> = counts.iter().map(Count::to_string).collect();
        assert_eq!(read_counts(&text.join("\n")), counts);
        assert_eq!(include_str!("counts.csv").lines().next(), Some(Count::header().as_str()));
        assert!("hydrogen,bf16,1000,sweep,1,24".parse::<Count>().is_err());
    }

    /// No constants fit better than those of [`H100_MEASURED`]: a search from elsewhere finds none.
    #[test]
    fn the_constants_are_those_of_the_fit() {
        let (timed, counts) = (timed(), counts());
        let card = |[wait_clocks, overlap, launch]: [f64; 3]| Card { wait_clocks, overlap, launch, ..H100_MEASURED };
        let misfit = |timed: &Timed, card: &Card| {
            let modelled = timed.modelled(&counts, card).expect("counts");
            (modelled / timed.seconds).ln().powi(2)
        };
        let fitted: Vec<&Timed> = timed.iter().filter(|timed| timed.is_fitted()).collect();
        assert_eq!(fitted.len(), FITTED.len());
        let sum = |of: [f64; 3]| fitted.iter().map(|timed| misfit(timed, &card(of))).sum::<f64>();
        let mut best = [10.0, 2.0, 3e-6];
        let (mut least, mut step) = (sum(best), 1.3f64);
        while step > 1.001 {
            // Each constant smaller, as it is, or larger.
            let tries = (0..27).map(|k| {
                let mut next = best;
                (0..3).for_each(|i| next[i] *= step.powi(k / 3i32.pow(i as u32) % 3 - 1));
                (sum(next), next)
            });
            match tries.min_by(|a, b| a.0.total_cmp(&b.0)) {
                Some((misfit, next)) if misfit < least => (least, best) = (misfit, next),
                _ => step = step.sqrt(),
            }
        }
        let Card { wait_clocks, overlap, launch, .. } = H100_MEASURED;
        let stated = sum([wait_clocks, overlap, launch]);
        assert!(stated <= 1.002 * least, "{best:?} has a misfit of {least}, the stated constants {stated}");
        // Nor are other constants as good.
        for (i, factor) in (0..3).flat_map(|i| [(i, 0.9), (i, 1.1)]) {
            let mut other = best;
            other[i] *= factor;
            assert!(sum(other) > 1.002 * least, "{other:?}");
        }
    }

    /// The table of errors in the documentation is the one that the counts give.
    #[test]
    fn the_documentation_states_the_errors() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance.md");
        let text = std::fs::read_to_string(path).expect("docs/performance.md");
        let table = table(&H100_MEASURED);
        assert!(text.contains(&table), "docs/performance.md has another table than\n{table}");
    }

    /// But for the sum of the partial gradients, of which more rows may have fewer.
    #[test]
    fn more_rows_are_never_faster() {
        let counts = counts();
        for timed in timed() {
            let mut before = 0.0;
            // Also about full launches.
            let mut rows: Vec<u64> = (0..40).map(|k| (100.0 * 1.25f64.powi(k)) as u64).collect();
            rows.extend((80..100).map(|k| 128 * k));
            rows.sort_unstable();
            for rows in rows {
                let more = Timed { rows, ..timed.clone() };
                let launches = more.launches(&counts).expect("counts");
                let seconds: f64 = (launches.iter().filter(|launch| !launch.1.starts_with("gather_gradient")))
                    .map(|(n, _, launch)| *n as f64 * launch.time(&H100_MEASURED).seconds)
                    .sum();
                // Counts are rounded when they are scaled.
                assert!(seconds >= before * (1.0 - 1e-5), "{} {}: {rows} rows", timed.workload, timed.precision);
                before = seconds;
            }
        }
    }

    /// The model is never below the least time by the rates that the vendor states.
    #[test]
    fn the_model_is_above_the_bound() {
        let counts = counts();
        for timed in timed() {
            for (_, kernel, launch) in timed.launches(&counts).expect("counts") {
                let (unit, bound) = busiest(&super::super::bounds(&launch.counters, &H100)).expect("units");
                let modelled = launch.time(&H100_MEASURED).seconds;
                assert!(modelled >= bound, "{kernel}: {modelled} s, but {unit:?} needs {bound} s");
            }
        }
    }

    /// A layer of four takes at least an eighth of the time of its sweep more, and not twice it.
    #[test]
    fn one_more_layer_costs() {
        let counts = counts();
        for timed in timed().iter().filter(|timed| timed.workload == "hydrogen") {
            for (_, kernel, launch) in timed.launches(&counts).expect("counts") {
                if !kernel.starts_with("sweep") {
                    continue;
                }
                let deeper = Launch { counters: launch.counters.scaled(1.25), ..launch.clone() };
                let [now, then] = [&launch, &deeper].map(|launch| launch.time(&H100_MEASURED).seconds);
                assert!(then > 1.125 * now && then < 2.0 * now, "{kernel}: {now} s, then {then} s");
            }
        }
    }
}
