//! Configurations, with `--set`.

use std::fs;

use action_matching::config::Config;

use super::Folder;
use crate::common_fuzz::{Answer, NUMBERS, Random, Target, Text, run};

const VALUES: [&str; 40] = [
    "true",
    "false",
    "\"a.npz\"",
    "''",
    "[]",
    "[1, 2]",
    "[[1]]",
    "{}",
    "{ kind = \"raw\" }",
    "{ kind = \"fourier\", frequencies = [0.5] }",
    "{ kind = \"polynomial\", coefficients = [] }",
    "\"constant\"",
    "\"one-minus-t\"",
    "\"cosine\"",
    "\"silu\"",
    "\"tanh\"",
    "\"scalar\"",
    "\"dot\"",
    "\"quadratic\"",
    "\"linear\"",
    "\"spline\"",
    "\"learned\"",
    "\"nearest\"",
    "\"generative-vp\"",
    "\"ot\"",
    "\"unbalanced\"",
    "\"independent\"",
    "\"counts\"",
    "\"action\"",
    "\"weak\"",
    "\"regression\"",
    "\"simpson\"",
    "\"importance\"",
    "\"uniform\"",
    "\"exact\"",
    "\"tf32\"",
    "\"\\u0000\"",
    "1979-05-27T07:32:00Z",
    "\"\"\"\n\"\"\"",
    "[\"a\", 1]",
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

/// Every `section.key` of the defaults.
fn keys() -> Vec<String> {
    let table: toml::Table = Config::default().to_toml().expect("TOML").parse().expect("TOML");
    let of = |(section, values): (&String, &toml::Value)| -> Vec<String> {
        values.as_table().expect("a section").keys().map(|key| format!("{section}.{key}")).collect()
    };
    table.iter().flat_map(of).chain(["data.times_path".to_string()]).collect()
}

fn value(random: &mut Random) -> &'static str {
    if random.percent(50) { random.pick::<str>(&VALUES) } else { random.pick::<str>(&NUMBERS) }
}

/// Arguments of `--set`.
fn overrides(random: &mut Random, keys: &[String]) -> Vec<String> {
    (0..random.below(3))
        .map(|_| {
            let mut text = format!("{}={}", random.pick::<str>(keys), value(random)).into_bytes();
            if random.percent(25) {
                Text::change(random, &mut text, b"", &["=", ".", "\"", "[", "]", "data", "training"]);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
        .collect()
}

#[test]
fn configurations() {
    let target = Target { name: "configuration", inputs: 100_000, bytes_per_byte: 256, microseconds_per_byte: 10 };
    let folder = Folder::new(target.name);
    let (path, again) = (folder.path("run.toml"), folder.path("again.toml"));
    let (valid, keys) = (valid(), keys());
    let words: Vec<&str> = keys.iter().flat_map(|key| key.split('.')).chain(VALUES).collect();
    run(
        &target,
        |random| {
            let mut text = random.pick::<[u8]>(&valid).to_vec();
            if random.percent(30) {
                // A short file of some settings.
                text = b"data.path = \"a.npz\"\n".to_vec();
                let n = 1 + random.below(4);
                for _ in 0..n {
                    text.extend(format!("{} = {}\n", random.pick::<str>(&keys), value(random)).bytes());
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
            let overrides = overrides(random, &keys);
            let Ok(config) = Config::read(&path, &overrides) else { return Answer::Refused };
            let text = config.to_toml().expect("what was read can be recorded");
            fs::write(&again, &text).expect("written");
            let read = Config::read(&again, &[]).expect("what a run records can be read again");
            assert_eq!(read, config);
            Answer::Accepted
        },
    );
}
