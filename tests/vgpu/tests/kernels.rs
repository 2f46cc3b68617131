//! Small kernels: their results, and the report of each fault with its location.

use vgpu::device::{Device, Sizes};

const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n.file 1 \"faulty.cu\"\n";

/// A kernel `k` with one pointer `out`; `body` follows the usual preamble: %rd1 = out, %r1 = tid,
/// %r2 = lane, %r3 = ctaid.
fn ptx(declarations: &str, body: &str) -> String {
    format!(
        "{HEAD}{declarations}
.visible .entry k(.param .u64 k_out)
.maxntid 256, 1, 1
{{
.reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<32>; .reg .f32 %f<32>; .reg .b64 %rd<16>;
.loc 1 5 0
ld.param.u64 %rd1, [k_out];
cvta.to.global.u64 %rd1, %rd1;
mov.u32 %r1, %tid.x;
mov.u32 %r2, %laneid;
mov.u32 %r3, %ctaid.x;
.loc 1 7 1
{body}
ret;
}}"
    )
}

struct Run {
    blocks: u32,
    threads: u32,
    words: usize,
    dynamic_shared: usize,
    allowed: usize,
}

impl Default for Run {
    fn default() -> Self {
        Run { blocks: 1, threads: 64, words: 64, dynamic_shared: 0, allowed: 0 }
    }
}

impl Run {
    /// The words of `out` after the kernel, or its error, for a few orders of warps.
    fn of(&self, ptx: &str) -> Result<Vec<u32>, String> {
        let mut results = Vec::new();
        for seed in 0..4 {
            let mut device = Device::new(seed);
            let module = device.load(ptx)?;
            let out = device.memory.allocate(4 * self.words);
            let kernel = device.kernel(module, "k").expect("the kernel");
            let sizes = Sizes {
                grid: [self.blocks, 1, 1],
                block: [self.threads, 1, 1],
                dynamic_shared: self.dynamic_shared,
                allowed_dynamic_shared: self.allowed,
                cooperative: false,
            };
            device.launch(module, kernel, &[&out.to_le_bytes()], sizes)?;
            let (region, offset) = device.memory.find(out, 4 * self.words).expect("out");
            let mut bytes = vec![0; 4 * self.words];
            region.copy_out(offset, &mut bytes);
            results
                .push(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>());
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "the result depends on the order of warps");
        Ok(results.swap_remove(0))
    }

    #[track_caller]
    fn fails(&self, ptx: &str, parts: &[&str]) {
        let error = self.of(ptx).expect_err("an error");
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

const OWN_WORD: &str = "mul.wide.u32 %rd2, %r1, 4; add.s64 %rd2, %rd1, %rd2;";

#[test]
fn lanes_that_part_meet_again() {
    let body = format!(
        "{OWN_WORD}
        mov.u32 %r4, 0; mov.u32 %r5, 0;
        $loop:
        setp.ge.u32 %p1, %r5, %r2;
        @%p1 bra $done;
        add.u32 %r4, %r4, %r5;
        add.u32 %r5, %r5, 1;
        bra $loop;
        $done:
        activemask.b32 %r6;
        bar.warp.sync 0xffffffff;
        shfl.sync.bfly.b32 %r7, %r4, 1, 31, 0xffffffff;
        st.global.u32 [%rd2], %r7;"
    );
    let sums: Vec<u32> = (0..64u32).map(|t| ((t % 32) ^ 1) * (((t % 32) ^ 1).wrapping_sub(1)) / 2).collect();
    assert_eq!(Run::default().of(&ptx("", &body)).expect("runs"), sums);
}

#[test]
fn barriers_order_shared_memory() {
    let body = format!(
        "{OWN_WORD}
        mov.u32 %r4, tile; shl.b32 %r5, %r1, 2; add.u32 %r6, %r4, %r5;
        st.shared.u32 [%r6], %r2;
        bar.sync 0;
        st.shared.u32 [%r6], %r1;
        barrier;
        xor.b32 %r7, %r5, 252; add.u32 %r6, %r4, %r7;
        ld.shared.u32 %r8, [%r6];
        st.global.u32 [%rd2], %r8;"
    );
    let shared = ".shared .align 4 .b8 tile[256];";
    let with = |barrier: &str| body.replace("barrier;", barrier);
    let whole = with("bar.sync 0;");
    assert_eq!(Run::default().of(&ptx(shared, &whole)).expect("runs"), (0..64).rev().collect::<Vec<u32>>());
    Run::default()
        .fails(&ptx(shared, &with("")), &["k: ", "data race", "faulty.cu:7", "block 0, thread", ".shared.u32"]);
    // A warp barrier does not order the other warp.
    let warp = with("bar.warp.sync 0xffffffff;");
    Run::default().fails(&ptx(shared, &warp), &["data race"]);
    // Dynamic shared memory follows the static one, and takes no bytes in the module.
    let dynamic = ptx(".extern .shared .align 16 .b8 tile[];", &whole);
    Run { dynamic_shared: 256, ..Run::default() }.of(&dynamic).expect("runs");
    Run { dynamic_shared: 252, ..Run::default() }.fails(&dynamic, &["out of bounds", "shared 0xfc", "252 bytes"]);
}

#[test]
fn accesses_outside_astray_and_too_early_are_faults() {
    let run = Run::default();
    let store = |address: &str| ptx("", &format!("{OWN_WORD} st.global.u32 [%rd2{address}], %r1;"));
    run.of(&store("")).expect("runs");
    run.fails(&store("+4"), &["out of bounds", "4 bytes past its end", "thread 63", "faulty.cu:7"]);
    run.fails(&store("+2"), &["misaligned", "4 bytes"]);
    run.fails(&store("-4"), &["out of bounds", "thread 0"]);
    run.fails(&ptx("", &format!("{OWN_WORD} ld.global.u32 %r4, [%rd2];")), &["uninitialized", "never written"]);
    let shared = ".shared .align 4 .b8 tile[256];";
    run.fails(&ptx(shared, "mov.u32 %r4, tile; ld.shared.u32 %r5, [%r4];"), &["uninitialized", "shared 0x0"]);
    // Blocks that write one word race, even if they write equal values.
    let one_word = ptx("", "setp.ne.u32 %p1, %r1, 0; @%p1 bra $end; st.global.u32 [%rd1], %r1; $end:");
    run.of(&one_word).expect("runs");
    Run { blocks: 2, ..Run::default() }.fails(&one_word, &["data race", "wrote"]);
    let atomic =
        one_word.replace("st.global.u32 [%rd1], %r1;", "st.global.u32 [%rd1], 0; atom.global.add.u32 %r4, [%rd1], 5;");
    assert_eq!(run.of(&atomic).expect("runs")[0], 5);
}

#[test]
fn lanes_that_cannot_meet_are_faults() {
    let run = Run::default();
    let divided = |body: &str| ptx("", &format!("setp.lt.u32 %p1, %r2, 16; @%p1 bra $low; {body} $low:"));
    run.fails(&divided("bar.sync 0; bra $low;"), &["barrier"]);
    run.fails(&divided("shfl.sync.bfly.b32 %r4, %r1, 1, 31, 0xffffffff; ret;"), &["left the kernel"]);
    run.fails(&divided("shfl.sync.bfly.b32 %r4, %r1, 1, 31, 0xffff; ret;"), &["not in its own mask 0xffff"]);
    run.fails(&ptx("", "setp.lt.u32 %p1, %r1, 32; @%p1 ret; bar.sync 0;"), &["left the kernel", "barrier"]);
    run.fails(&ptx("", "shfl.sync.idx.b32 %r4, %r1, %r2, 31, %r1;"), &["same in all lanes"]);
    // The two halves of a warp at two different barriers.
    let two = "setp.lt.u32 %p1, %r2, 16; @%p1 bra $low; bar.warp.sync 0xffffffff; bra $end; $low: bar.warp.sync 0xffffffff; $end:";
    run.fails(&ptx("", two), &["divergent", "wait for each other"]);
}

#[test]
fn launches_are_checked_before_they_run() {
    let empty = ptx("", "");
    Run { threads: 512, ..Run::default() }.fails(&empty, &["512 threads", "at most 256"]);
    let dynamic = ptx(".extern .shared .align 16 .b8 tile[];", "");
    Run { dynamic_shared: 60 << 10, ..Run::default() }.fails(&dynamic, &["dynamic shared memory", "attribute"]);
    Run { dynamic_shared: 60 << 10, allowed: 60 << 10, ..Run::default() }.of(&dynamic).expect("runs");
    Run { dynamic_shared: 200 << 10, allowed: 200 << 10, ..Run::default() }.fails(&dynamic, &["at most"]);
    let mut device = Device::new(0);
    let module = device.load(&empty).expect("loads");
    let sizes =
        Sizes { grid: [1; 3], block: [32, 1, 1], dynamic_shared: 0, allowed_dynamic_shared: 0, cooperative: false };
    assert!(device.launch(module, 0, &[], sizes).expect_err("fails").contains("0 arguments, but the kernel takes 1"));
    assert!(
        device
            .launch(module, 0, &[&[0; 4]], sizes)
            .expect_err("fails")
            .contains("k_out has 4 bytes, but the kernel takes 8")
    );
}

#[test]
fn what_is_not_known_is_named() {
    for (body, parts) in [
        ("tcgen05.relinquish;", ["tcgen05.relinquish", "not known"]),
        ("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r2}, {%f1};", ["mma.sync", "no shape"]),
        ("add.s32 %r1, %r99, 1;", ["add.s32", "no operand %r99"]),
        ("bra $nowhere;", ["k", "$nowhere"]),
    ] {
        let error = Device::new(0).load(&ptx("", body)).expect_err("an error");
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

#[test]
fn asynchronous_copies_must_be_waited_for() {
    let copy = |wait: &str| {
        let body = format!(
            "{OWN_WORD} st.global.u32 [%rd2], %r1; bar.sync 0;
            mov.u32 %r4, tile; shl.b32 %r5, %r1, 2; add.u32 %r6, %r4, %r5;
            cp.async.ca.shared.global [%r6], [%rd2], 4;
            cp.async.commit_group;
            {wait}
            ld.shared.u32 %r8, [%r6];
            add.u32 %r8, %r8, 1;
            st.global.u32 [%rd2], %r8;"
        );
        ptx(".shared .align 16 .b8 tile[256];", &body)
    };
    let run = Run::default();
    assert_eq!(run.of(&copy("cp.async.wait_group 0;")).expect("runs"), (1..65).collect::<Vec<u32>>());
    run.fails(&copy("cp.async.wait_group 1;"), &["asynchronous copy", "not waited for"]);
    run.fails(&copy(""), &["asynchronous copy"]);
}

#[test]
fn what_is_fetched_ahead_lies_in_memory() {
    let fetch = |offset: u32| {
        ptx(
            "",
            &format!("{OWN_WORD} prefetch.global.L2 [%rd2+{offset}]; add.u32 %r8, %r1, 1; st.global.u32 [%rd2], %r8;"),
        )
    };
    let run = Run::default();
    assert_eq!(run.of(&fetch(0)).expect("runs"), (1..65).collect::<Vec<u32>>());
    run.fails(&fetch(4096), &["out of bounds"]);
}

/// A matrix product by ldmatrix and mma: 16 × 16 times 16 × 8 in bf16.
#[test]
fn fragments_travel_from_shared_memory_through_the_product() {
    let body = "
        mov.u32 %r4, tile; shl.b32 %r5, %r1, 3; add.u32 %r6, %r4, %r5;
        // Each lane writes four halves: row lane / 2 of A, halves 8·(lane & 1) …; both halves of
        // the tile alike.
        mov.b32 %r7, 0x3f803f80; mov.b32 %r8, 0x40004000;
        st.shared.v2.b32 [%r6], {%r7, %r8};
        st.shared.v2.b32 [%r6+256], {%r7, %r8};
        bar.sync 0;
        and.b32 %r9, %r1, 15; shl.b32 %r9, %r9, 5; shr.u32 %r10, %r1, 4; shl.b32 %r10, %r10, 4;
        add.u32 %r9, %r9, %r10; add.u32 %r9, %r9, %r4;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r11, %r12, %r13, %r14}, [%r9];
        mov.f32 %f1, 0f00000000;
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f2, %f3, %f4, %f5}, {%r11, %r12, %r13, %r14}, {%r11, %r13}, {%f1, %f1, %f1, %f1};
        mul.wide.u32 %rd2, %r1, 16; add.s64 %rd2, %rd1, %rd2;
        st.global.v4.f32 [%rd2], {%f2, %f3, %f4, %f5};";
    let run = Run { threads: 32, words: 128, ..Run::default() };
    let out = run.of(&ptx(".shared .align 16 .b8 tile[512];", body)).expect("runs");
    // Every row is 1 1 2 2 four times: its product with itself is 4·(1 + 1 + 4 + 4) = 40.
    assert!(
        out.iter().all(|&bits| f32::from_bits(bits) == 40.0),
        "{:?}",
        &out[..8].iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>()
    );
    let missing = ptx(
        ".shared .align 16 .b8 tile[512];",
        &format!("setp.lt.u32 %p1, %r2, 16; @%p1 ret; {}", body.replace("bar.sync 0;", "")),
    );
    run.fails(&missing, &["lanes 0xffff missing"]);
}

#[test]
fn counters_count_instructions_and_traffic() {
    let mut device = Device::new(0);
    let body = format!("{OWN_WORD} fma.rn.f32 %f1, %f2, %f3, %f4; st.global.f32 [%rd2], %f1; bar.sync 0;");
    let module = device.load(&ptx("", &body)).expect("loads");
    let out = device.memory.allocate(256);
    let sizes =
        Sizes { grid: [1; 3], block: [64, 1, 1], dynamic_shared: 0, allowed_dynamic_shared: 0, cooperative: false };
    device.launch(module, 0, &[&out.to_le_bytes()], sizes).expect("runs");
    let counters = &device.counters["k"];
    assert_eq!((counters.barriers, counters.written_sectors, counters.written_bytes), (1, 8, 256));
    assert_eq!(counters.thread_instructions[0], 64);
}
