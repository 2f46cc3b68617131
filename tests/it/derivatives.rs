//! The f64 reference against central differences, for every head, activation, embedding and
//! dynamics.

use crate::common::{Numbers, assert_close, batch, compare, conditioned, embeddings, model, under_conditions};
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Batch, Differentiate};
use action_matching::model::{Activation, Head, Model};
use action_matching::objective::Objective;

/// The dynamics, and their compositions.
fn objectives() -> Vec<Objective> {
    let plain = Objective::default();
    vec![
        Objective { growth: 0.7, ..plain.clone() },
        Objective { cost_exponent: 3.0, ..plain.clone() },
        Objective { cost_exponent: 1.5, ..plain.clone() },
        Objective { sigma: 0.8, ..plain.clone() },
        Objective { sigma: 0.6, growth: 0.4, cost_exponent: 2.5, ..plain.clone() },
        plain,
    ]
}

fn every_combination(mut check: impl FnMut(&str, Model)) {
    for head in Head::ALL {
        for activation in Activation::ALL {
            for embedding in embeddings() {
                for objective in objectives() {
                    let name = format!("{head:?} {activation:?} {embedding:?} {objective:?}");
                    check(&name, model(3, &[5, 7, 4], activation, head, embedding.clone(), objective));
                }
            }
        }
    }
}

/// f′(0) by central differences with two Richardson steps: error of order h⁶.
fn slope(f: impl Fn(f64) -> f64, h: f64) -> f64 {
    let difference = |h: f64| (f(h) - f(-h)) / (2.0 * h);
    let (d1, d2, d4) = (difference(h), difference(h / 2.0), difference(h / 4.0));
    let (r1, r2) = ((4.0 * d2 - d1) / 3.0, (4.0 * d4 - d2) / 3.0);
    (16.0 * r2 - r1) / 15.0
}

#[test]
fn reverse_derivatives_of_s_agree_with_differences() {
    let (dim, n) = (3, 5);
    let rows = batch(dim, n, 0, 0);
    every_combination(|name, model| {
        let potential = |x: &[f64], t: &[f64]| ReferenceEngine.derivatives(&model, x, t).expect("evaluates").s;
        let all = ReferenceEngine.derivatives(&model, &rows.x, &rows.t).expect("evaluates");
        for row in 0..n {
            let (x, t) = (&rows.x[row * dim..][..dim], rows.t[row]);
            let moved = |i: usize, h: f64| {
                let mut x = x.to_vec();
                x[i] += h;
                potential(&x, &[t])[0]
            };
            let grad: Vec<f64> = (0..dim).map(|i| slope(|h| moved(i, h), 2e-2)).collect();
            assert_close(&format!("∇s, {name}"), &all.grad_s[row * dim..][..dim], &grad, 1e-6);
            let ds_dt = slope(|h| potential(x, &[t + h])[0], 1e-2);
            assert_close(&format!("∂s/∂t, {name}"), &[all.ds_dt[row]], &[ds_dt], 1e-6);
        }
    });
}

/// Compares every coordinate of the gradient; the error is relative to the whole gradient.
fn gradient_agrees_with_differences(name: &str, model: &Model, batch: &Batch) {
    let analytic = ReferenceEngine.loss_gradient(model, batch).expect("evaluates");
    // Steps of 2⁻⁸ to 2⁻¹⁰ are exact in f32 for parameters below 4 that were rounded to 2⁻²⁰.
    let along = |i: usize| {
        let loss = |h: f64| {
            let mut model = model.clone();
            model.parameters[i] += h as f32;
            ReferenceEngine.loss_gradient(&model, batch).expect("evaluates").loss
        };
        slope(loss, 2.0_f64.powi(-8))
    };
    let want: Vec<f64> = (0..analytic.gradient.len()).map(along).collect();
    assert_close(&format!("gradient, {name}"), &analytic.gradient, &want, 1e-8);
}

/// The `n` of `rows` with the largest minimum of |∂s/∂xᵢ|: |p|^q is smooth there, as differences
/// require.
fn away_from_kinks(model: &Model, rows: &Batch, n: usize) -> Batch {
    let dim = model.architecture.dim;
    let grad_s = ReferenceEngine.derivatives(model, &rows.x, &rows.t).expect("evaluates").grad_s;
    let smallest = |row: usize| grad_s[row * dim..][..dim].iter().fold(f64::INFINITY, |least, p| least.min(p.abs()));
    let mut order: Vec<usize> = (0..rows.t.len()).collect();
    order.sort_by(|&i, &j| smallest(j).total_cmp(&smallest(i)));
    order.truncate(n);
    let of_rows = |values: &[f64]| order.iter().map(|&row| values[row]).collect();
    Batch {
        x: order.iter().flat_map(|&row| rows.x[row * dim..][..dim].iter().copied()).collect(),
        t: of_rows(&rows.t),
        omega: of_rows(&rows.omega),
        d_omega: of_rows(&rows.d_omega),
        ..rows.clone()
    }
}

#[test]
fn adjoint_gradients_of_the_loss_agree_with_differences() {
    let (dim, n) = (3, 4);
    let candidates = batch(dim, 61, 3, 2);
    let probe = Numbers::new(19).take(2 * n * dim);
    every_combination(|name, mut model| {
        for parameter in &mut model.parameters {
            *parameter = (*parameter * 1_048_576.0).round() / 1_048_576.0;
        }
        let rows = away_from_kinks(&model, &candidates, n);
        gradient_agrees_with_differences(name, &model, &rows);
        if model.objective.sigma > 0.0 {
            gradient_agrees_with_differences(name, &model, &Batch { probe: Some(probe.clone()), ..rows });
        }
    });
}

/// With another condition in each row, of every dynamics: the weights of the condition inputs too.
#[test]
fn adjoint_gradients_under_conditions_agree_with_differences() {
    let (dim, n) = (3, 4);
    let probe = Numbers::new(19).take(2 * n * dim);
    for head in Head::ALL {
        for (objective, embedding) in objectives().into_iter().zip(embeddings().into_iter().cycle()) {
            if objective.cost_exponent != 2.0 {
                continue; // kinks, and conditions know nothing of the cost
            }
            let name = format!("{head:?} {embedding:?} {objective:?}");
            let mut model = conditioned(&model(dim, &[5, 4], Activation::Tanh, head, embedding, objective), 3);
            for parameter in &mut model.parameters {
                *parameter = (*parameter * 1_048_576.0).round() / 1_048_576.0;
            }
            let rows = under_conditions(batch(dim, n, 3, 2), dim, 3);
            gradient_agrees_with_differences(&name, &model, &rows);
            if model.objective.sigma > 0.0 {
                gradient_agrees_with_differences(&name, &model, &Batch { probe: Some(probe.clone()), ..rows });
            }
        }
    }
}

/// The exact Laplacian is the sum of second differences of s.
#[test]
fn tangent_laplacians_agree_with_differences() {
    let (dim, n) = (3, 4);
    let rows = batch(dim, n, 0, 0);
    every_combination(|name, model| {
        if model.objective.sigma == 0.0 {
            return;
        }
        let all = ReferenceEngine.loss_gradient(&model, &rows).expect("evaluates");
        let gradient = |x: &[f64], t: f64| ReferenceEngine.derivatives(&model, x, &[t]).expect("evaluates").grad_s;
        let want: Vec<f64> = (0..n)
            .map(|row| {
                let moved = |i: usize, h: f64| {
                    let mut x = rows.x[row * dim..][..dim].to_vec();
                    x[i] += h;
                    gradient(&x, rows.t[row])[i]
                };
                (0..dim).map(|i| slope(|h| moved(i, h), 2e-2)).sum()
            })
            .collect();
        assert_close(&format!("Δs, {name}"), &all.laplacian, &want, 1e-8);
    });
}

#[test]
fn the_comparator_fails_on_a_wrong_size_a_nan_a_swap_and_a_missing_tail() {
    let want = [1.0, 2.0, 3.0];
    assert!(compare("same", &want, &want, 0.0).is_ok());
    assert!(compare("large", &[1.0, 2.0, 3.01], &want, 1e-3).is_err());
    assert!(compare("small", &[1.0, 2.0, 2.99], &want, 1e-3).is_err());
    assert!(compare("nan", &[1.0, f64::NAN, 3.0], &want, 1e9).is_err());
    assert!(compare("nan wanted", &want, &[1.0, f64::NAN, 3.0], 1e9).is_err());
    assert!(compare("swap", &[2.0, 1.0, 3.0], &want, 1e-3).is_err());
    assert!(compare("tail", &want[..2], &want, 1e-3).is_err());
    assert!(compare("zero", &[0.0, 1e-30], &[0.0, 0.0], 1e-3).is_err());
}
