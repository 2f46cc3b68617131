//! Memory of a GPU that belongs to another library.

/// Numbers in f32 that another library holds in the memory of a GPU.
#[derive(Debug)]
pub struct ForeignArray {
    pub(super) address: u64,
    pub(super) len: usize,
}

impl ForeignArray {
    /// The `len` numbers at `address`.
    ///
    /// # Safety
    /// While `self` lives, `address` is that of `len` numbers in the primary context of the GPU to
    /// whose engine it is given, and nothing writes them but work for which the legacy default
    /// stream waits.
    #[must_use]
    pub unsafe fn new(address: u64, len: usize) -> ForeignArray {
        ForeignArray { address, len }
    }
}
