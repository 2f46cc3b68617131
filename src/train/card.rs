//! `README.md` of a run folder: the model card that Hugging Face shows for a folder with a model.
//!
//! Its last line holds a digest of the text above. A card that was changed, or is of somebody else,
//! has another digest or none: it stays.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::selftest::SelfTest;
use crate::config::{Config, digest_of_file, hexadecimal};
use crate::display::{shortest, significant};
use crate::error::Result;
use crate::files::{open_file, write_atomically};
use crate::model::{Condition, Model};
use crate::run_folder::RunFolder;

/// What a card tells of a run.
pub(super) struct Card<'a> {
    pub folder: &'a RunFolder,
    pub config: &'a Config,
    /// The model of the folder; of an ensemble, that of the first member.
    pub model: &'a Model,
    /// Time of each snapshot in data units, and its rows.
    pub snapshots: Vec<(f64, usize)>,
    /// Steps of the model.
    pub steps: u64,
    /// The test that ended the run, if it was made.
    pub test: Option<&'a SelfTest>,
    /// What computed it.
    pub arithmetic: &'a str,
}

/// Start and end of the last line.
const DIGEST: [&str; 2] = ["<!-- amatch: a card that was changed is kept; sha256 of the text above: ", " -->"];

/// What became of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Yes,
    /// There is one that a person wrote or changed.
    Kept,
}

impl Card<'_> {
    /// Writes the card, unless there is one that a person wrote or changed.
    pub fn write(&self) -> Result<Saved> {
        let path = self.folder.card();
        if path.exists() && !is_unchanged(&path) {
            return Ok(Saved::Kept);
        }
        let text = self.text()?;
        let [start, end] = DIGEST;
        write_atomically(&path, |out| writeln!(out, "{text}{start}{}{end}", digest(text.as_bytes())))?;
        Ok(Saved::Yes)
    }

    fn text(&self) -> Result<String> {
        let name = self.folder.path().file_name().map_or("run".into(), |name| name.to_string_lossy());
        let data = self.config.data.path.file_name().map_or("data".into(), |name| name.to_string_lossy());
        let sections = [
            self.front_matter(&name, &data),
            format!("# {name}\n\n{}", self.summary(&data)),
            self.usage(),
            self.test_section(),
            self.limits(),
            self.settings(&data)?,
        ];
        Ok(sections.join("\n"))
    }

    /// The YAML that Hugging Face reads. JSON text is YAML text.
    fn front_matter(&self, name: &str, data: &str) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut yaml = "---\nlibrary_name: action-matching\n# license: name one before you publish the model\n\
                        tags:\n- action-matching\n- optimal-transport\n- dynamics\n"
            .to_string();
        if data.ends_with(".h5ad") {
            yaml += "- single-cell\n";
        }
        let measured = self.measured();
        if !measured.is_empty() {
            yaml += &format!(
                "model-index:\n- name: {}\n  results:\n  - task:\n      type: dynamics\n      name: Population dynamics\n    \
                 dataset:\n      type: {1}\n      name: {1}\n    metrics:\n",
                quoted(name),
                quoted(data),
            );
            for (metric, value) in measured {
                yaml +=
                    &format!("    - type: energy-distance\n      name: {}\n      value: {value}\n", quoted(&metric));
            }
        }
        yaml + "---\n"
    }

    /// Means of the energy distances of the test, with what they are.
    fn measured(&self) -> Vec<(String, f64)> {
        let motions = self.test.map_or(&[][..], |test| &test.motions);
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let moved: Vec<f64> = motions.iter().filter_map(|motion| motion.model).collect();
        if moved.is_empty() || moved.len() < motions.len() {
            return Vec::new();
        }
        let rested = motions.iter().map(|motion| motion.no_motion).collect();
        let of =
            |what: &str| format!("{what}, mean over {} intervals between snapshots seen in training", motions.len());
        vec![(of("moved by the model"), mean(moved)), (of("not moved"), mean(rested))]
    }

    fn summary(&self, data: &str) -> String {
        let Model { architecture, coordinates, objective, .. } = self.model;
        let times: Vec<String> =
            self.snapshots.iter().map(|(time, rows)| format!("{} ({rows} rows)", shortest(*time))).collect();
        /// Snapshots that are listed.
        const SHOWN: usize = 20;
        let more = if times.len() > SHOWN { format!(", … ({} in all)", times.len()) } else { String::new() };
        let mut text = format!(
            "A potential s(x, t) whose gradient moves a population through its snapshots, learned by Action Matching\n\
             ([arXiv 2210.06662](https://arxiv.org/abs/2210.06662)) with [action-matching]({}) {}.\n\n\
             - Data: `{data}`, {} dimensions, {} snapshots: {}{more}\n\
             - Network: hidden layers {:?}, {} parameters\n",
            env!("CARGO_PKG_REPOSITORY"),
            env!("CARGO_PKG_VERSION"),
            architecture.dim,
            self.snapshots.len(),
            times.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "),
            architecture.hidden,
            architecture.n_parameters(),
        );
        for condition in &coordinates.conditions {
            let _ = writeln!(text, "- Condition: {}", condition.known());
        }
        if objective.sigma > 0.0 {
            let _ = writeln!(text, "- Diffusion: σ = {} in network units", objective.sigma);
        }
        if objective.growth > 0.0 {
            let head = if self.model.growth_head.is_some() { ", by a network of its own" } else { "" };
            let _ = writeln!(text, "- Growth: particles have weights, with λ = {}{head}", objective.growth);
        }
        text
    }

    fn usage(&self) -> String {
        let conditions = &self.model.coordinates.conditions;
        let value = |condition: &Condition| match condition {
            Condition::Number { name, mean, .. } => format!("{name:?}: {}", significant(*mean, 3)),
            Condition::Category { name, categories } => {
                format!("{name:?}: {:?}", categories.first().map_or("", String::as_str))
            }
        };
        let condition = match conditions.iter().map(value).collect::<Vec<_>>() {
            values if values.is_empty() => String::new(),
            values => format!(".under(**{{{}}})", values.join(", ")),
        };
        let [start, end] = self.model.coordinates.time_range.map(shortest);
        format!(
            "## Usage\n\n    import action_matching\n\n    model = action_matching.load(\".\"){condition}    # in this folder\n    \
             moved = model.sample(x, {start}, {end})              # points x [n, {dim}]\n    \
             velocity = model.velocity(x, {start})\n\n\
             Positions and times are in the units of the data. `amatch sample`, `amatch query` and `amatch export` do the\n\
             same from the command line, the last as a graph for ONNX.\n",
            dim = self.model.architecture.dim
        )
    }

    fn test_section(&self) -> String {
        let Some(test) = self.test else { return "## Metrics\n\nThe model was not tested.\n".into() };
        let mut text = "## Metrics\n\nThe test that ended the training, on the snapshots that the model has seen \
                        (`selftest.json` has all of it;\n`amatch evaluate` compares with data):\n\n\
                        | check | verdict | value | threshold |\n| --- | --- | --- | --- |\n"
            .to_string();
        for check in &test.checks {
            let verdict = serde_json::to_value(check.verdict).ok();
            let verdict = verdict.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
            let value = check.value.map_or("–".into(), |value| significant(value, 4));
            let _ = writeln!(text, "| {} | {verdict} | {value} | {} |", check.name, significant(check.threshold, 4));
        }
        for (what, value) in self.measured() {
            let _ = writeln!(text, "\nEnergy distance, {what}: {} (network units).", significant(value, 4));
        }
        text
    }

    fn limits(&self) -> String {
        let [start, end] = self.model.coordinates.time_range.map(shortest);
        let mut text = format!(
            "## Limits\n\n\
             - Trained on times {start} to {end}: outside of them, and far from the data, it is a guess.\n\
             - Between snapshots it follows a path that was assumed (`objective.path` below): snapshots do not say which row\n  \
             became which.\n"
        );
        if !self.model.coordinates.conditions.is_empty() {
            text += "- Conditions outside of those above were not seen.\n";
        }
        if let Some(test) = self.test {
            test.warnings().for_each(|warning| text += &format!("- The test of the run warns: {warning}\n"));
        }
        text
    }

    fn settings(&self, data: &str) -> Result<String> {
        // Names of folders are nobody else's business.
        let mut config = self.config.clone();
        config.data.path = data.into();
        config.data.times_path = config.data.times_path.as_ref().and_then(|path| Some(path.file_name()?.into()));
        config.output.folder = self.folder.path().file_name().unwrap_or_default().into();
        let indented: String =
            config.to_toml()?.lines().map(|line| format!("    {line}\n").replace("    \n", "\n")).collect();
        Ok(format!(
            "## Provenance\n\n\
             - action-matching {}, {} steps, on {}\n\
             - SHA-256 of `model.safetensors`: {}\n\n\
             Configuration:\n\n{}\n\n",
            env!("CARGO_PKG_VERSION"),
            self.steps,
            self.arithmetic,
            digest_of_file(&self.folder.model())?,
            indented.trim_end_matches('\n'),
        ))
    }
}

/// True if the file at `path` is a card as it was written.
pub(super) fn is_unchanged(path: &Path) -> bool {
    /// Far longer than any card.
    const LONGEST: u64 = 1 << 20;
    let Ok((_, size)) = open_file(path) else { return false };
    let text = if size <= LONGEST { fs::read_to_string(path).ok() } else { None };
    let Some(text) = text else { return false };
    let [start, end] = DIGEST;
    let split = text.rfind(start).map(|at| text.split_at(at));
    let found = split.and_then(|(above, line)| Some((above, line.strip_prefix(start)?.trim_end().strip_suffix(end)?)));
    found.is_some_and(|(above, found)| digest(above.as_bytes()) == found)
}

fn digest(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}
