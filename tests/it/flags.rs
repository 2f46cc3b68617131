//! Messages of the library name its own settings; the program turns them into flags, in one place.

use std::fs;
use std::path::{Path, PathBuf};

/// The Rust files below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            found.push(path);
        }
    }
    found
}

/// The lines of code of the library with their places: no comments, attributes or tests.
fn library() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_library = |path: &PathBuf| {
        !path.starts_with(src.join("cli")) && !path.ends_with("main.rs") && !path.ends_with("tests.rs")
    };
    let mut lines = Vec::new();
    for path in sources(&src).into_iter().filter(is_library) {
        let text = fs::read_to_string(&path).expect("text");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with(['/', '#']));
        lines.extend(code.map(|(i, line)| (format!("{}:{}", path.display(), i + 1), line.to_string())));
    }
    lines
}

/// True if `line` holds a flag, as in `--steps`.
fn holds_flag(line: &str) -> bool {
    let starts_word = |before: Option<char>| before.is_none_or(|c| !c.is_alphanumeric() && c != '-');
    line.match_indices("--").any(|(at, _)| {
        starts_word(line[..at].chars().next_back()) && line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase())
    })
}

#[test]
fn no_message_of_the_library_names_a_flag() {
    for planted in [r#"fail("--steps", "is 0")"#, r#""use `amatch sample --method rk4`""#, r#"  "(--rtol/--atol)""#] {
        assert!(holds_flag(planted), "{planted}");
    }
    for innocent in ["a -- b", "i --> j", "x--y", "use `Plan::steps`"] {
        assert!(!holds_flag(innocent), "{innocent}");
    }
    let lines = library();
    assert!(lines.len() > 10_000, "{}", lines.len());
    let found: Vec<_> = lines.iter().filter(|(_, line)| holds_flag(line)).collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// Every setting that a message of the library names in backquotes is one that the program has
/// words for.
#[test]
fn every_setting_in_a_message_has_its_flag() {
    let table = include_str!("../../src/cli/flags.rs");
    let is_setting = |text: &&str| text.contains("::") && text.starts_with(|c: char| c.is_uppercase());
    let mut settings = Vec::new();
    for (place, line) in library() {
        // Within string literals; named by an `Error::setting` they stand without backquotes.
        let quoted = line.split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" ");
        settings.extend(
            quoted.split('`').skip(1).step_by(2).filter(is_setting).map(|text| (place.clone(), text.to_string())),
        );
        let plain = line.split('"').skip(1).step_by(2).filter(is_setting);
        settings.extend(
            plain
                .filter(|text| !text.contains(['{', ' ', '`']) || text.contains("::t0, "))
                .map(|text| (place.clone(), text.to_string())),
        );
    }
    assert!(settings.len() > 15, "{settings:?}");
    for (place, setting) in settings {
        assert!(table.contains(&format!("\"`{setting}`\"")), "{place}: {setting}");
    }
}
