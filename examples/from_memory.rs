//! Data in memory with units of their own: two quantities of very different size at three uneven
//! times, a population that grows, and what the model says of it.
//!
//!     cargo run --release --example from_memory

use action_matching::prelude::*;

/// Mass (kg) and temperature (K) of `n` bodies that gain 0.5 kg and lose 2 K a day.
fn measured(day: f64, n: usize) -> (f64, Vec<f32>) {
    let rows = draw_gaussian(n, 2, &mut Stream::of_normals(day as u64, 2));
    let bodies = rows.chunks_exact(2).flat_map(|x| {
        let (mass, temperature) = (f64::from(x[0]), f64::from(x[1]));
        [(0.1 * mass + 1.0 + 0.5 * day) as f32, (5.0 * temperature + 300.0 - 2.0 * day) as f32]
    });
    (day, bodies.collect())
}

pub fn main() -> Result<()> {
    // Twice as many bodies in ten days.
    let snapshots = Snapshots::from_rows(2, [measured(0.0, 300), measured(4.0, 396), measured(10.0, 600)])?;
    let masses = (0..3).map(|k| snapshots.n_rows(k) as f64 / 300.0).collect();
    let (snapshots, coordinates) = snapshots.standardize(Standardization::PerDimension)?;
    println!("one unit of the network: {:.2?} (kg, K)", coordinates.scale);

    let training = Training {
        objective: Objective { growth: 1.0, ..Objective::default() },
        n_interior: 512,
        seed: 3,
        ..Training::new(
            Architecture { activation: Activation::Tanh, ..Architecture::new(2, [48; 2]) },
            DensityPath { masses: Some(masses), ..DensityPath::linear(snapshots).paired(0, &Stage::default())? },
        )
    };
    let engine = CpuEngine::new(0);
    let mut trainer = engine.start(training.for_steps(600))?;
    let mut losses = Vec::new();
    trainer.steps(600, &mut |record: StepRecord| losses.push(record.loss))?;
    println!("loss {:.3} at first, {:.3} at last", losses[0], losses[losses.len() - 1]);

    let model = trainer.model(coordinates)?;
    let (_, start) = measured(0.0, 300);
    let (end, weights) = model.weighted_flow(&engine, &start, [0.0, 10.0], Solver::default())?;
    let total: f64 = weights.iter().sum();
    let mean = |i: usize| end.chunks_exact(2).zip(&weights).map(|(x, w)| f64::from(x[i]) * w).sum::<f64>() / total;
    println!("after 10 days: {:.2} kg, {:.1} K (in truth 6, 280)", mean(0), mean(1));
    println!("and {:.2} times as many (in truth 2)", total / 300.0);
    Ok(())
}
