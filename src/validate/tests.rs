use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;
use crate::config::{Mass, Pairing};
use crate::data::{Standardization, draw_gaussian};
use crate::density_path::Knots;
use crate::error::Error;
use crate::model::TimeEmbedding;
use crate::rng::Stream;
use crate::stage::Watch;
use crate::stage::tests::Cancelled;

/// `n` particles a snapshot, `n_times` times: a cloud that goes round a circle, each snapshot of
/// other particles.
fn orbit(n_times: usize, n: usize) -> (Snapshots, Coordinates) {
    orbit_of(&vec![n; n_times])
}

fn orbit_of(sizes: &[usize]) -> (Snapshots, Coordinates) {
    let mut stream = Stream::of_normals(5, 2);
    let mut rows = Vec::new();
    for (k, &n) in sizes.iter().enumerate() {
        let (sin, cos) = (0.6 * k as f32).sin_cos();
        let turned = |p: &[f32]| {
            let (x, y) = (1.0 + 0.2 * p[0], 0.2 * p[1]);
            [cos * x - sin * y, sin * x + cos * y]
        };
        let points: Vec<f32> = draw_gaussian(n, 2, &mut stream).chunks_exact(2).flat_map(turned).collect();
        rows.push((k as f64, points));
    }
    let snapshots = Snapshots::from_rows(2, rows).expect("rows");
    snapshots.standardize(Standardization::default()).expect("standardizes")
}

/// A run whose choice takes little.
fn small() -> Config {
    let mut config = Config::default();
    config.model.hidden = Some(vec![16, 16]);
    config.training.steps = 3200;
    config.training.interior_rows = 32;
    config
}

/// `snapshots` mirrored, so that they go round the other way.
fn mirrored(snapshots: &Snapshots) -> Snapshots {
    let samples = snapshots.samples.iter().enumerate().map(|(i, x)| if i % 2 == 0 { *x } else { -x }).collect();
    Snapshots { samples, ..snapshots.clone() }
}

/// Groups of rows are compared each by itself: clouds that go round in opposite directions have
/// folds of their own, in which the spline is as good as it is alone. A group of two times has
/// nothing to leave out.
#[test]
fn groups_are_compared_one_by_one() {
    let (snapshots, coordinates) = orbit(7, 60);
    let ends = Snapshots::from_rows(2, [(0.0, snapshots.rows(0)), (1.0, snapshots.rows(6))]).expect("rows");
    let mut config = small();
    config.training.steps = SHORT_RUN; // paths alone
    let groups = [ends.clone(), snapshots.clone(), mirrored(&snapshots)];
    let choose = |groups: &[Snapshots]| choose_within(&config, groups, &coordinates, &Stage::new(2, &()));
    let choice = choose(&groups).expect("chooses").expect("seven snapshots");
    let times = [1.0, 4.0, 2.0, 5.0, 3.0];
    assert_eq!(choice.times, [times, times].concat());
    let [alone, together] =
        [&choose(&groups[1..2]).expect("chooses").expect("seven snapshots"), &choice].map(|choice| {
            let Scored { candidate, .. } = choice.chosen();
            assert!(matches!(candidate.path, PathConfig::Spline { .. }), "{choice}");
            choice.chosen().energy().mean
        });
    assert!((together / alone - 1.0).abs() < 0.3, "{together}, alone {alone}");
    assert!(choose(&[ends.clone(), ends.clone()]).expect("chooses").is_none());
    // Of many groups four are taken.
    let many: Vec<Snapshots> = (0..9).map(|_| snapshots.clone()).collect();
    assert_eq!(choose(&many).expect("chooses").expect("seven snapshots").times.len(), 4 * times.len());
    let error = validate_within(&config, &[ends], &coordinates, &ValidateOptions::default(), &Stage::default());
    assert!(error.expect_err("two times").to_string().contains("hold 2 times to train on (give 3 or more)"));
}

fn chosen(config: &Config, (snapshots, coordinates): &(Snapshots, Coordinates)) -> Option<Validation> {
    choose(config, snapshots, coordinates, &Stage::new(2, &())).expect("chooses")
}

/// Ten snapshots of 200 points: the spline is far better at times in between, by the points of its
/// path and by networks, and so it is chosen.
#[test]
fn a_spline_is_chosen_for_a_curved_flow_of_many_snapshots() {
    let data = orbit(10, 200);
    for steps in [SHORT_RUN, 3200] {
        let mut config = small();
        config.training.steps = steps;
        let choice = chosen(&config, &data).expect("ten snapshots");
        let Scored { candidate, .. } = choice.chosen();
        let is_spline = matches!(candidate.path, PathConfig::Spline { .. });
        assert_eq!((is_spline, candidate.pairing), (true, Pairing::ot()), "{choice}");
        assert_eq!(choice.times, [1.0, 4.0, 7.0, 2.0, 5.0, 8.0, 3.0, 6.0]);
        let of_linear =
            choice.scored.iter().find(|scored| scored.candidate.path == PathConfig::Linear).expect("is there");
        if steps == SHORT_RUN {
            assert!(choice.chosen().energy().mean < 0.5 * of_linear.energy().mean, "{choice}");
        }
        assert!(choice.beats_no_motion(), "{choice}");
        assert!(choice.summary().starts_with("chosen: spline"), "{}", choice.summary());
        // The long run pays for networks; its choice takes no more steps × rows than it has.
        let trained: Vec<&Scored> = choice.scored.iter().filter(|scored| scored.steps > 0).collect();
        assert_eq!(trained.is_empty(), steps == SHORT_RUN, "{choice}");
        let work: u64 = trained.iter().map(|scored| 3 * 32 * scored.steps).sum();
        assert!(work <= steps * 32, "{work}");
    }
}

#[test]
fn few_snapshots_give_straight_lines() {
    let config = small();
    for n in [3, 2] {
        let data = orbit(n, 60);
        let choice = chosen(&config, &data);
        assert_eq!(choice.is_some(), n == 3);
        let paths = choice.iter().flat_map(|choice| &choice.scored).map(|scored| &scored.candidate.path);
        assert!(paths.clone().all(|path| *path == PathConfig::Linear));
        let settled = config.settled();
        assert_eq!((&settled.objective.path, settled.objective.pairing), (&PathConfig::Linear, Pairing::ot()));
        assert_eq!(settled.model.time_embedding, Some(TimeEmbedding::Raw));
    }
    assert_eq!(chosen(&config, &orbit(8, 1)), None, "single rows have no distribution");
    let mut short = small();
    short.training.steps = SHORT_RUN - 1;
    assert_eq!(chosen(&short, &orbit(8, 60)), None, "a run of few steps pays for no choice");
}

/// What the configuration holds is the same in all candidates.
#[test]
fn settings_that_are_given_are_no_candidates() {
    let (snapshots, _) = orbit(8, 20);
    let all = |config: &Config| candidates(config, &snapshots, Scope::All);
    let config = Config::default();
    let open = all(&config);
    let differ = |of: &dyn Fn(&Candidate) -> String| open.iter().any(|candidate| of(candidate) != of(&open[0]));
    assert!(
        differ(&|candidate| format!("{:?}", candidate.path)) && differ(&|candidate| format!("{:?}", candidate.hidden))
    );
    assert!(differ(&|candidate| format!("{:?}", candidate.time_embedding)));
    assert!(differ(&|candidate| format!("{:?}", candidate.pairing)));
    assert!(open.windows(2).all(|pair| pair[0].complexity() <= pair[1].complexity()));
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = config.clone();
        change(&mut config);
        all(&config)
    };
    let independent = with(&|config| config.objective.pairing = Pairing::Independent);
    assert!(independent.iter().all(|c| c.pairing == Pairing::Independent && c.path == PathConfig::Linear));
    let spline = with(&|config| config.objective.path = PathConfig::spline(Knots::Rank));
    assert!(spline.iter().all(|c| c.path == PathConfig::spline(Knots::Rank) && c.pairing == Pairing::ot()));
    assert!(with(&|config| config.model.hidden = Some(vec![7])).iter().all(|c| c.hidden == [7]));
    let fourier = TimeEmbedding::Fourier { frequencies: vec![3.0] };
    assert!(
        with(&|config| config.model.time_embedding = Some(fourier.clone())).iter().all(|c| c.time_embedding == fourier)
    );
    let settled = config.settled();
    assert_eq!(all(&settled), [Candidate::of(&settled)]);
    for candidate in open {
        assert_eq!(Candidate::of(&candidate.applied_to(&config)), candidate);
    }
}

/// Growth is a candidate only where the numbers of rows change.
#[test]
fn growth_is_a_candidate_where_counts_change() {
    let has_growth = |sizes: &[usize]| {
        let candidates = candidates(&Config::default(), &orbit_of(sizes).0, Scope::All);
        candidates.iter().any(|candidate| candidate.growth > 0.0 && candidate.mass == Mass::Counts)
    };
    assert!(!has_growth(&[50, 50, 50, 50]) && !has_growth(&[50, 55, 52, 48]));
    assert!(has_growth(&[50, 60, 75, 90]));
    let short = candidates(&Config::default(), &orbit_of(&[50, 60, 75, 90]).0, Scope::Paths);
    assert!(short.iter().all(|candidate| candidate.growth == 0.0), "only a user can decide that");
}

/// Two branches that part; the snapshots of every time are new samples of a population of which
/// `upper` have the one branch and 120 the other.
fn branches(upper: impl Fn(u32) -> usize) -> (Snapshots, Coordinates) {
    let snapshot = |k: u32| {
        let (up, away) = (upper(k), k as f32);
        let mut rows = crate::data::draw_gaussian(up + 120, 2, &mut crate::rng::Stream::of_normals(k.into(), 2));
        for (i, row) in rows.chunks_exact_mut(2).enumerate() {
            let side = if i < up { 1.0 } else { -1.0 };
            row[0] = 0.2 * row[0] + 0.5 * away;
            row[1] = 0.2 * row[1] + side * (0.6 + 0.3 * away);
        }
        (f64::from(k), rows)
    };
    let snapshots = Snapshots::from_rows(2, (0..6).map(snapshot)).expect("snapshots");
    snapshots.standardize(Standardization::Isotropic).expect("standardizes")
}

/// With `growth = "auto"` a branch that grows is found to do so, and one that only splits off is
/// not; whatever the total mass is said to be.
#[test]
fn growth_is_chosen_where_there_is_any() {
    let mut config = small();
    (config.objective.growth, config.objective.pairing) = (None, Pairing::Auto);
    let chosen = |(snapshots, coordinates): (Snapshots, Coordinates), mass: Mass| {
        let mut config = config.clone();
        config.objective.mass = mass;
        let choice =
            choose(&config, &snapshots, &coordinates, &Stage::new(1, &())).expect("chooses").expect("a choice");
        println!("{}", choice.summary());
        choice.chosen().candidate.clone()
    };
    let constant = || Mass::Totals { values: vec![1.0; 6] };
    let growing = chosen(branches(|k| 60 << k), Mass::Ignored);
    assert!(growing.growth > 0.0 && growing.mass == Mass::Counts && growing.pairing == Pairing::wfr(), "{growing}");
    let growing = chosen(branches(|k| 60 << k), constant());
    assert!(growing.growth > 0.0 && growing.mass == constant(), "{growing}");
    let still = chosen(branches(|_| 120), Mass::Ignored);
    assert!(still.growth == 0.0 && still.mass == Mass::Ignored, "{still}");
    assert_eq!(chosen(branches(|_| 120), constant()).growth, 0.0);
    // What nobody could compare does not grow.
    assert_eq!(config.settled().objective.growth, Some(0.0));
}

/// Rows that a fold leaves out change nothing that it trains on, standardization included; and
/// each left-out time is predicted from the snapshot before it.
#[test]
fn folds_do_not_see_what_they_leave_out() {
    let (snapshots, coordinates) = orbit(8, 40);
    for leave_out in [LeaveOut::Middle, LeaveOut::Last, LeaveOut::Rows] {
        let of = |snapshots: &Snapshots| {
            folds::folds(snapshots, &coordinates, Standardization::PerDimension, leave_out, 3).expect("folds")
        };
        let before = of(&snapshots);
        assert_eq!(before.len(), 3);
        for (f, fold) in before.iter().enumerate() {
            let target = &fold.targets[0];
            let k = snapshots.find(coordinates.network_time(target.time)).expect("a time");
            let unseen = |row: &usize| {
                let mut changed = snapshots.clone();
                changed.samples[2 * (snapshots.offsets[k] + row)] += 100.0;
                let after = &of(&changed)[f];
                let is_unseen = (&after.training, &after.scale) == (&fold.training, &fold.scale);
                assert!(!is_unseen || after.targets[0].truth != target.truth, "{leave_out:?}: row {row} is nowhere");
                is_unseen
            };
            assert_eq!((0..40).filter(unseen).count(), target.truth.len() / 2, "{leave_out:?}");
            assert!(fold.training.times[target.from] < target.t);
        }
        let mut times: Vec<f64> = before.iter().flat_map(|fold| &fold.targets).map(|target| target.time).collect();
        times.sort_by(f64::total_cmp);
        times.dedup();
        let expected: &[f64] = match leave_out {
            LeaveOut::Middle => &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            LeaveOut::Last => &[5.0, 6.0, 7.0],
            LeaveOut::Rows => &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        };
        assert_eq!(times, expected, "{leave_out:?}");
    }
}

#[test]
fn what_cannot_be_left_out_is_refused() {
    let message = |n_times: usize, n: usize, leave_out: LeaveOut| {
        let (snapshots, coordinates) = orbit(n_times, n);
        let options = ValidateOptions { leave_out, ..ValidateOptions::default() };
        let outcome = validate(&small(), &snapshots, &coordinates, &options, &Stage::new(1, &()));
        outcome.expect_err("is refused").to_string()
    };
    assert!(message(2, 30, LeaveOut::Middle).contains("hold 2 times to train on (give 3 or more)"));
    assert!(message(2, 30, LeaveOut::Last).contains("give 3 or more"));
    assert!(message(3, 3, LeaveOut::Middle).contains("too few rows at every time between"));
    assert!(message(3, 9, LeaveOut::Rows).contains("rows of time 0: are 9"));
}

/// Scores are the same bits on one thread and on three. With two seeds there is one score a time,
/// so that the standard error is that between times.
#[test]
fn threads_change_nothing() {
    let (snapshots, coordinates) = orbit(5, 50);
    let mut config = small();
    config.objective.sigma.value = 0.1; // noise has seeds of its own
    for leave_out in [LeaveOut::Middle, LeaveOut::Last, LeaveOut::Rows] {
        let options = ValidateOptions { leave_out, seeds: 2, steps: 40, time: None };
        let on = |threads| {
            validate(&config, &snapshots, &coordinates, &options, &Stage::new(threads, &())).expect("validates")
        };
        let one = on(1);
        assert_eq!(one, on(3), "{leave_out:?}");
        assert!(one.scored.iter().all(|scored| scored.scores.len() == one.times.len()));
        assert!(one.chosen().w1().is_some_and(|w1| w1.mean > 0.0 && w1.standard_error.is_some()));
        assert_eq!(one.baselines[0].0, UNMOVED);
        assert_eq!(one.baselines.len(), if leave_out == LeaveOut::Middle { 5 } else { 2 });
    }
    assert_eq!(chosen(&config, &orbit(5, 50)), choose(&config, &snapshots, &coordinates, &Stage::new(1, &())).unwrap());
}

/// A choice ends soon after it is cancelled, wherever it is.
#[test]
fn a_cancelled_choice_is_interrupted() {
    struct After(AtomicU64);
    impl Watch for After {
        fn advanced(&self, _: u64, _: u64) {
            self.0.fetch_sub(1, Relaxed);
        }
        fn is_cancelled(&self) -> bool {
            (self.0.load(Relaxed) as i64) <= 0
        }
    }
    let (snapshots, coordinates) = orbit(6, 40);
    let outcome = choose(&small(), &snapshots, &coordinates, &Stage::new(2, &Cancelled));
    assert!(matches!(outcome, Err(Error::Interrupted)));
    for calls in [1, 5, 12] {
        let watch = After(AtomicU64::new(calls));
        let options = ValidateOptions { steps: 1000, ..ValidateOptions::default() };
        let outcome = validate(&small(), &snapshots, &coordinates, &options, &Stage::new(2, &watch));
        assert!(matches!(outcome, Err(Error::Interrupted)), "after {calls}");
    }
}

/// A time limit shortens the trainings: none at all leaves a step, all the time in the world as
/// many as without.
#[test]
fn a_time_limit_is_kept_to() {
    let (snapshots, coordinates) = orbit(4, 30);
    let at = |time| {
        let options = ValidateOptions { steps: 400, time: Some(time), ..ValidateOptions::default() };
        validate(&small(), &snapshots, &coordinates, &options, &Stage::new(1, &())).expect("validates").scored[0].steps
    };
    assert_eq!((at(Duration::ZERO), at(Duration::MAX)), (1, 400));
}

fn spline_path() -> PathConfig {
    PathConfig::spline(Knots::default())
}

fn scored(path: PathConfig, energies: &[f64]) -> Scored {
    let candidate = Candidate { path, ..Candidate::of(&Config::default().settled()) };
    Scored { candidate, steps: 1, scores: energies.iter().map(|&energy| Score { energy, w1: None }).collect() }
}

/// Scores of one time are compared with each other: a spread between times is no reason to take
/// the simpler candidate.
#[test]
fn ties_go_to_the_simpler_candidate() {
    let taken = |linear: &[f64], spline: &[f64]| {
        let both = [scored(spline_path(), spline), scored(PathConfig::Linear, linear)];
        both[choice::choose(&both, 0.0).expect("two")].candidate.path.clone()
    };
    // Better at each time, by the same factor, though times differ much more.
    assert_eq!(taken(&[1.1, 11.0, 110.0], &[1.0, 10.0, 100.0]), spline_path());
    // Better on the mean by 2 %, but not at each time.
    assert_eq!(taken(&[1.15, 0.89], &[1.0, 1.0]), PathConfig::Linear);
    // By 7 %, which is too much to give away.
    assert_eq!(taken(&[1.5, 0.64], &[1.0, 1.0]), spline_path());
    // By 2 %, at every time.
    assert_eq!(taken(&[1.02, 1.02], &[1.0, 1.0]), spline_path());
    // One time has no standard error.
    assert_eq!(taken(&[1.02], &[1.0]), PathConfig::Linear);
    assert_eq!(taken(&[1.04], &[1.0]), spline_path());
    assert_eq!(taken(&[0.5], &[1.0]), PathConfig::Linear);
    // By less than other rows of the truth would differ.
    let both = [scored(spline_path(), &[-0.01, -0.01]), scored(PathConfig::Linear, &[0.01, 0.01])];
    assert_eq!(choice::choose(&both, 0.019), Some(0));
    assert_eq!(choice::choose(&both, 0.021), Some(1));
    // Particles that were lost.
    assert_eq!(taken(&[f64::INFINITY, 1.0], &[1.0, 2.0]), spline_path());
}

/// Growth needs more than a small advantage.
#[test]
fn ties_go_to_what_does_not_grow() {
    let taken = |still: &[f64], growing: &[f64]| {
        let mut growing = scored(PathConfig::Linear, growing);
        growing.candidate.growth = 1.0;
        let both = [growing, scored(PathConfig::Linear, still)];
        both[choice::choose(&both, 0.0).expect("two")].candidate.growth
    };
    assert_eq!(taken(&[1.08, 1.08, 1.08], &[1.0, 1.0, 1.0]), 0.0);
    assert_eq!(taken(&[1.2, 1.25, 1.2], &[1.0, 1.0, 1.0]), 1.0);
    assert_eq!(taken(&[2.0, 0.9, 0.9], &[1.0, 1.0, 1.0]), 0.0, "better at one time only");
    assert_eq!(taken(&[1.0], &[1.05]), 0.0);
}

#[test]
fn a_choice_that_does_not_beat_rest_says_so() {
    let choice = Validation {
        scored: vec![scored(PathConfig::Linear, &[1.0, 1.2])],
        baselines: vec![(UNMOVED, scored(PathConfig::Linear, &[0.9, 1.1]).scores)],
        leave_out: LeaveOut::Middle,
        times: vec![1.0, 2.0],
        chosen: 0,
    };
    assert!(!choice.beats_no_motion());
    assert!(choice.summary().ends_with("No candidate predicts them better than the unmoved snapshot before"));
}
