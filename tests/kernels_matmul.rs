//! Matrix products of every packed type on every instruction set of this CPU: the bits are those of scalar, scalar's
//! values are those of a float64 product, and nothing is read or written out of bounds.

#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

mod kernels_support;

use kernels_support::*;
use mantle::format::dtype::DataType;
use mantle::kernels::Kernels;
use mantle::quant::activations::Form;
use mantle::quant::convert::bf16_to_f32;
use mantle::quant::packed::{BLOCK, PANEL};

/// Rows, columns and tokens: the corners, then random ones.
fn shapes(dtype: DataType, random: &mut Random) -> Vec<(usize, usize, usize)> {
    let mut shapes = vec![
        (1, 1, 1),
        (16, 32, 1),
        (17, 33, 2),
        (33, 257, 7),
        (32, 64, 6),
        (40, 700, 33),
    ];
    for _ in 0..24 {
        shapes.push((
            random.within(1..=40),
            random.within(1..=700),
            random.within(1..=33),
        ));
    }
    for (_, columns, _) in &mut shapes {
        *columns = columns.next_multiple_of(dtype.block_length());
    }
    shapes
}

/// Activations of very different sizes, with blocks of zeros and of values too small to be quantized.
fn random_inputs(count: usize, random: &mut Random) -> Vec<f32> {
    let mut size = 1.0;
    (0..count)
        .map(|i| {
            if i % BLOCK == 0 {
                size = match random.within(0..=9) {
                    0 => 0.0,
                    1 => 1e-37,
                    2 => 1e-30,
                    _ => 4f32.powi(random.within(0..=8) as i32 - 4),
                };
            }
            random.signed() * size
        })
        .collect()
}

#[test]
fn every_table_gives_the_bits_of_scalar_in_every_shape() {
    for dtype in packable() {
        let mut random = Random(u64::from(dtype as u32));
        for (rows, columns, tokens) in shapes(dtype, &mut random) {
            let what = format!("{} {rows} x {columns}, {tokens} tokens", dtype.name());
            let stored = random_weights(dtype, rows, columns, true, &mut random);
            let weights = pack(dtype, &stored, rows, columns);
            let x = random_inputs(tokens * columns, &mut random);
            let bias: Vec<f32> = (0..rows).map(|_| random.signed()).collect();
            let before: Vec<f32> = (0..tokens * rows).map(|_| random.signed()).collect();
            let prepared = Prepared::new(scalar(), Form::of(dtype), &x, tokens, columns);
            let every = 0..weights.panels();
            let plain = multiply(scalar(), &weights, every.clone(), &prepared.view(), None, None);
            for (name, kernels) in Kernels::every() {
                let what = format!("{what}, {name}");
                let prepared = Prepared::new(kernels, Form::of(dtype), &x, tokens, columns);
                for (row_bias, before) in [
                    (None, None),
                    (Some(&bias[..]), None),
                    (None, Some(&before[..])),
                    (Some(&bias[..]), Some(&before[..])),
                ] {
                    // First the bias, then what was there: two roundings in this order.
                    let mut expected = plain.clone();
                    for (i, value) in expected.iter_mut().enumerate() {
                        *value += row_bias.map_or(0.0, |bias| bias[i % rows]);
                        *value += before.map_or(0.0, |before| before[i]);
                    }
                    let found = multiply(
                        kernels,
                        &weights,
                        every.clone(),
                        &prepared.view(),
                        row_bias,
                        before,
                    );
                    assert_same(&what, &found, &expected);
                }
                let start = random.within(0..=weights.panels() - 1);
                let some = start..random.within(start + 1..=weights.panels());
                let found = multiply(kernels, &weights, some.clone(), &prepared.view(), None, None);
                let columns = some.start * PANEL..(some.end * PANEL).min(rows);
                let expected: Vec<f32> = plain
                    .chunks_exact(rows)
                    .flat_map(|row| &row[columns.clone()])
                    .copied()
                    .collect();
                assert_same(&format!("{what}, panels {some:?}"), &found, &expected);
            }
        }
    }
}

#[test]
fn a_token_has_the_same_bits_alone_and_among_others() {
    for dtype in packable() {
        let mut random = Random(100 + u64::from(dtype as u32));
        let (rows, columns, tokens) = (35, 96usize.next_multiple_of(dtype.block_length()), 33);
        let stored = random_weights(dtype, rows, columns, true, &mut random);
        let weights = pack(dtype, &stored, rows, columns);
        let x = random_inputs(tokens * columns, &mut random);
        for (name, kernels) in Kernels::every() {
            let together = Prepared::new(kernels, Form::of(dtype), &x, tokens, columns);
            let together = multiply(kernels, &weights, 0..3, &together.view(), None, None);
            let mut token = 0;
            for count in [1, 2, 3, 4, 5, 6, 7, 5] {
                let part = &x[token * columns..(token + count) * columns];
                let part = Prepared::new(kernels, Form::of(dtype), part, count, columns);
                let found = multiply(kernels, &weights, 0..3, &part.view(), None, None);
                let expected = &together[token * rows..(token + count) * rows];
                assert_same(
                    &format!("{} {name}, {count} tokens", dtype.name()),
                    &found,
                    expected,
                );
                token += count;
            }
            assert_eq!(token, tokens);
        }
    }
}

/// Sums over one row and token: of the products, and of the largest that rounding errors can be.
struct Reference {
    /// With the activations as the kernel sees them.
    rounded: f64,
    rounding: f64,
    /// With the activations as they were.
    exact: f64,
    exact_rounding: f64,
}

fn reference(dtype: DataType, w: &[f32], x: &[f32], rounded: &[f64]) -> Reference {
    let mut sums = Reference {
        rounded: 0.0,
        rounding: 0.0,
        exact: 0.0,
        exact_rounding: 0.0,
    };
    let form = Form::of(dtype);
    let mut magnitude = 0.0;
    for (from, w) in w.chunks(BLOCK).enumerate().map(|(b, w)| (b * BLOCK, w)) {
        let (x, rounded) = (&x[from..from + w.len()], &rounded[from..from + w.len()]);
        let largest = x.iter().fold(0f64, |a, &b| a.max(f64::from(b.abs())));
        // A block's code and minimum may each be larger than their sum: then the block's largest weight is the measure.
        let largest_weight = w.iter().fold(0f64, |a, &b| a.max(f64::from(b.abs())));
        for ((&w, &x), &rounded) in w.iter().zip(x).zip(rounded) {
            let (w, x) = (f64::from(w), f64::from(x));
            sums.rounded += w * rounded;
            sums.exact += w * x;
            let weight = if form == Form::Codes {
                4.0 * largest_weight
            } else {
                w.abs()
            };
            magnitude += weight * rounded.abs();
            sums.exact_rounding += w.abs()
                * match form {
                    // Half a step of absmax / 127; a block below 1.5e-36 is zero.
                    Form::Codes => largest / 254.0 * 1.0001 + if largest < 1.6e-36 { largest } else { 0.0 },
                    Form::F32 => 0.0,
                    // Half of the last of 8 bits, or a denormal taken as zero.
                    Form::Bf16 => x.abs() / 256.0 + 1.2e-38,
                };
        }
    }
    let steps = if form == Form::Codes {
        3 * w.len().div_ceil(BLOCK)
    } else {
        w.len()
    };
    sums.rounding = magnitude * (steps + 2) as f64 * 2f64.powi(-24) + 1e-36;
    sums.exact_rounding += sums.rounding;
    sums
}

#[test]
fn scalar_is_within_the_error_bounds_of_a_float64_product() {
    for dtype in packable() {
        let mut random = Random(200 + u64::from(dtype as u32));
        for (rows, columns, tokens) in shapes(dtype, &mut random) {
            let stored = random_weights(dtype, rows, columns, true, &mut random);
            let weights = pack(dtype, &stored, rows, columns);
            let x = random_inputs(tokens * columns, &mut random);
            let prepared = Prepared::new(scalar(), Form::of(dtype), &x, tokens, columns);
            let found = multiply(
                scalar(),
                &weights,
                0..weights.panels(),
                &prepared.view(),
                None,
                None,
            );
            let (w, rounded) = (decode(dtype, &stored, rows * columns), prepared.values());
            for (i, &found) in found.iter().enumerate() {
                let (row, token) = (i % rows * columns, i / rows * columns);
                let expected = reference(
                    dtype,
                    &w[row..row + columns],
                    &x[token..token + columns],
                    &rounded[token..token + columns],
                );
                let what = format!(
                    "{} {rows} x {columns}, token {}, row {}",
                    dtype.name(),
                    i / rows,
                    i % rows
                );
                let error = (f64::from(found) - expected.rounded).abs();
                assert!(
                    error <= expected.rounding,
                    "{what}: {found} for {}",
                    expected.rounded
                );
                let error = (f64::from(found) - expected.exact).abs();
                assert!(
                    error <= expected.exact_rounding,
                    "{what}: {found} for {}",
                    expected.exact
                );
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_and_is_the_same_everywhere() {
    for dtype in packable() {
        let mut random = Random(300 + u64::from(dtype as u32));
        let mut seen = 0;
        for _ in 0..12 {
            let (rows, tokens) = (random.within(1..=40), random.within(1..=9));
            let columns = random.within(1..=300).next_multiple_of(dtype.block_length());
            // Any bytes: scales and values are NaN, infinite, denormal or huge.
            let mut stored = random_weights(dtype, rows, columns, true, &mut random);
            let row_bytes = stored.len() / rows;
            for row in stored.chunks_exact_mut(row_bytes).step_by(2) {
                let block = random.within(0..=columns / dtype.block_length() - 1) * dtype.block_bytes();
                let wild = random_weights(dtype, 1, dtype.block_length(), false, &mut random);
                row[block..block + wild.len()].copy_from_slice(&wild);
            }
            let weights = pack(dtype, &stored, rows, columns);
            let mut x = random_inputs(tokens * columns, &mut random);
            for row in x.chunks_exact_mut(columns).skip(1).step_by(2) {
                let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-40, -0.0];
                row[random.within(0..=columns - 1)] = special[random.within(0..=5)];
            }
            let prepared = Prepared::new(scalar(), Form::of(dtype), &x, tokens, columns);
            let found = multiply(
                scalar(),
                &weights,
                0..weights.panels(),
                &prepared.view(),
                None,
                None,
            );
            let w = decode(dtype, &stored, rows * columns);
            for (i, &value) in found.iter().enumerate() {
                let (w, x) = (
                    &w[i % rows * columns..][..columns],
                    &x[i / rows * columns..][..columns],
                );
                // Scales of MXFP4 are finite; its largest weights overflow f32 only when decoded one by one.
                let w = if dtype == DataType::MXFP4 { &[] } else { w };
                if !w.iter().chain(x).all(|value| value.is_finite()) {
                    assert!(
                        !value.is_finite(),
                        "{} hides a NaN or an infinity: {value}",
                        dtype.name()
                    );
                    seen += 1;
                }
            }
            for (name, kernels) in others() {
                let prepared = Prepared::new(kernels, Form::of(dtype), &x, tokens, columns);
                let other = multiply(
                    kernels,
                    &weights,
                    0..weights.panels(),
                    &prepared.view(),
                    None,
                    None,
                );
                assert_same(&format!("{} {name}", dtype.name()), &other, &found);
            }
        }
        assert!(seen > 0, "{}: no value was NaN or infinite", dtype.name());
    }
}

/// A bf16 of the kinds that a dot product may stumble over.
fn bf16_case(random: &mut Random) -> u16 {
    let bits = random.bits() as u16;
    match random.within(0..=9) {
        0 => bits & 0x8000,                     // zero
        1 => bits & 0x807f,                     // denormal
        2 => bits & 0x80ff | 0x0080,            // the smallest normals
        3 if random.chance(8) => bits | 0x7f80, // infinity or NaN
        4 => bits & 0x9fff | 0x2000,            // tiny: products are denormal
        5 | 6 => bits & 0x81ff | 0x3f00,        // about 1: sums cancel
        _ => bits,
    }
}

/// One case a row and token: a sum of three bf16 (any f32 that is normal), then a pair of products on top.
fn compare_dots(sums: &[f32], pairs: &[[u16; 2]], inputs: &[[u16; 2]]) {
    let (rows, columns) = (sums.len(), BLOCK);
    let mut stored = vec![0u8; rows * columns * 2];
    for ((row, sum), pair) in stored.chunks_exact_mut(columns * 2).zip(sums).zip(pairs) {
        let mut left = *sum;
        let parts = [(); 3].map(|()| {
            let part = (left.to_bits() >> 16) as u16;
            left -= bf16_to_f32(part);
            part
        });
        for (to, part) in row.chunks_exact_mut(2).zip(parts.iter().chain([&0]).chain(pair)) {
            to.copy_from_slice(&part.to_le_bytes());
        }
    }
    let weights = pack(DataType::BF16, &stored, rows, columns);
    let mut x = vec![0f32; inputs.len() * columns];
    for (row, pair) in x.chunks_exact_mut(columns).zip(inputs) {
        row[..3].fill(1.0);
        row[4] = bf16_to_f32(pair[0]);
        row[5] = bf16_to_f32(pair[1]);
    }
    let prepared = Prepared::new(scalar(), Form::Bf16, &x, inputs.len(), columns);
    let expected = multiply(
        scalar(),
        &weights,
        0..weights.panels(),
        &prepared.view(),
        None,
        None,
    );
    for (name, kernels) in others() {
        let found = multiply(
            kernels,
            &weights,
            0..weights.panels(),
            &prepared.view(),
            None,
            None,
        );
        for (i, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
            let (row, token) = (i % rows, i / rows);
            assert!(
                same(found, expected),
                "{name}: {:e} + {:x?} . {:x?} is {found:e} ({:08x}), scalar {expected:e} ({:08x})",
                sums[row],
                pairs[row],
                inputs[token],
                found.to_bits(),
                expected.to_bits()
            );
        }
    }
}

#[test]
fn bf16_products_are_emulated_to_the_bit() {
    let mut random = Random(400);
    for _ in 0..1000 {
        let sums: Vec<f32> = (0..64)
            .map(|_| match random.within(0..=3) {
                0 => 0.0,
                1 => f32::from_bits(random.bits() as u32 & 0x83ff_ffff),
                2 => random.signed(),
                _ => f32::from_bits(random.bits() as u32 & 0xbfff_ffff),
            })
            .collect();
        let pairs: Vec<[u16; 2]> = (0..64)
            .map(|_| [(); 2].map(|()| bf16_case(&mut random)))
            .collect();
        let inputs: Vec<[u16; 2]> = (0..48)
            .map(|_| [(); 2].map(|()| bf16_case(&mut random)))
            .collect();
        compare_dots(&sums, &pairs, &inputs);
    }
}

/// Sums next to the smallest normal number and products of about half a step there: whether a result counts as
/// denormal may depend on when it is rounded.
#[test]
fn bf16_sums_at_the_edge_of_the_denormals_are_emulated_to_the_bit() {
    let mut random = Random(500);
    for _ in 0..100 {
        let sums: Vec<f32> = (0..64)
            .map(|_| {
                let step = random.within(0..=3) as u32;
                let sign = (random.bits() as u32) & 0x8000_0000;
                f32::from_bits((0x0080_0000 + step) | sign)
            })
            .collect();
        // 2^-60 to 2^-70 times about 2^-86: 2^-146 to 2^-156, where 2^-149 is a step of the denormals.
        let near = |random: &mut Random, exponent: usize| {
            let bits = random.bits() as u16 & 0x807f;
            bits | (exponent as u16) << 7
        };
        let pairs: Vec<[u16; 2]> = (0..64)
            .map(|_| {
                [(); 2].map(|()| {
                    let e = random.within(57..=67);
                    near(&mut random, e)
                })
            })
            .collect();
        let inputs: Vec<[u16; 2]> = (0..48).map(|_| [(); 2].map(|()| near(&mut random, 41))).collect();
        compare_dots(&sums, &pairs, &inputs);
    }
}

#[test]
fn rows_of_a_packed_matrix_are_those_of_the_stored_one() {
    for dtype in packable() {
        let mut random = Random(600 + u64::from(dtype as u32));
        for finite in [true, false] {
            for (rows, columns, _) in shapes(dtype, &mut random) {
                let stored = random_weights(dtype, rows, columns, finite, &mut random);
                let weights = pack(dtype, &stored, rows, columns);
                let expected = decode(dtype, &stored, rows * columns);
                let mut row = vec![0.0; columns];
                for (r, expected) in expected.chunks_exact(columns).enumerate() {
                    weights.row(r, &mut row).unwrap();
                    let what = format!("{} {rows} x {columns}, row {r}", dtype.name());
                    assert_same(&what, &row, expected);
                }
                assert!(weights.row(rows, &mut row).is_err());
                assert!(weights.row(0, &mut row[1..]).is_err());
            }
        }
    }
}
