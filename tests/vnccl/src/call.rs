//! A call and its arguments: what ranks must agree on.

use std::fmt;

/// ncclDataType_t.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Element {
    I8,
    U8,
    I32,
    U32,
    I64,
    U64,
    F16,
    F32,
    F64,
    Bf16,
}

impl Element {
    const ALL: [Element; 10] = {
        use Element::*;
        [I8, U8, I32, U32, I64, U64, F16, F32, F64, Bf16]
    };

    pub fn from_number(number: u32) -> Option<Element> {
        Element::ALL.get(number as usize).copied()
    }

    pub fn bytes(self) -> usize {
        match self {
            Element::I8 | Element::U8 => 1,
            Element::F16 | Element::Bf16 => 2,
            Element::I32 | Element::U32 | Element::F32 => 4,
            Element::I64 | Element::U64 | Element::F64 => 8,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// ncclRedOp_t, without the average, which is no sum in a fixed order of any type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reduction {
    Sum,
    Prod,
    Max,
    Min,
}

impl Reduction {
    pub fn from_number(number: u32) -> Option<Reduction> {
        [Reduction::Sum, Reduction::Prod, Reduction::Max, Reduction::Min].get(number as usize).copied()
    }
}

/// What is called. Ranks are those of the communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Send { to: u32 },
    Recv { from: u32 },
    AllGather,
    AllReduce(Reduction),
    Broadcast { root: u32 },
}

/// A call: what it does with how many elements of which type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub kind: Kind,
    pub count: u64,
    pub element: Element,
}

impl Call {
    /// Whether all ranks take part.
    pub fn is_collective(&self) -> bool {
        !matches!(self.kind, Kind::Send { .. } | Kind::Recv { .. })
    }

    /// Bytes of `count` elements.
    pub fn bytes(&self) -> usize {
        self.count as usize * self.element.bytes()
    }

    /// Whether `rank` hands bytes over.
    pub fn gives(&self, rank: u32) -> bool {
        match self.kind {
            Kind::Recv { .. } => false,
            Kind::Broadcast { root } => rank == root,
            Kind::Send { .. } | Kind::AllGather | Kind::AllReduce(_) => true,
        }
    }

    /// Bytes that a rank receives, of `n` ranks.
    pub fn bytes_received(&self, n: u32) -> usize {
        match self.kind {
            Kind::Send { .. } => 0,
            Kind::AllGather => self.bytes() * n as usize,
            Kind::Recv { .. } | Kind::AllReduce(_) | Kind::Broadcast { .. } => self.bytes(),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Call { kind, count, element } = self;
        match kind {
            Kind::Send { to } => write!(f, "ncclSend of {count} {element} to rank {to}"),
            Kind::Recv { from } => write!(f, "ncclRecv of {count} {element} from rank {from}"),
            Kind::AllGather => write!(f, "ncclAllGather of {count} {element}"),
            Kind::AllReduce(reduction) => write!(f, "ncclAllReduce ({reduction:?}) of {count} {element}"),
            Kind::Broadcast { root } => write!(f, "ncclBroadcast of {count} {element} from rank {root}"),
        }
    }
}

/// The calls of a group, or the one call outside of groups, in words.
pub fn describe(calls: &[Call]) -> String {
    let [call] = calls else {
        let calls: Vec<String> = calls.iter().map(Call::to_string).collect();
        return format!("a group of {}", calls.join(", "));
    };
    call.to_string()
}
