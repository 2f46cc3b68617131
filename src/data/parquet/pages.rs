//! The pages of a column, decompressed. What a header claims is held against the bytes of the file
//! before memory is reserved, which the reader of the crate `parquet` leaves out; its zstd needs a
//! C compiler besides.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use ruzstd::decoding::StreamingDecoder;

use super::compact::{Header, STRUCT};

/// The pages of one column of a row group.
pub(super) struct Pages {
    pub file: Arc<File>,
    /// Where the next page begins, and where the last one ends: both within the file.
    pub at: u64,
    pub end: u64,
    pub compression: Compression,
    /// Type of the values.
    pub physical: Type,
    /// Bytes that a page may have in memory.
    pub largest: u64,
    pub has_dictionary: bool,
}

/// `PageHeader` of parquet.thrift, with the header of its kind of page.
struct PageHeader {
    kind: i64,
    uncompressed: usize,
    compressed: usize,
    numbers: [Option<i64>; 8],
}

/// Kinds of pages.
const DATA: i64 = 0;
const INDEX: i64 = 1;
const DICTIONARY: i64 = 2;
const DATA_V2: i64 = 3;

impl PageHeader {
    /// The header at the start of `bytes`, and its length; `None` if it ends later.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (mut own, mut numbers) = ([None; 4], [None; 8]);
        let mut header = Header(bytes);
        header.fields(&mut |header, id, kind| match (id, kind) {
            (1..=3, 5) => {
                own[id as usize] = Some(header.integer()?);
                Some(())
            }
            (5 | 7 | 8, STRUCT) => {
                numbers = header.numbers()?;
                Some(())
            }
            _ => header.skip(kind),
        })?;
        let length = bytes.len() - header.0.len();
        let size = |id: usize| own[id].and_then(|n: i64| usize::try_from(n).ok());
        Some((PageHeader { kind: own[1]?, uncompressed: size(2)?, compressed: size(3)?, numbers }, length))
    }

    /// Field `id` of the header of the kind of page, which is a count.
    fn count(&self, id: usize) -> Result<u32> {
        self.numbers[id].and_then(|n| u32::try_from(n).ok()).ok_or_else(|| damaged("has a page without its counts"))
    }

    fn encoding(&self, id: usize) -> Result<Encoding> {
        match self.numbers[id] {
            Some(0) => Ok(Encoding::PLAIN),
            Some(2) => Ok(Encoding::PLAIN_DICTIONARY),
            Some(3) => Ok(Encoding::RLE),
            Some(8) => Ok(Encoding::RLE_DICTIONARY),
            Some(n @ (5..8 | 9)) => {
                let name =
                    ["DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "", "BYTE_STREAM_SPLIT"];
                let name = name[n as usize - 5];
                Err(ParquetError::NYI(format!("is encoded as {name}, which is not read")))
            }
            _ => Err(damaged("has values in an unknown encoding")),
        }
    }
}

pub(super) fn damaged(problem: &str) -> ParquetError {
    ParquetError::General(problem.into())
}

impl Pages {
    /// `n` bytes of the file from `at` on.
    fn bytes(&self, at: u64, n: usize) -> Result<Vec<u8>> {
        let mut file = &*self.file;
        let mut bytes = vec![0; n];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The next header, with the place behind it.
    fn header(&self) -> Result<(PageHeader, u64)> {
        /// Bytes that most headers have at most.
        const FIRST: usize = 256;
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let mut n = FIRST.min(left);
        loop {
            if let Some((header, length)) = PageHeader::read(&self.bytes(self.at, n)?) {
                return Ok((header, self.at + length as u64));
            } else if n == left {
                return Err(damaged("has a damaged page header"));
            }
            n = n.saturating_mul(8).min(left);
        }
    }

    /// `compressed` as the `size` bytes that it stands for.
    fn decompressed(&self, compressed: &[u8], size: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = size as u64 + 1;
        match self.compression {
            Compression::UNCOMPRESSED => bytes.extend_from_slice(compressed),
            Compression::SNAPPY => {
                if snap::raw::decompress_len(compressed).map_err(io::Error::from)? == size {
                    bytes = snap::raw::Decoder::new().decompress_vec(compressed).map_err(io::Error::from)?;
                }
            }
            Compression::GZIP(_) => {
                MultiGzDecoder::new(compressed).take(limit).read_to_end(&mut bytes)?;
            }
            Compression::ZSTD(_) => {
                let decoder = StreamingDecoder::new(compressed).map_err(io::Error::other)?;
                decoder.take(limit).read_to_end(&mut bytes)?;
            }
            other => {
                let name = other.to_string();
                let name = name.split('(').next().unwrap_or_default();
                return Err(ParquetError::NYI(format!("is compressed by {name}, which is not read")));
            }
        }
        if bytes.len() == size { Ok(bytes) } else { Err(damaged("has a page of another size than its header says")) }
    }

    fn data_page(&self, header: &PageHeader, bytes: &[u8]) -> Result<Page> {
        let encoding = header.encoding(2)?;
        self.check(encoding)?;
        Ok(Page::DataPage {
            buf: self.decompressed(bytes, header.uncompressed)?.into(),
            num_values: header.count(1)?,
            encoding,
            def_level_encoding: header.encoding(3).unwrap_or(Encoding::RLE),
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })
    }

    fn data_page_v2(&self, header: &PageHeader, bytes: &[u8]) -> Result<Page> {
        let encoding = header.encoding(4)?;
        self.check(encoding)?;
        let [definition, repetition] = [header.count(5)?, header.count(6)?];
        let n_levels = definition as usize + repetition as usize;
        let (Some((levels, values)), Some(size)) =
            (bytes.split_at_checked(n_levels), header.uncompressed.checked_sub(n_levels))
        else {
            return Err(damaged("has a page that is smaller than its levels"));
        };
        let is_compressed = header.numbers[7] != Some(0);
        let values = if is_compressed && size > 0 { self.decompressed(values, size)? } else { values.to_vec() };
        Ok(Page::DataPageV2 {
            buf: Bytes::from([levels, &values].concat()),
            num_values: header.count(1)?,
            encoding,
            num_nulls: header.count(2)?.min(header.count(1)?),
            num_rows: header.count(3)?,
            def_levels_byte_len: definition,
            rep_levels_byte_len: repetition,
            is_compressed: false,
            statistics: None,
        })
    }

    /// Refuses values of a dictionary that is not there.
    fn check(&self, encoding: Encoding) -> Result<()> {
        let needs = matches!(encoding, Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY);
        if needs && !self.has_dictionary { Err(damaged("lacks the dictionary of its values")) } else { Ok(()) }
    }

    fn dictionary_page(&mut self, header: &PageHeader, bytes: &[u8]) -> Result<Page> {
        let (num_values, size) = (header.count(1)?, header.uncompressed as u64);
        let of_one = match self.physical {
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::BOOLEAN => return Err(damaged("has a dictionary of truth values")),
            Type::FIXED_LEN_BYTE_ARRAY => 1,
            _ => 4,
        };
        if u64::from(num_values) * of_one > size {
            return Err(damaged("has a dictionary that claims more values than its page holds"));
        } else if std::mem::replace(&mut self.has_dictionary, true) {
            return Err(damaged("has two dictionaries"));
        }
        let buf = self.decompressed(bytes, header.uncompressed)?.into();
        Ok(Page::DictionaryPage { buf, num_values, encoding: Encoding::PLAIN, is_sorted: false })
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        while self.at < self.end {
            let (header, start) = self.header()?;
            if header.compressed as u64 > self.end - start {
                return Err(damaged("is cut short: it claims more values than the file holds"));
            } else if header.uncompressed as u64 > self.largest {
                return Err(damaged("has a page too large for its file"));
            }
            self.at = start + header.compressed as u64;
            if header.kind == INDEX {
                continue;
            }
            let bytes = self.bytes(start, header.compressed)?;
            return match header.kind {
                DATA => self.data_page(&header, &bytes),
                DATA_V2 => self.data_page_v2(&header, &bytes),
                DICTIONARY => self.dictionary_page(&header, &bytes),
                _ => Err(damaged("has a page of an unknown kind")),
            }
            .map(Some);
        }
        Ok(None)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Err(ParquetError::NYI("pages are read one after the other".into()))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        Err(ParquetError::NYI("pages are read one after the other".into()))
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
