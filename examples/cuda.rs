//! The same training on a GPU as on the CPU, or one line that says what is missing.
//!
//!     cargo run --release --example cuda

use action_matching::prelude::*;

pub fn main() -> Result<()> {
    let gpu = match CudaEngine::new(0, Precision::default()) {
        Ok(gpu) => gpu,
        Err(missing) => {
            println!("no GPU: {missing}");
            return Ok(());
        }
    };
    let before = draw_gaussian(600, 2, &mut Stream::of_normals(1, 2));
    let after: Vec<f32> = before.iter().map(|x| x - 2.0).collect();
    let snapshots = Snapshots::from_rows(2, [(0.0, &before), (1.0, &after)])?;
    let (snapshots, coordinates) = snapshots.standardize(Standardization::Isotropic)?;
    let training =
        Training { n_interior: 256, ..Training::new(Architecture::new(2, [32; 2]), DensityPath::linear(snapshots)) };

    // An engine is a value: all that follows is the same for both.
    for engine in [&gpu as &dyn Engine, &CpuEngine::new(0)] {
        let (mut trainer, mut loss) = (engine.start(training.clone())?, 0.0);
        trainer.steps(20, &mut |record: StepRecord| loss = record.loss)?;
        let moved = trainer.model(coordinates.clone())?.flow(engine, &before, [0.0, 1.0], Solver::rk4(10))?;
        println!("{}: loss {loss:.4}, first particle at {:.3?}", engine.describe(), &moved[..2]);
    }
    Ok(())
}
