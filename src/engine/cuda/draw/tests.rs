//! Every row that is drawn is that of the CPU engine.

use super::*;
use crate::data::{Snapshots, draw_gaussian};
use crate::density_path::End;
use crate::density_path::{
    DensityPath, Group, Groups, Interpolant, Knots, Spline, TimeDensity, TimeMoments, TimeRule, optimal_couplings,
    unbalanced_couplings, wfr_couplings,
};
use crate::engine::cpu::{Draw, PlainRows};
use crate::engine::cuda::abi::{PartKind, TILE_ROWS};
use crate::engine::cuda::batch::whole_batch;
use crate::engine::cuda::needs::{RowNeeds, Work};
use crate::engine::cuda::path::SampleShards;
use crate::engine::cuda::testing;
use crate::engine::cuda::workspace::Extent;
use crate::engine::{Bend, Estimator};
use crate::laplacian::{Laplacian, LaplacianRule};
use crate::model::{Architecture, TimeEmbedding};
use crate::objective::SigmaSchedule;
use crate::rng::Stream;
use crate::stage::Stage;

/// Tiles of a chunk here: batches have several.
const CHUNK_TILES: u32 = 2;
const STEP: u64 = (1 << 32) + 17;
const KNOTS: [Knots; 3] = [Knots::Clock, Knots::Rank, Knots::Distance];
const MASSES: [f64; 4] = [1.0, 1.3, 0.8, 1.7];

pub fn path(interpolant: Interpolant, dim: usize) -> DensityPath {
    let samples = draw_gaussian(150, dim, &mut Stream::of_normals(3, dim));
    let snapshots = if interpolant.is_generative() {
        Snapshots { dim, times: vec![1.0], offsets: vec![0, 150], samples, mass: Default::default() }
    } else {
        Snapshots {
            dim,
            times: vec![0.0, 0.25, 0.6, 1.0],
            offsets: vec![0, 30, 77, 113, 150],
            samples,
            mass: Default::default(),
        }
    };
    DensityPath::new(interpolant, snapshots)
}

pub fn coupled(mut path: DensityPath) -> DensityPath {
    path.couplings = Some(Arc::new(optimal_couplings(&path.snapshots, 100, 1, &Stage::default()).expect("couplings")));
    path
}

pub fn unbalanced(mut path: DensityPath) -> DensityPath {
    path.couplings = Some(Arc::new(
        unbalanced_couplings(&path.snapshots, &MASSES, 4.0, 100, 1, &Stage::default()).expect("couplings"),
    ));
    path.masses = Some(MASSES.to_vec());
    path
}

/// The same path where rows have weights: every fifth none, the last of a snapshot among them.
pub fn weighted(mut path: DensityPath) -> DensityPath {
    let snapshots = Arc::unwrap_or_clone(path.snapshots);
    let ends = snapshots.offsets.clone();
    let weight = |row: usize| if ends.contains(&(row + 1)) { 0.0 } else { [0.0, 1.0, 0.25, 7.0, 1.5][row % 5] };
    let weights = (0..ends[snapshots.times.len()]).map(weight).collect();
    path.snapshots = Arc::new(snapshots.weighted(weights).expect("weights"));
    path
}

/// Pairs that move and grow, some of them in place.
fn growing(mut path: DensityPath) -> DensityPath {
    let couplings = wfr_couplings(&path.snapshots, &MASSES, 4.0, 100, 1, &Stage::default()).expect("couplings");
    assert!(couplings.iter().any(|coupling| coupling.in_place()[0] > 0.0), "all pairs move");
    path.couplings = Some(Arc::new(couplings));
    path.masses = Some(MASSES.to_vec());
    path
}

pub fn training(path: DensityPath) -> Training {
    let time_embedding = TimeEmbedding::Fourier { frequencies: vec![0.5, 1.0, 7.25] };
    Training {
        bend: None,
        estimator: Estimator::Action { centering: false },
        n_interior: 150,
        n_boundary: 70,
        seed: 0x1234_5678_9abc_def0,
        ..Training::new(Architecture { time_embedding, ..Architecture::new(path.snapshots.dim, [32]) }, path)
    }
}

/// Three groups of unequal sizes, with two condition inputs; `path(k)` is that of group k, of which
/// the last has some of the times alone.
pub fn grouped(path: impl Fn(usize) -> DensityPath) -> Training {
    let group = |k: usize| {
        let path = path(k);
        Group { condition: vec![0.5 - k as f32, 0.25 * k as f32 * k as f32], path }
    };
    let groups = Groups::new((0..3).map(group).collect()).expect("groups");
    let training = training(groups.first().path.clone());
    let architecture = Architecture { conditions: 2, ..training.architecture.clone() };
    Training { architecture, groups: Some(groups), ..training }
}

/// `path` of group `k`, of fewer rows than that of the group before; group 2 begins and ends
/// inside.
fn of_group(k: usize, path: DensityPath) -> DensityPath {
    let all = &path.snapshots;
    let snapshots = (0..all.times.len()).map(|snapshot| {
        let rows = all.rows(snapshot);
        let n = all.n_rows(snapshot) / (k + 1);
        let time = if k == 2 { 0.3 + 0.4 * all.times[snapshot] } else { all.times[snapshot] };
        (time, rows[..n * all.dim].to_vec())
    });
    let snapshots = Snapshots::from_rows(all.dim, snapshots).expect("snapshots");
    DensityPath { snapshots: Arc::new(snapshots), ..path }
}

fn density() -> TimeDensity {
    let mut moments = TimeMoments::default();
    (0..1000).for_each(|i| {
        let t = (f64::from(i) + 0.5) / 1e3;
        moments.add_row(t, 1.0 + 4.0 * t * t);
    });
    TimeDensity::new(&moments)
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Rows for `network` with `n_probes` probes, which are 0 where they are not drawn.
fn rows(device: &Device, network: &Network, precision: Precision, n_probes: usize, work: Work, n_rows: usize) -> Rows {
    let needs = RowNeeds { n_probes, work, ..RowNeeds::default() };
    let mut rows = Rows::new(device, network, precision, needs, Extent::of_rows(n_rows)).expect("memory");
    if n_probes > 0 {
        let zeros = vec![0; n_probes * n_rows * network.in_width() * precision.bytes()];
        rows.write(device, |rows| rows.e_in, 0, &zeros).expect("written");
    }
    rows
}

/// The values drawn for the rows of one chunk.
struct Values {
    x: Vec<f32>,
    t: Vec<f32>,
    d_phi: Vec<f32>,
    velocity: Vec<f32>,
    weight: Vec<f32>,
    on_potential: Vec<f32>,
    sampling_weight: Vec<f32>,
    kappa: Vec<f32>,
    a: Vec<u8>,
    e_a: Vec<u8>,
}

fn read(device: &Device, network: &Network, rows: &Rows, n_rows: usize, precision: Precision) -> Values {
    let (dim, n_features) = (network.params.dim as usize, network.params.n_features as usize);
    let (n_probes, in_bytes) = (rows.needs().n_probes, network.in_width() * precision.bytes());
    let floats = |field, width: usize| rows.read(device, field, n_rows * width).expect("read");
    Values {
        x: floats(|rows| rows.x, dim),
        t: floats(|rows| rows.t, 1),
        d_phi: floats(|rows| rows.d_phi, n_features),
        velocity: floats(|rows| rows.velocity, dim),
        weight: floats(|rows| rows.weight, 1),
        on_potential: floats(|rows| rows.on_potential, 1),
        sampling_weight: floats(|rows| rows.sampling_weight, 1),
        kappa: if n_probes > 0 { floats(|rows| rows.kappa, 1) } else { Vec::new() },
        a: rows.read(device, |rows| rows.a_in, n_rows * in_bytes).expect("read"),
        e_a: rows.read(device, |rows| rows.e_in, n_probes * rows.n_rows() * in_bytes).unwrap_or_default(),
    }
}

/// One case at a time: they share the device.
struct Bench {
    device: Arc<Device>,
    state: Buffer<StepState>,
    density: Buffer<f64>,
}

impl Bench {
    fn new() -> Self {
        let device = testing::device();
        let state = device.upload(&[StepState { step: STEP, ..StepState::default() }]).expect("memory");
        let density = device.upload(&density().knots()).expect("memory");
        Bench { device, state, density }
    }

    /// The chunks of `training`'s batch of `n_tiles` tiles each.
    fn draw(&self, training: &Training, precision: Precision, n_tiles: u32) -> Vec<(BatchParams, Values)> {
        let path = DevicePath::new(&self.device, training).expect("a path");
        self.draw_path(training, &path, precision, n_tiles)
    }

    fn draw_path(
        &self,
        training: &Training,
        path: &DevicePath,
        precision: Precision,
        n_tiles: u32,
    ) -> Vec<(BatchParams, Values)> {
        let device = &self.device;
        let drawer = Drawer::new(device, training, &Network::new(&training.architecture), precision).expect("a drawer");
        let (network, n_probes) = (Network::new(&training.architecture), training.n_probes());
        let drawn = Drawn { path, state: &self.state, density: &self.density };
        let batch = whole_batch(training, Precision::F32).expect("a batch");
        (batch.chunks(n_tiles))
            .map(|chunk| {
                let n_rows = n_tiles as usize * TILE_ROWS;
                let rows = rows(device, &network, precision, n_probes, Work::Training, n_rows);
                drawer.draw(&rows, &chunk, drawn).expect("drawn");
                (chunk, read(device, &network, &rows, chunk.n_tiles as usize * TILE_ROWS, precision))
            })
            .collect()
    }

    #[track_caller]
    fn check(&self, what: &str, training: &Training) {
        self.check_against(what, training, self.draw(training, Precision::F32, CHUNK_TILES), &training.path);
    }

    /// Holds f32 chunks of CHUNK_TILES tiles against the host's rows on `path`.
    #[track_caller]
    fn check_against(&self, what: &str, training: &Training, chunks: Vec<(BatchParams, Values)>, path: &DensityPath) {
        let training = &Training { path: path.clone(), ..training.clone() };
        let density = density();
        let draw = Draw { training, step: STEP, density: &density };
        let (n_probes, dim) = (training.n_probes(), training.architecture.dim);
        assert!(chunks.len() > 1, "one chunk alone");
        let mut seen = 0;
        for part in whole_batch(training, Precision::F32).expect("a batch").parts() {
            let n_rows = part.n_rows as usize;
            let kind = part.kind.get().expect("a kind");
            let host = PlainRows::of(&training.architecture, n_probes, n_rows, |work| match kind {
                PartKind::Interior => draw.interior(0, n_rows, work),
                PartKind::Center => draw.center(0, n_rows, work),
                PartKind::CenterEnds => draw.center_ends(0, n_rows, work),
                PartKind::Boundary0 => draw.boundary(End::Start, 0, n_rows, work),
                PartKind::Boundary1 => draw.boundary(End::End, 0, n_rows, work),
                PartKind::WeakEnds0 | PartKind::WeakEnds1 => {
                    let Estimator::Weak { intervals } = training.estimator else { panic!("a part {kind:?}") };
                    let end = if kind == PartKind::WeakEnds1 { End::End } else { End::Start };
                    draw.weak_ends(intervals, end, 0, n_rows, work);
                }
            });
            let is_interior = kind == PartKind::Interior;
            for row in 0..part.n_tiles as usize * TILE_ROWS {
                let tile = part.first_tile as usize + row / TILE_ROWS;
                let (chunk, values) = &chunks[tile / CHUNK_TILES as usize];
                let at = (tile - chunk.first_tile as usize) * TILE_ROWS + row % TILE_ROWS;
                let what = format!("{what}, part {kind:?}, row {row}");
                self.check_row(&what, training, &host, (row < n_rows).then_some(row), is_interior, values, at);
                seen += 1;
                assert_eq!(values.x.len() / dim, chunk.n_tiles as usize * TILE_ROWS);
            }
        }
        assert_eq!(seen, chunks.iter().map(|(chunk, _)| chunk.n_tiles as usize * TILE_ROWS).sum::<usize>());
    }

    #[allow(clippy::too_many_arguments)]
    fn check_row(
        &self,
        what: &str,
        training: &Training,
        host: &PlainRows,
        row: Option<usize>,
        is_interior: bool,
        values: &Values,
        at: usize,
    ) {
        let architecture = &training.architecture;
        let (dim, n_inputs) = (architecture.dim, architecture.n_inputs());
        let features = architecture.time_embedding.width();
        let zeros = vec![0.0; n_inputs.max(dim)];
        let of = |list: &'_ [f32], width: usize| -> Vec<f32> {
            row.map_or(zeros[..width].to_vec(), |row| list[row * width..][..width].to_vec())
        };
        let exact = |name: &str, got: &[f32], want: &[f32]| {
            let bits = |list: &[f32]| list.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(got), bits(want), "{what}: {name} is {got:?}, not {want:?}");
        };
        let near = |name: &str, got: &[f32], want: &[f32]| {
            let size = want.iter().fold(1.0f32, |size, x| size.max(x.abs()));
            let is_near = got.iter().zip(want).all(|(got, want)| (got - want).abs() <= 3e-6 * size);
            assert!(is_near && got.len() == want.len(), "{what}: {name} is {got:?}, not {want:?}");
        };
        let couplings = training.paths().filter_map(|path| path.couplings.as_ref()).flat_map(|all| all.iter());
        let turns = couplings.into_iter().any(|coupling| !coupling.tables().turns.is_empty());
        // Normals and the arctangent of a turn are not the same to the last bit.
        let is_noisy = training.path.interpolant.is_generative() || turns;
        let point = |name: &str, got: &[f32], want: &[f32]| {
            if is_noisy { near(name, got, want) } else { exact(name, got, want) }
        };
        let input = of(&host.input, n_inputs);
        exact("t", &values.t[at..=at], &of(&host.t, 1));
        point("x", &values.x[at * dim..][..dim], &input[..dim]);
        point("velocity", &values.velocity[at * dim..][..dim], &of(&host.velocity, dim));
        near("d_phi", &values.d_phi[at * features..][..features], &of(&host.d_phi, features));
        exact("weight", &values.weight[at..=at], &of(&host.weight, 1));
        exact("on_potential", &values.on_potential[at..=at], &of(&host.on_potential, 1));
        exact("sampling_weight", &values.sampling_weight[at..=at], &of(&host.sampling_weight, 1));
        let in_width = Network::new(architecture).in_width();
        let a: &[f32] = &floats_of(&values.a[at * in_width * 4..][..in_width * 4]);
        exact("x at the input", &a[..dim], &values.x[at * dim..][..dim]);
        let conditions = n_inputs - architecture.conditions;
        near("the time features", &a[dim..conditions], &input[dim..conditions]);
        exact("the conditions", &a[conditions..n_inputs], &input[conditions..]);
        exact("the pads", &a[n_inputs..], &vec![0.0; in_width - n_inputs]);
        let n_probes = training.n_probes();
        if n_probes > 0 {
            let has_curvature = is_interior && row.is_some();
            let kappa = training.objective.kappa_at(f64::from(values.t[at])) * training.laplacian.probe_weight();
            exact("kappa", &values.kappa[at..=at], &[if has_curvature { kappa as f32 } else { 0.0 }]);
        }
        for probe in 0..n_probes {
            let start = (probe * values.e_a.len() / n_probes / 4) + at * in_width;
            let got: Vec<f32> = floats_of(&values.e_a[start * 4..][..in_width * 4]);
            let want = if is_interior { of(&host.probes[probe], dim) } else { vec![0.0; dim] };
            if training.laplacian.rule == LaplacianRule::Gaussian {
                near("probe", &got[..dim], &want);
            } else {
                exact("probe", &got[..dim], &want);
            }
            exact("the pads of a probe", &got[dim..], &vec![0.0; in_width - dim]);
        }
    }
}

#[test]
fn every_path_draws_the_rows_of_the_host() {
    let bench = Bench::new();
    use Interpolant::*;
    for interpolant in [Linear, Nearest, GenerativeLinear, GenerativeVp, GenerativeSqrt] {
        bench.check(&format!("{interpolant:?}"), &training(path(interpolant, 5)));
    }
    for interpolant in [Linear, Spline, Nearest] {
        let coupled = training(coupled(path(interpolant, 5)));
        bench.check(&format!("{interpolant:?}, coupled"), &coupled);
        let unbalanced = training(unbalanced(path(interpolant, 5)));
        assert_ne!(unbalanced.path.couplings, coupled.path.couplings);
        bench.check(&format!("{interpolant:?}, unbalanced"), &unbalanced);
    }
    for interpolant in [Linear, Spline, Nearest] {
        for estimator in [Estimator::Regression, Estimator::Weak { intervals: 3 }] {
            let training = Training { estimator, n_interior: 321, ..training(growing(path(interpolant, 5))) };
            bench.check(&format!("{interpolant:?}, growing, {estimator:?}"), &training);
        }
    }
    let mut masses = path(Linear, 3);
    masses.masses = Some(MASSES.to_vec());
    bench.check("masses alone", &training(masses));
}

/// Rows by their weights: without pairs, at the boundary, of noise, and under conditions.
#[test]
fn weighted_rows_are_those_of_the_host() {
    let bench = Bench::new();
    use Interpolant::*;
    let x = |training: &Training| {
        let chunks = bench.draw(training, Precision::F32, CHUNK_TILES);
        chunks.into_iter().map(|(_, values)| values.x).collect::<Vec<_>>()
    };
    for interpolant in [Linear, Nearest, GenerativeLinear] {
        let (plain, weighted) = (training(path(interpolant, 5)), training(weighted(path(interpolant, 5))));
        bench.check(&format!("{interpolant:?}, weighted"), &weighted);
        assert_ne!(x(&plain), x(&weighted), "{interpolant:?}: weights choose other rows");
    }
    for estimator in [Estimator::Action { centering: true }, Estimator::Weak { intervals: 3 }, Estimator::Regression] {
        let paired = Training { estimator, n_interior: 321, ..training(coupled(weighted(path(Linear, 5)))) };
        bench.check(&format!("weighted pairs, {estimator:?}"), &paired);
        let groups = grouped(|k| weighted(of_group(k, path(Linear, 5))));
        bench.check(&format!("weighted groups, {estimator:?}"), &Training { estimator, n_interior: 321, ..groups });
    }
}

/// Slopes of every kind of knots, at uneven times, within limits that bind and without; in
/// dimensions with fewer and more numbers than a warp has lanes.
#[test]
fn splines_are_those_of_the_host() {
    let bench = Bench::new();
    for (dim, knots) in [5, 67].into_iter().flat_map(|dim| KNOTS.map(|knots| (dim, knots))) {
        let drawn = |limit| {
            let mut path = path(Interpolant::Spline, dim);
            // Chords of unequal lengths, so that slopes are beyond a limit in any dimension.
            let snapshots = Arc::make_mut(&mut path.snapshots);
            let last = snapshots.offsets[snapshots.times.len() - 1] * dim;
            snapshots.samples[last..].iter_mut().for_each(|x| *x *= 20.0);
            let spline = training(DensityPath { spline: Spline { limit, knots }, ..coupled(path) });
            bench.check(&format!("{dim} {knots:?} {limit}"), &spline);
            let chunks = bench.draw(&spline, Precision::F32, CHUNK_TILES);
            chunks.into_iter().map(|(_, values)| (values.x, values.velocity)).collect::<Vec<_>>()
        };
        assert_ne!(drawn(1.0), drawn(1e6), "the limit binds nowhere: {dim} {knots:?}");
    }
    // No interval is beyond the only one.
    let snapshots = Snapshots {
        times: vec![0.0, 1.0],
        offsets: vec![0, 30, 150],
        ..(*path(Interpolant::Spline, 3).snapshots).clone()
    };
    bench.check("two snapshots", &training(coupled(DensityPath::spline(snapshots))));
}

#[test]
fn every_time_rule_visits_the_times_of_the_host() {
    let bench = Bench::new();
    for time_rule in [
        TimeRule::LowDiscrepancy,
        TimeRule::Uniform,
        TimeRule::Stratified,
        TimeRule::Importance,
        TimeRule::Trapezoid,
        TimeRule::Simpson,
        TimeRule::GaussLegendre,
    ] {
        let mut training = Training { time_rule, ..training(unbalanced(path(Interpolant::Spline, 3))) };
        training.objective.time_weight = TimeWeight::Polynomial { coefficients: vec![0.7, -1.3, 0.4, 2.0] };
        bench.check(&format!("{time_rule:?}"), &training);
        training.estimator = Estimator::Weak { intervals: 3 };
        bench.check(&format!("{time_rule:?}, weak"), &training);
    }
}

#[test]
fn every_estimator_weighs_rows_as_the_host() {
    let bench = Bench::new();
    for estimator in [
        Estimator::Action { centering: true },
        Estimator::Weak { intervals: 1 },
        Estimator::Weak { intervals: 4 },
        Estimator::Regression,
    ] {
        for time_weight in [
            TimeWeight::Constant,
            TimeWeight::OneMinusT,
            TimeWeight::Polynomial { coefficients: vec![0.7, -1.3, 0.4, 2.0] },
        ] {
            for path in [path(Interpolant::GenerativeVp, 4), unbalanced(path(Interpolant::Linear, 4))] {
                let mut training = Training { estimator, n_interior: 321, ..training(path) };
                training.objective.time_weight = time_weight.clone();
                training.architecture.time_embedding = TimeEmbedding::Raw;
                bench.check(&format!("{estimator:?}, {time_weight:?}"), &training);
            }
        }
    }
}

#[test]
fn probes_are_those_of_the_host() {
    let bench = Bench::new();
    for (rule, n_probes, dim) in [
        (LaplacianRule::Rademacher, 1, 5),
        (LaplacianRule::Rademacher, 3, 67),
        (LaplacianRule::Gaussian, 1, 5),
        (LaplacianRule::Gaussian, 3, 7),
        (LaplacianRule::Exact, 1, 6),
    ] {
        let mut training = training(path(Interpolant::Linear, dim));
        training.laplacian = Laplacian { rule, n_probes };
        training.objective.sigma = 0.7;
        training.estimator = Estimator::Action { centering: true };
        for schedule in [SigmaSchedule::Constant, SigmaSchedule::OneMinusT] {
            training.objective.sigma_schedule = schedule;
            bench.check(&format!("{rule:?}, {n_probes} probes, {schedule:?}"), &training);
        }
    }
}

/// Rows under several conditions: each of the group that the host chooses, at its times, with its
/// inputs.
#[test]
fn groups_draw_the_rows_of_the_host() {
    let bench = Bench::new();
    type Paths = fn(usize) -> DensityPath;
    let paths: [(&str, Paths); 4] = [
        ("linear", |k| of_group(k, path(Interpolant::Linear, 5))),
        ("spline", |k| coupled(of_group(k, path(Interpolant::Spline, 5)))),
        ("growing", |k| growing(of_group(k, path(Interpolant::Linear, 5)))),
        ("generative", |_| path(Interpolant::GenerativeVp, 5)),
    ];
    for (name, path) in paths {
        for estimator in
            [Estimator::Action { centering: true }, Estimator::Weak { intervals: 3 }, Estimator::Regression]
        {
            for time_rule in [TimeRule::LowDiscrepancy, TimeRule::Importance] {
                let mut training = Training { estimator, time_rule, n_interior: 321, ..grouped(path) };
                training.objective.time_weight = TimeWeight::Polynomial { coefficients: vec![0.7, -1.3, 0.4] };
                bench.check(&format!("{name}, {estimator:?}, {time_rule:?}"), &training);
            }
        }
    }
}

/// Narrow operands are the rounded f32 ones; all else is the same.
#[test]
fn operands_are_rounded_to_their_type() {
    let bench = Bench::new();
    let mut training = training(path(Interpolant::Linear, 5));
    training.objective.sigma = 0.5;
    training.laplacian = Laplacian { rule: LaplacianRule::Gaussian, n_probes: 2 };
    let wide = bench.draw(&training, Precision::F32, 3);
    for precision in [Precision::Tf32, Precision::Bf16, Precision::F16] {
        for ((_, narrow), (_, wide)) in bench.draw(&training, precision, 3).iter().zip(&wide) {
            for (got, want) in [(&narrow.a, &wide.a), (&narrow.e_a, &wide.e_a)] {
                let want: Vec<f32> = floats_of(want);
                assert!(*got == precision.encode(&want), "{precision:?}");
            }
            assert_eq!((&narrow.x, &narrow.t, &narrow.kappa), (&wide.x, &wide.t, &wide.kappa));
        }
    }
}

#[test]
fn pairs_of_a_learned_path_are_those_of_the_host() {
    let bench = Bench::new();
    for mut training in [
        training(coupled(path(Interpolant::Learned, 3))),
        grouped(|k| coupled(of_group(k, path(Interpolant::Learned, 3)))),
    ] {
        let bend = Bend::new(&training.architecture, vec![32], 1.0);
        training.bend = Some(bend.clone());
        bench.check("learned", &training);
        check_pairs(&bench, &training, &bend);
    }
}

fn check_pairs(bench: &Bench, training: &Training, bend: &Bend) {
    let device = &bench.device;
    let density = density();
    let draw = Draw { training, step: STEP, density: &density };
    let n = training.n_interior;
    let host = PlainRows::of(&bend.architecture, 0, n, |work| draw.bend_inputs(0, n, work));
    let network = Network::new(&bend.architecture);
    let (inputs, in_width) = (bend.architecture.n_inputs(), network.in_width());
    let path = DevicePath::new(device, training).expect("a path");
    for precision in Precision::ALL {
        let drawer = Drawer::new(device, training, &Network::new(&training.architecture), precision).expect("a drawer");
        // The second chunk ends with boundary tiles, the third has nothing else.
        for chunk in whole_batch(training, Precision::F32).expect("a batch").chunks(2) {
            let rows = rows(device, &network, precision, 0, Work::Bend, 2 * TILE_ROWS);
            let drawn = Drawn { path: &path, state: &bench.state, density: &bench.density };
            drawer.draw_bend(&rows, &chunk, drawn).expect("drawn");
            let n_rows = chunk.n_drawn_tiles() as usize * TILE_ROWS;
            let floats = |field, width: usize| -> Vec<f32> { rows.read(device, field, n_rows * width).expect("read") };
            let (x, t, weight) = (floats(|rows| rows.x, 6), floats(|rows| rows.t, 1), floats(|rows| rows.weight, 1));
            let a: Vec<u8> = rows.read(device, |rows| rows.a_in, n_rows * in_width * precision.bytes()).expect("read");
            for row in 0..n_rows {
                let index = chunk.first_tile as usize * TILE_ROWS + row;
                let of = |list: &[f32], width: usize| -> Vec<f32> {
                    if index < n { list[index * width..][..width].to_vec() } else { vec![0.0; width] }
                };
                let mut input = of(&host.input, inputs);
                assert_eq!(x[row * 6..][..6], input[..6], "row {index}");
                assert_eq!((vec![t[row]], vec![weight[row]]), (of(&host.t, 1), of(&host.weight, 1)), "row {index}");
                input.resize(in_width, 0.0);
                let bytes = precision.bytes();
                let (got, want) = (&a[row * in_width * bytes..][..6 * bytes], precision.encode(&input[..6]));
                assert!(got == want, "row {index}");
                if precision == Precision::F32 {
                    let got: Vec<f32> = floats_of(&a[row * in_width * 4..][..in_width * 4]);
                    let is_near = |(got, want): (&f32, &f32)| (got - want).abs() < 1e-6;
                    assert!(got.iter().zip(&input).all(is_near), "row {index}: {got:?}, not {input:?}");
                }
            }
        }
    }
}

/// A path in shards draws the host's rows of the shard that the step belongs to, from every
/// shard in turn.
#[test]
fn shards_take_turns() {
    let bench = Bench::new();
    for interpolant in [Interpolant::Linear, Interpolant::Nearest] {
        let training = training(path(interpolant, 3));
        let shards = || SampleShards::new(&training.path, 3, 25, 5).expect("shards");
        let all = &training.path.snapshots;
        let mut rows: Vec<Vec<f32>> = Vec::new();
        let mut path = DevicePath::in_shards(&bench.device, &training.path, shards(), 2).expect("a path");
        assert_eq!(path.steps_in_shard(1), Some(2), "at most 51 rows of a shard, 25 a step: 3 steps");
        for (step, shard) in [(2, 0), (3, 1), (6, 2), (8, 2), (9, 0), (10, 0), (15, 2)] {
            path.advance(step).expect("a shard");
            let resident = shards().snapshots(all, shard);
            let host = DensityPath { snapshots: Arc::new(resident.clone()), ..training.path.clone() };
            let chunks = bench.draw_path(&training, &path, Precision::F32, CHUNK_TILES);
            bench.check_against(&format!("{interpolant:?}, shard {shard}"), &training, chunks, &host);
            if step < 8 {
                rows.extend(resident.samples.chunks_exact(3).map(<[f32]>::to_vec));
            }
        }
        let mut whole: Vec<Vec<f32>> = all.samples.chunks_exact(3).map(<[f32]>::to_vec).collect();
        [&mut rows, &mut whole].into_iter().for_each(|rows| rows.sort_by(|a, b| a.partial_cmp(b).expect("finite")));
        assert_eq!(rows, whole, "every row is in one shard");
    }
}

/// In shards a row with a weight is as often as it says, to less than one, whichever rows of its
/// snapshot are on the device.
#[test]
fn shards_have_the_weights_of_their_rows() {
    let path = weighted(path(Interpolant::Linear, 3));
    let (all, n_shards) = (&path.snapshots, 3);
    let shards = SampleShards::new(&path, n_shards, 25, 5).expect("shards");
    let resident: Vec<Snapshots> = (0..n_shards).map(|shard| shards.snapshots(all, shard)).collect();
    assert!(resident.iter().all(|shard| shard.weights(0).is_none()), "the rows of a shard count alike");
    for k in 0..all.times.len() {
        for (row, weight) in all.rows(k).chunks_exact(3).zip(all.weights(k).expect("weights")) {
            let of_shard = |shard: &Snapshots| shard.rows(k).chunks_exact(3).filter(|other| *other == row).count();
            let count = resident.iter().map(of_shard).sum::<usize>() as f64;
            let wanted = weight * all.n_rows(k) as f64 / all.total(k);
            assert!((count - wanted).abs() < 1.0, "{count}, not {wanted}");
        }
    }
}

#[test]
fn shards_refuse_couplings_and_lend_few_rows_in_turn() {
    let message =
        SampleShards::new(&coupled(path(Interpolant::Linear, 2)), 2, 10, 1).expect_err("couplings").to_string();
    assert!(message.contains("objective.pairing") && message.contains("pair independently"), "{message}");
    let path = path(Interpolant::Linear, 2);
    let shards = SampleShards::new(&path, 40, 10, 1).expect("shards");
    assert!((0..40).all(|shard| {
        let resident = shards.snapshots(&path.snapshots, shard);
        (0..4).all(|k| resident.n_rows(k) > 0)
    }));
    assert_eq!(SampleShards::needed(&path.snapshots, 150 * 2 * 4 - 1), 3);
}

/// After a loss was lost nothing is drawn, and wrong sizes stop before the launch.
#[test]
fn halted_steps_and_wrong_sizes_draw_nothing() {
    let bench = Bench::new();
    let training = training(path(Interpolant::Linear, 3));
    let path = DevicePath::new(&bench.device, &training).expect("a path");
    let drawer =
        Drawer::new(&bench.device, &training, &Network::new(&training.architecture), Precision::F32).expect("a drawer");
    let network = Network::new(&training.architecture);
    let mut rows = rows(&bench.device, &network, Precision::F32, 0, Work::Training, 2 * TILE_ROWS);
    let batch = whole_batch(&training, Precision::F32).expect("a batch");
    let chunk = batch.chunks(2).next().expect("a chunk");
    let halted = bench.device.upload(&[StepState { halted: 1, ..StepState::default() }]).expect("memory");
    let before = [5.0f32; 2 * TILE_ROWS];
    rows.write(&bench.device, |rows| rows.t, 0, bytemuck::cast_slice(&before)).expect("written");
    drawer.draw(&rows, &chunk, Drawn { path: &path, state: &halted, density: &bench.density }).expect("launched");
    assert_eq!(rows.read::<f32>(&bench.device, |rows| rows.t, before.len()).expect("read"), before);
    let drawn = Drawn { path: &path, state: &bench.state, density: &bench.density };
    let message = drawer.draw(&rows, &batch, drawn).expect_err("too many rows").to_string();
    assert!(message.contains("rows"), "{message}");
    let short = Drawn { density: &bench.device.zeros::<f64>(3).expect("memory"), ..drawn };
    let message = drawer.draw(&rows, &chunk, short).expect_err("a short density").to_string();
    assert!(message.contains("density of times"), "{message}");
}
