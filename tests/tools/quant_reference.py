#!/usr/bin/env python3
"""Writes tests/data/quant/: what the Python package `gguf` makes of random blocks and of test values.

    python3 tests/tools/quant_reference.py        (needs: pip install gguf numpy)

decode_TYPE.bin: the bytes of some blocks, then the f32 values that gguf decodes them to.
encode_input.bin: f32 values; encode_TYPE.bin: the bytes that gguf encodes them to.
The files are committed; tests/quant_scalar.rs compares bit for bit.
"""
import pathlib

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

OUT = pathlib.Path(__file__).resolve().parent.parent / "data" / "quant"

DECODE = (
    "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S "
    "IQ1_S IQ1_M IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4"
).split()
ENCODE = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 TQ1_0 TQ2_0 MXFP4".split()

# Where the f16 scale lies in a block; negative: from the end.
SCALE_AT = {name: 0 for name in DECODE} | {
    "Q2_K": -4, "Q3_K": -2, "Q6_K": -2, "TQ1_0": -2, "TQ2_0": -2,
    "F32": None, "F16": None, "BF16": None, "IQ1_M": None, "MXFP4": None, "NVFP4": None,
}


def random_blocks(random, name):
    length, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    count = 2048 // length if length < 64 else 9
    if length == 1:
        count = 1024
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    at = SCALE_AT[name]
    if at is not None:
        # Infinity, minus infinity, NaN, zero, minus zero, the smallest denormal; the rest are random.
        for row, bits in enumerate([0x7C00, 0xFC00, 0x7E01, 0x0000, 0x8000, 0x0001]):
            blocks[row, at % size], blocks[row, at % size + 1] = bits & 255, bits >> 8
    return blocks


def encode_input(random):
    normal = random.standard_normal(256).astype(np.float32)
    runs = [
        normal,
        normal * np.float32(1e-6),
        normal * np.float32(3e4),
        np.zeros(256, np.float32),
        np.eye(1, 256, 77, dtype=np.float32).ravel() * np.float32(-3.5),
        # Exact halves of steps: ties.
        random.integers(-16, 17, 256).astype(np.float32) / np.float32(2),
        random.integers(-255, 256, 256).astype(np.float32) / np.float32(254),
        # All positive, all negative, one constant.
        np.abs(normal) + np.float32(1),
        -np.abs(normal) - np.float32(1),
        np.full(256, 0.7, np.float32),
        # Powers of two and their neighbours, one magnitude per block of 32.
        np.repeat(np.nextafter(np.float32(2) ** np.arange(-20, 12, 4, dtype=np.float32), np.float32(0)), 32),
        np.repeat(np.float32(2) ** np.arange(-40, 40, 10, dtype=np.float32), 32) * np.sign(normal),
        random.standard_t(3, 256).astype(np.float32),
        random.uniform(-1, 1, 256).astype(np.float32) * np.float32(1e-3),
    ]
    return np.concatenate(runs)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(20261120)
    np.seterr(all="ignore")
    for name in DECODE:
        kind = GGMLQuantizationType[name]
        blocks = random_blocks(random, name)
        values = quants.dequantize(blocks.reshape(1, -1), kind)
        (OUT / f"decode_{name}.bin").write_bytes(blocks.tobytes() + np.asarray(values, "<f4").tobytes())
    values = encode_input(random)
    (OUT / "encode_input.bin").write_bytes(np.asarray(values, "<f4").tobytes())
    for name in ENCODE:
        encoded = quants.quantize(values.reshape(1, -1), GGMLQuantizationType[name])
        (OUT / f"encode_{name}.bin").write_bytes(np.ascontiguousarray(encoded).tobytes())


if __name__ == "__main__":
    main()
