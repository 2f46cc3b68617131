//! One array of a file: its header and a stream of its bytes, read by blocks into the final buffers.

use std::io::{self, Read};
use std::path::Path;

use crate::element::{Element, Refusal};
use crate::error::{Error, Result};
use crate::model::MAX_DIM;

/// Bytes read from a file at a time.
const BLOCK_BYTES: usize = 1 << 18;

/// Most rows of a file: row numbers are 32-bit, here and in the random-number counters.
const MAX_ROWS: u64 = u32::MAX as u64;

/// Which index varies slowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    C,
    Fortran,
}

/// What a file says about an array before its values.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Element type as the file spells it.
    pub dtype: String,
    /// The same, if we read it.
    pub element: std::result::Result<Element, Refusal>,
    pub order: Order,
    pub shape: Vec<u64>,
}

impl Header {
    /// Bytes of the values, or `None` for unreadable elements and sizes that overflow.
    pub fn n_bytes(&self) -> Option<u64> {
        let size = self.element.as_ref().ok()?.size() as u64;
        self.shape.iter().try_fold(size, |bytes, &n| bytes.checked_mul(n))
    }
}

/// An array ready to be read; `data` yields the [`Header::n_bytes`] that the opener found to be there.
pub(super) struct Array<'a> {
    pub file: &'a Path,
    pub name: String,
    pub header: Header,
    pub data: Box<dyn Read + 'a>,
}

/// The rows of the final buffers in the order of the file.
pub(super) struct Rows<'a> {
    dim: usize,
    /// Final place of each row of the file; `None` when rows stay in file order.
    destination: Option<&'a [u32]>,
    /// Places below `training.len() / dim`.
    training: &'a mut [f32],
    /// The places after those.
    held_out: &'a mut [f32],
}

impl<'a> Rows<'a> {
    pub fn new(dim: usize, destination: Option<&'a [u32]>, training: &'a mut [f32], held_out: &'a mut [f32]) -> Self {
        Rows { dim, destination, training, held_out }
    }

    /// Number of columns.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        (self.training.len() + self.held_out.len()) / self.dim
    }

    /// Where row `row` of the file belongs.
    #[inline]
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let start = self.destination.map_or(row, |destination| destination[row] as usize) * self.dim;
        match start.checked_sub(self.training.len()) {
            None => &mut self.training[start..start + self.dim],
            Some(start) => &mut self.held_out[start..start + self.dim],
        }
    }
}

impl Array<'_> {
    fn refuse<T>(&self, problem: impl Into<String>, fix: impl Into<String>) -> Result<T> {
        Err(Error::input(self.file, &self.name, problem, fix))
    }

    /// The element type.
    ///
    /// # Errors
    /// [`Error::Input`] for types that are not numbers.
    pub fn element(&self) -> Result<Element> {
        match &self.header.element {
            Ok(element) => Ok(*element),
            Err(refusal) => self.refuse(&refusal.problem, refusal.fix),
        }
    }

    /// (rows, columns) of `[N, d]`; `[N]` counts as one column.
    ///
    /// # Errors
    /// [`Error::Input`] for any other shape, for sizes outside 1..=limit, and for elements that are not numbers: only of
    /// numbers is it known that the file holds as many as the shape says.
    pub fn matrix_shape(&self) -> Result<(usize, usize)> {
        self.element()?;
        let (rows, columns) = match *self.header.shape {
            [rows] => (rows, 1),
            [rows, columns] => (rows, columns),
            ref other => return self.refuse(format!("has shape {other:?}"), "reshape it to [rows, dimensions]"),
        };
        check_shape(self.file, &self.name, rows, columns)
    }

    /// Reads `[N, d]` into `rows`, which has that shape.
    ///
    /// # Errors
    /// [`Error::Input`] naming row and column of a value that is not finite in f32, or saying how the file is damaged.
    pub fn read_rows(mut self, rows: &mut Rows<'_>) -> Result<()> {
        let element = self.element()?;
        let (n_rows, dim) = (rows.len(), rows.dim());
        if self.matrix_shape()? != (n_rows, dim) {
            return self.refuse("changed while it was read", "read it when nothing writes to it");
        }
        // Elements next to each other in the file run along `inner`; a block is whole runs, or a piece of one long run.
        let order = self.header.order;
        let row_and_column = |run: usize, at: usize| match order {
            Order::C => (run, at),
            Order::Fortran => (at, run),
        };
        let (outer, inner) = row_and_column(n_rows, dim);
        let mut blocks = Blocks::new(element, outer as u64 * inner as u64);
        let mut values = vec![0.0f32; blocks.capacity()];
        let (mut run, mut start) = (0, 0);
        while let Some(bytes) = blocks.next(&mut self)? {
            let values = &mut values[..bytes.len() / element.size()];
            element.decode_f32(bytes, values);
            let mut done = 0;
            while done < values.len() {
                let n = (inner - start).min(values.len() - done);
                let piece = &values[done..done + n];
                if let Some(at) = piece.iter().position(|x| !x.is_finite()) {
                    let (row, column) = row_and_column(run, start + at);
                    let size = element.size();
                    let mut exact = [0.0];
                    element.decode_f64(&bytes[(done + at) * size..(done + at + 1) * size], &mut exact);
                    let (problem, fix) = describe_not_finite(exact[0]);
                    return self.refuse(format!("row {row}, column {column} (counted from 0) {problem}"), fix);
                }
                match order {
                    Order::C => rows.row_mut(run)[start..start + n].copy_from_slice(piece),
                    Order::Fortran => {
                        for (row, &value) in (start..).zip(piece) {
                            rows.row_mut(row)[run] = value;
                        }
                    }
                }
                done += n;
                start += n;
                if start == inner {
                    (run, start) = (run + 1, 0);
                }
            }
        }
        self.expect_end()
    }

    /// Reads `[N]` (or `[N, 1]`) as one finite f64 a row.
    ///
    /// # Errors
    /// [`Error::Input`] for another shape, a value that is not finite, or a damaged file.
    pub fn read_times(mut self) -> Result<Vec<f64>> {
        let (element, (n_rows, columns)) = (self.element()?, self.matrix_shape()?);
        if columns != 1 {
            return self.refuse(format!("has shape [{n_rows}, {columns}]"), "give one time per row: shape [rows]");
        }
        let mut times = zeros(self.file, &self.name, n_rows, 1)?;
        let mut blocks = Blocks::new(element, n_rows as u64);
        let mut read = 0;
        while let Some(bytes) = blocks.next(&mut self)? {
            let block: &mut [f64] = &mut times[read..read + bytes.len() / element.size()];
            element.decode_f64(bytes, block);
            if let Some(row) = block.iter().position(|t| !t.is_finite()) {
                let problem = format!("row {} (counted from 0) is {}", read + row, block[row]);
                return self.refuse(problem, "remove rows without a time");
            }
            read += block.len();
        }
        self.expect_end()?;
        Ok(times)
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.data.read_exact(bytes).map_err(|e| damaged(self.file, &self.name, e))
    }

    /// Nothing may follow the values; reaching the end is also what makes the container verify its checksum.
    fn expect_end(&mut self) -> Result<()> {
        match self.data.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => self.refuse("has bytes after its last value", "save the file again"),
            Err(e) => Err(damaged(self.file, &self.name, e)),
        }
    }
}

/// The bytes of an array, some whole elements at a time.
struct Blocks {
    element: Element,
    left: u64,
    buffer: Vec<u8>,
}

impl Blocks {
    fn new(element: Element, n_elements: u64) -> Self {
        let capacity = n_elements.min((BLOCK_BYTES / element.size()) as u64) as usize;
        Blocks { element, left: n_elements, buffer: vec![0; capacity * element.size()] }
    }

    /// Most elements in a block.
    fn capacity(&self) -> usize {
        self.buffer.len() / self.element.size()
    }

    fn next(&mut self, array: &mut Array<'_>) -> Result<Option<&[u8]>> {
        let n = self.left.min(self.capacity() as u64) as usize;
        if n == 0 {
            return Ok(None);
        }
        self.left -= n as u64;
        let block = &mut self.buffer[..n * self.element.size()];
        array.read_exact(block)?;
        Ok(Some(block))
    }
}

/// How a value that is not finite after conversion to f32 reads in a message: (problem, fix).
pub(super) fn describe_not_finite(value: f64) -> (String, &'static str) {
    if value.is_finite() {
        (format!("is {value:e}, too large for 32-bit floats"), "rescale the data")
    } else {
        (format!("is {value}"), "remove or impute such rows")
    }
}

/// `rows` and `columns` as sizes within their limits.
pub(super) fn check_shape(file: &Path, name: &str, rows: u64, columns: u64) -> Result<(usize, usize)> {
    let refuse = |problem: String, fix: String| Err(Error::input(file, name, problem, fix));
    if rows == 0 {
        refuse("has no rows".into(), "give at least one sample".into())
    } else if columns == 0 {
        refuse("has no columns".into(), "give samples of at least one dimension".into())
    } else if columns > MAX_DIM as u64 {
        refuse(
            format!("has {columns} columns; at most {MAX_DIM} are supported"),
            "reduce the dimension first, for example by PCA; rows are samples, columns dimensions".into(),
        )
    } else if rows > MAX_ROWS {
        refuse(format!("has {rows} rows; at most {MAX_ROWS} are supported"), "draw a subset".into())
    } else {
        Ok((rows as usize, columns as usize))
    }
}

/// A zeroed buffer of `rows · columns`, or an error where memory ends.
pub(super) fn zeros<T: Default + Clone>(file: &Path, name: &str, rows: usize, columns: usize) -> Result<Vec<T>> {
    let mut buffer = Vec::new();
    match rows.checked_mul(columns).map(|n| (n, buffer.try_reserve_exact(n))) {
        Some((n, Ok(()))) => buffer.resize(n, T::default()),
        _ => {
            let problem = format!("{rows} × {columns} values do not fit in memory");
            return Err(Error::input(file, name, problem, "use fewer rows, or a machine with more memory"));
        }
    }
    Ok(buffer)
}

/// A read that failed because of the file's content, or else of the system.
pub(super) fn damaged(file: &Path, name: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => truncated(file, name, "ends before its last value"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            Error::input(file, name, format!("is damaged: {error}"), "copy or save the file again")
        }
        _ => Error::io(file, "read")(error),
    }
}

/// An array or header that asks for more than its file holds.
pub(super) fn truncated(file: &Path, name: &str, problem: impl Into<String>) -> Error {
    Error::input(file, name, problem, "the file is cut short: copy or save it again")
}

/// `Ok` when the `available` bytes are the ones the header of `name` asks for.
pub(super) fn check_n_bytes(file: &Path, name: &str, header: &Header, available: u64) -> Result<()> {
    if header.element.is_err() {
        // The type is refused when the values are asked for; until then the header can be described.
        return Ok(());
    }
    let shape = &header.shape;
    match header.n_bytes() {
        None => Err(Error::input(
            file,
            name,
            format!("claims shape {shape:?}, more than any file can hold"),
            "the header is damaged: save the file again",
        )),
        Some(needed) if needed > available => Err(truncated(
            file,
            name,
            format!("shape {shape:?} of {} needs {needed} bytes, but only {available} are there", header.dtype),
        )),
        Some(needed) if needed < available => Err(Error::input(
            file,
            name,
            format!("{} bytes follow its last value", available - needed),
            "keep one array per file: save it again",
        )),
        Some(_) => Ok(()),
    }
}

/// `names` as they read in a message: the first few, or that there are none.
pub(super) fn list<T: std::fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.len() {
        0 => "nothing".into(),
        n if n > SHOWN => format!("{}, … ({n} in all)", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}
