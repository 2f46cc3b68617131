//! One array of a file: its header and a stream of its bytes, read in pieces into the final
//! buffers.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::element::{Element, ElementType, Refusal};
use crate::error::{Error, InputKind, Result};
use crate::model::MAX_DIM;
use crate::stage::Watch;

use super::conditions::{ConditionColumn, MAX_GROUPS, too_many};
use super::distinct::Distinct;
use super::file::SHOWN_VALUES;
use super::grouping::{RowTimes, shortest_decimal};
use super::row_filter::file_row;
use super::survey::Survey;

/// Bytes read from a file at a time.
const PIECE_BYTES: usize = 1 << 18;

/// Maximum bytes of memory per byte of the file before the content is verified. An array that
/// claims more is read once before memory is allocated for it: deflate can claim 1032 bytes for
/// one, 4128 as f32.
pub(super) const MAX_TRUSTED_RATIO: u64 = 64;

/// Maximum number of rows of a file: row numbers are 32-bit, here and in the random-number
/// counters.
const MAX_ROWS: u64 = u32::MAX as u64;

/// Maximum number of columns, of which components are to be taken if a model cannot have so many.
pub(super) const MAX_COLUMNS: usize = 1 << 16;

/// Which index varies slowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    C,
    Fortran,
}

/// The header of an array, read before its values.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Element type as the file spells it.
    pub dtype: String,
    /// The same type, if it is supported.
    pub element: std::result::Result<Element, Refusal>,
    pub order: Order,
    pub shape: Vec<u64>,
}

impl Header {
    /// Bytes of the values; `None` for unsupported elements and sizes that overflow.
    pub fn n_bytes(&self) -> Option<u64> {
        let size = self.element.as_ref().ok()?.size() as u64;
        self.shape.iter().try_fold(size, |bytes, &n| bytes.checked_mul(n))
    }
}

/// An array ready to be read; `data` yields the [`Header::n_bytes`] whose presence was checked on
/// opening.
pub(super) struct Array<'a> {
    pub file: &'a Path,
    pub name: String,
    pub header: Header,
    /// Bytes in the file, compressed or not.
    pub stored: u64,
    pub data: Box<dyn Read + 'a>,
    /// Which rows of the file it has, for messages; all if `None`.
    pub kept: Option<Arc<[bool]>>,
}

/// Reports to a watch how many bytes are read, and ends reading if the watch cancels.
pub(super) struct Meter<'a> {
    watch: &'a dyn Watch,
    done: u64,
    total: u64,
}

impl<'a> Meter<'a> {
    pub fn new(watch: &'a dyn Watch) -> Self {
        Meter { watch, done: 0, total: 0 }
    }

    /// Announces `bytes` more to read.
    pub fn expect(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
    }

    /// Reports `bytes` more as read.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if the watch cancels.
    pub fn advance(&mut self, bytes: u64) -> Result<()> {
        self.done = self.done.saturating_add(bytes);
        self.watch.advanced(self.done.min(self.total), self.total);
        if self.watch.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// The rows of the final buffers in the order of the file.
pub(super) struct Rows<'a> {
    /// Subtracted from each row before it is rounded to f32, `[dim]`.
    origin: &'a [f64],
    /// Final index of each row of the file; `None` if rows stay in file order.
    destination: Option<&'a [u32]>,
    /// Rows with a final index below `training.len() / dim`.
    training: &'a mut [f32],
    /// Rows with a larger final index.
    held_out: &'a mut [f32],
}

impl<'a> Rows<'a> {
    pub fn new(
        origin: &'a [f64],
        destination: Option<&'a [u32]>,
        training: &'a mut [f32],
        held_out: &'a mut [f32],
    ) -> Self {
        Rows { origin, destination, training, held_out }
    }

    /// Number of columns.
    pub fn dim(&self) -> usize {
        self.origin.len()
    }

    /// The values subtracted from each row, `[dim]`.
    pub fn origin(&self) -> &'a [f64] {
        self.origin
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        (self.training.len() + self.held_out.len()) / self.dim()
    }

    /// Final position of row `row` of the file.
    #[inline]
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let dim = self.origin.len();
        let start = self.destination.map_or(row, |destination| destination[row] as usize) * dim;
        match start.checked_sub(self.training.len()) {
            None => &mut self.training[start..start + dim],
            Some(start) => &mut self.held_out[start..start + dim],
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
    /// [`Error::Input`] for any other shape, for sizes outside 1..=limit, and for elements that are
    /// not numbers: the length can be checked only for numeric types.
    pub fn matrix_shape(&self) -> Result<(usize, usize)> {
        self.element()?;
        let (rows, columns) = match *self.header.shape {
            [rows] => (rows, 1),
            [rows, columns] => (rows, columns),
            ref other => return self.refuse(format!("has shape {other:?}"), "reshape it to [rows, dimensions]"),
        };
        check_shape(self.file, &self.name, rows, columns)
    }

    /// True if the array, as f32, would take so many times its bytes in the file that its content
    /// must be verified before memory is allocated for it.
    pub fn is_suspicious(&self) -> bool {
        let n = self.header.shape.iter().fold(1u64, |n, &size| n.saturating_mul(size));
        n.saturating_mul(size_of::<f32>() as u64) > MAX_TRUSTED_RATIO.saturating_mul(self.stored)
    }

    /// Reads `[N, d]` to verify that all values exist.
    ///
    /// # Errors
    /// [`Error::Input`] for a value that is not finite, or saying how the file is damaged.
    pub fn verify(self, meter: &mut Meter<'_>) -> Result<()> {
        self.for_each_piece(meter, Element::decode_f64, |x: &f64| x.is_finite(), |_, _, _| ())
    }

    /// Reads `[N, d]` to collect properties of the rows that `wanted` selects, which are needed
    /// before it is read as f32.
    ///
    /// # Errors
    /// As [`Self::read_rows`].
    pub fn survey(self, meter: &mut Meter<'_>, wanted: impl Fn(usize) -> bool) -> Result<Survey> {
        let (_, dim) = self.matrix_shape()?;
        let mut survey = Survey::new(dim);
        let order = self.header.order;
        let is_integer = self.element()?.epsilon() == 0.0;
        let is_good: fn(&f64) -> bool =
            if is_integer { |x| x.abs() < FIRST_ROUNDED_INTEGER } else { |x| (*x as f32).is_finite() };
        self.for_each_piece(meter, Element::decode_f64, is_good, |run, start, piece| {
            for (at, &x) in (start..).zip(piece) {
                let (row, column) = if order == Order::C { (run, at) } else { (at, run) };
                if wanted(row) {
                    survey.see(column, x);
                }
            }
        })?;
        Ok(survey)
    }

    /// Reads `[N, d]` into `rows`, which has that shape.
    ///
    /// # Errors
    /// [`Error::Input`] naming row and column of a value that is not finite in f32, or describing
    /// the damage of the file.
    pub fn read_rows(self, rows: &mut Rows<'_>, meter: &mut Meter<'_>) -> Result<()> {
        self.read_rows_if(|x| x.is_finite(), |x| (*x as f32).is_finite(), rows, meter)
    }

    /// The same for rows that may lack numbers: NaN and infinities are read as they are.
    ///
    /// # Errors
    /// [`Error::Input`] describing the damage of the file.
    #[cfg(feature = "h5ad")]
    pub fn read_rows_with_gaps(self, rows: &mut Rows<'_>, meter: &mut Meter<'_>) -> Result<()> {
        self.read_rows_if(|_| true, |_| true, rows, meter)
    }

    /// Reads `[N, d]` to see that all values exist, whatever they are.
    ///
    /// # Errors
    /// [`Error::Input`] describing the damage of the file.
    #[cfg(feature = "h5ad")]
    pub fn visit(self, meter: &mut Meter<'_>) -> Result<()> {
        self.for_each_piece(meter, Element::decode_f64, |_: &f64| true, |_, _, _| ())
    }

    fn read_rows_if(
        self,
        is_good: fn(&f32) -> bool,
        is_good_f64: fn(&f64) -> bool,
        rows: &mut Rows<'_>,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        if self.matrix_shape()? != (rows.len(), rows.dim()) {
            return self.refuse("changed while it was read", "read it when nothing writes to it");
        }
        let (order, origin) = (self.header.order, rows.origin());
        if origin.iter().all(|&o| o == 0.0) {
            return self.for_each_piece(meter, Element::decode_f32, is_good, |run, start, piece| match order {
                Order::C => rows.row_mut(run)[start..start + piece.len()].copy_from_slice(piece),
                Order::Fortran => (start..).zip(piece).for_each(|(row, &x)| rows.row_mut(row)[run] = x),
            });
        }
        self.for_each_piece(meter, Element::decode_f64, is_good_f64, |run, start, piece| match order {
            Order::C => {
                let places = rows.row_mut(run)[start..].iter_mut().zip(&origin[start..]);
                places.zip(piece).for_each(|((place, o), x)| *place = (x - o) as f32);
            }
            Order::Fortran => (start..).zip(piece).for_each(|(row, x)| {
                rows.row_mut(row)[run] = (x - origin[run]) as f32;
            }),
        })
    }

    /// Calls `visit` with consecutive elements along the dimension that varies fastest: (index
    /// along the other dimension, first index along this one, values). In C order that is (row,
    /// first column), in Fortran order (column, first row).
    fn for_each_piece<T: Copy + Default>(
        mut self,
        meter: &mut Meter<'_>,
        decode: fn(Element, &[u8], &mut [T]),
        is_good: fn(&T) -> bool,
        mut visit: impl FnMut(usize, usize, &[T]),
    ) -> Result<()> {
        let (element, (n_rows, dim)) = (self.element()?, self.matrix_shape()?);
        let order = self.header.order;
        let row_and_column = |run: usize, at: usize| match order {
            Order::C => (run, at),
            Order::Fortran => (at, run),
        };
        let (outer, inner) = row_and_column(n_rows, dim);
        let mut pieces = Pieces::new(element, outer as u64 * inner as u64);
        let mut values = vec![T::default(); pieces.capacity()];
        let (mut run, mut start) = (0, 0);
        // A piece contains whole runs, or a fraction of one long run.
        while let Some(bytes) = pieces.next(&mut self, meter)? {
            let values = &mut values[..bytes.len() / element.size()];
            decode(element, bytes, values);
            let mut done = 0;
            while done < values.len() {
                let n = (inner - start).min(values.len() - done);
                let piece = &values[done..done + n];
                if let Some(at) = piece.iter().position(|x| !is_good(x)) {
                    let (row, column) = row_and_column(run, start + at);
                    let size = element.size();
                    let mut exact = [0.0];
                    element.decode_f64(&bytes[(done + at) * size..(done + at + 1) * size], &mut exact);
                    let (problem, fix) = describe_unusable(exact[0]);
                    let row = file_row(self.kept.as_deref(), row);
                    return self.refuse(format!("row {row}, column {column} (counted from 0) {problem}"), fix);
                }
                visit(run, start, piece);
                done += n;
                start += n;
                if start == inner {
                    (run, start) = (run + 1, 0);
                }
            }
        }
        self.expect_end()
    }

    /// Reads `[N, m]` (or `[N]`) as the values of m conditions of each row. An array that [is
    /// suspicious](Self::is_suspicious) was surveyed before.
    ///
    /// # Errors
    /// As [`Self::read_rows`]; [`Error::Input`] for a condition with too many distinct values.
    pub fn read_conditions(self, meter: &mut Meter<'_>) -> Result<Vec<ConditionColumn>> {
        let (element, (_, n_columns)) = (self.element()?, self.matrix_shape()?);
        let (order, is_f32) = (self.header.order, element.number == ElementType::F32);
        let (file, name, is_list) = (self.file, self.name.clone(), self.header.shape.len() == 1);
        let mut columns: Vec<Distinct<u64>> = (0..n_columns).map(|_| Distinct::default()).collect();
        self.for_each_piece(
            meter,
            Element::decode_f64,
            |x: &f64| x.is_finite(),
            |run, start, piece| {
                for (at, &x) in (start..).zip(piece) {
                    let column = if order == Order::C { at } else { run };
                    let value = if is_f32 { shortest_decimal(x as f32) } else { x };
                    let column = &mut columns[column];
                    // One too many tells that there are more.
                    if column.values.len() <= MAX_GROUPS {
                        column.push(&(value + 0.0).to_bits()); // −0 and 0 are one
                    }
                }
            },
        )?;
        let name_of = |i: usize| if is_list { name.clone() } else { format!("{name}_{i}") };
        match columns.iter().position(|column| column.values.len() > MAX_GROUPS) {
            Some(i) => Err(too_many(file, &name_of(i))),
            None => {
                let columns = columns.into_iter().enumerate();
                Ok(columns.map(|(i, distinct)| ConditionColumn::of_numbers(name_of(i), distinct)).collect())
            }
        }
    }

    /// Reads `[N]` (or `[N, 1]`) as one finite time per row. An array that [is
    /// suspicious](Self::is_suspicious) was surveyed before.
    ///
    /// # Errors
    /// [`Error::Input`] for another shape, a value that is not finite, or a damaged file.
    pub fn read_times(mut self, meter: &mut Meter<'_>) -> Result<RowTimes> {
        let (element, (n_rows, columns)) = (self.element()?, self.matrix_shape()?);
        if columns != 1 {
            return self.refuse(format!("has shape [{n_rows}, {columns}]"), "give one time per row: shape [rows]");
        }
        let mut times = RowTimes::new(self.file, &self.name, n_rows)?;
        times.are_f32 = element.number == ElementType::F32;
        let mut pieces = Pieces::new(element, n_rows as u64);
        let mut values = vec![0.0; pieces.capacity()];
        let mut read = 0;
        while let Some(bytes) = pieces.next(&mut self, meter)? {
            let piece = &mut values[..bytes.len() / element.size()];
            element.decode_f64(bytes, piece);
            if let Some(row) = piece.iter().position(|t| !t.is_finite()) {
                let in_file = file_row(self.kept.as_deref(), read + row);
                let problem = format!("row {in_file} (counted from 0) is {}", piece[row]);
                return self.refuse(problem, "remove rows without a time");
            }
            piece.iter().try_for_each(|&time| times.push(time))?;
            read += piece.len();
        }
        self.expect_end()?;
        Ok(times)
    }

    /// Reads all numbers, whatever they are.
    ///
    /// # Errors
    /// [`Error::Input`] for a damaged file.
    pub fn read_values(self, meter: &mut Meter<'_>) -> Result<Vec<f64>> {
        // Grows with what is there: the header of a damaged file may promise more.
        let mut values = Vec::new();
        self.for_each_piece(meter, Element::decode_f64, |_: &f64| true, |_, _, piece| values.extend(piece))?;
        Ok(values)
    }

    /// Which rows of `[N]` are `value`, to f32's precision if the array holds f32, and the first
    /// few other values.
    ///
    /// # Errors
    /// [`Error::Input`] if the file is damaged.
    pub fn rows_with(self, value: f64, meter: &mut Meter<'_>) -> Result<(Vec<bool>, Vec<String>)> {
        let value = if self.element()?.number == ElementType::F32 { f64::from(value as f32) } else { value };
        let (mut rows, mut others) = (Vec::new(), Vec::new());
        self.for_each_piece(
            meter,
            Element::decode_f64,
            |_: &f64| true,
            |_, _, piece| {
                for &x in piece {
                    if x != value && others.len() < SHOWN_VALUES && !others.contains(&x) {
                        others.push(x);
                    }
                    rows.push(x == value);
                }
            },
        )?;
        Ok((rows, others.iter().map(f64::to_string).collect()))
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.data.read_exact(bytes).map_err(|e| damaged(self.file, &self.name, e))
    }

    /// Checks that nothing follows the values. Reaching the end also makes the container verify its
    /// checksum.
    fn expect_end(&mut self) -> Result<()> {
        match self.data.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => self.refuse("has bytes after its last value", "save the file again"),
            Err(e) => Err(damaged(self.file, &self.name, e)),
        }
    }
}

/// The bytes of an array, a number of whole elements at a time.
struct Pieces {
    element: Element,
    left: u64,
    buffer: Vec<u8>,
}

impl Pieces {
    fn new(element: Element, n_elements: u64) -> Self {
        let capacity = n_elements.min((PIECE_BYTES / element.size()) as u64) as usize;
        Pieces { element, left: n_elements, buffer: vec![0; capacity * element.size()] }
    }

    /// Maximum number of elements in a piece.
    fn capacity(&self) -> usize {
        self.buffer.len() / self.element.size()
    }

    fn next(&mut self, array: &mut Array<'_>, meter: &mut Meter<'_>) -> Result<Option<&[u8]>> {
        let n = self.left.min(self.capacity() as u64) as usize;
        if n == 0 {
            return Ok(None);
        }
        self.left -= n as u64;
        let piece = &mut self.buffer[..n * self.element.size()];
        array.read_exact(piece)?;
        meter.advance(piece.len() as u64)?;
        Ok(Some(piece))
    }
}

/// Above this, f64 cannot hold every integer.
const FIRST_ROUNDED_INTEGER: f64 = 9_007_199_254_740_992.0;

/// (problem, fix) of a message about a value that samples cannot have.
fn describe_unusable(value: f64) -> (String, &'static str) {
    if (value as f32).is_finite() {
        let problem = format!("is about {value:e}, an integer that 64-bit floats round");
        return (problem, "subtract a common offset from the integers before they are saved");
    }
    describe_not_finite(value)
}

/// (problem, fix) of a message about a value that is not finite after conversion to f32.
pub(super) fn describe_not_finite(value: f64) -> (String, &'static str) {
    if value.is_finite() {
        (format!("is {value:e}, too large for 32-bit floats"), "rescale the data")
    } else {
        (format!("is {value}"), "remove or impute such rows")
    }
}

/// Converts `rows` and `columns` to sizes within their limits.
pub(super) fn check_shape(file: &Path, name: &str, rows: u64, columns: u64) -> Result<(usize, usize)> {
    let refuse = |problem: String, fix: String| Err(Error::input(file, name, problem, fix));
    if rows == 0 {
        refuse("has no rows".into(), "give at least one sample".into())
    } else if columns == 0 {
        refuse("has no columns".into(), "give samples of at least one dimension".into())
    } else if columns > MAX_COLUMNS as u64 {
        refuse(
            format!("has {columns} columns; at most {MAX_COLUMNS} are read"),
            "leave out columns that hardly vary; rows are samples, columns dimensions".into(),
        )
    } else if rows > MAX_ROWS {
        refuse(format!("has {rows} rows; at most {MAX_ROWS} are supported"), "draw a subset".into())
    } else {
        Ok((rows as usize, columns as usize))
    }
}

/// Refuses samples of `columns` that are not reduced to components and are too many for a model.
pub(super) fn check_dim(file: &Path, name: &str, columns: usize) -> Result<()> {
    if columns <= MAX_DIM {
        return Ok(());
    }
    let problem = format!("has {columns} columns; a model has at most {MAX_DIM} dimensions");
    let fix = "set data.components, as in components = 50; rows are samples, columns dimensions";
    Err(Error::input(file, name, problem, fix))
}

/// A zeroed buffer of `rows · columns`, or an error if memory runs out. Systems that overcommit
/// provide the memory as it is filled.
pub(super) fn zeros(file: &Path, name: &str, rows: usize, columns: usize) -> Result<Vec<f32>> {
    let buffer = rows.checked_mul(columns).and_then(|n| bytemuck::allocation::try_zeroed_slice_box(n).ok());
    buffer.map(Vec::from).ok_or_else(|| {
        let problem = format!("{rows} × {columns} values do not fit in memory");
        Error::input(file, name, problem, "use fewer rows, or a machine with more memory").of_kind(InputKind::TooLarge)
    })
}

/// The error of a failed read: of the file's content, or else of the system.
pub(super) fn damaged(file: &Path, name: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => truncated(file, name, "ends before its last value"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            Error::input(file, name, format!("is damaged: {error}"), "copy or save the file again")
                .of_kind(InputKind::Malformed)
        }
        _ => Error::io(file, "read")(error),
    }
}

/// The error of an array or header that claims more than its file holds.
pub(super) fn truncated(file: &Path, name: &str, problem: impl Into<String>) -> Error {
    Error::input(file, name, problem, "the file is cut short: copy or save it again").of_kind(InputKind::Malformed)
}

/// `Ok` if `available` is the number of bytes that the header of `name` claims.
pub(super) fn check_n_bytes(file: &Path, name: &str, header: &Header, available: u64) -> Result<()> {
    if header.element.is_err() {
        // Unsupported types are refused when the values are read; until then the header can be
        // described.
        return Ok(());
    }
    let shape = &header.shape;
    match header.n_bytes() {
        None => Err(Error::input(
            file,
            name,
            format!("claims shape {shape:?}, more than any file can hold"),
            "the header is damaged: save the file again",
        )
        .of_kind(InputKind::Malformed)),
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
        )
        .of_kind(InputKind::Malformed)),
        Some(_) => Ok(()),
    }
}

/// `names` for a message: the first few, or that there are none.
pub(super) fn list<T: std::fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    match names.len() {
        0 => "nothing".into(),
        n if n > SHOWN => format!("{}, … ({n} in all)", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}
