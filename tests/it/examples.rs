//! The examples run, and end well. That of the GPU is run by `tests/cuda`.

#[path = "../../examples/custom_observer.rs"]
mod custom_observer;
#[path = "../../examples/from_memory.rs"]
mod from_memory;
#[path = "../../examples/quickstart.rs"]
mod quickstart;

#[test]
fn quickstart_ends_well() {
    quickstart::main().expect("ends well");
}

#[test]
fn from_memory_ends_well() {
    from_memory::main().expect("ends well");
}

#[test]
fn custom_observer_ends_well() {
    custom_observer::main().expect("ends well");
}
