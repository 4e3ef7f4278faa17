//! Packing loses nothing: every row of a packed matrix decodes to the bits of the stored row, at the promised size.

mod kernels_support;

use kernels_support::{Random, decode, pack, packable, random_weights};
use mantle::format::dtype::DataType;
use mantle::quant::packed::{BLOCK, Layout};

#[test]
fn every_quantized_type_of_gguf_is_packable() {
    let missing: Vec<_> = DataType::ALL
        .iter()
        .filter(|dtype| dtype.block_length() > 1 && Layout::of(**dtype).is_err())
        .collect();
    // These two exist for activations only.
    assert_eq!(missing, [&DataType::Q8_1, &DataType::Q8_K]);
}

#[test]
fn a_packed_row_has_the_bits_of_the_stored_row() {
    for dtype in packable() {
        let mut random = Random(7 + u64::from(dtype as u32));
        // Whatever the bits: infinite scales and NaN as well.
        for finite in [true, false] {
            let (rows, columns) = (21, 3 * dtype.block_length().max(BLOCK));
            let stored = random_weights(dtype, rows, columns, finite, &mut random);
            let packed = pack(dtype, &stored, rows, columns);
            let expected = decode(dtype, &stored, rows * columns);
            let mut found = vec![1.0; columns];
            for (row, expected) in expected.chunks_exact(columns).enumerate() {
                packed.row(row, &mut found).unwrap();
                for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
                    assert!(
                        expected.to_bits() == found.to_bits() || expected.is_nan() && found.is_nan(),
                        "{} row {row} input {i}: {found} instead of {expected}",
                        dtype.name(),
                    );
                }
            }
        }
    }
}

#[test]
fn the_growth_is_what_is_promised() {
    for dtype in packable() {
        let stored = 8.0 * dtype.block_bytes() as f64 / dtype.block_length() as f64;
        let growth = Layout::of(dtype).unwrap().bits_per_weight() / stored;
        let limit = match dtype {
            // Grids become code books of 4 bits.
            DataType::IQ1_S | DataType::IQ1_M => 2.8,
            DataType::IQ2_XXS | DataType::IQ2_XS | DataType::IQ2_S => 2.1,
            DataType::IQ3_XXS | DataType::IQ3_S => 1.41,
            // Digits to base 3, or bits, become 2-bit codes.
            DataType::TQ1_0 => 1.23,
            DataType::Q1_0 => 1.89,
            _ => 1.04,
        };
        assert!(
            (1.0..=limit).contains(&growth),
            "{} grows by {growth}",
            dtype.name()
        );
    }
}
