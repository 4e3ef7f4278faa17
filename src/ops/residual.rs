//! The steps on the residual stream between two matrix products, one pass over each row.

use super::linear::rows_per_chunk;
use super::runtime::Runtime;
use crate::base::matrix::Pieces;
use crate::kernels::Kernels;
use crate::quant::activations::{ActivationMemory, ActivationsMut, Form};

/// A norm with its weights.
#[derive(Clone, Copy)]
pub enum Norm<'a> {
    /// x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019).
    Rms {
        /// One per value.
        weight: &'a [f32],
        /// Added to the mean square.
        epsilon: f32,
    },
    /// (x - mean) / sqrt(variance + epsilon) * weight + bias (Ba et al. 2016).
    Layer {
        /// One per value.
        weight: &'a [f32],
        /// One per value.
        bias: &'a [f32],
        /// Added to the variance.
        epsilon: f32,
    },
}

/// What happens to each row of the residual stream between two matrix products.
#[derive(Clone, Copy)]
pub struct Residual<'a> {
    /// First, these rows are added, normalized by RMS with (weight, epsilon): a norm behind a layer.
    pub add: Option<(&'a [f32], &'a [f32], f32)>,
    /// Then this norm is applied: its result is what the next product sees.
    pub norm: Norm<'a>,
    /// The norm's result replaces the row, too (norm behind the addition), or not (norm before a layer).
    pub in_place: bool,
}

/// `x += rms(y)` for every row of `x`, with (y, weight, epsilon).
pub fn add_normed(runtime: &Runtime, x: &mut [f32], columns: usize, add: (&[f32], &[f32], f32)) {
    let (y, weight, epsilon) = add;
    let tokens = x.len() / columns;
    let per_chunk = rows_per_chunk(tokens, columns);
    let pieces = Pieces::new(x, per_chunk * columns);
    runtime
        .pool()
        .divide(tokens.div_ceil(per_chunk), pieces, |chunk, rows| {
            for (index, row) in rows.chunks_exact_mut(columns).enumerate() {
                let y = &y[(chunk * per_chunk + index) * columns..][..columns];
                runtime.kernels().add_rms_norm(y, weight, epsilon, row);
            }
        });
}

impl Residual<'_> {
    /// Does it for every row of `x` and makes the result the input of the next product. `scratch` takes `columns`
    /// values for each thread.
    pub fn activate<'m>(
        &self,
        runtime: &Runtime,
        x: &mut [f32],
        columns: usize,
        form: Form,
        memory: &'m mut ActivationMemory<'_>,
        scratch: &mut [f32],
    ) -> ActivationsMut<'m> {
        let tokens = x.len() / columns;
        let Some(mut y) = memory.shape(form, tokens, columns) else {
            unreachable!("the plan carved activations for every matrix of the model")
        };
        let per_chunk = rows_per_chunk(tokens, columns);
        let parts = (Pieces::new(x, per_chunk * columns), y.by_tokens(per_chunk));
        let chunks = tokens.div_ceil(per_chunk);
        runtime
            .pool()
            .divide_with(chunks, parts, scratch, |chunk, (rows, mut part), scratch| {
                for (index, row) in rows.chunks_exact_mut(columns).enumerate() {
                    let aside = &mut scratch[..columns];
                    let result = self.settle(runtime.kernels(), chunk * per_chunk + index, row, aside);
                    runtime.kernels().activate(form, result, part.row(index));
                }
            });
        y
    }

    /// Does it for every row of `x`, where no product follows. The result is in `x`: the norm works in place.
    pub fn finish(&self, runtime: &Runtime, x: &mut [f32], columns: usize) {
        let this = Residual {
            in_place: true,
            ..*self
        };
        let tokens = x.len() / columns;
        let per_chunk = rows_per_chunk(tokens, columns);
        let pieces = Pieces::new(x, per_chunk * columns);
        runtime
            .pool()
            .divide(tokens.div_ceil(per_chunk), pieces, |chunk, rows| {
                for (index, row) in rows.chunks_exact_mut(columns).enumerate() {
                    this.settle(runtime.kernels(), chunk * per_chunk + index, row, &mut []);
                }
            });
    }

    /// One row; returns what the next product sees.
    fn settle<'r>(
        &self,
        kernels: &Kernels,
        index: usize,
        x: &'r mut [f32],
        aside: &'r mut [f32],
    ) -> &'r [f32] {
        if let Some((rows, weight, epsilon)) = self.add {
            let y = &rows[index * x.len()..][..x.len()];
            kernels.add_rms_norm(y, weight, epsilon, x);
        }
        match (self.norm, self.in_place) {
            (Norm::Rms { weight, epsilon }, true) => {
                kernels.rms_norm_each(x, weight, epsilon);
                x
            }
            (Norm::Rms { weight, epsilon }, false) => {
                kernels.rms_norm(x, weight, epsilon, aside);
                aside
            }
            (
                Norm::Layer {
                    weight,
                    bias,
                    epsilon,
                },
                true,
            ) => {
                kernels.layer_norm(x, weight, bias, epsilon);
                x
            }
            (
                Norm::Layer {
                    weight,
                    bias,
                    epsilon,
                },
                false,
            ) => {
                aside.copy_from_slice(x);
                kernels.layer_norm(aside, weight, bias, epsilon);
                aside
            }
        }
    }
}
