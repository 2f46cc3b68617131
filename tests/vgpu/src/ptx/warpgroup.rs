//! Products of warpgroups, and how their operands lie (PTX ISA, "Asynchronous Warpgroup Level
//! Matrix Instructions").

use super::Register;

/// The left operand: fragments of each warp, or a matrix in shared memory.
#[derive(Clone, Debug)]
pub enum LeftOperand {
    Fragments([Register; 4]),
    /// The register of its descriptor, and whether its rows are contiguous instead of its columns.
    Shared {
        descriptor: Register,
        transposed: bool,
    },
}

/// `wgmma.mma_async` of the shape m64nNk16 with f32 sums.
#[derive(Clone, Debug)]
pub struct WarpgroupProduct {
    /// bf16 operands, else f16.
    pub bf16: bool,
    pub n: usize,
    pub d: Vec<Register>,
    pub a: LeftOperand,
    /// Descriptor of the right operand.
    pub b: Register,
    pub b_transposed: bool,
    /// Predicate: the sums add to D, else replace it.
    pub accumulate: Register,
    /// One operand, but not both, is negated.
    pub negated: bool,
}

impl WarpgroupProduct {
    /// Registers that the product uses until it is waited for.
    pub fn operands_mut(&mut self) -> impl Iterator<Item = &mut Register> {
        let a = match &mut self.a {
            LeftOperand::Fragments(registers) => &mut registers[..],
            LeftOperand::Shared { descriptor, .. } => std::slice::from_mut(descriptor),
        };
        self.d.iter_mut().chain(a)
    }

    /// The same but for descriptors, which are read at once.
    pub fn held(&self) -> impl Iterator<Item = Register> {
        let a = match &self.a {
            LeftOperand::Fragments(registers) => &registers[..],
            LeftOperand::Shared { .. } => &[],
        };
        self.d.iter().chain(a).copied()
    }
}
