//! MCF's quantized payloads: against a reader that follows the format page bit by bit, round trips, bad arguments.

use mantle::base::error::Status;
use mantle::quant::scalar::{McfLayout, McfType};
use proptest::prelude::*;

/// Bit by bit, as the format page says: offsets, regions, two's complement.
fn value_by_definition(
    kind: McfType,
    rows: usize,
    columns: usize,
    payload: &[u8],
    row: usize,
    column: usize,
) -> f32 {
    let (bits, has_super_blocks) = match kind {
        McfType::Q8 => (8, false),
        McfType::Q4 => (4, false),
        McfType::K6 => (6, true),
        McfType::K4 => (4, true),
        McfType::K3 => (3, true),
        McfType::K2 => (2, true),
    };
    let blocks = columns.div_ceil(32);
    let supers = blocks.div_ceil(8);
    let aligned = |at: usize| at.div_ceil(64) * 64;
    let f16 = |index: usize| half::f16::from_le_bytes([payload[2 * index], payload[2 * index + 1]]).to_f64();
    let block = row * blocks + column / 32;
    let (factor, codes) = if has_super_blocks {
        let sub_scales = aligned(rows * supers * 2);
        let sub_scale = f64::from(payload[sub_scales + block] % 64) / 32.0;
        (
            f16(row * supers + column / 256) * sub_scale,
            aligned(sub_scales + rows * blocks),
        )
    } else {
        (f16(block), aligned(rows * blocks * 2))
    };
    let first = (block * 32 + column % 32) * bits;
    let bit = |i: usize| i32::from(payload[codes + i / 8] >> (i % 8) & 1);
    let mut code: i32 = (0..bits).map(|i| bit(first + i) << i).sum();
    if code >= 1 << (bits - 1) {
        code -= 1 << bits;
    }
    (factor * f64::from(code)) as f32
}

fn decode(layout: &McfLayout, payload: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; layout.rows * layout.columns];
    for (row, values) in values.chunks_mut(layout.columns).enumerate() {
        layout.dequantize_row(payload, row, values).unwrap();
    }
    values
}

fn encode(layout: &McfLayout, values: &[f32]) -> Vec<u8> {
    let mut payload = vec![0; layout.bytes()];
    for (row, values) in values.chunks(layout.columns).enumerate() {
        layout.quantize_row(values, &mut payload, row).unwrap();
    }
    payload
}

#[test]
fn sizes_are_those_of_files_by_another_writer() {
    // Tensors of all-MiniLM-L6-v2, written by an independent implementation of MCF.
    for (kind, rows, columns, bytes) in [
        (McfType::Q4, 512, 384, 110_592),
        (McfType::Q4, 2, 384, 448),
        (McfType::Q4, 30_522, 384, 6_592_768),
        (McfType::K3, 512, 384, 81_920),
        (McfType::K3, 2, 384, 416),
        (McfType::K3, 30_522, 384, 4_883_552),
        (McfType::K3, 384, 1536, 244_224),
    ] {
        let layout = McfLayout::new(kind, rows, columns).unwrap();
        assert_eq!(layout.bytes(), bytes, "{} {rows} x {columns}", kind.name());
    }
}

#[test]
fn numbers_name_types() {
    for kind in McfType::ALL {
        assert_eq!(McfType::from_number(kind.number()), Some(kind));
    }
    assert_eq!(McfType::from_number(0x32), Some(McfType::K3));
    assert_eq!(McfType::from_number(0x22), None);
}

#[test]
fn wrong_arguments_are_errors() {
    for kind in McfType::ALL {
        assert!(McfLayout::new(kind, usize::MAX / 2, 64).is_err());
        assert!(McfLayout::new(kind, 1 << 40, 1 << 40).is_err());
        assert!(McfLayout::new(kind, 8, usize::MAX).is_err());
        assert_eq!(McfLayout::new(kind, 0, 100).unwrap().bytes(), 0);
        let layout = McfLayout::new(kind, 3, 70).unwrap();
        let mut payload = vec![0; layout.bytes()];
        let mut values = vec![0.0; 70];
        let errors = [
            layout.dequantize_row(&payload[1..], 0, &mut values).unwrap_err(),
            layout.dequantize_row(&payload, 3, &mut values).unwrap_err(),
            layout.dequantize_row(&payload, 0, &mut values[1..]).unwrap_err(),
            layout.quantize_row(&values, &mut payload[1..], 0).unwrap_err(),
            layout.quantize_row(&values, &mut payload, 3).unwrap_err(),
            layout.quantize_row(&values[1..], &mut payload, 0).unwrap_err(),
            layout.split(&payload[1..], 0, 0).unwrap_err(),
            layout.split(&payload, 3, 0).unwrap_err(),
            layout.split(&payload, 0, 3).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.status(), Status::InvalidArgument, "{error}");
        }
    }
}

#[test]
fn not_finite_values_spoil_their_block_only() {
    for kind in McfType::ALL {
        let layout = McfLayout::new(kind, 2, 512).unwrap();
        let length = if kind.has_super_blocks() { 256 } else { 32 };
        let mut values: Vec<f32> = (0..1024).map(|i| (i % 37) as f32 - 18.0).collect();
        values[512 + length + 3] = f32::NAN;
        let decoded = decode(&layout, &encode(&layout, &values));
        for (i, decoded) in decoded.chunks(length).enumerate() {
            let finite = decoded.iter().all(|value| value.is_finite());
            assert_eq!(finite, i != 512 / length + 1, "{} block {i}", kind.name());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn decoding_follows_the_definition(rows in 1_usize..5, columns in 1_usize..600, seed in any::<u64>()) {
        for kind in McfType::ALL {
            let layout = McfLayout::new(kind, rows, columns).unwrap();
            let mut state = seed;
            let payload: Vec<u8> = (0..layout.bytes()).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            }).collect();
            for (i, found) in decode(&layout, &payload).into_iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let expected = value_by_definition(kind, rows, columns, &payload, row, column);
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                prop_assert!(same, "{} {row} {column}: {found} {expected}", kind.name());
                let block = layout.split(&payload, row, column / 32).unwrap();
                let code = i32::from(block.codes[column % 32]) - i32::from(kind.code_offset());
                let split = block.factor() * code as f32;
                prop_assert!(split == found || split.is_nan() && found.is_nan());
            }
        }
    }

    #[test]
    fn round_trips_stay_within_the_error_of_the_type(
        columns in 1_usize..300,
        values in prop::collection::vec(-1.0_f32..1.0, 600),
        exponent in -10..10_i32,
    ) {
        let values: Vec<f32> = values[..2 * columns].iter().map(|value| value * 2.0_f32.powi(exponent)).collect();
        for kind in McfType::ALL {
            let layout = McfLayout::new(kind, 2, columns).unwrap();
            let payload = encode(&layout, &values);
            let decoded = decode(&layout, &payload);
            let largest = (1 << (kind.code_bits() - 1)) - 1;
            let length = if kind.has_super_blocks() { 256 } else { 32 };
            let rows = values.chunks(columns).zip(decoded.chunks(columns));
            for (values, decoded) in rows.flat_map(|(a, b)| a.chunks(length).zip(b.chunks(length))) {
                // The whole block's squared error is at most that of plain rounding with the largest magnitude on
                // the largest level; some slack for the rounding of scale and sub-scale.
                let magnitude = values.iter().fold(0.0_f32, |magnitude, value| magnitude.max(value.abs()));
                let half_step = f64::from(magnitude) / f64::from(largest) / 2.0;
                let error: f64 = values.iter().zip(decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                let bound = (half_step * 1.05 + f64::from(magnitude) / 500.0 + 1e-5).powi(2) * values.len() as f64;
                prop_assert!(error <= bound, "{}: {error} {bound}", kind.name());
            }
            // Writers leave the most negative code and the padding alone.
            for row in 0..2 {
                for block in 0..layout.blocks_per_row() {
                    let parts = layout.split(&payload, row, block).unwrap();
                    prop_assert!(parts.codes.iter().all(|code| *code > 0));
                    for (i, code) in parts.codes.iter().enumerate() {
                        prop_assert!(block * 32 + i < columns || *code == kind.code_offset());
                    }
                }
            }
        }
    }
}
