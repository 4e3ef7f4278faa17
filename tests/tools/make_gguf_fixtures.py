#!/usr/bin/env python3
"""Writes the GGUF fixtures of tests/gguf_reader.rs with the Python package `gguf` (0.19), an independent writer.

    python tests/tools/make_gguf_fixtures.py tests/data

The results are committed; run it again only to change them. Beside each file lies a JSON file that says what
the package's own reader finds in it.
"""

import json
import logging
import math
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

logging.disable(logging.WARNING)

# Integers at both ends of their range, floats that need all their digits.
SCALARS = {
    "UINT8": [0, 255],
    "INT8": [-128, 127],
    "UINT16": [0, 65535],
    "INT16": [-32768, 32767],
    "UINT32": [0, 4294967295],
    "INT32": [-2147483648, 2147483647],
    "FLOAT32": [0.1, -3.4028234663852886e38],
    "BOOL": [False, True],
    "STRING": ["Grüße, 世界 🌍", 'quotes " \\ and\ncontrols \x01'],
    "UINT64": [0, 18446744073709551615],
    "INT64": [-9223372036854775808, 9223372036854775807],
    "FLOAT64": [0.1, 1.7976931348623157e308],
}


def single(value):
    """The float that a 32-bit field keeps, as the shortest decimal that reads back."""
    return float(str(np.float32(value)))


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def values(folder):
    path = folder / "gguf-values.gguf"
    writer = gguf.GGUFWriter(path, "test")
    expected = {"general.architecture": "test"}
    for name, samples in SCALARS.items():
        kind = GGUFValueType[name]
        seen = [single(v) for v in samples] if name == "FLOAT32" else samples
        for index, value in enumerate(samples):
            writer.add_key_value(f"scalar.{name.lower()}.{index}", value, kind)
            expected[f"scalar.{name.lower()}.{index}"] = seen[index]
        writer.add_key_value(f"array.{name.lower()}", samples, GGUFValueType.ARRAY, sub_type=kind)
        expected[f"array.{name.lower()}"] = seen
    writer.add_key_value("array.nested", [[[1, 2], [3]], [[4]]], GGUFValueType.ARRAY)
    expected["array.nested"] = [[[1, 2], [3]], [[4]]]
    writer.add_key_value("array.tokens", ["a", b"\xff\xfe", b"b\x80c", ""], GGUFValueType.ARRAY)
    expected["array.tokens"] = ["a", "\ufffd\ufffd", "b\ufffdc", ""]
    writer.add_key_value("float.infinite", math.inf, GGUFValueType.FLOAT32)
    expected["float.infinite"] = None
    write(writer)
    (folder / "gguf-values.json").write_text(json.dumps(expected, indent=1) + "\n")


def types(folder, name, alignment):
    """A tensor of each type, of one to four dimensions; byte `i` of tensor `t` is `(7 i + t) mod 251`."""
    path = folder / name
    writer = gguf.GGUFWriter(path, "test")
    writer.add_custom_alignment(alignment)
    sizes = {}
    for index, kind in enumerate(GGMLQuantizationType):
        length, size = gguf.GGML_QUANT_SIZES[kind]
        sizes[kind.name] = [kind.value, length, size]
        # The package still has the size from before the scales of Q8_1 became 16 bits wide (40, not 36).
        if kind == GGMLQuantizationType.Q8_1:
            continue
        blocks = 1 if length > 1 else 5
        shape = [[], [3], [2, 3], [2, 1, 2]][index % 4] + [size * blocks]
        count = math.prod(shape)
        data = ((7 * np.arange(count) + index) % 251).astype(np.uint8).reshape(shape)
        writer.add_tensor(f"tensor.{kind.name}", data, raw_dtype=kind)
    write(writer)
    reader = gguf.GGUFReader(path)
    tensors = [
        [t.name, int(t.tensor_type), [int(n) for n in t.shape], int(t.data_offset), int(t.n_bytes)]
        for t in reader.tensors
    ]
    document = {"alignment": alignment, "sizes": sizes, "tensors": tensors}
    path.with_suffix(".json").write_text(json.dumps(document) + "\n")


def main():
    folder = Path(sys.argv[1])
    values(folder)
    types(folder, "gguf-types.gguf", 32)
    types(folder, "gguf-types-aligned-256.gguf", 256)
    # Version 2 is laid out like version 3; the package writes version 3 only.
    contents = bytearray((folder / "gguf-values.gguf").read_bytes())
    contents[4:8] = struct.pack("<I", 2)
    (folder / "gguf-v2.gguf").write_bytes(contents)
    big = gguf.GGUFWriter(folder / "gguf-big-endian.gguf", "test", endianess=gguf.GGUFEndian.BIG)
    big.add_tensor("tensor", np.arange(4, dtype=np.float32))
    write(big)


if __name__ == "__main__":
    main()
