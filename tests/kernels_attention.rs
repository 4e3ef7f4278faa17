//! Attention against float64, the same bits on every instruction set and however tokens are cut into calls, and
//! nothing from keys that a token does not see.

#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

mod kernels_support;

use kernels_support::*;
use mantle::base::matrix::MatrixMut;
use mantle::format::dtype::DataType;
use mantle::kernels::attention::{MAX_ROWS, scratch_length, value_dim};
use mantle::kernels::simd::LANES;
use mantle::kernels::{AttentionInput, CACHE_TYPES, Kernels};
use mantle::quant::convert::{f16_to_f32, f32_to_f16};

/// Tokens at the end of a sequence that look at its keys.
#[derive(Clone, Debug)]
struct Case {
    head_dim: usize,
    group: usize,
    tokens: usize,
    position: usize,
    key_count: usize,
    causal: bool,
    window: usize,
    cap: f32,
    key_type: DataType,
    value_type: DataType,
}

impl Case {
    /// Every kind of shape, sizes at the edges of vectors, panels and segments.
    fn random(random: &mut Random) -> Case {
        let key_count = [1, 2, 15, 16, 17, 64, 255, 256, 257, 300, 511, 513, 600][random.within(0..=12)];
        let group = random.within(1..=9);
        let tokens = random.within(1..=key_count.min(12));
        Case {
            head_dim: [32, 33, 40, 64, 80, 100, 128, 200, 256][random.within(0..=8)],
            group,
            tokens,
            // Not always at the end: then keys follow that a causal token must not see.
            position: random
                .within(0..=key_count - tokens)
                .max(random.within(0..=key_count - tokens)),
            key_count,
            causal: !random.chance(3),
            window: [0, 0, 1, 2, 7, 100, 256, 300][random.within(0..=7)],
            cap: [0.0, 0.0, 3.0, 30.0][random.within(0..=3)],
            key_type: CACHE_TYPES[random.within(0..=1)],
            value_type: CACHE_TYPES[random.within(0..=1)],
        }
    }

    fn width(&self) -> usize {
        self.group * self.head_dim
    }

    /// Whether the token at `position` sees `key`: the definition, not the kernel's arithmetic.
    fn sees(&self, position: usize, key: usize) -> bool {
        key < self.key_count
            && if self.causal {
                key <= position && (self.window == 0 || position - key < self.window)
            } else {
                self.window == 0 || position.abs_diff(key) <= self.window / 2
            }
    }
}

fn bytes_of(dtype: DataType) -> usize {
    if dtype == DataType::F32 { 4 } else { 2 }
}

fn rounded(value: f32, dtype: DataType) -> f32 {
    if dtype == DataType::F32 {
        value
    } else {
        f16_to_f32(f32_to_f16(value))
    }
}

/// Queries `[token][stride]`, keys and values `[key][head_dim]`, as numbers.
struct Numbers {
    stride: usize,
    queries: Guarded<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scale: f32,
    cap: f32,
}

impl Numbers {
    fn random(case: &Case, random: &mut Random) -> Numbers {
        let stride = case.width() + random.within(0..=5);
        let size = [0.1, 1.0, 8.0][random.within(0..=2)];
        let mut queries = Guarded::new((case.tokens - 1) * stride + case.width());
        queries
            .iter_mut()
            .for_each(|value| *value = random.signed() * size);
        let mut numbers = || -> Vec<f32> {
            (0..case.key_count * case.head_dim)
                .map(|_| random.signed() * 2.0)
                .collect()
        };
        Numbers {
            stride,
            queries,
            keys: numbers(),
            values: numbers(),
            scale: 1.0 / (case.head_dim as f32).sqrt(),
            cap: case.cap,
        }
    }

    /// The caches as `kernels` stores them; where no key was stored, every byte is 0xff: NaN in both types. The memory of
    /// the values ends behind the last key.
    fn store(&self, kernels: &Kernels, case: &Case) -> (Guarded<u8>, Guarded<u8>) {
        let panels = case.key_count.div_ceil(LANES);
        let mut keys = Guarded::new(panels * case.head_dim * LANES * bytes_of(case.key_type));
        let row = value_dim(case.head_dim) * bytes_of(case.value_type);
        let mut values = Guarded::new(case.key_count * row);
        keys.fill(0xff);
        values.fill(0xff);
        let rows = self
            .keys
            .chunks_exact(case.head_dim)
            .zip(self.values.chunks_exact(case.head_dim));
        let (mut key_row, mut value_row) = (Guarded::new(case.head_dim), Guarded::new(case.head_dim));
        for (position, (key, value)) in rows.enumerate() {
            key_row.copy_from_slice(key);
            value_row.copy_from_slice(value);
            kernels.store_key(&key_row, position, &mut keys, case.key_type);
            kernels.store_value(&value_row, position, &mut values, case.value_type);
        }
        (keys, values)
    }
}

/// Attention of all tokens, `count` in a call, into memory with guards around every row. Scratch starts as NaN.
fn attend(kernels: &Kernels, case: &Case, numbers: &Numbers, count: usize) -> Vec<f32> {
    let (keys, values) = numbers.store(kernels, case);
    let count = count.min(MAX_ROWS / case.group);
    let (lead, stride) = (4, case.width() + 3);
    let mut memory = Guarded::<f32>::new(lead + (case.tokens - 1) * stride + case.width());
    memory.fill(f32::from_bits(GUARD));
    for first in (0..case.tokens).step_by(count) {
        let tokens = count.min(case.tokens - first);
        let mut scratch = Guarded::new(scratch_length(tokens * case.group, case.head_dim));
        scratch.fill(f32::NAN);
        let input = AttentionInput {
            queries: &numbers.queries[first * numbers.stride..],
            query_stride: numbers.stride,
            group: case.group,
            head_dim: case.head_dim,
            position: case.position + first,
            key_count: case.key_count,
            causal: case.causal,
            window: case.window,
            scale: numbers.scale,
            cap: numbers.cap,
            keys: &keys,
            key_type: case.key_type,
            values: &values,
            value_type: case.value_type,
        };
        let rows = &mut memory[lead + first * stride..];
        let output = MatrixMut::new(rows, tokens, case.width(), stride).unwrap();
        kernels.attention(&input, output, &mut scratch);
    }
    let mut found = Vec::new();
    for (i, &value) in memory.iter().enumerate() {
        if i >= lead && (i - lead) % stride < case.width() {
            found.push(value);
        } else {
            assert_eq!(value.to_bits(), GUARD, "value {i} beside the output was written");
        }
    }
    found
}

/// One row's softmax attention in float64, and how far rounding to f32 can take a result from it.
fn reference(case: &Case, numbers: &Numbers, token: usize, head: usize) -> (Vec<f64>, f64) {
    let dim = case.head_dim;
    let query = &numbers.queries[token * numbers.stride + head * dim..][..dim];
    let seen: Vec<usize> = (0..case.key_count)
        .filter(|&key| case.sees(case.position + token, key))
        .collect();
    let (mut scores, mut magnitude) = (Vec::new(), 0f64);
    for &key in &seen {
        let products = query
            .iter()
            .zip(&numbers.keys[key * dim..])
            .map(|(&q, &k)| f64::from(q) * f64::from(rounded(k, case.key_type)) * f64::from(numbers.scale));
        magnitude = magnitude.max(products.clone().map(f64::abs).sum());
        let score = products.sum::<f64>();
        scores.push(match f64::from(case.cap) {
            0.0 => score,
            cap => cap * (score / cap).tanh(),
        });
    }
    let largest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (mut output, mut largest_value) = (vec![0.0; dim], 0f64);
    for (&key, weight) in seen.iter().zip(&weights) {
        for (output, &value) in output.iter_mut().zip(&numbers.values[key * dim..]) {
            let value = f64::from(rounded(value, case.value_type));
            *output += weight / sum * value;
            largest_value = largest_value.max(value.abs());
        }
    }
    // A score is a sum of head_dim products; e^x turns its error, and that of the exponential, into a relative one.
    let unit = 2f64.powi(-24);
    let exponential = magnitude * (dim + 6) as f64 * unit + 3e-7 * f64::from(1.0 + case.cap);
    (
        output,
        largest_value * 2.0 * (exponential + (seen.len().min(256) + 8) as f64 * unit),
    )
}

#[test]
fn attention_is_that_of_float64_with_the_same_bits_on_every_table() {
    let mut random = Random(1);
    for _ in 0..80 {
        let case = Case::random(&mut random);
        let numbers = Numbers::random(&case, &mut random);
        let found = attend(scalar(), &case, &numbers, usize::MAX);
        for (row, found) in found.chunks_exact(case.head_dim).enumerate() {
            let (expected, bound) = reference(&case, &numbers, row / case.group, row % case.group);
            for (&found, expected) in found.iter().zip(expected) {
                assert!(
                    (f64::from(found) - expected).abs() <= bound,
                    "{case:?}, row {row}: {found} for {expected}, may differ by {bound:e}"
                );
            }
        }
        for (name, kernels) in others() {
            let other = attend(kernels, &case, &numbers, usize::MAX);
            assert_same(&format!("{name}, {case:?}"), &other, &found);
        }
    }
}

#[test]
fn a_token_has_the_same_bits_however_tokens_are_cut_into_calls() {
    let mut random = Random(2);
    for _ in 0..25 {
        let case = Case::random(&mut random);
        let numbers = Numbers::random(&case, &mut random);
        for (name, kernels) in Kernels::every() {
            let together = attend(kernels, &case, &numbers, usize::MAX);
            for count in [1, 2, 5] {
                let apart = attend(kernels, &case, &numbers, count);
                assert_same(&format!("{name}, {count} a call, {case:?}"), &apart, &together);
            }
        }
    }
}

/// Keys and values that a token does not see are made NaN, infinite or large: the token's bits stay the same.
#[test]
fn what_a_token_does_not_see_does_not_matter() {
    let mut random = Random(3);
    for _ in 0..25 {
        let case = Case {
            causal: true,
            ..Case::random(&mut random)
        };
        let clean = Numbers::random(&case, &mut random);
        let token = random.within(0..=case.tokens - 1);
        let mut dirty = Numbers {
            queries: Guarded::of(&clean.queries),
            keys: clean.keys.clone(),
            values: clean.values.clone(),
            ..clean
        };
        let rubbish = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 6e4];
        for key in (0..case.key_count).filter(|&key| !case.sees(case.position + token, key)) {
            for numbers in [&mut dirty.keys, &mut dirty.values] {
                numbers[key * case.head_dim..][..case.head_dim].fill(rubbish[random.within(0..=3)]);
            }
        }
        for (name, kernels) in Kernels::every() {
            let (expected, found) = (
                attend(kernels, &case, &clean, usize::MAX),
                attend(kernels, &case, &dirty, usize::MAX),
            );
            let row = token * case.width()..(token + 1) * case.width();
            assert_same(
                &format!("{name}, token {token}, {case:?}"),
                &found[row.clone()],
                &expected[row],
            );
        }
    }
}

/// Keys that come later do not change a causal token's bits, so a prompt may be read in pieces.
#[test]
fn a_causal_token_does_not_depend_on_the_length_of_the_sequence() {
    let mut random = Random(4);
    for _ in 0..25 {
        let case = Case {
            causal: true,
            ..Case::random(&mut random)
        };
        let numbers = Numbers::random(&case, &mut random);
        let keys = case.position + case.tokens;
        let short = Case {
            key_count: keys,
            ..case.clone()
        };
        let fewer = Numbers {
            queries: Guarded::of(&numbers.queries),
            keys: numbers.keys[..keys * case.head_dim].to_vec(),
            values: numbers.values[..keys * case.head_dim].to_vec(),
            ..numbers
        };
        for (name, kernels) in Kernels::every() {
            let expected = attend(kernels, &case, &numbers, usize::MAX);
            let found = attend(kernels, &short, &fewer, usize::MAX);
            assert_same(&format!("{name}, {case:?}"), &found, &expected);
        }
    }
}

#[test]
fn a_row_with_a_nan_among_its_keys_is_nan_on_every_table() {
    let mut random = Random(5);
    for _ in 0..20 {
        let case = Case {
            causal: false,
            window: 0,
            ..Case::random(&mut random)
        };
        for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut numbers = Numbers::random(&case, &mut random);
            let at = random.within(0..=numbers.keys.len() - 1);
            numbers.keys[at] = special;
            let found = attend(scalar(), &case, &numbers, usize::MAX);
            assert!(!special.is_nan() || found.iter().all(|value| value.is_nan()));
            for (name, kernels) in others() {
                let other = attend(kernels, &case, &numbers, usize::MAX);
                assert_same(&format!("{name}, {case:?}"), &other, &found);
            }
        }
    }
}

/// The caches hold `[panel][dim][16]` keys and `[token][dim]` values padded with zeros, on every table.
#[test]
fn keys_and_values_stand_where_the_layout_says() {
    let mut random = Random(6);
    for _ in 0..30 {
        let case = Case {
            key_count: random.within(1..=40),
            ..Case::random(&mut random)
        };
        let mut numbers = Numbers::random(&case, &mut random);
        let special = [f32::INFINITY, 1e-6, 1e-40, -0.0, 7e4, 65519.0];
        for (i, &value) in special.iter().enumerate().take(case.head_dim) {
            numbers.keys[i] = value;
            numbers.values[i] = value;
        }
        let (keys, values) = numbers.store(scalar(), &case);
        let read = |bytes: &[u8], at: usize, dtype| match dtype {
            DataType::F32 => f32::from_le_bytes(bytes[4 * at..4 * at + 4].try_into().unwrap()),
            _ => f16_to_f32(u16::from_le_bytes(bytes[2 * at..2 * at + 2].try_into().unwrap())),
        };
        let (dim, padded) = (case.head_dim, value_dim(case.head_dim));
        for position in 0..case.key_count {
            for i in 0..dim {
                let key = read(
                    &keys,
                    (position / LANES * dim + i) * LANES + position % LANES,
                    case.key_type,
                );
                let expected = rounded(numbers.keys[position * dim + i], case.key_type);
                assert_eq!(key.to_bits(), expected.to_bits());
            }
            for i in 0..padded {
                let value = read(&values, position * padded + i, case.value_type);
                let expected = if i < dim {
                    numbers.values[position * dim + i]
                } else {
                    0.0
                };
                assert_eq!(value.to_bits(), rounded(expected, case.value_type).to_bits());
            }
        }
        for (name, kernels) in others() {
            let (other_keys, other_values) = numbers.store(kernels, &case);
            assert!(
                *other_keys == *keys && *other_values == *values,
                "{name}, {case:?}"
            );
        }
    }
}
