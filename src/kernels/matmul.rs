//! Matrix products: activations (tokens x inputs) times packed weights (rows x inputs).
//!
//! A lane is a row: no horizontal sums, and the same order of additions on every instruction set. Here are the
//! arguments and the float types; `codes.rs` has the types of codes.

#![allow(clippy::needless_range_loop)] // Panels and tokens index several arrays of a tile at once.

use super::simd::{LANES, Simd};
use crate::base::caches::Caches;
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

/// How weights of codes are decoded. The bits of the result are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Whichever of the others is faster for the type and the number of tokens.
    Fastest,
    /// In registers, for every few tokens anew.
    InRegisters,
    /// To the first-level cache, once for many tokens.
    InCache,
}

/// How the products of codes are cut for the caches. The bits of the result do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of weights and scales that are decoded at once: they share a first-level cache with a few tokens.
    pub decoded_bytes: usize,
    /// Bytes of the activations that pass over decoded weights: they come from the second-level cache for each pair of panels.
    pub group_bytes: usize,
    /// Bytes of a tile's weights, at most, for which those of the next tile are fetched meanwhile, to wait in the second-level
    /// cache; of larger ones a fixed distance ahead is. Measured on Zen 5, the next tile is better than any distance.
    pub fetched_bytes: usize,
}

impl Tuning {
    /// For caches of these sizes; the shares were measured on Zen 5.
    pub const fn of(caches: Caches) -> Tuning {
        Tuning {
            decoded_bytes: caches.first / 8 * 7,
            group_bytes: caches.second / 4 * 3,
            fetched_bytes: caches.second / 8,
        }
    }

    /// Without fetching ahead: the hardware does alone what it can.
    pub const fn without_fetching(self) -> Tuning {
        Tuning {
            fetched_bytes: 0,
            ..self
        }
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
    /// Activations of token 0: records of codes ([`crate::quant::activations::Record`]), f32 or bf16.
    pub inputs: *const u8,
    /// Bytes from one token's activations to the next.
    pub input_stride: usize,
    /// Output of token 0, first row.
    pub output: *mut f32,
    /// Values from one token's output to the next.
    pub output_stride: usize,
    /// Added to every token's output, one value per row; may be null.
    pub row_bias: *const f32,
    /// Adds to what the output holds.
    pub accumulate: bool,
    /// How weights of codes are decoded; float types have none.
    pub strategy: Strategy,
    /// How the work on weights of codes is cut.
    pub tuning: Tuning,
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
    pub unsafe fn write<S: Simd>(&self, token: usize, panel: usize, mut value: S::F) {
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
