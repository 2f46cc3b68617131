//! Particles that do not fit into the memory of a GPU at once. In a process of its own, because the
//! virtual GPU's memory is set when the driver starts.

use std::process::Command;

use crate::common::{Counted, Numbers, assert_close, model};
use action_matching::engine::Engine;
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::CudaEngine;
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use action_matching::model::{Activation, Head, TimeEmbedding};
use action_matching::objective::Objective;
use action_matching::precision::Precision;

/// Several chunks give the result of one launch, noise included; if not even a tile fits, the error
/// says what to reduce.
#[test]
fn particles_go_in_chunks_that_fit() {
    if std::env::var_os("VGPU_MEMORY").is_none() {
        let mut child = Command::new(std::env::current_exe().expect("the test's own path"));
        child.args(["--exact", "integrate_memory::particles_go_in_chunks_that_fit"]);
        let output = child.env("VGPU_MEMORY", (4 << 20).to_string()).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let engine = CudaEngine::new(0, Precision::F32).expect("a GPU, or the virtual one in LD_LIBRARY_PATH");
    if !engine.describe().contains("Virtual") {
        return; // a real GPU has more memory than this test could fill
    }
    let (dim, n) = (3, 300);
    let objective = Objective { sigma: 0.5, ..Objective::default() };
    let model = model(dim, &[16, 20], Activation::Tanh, Head::Scalar, TimeEmbedding::Raw, objective);
    let plan = |n_saved: usize| Plan {
        noise: Noise::new(3),
        ..Plan::new(Method::EulerMaruyama, StepControl::Fixed { steps: 2 }, 0.0, vec![1.0; n_saved])
    };
    let run = |engine: &dyn Engine, plan: &Plan| {
        let mut out = vec![f32::NAN; plan.save_at.len() * n * dim];
        for (value, number) in out.iter_mut().zip(Numbers::new(29).take(n * dim)) {
            *value = number as f32;
        }
        let counted = Counted::default();
        let outcome = engine.integrate(&model, plan, Trajectories::of(&mut out), &counted);
        outcome.map(|report| (out, report, counted))
    };
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();

    let (got, report, counted) = run(&engine, &plan(1000)).expect("integrates");
    let (want, ..) = run(&CpuEngine::new(1), &plan(1000)).expect("integrates");
    counted.assert_whole(n);
    assert!(counted.reports() > 1);
    assert_eq!(report.velocity_evaluations, 2 * n as u64);
    assert_close("positions", &wide(&got), &wide(&want), 2e-5);

    let error = run(&engine, &plan(6000)).map(|_| ()).expect_err("an error").to_string();
    assert!(error.contains("bytes are free") && error.contains("save at fewer times"), "{error}");
}
