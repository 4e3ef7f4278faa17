//! Products of weights that are stored as codes.
//!
//! ```text
//! for each pair of panels, for each tile of tokens:
//!     for each block of 32 inputs, in order:
//!         dot[token][row] = start + sum of code * activation     exact, in i32
//!         acc[token][row] = fma(f32 of the bits of dot - magic, weight scale * mantissa, acc)
//!         acc[token][row] = fma(minimum, sum of the activations, acc)   where the type has minima
//!     output = acc (+ bias) (+ what was there)
//! ```
//! Behind each super-block of 256 inputs, the same is done for its spike: a group of four inputs with a scale of its own.
//! A type with two scales a block has two dot products a block.
//!
//! 1. The scale of a block of activations is a mantissa times 2^e ([`crate::quant::activations::Record`]). `magic` is 1.5 * 2^(23 + e): its bits,
//!    counted up by an integer, stand for a float that grows by 2^e each time. So the sum starts at those bits, and one
//!    subtraction, which is not on the multipliers' ports, makes it a float that is already multiplied by 2^e. The
//!    eight mantissas are multiplied with the weights' scales beforehand, for many tokens at once. What is left for the
//!    multipliers beside 8 dot products is one fused multiplication.
//! 2. Codes are either q itself, small and with a minimum, or q + 128. The 128 are taken off in the sum's start,
//!    -128 * sum of the activations, or by the instruction ([`Simd::CENTERS`]).
//! 3. The tile is [`Simd::TILE_PANELS`] by [`Simd::TILE_TOKENS`]: each loaded vector of codes serves all tokens of the
//!    tile, each broadcast activation both panels, and all accumulators stay in registers.
//! 4. Few tokens: codes and scales are decoded in registers, each time. Many tokens: a chunk of up to 32 blocks of the panels
//!    is decoded once to bytes and f32 in the first-level cache, and all tokens of a group pass over it. The tile is
//!    the same, and so are the bits.

#![allow(clippy::needless_range_loop)] // Panels and tokens index several arrays of a tile at once.

use super::code_tile::{BLOCKS, LINE, Operands, code_tile};
use super::decode::Weights;
use super::matmul::{MatmulArgs, Strategy};
use super::simd::{LANES, Simd};
use crate::quant::activations::MANTISSAS;
use crate::quant::packed::{BLOCK, PANEL};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Blocks that are decoded at once, at most: two panels of them, with scales, take 32 to 48 KiB.
const CHUNK: usize = 16;

/// Tokens that pass over a decoded chunk, at most: so many tiles that decoding costs little beside them. A multiple of the
/// tiles of six, four, two and one.
const GROUP: usize = 240;

/// How far ahead the weights of a larger tile are fetched.
const NEAR: usize = 4 << 10;

/// Panels of a tile, at most.
const PANELS: usize = 2;

/// Vectors of scales and minima of a block, at most: two scales, or one and two minima.
const VECTORS: usize = 2 * MANTISSAS.len();

/// How many of the remaining tokens the next tile takes.
fn tile_tokens<S: Simd>(panels: usize, remaining: usize) -> usize {
    match (remaining.min(S::TILE_TOKENS), panels) {
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
const fn fits<S: Simd>(panels: usize, tokens: usize) -> bool {
    panels <= S::TILE_PANELS && tokens <= S::TILE_TOKENS
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
            let tokens = tile_tokens::<S>(panels, args.tokens - token);
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
    if !fits::<S>(P, T) {
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
            scale_bytes: args.panel_bytes / args.blocks - W::CODE_BYTES,
            ahead: match P * args.panel_bytes {
                _ if args.tuning.fetched_bytes == 0 => 0,
                tile if tile <= args.tuning.fetched_bytes => tile,
                _ => NEAR,
            },
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
        .div_ceil(args.blocks.div_ceil(chunk_blocks::<W>(args)))
        .next_multiple_of(BLOCKS);
    let most = group_tokens(args);
    for first in (0..args.tokens).step_by(most) {
        let tokens = most.min(args.tokens - first);
        for panel in (0..args.panel_count).step_by(S::TILE_PANELS) {
            let panels = S::TILE_PANELS.min(args.panel_count - panel);
            for block in (0..args.blocks).step_by(chunk) {
                let blocks = chunk.min(args.blocks - block);
                // SAFETY: as the caller promises; the scratch memory is as large as its users say, and holds the sums
                // from the first chunk to the last one.
                unsafe {
                    let codes = (&raw mut (*scratch).codes).cast::<u8>();
                    let scales = (&raw mut (*scratch).scales).cast::<f32>();
                    for p in 0..panels {
                        let from = args.panels.add((panel + p) * args.panel_bytes);
                        let codes = codes.add(p * CHUNK * BLOCK * PANEL);
                        let scales = scales.add(p * CHUNK * VECTORS * LANES);
                        unpack_chunk::<S, W>(from, args.blocks, block..block + blocks, codes, scales);
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
                        args,
                        panel,
                        panels,
                        token: first,
                        tokens,
                        acc: (&raw mut (*scratch).acc).cast(),
                        is_first: block == 0,
                        is_last: block + blocks == args.blocks,
                        ahead: Ahead::of::<S, W>(args, panel, block + chunk, chunk, tokens),
                    });
                }
            }
        }
    }
}

/// Blocks of a chunk, at most: as many as stay in the first-level cache; whole super-blocks.
fn chunk_blocks<W: Weights>(args: &MatmulArgs) -> usize {
    let vectors = MANTISSAS.len() * W::HALVES + W::MINIMA;
    let bytes = PANELS * (BLOCK * PANEL + vectors * 4 * LANES);
    (args.tuning.decoded_bytes / bytes / BLOCKS * BLOCKS).clamp(BLOCKS, CHUNK)
}

/// Tokens of a group: as many as stay in the second-level cache, in groups of nearly equal size.
fn group_tokens(args: &MatmulArgs) -> usize {
    let most = (args.tuning.group_bytes / args.input_stride).clamp(GROUP / 4, GROUP);
    args.tokens
        .div_ceil(args.tokens.div_ceil(most))
        .next_multiple_of(6)
        .min(GROUP)
}

/// Packed weights that are multiplied next: while a group is multiplied, each of its tiles fetches a few lines of them.
#[derive(Clone, Copy)]
struct Ahead {
    /// Codes of the first panel's next chunk.
    codes: *const u8,
    /// Bytes from one panel to the next.
    stride: usize,
    /// Lines of codes for each tile and panel.
    lines: usize,
}

impl Ahead {
    /// The chunk from block `block` on of the panels from `panel` on, or the first one of the panels behind them.
    #[inline(always)]
    fn of<S: Simd, W: Weights>(
        args: &MatmulArgs,
        panel: usize,
        block: usize,
        chunk: usize,
        tokens: usize,
    ) -> Ahead {
        let (panel, block) = if block < args.blocks {
            (panel, block)
        } else {
            (panel + S::TILE_PANELS, 0)
        };
        let bytes = chunk * W::CODE_BYTES
            + if block == 0 {
                args.panel_bytes - args.blocks * W::CODE_BYTES
            } else {
                0
            };
        // The scales stand behind the codes; where the chunk is the whole panel, so do they here. Otherwise the few
        // lines of scales are left to the hardware.
        Ahead {
            codes: args
                .panels
                .wrapping_add(panel * args.panel_bytes + block * W::CODE_BYTES),
            stride: args.panel_bytes,
            lines: bytes.div_ceil(LINE).div_ceil(tokens.div_ceil(S::TILE_TOKENS)),
        }
    }

    /// Fetches what tile number `tile` is to fetch.
    #[inline(always)]
    fn fetch<S: Simd, const P: usize>(&self, tile: usize) {
        for line in tile * self.lines..(tile + 1) * self.lines {
            for p in 0..P {
                let address = self.codes.wrapping_add(p * self.stride + line * LINE);
                // SAFETY: a hint; any address is allowed.
                unsafe { S::prefetch(address) };
            }
        }
    }
}

/// Decodes some blocks of one panel of `blocks` blocks.
///
/// # Safety
/// The blocks exist, and are at most [`CHUNK`]; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn unpack_chunk<S: Simd, W: Weights>(
    panel: *const u8,
    blocks: usize,
    chunk: std::ops::Range<usize>,
    codes: *mut u8,
    scales: *mut f32,
) {
    // SAFETY: as the caller promises; the scales stand behind the codes.
    unsafe {
        let records = panel.add(blocks * W::CODE_BYTES);
        for (b, block) in chunk.enumerate() {
            unpack::<S, W>(panel.add(block * W::CODE_BYTES), records, block, codes, scales, b);
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
        let steps = MANTISSAS.len();
        let scales = scales.add(b * (steps * W::HALVES + W::MINIMA) * LANES);
        for half in 0..W::HALVES {
            let scale = W::scale::<S>(records, block, half);
            for step in 0..steps {
                let stepped = S::mul(scale, S::splat(MANTISSAS[step]));
                S::store(scales.add((half * steps + step) * LANES), stepped);
            }
        }
        for index in 0..W::MINIMA {
            let minimum = W::minimum::<S>(records, block, index);
            S::store(scales.add((steps * W::HALVES + index) * LANES), minimum);
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
pub struct Group<'a> {
    operands: Operands,
    args: &'a MatmulArgs,
    /// The first panel of `args`.
    panel: usize,
    panels: usize,
    /// The first token of `args`.
    token: usize,
    tokens: usize,
    /// `[token][PANELS][16]` sums, aligned to 64.
    acc: *mut f32,
    /// Whether the sums start at zero here.
    is_first: bool,
    /// Whether the sums are whole behind this chunk, and go to the output.
    is_last: bool,
    ahead: Ahead,
}

/// The kernel that multiplies decoded weights of type `W`.
pub struct GroupFn<W>(unsafe fn(&Group<'_>), PhantomData<W>);

impl<W: Weights> GroupFn<W> {
    /// `kernel` must be [`group`] of `W`, in a shell.
    pub const fn new(kernel: unsafe fn(&Group<'_>)) -> GroupFn<W> {
        GroupFn(kernel, PhantomData)
    }
}

/// All tiles of a group.
///
/// # Safety
/// The operands exist; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn group<S: Simd, W: Weights>(group: &Group<'_>) {
    let (mut token, mut tile) = (0, 0);
    while token < group.tokens {
        let tokens = tile_tokens::<S>(group.panels, group.tokens - token);
        if S::TILE_PANELS == 2 {
            group.ahead.fetch::<S, 2>(tile);
        } else {
            group.ahead.fetch::<S, 1>(tile);
        }
        // SAFETY: as the caller promises; these panels and tokens exist.
        dispatch!(group.panels, tokens, |P, T| unsafe {
            group_tile::<S, W, P, T>(group, token)
        });
        token += tokens;
        tile += 1;
    }
}

/// One tile, the blocks of the chunk.
///
/// # Safety
/// As [`group`]; `T` tokens from `token` on exist.
#[inline(always)]
unsafe fn group_tile<S: Simd, W: Weights, const P: usize, const T: usize>(group: &Group<'_>, token: usize) {
    if !fits::<S>(P, T) {
        return;
    }
    let x = group.operands;
    // SAFETY: as the caller promises.
    unsafe {
        let operands = Operands {
            inputs: x.inputs.add(token * x.input_stride),
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
                if group.is_last {
                    let (token, panel) = (group.token + token + t, group.panel + p);
                    group.args.write::<S>(token, panel, acc[t][p]);
                } else {
                    S::store(stored.add((t * PANELS + p) * LANES), acc[t][p]);
                }
            }
        }
    }
}
