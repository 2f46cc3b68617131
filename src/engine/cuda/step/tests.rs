//! Schedules, records, loss scale and density of times against the host's.

use super::*;
use crate::density_path::{TimeDensity, TimeMoments};
use crate::engine::cuda::abi::PartKind;
use crate::engine::cuda::learner::tests::{Bench, RELATIVE_RATE, batch, number, settings, start};
use crate::engine::step_sizes::StepSizes;
use crate::engine::testing::optimizer;
use crate::engine::{Cosine, LearningRate};

/// Finishes steps without updates: the partial gradients and the learners stay as they are.
fn finish_step(bench: &Bench) {
    for learner in [&bench.action, &bench.bend] {
        learner.gather(bench.step_finisher.state()).expect("launched");
    }
    bench.step_finisher.launch(&bench.action, Some(&bench.bend)).expect("launched");
}

fn assert_near(what: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs(), "{what}: {got}, not {want}");
}

#[test]
fn step_sizes_follow_the_schedule_and_the_norm() {
    let cosine = |cosine| LearningRate { cosine, ..optimizer().learning_rate };
    let schedules = [
        cosine(Some(Cosine { end: 10, floor: 0.1 })),
        cosine(None),
        cosine(Some(Cosine { end: 2, floor: 0.1 })),
        LearningRate { warmup_steps: 0, ..cosine(Some(Cosine { end: 4000, floor: 0.0 })) },
    ];
    for learning_rate in schedules {
        // Without a limit, with one that all norms pass, and one that none does.
        for clip_norm in [None, Some(0.7), Some(1e4)] {
            let optimizer = Optimizer { learning_rate: learning_rate.clone(), clip_norm, beta2: 0.999, ..optimizer() };
            let mut bench =
                Bench::new(StepSettings { optimizer: optimizer.clone(), ..settings(Precision::F32) }, &start());
            bench.set_partials(|k, i| number(k + 3, i));
            for step in [0, 1, 2, 3, 7, 10, 11, 3_999, 1_000_000_000_000] {
                bench.step_finisher.set_state(|state| state.step = step);
                finish_step(&bench);
                let record = bench.records()[0];
                let rate = learning_rate.at(step);
                assert_eq!(record.step, step);
                // Near the end of a cosine down to 0 the rate is a difference.
                assert!(
                    (record.learning_rate - rate).abs() <= 1e-15 * learning_rate.peak + 1e-12 * rate,
                    "{step}: {} not {rate}",
                    record.learning_rate
                );
                let [action, bend] = bench.sizes();
                for (got, relative) in [(action, 1.0), (bend, RELATIVE_RATE)] {
                    let got = StepSizes::from(got);
                    // The norm of the bend is in no record; `clip` below checks it.
                    let want = StepSizes::new(&optimizer, step, record.gradient_norm, relative);
                    for (what, got, want) in [
                        ("toward1", got.toward1, want.toward1),
                        ("toward2", got.toward2, want.toward2),
                        ("step_size", got.step_size, want.step_size),
                        ("root_correction", got.root_correction, want.root_correction),
                        ("epsilon", got.epsilon, want.epsilon),
                        ("decay_factor", got.decay_factor, want.decay_factor),
                    ] {
                        // Both are rounded to f32 from f64 values that differ in their last bits.
                        let (got, want) = (f64::from(got), f64::from(want));
                        let error = (got - want).abs();
                        assert!(error <= 2e-7 * want.abs() + 1e-16, "{what} at {step}: {got}, not {want}");
                    }
                    assert_eq!(got.toward_ema, want.toward_ema, "the host's to the last bit, at {step}");
                    assert_eq!(got.gradient_scale < 1.0, clip_norm == Some(0.7));
                }
                if clip_norm == Some(0.7) {
                    assert_near("clip", f64::from(action.gradient_scale) * record.gradient_norm, 0.7, 1e-6);
                    assert_ne!(action.gradient_scale, bend.gradient_scale, "each network has its own norm");
                }
            }
        }
    }
}

/// Sums over many more tiles than threads, by part.
#[test]
fn terms_of_the_record_are_those_of_their_parts() {
    use PartKind::{Boundary0, Boundary1, Center, CenterEnds, Interior, WeakEnds0, WeakEnds1};
    let of_action = [(Interior, 300), (Center, 5), (Boundary0, 257), (Boundary1, 3), (CenterEnds, 1)];
    let of_weak = [(Interior, 7), (WeakEnds0, 2), (WeakEnds1, 3)];
    for parts in [&of_action[..], &of_weak[..]] {
        let batch = batch(parts);
        let mut bench = Bench::new(StepSettings { batch, ..settings(Precision::Tf32) }, &start());
        let n: u32 = parts.iter().map(|part| part.1).sum();
        let value = |stream: usize, tile: usize| 0.5 + f64::from(number(stream, tile));
        let sums: Vec<TileSums> =
            (0..n as usize).map(|tile| TileSums { value: value(1, tile), kinetic: value(2, tile) }).collect();
        bench.step_finisher.set_sums(&sums);
        bench.set_partials(|k, i| number(k + 3, i));
        finish_step(&bench);
        let record = bench.records()[0];
        let sum = |kinds: &[PartKind], of: fn(&TileSums) -> f64| -> f64 {
            let parts = batch.parts[..parts.len()].iter();
            let parts = parts.filter(|part| part.kind.get().is_some_and(|kind| kinds.contains(&kind)));
            parts.flat_map(|part| &sums[part.first_tile as usize..][..part.n_tiles as usize]).map(of).sum()
        };
        let boundary0 = sum(&[Boundary0, WeakEnds0], |sums| sums.value);
        let boundary1 = sum(&[Boundary1, WeakEnds1], |sums| sums.value);
        let interior = sum(&[Interior, Center, CenterEnds], |sums| sums.value);
        assert_near("boundary0", record.boundary0, boundary0, 1e-12);
        assert_near("boundary1", record.boundary1, boundary1, 1e-12);
        assert_near("interior", record.interior, interior, 1e-12);
        assert_near("kinetic", record.kinetic, sum(&[Interior, Center], |sums| sums.kinetic), 1e-12);
        assert_near("loss", record.loss, boundary0 + boundary1 + interior, 1e-12);
    }
}

#[test]
fn a_lost_step_in_f16_is_tried_again_with_half_the_scale() {
    let mut bench = Bench::new(settings(Precision::F16), &start());
    let before = bench.state();
    bench.set_partials(|k, i| if (k, i) == (1, 2) { f32::INFINITY } else { 256.0 * number(k + 3, i) });
    for scale in [128.0, 64.0] {
        bench.step();
        assert_eq!(bench.records(), []);
        let halved = LossScale { scale, good_steps: 0 };
        assert!(bench.state() == TrainState { loss_scale: halved, ..before.clone() }, "{scale}");
    }
    // The gradient of the retry is the same, whatever its scale.
    bench.set_partials(|k, i| 64.0 * number(k + 3, i));
    bench.step();
    let retried = bench.state();
    assert_eq!(retried.loss_scale, LossScale { scale: 64.0, good_steps: 1 });
    let mut other = Bench::new(settings(Precision::F16), &start());
    other.set_partials(|k, i| 256.0 * number(k + 3, i));
    other.step();
    assert_eq!(bench.records(), other.records());
    let loss_scale = before.loss_scale;
    assert!(TrainState { loss_scale, ..retried } == TrainState { loss_scale, ..other.state() });
}

#[test]
fn the_scale_doubles_after_many_good_steps_up_to_a_limit() {
    for (scale, doubled) in [(256.0, 512.0), (LossScale::LARGEST, LossScale::LARGEST)] {
        let loss_scale = LossScale { scale, good_steps: LossScale::STEPS_BEFORE_GROWTH - 2 };
        let mut bench = Bench::new(settings(Precision::F16), &TrainState { loss_scale, ..start() });
        bench.set_partials(|k, i| number(k + 3, i));
        for expected in [
            LossScale { scale, good_steps: LossScale::STEPS_BEFORE_GROWTH - 1 },
            LossScale { scale: doubled, good_steps: 0 },
            LossScale { scale: doubled, good_steps: 1 },
        ] {
            finish_step(&bench);
            assert_eq!(bench.state().loss_scale, expected);
        }
    }
    // Other products leave it as they found it.
    let mut bench = Bench::new(settings(Precision::Bf16), &start());
    bench.set_partials(|k, i| number(k + 3, i));
    finish_step(&bench);
    assert_eq!(bench.state().loss_scale, start().loss_scale);
}

#[test]
fn a_full_history_holds_the_run_until_it_is_read() {
    let mut bench = Bench::new(StepSettings { capacity: 2, ..settings(Precision::F32) }, &start());
    bench.set_partials(|k, i| number(k + 3, i));
    (0..2).for_each(|_| bench.step());
    let full = bench.state();
    (0..2).for_each(|_| bench.step());
    assert!(bench.state() == full);
    assert_eq!(bench.records().iter().map(|record| record.step).collect::<Vec<_>>(), [0, 1]);
    bench.step();
    assert_eq!(bench.records().iter().map(|record| record.step).collect::<Vec<_>>(), [2]);
}

fn density(bench: &Bench) -> Vec<f64> {
    bench.device.read(&bench.step_finisher.times().density, 2 * TIME_KNOTS).expect("read")
}

/// The same numbers as the host's, before the first step and after each that counts, and again
/// after a new start.
#[test]
fn the_density_of_times_is_the_hosts_to_the_last_bit() {
    let expected = |list: &[f32]| {
        let moments = TimeMoments::from_slice(list).expect("the right length");
        TimeDensity::new(&moments).knots().to_vec()
    };
    let batch = batch(&[(PartKind::Interior, 5), (PartKind::Center, 2), (PartKind::Boundary0, 1)]);
    let settings = || StepSettings { batch, follows_integrand: true, ..settings(Precision::F32) };
    let known: Vec<f32> = (0..MOMENTS).map(|i| 3.0 + number(7, i)).collect();
    let mut gap = known.clone();
    gap[TIME_KNOTS + 4] = 0.0; // a knot that no row has come near
    let mut infinite = known.clone();
    infinite[3] = f32::INFINITY;
    for time_moments in [vec![0.0; MOMENTS], known, gap, infinite] {
        let mut bench = Bench::new(settings(), &TrainState { time_moments: time_moments.clone(), ..start() });
        assert_eq!(density(&bench), expected(&time_moments));
        bench.set_partials(|k, i| number(k + 3, i));
        let mut list = time_moments;
        for step in 0..2 {
            // Multiples of a power of two, whose sums are exact in any order. Those of the
            // centering do not count.
            let tile_moments: Vec<f64> =
                (0..7 * MOMENTS).map(|i| (f64::from(number(20 + step, i)) * 1024.0).round().abs() / 64.0).collect();
            bench.step_finisher.set_tile_moments(&tile_moments);
            let sum = |moment: usize| (0..5).map(|tile| tile_moments[tile * MOMENTS + moment]).sum::<f64>();
            let of_step = TimeMoments {
                squares: std::array::from_fn(sum),
                weights: std::array::from_fn(|knot| sum(TIME_KNOTS + knot)),
            };
            let mut moments = TimeMoments::from_slice(&list).expect("the right length");
            moments.follow(&of_step);
            list = moments.to_vec();
            finish_step(&bench);
            assert_eq!(bench.state().time_moments, list);
            assert_eq!(density(&bench), expected(&list));
        }
        let resumed = Bench::new(settings(), &bench.state());
        assert_eq!(density(&resumed), density(&bench));
        // A lost step is not followed.
        bench.step_finisher.set_sums(&[TileSums { value: f64::NAN, kinetic: 0.0 }; 8]);
        bench.step_finisher.set_tile_moments(&[1.0; 7 * MOMENTS]);
        finish_step(&bench);
        assert_eq!(bench.state().time_moments, list);
        assert_eq!(density(&bench), expected(&list));
    }
}
