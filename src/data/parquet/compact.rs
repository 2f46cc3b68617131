//! Thrift's compact protocol, in which Parquet writes its headers. The crate `parquet` reads them
//! itself, but does not give away what a page claims before it reserves that much memory, and
//! follows a schema as deep and as wide as it claims to be.

/// Types of fields and elements.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I8: u8 = 3;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
pub(super) const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Deepest nesting of what is skipped, and of a schema.
const DEPTH: usize = 32;

/// What is left of a header. Functions return `None` if it ends early or breaks the protocol.
pub(super) struct Header<'a>(pub &'a [u8]);

impl Header<'_> {
    fn take(&mut self, n: u64) -> Option<&[u8]> {
        let (taken, left) = self.0.split_at_checked(usize::try_from(n).ok()?)?;
        self.0 = left;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub fn integer(&mut self) -> Option<i64> {
        let zigzag = self.unsigned()?;
        Some((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// Calls `visit` with number and type of each field of a structure; it reads or skips the
    /// value.
    pub fn fields(&mut self, visit: &mut dyn FnMut(&mut Self, i16, u8) -> Option<()>) -> Option<()> {
        let mut id = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => i16::try_from(self.integer()?).ok()?,
                step => id.checked_add(step.into())?,
            };
            visit(self, id, head & 0x0f)?;
        }
    }

    /// Number and type of the elements of a list, each of which has a byte at least.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let n = if head >> 4 == 15 { self.unsigned()? } else { u64::from(head >> 4) };
        (n <= self.0.len() as u64).then_some((n, head & 0x0f))
    }

    /// The numbers and truth values among the fields 1 to N − 1 of a structure, at their places.
    pub fn numbers<const N: usize>(&mut self) -> Option<[Option<i64>; N]> {
        let mut numbers = [None; N];
        self.fields(&mut |header, id, kind| {
            let value = match kind {
                TRUE | FALSE => i64::from(kind == TRUE),
                I8..=I64 if kind != I8 => header.integer()?,
                _ => return header.skip(kind),
            };
            if let Some(place) = usize::try_from(id).ok().and_then(|id| numbers.get_mut(id)) {
                *place = Some(value);
            }
            Some(())
        })?;
        Some(numbers)
    }

    /// Skips the value of a field of type `kind`.
    pub fn skip(&mut self, kind: u8) -> Option<()> {
        self.skip_to(kind, DEPTH)
    }

    fn skip_to(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        // A truth value is in the type of a field, but has a byte in a list.
        let element = |header: &mut Self, kind: u8| match kind {
            TRUE | FALSE => header.byte().map(drop),
            kind => header.skip_to(kind, depth),
        };
        match kind {
            TRUE | FALSE => Some(()),
            I8 => self.byte().map(drop),
            kind if kind <= I64 => self.unsigned().map(drop),
            DOUBLE => self.take(8).map(drop),
            UUID => self.take(16).map(drop),
            BINARY => {
                let n = self.unsigned()?;
                self.take(n).map(drop)
            }
            LIST | SET => {
                let (n, kind) = self.list()?;
                (0..n).try_for_each(|_| element(self, kind))
            }
            MAP => {
                let n = self.unsigned()?;
                let kinds = if n == 0 { 0 } else { self.byte()? };
                (0..n).try_for_each(|_| {
                    element(self, kinds >> 4)?;
                    element(self, kinds & 0x0f)
                })
            }
            STRUCT => self.fields(&mut |header, _, kind| header.skip_to(kind, depth)),
            _ => None,
        }
    }
}

/// True if the schema in the metadata of a file, `FileMetaData` of parquet.thrift, is a tree of the
/// elements that are there, and not too deep.
pub(super) fn has_sound_schema(metadata: &[u8]) -> bool {
    const SCHEMA: i16 = 2;
    const CHILDREN: usize = 5;
    let mut is_sound = false;
    let read = Header(metadata).fields(&mut |header, id, kind| {
        if (id, kind) != (SCHEMA, LIST) {
            return header.skip(kind);
        }
        let (n, kind) = header.list()?;
        // How many children each open group still lacks.
        let mut open: Vec<i64> = Vec::new();
        for element in 0..n {
            if kind != STRUCT || (open.is_empty() && element > 0) {
                return None;
            }
            if let Some(left) = open.last_mut() {
                *left -= 1;
            }
            let children = header.numbers::<{ CHILDREN + 1 }>()?[CHILDREN].unwrap_or(0);
            if children < 0 || children as u64 > n || open.len() > DEPTH {
                return None;
            }
            open.push(children);
            while open.last() == Some(&0) {
                open.pop();
            }
        }
        is_sound = open.is_empty() && n > 0;
        Some(())
    });
    read.is_some() && is_sound
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schema of elements with these numbers of children, as the metadata of a file.
    fn schema(children: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x19 + 0x10, 0xfc, children.len() as u8]; // field 2, a list of structures
        for &n in children {
            bytes.extend([0x55, 2 * n, 0]); // field 5, an i32
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn a_schema_is_a_tree_of_the_elements_that_are_there() {
        for sound in [&[1, 0][..], &[2, 0, 0], &[2, 1, 0, 0], &[1, 1, 1, 0], &[0]] {
            assert!(has_sound_schema(&schema(sound)), "{sound:?}");
        }
        let deep = [vec![1; 40], vec![0]].concat();
        for broken in [&[2, 0][..], &[1, 0, 0], &[9, 0], &[], &deep] {
            assert!(!has_sound_schema(&schema(broken)), "{broken:?}");
        }
        for cut in 0..schema(&[2, 0, 0]).len() {
            assert!(!has_sound_schema(&schema(&[2, 0, 0])[..cut]), "{cut}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_skipped() {
        // 1: -3; 2: three truth values; 3: a text; 4: a map; 5: true; 9: a structure; 10: 7
        let bytes = [
            0x15, 5, 0x19, 0x31, 1, 2, 1, 0x18, 2, b'a', b'b', 0x1b, 1, 0x85, 1, b'k', 2, 0x11, 0x4c, 0x15, 4, 0, 0x16,
            14, 0,
        ];
        let found = Header(&bytes).numbers::<11>().expect("fields");
        let expected = |id| match id {
            1 => Some(-3),
            5 => Some(1),
            10 => Some(7),
            _ => None,
        };
        assert!((0..11).all(|id| found[id] == expected(id)), "{found:?}");
        let nested = [vec![0x1c; 100], vec![0; 101]].concat();
        assert!(Header(&nested).numbers::<2>().is_none());
    }
}
