//! Matrix products: activations (tokens x inputs) times packed weights (rows x inputs).
//!
//! ```text
//! for each pair of panels, for each tile of tokens:
//!     for each block of 32 inputs, in order:
//!         dot[token][row]  = sum of code * activation     exact, in i32
//!         acc[token][row]  = fma(f32(dot) * weight scale, activation scale, acc)
//!         acc[token][row]  = fma(minimum, activation scale * activation sum, acc)   where the type has minima
//!     behind each super-block of 256 inputs, the same for its spike: a group of four inputs with a scale of its own
//!     for a type with two scales a block, the dot products of the halves first meet:
//!         sum[token][row]  = fma(f32(dot of half 1), its scale, f32(dot of half 0) * its scale)
//!         acc[token][row]  = fma(sum, activation scale, acc)
//!     output = acc (+ bias) (+ what was there)
//! ```
//! 1. A lane is a row: no horizontal sums, and the same order of additions on every instruction set.
//! 2. The offset of the codes is taken off in the accumulator's start: -offset * sum of the activations.
//! 3. The tile is [`Simd::TILE_PANELS`] by [`Simd::TILE_TOKENS`]: each loaded vector of codes serves all tokens of the
//!    tile, each broadcast activation both panels, and all accumulators stay in registers.

#![allow(clippy::needless_range_loop)] // Panels and tokens index several arrays of a tile at once.

use super::decode::{Codes, Scales, Weights};
use super::simd::{LANES, Simd};
use crate::quant::activations::{BIASES, SUPER_BLOCK, Spike, super_blocks};
use crate::quant::packed::{BLOCK, PANEL};

/// Calls a tile for all of `panels` x `tokens`, a few of each at a time. Not a function that takes a closure: a closure is
/// compiled without the instructions of the kernel around it, and every intrinsic in it becomes a call. Each size of a
/// tile is compiled for each type and instruction set, so there are only these few.
macro_rules! for_each_tile {
    ($S:ident, $panels:expr, $tokens:expr, |$panel:ident, $token:ident, $P:ident, $T:ident| $call:expr) => {
        for_each_tile!(@sizes $S, $panels, $tokens, $panel, $token, $P, $T, $call,
            (2, 6) (2, 4) (2, 2) (2, 1) (1, 4) (1, 2) (1, 1))
    };
    (@sizes $S:ident, $panels:expr, $tokens:expr, $panel:ident, $token:ident, $P:ident, $T:ident, $call:expr,
        $(($p:literal, $t:literal))*) => {
        for $panel in (0..$panels).step_by($S::TILE_PANELS) {
            let panels = $S::TILE_PANELS.min($panels - $panel);
            let mut $token = 0;
            while $token < $tokens {
                let count = tile_tokens(panels, $S::TILE_TOKENS.min($tokens - $token));
                match (panels, count) {
                    $(($p, $t) => {
                        const $P: usize = $p;
                        const $T: usize = $t;
                        if $P <= $S::TILE_PANELS && $T <= $S::TILE_TOKENS {
                            $call
                        }
                    })*
                    _ => {}
                }
                $token += count;
            }
        }
    };
}

pub(super) use for_each_tile;

/// The tokens of the next tile, when `left` are left.
#[inline(always)]
pub(super) fn tile_tokens(panels: usize, left: usize) -> usize {
    match left {
        6.. if panels == 2 => 6,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// What a matmul kernel reads and writes. The safe front is [`super::Kernels::matmul`].
#[derive(Clone, Copy)]
pub struct MatmulArgs {
    /// The first panel to multiply.
    pub panels: *const u8,
    /// Bytes from one panel to the next.
    pub panel_bytes: usize,
    /// Panels to multiply.
    pub panel_count: usize,
    /// Rows in these panels, at most 16 each; more are not written.
    pub rows: usize,
    /// Blocks of 32 inputs.
    pub blocks: usize,
    /// Tokens.
    pub tokens: usize,
    /// Activations of token 0: i8 codes, f32 or bf16, `32 * blocks` of them.
    pub inputs: *const u8,
    /// Bytes from one token's activations to the next.
    pub input_stride: usize,
    /// Scales of the activations `[token][block]`; unused by float types.
    pub scales: *const f32,
    /// -128 * sum of the codes of a block and of its first half `[token][block][2]`.
    pub biases: *const i32,
    /// Scale * sum of the codes `[token][block]`.
    pub sums: *const f32,
    /// The group of inputs that stands apart, `[token][super-block]`.
    pub spikes: *const Spike,
    /// Output of token 0, first row.
    pub output: *mut f32,
    /// Values from one token's output to the next.
    pub output_stride: usize,
    /// Added to every token's output, one value per row; may be null.
    pub row_bias: *const f32,
    /// Adds to what the output holds.
    pub accumulate: bool,
}

/// A matmul kernel of one type and instruction set.
///
/// # Safety
/// The pointers of the arguments are valid for the sizes given there, and the CPU has the instructions.
pub type MatmulFn = unsafe fn(&MatmulArgs);

impl MatmulArgs {
    /// Writes one vector of 16 rows of one token.
    ///
    /// # Safety
    /// As for the kernel.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, token: usize, panel: usize, mut value: S::F) {
        let row = panel * PANEL;
        let count = (self.rows - row).min(PANEL);
        // SAFETY: `count` rows of this token are inside the output and the bias.
        unsafe {
            let output = self.output.add(token * self.output_stride + row);
            if count == LANES {
                if !self.row_bias.is_null() {
                    value = S::add(value, S::load(self.row_bias.add(row)));
                }
                if self.accumulate {
                    value = S::add(value, S::load(output));
                }
                S::store(output, value);
            } else {
                if !self.row_bias.is_null() {
                    value = S::add(value, S::load_partial(self.row_bias.add(row), count));
                }
                if self.accumulate {
                    value = S::add(value, S::load_partial(output, count));
                }
                S::store_partial(output, value, count);
            }
        }
    }
}

/// Blocks of a super-block.
const BLOCKS: usize = SUPER_BLOCK / BLOCK;

/// Weights of codes times activations of codes.
///
/// # Safety
/// See [`MatmulFn`].
#[inline(always)]
pub unsafe fn matmul_codes<S: Simd, W: Weights>(args: &MatmulArgs) {
    // SAFETY: as the caller promises.
    unsafe {
        for_each_tile!(
            S,
            args.panel_count,
            args.tokens,
            |panel, token, P, T| code_tile::<S, W, P, T>(args, panel, token)
        );
    }
}

/// `P` panels by `T` tokens.
///
/// # Safety
/// See [`MatmulFn`].
#[inline(always)]
unsafe fn code_tile<S: Simd, W: Weights, const P: usize, const T: usize>(
    args: &MatmulArgs,
    panel: usize,
    token: usize,
) {
    // SAFETY: as the caller promises; `panel + P` panels and `token + T` tokens exist.
    unsafe {
        let tile = Tile {
            codes: args.panels.add(panel * args.panel_bytes),
            inputs: args.inputs.add(token * args.input_stride),
            cell: token * args.blocks,
        };
        let mut acc = [[S::splat(0.0); P]; T];
        for block in 0..args.blocks {
            let mut sum = [[S::splat(0.0); P]; T];
            for half in 0..W::Scales::HALVES {
                let mut dot = [[S::int_splat(0); P]; T];
                if W::Codes::OFFSET > 0 {
                    for t in 0..T {
                        let bias = tile.bias::<S, W>(args, t, block, half);
                        dot[t] = [offset_bias::<S>(bias, W::Codes::OFFSET); P];
                    }
                }
                tile.dot::<S, W, 0, P, T>(args, block, half, &mut dot);
                tile.dot::<S, W, 1, P, T>(args, block, half, &mut dot);
                tile.dot::<S, W, 2, P, T>(args, block, half, &mut dot);
                tile.dot::<S, W, 3, P, T>(args, block, half, &mut dot);
                for p in 0..P {
                    let scale = W::Scales::scale::<S>(tile.scales::<W>(args, p), block, half);
                    for t in 0..T {
                        let dot = S::to_float(dot[t][p]);
                        sum[t][p] = if half == 0 {
                            S::mul(dot, scale)
                        } else {
                            S::fma(dot, scale, sum[t][p])
                        };
                    }
                }
                if W::Scales::HALVES == 2 && W::Scales::HAS_MINIMUM {
                    for p in 0..P {
                        let minimum = W::Scales::minimum::<S>(tile.scales::<W>(args, p), block, half);
                        // The bias is -128 * sum of the activations.
                        let minimum = S::mul(minimum, S::splat(-1.0 / 128.0));
                        for t in 0..T {
                            let bias = S::to_float(tile.bias::<S, W>(args, t, block, half));
                            sum[t][p] = S::fma(minimum, bias, sum[t][p]);
                        }
                    }
                }
            }
            for t in 0..T {
                let x_scale = S::splat(*args.scales.add(tile.cell + t * args.blocks + block));
                for p in 0..P {
                    acc[t][p] = S::fma(sum[t][p], x_scale, acc[t][p]);
                }
            }
            if W::Scales::HALVES == 1 && W::Scales::HAS_MINIMUM {
                let mut minimum = [S::splat(0.0); P];
                for p in 0..P {
                    minimum[p] = W::Scales::minimum::<S>(tile.scales::<W>(args, p), block, 0);
                }
                for t in 0..T {
                    let sum = S::splat(*args.sums.add(tile.cell + t * args.blocks + block));
                    for p in 0..P {
                        acc[t][p] = S::fma(minimum[p], sum, acc[t][p]);
                    }
                }
            }
            if block % BLOCKS == BLOCKS - 1 || block + 1 == args.blocks {
                for t in 0..T {
                    let spike = &*args
                        .spikes
                        .add((token + t) * super_blocks(args.blocks) + block / BLOCKS);
                    tile.add_spike::<S, W, P>(args, block / BLOCKS, spike, &mut acc[t]);
                }
            }
        }
        for t in 0..T {
            for p in 0..P {
                args.write::<S>(token + t, panel + p, acc[t][p]);
            }
        }
    }
}

/// Where a tile's weights and activations start.
struct Tile {
    codes: *const u8,
    inputs: *const u8,
    /// Index of the first token's first scale.
    cell: usize,
}

impl Tile {
    /// The scales of panel `p` of the tile.
    ///
    /// # Safety
    /// See [`MatmulFn`].
    #[inline(always)]
    unsafe fn scales<W: Weights>(&self, args: &MatmulArgs, p: usize) -> *const u8 {
        // SAFETY: the scales stand behind the codes of the panel.
        unsafe {
            self.codes
                .add(p * args.panel_bytes + args.blocks * W::Codes::BYTES)
        }
    }

    /// -128 * sum of the activations that go into one dot product: of the block, or of one half of it.
    ///
    /// # Safety
    /// See [`MatmulFn`].
    #[inline(always)]
    unsafe fn bias<S: Simd, W: Weights>(
        &self,
        args: &MatmulArgs,
        t: usize,
        block: usize,
        half: usize,
    ) -> S::I {
        // SAFETY: as the caller promises.
        unsafe {
            let biases = args.biases.add(BIASES * (self.cell + t * args.blocks + block));
            match (W::Scales::HALVES, half) {
                (1, _) => S::int_broadcast(biases.cast()),
                (_, 0) => S::int_broadcast(biases.add(1).cast()),
                _ => S::int_sub(
                    S::int_broadcast(biases.cast()),
                    S::int_broadcast(biases.add(1).cast()),
                ),
            }
        }
    }

    /// Adds the products of one group of inputs that stands apart from its block.
    ///
    /// # Safety
    /// See [`MatmulFn`].
    #[inline(always)]
    unsafe fn add_spike<S: Simd, W: Weights, const P: usize>(
        &self,
        args: &MatmulArgs,
        super_block: usize,
        spike: &Spike,
        acc: &mut [S::F; P],
    ) {
        let [place, _, scale, bias] = *spike;
        let (block, group) = (super_block * BLOCKS + place as usize / 8, place as usize % 8);
        // Activations are a type that anyone can fill: a place outside the row must not be read.
        let block = block.min(args.blocks - 1);
        let half = if W::Scales::HALVES == 2 { group / 4 } else { 0 };
        let x_scale = f32::from_bits(scale);
        // SAFETY: as the caller promises; the block was cut to the row.
        unsafe {
            let x = S::int_broadcast((&raw const spike[1]).cast());
            let start = if W::Codes::OFFSET > 0 {
                offset_bias::<S>(S::int_splat(bias as i32), W::Codes::OFFSET)
            } else {
                S::int_splat(0)
            };
            for p in 0..P {
                let codes = self.codes.add(p * args.panel_bytes + block * W::Codes::BYTES);
                let w = W::Codes::group::<S>(codes, group);
                let dot = if W::Codes::SMALL {
                    S::dot4_small(start, w, x)
                } else {
                    S::dot4(start, w, x)
                };
                let scale = W::Scales::scale::<S>(self.scales::<W>(args, p), block, half);
                acc[p] = S::fma(S::mul(S::to_float(dot), scale), S::splat(x_scale), acc[p]);
                if W::Scales::HAS_MINIMUM {
                    let sum = x_scale * (bias as i32 as f32 * (-1.0 / 128.0));
                    let minimum = W::Scales::minimum::<S>(self.scales::<W>(args, p), block, half);
                    acc[p] = S::fma(minimum, S::splat(sum), acc[p]);
                }
            }
        }
    }

    /// Adds the products of input groups `STEP` and `STEP + 4` to `dot`; for a type with two scales a block, only those
    /// of the group in `half`.
    ///
    /// # Safety
    /// See [`MatmulFn`].
    #[inline(always)]
    unsafe fn dot<S: Simd, W: Weights, const STEP: usize, const P: usize, const T: usize>(
        &self,
        args: &MatmulArgs,
        block: usize,
        half: usize,
        dot: &mut [[S::I; P]; T],
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut w = [[S::int_splat(0); 2]; P];
            for p in 0..P {
                let codes = self.codes.add(p * args.panel_bytes + block * W::Codes::BYTES);
                w[p] = W::Codes::pair::<S, STEP>(codes);
            }
            for side in 0..2 {
                if W::Scales::HALVES == 2 && side != half {
                    continue;
                }
                for t in 0..T {
                    let at = t * args.input_stride + block * BLOCK + 4 * STEP + 16 * side;
                    let x = S::int_broadcast(self.inputs.add(at));
                    for p in 0..P {
                        dot[t][p] = if W::Codes::SMALL {
                            S::dot4_small(dot[t][p], w[p][side], x)
                        } else {
                            S::dot4(dot[t][p], w[p][side], x)
                        };
                    }
                }
            }
        }
    }
}

/// -128 * sum becomes -offset * sum: exact, the low bits are zero.
#[inline(always)]
unsafe fn offset_bias<S: Simd>(bias: S::I, offset: u8) -> S::I {
    // SAFETY: register operations; the caller has the instructions.
    unsafe {
        match offset {
            128 => bias,
            32 => S::shift_right_signed::<2>(bias),
            16 => S::shift_right_signed::<3>(bias),
            8 => S::shift_right_signed::<4>(bias),
            4 => S::shift_right_signed::<5>(bias),
            2 => S::shift_right_signed::<6>(bias),
            _ => S::shift_right_signed::<7>(bias),
        }
    }
}

/// Rows of 16 values that a float kernel streams: packed weights, keys, values.
pub trait FloatRows: 'static {
    /// Bytes of one value.
    const BYTES: usize;
    /// 16 values as f32.
    ///
    /// # Safety
    /// 16 values can be read; the CPU has the instructions of `S`.
    unsafe fn load<S: Simd>(from: *const u8) -> S::F;
}

/// 32-bit floats.
pub struct F32Rows;
/// IEEE half floats.
pub struct F16Rows;

#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
impl FloatRows for F32Rows {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        unsafe { S::load(from.cast()) }
    }
}
#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
impl FloatRows for F16Rows {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::F {
        unsafe { S::load_f16(from.cast()) }
    }
}

/// The float product that everything else is made of: `T` rows of `a` times `N` vectors of `b`, over `depth` steps in order.
///
/// `sum[t][n] = fma(a[t * a_stride + k], b[k * b_step + n * b_vector .. + 16], sum)`, steps of `b` in bytes.
///
/// # Safety
/// All those elements can be read; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn float_tile<S: Simd, B: FloatRows, const N: usize, const T: usize>(
    a: *const f32,
    a_stride: usize,
    b: *const u8,
    b_step: usize,
    b_vector: usize,
    depth: usize,
) -> [[S::F; N]; T] {
    // SAFETY: as the caller promises.
    unsafe {
        let zero = [[S::splat(0.0); N]; T];
        float_tile_onto::<S, B, N, T>(zero, a, a_stride, b, b_step, b_vector, depth)
    }
}

/// [`float_tile`] on top of sums that are there already.
///
/// # Safety
/// As [`float_tile`].
#[inline(always)]
pub unsafe fn float_tile_onto<S: Simd, B: FloatRows, const N: usize, const T: usize>(
    mut sum: [[S::F; N]; T],
    a: *const f32,
    a_stride: usize,
    b: *const u8,
    b_step: usize,
    b_vector: usize,
    depth: usize,
) -> [[S::F; N]; T] {
    // SAFETY: as the caller promises.
    unsafe {
        for k in 0..depth {
            let mut row = [S::splat(0.0); N];
            for n in 0..N {
                row[n] = B::load::<S>(b.add(k * b_step + n * b_vector));
            }
            for t in 0..T {
                let x = S::splat(*a.add(t * a_stride + k));
                for n in 0..N {
                    sum[t][n] = S::fma(row[n], x, sum[t][n]);
                }
            }
        }
        sum
    }
}

/// F32 or F16 weights times f32 activations, in the order of the inputs.
///
/// # Safety
/// See [`MatmulFn`].
#[inline(always)]
pub unsafe fn matmul_floats<S: Simd, B: FloatRows>(args: &MatmulArgs) {
    // SAFETY: as the caller promises.
    unsafe {
        for_each_tile!(S, args.panel_count, args.tokens, |panel, token, P, T| {
            float_panels::<S, B, P, T>(args, panel, token)
        });
    }
}

#[inline(always)]
unsafe fn float_panels<S: Simd, B: FloatRows, const P: usize, const T: usize>(
    args: &MatmulArgs,
    panel: usize,
    token: usize,
) {
    // SAFETY: as the caller of the kernel promises; `panel + P` panels and `token + T` tokens exist.
    unsafe {
        let sum = float_tile::<S, B, P, T>(
            args.inputs.add(token * args.input_stride).cast(),
            args.input_stride / 4,
            args.panels.add(panel * args.panel_bytes),
            PANEL * B::BYTES,
            args.panel_bytes,
            args.blocks * BLOCK,
        );
        for t in 0..T {
            for p in 0..P {
                args.write::<S>(token + t, panel + p, sum[t][p]);
            }
        }
    }
}

/// BF16 weights times activations rounded to bf16, pair of inputs after pair.
///
/// # Safety
/// See [`MatmulFn`].
#[inline(always)]
pub unsafe fn matmul_bf16<S: Simd>(args: &MatmulArgs) {
    // SAFETY: as the caller promises.
    unsafe {
        for_each_tile!(
            S,
            args.panel_count,
            args.tokens,
            |panel, token, P, T| bf16_panels::<S, P, T>(args, panel, token)
        );
    }
}

#[inline(always)]
unsafe fn bf16_panels<S: Simd, const P: usize, const T: usize>(
    args: &MatmulArgs,
    panel: usize,
    token: usize,
) {
    // SAFETY: as the caller of the kernel promises; `panel + P` panels and `token + T` tokens exist.
    unsafe {
        let weights = args.panels.add(panel * args.panel_bytes);
        let mut sum = [[S::splat(0.0); P]; T];
        for pair in 0..args.blocks * BLOCK / 2 {
            let mut w = [S::int_splat(0); P];
            for p in 0..P {
                w[p] = S::int_load(weights.add(p * args.panel_bytes + pair * PANEL * 4));
            }
            for t in 0..T {
                let x = S::int_broadcast(args.inputs.add((token + t) * args.input_stride + 4 * pair));
                for p in 0..P {
                    sum[t][p] = S::dot2_bf16(sum[t][p], w[p], x);
                }
            }
        }
        for t in 0..T {
            for p in 0..P {
                args.write::<S>(token + t, panel + p, sum[t][p]);
            }
        }
    }
}
