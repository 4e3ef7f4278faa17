//! The bytes of the packed layout, as `docs/packed-layout.md` gives them: a file that holds packed weights must be
//! readable by every later version.

#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

mod kernels_support;

use kernels_support::*;
use mantle::format::dtype::DataType;
use mantle::quant::packed::{BLOCK, PANEL, PackedMatrix};

/// FNV-1a over the packed bytes of 35 x 512 weights whose stored bytes count 0, 1, 2, ... modulo 251.
const PINNED: &[(DataType, u64)] = &[
    (DataType::F32, 0xf56a_ffef_f8fc_7084),
    (DataType::F16, 0xa6d2_7a86_0ab0_aed8),
    (DataType::BF16, 0xd42b_28ad_389f_5738),
    (DataType::Q8_0, 0xf771_dcba_f9bc_a7e5),
    (DataType::Q4_0, 0x0a49_99f2_6f0a_2311),
    (DataType::Q4_1, 0xeff3_bed1_5dde_f105),
    (DataType::Q5_0, 0x7024_df78_6d8a_a1b7),
    (DataType::Q5_1, 0x3510_1ac3_9224_f9a6),
    (DataType::Q2_K, 0x522f_3d93_6003_1501),
    (DataType::Q3_K, 0xf6f5_9145_b320_277b),
    (DataType::Q4_K, 0xdc4c_c6a3_db6e_2e3a),
    (DataType::Q5_K, 0x4b86_e723_9440_91c5),
    (DataType::Q6_K, 0x9234_b6bc_5a01_112e),
    (DataType::IQ4_NL, 0x0a49_99f2_6f0a_2311),
    (DataType::IQ4_XS, 0xc952_f259_2cdf_24b4),
    (DataType::IQ1_S, 0x665f_3cea_7e36_f452),
    (DataType::IQ1_M, 0xc730_25da_ef98_304e),
    (DataType::IQ2_XXS, 0x66ee_49a1_f557_58f2),
    (DataType::IQ2_XS, 0xd860_41d0_52b1_02db),
    (DataType::IQ2_S, 0xf45f_746d_59ec_8e03),
    (DataType::IQ3_XXS, 0x90b3_9d0d_4245_5b77),
    (DataType::IQ3_S, 0xfe3f_f41e_d2b8_7799),
    (DataType::TQ1_0, 0x2925_ccab_9e7f_1b0d),
    (DataType::TQ2_0, 0x718e_7199_d2cb_d753),
    (DataType::Q1_0, 0x4062_9dd9_2d25_eea5),
    (DataType::Q2_0, 0x7d09_f705_1126_1c25),
    (DataType::MXFP4, 0x049d_8d87_3e52_0c5c),
    (DataType::NVFP4, 0x389a_55b7_fe2c_712d),
    (DataType::Q8, 0xf771_dcba_f9bc_a7e5),
    (DataType::Q4, 0x3858_3c66_784e_a540),
    (DataType::K6, 0x5786_90c9_4b4a_7e55),
    (DataType::K4, 0x5536_5781_7354_c623),
    (DataType::K3, 0x0d1c_1257_64db_5178),
    (DataType::K2, 0xd6a8_2450_6015_23a4),
];

fn counted(dtype: DataType, rows: usize, columns: usize) -> Vec<u8> {
    let bytes = rows * dtype.row_bytes(columns).unwrap();
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

#[test]
fn the_packed_bytes_of_every_type_are_pinned() {
    let mut wrong = Vec::new();
    for dtype in packable() {
        let packed = pack(dtype, &counted(dtype, 35, 512), 35, 512);
        let hash = packed
            .bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        if !PINNED.contains(&(dtype, hash)) {
            wrong.push(format!("(DataType::{dtype:?}, {hash:#018x}),"));
        }
    }
    assert!(
        wrong.is_empty(),
        "the packed layout of these types is new or has changed; if that is meant, pin it here and describe it in \
         docs/packed-layout.md:\n{}",
        wrong.join("\n")
    );
}

/// Checks every byte of a packed matrix against a rule that gives (panel, offset in the panel, bytes) of each stored
/// field; what no rule names must be zero.
fn check(dtype: DataType, panel_bytes: usize, place: impl Fn(&[u8], &mut dyn FnMut(usize, usize, &[u8]))) {
    let (rows, columns) = (35, 96);
    let stored = counted(dtype, rows, columns);
    let packed = pack(dtype, &stored, rows, columns);
    assert_eq!(packed.panel_bytes(), panel_bytes, "{}", dtype.name());
    assert_eq!(packed.panels(), 3);
    assert_eq!(
        PackedMatrix::bytes_for(dtype, rows, columns).unwrap(),
        3 * panel_bytes
    );
    let mut expected = vec![0; 3 * panel_bytes];
    place(&stored, &mut |panel, at, bytes| {
        expected[panel * panel_bytes + at..][..bytes.len()].copy_from_slice(bytes);
    });
    let different = packed.bytes().iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(different, None, "{}: first different byte", dtype.name());
}

#[test]
fn floats_stand_input_after_input() {
    for (dtype, bytes) in [(DataType::F32, 4), (DataType::F16, 2)] {
        check(dtype, 96 * PANEL * bytes, |stored, put| {
            for (i, value) in stored.chunks_exact(bytes).enumerate() {
                let (row, input) = (i / 96, i % 96);
                put(row / PANEL, (input * PANEL + row % PANEL) * bytes, value);
            }
        });
    }
}

#[test]
fn bf16_stand_in_pairs_of_inputs() {
    check(DataType::BF16, 96 * PANEL * 2, |stored, put| {
        for (i, value) in stored.chunks_exact(2).enumerate() {
            let (row, input) = (i / 96, i % 96);
            put(
                row / PANEL,
                input / 2 * 64 + row % PANEL * 4 + input % 2 * 2,
                value,
            );
        }
    });
}

#[test]
fn codes_stand_in_groups_of_four_inputs_and_scales_behind_them() {
    let blocks = 3;
    check(DataType::Q8_0, 1664, |stored, put| {
        for (i, block) in stored.chunks_exact(34).enumerate() {
            let (row, b) = (i / blocks, i % blocks);
            put(row / PANEL, blocks * 512 + b * 32 + row % PANEL * 2, &block[..2]);
            for (input, code) in block[2..].iter().enumerate() {
                let at = b * 512 + input / 4 * 64 + row % PANEL * 4 + input % 4;
                put(row / PANEL, at, &[code.wrapping_add(128)]);
            }
        }
    });
    for (dtype, header, panel_bytes) in [(DataType::Q4_0, 2, 896), (DataType::Q4_1, 4, 960)] {
        check(dtype, panel_bytes, |stored, put| {
            for (i, block) in stored.chunks_exact(header + 16).enumerate() {
                let (row, b) = (i / blocks, i % blocks);
                let scales = blocks * 256 + b * 16 * header + row % PANEL * 2;
                put(row / PANEL, scales, &block[..2]);
                if header == 4 {
                    put(row / PANEL, scales + 32, &block[2..4]);
                }
                for (input, nibbles) in block[header..].iter().enumerate() {
                    let at = b * 256 + input / 4 * 64 + row % PANEL * 4 + input % 4;
                    put(row / PANEL, at, &[*nibbles]);
                }
            }
        });
    }
}

/// The worked example of the document: two rows of one block of Q4_0.
#[test]
fn the_worked_example_holds() {
    let mut stored = vec![0x00, 0x3c]; // Row 0: scale 1.0, ...
    stored.extend((0..16).map(|i| i | (15 - i) << 4)); // ... codes 0..15 and 15..0.
    stored.extend([0x00, 0x40]); // Row 1: scale 2.0, ...
    stored.extend([0x98; 16]); // ... codes 8 and 9: 0 and 2.
    let packed = pack(DataType::Q4_0, &stored, 2, 32);
    assert_eq!(packed.bytes().len(), 320);
    assert_eq!(
        packed.bytes()[..12],
        [0xf0, 0xe1, 0xd2, 0xc3, 0x98, 0x98, 0x98, 0x98, 0, 0, 0, 0]
    );
    assert_eq!(
        packed.bytes()[192..204],
        [0x3c, 0x2d, 0x1e, 0x0f, 0x98, 0x98, 0x98, 0x98, 0, 0, 0, 0]
    );
    assert_eq!(packed.bytes()[256..262], [0x00, 0x3c, 0x00, 0x40, 0, 0]);
    assert_eq!(packed.bytes()[288..], [0; 32]);
    let mut row = [0.0; BLOCK];
    packed.row(0, &mut row).unwrap();
    assert_eq!((row[0], row[15], row[16], row[31]), (-8.0, 7.0, 7.0, -8.0));
    packed.row(1, &mut row).unwrap();
    assert_eq!((row[0], row[16]), (0.0, 2.0));
}
