//! Velocities on an embedding such as UMAP, which has no map from the space of the model: they are
//! read off the neighbors of each row, as scVelo does (Bergen et al., Nature Biotechnology 2020).

/// κ of the kernel: the smaller, the more the neighbor that lies straight ahead counts.
const KERNEL_WIDTH: f64 = 0.1;

/// The direction in the embedding of a row at `x [dim]` with velocity `v [dim]` and its `place
/// [width]`:
///
/// V = Σⱼ (πⱼ − 1/k) (eⱼ − e) / ‖eⱼ − e‖ with πⱼ ∝ exp(cos(v, xⱼ − x) / κ)
///
/// over `neighbors`, k pairs of position xⱼ and place eⱼ. It has a direction and a confidence, no
/// unit. `None` without a velocity, or without neighbors that have one; rows at `x` are none.
pub(crate) fn direction<'a, T: Copy + Into<f64> + 'a>(
    (x, v): (&[T], &[T]),
    place: &[T],
    neighbors: impl Iterator<Item = (&'a [T], &'a [T])>,
) -> Option<Vec<f64>> {
    let speed = v.iter().map(|&v| v.into() * v.into()).sum::<f64>().sqrt();
    let weight = |other: &[T]| {
        let (mut along, mut squared) = (0.0, 0.0);
        for ((&x, &v), &y) in x.iter().zip(v).zip(other) {
            let way = y.into() - x.into();
            along += v.into() * way;
            squared += way * way;
        }
        let cosine = along / (speed * squared.sqrt());
        cosine.is_finite().then(|| (cosine / KERNEL_WIDTH).exp())
    };
    let weighted: Vec<(f64, &[T])> =
        neighbors.filter_map(|(other, place)| weight(other).map(|weight| (weight, place))).collect();
    if weighted.is_empty() {
        return None;
    }
    let total: f64 = weighted.iter().map(|(weight, _)| weight).sum();
    let even = 1.0 / weighted.len() as f64;
    let mut sum = vec![0.0; place.len()];
    for (weight, to) in weighted {
        let way = || to.iter().zip(place).map(|(&to, &from)| to.into() - from.into());
        let distance = way().map(|step| step * step).sum::<f64>().sqrt();
        if distance > 0.0 {
            let share = (weight / total - even) / distance;
            sum.iter_mut().zip(way()).for_each(|(sum, step)| *sum += share * step);
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbors_ahead_pull_and_those_behind_push() {
        let rows = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0]];
        let places = [[10.0, 0.0], [-5.0, 0.0], [0.0, 2.0], [0.0, 9.0]];
        let around = || rows.iter().map(|row| &row[..]).zip(places.iter().map(|place| &place[..]));
        let found = direction((&[0.0, 0.0], &[2.0, 0.0]), &[0.0, 0.0], around()).expect("a direction");
        let weights = [10.0f64, -10.0, 0.0].map(f64::exp);
        let share = |k: usize| weights[k] / weights.iter().sum::<f64>() - 1.0 / 3.0;
        assert!((found[0] - (share(0) - share(1))).abs() < 1e-12 && (found[1] - share(2)).abs() < 1e-12, "{found:?}");
        assert_eq!(direction((&[0.0, 0.0], &[0.0, 0.0]), &[0.0, 0.0], around()), None);
        assert_eq!(direction((&[0.0, 0.0], &[1.0, 0.0]), &[0.0, 0.0], around().skip(3)), None);
    }
}
