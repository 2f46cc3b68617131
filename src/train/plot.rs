//! `loss.svg`: loss and kinetic energy against steps.

use std::path::Path;

use plotters::prelude::*;

use super::metrics::Metrics;
use crate::error::{Error, Result};
use crate::files::write_atomically;

/// Maximum number of points of a line. Each is the mean of an equal number of lines of
/// `metrics.jsonl`.
const POINTS: usize = 500;

/// Draws `metrics` to `path`. Fewer than two points draw nothing.
pub fn plot_loss(path: &Path, metrics: &[Metrics]) -> Result<()> {
    let finite: Vec<&Metrics> =
        metrics.iter().filter(|line| line.loss.is_finite() && line.kinetic.is_finite()).collect();
    let share = finite.len().div_ceil(POINTS).max(1);
    let points = |value: fn(&Metrics) -> f64| -> Vec<(f64, f64)> {
        let mean = |lines: &[&Metrics], value: fn(&Metrics) -> f64| {
            lines.iter().map(|line| value(line)).sum::<f64>() / lines.len() as f64
        };
        finite.chunks(share).map(|lines| (mean(lines, |line| line.step as f64), mean(lines, value))).collect()
    };
    let (loss, kinetic) = (points(|line| line.loss), points(|line| line.kinetic));
    if loss.len() < 2 {
        return Ok(());
    }
    let mut svg = String::new();
    draw(&mut svg, &loss, &kinetic)
        .map_err(|error| Error::io(path, "draw")(std::io::Error::other(error.to_string())))?;
    write_atomically(path, |out| out.write_all(svg.as_bytes()))
}

fn draw(
    svg: &mut String,
    loss: &[(f64, f64)],
    kinetic: &[(f64, f64)],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    // The first steps are often far from the rest, so the axis covers all but the most extreme 2 %
    // of points.
    let mut values: Vec<f64> = loss.iter().chain(kinetic).map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 50;
    let (low, high) = (values[cut], values[values.len() - 1 - cut]);
    let margin = 0.05 * (high - low).max(1e-12 + 1e-6 * high.abs());
    let steps = loss[0].0..loss[loss.len() - 1].0;

    let area = SVGBackend::with_string(svg, (800, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(steps, low - margin..high + margin)?;
    chart.configure_mesh().x_desc("step").y_desc("network units").light_line_style(TRANSPARENT).draw()?;
    for (points, name, color) in
        [(kinetic, "kinetic energy E[½‖∇s‖²]", RGBColor(214, 120, 20)), (loss, "loss", RGBColor(20, 90, 170))]
    {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw()?;
    area.present()?;
    Ok(())
}
