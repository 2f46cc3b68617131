//! The example for a GPU runs on one.

#[path = "../../examples/cuda.rs"]
mod cuda;

#[test]
fn cuda_ends_well() {
    cuda::main().expect("ends well");
}
