//! The blocks of quantized tensors as they lie in a GGUF file (ggml's `ggml-common.h`), and those of MCF's types.
//!
//! Multi-byte fields are little-endian. In the comments, `w` is a value, `q` its code. A *super-block* of the
//! K- and IQ-types holds 256 values in groups of 16 or 32 with a sub-scale each.
//! Half-precision scales are kept as their bits; `super::convert::f16_to_f32` gives the value.

/// A block of a quantized type, read from and written to bytes by copy, so that alignment does not matter.
pub trait Block: Sized {
    /// Size in bytes, in memory and in a file.
    const BYTES: usize;

    /// Reads a block; `None` unless `bytes` is exactly [`Block::BYTES`] long.
    fn read(bytes: &[u8]) -> Option<Self>;

    /// Writes the block; `None` unless `bytes` is exactly [`Block::BYTES`] long.
    fn write(&self, bytes: &mut [u8]) -> Option<()>;
}

/// A field of a block: a little-endian number or an array of them.
trait Field: Sized {
    const BYTES: usize;
    fn read(bytes: &[u8]) -> Option<Self>;
    fn write(&self, bytes: &mut [u8]) -> Option<()>;
}

macro_rules! number_fields {
    ($($number:ty),*) => {$(
        impl Field for $number {
            const BYTES: usize = size_of::<$number>();

            #[inline(always)]
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(<$number>::from_le_bytes(bytes.try_into().ok()?))
            }

            #[inline(always)]
            fn write(&self, bytes: &mut [u8]) -> Option<()> {
                if bytes.len() != size_of::<$number>() {
                    return None;
                }
                bytes.copy_from_slice(&self.to_le_bytes());
                Some(())
            }
        }

        impl<const N: usize> Field for [$number; N] {
            const BYTES: usize = N * size_of::<$number>();

            #[inline(always)]
            fn read(bytes: &[u8]) -> Option<Self> {
                let (numbers, rest) = bytes.as_chunks();
                if numbers.len() != N || !rest.is_empty() {
                    return None;
                }
                let mut field = [<$number>::default(); N];
                for (value, number) in field.iter_mut().zip(numbers) {
                    *value = <$number>::from_le_bytes(*number);
                }
                Some(field)
            }

            #[inline(always)]
            fn write(&self, bytes: &mut [u8]) -> Option<()> {
                let (numbers, rest) = bytes.as_chunks_mut();
                if numbers.len() != N || !rest.is_empty() {
                    return None;
                }
                for (number, value) in numbers.iter_mut().zip(self) {
                    *number = value.to_le_bytes();
                }
                Some(())
            }
        }
    )*};
}

number_fields!(u8, i8, u16, i16, f32);

macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident, $bytes:literal bytes {
        $($(#[$field_doc:meta])* $field:ident: $kind:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[repr(C)]
        #[allow(non_camel_case_types)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }

        const _: () = assert!(size_of::<$name>() == $bytes);

        impl Block for $name {
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn read(bytes: &[u8]) -> Option<Self> {
                let rest = bytes;
                $(let ($field, rest) = rest.split_at_checked(<$kind as Field>::BYTES)?;)*
                if !rest.is_empty() {
                    return None;
                }
                Some($name { $($field: <$kind as Field>::read($field)?,)* })
            }

            #[inline(always)]
            fn write(&self, bytes: &mut [u8]) -> Option<()> {
                if bytes.len() != $bytes {
                    return None;
                }
                let rest = bytes;
                $(
                    let (field, rest) = rest.split_at_mut_checked(<$kind as Field>::BYTES)?;
                    self.$field.write(field)?;
                )*
                rest.is_empty().then_some(())
            }
        }
    )*};
}

blocks! {
    /// 32 values of 4 bits: `w = scale * (q - 8)`.
    BlockQ4_0, 18 bytes {
        /// f16 scale.
        scale: u16,
        /// Value i in the low half of byte i, value 16+i in the high half.
        codes: [u8; 16],
    }

    /// 32 values of 4 bits: `w = scale * q + minimum`.
    BlockQ4_1, 20 bytes {
        /// f16 scale.
        scale: u16,
        /// f16 minimum.
        minimum: u16,
        /// As in [`BlockQ4_0`].
        codes: [u8; 16],
    }

    /// 32 values of 5 bits: `w = scale * (q - 16)`.
    BlockQ5_0, 22 bytes {
        /// f16 scale.
        scale: u16,
        /// Bit i is bit 4 of value i's code, as a little-endian u32.
        high_bits: [u8; 4],
        /// The low 4 bits, as in [`BlockQ4_0`].
        codes: [u8; 16],
    }

    /// 32 values of 5 bits: `w = scale * q + minimum`.
    BlockQ5_1, 24 bytes {
        /// f16 scale.
        scale: u16,
        /// f16 minimum.
        minimum: u16,
        /// As in [`BlockQ5_0`].
        high_bits: [u8; 4],
        /// The low 4 bits, as in [`BlockQ4_0`].
        codes: [u8; 16],
    }

    /// 32 values of 8 bits: `w = scale * q`.
    BlockQ8_0, 34 bytes {
        /// f16 scale.
        scale: u16,
        /// Signed codes.
        codes: [i8; 32],
    }

    /// 32 activations of 8 bits: `w = scale * q`.
    BlockQ8_1, 36 bytes {
        /// f16 scale.
        scale: u16,
        /// f16 of `scale` times the sum of the codes.
        sum: u16,
        /// Signed codes.
        codes: [i8; 32],
    }

    /// 256 values of 2 bits, groups of 16: `w = scale * sub_scale * q - minimum * sub_minimum`.
    BlockQ2_K, 84 bytes {
        /// Per group the sub-scale in the low half, the sub-minimum in the high half.
        sub_scales: [u8; 16],
        /// 128 values per 32 bytes: value 32j+i in bits 2j and 2j+1 of byte i.
        codes: [u8; 64],
        /// f16 scale of the sub-scales.
        scale: u16,
        /// f16 scale of the sub-minimums.
        minimum: u16,
    }

    /// 256 values of 3 bits, groups of 16: `w = scale * (sub_scale - 32) * (q - 4)`.
    BlockQ3_K, 110 bytes {
        /// Bit 2 of the codes: value 32j+i in bit j of byte i.
        high_bits: [u8; 32],
        /// The low 2 bits, as in [`BlockQ2_K`].
        codes: [u8; 64],
        /// 16 sub-scales of 6 bits: low 4 bits in bytes 0-7 (group i, then 8+i in the high half), bits 4-5 in
        /// bytes 8-11 (group 4j+i in bits 2j and 2j+1 of byte 8+i).
        sub_scales: [u8; 12],
        /// f16 scale.
        scale: u16,
    }

    /// 256 values of 4 bits, groups of 32: `w = scale * sub_scale * q - minimum * sub_minimum`.
    BlockQ4_K, 144 bytes {
        /// f16 scale of the sub-scales.
        scale: u16,
        /// f16 scale of the sub-minimums.
        minimum: u16,
        /// 8 sub-scales and 8 sub-minimums of 6 bits; see `scalar::k_quants` for the order.
        sub_scales: [u8; 12],
        /// 64 values per 32 bytes: the first 32 in the low halves, the next 32 in the high halves.
        codes: [u8; 128],
    }

    /// 256 values of 5 bits, groups of 32: `w = scale * sub_scale * q - minimum * sub_minimum`.
    BlockQ5_K, 176 bytes {
        /// f16 scale of the sub-scales.
        scale: u16,
        /// f16 scale of the sub-minimums.
        minimum: u16,
        /// As in [`BlockQ4_K`].
        sub_scales: [u8; 12],
        /// Bit 4 of the codes: value 32j+i in bit j of byte i.
        high_bits: [u8; 32],
        /// The low 4 bits, as in [`BlockQ4_K`].
        codes: [u8; 128],
    }

    /// 256 values of 6 bits, groups of 16: `w = scale * sub_scale * (q - 32)`.
    BlockQ6_K, 210 bytes {
        /// The low 4 bits; 128 values per 64 bytes: the first 64 in the low halves, the next in the high halves.
        codes: [u8; 128],
        /// Bits 4-5, as the codes of [`BlockQ2_K`].
        high_bits: [u8; 64],
        /// Signed sub-scales.
        sub_scales: [i8; 16],
        /// f16 scale.
        scale: u16,
    }

    /// 256 activations of 8 bits: `w = scale * q`.
    BlockQ8_K, 292 bytes {
        /// f32 scale.
        scale: f32,
        /// Signed codes.
        codes: [i8; 256],
        /// Sums of the codes of each 16 values.
        sums: [i16; 16],
    }

    /// 256 values on a lattice of 256 points, groups of 32: `w = scale/8 * (2*sub_scale + 1) * point`.
    BlockIQ2_XXS, 66 bytes {
        /// f16 scale.
        scale: u16,
        /// Eight bytes per group: 4 point numbers of 8 bits; then, as a little-endian u32, 4 sign patterns of
        /// 7 bits and the sub-scale in bits 28-31.
        codes: [u8; 64],
    }

    /// 256 values on a lattice of 512 points, groups of 16: `w = scale/8 * (2*sub_scale + 1) * point`.
    BlockIQ2_XS, 74 bytes {
        /// f16 scale.
        scale: u16,
        /// Per 8 values the point number in bits 0-8 and the sign pattern in bits 9-15.
        codes: [u16; 32],
        /// Two groups a byte, low half first.
        sub_scales: [u8; 8],
    }

    /// 256 values on a lattice of 1024 points, groups of 16: `w = scale/8 * (2*sub_scale + 1) * point`.
    BlockIQ2_S, 82 bytes {
        /// f16 scale.
        scale: u16,
        /// Per 8 values the low 8 bits of the point number.
        codes: [u8; 32],
        /// Per 8 values a sign bit each.
        signs: [u8; 32],
        /// Bits 8-9 of four point numbers a byte.
        high_bits: [u8; 8],
        /// Two groups a byte, low half first.
        sub_scales: [u8; 8],
    }

    /// 256 values on a lattice of 256 points, groups of 32: `w = scale/4 * (2*sub_scale + 1) * point`.
    BlockIQ3_XXS, 98 bytes {
        /// f16 scale.
        scale: u16,
        /// Per 4 values the point number.
        codes: [u8; 64],
        /// Per group 4 sign patterns of 7 bits and the sub-scale in bits 28-31, as a little-endian u32.
        signs_and_scales: [u8; 32],
    }

    /// 256 values on a lattice of 512 points, groups of 32: `w = scale * (2*sub_scale + 1) * point`.
    BlockIQ3_S, 110 bytes {
        /// f16 scale.
        scale: u16,
        /// Per 4 values the low 8 bits of the point number.
        codes: [u8; 64],
        /// Bit 8 of eight point numbers a byte.
        high_bits: [u8; 8],
        /// Per 8 values a sign bit each.
        signs: [u8; 32],
        /// Two groups a byte, low half first.
        sub_scales: [u8; 4],
    }

    /// 256 values on a lattice of 2048 points, groups of 32: `w = scale * (2*sub_scale + 1) * (point + shift)`,
    /// shift 1/8 or -1/8.
    BlockIQ1_S, 50 bytes {
        /// f16 scale.
        scale: u16,
        /// Per 8 values the low 8 bits of the point number.
        codes: [u8; 32],
        /// Per group: bits 8-10 of four point numbers, the sub-scale in bits 12-14, bit 15 set for shift -1/8.
        high_bits: [u16; 8],
    }

    /// 256 values on the lattice of IQ1_S, groups of 16: `w = scale * (2*sub_scale + 1) * (point + shift)`.
    BlockIQ1_M, 56 bytes {
        /// Per 8 values the low 8 bits of the point number.
        codes: [u8; 32],
        /// Per 8 values half a byte: bits 8-10 of the point number, bit 3 set for shift -1/8.
        high_bits: [u8; 16],
        /// Four sub-scales of 3 bits each; the top 4 bits are a quarter of the f16 scale, lowest quarter first.
        sub_scales: [u16; 4],
    }

    /// 32 values of 4 bits in a code book: `w = scale * book[q]`.
    BlockIQ4_NL, 18 bytes {
        /// f16 scale.
        scale: u16,
        /// As in [`BlockQ4_0`].
        codes: [u8; 16],
    }

    /// 256 values of 4 bits in a code book, groups of 32: `w = scale * (sub_scale - 32) * book[q]`.
    BlockIQ4_XS, 136 bytes {
        /// f16 scale.
        scale: u16,
        /// Bits 4-5 of the sub-scales, group i in bits 2i and 2i+1.
        sub_scales_high: u16,
        /// The low 4 bits of the sub-scales, two groups a byte, low half first.
        sub_scales_low: [u8; 4],
        /// Per group 16 bytes, as in [`BlockQ4_0`].
        codes: [u8; 128],
    }

    /// 256 values -1, 0 or 1: `w = scale * (q - 1)`.
    BlockTQ1_0, 54 bytes {
        /// Five base-3 digits a byte; see `scalar::ternary`.
        codes: [u8; 48],
        /// Four base-3 digits a byte, for the last 16 values.
        high_codes: [u8; 4],
        /// f16 scale.
        scale: u16,
    }

    /// 256 values -1, 0 or 1: `w = scale * (q - 1)`.
    BlockTQ2_0, 66 bytes {
        /// As in [`BlockQ2_K`].
        codes: [u8; 64],
        /// f16 scale.
        scale: u16,
    }

    /// 32 values of 4 bits (E2M1 floats): `w = 2^(exponent - 128) * (twice the E2M1 value)`; OCP Microscaling 1.0.
    BlockMXFP4, 17 bytes {
        /// E8M0 exponent.
        exponent: u8,
        /// As in [`BlockQ4_0`].
        codes: [u8; 16],
    }

    /// 64 values of 4 bits (E2M1 floats) in groups of 16 with an FP8 (E4M3) scale each.
    BlockNVFP4, 36 bytes {
        /// E4M3 scales; 0x7F counts as 0.
        sub_scales: [u8; 4],
        /// Per group 8 bytes: value i in the low half of byte i, value 8+i in the high half.
        codes: [u8; 32],
    }

    /// 128 values -1 or 1: `w = scale * (2 * q - 1)`.
    BlockQ1_0, 18 bytes {
        /// f16 scale.
        scale: u16,
        /// Value i in bit `i % 8` of byte `i / 8`.
        codes: [u8; 16],
    }

    /// 64 values of 2 bits: `w = scale * (q - 1)`.
    BlockQ2_0, 18 bytes {
        /// f16 scale.
        scale: u16,
        /// Value i in bits `2 * (i % 4)` and the next of byte `i / 4`.
        codes: [u8; 16],
    }

    /// 32 values of 8 bits: `w = scale * q`. MCF keeps scales and codes in regions of their own; so do the next five.
    BlockQ8, 34 bytes {
        /// f16 scale.
        scale: u16,
        /// Signed codes.
        codes: [u8; 32],
    }

    /// 32 values of 4 bits: `w = scale * q`.
    BlockQ4, 18 bytes {
        /// f16 scale.
        scale: u16,
        /// Signed codes, two's complement, least significant bit first: value 2i in the low half of byte i.
        codes: [u8; 16],
    }

    /// 256 values of 6 bits, groups of 32: `w = scale * (sub_scale / 32) * q`.
    BlockK6, 202 bytes {
        /// f16 scale.
        scale: u16,
        /// Sub-scales in bits 0 to 5.
        sub_scales: [u8; 8],
        /// Signed codes, two's complement, least significant bit first, 6 bits each.
        codes: [u8; 192],
    }

    /// 256 values of 4 bits, groups of 32: `w = scale * (sub_scale / 32) * q`.
    BlockK4, 138 bytes {
        /// f16 scale.
        scale: u16,
        /// Sub-scales in bits 0 to 5.
        sub_scales: [u8; 8],
        /// As in [`BlockK6`], 4 bits each.
        codes: [u8; 128],
    }

    /// 256 values of 3 bits, groups of 32: `w = scale * (sub_scale / 32) * q`.
    BlockK3, 106 bytes {
        /// f16 scale.
        scale: u16,
        /// Sub-scales in bits 0 to 5.
        sub_scales: [u8; 8],
        /// As in [`BlockK6`], 3 bits each.
        codes: [u8; 96],
    }

    /// 256 values of 2 bits, groups of 32: `w = scale * (sub_scale / 32) * q`.
    BlockK2, 74 bytes {
        /// f16 scale.
        scale: u16,
        /// Sub-scales in bits 0 to 5.
        sub_scales: [u8; 8],
        /// As in [`BlockK6`], 2 bits each.
        codes: [u8; 64],
    }
}
