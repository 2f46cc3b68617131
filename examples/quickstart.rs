//! From two samples of a population to particles that move from one to the other.
//!
//!     cargo run --release --example quickstart

use action_matching::prelude::*;
use action_matching::transport::wasserstein2;

pub fn main() -> Result<()> {
    // A cloud of 600 points, and 500 others of the same cloud after it shrank and moved.
    let before = draw_gaussian(600, 2, &mut Stream::of_normals(1, 2));
    let after: Vec<f32> = draw_gaussian(500, 2, &mut Stream::of_normals(2, 2)).iter().map(|x| 0.5 * x + 3.0).collect();

    let snapshots = Snapshots::from_rows(2, [(0.0, &before), (24.0, &after)])?;
    let (snapshots, coordinates) = snapshots.standardize(Standardization::Isotropic)?;
    let path = DensityPath::linear(snapshots).paired(0, &Stage::default())?;

    let (engine, steps) = (CpuEngine::new(0), 500);
    let mut trainer = engine.start(Training::new(Architecture::new(2, [64; 2]), path).for_steps(steps))?;
    trainer.steps(steps, &mut ())?;
    let model = trainer.model(coordinates)?;

    // Points, times and velocities in the units of the data.
    let moved = model.flow(&engine, &before, [0.0, 24.0], Solver::rk4(20))?;
    let [unmoved, moved] = [&before, &moved].map(|points| wasserstein2(2, points, &after, &()));
    println!("W2 to the later sample: {:.3} before, {:.3} moved", unmoved?, moved?);
    println!("velocity at (0, 0) and time 0: {:.3?} a unit of time", model.velocity(&engine, &[0.0, 0.0], 0.0)?);
    Ok(())
}
