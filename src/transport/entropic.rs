//! Optimal entropy transport by Sinkhorn iterations: unbalanced transport, whose plan may deviate
//! from the given masses at the price of the relative entropy (Liero, Mielke & Savaré 2018).
//!
//! With the masses γ₀ and γ₁ that a plan γ takes from the points of the two sides, and a and b that
//! they have, it minimizes Σ γᵢⱼ cᵢⱼ + KL(γ₀|a) + KL(γ₁|b) + ε KL(γ|a⊗b). The last term goes to 0:
//! ε is halved, from the largest cost, until a point has [`PARTNERS`] partners and ε is small
//! against 1, the price of growth ([`ACCURACY`]). In one level of ε, potentials f and g of the plan
//! γᵢⱼ = aᵢ bⱼ exp((fᵢ + gⱼ − cᵢⱼ)/ε) are improved in turn, as is their shift f + k, g − k, which
//! the iterations alone would find slowly (Séjourné, Vialard & Peyré 2022). Entries that are 0 in
//! effect are left out (Schmitzer 2019), so late levels, with most iterations, are cheap.

use crate::error::Result;
use crate::stage::{self, Watch};

/// Effective number of partners of a point of the larger side at which ε is small enough: the
/// masses that move are then near those of the optimum, which they change only to second order.
const PARTNERS: f64 = 4.0;
/// Largest ε: it changes the masses by about this fraction where few partners are within reach.
const ACCURACY: f64 = 0.01;
/// A level ends when potentials change by less, on average, in units of ε …
const TOLERANCE: f64 = 0.01;
/// … or after this many iterations. What is left changes the plan little: it is a shift of parts of
/// the data that exchange no mass.
const MOST_ITERATIONS: usize = 100;
/// Most times that ε is halved: repeated points always share partners.
const MOST_LEVELS: usize = 40;
/// Entries below e⁻³⁰ of the largest of their row and of their column are left out, until a
/// potential has changed by 5 ε.
const CUTOFF: f64 = 30.0;
const STALE: f64 = 5.0;

/// The masses γ₀ `[n]` and γ₁ `[m]` that the optimal plan moves between masses `a [n]` and `b [m]`,
/// which are positive, for the row-major `costs [n, m]`, which are not negative, and infinite where
/// no mass may move. Those of points that reach no other are 0; both sums are equal up to rounding.
/// They are the masses of a plan, so no mass need move further than in it.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) if `watch` cancels.
pub fn solve(costs: &[f64], a: &[f64], b: &[f64], watch: &dyn Watch) -> Result<[Vec<f64>; 2]> {
    let total: f64 = a.iter().sum();
    let mut level = Level {
        costs,
        a: a.iter().map(|a| a / total).collect(),
        b: b.iter().map(|b| b / total).collect(),
        f: vec![0.0; a.len()],
        g: vec![0.0; b.len()],
        parts: connected(costs, a.len(), b.len()),
        epsilon: 1.0,
    };
    let largest = costs.iter().copied().filter(|cost| cost.is_finite()).fold(0.0, f64::max);
    if largest > 0.0 {
        level.epsilon = largest.min(1.0);
    }
    for _ in 0..MOST_LEVELS {
        level.converge(watch)?;
        if level.epsilon <= ACCURACY && level.kernel(watch)?.effective_partners() <= PARTNERS {
            break;
        }
        level.epsilon *= 0.5;
    }
    let plan = level.kernel(watch)?;
    let masses = [plan.row_sums(&vec![1.0; b.len()]), plan.column_sums(&vec![1.0; a.len()])];
    Ok(masses.map(|masses| masses.into_iter().map(|mass| mass * total).collect()))
}

/// The problem at one ε.
struct Level<'a> {
    costs: &'a [f64],
    /// Masses of the points, in units of those of the first side.
    a: Vec<f64>,
    b: Vec<f64>,
    f: Vec<f64>,
    g: Vec<f64>,
    /// Of each row and then of each column, the part of the points that it reaches, also by way of
    /// others.
    parts: Vec<usize>,
    epsilon: f64,
}

impl Level<'_> {
    /// Improves the potentials.
    fn converge(&mut self, watch: &dyn Watch) -> Result<()> {
        let mut kernel = self.kernel(watch)?;
        // exp((f − f at the kernel)/ε), likewise of g.
        let (mut u, mut v) = (vec![1.0f64; self.a.len()], vec![1.0f64; self.b.len()]);
        for _ in 0..MOST_ITERATIONS {
            stage::check(watch)?;
            let (mut change, mut mass) = (0.0, 0.0);
            // Σⱼ γᵢⱼ = aᵢ exp(−fᵢ) at the best f.
            for (i, sum) in kernel.row_sums(&v).into_iter().enumerate().filter(|(_, sum)| *sum > 0.0) {
                let (base, before) = (self.f[i] - self.epsilon * u[i].ln(), self.f[i]);
                self.f[i] = best(base, sum / self.a[i], self.epsilon);
                u[i] = ((self.f[i] - base) / self.epsilon).exp();
                let moved = self.a[i] * (-self.f[i]).exp();
                change += moved * (self.f[i] - before).abs();
                mass += moved;
            }
            for (j, sum) in kernel.column_sums(&u).into_iter().enumerate().filter(|(_, sum)| *sum > 0.0) {
                let base = self.g[j] - self.epsilon * v[j].ln();
                self.g[j] = best(base, sum / self.b[j], self.epsilon);
                v[j] = ((self.g[j] - base) / self.epsilon).exp();
            }
            self.shift();
            if change <= TOLERANCE * self.epsilon * mass {
                break;
            }
            if u.iter().chain(&v).any(|factor| factor.ln().abs() > STALE) {
                kernel = self.kernel(watch)?;
                (u, v) = (vec![1.0; u.len()], vec![1.0; v.len()]);
            }
        }
        Ok(())
    }

    /// The best k of f + k and g − k for each part of the points that reaches no other: both sides
    /// of the part then lose the same mass. The plan stays.
    fn shift(&mut self) {
        let (rows, columns) = self.parts.split_at(self.a.len());
        let mut kept = vec![[0.0; 2]; self.parts.len()];
        let sides = [(&self.a, &self.f, rows), (&self.b, &self.g, columns)];
        for (side, (masses, potentials, parts)) in sides.into_iter().enumerate() {
            for ((mass, potential), &part) in masses.iter().zip(potentials).zip(parts) {
                kept[part][side] += mass * (-potential).exp();
            }
        }
        let shift = |&[left, right]: &[f64; 2]| {
            let ratio: f64 = left / right;
            if ratio.is_finite() && ratio > 0.0 { 0.5 * ratio.ln() } else { 0.0 }
        };
        let shifts: Vec<f64> = kept.iter().map(shift).collect();
        self.f.iter_mut().zip(rows).for_each(|(f, &part)| *f += shifts[part]);
        self.g.iter_mut().zip(columns).for_each(|(g, &part)| *g -= shifts[part]);
    }

    /// The plan of the potentials.
    fn kernel(&self, watch: &dyn Watch) -> Result<Kernel> {
        let (n, m) = (self.a.len(), self.b.len());
        let exponent = |i: usize, j: usize| (self.f[i] + self.g[j] - self.costs[i * m + j]) / self.epsilon;
        let mut column_largest = vec![f64::NEG_INFINITY; m];
        let mut row_largest = vec![f64::NEG_INFINITY; n];
        for (i, row_largest) in row_largest.iter_mut().enumerate() {
            for (j, column_largest) in column_largest.iter_mut().enumerate() {
                let exponent = exponent(i, j);
                *row_largest = row_largest.max(exponent);
                *column_largest = column_largest.max(exponent);
            }
        }
        let has = |largest: &[f64]| largest.iter().map(|largest| *largest > f64::NEG_INFINITY).collect();
        let mut kernel = Kernel {
            starts: vec![0],
            columns: Vec::new(),
            values: Vec::new(),
            has_row: has(&row_largest),
            has_column: has(&column_largest),
        };
        for (i, row_largest) in row_largest.into_iter().enumerate() {
            stage::check(watch)?;
            for (j, column_largest) in column_largest.iter().enumerate() {
                let exponent = exponent(i, j);
                if exponent > f64::NEG_INFINITY && exponent >= row_largest.min(*column_largest) - CUTOFF {
                    kernel.columns.push(j as u32);
                    kernel.values.push(self.a[i] * self.b[j] * exponent.exp());
                }
            }
            kernel.starts.push(kernel.columns.len());
        }
        Ok(kernel)
    }
}

/// The number of the connected part of each row, and then of each column: that of one of its
/// points. Finite costs connect.
fn connected(costs: &[f64], n: usize, m: usize) -> Vec<usize> {
    fn root(parts: &mut [usize], mut point: usize) -> usize {
        while parts[point] != point {
            parts[point] = parts[parts[point]];
            point = parts[point];
        }
        point
    }
    let mut parts: Vec<usize> = (0..n + m).collect();
    for (at, _) in costs.iter().enumerate().filter(|(_, cost)| cost.is_finite()) {
        let [one, other] = [root(&mut parts, at / m), root(&mut parts, n + at % m)];
        parts[one.max(other)] = one.min(other);
    }
    (0..parts.len()).map(|point| root(&mut parts, point)).collect()
}

/// The potential that is best for a point of which the plan takes the share `taken` exp(Δ/ε) if the
/// potential is `base` + Δ: exp(−f) is then equal to that share.
fn best(base: f64, taken: f64, epsilon: f64) -> f64 {
    (base - epsilon * taken.ln()) / (1.0 + epsilon)
}

/// The entries of a plan that are not negligible, by rows.
struct Kernel {
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f64>,
    /// Whether a point has a partner.
    has_row: Vec<bool>,
    has_column: Vec<bool>,
}

impl Kernel {
    fn row(&self, i: usize) -> impl Iterator<Item = (usize, f64)> {
        let range = self.starts[i]..self.starts[i + 1];
        self.columns[range.clone()].iter().zip(&self.values[range]).map(|(&j, &value)| (j as usize, value))
    }

    /// Σⱼ γᵢⱼ vⱼ.
    fn row_sums(&self, v: &[f64]) -> Vec<f64> {
        (0..self.starts.len() - 1).map(|i| self.row(i).map(|(j, value)| value * v[j]).sum()).collect()
    }

    /// Σᵢ uᵢ γᵢⱼ.
    fn column_sums(&self, u: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; self.has_column.len()];
        for (i, u) in u.iter().enumerate() {
            self.row(i).for_each(|(j, value)| sums[j] += u * value);
        }
        sums
    }

    /// exp of the entropy of the plan, which is the number of its entries if all are equal, for
    /// each point of the side that has more points with a partner; 0 if there is none.
    fn effective_partners(&self) -> f64 {
        let total: f64 = self.values.iter().sum();
        let count = |has: &[bool]| has.iter().filter(|has| **has).count();
        let points = count(&self.has_row).max(count(&self.has_column));
        let shares = self.values.iter().map(|value| value / total).filter(|share| *share > 0.0);
        let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
        if points == 0 { 0.0 } else { entropy.exp() / points as f64 }
    }
}
