//! Faults inserted on purpose into copies of `kernels/`. Each must be noticed, by the virtual GPU,
//! which reports its location, or by the comparison with the CPU, while the original kernels pass
//! the same cases.
//!
//! A faulty file is compiled, and replaces its module in a child process, which is this test again:
//! see [`case`]. `--nocapture` shows how each was noticed; the list is in `tests/vgpu/README.md`.

mod common;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use action_matching::data::{Snapshots, draw_gaussian};
use action_matching::density_path::{
    DensityPath, Group, Groups, Interpolant, Knots, Spline, TimeMoments, TimeRule, optimal_couplings,
};
use action_matching::engine::cpu::CpuEngine;
use action_matching::engine::cuda::CudaEngine;
use action_matching::engine::reference::ReferenceEngine;
use action_matching::engine::{
    Batch, Bend, Differentiate, Engine, Estimator, LearningRate, NetworkState, Optimizer, StepRecord, TrainState,
    Training,
};
use action_matching::integrate::{Method, Noise, Plan, StepControl, Trajectories};
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::model::{Activation, Architecture, Coordinates, Head, Model, TimeEmbedding, initial_parameters};
use action_matching::objective::Objective;
use action_matching::precision::Precision;
use action_matching::rng::Stream;
use action_matching::stage::Stage;
use common::folder_with_driver;

/// The work of a child.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    /// Loss and gradient of given rows, with probes.
    Gradient,
    /// The same for so many rows that a block has tiles of different parts of the batch.
    Parts,
    /// Loss and gradient of few rows, in low tiles; all other cases have high ones.
    Low,
    /// Loss and gradient of a narrow network.
    Narrow,
    /// The same of a network whose layers have fewer columns than a broad product, and more.
    Broad,
    /// Steps on a spline between paired samples, with probes and with times that follow the
    /// integrand.
    Steps,
    /// Steps on a learned path.
    Learned,
    /// Steps on rows under several conditions.
    Conditions,
    /// A step of more rows than the device processes at a time.
    Chunks,
    /// Particles with noise and weights.
    Noise,
    /// Particles with error control, weights and densities.
    Density,
    /// Loss and gradient with products of warpgroups, on a card that has them: layers of both of
    /// their numbers of columns, and of more than one column tile.
    Warpgroups,
    /// Steps on a learned path likewise.
    WarpgroupSteps,
    /// Particles with noise likewise.
    WarpgroupNoise,
}

impl Case {
    fn is_of_warpgroups(self) -> bool {
        matches!(self, Case::Warpgroups | Case::WarpgroupSteps | Case::WarpgroupNoise)
    }
}

const CASES: [Case; 11] = [
    Case::Gradient,
    Case::Parts,
    Case::Low,
    Case::Narrow,
    Case::Broad,
    Case::Steps,
    Case::Learned,
    Case::Conditions,
    Case::Chunks,
    Case::Noise,
    Case::Density,
];

/// How a fault is noticed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Notice {
    Race,
    NotWaitedFor,
    Uninitialized,
    OutOfBounds,
    Misaligned,
    /// Blocks that wait for what nobody will do.
    Deadlock,
    /// A register that a product is about to use was written without a fence.
    Unfenced,
    /// A register of a product under way.
    UnderWay,
    /// Barriers that copies do not know of.
    UnknownBarrier,
    /// The results differ from the CPU's.
    Comparison,
}
use Notice::{
    Comparison, Deadlock, Misaligned, NotWaitedFor, OutOfBounds, Race, UnderWay, Unfenced, Uninitialized,
    UnknownBarrier,
};

impl Notice {
    /// The virtual GPU's texts.
    const OF_DEVICE: [(Notice, &str); 9] = [
        (Race, "data race"),
        (NotWaitedFor, "asynchronous copy that was not waited for"),
        (Uninitialized, "uninitialized"),
        (OutOfBounds, "out of bounds"),
        (Misaligned, "misaligned"),
        (Deadlock, "a wait that nobody ends"),
        (Unfenced, "without a wgmma.fence"),
        (UnderWay, "register of a wgmma.mma_async under way"),
        (UnknownBarrier, "no fence.mbarrier_init"),
    ];

    fn name(self) -> &'static str {
        Self::OF_DEVICE.iter().find(|(notice, _)| *notice == self).map_or("comparison", |(_, said)| said)
    }
}

/// A fault: `old` is replaced by `new` in `file`.
struct Fault {
    what: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    at: At,
    notices: &'static [Notice],
}

const fn fault(
    what: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    at: At,
    notices: &'static [Notice],
) -> Fault {
    Fault { what, file, old, new, at, notices }
}

/// Scope of the search for a fault: entries of a module, with operands of one type.
#[derive(Clone, Copy)]
struct At {
    module: &'static str,
    entries: &'static [&'static str],
    operands: &'static str,
    case: Case,
}

const fn at(module: &'static str, entries: &'static [&'static str], operands: &'static str, case: Case) -> At {
    At { module, entries, operands, case }
}

const SWEEP: At = at("sweep", &["sweep"], "f32", Case::Learned);
const BROAD_BF16: At = at("sweep_broad", &["sweep_broad_diffusive"], "bf16", Case::Broad);
const LOW: At = at("sweep_low", &["sweep_low_diffusive"], "f32", Case::Low);
const DIFFUSIVE: At = at("sweep", &["sweep_diffusive"], "f32", Case::Gradient);
const NARROW: At = at("sweep_narrow", &["sweep_narrow_diffusive"], "f32", Case::Narrow);
const NARROW_BF16: At = At { operands: "bf16", ..NARROW };
const BEND: At = at("bend", &["bend_forward", "bend_backward"], "f32", Case::Learned);
const BEND_BF16: At = At { operands: "bf16", ..BEND };
const GRAD: At = at("weight_grad", &["weight_grad"], "f32", Case::Gradient);
const GRAD_BF16: At = At { operands: "bf16", ..GRAD };
const GRAD_PARTS: At = At { operands: "bf16", case: Case::Parts, ..GRAD };
const GRAD_CHUNKS: At = At { case: Case::Chunks, ..GRAD };
const DRAW: At = at("draw", &["draw", "draw_bend"], "f32", Case::Steps);
const DRAW_CONDITIONS: At = at("draw", &["draw", "draw_bend"], "f32", Case::Conditions);
const DRAW_LEARNED: At = At { case: Case::Learned, ..DRAW };
const OPTIMIZER: At = at("optimizer", &["update"], "f32", Case::Steps);
const OPTIMIZER_F16: At = At { operands: "f16", ..OPTIMIZER };
const FLOW: At = at("integrate", &["integrate"], "f32", Case::Noise);
const DENSITY: At = at("integrate", &["integrate_density"], "f32", Case::Density);
const WGMMA: At = at("sweep_wgmma", &["sweep_wgmma"], "bf16", Case::Warpgroups);
const WGMMA_FLOW: At = at("integrate_wgmma", &["integrate_wgmma"], "bf16", Case::WarpgroupNoise);
const WGMMA_OPTIMIZER: At = at("optimizer", &["update"], "bf16", Case::WarpgroupSteps);

const FAULTS: &[Fault] = &[
    // Products: kernels/tile/product.cuh, in the smallest module that has them.
    fault(
        "a stage is used before its copies have arrived",
        "tile/product.cuh",
        "wait_copies<kSteps - 2>()",
        "wait_copies<kSteps - 1>()",
        BEND,
        &[NotWaitedFor],
    ),
    fault(
        "the stages begin one too far",
        "tile/product.cuh",
        "stages = operand + memory.n_operand_chunks * kOperandChunk;",
        "stages = operand + memory.n_operand_chunks * kOperandChunk + kStageBytes;",
        BEND,
        &[OutOfBounds],
    ),
    fault(
        "copies start 8 bytes too far",
        "tile/product.cuh",
        "from_a + k * pitch)",
        "from_a + k * pitch + 8)",
        BEND_BF16,
        &[Misaligned],
    ),
    fault(
        "rows of the operand are 16 bytes too far apart",
        "tile/product.cuh",
        "reinterpret_cast<const unsigned char*>(a) + line * pitch",
        "reinterpret_cast<const unsigned char*>(a) + line * (pitch + 16)",
        BEND,
        &[OutOfBounds],
    ),
    fault(
        "results are written one row too far",
        "tile/sums.cuh",
        "row = Shape::first_row() + lane / 4, column = lines.column0",
        "row = Shape::first_row() + lane / 4 + 1, column = lines.column0",
        BEND,
        // The first row is not written, and the last one lies beyond: the host's threads decide
        // which comes first.
        &[Uninitialized, OutOfBounds],
    ),
    fault(
        "two quarters of the columns are swapped",
        "tile/sums.cuh",
        "group * Shape::kGroupColumns + lane % 4 * 8;",
        "group * Shape::kGroupColumns + (lane % 4 ^ 1) * 8;",
        BEND_BF16,
        &[Comparison],
    ),
    fault(
        "the second half of a fragment comes from the next line",
        "tile/product.cuh",
        "(right ^ step)",
        "(right + 2 * step)",
        BEND_BF16,
        &[Uninitialized],
    ),
    fault(
        "the halves of an operand that stays are swapped",
        "tile/product.cuh",
        "element.slot ^ (16 * i)",
        "element.slot ^ (16 * (i ^ 1))",
        SWEEP,
        &[Comparison],
    ),
    fault(
        "the second group of columns uses the weights of the first",
        "tile/product.cuh",
        "of_group = (right ^ step) + group * kGroupColumns * kChunkBytes",
        "of_group = (right ^ step)",
        BROAD_BF16,
        &[Comparison],
    ),
    // Sweeps.
    fault(
        "an operand that stays does not leave for the weight gradient",
        "net/epilogue.cuh",
        "if (!stays || Tile::kOperands == Operands::kKeepForGradient)",
        "if (!stays)",
        SWEEP,
        &[Uninitialized],
    ),
    fault(
        "an operand that left is looked for in shared memory",
        "net/sweeps.cuh",
        "!is_first && stays(width(l))",
        "!is_first",
        BROAD_BF16,
        &[Uninitialized],
    ),
    fault(
        "threads without a line of a low tile copy one",
        "tile/product.cuh",
        "kRows >= kLinesAtOnce || line < kRows",
        "true",
        LOW,
        &[Race],
    ),
    fault(
        "warps beyond a low tile have elements",
        "tile/product.cuh",
        "first_row() >= kRows) return false;",
        "first_row() >= kRows) return true;",
        LOW,
        &[Race, OutOfBounds, Uninitialized],
    ),
    fault(
        "only the first low tile of a high one adds to the last bias",
        "net/layer_gradient.cuh",
        "kTileRows / first.rows.tile_rows * kWarps;",
        "kWarps;",
        At { case: Case::Low, ..GRAD },
        &[Comparison],
    ),
    fault(
        "blocks share what their threads carry",
        "tile/carried.cuh",
        "blockIdx.x * layout.of_tile + unit0",
        "unit0",
        DIFFUSIVE,
        &[Race],
    ),
    fault(
        "what threads carry takes the last stage of a product",
        "net/sweeps.cuh",
        ": kStages * Product<kColumns>::kStageBytes",
        ": (kStages - 1) * Product<kColumns>::kStageBytes",
        LOW,
        &[Race, NotWaitedFor, Comparison],
    ),
    fault(
        "units that threads carry overlap",
        "tile/carried.cuh",
        "kPieces * kThreads * 16",
        "kPieces * kThreads * 8",
        SWEEP,
        &[Race, Comparison],
    ),
    fault(
        "a thread carries two kinds of values in one place",
        "net/sweeps.cuh",
        "kind * carried.layout.of_kind + of_first",
        "kind / 2 * carried.layout.of_kind + of_first",
        DIFFUSIVE,
        &[Comparison],
    ),
    fault(
        "all layers use the bias of the first",
        "net/sweeps.cuh",
        "biases + of_map.bias + column0",
        "biases + column0",
        BEND,
        &[Comparison],
    ),
    fault(
        "the padding of a seed is not written",
        "net/row.cuh",
        "clear_lines<TileSweeps::kRows>(to, width);",
        "",
        SWEEP,
        &[Uninitialized],
    ),
    fault(
        "the padding of a tangent is not written",
        "sweep.cuh",
        "clear_lines<TileSweeps::kRows>(tile.c(0), tile.width(0));",
        "",
        SWEEP,
        &[Uninitialized],
    ),
    fault(
        "resident weights are used before their copies have arrived",
        "net/sweeps.cuh",
        "commit_copies(); wait_copies<0>();",
        "commit_copies();",
        NARROW,
        &[NotWaitedFor, Race],
    ),
    fault(
        "both ways of resident weights lie in one place",
        "net/sweeps.cuh",
        "(kWay == Way::kForward ? 0 : 1)",
        "0",
        NARROW,
        &[Comparison],
    ),
    fault(
        "a warp copies the lines of two in its operand",
        "tile/product.cuh",
        "line = first_row() + static_cast<int>(this_thread()) % 32 / 4",
        "line = first_row() + static_cast<int>(this_thread()) % 32 / 8",
        NARROW,
        &[Uninitialized, Race],
    ),
    fault(
        "all probes share one buffer",
        "net/tile_rows.cuh",
        "return static_cast<size_t>(network.row_elements) * rows.n_slots;",
        "return 0;",
        DIFFUSIVE,
        &[Uninitialized, Race],
    ),
    fault(
        "the curvature of probes is halved in the adjoint",
        "net/epilogue.cuh",
        "2.0f * this->tile.sm_probe_weight",
        "1.0f * this->tile.sm_probe_weight",
        DIFFUSIVE,
        &[Comparison],
    ),
    fault(
        "the third derivative of the activation has the wrong sign",
        "net/activation.cuh",
        "fmaf(z, d3, 3.0f * d2)",
        "-fmaf(z, d3, 3.0f * d2)",
        DIFFUSIVE,
        &[Comparison],
    ),
    fault(
        "the sum over a tile begins at its second row",
        "sweep.cuh",
        "for (uint32_t i = threadIdx.x; i < kRows; i += 32) sums.value",
        "for (uint32_t i = threadIdx.x + 1; i < kRows; i += 32) sums.value",
        SWEEP,
        &[Comparison],
    ),
    fault(
        "growth is counted twice in the loss",
        "sweep.cuh",
        "0.5f * growth() * s * s",
        "growth() * s * s",
        SWEEP,
        &[Comparison],
    ),
    // Weight gradient.
    fault(
        "the tangent is paired with the wrong adjoint",
        "net/layer_gradient.cuh",
        "adjoint = tile.template at<T>(tile.rows.delta, layer)",
        "adjoint = tile.template at<T>(tile.rows.z_bar, layer)",
        GRAD,
        &[Comparison],
    ),
    fault(
        "boundary tiles are treated as interior ones",
        "weight_grad.cuh",
        "tile < batch.n_interior_tiles ? 2 + params.rows.n_probes : 1",
        "2 + params.rows.n_probes",
        GRAD,
        &[Uninitialized],
    ),
    fault(
        "the sums of a part keep the scale of the part before",
        "weight_grad.cuh",
        "if (factor != 1.0f) product.multiply_by(factor);",
        "",
        GRAD_PARTS,
        &[Comparison],
    ),
    fault(
        "the sums keep the scale of their last part",
        "weight_grad.cuh",
        "product.multiply_by(sum_scale<T>(batch, tile - n_groups));",
        ";",
        GRAD_BF16,
        &[Comparison],
    ),
    fault(
        "seeds of half of a warp's rows are omitted",
        "net/row.cuh",
        "distance = Lanes::kCount; distance < 32;",
        "distance = Lanes::kCount; distance < 16;",
        SWEEP,
        &[Comparison],
    ),
    fault(
        "biases omit a chunk of rows",
        "net/layer_gradient.cuh",
        "!is_output ? kChunks : 0",
        "!is_output ? kChunks - 1 : 0",
        GRAD,
        &[Comparison],
    ),
    fault(
        "earlier chunks are dropped",
        "weight_grad.cuh",
        "if (batch.first_tile + blockIdx.y >= n_groups)",
        "if (false)",
        GRAD_CHUNKS,
        &[Comparison],
    ),
    fault(
        "a chunk is read before its copies have landed",
        "tile/product.cuh",
        "wait_copies<kSteps - 2>()",
        "wait_copies<kSteps - 1>()",
        GRAD_BF16,
        &[NotWaitedFor],
    ),
    // Narrow networks.
    fault(
        "boundary tiles are treated as interior ones",
        "sweep_narrow.cuh",
        "interior ? 2 + sweep.rows.n_probes : 1",
        "2 + sweep.rows.n_probes",
        NARROW,
        &[Uninitialized],
    ),
    fault(
        "the sums of two layers share one buffer",
        "sweep_narrow.cuh",
        "return sm_sums[layer - 1];",
        "return sm_sums[layer == 2 ? 0 : layer - 1];",
        NARROW,
        &[Comparison],
    ),
    fault(
        "blocks share a slot",
        "sweep_narrow.cuh",
        "index * kTileRows, blockIdx.x * kTileRows}",
        "index * kTileRows, blockIdx.x / 2 * kTileRows}",
        NARROW,
        &[Race],
    ),
    // The second network.
    fault(
        "the second network descends the loss",
        "bend.cuh",
        "-*row.of(params.rows.weight) * row.of(params.action.grad_x, dim)[k]",
        "*row.of(params.rows.weight) * row.of(params.action.grad_x, dim)[k]",
        BEND,
        &[Comparison],
    ),
    fault(
        "the moved points are not written to the network's input",
        "bend.cuh",
        "= to_element<T>(x[k]);",
        "= to_element<T>(x[k] - weight * row.o(k));",
        BEND,
        &[Comparison],
    ),
    // Draws.
    fault(
        "rows are read one position too far",
        "draw/path.cuh",
        "(params.offsets[snapshot] + index) * dim",
        "(params.offsets[snapshot] + index + 1) * dim",
        DRAW,
        &[OutOfBounds],
    ),
    fault(
        "pairs end at the row where they begin",
        "draw/path.cuh",
        "coupling.pairs[2 * pair + 1]",
        "coupling.pairs[2 * pair]",
        DRAW,
        &[OutOfBounds],
    ),
    fault(
        "rows are numbered over the whole batch instead of per part",
        "draw.cu",
        "draw.row(part, tile_of_part(params.batch, part, tile)",
        "draw.row(part, tile",
        DRAW_LEARNED,
        &[Comparison],
    ),
    fault(
        "the spline's velocity is not its slope",
        "draw/path.cuh",
        "a * s * (1.0f - 3.0f * r)",
        "a * s * (1.0f - 2.0f * r)",
        DRAW,
        &[Comparison],
    ),
    fault(
        "the tangents of a spline are not shortened",
        "draw/path.cuh",
        "own = scale * own, beyond = scale * beyond;",
        "",
        DRAW,
        &[Comparison],
    ),
    fault(
        "the length of a tangent omits every second lane",
        "draw/path.cuh",
        "distance > 0; distance /= 2",
        "distance > 1; distance /= 2",
        DRAW,
        &[Comparison],
    ),
    fault(
        "one lane too few writes the input",
        "draw.cu",
        "for (uint32_t column = lane; column < in_width;",
        "for (uint32_t column = lane; column + 1 < in_width;",
        DRAW,
        &[Uninitialized],
    ),
    fault(
        "every row has the condition of the first group",
        "draw.cu",
        "row.group * groups.n_conditions",
        "0 * groups.n_conditions",
        DRAW_CONDITIONS,
        &[Comparison],
    ),
    fault(
        "the share of the group after is taken",
        "draw/row.cuh",
        "groups.cumulative[k] <= word",
        "groups.cumulative[k + 1] <= word",
        DRAW_CONDITIONS,
        &[Comparison],
    ),
    // The optimizer.
    fault(
        "the last partial gradient is omitted",
        "optimizer/gather.cuh",
        "if (index(k) < n_partials)",
        "if (index(k) + 1 < n_partials)",
        OPTIMIZER,
        &[Comparison],
    ),
    fault(
        "the norm omits a block",
        "optimizer/finish_step.cuh",
        "for (uint32_t block = threadIdx.x; block < network",
        "for (uint32_t block = threadIdx.x + 1; block < network",
        OPTIMIZER,
        &[Comparison],
    ),
    fault(
        "the loss scale stays in the gradient",
        "optimizer/gather.cuh",
        "1.0f / params.state->loss_scale",
        "1.0f",
        OPTIMIZER_F16,
        &[Comparison],
    ),
    fault(
        "the copy for the reverse sweep is not transposed",
        "optimizer/update.cuh",
        "sm_weights[slow][quick + k] = p[k]",
        "sm_weights[quick + k][slow] = p[k]",
        OPTIMIZER,
        &[Comparison],
    ),
    fault(
        "the average lags one step behind",
        "optimizer/update.cuh",
        "next.p - old.ema",
        "old.p - old.ema",
        OPTIMIZER,
        &[Comparison],
    ),
    fault(
        "moments of times omit a tile",
        "optimizer/times.cuh",
        "uint32_t tile = group; tile < part.n_tiles",
        "uint32_t tile = group + 1; tile < part.n_tiles",
        OPTIMIZER,
        &[Comparison],
    ),
    // Particles.
    fault(
        "every step uses the noise of the first",
        "integrate/noise.cuh",
        "n_steps * params.increments_per_step",
        "0 * params.increments_per_step",
        FLOW,
        &[Comparison],
    ),
    fault(
        "the last stage is not reused as the next step's first",
        "integrate/particles.cuh",
        "tile.is_swapped = !tile.is_swapped",
        "tile.is_swapped = tile.is_swapped",
        DENSITY,
        &[Comparison],
    ),
    fault(
        "density grows instead of falling",
        "integrate/velocity.cuh",
        "= -curvature;",
        "= curvature;",
        DENSITY,
        &[Comparison],
    ),
    fault(
        "blocks share the end of their scratch memory",
        "integrate/state.cuh",
        "opaque(blockIdx.x) * params.slot_size",
        "opaque(blockIdx.x) * (params.slot_size - 64)",
        DENSITY,
        &[Race],
    ),
    fault(
        "padding rows influence the step size",
        "integrate/adaptive.cuh",
        "if (!state.counts(i)) continue;",
        "",
        DENSITY,
        &[Comparison],
    ),
    // Products of warpgroups.
    fault(
        "a stage is read before its bytes have landed",
        "tile/wgmma_product.cuh",
        "pipe.wait_full();",
        "",
        WGMMA_FLOW,
        &[Race, NotWaitedFor, Uninitialized],
    ),
    fault(
        "a stage is released while products read it",
        "tile/wgmma_product.cuh",
        "wait_products<1>();",
        "",
        WGMMA_FLOW,
        &[Race],
    ),
    fault(
        "products follow what wrote their registers",
        "tile/wgmma_product.cuh",
        "fence_products();",
        "",
        WGMMA_FLOW,
        &[Unfenced],
    ),
    fault(
        "sums are read while products are under way",
        "tile/wgmma_product.cuh",
        "wait_products<0>();",
        "",
        WGMMA_FLOW,
        &[UnderWay, Race],
    ),
    fault(
        "a turn to multiply is not passed on",
        "tile/wgmma_product.cuh",
        "pass_turn(); wait_products",
        "wait_products",
        WGMMA_FLOW,
        &[Deadlock],
    ),
    fault(
        "the rows of a fragment are swapped",
        "tile/wgmma_product.cuh",
        "own + 8 * half * depth",
        "own + 8 * (half ^ 1) * depth",
        WGMMA_FLOW,
        &[Comparison],
    ),
    fault(
        "a stage waits for more bytes than are copied",
        "tile/weight_pipe.cuh",
        "arrive_and_expect(full(count), n_bytes);",
        "arrive_and_expect(full(count), n_bytes + 16);",
        WGMMA_FLOW,
        &[Deadlock],
    ),
    fault(
        "a stage is filled before it has been read",
        "tile/weight_pipe.cuh",
        "wait_for(empty(count), parity() ^ 1);",
        "",
        WGMMA_FLOW,
        &[Race],
    ),
    fault(
        "copies do not know of the barriers",
        "tile/weight_pipe.cuh",
        "fence_barriers(); }",
        "}",
        WGMMA_FLOW,
        &[UnknownBarrier],
    ),
    fault(
        "the weights of the gradient at the input are not brought",
        "net/weight_stream.cuh",
        "backward(), to_input();",
        "backward();",
        WGMMA_FLOW,
        &[Deadlock, Comparison, Uninitialized, Race],
    ),
    fault(
        "the pieces of a long operand are all the first",
        "tile/wgmma_product.cuh",
        "load(a + k, depth, n_chunks, memory.a)",
        "load(a, depth, n_chunks, memory.a)",
        WGMMA,
        &[Comparison],
    ),
    fault(
        "packed weights are not swizzled",
        "tile/packed.cuh",
        "own_k % kWgmmaDepth / 8 ^ own_line % 8;",
        "own_k % kWgmmaDepth / 8;",
        WGMMA_OPTIMIZER,
        &[Comparison],
    ),
];

/// Scopes in which the barriers of a file are removed, in this order, until that is noticed.
const BARRIERS: &[(&str, &[At])] = &[
    ("tile/product.cuh", &[BEND]),
    ("net/sweeps.cuh", &[BEND, SWEEP]),
    ("net/wgmma_engine.cuh", &[WGMMA_FLOW]),
    ("sweep.cuh", &[SWEEP, NARROW_BF16]),
    ("sweep_narrow.cuh", &[NARROW]),
    ("bend.cuh", &[BEND]),
    ("weight_grad.cuh", &[GRAD_PARTS]),
    ("draw.cu", &[DRAW_LEARNED]),
    ("tile/reduce.cuh", &[OPTIMIZER, DENSITY]),
    ("optimizer/", &[OPTIMIZER]),
    ("integrate/", &[DENSITY, FLOW]),
];

/// Barriers whose absence no case notices, and the reason.
const NOT_MISSED: &[(&str, &str, &str)] = &[(
    "optimizer/finish_step.cuh",
    "the state is read",
    "not in these cases: the history never fills; the unit tests of the step control cover it",
)];

/// A fault inserted into the text of its file.
struct Planted {
    file: String,
    what: String,
    text: String,
    /// Scopes in which it may be noticed, in this order.
    places: Vec<At>,
    expected: Vec<Notice>,
    /// The reason why it is not noticed, if that is known.
    not_missed: Option<&'static str>,
}

/// How a fault was noticed.
struct Shown {
    /// The first columns of its row in the list.
    fault: String,
    by: &'static str,
    /// The ways in which it may be noticed.
    expected: Vec<&'static str>,
    said: String,
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The first place of `old` in `text` from byte `from` on. White space does not count: the kernels'
/// formatter decides it.
fn position(text: &str, from: usize, old: &str) -> Option<Range<usize>> {
    let is_ink = |byte: &u8| !byte.is_ascii_whitespace();
    let wanted: Vec<u8> = old.bytes().filter(is_ink).collect();
    let ink: Vec<(usize, u8)> = text.bytes().enumerate().skip(from).filter(|(_, byte)| is_ink(byte)).collect();
    let found = ink.windows(wanted.len()).find(|window| window.iter().map(|(_, byte)| byte).eq(&wanted))?;
    Some(found[0].0..found[found.len() - 1].0 + 1)
}

/// Every fault of the list, and every barrier removed.
fn planted() -> Vec<Planted> {
    let root = project().join("kernels");
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut all: Vec<Planted> = Vec::new();
    for &Fault { what, file, old, new, at, notices } in FAULTS {
        let text = read(&root.join(file));
        let mut text = text;
        let mut next = position(&text, 0, old).unwrap_or_else(|| panic!("{what}: {file} does not hold {old:?}"));
        loop {
            text.replace_range(next.clone(), new);
            let Some(another) = position(&text, next.start + new.len(), old) else { break };
            next = another;
        }
        let (file, what) = (file.into(), what.into());
        all.push(Planted { file, what, text, places: vec![at], expected: notices.to_vec(), not_missed: None });
    }
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for path in files {
        let file = path.strip_prefix(&root).expect("inside").display().to_string();
        let text = read(&path);
        // Where `sync_workers` is defined, it is all barriers at once.
        let is_definition = file == "tile/workers.cuh";
        let calls = ["__syncthreads()", "sync_workers()"].into_iter().flat_map(|call| text.match_indices(call));
        for (start, call) in calls.filter(|_| !is_definition) {
            let places = BARRIERS.iter().find(|(prefix, _)| file.starts_with(prefix));
            let places = places.unwrap_or_else(|| panic!("{file} has a barrier and no place for it")).1.to_vec();
            // The comment of each barrier says what it separates.
            let rest = text[start..].lines().next().unwrap_or_default();
            let separates = rest.split("//").nth(1).unwrap_or_default().trim();
            let known = NOT_MISSED.iter().find(|(of, what, _)| *of == file && *what == separates);
            let not_missed = known.map(|(_, _, why)| *why);
            // A premature read finds memory uninitialized, or of another thread, or with a copy
            // pending.
            let expected = match known {
                Some(_) => vec![],
                None => vec![Race, Uninitialized, NotWaitedFor, UnknownBarrier],
            };
            let mut without = text.clone();
            without.replace_range(start..start + call.len(), "(void)0");
            let what = format!("without the barrier: {separates}");
            all.push(Planted { file: file.clone(), what, text: without, places, expected, not_missed });
        }
    }
    all
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let target = to.join(entry.file_name().expect("a name"));
        if entry.is_dir() {
            copy_folder(&entry, &target);
        } else {
            std::fs::copy(&entry, &target).expect("copied");
        }
    }
}

/// `text` without the activations that no case has: compilation, which takes longer than the cases,
/// takes a third less.
fn with_silu_alone(text: &str) -> String {
    let is_other = |line: &str| line.contains("case Activation::k") && !line.contains("case Activation::kSilu");
    text.lines().filter(|line| !is_other(line)).map(|line| format!("{line}\n")).collect()
}

/// The PTX of `module` from the kernels in `folder`, with code only in the entries that `at` names;
/// all others return immediately.
fn compile(folder: &Path, at: At) -> PathBuf {
    let source = folder.join(at.module).with_extension("cu");
    let text = std::fs::read_to_string(&source).expect("a module");
    // Entries are made by macros, one instance per line: NAME(bf16, __nv_bfloat16).
    let is_instance =
        |line: &str| ["f32", "tf32", "bf16", "f16"].iter().any(|name| line.contains(&format!("({name}, ")));
    let is_kept = |line: &str| line.contains(&format!("({}, ", at.operands));
    let kept: Vec<&str> = text.lines().filter(|line| !is_instance(line) || is_kept(line)).collect();
    let mut text = kept.join("\n") + "\n";
    let names: Vec<String> =
        text.split("_##NAME(").map(|before| before.rsplit(' ').next().unwrap_or("").to_string()).collect();
    let names = &names[..names.len() - 1];
    for name in names.iter().filter(|name| !at.entries.contains(&name.as_str())) {
        let start = text.find(&format!(" {name}_##NAME(")).expect("an entry");
        let open = start + text[start..].find('{').expect("a body") + 1;
        let close = open + text[open..].find('}').expect("its end");
        let body = if text[open..close].contains('\n') { " \\\n" } else { " " };
        text.replace_range(open..close, body);
    }
    std::fs::write(&source, text).expect("written");
    let out = folder.join(at.module).with_extension("ptx");
    let nvcc = std::env::var("AMATCH_NVCC").unwrap_or("nvcc".into());
    let output = Command::new(&nvcc)
        .arg("-I")
        .arg(folder)
        .args([
            "-ptx",
            "-std=c++17",
            "-lineinfo",
            "-arch",
            if at.module.ends_with("_wgmma") { "compute_90a" } else { "compute_80" },
            "-o",
        ])
        .args([&out, &source])
        .output()
        .unwrap_or_else(|error| panic!("{nvcc}: {error}: tests/run installs nvcc where there is none"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut ptx = std::fs::read_to_string(&out).expect("PTX");
    for operands in ["f32", "tf32", "bf16", "f16"].iter().filter(|operands| **operands != at.operands) {
        for name in names {
            ptx += &format!(".visible .entry {name}_{operands}()\n{{\nret;\n}}\n");
        }
    }
    std::fs::write(&out, ptx).expect("written");
    out
}

/// Output of a child that runs its case with other modules in place of the program's.
fn outcome(case: Case, operands: &str, overrides: &[PathBuf]) -> Result<(), (Notice, String)> {
    let program = std::env::current_exe().expect("the test's own path");
    let folder = folder_with_driver("libcuda.so");
    let of_warpgroups = [("VGPU_CAPABILITY", "9.0"), ("AMATCH_PRODUCT", "wgmma")];
    let of_warpgroups = of_warpgroups.into_iter().filter(|_| case.is_of_warpgroups());
    let overrides: Vec<String> = overrides.iter().map(|path| path.display().to_string()).collect();
    let output = Command::new(program)
        .args(["--exact", "case", "--nocapture"])
        .env("VGPU_CASE", format!("{case:?} {operands}"))
        .env("VGPU_SEED", "0")
        .env("VGPU_OVERRIDE", overrides.join(":"))
        .env("LD_LIBRARY_PATH", folder.path())
        .envs(of_warpgroups)
        .output()
        .expect("runs");
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let Some(line) = said.lines().find(|line| line.starts_with("vgpu: ")) else {
        let line = said.lines().find(|line| line.starts_with("differs: "));
        return Err((
            Comparison,
            line.unwrap_or_else(|| panic!("{case:?} ended for another reason: {said}")).to_string(),
        ));
    };
    let of_device = Notice::OF_DEVICE.iter().find(|(_, said)| line.contains(said));
    let (notice, _) = of_device.unwrap_or_else(|| panic!("{case:?}: a failure of another kind: {said}"));
    let place = said.split("vgpu: ").nth(1).unwrap_or_default();
    for part in [".cu", "block ", "thread "] {
        assert!(place.contains(part), "{part:?} is not in: {place}");
    }
    Err((*notice, place.lines().take(3).map(str::trim).collect::<Vec<_>>().join(" ")))
}

/// Calls `work` for each of `list` on two threads; results are in the order of the list.
fn on_two_threads<T: Sync, R: Send>(list: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, results) = (Mutex::new(0..list.len()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    // A separate statement, so that the lock is released before the work.
                    let index = next.lock().expect("unharmed").next();
                    let Some(index) = index else { break };
                    let result = work(&list[index]);
                    results.lock().expect("unharmed").push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("unharmed");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn every_fault_is_noticed_and_sound_kernels_pass() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = |name: &str| {
        let kernels = folder.path().join(name);
        copy_folder(&project().join("kernels"), &kernels);
        common::build::write_header(&kernels).expect("written");
        let sweeps = kernels.join("net/sweeps.cuh");
        let text = std::fs::read_to_string(&sweeps).expect("sweeps");
        let lean = with_silu_alone(&text);
        assert!(lean.len() < text.len(), "net/sweeps.cuh has no choice of an activation that could be left out");
        std::fs::write(&sweeps, lean).expect("written");
        kernels
    };
    let whole = |module, entries| At { module, entries, operands: "f32", case: Case::Gradient };
    let modules: [At; 8] = [
        whole("sweep", &["sweep", "sweep_diffusive"]),
        whole("sweep_low", &["sweep_low", "sweep_low_diffusive"]),
        whole("sweep_narrow", &["sweep_narrow", "sweep_narrow_diffusive"]),
        whole("integrate", &["integrate", "integrate_density"]),
        whole("bend", &["bend_forward", "bend_backward"]),
        whole("draw", &["draw", "draw_bend"]),
        whole("weight_grad", &["weight_grad"]),
        whole("optimizer", &["update"]),
    ];
    let kernels = copy("sound");
    let sound = on_two_threads(&modules, |&at| (at.module, compile(&kernels, at)));
    let paths: Vec<PathBuf> = sound.iter().map(|(_, path)| path.clone()).collect();
    let others = |at: At| -> Vec<PathBuf> {
        let of_type = if at.operands == "f32" { &sound[..] } else { &[] };
        of_type.iter().filter(|(module, _)| *module != at.module).map(|(_, path)| path.clone()).collect()
    };

    let mut passes: Vec<(Case, &str)> = CASES.map(|case| (case, "f32")).to_vec();
    let others_of = FAULTS.iter().map(|fault| (fault.at.case, fault.at.operands));
    for pass in others_of.filter(|(_, operands)| *operands != "f32") {
        if !passes.contains(&pass) {
            passes.push(pass);
        }
    }
    for ((case, operands), outcome) in passes.iter().zip(on_two_threads(&passes, |&(case, operands)| {
        outcome(case, operands, if operands == "f32" { &paths } else { &[] })
    })) {
        assert!(outcome.is_ok(), "sound kernels, {case:?} in {operands}: {outcome:?}");
    }

    let planted: Vec<(usize, Planted)> = planted().into_iter().enumerate().collect();
    let rows = on_two_threads(&planted, |(number, Planted { file, what, text, places, expected, not_missed })| {
        let mut shown = Ok(());
        for (place, &at) in places.iter().enumerate() {
            let kernels = copy(&format!("fault{number}.{place}"));
            std::fs::write(kernels.join(file), with_silu_alone(text)).expect("written");
            let mut overrides = vec![compile(&kernels, at)];
            overrides.extend(others(at));
            shown = outcome(at.case, at.operands, &overrides);
            if shown.is_err() {
                break;
            }
        }
        let by = shown.as_ref().err().map_or(not_missed.unwrap_or("nobody"), |(notice, _)| notice.name());
        let expected = match not_missed {
            Some(why) => vec![*why],
            None => expected.iter().map(|notice| notice.name()).collect(),
        };
        let fault = format!("| {file} | {what} | ");
        Shown { fault, by, expected, said: shown.err().map_or(String::new(), |(_, said)| said) }
    });

    const HEADER: &str = "| file | fault | noticed by |";
    let mut table = format!("{HEADER}\n| --- | --- | --- |\n");
    for Shown { fault, by, said, .. } in &rows {
        table += &format!("{fault}{by} |\n");
        eprintln!("{fault}{by} |\n    {said}");
    }
    let wrong: Vec<String> = (rows.iter())
        .filter(|shown| !shown.expected.contains(&shown.by))
        .map(|Shown { fault, by, expected, said }| format!("{fault}{by} | {said}, not one of {expected:?}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} faults:\n{}", wrong.len(), rows.len(), wrong.join("\n"));

    // Which of a fault's possible reports comes first depends on the scheduling of the host's
    // threads, so any of them may be in the list.
    let readme = std::fs::read_to_string(project().join("tests/vgpu/README.md")).expect("tests/vgpu/README.md");
    let listed: Vec<&str> = readme.lines().skip_while(|line| *line != HEADER).skip(2).collect();
    let is_listed = |(shown, listed): (&Shown, &&str)| {
        let by = listed.strip_prefix(&shown.fault).and_then(|rest| rest.strip_suffix(" |"));
        by.is_some_and(|by| shown.expected.contains(&by))
    };
    let n_listed = listed.iter().take_while(|line| line.starts_with('|')).count();
    let is_whole = n_listed == rows.len() && rows.iter().zip(&listed).all(is_listed);
    assert!(is_whole, "tests/vgpu/README.md does not hold this table:\n{table}");
}

const DIM: usize = 5;

fn model(hidden: &[usize], head: Head, objective: Objective) -> Model {
    let architecture = Architecture {
        dim: DIM,
        hidden: hidden.to_vec(),
        activation: Activation::Silu,
        head,
        time_embedding: TimeEmbedding::Fourier { frequencies: vec![0.5, 1.25] },
        conditions: 0,
    };
    let mut parameters = initial_parameters(&architecture, 11);
    for layer in architecture.layers() {
        let biases = &mut parameters[layer.bias..layer.bias + layer.n_out];
        biases.iter_mut().enumerate().for_each(|(i, bias)| *bias = 0.3 * (i as f32 * 1.7).sin());
    }
    Model { architecture, coordinates: Coordinates::identity(DIM), objective, parameters, growth_head: None }
}

/// Checks ‖got − want‖ ≤ `tolerance` ‖want‖, and ends the child otherwise.
fn compare(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(got, want)| got - want)) / norm(&mut want.iter().copied());
    if got.len() != want.len() || error.is_nan() || error > tolerance {
        eprintln!("differs: {what} by {error:.1e} of its norm, where {tolerance:.0e} are allowed");
        std::process::exit(1);
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The work of a child, named by `VGPU_CASE`; does nothing in the test's own process.
#[test]
fn case() {
    let Ok(name) = std::env::var("VGPU_CASE") else { return };
    let (case, operands) = name.split_once(' ').expect("a case and a type");
    let of_warpgroups = [Case::Warpgroups, Case::WarpgroupSteps, Case::WarpgroupNoise];
    let case = CASES.into_iter().chain(of_warpgroups).find(|known| format!("{known:?}") == case).expect("a case");
    let precision = Precision::ALL.into_iter().find(|precision| precision.name() == operands).expect("a type");
    let engine = CudaEngine::new(0, precision).expect("the virtual GPU");
    let engine = if case == Case::Low { engine } else { engine.with_large_tiles() };
    // Above the rounding errors of each type, and far below the effect of a fault.
    let tolerance = match precision {
        Precision::F32 => 1e-4,
        Precision::Tf32 | Precision::F16 => 1e-2,
        Precision::Bf16 => 5e-2,
        other => panic!("no tolerance for {}", other.name()),
    };
    match case {
        Case::Gradient => gradient(&engine, &[70, 9], 131, tolerance, false),
        Case::Low => gradient(&engine, &[140, 9], 131, tolerance, false),
        Case::Parts => gradient(&engine, &[70, 9], 2000, tolerance, false),
        Case::Narrow => gradient(&engine, &[40, 9], 131, tolerance, false),
        Case::Broad => gradient(&engine, &[140, 300, 150], 131, tolerance, false),
        Case::Warpgroups => gradient(&engine, &[140, 300, 70], 131, tolerance, true),
        Case::Noise | Case::Density | Case::WarpgroupNoise => particles(&engine, case != Case::Density, tolerance),
        Case::Steps | Case::Learned | Case::Conditions | Case::Chunks | Case::WarpgroupSteps => {
            steps(&engine, case, tolerance)
        }
    }
}

fn gradient(engine: &CudaEngine, hidden: &[usize], n1: usize, tolerance: f64, is_of_warpgroups: bool) {
    // Products of warpgroups have no probes.
    let sigma = if is_of_warpgroups { 0.0 } else { 0.8 };
    let objective = Objective { sigma, growth: 0.3, ..Objective::default() };
    let model = model(hidden, Head::Quadratic, objective);
    let (n, n0) = (165, 5);
    let points = |n: usize, seed: u64| wide(&draw_gaussian(n, DIM, &mut Stream::of_normals(seed, DIM)));
    let number = |i: usize| (i as f64 * 0.37).fract();
    let batch = Batch {
        x: points(n, 1),
        t: (0..n).map(|i| f64::from(number(i) as f32)).collect(),
        omega: (0..n).map(|i| 0.5 + number(i + 7)).collect(),
        d_omega: (0..n).map(|i| number(i + 13) - 0.5).collect(),
        x0: points(n0, 2),
        x1: points(n1, 3),
        omega0: 1.25,
        omega1: 0.75,
        probe: (sigma > 0.0).then(|| points(2 * n, 4)),
        ..Batch::default()
    };
    let (got, want) = (engine.loss_gradient(&model, &batch), ReferenceEngine.loss_gradient(&model, &batch));
    let (got, want) = (got.expect("evaluates"), want.expect("evaluates"));
    compare("the loss", &[got.loss], &[want.loss], 10.0 * tolerance);
    compare("s", &got.interior.s, &want.interior.s, tolerance);
    compare("∇s", &got.interior.grad_s, &want.interior.grad_s, tolerance);
    if sigma > 0.0 {
        compare("Δs", &got.laplacian, &want.laplacian, tolerance);
    }
    for (index, layer) in model.architecture.layers().iter().enumerate() {
        let (weight, bias) = (layer.weight..layer.bias, layer.bias..layer.bias + layer.n_out);
        compare(&format!("∂L/∂W of map {index}"), &got.gradient[weight.clone()], &want.gradient[weight], tolerance);
        compare(&format!("∂L/∂b of map {index}"), &got.gradient[bias.clone()], &want.gradient[bias], tolerance);
    }
}

fn steps(engine: &CudaEngine, case: Case, tolerance: f64) {
    let is = |other: Case| case == other || case == Case::WarpgroupSteps && other == Case::Learned;
    let objective = Objective { sigma: if is(Case::Steps) { 0.5 } else { 0.0 }, growth: 0.2, ..Objective::default() };
    let hidden: &[usize] = if is(Case::Steps) { &[19] } else { &[65] };
    let mut model = model(hidden, Head::Quadratic, objective);
    if is(Case::Conditions) {
        model.architecture.conditions = 2;
        model.parameters = initial_parameters(&model.architecture, 11);
    }
    let snapshots = Snapshots {
        dim: DIM,
        times: vec![0.0, 0.3, 1.0],
        offsets: vec![0, 31, 48, 101],
        samples: draw_gaussian(101, DIM, &mut Stream::of_normals(3, DIM)),
        mass: Default::default(),
    };
    let couplings =
        is(Case::Steps).then(|| Arc::new(optimal_couplings(&snapshots, 200, 1, &Stage::default()).expect("couplings")));
    let bend = is(Case::Learned).then(|| Bend::new(&model.architecture, vec![13], 0.3));
    let interpolant = match case {
        Case::Steps => Interpolant::Spline,
        Case::Learned | Case::WarpgroupSteps => Interpolant::Learned,
        _ => Interpolant::Linear,
    };
    // A limit that binds.
    let spline = Spline { limit: 1.0, knots: Knots::Clock };
    let path = DensityPath { couplings, spline, ..DensityPath::new(interpolant, snapshots) };
    let group = |k: u8| Group { condition: vec![0.5 * f32::from(k), 1.0 - f32::from(k)], path: path.clone() };
    let groups = is(Case::Conditions).then(|| Groups::new((0..3).map(group).collect()).expect("groups"));
    let training = Training {
        objective: model.objective.clone(),
        bend: bend.clone(),
        estimator: if is(Case::Steps) { Estimator::Regression } else { Estimator::Action { centering: false } },
        time_rule: if is(Case::Steps) { TimeRule::Importance } else { TimeRule::LowDiscrepancy },
        laplacian: Laplacian { rule: LaplacianRule::Rademacher, n_probes: 2 },
        // The device processes 32 768 rows at a time.
        n_interior: if is(Case::Chunks) { 32_900 } else { 167 },
        n_boundary: 131,
        optimizer: Optimizer {
            learning_rate: LearningRate { peak: 3e-3, warmup_steps: 5, cosine: None },
            beta2: 0.99,
            weight_decay: 0.01,
            ema_decay: 0.9,
            ..Optimizer::default()
        },
        seed: 7,
        groups,
        ..Training::new(model.architecture.clone(), path)
    };
    let mut moments = TimeMoments::default();
    (0..500).for_each(|i| moments.add_row(f64::from(i) / 500.0, 1.0 + f64::from(i % 7)));
    let state = TrainState {
        step: 5,
        time_moments: moments.to_vec(),
        bend: bend.map(|bend| NetworkState::initial(initial_parameters(&bend.architecture, 8))),
        ..TrainState::initial(model.parameters.clone())
    };
    let run = |engine: &dyn Engine| -> (TrainState, Vec<StepRecord>) {
        let mut trainer = engine.trainer(training.clone(), state.clone()).expect("a trainer");
        let mut records = Vec::new();
        trainer.steps(if is(Case::Chunks) { 1 } else { 3 }, &mut records).expect("steps");
        (trainer.state().expect("a state"), records)
    };
    let ((got, got_records), (want, want_records)) = (run(engine), run(&CpuEngine::new(1)));
    let terms = |records: &[StepRecord]| -> Vec<f64> {
        let terms = records.iter().flat_map(|r| [r.boundary0, r.boundary1, r.interior, r.kinetic, r.gradient_norm]);
        terms.collect()
    };
    compare("the terms of the loss", &terms(&got_records), &terms(&want_records), tolerance);
    compare("the moments of times", &wide(&got.time_moments), &wide(&want.time_moments), tolerance);
    let networks = |state: &TrainState| [Some(state.action.clone()), state.bend.clone()];
    for ((got, want), start) in networks(&got).into_iter().zip(networks(&want)).zip(networks(&state)) {
        let (Some(got), Some(want), Some(start)) = (got, want, start) else { continue };
        let way = |to: &[f32]| -> Vec<f64> {
            to.iter().zip(&start.parameters).map(|(to, from)| f64::from(*to) - f64::from(*from)).collect()
        };
        compare("the first moment", &wide(&got.moment1), &wide(&want.moment1), tolerance);
        compare("the second moment", &wide(&got.moment2), &wide(&want.moment2), 2.0 * tolerance);
        // Rounding may change the sign of small gradients, and AdamW takes steps of equal size.
        compare("the way of the parameters", &way(&got.parameters), &way(&want.parameters), 30.0 * tolerance);
        compare("the way of their average", &way(&got.ema), &way(&want.ema), 30.0 * tolerance);
    }
}

fn particles(engine: &CudaEngine, has_noise: bool, tolerance: f64) {
    let n = 150;
    let sigma = if has_noise { 0.6 } else { 0.0 };
    let objective = Objective { sigma, growth: 0.3, ..Objective::default() };
    let model = model(&[65], Head::Quadratic, objective);
    let save_at = vec![0.4, 1.0];
    let plan = if has_noise {
        let control = StepControl::Fixed { steps: 4 };
        Plan { noise: Noise::new(5), ..Plan::new(Method::StochasticHeun, control, 0.0, save_at) }
    } else {
        let control = StepControl::Adaptive { rtol: 2e-4, atol: 2e-5 };
        let divergence = Laplacian { rule: LaplacianRule::Rademacher, n_probes: 2 };
        Plan { divergence, ..Plan::new(Method::Dopri5, control, 0.0, save_at) }
    };
    let run = |engine: &dyn Engine| -> [Vec<f32>; 3] {
        let mut channels = [draw_gaussian(n, DIM, &mut Stream::of_normals(9, DIM)), vec![0.0; n], vec![0.0; n]];
        channels.iter_mut().for_each(|values| values.resize(2 * values.len(), 0.0));
        let [positions, log_weights, log_density] = &mut channels;
        let out = Trajectories {
            positions,
            log_weights: Some(log_weights),
            log_density: (!has_noise).then_some(&mut log_density[..]),
        };
        engine.integrate(&model, &plan, out, &()).expect("integrates");
        channels
    };
    let (got, want) = (run(engine), run(&CpuEngine::new(1)));
    compare("positions", &wide(&got[0]), &wide(&want[0]), tolerance);
    compare("log w", &wide(&got[1]), &wide(&want[1]), tolerance);
    if !has_noise {
        compare("log q", &wide(&got[2]), &wide(&want[2]), tolerance);
    }
}
