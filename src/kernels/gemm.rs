//! Products of plain floats: `C = alpha A B + beta C + bias`, after Goto and van de Geijn ("Anatomy of high-performance
//! matrix multiplication", 2008).
//!
//! B is packed in blocks of [`DEPTH`] inputs by [`WIDTH`] columns, which stay in the second-level cache, in panels as wide
//! as the register tile; a few rows of A at a time are copied beside it and stay in the first-level cache. Every element
//! of C is one chain of fused multiply-adds from `beta C + bias` on, over the inputs in order: a block of inputs goes on from
//! what the one before left in C. So its bits depend neither on the blocks, nor on the tile, nor on who computes it.

#![allow(clippy::needless_range_loop)] // Rows and vectors index several arrays of a tile at once.

use super::Kernels;
use super::matmul::{F16Rows, F32Rows, FloatRows};
use super::simd::{LANES, Simd};
use crate::base::matrix::MatrixMut;

/// Inputs of a block.
const DEPTH: usize = 1024;
/// Columns of a block: with [`DEPTH`], 512 KiB.
const WIDTH: usize = 128;
/// Values from one copied row of A to the next: rows do not fall onto each other's places in the cache.
const A_STRIDE: usize = DEPTH + LANES;
/// Rows of A that are copied at a time, the largest tile.
const MOST_ROWS: usize = 12;

/// How the values of A or B are stored. Products are of f32: F16 and BF16 are widened, which is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// The upper halves of 32-bit floats.
    Bf16,
}

impl Element {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 | Element::Bf16 => 2,
        }
    }
}

/// Where a row (F32 values stand at multiples of 4 bytes) of an operand begins, and the next.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// The values, from the first of row 0 to the last of the last row.
    pub bytes: &'a [u8],
    /// How they are stored.
    pub element: Element,
    /// Values from one row to the next.
    pub stride: usize,
}

/// A product's inputs.
#[derive(Clone, Copy)]
pub struct GemmInput<'a> {
    /// A: a row of inputs for each row of C.
    pub a: Operand<'a>,
    /// B: a row of inputs for each column of C, or with `by_input` a row of columns for each input.
    pub b: Operand<'a>,
    /// See `b`.
    pub by_input: bool,
    /// Inputs.
    pub depth: usize,
    /// Factor of A.
    pub alpha: f32,
    /// Factor of what C holds; with 0 it is not read.
    pub beta: f32,
    /// Added to every row of C, one value for each column.
    pub bias: Option<&'a [f32]>,
}

/// What a kernel reads and writes.
pub struct GemmArgs {
    a: *const u8,
    a_element: Element,
    a_stride: usize,
    b: *const u8,
    b_element: Element,
    b_stride: usize,
    by_input: bool,
    rows: usize,
    columns: usize,
    depth: usize,
    alpha: f32,
    beta: f32,
    bias: *const f32,
    output: *mut f32,
    output_stride: usize,
    /// [`scratch_length`] values.
    scratch: *mut f32,
}

/// A kernel of one instruction set.
///
/// # Safety
/// The pointers are valid for the sizes given there, and the CPU has the instructions.
pub(super) type GemmFn = unsafe fn(&GemmArgs);

/// f32 values that a product needs as scratch memory.
pub fn scratch_length(columns: usize, depth: usize) -> usize {
    let width = columns.min(WIDTH).next_multiple_of(2 * LANES);
    MOST_ROWS * A_STRIDE + depth.min(DEPTH) * width
}

impl Kernels {
    /// `output = alpha a b + beta output + bias`, for the rows of A from `row` on and the columns from `column` on that the
    /// output has. `scratch` takes [`scratch_length`] values of these columns.
    pub fn gemm(
        &self,
        input: &GemmInput<'_>,
        row: usize,
        column: usize,
        mut output: MatrixMut<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (rows, columns) = (output.rows(), output.columns());
        if rows == 0 || columns == 0 {
            return;
        }
        let (a, b) = (&input.a, &input.b);
        let b_first = if input.by_input { (0, column) } else { (column, 0) };
        let b_size = if input.by_input {
            (input.depth, columns)
        } else {
            (columns, input.depth)
        };
        let bias = input.bias.map(|bias| &bias[column..column + columns]);
        assert!(scratch.len() >= scratch_length(columns, input.depth));
        let args = GemmArgs {
            a: a.window((row, 0), (rows, input.depth)),
            a_element: a.element,
            a_stride: a.stride,
            b: b.window(b_first, b_size),
            b_element: b.element,
            b_stride: b.stride,
            by_input: input.by_input,
            rows,
            columns,
            depth: input.depth,
            alpha: input.alpha,
            beta: input.beta,
            bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            output: output.start(),
            output_stride: output.stride(),
            scratch: scratch.as_mut_ptr(),
        };
        // SAFETY: `window` checks the operands; the bias is as long as there are columns, the scratch memory as was
        // checked; the output is a matrix; the table was chosen for this CPU.
        unsafe { (self.gemm)(&args) }
    }
}

impl Operand<'_> {
    /// The first of `size` rows and columns from `first` on, which must all be there.
    fn window(&self, first: (usize, usize), size: (usize, usize)) -> *const u8 {
        let value = self.element.bytes();
        let start = first.0 * self.stride + first.1;
        if size.0 == 0 || size.1 == 0 {
            return self.bytes.as_ptr();
        }
        let end = start + (size.0 - 1) * self.stride + size.1;
        assert!(end * value <= self.bytes.len());
        self.bytes[start * value..].as_ptr()
    }
}

/// Upper halves of 32-bit floats.
pub struct Bf16Rows;

#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
impl FloatRows for Bf16Rows {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        unsafe { S::load_bf16(from.cast()) }
    }
}

/// `count` values (at most 16), the others zero.
#[inline(always)]
unsafe fn load_some<S: Simd, E: FloatRows>(from: *const u8, count: usize) -> S::F {
    // SAFETY: `count` values can be read, as the caller promises; the array holds 16.
    unsafe {
        if count >= LANES {
            return E::load::<S>(from);
        }
        let mut held = [0u32; LANES];
        std::ptr::copy_nonoverlapping(from, held.as_mut_ptr().cast::<u8>(), count * E::BYTES);
        E::load::<S>(held.as_ptr().cast())
    }
}

/// The product of one instruction set.
///
/// # Safety
/// See [`GemmFn`].
#[inline(always)]
pub unsafe fn gemm<S: Simd>(args: &GemmArgs) {
    // SAFETY: as the caller promises; the scratch memory holds the rows of A and a block of B.
    unsafe {
        let a_copy = args.scratch;
        let b_pack = args.scratch.add(MOST_ROWS * A_STRIDE);
        // What needs no conversion is read where it stands.
        let direct = args.a_element == Element::F32 && args.alpha == 1.0;
        // A product without inputs still scales C and adds the bias.
        let last_depth = args.depth.max(1);
        for column in (0..args.columns).step_by(WIDTH) {
            let columns = WIDTH.min(args.columns - column);
            for input in (0..last_depth).step_by(DEPTH) {
                let depth = DEPTH.min(args.depth - input);
                pack_b::<S>(args, column, columns, input, depth, b_pack);
                let mut row = 0;
                while row < args.rows {
                    let rows = tile_rows::<S>(args.rows - row);
                    let (a, a_stride) = if direct {
                        (
                            args.a.cast::<f32>().add(row * args.a_stride + input),
                            args.a_stride,
                        )
                    } else {
                        copy_a::<S>(args, row, rows, input, depth, a_copy);
                        (a_copy.cast_const(), A_STRIDE)
                    };
                    let block = Block {
                        args,
                        column,
                        columns,
                        row,
                        input,
                        depth,
                        a,
                        a_stride,
                    };
                    match rows {
                        12 => block.panels::<S, 12>(b_pack),
                        8 => block.panels::<S, 8>(b_pack),
                        6 => block.panels::<S, 6>(b_pack),
                        4 => block.panels::<S, 4>(b_pack),
                        2 => block.panels::<S, 2>(b_pack),
                        _ => block.panels::<S, 1>(b_pack),
                    }
                    row += rows;
                }
            }
        }
    }
}

/// The rows of the next tile, when `left` are left.
#[inline(always)]
fn tile_rows<S: Simd>(left: usize) -> usize {
    if left >= S::GEMM_ROWS {
        return S::GEMM_ROWS;
    }
    match left {
        8.. => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Copies `depth` inputs of `rows` rows of A from `input` on, times alpha.
#[inline(always)]
unsafe fn copy_a<S: Simd>(
    args: &GemmArgs,
    row: usize,
    rows: usize,
    input: usize,
    depth: usize,
    to: *mut f32,
) {
    // SAFETY: as the caller of `gemm` promises.
    unsafe {
        match args.a_element {
            Element::F32 => copy_rows::<S, F32Rows>(args, row, rows, input, depth, to),
            Element::F16 => copy_rows::<S, F16Rows>(args, row, rows, input, depth, to),
            Element::Bf16 => copy_rows::<S, Bf16Rows>(args, row, rows, input, depth, to),
        }
    }
}

#[inline(always)]
unsafe fn copy_rows<S: Simd, E: FloatRows>(
    args: &GemmArgs,
    row: usize,
    rows: usize,
    input: usize,
    depth: usize,
    to: *mut f32,
) {
    // SAFETY: as the caller of `gemm` promises; a copied row has room for whole vectors.
    unsafe {
        let alpha = S::splat(args.alpha);
        for t in 0..rows {
            let from = args.a.add(((row + t) * args.a_stride + input) * E::BYTES);
            let to = to.add(t * A_STRIDE);
            for k in (0..depth).step_by(LANES) {
                let value = load_some::<S, E>(from.add(k * E::BYTES), depth - k);
                S::store(to.add(k), S::mul(value, alpha));
            }
        }
    }
}

/// Packs `depth` inputs of `columns` columns of B: panels as wide as the tile, in each `[input][column]`; the last may be
/// of one vector where the tile has two. Columns behind the last are zero.
#[inline(always)]
unsafe fn pack_b<S: Simd>(
    args: &GemmArgs,
    column: usize,
    columns: usize,
    input: usize,
    depth: usize,
    to: *mut f32,
) {
    // SAFETY: as the caller of `gemm` promises.
    unsafe {
        match (args.b_element, args.by_input) {
            (Element::F32, false) => turn::<S, F32Rows>(args, column, columns, input, depth, to),
            (Element::F16, false) => turn::<S, F16Rows>(args, column, columns, input, depth, to),
            (Element::Bf16, false) => turn::<S, Bf16Rows>(args, column, columns, input, depth, to),
            (Element::F32, true) => gather::<S, F32Rows>(args, column, columns, input, depth, to),
            (Element::F16, true) => gather::<S, F16Rows>(args, column, columns, input, depth, to),
            (Element::Bf16, true) => gather::<S, Bf16Rows>(args, column, columns, input, depth, to),
        }
    }
}

/// Where in the packed block a vector of columns begins, and the values from one input to the next there.
#[inline(always)]
fn place<S: Simd>(vector: usize, columns: usize, depth: usize) -> (usize, usize) {
    // The first vector of the panel.
    let first = vector / S::GEMM_VECTORS * S::GEMM_VECTORS;
    let step = S::GEMM_VECTORS.min(columns.div_ceil(LANES) - first) * LANES;
    (first * LANES * depth + (vector - first) * LANES, step)
}

/// Packs columns of B whose inputs stand side by side: 16 columns are turned in squares of 16 by 16.
#[inline(always)]
unsafe fn turn<S: Simd, E: FloatRows>(
    args: &GemmArgs,
    column: usize,
    columns: usize,
    input: usize,
    depth: usize,
    to: *mut f32,
) {
    // SAFETY: as the caller of `gemm` promises.
    unsafe {
        let row_bytes = args.b_stride * E::BYTES;
        for vector in 0..columns.div_ceil(LANES) {
            let (start, step) = place::<S>(vector, columns, depth);
            let to = to.add(start);
            let columns = LANES.min(columns - vector * LANES);
            let from = args
                .b
                .add((column + vector * LANES) * row_bytes + input * E::BYTES);
            let mut whole = 0;
            if columns == LANES {
                whole = depth / LANES * LANES;
                for k in (0..whole).step_by(LANES) {
                    turn_square::<S, E>(from.add(k * E::BYTES), row_bytes, to.add(k * step), step);
                }
            }
            for k in (whole..depth).step_by(LANES) {
                let count = LANES.min(depth - k);
                let mut square = [0f32; LANES * LANES];
                let mut turned = [0f32; LANES * LANES];
                for i in 0..columns {
                    let values = load_some::<S, E>(from.add(i * row_bytes + k * E::BYTES), count);
                    S::store(square.as_mut_ptr().add(i * LANES), values);
                }
                turn_square::<S, F32Rows>(square.as_ptr().cast(), 4 * LANES, turned.as_mut_ptr(), LANES);
                for i in 0..count {
                    S::store(to.add((k + i) * step), S::load(turned.as_ptr().add(i * LANES)));
                }
            }
        }
    }
}

/// 16 rows of 16 values to 16 columns, `step` values apart.
#[inline(always)]
unsafe fn turn_square<S: Simd, E: FloatRows>(from: *const u8, row_bytes: usize, to: *mut f32, step: usize) {
    // Written out by a macro: what a loop indexes would stand on the stack.
    macro_rules! each {
        ($($i:literal)*) => {{
            let columns = S::transpose([$(E::load::<S>(from.add($i * row_bytes))),*]);
            $(
                S::store(to.add($i * step), columns[$i]);
            )*
        }};
    }
    // SAFETY: as the caller promises.
    unsafe { each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15) }
}

/// Packs columns of B that stand side by side.
#[inline(always)]
unsafe fn gather<S: Simd, E: FloatRows>(
    args: &GemmArgs,
    column: usize,
    columns: usize,
    input: usize,
    depth: usize,
    to: *mut f32,
) {
    // SAFETY: as the caller of `gemm` promises.
    unsafe {
        for k in 0..depth {
            let from = args.b.add(((input + k) * args.b_stride + column) * E::BYTES);
            for vector in 0..columns.div_ceil(LANES) {
                let (start, step) = place::<S>(vector, columns, depth);
                let values = load_some::<S, E>(from.add(vector * LANES * E::BYTES), columns - vector * LANES);
                S::store(to.add(start + k * step), values);
            }
        }
    }
}

/// Values of a panel of B that are fetched ahead.
const AHEAD: usize = 512;

/// Some rows of C by the columns of a block of B.
struct Block<'a> {
    args: &'a GemmArgs,
    column: usize,
    columns: usize,
    row: usize,
    input: usize,
    depth: usize,
    /// The rows of A, from `input` on.
    a: *const f32,
    /// Values from one of them to the next.
    a_stride: usize,
}

impl Block<'_> {
    #[inline(always)]
    unsafe fn panels<S: Simd, const T: usize>(&self, b: *const f32) {
        // SAFETY: as the caller of `gemm` promises.
        unsafe {
            if T > S::GEMM_ROWS {
                return;
            }
            let width = S::GEMM_VECTORS * LANES;
            for column in (0..self.columns).step_by(width) {
                let b = b.add(column * self.depth);

                let count = width.min(self.columns - column);
                let column = self.column + column;
                let c = self.args.output.add(self.row * self.args.output_stride + column);
                let bias = if self.args.bias.is_null() {
                    self.args.bias
                } else {
                    self.args.bias.add(column)
                };
                if count == 2 * LANES && S::GEMM_VECTORS == 2 {
                    self.tile::<S, 2, T>(b, c, self.args.output_stride, bias);
                } else if count == LANES {
                    self.tile::<S, 1, T>(b, c, self.args.output_stride, bias);
                } else {
                    self.edge::<S, T>(b, c, bias, count);
                }
            }
        }
    }

    /// A tile of fewer columns than the vectors have: computed aside.
    #[inline(always)]
    unsafe fn edge<S: Simd, const T: usize>(
        &self,
        b: *const f32,
        c: *mut f32,
        bias: *const f32,
        count: usize,
    ) {
        const STRIDE: usize = 2 * LANES;
        let mut aside = [0f32; MOST_ROWS * STRIDE];
        let mut aside_bias = [0f32; STRIDE];
        // SAFETY: as the caller of `gemm` promises; `count` is at most the width of the arrays.
        unsafe {
            let to = aside.as_mut_ptr();
            for t in 0..T {
                let from = c.add(t * self.args.output_stride);
                std::ptr::copy_nonoverlapping(from, to.add(t * STRIDE), count);
            }
            let mut edge_bias = bias;
            if !bias.is_null() {
                std::ptr::copy_nonoverlapping(bias, aside_bias.as_mut_ptr(), count);
                edge_bias = aside_bias.as_ptr();
            }
            if count > LANES {
                self.tile::<S, 2, T>(b, to, STRIDE, edge_bias);
            } else {
                self.tile::<S, 1, T>(b, to, STRIDE, edge_bias);
            }
            for t in 0..T {
                let to_c = c.add(t * self.args.output_stride);
                std::ptr::copy_nonoverlapping(to.add(t * STRIDE).cast_const(), to_c, count);
            }
        }
    }

    /// `T` rows by `V` vectors.
    #[inline(always)]
    unsafe fn tile<S: Simd, const V: usize, const T: usize>(
        &self,
        b: *const f32,
        c: *mut f32,
        stride: usize,
        bias: *const f32,
    ) {
        // SAFETY: as the caller of `gemm` promises.
        unsafe {
            let mut sum = [[S::splat(0.0); V]; T];
            if self.input > 0 {
                for t in 0..T {
                    for v in 0..V {
                        sum[t][v] = S::load(c.add(t * stride + v * LANES));
                    }
                }
            } else {
                if !bias.is_null() {
                    for t in 0..T {
                        for v in 0..V {
                            sum[t][v] = S::load(bias.add(v * LANES));
                        }
                    }
                }
                if self.args.beta != 0.0 {
                    let beta = S::splat(self.args.beta);
                    for t in 0..T {
                        for v in 0..V {
                            let before = S::load(c.add(t * stride + v * LANES));
                            sum[t][v] = S::fma(beta, before, sum[t][v]);
                        }
                    }
                }
            }
            let (a, a_stride, mut b) = (self.a, self.a_stride, b);
            for k in 0..self.depth {
                let mut row = [S::splat(0.0); V];
                for v in 0..V {
                    row[v] = S::load(b.add(v * LANES));
                    S::prefetch(b.wrapping_add(AHEAD + v * LANES).cast());
                }
                b = b.add(V * LANES);
                for t in 0..T {
                    let x = S::splat(*a.add(t * a_stride + k));
                    for v in 0..V {
                        sum[t][v] = S::fma(row[v], x, sum[t][v]);
                    }
                }
            }
            for t in 0..T {
                for v in 0..V {
                    S::store(c.add(t * stride + v * LANES), sum[t][v]);
                }
            }
        }
    }
}
