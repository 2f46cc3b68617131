//! The PTX in an uncompressed fat binary, as `nvcc -fatbin` writes it.

/// The text of the PTX in `image`: a fat binary, or PTX itself.
///
/// # Errors
/// Describes what is wrong with the image.
pub fn ptx_of(image: &[u8]) -> Result<String, String> {
    const MAGIC: u32 = 0xba55_ed50;
    const PTX: u16 = 1;
    let u16_at =
        |at: usize| image.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]])).ok_or("cut off".to_string());
    let u32_at = |at: usize| {
        image.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).ok_or("cut off".to_string())
    };
    let u64_at = |at: usize| Ok::<u64, String>(u64::from(u32_at(at)?) | u64::from(u32_at(at + 4)?) << 32);
    if u32_at(0) != Ok(MAGIC) {
        let end = image.iter().position(|&byte| byte == 0).unwrap_or(image.len());
        return String::from_utf8(image[..end].to_vec()).map_err(|_| "neither a fat binary nor PTX".into());
    }
    // Offsets beyond the end of the image are errors, whatever its headers say.
    let length = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(image.len());
    let mut at = usize::from(u16_at(6)?);
    let end = at.saturating_add(length(u64_at(8)?));
    while at < end {
        let (kind, header, size) = (u16_at(at)?, u32_at(at + 4)? as usize, length(u64_at(at + 8)?));
        if header == 0 {
            return Err("a part without a header".into());
        }
        let compressed = u32_at(at + 16)?;
        if kind == PTX {
            if compressed != 0 {
                return Err("its PTX is compressed: build with nvcc --no-compress".into());
            }
            let text = image.get(at + header..at + header + size).ok_or("cut off")?;
            let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
            return String::from_utf8(text[..end].to_vec()).map_err(|_| "its PTX is no text".into());
        }
        at += header + size;
    }
    Err("it holds no PTX".into())
}

#[cfg(test)]
mod tests {
    use super::ptx_of;

    /// A fat binary with one part of this kind, header length and size.
    fn image(kind: u16, header: u32, size: u64) -> Vec<u8> {
        let mut image = 0xba55_ed50u32.to_le_bytes().to_vec();
        image.extend([1, 0, 16, 0]);
        image.extend(u64::MAX.to_le_bytes());
        image.extend(kind.to_le_bytes());
        image.extend([0, 0]);
        image.extend(header.to_le_bytes());
        image.extend(size.to_le_bytes());
        image.extend([0; 8]);
        image.extend(b"ret;\0");
        image
    }

    #[test]
    fn absurd_lengths_end_the_search() {
        assert_eq!(ptx_of(&image(1, 24, 5)).expect("PTX"), "ret;");
        for (kind, header, size) in [(1, 24, u64::MAX), (2, 24, u64::MAX), (2, u32::MAX, u64::MAX), (2, 0, 0)] {
            assert!(ptx_of(&image(kind, header, size)).is_err(), "{kind} {header} {size}");
        }
    }
}
