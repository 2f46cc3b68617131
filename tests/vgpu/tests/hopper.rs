//! Hopper's own instructions on a virtual H100: matrix products of warpgroups in every layout, and
//! a kernel whose warps have roles, compared with f64; and faults, each of which must be reported.

mod common;

use std::sync::OnceLock;

use common::{Bench, compile_for_hopper};
use half::{bf16, f16};
use vgpu::counters::Counters;
use vgpu::device::{Card, Device};

/// Bytes of the image of a kernel's shared memory that a test lays out.
const IMAGE: usize = 64 << 10;

/// How a matrix of 16-bit numbers lies in shared memory.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Bytes over which pieces of 16 bytes are swizzled; 16: not at all.
    swizzle: usize,
    /// The inner index is the outer one in memory.
    transposed: bool,
    leading: usize,
    stride: usize,
}

impl Layout {
    /// The byte of element (`line`, `k`) of a matrix that starts at byte 0, where a line is a row
    /// of A or a column of B. PTX ISA, "Strides" and "Swizzling Modes", in units of 8 elements:
    /// without a transposition ((8, m), (T, 2k)) with strides ((row, SBO), (1, T or LBO)), with one
    /// ((T, row / T, m), (8, k)) with strides ((1, T, LBO), (row, SBO)), where LBO and SBO change
    /// roles if nothing is swizzled; then piece c of row r of a block moves to c ^ r (128 bytes),
    /// c ^ r / 2 (64) or c ^ r / 4 (32).
    fn byte(&self, line: usize, k: usize) -> usize {
        let Layout { swizzle, transposed, leading, stride } = *self;
        let (outer, inner) = if transposed { (k, line) } else { (line, k) };
        let (row, piece) = (outer % 8, inner / 8);
        let moved = |piece: usize| match swizzle {
            128 => piece ^ row,
            64 => piece ^ (row / 2),
            32 => piece ^ (row / 4),
            _ => piece,
        };
        let place = match (swizzle, transposed) {
            (16, false) => outer / 8 * stride + piece * leading,
            (16, true) => outer / 8 * leading + piece * stride,
            (_, false) => outer / 8 * stride + moved(piece) * 16,
            (_, true) => {
                let pieces = swizzle / 16;
                outer / 8 * stride + piece / pieces * leading + moved(piece % pieces) * 16
            }
        };
        place + row * swizzle + inner % 8 * 2
    }

    /// The descriptor of the matrix from byte `start` on, whose pattern begins at byte `pattern`
    /// (PTX ISA, "Matrix Descriptor Format"): the base offset is 0 where the pattern begins at a
    /// multiple of its period, else bits 7 to 9 of that address.
    fn descriptor(&self, start: usize, pattern: usize) -> u64 {
        let mode = match self.swizzle {
            128 => 1u64,
            64 => 2,
            32 => 3,
            _ => 0,
        };
        let field = |bytes: usize| (bytes as u64 & 0x3_ffff) >> 4;
        let base = if pattern.is_multiple_of(8 * self.swizzle) { 0 } else { pattern as u64 >> 7 & 7 };
        field(start) | field(self.leading) << 16 | field(self.stride) << 32 | base << 49 | mode << 62
    }
}

/// Every layout of `n` lines: each swizzle, transposed and not, blocks apart by more than they
/// need.
fn layouts(n: usize) -> Vec<Layout> {
    let mut all = Vec::new();
    for swizzle in [16, 32, 64, 128] {
        let block = 8 * swizzle;
        let k_major = |leading, stride| Layout { swizzle, transposed: false, leading, stride };
        let line_major = |leading, stride| Layout { swizzle, transposed: true, leading, stride };
        all.extend([k_major(n * 16 + 128, block), k_major(n * 32 + 256, 2 * block)]);
        all.extend(match swizzle {
            16 => [line_major(n * 32, 256), line_major(n * 16, 128)],
            // Blocks for the upper half of the inner indices follow those for the lower one, or all
            // of these.
            _ => [line_major(2 * block, block), line_major(2 * block, n.div_ceil(swizzle / 2) * 2 * block)],
        });
    }
    all
}

/// Values for which every swap of rows, columns or halves changes the result.
fn value(stream: usize, line: usize, k: usize) -> f32 {
    let mixed = (stream * 31 + line * 131 + k * 17 + line * k * 7) * 2_654_435_761 % 4_294_967_296;
    (mixed >> 16) as f32 / 32768.0 - 1.0
}

#[derive(Clone, Copy, Debug)]
struct Case {
    bf16: bool,
    n: usize,
    /// Of the left operand; `None` if it lies in registers.
    a: Option<Layout>,
    b: Layout,
    adds: bool,
    signs: [i32; 2],
    /// Bytes from a multiple of all periods to each matrix.
    displaced: [usize; 2],
}

impl Case {
    fn bits(&self, value: f32) -> u16 {
        if self.bf16 { bf16::from_f32(value).to_bits() } else { f16::from_f32(value).to_bits() }
    }

    fn rounded(&self, value: f32) -> f64 {
        f64::from(if self.bf16 { bf16::from_f32(value).to_f32() } else { f16::from_f32(value).to_f32() })
    }

    /// PTX that brings an image of shared memory, and multiplies.
    fn ptx(&self) -> String {
        let n_sums = self.n / 2;
        let list = |stem: &str, n: usize| (0..n).map(|i| format!("%{stem}{i}")).collect::<Vec<_>>().join(", ");
        let ty = if self.bf16 { "bf16" } else { "f16" };
        let load = |i: usize| format!("ld.global.f32 %d{i}, [%c+{}];\n", 4 * i);
        let store = |i: usize| format!("st.global.f32 [%c+{}], %d{i};\n", 4 * i);
        let left = if self.a.is_some() { "%da".to_string() } else { format!("{{{}}}", list("a", 4)) };
        let a_transposed = self.a.map_or(String::new(), |a| format!("{}, ", u8::from(a.transposed)));
        let [sign_a, sign_b] = self.signs;
        format!(
            ".version 8.0\n.target sm_90a\n.address_size 64
.shared .align 1024 .b8 image[{IMAGE}];
.shared .align 8 .b64 full;
.visible .entry product(.param .u64 image_p, .param .u64 fragments, .param .u64 sums, .param .u64 desc_a,
    .param .u64 desc_b, .param .u32 adds) .maxntid 128
{{
.reg .b64 %c, %f, %i, %da, %db; .reg .b32 %t, %o, %n, %a<4>; .reg .f32 %d<{n_sums}>; .reg .pred %p, %q, %adds;
mov.u32 %t, %tid.x;
ld.param.u64 %i, [image_p]; ld.param.u64 %da, [desc_a]; ld.param.u64 %db, [desc_b]; ld.param.u32 %n, [adds];
setp.ne.u32 %adds, %n, 0;
setp.ne.u32 %p, %t, 0;
@%p bra ready;
mbarrier.init.shared::cta.b64 [full], 1;
fence.mbarrier_init.release.cluster;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [full], {IMAGE};
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [image], [%i], {IMAGE}, [full];
ready:
bar.sync 0;
again:
mbarrier.try_wait.parity.shared::cta.b64 %q, [full], 0;
@!%q bra again;
ld.param.u64 %f, [fragments]; ld.param.u64 %c, [sums];
mad.wide.u32 %f, %t, 16, %f;
mad.wide.u32 %c, %t, {}, %c;
ld.global.v4.b32 {{{}}}, [%f];
{}
wgmma.fence.sync.aligned;
wgmma.mma_async.sync.aligned.m64n{}k16.f32.{ty}.{ty} {{{}}}, {left}, %db, %adds, {sign_a}, {sign_b}, {a_transposed}{};
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
{}
ret;
}}",
            4 * n_sums,
            list("a", 4),
            (0..n_sums).map(load).collect::<String>(),
            self.n,
            list("d", n_sums),
            u8::from(self.b.transposed),
            (0..n_sums).map(store).collect::<String>(),
        )
    }

    /// Row and column of sum `i` of `thread` (PTX ISA, "Register Fragments for
    /// wgmma.mma_async.m64nNk16", D).
    fn sum(thread: usize, i: usize) -> (usize, usize) {
        let (warp, lane) = (thread / 32, thread % 32);
        (16 * warp + lane / 4 + if i % 4 < 2 { 0 } else { 8 }, i / 4 * 8 + lane % 4 * 2 + i % 2)
    }

    /// Row and column of element `i` of the left operand of `thread` (the same, A).
    fn left(thread: usize, i: usize) -> (usize, usize) {
        let (warp, lane) = (thread / 32, thread % 32);
        let row = if i < 2 || (4..6).contains(&i) { lane / 4 } else { lane / 4 + 8 };
        (16 * warp + row, lane % 4 * 2 + i % 2 + if i < 4 { 0 } else { 8 })
    }

    fn check(&self) {
        let got = self.run(&self.ptx(), [0, 0]).unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let (n_sums, sign) = (self.n / 2, f64::from(self.signs[0] * self.signs[1]));
        for (index, got) in got.into_iter().enumerate() {
            let (row, column) = Case::sum(index / n_sums, index % n_sums);
            let product = |k: usize| self.rounded(value(1, row, k)) * self.rounded(value(2, column, k));
            let start = if self.adds { f64::from(value(3, row, column)) } else { 0.0 };
            let want = start + sign * (0..16).map(product).sum::<f64>();
            assert!((f64::from(got) - want).abs() < 1e-5, "{self:?} ({row}, {column}): {got}, not {want}");
        }
    }

    /// The sums of all threads after `ptx`, with matrices from so many bytes further on.
    fn run(&self, ptx: &str, further: [usize; 2]) -> Result<Vec<f32>, String> {
        // B lies behind A.
        let [start_a, start_b] = [self.displaced[0], IMAGE / 2 + self.displaced[1]];
        let mut image = vec![0u8; IMAGE];
        let mut lay = |layout: &Layout, start: usize, stream: usize, n_lines: usize| {
            let mut taken = std::collections::HashSet::new();
            for line in 0..n_lines {
                for k in 0..16 {
                    let at = start + layout.byte(line, k);
                    assert!(taken.insert(at), "{layout:?} lays two elements into one place");
                    image[at..at + 2].copy_from_slice(&self.bits(value(stream, line, k)).to_le_bytes());
                }
            }
        };
        self.a.iter().for_each(|layout| lay(layout, start_a, 1, 64));
        lay(&self.b, start_b, 2, self.n);
        let halves = |thread: usize| {
            (0..8).flat_map(move |i| {
                let (row, k) = Case::left(thread, i);
                self.bits(value(1, row, k)).to_le_bytes()
            })
        };
        let n_sums = self.n / 2;
        let sums: Vec<u8> = (0..128)
            .flat_map(|thread| (0..n_sums).map(move |i| Case::sum(thread, i)))
            .flat_map(|(row, column)| value(3, row, column).to_le_bytes())
            .collect();
        let mut bench = Bench::on(Device::of(Card::H100, 1), ptx);
        let fragments = (0..128).flat_map(halves).collect::<Vec<u8>>();
        let [image, fragments, sums] = [&image, &fragments, &sums].map(|bytes| bench.buffer(bytes));
        let descriptor_a = self.a.map_or(0, |layout| layout.descriptor(start_a + further[0], start_a));
        let descriptor_b = self.b.descriptor(start_b + further[1], start_b);
        let words = [image, fragments, sums, descriptor_a, descriptor_b].map(u64::to_le_bytes);
        let adds = u32::from(self.adds).to_le_bytes();
        let arguments: Vec<&[u8]> = words.iter().map(|word| &word[..]).chain([&adds[..]]).collect();
        bench.try_launch("product", [1; 3], 128, 0, &arguments)?;
        Ok(bench.floats(sums, 128 * n_sums))
    }
}

const PLAIN: Layout = Layout { swizzle: 128, transposed: false, leading: 16, stride: 1024 };
const CASE: Case = Case { bf16: true, n: 32, a: None, b: PLAIN, adds: true, signs: [1, 1], displaced: [0, 0] };

#[test]
fn products_of_every_width_agree_with_f64() {
    for n in (8..=256).step_by(8) {
        let signs = [[1, 1], [-1, 1], [1, -1], [-1, -1]][n / 8 % 4];
        Case { bf16: n % 16 == 0, n, a: None, b: PLAIN, adds: n % 24 != 0, signs, ..CASE }.check();
    }
}

#[test]
fn operands_in_every_layout_agree_with_f64() {
    for n in [8, 72, 128] {
        for (index, b) in layouts(n).into_iter().enumerate() {
            let of_a = layouts(64);
            let a = of_a[(index * 5 + 3) % of_a.len()];
            Case { bf16: index % 2 == 0, n, a: Some(a), b, ..CASE }.check();
        }
    }
}

/// Of both operands, with base offsets.
#[test]
fn patterns_that_begin_between_their_periods_agree_with_f64() {
    let swizzled = |n: usize| layouts(n).into_iter().filter(|layout| layout.swizzle > 16).collect::<Vec<_>>();
    let of_a = swizzled(64);
    for (index, b) in swizzled(72).into_iter().enumerate() {
        for rows in [1, 2, 5, 7] {
            let a = Some(of_a[(index * 5 + 3) % of_a.len()]);
            Case { n: 72, a, b, displaced: [128 * (8 - rows), 128 * rows], ..CASE }.check();
        }
    }
}

/// A product of another shape whose sums are those of the one before.
const NARROWER: &str = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0, %d1, %d2, %d3}, \
                        {%a0, %a1, %a2, %a3}, %db, %adds, 1, 1, 0;\nwgmma.commit_group";

/// Faults in a product: what is inserted before, or in place of, which text, how much further the
/// matrices begin, and the report.
const PRODUCT_FAULTS: [(&str, &str, [usize; 2], &str); 19] = [
    ("wgmma.wait_group.sync.aligned 0;", "", [0, 0], "register of a wgmma.mma_async under way"),
    ("wgmma.wait_group", "mov.b32 %a1, 0;\nwgmma.wait_group", [0, 0], "register of a wgmma.mma_async under way"),
    ("wgmma.fence.sync.aligned;", "", [0, 0], "without a wgmma.fence"),
    ("wgmma.mma_async", "mov.b32 %a1, %t;\nwgmma.mma_async", [0, 0], "accessed after the last wgmma.fence"),
    (
        "wgmma.fence",
        "setp.gt.u32 %q, %t, 95;\n@%q exit;\nwgmma.fence",
        [0, 0],
        "of its warpgroup that do not exist or have ended",
    ),
    ("wgmma.fence", "setp.eq.u32 %q, %t, 40;\n@%q exit;\nwgmma.fence", [0, 0], "missing"),
    (
        "wgmma.wait_group",
        "@!%p st.shared.u32 [image+32768], %t;\nwgmma.wait_group",
        [0, 0],
        "the asynchronous proxy, for block 0, read it",
    ),
    (
        "wgmma.fence",
        "@!%p st.shared.u32 [image+32768], %t;\nbar.sync 0;\nwgmma.fence",
        [0, 0],
        "without fence.proxy.async",
    ),
    ("wgmma.fence", "wgmma.fence", [0, 128], "misaligned descriptor"),
    ("wgmma.fence", "or.b64 %db, %db, 562949953421312;\nwgmma.fence", [0, 0], "its base offset says 128"),
    ("wgmma.fence", "or.b64 %db, %db, 16384;\nwgmma.fence", [0, 0], "the bits 0x4000, which belong to no field"),
    ("wgmma.commit_group", NARROWER, [0, 0], "a sum of a product of another shape under way"),
    (
        "wgmma.commit_group",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%a0, %a1, %a2, %a3}, %db, %db, %adds, 1, 1, 0, 0;\n\
         wgmma.commit_group",
        [0, 0],
        "a sum that is the left operand of a product under way",
    ),
    ("wgmma.fence", "wgmma.fence", [0, 31 << 10], "out of bounds"),
    ("[image], [%i]", "[image+8], [%i]", [0, 0], "misaligned"),
    ("[image], [%i]", "[image+16], [%i]", [0, 0], "out of bounds"),
    ("bar.sync 0;", "mbarrier.init.shared::cta.b64 [full], 1;\nbar.sync 0;", [0, 0], "initialized again"),
    (
        "bar.sync 0;",
        "@!%p mbarrier.arrive.shared::cta.b64 _, [full];\nbar.sync 0;",
        [0, 0],
        "1 arrivals at the mbarrier",
    ),
    ("mbarrier.init.shared::cta.b64 [full], 1;", "", [0, 0], "it was not initialized"),
];

#[test]
fn faults_in_a_product_are_reported() {
    let case = CASE;
    for (from, to, further, report) in PRODUCT_FAULTS {
        assert!(case.ptx().contains(from), "{from}");
        let error = case.run(&case.ptx().replace(from, to), further).expect_err(report);
        println!("{from} -> {to}\n{error}\n");
        assert!(error.contains(report) && error.contains("product: "), "{from} -> {to}: {error}");
    }
    // With the fence, the store is seen.
    let store = "@!%p st.shared.u32 [image+65504], %t;\nfence.proxy.async;\nbar.sync 0;\nwgmma.fence";
    case.run(&case.ptx().replace("wgmma.fence", store), [0, 0]).expect("runs");
    // As are the sums, whatever the shape.
    let fenced = format!("wgmma.fence.sync.aligned;\n{NARROWER}");
    case.run(&case.ptx().replace("wgmma.commit_group", &fenced), [0, 0]).expect("runs");
}

// ------------------------------------------------------------------------ roles

const WIDTH: usize = 64;
const LAYERS: usize = 5;
const ROWS: usize = 2 * 128;
const STAGE: usize = WIDTH * WIDTH * 2;
const SHARED: usize = 2 * STAGE + 2 * 64 * WIDTH * 4 + 64;

fn ptx() -> &'static str {
    static PTX: OnceLock<String> = OnceLock::new();
    PTX.get_or_init(|| compile_for_hopper("hopper.cu"))
}

fn weight(layer: usize, n: usize, k: usize) -> f32 {
    bf16::from_f32(value(10 + layer, n, k) / 4.0).to_f32()
}

fn input(row: usize, k: usize) -> f32 {
    bf16::from_f32(value(9, row, k)).to_f32()
}

/// Runs the chain of layers of `ptx`; its output and its work.
fn run_layers(ptx: &str, seed: u64) -> Result<(Vec<f32>, Counters), String> {
    let mut bench = Bench::on(Device::of(Card::H100, seed), ptx);
    let mut weights = vec![0u8; LAYERS * STAGE];
    for layer in 0..LAYERS {
        for n in 0..WIDTH {
            for k in 0..WIDTH {
                let at = layer * STAGE + PLAIN.byte(n, k);
                weights[at..at + 2].copy_from_slice(&bf16::from_f32(weight(layer, n, k)).to_le_bytes());
            }
        }
    }
    let rows: Vec<u8> =
        (0..ROWS * WIDTH).flat_map(|i| bf16::from_f32(input(i / WIDTH, i % WIDTH)).to_le_bytes()).collect();
    let (weights, rows, output) = (bench.buffer(&weights), bench.buffer(&rows), bench.empty(ROWS * WIDTH * 4));
    let words = [weights, rows, output].map(u64::to_le_bytes);
    let n_layers = (LAYERS as u32).to_le_bytes();
    let arguments = [&words[0][..], &words[1], &words[2], &n_layers];
    let counters = bench.try_launch("layers", [(ROWS / 128) as u32, 1, 1], 384, SHARED, &arguments)?;
    Ok((bench.floats(output, ROWS * WIDTH), counters))
}

#[test]
fn a_chain_of_layers_between_roles_agrees_with_f64() {
    for seed in 0..3 {
        let (got, counters) = run_layers(ptx(), seed).expect("runs");
        assert_eq!(counters.multiply_adds, [0, 0, 0, (LAYERS * ROWS * WIDTH * WIDTH) as u64]);
        assert_eq!(counters.bulk_sectors, (ROWS / 128 * LAYERS * STAGE / 32) as u64);
        for row in (0..ROWS).step_by(7) {
            let mut a: Vec<f64> = (0..WIDTH).map(|k| f64::from(input(row, k))).collect();
            let mut sums = Vec::new();
            for layer in 0..LAYERS {
                let product = |n: usize| (0..WIDTH).map(|k| a[k] * f64::from(weight(layer, n, k))).sum::<f64>();
                sums = (0..WIDTH).map(product).collect();
                a = sums.iter().map(|sum| f64::from(bf16::from_f32(*sum as f32 / 2.0).to_f32())).collect();
            }
            for (n, want) in sums.into_iter().enumerate() {
                let got = f64::from(got[row * WIDTH + n]);
                // One rounding of an intermediate sum may differ by a unit of bf16.
                assert!((got - want).abs() < 4e-3, "({row}, {n}): {got}, not {want}");
            }
        }
    }
}

#[test]
fn what_no_kernel_uses_is_refused_by_name() {
    for instruction in [
        "barrier.cluster.arrive.release.aligned;",
        "mapa.shared::cluster.u32 %r1, %r2, 1;",
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r1], [%d1], 16, [%r2], %h1;",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%d1, {%r1, %r2}], [%r2];",
        "cp.async.bulk.prefetch.L2.global [%d1], 16;",
        "mbarrier.arrive.noComplete.shared::cta.b64 %d1, [%r1], 2;",
        "mbarrier.arrive_drop.shared::cta.b64 %d1, [%r1];",
        "mbarrier.pending_count.b64 %r1, %d1;",
    ] {
        let error = refusal(instruction);
        assert!(error.contains("no kernel uses them"), "{error}");
    }
    for instruction in [
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%d1], [%r1], 16;",
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r1], [%r2], 16, [%r2];",
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r1], %r2, [%r2];",
        "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r1], %r2, [%r2];",
        "fence.proxy.tensormap::generic.release.gpu;",
        "wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%r1, %r1, %r1, %r1}, %d1, %d1, true, 1, 1;",
        "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%r1, %r1, %r1, %r1}, %d1, %d1, true, 1, 1;",
        "wgmma.mma_async.sync.aligned.m64n8k16.f16.f16.f16 {%r1, %r1}, %d1, %d1, true, 1, 1, 0, 0;",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%r1, %r1, %r1, %r1}, %d1, %d1, true, 1, 1, 0, 2;",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%r1, %r1, %r1, %r1}, %d1, %d1, true, 1, 2, 0, 0;",
        "wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.bf16.bf16 {%r1, %r1, %r1, %r1}, %d1, %d1, %r1, 0, true, 1, 1, 0, 0;",
    ] {
        refusal(instruction);
    }
}

/// The error of loading a kernel with an instruction, which it must name.
fn refusal(instruction: &str) -> String {
    let ptx = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k()\n{{\n\
         .reg .b32 %r<3>; .reg .b64 %d<2>; .reg .b16 %h<2>;\n{instruction}\nret;\n}}"
    );
    let error = Device::of(Card::H100, 0).load(&ptx).expect_err(instruction);
    let name = instruction.split([' ', ';']).next().unwrap_or_default();
    assert!(error.contains(name), "{error}");
    error
}

#[test]
fn an_older_card_does_not_run_it() {
    let error = Device::of(Card::A100, 0).load(ptx()).expect_err("refused");
    assert!(error.contains("sm_90a"), "{error}");
}

/// A change of the marked instructions: what replaces each line with the mark, and the report.
struct Fault {
    mark: &'static str,
    change: fn(&str) -> String,
    report: &'static str,
}

fn gone(_: &str) -> String {
    String::new()
}

/// The last operand in the line of an instruction replaced.
fn with_operand(line: &str, operand: &str) -> String {
    line.rsplit_once(',').map_or(String::new(), |(kept, _)| format!("{kept}, {operand};"))
}

const FAULTS: [Fault; 20] = [
    Fault { mark: "// init-fence", change: gone, report: "no fence.mbarrier_init" },
    Fault { mark: "8; // consumers", change: |line| line.replace("8;", "9;"), report: "lacks 1 of 9 arrivals" },
    Fault { mark: "8; // consumers", change: |line| line.replace("8;", "7;"), report: "data race" },
    Fault { mark: "40; // fewer", change: |line| line.replace("40", "184"), report: "setmaxnreg.dec to 184" },
    Fault { mark: "232; // more", change: |line| line.replace("232", "240"), report: "waits for its warpgroup" },
    Fault { mark: "232; // more", change: |line| line.replace("232", "160"), report: "setmaxnreg.inc to 160" },
    Fault { mark: "232; // more", change: |line| line.replace("232", "236"), report: "multiples of 8" },
    Fault {
        mark: "// expect",
        change: |line| line.replace("arrive.expect_tx", "expect_tx").replace("_, ", ""),
        report: "lacks 1 of 1 arrivals",
    },
    Fault { mark: "// load", change: gone, report: "lacks 0 of 1 arrivals and 8192 bytes" },
    Fault { mark: "// fence", change: gone, report: "without a wgmma.fence" },
    Fault { mark: "// commit", change: gone, report: "register of a wgmma.mma_async under way" },
    Fault { mark: "// wait", change: gone, report: "data race" },
    Fault { mark: "// release", change: gone, report: "wait for the mbarrier" },
    Fault { mark: "// proxy-fence", change: gone, report: "without fence.proxy.async" },
    Fault { mark: "128; // named", change: gone, report: "data race" },
    Fault {
        mark: "128; // named",
        change: |line| line.replace("128;", "160;"),
        report: "128 of 160 threads have come",
    },
    Fault { mark: "0; // store-wait", change: |line| line.replace(" 0;", " 1;"), report: "did not wait for" },
    Fault { mark: "// expect", change: |line| with_operand(line, "4096"), report: "wrong transaction count" },
    Fault {
        mark: "// expect",
        change: |line| with_operand(line, "12288"),
        report: "lacks 0 of 1 arrivals and 4096 bytes",
    },
    Fault {
        mark: "40; // fewer",
        change: |line| format!("{}\n{line}", line.replace("40", "56")),
        report: "did not meet since their last setmaxnreg",
    },
];

#[test]
fn faults_in_roles_are_reported() {
    for (index, Fault { mark, change, report }) in FAULTS.iter().enumerate() {
        let changed: String = ptx()
            .lines()
            .map(|line| if line.contains(mark) { change(line) } else { line.to_string() } + "\n")
            .collect();
        assert_ne!(changed, ptx(), "{mark}: nothing has the mark");
        let error = run_layers(&changed, index as u64).expect_err(mark);
        println!("{mark}\n{error}\n");
        assert!(error.contains(report), "{mark}: {error}");
    }
}
