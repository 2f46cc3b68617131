//! Matrices of an `.h5ad` file as streams of the bytes that a dense array has: rows in C order of
//! dense and CSR matrices, columns in Fortran order of CSC matrices and data frames.

use std::io::{self, Read};
use std::sync::Arc;

use super::hdf5::Values;
use crate::data::array::Order;
use crate::element::Element;

/// Rows and columns of a matrix that are read.
#[derive(Clone, Default)]
pub(super) struct Part {
    /// Whether each row is read; all if `None`.
    pub rows: Option<Arc<[bool]>>,
    /// The columns, in the order in which they are wanted; all if `None`.
    pub columns: Option<Vec<u32>>,
}

impl Part {
    /// Number of rows of `all` that are read.
    pub fn n_rows(&self, all: u64) -> u64 {
        self.rows.as_ref().map_or(all, |rows| rows.iter().filter(|is_read| **is_read).count() as u64)
    }

    /// Number of columns of `all` that are read.
    pub fn n_columns(&self, all: u64) -> u64 {
        self.columns.as_ref().map_or(all, |columns| columns.len() as u64)
    }

    fn has_row(&self, row: u64) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.get(row as usize).copied().unwrap_or(false))
    }
}

/// Runs of a dense array that follow each other.
pub(super) trait Runs {
    /// Appends at least one run to `bytes`; false if there are no more.
    fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool>;
}

/// The bytes of all runs.
pub(super) struct RunReader<R> {
    runs: R,
    bytes: Vec<u8>,
    at: usize,
}

impl<R: Runs> RunReader<R> {
    pub fn new(runs: R) -> Self {
        RunReader { runs, bytes: Vec::new(), at: 0 }
    }
}

impl<R: Runs> Read for RunReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
            if buffer.is_empty() || !self.runs.next(&mut self.bytes)? {
                return Ok(0);
            }
        }
        let n = buffer.len().min(self.bytes.len() - self.at);
        buffer[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Rows of a dense array.
pub(super) struct Dense {
    values: Values,
    part: Part,
    row: u64,
}

impl Dense {
    pub fn new(values: Values, part: Part) -> Self {
        Dense { values, part, row: 0 }
    }
}

impl Runs for Dense {
    fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        if self.row >= self.values.n_rows || self.values.row_bytes == 0 {
            return Ok(false);
        }
        let window = self.values.window(self.row)?;
        if self.part.rows.is_none() && self.part.columns.is_none() {
            self.row += (window.len() / self.values.row_bytes) as u64;
            *bytes = window;
            return Ok(true);
        }
        let n_columns = self.values.shape.get(1).copied().unwrap_or(1) as usize;
        let size = self.values.row_bytes / n_columns.max(1);
        for row in window.chunks_exact(self.values.row_bytes) {
            if self.part.has_row(self.row) {
                match &self.part.columns {
                    None => bytes.extend_from_slice(row),
                    Some(columns) => columns
                        .iter()
                        .for_each(|&column| bytes.extend_from_slice(&row[column as usize * size..][..size])),
                }
            }
            self.row += 1;
        }
        Ok(true)
    }
}

/// Values of a long array, read by windows.
struct Window {
    values: Values,
    bytes: Vec<u8>,
    first: u64,
}

impl Window {
    fn new(values: Values) -> Self {
        Window { values, bytes: Vec::new(), first: 0 }
    }

    /// Appends the bytes of the values `from..to`.
    fn append(&mut self, mut from: u64, to: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        let size = self.values.row_bytes;
        while from < to {
            let held = self.first..self.first + (self.bytes.len() / size) as u64;
            if held.contains(&from) {
                let end = to.min(held.end);
                let place = |at: u64| (at - held.start) as usize * size;
                bytes.extend_from_slice(&self.bytes[place(from)..place(end)]);
                from = end;
            } else {
                self.bytes = self.values.window(from)?;
                self.first = from;
            }
        }
        Ok(())
    }
}

/// What the runs of a sparse matrix are.
pub(super) struct Sparse {
    /// Start of each run among the entries, and the number of entries.
    starts: Vec<u64>,
    indices: Window,
    data: Window,
    index_type: Element,
    /// The runs that are read, in this order.
    runs: std::vec::IntoIter<u32>,
    /// Place in a run of each index, and [`u32::MAX`] for one that is left out; the same if `None`.
    places: Option<Vec<u32>>,
    /// Number of indices, and of places.
    n_indices: usize,
    n_places: usize,
    /// The last run (plus 1) that has had an entry of an index.
    seen: Vec<u32>,
    bytes: Vec<u8>,
    numbers: Vec<f64>,
}

impl Sparse {
    /// The matrix `[n_rows, n_columns]`, whose runs are rows in C order and columns in Fortran
    /// order.
    ///
    /// # Errors
    /// An error of the file, or of its content.
    pub fn new(
        order: Order,
        [n_rows, n_columns]: [u64; 2],
        indptr: &Values,
        indices: Values,
        data: Values,
        part: &Part,
    ) -> io::Result<Self> {
        let refuse = |problem: &str| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        let (n_runs, n_indices) = match order {
            Order::C => (n_rows, n_columns),
            Order::Fortran => (n_columns, n_rows),
        };
        let (Ok(index_type), true) = (indices.element.clone(), indices.row_bytes > 0 && data.row_bytes > 0) else {
            return refuse("its indices are no numbers");
        };
        let starts: Vec<u64> = indptr.all()?.iter().map(|&start| start as u64).collect();
        let is_sorted = starts.first() == Some(&0) && starts.windows(2).all(|pair| pair[0] <= pair[1]);
        if starts.len() as u64 != n_runs + 1 || !is_sorted {
            return refuse("its indptr does not fit its shape");
        }
        let n_entries = starts.last().copied().unwrap_or(0);
        if n_entries > indices.n_rows || n_entries > data.n_rows {
            return refuse("its indptr points behind its last entry");
        }
        let rows = || (0..n_rows as u32).filter(|&row| part.has_row(u64::from(row))).collect::<Vec<u32>>();
        let columns = || part.columns.clone().unwrap_or_else(|| (0..n_columns as u32).collect());
        let (runs, wanted) = match order {
            Order::C => (rows(), part.columns.clone()),
            Order::Fortran => (columns(), part.rows.is_some().then(rows)),
        };
        let n_places = wanted.as_ref().map_or(n_indices as usize, Vec::len);
        let places = wanted.map(|wanted| {
            let mut places = vec![u32::MAX; n_indices as usize];
            wanted.iter().enumerate().for_each(|(place, &index)| places[index as usize] = place as u32);
            places
        });
        Ok(Sparse {
            starts,
            indices: Window::new(indices),
            data: Window::new(data),
            index_type,
            runs: runs.into_iter(),
            places,
            n_indices: n_indices as usize,
            n_places,
            seen: vec![0; n_indices as usize],
            bytes: Vec::new(),
            numbers: Vec::new(),
        })
    }
}

impl Runs for Sparse {
    fn next(&mut self, run: &mut Vec<u8>) -> io::Result<bool> {
        let Some(number) = self.runs.next() else { return Ok(false) };
        let (from, to) = (self.starts[number as usize], self.starts[number as usize + 1]);
        let size = self.data.values.row_bytes;
        self.bytes.clear();
        self.indices.append(from, to, &mut self.bytes)?;
        self.numbers.resize((to - from) as usize, 0.0);
        self.index_type.decode_f64(&self.bytes, &mut self.numbers);
        self.bytes.clear();
        self.data.append(from, to, &mut self.bytes)?;
        let start = run.len();
        run.resize(start + self.n_places * size, 0);
        let run = &mut run[start..];
        for (&index, value) in self.numbers.iter().zip(self.bytes.chunks_exact(size)) {
            let refuse = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            if !(0.0..self.n_indices as f64).contains(&index) {
                return refuse(format!("index {index} of run {number} is not below {}", self.n_indices));
            }
            let index = index as usize;
            if self.seen[index] == number + 1 {
                return refuse(format!("run {number} has two entries at {index}: call sum_duplicates() before saving"));
            }
            self.seen[index] = number + 1;
            let place = self.places.as_ref().map_or(index as u32, |places| places[index]);
            if place != u32::MAX {
                run[place as usize * size..][..size].copy_from_slice(value);
            }
        }
        Ok(true)
    }
}

/// Columns of a data frame, as f64.
pub(super) struct Frame {
    columns: std::vec::IntoIter<Values>,
    rows: Option<Arc<[bool]>>,
}

impl Frame {
    pub fn new(columns: Vec<Values>, rows: Option<Arc<[bool]>>) -> Self {
        Frame { columns: columns.into_iter(), rows }
    }
}

impl Runs for Frame {
    fn next(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let Some(column) = self.columns.next() else { return Ok(false) };
        let rows = self.rows.clone();
        let kept = |row: usize| rows.as_ref().is_none_or(|rows| rows[row]);
        for (row, value) in column.all()?.into_iter().enumerate() {
            if kept(row) {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(true)
    }
}
