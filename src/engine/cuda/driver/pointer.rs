//! Typed device addresses.

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};
use cudarc::driver::DeviceRepr;

/// Address of elements of type `T` in device memory, for argument blocks; null where there are
/// none. Made only from a [`Buffer`](super::Buffer), and valid while that lives.
#[repr(transparent)]
pub struct DevicePtr<T> {
    address: u64,
    element: PhantomData<fn() -> T>,
}

impl<T> DevicePtr<T> {
    /// Nothing is there.
    pub const NULL: DevicePtr<T> = DevicePtr { address: 0, element: PhantomData };

    /// Device address in the driver's type.
    pub(super) fn new(address: u64) -> DevicePtr<T> {
        DevicePtr { address, element: PhantomData }
    }

    /// True if nothing is there.
    pub fn is_null(self) -> bool {
        self.address == 0
    }

    /// `n` elements further.
    pub fn offset(self, n: usize) -> DevicePtr<T> {
        DevicePtr::new(self.address + (n * size_of::<T>()) as u64)
    }

    /// The same address for elements of another type, where a buffer holds plain bytes.
    pub fn cast<U>(self) -> DevicePtr<U> {
        DevicePtr::new(self.address)
    }
}

impl<T> Clone for DevicePtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DevicePtr<T> {}

impl<T> PartialEq for DevicePtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<T> std::fmt::Debug for DevicePtr<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

// SAFETY: one u64, which the host never follows, so every bit pattern is valid; zeros are null.
unsafe impl<T> Zeroable for DevicePtr<T> {}
// SAFETY: as above; a transparent u64 has no padding.
unsafe impl<T: 'static> Pod for DevicePtr<T> {}
// SAFETY: kernels take a pointer, which has the layout of a u64.
unsafe impl<T> DeviceRepr for DevicePtr<T> {}
