//! From the text of a module to kernels: declarations, scopes, labels and source lines; instructions go to `decode`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

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
}

/// A variable of the module.
#[derive(Clone, Debug)]
pub struct Global {
    pub name: String,
    pub bytes: Vec<u8>,
    pub align: usize,
}

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
    /// Threads of a block at most, from `.maxntid`.
    pub max_threads: Option<u32>,
    /// Bytes of static shared memory; dynamic shared memory begins behind them.
    pub shared_bytes: usize,
    pub local_bytes: usize,
    pub n_registers: usize,
    /// What registers hold from the beginning.
    pub presets: Vec<(Register, Preset)>,
    pub code: Vec<Instruction>,
    /// Text of each instruction.
    pub texts: Vec<String>,
}

/// Names inside a kernel, innermost scope last.
pub(super) struct Names<'a> {
    scopes: Vec<HashMap<String, Register>>,
    n_registers: Cell<usize>,
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
        self.scopes.iter().rev().find_map(|scope| scope.get(name).copied())
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

    /// Where a parameter of the kernel lies.
    pub fn parameter(&self, name: &str) -> Option<usize> {
        self.parameters.get(name).copied()
    }

    /// The register that holds `preset`.
    pub fn preset(&self, preset: Preset) -> Register {
        *self.presets.borrow_mut().entry(preset).or_insert_with(|| self.next())
    }

    fn declare(&mut self, name: &str) {
        let register = self.next();
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_string(), register);
        }
    }

    fn next(&self) -> Register {
        self.n_registers.set(self.n_registers.get() + 1);
        self.n_registers.get() as Register
    }
}

/// What lies between two marks of the text.
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
/// The text that cannot be understood, with what is wrong.
pub fn parse_module(text: &str) -> Result<Module, String> {
    let mut module = Module::default();
    let mut global_names = HashMap::new();
    let mut shared_names: HashMap<String, u64> = HashMap::new();
    let mut shared_bytes = 0usize;
    let (mut dynamic_shared, mut dynamic_align): (Vec<String>, usize) = (Vec::new(), 1);
    let pieces = pieces(text, &mut module.files)?;
    let mut at = 0;
    // Variables first: kernels refer to those behind them too.
    let mut depth = 0;
    for piece in &pieces {
        match piece {
            Piece::Open => depth += 1,
            Piece::Close => depth -= 1,
            Piece::Statement(statement) if depth == 0 && !is_function(statement) => {
                let Some(variable) = parse_variable(statement)? else { continue };
                if statement.contains(".shared") {
                    if variable.bytes.is_empty() {
                        dynamic_shared.push(variable.name);
                        dynamic_align = dynamic_align.max(variable.align);
                    } else {
                        shared_bytes = shared_bytes.next_multiple_of(variable.align);
                        shared_names.insert(variable.name, shared_bytes as u64);
                        shared_bytes += variable.bytes.len();
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
            // Shared variables of the body come behind those of the module, dynamic memory behind all.
            let mut shared = shared_names.clone();
            let mut bytes = shared_bytes;
            for piece in &pieces[at + 1..end] {
                if let Piece::Statement(text) = piece
                    && text.starts_with(".shared")
                    && let Some(variable) = parse_variable(text)?
                {
                    bytes = bytes.next_multiple_of(variable.align);
                    shared.insert(variable.name, bytes as u64);
                    bytes += variable.bytes.len();
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

/// Index one past the body that opens at `start`; `start` itself where there is none.
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

/// Divides the text at `;`, scope braces, labels and the directives that end with their line.
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

/// A declaration of a variable: `None` for other directives. Without a size its bytes are empty.
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
    let align = words.iter().position(|&word| word == ".align").and_then(|at| words.get(at + 1)?.parse().ok());
    let Some(ty) = words.iter().find_map(|word| Type::parse(word.strip_prefix('.')?)) else { return fail("no type") };
    let Some(last) = words.last() else { return fail("no name") };
    let (name, sizes) = last.split_once('[').map_or((*last, None), |(name, sizes)| (name, Some(sizes)));
    let count = match sizes.map(|sizes| sizes.trim_end_matches(']')) {
        None => 1,
        Some("") => 0,
        Some(sizes) => {
            let mut count = 1usize;
            for size in sizes.split("][") {
                let Ok(size) = size.parse::<usize>() else { return fail("a size that is no number") };
                count *= size;
            }
            count
        }
    };
    let mut bytes = vec![0; count * ty.bytes()];
    if let Some(values) = values {
        let list = values.trim().trim_start_matches('{').trim_end_matches('}');
        for (index, value) in list.split(',').map(str::trim).filter(|value| !value.is_empty()).enumerate() {
            let Some(bits) = super::decode::immediate(value, ty) else {
                return fail("an initial value that is no number");
            };
            let start = index * ty.bytes();
            let Some(target) = bytes.get_mut(start..start + ty.bytes()) else { return fail("too many values") };
            target.copy_from_slice(&bits.to_le_bytes()[..ty.bytes()]);
        }
    }
    Ok(Some(Global { name: name.to_string(), bytes, align: align.unwrap_or(ty.bytes()) }))
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
        let align = words.iter().position(|&word| word == ".align").and_then(|at| words.get(at + 1)?.parse().ok());
        let offset = kernel.parameter_bytes.next_multiple_of(align.unwrap_or(ty.bytes()));
        let bytes = count * ty.bytes();
        kernel.parameters.push(Parameter { name: name.to_string(), offset, bytes });
        kernel.parameter_bytes = offset + bytes;
    }
    let mut words = directives.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        if word == ".maxntid" || word == ".reqntid" {
            let sizes = words.clone().map_while(|size| size.parse::<u32>().ok());
            kernel.max_threads = Some(sizes.product());
        }
    }
    let mut names = Names {
        scopes: vec![HashMap::new()],
        n_registers: Cell::new(SINK as usize),
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
            Piece::Open => names.scopes.push(HashMap::new()),
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
    // Control that falls off the end leaves the kernel.
    kernel.code.push(Instruction { guard: None, op: Op::Exit, source, text: kernel.texts.len() as u32 });
    kernel.texts.push("(end of the kernel)".into());
    kernel.n_registers = names.n_registers.get() + 1;
    kernel.presets = names.presets.into_inner().into_iter().map(|(preset, register)| (register, preset)).collect();
    share_registers(&mut kernel);
    Ok(kernel)
}

/// A directive inside a kernel: registers, local and shared variables; hints mean nothing here.
fn declare(text: &str, names: &mut Names, kernel: &mut Kernel) -> Result<(), String> {
    let word = text.split_whitespace().next().unwrap_or_default();
    match word {
        ".reg" => {
            let list = text.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
            for name in list.split(',').map(str::trim) {
                match name.split_once('<') {
                    Some((stem, count)) => {
                        let count: usize = count
                            .trim_end_matches('>')
                            .parse()
                            .map_err(|_| format!("{text}: no number of registers"))?;
                        (0..count).for_each(|index| names.declare(&format!("{stem}{index}")));
                    }
                    None => names.declare(name),
                }
            }
            Ok(())
        }
        ".local" => {
            let variable = parse_variable(text)?.ok_or_else(|| format!("{text}: no variable"))?;
            let offset = kernel.local_bytes.next_multiple_of(variable.align);
            names.local.insert(variable.name, offset as u64);
            kernel.local_bytes = offset + variable.bytes.len();
            Ok(())
        }
        ".shared" | ".pragma" | ".maxntid" | ".minnctapersm" | ".noreturn" => Ok(()),
        _ => Err(format!("{}: {text}: a directive that is not known", kernel.name)),
    }
}
