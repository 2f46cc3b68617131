//! A value in the wrong field of an argument block is noticed. Rust refuses one of another type;
//! fields of equal type are swapped here on their way to the device (and on their way back), pair
//! by pair, and the results must no longer be the CPU's.
//!
//! A fault on the device ends the process, so swaps are made in children, which are this program
//! again: see [`child`]. All swaps take minutes, so the tests make one of each block, and the rest
//! on request (`-- --ignored swapped_fields`).

use std::collections::HashMap;
use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::CudaEngine;
use super::abi::{FieldLayout, Layout, layouts};
use super::draw::tests::{grouped, path, unbalanced};
use super::driver::TAMPER;
use crate::data::draw_gaussian;
use crate::density_path::{Interpolant, TimeMoments, TimeRule};
use crate::engine::cpu::CpuEngine;
use crate::engine::testing::optimizer;
use crate::engine::{
    Batch, Bend, Engine, Estimator, LossGradient, NetworkState, Optimizer, StepRecord, TrainState, Training,
};
use crate::error::Result;
use crate::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use crate::laplacian::{Laplacian, LaplacianRule};
use crate::model::{Architecture, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use crate::objective::{Objective, SigmaSchedule, TimeWeight};
use crate::precision::Precision;
use crate::rng::Stream;

/// Blocks whose fields the host neither fills nor reads one by one.
const NOT_BY_FIELD: [(&str, &str); 6] = [
    ("RowBuffers", "addresses go by the offsets in `bytes_of_one`, each with its size: see `workspace.rs`"),
    ("StepSizes", "written by one kernel and read by another"),
    ("TileSums", "written by one kernel and read by another"),
    ("SliceParams", "several ranks have it, and no case here: see `tests/cuda/ranks.rs`"),
    ("UnitsParams", "of points that are on the device, as no case here has: see `python/tests/gpu_dlpack.py`"),
    ("PlaceParams", "likewise"),
];

/// Pairs of fields whose swap these cases cannot show.
const NOT_HERE: [(&str, [&str; 2], &str); 8] = [
    ("CarriedParams", ["of_layer", "of_kind"], "no fault: units are numbered by layer first, then by kind"),
    ("LayerParams", ["bias", "offset"], "equal: both count the padded outputs of the maps before"),
    ("StepState", ["halted", "good_steps"], "good steps count in f16 alone: see `step/tests.rs`"),
    ("StepState", ["apply", "good_steps"], "likewise"),
    ("Part", ["first_tile", "first_of_batch"], "equal, unless ranks divide the batch: see `tests/cuda/ranks.rs`"),
    ("BatchParams", ["log2_shards", "log2_own"], "likewise"),
    ("GatheredParams", ["log2_shards", "log2_own"], "likewise"),
    ("GatheredParams", ["n_tiles", "n_interior_tiles"], "not read, unless ranks do"),
];

/// A pair of fields.
#[derive(Clone, Copy)]
struct Swap {
    block: &'static str,
    fields: [&'static str; 2],
    offsets: [usize; 2],
    size: usize,
}

impl Swap {
    fn name(&self) -> String {
        format!("{}: {}, {}", self.block, self.fields[0], self.fields[1])
    }
}

/// All pairs of fields of equal type.
fn swaps() -> Vec<Swap> {
    let mut swaps = Vec::new();
    for Layout { name, fields, .. } in layouts() {
        if NOT_BY_FIELD.iter().any(|(block, _)| *block == name) {
            continue;
        }
        for (i, first) in fields.iter().enumerate() {
            for second in fields[..i].iter() {
                let is_padding = [first, second].iter().any(|field| field.name == "unused");
                let pair = [second.name, first.name];
                let is_excused = NOT_HERE.iter().any(|(block, fields, _)| (*block, *fields) == (name, pair));
                if first.of_type == second.of_type && !is_padding && !is_excused {
                    swaps.push(Swap {
                        block: name,
                        fields: [second.name, first.name],
                        offsets: [second.offset, first.offset],
                        size: first.size,
                    });
                }
            }
        }
    }
    swaps
}

/// The swap that is made now.
static SWAP: Mutex<Option<Swap>> = Mutex::new(None);

fn swap_in_data(of_type: &str, bytes: &mut [u8]) {
    static LAYOUTS: OnceLock<HashMap<&str, Layout>> = OnceLock::new();
    let layouts = LAYOUTS.get_or_init(|| layouts().into_iter().map(|layout| (layout.name, layout)).collect());
    let swap = *SWAP.lock().expect("unharmed");
    if let (Some(swap), Some(name)) = (swap, of_type.rsplit("::").next()) {
        swap_within(layouts, name, bytes, &swap);
    }
}

/// Swaps in a block of type `name` and in all blocks that it contains.
fn swap_within(layouts: &HashMap<&str, Layout>, name: &str, bytes: &mut [u8], swap: &Swap) {
    let Some(Layout { fields, .. }) = layouts.get(name) else { return };
    if name == swap.block {
        let [low, high] = swap.offsets;
        let (before, after) = bytes.split_at_mut(high);
        before[low..low + swap.size].swap_with_slice(&mut after[..swap.size]);
    }
    for &FieldLayout { declared, offset, size, .. } in fields {
        let element = declared.trim_start_matches('[').split(';').next().unwrap_or_default().trim();
        if let Some(Layout { size: of_element, .. }) = layouts.get(element) {
            let elements = bytes[offset..offset + size].chunks_exact_mut(*of_element);
            elements.for_each(|bytes| swap_within(layouts, element, bytes, swap));
        }
    }
}

/// Results of some work by name, as vectors that are compared by their norms.
type Results = Vec<(&'static str, Vec<f64>)>;

/// Small work of an engine. All of it together uses every field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Steps on a learned path.
    Learned,
    /// Steps on a spline between samples paired with masses, with probes and with times that follow
    /// the integrand.
    Paired,
    /// Steps of a narrow network from noise, without growth.
    Generative,
    /// Steps of the weak form, of rows under several conditions.
    Weak,
    /// Loss and gradient of given rows.
    Gradient,
    /// Particles with noise and weights.
    Noise,
    /// Particles with error control, weights and densities.
    Density,
    /// A particle that is lost.
    Lost,
    /// A tolerance that no step meets.
    Tolerance,
}

const CASES: [Case; 9] = [
    Case::Learned,
    Case::Paired,
    Case::Generative,
    Case::Weak,
    Case::Gradient,
    Case::Noise,
    Case::Density,
    Case::Lost,
    Case::Tolerance,
];

impl Case {
    fn run(self, engine: &dyn Engine) -> Result<Results> {
        match self {
            Case::Learned | Case::Paired | Case::Generative | Case::Weak => self.steps(engine),
            Case::Gradient => self.gradient(engine),
            Case::Noise | Case::Density => self.particles(engine),
            Case::Lost | Case::Tolerance => Ok(self.failure(engine)),
        }
    }

    fn training(self) -> Training {
        const DIM: usize = 5;
        let (interpolant, hidden, estimator): (_, &[usize], _) = match self {
            Case::Learned => (Interpolant::Learned, &[65, 7], Estimator::Action { centering: false }),
            Case::Paired => (Interpolant::Spline, &[65], Estimator::Action { centering: true }),
            Case::Generative => (Interpolant::GenerativeLinear, &[19], Estimator::Regression),
            _ => (Interpolant::Linear, &[33, 12], Estimator::Weak { intervals: 3 }),
        };
        let (paired, generative) = (self == Case::Paired, self == Case::Generative);
        let path = path(interpolant, DIM);
        let path = if paired { unbalanced(path) } else { path };
        let coefficients = vec![1.0, -0.5, 0.25];
        let groups = (self == Case::Weak).then(|| grouped(|_| path.clone()).groups).flatten();
        let architecture = Architecture {
            conditions: if groups.is_some() { 2 } else { 0 },
            head: if generative { Head::Scalar } else { Head::Quadratic },
            time_embedding: TimeEmbedding::Fourier { frequencies: vec![0.5, 1.25] },
            ..Architecture::new(DIM, hidden)
        };
        Training {
            objective: Objective {
                sigma: if paired { 0.8 } else { 0.0 },
                sigma_schedule: if paired { SigmaSchedule::OneMinusT } else { SigmaSchedule::Constant },
                growth: if generative { 0.0 } else { 0.3 },
                cost_exponent: if generative { 2.0 } else { 3.0 },
                time_weight: if generative { TimeWeight::Constant } else { TimeWeight::Polynomial { coefficients } },
            },
            bend: (self == Case::Learned).then(|| Bend::new(&architecture, [13], 0.3)),
            estimator,
            time_rule: if paired { TimeRule::Importance } else { TimeRule::LowDiscrepancy },
            laplacian: Laplacian { rule: LaplacianRule::Rademacher, n_probes: 2 },
            n_interior: 167,
            n_boundary: 131,
            optimizer: Optimizer { clip_norm: Some(0.05), ema_decay: 0.2, ..optimizer() },
            seed: 7,
            groups,
            ..Training::new(architecture, path)
        }
    }

    fn steps(self, engine: &dyn Engine) -> Result<Results> {
        let training = self.training();
        let mut moments = TimeMoments::default();
        (0..500).for_each(|i| moments.add_row(f64::from(i) / 500.0, 1.0 + f64::from(i % 7)));
        let start = |architecture: &Architecture| NetworkState {
            moment1: initial_parameters(architecture, 2).iter().map(|p| 1e-3 * p).collect(),
            moment2: initial_parameters(architecture, 3).iter().map(|p| 1e-5 * p * p).collect(),
            ema: initial_parameters(architecture, 4),
            ..NetworkState::initial(initial_parameters(architecture, 1))
        };
        let state = TrainState {
            step: 5,
            time_moments: moments.to_vec(),
            bend: training.bend.as_ref().map(|bend| start(&bend.architecture)),
            action: start(&training.architecture),
            ..TrainState::initial(Vec::new())
        };
        let mut trainer = engine.trainer(training, state)?;
        let mut records: Vec<StepRecord> = Vec::new();
        trainer.steps(3, &mut records)?;
        let TrainState { step, action, bend, time_moments, .. } = trainer.state()?;
        let column = |of: fn(&StepRecord) -> f64| records.iter().map(of).collect();
        let mut results: Results = vec![
            ("steps", vec![step as f64]),
            ("steps of the records", column(|record| record.step as f64)),
            ("loss", column(|record| record.loss)),
            ("its term at the start", column(|record| record.boundary0)),
            ("its term at the end", column(|record| record.boundary1)),
            ("its term between", column(|record| record.interior)),
            ("kinetic energy", column(|record| record.kinetic)),
            ("norm", column(|record| record.gradient_norm)),
            ("learning rate", column(|record| record.learning_rate)),
            ("moments of times", wide(&time_moments)),
        ];
        for network in [Some(action), bend].into_iter().flatten() {
            results.push(("parameters", wide(&network.parameters)));
            results.push(("their average", wide(&network.ema)));
            results.push(("first moment", wide(&network.moment1)));
            results.push(("second moment", wide(&network.moment2)));
        }
        Ok(results)
    }

    fn gradient(self, engine: &dyn Engine) -> Result<Results> {
        let model = self.model(0.0);
        let points = |n: usize, seed: u64| wide(&draw_gaussian(n, 5, &mut Stream::of_normals(seed, 5)));
        let number = |i: usize| (i as f64 * 0.37).fract();
        let (n, n0, n1) = (133, 5, 12);
        let batch = Batch {
            x: points(n, 1),
            t: (0..n).map(|i| f64::from(number(i) as f32)).collect(),
            omega: (0..n).map(|i| 0.5 + number(i + 7)).collect(),
            d_omega: (0..n).map(|i| number(i + 13) - 0.5).collect(),
            x0: points(n0, 2),
            x1: points(n1, 3),
            omega0: 1.25,
            omega1: 0.75,
            ..Batch::default()
        };
        let LossGradient { loss, gradient, .. } = engine.loss_gradient(&model, &batch)?;
        Ok(vec![("loss", vec![loss]), ("gradient", gradient)])
    }

    fn particles(self, engine: &dyn Engine) -> Result<Results> {
        let (dim, has_noise) = (5, self == Case::Noise);
        // Step sizes belong to tiles, and one tile is the same on both engines.
        let n = if has_noise { 150 } else { 60 };
        let model = self.model(if has_noise { 0.6 } else { 0.0 });
        let plan = if has_noise {
            let control = StepControl::Fixed { steps: 6 };
            let noise = Noise { increments_per_step: 3, ..Noise::new(5) };
            Plan { noise, ..Plan::new(Method::StochasticHeun, control, 0.1, vec![0.4, 1.0]) }
        } else {
            let control = StepControl::Adaptive { rtol: 2e-4, atol: 2e-5 };
            let divergence = Laplacian { rule: LaplacianRule::Rademacher, n_probes: 2 };
            Plan { divergence, ..Plan::new(Method::Dopri5, control, 0.1, vec![0.4, 1.0]) }
        };
        let mut channels = [draw_gaussian(n, dim, &mut Stream::of_normals(9, dim)), vec![0.25; n], vec![0.5; n]];
        channels.iter_mut().for_each(|values| values.resize(2 * values.len(), 0.0));
        let [positions, log_weights, log_density] = &mut channels;
        let out = Trajectories {
            positions,
            log_weights: Some(log_weights),
            log_density: (!has_noise).then_some(&mut log_density[..]),
        };
        let report = engine.integrate(&model, &plan, out, &())?;
        let [positions, log_weights, log_density] = channels.map(|values| wide(&values));
        Ok(vec![
            ("positions", positions),
            ("log w", log_weights),
            ("log q", log_density),
            ("evaluations", vec![report.velocity_evaluations as f64]),
            ("accepted steps", vec![report.accepted_steps as f64]),
            ("rejected steps", vec![report.rejected_steps as f64]),
        ])
    }

    /// The length and the characters of an error's text.
    fn failure(self, engine: &dyn Engine) -> Results {
        let mut model = self.model(0.0);
        let save_at = vec![0.5, 1.0];
        let plan = if self == Case::Lost {
            model.parameters.iter_mut().for_each(|parameter| *parameter *= 1e20);
            Plan::new(Method::Euler, StepControl::Fixed { steps: 4 }, 0.0, save_at)
        } else {
            model.parameters[0] = f32::NAN;
            Plan::new(Method::Dopri5, StepControl::Adaptive { rtol: 1e-6, atol: 1e-7 }, 0.25, save_at)
        };
        let mut positions = draw_gaussian(150, 5, &mut Stream::of_normals(9, 5));
        positions.resize(2 * positions.len(), 0.0);
        let text = match engine.integrate(&model, &plan, Trajectories::of(&mut positions), &()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        vec![("length of the message", vec![text.len() as f64]), ("message", text.bytes().map(f64::from).collect())]
    }

    fn model(self, sigma: f64) -> Model {
        let architecture = Architecture {
            // The slopes of a scalar head are bounded, so that no particle runs away.
            head: if self == Case::Lost { Head::Quadratic } else { Head::Scalar },
            time_embedding: TimeEmbedding::Fourier { frequencies: vec![0.5, 1.25] },
            ..Architecture::new(5, [65])
        };
        let mut parameters = initial_parameters(&architecture, 11);
        parameters.iter_mut().enumerate().for_each(|(i, p)| *p += 0.2 * (i as f32 * 1.7).sin());
        let objective = Objective { sigma, growth: 0.3, cost_exponent: 2.5, ..Objective::default() };
        Model { architecture, coordinates: Coordinates::identity(5), objective, parameters, growth_head: None }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The first result that is not within rounding errors of the wanted one.
fn difference(got: &Results, want: &Results) -> Option<String> {
    // Rounding errors are 1e-5 at most; AdamW enlarges those of small gradients.
    const TOLERANCE: f64 = 1e-3;
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    got.iter().zip(want).find_map(|((name, got), (_, want))| {
        let error = norm(&mut got.iter().zip(want).map(|(got, want)| got - want));
        let is_near = got.len() == want.len() && error <= TOLERANCE * norm(&mut want.iter().copied());
        (!is_near).then(|| format!("{name} differ by {error:.1e}"))
    })
}

impl Swap {
    /// Blocks that only particles have.
    const OF_PARTICLES: [&str; 4] = ["TableauParams", "FixedStep", "IntegrationBlock", "IntegrateParams"];

    /// Work that uses the block.
    fn cases(&self) -> &'static [Case] {
        let (steps, particles) = CASES.split_at(5);
        if Self::OF_PARTICLES.contains(&self.block) { particles } else { steps }
    }
}

/// The first of `cases` whose results on the GPU are not the CPU's, and whether the device may be
/// lost by it.
fn noticed(engine: &CudaEngine, cases: &[Case]) -> Option<(String, bool)> {
    cases.iter().find_map(|case| {
        let want = case.run(&CpuEngine::new(1)).expect("the CPU does its work");
        match case.run(engine) {
            Ok(got) => difference(&got, &want).map(|difference| (format!("{case:?}: {difference}"), false)),
            Err(error) => Some((format!("{case:?}: {error}"), true)),
        }
    })
}

/// Environment variable of a child: the numbers of its swaps, separated by blanks.
const SWAPS: &str = "AMATCH_SWAPS";

/// The work of a child; does nothing in the test's own process. For each swap it prints a line with
/// the way that it was noticed.
#[test]
fn child() {
    let Ok(list) = std::env::var(SWAPS) else { return };
    let numbers: Vec<usize> = list.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    let engine = CudaEngine::new(0, Precision::F32).expect("a GPU");
    TAMPER.set(swap_in_data).expect("set once");
    let say = |number: usize, notice: &str| {
        let line = notice.lines().next().unwrap_or_default();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nswap {number} {line}").and_then(|()| out.flush()).expect("written");
    };
    let swaps = swaps();
    for number in numbers {
        let (done, result) = channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if result.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                say(number, "never ends");
                std::process::exit(0);
            }
        });
        *SWAP.lock().expect("unharmed") = Some(swaps[number]);
        let work = || noticed(&engine, swaps[number].cases());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        drop(done);
        watchdog.join().expect("no panic");
        match outcome {
            Ok(None) => say(number, "NOT NOTICED"),
            Ok(Some((notice, false))) => say(number, &notice),
            // The device may be lost.
            Ok(Some((notice, true))) => {
                say(number, &notice);
                return;
            }
            Err(_) => {
                say(number, "panic");
                return;
            }
        }
    }
}

/// How each of `numbers` was noticed.
fn notices(numbers: &[usize]) -> Vec<(usize, String)> {
    let mut notices: Vec<(usize, String)> = Vec::new();
    while notices.len() < numbers.len() {
        let left: Vec<String> = numbers[notices.len()..].iter().map(usize::to_string).collect();
        let output = Command::new(std::env::current_exe().expect("the test's own path"))
            .args(["--exact", "engine::cuda::swapped_fields::child", "--nocapture"])
            .env(SWAPS, left.join(" "))
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let lines = said.lines().filter_map(|line| line.strip_prefix("swap ")?.split_once(' '));
        let before = notices.len();
        notices.extend(lines.map(|(number, notice)| (number.parse().expect("a number"), notice.to_string())));
        for (number, notice) in &notices[before..] {
            eprintln!("{}: {notice}", swaps()[*number].name());
        }
        assert!(notices.len() > before, "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    notices
}

/// Makes the swaps that `is_made` selects by number; none may stay unnoticed.
fn check(is_made: impl Fn(usize, &Swap) -> bool) {
    let swaps = swaps();
    let numbers: Vec<usize> = (0..swaps.len()).filter(|&number| is_made(number, &swaps[number])).collect();
    // Neighbors are noticed in similar ways, so that halves of every second one take equal times.
    let half = |rest: usize| numbers.iter().copied().skip(rest).step_by(2).collect::<Vec<usize>>();
    let all = std::thread::scope(|scope| {
        let first = scope.spawn(|| notices(&half(0)));
        let second = notices(&half(1));
        [first.join().expect("no panic"), second].concat()
    });
    let missed: Vec<String> =
        all.iter().filter(|(_, notice)| notice == "NOT NOTICED").map(|(number, _)| swaps[*number].name()).collect();
    assert!(missed.is_empty(), "{} of {}:\n{}", missed.len(), all.len(), missed.join("\n"));
}

#[test]
fn work_is_that_of_the_cpu_with_every_field_in_its_place() {
    let engine = CudaEngine::new(0, Precision::F32).expect("a GPU");
    assert_eq!(noticed(&engine, &CASES), None);
}

#[test]
fn a_swap_of_fields_in_each_block_is_noticed() {
    let swaps = swaps();
    check(|number, swap| swaps.iter().position(|other| other.block == swap.block) == Some(number));
}

#[test]
#[ignore = "minutes: on request"]
fn every_swap_of_fields_of_equal_type_is_noticed() {
    check(|_, _| true);
}
