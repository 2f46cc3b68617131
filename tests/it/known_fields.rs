//! Populations whose velocities are known, trained with the defaults and at most what a user would
//! surely set: either the model is right, or the test that ends the run says that it is not. None
//! is wrong in silence.

use action_matching::config::{Config, PathConfig};
use action_matching::data::{Snapshots, Standardization, draw_gaussian};
use action_matching::engine::cpu::CpuEngine;
use action_matching::model::Model;
use action_matching::rng::{Stream, unit_f32};
use action_matching::stage::Stage;
use action_matching::train::{Existing, Observer, Outcome, RunFolder, SelfTest, train};
use action_matching::validate::{ValidateOptions, validate};
use rand::Rng;

/// Rows of one time in the plane.
struct Frame {
    time: f64,
    rows: Vec<[f64; 2]>,
}

/// A trained model and its test.
struct Trained {
    model: Model,
    test: SelfTest,
}

#[derive(Default)]
struct Listener(Option<SelfTest>);

impl Observer for Listener {
    fn tested(&mut self, test: &SelfTest) {
        self.0 = Some(test.clone());
    }
}

impl Trained {
    /// A network and a number of steps that suit a test, and `settings` besides.
    fn on(frames: &[Frame], settings: &[&str]) -> Trained {
        let folder = tempfile::tempdir().expect("a folder");
        let mut csv = String::from("times,x,y\n");
        for Frame { time, rows } in frames {
            rows.iter().for_each(|[x, y]| csv += &format!("{time},{x},{y}\n"));
        }
        std::fs::write(folder.path().join("data.csv"), csv).expect("written");
        let text = "[data]\npath = \"data.csv\"\n[model]\nhidden = [64, 64]\n[training]\nsteps = 1500\n\
                    interior_rows = 256\nboundary_rows = 256\nlearning_rate = 0.003\n";
        std::fs::write(folder.path().join("run.toml"), text).expect("written");
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).into()).collect();
        let mut config = Config::read(&folder.path().join("run.toml"), &settings).expect("reads");
        config.output.folder = folder.path().join("run");
        let mut listener = Listener::default();
        let outcome = train(&CpuEngine::new(1), &config, Existing::Refuse, 1, &mut listener).expect("trains");
        assert_eq!(outcome, Outcome::Finished);
        let model = Model::load(&RunFolder::new(&config.output.folder).model()).expect("a model");
        Trained { model, test: listener.0.expect("a test") }
    }

    /// Root mean square error of the velocity at the rows of all frames, relative to the `field`.
    fn velocity_error(&self, frames: &[Frame], field: impl Fn([f64; 2], f64) -> [f64; 2]) -> f64 {
        let (mut error, mut all) = (0.0, 0.0);
        for Frame { time, rows } in frames {
            let points = rows.concat();
            let velocities = self.model.velocity(&CpuEngine::new(1), &points, *time).expect("velocities");
            for (row, velocity) in rows.iter().zip(velocities.chunks_exact(2)) {
                for (got, want) in velocity.iter().zip(field(*row, *time)) {
                    error += (got - want).powi(2);
                    all += want * want;
                }
            }
        }
        (error / all).sqrt()
    }

    /// True if the test found something that it warns of.
    fn is_warned_of(&self) -> bool {
        self.test.warnings().next().is_some()
    }

    /// True if the test says anything.
    fn is_spoken_of(&self) -> bool {
        self.is_warned_of() || self.test.notices().next().is_some()
    }
}

/// `n` rows around `center`.
fn cloud(n: usize, center: [f64; 2], spread: f64, seed: u64) -> Vec<[f64; 2]> {
    let normals = draw_gaussian(n, 2, &mut Stream::of_normals(seed, 2));
    normals.chunks_exact(2).map(|x| [0, 1].map(|i| center[i] + spread * f64::from(x[i]))).collect()
}

/// `rows` moved by `field` from one time to another (Runge & Kutta's midpoint rule).
fn moved(mut rows: Vec<[f64; 2]>, [from, to]: [f64; 2], field: impl Fn([f64; 2], f64) -> [f64; 2]) -> Vec<[f64; 2]> {
    const STEPS: usize = 20;
    let h = (to - from) / STEPS as f64;
    for step in 0..STEPS {
        let t = from + step as f64 * h;
        for x in &mut rows {
            let half = field(*x, t);
            let slope = field([0, 1].map(|i| x[i] + 0.5 * h * half[i]), t + 0.5 * h);
            *x = [0, 1].map(|i| x[i] + h * slope[i]);
        }
    }
    rows
}

/// A wind that turns, with a strain: the gradient of a potential at all times.
fn wind([x, y]: [f64; 2], t: f64) -> [f64; 2] {
    [0.5 * (0.6 * t).cos() + 0.12 * y, 0.5 * (0.6 * t).sin() + 0.12 * x]
}

/// Particles everywhere, carried by the wind, and seen through a window: 50 to 80 at a time, of
/// which 1 or 2 leave and as many enter between two frames.
fn through_a_window() -> Vec<Frame> {
    const BOX: f64 = 5.0;
    let mut stream = Stream::of_normals(3, 2);
    let mut uniform = || BOX * (2.0 * f64::from(unit_f32(stream.next_u32())) - 1.0);
    let mut rows: Vec<[f64; 2]> = (0..1600).map(|_| [uniform(), uniform()]).collect();
    let mut frames = Vec::new();
    for frame in 0..40 {
        let time = 0.1 * f64::from(frame);
        let seen = rows.iter().filter(|row| row.iter().all(|x| x.abs() < 1.0));
        frames.push(Frame { time, rows: seen.copied().collect() });
        rows = moved(rows, [time, time + 0.1], wind);
    }
    frames
}

/// The density in the window hardly changes, so standing still explains it: whatever the model, it
/// must not pass for right. With the setting that the warning names, it is.
#[test]
fn particles_that_enter_and_leave_are_followed_or_spoken_of() {
    let frames = through_a_window();
    for settings in [&[][..], &["objective.pairing=ot"], &["objective.path=nearest"]] {
        let trained = Trained::on(&frames, settings);
        let error = trained.velocity_error(&frames, wind);
        assert!(error < 0.1 || trained.is_warned_of(), "{settings:?}: {error}\n{}", trained.test);
    }
    let trained = Trained::on(&frames, &["objective.pairing=ot"]);
    let remedy = trained.test.check("open-view").and_then(|check| check.message.clone()).expect("a message");
    let (_, pairing) = remedy.split_once("objective.pairing = ").expect("a remedy");
    let pairing = format!("objective.pairing={}}}", pairing.split('}').next().unwrap_or_default());
    let trained = Trained::on(&frames, &[&pairing, "objective.path=linear"]);
    let error = trained.velocity_error(&frames, wind);
    assert!(error < 0.1, "{pairing}: {error}\n{}", trained.test);
    assert!(!trained.is_warned_of(), "{}", trained.test);
}

/// Ten snapshots of 200 new particles each, on half a circle.
#[test]
fn a_curved_flow_is_followed() {
    use std::f64::consts::PI;
    let field = |_: [f64; 2], t: f64| [-PI / 9.0 * (PI / 9.0 * t).sin(), PI / 9.0 * (PI / 9.0 * t).cos()];
    let frame = |k: u32| {
        let angle = PI / 9.0 * f64::from(k);
        Frame { time: f64::from(k), rows: cloud(200, [angle.cos(), angle.sin()], 0.2, u64::from(k)) }
    };
    let frames: Vec<Frame> = (0..10).map(frame).collect();
    let trained = Trained::on(&frames, &["objective.pairing=ot"]);
    let error = trained.velocity_error(&frames, field);
    assert!(error < 0.25 || trained.is_warned_of(), "{error}\n{}", trained.test);
    assert!(!trained.is_warned_of(), "{}", trained.test);
}

/// A steady flow at the times 0, 1, 2 and 5.
#[test]
fn uneven_gaps_are_bridged() {
    let field = |[x, y]: [f64; 2], _: f64| [0.5 + 0.15 * y, 0.15 * x];
    let frame = |(k, time): (usize, f64)| Frame {
        time,
        rows: moved(cloud(200, [0.0, 0.0], 0.5, k as u64), [0.0, time], field),
    };
    let frames: Vec<Frame> = [0.0, 1.0, 2.0, 5.0].into_iter().enumerate().map(frame).collect();
    let trained = Trained::on(&frames, &["objective.pairing=ot"]);
    let error = trained.velocity_error(&frames, field);
    assert!(error < 0.25 || trained.is_warned_of(), "{error}\n{}", trained.test);
    assert!(!trained.is_warned_of(), "{}", trained.test);
}

/// One population that becomes two of equal size, of which `counts` rows are seen at each time.
fn bifurcation(counts: [usize; 4]) -> Vec<Frame> {
    let frame = |k: u32| {
        let away = f64::from(k);
        let n = counts[k as usize] / 2;
        let rows = [-1.0, 1.0].map(|side| cloud(n, [0.7 * away, side * away], 0.3, 20 + u64::from(k)));
        Frame { time: away, rows: rows.concat() }
    };
    (0..4).map(frame).collect()
}

/// Its mass is constant. Growth is not chosen, also where the numbers of rows make it a candidate,
/// and where it is set it does not pass.
#[test]
fn a_bifurcation_does_not_grow() {
    let rows = bifurcation([300, 220, 280, 230]).into_iter();
    let rows = rows.map(|Frame { time, rows }| (time, rows.concat().iter().map(|&x| x as f32).collect::<Vec<_>>()));
    let snapshots = Snapshots::from_rows(2, rows).expect("snapshots");
    let (snapshots, coordinates) = snapshots.standardize(Standardization::default()).expect("standardizes");
    let mut config = Config::default();
    config.objective.path = PathConfig::Linear;
    config.model.hidden = Some(vec![32, 32]);
    config.training.learning_rate = 0.003;
    let options = ValidateOptions { steps: 300, ..ValidateOptions::default() };
    let validation = validate(&config, &snapshots, &coordinates, &options, &Stage::new(1, &())).expect("validates");
    assert!(validation.scored.iter().any(|scored| scored.candidate.growth > 0.0), "{validation}");
    assert_eq!(validation.chosen().candidate.growth, 0.0, "{validation}");

    let frames = bifurcation([300; 4]);
    let trained = Trained::on(&frames, &["objective.pairing=ot"]);
    assert!(!trained.is_spoken_of(), "{}", trained.test);
    for motion in &trained.test.motions {
        let distance = motion.model.expect("arrives");
        assert!(distance < 0.1 * motion.no_motion + motion.sampling, "{motion:?}");
    }
    let trained = Trained::on(&frames, &["objective.growth=1"]);
    assert!(trained.is_warned_of(), "{}", trained.test);
}

/// Two branches move apart; the upper one doubles from snapshot to snapshot, the lower one stays.
#[test]
fn growth_on_one_branch_is_spoken_of() {
    let frame = |k: u32| {
        let away = f64::from(k);
        let lower = cloud(100, [0.5 * away, -1.0 - 0.3 * away], 0.2, 30 + u64::from(k));
        let upper = cloud(100 << k, [0.5 * away, 1.0 + 0.3 * away], 0.2, 40 + u64::from(k));
        Frame { time: away, rows: [lower, upper].concat() }
    };
    let frames: Vec<Frame> = (0..4).map(frame).collect();
    let trained = Trained::on(&frames, &["objective.pairing=ot"]);
    assert!(trained.test.check("counts").is_some_and(|check| check.message.is_some()), "{}", trained.test);
    assert!(trained.is_spoken_of(), "{}", trained.test);
}
