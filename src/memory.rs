//! Sizes in memory: checked products, refused before anything is allocated if they cannot fit.
//!
//! ```
//! use action_matching::memory;
//!
//! assert_eq!(memory::bytes(&[1000, 3, size_of::<f32>()]), 12_000);
//! let error = memory::require("run.toml", "n", memory::bytes(&[usize::MAX, 8])).unwrap_err();
//! assert!(error.to_string().starts_with("run.toml: n: "));
//! ```

use crate::error::{Error, InputKind, Origin, Result};

/// Product of counts and the size of one value, in bytes; `u128::MAX` if it is larger.
#[must_use]
pub fn bytes(factors: &[usize]) -> u128 {
    factors.iter().fold(1, |product: u128, &factor| product.saturating_mul(factor as u128))
}

/// Fails if `bytes` cannot fit into this machine's memory; `field` of `origin` requests them.
///
/// # Errors
/// [`Error::Input`] names the bytes requested and available.
pub fn require(origin: impl Into<Origin>, field: &str, bytes: u128) -> Result<()> {
    // No buffer can be larger, whatever the machine has.
    let limit = isize::MAX as u128;
    let available = available().map_or(limit, |available| u128::from(available).min(limit));
    if bytes <= available {
        return Ok(());
    }
    let size = if bytes == u128::MAX {
        "more than 10³⁸ bytes".to_string()
    } else {
        format!("{bytes} bytes{}", rounded(bytes))
    };
    let problem = format!("takes {size}, of which this machine has {available}{}", rounded(available));
    Err(Error::input(origin, field, problem, "use fewer").of_kind(InputKind::TooLarge))
}

/// Bytes in a larger unit, in parentheses.
fn rounded(bytes: u128) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (1..=units.len()).rev().find(|power| bytes >> (10 * power) > 0);
    unit.map_or(String::new(), |power| {
        format!(" ({} {})", crate::display::significant(bytes as f64 / 1024f64.powi(power as i32), 4), units[power - 1])
    })
}

/// Bytes that this process could still use: available memory and free swap, within the limit of its
/// control group. `None` if the system does not tell.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let machine = (kibibytes("MemAvailable")? + kibibytes("SwapFree").unwrap_or(0)).saturating_mul(1024);
    // The limits of the group itself, as a container sees them: version 2, then version 1.
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    Some(group.map_or(machine, |group| group.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_exact_and_saturate() {
        assert_eq!(bytes(&[1 << 40, 1 << 40, 3]), 3 << 80);
        assert_eq!(bytes(&[usize::MAX; 3]), u128::MAX);
        assert_eq!(bytes(&[usize::MAX, usize::MAX, 0]), 0);
    }

    #[test]
    fn what_cannot_fit_is_refused_with_its_size() {
        require("command line", "-n", 4096).unwrap();
        let message = require("command line", "-n 7", bytes(&[8, 1 << 50])).unwrap_err().to_string();
        assert!(
            message.starts_with("command line: -n 7: takes 9007199254740992 bytes (8.000 PiB), of which"),
            "{message}"
        );
        let message = require("command line", "-n 7", bytes(&[usize::MAX; 3])).unwrap_err().to_string();
        assert!(message.contains("more than 10³⁸ bytes"), "{message}");
    }
}
