//! Kernels of a laboratory whose warps keep their rows in registers, as timed on an H100, and the
//! model's error.
//!
//! A block has one warp that brings weights by bulk copies and two warpgroups of 64 rows each,
//! which multiply by `wgmma`, or all warps by `mma.sync`; there is one block to a multiprocessor.
//! `laboratory.csv` has what was measured, in TFLOP/s of so many operations, and what a virtual
//! H100 counted of one block in one step more (or, of products alone, in eight more of 128 × 256 ×
//! 256).

use super::time::{Card, Launch, Traffic, Turns};
use crate::counters::Counters;

/// The kernel to which [`super::time::Card::role_clocks`] is fitted. The others are the check.
pub const FITTED: (&str, Turns) = ("Euler steps of 4×256", Turns::Together);

/// Steps of a launch, so many that its own time does not count: 30 ms were measured.
const STEPS: f64 = 1000.0;

/// One kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    pub kernel: String,
    pub turns: Turns,
    /// Floating-point operations of a block's step.
    pub operations: f64,
    /// Measured operations per second, of the whole card.
    pub rate: f64,
    /// Of a block's step.
    pub counters: Counters,
}

/// What was measured.
pub fn timed() -> Vec<Timed> {
    let line = |line: &str| {
        let mut fields = line.split(',');
        let kernel = fields.next()?.to_string();
        let turns = match fields.next()? {
            "alike" => Turns::Alike,
            "together" => Turns::Together,
            "in turn" => Turns::InTurn,
            _ => return None,
        };
        let mut number = || fields.next()?.parse::<f64>().ok();
        let (operations, tera) = (number()?, number()?);
        let mut counters = Counters::default();
        for (_, count) in counters.fields() {
            *count = number()? as u64;
        }
        Some(Timed { kernel, turns, operations, rate: 1e12 * tera, counters })
    };
    include_str!("laboratory.csv").lines().filter_map(line).collect()
}

impl Timed {
    /// The modelled operations per second.
    pub fn modelled(&self, card: &Card) -> f64 {
        let blocks = card.gpu.n_multiprocessors;
        let counters = self.counters.scaled(STEPS * blocks);
        let Timed { turns, .. } = *self;
        let launch =
            Launch { counters, blocks: blocks as u64, resident: 1, largest: 1.0, traffic: Traffic::Cached, turns };
        self.operations * STEPS * blocks / launch.time(card).seconds
    }
}

/// The error of the modelled times as a table in Markdown, `*` where the model was fitted.
pub fn table(card: &Card) -> String {
    let mut table = "| kernel | warpgroups | measured | modelled | error of the time |\n\
                     | --- | --- | --- | --- | --- |\n"
        .to_string();
    for timed in timed() {
        let modelled = timed.modelled(card);
        let how = match timed.turns {
            Turns::Alike => "",
            Turns::Together => "together",
            Turns::InTurn => "in turn",
        };
        let mark = if (timed.kernel.as_str(), timed.turns) == FITTED { "*" } else { "" };
        table += &format!(
            "| {} | {how} | {:.0} TFLOP/s | {:.0} TFLOP/s | {:+.0} %{mark} |\n",
            timed.kernel,
            1e-12 * timed.rate,
            1e-12 * modelled,
            100.0 * (timed.rate / modelled - 1.0)
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::time::H100_MEASURED;
    use super::*;

    #[test]
    fn all_lines_are_read() {
        let names: Vec<String> = Counters::default().named().into_iter().map(|(name, _)| name).collect();
        let header = format!("kernel,turns,operations,tflops,{}", names.join(","));
        assert_eq!(include_str!("laboratory.csv").lines().next(), Some(header.as_str()));
        assert_eq!(timed().len() + 1, include_str!("laboratory.csv").lines().count());
    }

    #[test]
    fn the_constant_is_that_of_the_fit() {
        let all = timed();
        let fitted = all.iter().find(|timed| (timed.kernel.as_str(), timed.turns) == FITTED).expect("fitted");
        let error =
            |role_clocks: f64| (fitted.modelled(&Card { role_clocks, ..H100_MEASURED }) / fitted.rate).ln().abs();
        let stated = H100_MEASURED.role_clocks;
        assert!(error(stated) < error(stated - 0.1) && error(stated) < error(stated + 0.1), "{}", error(stated));
    }

    /// Turns help, and the model says so without having seen it.
    #[test]
    fn turns_are_faster() {
        let of = |turns: Turns| {
            let all = timed();
            let timed = all.iter().find(|timed| timed.kernel == FITTED.0 && timed.turns == turns).expect("a line");
            timed.modelled(&H100_MEASURED)
        };
        assert!(of(Turns::InTurn) > 1.04 * of(Turns::Together));
    }

    #[test]
    fn the_documentation_states_the_errors() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let text = std::fs::read_to_string(path).expect("README.md");
        let table = table(&H100_MEASURED);
        assert!(text.contains(&table), "README.md has another table than\n{table}");
    }
}
