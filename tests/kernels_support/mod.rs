//! What the kernel tests share: random numbers, memory that ends at a forbidden page, and comparison of bits.

#![allow(dead_code)] // Each test program uses a part.
#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

use mantle::base::matrix::MatrixMut;
use mantle::base::memory::{Allocator, HostAllocator, Plain};
use mantle::format::dtype::DataType;
use mantle::kernels::Kernels;
use mantle::quant::activations::{ActivationMemory, Activations, ActivationsMut, Form, Record, SUPER_BLOCK};
use mantle::quant::packed::{BLOCK, Layout, PANEL, PackedMatrix, pack_panel};
use mantle::quant::scalar::dequantize_row;
use std::ffi::c_void;
use std::ops::{Deref, DerefMut, Range, RangeInclusive};

/// SplitMix64 (Steele, Lea and Flood 2014): small, and good enough to pick test cases.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + (self.bits() % (range.end() - range.start() + 1) as u64) as usize
    }

    /// Uniform in -1..1.
    pub fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.bits().is_multiple_of(one_in)
    }
}

/// Every table of kernels but scalar's.
pub fn others() -> impl Iterator<Item = (&'static str, &'static Kernels)> {
    Kernels::every().into_iter().filter(|(name, _)| *name != "scalar")
}

pub fn scalar() -> &'static Kernels {
    Kernels::of(mantle::kernels::Isa::Scalar).unwrap()
}

/// Equal bits; a NaN equals any NaN, because no rule says which operand's payload an instruction hands on.
pub fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[track_caller]
pub fn assert_same(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}: count");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            same(found, expected),
            "{what}: value {i} is {found:e} ({:#010x}), expected {expected:e} ({:#010x})",
            found.to_bits(),
            expected.to_bits()
        );
    }
}

fn page() -> usize {
    // SAFETY: asks for a constant of the system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// `bytes` bytes that end where a page begins that may not be touched.
fn map_guarded(bytes: usize) -> *mut u8 {
    let pages = bytes.next_multiple_of(page());
    // SAFETY: a fresh private mapping; its last page is closed before anyone knows of it.
    unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            pages + page(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        let map = map.cast::<u8>();
        assert_eq!(libc::mprotect(map.add(pages).cast(), page(), libc::PROT_NONE), 0);
        map.add(pages - bytes)
    }
}

/// # Safety
/// `start` came from [`map_guarded`] with `bytes`.
unsafe fn unmap_guarded(start: *mut u8, bytes: usize) {
    let pages = bytes.next_multiple_of(page());
    // SAFETY: gives back exactly what was mapped.
    unsafe { libc::munmap(start.sub(pages - bytes).cast(), pages + page()) };
}

/// A slice that ends at a forbidden page: reading or writing behind it kills the test.
pub struct Guarded<T: Plain> {
    start: *mut T,
    length: usize,
}

impl<T: Plain> Guarded<T> {
    pub fn new(length: usize) -> Guarded<T> {
        Guarded {
            start: map_guarded(length * size_of::<T>()).cast(),
            length,
        }
    }

    pub fn of(values: &[T]) -> Guarded<T> {
        let mut guarded = Guarded::new(values.len());
        guarded.copy_from_slice(values);
        guarded
    }
}

impl<T: Plain> Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: zeroed or written values, owned; the end is page-aligned, so the start is aligned for T.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl<T: Plain> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

impl<T: Plain> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`.
        unsafe { unmap_guarded(self.start.cast(), self.length * size_of::<T>()) };
    }
}

/// Gives buffers that end at a forbidden page.
pub fn guarding_allocator() -> Allocator {
    unsafe extern "C" fn allocate(_: *mut c_void, size: usize, _: usize) -> *mut c_void {
        map_guarded(size).cast()
    }
    unsafe extern "C" fn free(_: *mut c_void, memory: *mut c_void, size: usize, _: usize) {
        // SAFETY: the buffer came from `allocate`.
        unsafe { unmap_guarded(memory.cast(), size) };
    }
    Allocator::host(HostAllocator {
        allocate,
        free,
        user_data: std::ptr::null_mut(),
    })
}

/// The types that have a packed form.
pub fn packable() -> impl Iterator<Item = DataType> {
    DataType::ALL
        .iter()
        .copied()
        .filter(|&dtype| Layout::of(dtype).is_ok())
}

/// Packs `rows` rows of stored bytes into memory that ends at a forbidden page.
pub fn pack(dtype: DataType, stored: &[u8], rows: usize, columns: usize) -> PackedMatrix {
    let mut matrix = PackedMatrix::new(dtype, rows, columns, &guarding_allocator()).unwrap();
    let (layout, blocks, panel_bytes) = (*matrix.layout(), matrix.blocks(), matrix.panel_bytes());
    let row_bytes = stored.len() / rows;
    for panel in 0..matrix.panels() {
        let rows: Vec<&[u8]> = matrix
            .panel_rows(panel)
            .map(|row| &stored[row * row_bytes..][..row_bytes])
            .collect();
        let bytes = &mut matrix.bytes_mut()[panel * panel_bytes..][..panel_bytes];
        pack_panel(&layout, &rows, blocks, bytes);
    }
    matrix
}

/// Random rows as a file stores them; with `finite`, all weights are between 0.01 and 100 at the largest of a block.
pub fn random_weights(
    dtype: DataType,
    rows: usize,
    columns: usize,
    finite: bool,
    random: &mut Random,
) -> Vec<u8> {
    let mut stored = vec![0; rows * dtype.row_bytes(columns).unwrap()];
    let mut values = vec![0.0; dtype.block_length()];
    for block in stored.chunks_exact_mut(dtype.block_bytes()) {
        if dtype.block_length() == 1 && finite {
            let value = random.signed() * 4f32.powi(random.within(0..=6) as i32 - 3);
            mantle::quant::scalar::quantize_row(dtype, &[value], block).unwrap();
            continue;
        }
        loop {
            block.iter_mut().for_each(|byte| *byte = random.bits() as u8);
            dequantize_row(dtype, block, &mut values).unwrap();
            let largest = values.iter().fold(0f32, |a, b| a.max(b.abs()));
            if !finite || values.iter().all(|v| v.is_finite()) && (0.01..=100.0).contains(&largest) {
                break;
            }
        }
    }
    stored
}

/// The stored rows as f32.
pub fn decode(dtype: DataType, stored: &[u8], values: usize) -> Vec<f32> {
    let mut decoded = vec![0.0; values];
    dequantize_row(dtype, stored, &mut decoded).unwrap();
    decoded
}

/// Activations in memory that ends at forbidden pages.
pub struct Prepared {
    form: Form,
    tokens: usize,
    columns: usize,
    data: Guarded<u8>,
}

impl Prepared {
    /// `x` is tokens x columns; every row is activated from memory that ends at a forbidden page.
    pub fn new(kernels: &Kernels, form: Form, x: &[f32], tokens: usize, columns: usize) -> Prepared {
        let blocks = columns.div_ceil(BLOCK);
        let mut prepared = Prepared {
            form,
            tokens,
            columns,
            data: Guarded::new(tokens * form.row_bytes(blocks).unwrap()),
        };
        // What was there before must not matter.
        prepared.data.fill(0xa5);
        prepared.refill(|activations| {
            for (token, row) in x.chunks_exact(columns).enumerate() {
                let row = Guarded::of(row);
                kernels.activate(form, &row, activations.whole().row(token));
            }
        });
        prepared
    }

    /// Hands out the memory to be filled anew.
    pub fn refill(&mut self, fill: impl FnOnce(&mut ActivationsMut<'_>)) {
        let mut memory = ActivationMemory { data: &mut self.data };
        fill(&mut memory.shape(self.form, self.tokens, self.columns).unwrap());
    }

    pub fn view(&self) -> Activations<'_> {
        Activations {
            form: self.form,
            tokens: self.tokens,
            blocks: self.columns.div_ceil(BLOCK),
            data: &self.data,
        }
    }

    /// The records of one token's super-blocks: those of its blocks, and that of its spike.
    pub fn records(&self, token: usize) -> Vec<(Vec<Record>, Record)> {
        let row = self.data.len() / self.tokens;
        let row = &self.data[token * row..][..row];
        let super_block = (SUPER_BLOCK / BLOCK + 1) * Record::BYTES;
        let records = row
            .chunks(super_block)
            .map(|records| records.chunks(Record::BYTES).map(Record::read).collect());
        records
            .map(|mut records: Vec<Record>| {
                let spike = records.pop().unwrap();
                (records, spike)
            })
            .collect()
    }

    /// The values that the kernels multiply with, tokens x columns.
    pub fn values(&self) -> Vec<f64> {
        (0..self.tokens).flat_map(|token| self.values_of(token)).collect()
    }

    fn values_of(&self, token: usize) -> Vec<f64> {
        let row = self.data.len() / self.tokens;
        let row = &self.data[token * row..][..row];
        let mut values: Vec<f64> = match self.form {
            Form::Codes => self
                .records(token)
                .iter()
                .flat_map(|(blocks, spike)| super_block_values(blocks, spike))
                .collect(),
            Form::F32 => row
                .chunks_exact(4)
                .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())))
                .collect(),
            Form::Bf16 => row
                .chunks_exact(2)
                .map(|bytes| u16::from_le_bytes(bytes.try_into().unwrap()))
                .map(|bits| f64::from(mantle::quant::convert::bf16_to_f32(bits)))
                .collect(),
        };
        values.truncate(self.columns);
        values
    }
}

fn super_block_values(blocks: &[Record], spike: &Record) -> Vec<f64> {
    let value = |record: &Record, code: i8| f64::from(code) * f64::from(record.scale());
    let mut values: Vec<f64> = blocks
        .iter()
        .flat_map(|block| block.codes.map(|code| value(block, code)))
        .collect();
    for (value_of, &code) in values[4 * spike.place as usize..][..4]
        .iter_mut()
        .zip(&spike.codes)
    {
        *value_of += value(spike, code);
    }
    values
}

/// A pattern that no kernel computes; around the outputs it shows that nothing else is written.
pub const GUARD: u32 = 0x7fab_cdef;

/// Multiplies into an output whose rows lie between guards and end at a forbidden page; `before` is what they hold first.
pub fn multiply(
    kernels: &Kernels,
    weights: &PackedMatrix,
    panels: Range<usize>,
    x: &Activations<'_>,
    row_bias: Option<&[f32]>,
    before: Option<&[f32]>,
) -> Vec<f32> {
    let rows = (panels.end * PANEL).min(weights.rows()) - panels.start * PANEL;
    let (gap, lead) = (3, 5);
    let stride = rows + gap;
    let mut memory = Guarded::<f32>::new(lead + (x.tokens - 1) * stride + rows);
    memory.fill(f32::from_bits(GUARD));
    if let Some(before) = before {
        for (token, row) in before.chunks_exact(rows).enumerate() {
            memory[lead + token * stride..][..rows].copy_from_slice(row);
        }
    }
    let row_bias = row_bias.map(Guarded::of);
    let output = MatrixMut::new(&mut memory[lead..], x.tokens, rows, stride).unwrap();
    kernels.matmul(weights, panels, x, output, row_bias.as_deref(), before.is_some());
    let mut found = Vec::with_capacity(x.tokens * rows);
    for (i, &value) in memory.iter().enumerate() {
        if i >= lead && (i - lead) % stride < rows {
            found.push(value);
        } else {
            assert_eq!(value.to_bits(), GUARD, "value {i} beside the output was written");
        }
    }
    found
}
