//! Exit codes of the program, in one table.

use action_matching::{Error, RankKind};

/// Everything asked for was done.
pub const DONE: u8 = 0;
/// Something failed; a message describes it.
pub const ERROR: u8 = 1;
/// The command line cannot be understood.
pub const USAGE: u8 = 2;
/// The model failed its own test.
pub const FAILED_TEST: u8 = 3;
/// The run was interrupted from outside and left a checkpoint: start it again with `--resume`. The
/// number is `EX_TEMPFAIL` of sysexits.h, which batch systems interpret as "try again".
pub const INTERRUPTED: u8 = 75;
/// Added to the number of the signal that ended the command.
pub const SIGNAL: u8 = 128;

/// The exit code of a command that ended with `error`.
pub fn of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        // The run has its last checkpoint.
        Some(Error::Rank { kind: RankKind::Lost, .. }) => INTERRUPTED,
        _ => ERROR,
    }
}

/// The table as `--help` shows it.
pub fn table() -> String {
    let rows = [
        (DONE.to_string(), "done"),
        (ERROR.to_string(), "error: the message says what is wrong and what helps"),
        (USAGE.to_string(), "the command line cannot be understood"),
        (FAILED_TEST.to_string(), "the model failed its own test, with `train --strict`"),
        (INTERRUPTED.to_string(), "interrupted from outside (SIGHUP, a lost rank): continue with --resume"),
        (format!("{SIGNAL} + n"), "ended by signal n: 130 for Ctrl-C, 143 for SIGTERM"),
    ];
    let rows = rows.map(|(code, meaning)| format!("  {code:<9}{meaning}"));
    format!("Exit codes:\n{}", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_lost_rank_asks_for_another_try() {
        let error = |kind| Err::<(), _>(Error::Rank { kind, problem: "rank 1".into(), fix: "again" });
        let code = |kind| of(&error(kind).context("training").expect_err("an error"));
        assert_eq!((code(RankKind::Lost), code(RankKind::Differs), code(RankKind::Missing)), (75, 1, 1));
        assert_eq!(of(&anyhow::anyhow!("another")), 1);
    }
}
