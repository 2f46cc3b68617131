//! The elementwise part of each sweep, fused into the last step of its product (see the tables of
//! [`sweeps`](super::sweeps)).
//!
//! Fields are tiles of one shape, named as in [`HiddenTiles`](super::workspace::HiddenTiles).

use pulp::Simd;

use super::activation::ActivationKernel;
use super::lanes::Lanes;
use super::panel::prefetch;
use super::product::{Epilogue, GROUP, load_group, store_group};
use super::workspace::ProbeTiles;

/// Stores the sums unchanged.
#[derive(Clone, Copy)]
pub struct Plain {
    pub out: *mut f32,
}

impl Epilogue for Plain {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.out.wrapping_add(offset));
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, _: usize, sums: Lanes<S, GROUP>) {
        // SAFETY: the product writes only inside `out`.
        unsafe { store_group(self.out.add(offset), sums) }
    }
}

/// a = f(z), f′(z) and, up to order `ORDERS`, f″(z) and f‴(z).
#[derive(Clone, Copy)]
pub struct Primal<A, const ORDERS: usize> {
    pub a: *mut f32,
    pub f1: *mut f32,
    pub f2: *mut f32,
    pub f3: *mut f32,
    pub activation: A,
}

impl<A: ActivationKernel, const ORDERS: usize> Epilogue for Primal<A, ORDERS> {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.a.wrapping_add(offset));
        prefetch(self.f1.wrapping_add(offset));
        if ORDERS >= 2 {
            prefetch(self.f2.wrapping_add(offset));
        }
        if ORDERS >= 3 {
            prefetch(self.f3.wrapping_add(offset));
        }
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, _: usize, z: Lanes<S, GROUP>) {
        let [f, f1, f2, f3] = self.activation.orders(z);
        // SAFETY: the product writes only inside the tiles, which have one shape.
        unsafe {
            store_group(self.a.add(offset), f);
            store_group(self.f1.add(offset), f1);
            if ORDERS >= 2 {
                store_group(self.f2.add(offset), f2);
            }
            if ORDERS >= 3 {
                store_group(self.f3.add(offset), f3);
            }
        }
    }
}

/// out = f′ ⊙ u. With `ORDERS` ≥ 2 also h = u ⊙ f″; with 3 also u ⊙ f‴, which replaces f‴. `f2` and
/// `h` may be one tile.
#[derive(Clone, Copy)]
pub struct Reverse<const ORDERS: usize> {
    pub f1: *const f32,
    pub f2: *const f32,
    pub out: *mut f32,
    pub h: *mut f32,
    pub u_f3: *mut f32,
}

impl<const ORDERS: usize> Epilogue for Reverse<ORDERS> {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.f1.wrapping_add(offset));
        prefetch(self.out.wrapping_add(offset));
        if ORDERS >= 2 {
            prefetch(self.h.wrapping_add(offset));
        }
        if ORDERS >= 3 {
            prefetch(self.f2.wrapping_add(offset));
            prefetch(self.u_f3.wrapping_add(offset));
        }
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, _: usize, u: Lanes<S, GROUP>) {
        // SAFETY: the product writes only inside the tiles, which have one shape.
        unsafe {
            store_group(self.out.add(offset), u * load_group(u, self.f1.add(offset)));
            if ORDERS >= 2 {
                store_group(self.h.add(offset), u * load_group(u, self.f2.add(offset)));
            }
            if ORDERS >= 3 {
                store_group(self.u_f3.add(offset), u * load_group(u, self.u_f3.add(offset)));
            }
        }
    }
}

/// c_a = f′ ⊙ c_z; g = h ⊙ c_z replaces h.
#[derive(Clone, Copy)]
pub struct Tangent {
    pub f1: *const f32,
    pub c_a: *mut f32,
    pub g: *mut f32,
}

impl Epilogue for Tangent {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.f1.wrapping_add(offset));
        prefetch(self.c_a.wrapping_add(offset));
        prefetch(self.g.wrapping_add(offset));
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, _: usize, c_z: Lanes<S, GROUP>) {
        // SAFETY: the product writes only inside the tiles, which have one shape.
        unsafe {
            store_group(self.c_a.add(offset), c_z * load_group(c_z, self.f1.add(offset)));
            store_group(self.g.add(offset), c_z * load_group(c_z, self.g.add(offset)));
        }
    }
}

/// e_z unchanged, and e_a = f′ ⊙ e_z.
#[derive(Clone, Copy)]
pub struct ProbeTangent {
    pub f1: *const f32,
    pub e_z: *mut f32,
    pub e_a: *mut f32,
}

impl Epilogue for ProbeTangent {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.f1.wrapping_add(offset));
        prefetch(self.e_z.wrapping_add(offset));
        prefetch(self.e_a.wrapping_add(offset));
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, _: usize, e_z: Lanes<S, GROUP>) {
        // SAFETY: the product writes only inside the tiles, which have one shape.
        unsafe {
            store_group(self.e_z.add(offset), e_z);
            store_group(self.e_a.add(offset), e_z * load_group(e_z, self.f1.add(offset)));
        }
    }
}

/// c_a = f′ ⊙ c_z + k f″ ⊙ Σe_z² and g = h ⊙ c_z + k (u ⊙ f‴) ⊙ Σe_z², where k is the row's weight
/// of one probe.
#[derive(Clone, Copy)]
pub struct DiffusiveTangent<'a> {
    pub f1: *const f32,
    pub f2: *const f32,
    pub h: *const f32,
    pub u_f3: *const f32,
    /// k, in every lane of each row's panel.
    pub probe_weight: *const f32,
    pub probes: &'a [ProbeTiles],
    pub c_a: *mut f32,
    pub g: *mut f32,
}

impl Epilogue for DiffusiveTangent<'_> {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        for tile in [self.f1, self.f2, self.h, self.u_f3, self.c_a, self.g] {
            prefetch(tile.wrapping_add(offset));
        }
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, offset_in_panel: usize, c_z: Lanes<S, GROUP>) {
        // SAFETY: the product stays inside the tiles, which have one shape, and the panel of
        // weights.
        unsafe {
            let mut squares = c_z.splat(0.0);
            for probe in self.probes {
                let e_z = load_group(c_z, probe.e_z.as_ptr().add(offset));
                squares = e_z.mul_add(e_z, squares);
            }
            let squares = squares * load_group(c_z, self.probe_weight.add(offset_in_panel));
            store_group(
                self.c_a.add(offset),
                c_z.mul_add(load_group(c_z, self.f1.add(offset)), squares * load_group(c_z, self.f2.add(offset))),
            );
            store_group(
                self.g.add(offset),
                c_z.mul_add(load_group(c_z, self.h.add(offset)), squares * load_group(c_z, self.u_f3.add(offset))),
            );
        }
    }
}

/// z̄ = f′ ⊙ ā + g replaces g.
#[derive(Clone, Copy)]
pub struct Adjoint {
    pub f1: *const f32,
    pub z_bar: *mut f32,
}

impl Epilogue for Adjoint {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.f1.wrapping_add(offset));
        prefetch(self.z_bar.wrapping_add(offset));
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, _: usize, a_bar: Lanes<S, GROUP>) {
        // SAFETY: the product writes only inside the tiles, which have one shape.
        unsafe {
            let g = load_group(a_bar, self.z_bar.add(offset));
            let f1 = load_group(a_bar, self.f1.add(offset));
            store_group(self.z_bar.add(offset), f1.mul_add(a_bar, g));
        }
    }
}

/// ē = f′ ⊙ ē_a + 2k h ⊙ e_z replaces e_z, and g += ē_a ⊙ f″ ⊙ e_z.
#[derive(Clone, Copy)]
pub struct ProbeAdjoint {
    pub f1: *const f32,
    pub f2: *const f32,
    pub h: *const f32,
    /// k, in every lane of each row's panel.
    pub probe_weight: *const f32,
    pub e_z: *mut f32,
    pub g: *mut f32,
}

impl Epilogue for ProbeAdjoint {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        for tile in [self.f1, self.f2, self.h, self.e_z, self.g] {
            prefetch(tile.wrapping_add(offset));
        }
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, offset_in_panel: usize, e_a_bar: Lanes<S, GROUP>) {
        // SAFETY: the product stays inside the tiles, which have one shape, and the panel of
        // weights.
        unsafe {
            let e_z = load_group(e_a_bar, self.e_z.add(offset));
            let weight = load_group(e_a_bar, self.probe_weight.add(offset_in_panel));
            store_group(
                self.g.add(offset),
                (e_a_bar * load_group(e_a_bar, self.f2.add(offset)))
                    .mul_add(e_z, load_group(e_a_bar, self.g.add(offset))),
            );
            store_group(
                self.e_z.add(offset),
                e_a_bar.mul_add(
                    load_group(e_a_bar, self.f1.add(offset)),
                    weight * 2.0 * load_group(e_a_bar, self.h.add(offset)) * e_z,
                ),
            );
        }
    }
}
