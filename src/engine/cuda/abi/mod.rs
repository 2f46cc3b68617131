//! The contract between host and device: sizes and argument blocks, with the layout of
//! `kernels/params.h`.

mod draw;
mod integrate;
mod optimizer;
mod params;
mod shape;
mod sweep;

pub use draw::*;
pub use integrate::*;
pub use optimizer::*;
pub use params::*;
pub use shape::*;
pub use sweep::*;

/// Declares plain data with the same layout as in C++; the size is asserted.
macro_rules! twins {
    ($($(#[$doc:meta])* $name:ident, $bytes:expr;)*) => {
        $(
            // SAFETY: `#[repr(C)]`, without padding (bytemuck checks), as kernels take it.
            unsafe impl DeviceRepr for $name {}
            const _: () = assert!(size_of::<$name>() == $bytes);
        )*
    };
}
use twins;
