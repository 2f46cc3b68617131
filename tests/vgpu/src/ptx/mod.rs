//! Modules of PTX (PTX ISA 9.0) and their decoder: text to instructions ready to execute.
//!
//! An instruction that the executor does not know is an error with its text, never skipped.

mod decode;
mod module;
mod types;

pub use module::{Global, Kernel, Module, Parameter, parse_module};
pub use types::{Space, Type};

/// A register of a kernel; [`SINK`] swallows what is written to `_`.
pub type Register = u32;

/// The register behind `_`.
pub const SINK: Register = 0;

/// What an instruction reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    Register(Register),
    /// Bits, in the width of the type that reads them.
    Immediate(u64),
    Special(Special),
    /// Address of a variable in shared memory, plus an offset.
    Shared(u64),
    /// Address of the thread's local memory, plus an offset.
    Local(u64),
    /// Address of a module variable: its index, and an offset.
    Global(u32, u64),
}

/// Special registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    Clock,
}

/// One instruction with its guard and the source line it comes from.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Register and whether it is negated.
    pub guard: Option<(Register, bool)>,
    pub op: Op,
    /// Source file (index into [`Module::files`]) and line, from `-lineinfo`; the line is 0 without it.
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
    /// The same, true too where an operand is not a number.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    /// Both are numbers.
    Num,
    /// One is not.
    Nan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, ties to even.
    Nearest,
    Zero,
    Down,
    Up,
    /// To the nearest, ties away from zero: tf32's.
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
    pub base: Source,
    pub offset: i64,
}

#[derive(Clone, Debug)]
pub enum Op {
    Mov {
        dst: Register,
        a: Source,
        ty: Type,
    },
    /// Several registers of `bits` each into one, lowest first.
    Pack {
        dst: Register,
        parts: Vec<Source>,
        bits: u32,
    },
    /// The other way.
    Unpack {
        parts: Vec<Register>,
        a: Source,
        bits: u32,
    },
    Unary {
        op: Unary,
        ty: Type,
        ftz: bool,
        dst: Register,
        a: Source,
    },
    Binary {
        op: Binary,
        ty: Type,
        ftz: bool,
        saturate: bool,
        dst: Register,
        a: Source,
        b: Source,
    },
    Ternary {
        op: Ternary,
        ty: Type,
        ftz: bool,
        saturate: bool,
        relu: bool,
        dst: Register,
        a: Source,
        b: Source,
        c: Source,
    },
    /// Inserts `length` bits of a into b from `position`.
    Bfi {
        ty: Type,
        dst: Register,
        a: Source,
        b: Source,
        position: Source,
        length: Source,
    },
    /// dst = a compared with b, combined with a predicate; `other` gets the complement.
    Setp {
        compare: Compare,
        ty: Type,
        dst: Register,
        other: Register,
        a: Source,
        b: Source,
        combine: Option<(Binary, Source, bool)>,
    },
    Selp {
        dst: Register,
        a: Source,
        b: Source,
        predicate: Source,
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
        a: Source,
    },
    /// Two f32 into one register of halves: a above, b below.
    ConvertPair {
        to: Type,
        relu: bool,
        dst: Register,
        a: Source,
        b: Source,
    },
    /// An address of one space as a generic one, or back.
    Cvta {
        dst: Register,
        a: Source,
        space: Space,
        to_space: bool,
    },
    Load {
        space: Space,
        ty: Type,
        dst: Vec<Register>,
        address: Address,
    },
    Store {
        space: Space,
        ty: Type,
        values: Vec<Source>,
        address: Address,
    },
    Atomic {
        op: AtomicOp,
        space: Space,
        ty: Type,
        dst: Register,
        address: Address,
        b: Source,
        c: Source,
    },
    Branch {
        target: usize,
    },
    Exit,
    Trap,
    Barrier {
        id: Source,
        threads: Option<Source>,
    },
    WarpBarrier {
        mask: Source,
    },
    Fence,
    Shuffle {
        mode: ShuffleMode,
        dst: Register,
        valid: Register,
        a: Source,
        b: Source,
        clamp: Source,
        mask: Source,
    },
    Vote {
        mode: VoteMode,
        dst: Register,
        predicate: Source,
        negate: bool,
        mask: Source,
    },
    ActiveMask {
        dst: Register,
    },
    /// Matrices of 8 × 8 halves, one a register.
    LoadMatrix {
        transposed: bool,
        dst: Vec<Register>,
        address: Address,
    },
    Mma {
        product: MatrixProduct,
        d: Vec<Register>,
        a: Vec<Source>,
        b: Vec<Source>,
        c: Vec<Source>,
    },
    /// Asynchronous copy of `bytes` from global to shared memory, of which the first `from_source` are read and the rest zeros.
    CopyAsync {
        bytes: usize,
        shared: Address,
        global: Address,
        from_source: Option<Source>,
    },
    CommitGroup,
    /// Waits until at most `pending` groups are open.
    WaitGroup {
        pending: u64,
    },
    Nop,
}

impl Op {
    /// Whether it moves lanes to other places or needs several at once.
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
        )
    }

    /// Whether all 32 lanes hold parts of one matrix for it.
    #[inline(always)]
    pub fn is_matrix(&self) -> bool {
        matches!(self, Op::LoadMatrix { .. } | Op::Mma { .. })
    }

    /// The space whose addresses it takes; asynchronous copies count as their target.
    pub fn space(&self) -> Space {
        match self {
            Op::Load { space, .. } | Op::Store { space, .. } | Op::Atomic { space, .. } => *space,
            Op::LoadMatrix { .. } => Space::Shared,
            _ => Space::Generic,
        }
    }
}
