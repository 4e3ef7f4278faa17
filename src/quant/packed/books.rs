//! Code books: what the 4-bit codes of a packed type mean when they are names of values.
//!
//! The lattice types (IQ1 to IQ3) draw on at most 16 different values, so their grids are needed only while packing.

use crate::quant::scalar::{E2M1_BOOK, IQ4_BOOK};

/// Sixteen values.
pub trait Book: 'static {
    /// The value of each code.
    const VALUES: [i8; 16];
    /// The same plus 128, as the kernels take them.
    const UNSIGNED: [u8; 16] = unsigned(Self::VALUES);
}

const fn unsigned(values: [i8; 16]) -> [u8; 16] {
    let mut unsigned = [0; 16];
    let mut i = 0;
    while i < 16 {
        unsigned[i] = values[i] as u8 ^ 0x80;
        i += 1;
    }
    unsigned
}

macro_rules! books {
    ($($(#[$doc:meta])* $name:ident = $values:expr;)*) => { $(
        $(#[$doc])*
        pub struct $name;
        impl Book for $name {
            const VALUES: [i8; 16] = $values;
        }
    )* };
}

books! {
    /// IQ4_NL and IQ4_XS.
    Iq4Book = IQ4_BOOK;
    /// Twice the E2M1 values: MXFP4 and NVFP4.
    E2m1Book = E2M1_BOOK;
    /// IQ1_S and IQ1_M: eight times -1, 0 or 1, and the shift of an eighth.
    Iq1Book = [-9, -7, -1, 1, 7, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    /// IQ2_XXS, IQ2_XS and IQ2_S.
    Iq2Book = [-43, -25, -8, 0, 8, 25, 43, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    /// IQ3_XXS.
    Iq3xxsBook = [-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62];
    /// IQ3_S.
    Iq3sBook = [-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15];
}
