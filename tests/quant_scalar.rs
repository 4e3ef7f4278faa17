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

/// Types that files may hold but nothing computes with: younger ones of GGUF, and those of safetensors alone.
fn recognised_only(dtype: DataType) -> bool {
    matches!(dtype, DataType::Q1_0 | DataType::Q2_0) || dtype as i32 >= 256
}

fn decodable() -> impl Iterator<Item = DataType> {
    DataType::ALL.iter().copied().filter(|&dtype| !recognised_only(dtype))
}

#[test]
fn types_without_a_decoder_are_refused_by_name() {
    for &dtype in DataType::ALL.iter().filter(|&&dtype| recognised_only(dtype)) {
        let (bytes, mut values) = (vec![0; dtype.block_bytes()], vec![0.0; dtype.block_length()]);
        let error = dequantize_row(dtype, &bytes, &mut values).unwrap_err();
        assert_eq!(error.status(), Status::Unsupported);
        assert!(error.message().contains(dtype.name()), "{error}");
    }
}

#[test]
fn wrong_lengths_are_errors_that_name_type_found_and_expected() {
    for dtype in decodable() {
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
        if length > 1 {
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
        // Nothing is a whole number of blocks.
        dequantize_row(dtype, &[], &mut []).unwrap();
    }
}

#[test]
fn not_finite_values_spoil_their_block_only() {
    let types = ENCODED.iter().chain(&[DataType::Q8_1, DataType::Q8_K]);
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
        for dtype in decodable() {
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
