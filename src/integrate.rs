//! Plans of integration: method, steps, tolerances, saved times. The stepping itself is the engine's.

use crate::error::{Error, Result};

/// Integration method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Forward Euler, order 1, 1 velocity a step.
    Euler,
    /// Heun's trapezoidal rule, order 2, 2 velocities a step.
    Heun,
    /// The classical Runge–Kutta method, order 4, 4 velocities a step.
    Rk4,
    /// Dormand–Prince 5(4), 6 velocities a step (first same as last), step controlled per tile.
    Dopri5,
}

impl Method {
    /// Velocities a fixed step costs.
    pub fn velocities_per_step(self) -> u64 {
        match self {
            Method::Euler => 1,
            Method::Heun => 2,
            Method::Rk4 => 4,
            Method::Dopri5 => 6,
        }
    }
}

/// How the step size is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepControl {
    /// `steps` equal steps from start to end. Where a saved time falls between two, each stretch between
    /// saved times takes its share of the steps, rounded up.
    Fixed {
        /// Number of steps, at least 1.
        steps: u64,
    },
    /// Error per step at most `atol + rtol·|y|` (root mean square over the tile); [`Method::Dopri5`] only.
    Adaptive {
        /// Relative tolerance.
        rtol: f64,
        /// Absolute tolerance, network units.
        atol: f64,
    },
}

/// One integration from `t0` to the last of `save_at`, in network time; forward or backward.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Method.
    pub method: Method,
    /// Step control.
    pub control: StepControl,
    /// Start time.
    pub t0: f64,
    /// Saved times, monotone from `t0` onwards (it may be the first of them); the last one is the end.
    pub save_at: Vec<f64>,
}

impl Plan {
    /// Number of fixed steps between the neighbouring saved times `from` and `to`: their share of all, rounded up.
    /// 0 when there is no way to go, or when the steps are adaptive.
    pub fn fixed_steps(&self, from: f64, to: f64) -> u64 {
        let (StepControl::Fixed { steps }, Some(end)) = (self.control, self.save_at.last()) else { return 0 };
        let whole = (end - self.t0).abs();
        if whole == 0.0 {
            return 0;
        }
        // The small subtraction keeps a share that is a whole number but for rounding from gaining a step.
        ((to - from).abs() / whole * steps as f64 - 1e-6).ceil().max(0.0) as u64
    }

    /// Checks the plan.
    ///
    /// # Errors
    /// [`Error::Input`] naming the flag of `amatch sample` at fault.
    pub fn validate(&self) -> Result<()> {
        let fail = |field: &str, problem: String, fix: &str| Err(Error::input("integration plan", field, problem, fix));
        let Some(&end) = self.save_at.last() else {
            return fail("--save-at", "names no time".into(), "name at least one");
        };
        if let Some(t) = self.save_at.iter().chain([&self.t0]).find(|t| !t.is_finite()) {
            return fail("--t0/--t1/--save-at", format!("contains {t}"), "use finite times");
        }
        let direction = if end >= self.t0 { 1.0 } else { -1.0 };
        let mut previous = self.t0;
        for &t in &self.save_at {
            if (t - previous) * direction < 0.0 {
                return fail(
                    "--save-at",
                    "is not ordered from the start to the end time".into(),
                    "list the times in the order they are reached",
                );
            }
            previous = t;
        }
        match self.control {
            StepControl::Fixed { steps: 0 } => fail("--steps", "is 0".into(), "use at least 1"),
            StepControl::Adaptive { rtol, atol } if !(rtol >= 0.0 && atol >= 0.0 && rtol + atol > 0.0) => fail(
                "--rtol/--atol",
                format!("are {rtol} and {atol}"),
                "use numbers ≥ 0, at least one of them positive",
            ),
            StepControl::Adaptive { .. } if self.method != Method::Dopri5 => {
                fail("--rtol/--atol", format!("do not apply to {:?}", self.method), "use --steps, or --method dopri5")
            }
            _ => Ok(()),
        }
    }
}
