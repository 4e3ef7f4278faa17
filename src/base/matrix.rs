//! Views of row-major matrices, and ways to divide them into parts that do not overlap.

use std::marker::PhantomData;

/// What an element-wise step reads: values of its own, or those that it overwrites.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// Values apart from the output.
    Apart(&'a [f32]),
    /// The output's, as they are before the step.
    InPlace,
}

impl<'a> Source<'a> {
    /// `count` values from `first` on; as many as there are.
    pub fn part(self, first: usize, count: usize) -> Source<'a> {
        match self {
            Source::Apart(values) => {
                let rest = values.get(first..).unwrap_or(&[]);
                Source::Apart(rest.get(..count).unwrap_or(rest))
            }
            Source::InPlace => Source::InPlace,
        }
    }
}

/// A row-major matrix that may be written: `rows` rows of `columns` values, `stride` values apart.
pub struct MatrixMut<'a, T> {
    start: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: the view is an exclusive borrow of its elements, like `&mut [T]`.
unsafe impl<T: Send> Send for MatrixMut<'_, T> {}
// SAFETY: a shared view gives no access to elements except through `Divide::part`, whose callers keep parts apart.
unsafe impl<T: Send> Sync for MatrixMut<'_, T> {}

impl<'a, T> MatrixMut<'a, T> {
    /// The view of `values`; `None` when `rows` rows of `columns` values, `stride` apart, do not fit.
    pub fn new(values: &'a mut [T], rows: usize, columns: usize, stride: usize) -> Option<MatrixMut<'a, T>> {
        let needed = if rows == 0 {
            0
        } else {
            (rows - 1).checked_mul(stride)?.checked_add(columns)?
        };
        if columns > stride && rows > 1 || needed > values.len() {
            return None;
        }
        Some(MatrixMut {
            start: values.as_mut_ptr(),
            rows,
            columns,
            stride,
            borrow: PhantomData,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values from the start of one row to the start of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The first value of the first row.
    pub fn start(&mut self) -> *mut T {
        self.start
    }

    /// One row.
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row lies inside the borrowed values, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> MatrixMut<'_, T> {
        MatrixMut {
            borrow: PhantomData,
            ..*self
        }
    }

    /// Columns `first .. first + count` of every row.
    pub fn columns_mut(&mut self, first: usize, count: usize) -> MatrixMut<'_, T> {
        assert!(
            first + count <= self.columns,
            "columns {first} + {count} of {}",
            self.columns
        );
        // SAFETY: `self` is borrowed mutably for as long as the window lives.
        unsafe { self.window(0, self.rows, first, count) }
    }

    /// Divides by columns: chunk `i` is columns `i * width ..` of every row.
    pub fn by_columns(self, width: usize) -> ByColumns<'a, T> {
        ByColumns {
            matrix: self,
            width: width.max(1),
        }
    }

    /// Divides by rows: chunk `i` is `count` rows from `i * count` on.
    pub fn by_rows(self, count: usize) -> ByRows<'a, T> {
        ByRows {
            matrix: self,
            count: count.max(1),
        }
    }

    /// The rows and columns from (`row`, `column`) on, cut to what there is.
    ///
    /// # Safety
    /// Views that are alive at the same time must not overlap.
    unsafe fn window(&self, row: usize, rows: usize, column: usize, columns: usize) -> MatrixMut<'a, T> {
        let row = row.min(self.rows);
        let column = column.min(self.columns);
        MatrixMut {
            // SAFETY: inside the borrowed values, or one past a row's end for an empty view.
            start: unsafe {
                self.start.add(if row < self.rows {
                    row * self.stride + column
                } else {
                    0
                })
            },
            rows: rows.min(self.rows - row),
            columns: columns.min(self.columns - column),
            stride: self.stride,
            borrow: PhantomData,
        }
    }
}

/// Something that a parallel step writes, divided so that every chunk has a part of its own.
///
/// # Safety
/// `part` must return parts that do not overlap for different chunks.
pub unsafe trait Divide: Sync {
    /// What one chunk gets.
    type Part;

    /// The part of `chunk`.
    ///
    /// # Safety
    /// A chunk's part may be taken once only, and not after the borrow that `self` was made from has ended.
    unsafe fn part(&self, chunk: usize) -> Self::Part;
}

/// See [`MatrixMut::by_columns`].
pub struct ByColumns<'a, T> {
    matrix: MatrixMut<'a, T>,
    width: usize,
}

// SAFETY: column ranges of different chunks do not overlap.
unsafe impl<'a, T: Send> Divide for ByColumns<'a, T> {
    type Part = MatrixMut<'a, T>;
    unsafe fn part(&self, chunk: usize) -> MatrixMut<'a, T> {
        // SAFETY: as the caller promises.
        unsafe {
            self.matrix
                .window(0, self.matrix.rows, chunk * self.width, self.width)
        }
    }
}

/// See [`MatrixMut::by_rows`].
pub struct ByRows<'a, T> {
    matrix: MatrixMut<'a, T>,
    count: usize,
}

// SAFETY: row ranges of different chunks do not overlap.
unsafe impl<'a, T: Send> Divide for ByRows<'a, T> {
    type Part = MatrixMut<'a, T>;
    unsafe fn part(&self, chunk: usize) -> MatrixMut<'a, T> {
        // SAFETY: as the caller promises.
        unsafe {
            self.matrix
                .window(chunk * self.count, self.count, 0, self.matrix.columns)
        }
    }
}

/// A matrix divided into tiles: `starts` cuts the rows, `width` the columns.
pub struct ByTiles<'a, 's, T> {
    matrix: MatrixMut<'a, T>,
    starts: &'s [usize],
    width: usize,
}

impl<'a, T> MatrixMut<'a, T> {
    /// Chunk `c * n + i` is rows `starts[i] .. starts[i + 1]` (the last up to the end) of columns `c * width ..`,
    /// with n = `starts.len()`. `None` when `starts` decrease.
    pub fn by_tiles<'s>(self, starts: &'s [usize], width: usize) -> Option<ByTiles<'a, 's, T>> {
        let sorted = starts.is_sorted();
        sorted.then_some(ByTiles {
            matrix: self,
            starts,
            width: width.max(1),
        })
    }
}

// SAFETY: row ranges between sorted starts do not overlap, nor do column ranges.
unsafe impl<'a, T: Send> Divide for ByTiles<'a, '_, T> {
    type Part = MatrixMut<'a, T>;
    unsafe fn part(&self, chunk: usize) -> MatrixMut<'a, T> {
        let (column, index) = (chunk / self.starts.len(), chunk % self.starts.len());
        let start = self.starts[index];
        let end = self.starts.get(index + 1).copied().unwrap_or(self.matrix.rows);
        // SAFETY: as the caller promises.
        unsafe {
            self.matrix
                .window(start, end - start, column * self.width, self.width)
        }
    }
}

/// See [`MatrixMut::by_blocks`].
pub struct ByBlocks<'a, T> {
    matrix: MatrixMut<'a, T>,
    height: usize,
    width: usize,
}

impl<'a, T> MatrixMut<'a, T> {
    /// Divides by rows and columns: with n = rows / `height`, rounded up, chunk `c * n + i` is rows `i * height ..` of
    /// columns `c * width ..`.
    pub fn by_blocks(self, height: usize, width: usize) -> ByBlocks<'a, T> {
        ByBlocks {
            matrix: self,
            height: height.max(1),
            width: width.max(1),
        }
    }
}

// SAFETY: blocks of different chunks do not overlap.
unsafe impl<'a, T: Send> Divide for ByBlocks<'a, T> {
    type Part = MatrixMut<'a, T>;
    unsafe fn part(&self, chunk: usize) -> MatrixMut<'a, T> {
        let high = self.matrix.rows.div_ceil(self.height).max(1);
        let (column, row) = (chunk / high * self.width, chunk % high * self.height);
        // SAFETY: as the caller promises.
        unsafe { self.matrix.window(row, self.height, column, self.width) }
    }
}

/// A slice cut into pieces of one length (the last may be shorter): chunk `i` gets piece `i`.
pub struct Pieces<'a, T> {
    matrix: MatrixMut<'a, T>,
    length: usize,
}

impl<'a, T> Pieces<'a, T> {
    /// Piece `i` of `length` values for chunk `i`.
    pub fn new(values: &'a mut [T], length: usize) -> Pieces<'a, T> {
        let columns = values.len();
        let start = values.as_mut_ptr();
        let matrix = MatrixMut {
            start,
            rows: 1,
            columns,
            stride: columns,
            borrow: PhantomData,
        };
        Pieces {
            matrix,
            length: length.max(1),
        }
    }
}

// SAFETY: pieces of different chunks do not overlap.
unsafe impl<'a, T: Send + 'a> Divide for Pieces<'a, T> {
    type Part = &'a mut [T];
    unsafe fn part(&self, chunk: usize) -> &'a mut [T] {
        let first = chunk.saturating_mul(self.length).min(self.matrix.columns);
        let length = self.length.min(self.matrix.columns - first);
        // SAFETY: inside the slice; exclusive as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.matrix.start.add(first), length) }
    }
}

macro_rules! divide_tuple {
    ($($name:ident $index:tt),*) => {
        // SAFETY: each member keeps its own promise.
        unsafe impl<$($name: Divide),*> Divide for ($($name,)*) {
            type Part = ($($name::Part,)*);
            #[allow(clippy::unused_unit)]
            unsafe fn part(&self, chunk: usize) -> Self::Part {
                let _ = chunk;
                // SAFETY: as the caller promises.
                unsafe { ($(self.$index.part(chunk),)*) }
            }
        }
    };
}

divide_tuple!(A 0);
divide_tuple!(A 0, B 1);
divide_tuple!(A 0, B 1, C 2);
divide_tuple!(A 0, B 1, C 2, D 3);
divide_tuple!(A 0, B 1, C 2, D 3, E 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_cut_to_the_matrix() {
        let mut values = vec![0; 3 * 10];
        let matrix = MatrixMut::new(&mut values, 3, 9, 10).unwrap().by_columns(4);
        // SAFETY: each chunk is taken once.
        let mut parts: Vec<_> = (0..4).map(|i| unsafe { matrix.part(i) }).collect();
        assert_eq!(
            parts.iter().map(|p| p.columns()).collect::<Vec<_>>(),
            [4, 4, 1, 0]
        );
        parts[2].row(2)[0] = 7;
        drop(parts);
        assert_eq!(values[2 * 10 + 8], 7);
    }

    #[test]
    fn a_matrix_that_does_not_fit_is_refused() {
        let mut values = vec![0; 29];
        assert!(MatrixMut::new(&mut values, 3, 10, 10).is_none());
        assert!(MatrixMut::new(&mut values, 3, 9, 10).is_some());
        assert!(MatrixMut::new(&mut values, 2, 11, 10).is_none());
        assert!(MatrixMut::new(&mut values, usize::MAX, 2, usize::MAX).is_none());
    }
}
