//! Configurations, with `--set`.

use std::fs;

use action_matching::config::{Config, accepted_values};

use super::Folder;
use crate::common_fuzz::{Answer, NUMBERS, Random, Target, Text, run};

/// Values that hardly a key takes.
const ODD_VALUES: [&str; 14] = [
    "true",
    "''",
    "[]",
    "[[1]]",
    "[\"a\", 1]",
    "{}",
    "{ kind = 3 }",
    "{ kind = \"linear\", rate = 0.5 }",
    "{ kind = { kind = \"weak\" } }",
    "\"\\u0000\"",
    "\"auto\"",
    "\"polynomial\"",
    "1979-05-27T07:32:00Z",
    "\"\"\"\n\"\"\"",
];

/// Valid configurations to start from: the defaults, written out, and those of the examples.
fn valid() -> Vec<Vec<u8>> {
    let defaults = Config {
        data: action_matching::config::DataConfig { path: "/a.npz".into(), ..Default::default() },
        ..Default::default()
    };
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let entries = fs::read_dir(examples).expect("the examples").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "toml")).collect();
    paths.sort();
    assert!(!paths.is_empty());
    let examples = paths.iter().map(|path| fs::read(path).expect("readable"));
    [defaults.to_toml().expect("TOML").into_bytes(), b"[data]\npath = \"a.npz\"\n".to_vec()]
        .into_iter()
        .chain(examples)
        .collect()
}

/// A key and a value: mostly one that the key takes.
fn setting(random: &mut Random, accepted: &[(String, String)]) -> String {
    let (key, value) = &accepted[random.below(accepted.len())];
    let value = match random.below(10) {
        0..5 => value,
        5..7 => &accepted[random.below(accepted.len())].1,
        7 | 8 => random.pick::<str>(&NUMBERS),
        _ => random.pick::<str>(&ODD_VALUES),
    };
    format!("{key} = {value}")
}

/// Arguments of `--set`.
fn overrides(random: &mut Random, accepted: &[(String, String)]) -> Vec<String> {
    (0..random.below(3))
        .map(|_| {
            let mut text = setting(random, accepted).into_bytes();
            if random.percent(25) {
                Text::change(random, &mut text, b"", &["=", ".", "\"", "[", "]", "data", "training"]);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
        .collect()
}

/// The keys and values come from the table of keys, so that those of a new key are tried too.
#[test]
fn keys_of_every_form_are_tried() {
    let accepted = accepted_values();
    for (key, value) in [
        ("objective.path", "{ kind = \"learned\", hidden = [64, 64], rate = 0.3 }"),
        ("objective.path.rate", "0.3"),
        ("objective.sigma", "{ value = 0.1, schedule = \"one-minus-t\" }"),
        ("objective.time_rule", "\"importance\""),
        ("objective.bend_rate", "0.3"),
        ("data.standardise", "\"isotropic\""),
    ] {
        assert!(accepted.iter().any(|known| known == &(key.into(), value.into())), "{key} = {value}");
    }
}

#[test]
fn configurations() {
    let target = Target { name: "configuration", inputs: 100_000, bytes_per_byte: 256, microseconds_per_byte: 10 };
    let folder = Folder::new(target.name);
    let (path, again) = (folder.path("run.toml"), folder.path("again.toml"));
    let (valid, accepted) = (valid(), accepted_values());
    let words: Vec<&str> =
        accepted.iter().flat_map(|(key, value)| key.split('.').chain([value.as_str()])).chain(ODD_VALUES).collect();
    run(
        &target,
        |random| {
            let mut text = random.pick::<[u8]>(&valid).to_vec();
            if random.percent(30) {
                // A short file of some settings.
                text = b"data.path = \"a.npz\"\n".to_vec();
                let n = 1 + random.below(4);
                for _ in 0..n {
                    text.extend(setting(random, &accepted).bytes().chain(*b"\n"));
                }
            }
            let other = random.pick::<[u8]>(&valid);
            for _ in 0..random.below(4) {
                Text::change(random, &mut text, other, &words);
            }
            text
        },
        |input, random| {
            fs::write(&path, input).expect("written");
            let overrides = overrides(random, &accepted);
            let Ok(config) = Config::read(&path, &overrides) else { return Answer::Refused };
            let text = config.to_toml().expect("what was read can be recorded");
            fs::write(&again, &text).expect("written");
            let read = Config::read(&again, &[]).expect("what a run records can be read again");
            assert_eq!(read, config);
            Answer::Accepted
        },
    );
}
