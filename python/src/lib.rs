//! `action_matching._native`: the library as the Python package calls it.
//!
//! What users see is written in Python (`python/action_matching`), which checks and converts
//! arguments. Functions here take NumPy arrays that are C-contiguous, f32 or f64, and hand back new
//! ones; or `DeviceArray`s on the GPU of the model, and hand back such. They release the
//! interpreter while they work.

mod device_array;
mod dlpack;
mod engine;
mod errors;
mod evaluate;
mod model;
mod particles;
mod rows;
mod settings;
mod train;
mod work;

/// The functions and classes of the module.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use super::device_array::DeviceArray;
    #[pymodule_export]
    use super::evaluate::evaluate;
    #[pymodule_export]
    use super::model::Model;
    #[pymodule_export]
    use super::particles::integrate;
    #[pymodule_export]
    use super::settings::{Settings, data_of};
    #[pymodule_export]
    use super::train::train;
}
