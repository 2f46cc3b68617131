//! Derivatives, loss and parameter gradient of the CUDA engine: against the f64 reference, with the
//! error of plain code with the same roundings as the measure; against differences of its own loss;
//! and against identities.

use crate::common::rounded::{self, Rounded, Rounding};
use crate::common::{Numbers, assert_close, batch, conditioned, embeddings, model, under_conditions};
use action_matching::Result;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::CudaEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Batch, Derivatives, Differentiate, LossGradient};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::{Objective, SigmaSchedule};
use action_matching::precision::Precision;

/// Tolerance of f32, the same as in tests/it/engines.rs for the CPU.
const GRADIENT: f64 = 2e-5;
const DIFFUSIVE_GRADIENT: f64 = 5e-5;
const VALUES: f64 = 1e-5;

fn engine(precision: Precision) -> CudaEngine {
    CudaEngine::new(0, precision).expect("a GPU or the virtual one")
}

fn norm<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>())
}

/// One tensor of a result, with the values of the reference and the twin.
struct Tensor<'a> {
    what: String,
    got: &'a [f64],
    want: &'a [f64],
    twin: &'a [f64],
    /// Sizes of the terms whose sums are the elements.
    terms: &'a [f64],
}

impl Tensor<'_> {
    /// Error as a fraction of `tolerance`, an error in norm; more than 1 is a failure.
    fn share(&self, tolerance: f64) -> f64 {
        let finite = self.got.len() == self.want.len() && self.got.iter().all(|v| v.is_finite());
        let error = if finite { distance(self.got, self.want) } else { f64::INFINITY };
        if error == 0.0 { 0.0 } else { error / tolerance }
    }

    fn complain(&self, tolerance: f64) -> String {
        let off = |i: usize| (self.got[i] - self.want[i]).abs();
        let n = self.got.len().min(self.want.len());
        let worst = (0..n).max_by(|&i, &j| off(i).total_cmp(&off(j))).unwrap_or(0);
        let [got, want, twin] = [self.got, self.want, self.twin].map(|values| values.get(worst).copied());
        format!(
            "{}: {:.2} times the tolerance {tolerance:.2e} (norm {:.2e}, the twin is off by {:.2e}); {} of {} values; worst at {worst}: \
             {got:?}, should be {want:?}, twin {twin:?}",
            self.what,
            self.share(tolerance),
            norm(self.want),
            distance(self.twin, self.want),
            self.got.len(),
            self.want.len(),
        )
    }
}

/// All tensors to compare, each weight and bias separately.
fn tensors<'a>(
    model: &Model,
    got: &'a LossGradient,
    want: &'a LossGradient,
    Rounded { values: twin, terms }: &'a Rounded,
) -> Vec<Tensor<'a>> {
    let pick = |what: String, of: &dyn Fn(&'a LossGradient) -> &'a [f64]| Tensor {
        what,
        got: of(got),
        want: of(want),
        twin: of(twin),
        terms: of(terms),
    };
    let mut all = vec![
        pick("loss".into(), &|of| std::slice::from_ref(&of.loss)),
        pick("s".into(), &|of| &of.interior.s),
        pick("∇s".into(), &|of| &of.interior.grad_s),
        pick("∂ₜs".into(), &|of| &of.interior.ds_dt),
        pick("Δs".into(), &|of| &of.laplacian),
    ];
    for (index, layer) in model.architecture.layers().iter().enumerate() {
        let (weight, bias) = (layer.weight..layer.bias, layer.bias..layer.bias + layer.n_out);
        all.push(pick(format!("∂L/∂W of map {index}"), &|of| of.gradient.get(weight.clone()).unwrap_or(&[])));
        all.push(pick(format!("∂L/∂b of map {index}"), &|of| of.gradient.get(bias.clone()).unwrap_or(&[])));
    }
    all
}

/// f32: the promised tolerance, relative to the norm of the tensor, or of its terms if these
/// cancel: a loss is a difference of large terms.
///
/// Lower precisions: twice the error of the twin, which rounds in the same places with another
/// order of sums. A single value may be right by chance, so half of one rounding of each term of
/// the sums in a tensor, and of the tensor itself, is allowed in addition.
fn tolerance(precision: Precision, diffusive: bool, tensor: &Tensor) -> f64 {
    if precision == Precision::F32 {
        let is_gradient = tensor.what.starts_with("∂L");
        let relative = match (is_gradient, diffusive) {
            (false, _) => VALUES,
            (true, false) => GRADIENT,
            (true, true) => DIFFUSIVE_GRADIENT,
        };
        return relative * norm(tensor.want).max(norm(tensor.terms));
    }
    let unit = Rounding::of(precision).unit;
    2.0 * distance(tensor.twin, tensor.want) + 0.5 * unit * norm(tensor.terms).max(norm(tensor.want))
}

/// Compares one batch; returns the problems, and the largest fraction of a tolerance.
pub(super) fn check(
    name: &str,
    engine: &dyn Differentiate,
    precision: Precision,
    model: &Model,
    batch: &Batch,
) -> (Vec<String>, f64) {
    let rounding = Rounding::of(precision);
    let (model, batch) = rounding.inputs(model, batch);
    let want = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates");
    let twin = rounded::loss_gradient(rounding, &model, &batch);
    let got = match engine.loss_gradient(&model, &batch) {
        Ok(got) => got,
        Err(error) => return (vec![format!("{name}: {error}")], f64::INFINITY),
    };
    let (mut problems, mut largest) = (Vec::new(), 0.0f64);
    for tensor in tensors(&model, &got, &want, &twin) {
        let tolerance = tolerance(precision, model.objective.sigma > 0.0, &tensor);
        let share = tensor.share(tolerance);
        largest = largest.max(share);
        if share > 1.0 {
            problems.push(format!("{name}, {}", tensor.complain(tolerance)));
        }
    }
    (problems, largest)
}

/// Reports all problems of all cases together, so that a common cause shows.
pub(super) fn report(precision: Precision, results: Vec<(Vec<String>, f64)>) {
    let n_cases = results.len();
    let largest = results.iter().fold(0.0, |largest: f64, result| largest.max(result.1));
    let problems: Vec<String> = results.into_iter().flat_map(|result| result.0).collect();
    eprintln!("{}: {n_cases} cases, at most {:.0} % of a tolerance", precision.name(), 100.0 * largest);
    assert!(problems.is_empty(), "{} problems in {n_cases} cases:\n{}", problems.len(), problems.join("\n"));
}

/// Dimension, hidden layers, interior rows and boundary rows: depths 1 to 4, rows around the tile
/// of 128, widths on both sides of 64; those at even indices are narrow.
const SHAPES: [(usize, &[usize], usize, [usize; 2]); 6] = [
    (1, &[37], 1, [1, 2]),
    (3, &[70, 9], 127, [129, 1]),
    (17, &[9, 37], 128, [3, 128]),
    (3, &[37, 70, 9], 201, [5, 127]),
    (1, &[9, 37, 5, 16], 129, [128, 7]),
    (17, &[70], 129, [1, 258]),
];

/// Each kind of dynamics with its number of probes: `Some(0)` is the exact Laplacian.
fn dynamics() -> [(Objective, Option<usize>); 8] {
    let plain = Objective::default();
    let all = Objective {
        sigma: 1.3,
        sigma_schedule: SigmaSchedule::OneMinusT,
        growth: 0.3,
        cost_exponent: 3.0,
        ..plain.clone()
    };
    [
        (plain.clone(), None),
        (Objective { growth: 0.7, ..plain.clone() }, None),
        (Objective { cost_exponent: 2.5, ..plain.clone() }, None),
        (Objective { growth: 0.3, cost_exponent: 3.0, ..plain.clone() }, None),
        (Objective { sigma: 0.8, ..plain.clone() }, Some(1)),
        (Objective { sigma: 0.8, ..plain }, Some(0)),
        (all.clone(), Some(3)),
        (all, Some(0)),
    ]
}

/// Conditions of their own in each row, in few columns and in more than all else, in every
/// precision: in f32 within the usual tolerance, else within what rounding of operands explains.
#[test]
fn gradients_under_conditions_agree() {
    let objective = Objective { sigma: 0.8, growth: 0.3, ..Objective::default() };
    for precision in Precision::ALL {
        let tolerance =
            if precision == Precision::F32 { DIFFUSIVE_GRADIENT } else { 40.0 * Rounding::of(precision).unit };
        let engine = engine(precision);
        for (hidden, n) in [(&[37, 29][..], 1), (&[9], 40), (&[70, 9], 3), (&[70], 67)] {
            let plain = model(5, hidden, Activation::Silu, Head::Quadratic, embeddings()[1].clone(), objective.clone());
            let (model, batch) = (conditioned(&plain, n), under_conditions(batch(5, 131, 127, 7), 5, n));
            let (model, batch) = Rounding::of(precision).inputs(&model, &batch);
            let want = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates");
            let got = engine.loss_gradient(&model, &batch).expect("evaluates");
            let first = model.architecture.layers()[0];
            let of_conditions = |gradient: &[f64]| -> Vec<f64> {
                gradient[..first.bias].chunks_exact(first.n_in).flat_map(|row| row[first.n_in - n..].to_vec()).collect()
            };
            let name = format!("{} {hidden:?} {n} inputs", precision.name());
            for (what, got, want) in [
                ("s", &got.interior.s, &want.interior.s),
                ("gradient", &got.gradient, &want.gradient),
                (
                    "gradient in the weights of conditions",
                    &of_conditions(&got.gradient),
                    &of_conditions(&want.gradient),
                ),
            ] {
                assert_close(&format!("{what}, {name}"), got, want, tolerance);
            }
            let error = engine.derivatives(&model, &batch.x, &batch.t).expect_err("which condition?").to_string();
            assert!(error.contains("`Model::under`"), "{error}");
        }
    }
}

const N_FACTORS: usize = 6;

/// Number of levels: precision, head, dynamics, activation, embedding, shape.
const LEVELS: [usize; N_FACTORS] = [4, 3, 8, 5, 2, 6];

/// Pairwise cover: every precision × head × dynamics, for narrow and wide networks, and every pair
/// of levels of two factors (remaining levels chosen greedily).
fn cases() -> Vec<[usize; N_FACTORS]> {
    let mut seen = std::collections::HashSet::new();
    let pairs = |case: [usize; N_FACTORS]| {
        (0..N_FACTORS).flat_map(move |i| (0..i).map(move |j| (i, j, case[i], case[j]))).collect::<Vec<_>>()
    };
    let mut cases = Vec::new();
    for index in 0..2 * LEVELS[0] * LEVELS[1] * LEVELS[2] {
        // Consecutive cases differ in all three factors.
        let (precision, head, dynamics) = (index % 4, index / 4 % 3, (index + index / 12) % 8);
        let mut best = ([0; N_FACTORS], -1);
        for choice in 0..LEVELS[3] * LEVELS[4] * LEVELS[5] {
            let choice = (choice + 7 * index) % (LEVELS[3] * LEVELS[4] * LEVELS[5]);
            let case = [precision, head, dynamics, choice % 5, choice / 5 % 2, choice / 10];
            if case[5] % 2 != index / (LEVELS[0] * LEVELS[1] * LEVELS[2]) {
                continue;
            }
            let new = pairs(case).iter().filter(|pair| !seen.contains(*pair)).count() as i32;
            if new > best.1 {
                best = (case, new);
            }
        }
        seen.extend(pairs(best.0));
        cases.push(best.0);
    }
    cases
}

#[test]
fn the_cases_cover_what_they_say() {
    let cases = cases();
    for i in 0..N_FACTORS {
        for j in 0..i {
            let found: std::collections::HashSet<_> = cases.iter().map(|case| (case[i], case[j])).collect();
            assert_eq!(found.len(), LEVELS[i] * LEVELS[j], "factors {i} and {j}");
        }
    }
    let kinds: std::collections::HashSet<_> =
        cases.iter().map(|case| [case[0], case[1], case[2], case[5] % 2]).collect();
    assert_eq!(kinds.len(), 2 * LEVELS[0] * LEVELS[1] * LEVELS[2]);
}

fn agrees_with_f64(which: usize, engine: &dyn Differentiate) {
    let precision = Precision::ALL[which];
    let own = cases().into_iter().filter(|case| case[0] == which);
    let results = own.map(|[_, head, kind, activation, embedding, shape]| {
        let (head, activation) = (Head::ALL[head], Activation::ALL[activation]);
        let (objective, n_probes) = dynamics()[kind].clone();
        let (dim, hidden, n, [n0, n1]) = SHAPES[shape];
        let probe = n_probes.filter(|&k| k > 0).map(|k| Numbers::new(19).take(k * n * dim));
        let name = format!(
            "{} {head:?} {activation:?} embedding {embedding} {objective:?} {n_probes:?} probes, dim {dim}, \
             {hidden:?}, {n} + {n0} + {n1} rows",
            precision.name()
        );
        let model = model(dim, hidden, activation, head, embeddings()[embedding].clone(), objective);
        check(&name, engine, precision, &model, &Batch { probe, ..batch(dim, n, n0, n1) })
    });
    report(precision, results.collect());
}

#[test]
fn f32_agrees_with_f64() {
    agrees_with_f64(0, &engine(Precision::F32).with_large_tiles());
}

#[test]
fn tf32_agrees_with_f64() {
    agrees_with_f64(1, &engine(Precision::Tf32).with_large_tiles());
}

#[test]
fn bf16_agrees_with_f64() {
    agrees_with_f64(2, &engine(Precision::Bf16).with_large_tiles());
}

#[test]
fn f16_agrees_with_f64() {
    agrees_with_f64(3, &engine(Precision::F16).with_large_tiles());
}

/// Stands in for an engine: the twin, with a spoiled result.
struct Spoilt(Rounding, fn(&mut LossGradient));

impl Differentiate for Spoilt {
    fn derivatives(&self, model: &Model, x: &[f64], t: &[f64]) -> Result<Derivatives> {
        Ok(rounded::derivatives(self.0, model, x, t))
    }

    fn loss_gradient(&self, model: &Model, batch: &Batch) -> Result<LossGradient> {
        let mut values = rounded::loss_gradient(self.0, model, batch).values;
        self.1(&mut values);
        Ok(values)
    }
}

/// Tests of the measure: the CPU passes as f32 everywhere and the twin as the type to which it
/// rounds, no less precise type passes for another, and each single fault in a result is noticed.
#[test]
fn the_measure_tells_right_from_wrong() {
    agrees_with_f64(0, &CpuEngine::new(1));
    let objective = Objective { sigma: 0.8, growth: 0.3, ..Objective::default() };
    let model = model(3, &[37, 20], Activation::Silu, Head::Quadratic, embeddings()[1].clone(), objective);
    let rows = Batch { probe: Some(Numbers::new(19).take(2 * 65 * 3)), ..batch(3, 65, 33, 20) };
    for precision in Precision::ALL {
        let (name, own) = (precision.name(), Rounding::of(precision));
        let passes = |engine: &dyn Differentiate| check(name, engine, precision, &model, &rows).0.is_empty();
        assert!(passes(&Spoilt(own, |_| {})), "{name}");
        if precision != Precision::Bf16 {
            assert!(!passes(&Spoilt(Rounding::of(Precision::Bf16), |_| {})), "bf16 passes as {name}");
        }
        let faults: [fn(&mut LossGradient); 11] = [
            |of| of.loss += 0.2,
            |of| of.loss = f64::NAN,
            |of| of.interior.s[3] += 0.5,
            |of| of.interior.grad_s.swap(7, 8),
            |of| of.interior.ds_dt[64] = 0.0,
            |of| of.laplacian.iter_mut().for_each(|v| *v *= 1.1),
            |of| of.laplacian.truncate(64),
            |of| of.gradient[5] += 0.2,
            |of| of.gradient.swap(40, 41),
            |of| of.gradient.iter_mut().for_each(|g| *g *= 1.05),
            |of| *of.gradient.last_mut().expect("a bias") = f64::INFINITY,
        ];
        for (index, fault) in faults.into_iter().enumerate() {
            assert!(!passes(&Spoilt(own, fault)), "nobody noticed fault {index} in {name}");
        }
    }
}

/// Inputs, layers and outputs of more than one tile of any product, the largest depth, and batches
/// without rows of one kind.
#[test]
fn limits_of_shape_agree_with_f64() {
    let shapes = [
        (66, &[130][..], [65, 3, 1], Head::Quadratic, 0.5),
        (130, &[20, 66][..], [5, 2, 3], Head::Dot, 0.0),
        (1, &[8; 16][..], [33, 3, 4], Head::Scalar, 0.0),
        (3, &[19, 16][..], [13, 0, 0], Head::Quadratic, 0.5),
        (3, &[19, 16][..], [0, 13, 5], Head::Scalar, 0.0),
        (3, &[19, 16][..], [0, 0, 2], Head::Dot, 0.5),
        (3, &[70][..], [0, 0, 0], Head::Dot, 0.5),
        // Wider than the part of an operand that shared memory can hold.
        (3, &[600, 20][..], [5, 3, 2], Head::Quadratic, 0.5),
        // Broad products: layers of both groups of columns, of one and of more than all; operands
        // that stay in shared memory before and after one that cannot; with probes and without.
        (3, &[150, 210, 37][..], [9, 130, 2], Head::Quadratic, 0.0),
        (2, &[140, 300, 200][..], [67, 22, 25], Head::Dot, 0.0),
        (2, &[200, 140][..], [6, 3, 4], Head::Scalar, 0.5),
    ];
    for (precision, tiles) in Precision::ALL.into_iter().flat_map(|precision| [(precision, "low"), (precision, "high")])
    {
        let engine = engine(precision);
        let engine = if tiles == "high" { engine.with_large_tiles() } else { engine };
        let results = shapes.into_iter().map(|(dim, hidden, [n, n0, n1], head, sigma)| {
            let rows = format!("{n} + {n0} + {n1} rows in {tiles} tiles");
            let name = format!("{} {head:?}, dim {dim}, {hidden:?}, {rows}", precision.name());
            let objective = Objective { sigma, ..Objective::default() };
            let probe = (sigma > 0.0).then(|| Numbers::new(29).take(n * dim));
            let model = model(dim, hidden, Activation::Silu, head, embeddings()[1].clone(), objective);
            check(&name, &engine, precision, &model, &Batch { probe, ..batch(dim, n, n0, n1) })
        });
        report(precision, results.collect());
    }
}

/// On the virtual GPU with the least shared memory of any real one (8.6, 8.9 and 12.0), which holds
/// fewer operands and sums, and with the most (9.0, 10.0), which holds all operands of broad
/// products.
#[test]
fn shared_memory_changes_nothing() {
    let names = ["derivatives::limits_of_shape_agree_with_f64", "training::a_wide_network_follows_the_cpu"];
    for kilobytes in [99, 227] {
        let output = std::process::Command::new(std::env::current_exe().expect("the test's own path"))
            .arg("--exact")
            .args(names)
            .env("VGPU_SHARED", (kilobytes << 10).to_string())
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("ok. 2 passed"),
            "{kilobytes} KiB: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn reverse_derivatives_agree_with_f64() {
    for precision in Precision::ALL {
        let (engine, rounding) = (engine(precision), Rounding::of(precision));
        for (index, head) in Head::ALL.into_iter().enumerate() {
            let embedding = embeddings()[index % 2].clone();
            let model = model(3, &[37, 70], Activation::ALL[index], head, embedding, Objective::default());
            let (model, rows) = rounding.inputs(&model, &batch(3, 67, 0, 0));
            let got = engine.derivatives(&model, &rows.x, &rows.t).expect("evaluates");
            let want = ReferenceEngine.derivatives(&model, &rows.x, &rows.t).expect("evaluates");
            let twin = rounded::derivatives(rounding, &model, &rows.x, &rows.t);
            for (what, got, want, twin) in [
                ("s", &got.s, &want.s, &twin.s),
                ("∇s", &got.grad_s, &want.grad_s, &twin.grad_s),
                ("∂ₜs", &got.ds_dt, &want.ds_dt, &twin.ds_dt),
            ] {
                let what = format!("{what}, {} {head:?}", precision.name());
                let tensor = Tensor { what, got, want, twin, terms: want };
                let tolerance = tolerance(precision, false, &tensor);
                assert!(tensor.share(tolerance) <= 1.0, "{}", tensor.complain(tolerance));
            }
            let none = engine.derivatives(&model, &[], &[]).expect("evaluates");
            assert!(none.s.is_empty() && none.grad_s.is_empty() && none.ds_dt.is_empty());
        }
    }
}

/// Slopes of the engine's own loss along random directions: a check that shares no formula with the
/// reference.
#[test]
fn adjoint_gradients_are_slopes_of_the_loss() {
    let engine = engine(Precision::F32);
    for (index, head) in Head::ALL.into_iter().enumerate() {
        // A smooth |p|^q: components of ∇s cross 0.
        let objective = Objective { growth: 0.4, sigma: [0.0, 0.8, 0.5][index], ..Objective::default() };
        let model = model(3, &[19, 11], Activation::Silu, head, embeddings()[1].clone(), objective);
        let rows = batch(3, 33, 5, 4);
        let gradient = engine.loss_gradient(&model, &rows).expect("evaluates").gradient;
        let mut numbers = Numbers::new(5);
        for _ in 0..2 {
            let mut direction = numbers.take(gradient.len());
            let length = norm(&direction);
            direction.iter_mut().for_each(|v| *v /= length);
            // Displacements of f32 parameters after rounding.
            let slope = |h: f64| {
                let moved = |sign: f64| {
                    let of =
                        model.parameters.iter().zip(&direction).map(|(&p, v)| (f64::from(p) + sign * h * v) as f32);
                    Model { parameters: of.collect(), ..model.clone() }
                };
                let [above, below] = [moved(1.0), moved(-1.0)];
                let [up, down] = [&above, &below].map(|at| engine.loss_gradient(at, &rows).expect("evaluates").loss);
                (up - down) / (2.0 * h)
            };
            let difference = (4.0 * slope(0.05) - slope(0.1)) / 3.0;
            let along: f64 = gradient.iter().zip(&direction).map(|(g, v)| g * v).sum();
            let error = (difference - along).abs() / norm(&gradient);
            assert!(
                error < 2e-4,
                "{head:?}: {along} along a direction, but the loss has slope {difference} (error {error:.1e})"
            );
        }
    }
}

/// s is linear in the last map θ of a scalar head, so L = A(θ) + B(θ, θ) and ⟨θ, ∂L/∂θ⟩ = L + B.
/// Here B is the mean of ω (½‖∇s‖² + ½λs²), computed from the derivatives.
#[test]
fn adjoint_gradient_of_the_last_map_satisfies_its_identity() {
    let objective = Objective { growth: 0.4, sigma: 0.7, ..Objective::default() };
    let model = model(3, &[37, 20], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, objective);
    let rows = Batch { probe: Some(Numbers::new(19).take(2 * 101 * 3)), ..batch(3, 101, 33, 65) };
    let LossGradient { loss, gradient, interior, .. } =
        engine(Precision::F32).loss_gradient(&model, &rows).expect("evaluates");
    let quadratic: f64 = (rows.omega.iter().zip(&interior.s).zip(interior.grad_s.chunks_exact(3)))
        .map(|((omega, s), p)| omega * 0.5 * (p.iter().map(|p| p * p).sum::<f64>() + 0.4 * s * s) / 101.0)
        .sum();
    let last = model.architecture.layers().last().expect("a map").weight..;
    let along: f64 = model.parameters[last.clone()].iter().zip(&gradient[last]).map(|(&p, g)| f64::from(p) * g).sum();
    let size = quadratic.max(loss.abs());
    assert!((along - loss - quadratic).abs() < 1e-5 * size, "{along}, not {loss} + {quadratic}");
}

/// The loss scale of f16 has the same effect for one row as for many: operands that leave the range
/// of f16 do not reach the result.
#[test]
fn single_rows_of_large_weight_stay_in_the_range_of_f16() {
    let precision = Precision::F16;
    let engine = engine(precision);
    let model = model(2, &[12], Activation::Silu, Head::Quadratic, TimeEmbedding::Raw, Objective::default());
    let rows = Batch { omega: vec![9.0], omega0: 30.0, ..batch(2, 1, 1, 1) };
    report(precision, vec![check("one row of large weight", &engine, precision, &model, &rows)]);
}

/// An offset of s does not change the loss if ω is constant, whatever the numbers of rows: the
/// gradient of the output's bias is 0 up to f32 rounding. 1 / n is not rounded to the type of
/// operands, alone or with them.
#[test]
fn the_loss_is_invariant_to_an_offset() {
    for precision in Precision::ALL {
        let engine = engine(precision);
        // Narrow and wide.
        for hidden in [&[37][..], &[70, 20]] {
            let model = model(3, hidden, Activation::Silu, Head::Scalar, TimeEmbedding::Raw, Objective::default());
            for [n, n0, n1] in [[61, 5, 13], [129, 300, 7], [3, 1, 131]] {
                let rows = Batch {
                    omega: vec![1.0; n],
                    d_omega: vec![0.0; n],
                    omega0: 1.0,
                    omega1: 1.0,
                    ..batch(3, n, n0, n1)
                };
                let gradient = engine.loss_gradient(&model, &rows).expect("evaluates").gradient;
                let of_offset = gradient[gradient.len() - 1];
                let name = format!("{}, {hidden:?}, {n} + {n0} + {n1} rows", precision.name());
                assert!(of_offset.abs() < 4e-6, "{name}: the gradient of the last bias is {of_offset:e}");
                assert!(norm(&gradient) > 0.1, "{name}");
            }
        }
    }
}

/// The gradient of a scalar head's last bias is the sum of the rows' weights of s, in f32 for every
/// type of operands: computed here from the engine's own s.
#[test]
fn adjoint_gradient_of_the_last_bias_is_not_rounded() {
    for precision in Precision::ALL {
        let engine = engine(precision);
        for hidden in [&[37][..], &[70, 20]] {
            let objective = Objective { growth: 0.4, ..Objective::default() };
            let model = model(3, hidden, Activation::Silu, Head::Scalar, TimeEmbedding::Raw, objective);
            let rows = Batch { omega0: 1.1, omega1: 0.7, ..batch(3, 301, 5, 131) };
            let LossGradient { gradient, interior, .. } = engine.loss_gradient(&model, &rows).expect("evaluates");
            let of_rows = (0..301).map(|row| rows.omega[row] * 0.4 * interior.s[row] + rows.d_omega[row]);
            let want = of_rows.sum::<f64>() / 301.0 + rows.omega0 - rows.omega1;
            let got = gradient[gradient.len() - 1];
            assert!((got - want).abs() < 4e-6, "{}, {hidden:?}: {got}, not {want}", precision.name());
        }
    }
}

/// Wrong lengths are refused before any kernel runs.
#[test]
fn wrong_lengths_are_errors() {
    let engine = engine(Precision::F32);
    let model = model(3, &[8], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    for (buffer, spoil) in [
        ("omega", (|batch: &mut Batch| batch.omega.truncate(3)) as fn(&mut Batch)),
        ("d_omega", |batch| batch.d_omega.push(0.0)),
        ("x:", |batch| batch.x.truncate(8)),
        ("x0", |batch| batch.x0.truncate(4)),
        ("x1", |batch| batch.x1.push(0.0)),
        ("probe", |batch| batch.probe = Some(vec![0.0; 7])),
    ] {
        let mut batch = batch(3, 4, 2, 2);
        spoil(&mut batch);
        let error = engine.loss_gradient(&model, &batch).expect_err("an error").to_string();
        assert!(error.starts_with(buffer), "{error}");
    }
    let error = engine.derivatives(&model, &[0.0; 5], &[0.5, 0.5]).expect_err("an error").to_string();
    assert!(error.starts_with("x:"), "{error}");
    let short = Model { parameters: vec![0.0; 3], ..model };
    let error = engine.derivatives(&short, &[0.0; 3], &[0.5]).expect_err("an error").to_string();
    assert!(error.starts_with("parameters"), "{error}");
}

/// Every call gives the same bits, also after other work.
#[test]
fn two_evaluations_have_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        let engine = engine(precision);
        let objective = Objective { sigma: 0.8, growth: 0.3, ..Objective::default() };
        let large = model(3, &[70, 9], Activation::Silu, Head::Quadratic, embeddings()[1].clone(), objective.clone());
        let small = model(1, &[5], Activation::Silu, Head::Scalar, TimeEmbedding::Raw, objective);
        let first = engine.loss_gradient(&large, &batch(3, 101, 65, 3)).expect("evaluates");
        engine.loss_gradient(&small, &batch(1, 7, 2, 0)).expect("evaluates");
        assert_eq!(first, engine.loss_gradient(&large, &batch(3, 101, 65, 3)).expect("evaluates"));
    }
}
