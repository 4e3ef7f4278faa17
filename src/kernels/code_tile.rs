//! The register tile of products of codes: a few panels times a few tokens. `codes.rs` says what is computed.

#![allow(clippy::needless_range_loop)] // Panels and tokens index several arrays of a tile at once.

use super::decode::Weights;
use super::matmul::MatmulArgs;
use super::simd::Simd;
use crate::quant::activations::{Record, SUPER_BLOCK, super_blocks};
use crate::quant::packed::BLOCK;

/// Blocks of a super-block.
pub(super) const BLOCKS: usize = SUPER_BLOCK / BLOCK;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Weights and activations from some panel, token and block on.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// Codes of the first panel.
    pub(super) codes: *const u8,
    /// Bytes from one panel's codes to the next one's.
    pub(super) code_stride: usize,
    /// Scales of the first panel.
    pub(super) scales: *const u8,
    /// Bytes from one panel's scales to the next one's.
    pub(super) scale_stride: usize,
    /// Records of the first token's activations.
    pub(super) inputs: *const u8,
    /// Bytes from one token's activations to the next.
    pub(super) input_stride: usize,
    /// Blocks to multiply.
    pub(super) blocks: usize,
    /// Bytes of the scales of a block, about, and how far ahead of the codes and scales in use they are fetched; 0 where they are
    /// in the cache.
    pub(super) scale_bytes: usize,
    pub(super) ahead: usize,
}

impl Operands {
    /// From token `token` and block `block` of the activations on; the block starts a super-block.
    ///
    /// # Safety
    /// They exist.
    #[inline(always)]
    pub(super) unsafe fn activations(args: &MatmulArgs, token: usize, block: usize) -> Operands {
        let records = block + super_blocks(block);
        Operands {
            codes: std::ptr::null(),
            code_stride: 0,
            scales: std::ptr::null(),
            scale_stride: 0,
            // SAFETY: as the caller promises.
            inputs: unsafe {
                args.inputs
                    .add(token * args.input_stride + records * Record::BYTES)
            },
            input_stride: args.input_stride,
            blocks: args.blocks - block,
            scale_bytes: 0,
            ahead: 0,
        }
    }

    /// Fetches what the tile behind this one needs in place of block `block`. The hardware sees streams, too, but starts
    /// anew at each page of 4 KiB and each panel.
    #[inline(always)]
    fn fetch<S: Simd, W: Weights, const P: usize>(&self, block: usize) {
        for p in 0..P {
            let codes = p * self.code_stride + block * W::CODE_BYTES + self.ahead;
            for line in (0..W::CODE_BYTES).step_by(LINE) {
                // SAFETY: a hint; any address is allowed.
                unsafe { S::prefetch(self.codes.wrapping_add(codes + line)) };
            }
            let scales = p * self.scale_stride + block * self.scale_bytes + self.ahead;
            // SAFETY: a hint; any address is allowed.
            unsafe { S::prefetch(self.scales.wrapping_add(scales)) };
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
        records: *const u8,
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
                    let at = t * self.input_stride + 4 * STEP + 16 * side;
                    let x = S::int_broadcast(records.add(at));
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

/// Where the sum of the products of a record starts; `index` as in [`Record::starts`].
///
/// # Safety
/// The record exists; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn start<S: Simd, W: Weights>(record: *const u8, index: usize) -> S::I {
    let at = if W::CENTERED && !S::CENTERS {
        Record::STARTS + 4 * index
    } else {
        Record::MAGIC
    };
    // SAFETY: as the caller promises.
    unsafe { S::int_broadcast(record.add(at)) }
}

/// `acc + (dot - magic) * scales * mantissa`, of the weights' scales of one half of a block.
///
/// # Safety
/// The record and the block exist; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn scaled<S: Simd, W: Weights>(
    dot: S::I,
    record: *const u8,
    scales: *const u8,
    block: usize,
    half: usize,
    acc: S::F,
) -> S::F {
    // SAFETY: as the caller promises; a step stays within the block's scales, whatever was in memory.
    unsafe {
        let dot = S::sub(
            S::from_bits(dot),
            S::splat(*record.add(Record::MAGIC).cast::<f32>()),
        );
        let scale = if W::STEPPED {
            let step = *record.add(Record::STEP).cast::<u32>() as usize;
            W::stepped::<S>(scales, block, half, step & 0x1c0)
        } else {
            let mantissa = S::splat(*record.add(Record::MANTISSA).cast::<f32>());
            S::mul(W::scale::<S>(scales, block, half), mantissa)
        };
        S::fma(dot, scale, acc)
    }
}

/// Adds the products of `P` panels and `T` tokens, block after block, to `acc`.
///
/// # Safety
/// The operands exist; the CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn code_tile<S: Simd, W: Weights, const P: usize, const T: usize>(
    x: &Operands,
    acc: &mut [[S::F; P]; T],
) {
    let mut records = x.inputs;
    // SAFETY: as the caller promises.
    unsafe {
        for first in (0..x.blocks).step_by(BLOCKS) {
            for block in first..x.blocks.min(first + BLOCKS) {
                if !W::STEPPED && x.ahead > 0 {
                    x.fetch::<S, W, P>(block);
                }
                block_tile::<S, W, P, T>(x, block, records, acc);
                records = records.add(Record::BYTES);
            }
            // Not a loop, which would not be unrolled, so that the sums would stand in memory.
            spike_of::<S, W, P, T, 0>(x, first, records, acc);
            spike_of::<S, W, P, T, 1>(x, first, records, acc);
            spike_of::<S, W, P, T, 2>(x, first, records, acc);
            spike_of::<S, W, P, T, 3>(x, first, records, acc);
            spike_of::<S, W, P, T, 4>(x, first, records, acc);
            spike_of::<S, W, P, T, 5>(x, first, records, acc);
            records = records.add(Record::BYTES);
        }
    }
}

/// The products of one block, whose records are at `records`, a token apart.
///
/// # Safety
/// As [`code_tile`].
#[inline(always)]
unsafe fn block_tile<S: Simd, W: Weights, const P: usize, const T: usize>(
    x: &Operands,
    block: usize,
    records: *const u8,
    acc: &mut [[S::F; P]; T],
) {
    // SAFETY: as the caller promises.
    unsafe {
        for half in 0..W::HALVES {
            let mut dot = [[S::int_splat(0); P]; T];
            for t in 0..T {
                let index = if W::HALVES == 1 { 0 } else { 1 + half };
                dot[t] = [start::<S, W>(records.add(t * x.input_stride), index); P];
            }
            x.dot::<S, W, 0, P, T>(block, half, records, &mut dot);
            x.dot::<S, W, 1, P, T>(block, half, records, &mut dot);
            x.dot::<S, W, 2, P, T>(block, half, records, &mut dot);
            x.dot::<S, W, 3, P, T>(block, half, records, &mut dot);
            for t in 0..T {
                let record = records.add(t * x.input_stride);
                for p in 0..P {
                    let scales = x.scales.add(p * x.scale_stride);
                    acc[t][p] = scaled::<S, W>(dot[t][p], record, scales, block, half, acc[t][p]);
                }
            }
        }
        for index in 0..W::MINIMA {
            let mut minimum = [S::splat(0.0); P];
            for p in 0..P {
                minimum[p] = W::minimum::<S>(x.scales.add(p * x.scale_stride), block, index);
            }
            for t in 0..T {
                let sum = records.add(t * x.input_stride + Record::SUMS + 4 * index);
                let sum = S::splat(*sum.cast::<f32>());
                for p in 0..P {
                    acc[t][p] = S::fma(minimum[p], sum, acc[t][p]);
                }
            }
        }
    }
}

/// [`add_spike`] of token `TOKEN`, where the tile has one.
///
/// # Safety
/// As [`code_tile`].
#[inline(always)]
unsafe fn spike_of<S: Simd, W: Weights, const P: usize, const T: usize, const TOKEN: usize>(
    x: &Operands,
    first: usize,
    records: *const u8,
    acc: &mut [[S::F; P]; T],
) {
    if TOKEN < T {
        // SAFETY: as the caller promises.
        unsafe { add_spike::<S, W, P>(x, first, records.add(TOKEN * x.input_stride), &mut acc[TOKEN]) }
    }
}

/// Adds the products of the group of inputs that stands apart from its block, in the super-block from block `first` on.
/// Its sum is in that of its block already.
///
/// # Safety
/// As [`code_tile`].
#[inline(always)]
unsafe fn add_spike<S: Simd, W: Weights, const P: usize>(
    x: &Operands,
    first: usize,
    record: *const u8,
    acc: &mut [S::F; P],
) {
    // SAFETY: as the caller promises. Activations are memory that anyone can fill: a place outside the super-block or the
    // row must not be read.
    unsafe {
        let place = *record.add(Record::PLACE).cast::<u32>() as usize % (8 * BLOCKS);
        let block = (first + place / 8).min(x.blocks - 1);
        let group = place % 8;
        let half = if W::HALVES == 2 { group / 4 } else { 0 };
        let codes = S::int_broadcast(record);
        let start = start::<S, W>(record, 0);
        for p in 0..P {
            let scales = x.scales.add(p * x.scale_stride);
            let w = x.codes.add(p * x.code_stride + block * W::CODE_BYTES);
            let w = W::group::<S>(w, scales, block, group);
            let dot = if W::CENTERED {
                S::dot4(start, w, codes)
            } else {
                S::dot4_small(start, w, codes)
            };
            acc[p] = scaled::<S, W>(dot, record, scales, block, half, acc[p]);
        }
    }
}
