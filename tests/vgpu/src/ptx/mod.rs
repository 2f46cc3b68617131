//! Modules of PTX (PTX ISA 9.0) and their decoder: from text to executable instructions.
//!
//! An unsupported instruction is an error with its text, never skipped.

mod decode;
mod liveness;
mod module;
mod types;
mod warpgroup;

pub use module::{Global, Kernel, Module, Parameter, Target, parse_module};
pub use types::{Space, Type};
pub use warpgroup::{LeftOperand, WarpgroupProduct};

/// A register of a kernel; [`SINK`] takes results for `_`.
pub type Register = u32;

/// The register for `_`.
pub const SINK: Register = 0;

/// The initial content of a register in each block. Every operand that an instruction may read is a
/// register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// A constant, or an address in shared or local memory.
    Bits(u64),
    /// Address of a module variable: its index, and an offset.
    Global(u32, u64),
    Special(Special),
}

/// The threads for which an instruction orders memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of one block (`.cta`).
    Block,
    /// All of the device (`.gpu`), and the host's (`.sys`), which is not modelled.
    Device,
}

/// A strong access (PTX ISA, "Memory Consistency Model"): one that threads may make to the same
/// memory at the same time, and that orders others if it acquires or releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strong {
    pub scope: Scope,
    pub acquires: bool,
    pub releases: bool,
}

/// Special registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    LaneMaskEq,
    DynamicSharedSize,
    /// `%envreg1` and `%envreg2`: upper and lower half of the address of a cooperative launch's
    /// workspace, where the barrier of `cooperative_groups` counts its blocks.
    Workspace {
        upper: bool,
    },
}

/// One instruction with its guard and its source line.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Register and whether it is negated.
    pub guard: Option<(Register, bool)>,
    pub op: Op,
    /// Source file (index into [`Module::files`]) and line, from `-lineinfo`; the line is 0 without
    /// it.
    pub source: (u32, u32),
    /// Index of its text in the kernel, for errors.
    pub text: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Abs,
    Neg,
    Not,
    Popc,
    Clz,
    Bfind,
    Brev,
    Sqrt,
    SqrtApprox,
    RsqrtApprox,
    RcpApprox,
    Rcp,
    SinApprox,
    CosApprox,
    Ex2Approx,
    Lg2Approx,
    TanhApprox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    MulLo,
    MulHi,
    MulWide,
    Div,
    DivApprox,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    Copysign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ternary {
    MadLo,
    MadHi,
    MadWide,
    Fma,
    Bfe,
    ShfLeft { clamp: bool },
    ShfRight { clamp: bool },
    Prmt,
    Lop3(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// The same, also true if an operand is NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    /// Both operands are numbers.
    Num,
    /// At least one operand is NaN.
    Nan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    Zero,
    Down,
    Up,
    /// To nearest, ties away from zero, as tf32 needs.
    NearestAway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// Shapes and types of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixProduct {
    /// m16n8k16, f16 operands, f32 sums.
    F16,
    /// m16n8k16, bf16 operands, f32 sums.
    Bf16,
    /// m16n8k8, bf16 operands, f32 sums.
    Bf16K8,
    /// m16n8k8, f16 operands, f32 sums.
    F16K8,
    /// m16n8k8, tf32 operands, f32 sums.
    Tf32,
    /// m16n8k4, tf32 operands, f32 sums.
    Tf32K4,
}

/// An address: a base and an offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Address {
    pub base: Register,
    pub offset: i64,
}

#[derive(Clone, Debug)]
pub enum Op {
    Mov {
        dst: Register,
        a: Register,
        ty: Type,
    },
    /// Packs several registers of `bits` each into one, lowest first.
    Pack {
        dst: Register,
        parts: Vec<Register>,
        bits: u32,
    },
    /// The inverse.
    Unpack {
        parts: Vec<Register>,
        a: Register,
        bits: u32,
    },
    Unary {
        op: Unary,
        ty: Type,
        ftz: bool,
        dst: Register,
        a: Register,
    },
    Binary {
        op: Binary,
        ty: Type,
        ftz: bool,
        saturate: bool,
        dst: Register,
        a: Register,
        b: Register,
    },
    Ternary {
        op: Ternary,
        ty: Type,
        ftz: bool,
        saturate: bool,
        relu: bool,
        dst: Register,
        a: Register,
        b: Register,
        c: Register,
    },
    /// Inserts `length` bits of a into b from `position`.
    Bfi {
        ty: Type,
        dst: Register,
        a: Register,
        b: Register,
        position: Register,
        length: Register,
    },
    /// dst = a compared with b, combined with a predicate; `other` gets the complement.
    Setp {
        compare: Compare,
        ty: Type,
        dst: Register,
        other: Register,
        a: Register,
        b: Register,
        combine: Option<(Binary, Register, bool)>,
    },
    Selp {
        dst: Register,
        a: Register,
        b: Register,
        predicate: Register,
    },
    Convert {
        to: Type,
        from: Type,
        rounding: Option<Rounding>,
        integral: bool,
        saturate: bool,
        ftz: bool,
        relu: bool,
        dst: Register,
        a: Register,
    },
    /// Converts two f32 to one register of halves: a in the upper half, b in the lower.
    ConvertPair {
        to: Type,
        relu: bool,
        dst: Register,
        a: Register,
        b: Register,
    },
    /// Converts an address of one space to a generic one, or back.
    Cvta {
        dst: Register,
        a: Register,
        space: Space,
        to_space: bool,
    },
    /// Without `strong`, the access is weak.
    Load {
        strong: Option<Strong>,
        space: Space,
        ty: Type,
        dst: Vec<Register>,
        address: Address,
    },
    Store {
        strong: Option<Strong>,
        space: Space,
        ty: Type,
        values: Vec<Register>,
        address: Address,
    },
    Atomic {
        op: AtomicOp,
        strong: Strong,
        space: Space,
        ty: Type,
        dst: Register,
        address: Address,
        b: Register,
        c: Register,
    },
    Branch {
        target: usize,
    },
    Exit,
    Trap,
    /// A barrier of `threads` threads, or of the whole block. With `arrives`, the warp does not
    /// wait.
    Barrier {
        id: Register,
        threads: Option<Register>,
        arrives: bool,
    },
    WarpBarrier {
        mask: Register,
    },
    /// Orders the strong accesses before and after it.
    Fence(Strong),
    Shuffle {
        mode: ShuffleMode,
        dst: Register,
        valid: Register,
        a: Register,
        b: Register,
        clamp: Register,
        mask: Register,
    },
    Vote {
        mode: VoteMode,
        dst: Register,
        predicate: Register,
        negate: bool,
        mask: Register,
    },
    ActiveMask {
        dst: Register,
    },
    /// Matrices of 8 × 8 halves, one per register.
    LoadMatrix {
        transposed: bool,
        dst: Vec<Register>,
        address: Address,
    },
    Mma {
        product: MatrixProduct,
        d: Vec<Register>,
        a: Vec<Register>,
        b: Vec<Register>,
        c: Vec<Register>,
    },
    /// Asynchronous copy of `bytes` from global to shared memory. The first `from_source` bytes are
    /// read, the rest are zeros.
    CopyAsync {
        bytes: usize,
        shared: Address,
        global: Address,
        from_source: Option<Register>,
    },
    /// Prefetches a line of global memory to L2. No effect, but the address must be valid.
    Prefetch {
        address: Address,
    },
    CommitGroup,
    /// Waits until at most `pending` groups are open.
    WaitGroup {
        pending: u64,
    },
    /// One lane of `mask`: its number, and where it is.
    Elect {
        dst: Register,
        predicate: Register,
        mask: Register,
    },
    WarpgroupProduct(Box<WarpgroupProduct>),
    WarpgroupFence,
    WarpgroupCommit,
    /// Waits until at most `pending` groups of products are open.
    WarpgroupWait {
        pending: u64,
    },
    /// `setmaxnreg`: the registers of each thread of a warpgroup.
    SetRegisters {
        increase: bool,
        count: u32,
    },
    MbarrierInit {
        address: Address,
        count: Register,
    },
    MbarrierInvalidate {
        address: Address,
    },
    /// `count` arrivals, after `expected` more bytes; `dst` gets the phase.
    MbarrierArrive {
        dst: Register,
        address: Address,
        count: Register,
        expected: Option<Register>,
        releases: bool,
    },
    /// `bytes` more to come, or come.
    MbarrierBytes {
        address: Address,
        bytes: Register,
        complete: bool,
    },
    /// Whether a phase is complete, named by what an arrival gave or by its parity. With `waits`
    /// (`try_wait`), the thread sleeps for a while.
    MbarrierTest {
        dst: Register,
        address: Address,
        phase: Register,
        parity: bool,
        waits: bool,
        acquires: bool,
    },
    /// `cp.async.bulk` to shared memory, which counts its bytes at `barrier`.
    BulkLoad {
        shared: Address,
        global: Address,
        bytes: Register,
        barrier: Address,
    },
    /// `cp.async.bulk` to global memory, in the thread's bulk group.
    BulkStore {
        global: Address,
        shared: Address,
        bytes: Register,
    },
    BulkCommit,
    /// Waits until at most `pending` bulk groups are open; with `read`, until their sources are
    /// read.
    BulkWait {
        pending: u64,
        read: bool,
    },
    /// `fence.proxy.async`, of shared memory, of global memory, or of both.
    ProxyFence {
        shared: bool,
        global: bool,
    },
    /// `fence.mbarrier_init`.
    MbarrierInitFence,
    /// Lets others run.
    Sleep,
    Nop,
}

impl Op {
    /// True if it changes the program counter or needs several lanes at once.
    #[inline(always)]
    pub fn is_collective(&self) -> bool {
        matches!(
            self,
            Op::Branch { .. }
                | Op::Exit
                | Op::Barrier { .. }
                | Op::WarpBarrier { .. }
                | Op::Shuffle { .. }
                | Op::Vote { .. }
                | Op::LoadMatrix { .. }
                | Op::Mma { .. }
                | Op::Elect { .. }
                | Op::WarpgroupProduct(_)
                | Op::WarpgroupFence
                | Op::WarpgroupCommit
                | Op::WarpgroupWait { .. }
                | Op::SetRegisters { .. }
        )
    }

    /// True if it needs all 32 lanes, each holding elements of one matrix.
    #[inline(always)]
    pub fn is_matrix(&self) -> bool {
        let of_warp = matches!(self, Op::LoadMatrix { .. } | Op::Mma { .. });
        of_warp || matches!(self, Op::WarpgroupFence | Op::WarpgroupCommit | Op::WarpgroupWait { .. })
    }

    /// True if it needs all four warps of a warpgroup.
    #[inline(always)]
    pub fn needs_warpgroup(&self) -> bool {
        matches!(self, Op::WarpgroupProduct(_) | Op::SetRegisters { .. })
    }

    /// True if what it reads may be what another thread writes at the same time, so that a loop
    /// around it may be a wait.
    #[inline(always)]
    pub fn polls(&self) -> bool {
        matches!(self, Op::Load { strong: Some(_), .. } | Op::Atomic { .. } | Op::MbarrierTest { .. })
    }

    /// True if others should run next: they may end a wait.
    #[inline(always)]
    pub fn yields(&self) -> bool {
        self.polls() || matches!(self, Op::Sleep)
    }

    /// True if it may serve blocks, or warps of a block between barriers, to exchange data, so that
    /// blocks must run side by side and the order of their accesses must be known.
    pub fn synchronizes(&self) -> bool {
        match self {
            Op::Load { strong, .. } => strong.is_some(),
            Op::Store { strong, .. } => strong.is_some_and(|strong| strong.releases),
            // An addition to a sum that nobody reads needs no order.
            Op::Atomic { strong, space, ty, dst, .. } => {
                strong.acquires || strong.releases || *space != Space::Shared && (*dst != SINK || ty.bytes() > 4)
            }
            // A barrier of some warps orders them alone.
            Op::Barrier { threads, arrives, .. } => *arrives || threads.is_some(),
            Op::MbarrierInit { .. } | Op::WarpgroupProduct(_) | Op::BulkStore { .. } | Op::SetRegisters { .. } => true,
            _ => false,
        }
    }

    /// Calls `visit` for each register, with whether it is written; registers that are read come
    /// first.
    pub fn visit_registers(&mut self, visit: &mut dyn FnMut(&mut Register, bool)) {
        let mut read =
            |registers: &mut [&mut Register]| registers.iter_mut().for_each(|register| visit(register, false));
        match self {
            Op::Mov { a, .. }
            | Op::Unpack { a, .. }
            | Op::Unary { a, .. }
            | Op::Convert { a, .. }
            | Op::Cvta { a, .. } => {
                read(&mut [a]);
            }
            Op::Pack { parts, .. } => parts.iter_mut().for_each(|part| read(&mut [part])),
            Op::Binary { a, b, .. } | Op::ConvertPair { a, b, .. } => read(&mut [a, b]),
            Op::Ternary { a, b, c, .. } => read(&mut [a, b, c]),
            Op::Bfi { a, b, position, length, .. } => read(&mut [a, b, position, length]),
            Op::Setp { a, b, combine, .. } => {
                read(&mut [a, b]);
                combine.iter_mut().for_each(|(_, with, _)| read(&mut [with]));
            }
            Op::Selp { a, b, predicate, .. } => read(&mut [a, b, predicate]),
            Op::Load { address, .. } | Op::LoadMatrix { address, .. } => read(&mut [&mut address.base]),
            Op::Store { values, address, .. } => {
                read(&mut [&mut address.base]);
                values.iter_mut().for_each(|value| read(&mut [value]));
            }
            Op::Atomic { address, b, c, .. } => read(&mut [&mut address.base, b, c]),
            Op::Barrier { id, threads, .. } => {
                read(&mut [id]);
                threads.iter_mut().for_each(|threads| read(&mut [threads]));
            }
            Op::WarpBarrier { mask } => read(&mut [mask]),
            Op::Shuffle { a, b, clamp, mask, .. } => read(&mut [a, b, clamp, mask]),
            Op::Vote { predicate, mask, .. } => read(&mut [predicate, mask]),
            Op::Mma { a, b, c, .. } => a.iter_mut().chain(b).chain(c).for_each(|operand| read(&mut [operand])),
            Op::CopyAsync { shared, global, from_source, .. } => {
                read(&mut [&mut shared.base, &mut global.base]);
                from_source.iter_mut().for_each(|bytes| read(&mut [bytes]));
            }
            Op::Prefetch { address } | Op::MbarrierInvalidate { address } => read(&mut [&mut address.base]),
            Op::Elect { mask, .. } => read(&mut [mask]),
            // D has storage of its own, so that it counts as read alone; each register is visited
            // once.
            Op::WarpgroupProduct(product) => {
                product.operands_mut().for_each(|operand| read(&mut [operand]));
                read(&mut [&mut product.b, &mut product.accumulate]);
            }
            Op::MbarrierInit { address, count } => read(&mut [&mut address.base, count]),
            Op::MbarrierArrive { address, count, expected, .. } => {
                read(&mut [&mut address.base, count]);
                expected.iter_mut().for_each(|bytes| read(&mut [bytes]));
            }
            Op::MbarrierBytes { address, bytes, .. } => read(&mut [&mut address.base, bytes]),
            Op::MbarrierTest { address, phase, .. } => read(&mut [&mut address.base, phase]),
            Op::BulkLoad { shared, global, bytes, barrier } => {
                read(&mut [&mut shared.base, &mut global.base, &mut barrier.base, bytes]);
            }
            Op::BulkStore { global, shared, bytes } => read(&mut [&mut shared.base, &mut global.base, bytes]),
            Op::Branch { .. }
            | Op::Exit
            | Op::Trap
            | Op::Fence(_)
            | Op::ActiveMask { .. }
            | Op::CommitGroup
            | Op::WaitGroup { .. }
            | Op::WarpgroupFence
            | Op::WarpgroupCommit
            | Op::WarpgroupWait { .. }
            | Op::SetRegisters { .. }
            | Op::BulkCommit
            | Op::BulkWait { .. }
            | Op::ProxyFence { .. }
            | Op::MbarrierInitFence
            | Op::Sleep
            | Op::Nop => {}
        }
        let mut written = |register: &mut Register| visit(register, true);
        match self {
            Op::Mov { dst, .. }
            | Op::Pack { dst, .. }
            | Op::Unary { dst, .. }
            | Op::Binary { dst, .. }
            | Op::Ternary { dst, .. }
            | Op::Bfi { dst, .. }
            | Op::Selp { dst, .. }
            | Op::Convert { dst, .. }
            | Op::ConvertPair { dst, .. }
            | Op::Cvta { dst, .. }
            | Op::Atomic { dst, .. }
            | Op::Vote { dst, .. }
            | Op::MbarrierArrive { dst, .. }
            | Op::MbarrierTest { dst, .. }
            | Op::ActiveMask { dst } => written(dst),
            Op::Elect { dst, predicate, .. } => [dst, predicate].into_iter().for_each(written),
            Op::Setp { dst, other, .. } => [dst, other].into_iter().for_each(written),
            Op::Shuffle { dst, valid, .. } => [dst, valid].into_iter().for_each(written),
            Op::Unpack { parts: dst, .. }
            | Op::Load { dst, .. }
            | Op::LoadMatrix { dst, .. }
            | Op::Mma { d: dst, .. } => dst.iter_mut().for_each(written),
            Op::Store { .. }
            | Op::Branch { .. }
            | Op::Exit
            | Op::Trap
            | Op::Barrier { .. }
            | Op::WarpBarrier { .. }
            | Op::Fence(_)
            | Op::CopyAsync { .. }
            | Op::Prefetch { .. }
            | Op::CommitGroup
            | Op::WaitGroup { .. }
            | Op::MbarrierInit { .. }
            | Op::MbarrierInvalidate { .. }
            | Op::MbarrierBytes { .. }
            | Op::BulkLoad { .. }
            | Op::BulkStore { .. }
            | Op::WarpgroupProduct(_)
            | Op::WarpgroupFence
            | Op::WarpgroupCommit
            | Op::WarpgroupWait { .. }
            | Op::SetRegisters { .. }
            | Op::BulkCommit
            | Op::BulkWait { .. }
            | Op::ProxyFence { .. }
            | Op::MbarrierInitFence
            | Op::Sleep
            | Op::Nop => {}
        }
    }

    /// The address space of the instruction; that of the target for asynchronous copies.
    pub fn space(&self) -> Space {
        match self {
            Op::Load { space, .. } | Op::Store { space, .. } | Op::Atomic { space, .. } => *space,
            Op::LoadMatrix { .. }
            | Op::WarpgroupProduct(_)
            | Op::MbarrierInit { .. }
            | Op::MbarrierArrive { .. }
            | Op::MbarrierTest { .. }
            | Op::MbarrierBytes { .. } => Space::Shared,
            _ => Space::Generic,
        }
    }
}
