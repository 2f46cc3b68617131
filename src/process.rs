//! The process that wrote a file, and whether it still runs.

use std::fmt;

/// Identity of a process among all machines that share a file system, as far as the system can
/// tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId {
    /// Boot of the machine and namespace of its process numbers; empty if the system does not tell.
    host: String,
    /// Process number.
    number: u32,
    /// Start time in clock ticks since boot, because process numbers are reused.
    started: u64,
}

impl ProcessId {
    /// This process.
    pub fn current() -> Self {
        let number = std::process::id();
        ProcessId { host: host(), number, started: start_of(number).unwrap_or(0) }
    }

    /// True if it still runs; `None` for a process of another machine, or if the system does not
    /// tell.
    pub fn is_alive(&self) -> Option<bool> {
        let here = host();
        (!here.is_empty() && here == self.host).then(|| start_of(self.number) == Some(self.started))
    }

    /// Parses the text of [`fmt::Display`].
    pub fn parse(text: Option<&str>) -> Option<Self> {
        let mut words = text?.split('-');
        let (host, number, started) = (words.next()?, words.next()?, words.next()?);
        let process = ProcessId { host: host.into(), number: number.parse().ok()?, started: started.parse().ok()? };
        words.next().is_none().then_some(process)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}-{}-{}", self.host, self.number, self.started)
    }
}

/// Twelve digits of the boot identifier, and the namespace.
fn host() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let boot: String = boot.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    let namespace: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    if boot.is_empty() || namespace.is_empty() { String::new() } else { format!("{boot}.{namespace}") }
}

/// Start time of the process `number` of this machine; `None` if there is none, or a dead one.
fn start_of(number: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything; the 20 fields after it do not.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_back_as_it_was_written() {
        let process = ProcessId { host: "0123456789ab.4026531836".into(), number: 17, started: 99 };
        assert_eq!(ProcessId::parse(Some(&process.to_string())), Some(process));
        for bad in ["", "a-b-3", "a-1", "a-1-2-3"] {
            assert_eq!(ProcessId::parse(Some(bad)), None, "{bad}");
        }
        assert_eq!(ProcessId::parse(None), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_living_the_dead_and_the_unknown_are_told_apart() {
        let current = ProcessId::current();
        assert_eq!(current.is_alive(), Some(true));
        assert_eq!(
            ProcessId { started: current.started + 1, ..current.clone() }.is_alive(),
            Some(false),
            "number used again"
        );
        assert_eq!(ProcessId { host: "elsewhere".into(), ..current.clone() }.is_alive(), None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("starts");
        let process = ProcessId { number: child.id(), started: start_of(child.id()).expect("runs"), ..current };
        assert_eq!(process.is_alive(), Some(true));
        child.kill().expect("ends");
        // A zombie until its parent waits for it, but dead.
        while process.is_alive() == Some(true) {
            std::thread::yield_now();
        }
        child.wait().expect("is gone");
        assert_eq!(process.is_alive(), Some(false));
    }
}
