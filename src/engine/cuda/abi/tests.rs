//! The header and this crate's types are two readings of the same declarations.

use std::any::TypeId;

use super::*;

/// The build script computes the header's sizes and offsets with stand-ins for some types of this
/// crate. If a stand-in differed, kernels would compile and read the wrong bytes.
#[test]
fn the_header_asserts_the_layouts_of_this_crate() {
    let header = header::header();
    let asserted = header.lines().filter_map(|line| line.strip_prefix("static_assert(")?.split(", \"").next());
    let layouts = layouts();
    let of_crate = layouts.iter().flat_map(|Layout { name, size, fields }| {
        let offsets = fields.iter().map(move |field| format!("offsetof({name}, {}) == {}", field.name, field.offset));
        std::iter::once(format!("sizeof({name}) == {size}")).chain(offsets)
    });
    assert_eq!(asserted.collect::<Vec<_>>(), of_crate.collect::<Vec<_>>());
}

/// Arguments of different meaning do not take each other's place: Rust converts none of these types
/// into another by itself.
#[test]
fn addresses_and_numbers_of_enums_are_types_of_their_own() {
    let types = [
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<Tag<Activation>>(),
        TypeId::of::<Tag<Head>>(),
        TypeId::of::<DevicePtr<f32>>(),
        TypeId::of::<DevicePtr<u32>>(),
        TypeId::of::<DevicePtr<f64>>(),
        TypeId::of::<DevicePtr<Opaque>>(),
        TypeId::of::<DevicePtr<StepState>>(),
    ];
    for (i, one) in types.iter().enumerate() {
        assert!(!types[..i].contains(one), "type {i} is another's alias");
    }
}
