//! The PTX inside a fat binary, as `nvcc -fatbin` writes it without compression.

/// The text of the PTX in `image`: a fat binary, or PTX itself.
///
/// # Errors
/// What is wrong with the image.
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
    let end = usize::from(u16_at(6)?) + u64_at(8)? as usize;
    let mut at = usize::from(u16_at(6)?);
    while at < end {
        let (kind, header, size) = (u16_at(at)?, u32_at(at + 4)? as usize, u64_at(at + 8)? as usize);
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
