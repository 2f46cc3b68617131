//! The workloads of `amatch bench`.

use action_matching::engine::Estimator;
use action_matching::integrate::Method;
use action_matching::laplacian::{Laplacian, LaplacianRule};
use action_matching::memory;
use action_matching::model::{Activation, Architecture, Head, TimeEmbedding};

/// Fixed work on a network of silu layers.
#[derive(Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    network: Network,
    pub work: Work,
}

#[derive(Clone, Copy)]
struct Network {
    dim: usize,
    hidden: &'static [usize],
    head: Head,
}

#[derive(Clone, Copy)]
pub enum Work {
    /// Training steps.
    Train(Step),
    /// Integration of this many particles from 0 to 1.
    Sample { particles: usize, method: Method, steps: u64 },
}

/// A training step on straight lines between snapshots.
#[derive(Clone, Copy)]
pub struct Step {
    /// Interior rows, and as many boundary rows at each end if the estimator has any.
    pub rows: usize,
    pub estimator: Estimator,
    /// Diffusion.
    pub sigma: f64,
    /// Used if there is diffusion.
    pub laplacian: Laplacian,
    /// True if samples are paired by optimal transport.
    pub paired: bool,
}

const HYDROGEN: Network = Network { dim: 3, hidden: &[256; 4], head: Head::Quadratic };
const EMBRYOID: Network = Network { dim: 5, hidden: &[512; 3], head: Head::Scalar };
const TOY2D: Network = Network { dim: 2, hidden: &[64; 3], head: Head::Scalar };
const WIDE: Network = Network { dim: 50, hidden: &[512; 4], head: Head::Scalar };

/// The loss as the paper writes it.
const ACTION: Estimator = Estimator::Action { centering: false };
const ONE_PROBE: Laplacian = Laplacian { rule: LaplacianRule::Rademacher, n_probes: 1 };

/// A step of plain Action Matching.
const fn plain(rows: usize) -> Step {
    Step { rows, estimator: ACTION, sigma: 0.0, laplacian: ONE_PROBE, paired: false }
}

const fn train(name: &'static str, network: Network, step: Step) -> Workload {
    Workload { name, network, work: Work::Train(step) }
}

const fn sample(name: &'static str, network: Network, particles: usize, method: Method, steps: u64) -> Workload {
    Workload { name, network, work: Work::Sample { particles, method, steps } }
}

/// Every workload. `…-regression` trains as `estimator = "auto"` does on paths with a velocity.
pub const WORKLOADS: &[Workload] = &[
    train("hydrogen", HYDROGEN, plain(1000)),
    train("hydrogen-regression", HYDROGEN, Step { estimator: Estimator::Regression, ..plain(1000) }),
    train("entropic-hydrogen", HYDROGEN, Step { sigma: 1.0, ..plain(1000) }),
    train("entropic-hydrogen-exact", HYDROGEN, Step { sigma: 1.0, laplacian: Laplacian::EXACT, ..plain(1000) }),
    train("embryoid", EMBRYOID, plain(512)),
    train("embryoid-regression", EMBRYOID, Step { estimator: Estimator::Regression, ..plain(512) }),
    train("embryoid-ot", EMBRYOID, Step { paired: true, ..plain(512) }),
    train("toy2d", TOY2D, plain(4096)),
    train("wide", WIDE, plain(2048)),
    sample("sampling-hydrogen", HYDROGEN, 200_000, Method::Euler, 100),
    sample("sampling-toy2d", TOY2D, 1_000_000, Method::Rk4, 50),
];

impl Workload {
    /// The workload `name`.
    pub fn find(name: &str) -> Option<Workload> {
        WORKLOADS.iter().find(|workload| workload.name == name).copied()
    }

    /// The same work on `rows` rows of each kind, or particles.
    pub fn with_rows(self, rows: usize) -> Workload {
        let work = match self.work {
            Work::Train(step) => Work::Train(Step { rows, ..step }),
            Work::Sample { method, steps, .. } => Work::Sample { particles: rows, method, steps },
        };
        Workload { work, ..self }
    }

    /// Coordinates of a row.
    pub fn dim(&self) -> usize {
        self.network.dim
    }

    pub fn architecture(&self) -> Architecture {
        let Network { dim, hidden, head } = self.network;
        Architecture {
            dim,
            hidden: hidden.to_vec(),
            activation: Activation::Silu,
            head,
            time_embedding: TimeEmbedding::Raw,
            conditions: 0,
        }
    }

    /// Rows of a step, or particles.
    pub fn rows(&self) -> f64 {
        match self.work {
            Work::Train(step) => (step.rows + 2 * step.boundary_rows()) as f64,
            Work::Sample { particles, .. } => particles as f64,
        }
    }

    /// Floating-point operations of a step or run. An interior row takes 6 products with all
    /// weights and 3 more for each direction of its Laplacian, a boundary row 3, a velocity 2.
    pub fn flop(&self) -> f64 {
        let products = match self.work {
            Work::Train(step) => {
                let directions = if step.sigma > 0.0 { step.laplacian.n_directions(self.network.dim) } else { 0 };
                ((6 + 3 * directions) * step.rows + 3 * 2 * step.boundary_rows()) as f64
            }
            Work::Sample { particles, method, steps } => {
                2.0 * particles as f64 * (steps * method.velocities_per_step()) as f64
            }
        };
        let layers = self.architecture().layers();
        products * layers.iter().map(|layer| 2.0 * (layer.n_in * layer.n_out) as f64).sum::<f64>()
    }

    /// Minimum memory: start and end of each particle; for a training step, the list of its tiles.
    pub fn least_bytes(&self) -> u128 {
        match self.work {
            Work::Sample { particles, .. } => memory::bytes(&[particles, self.network.dim, 2 * size_of::<f32>()]),
            Work::Train(step) => memory::bytes(&[step.rows, 3]),
        }
    }
}

impl Step {
    /// Boundary rows at each end.
    fn boundary_rows(&self) -> usize {
        if self.estimator == Estimator::Regression { 0 } else { self.rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products per row of a step, by hand.
    #[test]
    fn operations_follow_from_estimator_and_laplacian() {
        let products = |name: &str, per_product: usize| {
            let workload = Workload::find(name).expect("a workload").with_rows(10);
            workload.flop() / (10 * per_product) as f64
        };
        let hydrogen = 2 * (4 * 256 + 3 * 256 * 256 + 256 * 3);
        assert_eq!(products("hydrogen", hydrogen), 12.0);
        assert_eq!(products("hydrogen-regression", hydrogen), 6.0);
        assert_eq!(products("entropic-hydrogen", hydrogen), 15.0);
        assert_eq!(products("entropic-hydrogen-exact", hydrogen), 21.0);
        assert_eq!(products("sampling-hydrogen", hydrogen), 200.0);
        let rows = |name: &str| Workload::find(name).expect("a workload").with_rows(10).rows();
        assert_eq!((rows("embryoid"), rows("embryoid-regression"), rows("sampling-toy2d")), (30.0, 10.0, 10.0));
    }
}
