//! The manual of all keys: what each means, its unit, and when to change it. What a key takes is
//! that of [`KEYS`](super::keys), defaults are those of the types. `docs/configuration.md` is made
//! of it (the test below), and `amatch inspect --keys` prints it.

use std::fmt::Write;

use serde::Deserialize;

use super::Config;
use super::keys::{described, inline, without};

/// What is said of a key, or of a setting of a key, such as `objective.path.limit`.
struct Entry {
    key: &'static str,
    /// Empty for what has none.
    unit: &'static str,
    meaning: &'static str,
    /// When to change it.
    when: &'static str,
}

const fn entry(key: &'static str, unit: &'static str, meaning: &'static str, when: &'static str) -> Entry {
    Entry { key, unit, meaning, when }
}

/// In the order of the keys; settings follow theirs.
const ENTRIES: &[Entry] = &[
    entry("data.path", "", "file of the snapshots, relative to the configuration file", "always: it is required"),
    entry(
        "data.times_path",
        "",
        "`.npy` of the times, if samples are a `.npy` of their own",
        "with a pair of `.npy` files",
    ),
    entry(
        "data.samples",
        "",
        "name of the samples `[N, d]`: an array, columns of a table with `*` and `?`, or `obsm/…`, `X`, `layers/…` of cells",
        "if they are called otherwise, or some columns are no samples",
    ),
    entry("data.times", "unit of your own", "name of the times `[N]`", "if they are called otherwise"),
    entry(
        "data.conditions",
        "",
        "covariates c of s(x, t, c): arrays or columns, numbers or categories",
        "with doses, treatments or parameters ([conditions.md](conditions.md))",
    ),
    entry("data.weights", "any", "name of a weight of each row, 0 or more", "if rows do not count alike"),
    entry(
        "data.growth",
        "1 / time",
        "name of a net growth rate of each row",
        "if rates are known ([growth.md](growth.md))",
    ),
    entry(
        "data.hold_out",
        "time, or share",
        "times, a range of them, a share of the rows, or the rows of a value, that are not trained on",
        "to measure predictions with `evaluate`",
    ),
    entry("data.hold_out.share", "share", "of the rows of every snapshot", "with few rows: larger"),
    entry("data.hold_out.seed", "", "seed of the choice of rows", "to repeat it with other rows"),
    entry("data.hold_out.column", "", "array or column that marks rows", "if a division is part of the data"),
    entry("data.hold_out.value", "", "its value in the rows that are held out", "with `column`"),
    entry(
        "data.where",
        "",
        "condition on columns; other rows are not read",
        "to leave out cell types, plates or times",
    ),
    entry(
        "data.standardize",
        "",
        "map to network coordinates: one scale for all columns, one for each, one that outliers do not move, or none",
        "columns of different units: `per-dimension`; outliers: `robust`",
    ),
    entry(
        "data.components",
        "",
        "principal components in the place of the columns; of an array of `obsm` its first columns",
        "more than 1024 columns, or noise in most of them",
    ),
    entry(
        "model.hidden",
        "",
        "widths of the hidden layers",
        "few rows or speed: `[64, 64, 64]`; many rows of many columns: wider",
    ),
    entry("model.activation", "", "nonlinearity between layers", "seldom"),
    entry("model.head", "", "how the output o becomes s: s = o, ½‖x − o‖², or o·x", "seldom"),
    entry(
        "model.time_embedding",
        "",
        "how time enters: as it is, or with sines and cosines",
        "motion that turns or repeats within the recording: `fourier`",
    ),
    entry(
        "model.time_embedding.frequencies",
        "cycles per whole time",
        "of the sines and cosines",
        "with `fourier`, as many cycles as the motion has",
    ),
    entry(
        "objective.sigma",
        "network units / √(network time)",
        "diffusion σ: particles move with noise, and s accounts for it",
        "if single particles are known to diffuse",
    ),
    entry("objective.sigma.value", "network units / √(network time)", "σ, or σ₀ of a schedule", "as `sigma`"),
    entry("objective.sigma.schedule", "", "`one-minus-t` is σ(t) = σ₀ (1 − t)", "noise that ends with the recording"),
    entry(
        "objective.laplacian",
        "",
        "how Δs is formed if σ > 0: from random directions, or exactly",
        "few dimensions: `exact`",
    ),
    entry("objective.laplacian.probes", "", "directions per row", "a noisy loss with diffusion: more"),
    entry(
        "objective.growth",
        "1 / network units²",
        "λ: mass grows at the rate λs; `auto` decides on times left out whether it does",
        "populations that grow or shrink ([growth.md](growth.md))",
    ),
    entry(
        "objective.growth_head",
        "",
        "growth by a network of its own in the place of λs, outside the theory of one potential",
        "growth that does not follow the motion ([growth.md](growth.md#a-network-of-its-own-for-growth)); on the CPU",
    ),
    entry(
        "objective.cost_exponent",
        "",
        "q of the transport cost ‖v‖^q / q",
        "seldom; 2 is optimal transport as usual",
    ),
    entry(
        "objective.time_weight",
        "",
        "ω(t), how much times count in the loss",
        "if some times matter more than others",
    ),
    entry("objective.time_weight.coefficients", "", "cₖ of ω(t) = Σ cₖ tᵏ, t from 0 to 1", "with `polynomial`"),
    entry(
        "objective.estimator",
        "",
        "form of the loss; all have the same mean gradient ([paths.md](paths.md#form-of-the-loss))",
        "seldom: `auto` takes that of least variance",
    ),
    entry(
        "objective.estimator.centering",
        "",
        "makes `action` exactly invariant to offsets c(t) of s, for as many rows again",
        "if the loss of `action` wanders",
    ),
    entry("objective.estimator.intervals", "", "equal parts between two snapshots", "with `weak`, fast motion: more"),
    entry(
        "objective.path",
        "",
        "how mass is assumed to move between snapshots ([paths.md](paths.md))",
        "if you know: it decides most",
    ),
    entry(
        "objective.path.limit",
        "",
        "longest slope of a spline, in units of the shorter chord that meets there",
        "overshooting trajectories: smaller",
    ),
    entry(
        "objective.path.knots",
        "",
        "by what intervals are measured for slopes: distance traveled, the clock, or 1 each",
        "particles in a flow, resolved in time: `clock`",
    ),
    entry("objective.path.hidden", "", "widths of the network that bends a learned path", "seldom"),
    entry(
        "objective.path.rate",
        "share of `learning_rate`",
        "learning rate of that network",
        "a path that does not settle: smaller",
    ),
    entry(
        "objective.pairing",
        "",
        "which rows of neighboring snapshots belong together",
        "rows that enter and leave: `unbalanced`; growth: `wfr`",
    ),
    entry(
        "objective.pairing.rows",
        "",
        "most rows that one problem pairs; larger snapshots are divided into random blocks",
        "short of memory: fewer; best pairs: up to 5000",
    ),
    entry(
        "objective.pairing.relaxation",
        "network units²",
        "squared distance beyond which rows appear and vanish rather than move; without `growth` rows that have no partner \
         are left out",
        "as the warning of a run says",
    ),
    entry(
        "objective.mass",
        "",
        "mass of the snapshots: the same, numbers of rows, as known growth rates say, or totals",
        "with `growth`",
    ),
    entry("objective.mass.values", "any", "mass at each time that is trained on", "with `totals`"),
    entry("objective.time_rule", "", "how times of a step are drawn", "seldom"),
    entry("training.steps", "", "optimizer steps", "a loss that still falls: more"),
    entry("training.interior_rows", "rows", "rows of a step between snapshots", "a noisy loss: more"),
    entry(
        "training.boundary_rows",
        "rows",
        "rows of a step at each of the two end times, of estimators that need any",
        "as `interior_rows`",
    ),
    entry(
        "training.shards",
        "",
        "parts of a batch whose gradients GPUs sum apart, so that up to so many GPUs can share it: 1, 2, 4, … 64. \
         A CPU takes it and sums in its own order",
        "several GPUs: 8 for each, up to 64 ([several-gpus.md](several-gpus.md#shards))",
    ),
    entry("training.learning_rate", "", "after warm-up", "a loss that jumps: smaller"),
    entry(
        "training.warmup_steps",
        "steps",
        "linear rise of the learning rate, over a tenth of `steps` at most",
        "a loss that jumps at first: more",
    ),
    entry("training.schedule", "", "how the learning rate goes on", "to compare runs of different length: `constant`"),
    entry("training.schedule.final_rate", "share of `learning_rate`", "at the last step", "seldom"),
    entry("training.beta1", "", "β₁ of AdamW", "seldom"),
    entry("training.beta2", "", "β₂ of AdamW", "seldom"),
    entry("training.epsilon", "", "ε of AdamW", "seldom"),
    entry("training.weight_decay", "", "decoupled weight decay", "seldom"),
    entry("training.clip_norm", "", "largest norm of a gradient; 0 does not clip", "seldom"),
    entry(
        "training.ema_decay",
        "",
        "of the moving average of the parameters that becomes the model; it covers a tenth of the steps at most",
        "seldom",
    ),
    entry("training.seed", "", "of initial weights and batches", "to see what depends on chance"),
    entry(
        "training.seeds",
        "",
        "members of an ensemble ([evaluation.md](evaluation.md#an-ensemble))",
        "to know how sure a model is: 5",
    ),
    entry(
        "training.stop",
        "",
        "whether rows kept apart choose the model and end the run ([evaluation.md](evaluation.md#early-stopping))",
        "few rows or large networks: `held-out`",
    ),
    entry(
        "training.stop.share",
        "share",
        "of the rows of every snapshot, 0.001 to 0.5, that is kept apart",
        "few rows: larger",
    ),
    entry(
        "training.stop.patience",
        "",
        "measurements in a row without a better one, about 50 of which a whole run makes, after which it ends",
        "to stop sooner: fewer",
    ),
    entry(
        "training.precision",
        "",
        "operands of matrix products on a GPU; `auto` is bf16. A CPU computes in f32",
        "to compare with a CPU: `f32` ([gpu.md](gpu.md))",
    ),
    entry("output.folder", "", "run folder, relative to where the program is started", "to keep runs apart"),
    entry("output.checkpoint_every", "steps", "between checkpoints", "long steps: fewer"),
    entry("output.metrics_every", "steps", "between lines of `metrics.jsonl`", "short runs: 1"),
];

/// In the place of a default that no file says.
const UNSAID: &[(&str, &str)] = &[
    ("data.path", "required"),
    ("data.hold_out.share", "required"),
    ("data.hold_out.column", "required"),
    ("data.hold_out.value", "required"),
    ("output.folder", "`runs/` and the name of the file"),
    // A σ that is constant is written as a number.
    ("objective.sigma.schedule", "`\"constant\"`"),
];

/// The keys in Markdown: a table for each section.
#[must_use]
pub fn manual() -> String {
    let mut text = String::new();
    let mut last = String::new();
    for (key, takes) in described() {
        let Some(entry) = ENTRIES.iter().find(|entry| entry.key == key) else { continue };
        let section = key.split('.').next().unwrap_or_default();
        if section != last {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "{}### `[{section}]`\n\n| key | value | unit | default | meaning | when to change it |\n\
                 | --- | --- | --- | --- | --- | --- |\n",
                if last.is_empty() { "" } else { "\n" }
            );
            last = section.to_string();
        }
        let name = &key[section.len() + 1..];
        let Entry { unit, meaning, when, .. } = entry;
        let default = default_of(&key).unwrap_or_else(|| "–".into());
        let _ = writeln!(text, "| `{name}` | {takes} | {unit} | {default} | {meaning} | {when} |");
    }
    text
}

/// The default of a key, or of a setting of a kind, as in a file; none if there is none.
fn default_of(key: &str) -> Option<String> {
    if let Some((_, words)) = UNSAID.iter().find(|(unsaid, _)| *unsaid == key) {
        return Some((*words).into());
    }
    let mut parts = key.splitn(3, '.');
    let (section, name, setting) = (parts.next()?, parts.next()?, parts.next());
    let table = toml::Table::try_from(Config::default()).ok()?;
    let value = table.get(section).and_then(|keys| keys.get(name));
    let Some(setting) = setting else { return value.map(|value| format!("`{}`", inline(value))) };
    let default = |value: toml::Value| {
        let keys = toml::Table::from_iter([(name.to_string(), value)]);
        let config = Config::deserialize(toml::Table::from_iter([(section.to_string(), keys.into())])).ok()?;
        let table = toml::Table::try_from(config).ok()?;
        Some(format!("`{}`", inline(table.get(section)?.get(name)?.get(setting)?)))
    };
    without(&format!("{section}.{name}"), setting).into_iter().find_map(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_words_and_in_its_place() {
        let keys: Vec<String> = described().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ENTRIES.iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>());
        for Entry { key, unit, meaning, when } in ENTRIES {
            assert!(!meaning.is_empty() && !when.is_empty(), "{key}");
            assert!([unit, meaning, when].iter().all(|words| !words.contains(['|', '\n'])), "{key}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_types() {
        for (key, default) in [
            ("data.path", "required"),
            ("data.hold_out.share", "required"),
            ("data.samples", "`\"samples\"`"),
            ("data.hold_out.seed", "`0`"),
            ("objective.sigma.value", "`0.0`"),
            ("objective.path.limit", "`2.0`"),
            ("objective.pairing.rows", "`2048`"),
            ("training.learning_rate", "`0.001`"),
            ("training.stop.patience", "`10`"),
            ("output.metrics_every", "`10`"),
        ] {
            assert_eq!(default_of(key).as_deref(), Some(default), "{key}");
        }
        for key in ["data.times_path", "model.time_embedding.frequencies", "objective.mass.values"] {
            assert_eq!(default_of(key), None, "{key}");
        }
    }

    /// The tables of `docs/configuration.md`, between two marks, are [`manual`]. With
    /// `INSTA_UPDATE=always` they are written anew.
    #[test]
    fn the_page_of_keys_is_made_of_them() {
        const MARKS: [&str; 2] =
            ["<!-- keys: written by `cargo test config::manual` -->\n\n", "\n<!-- end of keys -->\n"];
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let page = std::fs::read_to_string(path).expect("a page");
        let (before, rest) = page.split_once(MARKS[0]).expect("the first mark");
        let (found, after) = rest.split_once(MARKS[1]).expect("the last mark");
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            let page = format!("{before}{}{}{}{after}", MARKS[0], manual(), MARKS[1]);
            std::fs::write(path, page).expect("written");
        } else {
            assert_eq!(found, manual(), "INSTA_UPDATE=always cargo test config::manual writes the page anew");
        }
    }
}
