//! The only matrix product: activations times packed weights, on all threads.

use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::kernels::activation::Activation;
use crate::kernels::{Kernels, Strategy};
use crate::quant::activations::{ActivationMemory, Activations, ActivationsMut, Form, SUPER_BLOCK, restore};
use crate::quant::packed::{BLOCK, PANEL, PackedMatrix};

/// One or several weight matrices with the same inputs, whose outputs stand side by side (query, key and value, say).
pub struct Linear {
    parts: Vec<PackedMatrix>,
    bias: Option<Vec<f32>>,
    strategy: Strategy,
}

impl Linear {
    /// Joins `parts`; every part but the last must have whole panels, and all the same columns. `bias` has one value per row.
    pub fn new(parts: Vec<PackedMatrix>, bias: Option<Vec<f32>>) -> Result<Linear> {
        let columns = parts.first().map_or(0, PackedMatrix::columns);
        let last = parts.len().saturating_sub(1);
        if parts.is_empty() || parts.iter().any(|part| part.columns() != columns) {
            return Err(Error::format(
                "matrices that share their inputs have different numbers of columns",
            ));
        }
        if parts[..last].iter().any(|part| part.rows() % PANEL != 0) {
            return Err(Error::unsupported(format!(
                "matrices that stand side by side must have multiples of {PANEL} rows"
            )));
        }
        let linear = Linear {
            parts,
            bias,
            strategy: Strategy::Fastest,
        };
        if linear
            .bias
            .as_ref()
            .is_some_and(|bias| bias.len() != linear.rows())
        {
            return Err(Error::format(format!(
                "a bias does not have {} values, one per row",
                linear.rows()
            )));
        }
        Ok(linear)
    }

    /// How weights of codes are decoded: the fastest way, unless this says otherwise (to measure both).
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.strategy = strategy;
    }

    /// See [`Linear::set_strategy`].
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Outputs of all parts.
    pub fn rows(&self) -> usize {
        self.parts.iter().map(PackedMatrix::rows).sum()
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.parts[0].columns()
    }

    /// The matrices.
    pub fn parts(&self) -> &[PackedMatrix] {
        &self.parts
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes().len()).sum()
    }

    /// The form of activations that all parts need; `None` when they need different ones.
    pub fn form(&self) -> Option<Form> {
        let mut forms = self.forms();
        let first = forms.next();
        first.filter(|_| forms.next().is_none())
    }

    fn panels(&self) -> usize {
        self.parts.iter().map(PackedMatrix::panels).sum()
    }

    /// The matrices that need activations of this form.
    pub fn parts_of(&self, form: Form) -> impl Iterator<Item = &PackedMatrix> {
        let parts = self.parts.iter();
        parts.filter(move |part| Form::of(part.layout().dtype) == form)
    }

    /// The forms of activations that the parts need, each once.
    pub fn forms(&self) -> impl Iterator<Item = Form> + '_ {
        [Form::Codes, Form::F32, Form::Bf16].into_iter().filter(|&form| {
            self.parts
                .iter()
                .any(|part| Form::of(part.layout().dtype) == form)
        })
    }

    /// Multiplies the panels `first .. first + count` (counted over all parts) whose activations have the form of `x`.
    /// `output` holds their columns; columns of other forms are left alone.
    fn multiply(
        &self,
        runtime: &Runtime,
        first: usize,
        x: &Activations<'_>,
        mut output: MatrixMut<'_, f32>,
        add: bool,
    ) {
        let (mut start, mut row) = (0, 0);
        let end = first + output.columns().div_ceil(PANEL);
        for part in &self.parts {
            let from = first.clamp(start, start + part.panels());
            let to = end.clamp(start, start + part.panels());
            if from < to && Form::of(part.layout().dtype) == x.form {
                let rows = from - start..to - start;
                let columns = (rows.end * PANEL).min(part.rows()) - rows.start * PANEL;
                let window = output.columns_mut((from - first) * PANEL, columns);
                let from_row = row + rows.start * PANEL;
                let bias = self
                    .bias
                    .as_deref()
                    .map(|bias| &bias[from_row..from_row + columns]);
                let kernels = runtime.kernels();
                kernels.matmul_by(self.strategy, part, rows, x, window, bias, add);
            }
            start += part.panels();
            row += part.rows();
        }
    }

    /// `output = x * weights^T + bias`, or `output +=` that. `output` is tokens x rows, `input` gives the rows of x.
    pub fn apply(
        &self,
        runtime: &Runtime,
        input: &Input<'_>,
        memory: &mut ActivationMemory<'_>,
        scratch: &mut [f32],
        mut output: MatrixMut<'_, f32>,
        add: bool,
    ) {
        for form in self.forms() {
            let x = input.activate(runtime, form, memory, scratch);
            self.apply_to(runtime, &x.view(), output.reborrow(), add);
        }
    }

    /// [`Linear::apply`] with activations of twice the bits: row 2i of `output` becomes the product of row i, row 2i + 1 is
    /// used on the way. Each row goes in twice, once as its codes and once as what they left over, through one read of
    /// the weights; for few rows this costs nothing, because the weights' way from memory is what takes the time.
    pub fn apply_precisely(
        &self,
        runtime: &Runtime,
        input: &Input<'_>,
        memory: &mut ActivationMemory<'_>,
        scratch: &mut [f32],
        output: &mut [f32],
    ) {
        let (tokens, rows) = (input.tokens, self.rows());
        for form in self.forms() {
            if form == Form::Codes {
                let x = input.activate_twice(runtime, memory, scratch);
                self.apply_to(runtime, &x.view(), dense(output, 2 * tokens, rows), false);
                for pair in output.chunks_exact_mut(2 * rows).take(tokens) {
                    let (sum, rest) = pair.split_at_mut(rows);
                    sum.iter_mut().zip(rest).for_each(|(sum, rest)| *sum += *rest);
                }
            } else if let Some(output) = MatrixMut::new(&mut *output, tokens, rows, 2 * rows) {
                let x = input.activate(runtime, form, memory, scratch);
                self.apply_to(runtime, &x.view(), output, false);
            }
        }
    }

    /// [`Linear::apply`] for activations that are ready; parts that need another form are left out.
    pub fn apply_to(&self, runtime: &Runtime, x: &Activations<'_>, output: MatrixMut<'_, f32>, add: bool) {
        let panels = self.panels();
        let step = panels_per_chunk(panels, self.bytes() / panels, x.tokens, runtime.threads());
        runtime.pool().divide(
            panels.div_ceil(step),
            output.by_columns(step * PANEL),
            |chunk, part| {
                self.multiply(runtime, chunk * step, x, part, add);
            },
        );
    }
}

/// Panels of a chunk: an even number (the kernels work on pairs), a few chunks for each thread so that a late thread
/// does not hold up the others, but not so little that claiming the chunk costs more than it.
fn panels_per_chunk(panels: usize, panel_bytes: usize, tokens: usize, threads: usize) -> usize {
    if threads == 1 {
        return panels.next_multiple_of(2);
    }
    let fair = panels.div_ceil(threads * 8);
    let worthwhile = (16 << 10) / (panel_bytes * tokens.min(16)).max(1);
    fair.max(worthwhile)
        .clamp(2, panels.div_ceil(threads).max(2))
        .next_multiple_of(2)
}

/// Rows of f32 that become activations: as they are, or normalized first.
pub struct Input<'a> {
    /// Row `i` starts at `rows[i] * stride`, or at `i * stride` without a list.
    pub values: &'a [f32],
    /// Values from one row to the next.
    pub stride: usize,
    /// Values of a row.
    pub columns: usize,
    /// Number of rows.
    pub tokens: usize,
    /// Which rows; `None` for the first `tokens`.
    pub rows: Option<&'a [u32]>,
    /// Weight and epsilon of an RMS norm that is applied first.
    pub norm: Option<(&'a [f32], f32)>,
}

impl Input<'_> {
    fn row(&self, index: usize) -> &[f32] {
        let row = self.rows.map_or(index, |rows| rows[index] as usize);
        &self.values[row * self.stride..][..self.columns]
    }

    /// Normalizes and quantizes (or rounds) every row. `scratch` takes `columns` values for each thread.
    pub fn activate<'m>(
        &self,
        runtime: &Runtime,
        form: Form,
        memory: &'m mut ActivationMemory<'_>,
        scratch: &mut [f32],
    ) -> ActivationsMut<'m> {
        let Some(mut x) = memory.shape(form, self.tokens, self.columns) else {
            unreachable!("the plan carved activations for every matrix of the model")
        };
        let per_chunk = rows_per_chunk(self.tokens, self.columns);
        let chunks = self.tokens.div_ceil(per_chunk);
        runtime.pool().divide_with(
            chunks,
            x.by_tokens(per_chunk),
            scratch,
            |chunk, mut part, scratch| {
                for index in 0..part.rows() {
                    let row = self.row(chunk * per_chunk + index);
                    match self.norm {
                        Some((weight, epsilon)) => {
                            let normed = &mut scratch[..self.columns];
                            runtime.kernels().rms_norm(row, weight, epsilon, normed);
                            runtime.kernels().activate(form, normed, part.row(index));
                        }
                        None => runtime.kernels().activate(form, row, part.row(index)),
                    }
                }
            },
        );
        x
    }
}

impl Input<'_> {
    /// Codes of every row, and of what rounding them left over: rows 2i and 2i + 1. `scratch` takes twice `columns`
    /// values for each thread.
    fn activate_twice<'m>(
        &self,
        runtime: &Runtime,
        memory: &'m mut ActivationMemory<'_>,
        scratch: &mut [f32],
    ) -> ActivationsMut<'m> {
        let Some(mut x) = memory.shape(Form::Codes, 2 * self.tokens, self.columns) else {
            unreachable!("the plan carved activations for every matrix of the model")
        };
        let kernels = runtime.kernels();
        runtime.pool().divide_with(
            self.tokens,
            x.by_tokens(2),
            scratch,
            |index, mut part, scratch| {
                let (values, rest) = scratch[..2 * self.columns].split_at_mut(self.columns);
                match self.norm {
                    Some((weight, epsilon)) => kernels.rms_norm(self.row(index), weight, epsilon, values),
                    None => values.copy_from_slice(self.row(index)),
                }
                kernels.activate(Form::Codes, values, part.row(0));
                restore(part.row(0), rest);
                rest.iter_mut()
                    .zip(values)
                    .for_each(|(rest, value)| *rest = *value - *rest);
                kernels.activate(Form::Codes, rest, part.row(1));
            },
        );
        x
    }
}

/// Rows of a chunk of element-wise work: about 16 thousand values, a few microseconds.
pub fn rows_per_chunk(rows: usize, columns: usize) -> usize {
    ((16 << 10) / columns.max(1)).clamp(1, rows.max(1))
}

/// Tokens whose hidden values stand in scratch memory at a time, before they are quantized: they stay in L2.
const GATED_TOKENS: usize = 96;

/// Scratch values that [`Hidden::apply`] needs for each thread: gate and up values of a super-block.
pub const GATED_SCRATCH: usize = 2 * GATED_TOKENS * SUPER_BLOCK;

/// The first half of a feed-forward network: `activation(up * x + bias)`, or with a gate
/// `activation(gate * x + bias) * (up * x + bias)`.
#[derive(Clone, Copy)]
pub struct Hidden<'a> {
    /// Weights of the gate, where there is one; as many rows as `up`.
    pub gate: Option<&'a PackedMatrix>,
    /// Added to the gate, one value per row.
    pub gate_bias: Option<&'a [f32]>,
    /// Weights.
    pub up: &'a PackedMatrix,
    /// One value per row.
    pub up_bias: Option<&'a [f32]>,
    /// What is applied to the gate, or to all where there is none.
    pub activation: Activation,
}

impl Hidden<'_> {
    /// The hidden values of `x`, quantized for the next matmul as they are made, so that all of them never stand in
    /// memory as f32. `scratch` takes [`GATED_SCRATCH`] values for each thread.
    pub fn apply<'m>(
        &self,
        runtime: &Runtime,
        x: &Activations<'_>,
        form: Form,
        hidden: &'m mut ActivationMemory<'_>,
        scratch: &mut [f32],
    ) -> ActivationsMut<'m> {
        let rows = self.up.rows();
        let Some(mut y) = hidden.shape(form, x.tokens, rows) else {
            unreachable!("the plan carved activations for every matrix of the model")
        };
        let chunks = rows.div_ceil(SUPER_BLOCK);
        runtime.pool().divide_with(
            chunks,
            y.by_super_blocks(),
            scratch,
            |chunk, mut part, scratch| {
                let first = chunk * SUPER_BLOCK;
                let columns = SUPER_BLOCK.min(rows - first);
                let (gates, ups) = scratch.split_at_mut(GATED_TOKENS * SUPER_BLOCK);
                for token in (0..x.tokens).step_by(GATED_TOKENS) {
                    let x = x.slice(token, GATED_TOKENS.min(x.tokens - token));
                    self.multiply(runtime.kernels(), &x, first, columns, gates, ups);
                    let rows = gates.chunks_exact_mut(columns).zip(ups.chunks_exact(columns));
                    for (index, (row, up)) in rows.take(x.tokens).enumerate() {
                        let kernels = runtime.kernels();
                        match self.gate {
                            Some(_) => kernels.gate(self.activation, row, up),
                            None => kernels.activation(self.activation, row),
                        }
                        kernels.activate(form, row, part.row(token + index));
                    }
                }
            },
        );
        y
    }

    /// The values of `columns` rows of weights from `first` on: of the gate and, in `ups`, those that it lets through;
    /// without a gate only the former. Gate and up take turns, so that the inputs stay in L1 for both.
    fn multiply(
        &self,
        kernels: &Kernels,
        x: &Activations<'_>,
        first: usize,
        columns: usize,
        gates: &mut [f32],
        ups: &mut [f32],
    ) {
        let mut gates = dense(gates, x.tokens, columns);
        let mut ups = dense(ups, x.tokens, columns);
        for block in (0..columns).step_by(BLOCK) {
            let count = BLOCK.min(columns - block);
            let rows = first + block..first + block + count;
            let panels = rows.start / PANEL..rows.end.div_ceil(PANEL);
            let up_bias = self.up_bias.map(|bias| &bias[rows.clone()]);
            let Some(gate) = self.gate else {
                let to = gates.columns_mut(block, count);
                kernels.matmul(self.up, panels, x, to, up_bias, false);
                continue;
            };
            let gate_bias = self.gate_bias.map(|bias| &bias[rows.clone()]);
            let to = gates.columns_mut(block, count);
            kernels.matmul(gate, panels.clone(), x, to, gate_bias, false);
            kernels.matmul(self.up, panels, x, ups.columns_mut(block, count), up_bias, false);
        }
    }
}

fn dense(values: &mut [f32], rows: usize, columns: usize) -> MatrixMut<'_, f32> {
    match MatrixMut::new(values, rows, columns, columns) {
        Some(matrix) => matrix,
        None => unreachable!("scratch holds {rows} x {columns}"),
    }
}
