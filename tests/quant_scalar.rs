//! Scalar encode and decode against the Python package `gguf` (files of tests/tools/quant_reference.py),
//! conversions against the `half` crate, and properties that hold for any input.

use mantle::base::error::Status;
use mantle::format::dtype::DataType;
use mantle::quant::convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use mantle::quant::scalar::{BlockLayout, BlockParts, dequantize_row, quantize_row};
use proptest::prelude::*;
use std::path::PathBuf;

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/quant")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_f32(bytes: &[u8]) -> Vec<f32> {
    let (numbers, rest) = bytes.as_chunks();
    assert!(rest.is_empty());
    numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn encode(dtype: DataType, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; dtype.row_bytes(values.len()).unwrap()];
    quantize_row(dtype, values, &mut bytes).unwrap();
    bytes
}

fn decode(dtype: DataType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_length()];
    dequantize_row(dtype, bytes, &mut values).unwrap();
    values
}

/// Equal bits; any NaN equals any other.
fn assert_same(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}: count");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
            "{what}: value {i} is {found:e}, expected {expected:e}"
        );
    }
}

/// The types that `gguf` decodes.
const DECODED: [DataType; 26] = [
    DataType::F32,
    DataType::F16,
    DataType::BF16,
    DataType::Q4_0,
    DataType::Q4_1,
    DataType::Q5_0,
    DataType::Q5_1,
    DataType::Q8_0,
    DataType::Q2_K,
    DataType::Q3_K,
    DataType::Q4_K,
    DataType::Q5_K,
    DataType::Q6_K,
    DataType::IQ2_XXS,
    DataType::IQ2_XS,
    DataType::IQ2_S,
    DataType::IQ3_XXS,
    DataType::IQ3_S,
    DataType::IQ1_S,
    DataType::IQ1_M,
    DataType::IQ4_NL,
    DataType::IQ4_XS,
    DataType::TQ1_0,
    DataType::TQ2_0,
    DataType::MXFP4,
    DataType::NVFP4,
];

/// The types that `gguf` encodes.
const ENCODED: [DataType; 11] = [
    DataType::F32,
    DataType::F16,
    DataType::BF16,
    DataType::Q4_0,
    DataType::Q4_1,
    DataType::Q5_0,
    DataType::Q5_1,
    DataType::Q8_0,
    DataType::TQ1_0,
    DataType::TQ2_0,
    DataType::MXFP4,
];

/// The types whose scales are searched.
const SEARCHED: [DataType; 8] = [
    DataType::Q2_0,
    DataType::Q2_K,
    DataType::Q3_K,
    DataType::Q4_K,
    DataType::Q5_K,
    DataType::Q6_K,
    DataType::IQ4_NL,
    DataType::IQ4_XS,
];

#[test]
fn decoding_equals_gguf_bit_for_bit() {
    for dtype in DECODED {
        let file = read(&format!("decode_{}.bin", dtype.name()));
        let blocks = file.len() / (dtype.block_bytes() + 4 * dtype.block_length());
        assert!(blocks >= 8, "{}: {blocks} blocks", dtype.name());
        let (bytes, expected) = file.split_at(blocks * dtype.block_bytes());
        assert_same(dtype.name(), &decode(dtype, bytes), &read_f32(expected));
    }
}

#[test]
fn encoding_equals_gguf_byte_for_byte() {
    let values = read_f32(&read("encode_input.bin"));
    for dtype in ENCODED {
        let expected = read(&format!("encode_{}.bin", dtype.name()));
        let found = encode(dtype, &values);
        assert_eq!(found.len(), expected.len());
        let different = found
            .chunks(dtype.block_bytes())
            .zip(expected.chunks(dtype.block_bytes()))
            .position(|(found, expected)| found != expected);
        if let Some(block) = different {
            let bytes = block * dtype.block_bytes()..(block + 1) * dtype.block_bytes();
            panic!(
                "{} block {block}: {:x?}, expected {:x?}",
                dtype.name(),
                &found[bytes.clone()],
                &expected[bytes]
            );
        }
    }
}

#[test]
fn half_conversions_equal_the_half_crate() {
    for bits in 0..=u16::MAX {
        let expected = half::f16::from_bits(bits).to_f32();
        assert_eq!(f16_to_f32(bits).to_bits(), expected.to_bits(), "f16 {bits:#06x}");
        assert_eq!(bf16_to_f32(bits).to_bits(), u32::from(bits) << 16);
        // Back: the same bits, NaN made quiet.
        let nan = f16_to_f32(bits).is_nan();
        assert_eq!(
            f32_to_f16(f16_to_f32(bits)),
            if nan { bits | 0x0200 } else { bits }
        );
        let nan = bf16_to_f32(bits).is_nan();
        assert_eq!(
            f32_to_bf16(bf16_to_f32(bits)),
            if nan { bits | 0x0040 } else { bits }
        );
    }
}

#[test]
fn narrowing_equals_the_half_crate() {
    let check = |bits: u32| {
        let value = f32::from_bits(bits);
        let expected = half::f16::from_f32(value).to_bits();
        assert_eq!(f32_to_f16(value), expected, "f16 of {bits:#010x}");
        let expected = half::bf16::from_f32(value).to_bits();
        assert_eq!(f32_to_bf16(value), expected, "bf16 of {bits:#010x}");
    };
    // All patterns of sign, exponent and the top of the mantissa, with what decides the rounding below: for normal
    // f16 at bit 12, for bf16 at bit 15, for denormal f16 anywhere above.
    for high in 0..1_u32 << 20 {
        for low in [0, 1, 0x7ff, 0x800, 0x801, 0xfff] {
            check(high << 12 | low);
        }
    }
}

#[test]
fn types_without_a_decoder_or_encoder_are_refused_by_name() {
    for &dtype in DataType::ALL {
        let (mut bytes, mut values) = (vec![0; dtype.block_bytes()], vec![0.0; dtype.block_length()]);
        let decoded = dequantize_row(dtype, &bytes, &mut values);
        assert_eq!(decoded.is_ok(), dtype != DataType::C64, "{}", dtype.name());
        let encoded = quantize_row(dtype, &values, &mut bytes);
        let float = matches!(
            dtype,
            DataType::F32 | DataType::F16 | DataType::BF16 | DataType::F64
        );
        let lattice = dtype.name().starts_with("IQ") && !dtype.name().starts_with("IQ4");
        let encodes = float || dtype.block_length() > 1 && !lattice;
        assert_eq!(encoded.is_ok(), encodes, "{}", dtype.name());
        for error in [decoded, encoded].into_iter().filter_map(|result| result.err()) {
            assert_eq!(error.status(), Status::Unsupported);
            assert!(error.message().contains(dtype.name()), "{error}");
        }
    }
}

#[test]
fn wrong_lengths_are_errors_that_name_type_found_and_expected() {
    for &dtype in DataType::ALL {
        let (length, bytes) = (dtype.block_length(), dtype.block_bytes());
        let error = dequantize_row(dtype, &vec![0; 2 * bytes + 1], &mut vec![0.0; 2 * length]).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        for part in [
            dtype.name(),
            &(2 * bytes).to_string(),
            &(2 * bytes + 1).to_string(),
        ] {
            assert!(error.message().contains(part), "{error}");
        }
        if length > 1 && !dtype.pads_rows() {
            let error = dequantize_row(dtype, &vec![0; bytes], &mut vec![0.0; length - 1]).unwrap_err();
            assert_eq!(error.status(), Status::InvalidArgument);
            assert!(error.message().contains(dtype.name()), "{error}");
        }
        let error = quantize_row(dtype, &vec![0.0; length], &mut vec![0; bytes - 1]).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        if let Some(layout) = BlockLayout::of(dtype) {
            let mut parts = BlockParts::default();
            for wrong in [0, 1, bytes - 1, bytes + 1, 2 * bytes] {
                let error = layout.split(&vec![0; wrong], &mut parts).unwrap_err();
                assert!(error.message().contains(dtype.name()), "{error}");
            }
        }
        // Nothing is a whole number of blocks; complex numbers are the one type with no f32 to decode to.
        let nothing = dequantize_row(dtype, &[], &mut []);
        assert_eq!(nothing.is_ok(), dtype != DataType::C64);
    }
}

#[test]
fn not_finite_values_spoil_their_block_only() {
    let types = ENCODED
        .iter()
        .chain(&SEARCHED)
        .chain(&[DataType::Q1_0, DataType::Q8_1, DataType::Q8_K]);
    for &dtype in types.filter(|dtype| dtype.block_length() > 1 && **dtype != DataType::MXFP4) {
        let length = dtype.block_length();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values: Vec<f32> = (0..3 * length).map(|i| i as f32 - length as f32).collect();
            values[length + 5] = bad;
            let decoded = decode(dtype, &encode(dtype, &values));
            let finite = |block: usize| {
                decoded[block * length..][..length]
                    .iter()
                    .all(|value| value.is_finite())
            };
            assert!(
                finite(0) && !finite(1) && finite(2),
                "{} with {bad}",
                dtype.name()
            );
        }
    }
    for dtype in [DataType::MXFP4, DataType::NVFP4] {
        let mut values = vec![1.0; 128];
        values[77] = f32::NAN;
        let mut bytes = vec![0; dtype.row_bytes(128).unwrap()];
        let error = quantize_row(dtype, &values, &mut bytes).unwrap_err();
        assert!(
            error.message().contains("77") && error.message().contains("NaN"),
            "{error}"
        );
    }
}

/// `values` as Student's t with 3 degrees of freedom would give: bells with heavy tails, as weights are.
fn heavy_tailed(count: usize) -> Vec<f32> {
    let mut state = 20_261_120_u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f64 + 0.5) / f64::from(1 << 24)
    };
    let mut normal = || {
        let radius = (-2.0 * uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * uniform()).cos()
    };
    let mut value = || {
        let spread = (0..3).map(|_| normal().powi(2)).sum::<f64>() / 3.0;
        (normal() / spread.sqrt() * 0.02) as f32
    };
    (0..count).map(|_| value()).collect()
}

fn root_mean_square_error(values: &[f32], decoded: &[f32]) -> f64 {
    let sum: f64 = values
        .iter()
        .zip(decoded)
        .map(|(a, b)| f64::from(a - b).powi(2))
        .sum();
    (sum / values.len() as f64).sqrt()
}

/// What plain rounding would make of it, in groups, with exact scales: the extreme value (or both ends, for a type with
/// a minimum) on the outermost level.
fn plain_rounding(values: &[f32], group_length: usize, levels: i32, with_minimum: bool) -> Vec<f32> {
    let rounded = |group: &[f32]| -> Vec<f32> {
        let lowest = group.iter().copied().fold(0.0_f32, f32::min);
        let largest = group.iter().copied().fold(f32::MIN, f32::max);
        let extreme = if -lowest > largest { lowest } else { largest };
        let (scale, minimum, first) = if with_minimum {
            ((largest - lowest) / (levels - 1) as f32, lowest, 0)
        } else {
            (extreme / (-levels / 2) as f32, 0.0, -levels / 2)
        };
        let last = first + levels - 1;
        let level = |value: f32| {
            ((value - minimum) / scale)
                .round()
                .clamp(first as f32, last as f32)
        };
        group
            .iter()
            .map(|value| level(*value) * scale + minimum)
            .collect()
    };
    values.chunks(group_length).flat_map(rounded).collect()
}

#[test]
fn searched_types_beat_plain_rounding() {
    let values = heavy_tailed(64 * 256);
    // The shares are measured ones (0.883, 0.775, ...), rounded up. The plain scales are not even rounded, ours are.
    for (dtype, group_length, levels, with_minimum, share) in [
        (DataType::Q2_0, 64, 4, false, 0.89),
        (DataType::Q2_K, 16, 4, true, 0.78),
        (DataType::Q3_K, 16, 8, false, 0.96),
        (DataType::Q4_K, 32, 16, true, 0.87),
        (DataType::Q5_K, 32, 32, true, 0.91),
        (DataType::Q6_K, 16, 64, false, 0.975),
        (DataType::IQ4_NL, 32, 16, false, 0.79),
        (DataType::IQ4_XS, 32, 16, false, 0.80),
    ] {
        let found = root_mean_square_error(&values, &decode(dtype, &encode(dtype, &values)));
        let plain = root_mean_square_error(
            &values,
            &plain_rounding(&values, group_length, levels, with_minimum),
        );
        assert!(
            found < share * plain,
            "{}: {} of plain rounding",
            dtype.name(),
            found / plain
        );
    }
}

#[test]
fn searched_types_take_extreme_values() {
    for dtype in SEARCHED {
        for magnitude in [0.0, 1e-45, 1e-38, 1e-20, 1e-7, 1e4, 1e15, f32::MAX] {
            for signs in [[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]] {
                let values: Vec<f32> = (0..512).map(|i| signs[i % 2] * magnitude).collect();
                let decoded = decode(dtype, &encode(dtype, &values));
                for (value, decoded) in values.iter().zip(decoded) {
                    assert!(decoded.is_finite(), "{}: {value} gave {decoded}", dtype.name());
                    // Within the range of the f16 scale, two levels hold two values; the book of IQ4 is uneven.
                    if (1e-3..1e5).contains(&magnitude) {
                        let error = (decoded - value).abs() / magnitude;
                        assert!(error < 0.07, "{}: {value} gave {decoded}", dtype.name());
                    }
                }
            }
        }
    }
}

#[test]
fn one_and_two_bit_types_decode_by_their_formula() {
    let bytes: Vec<u8> = (0..36_u8).map(|i| i.wrapping_mul(151) ^ 0x35).collect();
    let scale = |block: usize| half::f16::from_le_bytes([bytes[18 * block], bytes[18 * block + 1]]).to_f32();
    for (i, value) in decode(DataType::Q1_0, &bytes).iter().enumerate() {
        let bit = bytes[18 * (i / 128) + 2 + i % 128 / 8] >> (i % 8) & 1;
        assert_eq!(*value, if bit == 1 { scale(i / 128) } else { -scale(i / 128) });
    }
    for (i, value) in decode(DataType::Q2_0, &bytes).iter().enumerate() {
        let code = bytes[18 * (i / 64) + 2 + i % 64 / 4] >> (2 * (i % 4)) & 3;
        assert_eq!(*value, scale(i / 64) * (f32::from(code) - 1.0));
    }
    // Mean magnitude and signs.
    let values: Vec<f32> = (0..128).map(|i| if i % 3 == 0 { -2.0 } else { 0.5 }).collect();
    let decoded = decode(DataType::Q1_0, &encode(DataType::Q1_0, &values));
    let mean = half::f16::from_f32((43.0 * 2.0 + 85.0 * 0.5) / 128.0).to_f32();
    for (value, decoded) in values.iter().zip(decoded) {
        assert_eq!(decoded, mean.copysign(*value));
    }
    // Four levels that the type holds exactly, the longer side positive or negative.
    for scale in [0.25, -0.25] {
        let values: Vec<f32> = (0..64).map(|i| scale * (i % 4 - 1) as f32).collect();
        assert_eq!(decode(DataType::Q2_0, &encode(DataType::Q2_0, &values)), values);
    }
}

#[test]
fn eight_bit_floats_decode_by_their_definition() {
    // Mantissa bits, bias, and the magnitudes from which on bytes are special (OCP FP8; FNUZ: only 0x80 is NaN).
    for (dtype, mantissa_bits, bias, first_special, largest) in [
        (DataType::F8_E4M3, 3, 7, 0x7f, 448.0),
        (DataType::F8_E5M2, 2, 15, 0x7c, 57344.0),
        (DataType::F8_E4M3FNUZ, 3, 8, 0x80, 240.0),
        (DataType::F8_E5M2FNUZ, 2, 16, 0x80, 57344.0),
    ] {
        let bytes: Vec<u8> = (0..=255).collect();
        let values = decode(dtype, &bytes);
        for (byte, value) in bytes.iter().zip(&values) {
            let magnitude = i32::from(byte & 0x7f);
            let (exponent, fraction) = (magnitude >> mantissa_bits, magnitude % (1 << mantissa_bits));
            let fraction = f64::from(fraction) / f64::from(1 << mantissa_bits);
            let expected = match exponent {
                0 => fraction * 2.0_f64.powi(1 - bias),
                _ => (1.0 + fraction) * 2.0_f64.powi(exponent - bias),
            };
            let fnuz_nan = first_special == 0x80 && *byte == 0x80;
            if fnuz_nan || magnitude >= first_special {
                assert!(!value.is_finite(), "{} {byte:#x}: {value}", dtype.name());
            } else {
                let expected = if *byte < 128 { expected } else { -expected };
                assert_eq!(f64::from(*value), expected, "{} {byte:#x}", dtype.name());
            }
        }
        let found = values
            .iter()
            .copied()
            .filter(|value| value.is_finite())
            .fold(0.0, f32::max);
        assert_eq!(found, largest, "{}", dtype.name());
    }
    let values = decode(DataType::F8_E8M0, &[0, 1, 127, 128, 254]);
    assert_eq!(
        values,
        [-127, -126, 0, 1, 127].map(|exponent| 2.0_f64.powi(exponent) as f32)
    );
    assert!(decode(DataType::F8_E8M0, &[255])[0].is_nan());
}

/// The largest error of a value, as a share of the largest magnitude in its block.
fn error_bound(dtype: DataType) -> Option<f32> {
    Some(match dtype {
        DataType::F32 | DataType::F64 => 0.0,
        DataType::F16 => 1.0 / 2048.0,
        DataType::BF16 => 1.0 / 256.0,
        // Half a step, and the scale's own rounding: the extreme of the other sign is cut by one step.
        DataType::Q4_0 => 1.0 / 8.0,
        DataType::Q5_0 => 1.0 / 16.0,
        // Steps of 2/15 and 2/31 of the magnitude.
        DataType::Q4_1 => 1.0 / 15.0,
        DataType::Q5_1 => 1.0 / 31.0,
        DataType::Q8_0 | DataType::Q8_1 | DataType::Q8_K => 0.5 / 127.0,
        DataType::TQ1_0 | DataType::TQ2_0 => 0.5,
        // From 4 to 6 and from 6 to less than 8, of at least 4.
        DataType::MXFP4 => 0.25,
        // From 4 to 6 of 6, and a sixteenth for the rounding of the scale.
        DataType::NVFP4 => 0.18,
        _ => return None,
    })
}

fn numbers(count: usize) -> impl Strategy<Value = Vec<f32>> {
    (prop::collection::vec(-1.0_f32..1.0, count), -10..10_i32).prop_map(|(values, exponent)| {
        values
            .into_iter()
            .map(|value| value * 2.0_f32.powi(exponent))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_decode_without_panic(seed in prop::collection::vec(any::<u8>(), 600)) {
        for &dtype in DataType::ALL {
            if dtype == DataType::C64 {
                continue;
            }
            let blocks = seed.len() / dtype.block_bytes();
            let bytes = &seed[..blocks * dtype.block_bytes()];
            let values = decode(dtype, bytes);
            // Taken apart, each value is scale times code plus minimum.
            let Some(layout) = BlockLayout::of(dtype) else { continue };
            let mut parts = BlockParts::default();
            for (bytes, values) in bytes.chunks(dtype.block_bytes()).zip(values.chunks(dtype.block_length())) {
                layout.split(bytes, &mut parts).unwrap();
                for (i, value) in values.iter().enumerate() {
                    let code = parts.codes[i];
                    prop_assert!(u32::from(code) < 1 << layout.code_bits);
                    let group = i / layout.group_length;
                    let expected = layout.group_scale(&parts, group) * layout.value(code) as f32
                        + layout.group_minimum(&parts, group);
                    prop_assert!(expected == *value || expected.is_nan() && value.is_nan());
                }
            }
        }
    }

    #[test]
    fn any_lengths_and_values_never_panic(
        bits in prop::collection::vec(any::<u32>(), 0..300),
        length in 0_usize..400,
    ) {
        let values: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
        for &dtype in DataType::ALL {
            let mut bytes = vec![0; length];
            let _ = quantize_row(dtype, &values, &mut bytes);
            let _ = dequantize_row(dtype, &bytes, &mut values.clone());
            let whole = values.len() / dtype.block_length() * dtype.block_length();
            let mut bytes = vec![0; dtype.row_bytes(whole).unwrap()];
            let _ = quantize_row(dtype, &values[..whole], &mut bytes);
        }
    }

    #[test]
    fn round_trips_stay_within_the_error_of_the_type(values in numbers(512)) {
        for &dtype in DataType::ALL {
            let Some(bound) = error_bound(dtype) else { continue };
            let decoded = decode(dtype, &encode(dtype, &values));
            let length = dtype.block_length();
            for (values, decoded) in values.chunks(length).zip(decoded.chunks(length)) {
                let magnitude = values.iter().fold(0.0_f32, |magnitude, value| magnitude.max(value.abs()));
                // The scale's and the minimum's rounding to f16, and scales below the normal range.
                let rounding = if length > 1 { 3.0 / 2048.0 } else { 0.0 };
                let denormal = if dtype == DataType::NVFP4 { 6.0 / 1024.0 } else { bound.min(4e-6) };
                let bound = (bound + rounding) * 1.0001 * magnitude + denormal;
                for (value, decoded) in values.iter().zip(decoded) {
                    prop_assert!((value - decoded).abs() <= bound, "{}: {value} {decoded}", dtype.name());
                }
            }
        }
    }
}
