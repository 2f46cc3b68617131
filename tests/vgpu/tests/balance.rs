//! Distribution of the kernels' time by the model of an H100: matrix products must dominate.

mod common;

use common::work::{SHAPES, count, work_of_child};
use vgpu::model::{H100, Unit, bounds, busiest};

/// In a wide network's kernels, the bound of the tensor cores is at least half of that of the
/// busiest unit, in training and in integration.
#[test]
fn tensor_cores_are_busy_half_of_the_time() {
    if work_of_child() {
        return;
    }
    for (index, shape) in SHAPES.iter().enumerate().filter(|(_, shape)| shape.width > 64) {
        let arguments = ["tensor_cores_are_busy_half_of_the_time", "--exact"];
        let counted = count(index, &arguments);
        for name in ["sweep_bf16", "weight_grad_bf16", "integrate_bf16"] {
            let (_, counters) = counted.iter().find(|(kernel, _)| kernel == name).expect("counted");
            let bounds = bounds(counters, &H100);
            let tensor = bounds.iter().find(|bound| bound.0 == Unit::Tensor).expect("every unit").1;
            let (unit, seconds) = busiest(&bounds).expect("units");
            let width = shape.width;
            assert!(tensor >= 0.5 * seconds, "{name}, width {width}: {:.2} of {unit:?}", tensor / seconds);
        }
    }
}
