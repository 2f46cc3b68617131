//! The module graph has no circles, and follows the floors of ARCHITECTURE.md: each module imports
//! only from its floor and those below. The graph is read from the paths in the source.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Module paths below which no circle may exist: the crate, the engines, the CUDA engine.
const LEVELS: [&[&str]; 3] = [&[], &["engine"], &["engine", "cuda"]];

/// Each module with those that it imports.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Modules directly below `level`, and the imports between them, of `files` (path in `src`, text).
fn graph(files: &[(String, String)], level: &[&str]) -> Graph {
    let below = |path: &[String]| {
        (path.len() > level.len() && path.iter().zip(level).all(|(a, b)| a == b)).then(|| path[level.len()].clone())
    };
    let mut graph = Graph::new();
    for (file, _) in files {
        if let Some(module) = below(&module_of(file)) {
            graph.entry(module).or_default();
        }
    }
    for (file, text) in files {
        let module = module_of(file);
        let Some(from) = below(&module) else { continue };
        for path in paths(&module, &code_of(text)) {
            if let Some(to) = below(&path).filter(|to| *to != from && graph.contains_key(to)) {
                graph.entry(from.clone()).or_default().insert(to);
            }
        }
    }
    graph
}

/// The module that a file of `src` is.
fn module_of(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The text without comments and test modules.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = code.split("#[cfg(test)]\npub(super) mod tests {").next().unwrap_or_default();
    let mut lines: Vec<&str> = Vec::new();
    let mut is_for_tests = false;
    for line in code.lines() {
        let line = line.split("//").next().unwrap_or_default();
        if !is_for_tests {
            lines.push(line);
        }
        is_for_tests = line.trim() == "#[cfg(test)]";
    }
    lines.join("\n")
}

/// Absolute paths that begin with `crate` or `super` in the code of `module`.
fn paths(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (start, keyword) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let before = code[..start].chars().next_back();
        let is_continued = before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        if is_continued {
            continue;
        }
        let mut base =
            if keyword == "crate::" { Vec::new() } else { module[..module.len().saturating_sub(1)].to_vec() };
        let mut rest = &code[start + keyword.len()..];
        while let Some(above) = rest.strip_prefix("super::") {
            base.pop();
            rest = above;
        }
        extend(&base, rest, &mut found);
    }
    found
}

/// Adds what `rest` names below `base`: one path, or those of a group in braces.
fn extend(base: &[String], rest: &str, found: &mut Vec<Vec<String>>) {
    if let Some(group) = rest.strip_prefix('{') {
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    extend(base, group[start..at].trim(), found);
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return;
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let path: Vec<String> = base.iter().cloned().chain([name.clone()]).collect();
    match rest[name.len()..].strip_prefix("::") {
        Some(more) if !name.is_empty() => extend(&path, more, found),
        _ => found.push(path),
    }
}

/// A circle of imports, if there is one.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn visit(
        graph: &Graph,
        module: &String,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|visited| visited == module) {
            return Some(way[start..].iter().chain([module]).cloned().collect());
        }
        if done.contains(module) {
            return None;
        }
        way.push(module.clone());
        let found = graph[module].iter().find_map(|next| visit(graph, next, way, done));
        way.pop();
        done.insert(module.clone());
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| visit(graph, module, &mut Vec::new(), &mut done))
}

/// Floor of each module in the tables of ARCHITECTURE.md, 0 at the top of each: one map a table. A
/// module on two floors is on the upper one.
fn floors(text: &str) -> Vec<BTreeMap<String, usize>> {
    let mut tables: Vec<BTreeMap<String, usize>> = Vec::new();
    let mut floor = None;
    for line in text.lines() {
        floor = match floor {
            _ if line.starts_with("| floor |") => {
                tables.push(BTreeMap::new());
                Some(0)
            }
            Some(floor) if line.starts_with('|') => {
                let quoted = line.split('`').skip(1).step_by(2);
                for file in quoted.filter(|name| name.ends_with(".rs") || name.contains('/')) {
                    let module = file.split('/').next().unwrap_or_default().trim_end_matches(".rs");
                    tables.last_mut().expect("a header").entry(module.to_owned()).or_insert(floor);
                }
                Some(floor + 1)
            }
            _ => None,
        };
    }
    tables
}

/// Imports of `graph` from a floor above, and modules that have no floor.
fn climbing(graph: &Graph, floors: &BTreeMap<String, usize>) -> Vec<String> {
    let mut found = Vec::new();
    for (module, imports) in graph.iter().filter(|(module, _)| !["lib", "main", "prelude"].contains(&module.as_str())) {
        let Some(floor) = floors.get(module) else {
            found.push(format!("{module} has no floor"));
            continue;
        };
        let is_above = |import: &&String| floors.get(*import).is_some_and(|above| above < floor);
        found.extend(imports.iter().filter(is_above).map(|import| format!("{module} imports {import}")));
    }
    found
}

/// The files of `src` that are not compiled for tests only.
fn sources() -> Vec<(String, String)> {
    let (root, mut files) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), Vec::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("lists") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).expect("in src").to_str().expect("UTF-8").replace('\\', "/");
                let is_for_tests = ["tests.rs", "testing.rs"].iter().any(|file| name.ends_with(file));
                if !is_for_tests {
                    files.push((name, fs::read_to_string(&path).expect("reads")));
                }
            }
        }
    }
    files
}

#[test]
fn modules_import_without_circles() {
    let files = sources();
    for level in LEVELS {
        let graph = graph(&files, level);
        assert!(graph.len() > 2, "{level:?}: only {graph:?}");
        assert_eq!(circle(&graph), None, "below {level:?}");
    }
}

#[test]
fn modules_import_from_their_floor_and_below() {
    let (files, floors) = (sources(), floors(include_str!("../../ARCHITECTURE.md")));
    assert_eq!(floors.len(), 2, "tables of floors");
    for (level, floors) in [LEVELS[0], LEVELS[2]].into_iter().zip(&floors) {
        assert_eq!(climbing(&graph(&files, level), floors), Vec::<String>::new(), "below {level:?}");
    }
    assert!(floors[0]["config"] > floors[0]["engine"], "config is below the engines, so that it imports none");
}

#[test]
fn planted_imports_from_above_are_found() {
    let table = "| floor | modules |\n|---|---|\n| top | `engine/{cpu,cuda}` |\n| contract | `engine/{mod,trainer}.rs` \
                 |\n| settings | `config/`, `training.rs` of `Device::new` |\n\n| other |\n";
    let floors = floors(table);
    let floor = |name: &str, floor: usize| (name.to_owned(), floor);
    assert_eq!(floors, [BTreeMap::from([floor("engine", 1), floor("config", 3), floor("training", 3)])]);
    let found = |list: &[(&str, &str)]| -> Vec<String> {
        let files: Vec<_> = list.iter().map(|&(file, text)| (file.to_owned(), text.to_owned())).collect();
        climbing(&graph(&files, &[]), &floors[0])
    };
    let engine = ("engine/mod.rs", "use crate::training::Training;\nuse crate::config::Config;\n");
    let training = ("training.rs", "");
    assert!(found(&[engine, ("config/mod.rs", "use crate::training::Training;\n"), training]).is_empty());
    let climbs = ("config/check.rs", "use crate::engine::Estimator;\n");
    assert_eq!(found(&[engine, climbs, training]), ["config imports engine"]);
    assert_eq!(found(&[engine, training, ("new.rs", "")]), ["new has no floor"]);
}

/// The exceptions to the floors of ARCHITECTURE.md, so that a new import is noticed.
#[test]
fn engines_do_not_import_each_other() {
    let files = sources();
    let engines = graph(&files, &["engine"]);
    for (engine, other) in [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "reference"), ("cpu", "reference")] {
        assert!(!engines[engine].contains(other), "engine/{engine} imports engine/{other}");
    }
    let cuda = graph(&files, &["engine", "cuda"]);
    for (module, allowed) in [("driver", &[][..]), ("abi", &["driver"][..])] {
        let above: Vec<_> = cuda[module].iter().filter(|import| !allowed.contains(&import.as_str())).collect();
        assert!(above.is_empty(), "engine/cuda/{module} imports {above:?}");
    }
}

/// Addresses of device memory are made, and kernels launched, where buffers are borrowed and their
/// lengths checked: in `launch/`. So nothing above the driver but `launch/` needs `unsafe`.
#[test]
fn only_launches_handle_addresses() {
    let files = sources();
    let cuda: Vec<_> = files.iter().filter(|(file, _)| file.starts_with("engine/cuda/")).collect();
    let uses = |folder: &str, word: &str| {
        cuda.iter()
            .any(|(file, text)| file.starts_with(&format!("engine/cuda/{folder}")) && code_of(text).contains(word))
    };
    for word in [".address()", "unsafe {"] {
        assert!(uses("launch/", word), "{word}");
        for (file, text) in &cuda {
            let is_allowed = ["driver/", "abi/", "launch/"].iter().any(|folder| file.contains(folder));
            assert!(is_allowed || !code_of(text).contains(word), "{file} contains {word:?}");
        }
    }
}

/// Planted circles are found, however they are written; tests and comments do not count.
#[test]
fn planted_circles_are_found() {
    let files = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|&(file, text)| (file.to_owned(), text.to_owned())).collect()
    };
    let found = |list: &[(&str, &str)], level: &[&str]| circle(&graph(&files(list), level)).is_some();
    let b_imports_a = ("b.rs", "use crate::a::Item;\n");
    assert!(found(&[("a.rs", "use crate::b::Other;\n"), b_imports_a], &[]));
    assert!(found(
        &[("a/deep.rs", "use crate::{\n    c::X,\n    b::{Other, More},\n};\n"), ("c.rs", ""), b_imports_a],
        &[]
    ));
    assert!(found(&[("a.rs", "fn f() { crate::b::f() }\n"), b_imports_a], &[]));
    let through_c = [("a.rs", "use crate::c::C;\n"), ("c.rs", "use crate::b::B;\n"), b_imports_a];
    assert!(found(&through_c, &[]));
    assert!(!found(&through_c[1..], &[]));
    assert!(!found(&[("a.rs", "//! See crate::b::Other.\n#[cfg(test)]\nuse crate::b::Other;\n"), b_imports_a], &[]));
    assert!(!found(&[("a.rs", "#[cfg(test)]\nmod tests {\n    use crate::b::Other;\n}\n"), b_imports_a], &[]));
    let cuda = ["engine", "cuda"];
    let launch = ("engine/cuda/launch/sweep.rs", "use super::super::rows::Rows;\nuse super::Packed;\n");
    assert!(found(&[launch, ("engine/cuda/rows.rs", "use super::launch::Packed;\n")], &cuda));
    assert!(found(&[launch, ("engine/cuda/rows.rs", "use crate::engine::cuda::launch::Packed;\n")], &cuda));
    assert!(!found(
        &[launch, ("engine/cuda/rows.rs", "use super::abi::Params;\n"), ("engine/cuda/abi/mod.rs", "")],
        &cuda
    ));
}
