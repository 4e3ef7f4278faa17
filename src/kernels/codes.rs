//! Products of weights that are stored as codes.
//!
//! ```text
//! for each pair of panels, for each tile of tokens:
//!     for each block of 32 inputs, in order:
//!         dot[token][row] = sum of code * activation     exact, in i32
//!         acc[token][row] = fma(f32(dot) * weight scale, activation scale, acc)
//!         acc[token][row] = fma(minimum, activation scale * activation sum, acc)   where the type has minima
//!     output = acc (+ bias) (+ what was there)
//! ```
//! Behind each super-block of 256 inputs, the same is done for its spike: a group of four inputs with a scale of its own.
//! A type with two scales a block has two dot products a block, and
//! `fma(f32(dot of inputs 16..32), its scale, f32(dot of inputs 0..16) * its scale)` goes into `acc`.
//!
//! 1. Codes are either q itself, small and with a minimum, or q + 128. The 128 are taken off in the accumulator's start,
//!    -128 * sum of the activations, or by the instruction ([`Simd::CENTERS`]).
//! 2. The tile is [`Simd::TILE_PANELS`] by [`Simd::TILE_TOKENS`]: each loaded vector of codes serves all tokens of the
//!    tile, each broadcast activation both panels, and all accumulators stay in registers.
//! 3. Few tokens: codes and scales are decoded in registers, each time. Many tokens: a chunk of up to 32 blocks of the panels
//!    is decoded once to bytes and f32 in the first-level cache, and all tokens of a group pass over it. The tile is
//!    the same, and so are the bits.

#![allow(clippy::needless_range_loop)] // Panels and tokens index several arrays of a tile at once.

use super::decode::Weights;
use super::matmul::{MatmulArgs, Strategy};
use super::simd::{LANES, Simd};
use crate::quant::activations::{BIASES, SUMS, SUPER_BLOCK, Spike, super_blocks};
use crate::quant::packed::{BLOCK, PANEL};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Blocks of a super-block.
const BLOCKS: usize = SUPER_BLOCK / BLOCK;

/// Blocks that are decoded at once, at most: two panels of them take 32 KiB.
const CHUNK: usize = 32;

/// Tokens that pass over a decoded chunk: sixteen tiles of six, so that decoding costs little beside them.
const GROUP: usize = 96;

/// Panels of a tile, at most.
const PANELS: usize = 2;

/// Vectors of scales and minima of a block, at most.
const VECTORS: usize = 3;

/// Weights and activations from some panel, token and block on.
#[derive(Clone, Copy)]
pub struct Operands {
    /// Codes of the first panel.
    codes: *const u8,
    /// Bytes from one panel's codes to the next one's.
    code_stride: usize,
    /// Scales of the first panel.
    scales: *const u8,
    /// Bytes from one panel's scales to the next one's.
    scale_stride: usize,
    /// Codes of the first token's activations.
    inputs: *const u8,
    /// Bytes from one token's activations to the next.
    input_stride: usize,
    /// Scales of the activations.
    x_scales: *const f32,
    /// Biases of the activations, [`BIASES`] for each scale.
    biases: *const i32,
    /// Sums of the activations, [`SUMS`] for each scale.
    sums: *const f32,
    /// Scales from one token to the next.
    x_stride: usize,
    /// The groups of inputs that stand apart, one for each super-block.
    spikes: *const Spike,
    /// Spikes from one token to the next.
    spike_stride: usize,
    /// Blocks to multiply.
    blocks: usize,
}

impl Operands {
    /// From token `token` and block `block` of the activations on; the block starts a super-block.
    ///
    /// # Safety
    /// They exist.
    #[inline(always)]
    unsafe fn activations(args: &MatmulArgs, token: usize, block: usize) -> Operands {
        let cell = token * args.blocks + block;
        // SAFETY: as the caller promises.
        unsafe {
            Operands {
                codes: std::ptr::null(),
                code_stride: 0,
                scales: std::ptr::null(),
                scale_stride: 0,
                inputs: args.inputs.add(token * args.input_stride + block * BLOCK),
                input_stride: args.input_stride,
                x_scales: args.scales.add(cell),
                biases: args.biases.add(BIASES * cell),
                sums: args.sums.add(SUMS * cell),
                x_stride: args.blocks,
                spikes: args
                    .spikes
                    .add(token * super_blocks(args.blocks) + block / BLOCKS),
                spike_stride: super_blocks(args.blocks),
                blocks: args.blocks - block,
            }
        }
    }

    /// -128 * sum of the activations that go into one dot product: of a block, or of one half of it.
    ///
    /// # Safety
    /// The token and the block exist; the CPU has the instructions of `S`.
    #[inline(always)]
    unsafe fn bias<S: Simd, W: Weights>(&self, token: usize, block: usize, half: usize) -> S::I {
        // SAFETY: as the caller promises.
        unsafe {
            let biases = self.biases.add(BIASES * (token * self.x_stride + block));
            S::int_broadcast(biases.add(if W::HALVES == 1 { 0 } else { 1 + half }).cast())
        }
    }

    /// Adds the products of input groups `STEP` and `STEP + 4` to `dot`; for a type with two scales a block, only those
    /// of the group in `half`.
    ///
    /// # Safety
    /// `P` panels, `T` tokens and the block exist; the CPU has the instructions of `S`.
    #[inline(always)]
    unsafe fn dot<S: Simd, W: Weights, const STEP: usize, const P: usize, const T: usize>(
        &self,
        block: usize,
        half: usize,
        dot: &mut [[S::I; P]; T],
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut w = [[S::int_splat(0); 2]; P];
            for p in 0..P {
                w[p] = W::pair::<S, STEP>(
                    self.codes.add(p * self.code_stride + block * W::CODE_BYTES),
                    self.scales.add(p * self.scale_stride),
                    block,
                );
            }
            for side in 0..2 {
                if W::HALVES == 2 && side != half {
                    continue;
                }
                for t in 0..T {
                    let at = t * self.input_stride + block * BLOCK + 4 * STEP + 16 * side;
                    let x = S::int_broadcast(self.inputs.add(at));
                    for p in 0..P {
                        dot[t][p] = if W::CENTERED {
                            S::dot4(dot[t][p], w[p][side], x)
                        } else {
                            S::dot4_small(dot[t][p], w[p][side], x)
                        };
                    }
                }
            }
        }
    }
}

/// Adds the products of `P` panels and `T` tokens, block after block, to `acc`.
///
/// # Safety
/// The operands exist; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn code_tile<S: Simd, W: Weights, const P: usize, const T: usize>(
    x: &Operands,
    acc: &mut [[S::F; P]; T],
) {
    // SAFETY: as the caller promises.
    unsafe {
        for first in (0..x.blocks).step_by(BLOCKS) {
            for block in first..x.blocks.min(first + BLOCKS) {
                block_tile::<S, W, P, T>(x, block, acc);
            }
            for t in 0..T {
                let spike = &*x.spikes.add(t * x.spike_stride + first / BLOCKS);
                add_spike::<S, W, P>(x, first, spike, &mut acc[t]);
            }
        }
    }
}

/// The products of one block.
///
/// # Safety
/// As [`code_tile`].
#[inline(always)]
unsafe fn block_tile<S: Simd, W: Weights, const P: usize, const T: usize>(
    x: &Operands,
    block: usize,
    acc: &mut [[S::F; P]; T],
) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sum = [[S::splat(0.0); P]; T];
        for half in 0..W::HALVES {
            let mut dot = [[S::int_splat(0); P]; T];
            if W::CENTERED && !S::CENTERS {
                for t in 0..T {
                    dot[t] = [x.bias::<S, W>(t, block, half); P];
                }
            }
            x.dot::<S, W, 0, P, T>(block, half, &mut dot);
            x.dot::<S, W, 1, P, T>(block, half, &mut dot);
            x.dot::<S, W, 2, P, T>(block, half, &mut dot);
            x.dot::<S, W, 3, P, T>(block, half, &mut dot);
            for p in 0..P {
                let scale = W::scale::<S>(x.scales.add(p * x.scale_stride), block, half);
                for t in 0..T {
                    let dot = S::to_float(dot[t][p]);
                    sum[t][p] = if half == 0 {
                        S::mul(dot, scale)
                    } else {
                        S::fma(dot, scale, sum[t][p])
                    };
                }
            }
        }
        for t in 0..T {
            let x_scale = S::splat(*x.x_scales.add(t * x.x_stride + block));
            for p in 0..P {
                acc[t][p] = S::fma(sum[t][p], x_scale, acc[t][p]);
            }
        }
        for index in 0..W::MINIMA {
            let mut minimum = [S::splat(0.0); P];
            for p in 0..P {
                minimum[p] = W::minimum::<S>(x.scales.add(p * x.scale_stride), block, index);
            }
            for t in 0..T {
                let sum = S::splat(*x.sums.add(SUMS * (t * x.x_stride + block) + index));
                for p in 0..P {
                    acc[t][p] = S::fma(minimum[p], sum, acc[t][p]);
                }
            }
        }
    }
}

/// Adds the products of one group of inputs that stands apart from its block, in the super-block from block `first` on.
///
/// # Safety
/// As [`code_tile`].
#[inline(always)]
unsafe fn add_spike<S: Simd, W: Weights, const P: usize>(
    x: &Operands,
    first: usize,
    spike: &Spike,
    acc: &mut [S::F; P],
) {
    let place = spike[0] as usize;
    // Activations are a type that anyone can fill: a place outside the super-block or the row must not be read.
    let block = (first + (place / 8).min(BLOCKS - 1)).min(x.blocks - 1);
    let group = place % 8;
    let half = if W::HALVES == 2 { group / 4 } else { 0 };
    // SAFETY: as the caller promises.
    unsafe {
        let codes = S::int_broadcast((&raw const spike[1]).cast());
        let x_scale = S::splat(*(&raw const spike[2]).cast::<f32>());
        let bias = S::int_broadcast((&raw const spike[3]).cast());
        for p in 0..P {
            let scales = x.scales.add(p * x.scale_stride);
            let w = x.codes.add(p * x.code_stride + block * W::CODE_BYTES);
            let w = W::group::<S>(w, scales, block, group);
            let dot = if !W::CENTERED {
                S::dot4_small(S::int_splat(0), w, codes)
            } else if S::CENTERS {
                S::dot4(S::int_splat(0), w, codes)
            } else {
                S::dot4(bias, w, codes)
            };
            let product = S::mul(S::to_float(dot), W::scale::<S>(scales, block, half));
            acc[p] = S::fma(product, x_scale, acc[p]);
        }
        if W::MINIMA == 0 {
            return;
        }
        let sum = S::mul(x_scale, S::mul(S::to_float(bias), S::splat(-1.0 / 128.0)));
        for p in 0..P {
            let scales = x.scales.add(p * x.scale_stride);
            acc[p] = S::fma(W::minimum::<S>(scales, block, 0), sum, acc[p]);
            // The other minimum belongs to the sum of the first half of a block.
            if W::MINIMA == 2 && group < 4 {
                acc[p] = S::fma(W::minimum::<S>(scales, block, 1), sum, acc[p]);
            }
        }
    }
}

/// How many of the remaining tokens the next tile takes. Two sums a block need more registers.
fn tile_tokens<S: Simd, W: Weights>(panels: usize, remaining: usize) -> usize {
    let most = if W::HALVES == 2 {
        (S::TILE_TOKENS * 2 / 3).max(1)
    } else {
        S::TILE_TOKENS
    };
    match (remaining.min(most), panels) {
        (3, 1) => 2,
        (5, _) => 4,
        (count, _) => count,
    }
}

/// Calls the tile of some panels and tokens. Not a function that takes a closure: a closure is compiled without the
/// instructions of the kernel around it, and every intrinsic in it becomes a call.
macro_rules! dispatch {
    ($panels:expr, $tokens:expr, |$P:ident, $T:ident| $call:expr) => {
        dispatch!(@each $panels, $tokens, $P, $T, $call, (2, 1) (2, 2) (2, 3) (2, 4) (2, 6) (1, 1) (1, 2) (1, 4) (1, 6))
    };
    (@each $panels:expr, $tokens:expr, $P:ident, $T:ident, $call:expr, $(($p:literal, $t:literal))*) => {
        match ($panels, $tokens) {
            $(($p, $t) => { const $P: usize = $p; const $T: usize = $t; $call })*
            _ => {}
        }
    };
}

/// Whether a tile is ever used: what is not is not compiled.
#[inline(always)]
const fn fits<S: Simd, W: Weights>(panels: usize, tokens: usize) -> bool {
    panels <= S::TILE_PANELS
        && tokens <= S::TILE_TOKENS
        && (W::HALVES == 1 || tokens * 3 <= S::TILE_TOKENS * 2 || tokens == 1)
}

/// Weights of codes times activations of codes. `group` is the kernel of the decoded type.
///
/// # Safety
/// See [`super::matmul::MatmulFn`].
#[inline(always)]
pub unsafe fn matmul_codes<S: Simd, W: Weights>(args: &MatmulArgs, group: GroupFn<W::Unpacked>) {
    // SAFETY: as the caller promises.
    unsafe {
        let in_cache = match args.strategy {
            Strategy::Fastest => args.tokens >= W::MANY_FROM,
            Strategy::InRegisters => false,
            Strategy::InCache => true,
        };
        if in_cache {
            many_tokens::<S, W>(args, group);
        } else {
            few_tokens::<S, W>(args);
        }
    }
}

/// Decodes in registers.
///
/// # Safety
/// See [`super::matmul::MatmulFn`].
#[inline(always)]
unsafe fn few_tokens<S: Simd, W: Weights>(args: &MatmulArgs) {
    for panel in (0..args.panel_count).step_by(S::TILE_PANELS) {
        let panels = S::TILE_PANELS.min(args.panel_count - panel);
        let mut token = 0;
        while token < args.tokens {
            let tokens = tile_tokens::<S, W>(panels, args.tokens - token);
            // SAFETY: as the caller promises; these panels and tokens exist.
            dispatch!(panels, tokens, |P, T| unsafe {
                few_tile::<S, W, P, T>(args, panel, token)
            });
            token += tokens;
        }
    }
}

/// One tile, all blocks.
///
/// # Safety
/// `P` panels from `panel` on and `T` tokens from `token` on exist; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn few_tile<S: Simd, W: Weights, const P: usize, const T: usize>(
    args: &MatmulArgs,
    panel: usize,
    token: usize,
) {
    if !fits::<S, W>(P, T) {
        return;
    }
    // SAFETY: as the caller promises; the scales stand behind the codes.
    unsafe {
        let codes = args.panels.add(panel * args.panel_bytes);
        let operands = Operands {
            codes,
            code_stride: args.panel_bytes,
            scales: codes.add(args.blocks * W::CODE_BYTES),
            scale_stride: args.panel_bytes,
            ..Operands::activations(args, token, 0)
        };
        let mut acc = [[S::splat(0.0); P]; T];
        code_tile::<S, W, P, T>(&operands, &mut acc);
        for t in 0..T {
            for p in 0..P {
                args.write::<S>(token + t, panel + p, acc[t][p]);
            }
        }
    }
}

/// Memory for a decoded chunk and for the sums of a group.
#[repr(C, align(64))]
struct Scratch {
    codes: [MaybeUninit<u8>; PANELS * CHUNK * BLOCK * PANEL],
    scales: [MaybeUninit<f32>; PANELS * CHUNK * VECTORS * LANES],
    acc: [MaybeUninit<f32>; GROUP * PANELS * LANES],
}

/// Decodes chunks to memory.
///
/// # Safety
/// See [`super::matmul::MatmulFn`].
#[inline(always)]
unsafe fn many_tokens<S: Simd, W: Weights>(args: &MatmulArgs, group: GroupFn<W::Unpacked>) {
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let scratch = scratch.as_mut_ptr();
    // Inlined, the tiles' loads would be moved into the decoder around them, and fill the registers.
    let multiply = std::hint::black_box(group.0);
    // Chunks of nearly equal length, of whole super-blocks.
    let chunk = args
        .blocks
        .div_ceil(args.blocks.div_ceil(CHUNK))
        .next_multiple_of(BLOCKS);
    for first in (0..args.tokens).step_by(GROUP) {
        let tokens = GROUP.min(args.tokens - first);
        for panel in (0..args.panel_count).step_by(S::TILE_PANELS) {
            let panels = S::TILE_PANELS.min(args.panel_count - panel);
            // SAFETY: as the caller promises; the scratch memory is as large as its users say.
            unsafe {
                let codes = (&raw mut (*scratch).codes).cast::<u8>();
                let scales = (&raw mut (*scratch).scales).cast::<f32>();
                let acc = (&raw mut (*scratch).acc).cast::<f32>();
                for block in (0..args.blocks).step_by(chunk) {
                    let blocks = chunk.min(args.blocks - block);
                    for p in 0..panels {
                        let from = args.panels.add((panel + p) * args.panel_bytes);
                        let records = from.add(args.blocks * W::CODE_BYTES);
                        let codes = codes.add(p * CHUNK * BLOCK * PANEL);
                        let scales = scales.add(p * CHUNK * VECTORS * LANES);
                        for b in 0..blocks {
                            let from = from.add((block + b) * W::CODE_BYTES);
                            unpack::<S, W>(from, records, block + b, codes, scales, b);
                        }
                    }
                    let operands = Operands {
                        codes,
                        code_stride: CHUNK * BLOCK * PANEL,
                        scales: scales.cast(),
                        scale_stride: CHUNK * VECTORS * LANES * 4,
                        blocks,
                        ..Operands::activations(args, first, block)
                    };
                    multiply(&Group {
                        operands,
                        panels,
                        tokens,
                        acc,
                        is_first: block == 0,
                    });
                }
                for t in 0..tokens {
                    for p in 0..panels {
                        let sum = S::load(acc.add((t * PANELS + p) * LANES));
                        args.write::<S>(first + t, panel + p, sum);
                    }
                }
            }
        }
    }
}

/// Decodes one block of one panel to place `b` of the chunk.
///
/// # Safety
/// The block exists, and `b` is below [`CHUNK`]; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn unpack<S: Simd, W: Weights>(
    from: *const u8,
    records: *const u8,
    block: usize,
    codes: *mut u8,
    scales: *mut f32,
    b: usize,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let vectors = W::HALVES + W::MINIMA;
        let scales = scales.add(b * vectors * LANES);
        for half in 0..W::HALVES {
            S::store(scales.add(half * LANES), W::scale::<S>(records, block, half));
        }
        for index in 0..W::MINIMA {
            let minimum = W::minimum::<S>(records, block, index);
            S::store(scales.add((W::HALVES + index) * LANES), minimum);
        }
        let pairs = [
            W::pair::<S, 0>(from, records, block),
            W::pair::<S, 1>(from, records, block),
            W::pair::<S, 2>(from, records, block),
            W::pair::<S, 3>(from, records, block),
        ];
        let codes = codes.add(b * BLOCK * PANEL);
        for step in 0..4 {
            S::int_store(codes.add(64 * step), pairs[step][0]);
            S::int_store(codes.add(64 * (step + 4)), pairs[step][1]);
        }
    }
}

/// A decoded chunk and the tokens that pass over it.
pub struct Group {
    operands: Operands,
    panels: usize,
    tokens: usize,
    /// `[token][PANELS][16]` sums, aligned to 64.
    acc: *mut f32,
    /// Whether the sums start at zero here.
    is_first: bool,
}

/// The kernel that multiplies decoded weights of type `W`.
pub struct GroupFn<W>(unsafe fn(&Group), PhantomData<W>);

impl<W: Weights> GroupFn<W> {
    /// `kernel` must be [`group`] of `W`, in a shell.
    pub const fn new(kernel: unsafe fn(&Group)) -> GroupFn<W> {
        GroupFn(kernel, PhantomData)
    }
}

/// All tiles of a group.
///
/// # Safety
/// The operands exist; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn group<S: Simd, W: Weights>(group: &Group) {
    let mut token = 0;
    while token < group.tokens {
        let tokens = tile_tokens::<S, W>(group.panels, group.tokens - token);
        // SAFETY: as the caller promises; these panels and tokens exist.
        dispatch!(group.panels, tokens, |P, T| unsafe {
            group_tile::<S, W, P, T>(group, token)
        });
        token += tokens;
    }
}

/// One tile, the blocks of the chunk.
///
/// # Safety
/// As [`group`]; `T` tokens from `token` on exist.
#[inline(always)]
unsafe fn group_tile<S: Simd, W: Weights, const P: usize, const T: usize>(group: &Group, token: usize) {
    if !fits::<S, W>(P, T) {
        return;
    }
    let x = group.operands;
    // SAFETY: as the caller promises.
    unsafe {
        let operands = Operands {
            inputs: x.inputs.add(token * x.input_stride),
            x_scales: x.x_scales.add(token * x.x_stride),
            biases: x.biases.add(BIASES * token * x.x_stride),
            sums: x.sums.add(SUMS * token * x.x_stride),
            spikes: x.spikes.add(token * x.spike_stride),
            ..x
        };
        let stored = group.acc.add(token * PANELS * LANES);
        let mut acc = [[S::splat(0.0); P]; T];
        if !group.is_first {
            for t in 0..T {
                for p in 0..P {
                    acc[t][p] = S::load(stored.add((t * PANELS + p) * LANES));
                }
            }
        }
        code_tile::<S, W, P, T>(&operands, &mut acc);
        for t in 0..T {
            for p in 0..P {
                S::store(stored.add((t * PANELS + p) * LANES), acc[t][p]);
            }
        }
    }
}
