//! The element types of stored tensors: name, number, block length and block size.
//!
//! Numbers up to 255 are those of GGUF (`ggml_type`); see the format page of ggml for the block layouts. MCF's
//! quantized types have 512 plus their number in MCF; their blocks are those of `quant::blocks`, which the reader gathers
//! from the regions of a file.

use crate::base::error::{Error, Result};

macro_rules! data_types {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $length:literal, $bytes:literal;)*) => {
        /// Element type of a stored tensor.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        #[allow(non_camel_case_types)]
        pub enum DataType { $( $(#[$doc])* $variant = $number, )* }

        impl DataType {
            /// Every type, in the order of its number.
            pub const ALL: &[DataType] = &[$(DataType::$variant),*];

            /// The type of a number in a GGUF file or of a `mantle_dtype`.
            pub fn from_number(number: i64) -> Option<DataType> {
                match number { $( $number => Some(DataType::$variant), )* _ => None }
            }

            /// The type's name as the field writes it, such as `Q4_K`.
            pub fn name(self) -> &'static str {
                match self { $( DataType::$variant => $name, )* }
            }

            /// Values in one block (1 for plain types).
            pub fn block_length(self) -> usize {
                match self { $( DataType::$variant => $length, )* }
            }

            /// Bytes of one block.
            pub fn block_bytes(self) -> usize {
                match self { $( DataType::$variant => $bytes, )* }
            }
        }
    };
}

data_types! {
    /// 32-bit float.
    F32 = 0, "F32", 1, 4;
    /// 16-bit float (IEEE half).
    F16 = 1, "F16", 1, 2;
    /// 4 bits, scale per 32.
    Q4_0 = 2, "Q4_0", 32, 18;
    /// 4 bits, scale and minimum per 32.
    Q4_1 = 3, "Q4_1", 32, 20;
    /// 5 bits, scale per 32.
    Q5_0 = 6, "Q5_0", 32, 22;
    /// 5 bits, scale and minimum per 32.
    Q5_1 = 7, "Q5_1", 32, 24;
    /// 8 bits, scale per 32.
    Q8_0 = 8, "Q8_0", 32, 34;
    /// 8 bits, scale and sum per 32 (activations only).
    Q8_1 = 9, "Q8_1", 32, 36;
    /// 2 bits, super-blocks of 256.
    Q2_K = 10, "Q2_K", 256, 84;
    /// 3 bits, super-blocks of 256.
    Q3_K = 11, "Q3_K", 256, 110;
    /// 4 bits, super-blocks of 256.
    Q4_K = 12, "Q4_K", 256, 144;
    /// 5 bits, super-blocks of 256.
    Q5_K = 13, "Q5_K", 256, 176;
    /// 6 bits, super-blocks of 256.
    Q6_K = 14, "Q6_K", 256, 210;
    /// 8 bits, super-blocks of 256 (activations only).
    Q8_K = 15, "Q8_K", 256, 292;
    /// 2.06 bits, lattice.
    IQ2_XXS = 16, "IQ2_XXS", 256, 66;
    /// 2.31 bits, lattice.
    IQ2_XS = 17, "IQ2_XS", 256, 74;
    /// 3.06 bits, lattice.
    IQ3_XXS = 18, "IQ3_XXS", 256, 98;
    /// 1.56 bits, lattice.
    IQ1_S = 19, "IQ1_S", 256, 50;
    /// 4 bits, non-linear code book, scale per 32.
    IQ4_NL = 20, "IQ4_NL", 32, 18;
    /// 3.44 bits, lattice.
    IQ3_S = 21, "IQ3_S", 256, 110;
    /// 2.56 bits, lattice.
    IQ2_S = 22, "IQ2_S", 256, 82;
    /// 4.25 bits, non-linear code book, super-blocks of 256.
    IQ4_XS = 23, "IQ4_XS", 256, 136;
    /// 8-bit integer.
    I8 = 24, "I8", 1, 1;
    /// 16-bit integer.
    I16 = 25, "I16", 1, 2;
    /// 32-bit integer.
    I32 = 26, "I32", 1, 4;
    /// 64-bit integer.
    I64 = 27, "I64", 1, 8;
    /// 64-bit float.
    F64 = 28, "F64", 1, 8;
    /// 1.75 bits, lattice.
    IQ1_M = 29, "IQ1_M", 256, 56;
    /// 16-bit float with the exponent of F32.
    BF16 = 30, "BF16", 1, 2;
    /// 1.69 bits, ternary.
    TQ1_0 = 34, "TQ1_0", 256, 54;
    /// 2.06 bits, ternary.
    TQ2_0 = 35, "TQ2_0", 256, 66;
    /// 4-bit float, shared exponent per 32.
    MXFP4 = 39, "MXFP4", 32, 17;
    /// 4-bit float, FP8 scale per 16.
    NVFP4 = 40, "NVFP4", 64, 36;
    /// 1 bit, scale per 128.
    Q1_0 = 41, "Q1_0", 128, 18;
    /// 2 bits, scale per 64.
    Q2_0 = 42, "Q2_0", 64, 18;
    /// 8-bit unsigned integer (safetensors; GGUF has no number for it).
    U8 = 256, "U8", 1, 1;
    /// 16-bit unsigned integer (safetensors).
    U16 = 257, "U16", 1, 2;
    /// 32-bit unsigned integer (safetensors).
    U32 = 258, "U32", 1, 4;
    /// 64-bit unsigned integer (safetensors).
    U64 = 259, "U64", 1, 8;
    /// Truth value in a byte (safetensors).
    BOOL = 260, "BOOL", 1, 1;
    /// 8-bit float, 4 exponent and 3 mantissa bits (safetensors).
    F8_E4M3 = 261, "F8_E4M3", 1, 1;
    /// 8-bit float, 5 exponent and 2 mantissa bits (safetensors).
    F8_E5M2 = 262, "F8_E5M2", 1, 1;
    /// 8-bit power of two (safetensors; scales of MX formats).
    F8_E8M0 = 263, "F8_E8M0", 1, 1;
    /// 8-bit float E4M3 without negative zero (safetensors).
    F8_E4M3FNUZ = 264, "F8_E4M3FNUZ", 1, 1;
    /// 8-bit float E5M2 without negative zero (safetensors).
    F8_E5M2FNUZ = 265, "F8_E5M2FNUZ", 1, 1;
    /// Complex number of two 32-bit floats (safetensors).
    C64 = 266, "C64", 1, 8;
    /// 8 bits, scale per 32 (MCF).
    Q8 = 544, "Q8", 32, 34;
    /// 4 bits, scale per 32 (MCF).
    Q4 = 545, "Q4", 32, 18;
    /// 6 bits, super-blocks of 256 (MCF).
    K6 = 560, "K6", 256, 202;
    /// 4 bits, super-blocks of 256 (MCF).
    K4 = 561, "K4", 256, 138;
    /// 3 bits, super-blocks of 256 (MCF).
    K3 = 562, "K3", 256, 106;
    /// 2 bits, super-blocks of 256 (MCF).
    K2 = 563, "K2", 256, 74;
}

impl DataType {
    /// The name of a number that GGUF files used once and whose support ggml has removed.
    pub fn removed_name(number: i64) -> Option<&'static str> {
        Some(match number {
            4 => "Q4_2",
            5 => "Q4_3",
            31 => "Q4_0_4_4",
            32 => "Q4_0_4_8",
            33 => "Q4_0_8_8",
            36 => "IQ4_NL_4_4",
            37 => "IQ4_NL_4_8",
            38 => "IQ4_NL_8_8",
            _ => return None,
        })
    }

    /// The type of a name as [`DataType::name`] gives it, in any case.
    pub fn from_name(name: &str) -> Option<DataType> {
        DataType::ALL
            .iter()
            .copied()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Whether rows need not fill their last block: the quantized types of MCF, which pad it with zeros.
    pub fn pads_rows(self) -> bool {
        self as i32 >= DataType::Q8 as i32
    }

    /// Bytes of one row of `columns` values; an error when the columns do not fill whole blocks and the type does not
    /// pad its rows.
    pub fn row_bytes(self, columns: usize) -> Result<usize> {
        let length = self.block_length();
        if !self.pads_rows() && !columns.is_multiple_of(length) {
            return Err(Error::format(format!(
                "a row of {columns} values does not fill whole {} blocks of {length}",
                self.name()
            )));
        }
        columns
            .div_ceil(length)
            .checked_mul(self.block_bytes())
            .ok_or_else(|| Error::format(format!("a row of {columns} values is too large")))
    }
}
