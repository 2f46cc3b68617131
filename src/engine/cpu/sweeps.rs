//! The four sweeps over one tile. Each is a chain of products with the elementwise work fused in.
//!
//! | sweep | product | fused |
//! |---|---|---|
//! | primal | z = W a + b | a = f(z), f′(z), f″(z) |
//! | reverse | u = Wᵀ δ | δ = u ⊙ f′, h = u ⊙ f″ |
//! | tangent | c_z = W c | c_a = f′ ⊙ c_z, g = h ⊙ c_z |
//! | adjoint | ā = Wᵀ z̄ | z̄ = f′ ⊙ ā + g |
//!
//! With diffusion there are probes ε. Their plain tangent is e, and their curvature is added to the
//! generator's tangent c. The weight k of a probe is ω(t) · ½σ(t)² over the number of probes, and u
//! = Wᵀδ.
//!
//! | sweep | product | fused |
//! |---|---|---|
//! | primal | | f‴(z) too |
//! | reverse | u = Wᵀ δ | h = u ⊙ f″, f″ kept, u ⊙ f‴ |
//! | probe tangent | e_z = W e | e_a = f′ ⊙ e_z |
//! | tangent | c_z = W c | c_a = f′ ⊙ c_z + k f″ ⊙ Σe_z², g = h ⊙ c_z + k u ⊙ f‴ ⊙ Σe_z² |
//! | probe adjoint | ē_a = Wᵀ ē | ē = f′ ⊙ ē_a + 2k h ⊙ e_z, g += ē_a ⊙ f″ ⊙ e_z |
//!
//! ω is folded into the tangent's seed (the sweep is linear in it), so `c` and `g` arrive scaled.

use pulp::Simd;

use super::activation::{ActivationKernel, Gelu, Silu, Sin, Softplus, Tanh};
use super::epilogue::{Adjoint, DiffusiveTangent, Plain, Primal, ProbeAdjoint, ProbeTangent, Reverse, Tangent};
use super::narrow::{NarrowOperand, NarrowProduct, is_narrow};
use super::panel::Tile;
use super::product::{Epilogue, Operand, Product};
use super::weights::{PackedLayer, Packing, WeightsView};
use super::workspace::Workspace;
use crate::model::{Activation, Architecture, Head};

/// Kind of the rows of a tile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// Interior rows: g and the channels of δ, c and of the probes.
    Interior,
    /// The potential alone.
    Boundary,
}

/// Highest derivative of the activation that the primal and reverse sweeps compute.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// f′: enough for ∇s and for boundary rows.
    First,
    /// Also f″: interior rows.
    Second,
    /// Also f‴, with separate tiles for f″ and h: interior rows with probes.
    Third,
}

/// Start of the sums of a product with W.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SumsFrom {
    /// The biases: a value.
    Bias,
    /// Zero: a tangent.
    Zero,
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

    /// The start of the sums of a product with W of `layer`.
    fn start(&self, layer: &PackedLayer, sums: SumsFrom) -> *const f32 {
        match sums {
            SumsFrom::Bias => self.weights.bias(layer),
            SumsFrom::Zero => std::ptr::null(),
        }
    }

    /// Product with W: `a` is the layer's input.
    fn forward<E: Epilogue>(
        &self,
        layer: usize,
        a: &Tile,
        sums: SumsFrom,
        n_rows: usize,
        parked: *mut [f32],
        epilogue: E,
    ) {
        let layer = self.layer(layer);
        let operand = Operand {
            weight: self.weights.forward(layer),
            start: self.start(layer, sums),
            inner: layer.layer.n_in,
            n_panels: layer.out_panels,
        };
        // SAFETY: the sweeps below, which alone call this, pass tiles of one workspace, made for
        // this network and packing, and write none that they read; the weights change only between
        // steps.
        let product = unsafe { Product::new(a, n_rows, operand, parked, epilogue) };
        self.simd.vectorize(product);
    }

    /// Product with Wᵀ: `a` is an adjoint of the layer's output.
    fn backward<E: Epilogue>(&self, layer: usize, a: &Tile, n_rows: usize, parked: *mut [f32], epilogue: E) {
        let layer = self.layer(layer);
        let operand = Operand {
            weight: self.weights.reverse(layer),
            start: std::ptr::null(),
            inner: layer.layer.n_out,
            n_panels: layer.in_panels,
        };
        // SAFETY: as in `forward`.
        let product = unsafe { Product::new(a, n_rows, operand, parked, epilogue) };
        self.simd.vectorize(product);
    }

    /// `out` = W a, onto the start of `sums`: the output of the network or of its tangent.
    fn forward_to_output(&self, a: &Tile, sums: SumsFrom, n_rows: usize, parked: *mut [f32], out: *mut f32) {
        let layer = self.layer(self.last());
        if !is_narrow(layer.layer.n_out, self.packing.width) {
            return self.forward(self.last(), a, sums, n_rows, parked, Plain { out });
        }
        let operand = NarrowOperand {
            weight: self.weights.reverse(layer),
            start: self.start(layer, sums),
            n_panels: layer.in_panels,
            n_columns: layer.layer.n_out,
        };
        // SAFETY: as in `forward`.
        let product = unsafe { NarrowProduct::new(a, n_rows, operand, out) };
        self.simd.vectorize(product);
    }

    /// `out` = Wᵀδ of the first layer: the gradient at the input of the network.
    fn backward_to_input(&self, delta: &Tile, n_rows: usize, parked: *mut [f32], out: *mut f32) {
        let layer = self.layer(0);
        if !is_narrow(layer.layer.n_in, self.packing.width) {
            return self.backward(0, delta, n_rows, parked, Plain { out });
        }
        let operand = NarrowOperand {
            weight: self.weights.forward(layer),
            start: std::ptr::null(),
            n_panels: layer.out_panels,
            n_columns: layer.layer.n_in,
        };
        // SAFETY: as in `forward`.
        let product = unsafe { NarrowProduct::new(delta, n_rows, operand, out) };
        self.simd.vectorize(product);
    }

    /// Primal sweep through the hidden layers from `a0`: a, f′ and the derivatives that `keep` asks
    /// for.
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
        let parked: *mut [f32] = work.parked.as_mut_slice();
        for index in 0..self.last() {
            let (before, from) = work.hidden.split_at_mut(index);
            let input = before.last().map_or(&work.a0, |hidden| &hidden.a);
            let tiles = &mut from[0];
            let (a, f1, f3) = (tiles.a.as_mut_ptr(), tiles.f1.as_mut_ptr(), tiles.u_f3.as_mut_ptr());
            // Without probes nothing reads f″ after the reverse sweep, so it shares a tile with its
            // successor.
            let f2 = if keep == Keep::Third { tiles.f2.as_mut_ptr() } else { tiles.z_bar.as_mut_ptr() };
            match keep {
                Keep::First => {
                    self.forward(
                        index,
                        input,
                        SumsFrom::Bias,
                        n_rows,
                        parked,
                        Primal::<A, 1> { a, f1, f2, f3, activation },
                    );
                }
                Keep::Second => {
                    self.forward(
                        index,
                        input,
                        SumsFrom::Bias,
                        n_rows,
                        parked,
                        Primal::<A, 2> { a, f1, f2, f3, activation },
                    );
                }
                Keep::Third => {
                    self.forward(
                        index,
                        input,
                        SumsFrom::Bias,
                        n_rows,
                        parked,
                        Primal::<A, 3> { a, f1, f2, f3, activation },
                    );
                }
            }
        }
    }

    /// The output o from the last hidden layer.
    pub fn output(&self, work: &mut Workspace, n_rows: usize) {
        let parked: *mut [f32] = work.parked.as_mut_slice();
        let input = work.hidden.last().map_or(&work.a0, |hidden| &hidden.a);
        self.forward_to_output(input, SumsFrom::Bias, n_rows, parked, work.output.as_mut_ptr());
    }

    /// Reverse sweep from `seed`: δ, `input_grad` and the derivatives that `keep` asks for, as in
    /// the primal sweep before it.
    pub fn reverse(&self, work: &mut Workspace, n_rows: usize, keep: Keep) {
        let parked: *mut [f32] = work.parked.as_mut_slice();
        for index in (1..=self.last()).rev() {
            let (to, above) = work.hidden.split_at_mut(index);
            let tiles = &mut to[index - 1];
            let delta = above.first().map_or(&work.seed, |hidden| &hidden.delta);
            let (f1, out, u_f3) = (tiles.f1.as_ptr(), tiles.delta.as_mut_ptr(), tiles.u_f3.as_mut_ptr());
            let (f2, h) = if keep == Keep::Third {
                (tiles.f2.as_ptr(), tiles.h.as_mut_ptr())
            } else {
                (tiles.z_bar.as_ptr(), tiles.z_bar.as_mut_ptr())
            };
            match keep {
                Keep::First => {
                    self.backward(index, delta, n_rows, parked, Reverse::<1> { f1, f2, out, h, u_f3 });
                }
                Keep::Second => {
                    self.backward(index, delta, n_rows, parked, Reverse::<2> { f1, f2, out, h, u_f3 });
                }
                Keep::Third => {
                    self.backward(index, delta, n_rows, parked, Reverse::<3> { f1, f2, out, h, u_f3 });
                }
            }
        }
        let delta = work.hidden.first().map_or(&work.seed, |hidden| &hidden.delta);
        self.backward_to_input(delta, n_rows, parked, work.input_grad.as_mut_ptr());
    }

    /// Tangent sweep from `c0`: c_a, g and, if the head or the probes need it, `output_c`. Probes
    /// first have their own tangent sweep from `probes[..].input`: e_z, e_a and o_e.
    pub fn tangent(&self, work: &mut Workspace, n_rows: usize) {
        if !work.probes.is_empty() {
            return self.diffusive_tangent(work, n_rows);
        }
        let parked: *mut [f32] = work.parked.as_mut_slice();
        for index in 0..self.last() {
            let (before, from) = work.hidden.split_at_mut(index);
            let input = before.last().map_or(&work.c0, |hidden| &hidden.c_a);
            let tiles = &mut from[0];
            let epilogue = Tangent { f1: tiles.f1.as_ptr(), c_a: tiles.c_a.as_mut_ptr(), g: tiles.z_bar.as_mut_ptr() };
            self.forward(index, input, SumsFrom::Zero, n_rows, parked, epilogue);
        }
        if self.architecture.head == Head::Scalar {
            return; // ō does not depend on the output of the tangent
        }
        let input = work.hidden.last().map_or(&work.c0, |hidden| &hidden.c_a);
        self.forward_to_output(input, SumsFrom::Zero, n_rows, parked, work.output_c.as_mut_ptr());
    }

    fn diffusive_tangent(&self, work: &mut Workspace, n_rows: usize) {
        let parked: *mut [f32] = work.parked.as_mut_slice();
        let probe_weight = work.probe_weight.as_ptr();
        for index in 0..self.last() {
            let (before, from) = work.hidden.split_at_mut(index);
            let tiles = &mut from[0];
            let f1 = tiles.f1.as_ptr();
            for (k, probe) in tiles.probes.iter_mut().enumerate() {
                let input = before.last().map_or(&work.probes[k].input, |hidden| &hidden.probes[k].e_a);
                let epilogue = ProbeTangent { f1, e_z: probe.e_z.as_mut_ptr(), e_a: probe.e_a.as_mut_ptr() };
                self.forward(index, input, SumsFrom::Zero, n_rows, parked, epilogue);
            }
            let epilogue = DiffusiveTangent {
                f1,
                f2: tiles.f2.as_ptr(),
                h: tiles.h.as_ptr(),
                u_f3: tiles.u_f3.as_ptr(),
                probe_weight,
                probes: &tiles.probes,
                c_a: tiles.c_a.as_mut_ptr(),
                g: tiles.z_bar.as_mut_ptr(),
            };
            let input = before.last().map_or(&work.c0, |hidden| &hidden.c_a);
            self.forward(index, input, SumsFrom::Zero, n_rows, parked, epilogue);
        }
        let last = work.hidden.last();
        if self.architecture.head != Head::Scalar {
            for (k, ends) in work.probes.iter_mut().enumerate() {
                let input = last.map_or(&ends.input, |hidden| &hidden.probes[k].e_a);
                self.forward_to_output(input, SumsFrom::Zero, n_rows, parked, ends.output.as_mut_ptr());
            }
        }
        let input = last.map_or(&work.c0, |hidden| &hidden.c_a);
        self.forward_to_output(input, SumsFrom::Zero, n_rows, parked, work.output_c.as_mut_ptr());
    }

    /// The last step of the adjoint sweep, needed only for the gradient in x: `input_grad` = Wᵀz̄
    /// of the first layer.
    pub fn adjoint_to_input(&self, work: &mut Workspace, n_rows: usize) {
        let parked: *mut [f32] = work.parked.as_mut_slice();
        let z_bar = work.hidden.first().map_or(&work.output_bar, |hidden| &hidden.z_bar);
        self.backward_to_input(z_bar, n_rows, parked, work.input_grad.as_mut_ptr());
    }

    /// Adjoint sweep through one layer, from z̄ of its output to z̄ of its input. `interior` adds g
    /// and the ē of the probes.
    ///
    /// Layer 0 has no adjoint: its input is the data.
    pub fn adjoint(&self, layer: usize, work: &mut Workspace, n_rows: usize, kind: RowKind) {
        let parked: *mut [f32] = work.parked.as_mut_slice();
        let probe_weight = work.probe_weight.as_ptr();
        let (to, above) = work.hidden.split_at_mut(layer);
        let Some(tiles) = to.last_mut() else { return };
        let z_bar = above.first().map_or(&work.output_bar, |hidden| &hidden.z_bar);
        let (f1, out) = (tiles.f1.as_ptr(), tiles.z_bar.as_mut_ptr());
        if kind == RowKind::Boundary {
            let epilogue = Reverse::<1> { f1, f2: out, out, h: out, u_f3: out };
            return self.backward(layer, z_bar, n_rows, parked, epilogue);
        }
        let (f2, h) = (tiles.f2.as_ptr(), tiles.h.as_ptr());
        for (k, probe) in tiles.probes.iter_mut().enumerate() {
            let e_bar = above.first().map_or(&work.probes[k].output, |hidden| &hidden.probes[k].e_z);
            let epilogue = ProbeAdjoint { f1, f2, h, probe_weight, e_z: probe.e_z.as_mut_ptr(), g: out };
            self.backward(layer, e_bar, n_rows, parked, epilogue);
        }
        self.backward(layer, z_bar, n_rows, parked, Adjoint { f1, z_bar: out });
    }
}
