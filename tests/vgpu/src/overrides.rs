//! Replacement of modules, for tests in which a program must meet a fault of its kernels.
//! `VGPU_OVERRIDE` names files of PTX, separated by colons. If a module holds the first entry of
//! such a file, the file is loaded instead of it.

/// The names of the entries in a text of PTX, in order.
fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.split(".entry").skip(1).filter_map(|rest| rest.split(['(', ' ', '\n', '\t']).find(|word| !word.is_empty()))
}

/// `ptx`, or the text of the file in `paths` that replaces it.
///
/// # Errors
/// A file that cannot be read or has no entry.
pub fn chosen(ptx: String, paths: &str) -> Result<String, String> {
    for path in paths.split(':').filter(|path| !path.is_empty()) {
        let other = std::fs::read_to_string(path).map_err(|error| format!("VGPU_OVERRIDE: {path}: {error}"))?;
        let first = entries(&other).next().ok_or_else(|| format!("VGPU_OVERRIDE: {path}: holds no entry"))?;
        if entries(&ptx).any(|entry| entry == first) {
            return Ok(other);
        }
    }
    Ok(ptx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_name() {
        let ptx =
            ".visible .entry sweep_bf16(\n.param .u64 p\n)\n{ ret; }\n.visible .entry\tother (.param .u32 q) { ret; }";
        assert_eq!(entries(ptx).collect::<Vec<_>>(), ["sweep_bf16", "other"]);
    }

    #[test]
    fn the_first_entry_of_a_file_decides() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let (a, b) =
            (file("a.ptx", ".entry a() { trap; }"), file("b.ptx", ".entry b() { trap; }\n.entry c() { ret; }"));
        let both = format!("{a}:{b}");
        let of = |ptx: &str| chosen(ptx.into(), &both).expect("chosen");
        assert!(of(".entry x() {}\n.entry b() {}").starts_with(".entry b() { trap"));
        assert!(of(".entry a() {}").starts_with(".entry a() { trap"));
        assert_eq!(of(".entry c() {}"), ".entry c() {}");
        assert!(chosen(String::new(), "/nowhere").expect_err("fails").contains("/nowhere"));
        assert!(chosen(String::new(), &file("empty", "")).expect_err("fails").contains("no entry"));
    }
}
