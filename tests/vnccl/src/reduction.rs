//! Sums of ranks, element by element, in the order of ranks: the same bits on every rank and in
//! every run. NCCL's own order is another, and depends on the machine.

use crate::call::{Element, Reduction};

/// Reduces the equally long bytes of all ranks; `None` for types of 16 bits, whose sums NCCL rounds
/// in ways that depend on the machine.
pub fn reduce(reduction: Reduction, element: Element, ranks: &[&[u8]]) -> Option<Vec<u8>> {
    macro_rules! of {
        ($ty:ty, $sum:expr, $product:expr) => {
            fold(ranks, |a, b| {
                let (x, y) = (<$ty>::from_le_bytes(a), <$ty>::from_le_bytes(b));
                let (sum, product): (fn($ty, $ty) -> $ty, fn($ty, $ty) -> $ty) = ($sum, $product);
                let value = match reduction {
                    Reduction::Sum => sum(x, y),
                    Reduction::Prod => product(x, y),
                    Reduction::Max => <$ty>::max(x, y),
                    Reduction::Min => <$ty>::min(x, y),
                };
                value.to_le_bytes()
            })
        };
    }
    macro_rules! of_integers {
        ($ty:ty) => {
            of!($ty, <$ty>::wrapping_add, <$ty>::wrapping_mul)
        };
    }
    Some(match element {
        Element::I8 => of_integers!(i8),
        Element::U8 => of_integers!(u8),
        Element::I32 => of_integers!(i32),
        Element::U32 => of_integers!(u32),
        Element::I64 => of_integers!(i64),
        Element::U64 => of_integers!(u64),
        Element::F32 => of!(f32, |x, y| x + y, |x, y| x * y),
        Element::F64 => of!(f64, |x, y| x + y, |x, y| x * y),
        Element::F16 | Element::Bf16 => return None,
    })
}

fn fold<const N: usize>(ranks: &[&[u8]], combine: impl Fn([u8; N], [u8; N]) -> [u8; N]) -> Vec<u8> {
    let mut ranks = ranks.iter();
    let mut total = ranks.next().map_or(Vec::new(), |first| first.to_vec());
    for rank in ranks {
        for (total, added) in total.as_chunks_mut::<N>().0.iter_mut().zip(rank.as_chunks::<N>().0) {
            *total = combine(*total, *added);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_follow_the_order_of_ranks() {
        let ranks = [1e8_f32, 1.0, -1e8].map(f32::to_le_bytes);
        let sum = |order: [usize; 3]| {
            let ranks = order.map(|rank| &ranks[rank][..]);
            reduce(Reduction::Sum, Element::F32, &ranks).expect("a sum")
        };
        assert_eq!(sum([0, 1, 2]), 0f32.to_le_bytes());
        assert_eq!(sum([0, 2, 1]), 1f32.to_le_bytes());
    }

    #[test]
    fn each_reduction_is_its_own() {
        let (a, b) = ([3i32, -7].map(i32::to_le_bytes).concat(), [5i32, 2].map(i32::to_le_bytes).concat());
        for (reduction, expected) in [
            (Reduction::Sum, [8, -5]),
            (Reduction::Prod, [15, -14]),
            (Reduction::Max, [5, 2]),
            (Reduction::Min, [3, -7]),
        ] {
            let expected = expected.map(i32::to_le_bytes).concat();
            assert_eq!(reduce(reduction, Element::I32, &[&a, &b]).expect("a value"), expected, "{reduction:?}");
        }
        assert_eq!(reduce(Reduction::Sum, Element::Bf16, &[&a]), None);
    }
}
