//! `amatch report` and the report that a training ends with.

use std::fs;
use std::path::Path;

use serde_json::Value;
use zip::CompressionMethod;

use crate::cli::{SMALL, amatch, fails, succeeds, text, trained, workplace};
use crate::data_support::{f32s, npy, npz};

/// The page at `path`, parsed: it is well-formed, small, and takes nothing from elsewhere.
#[track_caller]
fn page(path: &Path) -> (String, String) {
    let html = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let xml = html.strip_prefix("<!DOCTYPE html>\n").expect("HTML");
    let tree = roxmltree::Document::parse(xml).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for node in tree.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        let foreign =
            ["script", "link", "img", "iframe", "object", "embed", "base", "form", "use", "image", "foreignObject"];
        assert!(!foreign.contains(&name), "{name}");
        for attribute in node.attributes() {
            let is_quiet =
                !attribute.name().starts_with("on") && !["src", "href", "action"].contains(&attribute.name());
            assert!(is_quiet, "{name} {}", attribute.name());
        }
        if name == "style" {
            let style = node.text().unwrap_or_default();
            assert!(!style.contains("url(") && !style.contains("@import") && !style.contains("@font-face"));
        }
        // A number that is none would show as a word.
        if let Some(points) = node.attribute("d") {
            assert!(!points.contains("NaN") && !points.contains("inf"), "{points}");
        }
    }
    assert!(html.len() < 1 << 20, "{} bytes", html.len());
    let words: Vec<&str> = tree.descendants().filter(roxmltree::Node::is_text).filter_map(|node| node.text()).collect();
    let words = words.join(" ");
    (html, words)
}

#[track_caller]
fn assert_says(words: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(words.contains(part), "{part:?} is not in: {words}"));
}

#[test]
fn training_ends_with_a_page_and_report_adds_the_numbers_of_evaluate() {
    let (_guard, folder) = trained();
    let path = folder.join("runs/run/report.html");
    let (_, short) = page(&path);
    assert_says(
        &short,
        &["Data and particles", "Flow and potential", "The test of the run", "Training", "All 150 points."],
    );
    assert_says(
        &short,
        &["left unexplained", "interior_rows = 64", "SHA-256 of the model", "This is the short report"],
    );
    assert!(!short.contains("sampling floor"), "scores take longer than some trainings");

    succeeds(&folder, &["report", "runs/run", "--threads", "2"]);
    let (html, words) = page(&path);
    assert_says(
        &words,
        &["Scores", "sampling floor", "no motion", "0 → 1", "1 → 2", "150 rows in all, from time 0 to 2"],
    );
    succeeds(&folder, &["evaluate", "runs/run", "--json", "scores.json", "--threads", "2"]);
    let json: Value = serde_json::from_slice(&fs::read(folder.join("scores.json")).expect("readable")).expect("JSON");
    let shown = |value: &Value, digits: usize| {
        action_matching::display::significant(value.as_f64().expect("a number"), digits).replace('-', "−")
    };
    let mut compared = 0;
    for set in json["means"][0]["sets"].as_array().expect("sets") {
        for measure in ["w1", "w2", "energy", "mmd2_half", "mmd2", "mmd2_double"] {
            if let Value::Object(mean) = &set[measure] {
                let cell = format!(
                    "<td>{} <small>± {}</small></td>",
                    shown(&mean["mean"], 3),
                    shown(&mean["standard_error"], 3)
                );
                assert!(html.contains(&cell), "{} {measure}: {cell}", set["name"]);
                compared += 1;
            }
        }
    }
    assert!(compared > 15, "{compared}");
    for comparison in json["comparisons"].as_array().expect("comparisons") {
        let cell = format!("<td>{}</td>", shown(&comparison["equal_numbers"]["model"]["w1"], 4));
        assert!(html.contains(&cell), "{cell}");
    }
    // The test is that of the run.
    let test: Value =
        serde_json::from_slice(&fs::read(folder.join("runs/run/selftest.json")).expect("readable")).expect("JSON");
    assert!(
        words.contains(&format!("{} %", shown(&Value::from(100.0 * test["unexplained"].as_f64().expect("known")), 3)))
    );
}

#[test]
fn a_page_is_not_written_unless_wanted() {
    let (_guard, folder) = workplace();
    succeeds(&folder, &[&["train", "run.toml", "--no-report"][..], &SMALL].concat());
    assert!(!folder.join("runs/run/report.html").exists());
    succeeds(&folder, &[&["train", "run.toml", "--force"][..], &SMALL].concat());
    assert!(folder.join("runs/run/report.html").exists());
    succeeds(&folder, &[&["train", "run.toml", "--force", "--no-report"][..], &SMALL].concat());
    assert!(!folder.join("runs/run/report.html").exists(), "the page of the run that was replaced");
}

#[test]
fn hostile_names_are_only_text() {
    let (_guard, folder) = workplace();
    let table = fs::read_to_string(folder.join("data.csv")).expect("readable");
    let columns = "times,<script>alert(1)</script>,\"<img src=x onerror='alert(2)'>&amp;\"\"\u{1}\"";
    fs::write(folder.join("a&b<i>.csv"), table.replacen("times,x,y", columns, 1)).expect("written");
    fs::write(folder.join("run.toml"), "[data]\npath = \"a&b<i>.csv\"\n").expect("written");
    let out = "runs/\"><script>alert(3)<script>";
    succeeds(&folder, &[&["train", "run.toml", "--out", out][..], &SMALL].concat());
    let (_, words) = page(&folder.join(out).join("report.html"));
    assert_says(&words, &["<script>alert(1)</script>", "a&b<i>.csv", "\"><script>alert(3)<script>"]);
    succeeds(&folder, &["report", out, "--pictures", "pictures", "--threads", "2"]);
    page(&folder.join(out).join("report.html"));
    for name in ["motion", "flow", "training"] {
        let svg = fs::read_to_string(folder.join(format!("pictures/{name}.svg"))).expect("a picture");
        let tree = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(tree.descendants().all(|node| !["script", "img"].contains(&node.tag_name().name())));
        let png = fs::read(folder.join(format!("pictures/{name}.png"))).expect("a picture");
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "{name}");
    }
    // Pictures and pages are replaced only when that is asked for.
    fails(&folder, &["report", out, "--pictures", "pictures"], &["motion.svg", "already exists", "--force"]);
    succeeds(&folder, &["report", out, "--pictures", "pictures", "--force", "--out", "page.html", "--axes", "1,0"]);
    fails(&folder, &["report", out, "--out", "page.html"], &["page.html", "already exists"]);
    fails(&folder, &["report", out, "--out", "other.html", "--axes", "0,2"], &["axes", "from 0 to 1"]);
}

#[test]
fn one_dimension_is_drawn_against_time() {
    let (_guard, folder) = workplace();
    let run = ["train", "run.toml", "--set", "data.samples=x"];
    succeeds(&folder, &[&run[..], &SMALL].concat());
    let (html, words) = page(&folder.join("runs/run/report.html"));
    assert_says(&words, &["1 dimension ·", "time goes to the right", "density"]);
    assert!(html.matches("<svg").count() >= 6);
    fails(&folder, &["report", "runs/run", "--axes", "0,1"], &["axes", "one dimension is drawn against time"]);
}

#[test]
fn ensembles_growth_and_held_out_times_have_their_pictures() {
    let (_guard, folder) = workplace();
    let run = [
        "train",
        "run.toml",
        "--set",
        "training.seeds=2",
        "--set",
        "objective.growth=0.3",
        "--set",
        "objective.path=linear",
        "--set",
        "objective.pairing=wfr",
        "--set",
        "objective.mass=counts",
        "--set",
        "data.hold_out=[1]",
    ];
    succeeds(&folder, &[&run[..], &SMALL].concat());
    succeeds(&folder, &["report", "runs/run", "--threads", "2"]);
    let (_, words) = page(&folder.join("runs/run/report.html"));
    assert_says(&words, &["an ensemble of 2 members", "Mass of the population", "Disagreement of the members"]);
    let of_first = ["The first member of the ensemble moves them", "Mass and rates are those of the first member"];
    assert_says(&words, &[&of_first[..], &["An ensemble of 2 members: the tables are of the first one"]].concat());
    assert_says(&words, &["Time 1 (held out)", "held out: 1 comparison", "mean ± standard deviation over the members"]);
}

/// Three dimensions, conditions in words, and a plane that is chosen.
#[test]
fn each_condition_has_pictures_and_scores() {
    let (_guard, folder) = workplace();
    let mut csv = String::from("times,drug,a,b,c\n");
    for row in 0..240 {
        let (time, angle) = (row % 2, row as f64 * 0.7);
        let drug = ["none", "A & B"][row / 2 % 2];
        csv += &format!("{time},{drug},{},{},{}\n", angle.cos() + time as f64, angle.sin(), (1.3 * angle).sin());
    }
    fs::write(folder.join("data.csv"), csv).expect("written");
    fs::write(folder.join("run.toml"), "[data]\npath = \"data.csv\"\nconditions = [\"drug\"]\n").expect("written");
    succeeds(&folder, &[&["train", "run.toml"][..], &SMALL].concat());
    let (_, short) = page(&folder.join("runs/run/report.html"));
    assert_says(&short, &["Under drug = none", "Under drug = A & B", "averaged out", "3 dimensions"]);
    succeeds(&folder, &["report", "runs/run", "--condition", "drug=none", "--axes", "0,2", "--threads", "2"]);
    let (_, one) = page(&folder.join("runs/run/report.html"));
    assert!(!one.contains("Under drug") && one.contains("drug = none"), "{one}");
    fails(&folder, &["report", "runs/run", "--condition", "drug=C"], &["drug"]);
}

/// Many groups of rows that are asked for: the page has a bounded number of them, and says so.
#[test]
fn a_page_has_twelve_conditions_at_most() {
    let (_guard, folder) = workplace();
    let mut csv = String::from("times,drug,dose,a\n");
    for row in 0..13 * 12 {
        let (time, dose) = (row % 2, row / 2 % 13);
        csv += &format!("{time},none,{dose},{}\n", (row as f64 * 0.7).sin() + time as f64);
    }
    fs::write(folder.join("data.csv"), csv).expect("written");
    fs::write(folder.join("run.toml"), "[data]\npath = \"data.csv\"\nconditions = [\"drug\", \"dose\"]\n")
        .expect("written");
    succeeds(&folder, &[&["train", "run.toml", "--no-report"][..], &SMALL].concat());
    succeeds(&folder, &["report", "runs/run", "--condition", "drug=none", "--threads", "2"]);
    let (html, words) = page(&folder.join("runs/run/report.html"));
    assert_says(&words, &["12 of 13 conditions are shown, evenly chosen."]);
    assert_eq!(words.matches("Under drug = none").count(), 12, "{words}");
    assert!(html.len() < 6 << 20, "{} bytes", html.len());
}

#[test]
fn what_is_missing_is_said() {
    let (_guard, folder) = trained();
    fs::rename(folder.join("data.csv"), folder.join("moved.csv")).expect("renamed");
    succeeds(&folder, &["report", "runs/run"]);
    let (html, words) = page(&folder.join("runs/run/report.html"));
    assert_says(&words, &["The data cannot be read", "data.csv", "There are no data here", "Flow and potential"]);
    assert!(!words.contains("Scores") && html.matches("<svg").count() >= 5);
    succeeds(&folder, &["report", "runs/run", "moved.csv", "--threads", "2"]);
    assert_says(&page(&folder.join("runs/run/report.html")).1, &["Scores", "All 150 points."]);
    // A model alone.
    fs::copy(folder.join("runs/run/model.safetensors"), folder.join("model.safetensors")).expect("copied");
    fails(&folder, &["report", "model.safetensors"], &["--out: is missing"]);
    succeeds(&folder, &["report", "model.safetensors", "--out", "page.html"]);
    assert_says(
        &page(&folder.join("page.html")).1,
        &["There is no configuration beside the model", "The data cannot be read"],
    );
    // A run without a model.
    fs::remove_file(folder.join("runs/run/model.safetensors")).expect("removed");
    succeeds(&folder, &["report", "runs/run"]);
    assert_says(&page(&folder.join("runs/run/report.html")).1, &["has not saved a model yet", "Training"]);
    let output = amatch(&folder, &["report", "nowhere"]);
    assert!(!output.status.success() && !text(&output.stderr).contains("panicked"));
}

#[test]
fn an_embedding_of_the_data_can_be_the_plane() {
    let (_guard, folder) = workplace();
    let n = 90;
    let of = |value: fn(usize) -> [f32; 3]| -> Vec<f32> { (0..n).flat_map(value).collect() };
    let samples = of(|i| [(i as f32).sin() + (i % 3) as f32, (i as f32 * 1.7).cos(), 0.1 * i as f32]);
    let umap: Vec<f32> = samples.chunks_exact(3).flat_map(|row| [row[0] * 10.0, row[1] - row[2]]).collect();
    let times: Vec<f32> = (0..n).map(|i| (i % 3) as f32).collect();
    let arrays = [
        ("samples", npy("<f4", false, &[n, 3], &f32s(&samples))),
        ("umap", npy("<f4", false, &[n, 2], &f32s(&umap))),
        ("times", npy("<f4", false, &[n], &f32s(&times))),
    ];
    let data = npz(&arrays, CompressionMethod::Stored);
    fs::write(folder.join("data.npz"), data).expect("written");
    fs::write(folder.join("run.toml"), "[data]\npath = \"data.npz\"\n").expect("written");
    succeeds(&folder, &[&["train", "run.toml"][..], &SMALL].concat());
    succeeds(&folder, &["report", "runs/run", "--basis", "umap", "--threads", "2"]);
    let (_, words) = page(&folder.join("runs/run/report.html"));
    assert_says(&words, &["umap, 1", "umap, 2", "as scVelo does", "nearest row of the data"]);
    fails(&folder, &["report", "runs/run", "--basis", "times"], &["times"]);
    fails(&folder, &["report", "runs/run", "--basis", "tsne"], &["tsne"]);
}
