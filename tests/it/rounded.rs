//! Tests of the comparison code for low precision: without rounding it is the f64 reference, and it
//! rounds as hardware does.

use crate::common::rounded::{self, Rounding};
use crate::common::{Numbers, assert_close, batch, embeddings, model};
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{Batch, Differentiate};
use action_matching::model::{Activation, Head};
use action_matching::objective::{Objective, SigmaSchedule};
use action_matching::precision::Precision;

fn objectives() -> [Objective; 5] {
    let plain = Objective::default();
    [
        Objective { growth: 0.7, ..plain.clone() },
        Objective { cost_exponent: 3.0, ..plain.clone() },
        Objective { sigma: 0.8, ..plain.clone() },
        Objective {
            sigma: 1.3,
            sigma_schedule: SigmaSchedule::OneMinusT,
            growth: 0.4,
            cost_exponent: 2.5,
            ..plain.clone()
        },
        plain,
    ]
}

#[test]
fn without_rounding_it_is_the_reference() {
    for head in Head::ALL {
        for activation in Activation::ALL {
            for embedding in embeddings() {
                for objective in objectives() {
                    for probe in [None, Some(Numbers::new(19).take(3 * 7 * 5))] {
                        let name = format!("{head:?} {activation:?} {embedding:?} {objective:?} {}", probe.is_some());
                        let model = model(5, &[11, 6, 9], activation, head, embedding.clone(), objective.clone());
                        let batch = Batch { probe, ..batch(5, 7, 3, 2) };
                        let want = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates");
                        for loss_scale in [1.0, 65536.0] {
                            let got =
                                rounded::loss_gradient(Rounding { loss_scale, ..Rounding::EXACT }, &model, &batch);
                            let got = got.values;
                            for (what, got, want) in [
                                ("loss", &vec![got.loss], &vec![want.loss]),
                                ("s", &got.interior.s, &want.interior.s),
                                ("∇s", &got.interior.grad_s, &want.interior.grad_s),
                                ("∂ₜs", &got.interior.ds_dt, &want.interior.ds_dt),
                                ("Δs", &got.laplacian, &want.laplacian),
                                ("gradient", &got.gradient, &want.gradient),
                            ] {
                                assert_close(&format!("{what}, {name}"), got, want, 1e-12);
                            }
                        }
                        let at = rounded::derivatives(Rounding::EXACT, &model, &batch.x, &batch.t);
                        assert_close(&format!("s, {name}"), &at.s, &want.interior.s, 1e-12);
                    }
                }
            }
        }
    }
}

/// For each type, values that distinguish it from the others, and from rounding in the other
/// direction.
#[test]
fn values_are_rounded_to_the_nearest() {
    let ulp = |bits: i32| 0.5_f64.powi(bits);
    for (precision, value, want) in [
        (Precision::F32, 1.0 + ulp(24) + ulp(40), 1.0 + ulp(23)),
        // Ties: away from zero in tf32, to even in the others.
        (Precision::Tf32, 1.0 + ulp(11), 1.0 + ulp(10)),
        (Precision::Tf32, -1.0 - ulp(11), -1.0 - ulp(10)),
        (Precision::Tf32, 1.0 + 0.98 * ulp(11), 1.0),
        (Precision::Bf16, 1.0 + ulp(8), 1.0),
        (Precision::Bf16, 1.0 + 3.0 * ulp(8), 1.0 + ulp(6)),
        (Precision::F16, 1.0 + ulp(11), 1.0),
        (Precision::F16, 1.0 + 3.0 * ulp(11), 1.0 + ulp(9)),
        (Precision::F16, 65536.0, f64::INFINITY),
        (Precision::F16, ulp(24), ulp(24)),
        (Precision::F16, 0.4 * ulp(24), 0.0),
    ] {
        let got = (Rounding::of(precision).operand)(value);
        assert_eq!(got, want, "{precision:?}: {value}");
        assert_eq!((Rounding::of(precision).operand)(got), got, "{precision:?}");
    }
}

/// The error of a precision follows its mantissa: f16 and tf32 have three bits more than bf16.
#[test]
fn errors_follow_the_mantissa() {
    for head in Head::ALL {
        let objective = Objective { sigma: 0.8, growth: 0.4, ..Objective::default() };
        let model = model(5, &[37, 20], Activation::Silu, head, embeddings()[1].clone(), objective);
        let batch = Batch { probe: Some(Numbers::new(19).take(2 * 64 * 5)), ..batch(5, 64, 33, 20) };
        let error = |precision| {
            let rounding = Rounding::of(precision);
            let (model, batch) = rounding.inputs(&model, &batch);
            let want = ReferenceEngine.loss_gradient(&model, &batch).expect("evaluates").gradient;
            let got = rounded::loss_gradient(rounding, &model, &batch).values.gradient;
            let distance: f64 = got.iter().zip(&want).map(|(got, want)| (got - want).powi(2)).sum();
            let relative = (distance / want.iter().map(|g| g * g).sum::<f64>()).sqrt();
            assert!((0.02..4.0).contains(&(relative / rounding.unit)), "{precision:?} {head:?}: {relative:e}");
            relative
        };
        let [f32, tf32, bf16, f16] = Precision::ALL.map(error);
        assert!(f32 < 1e-3 * tf32 && tf32 < 0.5 * bf16 && f16 < 0.5 * bf16, "{f32:e} {tf32:e} {bf16:e} {f16:e}");
    }
}
