//! The explicit Runge–Kutta methods, each as its Butcher tableau.

use crate::integrate::Method;

/// Coefficients of one method.
pub struct Tableau {
    /// Nodes c: stage `i` is evaluated at t + cᵢ h.
    pub nodes: &'static [f64],
    /// Rows a of the stages after the first.
    pub stages: &'static [&'static [f64]],
    /// Weights b of the result.
    pub weights: &'static [f64],
    /// b − b̂, the weights of the error estimate; empty without one.
    pub error: &'static [f64],
    /// True if the last stage is evaluated at the result, so that it serves as the first stage of
    /// the next step.
    pub first_same_as_last: bool,
}

impl Tableau {
    /// The tableau of `method`.
    pub fn of(method: Method) -> &'static Tableau {
        match method {
            Method::Euler | Method::EulerMaruyama => &EULER,
            Method::Heun | Method::StochasticHeun => &HEUN,
            Method::Rk4 => &RK4,
            Method::Dopri5 => &DOPRI5,
        }
    }
}

const EULER: Tableau = Tableau { nodes: &[0.0], stages: &[], weights: &[1.0], error: &[], first_same_as_last: false };

const HEUN: Tableau =
    Tableau { nodes: &[0.0, 1.0], stages: &[&[1.0]], weights: &[0.5, 0.5], error: &[], first_same_as_last: false };

const RK4: Tableau = Tableau {
    nodes: &[0.0, 0.5, 0.5, 1.0],
    stages: &[&[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
    weights: &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
    error: &[],
    first_same_as_last: false,
};

/// Dormand & Prince 1980, RK5(4)7M.
const DOPRI5: Tableau = Tableau {
    nodes: &[0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0],
    stages: &[
        &[0.2],
        &[3.0 / 40.0, 9.0 / 40.0],
        &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
        &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
        &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
        &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
    ],
    weights: &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0, 0.0],
    error: &[71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0],
    first_same_as_last: true,
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Row sums equal the nodes, and the weights of the result meet the order conditions Σ b cᵏ = 1
    /// / (k + 1) of a quadrature.
    #[test]
    fn tableaus_are_consistent() {
        for (method, order) in [(Method::Euler, 1), (Method::Heun, 2), (Method::Rk4, 4), (Method::Dopri5, 5)] {
            let tableau = Tableau::of(method);
            for (row, node) in tableau.stages.iter().zip(&tableau.nodes[1..]) {
                assert!((row.iter().sum::<f64>() - node).abs() < 1e-14, "{method:?}");
            }
            for power in 0..order {
                let moment: f64 = tableau.weights.iter().zip(tableau.nodes).map(|(b, c)| b * c.powi(power)).sum();
                assert!((moment - 1.0 / f64::from(power + 1)).abs() < 1e-14, "{method:?}, power {power}");
            }
            assert!(tableau.error.iter().sum::<f64>().abs() < 1e-14, "{method:?}");
        }
    }
}
