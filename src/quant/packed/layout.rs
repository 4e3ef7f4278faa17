//! Where the codes and scales of each type stand in a panel.

use super::books::{Book, E2m1Book, Iq1Book, Iq2Book, Iq3sBook, Iq3xxsBook, Iq4Book};
use super::{BLOCK, PANEL};
use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;

/// How the values of a block of 32 inputs by 16 rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planes {
    /// Floats, `bytes` each: `[input][row]`; BF16 is `[pair of inputs][row][2]`.
    Floats {
        /// 2 or 4.
        bytes: usize,
    },
    /// Integers of `low` + `high` bits, each stored as `value + offset`.
    Integers {
        /// Bits in the first planes: 8, 4 or 2.
        low: u32,
        /// Bits in the planes behind them: 0, 1 or 2.
        high: u32,
        /// What is added to the value: 0 or a power of two up to 128.
        offset: u8,
    },
    /// 4-bit names of values.
    Book(&'static [i8; 16]),
}

/// What a record of scales holds. Each field is 16 rows wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing: float types.
    None,
    /// An f16 scale and, with `minimum`, an f16 minimum.
    Half {
        /// Whether there is a minimum.
        minimum: bool,
    },
    /// An f16 scale; then for each block of the record `halves` signed bytes that it is multiplied with.
    Super {
        /// 1 or 2.
        halves: usize,
    },
    /// An f16 scale and an f16 minimum; then for each block a byte for the scale and a byte for the minimum.
    SuperAndMinimum,
    /// An f16 scale and an f16 minimum; then for each block two bytes, for inputs 0 to 15 and 16 to 31: 4 bits for the
    /// scale and above them 4 for the minimum.
    SuperAndMinimumNibbles,
    /// A byte e that means 2^(e - 128).
    PowerOfTwo,
    /// Two FP8 (E4M3) numbers, for inputs 0 to 15 and 16 to 31, to be halved.
    SmallFloat,
}

/// How one type stands in a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The stored type that was packed.
    pub dtype: DataType,
    /// How the values are written.
    pub planes: Planes,
    /// What a record of scales holds.
    pub record: Record,
    /// Bytes of the codes of one block of 32 inputs, all 16 rows.
    pub code_bytes: usize,
    /// Blocks that share one record of scales.
    pub scale_group: usize,
    /// Bytes of one record of scales, all 16 rows; 0 for float types.
    pub scale_bytes: usize,
}

impl Layout {
    /// The layout of `dtype`; an error that names the type when it has no packed form.
    pub fn of(dtype: DataType) -> Result<Layout> {
        let integers = |low, high, offset| Planes::Integers { low, high, offset };
        let half = Record::Half { minimum: false };
        let half_and_minimum = Record::Half { minimum: true };
        let (planes, record, scale_group) = match dtype {
            DataType::F32 => (Planes::Floats { bytes: 4 }, Record::None, 1),
            DataType::F16 | DataType::BF16 => (Planes::Floats { bytes: 2 }, Record::None, 1),
            DataType::Q8_0 => (integers(8, 0, 128), half, 1),
            DataType::Q4_0 => (integers(4, 0, 8), half, 1),
            DataType::Q4_1 => (integers(4, 0, 0), half_and_minimum, 1),
            DataType::Q5_0 => (integers(4, 1, 16), half, 1),
            DataType::Q5_1 => (integers(4, 1, 0), half_and_minimum, 1),
            DataType::Q2_K => (integers(2, 0, 0), Record::SuperAndMinimumNibbles, 8),
            DataType::Q3_K => (integers(2, 1, 4), Record::Super { halves: 2 }, 8),
            DataType::Q4_K => (integers(4, 0, 0), Record::SuperAndMinimum, 8),
            DataType::Q5_K => (integers(4, 1, 0), Record::SuperAndMinimum, 8),
            DataType::Q6_K => (integers(4, 2, 32), Record::Super { halves: 2 }, 8),
            DataType::IQ4_NL => (Planes::Book(&Iq4Book::VALUES), half, 1),
            DataType::IQ4_XS => (Planes::Book(&Iq4Book::VALUES), Record::Super { halves: 1 }, 8),
            DataType::IQ1_S => (Planes::Book(&Iq1Book::VALUES), Record::Super { halves: 1 }, 8),
            DataType::IQ1_M => (Planes::Book(&Iq1Book::VALUES), Record::Super { halves: 2 }, 8),
            DataType::IQ2_XXS => (Planes::Book(&Iq2Book::VALUES), Record::Super { halves: 1 }, 8),
            DataType::IQ2_XS | DataType::IQ2_S => {
                (Planes::Book(&Iq2Book::VALUES), Record::Super { halves: 2 }, 8)
            }
            DataType::IQ3_XXS => (Planes::Book(&Iq3xxsBook::VALUES), Record::Super { halves: 1 }, 8),
            DataType::IQ3_S => (Planes::Book(&Iq3sBook::VALUES), Record::Super { halves: 1 }, 8),
            DataType::TQ1_0 | DataType::TQ2_0 => (integers(2, 0, 1), half, 8),
            DataType::Q1_0 => (integers(2, 0, 1), half, 4),
            DataType::Q2_0 => (integers(2, 0, 1), half, 2),
            DataType::MXFP4 => (Planes::Book(&E2m1Book::VALUES), Record::PowerOfTwo, 1),
            DataType::NVFP4 => (Planes::Book(&E2m1Book::VALUES), Record::SmallFloat, 1),
            DataType::Q8 => (integers(8, 0, 128), half, 1),
            DataType::Q4 => (integers(4, 0, 8), half, 1),
            DataType::K6 => (integers(4, 2, 32), Record::Super { halves: 1 }, 8),
            DataType::K4 => (integers(4, 0, 8), Record::Super { halves: 1 }, 8),
            DataType::K3 => (integers(2, 1, 4), Record::Super { halves: 1 }, 8),
            DataType::K2 => (integers(2, 0, 2), Record::Super { halves: 1 }, 8),
            _ => {
                return Err(Error::unsupported(format!(
                    "no kernel multiplies weights of type {}; there are kernels for F32, F16, BF16, for GGUF's quantized types except Q8_1 and Q8_K, and for MCF's",
                    dtype.name()
                )));
            }
        };
        Ok(Layout {
            dtype,
            planes,
            record,
            code_bytes: planes.bytes(),
            scale_group,
            scale_bytes: record.bytes(scale_group),
        })
    }

    /// Bytes of one panel with `blocks` blocks of inputs, a multiple of 64; `None` on overflow.
    pub fn panel_bytes(&self, blocks: usize) -> Option<usize> {
        let codes = blocks.checked_mul(self.code_bytes)?;
        let scales = blocks.div_ceil(self.scale_group).checked_mul(self.scale_bytes)?;
        codes.checked_add(scales)?.checked_next_multiple_of(64)
    }

    /// Bits that a weight takes in a panel, scales included. In the stored type it takes
    /// `8 * dtype.block_bytes() / dtype.block_length()`.
    pub fn bits_per_weight(&self) -> f64 {
        let bytes = (self.scale_group * self.code_bytes + self.scale_bytes) as f64;
        8.0 * bytes / (self.scale_group * BLOCK * PANEL) as f64
    }
}

impl Planes {
    /// Bytes of a block.
    fn bytes(self) -> usize {
        match self {
            Planes::Floats { bytes } => BLOCK * PANEL * bytes,
            Planes::Integers { low, high, .. } => BLOCK * PANEL * (low + high) as usize / 8,
            Planes::Book(_) => BLOCK * PANEL / 2,
        }
    }
}

impl Record {
    /// Bytes of a record for `blocks` blocks.
    fn bytes(self, blocks: usize) -> usize {
        let row = match self {
            Record::None => 0,
            Record::Half { minimum } => 2 + 2 * usize::from(minimum),
            Record::Super { halves } => 2 + blocks * halves,
            Record::SuperAndMinimum | Record::SuperAndMinimumNibbles => 4 + 2 * blocks,
            Record::PowerOfTwo => 1,
            Record::SmallFloat => 2,
        };
        row * PANEL
    }
}
