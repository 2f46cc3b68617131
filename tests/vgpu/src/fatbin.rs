//! The PTX in a fat binary, as `fatbinary` of the CUDA toolkit writes it. The layout of its headers
//! is not documented; what is read here is what the toolkits 12 and 13 write.

use std::borrow::Cow;

use ruzstd::decoding::FrameDecoder;

use crate::ptx::Target;

/// First bytes of a fat binary.
const MAGIC: u32 = 0xba55_ed50;

/// Kind of a part that holds PTX; the other kinds hold machine code.
const PTX: u16 = 1;

/// Flags of a part's header: how its content is compressed.
const LZ4: u64 = 1 << 13;
const ZSTD: u64 = 1 << 15;
/// The same: it is for its architecture alone (`compute_90a`).
const SPECIFIC: u64 = 1 << 20;

/// Bytes that a compressed byte can stand for in LZ4. What claims more holds no PTX.
const MOST_BYTES_OF_ONE: usize = 255;

/// The numbers in an image, at offsets in bytes.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], String> {
        let end = at.checked_add(N).and_then(|end| self.0.get(at..end));
        end.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| "cut off".to_string())
    }

    fn u16(&self, at: usize) -> Result<u16, String> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, String> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, String> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    /// A length of parts of the image: none is longer than the image, whatever its headers say.
    fn length(&self, at: usize) -> Result<usize, String> {
        Ok(usize::try_from(self.u64(at)?).unwrap_or(usize::MAX).min(self.0.len()))
    }
}

/// The text of the PTX in `image` that a card of compute capability `capability` (80 for 8.0) runs:
/// of a fat binary the newest, preferably one for that architecture alone; or `image` itself, if it
/// is PTX.
///
/// # Errors
/// Describes what is wrong with the image, or what it holds instead.
pub fn ptx_of(image: &[u8], capability: u32) -> Result<String, String> {
    let numbers = Numbers(image);
    if numbers.u32(0) != Ok(MAGIC) {
        return text(image).ok_or_else(|| "neither a fat binary nor PTX".into());
    }
    let parts = parts(&numbers)?;
    let Some(part) = parts.iter().filter(|part| part.target.runs_on(capability)).max_by_key(|part| part.target) else {
        let held: Vec<String> = parts.iter().map(|part| format!("PTX for {}", part.target)).collect();
        return Err(match &held[..] {
            [] => "it holds no PTX".into(),
            held => format!("it holds {}, none of which a card of sm_{capability} runs", held.join(", ")),
        });
    };
    let content = image.get(part.content..part.content + part.size).ok_or("cut off")?;
    text(&unpacked(&numbers, part.header, content)?).ok_or_else(|| "its PTX is no text".into())
}

/// A part of a fat binary that holds PTX: where its header and its content begin, and bytes of the
/// latter.
struct Part {
    target: Target,
    header: usize,
    content: usize,
    size: usize,
}

fn parts(numbers: &Numbers<'_>) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut at = usize::from(numbers.u16(6)?);
    let end = at.saturating_add(numbers.length(8)?);
    while at < end.min(numbers.0.len()) {
        let (kind, header, size) = (numbers.u16(at)?, numbers.u32(at + 4)? as usize, numbers.length(at + 8)?);
        if header == 0 {
            return Err("a part without a header".into());
        }
        if kind == PTX {
            let target =
                Target { architecture: numbers.u32(at + 28)?, specific: numbers.u64(at + 40)? & SPECIFIC != 0 };
            parts.push(Part { target, header: at, content: at + header, size });
        }
        at += header + size;
    }
    Ok(parts)
}

/// The text before the first zero.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8(bytes[..end].to_vec()).ok()
}

/// The content of the part whose header is at `at`.
fn unpacked<'a>(numbers: &Numbers<'_>, at: usize, content: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    let flags = numbers.u64(at + 40)?;
    if flags & (LZ4 | ZSTD) == 0 {
        return Ok(content.into());
    }
    // What follows aligns the next header.
    let packed = content.get(..numbers.u32(at + 16)? as usize).ok_or("cut off")?;
    let size = usize::try_from(numbers.u64(at + 56)?).unwrap_or(usize::MAX);
    if size > packed.len().saturating_mul(MOST_BYTES_OF_ONE) {
        return Err(format!("{} bytes cannot hold {size} bytes of PTX", packed.len()));
    }
    let mut unpacked = vec![0; size];
    let n_bytes = if flags & ZSTD != 0 {
        FrameDecoder::new().decode_all(packed, &mut unpacked).map_err(|error| error.to_string())
    } else {
        lz4_flex::block::decompress_into(packed, &mut unpacked).map_err(|error| error.to_string())
    };
    match n_bytes.map_err(|error| format!("its PTX cannot be unpacked: {error}"))? {
        n_bytes if n_bytes == size => Ok(unpacked.into()),
        n_bytes => Err(format!("its PTX has {n_bytes} bytes, not {size}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{LZ4, SPECIFIC, ZSTD, ptx_of};

    /// A fat binary with one part of this kind, header length and size, for sm_80.
    fn image(kind: u16, header: u32, size: u64) -> Vec<u8> {
        [beginning(), part(kind, header, size, 80, 0, 0, b"ret;\0")].concat()
    }

    fn beginning() -> Vec<u8> {
        let mut image = super::MAGIC.to_le_bytes().to_vec();
        image.extend([1, 0, 16, 0]);
        image.extend(u64::MAX.to_le_bytes());
        image
    }

    fn part(kind: u16, header: u32, size: u64, sm: u32, flags: u64, unpacked: u64, content: &[u8]) -> Vec<u8> {
        let mut part = kind.to_le_bytes().to_vec();
        part.extend([0, 0]);
        part.extend(header.to_le_bytes());
        part.extend(size.to_le_bytes());
        part.extend((content.len() as u32).to_le_bytes());
        part.extend([0; 8]);
        part.extend(sm.to_le_bytes());
        part.extend([0; 8]);
        part.extend(flags.to_le_bytes());
        part.extend([0; 8]);
        part.extend(unpacked.to_le_bytes());
        part.extend(content);
        part
    }

    #[test]
    fn absurd_lengths_end_the_search() {
        assert_eq!(ptx_of(&image(1, 64, 5), 80).expect("PTX"), "ret;");
        for (kind, header, size) in [(1, 64, u64::MAX), (2, 64, u64::MAX), (2, u32::MAX, u64::MAX), (2, 0, 0)] {
            assert!(ptx_of(&image(kind, header, size), 80).is_err(), "{kind} {header} {size}");
        }
    }

    /// Whatever the order of its parts, a card takes the newest that it runs, and rather one for
    /// its architecture alone.
    #[test]
    fn a_card_takes_the_newest_ptx_that_it_runs() {
        let texts = [("80", 80, 0), ("90", 90, 0), ("90a", 90, SPECIFIC), ("100a", 100, SPECIFIC)];
        let of = |names: &[&str], capability: u32| {
            let parts = names.iter().map(|name| {
                let &(text, sm, flags) = texts.iter().find(|(text, ..)| text == name).expect("a text");
                part(1, 64, text.len() as u64, sm, flags, 0, text.as_bytes())
            });
            ptx_of(&[beginning()].into_iter().chain(parts).collect::<Vec<_>>().concat(), capability)
        };
        for names in [["80", "90", "90a", "100a"], ["100a", "90a", "90", "80"], ["90a", "100a", "80", "90"]] {
            let taken = [80, 86, 90, 100, 120].map(|capability| of(&names, capability).expect("PTX"));
            assert_eq!(taken, ["80", "80", "90a", "100a", "90"], "{names:?}");
        }
        assert_eq!(of(&["90a", "80"], 100).expect("PTX"), "80");
        let refused = of(&["90a", "100a"], 80).expect_err("refused");
        assert!(refused.contains("PTX for sm_90a, PTX for sm_100a, none of which a card of sm_80 runs"), "{refused}");
    }

    #[test]
    fn packed_ptx_has_the_length_that_its_header_states() {
        let text = "mov.u32 %r1, %tid.x;\n".repeat(50);
        let packed_by = |flags: u64, packed: &[u8], size: usize| {
            let part = part(1, 64, packed.len() as u64, 80, flags, size as u64, packed);
            ptx_of(&[beginning(), part].concat(), 80)
        };
        let lz4 = lz4_flex::block::compress(text.as_bytes());
        let zstd = ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
        for (flags, packed) in [(LZ4, lz4), (ZSTD, zstd)] {
            assert!(packed.len() < text.len() / 2);
            assert_eq!(packed_by(flags, &packed, text.len()).as_ref(), Ok(&text));
            for size in [0, text.len() - 1, text.len() + 1, 256 * packed.len(), usize::MAX] {
                assert!(packed_by(flags, &packed, size).is_err(), "{flags:x} {size}");
            }
            assert!(packed_by(flags, &packed[..packed.len() / 2], text.len()).is_err());
        }
    }
}
