//! The contract between host and device: sizes, numbers, enums and argument blocks. They are
//! written once, here: this crate makes Rust types of them, and `build.rs` the kernels' header
//! `abi.h` (by `header.rs`), which asserts that size and offsets agree.

/// Declares constants, enums and structs that host and device share. Structs are plain data with
/// the layout of C++.
macro_rules! device_types {
    ($($items:tt)*) => {
        declare! { $($items)* }

        /// Layout of each struct above.
        #[cfg(test)]
        pub fn layouts() -> Vec<super::Layout> {
            #[allow(unused_mut)] // a file may have no structs
            let mut layouts = Vec::new();
            describe! { layouts $($items)* }
            layouts
        }
    };
}

/// Item by item, the types themselves.
macro_rules! declare {
    () => {};
    ($(#[doc = $doc:literal])* const $name:ident: $type:ty = $value:expr; $($rest:tt)*) => {
        $(#[doc = $doc])*
        #[allow(dead_code)] // some are for the kernels alone
        pub const $name: $type = $value;
        declare! { $($rest)* }
    };
    ($(#[doc = $doc:literal])* enum $name:ident {
        $($(#[doc = $about:literal])* $variant:ident $(= $value:literal)?),* $(,)?
    } $($rest:tt)*) => {
        $(#[doc = $doc])*
        #[allow(dead_code)] // some variants are for the kernels alone
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name { $($(#[doc = $about])* $variant $(= $value)?),* }
        impl super::Numbered for $name {
            const ALL: &[$name] = &[$($name::$variant),*];
            fn number(self) -> u32 {
                self as u32
            }
        }
        declare! { $($rest)* }
    };
    ($(#[doc = $doc:literal])* struct $name:ident {
        $($(#[doc = $about:literal])* $field:ident: $type:ty),* $(,)?
    } $($rest:tt)*) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub struct $name { $($(#[doc = $about])* pub $field: $type),* }
        impl Default for $name {
            /// Zeros and null addresses.
            fn default() -> Self {
                bytemuck::Zeroable::zeroed()
            }
        }
        // SAFETY: `#[repr(C)]`, without padding (bytemuck checks), as kernels take it.
        unsafe impl cudarc::driver::DeviceRepr for $name {}
        declare! { $($rest)* }
    };
}

/// Item by item, pushes the layout of each struct.
#[cfg(test)]
macro_rules! describe {
    ($layouts:ident) => {};
    ($layouts:ident $(#[doc = $doc:literal])* const $name:ident: $type:ty = $value:expr; $($rest:tt)*) => {
        describe! { $layouts $($rest)* }
    };
    ($layouts:ident $(#[doc = $doc:literal])* enum $name:ident { $($variants:tt)* } $($rest:tt)*) => {
        describe! { $layouts $($rest)* }
    };
    ($layouts:ident $(#[doc = $doc:literal])* struct $name:ident {
        $($(#[doc = $about:literal])* $field:ident: $type:ty),* $(,)?
    } $($rest:tt)*) => {
        $layouts.push(super::Layout {
            name: stringify!($name),
            size: size_of::<$name>(),
            fields: vec![$(super::FieldLayout {
                name: stringify!($field),
                declared: stringify!($type),
                of_type: std::any::TypeId::of::<$type>(),
                offset: std::mem::offset_of!($name, $field),
                size: size_of::<$type>(),
            }),*],
        });
        describe! { $layouts $($rest)* }
    };
}

mod draw;
#[cfg(test)]
#[allow(dead_code, clippy::duplicate_mod)] // a second time, as `build.rs` compiles it
#[path = "header.rs"]
mod header;
mod integrate;
mod library;
mod optimizer;
mod params;
mod shape;
mod sweep;
#[cfg(test)]
mod tests;
mod units;

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

pub(super) use super::driver::DevicePtr;
pub use draw::*;
pub use integrate::*;
pub use optimizer::*;
pub use params::*;
pub use shape::*;
pub use sweep::*;
pub use units::*;

/// Marks a pointee that kernels only read: `const T` in C++, the same as `T` on the host.
pub type Const<T> = T;

/// A pointee whose type the kernel knows, such as that of its operands: `void` in C++, bytes on the
/// host.
pub type Opaque = u8;

/// An enum whose variants have the same numbers in C++.
pub trait Numbered: Copy + 'static {
    /// All variants.
    const ALL: &[Self];
    /// The number of a variant.
    fn number(self) -> u32;
}

/// A variant of `E` within an argument block: the enum itself in C++. On the host a number, as a
/// block that the device wrote may hold any.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tag<E> {
    number: u32,
    of: PhantomData<E>,
}

impl<E: Numbered> Tag<E> {
    /// The variant for `variant`, which may be the library's.
    pub fn of(variant: impl Into<E>) -> Tag<E> {
        Tag { number: variant.into().number(), of: PhantomData }
    }

    /// The variant; `None` for a number that belongs to none.
    pub fn get(self) -> Option<E> {
        E::ALL.iter().find(|variant| variant.number() == self.number).copied()
    }
}

impl<E: Numbered + std::fmt::Debug> std::fmt::Debug for Tag<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.get() {
            Some(variant) => variant.fmt(f),
            None => self.number.fmt(f),
        }
    }
}

// SAFETY: one u32, of which every value is valid, as `get` checks it.
unsafe impl<E> Zeroable for Tag<E> {}
// SAFETY: as above; a transparent u32 has no padding.
unsafe impl<E: Copy + 'static> Pod for Tag<E> {}

impl PartKind {
    /// True if its rows have the interior term, and so the channels of δ and c.
    pub fn is_interior(self) -> bool {
        matches!(self, PartKind::Interior | PartKind::Center)
    }
}

/// Layout of an argument block as this crate has it.
#[cfg(test)]
pub struct Layout {
    pub name: &'static str,
    pub size: usize,
    pub fields: Vec<FieldLayout>,
}

/// A field of a [`Layout`].
#[cfg(test)]
pub struct FieldLayout {
    pub name: &'static str,
    /// Its type as it is declared.
    pub declared: &'static str,
    /// The host's type: a field can only be given a value of it.
    pub of_type: std::any::TypeId,
    pub offset: usize,
    pub size: usize,
}

/// Layouts of all structs, in the order of the header.
#[cfg(test)]
pub fn layouts() -> Vec<Layout> {
    let files = [
        shape::layouts,
        params::layouts,
        sweep::layouts,
        optimizer::layouts,
        draw::layouts,
        integrate::layouts,
        units::layouts,
    ];
    files.into_iter().flat_map(|layouts| layouts()).collect()
}
