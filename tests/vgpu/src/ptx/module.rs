//! Parsing of a module's text to kernels: declarations, scopes, labels and source lines. `decode`
//! handles instructions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;

use super::decode::{Pending, decode};
use super::liveness::share_registers;
use super::{Instruction, Op, Preset, Register, SINK, Type};

/// Everything in one PTX file.
#[derive(Clone, Debug, Default)]
pub struct Module {
    pub kernels: Vec<Kernel>,
    pub globals: Vec<Global>,
    /// Source files of `-lineinfo`, by the number `.loc` uses.
    pub files: HashMap<u32, String>,
    pub target: Target,
}

/// The architecture that PTX is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// 80 for sm_80.
    pub architecture: u32,
    /// For its architecture alone (`sm_90a`).
    pub specific: bool,
}

impl Target {
    /// That of `.target` in a text of PTX; without one, the oldest.
    pub fn of(ptx: &str) -> Target {
        let target = ptx.lines().find_map(|line| line.trim().strip_prefix(".target")?.trim().strip_prefix("sm_"));
        let target = target.unwrap_or_default();
        let digits: String = target.chars().take_while(char::is_ascii_digit).collect();
        let specific = target[digits.len()..].starts_with('a');
        Target { architecture: digits.parse().unwrap_or(0), specific }
    }

    /// True if a card of this compute capability (80 for 8.0) runs it.
    pub fn runs_on(self, capability: u32) -> bool {
        if self.specific { self.architecture == capability } else { self.architecture <= capability }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sm_{}{}", self.architecture, if self.specific { "a" } else { "" })
    }
}

/// A variable of the module.
#[derive(Clone, Debug)]
pub struct Global {
    pub name: String,
    /// Initial bytes; zeros follow up to the size.
    pub initial: Vec<u8>,
    /// Bytes.
    pub size: usize,
    pub align: usize,
}

/// Maximum bytes of a variable.
const MAX_VARIABLE: usize = 1 << 26;
/// Maximum bytes of a kernel's parameters (PTX ISA, ".param").
const MAX_PARAMETERS: usize = 32_764;
/// Maximum bytes of local memory of a thread (CUDA C++ Programming Guide, "Technical
/// Specifications").
const MAX_LOCAL: usize = 512 << 10;

/// One parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub offset: usize,
    pub bytes: usize,
}

/// One kernel.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    pub name: String,
    pub parameters: Vec<Parameter>,
    pub parameter_bytes: usize,
    /// Maximum number of threads of a block, from `.maxntid`.
    pub max_threads: Option<u32>,
    /// Blocks that a multiprocessor must hold at the same time, from `.minnctapersm`.
    pub min_blocks: u32,
    /// True if blocks, or warps of a block between barriers, may exchange data.
    pub synchronizes: bool,
    /// True if its warpgroups pass registers on (`setmaxnreg`).
    pub shares_registers: bool,
    /// Bytes of static shared memory; dynamic shared memory begins after them.
    pub shared_bytes: usize,
    pub local_bytes: usize,
    pub n_registers: usize,
    /// Registers with an initial content.
    pub presets: Vec<(Register, Preset)>,
    pub code: Vec<Instruction>,
    /// By instruction, the registers of products of warpgroups that it reads or writes; empty in a
    /// kernel without such products.
    pub held: Vec<Vec<Register>>,
    /// Text of each instruction.
    pub texts: Vec<String>,
}

/// Registers that one scope declares.
#[derive(Default)]
struct Scope {
    names: HashMap<String, Register>,
    /// `%r<9>` declares %r0 to %r8. By stem, the first register and the count, which may be
    /// billions.
    ranges: HashMap<String, (Register, u32)>,
}

impl Scope {
    fn register(&self, name: &str) -> Option<Register> {
        if let Some(&register) = self.names.get(name) {
            return Some(register);
        }
        if self.ranges.is_empty() {
            return None;
        }
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        // Digits may belong to the stem too, and an index has no leading zeros.
        (stem.len()..name.len()).find_map(|split| {
            let (first, count) = *self.ranges.get(&name[..split])?;
            let index = &name[split..];
            let number: u32 = index.parse().ok()?;
            (number < count && (index == "0" || !index.starts_with('0'))).then(|| first + number)
        })
    }
}

/// Names inside a kernel, innermost scope last.
pub(super) struct Names<'a> {
    scopes: Vec<Scope>,
    n_registers: Cell<Register>,
    presets: RefCell<HashMap<Preset, Register>>,
    shared: &'a HashMap<String, u64>,
    local: HashMap<String, u64>,
    globals: &'a HashMap<String, u32>,
    parameters: HashMap<String, usize>,
}

impl Names<'_> {
    pub fn register(&self, name: &str) -> Option<Register> {
        if name == "_" {
            return Some(SINK);
        }
        self.scopes.iter().rev().find_map(|scope| scope.register(name))
    }

    /// A variable's address.
    pub fn variable(&self, name: &str) -> Option<Preset> {
        if let Some(&offset) = self.local.get(name) {
            return Some(Preset::Bits(offset));
        }
        if let Some(&offset) = self.shared.get(name) {
            return Some(Preset::Bits(offset));
        }
        self.globals.get(name).map(|&index| Preset::Global(index, 0))
    }

    /// Offset of a parameter of the kernel.
    pub fn parameter(&self, name: &str) -> Option<usize> {
        self.parameters.get(name).copied()
    }

    /// The register that holds `preset`.
    pub fn preset(&self, preset: Preset) -> Register {
        *self.presets.borrow_mut().entry(preset).or_insert_with(|| self.next())
    }

    fn declare(&mut self, name: &str) -> Option<()> {
        let register = self.take(1)?;
        self.scopes.last_mut()?.names.insert(name.to_string(), register);
        Some(())
    }

    /// Declares `stem0`, `stem1` and so on, `count` registers.
    fn declare_range(&mut self, stem: &str, count: u32) -> Option<()> {
        let first = self.take(count)?;
        self.scopes.last_mut()?.ranges.insert(stem.to_string(), (first, count));
        Some(())
    }

    fn next(&self) -> Register {
        // Declarations leave space for presets, which cannot be more than the characters of the
        // text.
        self.n_registers.set(self.n_registers.get().saturating_add(1));
        self.n_registers.get()
    }

    /// The first of `count` new registers; `None` if there are too many.
    fn take(&self, count: u32) -> Option<Register> {
        const MAX_DECLARED: u32 = 1 << 31;
        let first = self.n_registers.get() + 1;
        let last = self.n_registers.get().checked_add(count).filter(|&last| last <= MAX_DECLARED)?;
        self.n_registers.set(last);
        Some(first)
    }
}

/// The text between two delimiters.
enum Piece {
    Statement(String),
    Label(String),
    Open,
    Close,
    /// `.loc file line`.
    Location(u32, u32),
}

/// Parses a module.
///
/// # Errors
/// The text that cannot be understood, and the reason.
pub fn parse_module(text: &str) -> Result<Module, String> {
    let mut module = Module::default();
    let mut global_names = HashMap::new();
    let mut shared_names: HashMap<String, u64> = HashMap::new();
    let mut shared_bytes = 0usize;
    let (mut dynamic_shared, mut dynamic_align): (Vec<String>, usize) = (Vec::new(), 1);
    let pieces = pieces(text, &mut module.files)?;
    module.target = Target::of(text);
    let mut at = 0;
    // Variables first, because kernels may refer to later ones.
    let mut depth = 0;
    for piece in &pieces {
        match piece {
            Piece::Open => depth += 1,
            Piece::Close => depth -= 1,
            Piece::Statement(statement) if depth == 0 && !is_function(statement) => {
                let Some(variable) = parse_variable(statement)? else { continue };
                if statement.contains(".shared") {
                    if variable.size == 0 {
                        dynamic_shared.push(variable.name);
                        dynamic_align = dynamic_align.max(variable.align);
                    } else {
                        shared_bytes = shared_bytes.next_multiple_of(variable.align);
                        shared_names.insert(variable.name, shared_bytes as u64);
                        shared_bytes += variable.size;
                    }
                } else {
                    global_names.insert(variable.name.clone(), module.globals.len() as u32);
                    module.globals.push(variable);
                }
            }
            _ => {}
        }
    }
    while at < pieces.len() {
        let Piece::Statement(statement) = &pieces[at] else {
            at += 1;
            continue;
        };
        if !is_function(statement) {
            at += 1;
            continue;
        }
        let end = body_end(&pieces, at + 1).ok_or_else(|| format!("{statement}: its body does not end"))?;
        if statement.contains(".entry") {
            // Shared variables of the body follow those of the module; dynamic memory follows them
            // all.
            let mut shared = shared_names.clone();
            let mut bytes = shared_bytes;
            for piece in &pieces[at + 1..end] {
                if let Piece::Statement(text) = piece
                    && text.starts_with(".shared")
                    && let Some(variable) = parse_variable(text)?
                {
                    bytes = bytes.next_multiple_of(variable.align);
                    shared.insert(variable.name, bytes as u64);
                    bytes += variable.size;
                }
            }
            let static_bytes = bytes.next_multiple_of(dynamic_align);
            for name in &dynamic_shared {
                shared.insert(name.clone(), static_bytes as u64);
            }
            let kernel = parse_kernel(statement, &pieces[at + 1..end], &shared, static_bytes, &global_names)?;
            module.kernels.push(kernel);
        } else if end > at + 1 {
            return Err(format!("{statement}: device functions that are called are not supported; inline them"));
        }
        at = end.max(at + 1);
    }
    Ok(module)
}

fn is_function(statement: &str) -> bool {
    statement.split_whitespace().any(|word| word == ".entry" || word == ".func")
}

/// Index one past the body that opens at `start`; `start` itself if there is none.
fn body_end(pieces: &[Piece], start: usize) -> Option<usize> {
    let mut depth = 0;
    for (index, piece) in pieces.iter().enumerate().skip(start) {
        match piece {
            Piece::Open => depth += 1,
            Piece::Close => {
                depth -= 1;
                if depth == 0 {
                    return Some(index + 1);
                }
            }
            Piece::Location(..) => {}
            _ if depth == 0 => return Some(start),
            _ => {}
        }
    }
    (depth == 0).then_some(start)
}

/// Splits the text at `;`, braces of scopes, labels and directives that end with their line.
fn pieces(text: &str, files: &mut HashMap<u32, String>) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut statement = String::new();
    let mut in_section = false;
    let mut operand_braces = 0;
    let text = without_block_comments(text);
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        if in_section {
            in_section = !line.starts_with('}');
            continue;
        }
        if statement.is_empty() && line.starts_with('.') {
            let mut words = line.split_whitespace();
            match words.next().unwrap_or_default() {
                ".version" | ".target" | ".address_size" => continue,
                ".file" => {
                    let number = words.next().and_then(|word| word.parse().ok());
                    if let (Some(number), Some(path)) = (number, line.split('"').nth(1)) {
                        files.insert(number, path.to_string());
                    }
                    continue;
                }
                ".loc" => {
                    let numbers: Vec<u32> = words.take(2).filter_map(|word| word.parse().ok()).collect();
                    let &[file, line_number] = &numbers[..] else { return Err(format!("{line}: no file and line")) };
                    pieces.push(Piece::Location(file, line_number));
                    continue;
                }
                ".section" => {
                    in_section = true;
                    continue;
                }
                _ => {}
            }
        }
        for character in line.chars() {
            match character {
                '{' if statement.trim().is_empty() => {
                    statement.clear();
                    pieces.push(Piece::Open);
                }
                '{' if is_function(&statement) && statement.contains(')') | !statement.contains('(') => {
                    pieces.push(Piece::Statement(std::mem::take(&mut statement).trim().to_string()));
                    pieces.push(Piece::Open);
                }
                '{' => {
                    operand_braces += 1;
                    statement.push('{');
                }
                '}' if operand_braces > 0 => {
                    operand_braces -= 1;
                    statement.push('}');
                }
                '}' => pieces.push(Piece::Close),
                ';' => pieces.push(Piece::Statement(std::mem::take(&mut statement).trim().to_string())),
                ':' if is_label(&statement) => {
                    pieces.push(Piece::Label(std::mem::take(&mut statement).trim().to_string()));
                }
                other => statement.push(other),
            }
        }
        if !statement.is_empty() {
            statement.push(' ');
        }
        if statement.trim().is_empty() {
            statement.clear();
        }
    }
    if statement.trim().is_empty() { Ok(pieces) } else { Err(format!("{}: does not end", statement.trim())) }
}

fn without_block_comments(text: &str) -> String {
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(start) = rest.find("/*") {
        kept.push_str(&rest[..start]);
        rest = rest[start..].find("*/").map_or("", |end| &rest[start + end + 2..]);
    }
    kept + rest
}

fn is_label(statement: &str) -> bool {
    let name = statement.trim();
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '%'))
}

/// The alignment among the words of a declaration.
fn alignment(words: &[&str]) -> Result<Option<usize>, String> {
    // No type needs more (PTX ISA, ".align").
    const MAX_ALIGNMENT: usize = 1 << 10;
    let Some(at) = words.iter().position(|&word| word == ".align") else { return Ok(None) };
    let align = words.get(at + 1).and_then(|word| word.parse().ok());
    match align.filter(|align: &usize| align.is_power_of_two() && *align <= MAX_ALIGNMENT) {
        Some(align) => Ok(Some(align)),
        None => Err(format!("an alignment that is no power of two up to {MAX_ALIGNMENT}")),
    }
}

/// Parses the declaration of a variable; `None` for other directives. Without a size it has no
/// bytes.
fn parse_variable(statement: &str) -> Result<Option<Global>, String> {
    let spaces = [".global", ".const", ".shared", ".local"];
    let (declaration, values) = match statement.split_once('=') {
        Some((declaration, values)) => (declaration.trim(), Some(values)),
        None => (statement, None),
    };
    let words: Vec<&str> = declaration.split_whitespace().collect();
    if !words.iter().any(|word| spaces.contains(word)) {
        return Ok(None);
    }
    let fail = |what: &str| Err(format!("{statement}: {what}"));
    let align = alignment(&words).map_err(|problem| format!("{statement}: {problem}"))?;
    let Some(ty) = words.iter().find_map(|word| Type::parse(word.strip_prefix('.')?)) else { return fail("no type") };
    let Some(last) = words.last() else { return fail("no name") };
    let (name, sizes) = last.split_once('[').map_or((*last, None), |(name, sizes)| (name, Some(sizes)));
    let size = match sizes.map(|sizes| sizes.trim_end_matches(']')) {
        None => ty.bytes(),
        Some("") => 0,
        Some(sizes) => {
            let mut bytes = ty.bytes();
            for size in sizes.split("][") {
                let Ok(size) = size.parse::<usize>() else { return fail("a size that is no number") };
                match bytes.checked_mul(size) {
                    Some(product) if product <= MAX_VARIABLE => bytes = product,
                    _ => return fail("more bytes than are supported"),
                }
            }
            bytes
        }
    };
    let mut initial = Vec::new();
    if let Some(values) = values {
        let list = values.trim().trim_start_matches('{').trim_end_matches('}');
        for value in list.split(',').map(str::trim).filter(|value| !value.is_empty()) {
            let Some(bits) = super::decode::immediate(value, ty) else {
                return fail("an initial value that is no number");
            };
            // The upper half of 128 bits is zeros.
            initial.extend((0..ty.bytes()).map(|byte| bits.to_le_bytes().get(byte).copied().unwrap_or(0)));
            if initial.len() > size {
                return fail("too many values");
            }
        }
    }
    Ok(Some(Global { name: name.to_string(), initial, size, align: align.unwrap_or(ty.bytes()) }))
}

fn parse_kernel(
    head: &str,
    body: &[Piece],
    shared: &HashMap<String, u64>,
    shared_bytes: usize,
    globals: &HashMap<String, u32>,
) -> Result<Kernel, String> {
    let after = head.split_once(".entry").map_or("", |(_, after)| after);
    let (name, rest) = after.split_once('(').map_or((after, ""), |(name, rest)| (name, rest));
    let mut kernel =
        Kernel { name: name.split_whitespace().next().unwrap_or_default().into(), shared_bytes, ..Kernel::default() };
    let (list, directives) = rest.rsplit_once(')').unwrap_or(("", after));
    for declaration in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let words: Vec<&str> = declaration.split_whitespace().collect();
        let ty = words.iter().find_map(|word| Type::parse(word.strip_prefix('.')?));
        let (Some(ty), Some(last)) = (ty, words.last()) else { return Err(format!("{declaration}: no parameter")) };
        let (name, count) = match last.split_once('[') {
            Some((name, size)) => {
                (name, size.trim_end_matches(']').parse::<usize>().map_err(|_| format!("{declaration}: no size"))?)
            }
            None => (*last, 1),
        };
        let align = alignment(&words).map_err(|problem| format!("{declaration}: {problem}"))?;
        let offset = kernel.parameter_bytes.next_multiple_of(align.unwrap_or(ty.bytes()));
        let Some(bytes) =
            count.checked_mul(ty.bytes()).filter(|&bytes| offset + bytes.min(MAX_VARIABLE) <= MAX_PARAMETERS)
        else {
            return Err(format!("{declaration}: more than {MAX_PARAMETERS} bytes of parameters"));
        };
        kernel.parameters.push(Parameter { name: name.to_string(), offset, bytes });
        kernel.parameter_bytes = offset + bytes;
    }
    let mut words = directives.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        if word == ".maxntid" || word == ".reqntid" {
            let sizes = words.clone().map_while(|size| size.parse::<u32>().ok());
            kernel.max_threads = Some(sizes.fold(1, u32::saturating_mul));
        }
        if word == ".minnctapersm" {
            kernel.min_blocks = words.clone().next().and_then(|count| count.parse().ok()).unwrap_or(0);
        }
    }
    let mut names = Names {
        scopes: vec![Scope::default()],
        n_registers: Cell::new(SINK),
        presets: RefCell::default(),
        shared,
        local: HashMap::new(),
        globals,
        parameters: kernel.parameters.iter().map(|parameter| (parameter.name.clone(), parameter.offset)).collect(),
    };
    let mut labels: HashMap<String, usize> = HashMap::new();
    let mut branches: Vec<(usize, String)> = Vec::new();
    let mut source = (0, 0);
    for piece in body {
        match piece {
            Piece::Open => names.scopes.push(Scope::default()),
            Piece::Close => {
                names.scopes.pop();
            }
            Piece::Location(file, line) => source = (*file, *line),
            Piece::Label(name) => {
                if labels.insert(name.clone(), kernel.code.len()).is_some() {
                    return Err(format!("{}: the label {name} appears twice", kernel.name));
                }
            }
            Piece::Statement(text) if text.starts_with('.') => declare(text, &mut names, &mut kernel)?,
            Piece::Statement(text) => {
                let fail = |problem: String| format!("{}: {text}: {problem}", kernel.name);
                let (guard, op) = decode(text, &names).map_err(fail)?;
                let op = match op {
                    Pending::Ready(op) => op,
                    Pending::Branch(label) => {
                        branches.push((kernel.code.len(), label));
                        Op::Branch { target: 0 }
                    }
                };
                let instruction = Instruction { guard, op, source, text: kernel.texts.len() as u32 };
                kernel.texts.push(text.clone());
                kernel.code.push(instruction);
            }
        }
    }
    for (at, label) in branches {
        let target = labels.get(&label).ok_or_else(|| format!("{}: no label {label}", kernel.name))?;
        kernel.code[at].op = Op::Branch { target: *target };
    }
    // Control flow that reaches the end exits the kernel.
    kernel.code.push(Instruction { guard: None, op: Op::Exit, source, text: kernel.texts.len() as u32 });
    kernel.texts.push("(end of the kernel)".into());
    kernel.synchronizes = synchronizes(&kernel.code);
    kernel.shares_registers = kernel.code.iter().any(|instruction| matches!(instruction.op, Op::SetRegisters { .. }));
    kernel.presets = names.presets.into_inner().into_iter().map(|(preset, register)| (register, preset)).collect();
    share_registers(&mut kernel);
    Ok(kernel)
}

/// True if code may serve threads to exchange data without a barrier: by an instruction alone, or
/// by a strong access next to a fence.
fn synchronizes(code: &[Instruction]) -> bool {
    let is_strong = |op: &Op| {
        matches!(op, Op::Load { strong: Some(_), .. } | Op::Store { strong: Some(_), .. } | Op::Atomic { .. })
    };
    let has = |holds: &dyn Fn(&Op) -> bool| code.iter().any(|instruction| holds(&instruction.op));
    has(&Op::synchronizes) || has(&|op| matches!(op, Op::Fence(_))) && has(&is_strong)
}

/// Handles a directive inside a kernel: registers, local and shared variables; hints are ignored.
fn declare(text: &str, names: &mut Names, kernel: &mut Kernel) -> Result<(), String> {
    let word = text.split_whitespace().next().unwrap_or_default();
    match word {
        ".reg" => {
            let list = text.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
            for name in list.split(',').map(str::trim) {
                match name.split_once('<') {
                    Some((stem, count)) => {
                        let count = count.trim_end_matches('>').parse();
                        let count = count.map_err(|_| format!("{text}: no number of registers"))?;
                        names.declare_range(stem, count)
                    }
                    None => names.declare(name),
                }
                .ok_or_else(|| format!("{text}: too many registers"))?;
            }
            Ok(())
        }
        ".local" => {
            let variable = parse_variable(text)?.ok_or_else(|| format!("{text}: no variable"))?;
            let offset = kernel.local_bytes.next_multiple_of(variable.align);
            names.local.insert(variable.name, offset as u64);
            kernel.local_bytes = offset + variable.size;
            if kernel.local_bytes > MAX_LOCAL {
                return Err(format!("{text}: more than {MAX_LOCAL} bytes of local memory"));
            }
            Ok(())
        }
        ".shared" | ".pragma" | ".maxntid" | ".minnctapersm" | ".noreturn" => Ok(()),
        _ => Err(format!("{}: {text}: a directive that is not known", kernel.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_module;

    fn kernel(declarations: &str, body: &str) -> Result<super::Module, String> {
        parse_module(&format!("{declarations}\n.visible .entry k(.param .u64 p)\n{{\n{body}\nret;\n}}"))
    }

    #[test]
    fn ranges_of_registers_are_names_of_their_own() {
        assert!(kernel("", ".reg .b32 %r<4000000000>;").expect_err("too many").contains("too many registers"));
        let module =
            kernel("", ".reg .b32 %r<2000000000>, %r1x<12>, %s; mov.u32 %r1999999999, %s; mov.u32 %r1x11, %r0;");
        assert_eq!(module.expect("parses").kernels[0].n_registers, 1 + 2);
        for name in ["%r9", "%r00", "%r01", "%r", "%s0", "%r1x12"] {
            let body = format!(".reg .b32 %r<9>, %r1x<12>, %s; mov.u32 %s, {name};");
            assert!(kernel("", &body).is_err(), "{name}");
        }
        // An inner scope hides the names of outer ones.
        let hidden = ".reg .b32 %r<2>; { .reg .f32 %r1; mov.f32 %r1, 0f00000000; } mov.u32 %r1, %r0;";
        assert_eq!(kernel("", hidden).expect("parses").kernels[0].code.len(), 4);
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for (declarations, body, part) in [
            (".global .b8 a[9223372036854775807][4];", "", "more bytes than are supported"),
            (".global .b8 a[1000000000];", "", "more bytes than are supported"),
            (".global .align 0 .b8 a[4];", "", "no power of two"),
            (".shared .align 9223372036854775808 .b8 a[4];", "", "no power of two"),
            (".global .b8 a[2] = {1, 2, 3};", "", "too many values"),
            ("", ".local .b8 a[1000000];", "local memory"),
            ("", "setp;", "no type"),
            ("", ".reg .b64 %d; .reg .b32 %r<3>; mov.b64 %d, {%r0, %r1, %r2};", "as many elements"),
        ] {
            let problem = kernel(declarations, body).expect_err("refused");
            assert!(problem.contains(part), "{problem}");
        }
        let parameters = |list: &str| parse_module(&format!(".entry k({list}) {{ ret; }}"));
        assert!(parameters(".param .b8 p[18446744073709551615]").is_err());
        assert!(parameters(".param .b8 p[32000], .param .b8 q[1000]").is_err());
        let threads = parse_module(".entry k() .maxntid 65536, 65536, 65536 { ret; }").expect("parses");
        assert_eq!(threads.kernels[0].max_threads, Some(u32::MAX));
    }

    #[test]
    fn variables_begin_with_their_values_and_zeros() {
        let module = kernel(".global .b16 a[1000000] = {1, 258};\n.global .b128 b = {7};", "").expect("parses");
        let [a, b] = &module.globals[..] else { panic!("two variables") };
        assert_eq!((a.size, &a.initial[..]), (2_000_000, &[1, 0, 2, 1][..]));
        assert_eq!((b.size, b.initial[0], b.initial.len()), (16, 7, 16));
    }
}
