//! Writes what the files beside this one declare as a C++ header, `abi.h`. Part of the build
//! script, not of the library.

use std::fmt::Write as _;
use std::marker::PhantomData;

/// Declares constants, enums and structs as Rust would, and `declare`, which writes them in C++.
macro_rules! device_types {
    (@ $header:ident [$($done:tt)*]) => {
        pub fn declare($header: &mut super::Header) { $($done)* }
    };
    (@ $header:ident [$($done:tt)*]
     $(#[doc = $doc:literal])* const $name:ident: $type:ty = $value:expr; $($rest:tt)*) => {
        pub const $name: $type = $value;
        device_types! { @ $header [
            $($done)*
            $header.constant(&[$($doc),*], stringify!($name), stringify!($type), &format!("{:?}", $name));
        ] $($rest)* }
    };
    (@ $header:ident [$($done:tt)*] $(#[doc = $doc:literal])* enum $name:ident {
        $($(#[doc = $about:literal])* $variant:ident $(= $value:literal)?),* $(,)?
    } $($rest:tt)*) => {
        #[derive(Clone, Copy)]
        #[repr(u32)]
        pub enum $name { $($variant $(= $value)?),* }
        device_types! { @ $header [
            $($done)*
            $header.enumeration(&[$($doc),*], stringify!($name), &[
                $((&[$($about),*], stringify!($variant), $name::$variant as u32)),*
            ]);
        ] $($rest)* }
    };
    (@ $header:ident [$($done:tt)*] $(#[doc = $doc:literal])* struct $name:ident {
        $($(#[doc = $about:literal])* $field:ident: $type:ty),* $(,)?
    } $($rest:tt)*) => {
        #[derive(Clone, Copy)]
        #[repr(C)]
        pub struct $name { $(pub $field: $type),* }
        device_types! { @ $header [
            $($done)*
            $header.structure(&[$($doc),*], stringify!($name), size_of::<$name>(), &[
                $((&[$($about),*], stringify!($field), stringify!($type), std::mem::offset_of!($name, $field))),*
            ]);
        ] $($rest)* }
    };
    (@ $($rest:tt)*) => { compile_error! { "no constant, enum or struct" } };
    ($($items:tt)*) => { device_types! { @ header [] $($items)* } };
}

/// Declares `names`, those of all kernels.
macro_rules! kernels {
    (
        once { $($single:ident = $name:literal),* $(,)? }
        for_each_precision { $($family:ident = $stem:literal),* $(,)? }
    ) => {
        pub fn names() -> Vec<String> {
            let of_stem = |stem| ["f32", "tf32", "bf16", "f16"].map(|precision| format!("{stem}_{precision}"));
            let single = [$($name),*].into_iter().map(String::from);
            single.chain([$($stem),*].into_iter().flat_map(of_stem)).collect()
        }
    };
}

mod draw;
mod integrate;
#[path = "../driver/modules/kernel.rs"]
pub mod kernel;
mod optimizer;
mod params;
mod shape;
mod sweep;
mod units;

#[allow(unused_imports)] // the files name each other's types
use {draw::*, integrate::*, optimizer::*, params::*, shape::*, sweep::*, units::*};

// Stand-ins of the same size for what the crate declares in `abi/mod.rs` and `driver/pointer.rs`.

#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct DevicePtr<T>(u64, PhantomData<T>);

#[derive(Clone, Copy)]
pub struct Const<T>(PhantomData<T>);

#[derive(Clone, Copy)]
pub struct Opaque;

#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Tag<E>(u32, PhantomData<E>);

/// First lines of the header.
const PREAMBLE: &str = "\
// Declarations that the kernels share with the host: sizes, numbers, enums and argument blocks.
// Written by build.rs from src/engine/cuda/abi/: change it there.
//
// Batch rows lie in tiles of kTileRows. Layer widths are zero-padded to multiples of kWidthUnit, so
// kernels never see odd sizes. \"T\" is the type of a kernel's operands (float, tf32, bf16, f16).
// \"S\" is the type of values that only elementwise code reads: T if T has 16 bits, else float.
#pragma once
#include <cstddef>
#include <cstdint>
";

/// The text of the header.
pub fn header() -> String {
    let mut header = Header { text: PREAMBLE.into() };
    for write in [
        shape::declare,
        params::declare,
        sweep::declare,
        optimizer::declare,
        draw::declare,
        integrate::declare,
        units::declare,
    ] {
        write(&mut header);
    }
    header.text
}

/// Lines of documentation, each with the blank that follows `///`.
type Docs<'a> = &'a [&'a str];

/// C++ that grows item by item.
pub struct Header {
    text: String,
}

impl Header {
    fn line(&mut self, line: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn comment(&mut self, indent: &str, docs: Docs) {
        docs.iter().for_each(|doc| self.line(format_args!("{indent}//{}", doc.trim_end())));
    }

    fn constant(&mut self, docs: Docs, name: &str, of_type: &str, value: &str) {
        let suffix = if of_type == "f32" { "f" } else { "" };
        self.line(format_args!(""));
        self.comment("", docs);
        self.line(format_args!("constexpr {} {} = {value}{suffix};", in_cpp(of_type), constant_in_cpp(name)));
    }

    fn enumeration(&mut self, docs: Docs, name: &str, variants: &[(Docs, &str, u32)]) {
        self.line(format_args!(""));
        self.comment("", docs);
        self.line(format_args!("enum class {name} : uint32_t {{"));
        for (docs, variant, number) in variants {
            self.comment("  ", docs);
            self.line(format_args!("  k{variant} = {number},"));
        }
        self.line(format_args!("}};"));
    }

    fn structure(&mut self, docs: Docs, name: &str, size: usize, fields: &[(Docs, &str, &str, usize)]) {
        self.line(format_args!(""));
        self.comment("", docs);
        self.line(format_args!("struct {name} {{"));
        for (docs, field, of_type, _) in fields {
            let declaration = format!("  {};", declaration(of_type, field));
            let beside = docs.first().map_or(String::new(), |doc| format!("{declaration}  //{}", doc.trim_end()));
            if docs.len() <= 1 && beside.chars().count() <= 100 {
                self.line(format_args!("{}", if docs.is_empty() { &declaration } else { &beside }));
            } else {
                self.comment("  ", docs);
                self.line(format_args!("{declaration}"));
            }
        }
        self.line(format_args!("}};"));
        let layout = "the host's layout";
        self.line(format_args!("static_assert(sizeof({name}) == {size}, \"{name}: {layout}\");"));
        for (_, field, _, offset) in fields {
            self.line(format_args!(
                "static_assert(offsetof({name}, {field}) == {offset}, \"{name}::{field}: {layout}\");"
            ));
        }
    }
}

/// A field or variable of a Rust type, in C++.
fn declaration(of_type: &str, name: &str) -> String {
    let (mut element, mut lengths) = (of_type.trim(), String::new());
    // The outer length comes last in Rust, first in C++.
    while let Some((inner, length)) =
        element.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.rsplit_once(';'))
    {
        let words: Vec<String> = length.split_whitespace().map(constant_in_cpp).collect();
        lengths += &format!("[{}]", words.join(" "));
        element = inner.trim();
    }
    format!("{} {name}{lengths}", in_cpp(element))
}

/// A Rust type in C++.
fn in_cpp(of_type: &str) -> String {
    let argument =
        |generic: &str| of_type.strip_prefix(generic)?.trim().strip_prefix('<')?.strip_suffix('>').map(in_cpp);
    if let Some(pointee) = argument("DevicePtr") {
        return format!("{pointee}*");
    }
    if let Some(pointee) = argument("Const") {
        return format!("const {pointee}");
    }
    if let Some(of_enum) = argument("Tag") {
        return of_enum;
    }
    match of_type.trim() {
        "u32" | "usize" => "uint32_t",
        "u64" => "uint64_t",
        "f32" => "float",
        "f64" => "double",
        "Opaque" => "void",
        name => name,
    }
    .into()
}

/// `TILE_ROWS` as `kTileRows`; anything else as it is.
fn constant_in_cpp(name: &str) -> String {
    if !name.starts_with(|c: char| c.is_ascii_uppercase()) {
        return name.into();
    }
    let words = name.split('_').map(|word| word[..1].to_string() + &word[1..].to_lowercase());
    std::iter::once("k".to_string()).chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::Header;

    mod declared {
        device_types! { struct Block { n_rows: u32, n_tiles: u32, rows: DevicePtr<f32>, sums: DevicePtr<f32> } }
        use super::super::DevicePtr;
    }

    mod swapped {
        device_types! { struct Block { n_tiles: u32, n_rows: u32, sums: DevicePtr<f32>, rows: DevicePtr<f32> } }
        use super::super::DevicePtr;
    }

    /// Fields of equal type that change places in the declaration do so on both sides.
    #[test]
    fn fields_swapped_in_a_declaration_are_swapped_in_the_header() {
        let text = |declare: fn(&mut Header)| {
            let mut header = Header { text: String::new() };
            declare(&mut header);
            header.text
        };
        let checks = |fields: [&str; 4]| {
            [0, 4, 8, 16].iter().zip(fields).map(|(n, field)| format!("offsetof(Block, {field}) == {n}")).collect()
        };
        for (text, fields) in [
            (text(declared::declare), ["n_rows", "n_tiles", "rows", "sums"]),
            (text(swapped::declare), ["n_tiles", "n_rows", "sums", "rows"]),
        ] {
            let of_fields = |line: &&str| line.starts_with("static_assert(offsetof");
            let asserted = text.lines().filter(of_fields).filter_map(|line| line.split(['(', ',']).nth(2));
            assert_eq!(asserted.count(), 4, "{text}");
            let checks: Vec<String> = checks(fields);
            assert!(checks.iter().all(|check| text.contains(check)), "{text}");
            let members = text.lines().filter_map(|line| line.strip_prefix("  ")?.strip_suffix(';'));
            let names: Vec<&str> = members.filter_map(|member| member.rsplit(' ').next()).collect();
            assert_eq!(names, fields);
        }
    }
}
