//! One test body for every engine: derivatives, loss and parameter gradient against the f64
//! reference.

use crate::common::{Numbers, assert_close, batch, conditioned, embeddings, model, under_conditions};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Batch, Differentiate};
use action_matching::model::{Activation, Head, Model, TimeEmbedding};
use action_matching::objective::{Objective, SigmaSchedule};

/// Tolerances for f32: those of gradients are promised, the others follow from them.
const GRADIENT: f64 = 2e-5;
const DIFFUSIVE_GRADIENT: f64 = 5e-5;
const VALUES: f64 = 1e-5;

fn agrees(name: &str, engine: &dyn Differentiate, model: &Model, batch: &Batch) {
    let got = engine.loss_gradient(model, batch).expect("evaluates");
    let want = ReferenceEngine.loss_gradient(model, batch).expect("evaluates");
    assert_close(&format!("s, {name}"), &got.interior.s, &want.interior.s, VALUES);
    assert_close(&format!("∇s, {name}"), &got.interior.grad_s, &want.interior.grad_s, VALUES);
    assert_close(&format!("∂s/∂t, {name}"), &got.interior.ds_dt, &want.interior.ds_dt, VALUES);
    assert_close(&format!("Δs, {name}"), &got.laplacian, &want.laplacian, VALUES);
    let tolerance = if model.objective.sigma > 0.0 { DIFFUSIVE_GRADIENT } else { GRADIENT };
    assert_close(&format!("gradient, {name}"), &got.gradient, &want.gradient, tolerance);
    // The loss is a difference of large terms, so its error is relative to their size.
    let terms = want.interior.s.iter().chain(&want.laplacian);
    let size = terms.fold(want.loss.abs(), |size, s| size.max(s.abs())).max(1.0);
    assert!((got.loss - want.loss).abs() <= VALUES * size, "loss, {name}: {}, not {}", got.loss, want.loss);
}

fn objectives() -> [Objective; 3] {
    [
        Objective::default(),
        Objective { growth: 0.7, ..Objective::default() },
        Objective { growth: 0.3, cost_exponent: 3.0, ..Objective::default() },
    ]
}

/// Three layers, and a number of rows that is no multiple of any tile, panel or register block.
#[test]
fn cpu_agrees_for_every_head_activation_embedding_and_dynamics() {
    let engine = CpuEngine::new(1);
    for head in Head::ALL {
        for activation in Activation::ALL {
            for embedding in embeddings() {
                for objective in objectives() {
                    let name = format!("{head:?} {activation:?} {embedding:?} {objective:?}");
                    let model = model(5, &[37, 53, 29], activation, head, embedding.clone(), objective);
                    agrees(&name, &engine, &model, &batch(5, 101, 97, 7));
                }
            }
        }
    }
}

/// The entropic dynamics alone and all dynamics together, with an exact Laplacian and with three
/// probes.
#[test]
fn cpu_agrees_with_diffusion_for_every_head_activation_and_embedding() {
    let engine = CpuEngine::new(1);
    let entropic = Objective { sigma: 0.8, ..Objective::default() };
    let all = Objective {
        sigma: 1.3,
        sigma_schedule: SigmaSchedule::OneMinusT,
        growth: 0.3,
        cost_exponent: 3.0,
        ..Objective::default()
    };
    for head in Head::ALL {
        for activation in Activation::ALL {
            for embedding in embeddings() {
                for objective in [&entropic, &all] {
                    for probe in [None, Some(Numbers::new(19).take(3 * 101 * 5))] {
                        let name = format!("{head:?} {activation:?} {embedding:?} {objective:?} {}", probe.is_some());
                        let model = model(5, &[37, 53, 29], activation, head, embedding.clone(), objective.clone());
                        agrees(&name, &engine, &model, &Batch { probe, ..batch(5, 101, 97, 7) });
                    }
                }
            }
        }
    }
}

#[test]
fn cpu_agrees_at_every_edge_of_rows() {
    let engine = CpuEngine::new(2);
    let model = model(3, &[19, 16], Activation::Silu, Head::Quadratic, TimeEmbedding::Raw, Objective::default());
    for n in [1, 5, 6, 7, 95, 96, 97, 191, 193] {
        agrees(&format!("{n} rows"), &engine, &model, &batch(3, n, 1, n));
    }
    agrees("no boundary", &engine, &model, &batch(3, 13, 0, 0));
    agrees("no interior", &engine, &model, &batch(3, 0, 13, 5));
    agrees("one end", &engine, &model, &batch(3, 0, 0, 2));
}

#[test]
fn cpu_agrees_at_the_limits_of_shape() {
    let engine = CpuEngine::new(1);
    let shapes: [(usize, &[usize], usize); 8] = [
        (1, &[1], 9),
        (1, &[8; 16], 33),
        (2, &[64, 64, 64], 101),
        (1024, &[33], 7),
        (3, &[1024, 17], 7),
        (17, &[15, 31, 33, 1, 16], 50),
        (50, &[257, 300], 20),
        (16, &[16, 512], 25),
    ];
    for (dim, hidden, n) in shapes {
        for head in Head::ALL {
            let name = format!("dim {dim}, hidden {hidden:?}, {head:?}");
            let model = model(dim, hidden, Activation::Silu, head, embeddings()[1].clone(), Objective::default());
            agrees(&name, &engine, &model, &batch(dim, n, 3, n));
            let model = Model { objective: Objective { sigma: 0.5, ..Objective::default() }, ..model };
            let probe = Some(Numbers::new(29).take(n * dim));
            agrees(&format!("{name}, σ"), &engine, &model, &Batch { probe, ..batch(dim, n, 3, n) });
        }
    }
}

/// Wrong lengths are refused before any kernel runs.
#[test]
fn wrong_lengths_are_errors() {
    let engine = CpuEngine::new(1);
    let model = model(3, &[8], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, Objective::default());
    for (buffer, spoil) in [
        ("omega", (|batch: &mut Batch| batch.omega.truncate(3)) as fn(&mut Batch)),
        ("d_omega", |batch| batch.d_omega.push(0.0)),
        ("x:", |batch| batch.x.truncate(8)),
        ("x0", |batch| batch.x0.truncate(4)),
        ("x1", |batch| batch.x1.push(0.0)),
    ] {
        let mut batch = batch(3, 4, 2, 2);
        spoil(&mut batch);
        for engine in [&engine as &dyn Differentiate, &ReferenceEngine] {
            let error = engine.loss_gradient(&model, &batch).expect_err("an error").to_string();
            assert!(error.starts_with(buffer), "{error}");
        }
    }
    let short = Model { parameters: vec![0.0; 3], ..model };
    let error = engine.derivatives(&short, &[0.0; 3], &[0.5]).expect_err("an error").to_string();
    assert!(error.starts_with("parameters"), "{error}");
}

/// Conditions of their own in each row, at widths and numbers of rows that are no multiples of a
/// tile, panel or register block.
#[test]
fn cpu_agrees_under_conditions() {
    let engine = CpuEngine::new(1);
    let diffusive = Objective { sigma: 0.8, growth: 0.3, ..Objective::default() };
    for head in Head::ALL {
        for (objective, embedding) in
            objectives().into_iter().chain([diffusive.clone()]).zip(embeddings().into_iter().cycle())
        {
            for n_inputs in [1, 3, 19] {
                let name = format!("{head:?} {objective:?}, {n_inputs} inputs");
                let plain = model(5, &[37, 29], Activation::Silu, head, embedding.clone(), objective.clone());
                let batch = under_conditions(batch(5, 101, 97, 7), 5, n_inputs);
                agrees(&name, &engine, &conditioned(&plain, n_inputs), &batch);
            }
        }
    }
}

/// One condition for all rows is a bias: the model under it has equal derivatives, and a batch of
/// that condition an equal loss.
#[test]
fn a_model_under_a_condition_is_the_model_with_that_input() {
    for (head, embedding) in Head::ALL.into_iter().zip(embeddings().into_iter().cycle()) {
        let whole = conditioned(&model(5, &[37, 29], Activation::Gelu, head, embedding, Objective::default()), 2);
        let inputs = [0.75f32, -1.25];
        let repeated = |n: usize| inputs.iter().map(|&c| f64::from(c)).cycle().take(2 * n).collect::<Vec<f64>>();
        let plain = batch(5, 101, 9, 7);
        let of_condition = Batch { c: repeated(101), c0: repeated(9), c1: repeated(7), ..plain.clone() };
        let under = whole.under_inputs(&inputs).expect("two inputs");
        assert_eq!(under.architecture.conditions, 0);
        let (got, want) =
            (ReferenceEngine.loss_gradient(&under, &plain), ReferenceEngine.loss_gradient(&whole, &of_condition));
        let (got, want) = (got.expect("evaluates"), want.expect("evaluates"));
        assert_close("s", &got.interior.s, &want.interior.s, 1e-6);
        assert_close("∇s", &got.interior.grad_s, &want.interior.grad_s, 1e-6);
        assert_close("∂s/∂t", &got.interior.ds_dt, &want.interior.ds_dt, 1e-6);
        assert!((got.loss - want.loss).abs() < 1e-6, "{}, not {}", got.loss, want.loss);
        assert!(whole.under_inputs(&[0.75]).is_err());

        // Without a choice of the condition there are no derivatives, and nothing moves.
        for engine in [&CpuEngine::new(1) as &dyn Differentiate, &ReferenceEngine] {
            let error = engine.derivatives(&whole, &plain.x, &plain.t).expect_err("which condition?").to_string();
            assert!(
                error.contains("has 2 condition inputs (choose their values first, with `Model::under`)"),
                "{error}"
            );
        }
    }
}
