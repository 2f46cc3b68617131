//! The four sweeps over one tile, each a chain of products with its elementwise part fused in.
//!
//! | sweep | product | fused |
//! |---|---|---|
//! | primal | z = W a + b | a = f(z), f′(z), f″(z) |
//! | reverse | u = Wᵀ δ | δ = u ⊙ f′, h = u ⊙ f″ |
//! | tangent | c_z = W c | c_a = f′ ⊙ c_z, g = h ⊙ c_z |
//! | adjoint | ā = Wᵀ z̄ | z̄ = f′ ⊙ ā + g |
//!
//! ω is folded into the tangent's seed (the sweep is linear in it), so `c` and `g` arrive scaled.

use pulp::Simd;

use super::activation::{ActivationKernel, Gelu, Silu, Sin, Softplus, Tanh};
use super::lanes::Lanes;
use super::narrow::{NarrowProduct, is_narrow};
use super::panel::{Tile, prefetch};
use super::product::{BLOCK_ROWS, Epilogue, GROUP, Product, load_group, store_group};
use super::weights::{PackedLayer, Packing, WeightsView};
use super::workspace::Workspace;
use crate::model::{Activation, Architecture, Head};

/// What the primal sweep keeps beside a and f′.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: enough for ∇s and for boundary rows.
    First,
    /// f″ too: interior rows.
    Second,
}

/// Stores the sums as they are.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub out: *mut f32,
}

impl Epilogue for Plain {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.out.wrapping_add(offset));
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, sums: Lanes<S, GROUP>) {
        // SAFETY: the product stays inside `out`.
        unsafe { store_group(self.out.add(offset), sums) }
    }
}

/// a = f(z), f′(z) and, with `SECOND`, f″(z).
#[derive(Clone, Copy)]
struct Primal<A, const SECOND: bool> {
    a: *mut f32,
    f1: *mut f32,
    f2: *mut f32,
    activation: A,
}

impl<A: ActivationKernel, const SECOND: bool> Epilogue for Primal<A, SECOND> {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.a.wrapping_add(offset));
        prefetch(self.f1.wrapping_add(offset));
        if SECOND {
            prefetch(self.f2.wrapping_add(offset));
        }
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, z: Lanes<S, GROUP>) {
        let [f, f1, f2] = self.activation.orders(z);
        // SAFETY: the product stays inside the three tiles, which have one shape.
        unsafe {
            store_group(self.a.add(offset), f);
            store_group(self.f1.add(offset), f1);
            if SECOND {
                store_group(self.f2.add(offset), f2);
            }
        }
    }
}

/// out = f′ ⊙ u and, with `SECOND`, h = u ⊙ f″ in place of f″.
#[derive(Clone, Copy)]
struct Reverse<const SECOND: bool> {
    f1: *const f32,
    out: *mut f32,
    h: *mut f32,
}

impl<const SECOND: bool> Epilogue for Reverse<SECOND> {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.f1.wrapping_add(offset));
        prefetch(self.out.wrapping_add(offset));
        if SECOND {
            prefetch(self.h.wrapping_add(offset));
        }
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, u: Lanes<S, GROUP>) {
        // SAFETY: the product stays inside the tiles, which have one shape.
        unsafe {
            store_group(self.out.add(offset), u * load_group(u, self.f1.add(offset)));
            if SECOND {
                store_group(self.h.add(offset), u * load_group(u, self.h.add(offset)));
            }
        }
    }
}

/// c_a = f′ ⊙ c_z and g = h ⊙ c_z in place of h.
#[derive(Clone, Copy)]
struct Tangent {
    f1: *const f32,
    c_a: *mut f32,
    g: *mut f32,
}

impl Epilogue for Tangent {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.f1.wrapping_add(offset));
        prefetch(self.c_a.wrapping_add(offset));
        prefetch(self.g.wrapping_add(offset));
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, c_z: Lanes<S, GROUP>) {
        // SAFETY: the product stays inside the tiles, which have one shape.
        unsafe {
            store_group(self.c_a.add(offset), c_z * load_group(c_z, self.f1.add(offset)));
            store_group(self.g.add(offset), c_z * load_group(c_z, self.g.add(offset)));
        }
    }
}

/// z̄ = f′ ⊙ ā + g in place of g.
#[derive(Clone, Copy)]
struct Adjoint {
    f1: *const f32,
    z_bar: *mut f32,
}

impl Epilogue for Adjoint {
    #[inline(always)]
    fn prefetch(&self, offset: usize) {
        prefetch(self.f1.wrapping_add(offset));
        prefetch(self.z_bar.wrapping_add(offset));
    }

    #[inline(always)]
    unsafe fn apply<S: Simd>(self, offset: usize, a_bar: Lanes<S, GROUP>) {
        // SAFETY: the product stays inside the tiles, which have one shape.
        unsafe {
            let g = load_group(a_bar, self.z_bar.add(offset));
            let f1 = load_group(a_bar, self.f1.add(offset));
            store_group(self.z_bar.add(offset), f1.mul_add(a_bar, g));
        }
    }
}

/// The sweeps of one network on the instruction set `S`.
#[derive(Clone, Copy)]
pub struct Sweeps<'a, S> {
    /// Instruction set.
    pub simd: S,
    /// Shape of the network.
    pub architecture: &'a Architecture,
    /// Layout of the weights.
    pub packing: &'a Packing,
    /// The weights.
    pub weights: WeightsView,
}

impl<S: Simd> Sweeps<'_, S> {
    /// Index of the linear map to the output.
    fn last(&self) -> usize {
        self.packing.layers.len() - 1
    }

    fn layer(&self, index: usize) -> &PackedLayer {
        &self.packing.layers[index]
    }

    /// Product with W: `a` is the layer's input.
    fn forward<E: Epilogue>(
        &self,
        layer: usize,
        a: &Tile,
        with_bias: bool,
        n_rows: usize,
        parked: *mut f32,
        epilogue: E,
    ) {
        let layer = self.layer(layer);
        self.simd.vectorize(Product {
            a: a.as_ptr(),
            a_stride: a.stride(),
            weight: self.weights.forward(layer),
            start: if with_bias { self.weights.bias(layer) } else { std::ptr::null() },
            inner: layer.layer.n_in,
            n_panels: layer.out_panels,
            n_rows: n_rows.next_multiple_of(BLOCK_ROWS),
            out_stride: a.stride(),
            parked,
            epilogue,
        });
    }

    /// Product with Wᵀ: `a` is an adjoint of the layer's output.
    fn backward<E: Epilogue>(&self, layer: usize, a: &Tile, n_rows: usize, parked: *mut f32, epilogue: E) {
        let layer = self.layer(layer);
        self.simd.vectorize(Product {
            a: a.as_ptr(),
            a_stride: a.stride(),
            weight: self.weights.reverse(layer),
            start: std::ptr::null(),
            inner: layer.layer.n_out,
            n_panels: layer.in_panels,
            n_rows: n_rows.next_multiple_of(BLOCK_ROWS),
            out_stride: a.stride(),
            parked,
            epilogue,
        });
    }

    /// `out` = W a, with the biases added if `with_bias`: the output of the network or of its tangent.
    fn forward_to_output(&self, a: &Tile, with_bias: bool, n_rows: usize, parked: *mut f32, out: *mut f32) {
        let layer = self.layer(self.last());
        if !is_narrow(layer.layer.n_out, self.packing.width) {
            return self.forward(self.last(), a, with_bias, n_rows, parked, Plain { out });
        }
        self.simd.vectorize(NarrowProduct {
            a: a.as_ptr(),
            a_stride: a.stride(),
            weight: self.weights.reverse(layer),
            start: if with_bias { self.weights.bias(layer) } else { std::ptr::null() },
            n_panels: layer.in_panels,
            n_columns: layer.layer.n_out,
            n_rows: n_rows.next_multiple_of(BLOCK_ROWS),
            out,
        });
    }

    /// `out` = Wᵀδ of the first layer: the gradient at the input of the network.
    fn backward_to_input(&self, delta: &Tile, n_rows: usize, parked: *mut f32, out: *mut f32) {
        let layer = self.layer(0);
        if !is_narrow(layer.layer.n_in, self.packing.width) {
            return self.backward(0, delta, n_rows, parked, Plain { out });
        }
        self.simd.vectorize(NarrowProduct {
            a: delta.as_ptr(),
            a_stride: delta.stride(),
            weight: self.weights.forward(layer),
            start: std::ptr::null(),
            n_panels: layer.out_panels,
            n_columns: layer.layer.n_in,
            n_rows: n_rows.next_multiple_of(BLOCK_ROWS),
            out,
        });
    }

    /// Primal sweep through the hidden layers: `a`, `f1` (and f″ with [`Keep::Second`]) from `a0`.
    pub fn primal(&self, work: &mut Workspace, n_rows: usize, keep: Keep) {
        match self.architecture.activation {
            Activation::Silu => self.primal_with(Silu, work, n_rows, keep),
            Activation::Tanh => self.primal_with(Tanh, work, n_rows, keep),
            Activation::Softplus => self.primal_with(Softplus, work, n_rows, keep),
            Activation::Gelu => self.primal_with(Gelu, work, n_rows, keep),
            Activation::Sin => self.primal_with(Sin, work, n_rows, keep),
        }
    }

    fn primal_with<A: ActivationKernel>(&self, activation: A, work: &mut Workspace, n_rows: usize, keep: Keep) {
        let parked = work.parked.as_mut_slice().as_mut_ptr();
        for index in 0..self.last() {
            let (before, from) = work.hidden.split_at_mut(index);
            let input = before.last().map_or(&work.a0, |hidden| &hidden.a);
            let tiles = &mut from[0];
            let (a, f1, f2) = (tiles.a.as_mut_ptr(), tiles.f1.as_mut_ptr(), tiles.z_bar.as_mut_ptr());
            match keep {
                Keep::First => {
                    self.forward(index, input, true, n_rows, parked, Primal::<A, false> { a, f1, f2, activation });
                }
                Keep::Second => {
                    self.forward(index, input, true, n_rows, parked, Primal::<A, true> { a, f1, f2, activation });
                }
            }
        }
    }

    /// The output o from the last hidden layer.
    pub fn output(&self, work: &mut Workspace, n_rows: usize) {
        let parked = work.parked.as_mut_slice().as_mut_ptr();
        let input = work.hidden.last().map_or(&work.a0, |hidden| &hidden.a);
        self.forward_to_output(input, true, n_rows, parked, work.output.as_mut_ptr());
    }

    /// Reverse sweep from `seed`: δ, h (with [`Keep::Second`]) and `input_grad`.
    pub fn reverse(&self, work: &mut Workspace, n_rows: usize, keep: Keep) {
        let parked = work.parked.as_mut_slice().as_mut_ptr();
        for index in (1..=self.last()).rev() {
            let (to, above) = work.hidden.split_at_mut(index);
            let tiles = &mut to[index - 1];
            let delta = above.first().map_or(&work.seed, |hidden| &hidden.delta);
            let (f1, out, h) = (tiles.f1.as_ptr(), tiles.delta.as_mut_ptr(), tiles.z_bar.as_mut_ptr());
            match keep {
                Keep::First => self.backward(index, delta, n_rows, parked, Reverse::<false> { f1, out, h }),
                Keep::Second => self.backward(index, delta, n_rows, parked, Reverse::<true> { f1, out, h }),
            }
        }
        let delta = work.hidden.first().map_or(&work.seed, |hidden| &hidden.delta);
        self.backward_to_input(delta, n_rows, parked, work.input_grad.as_mut_ptr());
    }

    /// Tangent sweep from `c0`: c_a, g and, unless the head is scalar, `output_c`.
    pub fn tangent(&self, work: &mut Workspace, n_rows: usize) {
        let parked = work.parked.as_mut_slice().as_mut_ptr();
        for index in 0..self.last() {
            let (before, from) = work.hidden.split_at_mut(index);
            let input = before.last().map_or(&work.c0, |hidden| &hidden.c_a);
            let tiles = &mut from[0];
            let epilogue = Tangent { f1: tiles.f1.as_ptr(), c_a: tiles.c_a.as_mut_ptr(), g: tiles.z_bar.as_mut_ptr() };
            self.forward(index, input, false, n_rows, parked, epilogue);
        }
        if self.architecture.head == Head::Scalar {
            return; // ō does not depend on the output of the tangent
        }
        let input = work.hidden.last().map_or(&work.c0, |hidden| &hidden.c_a);
        self.forward_to_output(input, false, n_rows, parked, work.output_c.as_mut_ptr());
    }

    /// Adjoint sweep through one layer, from z̄ of its output to z̄ of its input; `interior` adds g.
    ///
    /// Layer 0 has no adjoint to form: its input is the data.
    pub fn adjoint(&self, layer: usize, work: &mut Workspace, n_rows: usize, interior: bool) {
        let parked = work.parked.as_mut_slice().as_mut_ptr();
        let (to, above) = work.hidden.split_at_mut(layer);
        let Some(tiles) = to.last_mut() else { return };
        let z_bar = above.first().map_or(&work.output_bar, |hidden| &hidden.z_bar);
        let (f1, out) = (tiles.f1.as_ptr(), tiles.z_bar.as_mut_ptr());
        if interior {
            self.backward(layer, z_bar, n_rows, parked, Adjoint { f1, z_bar: out });
        } else {
            self.backward(layer, z_bar, n_rows, parked, Reverse::<false> { f1, out, h: out });
        }
    }
}
