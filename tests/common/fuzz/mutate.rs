//! Random changes of files: of their bytes, and of numbers and words in text.

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The random numbers of input `index` of target `name`.
    pub fn new(name: &str, index: u64) -> Self {
        let of_name = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut random = Random(of_name ^ index.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &'a [impl AsRef<T>]) -> &'a T {
        from[self.below(from.len())].as_ref()
    }

    /// One of `from`.
    pub fn choose<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A short length, occasionally a long one.
    fn length(&mut self, most: usize) -> usize {
        let most = most.max(1);
        match self.below(40) {
            0 => 1 + self.below(most),
            1..12 => 1 + self.below(most.min(64)),
            _ => 1 + self.below(most.min(8)),
        }
    }
}

/// Numbers at the limits of types and of sizes.
const EXTREMES: [u64; 26] = [
    0,
    1,
    2,
    3,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x00ff_ffff,
    0x0fff_ffff,
    0x3fff_ffff,
    0x4000_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x00ff_ffff_ffff_ffff,
    0x3fff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// The same as text, and unusual numbers.
pub const NUMBERS: [&str; 44] = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "16",
    "127",
    "255",
    "256",
    "1024",
    "1025",
    "65535",
    "65536",
    "2147483647",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999",
    "0.5",
    "-0.5",
    "1e-7",
    "1e-45",
    "1e-320",
    "5e-324",
    "1e30",
    "3.4e38",
    "3.5e38",
    "1e300",
    "1.7976931348623157e308",
    "1e309",
    "-1e309",
    "NaN",
    "nan",
    "inf",
    "-inf",
    "0x10",
];

/// Changes of bytes.
pub struct Bytes;

impl Bytes {
    /// Changes `input` once, possibly with content of `other`.
    pub fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
        if input.is_empty() {
            input.push(random.next() as u8);
            return;
        }
        let at = random.below(input.len());
        match random.below(12) {
            0 | 1 => input[at] ^= 1 << random.below(8),
            2 => input[at] = random.next() as u8,
            3 => {
                let end = (at + random.length(256)).min(input.len());
                let value = random.choose(&[0, 0xff, b'0', b' ', 0x80]);
                input[at..end].fill(value);
            }
            4 => input.truncate(at),
            5 => {
                let end = (at + random.length(256)).min(input.len());
                input.drain(at..end);
            }
            6 => {
                let end = (at + random.length(256)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            7 => {
                let n = random.length(32);
                let piece: Vec<u8> = (0..n).map(|_| random.next() as u8).collect();
                input.splice(at..at, piece);
            }
            8 if !other.is_empty() => {
                // The beginning of one file and the end of another.
                let from = if random.percent(50) { at.min(other.len()) } else { random.below(other.len()) };
                input.truncate(at);
                input.extend(&other[from..]);
            }
            8 | 9 => Self::extreme(random, input, at),
            10 => {
                let (other, n) = (random.below(input.len()), random.length(64));
                (0..n).for_each(|k| {
                    if at + k < input.len() && other + k < input.len() {
                        input.swap(at + k, other + k);
                    }
                });
            }
            _ if random.below(60) == 0 => {
                let end = (at + random.length(256)).min(input.len());
                let piece = input[at..end].repeat(1 + random.below(200));
                input.splice(at..at, piece);
            }
            _ => Self::extreme(random, input, at),
        }
    }

    /// Writes a number at the limit of a type at `at`.
    pub fn extreme(random: &mut Random, input: &mut [u8], at: usize) {
        let width = random.choose(&[1, 2, 4, 4, 8]);
        let mut value = random.choose(&EXTREMES);
        if random.percent(30) {
            value = value.wrapping_add(random.next() % 9).wrapping_sub(4);
        }
        let bytes = if random.percent(85) { value.to_le_bytes() } else { value.swap_bytes().to_le_bytes() };
        for (byte, new) in input[at..].iter_mut().zip(&bytes[..width]) {
            *byte = *new;
        }
    }
}

/// Changes of text.
pub struct Text;

impl Text {
    /// Changes `input` once; `words` have a meaning in its language.
    pub fn change(random: &mut Random, input: &mut Vec<u8>, other: &[u8], words: &[&str]) {
        match random.below(10) {
            0..3 => {
                let number = random.pick::<str>(&NUMBERS).as_bytes();
                Self::replace(random, input, number, |byte| byte.is_ascii_digit() || b".-+".contains(&byte));
            }
            3..6 if !words.is_empty() => {
                let word = random.pick::<str>(words).as_bytes();
                Self::replace(random, input, word, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
            }
            6 if !words.is_empty() => {
                let at = random.below(input.len() + 1);
                input.splice(at..at, random.pick::<str>(words).bytes());
            }
            7 => Self::move_line(random, input, other),
            _ => Bytes::change(random, input, other),
        }
    }

    /// Replaces a run of bytes of one kind.
    fn replace(random: &mut Random, input: &mut Vec<u8>, new: &[u8], of_kind: impl Fn(u8) -> bool) {
        if input.is_empty() {
            return;
        }
        let from = random.below(input.len());
        let Some(start) = (from..input.len()).chain(0..from).find(|&at| of_kind(input[at])) else { return };
        let before = input[..start].iter().rev().take_while(|&&byte| of_kind(byte)).count();
        let after = input[start..].iter().take_while(|&&byte| of_kind(byte)).count();
        input.splice(start - before..start + after, new.iter().copied());
    }

    /// Repeats, removes or inserts a line.
    fn move_line(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
        let line = |random: &mut Random, text: &[u8]| -> std::ops::Range<usize> {
            if text.is_empty() {
                return 0..0;
            }
            let at = random.below(text.len());
            let start = text[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
            let end = text[at..].iter().position(|&byte| byte == b'\n').map_or(text.len(), |newline| at + newline + 1);
            start..end
        };
        let here = line(random, input);
        match random.below(3) {
            0 => drop(input.drain(here)),
            1 => {
                let piece = input[here].to_vec();
                let to = line(random, input).start;
                input.splice(to..to, piece);
            }
            _ => {
                let piece = other[line(random, other)].to_vec();
                input.splice(here.start..here.start, piece);
            }
        }
    }
}
