//! Compiles `kernels/*.cu` with nvcc and embeds them. `OUT_DIR/kernels.rs` has the names and the
//! image of each file, and the nvcc that made them.
//!
//! `AMATCH_CUDA`: `off` builds without kernels, `on` fails without nvcc; otherwise they are built
//! if nvcc is found. `AMATCH_CUDA_ARCHS`: the GPU architectures to assemble for, as in `90` or
//! `80,90`, or `ptx` for none. The PTX is always embedded: drivers assemble it for architectures
//! that are not listed, and the virtual GPU of the tests executes it.

#[allow(dead_code)] // its types are there for their layout alone
#[path = "src/engine/cuda/abi/header.rs"]
mod header;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

/// Real architectures, as far as nvcc knows them: Ampere to Blackwell. Cards of 8.6 and 8.9 run the
/// code of 8.0, and those of 10.3 and 12.1 that of 10.0 and 12.0: it is one instruction set.
pub const ARCHITECTURES: [u32; 4] = [80, 90, 100, 120];

/// The virtual architecture from which all real ones are assembled: the virtual GPU tests what
/// every GPU runs.
pub const VIRTUAL: u32 = 80;

/// Files that end so have instructions of this architecture alone, which has a virtual one of its
/// own.
pub const OF_WARPGROUPS: (&str, u32) = ("_wgmma", 90);

/// Option of `fatbinary`: machine code is compressed too, not only PTX. The form is the toolkit's
/// default, which its oldest driver reads; the smallest one would take a quarter off, in a minute.
const COMPRESSION: &str = "-compress-all";

/// Variables read by the search for nvcc.
const SEARCHED: [&str; 6] = ["AMATCH_NVCC", "CUDA_PATH", "CUDA_HOME", "PATH", "VIRTUAL_ENV", "CONDA_PREFIX"];

type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/engine/cuda/abi");
    println!("cargo::rerun-if-changed=src/engine/cuda/driver/modules/kernel.rs");
    // If the compiler is named there is no search, so a new PATH changes nothing.
    let searched = if std::env::var_os("AMATCH_NVCC").is_some() { &SEARCHED[..1] } else { &SEARCHED };
    for name in searched.iter().chain(&["AMATCH_CUDA", "AMATCH_CUDA_ARCHS"]) {
        println!("cargo::rerun-if-env-changed={name}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            for line in problem.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Outcome<()> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: cargo runs this")?);
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
    let without = |why: &str| table(&out, &[], &format!("Err({why:?})"));
    let needed = match text("AMATCH_CUDA").as_deref() {
        None | Some("auto") => false,
        Some("on") => true,
        Some("off") => return without("AMATCH_CUDA was off"),
        Some(other) => return Err(format!("AMATCH_CUDA is {other:?}: use on, off or auto")),
    };
    let Some(nvcc) = find_nvcc(&variable, Path::new(""), &python_path) else {
        let fix = "CUDA_PATH, PATH and Python packages were searched, AMATCH_NVCC names one";
        if needed {
            return Err(format!("AMATCH_CUDA is on and there is no nvcc ({fix})"));
        }
        println!("cargo::warning=built without CUDA kernels: there is no nvcc ({fix})");
        return without("there was no nvcc");
    };
    let nvcc = Nvcc::new(nvcc)?;
    if nvcc.path.is_file() {
        println!("cargo::rerun-if-changed={}", nvcc.path.display());
    }
    let architectures = architectures(text("AMATCH_CUDA_ARCHS").as_deref(), &nvcc.architectures)?;
    let jobs = text("NUM_JOBS").and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let images = compile_all(Path::new("kernels"), &out, &nvcc, &architectures, jobs)?;
    let mut declared = header::kernel::names();
    if !images.iter().any(|image| image.is_of_warpgroups) {
        declared.retain(|name| !name.contains(OF_WARPGROUPS.0));
    }
    check_kernels(&images, &declared)?;
    table(&out, &images, &format!("Ok({:?})", nvcc.describe(&architectures)))
}

/// The compiler: named by a variable, in a toolkit, on the path, or in the toolkit's Python
/// packages.
pub fn find_nvcc(
    variable: &dyn Fn(&str) -> Option<OsString>,
    project: &Path,
    python_path: &dyn Fn() -> Vec<PathBuf>,
) -> Option<PathBuf> {
    let name = format!("nvcc{}", std::env::consts::EXE_SUFFIX);
    // A named compiler is not replaced by another one if it is missing: that would be a surprise.
    if let Some(nvcc) = variable("AMATCH_NVCC") {
        return Some(nvcc.into());
    }
    let toolkits = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(variable);
    let mut folders: Vec<PathBuf> = toolkits.map(|toolkit| Path::new(&toolkit).join("bin")).collect();
    folders.extend(variable("PATH").iter().flat_map(std::env::split_paths));
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).map(PathBuf::from);
    for environment in environments.chain([project.join("target/cuda")]) {
        folders.push(environment.join("bin"));
        for packages in site_packages(&environment) {
            folders.extend(package_folders(&packages));
        }
    }
    let found = |folders: &[PathBuf]| folders.iter().map(|folder| folder.join(&name)).find(|nvcc| nvcc.is_file());
    found(&folders).or_else(|| {
        let folders: Vec<PathBuf> = python_path().iter().flat_map(|packages| package_folders(packages)).collect();
        found(&folders)
    })
}

/// Paths of nvcc in the Python packages `nvidia-cuda-nvcc` (13) and `nvidia-cuda-nvcc-cu12`.
fn package_folders(packages: &Path) -> [PathBuf; 2] {
    [packages.join("nvidia/cu13/bin"), packages.join("nvidia/cuda_nvcc/bin")]
}

fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let versions = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path().join("site-packages"))
        .collect();
    folders.sort();
    folders.push(environment.join("Lib/site-packages"));
    folders
}

/// Folders in which the Python on the path looks for packages.
fn python_path() -> Vec<PathBuf> {
    let output = Command::new("python3").args(["-c", "import sys; print('\\n'.join(sys.path))"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect()
}

/// A compiler and the architectures it knows.
pub struct Nvcc {
    pub path: PathBuf,
    pub version: String,
    pub architectures: Vec<u32>,
}

impl Nvcc {
    /// Queries the compiler at `path`.
    pub fn new(path: PathBuf) -> Outcome<Nvcc> {
        let said = run(Command::new(&path).arg("--version"), &path)?;
        let version = said.split(", V").nth(1).and_then(|rest| rest.split_whitespace().next());
        let version = version.ok_or_else(|| format!("{} is no nvcc: it calls itself {said:?}", path.display()))?;
        let listed = run(Command::new(&path).arg("--list-gpu-code"), &path)?;
        let numbers = listed.lines().filter_map(|line| line.trim().strip_prefix("sm_")?.parse().ok());
        Ok(Nvcc { version: version.to_string(), architectures: numbers.collect(), path })
    }

    fn describe(&self, architectures: &[u32]) -> String {
        let names: String = architectures.iter().map(|number| format!("sm_{number}, ")).collect();
        format!("nvcc {}: {names}PTX for the rest", self.version)
    }
}

/// The output of a program.
fn run(command: &mut Command, program: &Path) -> Outcome<String> {
    let output = command.output().map_err(|error| format!("{}: cannot run: {error}", program.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    Err(format!(
        "{} failed ({}); AMATCH_CUDA=off builds without kernels\n{said}{complained}",
        program.display(),
        output.status
    ))
}

/// The architectures to assemble for: all known ones of [`ARCHITECTURES`], or those of `wanted`,
/// each of which must be known.
pub fn architectures(wanted: Option<&str>, known: &[u32]) -> Outcome<Vec<u32>> {
    let Some(wanted) = wanted else {
        return Ok(ARCHITECTURES.into_iter().filter(|number| known.contains(number)).collect());
    };
    let mut numbers = Vec::new();
    for word in wanted.split(',').map(str::trim).filter(|word| *word != "ptx") {
        let number = word.parse().ok().filter(|number| known.contains(number) && *number >= VIRTUAL);
        numbers.push(number.ok_or_else(|| {
            let known: Vec<_> = known.iter().filter(|number| **number >= VIRTUAL).map(u32::to_string).collect();
            format!("AMATCH_CUDA_ARCHS has {word:?}: use ptx, or some of {}, which this nvcc knows", known.join(","))
        })?);
    }
    numbers.sort();
    numbers.dedup();
    Ok(numbers)
}

/// A compiled file: the names of its kernels, and the path of its fat binary.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub kernels: Vec<String>,
    pub path: PathBuf,
    pub is_of_warpgroups: bool,
}

/// Writes `abi.h`, the declarations that kernels share with the host, into the folder `out`. nvcc
/// finds it there by `-I`.
pub fn write_header(out: &Path) -> Outcome<()> {
    let path = out.join("abi.h");
    std::fs::write(&path, header::header()).map_err(|error| io(&path, error))
}

/// Compiles each `.cu` of `folder` into `out`, with `jobs` programs at a time. Files that did not
/// change since their last compilation stay.
pub fn compile_all(folder: &Path, out: &Path, nvcc: &Nvcc, architectures: &[u32], jobs: usize) -> Outcome<Vec<Image>> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut sources: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    sources.sort();
    write_header(out)?;
    let files: Vec<File> =
        sources.into_iter().filter_map(|source| File::new(source, out, nvcc, architectures)).collect();
    let changed = files.iter().filter(|file| file.kernels().is_none());
    do_all(changed.map(|file| Job { size: usize::MAX, work: Box::new(move || file.compile()) }).collect(), jobs)?;
    (files.iter())
        .map(|file| {
            let kernels = file.kernels().ok_or_else(|| format!("{}: was not compiled", file.source.display()))?;
            Ok(Image { kernels, path: file.image(), is_of_warpgroups: file.is_of_warpgroups })
        })
        .collect()
}

/// A call of a program. `work` returns the calls that its result allows.
struct Job<'a> {
    size: usize,
    work: Box<dyn FnOnce() -> Outcome<Vec<Job<'a>>> + Send + 'a>,
}

/// Does `jobs` and those that follow from them, `n_workers` at a time: the largest first, so that
/// none runs alone at the end. Stops at the first error.
fn do_all(jobs: Vec<Job<'_>>, n_workers: usize) -> Outcome<()> {
    struct Left<'a> {
        jobs: Vec<Job<'a>>,
        n_running: usize,
        outcome: Outcome<()>,
    }
    let left = Mutex::new(Left { jobs, n_running: 0, outcome: Ok(()) });
    let changed = Condvar::new();
    let lock = || left.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let next = || {
        let mut left = lock();
        loop {
            let largest = (0..left.jobs.len()).max_by_key(|&at| (left.jobs[at].size, std::cmp::Reverse(at)));
            match largest.filter(|_| left.outcome.is_ok()) {
                Some(at) => {
                    left.n_running += 1;
                    return Some(left.jobs.remove(at));
                }
                // What runs may have more to do.
                None if left.n_running > 0 && left.outcome.is_ok() => {
                    left = changed.wait(left).unwrap_or_else(|poisoned| poisoned.into_inner());
                }
                None => return None,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..n_workers.max(1) {
            scope.spawn(|| {
                while let Some(job) = next() {
                    // Others wait for what follows from it.
                    let outcome = std::panic::catch_unwind(AssertUnwindSafe(job.work));
                    let outcome = outcome.unwrap_or_else(|_| Err("a compilation panicked".into()));
                    let mut left = lock();
                    left.n_running -= 1;
                    match outcome {
                        Ok(more) => left.jobs.extend(more),
                        Err(problem) => left.outcome = Err(problem),
                    }
                    changed.notify_all();
                }
            });
        }
    });
    left.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).outcome
}

/// Checks that `images` have the kernels `declared`, and no others.
pub fn check_kernels(images: &[Image], declared: &[String]) -> Outcome<()> {
    let made: Vec<&String> = images.iter().flat_map(|image| &image.kernels).collect();
    let missing = declared.iter().filter(|name| !made.contains(name)).map(|name| format!("{name} is not in kernels/"));
    let others = made.iter().filter(|name| !declared.contains(name)).map(|name| format!("{name} is not declared"));
    let wrong: Vec<String> = missing.chain(others).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let problem = "the kernels are not those of src/engine/cuda/driver/modules/kernel.rs";
    Err(format!("{problem}: {}", wrong.join(", ")))
}

/// The error message: `what` failed at `path`.
fn io(path: &Path, error: std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// A file of kernels on its way from source to image.
struct File<'a> {
    source: PathBuf,
    /// Path of what is made of it, without extension.
    made: PathBuf,
    options: Vec<String>,
    /// Changes with everything that the image depends on.
    stamp: String,
    nvcc: &'a Nvcc,
    architectures: Vec<u32>,
    is_of_warpgroups: bool,
    /// Architectures for which there is no machine code yet.
    n_missing: AtomicUsize,
}

impl<'a> File<'a> {
    /// `None` for a file of an architecture that is not asked for.
    fn new(source: PathBuf, out: &Path, nvcc: &'a Nvcc, architectures: &[u32]) -> Option<File<'a>> {
        let (ending, own) = OF_WARPGROUPS;
        let is_of_warpgroups = source.file_stem().is_some_and(|name| name.to_string_lossy().ends_with(ending));
        let mut architectures = architectures.to_vec();
        if is_of_warpgroups && !architectures.is_empty() {
            architectures.retain(|&number| number == own);
            if architectures.is_empty() {
                return None;
            }
        }
        let mut options = ["-ptx", "-std=c++17", "-lineinfo"].map(String::from).to_vec();
        options.push(if is_of_warpgroups {
            format!("-arch=compute_{own}a")
        } else {
            format!("-arch=compute_{VIRTUAL}")
        });
        options.push(format!("-I{}", out.display()));
        // The packages of toolkit 12 are in neighboring folders, and nvcc looks only in its own.
        if let Some(packages) = nvcc.path.ancestors().nth(2).filter(|package| package.ends_with("cuda_nvcc")) {
            for package in ["cuda_runtime", "cuda_cccl"] {
                options.push(format!("-I{}", packages.with_file_name(package).join("include").display()));
            }
        }
        let mut contents = BTreeMap::new();
        gather(&source, out, &mut contents);
        let mut hash = DefaultHasher::new();
        (&contents, &nvcc.version, &options, &architectures, COMPRESSION).hash(&mut hash);
        let stamp = format!("{:016x}", hash.finish());
        let made = out.join(source.file_stem().unwrap_or_default());
        let n_missing = AtomicUsize::new(architectures.len());
        Some(File { source, made, options, stamp, nvcc, architectures, is_of_warpgroups, n_missing })
    }

    fn with(&self, extension: &str) -> PathBuf {
        self.made.with_extension(extension)
    }

    fn image(&self) -> PathBuf {
        self.with("fatbin")
    }

    /// The name of an architecture: with `a` if its own instructions are used.
    fn named(&self, architecture: u32) -> String {
        format!("{architecture}{}", if self.is_of_warpgroups { "a" } else { "" })
    }

    fn code(&self, architecture: u32) -> PathBuf {
        self.with(&format!("sm_{architecture}.cubin"))
    }

    /// The names of the kernels in the image, if it is there and up to date. They are in the file
    /// of the stamp, since PTX in the image is compressed.
    fn kernels(&self) -> Option<Vec<String>> {
        let text = std::fs::read_to_string(self.with("stamp")).ok().filter(|_| self.image().exists())?;
        let (stamp, names) = text.split_once('\n')?;
        (stamp == self.stamp).then(|| names.lines().map(String::from).collect())
    }

    /// Makes the PTX; what follows is the machine code for each architecture, and then the image.
    fn compile(&'a self) -> Outcome<Vec<Job<'a>>> {
        // An image without its stamp is compiled again, so that an incomplete one is never used.
        let stamp = self.with("stamp");
        if stamp.exists() {
            std::fs::remove_file(&stamp).map_err(|error| io(&stamp, error))?;
        }
        let ptx = self.with("ptx");
        run(Command::new(&self.nvcc.path).args(&self.options).arg("-o").args([&ptx, &self.source]), &self.nvcc.path)?;
        let text = std::fs::read_to_string(&ptx).map_err(|error| io(&ptx, error))?;
        let kernels = kernels(text.as_bytes());
        if kernels.is_empty() {
            return Err(format!(
                "{}: nvcc made no kernels of it: a .cu file holds `extern \"C\" __global__` functions",
                self.source.display()
            ));
        }
        let stamp = [std::slice::from_ref(&self.stamp), &kernels[..]].concat().join("\n");
        if self.architectures.is_empty() {
            self.pack(&stamp)?;
            return Ok(Vec::new());
        }
        // The PTX of the image keeps its line numbers, which the virtual GPU and the driver report;
        // in machine code they would take four times the space of everything else.
        let plain = self.with("plain.ptx");
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with(".loc")).collect();
        let plain_text = lines.join("\n");
        std::fs::write(&plain, &plain_text).map_err(|error| io(&plain, error))?;
        let assembly = |&architecture: &u32| -> Job<'a> {
            let stamp = stamp.clone();
            let work = move || {
                self.assemble(architecture)?;
                if self.n_missing.fetch_sub(1, Ordering::AcqRel) == 1 {
                    self.pack(&stamp)?;
                }
                Ok(Vec::new())
            };
            Job { size: plain_text.len(), work: Box::new(work) }
        };
        Ok(self.architectures.iter().map(assembly).collect())
    }

    fn assemble(&self, architecture: u32) -> Outcome<()> {
        let mut command = Command::new(&self.nvcc.path);
        command.args(["-cubin", &format!("-arch=sm_{}", self.named(architecture)), "-o"]);
        run(command.args([self.code(architecture), self.with("plain.ptx")]), &self.nvcc.path).map(|_| ())
    }

    /// Makes the image, a fat binary of the PTX and the machine code, and the file of its stamp.
    fn pack(&self, stamp: &str) -> Outcome<()> {
        let codes: Vec<(u32, PathBuf)> = self.architectures.iter().map(|&number| (number, self.code(number))).collect();
        let (ptx, image) = (self.with("ptx"), self.image());
        // `fatbinary` is in the folder of nvcc, which calls it too.
        let fatbinary = self.nvcc.path.with_file_name(format!("fatbinary{}", std::env::consts::EXE_SUFFIX));
        let mut command = Command::new(&fatbinary);
        command.arg("-64").arg(COMPRESSION).arg(format!("--create={}", image.display()));
        // PTX of one architecture is of no use to others: it is for the virtual GPU, which has no
        // machine code.
        if !self.is_of_warpgroups || codes.is_empty() {
            let virtual_one = if self.is_of_warpgroups { OF_WARPGROUPS.1 } else { VIRTUAL };
            command.arg(format!("--image3=kind=ptx,sm={},file={}", self.named(virtual_one), ptx.display()));
        }
        let part = |(number, path): &(u32, PathBuf)| {
            format!("--image3=kind=elf,sm={},file={}", self.named(*number), path.display())
        };
        command.args(codes.iter().map(part));
        run(&mut command, &fatbinary)?;
        for path in codes.into_iter().map(|(_, path)| path).chain([ptx, self.with("plain.ptx")]) {
            if path.exists() {
                std::fs::remove_file(&path).map_err(|error| io(&path, error))?;
            }
        }
        let path = self.with("stamp");
        std::fs::write(&path, stamp).map_err(|error| io(&path, error))
    }
}

/// Adds the text of `path` and of all files that it includes from its own tree, or from the folder
/// `out`, to `contents`.
pub fn gather(path: &Path, out: &Path, contents: &mut BTreeMap<PathBuf, String>) {
    // Canonical paths, so that files that include each other end the recursion. Unreadable files
    // are left for nvcc to report.
    let Ok(path) = path.canonicalize() else { return };
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let includes = text.lines().filter_map(|line| line.trim().strip_prefix('#')?.trim().strip_prefix("include"));
    let names = includes.filter_map(|rest| rest.split('"').nth(1));
    let included: Vec<PathBuf> = names.flat_map(|name| [folder.join(name), out.join(name)]).collect();
    if contents.insert(path, text).is_none() {
        included.iter().for_each(|path| gather(path, out, contents));
    }
}

/// The names of the kernels in a text of PTX.
#[must_use]
pub fn kernels(ptx: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(ptx);
    let names = text.split(".visible .entry ").skip(1);
    let names = names.filter_map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next());
    let mut unique: Vec<String> = Vec::new();
    for name in names {
        if !unique.iter().any(|known| known == name) {
            unique.push(name.to_string());
        }
    }
    unique
}

/// Writes the table of images and kernel names that the CUDA engine includes.
pub fn table(out: &Path, images: &[Image], nvcc: &str) -> Outcome<()> {
    let mut text = String::from("pub static MODULES: &[Module] = &[\n");
    for Image { kernels, path, is_of_warpgroups } in images {
        let image = format!("include_bytes!({path:?})");
        writeln!(text, "    Module {{ kernels: &{kernels:?}, image: {image}, is_of_warpgroups: {is_of_warpgroups} }},")
            .map_err(|error| error.to_string())?;
    }
    write!(text, "];\npub static NVCC: std::result::Result<&str, &str> = {nvcc};\n")
        .map_err(|error| error.to_string())?;
    let path = out.join("kernels.rs");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}
