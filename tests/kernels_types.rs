//! Packing loses nothing: every row of a packed matrix decodes to the bits of the stored row, at the promised size. And
//! how a matrix is decoded while it is multiplied changes no bit.

mod kernels_support;

use kernels_support::*;
use mantle::base::matrix::MatrixMut;
use mantle::format::dtype::DataType;
use mantle::kernels::{Kernels, Strategy, Tuning};
use mantle::quant::activations::Form;
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
fn rows_need_not_fill_the_last_block_of_a_type_that_pads_them() {
    for dtype in packable().filter(|dtype| dtype.pads_rows()) {
        // A part of a block; whole blocks but a part of a super-block; both.
        for (rows, columns, tokens) in [(18, 5, 2), (16, 384, 7), (35, 300, 3)] {
            let mut random = Random(columns as u64 + u64::from(dtype as u32));
            let stored = random_weights(dtype, rows, columns, true, &mut random);
            let packed = pack(dtype, &stored, rows, columns);
            let mut weights = vec![0.0; rows * columns];
            let mut found = vec![1.0; columns];
            let stored = stored.chunks_exact(dtype.row_bytes(columns).unwrap());
            for (row, (values, stored)) in weights.chunks_exact_mut(columns).zip(stored).enumerate() {
                values.copy_from_slice(&decode(dtype, stored, columns));
                packed.row(row, &mut found).unwrap();
                assert_same(dtype.name(), &found, values);
            }
            let x: Vec<f32> = (0..tokens * columns).map(|_| random.signed()).collect();
            let x = Prepared::new(scalar(), Form::Codes, &x, tokens, columns);
            let expected = multiply(scalar(), &packed, 0..packed.panels(), &x.view(), None, None);
            for (i, (&found, x)) in expected
                .iter()
                .zip(
                    x.values()
                        .chunks_exact(columns)
                        .flat_map(|x| std::iter::repeat_n(x, rows)),
                )
                .enumerate()
            {
                let row = &weights[i % rows * columns..][..columns];
                let products = row.iter().zip(x).map(|(&w, x)| f64::from(w) * x);
                let (exact, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                assert!((f64::from(found) - exact).abs() <= 1e-5 * size, "{found} {exact}");
            }
            for (name, kernels) in others() {
                let found = multiply(kernels, &packed, 0..packed.panels(), &x.view(), None, None);
                assert_same(&format!("{} on {name}", dtype.name()), &found, &expected);
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

#[test]
fn decoding_in_registers_and_in_the_cache_gives_the_same_bits() {
    // More tokens than pass over a decoded chunk at once, more blocks than a chunk has, odd panels.
    for (rows, columns, tokens) in [(16, 256, 1), (40, 256, 7), (33, 1280, 245), (5, 2304, 3)] {
        for dtype in packable().filter(|&dtype| Form::of(dtype) == Form::Codes) {
            let mut random = Random(rows as u64 + u64::from(dtype as u32));
            let stored = random_weights(dtype, rows, columns, true, &mut random);
            let weights = pack(dtype, &stored, rows, columns);
            let x: Vec<f32> = (0..tokens * columns).map(|_| random.signed()).collect();
            let x = Prepared::new(scalar(), Form::Codes, &x, tokens, columns);
            // The library has chosen a way for every type.
            assert!(
                scalar()
                    .strategy(dtype, tokens)
                    .is_some_and(|way| way != Strategy::Fastest)
            );
            let run = |kernels: &Kernels, strategy| {
                let mut y = vec![f32::NAN; tokens * rows];
                let output = MatrixMut::new(&mut y, tokens, rows, rows).unwrap();
                kernels.matmul_by(
                    strategy,
                    &weights,
                    0..weights.panels(),
                    &x.view(),
                    output,
                    None,
                    false,
                );
                y
            };
            let expected = run(scalar(), Strategy::InRegisters);
            for (name, kernels) in Kernels::every() {
                for strategy in [Strategy::Fastest, Strategy::InRegisters, Strategy::InCache] {
                    let what = format!(
                        "{} {rows} x {columns}, {tokens} tokens, {name}, {strategy:?}",
                        dtype.name()
                    );
                    assert_same(&what, &run(kernels, strategy), &expected);
                    // Caches of other sizes cut the work elsewhere.
                    let small = Tuning {
                        decoded_bytes: 1,
                        group_bytes: 1,
                        fetched_bytes: 0,
                    };
                    assert_same(&what, &run(&kernels.tuned(small), strategy), &expected);
                }
            }
        }
    }
}
