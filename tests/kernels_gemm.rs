//! Products of plain floats: every element is the chain of fused multiply-adds that the header promises, bit for bit, on
//! every instruction set, in odd shapes, from memory that ends at forbidden pages.

#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

mod kernels_support;

use kernels_support::*;
use mantle::base::matrix::MatrixMut;
use mantle::base::memory::Allocator;
use mantle::kernels::Kernels;
use mantle::kernels::gemm::{Element, GemmInput, Operand, scratch_length};
use mantle::ops::gemm;
use mantle::ops::runtime::{Runtime, RuntimeOptions};
use mantle::quant::convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

/// Rows of stored values that end at a forbidden page.
struct Stored {
    bytes: Guarded<u8>,
    element: Element,
    stride: usize,
}

impl Stored {
    fn new(rows: usize, columns: usize, random: &mut Random) -> Stored {
        let element = [Element::F32, Element::F16, Element::Bf16][random.within(0..=2)];
        Stored::of(element, rows, columns, random)
    }

    fn of(element: Element, rows: usize, columns: usize, random: &mut Random) -> Stored {
        let stride = columns + random.within(0..=5);
        let count = if rows * columns == 0 {
            0
        } else {
            (rows - 1) * stride + columns
        };
        let mut bytes = Guarded::new(count * element.bytes());
        for value in bytes.chunks_exact_mut(element.bytes()) {
            let number = random.signed() * 2.0;
            match element {
                Element::F32 => value.copy_from_slice(&number.to_ne_bytes()),
                Element::F16 => value.copy_from_slice(&f32_to_f16(number).to_ne_bytes()),
                Element::Bf16 => value.copy_from_slice(&f32_to_bf16(number).to_ne_bytes()),
            }
        }
        Stored {
            bytes,
            element,
            stride,
        }
    }

    fn operand(&self) -> Operand<'_> {
        Operand {
            bytes: &self.bytes,
            element: self.element,
            stride: self.stride,
        }
    }

    fn value(&self, row: usize, column: usize) -> f32 {
        let bytes = self.element.bytes();
        let value = &self.bytes[(row * self.stride + column) * bytes..][..bytes];
        match self.element {
            Element::F32 => f32::from_ne_bytes(value.try_into().unwrap()),
            Element::F16 => f16_to_f32(u16::from_ne_bytes(value.try_into().unwrap())),
            Element::Bf16 => bf16_to_f32(u16::from_ne_bytes(value.try_into().unwrap())),
        }
    }
}

struct Case {
    rows: usize,
    columns: usize,
    depth: usize,
    a: Stored,
    b: Stored,
    by_input: bool,
    alpha: f32,
    beta: f32,
    bias: Option<Guarded<f32>>,
    before: Vec<f32>,
    stride: usize,
}

impl Case {
    fn new(rows: usize, columns: usize, depth: usize, random: &mut Random) -> Case {
        let by_input = random.chance(2);
        let (b_rows, b_columns) = if by_input {
            (depth, columns)
        } else {
            (columns, depth)
        };
        let a = Stored::new(rows, depth, random);
        let b = Stored::new(b_rows, b_columns, random);
        let stride = columns + random.within(0..=5);
        let mut before = vec![f32::from_bits(GUARD); (rows - 1) * stride + columns];
        for row in before.chunks_mut(stride) {
            let columns = columns.min(row.len());
            row[..columns]
                .iter_mut()
                .for_each(|value| *value = random.signed());
        }
        let bias: Vec<f32> = (0..columns).map(|_| random.signed()).collect();
        Case {
            rows,
            columns,
            depth,
            a,
            b,
            by_input,
            alpha: [1.0, 1.0, -0.3][random.within(0..=2)],
            beta: [0.0, 0.0, 1.0, 0.7][random.within(0..=3)],
            bias: random.chance(2).then(|| Guarded::of(&bias)),
            before,
            stride,
        }
    }

    fn input(&self) -> GemmInput<'_> {
        GemmInput {
            a: self.a.operand(),
            b: self.b.operand(),
            by_input: self.by_input,
            depth: self.depth,
            alpha: self.alpha,
            beta: self.beta,
            bias: self.bias.as_deref(),
        }
    }

    /// The chain of one element after the other.
    fn expected(&self) -> Vec<f32> {
        let mut expected = self.before.clone();
        for i in 0..self.rows {
            for j in 0..self.columns {
                let element = &mut expected[i * self.stride + j];
                let mut sum = self.bias.as_ref().map_or(0.0, |bias| bias[j]);
                if self.beta != 0.0 {
                    sum = self.beta.mul_add(*element, sum);
                }
                for k in 0..self.depth {
                    let b = if self.by_input {
                        self.b.value(k, j)
                    } else {
                        self.b.value(j, k)
                    };
                    sum = b.mul_add(self.a.value(i, k) * self.alpha, sum);
                }
                *element = sum;
            }
        }
        expected
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let mut found = Guarded::of(&self.before);
        let mut scratch = Guarded::new(scratch_length(self.columns, self.depth));
        scratch.fill(f32::NAN);
        let output = MatrixMut::new(&mut found, self.rows, self.columns, self.stride).unwrap();
        kernels.gemm(&self.input(), 0, 0, output, &mut scratch);
        found.to_vec()
    }

    fn name(&self) -> String {
        format!(
            "{} x {} x {}, {:?} {:?}, by input {}, alpha {}, beta {}, bias {}",
            self.rows,
            self.columns,
            self.depth,
            self.a.element,
            self.b.element,
            self.by_input,
            self.alpha,
            self.beta,
            self.bias.is_some()
        )
    }
}

fn cases(count: usize, random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    for case in 0..count {
        let rows = random.within(1..=40);
        let columns = random.within(1..=if case % 8 == 0 { 300 } else { 70 });
        // Some with several blocks of inputs, and some with none.
        let depth = [
            random.within(1..=100),
            random.within(1..=40),
            random.within(1000..=2100),
            0,
        ][match case % 16 {
            0..=7 => 0,
            8..=13 => 1,
            14 => 2,
            _ => 3,
        }];
        cases.push(Case::new(rows, columns, depth, random));
    }
    cases
}

#[test]
fn every_element_is_its_chain_on_every_table() {
    for case in cases(160, &mut Random(1)) {
        let expected = case.expected();
        for (name, kernels) in Kernels::every() {
            assert_same(&format!("{name}: {}", case.name()), &case.run(kernels), &expected);
        }
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row_and_column() {
    let mut random = Random(2);
    for special in [f32::NAN, f32::INFINITY, 1e-40] {
        let mut case = Case::new(15, 37, 20, &mut random);
        case.a = Stored::of(Element::F32, 15, 20, &mut random);
        case.b = Stored::new(37, 20, &mut random);
        (case.by_input, case.beta, case.bias) = (false, 0.0, None);
        let at = (7 * case.a.stride + 3) * 4;
        case.a.bytes[at..at + 4].copy_from_slice(&special.to_ne_bytes());
        // Without beta, what C held does not matter.
        case.before.fill(f32::NAN);
        let expected = case.expected();
        assert!(
            expected[..7 * case.stride]
                .chunks(case.stride)
                .all(|row| row[..37].iter().all(|v| v.is_finite()))
        );
        for (name, kernels) in Kernels::every() {
            assert_same(&format!("{name}: {special}"), &case.run(kernels), &expected);
        }
    }
}

#[test]
fn threads_change_nothing_and_scratch_memory_is_kept() {
    let mut random = Random(3);
    let mut cases = cases(24, &mut random);
    cases.push(Case::new(500, 300, 260, &mut random));
    cases.push(Case::new(1600, 9, 64, &mut random));
    cases.push(Case::new(3, 2000, 200, &mut random));
    for threads in [1, 2, 5] {
        let options = RuntimeOptions {
            threads,
            allocator: Allocator::system(),
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::new(options).unwrap();
        for case in &cases {
            let mut found = Guarded::of(&case.before);
            let output = MatrixMut::new(&mut found, case.rows, case.columns, case.stride).unwrap();
            gemm::multiply(&runtime, &case.input(), output).unwrap();
            assert_same(
                &format!("{threads} threads: {}", case.name()),
                &found,
                &case.expected(),
            );
        }
        let held = runtime.allocator().held();
        let case = &cases[0];
        let mut found = case.before.clone();
        let output = MatrixMut::new(&mut found, case.rows, case.columns, case.stride).unwrap();
        gemm::multiply(&runtime, &case.input(), output).unwrap();
        assert_eq!(runtime.allocator().held(), held, "scratch memory was kept");
        assert!(
            held < (threads as u64 + 1) << 20,
            "{held} bytes for {threads} threads"
        );
    }
}
