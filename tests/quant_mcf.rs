//! MCF's quantized payloads: against a reader that follows the format page bit by bit, round trips, bad arguments.

use mantle::base::error::Status;
use mantle::format::dtype::DataType;
use mantle::format::mcf::regions::{Regions, code_bits};
use mantle::quant::scalar::{BlockLayout, BlockParts, dequantize_row, quantize_row};
use proptest::prelude::*;

/// Bit by bit, as the format page says: offsets, regions, two's complement.
fn value_by_definition(
    kind: DataType,
    rows: usize,
    columns: usize,
    payload: &[u8],
    row: usize,
    column: usize,
) -> f32 {
    let (bits, has_super_blocks) = match kind {
        DataType::Q8 => (8, false),
        DataType::Q4 => (4, false),
        DataType::K6 => (6, true),
        DataType::K4 => (4, true),
        DataType::K3 => (3, true),
        _ => (2, true),
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

/// The types that lie in regions.
const TYPES: [DataType; 6] = [
    DataType::Q8,
    DataType::Q4,
    DataType::K6,
    DataType::K4,
    DataType::K3,
    DataType::K2,
];

/// A payload as rows of blocks.
fn gather(kind: DataType, rows: usize, columns: usize, payload: &[u8]) -> Vec<u8> {
    let regions = Regions::new(kind, rows, columns).unwrap();
    let mut blocks = vec![0; rows * kind.row_bytes(columns).unwrap()];
    let parts = regions.of_rows(0, rows).map(|range| &payload[range]);
    regions.gather(parts, &mut blocks);
    blocks
}

fn decode(kind: DataType, rows: usize, columns: usize, payload: &[u8]) -> Vec<f32> {
    let row_bytes = kind.row_bytes(columns).unwrap();
    let blocks = gather(kind, rows, columns, payload);
    let mut values = vec![0.0; rows * columns];
    for (row, values) in blocks.chunks(row_bytes).zip(values.chunks_mut(columns)) {
        dequantize_row(kind, row, values).unwrap();
    }
    values
}

fn encode(kind: DataType, columns: usize, values: &[f32]) -> Vec<u8> {
    let rows = values.len() / columns;
    let mut blocks = Vec::new();
    for values in values.chunks(columns) {
        let mut row = vec![0; kind.row_bytes(columns).unwrap()];
        quantize_row(kind, values, &mut row).unwrap();
        blocks.extend(row);
    }
    let regions = Regions::new(kind, rows, columns).unwrap();
    let mut payload = vec![0; regions.bytes()];
    let (scales, rest) = payload.split_at_mut(regions.sub_scales.start);
    let (sub_scales, codes) = rest.split_at_mut(regions.codes.start - regions.sub_scales.start);
    let scales = &mut scales[regions.scales.clone()];
    regions.scatter(&blocks, [scales, sub_scales, codes]);
    payload
}

#[test]
fn sizes_are_those_of_files_by_another_writer() {
    // Tensors of all-MiniLM-L6-v2, written by an independent implementation of MCF.
    for (kind, rows, columns, bytes) in [
        (DataType::Q4, 512, 384, 110_592),
        (DataType::Q4, 2, 384, 448),
        (DataType::Q4, 30_522, 384, 6_592_768),
        (DataType::K3, 512, 384, 81_920),
        (DataType::K3, 2, 384, 416),
        (DataType::K3, 30_522, 384, 4_883_552),
        (DataType::K3, 384, 1536, 244_224),
    ] {
        let regions = Regions::new(kind, rows, columns).unwrap();
        assert_eq!(regions.bytes(), bytes, "{} {rows} x {columns}", kind.name());
    }
}

#[test]
fn impossible_sizes_are_errors() {
    for kind in TYPES {
        for (rows, columns) in [(usize::MAX / 2, 64), (1 << 40, 1 << 40), (8, usize::MAX)] {
            let error = Regions::new(kind, rows, columns).unwrap_err();
            assert_eq!(error.status(), Status::InvalidArgument, "{error}");
        }
        assert_eq!(Regions::new(kind, 0, 100).unwrap().bytes(), 0);
        assert_eq!(Regions::new(kind, 100, 0).unwrap().bytes(), 0);
    }
    assert!(Regions::new(DataType::Q8_0, 1, 32).is_err());
}

#[test]
fn not_finite_values_spoil_their_block_only() {
    for kind in TYPES {
        let length = kind.block_length();
        let mut values: Vec<f32> = (0..1024).map(|i| (i % 37) as f32 - 18.0).collect();
        values[512 + length + 3] = f32::NAN;
        let decoded = decode(kind, 2, 512, &encode(kind, 512, &values));
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
        for kind in TYPES {
            let mut state = seed;
            let payload: Vec<u8> = (0..Regions::new(kind, rows, columns).unwrap().bytes()).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            }).collect();
            for (i, found) in decode(kind, rows, columns, &payload).into_iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let expected = value_by_definition(kind, rows, columns, &payload, row, column);
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                prop_assert!(same, "{} {row} {column}: {found} {expected}", kind.name());
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
        for kind in TYPES {
            let payload = encode(kind, columns, &values);
            let decoded = decode(kind, 2, columns, &payload);
            let bits = code_bits(kind).unwrap();
            let largest = (1 << (bits - 1)) - 1;
            let length = kind.block_length();
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
            let layout = BlockLayout::of(kind).unwrap();
            let mut parts = BlockParts::default();
            let row_bytes = kind.row_bytes(columns).unwrap();
            for row in gather(kind, 2, columns, &payload).chunks(row_bytes) {
                for (b, block) in row.chunks(kind.block_bytes()).enumerate() {
                    layout.split(block, &mut parts).unwrap();
                    // Blocks behind the row's last one are not stored.
                    let stored = columns.next_multiple_of(32) - b * length;
                    for (i, &code) in parts.codes[..length.min(stored)].iter().enumerate() {
                        prop_assert!(code > 0, "{}", kind.name());
                        prop_assert!(b * length + i < columns || code == 1 << (bits - 1));
                    }
                }
            }
        }
    }
}
