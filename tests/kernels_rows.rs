//! Quantized rows of activations: the documented bounds, what is not finite, and the same bits on every instruction set.

#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

mod kernels_support;

use kernels_support::*;
use mantle::base::matrix::MatrixMut;
use mantle::kernels::Kernels;
use mantle::kernels::affine::RowCodes;
use mantle::ops::activation_rows::{self, RowForm};
use mantle::ops::runtime::{Runtime, RuntimeOptions};
use mantle::quant::activations::Form;

const KINDS: [RowCodes; 3] = [RowCodes::Symmetric8, RowCodes::Affine8, RowCodes::Affine4];

/// Rows that are ordinary, on one side of zero, far from it, constant, tiny, huge, or hold what is not finite.
fn row(length: usize, kind: usize, random: &mut Random) -> Guarded<f32> {
    let mut row = Guarded::new(length);
    let (offset, size) = match kind {
        0 => (0.0, 1.0),
        1 => (5.0, 3.0),
        2 => (-1000.0, 0.5),
        3 => (random.signed(), 0.0),
        4 => (0.0, 1e-38),
        5 => (0.0, f32::MAX),
        6 => (3e38, 1e37),
        _ => (0.5, 40.0),
    };
    row.iter_mut()
        .for_each(|value| *value = offset + random.signed() * size);
    match kind {
        7 => row[random.within(0..=length - 1)] = f32::NAN,
        8 => row[random.within(0..=length - 1)] = f32::NEG_INFINITY,
        9 => row.fill(0.0),
        _ => {}
    }
    row
}

fn largest_code(kind: RowCodes) -> f32 {
    if kind == RowCodes::Affine4 { 7.0 } else { 127.0 }
}

fn codes_of(kind: RowCodes, bytes: &[u8], length: usize) -> Vec<i8> {
    let code = |i: usize| match kind {
        RowCodes::Affine4 => ((bytes[i / 2] >> (4 * (i % 2))) << 4) as i8 >> 4,
        _ => bytes[i] as i8,
    };
    (0..length).map(code).collect()
}

#[test]
fn rows_keep_within_half_a_step_with_the_same_bits_on_every_table() {
    let mut random = Random(1);
    for case in 0..600 {
        let length = if case < 80 {
            case + 1
        } else {
            random.within(1..=700)
        };
        let x = row(length, case % 11, &mut random);
        for kind in KINDS {
            let mut codes = Guarded::new(kind.bytes(length));
            codes.fill(0xa5);
            let (scale, zero) = scalar().quantize_codes(kind, &x, &mut codes);
            for (name, kernels) in others() {
                let mut other = Guarded::new(kind.bytes(length));
                let (other_scale, other_zero) = kernels.quantize_codes(kind, &x, &mut other);
                assert_eq!(other.to_vec(), codes.to_vec(), "{name}: {kind:?}, {length}");
                assert!(
                    same(other_scale, scale) && same(other_zero, zero),
                    "{name}: {kind:?}"
                );
            }
            let found = codes_of(kind, &codes, length);
            if x.iter().any(|value| !value.is_finite()) {
                assert!(scale.is_nan() && found.iter().all(|&code| code == 0));
                continue;
            }
            let largest = largest_code(kind);
            if kind == RowCodes::Affine4 && length % 2 == 1 {
                assert_eq!(codes[length / 2] >> 4, 0, "behind the end");
            }
            let (low, high) = x.iter().fold((x[0], x[0]), |(l, h), &v| (l.min(v), h.max(v)));
            let magnitude = low.abs().max(high.abs());
            let constant = kind != RowCodes::Symmetric8
                && (f64::from(high) - f64::from(low)) / f64::from(2.0 * largest) < 1.4e-36;
            for (&value, &code) in x.iter().zip(&found) {
                assert!(f32::from(code).abs() <= largest, "code {code}");
                let restored = f64::from(scale) * (f64::from(code) - f64::from(zero));
                // Half a step, and what f32 cannot tell apart at this distance from zero.
                let step = if constant { 1e-33 } else { f64::from(scale).abs() };
                let bound = step * 0.501 + f64::from(magnitude) * 4e-7 + 2e-34;
                assert!(
                    (restored - f64::from(value)).abs() <= bound,
                    "{kind:?}, row {}: {value:e} as {restored:e}, scale {scale:e}, zero {zero}",
                    case % 11
                );
            }
        }
    }
}

#[test]
fn rows_of_every_form_stand_for_what_they_round_to() {
    let mut random = Random(2);
    for threads in [1, 3] {
        let options = RuntimeOptions {
            threads,
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::new(options).unwrap();
        for (rows, columns) in [(1, 1), (3, 31), (2, 33), (7, 256), (5, 300), (40, 1000)] {
            let stride = columns + 3;
            let x: Vec<f32> = (0..rows * stride).map(|_| random.signed() * 9.0 + 2.0).collect();
            let forms = KINDS.map(RowForm::Row).into_iter().chain([RowForm::Blocks]);
            for form in forms {
                let mut data = vec![0; rows * form.row_bytes(columns).unwrap()];
                activation_rows::quantize(&runtime, form, &x, columns, stride, &mut data).unwrap();
                let mut found = vec![0.0; rows * columns];
                let values = MatrixMut::new(&mut found, rows, columns, columns).unwrap();
                activation_rows::dequantize(&runtime, form, &data, values).unwrap();
                for (found, x) in found.chunks(columns).zip(x.chunks(stride)) {
                    check_row(form, &data, found, &x[..columns]);
                }
            }
        }
    }
}

fn check_row(form: RowForm, data: &[u8], found: &[f32], x: &[f32]) {
    let step = match form {
        RowForm::Row(RowCodes::Affine4) => 18.0 / 14.0,
        RowForm::Row(RowCodes::Affine8) => 18.0 / 254.0,
        RowForm::Row(RowCodes::Symmetric8) => 11.0 / 127.0,
        // Rounded up to two bits of mantissa.
        RowForm::Blocks => 11.0 * 1.25 / 126.93,
    };
    for (&found, &x) in found.iter().zip(x) {
        assert!((found - x).abs() <= step * 0.51, "{form:?}: {x} as {found}");
    }
    if form == RowForm::Blocks && data.len() == form.row_bytes(x.len()).unwrap() {
        let prepared = Prepared::new(scalar(), Form::Codes, x, 1, x.len());
        for (&found, expected) in found.iter().zip(prepared.values()) {
            assert!(
                (f64::from(found) - expected).abs() < 1e-5,
                "{found} for {expected}"
            );
        }
    }
}

#[test]
fn no_values_are_no_work() {
    for (name, kernels) in Kernels::every() {
        for kind in KINDS {
            assert_eq!(kernels.quantize_codes(kind, &[], &mut []), (0.0, 0.0), "{name}");
        }
    }
}
