//! Output of `build.rs`: for each file of `kernels/` the names of its kernels and its fat binary
//! (none without a compiler); and the compiler with its architectures, or why there was none.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A file of `kernels/`.
pub struct Module {
    /// The names of its kernels.
    pub kernels: &'static [&'static str],
    /// Its fat binary.
    pub image: &'static [u8],
    /// True if it is for cards of 9.0 alone.
    pub is_of_warpgroups: bool,
}

/// The fat binary of each file of `kernels/`, for tests of what the assembler makes of it.
pub fn images() -> impl Iterator<Item = &'static [u8]> {
    MODULES.iter().map(|module| module.image)
}

/// Declares the kernels: see `modules/kernel.rs`.
macro_rules! kernels {
    (
        once { $($single:ident = $name:literal),* $(,)? }
        for_each_precision { $($family:ident = $stem:literal),* $(,)? }
    ) => {
        /// A kernel. Without a compiler none of them can be launched.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kernel {
            $($single,)*
            $($family(crate::precision::Precision)),*
        }

        impl Kernel {
            /// Its name in its module.
            pub fn name(self) -> &'static str {
                use crate::precision::Precision;
                match self {
                    $(Kernel::$single => $name,)*
                    $(Kernel::$family(precision) => match precision {
                        Precision::F32 => concat!($stem, "_f32"),
                        Precision::Tf32 => concat!($stem, "_tf32"),
                        Precision::Bf16 => concat!($stem, "_bf16"),
                        Precision::F16 => concat!($stem, "_f16"),
                    }),*
                }
            }
        }
    };
}

mod kernel;

pub use kernel::Kernel;

#[cfg(test)]
mod tests {
    use super::*;

    /// The program with machine code for all architectures stays below 60 MB if this holds.
    #[test]
    fn the_images_are_no_larger_than_they_have_to_be() {
        const PTX: usize = 12 << 20;
        const OF_ARCHITECTURE: usize = 5 << 20;
        let n_architectures = NVCC.unwrap_or_default().matches("sm_").count();
        let n_bytes: usize = images().map(<[u8]>::len).sum();
        let most = PTX + n_architectures * OF_ARCHITECTURE;
        assert!(n_bytes <= most, "{n_bytes} bytes with {n_architectures} architectures, at most {most}");
    }
}
