//! The parsers of the virtual GPU on random changes of valid input. `fuzz/mod.rs` describes how to
//! read more inputs than by default.

#[path = "../../common/fuzz/mod.rs"]
mod common_fuzz;

use common_fuzz::{Answer, Bytes, NUMBERS, Random, Target, Text, run};
use ruzstd::encoding::CompressionLevel;
use vgpu::fatbin::ptx_of;
use vgpu::ptx::parse_module;

/// Instructions of every kind that the decoder supports, for the registers that [`module`]
/// declares.
const INSTRUCTIONS: [&str; 74] = [
    "ld.param.u64 %rd1, [k_out];",
    "ld.param.u32 %r1, [k_n+0];",
    "mov.u32 %r2, %tid.x;",
    "mov.u32 %r3, %ntid.y;",
    "mov.u32 %r4, %laneid;",
    "mov.f32 %f1, 0f3F800000;",
    "mov.f64 %fd1, 0d3FF0000000000000;",
    "mov.u64 %rd2, table;",
    "mov.u64 %rd2, table+4;",
    "mov.b64 {%r1, %r2}, %rd1;",
    "mov.b64 %rd1, {%r1, %r2};",
    "mov.b32 %r1, {%h1, %h2};",
    "abs.f32 %f1, %f2;",
    "neg.ftz.f32 %f1, %f2;",
    "not.pred %p1, %p2;",
    "popc.b32 %r1, %r2;",
    "brev.b32 %r1, %r2;",
    "sqrt.rn.f32 %f1, %f2;",
    "sqrt.approx.ftz.f32 %f1, %f2;",
    "ex2.approx.f32 %f1, %f2;",
    "tanh.approx.f32 %f1, %f2;",
    "add.s32 %r1, %r2, -5;",
    "add.u64 %rd1, %rd2, 18446744073709551615;",
    "sub.f16x2 %r1, %r2, %r3;",
    "mul.wide.u32 %rd1, %r1, 4;",
    "mul.hi.u32 %r1, %r2, %r3;",
    "mul.lo.s32 %r1, %r2, %r3;",
    "div.rn.f32 %f1, %f2, %f3;",
    "div.full.f32 %f1, %f2, %f3;",
    "rem.u32 %r1, %r2, 7;",
    "min.s32 %r1, %r2, %r3;",
    "and.b32 %r1, %r2, 31;",
    "shl.b32 %r1, %r2, 2;",
    "shr.u64 %rd1, %rd2, 32;",
    "copysign.f32 %f1, %f2, %f3;",
    "mad.lo.s32 %r1, %r2, %r3, %r4;",
    "mad.wide.u32 %rd1, %r1, 8, %rd2;",
    "fma.rn.f32 %f1, %f2, %f3, %f1;",
    "bfe.u32 %r1, %r2, 4, 8;",
    "bfi.b32 %r1, %r2, %r3, 8, 4;",
    "shf.l.wrap.b32 %r1, %r2, %r3, 5;",
    "prmt.b32 %r1, %r2, %r3, 0x5410;",
    "lop3.b32 %r1, %r2, %r3, %r4, 0x96;",
    "setp.lt.u32 %p1, %r1, %r2;",
    "setp.eq.and.s32 %p1|%p2, %r1, 3, !%p2;",
    "setp.neu.f32 %p1, %f1, 0f00000000;",
    "selp.b32 %r1, %r2, %r3, %p1;",
    "cvt.rn.f32.u32 %f1, %r1;",
    "cvt.rzi.s32.f32 %r1, %f1;",
    "cvt.rn.bf16x2.f32 %r1, %f1, %f2;",
    "cvt.rna.tf32.f32 %r1, %f1;",
    "cvta.to.global.u64 %rd1, %rd2;",
    "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1+16];",
    "ld.shared.u32 %r1, [tile];",
    "ld.const.f32 %f1, [table-4];",
    "st.global.u32 [%rd1], %r5;",
    "st.shared.v2.b32 [tile+8], {%r1, %r2};",
    "st.local.u32 [%rd3], 0;",
    "atom.global.add.f32 %f1, [%rd1], %f2;",
    "atom.shared.cas.b32 %r1, [tile], %r2, %r3;",
    "red.global.add.f32 [%rd1], %f2;",
    "bar.sync 0;",
    "barrier.sync 1, 64;",
    "bar.warp.sync 0xffffffff;",
    "membar.gl;",
    "shfl.sync.bfly.b32 %r1|%p1, %r2, 16, 31, -1;",
    "vote.sync.ballot.b32 %r1, !%p1, -1;",
    "activemask.b32 %r1;",
    "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r1, %r2, %r3, %r4}, [tile];",
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4};",
    "cp.async.cg.shared.global [tile], [%rd1], 16;",
    "cp.async.wait_group 1;",
    "@%p1 bra $done;",
    "@!%p2 bra $turn;",
];

/// Words with a meaning in PTX.
const WORDS: [&str; 60] = [
    ".reg", ".b32", ".b64", ".f32", ".u64", ".pred", ".param", ".entry", ".visible", ".func", ".global", ".shared",
    ".local", ".const", ".extern", ".align", ".loc", ".file", ".section", ".maxntid", ".reqntid", ".pragma",
    ".version", "{", "}", "(", ")", "[", "]", "<", ">", ";", ",", ":", "@", "!", "|", "/*", "*/", "//", "=", "\"", "%",
    "$done", "$turn", "tile", "table", "_", "k_out", "%r1", "%rd1", "%f1", "%p1", "%tid.x", "bra", "ret", "mov", "0f",
    "0x", "s64",
];

/// The text of a module: valid, apart from impossible numbers in some.
fn module(random: &mut Random) -> Vec<u8> {
    let wild = random.percent(40);
    let number = |random: &mut Random, usual: &str| -> String {
        if wild && random.percent(15) { random.pick::<str>(&NUMBERS).into() } else { usual.into() }
    };
    let mut text = String::from(".version 8.0\n.target sm_80\n.address_size 64\n.file 1 \"a.cu\"\n");
    text += &format!(
        ".const .align {} .b8 table[{}] = {{{}, 2, 3, 4}};\n",
        number(random, "4"),
        number(random, "8"),
        number(random, "1")
    );
    text += &format!(".global .align {} .f32 sums[{}];\n", number(random, "8"), number(random, "16"));
    if random.percent(40) {
        text += ".extern .shared .align 16 .b8 dynamic[];\n";
    }
    for kernel in 0..1 + random.below(2) {
        text += &format!(
            ".visible .entry k{kernel}(\n.param .align {} .b8 k_out[{}],\n.param .u32 k_n\n)\n.maxntid {}, {}, 1\n{{\n",
            number(random, "8"),
            number(random, "8"),
            number(random, "64"),
            number(random, "1")
        );
        text += &format!(
            ".reg .pred %p<{}>;\n.reg .b16 %h<4>;\n.reg .b32 %r<{}>;\n.reg .f32 %f<8>;\n.reg .b64 %rd<4>;\n.reg .f64 %fd<3>;\n",
            number(random, "4"),
            number(random, "9")
        );
        text += &format!(
            ".shared .align {} .b8 tile[{}][{}];\n.local .align 4 .b8 depot[{}];\n",
            number(random, "16"),
            number(random, "8"),
            number(random, "32"),
            number(random, "16")
        );
        let n = random.below(30);
        for line in 0..n {
            if line == n / 2 {
                text += "$turn:\n";
            }
            match random.below(12) {
                0 => text += &format!(".loc 1 {} 0\n", number(random, "12")),
                1 => text += "{ .reg .b32 %r1; mov.u32 %r1, 1; }\n",
                2 => text += "@%p1 ",
                _ => {}
            }
            text += random.pick::<str>(&INSTRUCTIONS);
            text.push('\n');
        }
        if n == 0 {
            text += "$turn:\n";
        }
        text += "$done:\nret;\n}\n";
    }
    text.into_bytes()
}

#[test]
fn ptx_modules() {
    let target = Target { name: "ptx", inputs: 60_000, bytes_per_byte: 256, microseconds_per_byte: 20 };
    run(
        &target,
        |random| {
            let (mut text, other) = (module(random), module(random));
            for _ in 0..random.below(4) {
                Text::change(random, &mut text, &other, &WORDS);
            }
            text
        },
        |input, _| Answer::from(parse_module(&String::from_utf8_lossy(input))),
    );
}

/// Every instruction in the inputs is valid.
#[test]
fn instructions_to_begin_with_are_valid() {
    let head = ".visible .entry k(.param .b8 k_out[8], .param .u32 k_n)\n{\n.reg .pred %p<4>; .reg .b16 %h<4>; \
                .reg .b32 %r<9>; .reg .f32 %f<8>; .reg .b64 %rd<4>; .reg .f64 %fd<3>;\n.shared .b8 tile[256];\n";
    for instruction in INSTRUCTIONS {
        let text = format!(".const .b8 table[8];\n{head}$turn:\n{instruction}\n$done:\nret;\n}}\n");
        let module = parse_module(&text).expect("valid");
        assert_eq!(module.kernels[0].code.len(), 3, "{instruction}");
    }
}

/// A fat binary of `parts`: (kind, content). Some are compressed, and some only claim to be.
fn fat_binary(random: &mut Random, parts: &[(u16, Vec<u8>)]) -> Vec<u8> {
    const HEADER: u32 = 64;
    const LZ4: u64 = 1 << 13;
    const ZSTD: u64 = 1 << 15;
    let mut body = Vec::new();
    for (kind, content) in parts {
        let start = body.len();
        let (flags, packed) = match random.below(20) {
            0..6 => (LZ4, lz4_flex::block::compress(content)),
            6..12 => (ZSTD, ruzstd::encoding::compress_to_vec(&content[..], CompressionLevel::Fastest)),
            12 => (random.choose(&[LZ4, ZSTD]), content.clone()),
            _ => (0, content.clone()),
        };
        body.extend(kind.to_le_bytes());
        body.extend([1, 1]);
        body.extend(HEADER.to_le_bytes());
        body.extend((packed.len() as u64).to_le_bytes());
        body.extend((packed.len() as u32).to_le_bytes());
        body.resize(start + 40, 0);
        body.extend(flags.to_le_bytes());
        body.resize(start + 56, 0);
        body.extend((content.len() as u64).to_le_bytes());
        body.extend(packed);
    }
    let mut image = 0xba55_ed50u32.to_le_bytes().to_vec();
    image.extend([1, 0, 16, 0]);
    image.extend((body.len() as u64).to_le_bytes());
    [image, body].concat()
}

#[test]
fn fat_binaries() {
    // PTX may be 255 times as long as what is compressed, and is there as bytes and as text.
    let target = Target { name: "fatbin", inputs: 100_000, bytes_per_byte: 768, microseconds_per_byte: 20 };
    run(
        &target,
        |random| {
            let mut parts = Vec::new();
            for _ in 0..random.below(3) {
                parts.push((2, vec![0x7f; random.below(80)]));
            }
            let n = random.below(200);
            let text: Vec<u8> = (0..n).map(|_| random.choose(b".visible entry\n\0;{}")).collect();
            parts.push((random.choose(&[1, 1, 1, 2]), text));
            let mut image = fat_binary(random, &parts);
            match random.below(10) {
                0..4 => {
                    // A field of a header.
                    let headers: Vec<usize> = headers(&image).into_iter().chain([0]).collect();
                    let at = random.choose(&headers) + 2 * random.below(32);
                    Bytes::extreme(random, &mut image, at);
                }
                4..6 => {
                    let other = image.clone();
                    Bytes::change(random, &mut image, &other);
                }
                6 => image = random.pick::<str>(&[".version 8.0\n\0", "", "\u{fffd}"]).as_bytes().to_vec(),
                _ => {}
            }
            image
        },
        |input, _| Answer::from(ptx_of(input, 90)),
    );
}

/// Where the headers of the parts of a valid fat binary begin.
fn headers(image: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 16;
    while let Some(size) = image.get(at + 8..at + 16) {
        starts.push(at);
        at += 64 + u64::from_le_bytes(size.try_into().expect("eight bytes")) as usize;
    }
    starts
}
