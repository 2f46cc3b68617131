//! The curves of a training: loss and kinetic energy against steps, and `loss.svg` of them.

use std::path::Path;

use super::metrics::Metrics;
use super::unexplained::Unexplained;
use crate::display::significant;
use crate::error::Result;
use crate::files::write_atomically;
use crate::picture::{Anchor, Colors, Ink, Panel, Range, Scene, svg};

/// Maximum number of points of a line. Each is the mean of an equal number of lines of
/// `metrics.jsonl`.
const POINTS: usize = 400;

/// Share of the steps that the smooth line averages over.
const SMOOTH: usize = 40;

/// Draws `metrics` to `path`. Fewer than two points draw nothing.
pub(super) fn plot_loss(path: &Path, metrics: &[Metrics], unexplained: Option<Unexplained>) -> Result<()> {
    let panels = curves(metrics, unexplained.map(|unexplained| unexplained.share));
    if panels.is_empty() {
        return Ok(());
    }
    let scene = Scene::in_rows(&panels, panels.len(), "Loss and kinetic energy against steps");
    write_atomically(path, |out| out.write_all(svg(&scene, Colors::OfPaper).as_bytes()))
}

/// Panels of loss, kinetic energy and, with early stopping, the distance from rows kept apart. None
/// of fewer than two points. `unexplained` is the share of the path's kinetic energy that the model
/// leaves unexplained.
pub(crate) fn curves(metrics: &[Metrics], unexplained: Option<f64>) -> Vec<Scene> {
    let finite: Vec<&Metrics> =
        metrics.iter().filter(|line| line.loss.is_finite() && line.kinetic.is_finite()).collect();
    let of = |value: fn(&Metrics) -> f64| -> Vec<[f64; 2]> {
        finite.iter().map(|line| [line.step as f64, value(line)]).collect()
    };
    let (loss, kinetic) = (of(|line| line.loss), of(|line| line.kinetic));
    if loss.len() < 2 {
        return Vec::new();
    }
    let last = |smooth: &[[f64; 2]]| {
        smooth.last().map_or(String::new(), |[_, value]| significant(*value, 4).replace('-', "−"))
    };
    let smooth = smoothed(&loss);
    let remark = format!("at the end {} (smooth line)", last(&smooth));
    let mut panels = vec![curve("Loss: less is better", "network units", &loss, &smooth, &remark)];
    let smooth = smoothed(&kinetic);
    let remark = match unexplained {
        Some(share) => format!("{} % of the path's left unexplained: 0 is best", significant(100.0 * share, 3)),
        None => format!("at the end {} (smooth line)", last(&smooth)),
    };
    panels.push(curve("Kinetic energy E[½‖∇s‖²]", "network units", &kinetic, &smooth, &remark));
    let held_out: Vec<[f64; 2]> =
        metrics.iter().filter_map(|line| Some([line.step as f64, line.held_out.filter(|d| d.is_finite())?])).collect();
    if let Some(best) = held_out.iter().min_by(|a, b| a[1].total_cmp(&b[1])).filter(|_| held_out.len() > 1) {
        let remark = format!("least {} after {} steps", significant(best[1], 3), best[0] + 1.0);
        let mut scene = curve("Rows kept apart: less is better", "energy distance", &held_out, &held_out, &remark);
        scene.title = "Energy distance from the rows kept apart against steps".into();
        panels.push(scene);
    }
    panels
}

fn curve(title: &str, unit: &str, raw: &[[f64; 2]], smooth: &[[f64; 2]], remark: &str) -> Scene {
    // The first steps are often far from the rest, so the axis covers all but the most extreme 2 %
    // of points.
    let y = Range::of_most(raw.iter().map(|point| point[1]).collect(), 0.02);
    let room = 0.12 * (y.high - y.low);
    let y = Range { low: y.low - room, ..y };
    let x = Range { low: raw[0][0].min(0.0), high: raw[raw.len() - 1][0] };
    let mut panel = Panel::new(title, [x, y], ["step", unit]);
    panel.lines(&[means(raw, POINTS)], Ink::Backdrop, 1.0, 1.0);
    panel.lines(&[means(smooth, POINTS)], Ink::Data, 2.0, 1.0);
    // Below the higher end of the curve there is room.
    let falls = smooth[0][1] > smooth[smooth.len() - 1][1];
    panel.remark(remark, if falls { Anchor::Start } else { Anchor::End });
    panel.scene
}

/// Means of equal stretches of `points`, `most` or fewer.
fn means(points: &[[f64; 2]], most: usize) -> Vec<[f64; 2]> {
    let share = points.len().div_ceil(most).max(1);
    let mean = |part: &[[f64; 2]]| [0, 1].map(|i| part.iter().map(|point| point[i]).sum::<f64>() / part.len() as f64);
    points.chunks(share).map(mean).collect()
}

/// `points`, each the mean over a window around it.
fn smoothed(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let reach = points.len() / SMOOTH;
    let mut sums = vec![0.0];
    points.iter().for_each(|[_, value]| sums.push(sums[sums.len() - 1] + value));
    let at = |k: usize| {
        // Near an end the window is shorter on both sides, so that it stays around its point.
        let reach = reach.min(k).min(points.len() - 1 - k);
        (sums[k + reach + 1] - sums[k - reach]) / (2 * reach + 1) as f64
    };
    points.iter().enumerate().map(|(k, point)| [point[0], at(k)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_lines_and_removes_noise() {
        let line: Vec<[f64; 2]> = (0..200).map(|k| [f64::from(k), 3.0 * f64::from(k)]).collect();
        assert!(smoothed(&line).iter().zip(&line).all(|(a, b)| (a[1] - b[1]).abs() < 1e-9));
        let noise: Vec<[f64; 2]> = (0..200).map(|k| [f64::from(k), f64::from(k % 2)]).collect();
        assert!(smoothed(&noise)[20..180].iter().all(|[_, value]| (value - 0.5).abs() < 0.1));
        assert_eq!(means(&line, 100).len(), 100);
    }
}
