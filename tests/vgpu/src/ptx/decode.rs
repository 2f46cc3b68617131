//! Decoding of one instruction from its text.

use crate::arithmetic::{nearest_bf16, nearest_f16};

use super::module::Names;
use super::{
    Address, AtomicOp, Binary, Compare, LeftOperand, MatrixProduct, Op, Preset, Register, Rounding, SINK, Scope,
    ShuffleMode, Space, Special, Strong, Ternary, Type, Unary, VoteMode, WarpgroupProduct,
};

/// A decoded instruction. The target of a branch is resolved once all labels are known.
pub enum Pending {
    Ready(Op),
    Branch(String),
}

type Decoded = Result<(Option<(Register, bool)>, Pending), String>;

/// Decodes `text`, which has no semicolon.
pub fn decode(text: &str, names: &Names) -> Decoded {
    let (guard, rest) = match text.strip_prefix('@') {
        None => (None, text),
        Some(guarded) => {
            let (name, rest) = guarded.split_once(char::is_whitespace).ok_or("a guard without an instruction")?;
            let (name, negated) = name.strip_prefix('!').map_or((name, false), |name| (name, true));
            (Some((register(name, names)?, negated)), rest.trim())
        }
    };
    let (opcode, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let operands = split(operands);
    let parts: Vec<&str> = opcode.split('.').collect();
    if parts[0] == "bra" {
        let label = operands.first().ok_or("a branch without a label")?;
        return Ok((guard, Pending::Branch(label.to_string())));
    }
    let decoder = Decoder { parts: &parts, operands: &operands, names };
    Ok((guard, Pending::Ready(decoder.op()?)))
}

/// Operands between commas outside brackets and braces.
fn split(text: &str) -> Vec<&str> {
    let (mut list, mut depth, mut start) = (Vec::new(), 0, 0);
    for (index, character) in text.char_indices() {
        match character {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            ',' if depth == 0 => {
                list.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        list.push(last);
    }
    list
}

fn register(name: &str, names: &Names) -> Result<Register, String> {
    names.register(name).ok_or_else(|| format!("no register {name}"))
}

/// The bits of a constant of type `ty`.
pub fn immediate(text: &str, ty: Type) -> Option<u64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let float = |bits: f64| match ty {
        Type::F64 => bits.to_bits(),
        Type::F16 => u64::from(nearest_f16(bits)),
        Type::Bf16 => u64::from(nearest_bf16(bits)),
        _ => u64::from((bits as f32).to_bits()),
    };
    if let Some(hexadecimal) = digits.strip_prefix("0f").or(digits.strip_prefix("0F")) {
        let bits = u32::from_str_radix(hexadecimal, 16).ok()?;
        let value = f64::from(f32::from_bits(bits)) * if negative { -1.0 } else { 1.0 };
        return Some(if ty.is_float() { float(value) } else { u64::from(bits) });
    }
    if let Some(hexadecimal) = digits.strip_prefix("0d").or(digits.strip_prefix("0D")) {
        let value = f64::from_bits(u64::from_str_radix(hexadecimal, 16).ok()?);
        return Some(float(if negative { -value } else { value }));
    }
    let digits = digits.trim_end_matches('U');
    let magnitude = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok()?,
        None if digits.contains('.') => {
            return digits.parse::<f64>().ok().map(|v| float(if negative { -v } else { v }));
        }
        None => digits.parse::<u64>().ok()?,
    };
    let value = if negative { magnitude.wrapping_neg() } else { magnitude };
    Some(if ty.is_float() && ty != Type::F16x2 && ty != Type::Bf16x2 {
        float(value as i64 as f64)
    } else {
        ty.truncate(value)
    })
}

struct Decoder<'a> {
    parts: &'a [&'a str],
    operands: &'a [&'a str],
    names: &'a Names<'a>,
}

impl Decoder<'_> {
    fn has(&self, part: &str) -> bool {
        self.parts[1..].contains(&part)
    }

    /// The last type suffix.
    fn ty(&self) -> Result<Type, String> {
        self.parts.iter().rev().find_map(|part| Type::parse(part)).ok_or_else(|| "no type".to_string())
    }

    fn types(&self) -> Vec<Type> {
        self.parts.iter().filter_map(|part| Type::parse(part)).collect()
    }

    fn operand(&self, index: usize) -> Result<&str, String> {
        self.operands.get(index).copied().ok_or_else(|| format!("no operand {}", index + 1))
    }

    fn dst(&self, index: usize) -> Result<Register, String> {
        register(self.operand(index)?, self.names)
    }

    fn source(&self, index: usize, ty: Type) -> Result<Register, String> {
        self.source_of(self.operand(index)?, ty)
    }

    fn source_of(&self, text: &str, ty: Type) -> Result<Register, String> {
        if let Some(register) = self.names.register(text) {
            return Ok(register);
        }
        self.preset(text, ty).map(|preset| self.names.preset(preset)).ok_or_else(|| format!("no operand {text}"))
    }

    fn preset(&self, text: &str, ty: Type) -> Option<Preset> {
        if let Some(special) = special(text) {
            return Some(Preset::Special(special));
        }
        if let Some(variable) = self.names.variable(text) {
            return Some(variable);
        }
        if let Some(offset) = self.names.parameter(text) {
            return Some(Preset::Bits(offset as u64));
        }
        if let Some((name, offset)) = text.split_once('+')
            && let (Some(variable), Ok(offset)) = (self.names.variable(name.trim()), offset.trim().parse::<u64>())
        {
            return Some(match variable {
                Preset::Bits(base) => Preset::Bits(base.wrapping_add(offset)),
                Preset::Global(index, base) => Preset::Global(index, base.wrapping_add(offset)),
                Preset::Special(_) => variable,
            });
        }
        immediate(text, ty).map(Preset::Bits)
    }

    /// A list in braces, or one operand.
    fn list(&self, index: usize) -> Result<Vec<&str>, String> {
        let text = self.operand(index)?;
        Ok(match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            Some(list) => list.split(',').map(str::trim).collect(),
            None => vec![text],
        })
    }

    fn registers(&self, index: usize) -> Result<Vec<Register>, String> {
        self.list(index)?.into_iter().map(|name| register(name, self.names)).collect()
    }

    fn sources(&self, index: usize, ty: Type) -> Result<Vec<Register>, String> {
        self.list(index)?.into_iter().map(|text| self.source_of(text, ty)).collect()
    }

    fn address(&self, index: usize) -> Result<Address, String> {
        let text = self.operand(index)?;
        let inside = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .ok_or_else(|| format!("{text} is no address"))?;
        let (base, offset) = match inside.find(['+', '-']) {
            Some(at) if at > 0 => {
                let number = inside[at..].trim_start_matches('+').trim();
                (inside[..at].trim(), number.parse::<i64>().map_err(|_| format!("{text}: no offset"))?)
            }
            _ => (inside.trim(), 0),
        };
        if let Some(parameter) = self.names.parameter(base) {
            return Ok(Address { base: self.names.preset(Preset::Bits(parameter as u64)), offset });
        }
        Ok(Address { base: self.source_of(base, Type::U64)?, offset })
    }

    fn space(&self) -> Space {
        for part in &self.parts[1..] {
            match *part {
                "global" => return Space::Global,
                "shared" | "shared::cta" | "shared::cluster" => return Space::Shared,
                "local" => return Space::Local,
                "const" => return Space::Const,
                "param" => return Space::Param,
                _ => {}
            }
        }
        Space::Generic
    }

    fn rounding(&self) -> Option<(Rounding, bool)> {
        self.parts[1..].iter().find_map(|part| {
            Some(match *part {
                "rn" => (Rounding::Nearest, false),
                "rz" => (Rounding::Zero, false),
                "rm" => (Rounding::Down, false),
                "rp" => (Rounding::Up, false),
                "rna" => (Rounding::NearestAway, false),
                "rni" => (Rounding::Nearest, true),
                "rzi" => (Rounding::Zero, true),
                "rmi" => (Rounding::Down, true),
                "rpi" => (Rounding::Up, true),
                _ => return None,
            })
        })
    }

    fn unary(&self, op: Unary) -> Result<Op, String> {
        let ty = self.ty()?;
        Ok(Op::Unary { op, ty, ftz: self.has("ftz"), dst: self.dst(0)?, a: self.source(1, ty)? })
    }

    fn binary(&self, op: Binary) -> Result<Op, String> {
        let ty = self.ty()?;
        // The amount of a shift is u32, whatever the type of the shifted value.
        let of_b = if matches!(op, Binary::Shl | Binary::Shr) { Type::U32 } else { ty };
        let (dst, a, b) = (self.dst(0)?, self.source(1, ty)?, self.source(2, of_b)?);
        Ok(Op::Binary { op, ty, ftz: self.has("ftz"), saturate: self.has("sat"), dst, a, b })
    }

    fn ternary(&self, op: Ternary) -> Result<Op, String> {
        let ty = self.ty()?;
        let wide = if op == Ternary::MadWide && ty.bytes() == 4 { Type::U64 } else { ty };
        let (ftz, saturate, relu) = (self.has("ftz"), self.has("sat"), self.has("relu"));
        let (dst, a, b, c) = (self.dst(0)?, self.source(1, ty)?, self.source(2, ty)?, self.source(3, wide)?);
        Ok(Op::Ternary { op, ty, ftz, saturate, relu, dst, a, b, c })
    }

    fn op(&self) -> Result<Op, String> {
        let asynchronous = matches!(self.parts[0], "mbarrier" | "cp" | "fence");
        let is_refused =
            |part: &&str| matches!(*part, "multicast::cluster" | "tensor" | "mapa" | "getctarank" | "tensormap");
        let is_bulk_prefetch = self.parts[1..].contains(&"prefetch");
        if self.parts.iter().any(is_refused) || self.parts.starts_with(&["barrier", "cluster"]) || is_bulk_prefetch {
            let problem = "clusters, multicast, tensor maps and bulk prefetches are not executed: no kernel uses them";
            return Err(problem.into());
        }
        let of_cluster = |part: &str| matches!(part, "cluster" | "shared::cluster") && !asynchronous || part == "noftz";
        if self.parts[1..].iter().copied().any(of_cluster) {
            return Err("a qualifier that is not supported".into());
        }
        match self.parts[0] {
            "mov" => self.mov(),
            "abs" => self.unary(Unary::Abs),
            "neg" => self.unary(Unary::Neg),
            "not" => self.unary(Unary::Not),
            "popc" => self.unary(Unary::Popc),
            "clz" => self.unary(Unary::Clz),
            "bfind" => self.unary(Unary::Bfind),
            "brev" => self.unary(Unary::Brev),
            "sqrt" if self.has("approx") => self.unary(Unary::SqrtApprox),
            "sqrt" => self.unary(Unary::Sqrt),
            "rsqrt" => self.unary(Unary::RsqrtApprox),
            "rcp" if self.has("approx") => self.unary(Unary::RcpApprox),
            "rcp" => self.unary(Unary::Rcp),
            "sin" => self.unary(Unary::SinApprox),
            "cos" => self.unary(Unary::CosApprox),
            "ex2" => self.unary(Unary::Ex2Approx),
            "lg2" => self.unary(Unary::Lg2Approx),
            "tanh" => self.unary(Unary::TanhApprox),
            "add" => self.binary(Binary::Add),
            "sub" => self.binary(Binary::Sub),
            "mul" | "mul24" if self.has("wide") => self.binary(Binary::MulWide),
            "mul" if self.has("hi") => self.binary(Binary::MulHi),
            "mul" => self.binary(Binary::MulLo),
            "div" if self.has("approx") || self.has("full") => self.binary(Binary::DivApprox),
            "div" => self.binary(Binary::Div),
            "rem" => self.binary(Binary::Rem),
            "min" => self.binary(Binary::Min),
            "max" => self.binary(Binary::Max),
            "and" => self.binary(Binary::And),
            "or" => self.binary(Binary::Or),
            "xor" => self.binary(Binary::Xor),
            "shl" => self.binary(Binary::Shl),
            "shr" => self.binary(Binary::Shr),
            "copysign" => self.binary(Binary::Copysign),
            "mad" if self.has("wide") => self.ternary(Ternary::MadWide),
            "mad" if self.has("hi") => self.ternary(Ternary::MadHi),
            "mad" if self.ty()?.is_float() => self.ternary(Ternary::Fma),
            "mad" => self.ternary(Ternary::MadLo),
            "fma" => self.ternary(Ternary::Fma),
            "bfe" => self.bit_field_extract(),
            "shf" => self.funnel_shift(),
            "prmt" if self.parts.len() == 2 => self.ternary(Ternary::Prmt),
            "lop3" => self.lop3(),
            "bfi" => self.bit_field_insert(),
            "setp" => self.setp(),
            "selp" => {
                let ty = self.ty()?;
                let predicate = self.source(3, Type::Pred)?;
                Ok(Op::Selp { dst: self.dst(0)?, a: self.source(1, ty)?, b: self.source(2, ty)?, predicate })
            }
            "cvt" => self.convert(),
            "cvta" => {
                let to_space = self.parts.get(1) == Some(&"to");
                Ok(Op::Cvta { dst: self.dst(0)?, a: self.source(1, Type::U64)?, space: self.space(), to_space })
            }
            "ld" | "ldu" => {
                let (ty, strong) = (self.ty()?, self.strong());
                Ok(Op::Load { strong, space: self.space(), ty, dst: self.registers(0)?, address: self.address(1)? })
            }
            "st" => {
                let (ty, strong, values) = (self.ty()?, self.strong(), self.sources(1, self.ty()?)?);
                Ok(Op::Store { strong, space: self.space(), ty, address: self.address(0)?, values })
            }
            "atom" => self.atomic(true),
            "red" => self.atomic(false),
            "ret" | "exit" => Ok(Op::Exit),
            "trap" | "brkpt" => Ok(Op::Trap),
            "bar" | "barrier" => self.barrier(),
            "membar" | "fence" => self.fence(),
            "shfl" => self.shuffle(),
            "vote" => self.vote(),
            "activemask" => Ok(Op::ActiveMask { dst: self.dst(0)? }),
            "ldmatrix" => self.load_matrix(),
            "mma" => self.mma(),
            "cp" if self.has("bulk") => self.bulk(),
            "cp" => self.copy_async(),
            "wgmma" => self.warpgroup(),
            "setmaxnreg" => {
                let count = immediate(self.operand(0)?, Type::U32).ok_or("no number of registers")? as u32;
                Ok(Op::SetRegisters { increase: self.has("inc"), count })
            }
            "elect" => {
                let (dst, predicate) = self.operand(0)?.split_once('|').ok_or("no predicate")?;
                let (dst, predicate) = (register(dst.trim(), self.names)?, register(predicate.trim(), self.names)?);
                Ok(Op::Elect { dst, predicate, mask: self.source(1, Type::U32)? })
            }
            "mbarrier" => self.mbarrier(),
            "prefetch" if self.has("global") => Ok(Op::Prefetch { address: self.address(0)? }),
            "nanosleep" => Ok(Op::Sleep),
            "griddepcontrol" | "prefetch" | "prefetchu" | "discard" => Ok(Op::Nop),
            _ => Err("an instruction that is not known".into()),
        }
    }

    fn mov(&self) -> Result<Op, String> {
        let ty = self.ty()?;
        let (to, from) = (self.list(0)?, self.list(1)?);
        let bits = |n: usize| match n {
            2 | 4 if n < ty.bytes() => Ok((8 * ty.bytes() / n) as u32),
            _ => Err("a vector of as many elements is not supported"),
        };
        if to.len() > 1 {
            return Ok(Op::Unpack { parts: self.registers(0)?, a: self.source(1, ty)?, bits: bits(to.len())? });
        }
        if from.len() > 1 {
            return Ok(Op::Pack { dst: self.dst(0)?, parts: self.sources(1, ty)?, bits: bits(from.len())? });
        }
        Ok(Op::Mov { dst: self.dst(0)?, a: self.source(1, ty)?, ty })
    }

    fn bit_field_extract(&self) -> Result<Op, String> {
        let ty = self.ty()?;
        let (dst, a, b, c) =
            (self.dst(0)?, self.source(1, ty)?, self.source(2, Type::U32)?, self.source(3, Type::U32)?);
        Ok(Op::Ternary { op: Ternary::Bfe, ty, ftz: false, saturate: false, relu: false, dst, a, b, c })
    }

    fn bit_field_insert(&self) -> Result<Op, String> {
        let ty = self.ty()?;
        let (position, length) = (self.source(3, Type::U32)?, self.source(4, Type::U32)?);
        Ok(Op::Bfi { ty, dst: self.dst(0)?, a: self.source(1, ty)?, b: self.source(2, ty)?, position, length })
    }

    fn funnel_shift(&self) -> Result<Op, String> {
        let clamp = self.has("clamp");
        self.ternary(if self.has("l") { Ternary::ShfLeft { clamp } } else { Ternary::ShfRight { clamp } })
    }

    fn lop3(&self) -> Result<Op, String> {
        let table = immediate(self.operand(4)?, Type::U32).ok_or("a table that is no number")?;
        self.ternary(Ternary::Lop3(table as u8))
    }

    fn setp(&self) -> Result<Op, String> {
        let ty = self.ty()?;
        let compare = match self.parts.get(1).copied().unwrap_or_default() {
            "eq" => Compare::Eq,
            "ne" => Compare::Ne,
            "lt" | "lo" => Compare::Lt,
            "le" | "ls" => Compare::Le,
            "gt" | "hi" => Compare::Gt,
            "ge" | "hs" => Compare::Ge,
            "equ" => Compare::Equ,
            "neu" => Compare::Neu,
            "ltu" => Compare::Ltu,
            "leu" => Compare::Leu,
            "gtu" => Compare::Gtu,
            "geu" => Compare::Geu,
            "num" => Compare::Num,
            "nan" => Compare::Nan,
            _ => return Err("a comparison that is not known".into()),
        };
        let combined = [("and", Binary::And), ("or", Binary::Or), ("xor", Binary::Xor)];
        let combine = match combined.into_iter().find(|(name, _)| self.has(name)) {
            None => None,
            Some((_, op)) => {
                let text = self.operand(3)?;
                let (name, negated) = text.strip_prefix('!').map_or((text, false), |name| (name, true));
                Some((op, self.source_of(name, Type::Pred)?, negated))
            }
        };
        let (first, second) = self.operand(0)?.split_once('|').unwrap_or((self.operand(0)?, "_"));
        let (dst, other) = (register(first.trim(), self.names)?, register(second.trim(), self.names)?);
        Ok(Op::Setp { compare, ty, dst, other, a: self.source(1, ty)?, b: self.source(2, ty)?, combine })
    }

    fn convert(&self) -> Result<Op, String> {
        let [to, from] = self.types()[..] else { return Err("needs two types".into()) };
        let relu = self.has("relu");
        if self.operands.len() == 3 {
            if !matches!(to, Type::F16x2 | Type::Bf16x2) || from != Type::F32 || !self.has("rn") {
                return Err("a conversion of pairs that is not known".into());
            }
            return Ok(Op::ConvertPair {
                to,
                relu,
                dst: self.dst(0)?,
                a: self.source(1, from)?,
                b: self.source(2, from)?,
            });
        }
        let (rounding, integral) =
            self.rounding().map_or((None, false), |(rounding, integral)| (Some(rounding), integral));
        let (saturate, ftz) = (self.has("sat"), self.has("ftz"));
        let (dst, a) = (self.dst(0)?, self.source(1, from)?);
        Ok(Op::Convert { to, from, rounding, integral, saturate, ftz, relu, dst, a })
    }

    fn atomic(&self, returns: bool) -> Result<Op, String> {
        let ty = self.ty()?;
        let names = [
            ("add", AtomicOp::Add),
            ("min", AtomicOp::Min),
            ("max", AtomicOp::Max),
            ("and", AtomicOp::And),
            ("or", AtomicOp::Or),
            ("xor", AtomicOp::Xor),
            ("exch", AtomicOp::Exch),
            ("cas", AtomicOp::Cas),
            ("inc", AtomicOp::Inc),
            ("dec", AtomicOp::Dec),
        ];
        let op = names.into_iter().find(|(name, _)| self.has(name)).ok_or("an atomic that is not known")?.1;
        let first = usize::from(returns);
        let b = self.source(first + 1, ty)?;
        let c = if op == AtomicOp::Cas { self.source(first + 2, ty)? } else { self.names.preset(Preset::Bits(0)) };
        let dst = if returns { self.dst(0)? } else { SINK };
        let relaxed = Strong { scope: self.scope(), acquires: false, releases: false };
        let strong = self.strong().unwrap_or(relaxed);
        Ok(Op::Atomic { op, strong, space: self.space(), ty, dst, address: self.address(first)?, b, c })
    }

    fn scope(&self) -> Scope {
        if self.has("cta") { Scope::Block } else { Scope::Device }
    }

    /// The semantics of an access that says that it is strong. Memory of a single thread, or that
    /// nobody writes, needs none.
    fn strong(&self) -> Option<Strong> {
        if !matches!(self.space(), Space::Generic | Space::Global | Space::Shared) {
            return None;
        }
        let (acquires, releases) = match () {
            _ if self.has("acquire") => (true, false),
            _ if self.has("release") => (false, true),
            _ if self.has("acq_rel") => (true, true),
            // Volatile accesses are relaxed ones, at the scope of the system.
            _ if self.has("relaxed") || self.has("volatile") || self.has("mmio") => (false, false),
            _ => return None,
        };
        Some(Strong { scope: self.scope(), acquires, releases })
    }

    /// `membar` is `fence.sc`, which is `fence.acq_rel` here, where all executions are sequentially
    /// consistent.
    fn fence(&self) -> Result<Op, String> {
        match self.parts[1..] {
            ["proxy", "async"] => return Ok(Op::ProxyFence { shared: true, global: true }),
            ["proxy", "async", "shared::cta" | "shared::cluster"] => {
                return Ok(Op::ProxyFence { shared: true, global: false });
            }
            ["proxy", "async", "global"] => return Ok(Op::ProxyFence { shared: false, global: true }),
            ["mbarrier_init", "release", "cluster"] => return Ok(Op::MbarrierInitFence),
            _ => {}
        }
        let (acquires, releases) = match self.parts[1..] {
            ["sc" | "acq_rel", "cta" | "gpu" | "sys"] | ["cta" | "gl" | "sys"] => (true, true),
            ["acquire", "cta" | "gpu" | "sys"] => (true, false),
            ["release", "cta" | "gpu" | "sys"] => (false, true),
            _ => return Err("a fence that is not supported".into()),
        };
        Ok(Op::Fence(Strong { scope: self.scope(), acquires, releases }))
    }

    fn barrier(&self) -> Result<Op, String> {
        if self.has("warp") {
            return Ok(Op::WarpBarrier { mask: self.source(0, Type::U32)? });
        }
        if self.has("red") || self.has("cluster") {
            return Err("a barrier that is not supported".into());
        }
        let threads = if self.operands.len() > 1 { Some(self.source(1, Type::U32)?) } else { None };
        Ok(Op::Barrier { id: self.source(0, Type::U32)?, threads, arrives: self.has("arrive") })
    }

    fn mbarrier(&self) -> Result<Op, String> {
        let action = self.parts.get(1).copied().unwrap_or_default();
        let relaxed = self.has("relaxed");
        if self.has("noComplete") || matches!(action, "arrive_drop" | "pending_count") {
            let problem = "arrivals that drop out or must not complete a phase are not executed: no kernel uses them";
            return Err(problem.into());
        }
        match action {
            "init" => Ok(Op::MbarrierInit { address: self.address(0)?, count: self.source(1, Type::U32)? }),
            "inval" => Ok(Op::MbarrierInvalidate { address: self.address(0)? }),
            "expect_tx" | "complete_tx" => {
                let (address, bytes) = (self.address(0)?, self.source(1, Type::U32)?);
                Ok(Op::MbarrierBytes { address, bytes, complete: action == "complete_tx" })
            }
            "arrive" => {
                let (dst, address) = (self.dst(0)?, self.address(1)?);
                let one = || self.names.preset(Preset::Bits(1));
                let last = || self.source(2, Type::U32);
                let (count, expected) = match (self.has("expect_tx"), self.operands.len()) {
                    (true, _) => (one(), Some(last()?)),
                    (false, 2) => (one(), None),
                    (false, _) => (last()?, None),
                };
                Ok(Op::MbarrierArrive { dst, address, count, expected, releases: !relaxed })
            }
            "test_wait" | "try_wait" => {
                let (dst, address, parity) = (self.dst(0)?, self.address(1)?, self.has("parity"));
                let phase = self.source(2, if parity { Type::U32 } else { Type::U64 })?;
                Ok(Op::MbarrierTest { dst, address, phase, parity, waits: action == "try_wait", acquires: !relaxed })
            }
            _ => Err("an operation of mbarrier that is not supported".into()),
        }
    }

    fn bulk(&self) -> Result<Op, String> {
        let groups = || immediate(self.operand(0)?, Type::U64).ok_or_else(|| "no number of groups".to_string());
        let hint = usize::from(self.has("L2::cache_hint"));
        match &self.parts[3..] {
            ["commit_group"] => Ok(Op::BulkCommit),
            ["wait_group"] => Ok(Op::BulkWait { pending: groups()?, read: false }),
            ["wait_group", "read"] => Ok(Op::BulkWait { pending: groups()?, read: true }),
            ["shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes", ..]
                if self.operands.len() == 4 + hint =>
            {
                let (shared, global, barrier) = (self.address(0)?, self.address(1)?, self.address(3)?);
                Ok(Op::BulkLoad { shared, global, bytes: self.source(2, Type::U32)?, barrier })
            }
            ["global", "shared::cta", "bulk_group", ..] if self.operands.len() == 3 + hint => {
                let (global, shared) = (self.address(0)?, self.address(1)?);
                Ok(Op::BulkStore { global, shared, bytes: self.source(2, Type::U32)? })
            }
            _ => Err("a bulk copy that is not supported".into()),
        }
    }

    fn warpgroup(&self) -> Result<Op, String> {
        match self.parts[1..] {
            ["fence", "sync", "aligned"] => Ok(Op::WarpgroupFence),
            ["commit_group", "sync", "aligned"] => Ok(Op::WarpgroupCommit),
            ["wait_group", "sync", "aligned"] => {
                let pending = immediate(self.operand(0)?, Type::U64).ok_or("no number of groups")?;
                Ok(Op::WarpgroupWait { pending })
            }
            ["mma_async", "sync", "aligned", shape, "f32", ty @ ("bf16" | "f16"), other] if ty == other => {
                let n = shape.strip_prefix("m64n").and_then(|rest| rest.strip_suffix("k16"));
                let n: usize = n.and_then(|n| n.parse().ok()).ok_or("a shape that is not supported")?;
                if !n.is_multiple_of(8) || !(8..=256).contains(&n) {
                    return Err("columns that are no multiple of 8 up to 256".into());
                }
                let d = self.registers(0)?;
                if d.len() != n / 2 {
                    return Err("fragments of other sizes than the shape's".into());
                }
                let number = |index: usize| immediate(self.operand(index)?, Type::S32).ok_or("no constant".to_string());
                let sign = |index: usize| match number(index)? as u32 as i32 {
                    1 => Ok(false),
                    -1 => Ok(true),
                    _ => Err("a scale other than 1 and -1".to_string()),
                };
                let flag = |index: usize| match number(index)? {
                    0 => Ok(false),
                    1 => Ok(true),
                    _ => Err("a transposition other than 0 and 1".to_string()),
                };
                let in_registers = self.operand(1)?.starts_with('{');
                let a = if in_registers {
                    let registers = self.registers(1)?;
                    LeftOperand::Fragments(
                        registers.try_into().map_err(|_| "a left operand of other than 4 registers")?,
                    )
                } else {
                    LeftOperand::Shared { descriptor: self.source(1, Type::U64)?, transposed: flag(6)? }
                };
                let b_transposed = flag(if in_registers { 6 } else { 7 })?;
                let accumulate = match self.operand(3)? {
                    "true" => self.names.preset(Preset::Bits(1)),
                    "false" => self.names.preset(Preset::Bits(0)),
                    _ => self.source(3, Type::Pred)?,
                };
                Ok(Op::WarpgroupProduct(Box::new(WarpgroupProduct {
                    bf16: ty == "bf16",
                    n,
                    d,
                    a,
                    b: self.source(2, Type::U64)?,
                    b_transposed,
                    accumulate,
                    negated: sign(4)? != sign(5)?,
                })))
            }
            _ => Err("a product that is not supported".into()),
        }
    }

    fn shuffle(&self) -> Result<Op, String> {
        let modes = [
            ("up", ShuffleMode::Up),
            ("down", ShuffleMode::Down),
            ("bfly", ShuffleMode::Butterfly),
            ("idx", ShuffleMode::Index),
        ];
        let mode = modes.into_iter().find(|(name, _)| self.has(name)).ok_or("no mode")?.1;
        let (first, second) = self.operand(0)?.split_once('|').unwrap_or((self.operand(0)?, "_"));
        let (dst, valid) = (register(first.trim(), self.names)?, register(second.trim(), self.names)?);
        let source = |index: usize| self.source(index, Type::U32);
        Ok(Op::Shuffle { mode, dst, valid, a: source(1)?, b: source(2)?, clamp: source(3)?, mask: source(4)? })
    }

    fn vote(&self) -> Result<Op, String> {
        let modes =
            [("all", VoteMode::All), ("any", VoteMode::Any), ("uni", VoteMode::Uniform), ("ballot", VoteMode::Ballot)];
        let mode = modes.into_iter().find(|(name, _)| self.has(name)).ok_or("no mode")?.1;
        let text = self.operand(1)?;
        let (name, negate) = text.strip_prefix('!').map_or((text, false), |name| (name, true));
        let predicate = self.source_of(name, Type::Pred)?;
        Ok(Op::Vote { mode, dst: self.dst(0)?, predicate, negate, mask: self.source(2, Type::U32)? })
    }

    fn load_matrix(&self) -> Result<Op, String> {
        if !self.has("m8n8") || !self.has("b16") {
            return Err("a matrix shape that is not supported".into());
        }
        let count = match self.parts.iter().find_map(|part| part.strip_prefix('x')) {
            Some("1") => 1,
            Some("2") => 2,
            Some("4") => 4,
            _ => return Err("no number of matrices".into()),
        };
        let dst = self.registers(0)?;
        if dst.len() != count {
            return Err(format!("{count} matrices into {} registers", dst.len()));
        }
        Ok(Op::LoadMatrix { transposed: self.has("trans"), dst, address: self.address(1)? })
    }

    fn mma(&self) -> Result<Op, String> {
        let types = self.types();
        let shape = self.parts.iter().find(|part| part.starts_with("m16n8")).ok_or("no shape")?;
        if !self.has("row") || !self.has("col") || types.first() != Some(&Type::F32) || types.last() != Some(&Type::F32)
        {
            return Err("a matrix product that is not supported".into());
        }
        let (product, lengths) = match (*shape, types.get(1)) {
            ("m16n8k16", Some(Type::F16)) => (MatrixProduct::F16, [4, 4, 2, 4]),
            ("m16n8k16", Some(Type::Bf16)) => (MatrixProduct::Bf16, [4, 4, 2, 4]),
            ("m16n8k8", Some(Type::F16)) => (MatrixProduct::F16K8, [4, 2, 1, 4]),
            ("m16n8k8", Some(Type::Bf16)) => (MatrixProduct::Bf16K8, [4, 2, 1, 4]),
            ("m16n8k8", Some(Type::Tf32)) => (MatrixProduct::Tf32, [4, 4, 2, 4]),
            ("m16n8k4", Some(Type::Tf32)) => (MatrixProduct::Tf32K4, [4, 2, 1, 4]),
            _ => return Err("a matrix product that is not supported".into()),
        };
        let d = self.registers(0)?;
        let (a, b, c) = (self.sources(1, Type::B32)?, self.sources(2, Type::B32)?, self.sources(3, Type::F32)?);
        if [d.len(), a.len(), b.len(), c.len()] != lengths {
            return Err("fragments of other sizes than the shape's".into());
        }
        Ok(Op::Mma { product, d, a, b, c })
    }

    fn copy_async(&self) -> Result<Op, String> {
        if self.parts.get(1) != Some(&"async") {
            return Err("an instruction that is not known".into());
        }
        match self.parts.get(2) {
            Some(&"commit_group") => Ok(Op::CommitGroup),
            Some(&"wait_all") => Ok(Op::WaitGroup { pending: 0 }),
            Some(&"wait_group") => {
                let pending = immediate(self.operand(0)?, Type::U64).ok_or("no number of groups")?;
                Ok(Op::WaitGroup { pending })
            }
            Some(&("ca" | "cg")) if self.has("shared") && self.has("global") => {
                let bytes = immediate(self.operand(2)?, Type::U64).ok_or("no size")?;
                if !matches!(bytes, 4 | 8 | 16) {
                    return Err("a copy of other than 4, 8 or 16 bytes".into());
                }
                let bytes = bytes as usize;
                let from_source = if self.operands.len() > 3 { Some(self.source(3, Type::U32)?) } else { None };
                Ok(Op::CopyAsync { bytes, shared: self.address(0)?, global: self.address(1)?, from_source })
            }
            _ => Err("a copy that is not supported".into()),
        }
    }
}

fn special(text: &str) -> Option<Special> {
    let axis = |name: &str| match name {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    let name = text.strip_prefix('%')?;
    if let Some((register, dimension)) = name.split_once('.') {
        let axis = axis(dimension)?;
        return Some(match register {
            "tid" => Special::Tid(axis),
            "ntid" => Special::Ntid(axis),
            "ctaid" => Special::Ctaid(axis),
            "nctaid" => Special::Nctaid(axis),
            _ => return None,
        });
    }
    Some(match name {
        "laneid" => Special::LaneId,
        "warpid" => Special::WarpId,
        "lanemask_lt" => Special::LaneMaskLt,
        "lanemask_le" => Special::LaneMaskLe,
        "lanemask_gt" => Special::LaneMaskGt,
        "lanemask_ge" => Special::LaneMaskGe,
        "lanemask_eq" => Special::LaneMaskEq,
        "dynamic_smem_size" => Special::DynamicSharedSize,
        "envreg1" => Special::Workspace { upper: true },
        "envreg2" => Special::Workspace { upper: false },
        _ => return None,
    })
}
