//! Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011), and which draw owns which
//! counter.
//!
//! Key = seed, counter = (row, purpose, step). The same seed draws the same batch, probes and noise
//! on every engine and with any number of threads, and a resumed run needs only the step number.
//!
//! ```
//! use action_matching::rng::{Purpose, unit_f32, words};
//!
//! let draw = |step| words(42, Purpose::Interior, step, 3).map(unit_f32);
//! assert_eq!(draw(10), draw(10));
//! assert_ne!(draw(10), draw(11));
//! assert!(draw(10).iter().all(|x| (0.0..1.0).contains(x)));
//! ```

use std::convert::Infallible;

use rand::rand_core::{self, SeedableRng, TryRng};

/// Purpose of a draw: the second word of the counter. A value is never reused for another purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Interior rows of a training batch: words = (time, left row or pair, right row or the row
    /// before the pair, the row after the pair).
    Interior = 0,
    /// Boundary rows at the first time: words = (row, free, free, free). With the weak estimator,
    /// the ends of its intervals: words as for `Interior`.
    Boundary0 = 1,
    /// Boundary rows at the last time.
    Boundary1 = 2,
    /// Offset shared by the low-discrepancy times of a step (row 0; row 1 for the intervals of the
    /// weak estimator).
    TimeOffset = 3,
    /// Probes of the Laplacian estimate: the words of a row lie in consecutive counters, see
    /// [`RowWords`].
    Probe = 4,
    /// Brownian increments of the integrators.
    Noise = 5,
    /// Initial parameters (step 0; row = index of the parameter / 4).
    Initialization = 6,
    /// Start particles of `sample` (row = particle).
    Particles = 7,
    /// Choice of rows for evaluation: subsets and disjoint halves.
    Evaluation = 8,
    /// Offset of systematic resampling (step = saved time, row 0).
    Resampling = 9,
    /// Division of snapshots into problems for optimal couplings (step = snapshot, row = position).
    Problems = 10,
    /// Start noise of generative paths: normal numbers in the words of a row, see [`RowWords`].
    StartNoise = 11,
    /// Division of snapshots into the shards that are on a device one after the other (step =
    /// snapshot, row = position).
    Shards = 12,
    /// Group of a batch row: words = (group, free, free, free).
    Group = 15,
    /// Numbers for code outside this crate: a [`Stream`] made from a seed alone.
    Free = 13,
    /// Rows that are held out of training (step = snapshot, row = position; the last row rounds the
    /// number).
    HoldOut = 17,
    /// Choice of the rows that stand for a snapshot in a validation (step = snapshot, row =
    /// position).
    Validation = 14,
    /// Choice of rows by their weights (step = snapshot or its time, row = position; the last row
    /// is the offset of systematic resampling).
    WeightedRows = 24,
    /// Rows that early stopping keeps apart from training (step = snapshot, row = position).
    Stopping = 18,
    /// Start of the search for the components of wide samples (step = component / 4, row = column).
    Components = 20,
    /// Directions of sliced distances (step = group of orthonormal directions, row = one of them):
    /// normal numbers in the words of a row, see [`RowWords`].
    Directions = 25,
}

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The ten-round Philox4x32 bijection of `counter` under `key`.
#[inline(always)]
#[must_use]
pub fn philox4x32(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// The four random words for (`seed`, `purpose`, `step`, `row`).
#[inline(always)]
#[must_use]
pub fn words(seed: u64, purpose: Purpose, step: u64, row: u32) -> [u32; 4] {
    philox4x32([seed as u32, (seed >> 32) as u32], [row, purpose as u32, step as u32, (step >> 32) as u32])
}

/// Any number of random words per row: row r owns the counters r·n .. (r + 1)·n, n = ⌈words / 4⌉,
/// modulo 2³².
#[derive(Clone, Copy, Debug)]
pub struct RowWords {
    seed: u64,
    purpose: Purpose,
    step: u64,
    n_counters: u32,
}

impl RowWords {
    /// `n_words` words for each row of (`seed`, `purpose`, `step`).
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, step: u64, n_words: usize) -> Self {
        RowWords { seed, purpose, step, n_counters: n_words.div_ceil(4) as u32 }
    }

    /// The words of `row`, four at a time.
    #[inline(always)]
    pub fn of(self, row: u32) -> impl Iterator<Item = [u32; 4]> {
        let first = row.wrapping_mul(self.n_counters);
        (0..self.n_counters).map(move |i| words(self.seed, self.purpose, self.step, first.wrapping_add(i)))
    }
}

/// The words of one purpose, row after row, as a generator of the crate `rand` ([`rand::Rng`]), for
/// functions that take any generator.
///
/// Row r of `n` words has those of the counters (r, purpose, 0), (r, purpose, 1), …; the upper half
/// of r extends the last element of the counter. It ends after 2⁶⁴ rows, where it starts again.
/// Numbers are reproducible, not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    purpose: Purpose,
    words_per_row: u32,
    row: u64,
    /// Words of this row that were drawn.
    taken: u32,
    /// The words of the current counter; outdated if the next word is the first of a counter.
    words: [u32; 4],
}

impl Stream {
    fn new(seed: u64, purpose: Purpose, words_per_row: u32) -> Self {
        Stream { seed, purpose, words_per_row, row: 0, taken: 0, words: [0; 4] }
    }

    /// One word per particle: the stream from which the program's
    /// [`draw_rows`](crate::data::draw_rows) draws.
    #[must_use]
    pub fn of_indices(seed: u64) -> Self {
        Stream::new(seed, Purpose::Particles, 1)
    }

    /// Words for `dim` normal numbers per particle: the stream from which the program's
    /// [`draw_gaussian`](crate::data::draw_gaussian) draws. Particle i depends only on `seed` and
    /// i, for each `dim`.
    #[must_use]
    pub fn of_normals(seed: u64, dim: usize) -> Self {
        Stream::new(seed, Purpose::Particles, dim.max(1).next_multiple_of(4) as u32)
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let place = self.taken % 4;
        if place == 0 {
            let step = (self.row >> 32) << 32 | u64::from(self.taken / 4);
            self.words = words(self.seed, self.purpose, step, self.row as u32);
        }
        self.taken += 1;
        if self.taken == self.words_per_row {
            (self.row, self.taken) = (self.row.wrapping_add(1), 0);
        }
        Ok(self.words[place as usize])
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        rand_core::utils::next_u64_via_u32(self)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        rand_core::utils::fill_bytes_via_next_word(bytes, || self.try_next_u32())
    }
}

/// The stream of a seed for code outside this crate: none of its numbers is drawn anywhere else.
impl SeedableRng for Stream {
    type Seed = [u8; 8];

    fn from_seed(seed: [u8; 8]) -> Self {
        Stream::new(u64::from_le_bytes(seed), Purpose::Free, 4)
    }

    /// Each seed is a key of its own, however alike two of them are: nothing needs to be mixed.
    fn seed_from_u64(seed: u64) -> Self {
        Self::from_seed(seed.to_le_bytes())
    }
}

/// Uniform in the open interval (0, 1), 23 bits: exact in f32, so every engine gets the same value.
#[inline(always)]
#[must_use]
pub fn unit_f32(word: u32) -> f32 {
    ((word >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0)
}

/// Uniform index in `0..n` (multiply-shift; the bias is below n / 2³²).
#[inline(always)]
#[must_use]
pub fn index(word: u32, n: usize) -> usize {
    ((u64::from(word) * n as u64) >> 32) as usize
}

/// Two independent standard normal numbers from two words (Box–Muller).
#[inline(always)]
#[must_use]
pub fn normal_pair(a: u32, b: u32) -> [f32; 2] {
    let radius = (-2.0 * unit_f32(a).ln()).sqrt();
    let (sin, cos) = (std::f32::consts::TAU * unit_f32(b)).sin_cos();
    [radius * cos, radius * sin]
}

/// Four independent standard normal numbers from the words of one counter.
#[inline(always)]
#[must_use]
pub fn normals([a, b, c, d]: [u32; 4]) -> [f32; 4] {
    let ([u, v], [w, x]) = (normal_pair(a, b), normal_pair(c, d));
    [u, v, w, x]
}

/// 0..n in a random order that depends only on `seed`, `purpose` and `stream` (Fisher & Yates).
pub(crate) fn shuffled(n: usize, seed: u64, purpose: Purpose, stream: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, index(words(seed, purpose, stream, i as u32)[0], i + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    /// Known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox4x32([0; 2], [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([u32::MAX; 2], [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0xa409_3822, 0x299f_31d0], [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// Another implementation of the same bijection.
    #[test]
    fn philox_is_that_of_rand_philox() {
        let mut stream = Stream::seed_from_u64(0x0123_4567_89ab_cdef);
        let mut next = || stream.next_u32();
        for _ in 0..10_000 {
            let (key, counter) = ([next(), next()], [next(), next(), next(), next()]);
            assert_eq!(philox4x32(key, counter), rand_philox::philox4x32_10(counter, key), "{key:?}, {counter:?}");
        }
    }

    /// A whole stream against a generator of `rand_philox`, which counts in the first word, too.
    #[test]
    fn a_stream_of_four_words_a_row_is_that_of_rand_philox() {
        let seed = 0xfeed_0000_beef;
        let mut ours = Stream::seed_from_u64(seed);
        let counter = u128::from(Purpose::Free as u32) << 32;
        let mut theirs = rand_philox::Philox::new([seed as u32, (seed >> 32) as u32], counter);
        assert!((0..4096).all(|_| ours.next_u32() == theirs.next_u32()));
        assert!((0..1024).all(|_| ours.next_u64() == theirs.next_u64()));
        let (mut bytes, mut expected) = ([0; 4 * 77 + 3], [0; 4 * 77 + 3]);
        ours.fill_bytes(&mut bytes);
        theirs.fill_bytes(&mut expected);
        assert_eq!(bytes, expected);
    }

    /// A stream gives the words of its counters in order. A change would alter the results of equal
    /// seeds.
    #[test]
    fn a_stream_has_the_words_of_its_rows() {
        for (n_words, mut stream) in
            [(1, Stream::of_indices(5)), (4, Stream::of_normals(5, 3)), (8, Stream::of_normals(5, 7))]
        {
            for row in 0..9 {
                let drawn: Vec<u32> = (0..n_words).map(|_| stream.next_u32()).collect();
                let expected: Vec<u32> = (0..2).flat_map(|step| words(5, Purpose::Particles, step, row)).collect();
                assert_eq!(drawn, expected[..n_words], "row {row} of {n_words} words");
            }
        }
        // Rows go on past 2³².
        let mut late = Stream { row: u64::from(u32::MAX), ..Stream::of_indices(5) };
        assert_eq!(late.next_u32(), words(5, Purpose::Particles, 0, u32::MAX)[0]);
        assert_eq!(late.next_u32(), words(5, Purpose::Particles, 1 << 32, 0)[0]);
    }

    #[test]
    fn unit_f32_stays_inside_the_open_interval() {
        assert!(unit_f32(0) > 0.0);
        assert!(unit_f32(u32::MAX) < 1.0);
    }
}
