"""Writes model files of real shapes with random weights: for speed and memory, where the real weights are too large
or on no registry.

    python3 tests/tools/write_model.py SHAPE TYPE OUT.gguf
    python3 tests/tools/write_model.py --list

The vocabulary is complete (the tokenizer loads and gives ids as usual), and weights have the size at which activations
stay as large as in a trained model. A file is the same bytes on every run. Tensors are made piece by piece: memory stays
below 200 MB, also for the 8.3 GB of qwen2.5-14b in Q4_K.

Needs numpy, which nothing else in the project does: python3 -m pip install numpy (or inside python3 -m venv FOLDER).
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; blocks: ggml-common.h of the same project.
"""

import argparse
import os
import string
import struct
import sys
import zlib
from pathlib import Path

try:
    import numpy as np
except ImportError:
    sys.exit("write_model.py needs numpy: python3 -m pip install numpy")

ALIGNMENT = 32
PIECE = 1 << 22  # values that are made at a time

# ---- shapes ----

# Of each model: architecture, vocabulary, and the numbers that GGUF keys hold. `head` is the size of a head.
SHAPES = {
    "embeddinggemma-300m": dict(
        architecture="gemma-embedding", layers=24, width=768, heads=3, kv_heads=1, head=256, hidden=1152,
        vocabulary=262144, context=2048, epsilon=1e-6, base=1e6, window=512, pooling=1),
    "gemma3-270m": dict(
        architecture="gemma3", layers=18, width=640, heads=4, kv_heads=1, head=256, hidden=2048,
        vocabulary=262144, context=32768, epsilon=1e-6, base=1e6, window=512),
    "qwen3-0.6b": dict(
        architecture="qwen3", layers=28, width=1024, heads=16, kv_heads=8, head=128, hidden=3072,
        vocabulary=151936, context=40960, epsilon=1e-6, base=1e6),
    "qwen2.5-0.5b": dict(
        architecture="qwen2", layers=24, width=896, heads=14, kv_heads=2, head=64, hidden=4864,
        vocabulary=151936, context=32768, epsilon=1e-6, base=1e6),
    "qwen2.5-14b": dict(
        architecture="qwen2", layers=48, width=5120, heads=40, kv_heads=8, head=128, hidden=13824,
        vocabulary=152064, context=32768, epsilon=1e-6, base=1e6, untied=True),
    "llama-3.2-1b": dict(
        architecture="llama", layers=16, width=2048, heads=32, kv_heads=8, head=64, hidden=8192,
        vocabulary=128256, context=131072, epsilon=1e-5, base=5e5),
    "smollm2-135m": dict(
        architecture="llama", layers=30, width=576, heads=9, kv_heads=3, head=64, hidden=1536,
        vocabulary=49152, context=8192, epsilon=1e-5, base=1e5),
    "minilm-l6": dict(
        architecture="bert", layers=6, width=384, heads=12, kv_heads=12, head=32, hidden=1536,
        vocabulary=30522, context=512, epsilon=1e-12, pooling=1),
    "bge-base": dict(
        architecture="bert", layers=12, width=768, heads=12, kv_heads=12, head=64, hidden=3072,
        vocabulary=30522, context=512, epsilon=1e-12, pooling=2),
    "nomic-embed-v1.5": dict(
        architecture="nomic-bert", layers=12, width=768, heads=12, kv_heads=12, head=64, hidden=3072,
        vocabulary=30522, context=2048, epsilon=1e-12, base=1000.0, pooling=1),
}

ENCODERS = ("gemma-embedding", "bert", "nomic-bert")
GEMMAS = ("gemma-embedding", "gemma3")
BERTS = ("bert", "nomic-bert")


def tensors(shape, dense):
    """(name, rows, columns, standard deviation, mean); rows 0 for a vector."""
    kind, width, hidden = shape["architecture"], shape["width"], shape["hidden"]
    queries, keys = shape["heads"] * shape["head"], shape["kv_heads"] * shape["head"]

    def matrix(name, rows, columns):
        # The sum of `columns` products of weights and values around 1 is around 1.
        return (name, rows, columns, columns**-0.5, 0.0)

    def norm(name, size):
        return (name, 0, size, 0.05, 1.0)

    yield ("token_embd.weight", shape["vocabulary"], width, 0.03, 0.0)
    if kind in BERTS:
        yield ("token_types.weight", 2, width, 0.01, 0.0)
        yield norm("token_embd_norm.weight", width)
        yield ("token_embd_norm.bias", 0, width, 0.05, 0.0)
    if kind == "bert":
        yield ("position_embd.weight", shape["context"], width, 0.01, 0.0)
    for layer in range(shape["layers"]):
        name = f"blk.{layer}."
        if kind in BERTS:
            yield from bert_layer(name, kind, width, hidden, matrix, norm)
            continue
        yield norm(name + "attn_norm.weight", width)
        for part, rows in (("attn_q", queries), ("attn_k", keys), ("attn_v", keys)):
            yield matrix(f"{name}{part}.weight", rows, width)
            if kind == "qwen2":
                yield (f"{name}{part}.bias", 0, rows, 0.1, 0.0)
        if kind in GEMMAS or kind == "qwen3":
            yield norm(name + "attn_q_norm.weight", shape["head"])
            yield norm(name + "attn_k_norm.weight", shape["head"])
        yield matrix(name + "attn_output.weight", width, queries)
        if kind in GEMMAS:
            yield norm(name + "post_attention_norm.weight", width)
        yield norm(name + "ffn_norm.weight", width)
        for part, rows, columns in (("ffn_gate", hidden, width), ("ffn_up", hidden, width), ("ffn_down", width, hidden)):
            yield matrix(f"{name}{part}.weight", rows, columns)
        if kind in GEMMAS:
            yield norm(name + "post_ffw_norm.weight", width)
    if kind not in BERTS:
        yield norm("output_norm.weight", width)
    if shape.get("untied"):
        yield matrix("output.weight", shape["vocabulary"], width)
    if dense:
        yield matrix("dense_2.weight", 4 * width, width)
        yield matrix("dense_3.weight", width, 4 * width)


def bert_layer(name, kind, width, hidden, matrix, norm):
    biased = kind == "bert"
    parts = [("attn_q", width, width), ("attn_k", width, width), ("attn_v", width, width)]
    if not biased:
        parts = [("attn_qkv", 3 * width, width)]
    parts += [("attn_output", width, width), ("ffn_up", hidden, width), ("ffn_down", width, hidden)]
    if not biased:
        parts.append(("ffn_gate", hidden, width))
    for part, rows, columns in parts:
        yield matrix(f"{name}{part}.weight", rows, columns)
        if biased:
            yield (f"{name}{part}.bias", 0, rows, 0.05, 0.0)
    for part in ("attn_output_norm", "layer_output_norm"):
        yield norm(f"{name}{part}.weight", width)
        yield (f"{name}{part}.bias", 0, width, 0.05, 0.0)


# ---- weight types ----


def normal_codes(levels, deviation):
    """A table from 16 random bits to a code: codes 0 to levels - 1 of a normal distribution around their middle."""
    random = np.sort(np.random.default_rng(7).standard_normal(1 << 16))
    return np.clip(np.rint(random * deviation + levels / 2), 0, levels - 1).astype(np.uint8)


def scales(rng, blocks, scale):
    """A scale for each block, as F16: they differ as those of real weights do."""
    return (scale * rng.uniform(0.8, 1.2, blocks)).astype(np.float16).view(np.uint8).reshape(blocks, 2)


def uniform_bytes(rng, blocks, count):
    return np.frombuffer(rng.bytes(blocks * count), np.uint8).reshape(blocks, count)


def table_bytes(rng, table, blocks, count):
    return table[np.frombuffer(rng.bytes(2 * blocks * count), np.uint16)].reshape(blocks, count)


def floats(kind):
    def make(rng, blocks, scale, mean):
        values = rng.standard_normal(blocks, dtype=np.float32) * np.float32(scale) + np.float32(mean)
        if kind == "BF16":
            # To nearest; no value is a NaN.
            bits = values.view(np.uint32)
            return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        return values.astype(np.float16) if kind == "F16" else values

    return make


def q8_0(rng, blocks, scale, _):
    codes = table_bytes(rng, Q8_TABLE, blocks, 32) ^ 0x80  # 128 becomes 0
    return np.hstack([scales(rng, blocks, scale / 40), codes])


def nibbles(rng, blocks, count):
    low, high = (table_bytes(rng, Q4_TABLE, blocks, count) for _ in range(2))
    return low | high << 4


def q4_0(rng, blocks, scale, _):
    return np.hstack([scales(rng, blocks, scale / 3), nibbles(rng, blocks, 16)])


def q4_1(rng, blocks, scale, _):
    step = scales(rng, blocks, scale / 3)
    least = (step.view(np.float16) * np.float16(-8)).view(np.uint8)
    return np.hstack([step, least, nibbles(rng, blocks, 16)])


def q4_k(rng, blocks, scale, _):
    """Super-blocks of 8 x 32: d * s * q - m * s, with m = 7.5 d, so that the middle is 0; q is uniform (deviation 4.6)."""
    sub = rng.integers(32, 64, (blocks, 8), dtype=np.uint8)
    low, high = sub[:, :4], sub[:, 4:]
    packed = np.hstack([low | (high >> 4) << 6, low | (high >> 4) << 6, (high & 15) | (high & 15) << 4])
    step = scales(rng, blocks, scale / (4.61 * 48))
    least = (step.view(np.float16) * np.float16(7.5)).view(np.uint8)
    return np.hstack([step, least, packed, uniform_bytes(rng, blocks, 128)])


def q6_k(rng, blocks, scale, _):
    """Super-blocks of 16 x 16: d * s * (q - 32), q uniform (deviation 18.5)."""
    sub = rng.integers(64, 128, (blocks, 16), dtype=np.uint8)
    codes = uniform_bytes(rng, blocks, 192)
    return np.hstack([codes, sub, scales(rng, blocks, scale / (18.5 * 96))])


Q8_TABLE, Q4_TABLE = normal_codes(256, 40), normal_codes(16, 3)

# Name: number in GGUF, values of a block, bytes of a block, maker of blocks.
TYPES = {
    "F32": (0, 1, 4, floats("F32")),
    "F16": (1, 1, 2, floats("F16")),
    "BF16": (30, 1, 2, floats("BF16")),
    "Q4_0": (2, 32, 18, q4_0),
    "Q4_1": (3, 32, 20, q4_1),
    "Q8_0": (8, 32, 34, q8_0),
    "Q4_K": (12, 256, 144, q4_k),
    "Q6_K": (14, 256, 210, q6_k),
}

# ---- metadata ----

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5


def text(value):
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    packed = {U32: "<I", F32: "<f", BOOL: "<?"}
    data = text(value) if kind == STRING else struct.pack(packed[kind], value)
    return text(key) + struct.pack("<I", kind) + data


def array(key, kind, values):
    head = text(key) + struct.pack("<IIQ", ARRAY, kind, len(values))
    if kind == STRING:
        return head + b"".join(map(text, values))
    return head + np.asarray(values, {I32: "<i4", F32: "<f4"}[kind]).tobytes()


def numbers(shape, dense):
    kind = shape["architecture"]
    epsilon = "layer_norm_epsilon" if kind in BERTS else "layer_norm_rms_epsilon"
    yield entry("general.architecture", STRING, kind)
    yield entry("general.name", STRING, f"random weights, {kind}")
    for key, value in (
        ("block_count", shape["layers"]),
        ("context_length", shape["context"]),
        ("embedding_length", shape["width"]),
        ("feed_forward_length", shape["hidden"]),
        ("attention.head_count", shape["heads"]),
        ("attention.head_count_kv", shape["kv_heads"]),
        ("attention.key_length", shape["head"]),
        ("attention.value_length", shape["head"]),
        ("attention.sliding_window", shape.get("window")),
        ("pooling_type", shape.get("pooling")),
    ):
        if value is not None:
            yield entry(f"{kind}.{key}", U32, value)
    yield entry(f"{kind}.attention.{epsilon}", F32, shape["epsilon"])
    if "base" in shape:
        yield entry(f"{kind}.rope.freq_base", F32, shape["base"])
    if kind in BERTS:
        yield entry(f"{kind}.attention.causal", BOOL, False)
        yield entry("tokenizer.ggml.token_type_count", U32, 2)
    if dense:
        for name, inputs, outputs in (("dense_2", 1, 4), ("dense_3", 4, 1)):
            yield entry(f"{kind}.{name}_feat_in", U32, inputs * shape["width"])
            yield entry(f"{kind}.{name}_feat_out", U32, outputs * shape["width"])


# ---- vocabularies ----

NORMAL, UNKNOWN, CONTROL, UNUSED, BYTE = 1, 2, 3, 5, 6
LETTERS = string.ascii_letters + string.digits


def words(first, letters):
    """first + one letter, then + two, and so on: every word but the last letter is one that came before."""
    level = list(first)
    while True:
        level = [word + letter for word in level for letter in letters]
        yield from level


def sentence_piece(size):
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    types = [CONTROL, CONTROL, CONTROL, UNKNOWN] + [BYTE] * 256
    singles = [c for c in map(chr, range(33, 127))] + ["\u2581"]
    tokens += singles
    known = set(tokens)
    for word in words(["\u2581"] + list(LETTERS), LETTERS):
        if len(tokens) == size:
            break
        if word not in known:
            known.add(word)
            tokens.append(word)
    types += [NORMAL] * (size - len(types))
    yield entry("tokenizer.ggml.model", STRING, "llama")
    yield array("tokenizer.ggml.tokens", STRING, tokens)
    # The lower the score, the later a merge.
    yield array("tokenizer.ggml.scores", F32, [-float(i) if t == NORMAL else 0.0 for i, t in enumerate(types)])
    yield array("tokenizer.ggml.token_type", I32, types)
    for key, value in (("bos", 2), ("eos", 1), ("unknown", 3), ("padding", 0)):
        yield entry(f"tokenizer.ggml.{key}_token_id", U32, value)
    yield entry("tokenizer.ggml.add_bos_token", BOOL, True)
    yield entry("tokenizer.ggml.add_eos_token", BOOL, True)
    yield entry("tokenizer.ggml.add_space_prefix", BOOL, False)


def byte_characters():
    """The character that stands for each byte in the vocabularies of the gpt2 family."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + rest.index(byte)) for byte in range(256)]


def byte_pairs(size, pattern):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    room = size - 512 if size > 60000 else size - 3  # Some tokens of the large ones are not used.
    tokens, merges = byte_characters(), []
    known = set(tokens)
    for word in words(["\u0120"] + list(LETTERS), LETTERS):
        if len(tokens) == room:
            break
        if word not in known:
            known.add(word)
            tokens.append(word)
            merges.append(f"{word[:-1]} {word[-1]}")
    types = [NORMAL] * len(tokens) + [CONTROL] * 3
    first = len(tokens)
    tokens += special
    types += [UNUSED] * (size - len(tokens))
    tokens += [f"[PAD{i}]" for i in range(len(tokens), size)]
    yield entry("tokenizer.ggml.model", STRING, "gpt2")
    yield entry("tokenizer.ggml.pre", STRING, pattern)
    yield array("tokenizer.ggml.tokens", STRING, tokens)
    yield array("tokenizer.ggml.token_type", I32, types)
    yield array("tokenizer.ggml.merges", STRING, merges)
    yield entry("tokenizer.ggml.bos_token_id", U32, first)
    yield entry("tokenizer.ggml.eos_token_id", U32, first + 2)
    yield entry("tokenizer.ggml.add_bos_token", BOOL, False)


def word_pieces(size):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = special + [f"\u2581{chr(c)}" for c in range(33, 127)]
    # Without the mark of a word's begin: what continues a word.
    tokens += list(string.ascii_lowercase + string.digits)
    for word in words(list(string.ascii_lowercase), string.ascii_lowercase):
        if len(tokens) >= size:
            break
        tokens += [f"\u2581{word}", word][: size - len(tokens)]
    yield entry("tokenizer.ggml.model", STRING, "bert")
    yield array("tokenizer.ggml.tokens", STRING, tokens)
    yield array("tokenizer.ggml.token_type", I32, [CONTROL] * len(special) + [NORMAL] * (size - len(special)))
    for key, value in (("padding", 0), ("unknown", 1), ("bos", 2), ("cls", 2), ("eos", 3), ("seperator", 3), ("mask", 4)):
        yield entry(f"tokenizer.ggml.{key}_token_id", U32, value)


def tokenizer(shape):
    kind, size = shape["architecture"], shape["vocabulary"]
    if kind in GEMMAS:
        return sentence_piece(size)
    if kind in BERTS:
        return word_pieces(size)
    return byte_pairs(size, {"qwen2": "qwen2", "qwen3": "qwen2"}.get(kind, "smollm"))


# ---- the file ----


def type_of(name, rows, columns, kind):
    """Vectors and small tables are F32, and so are rows that do not fill the blocks."""
    small = rows == 0 or name.startswith(("position_embd", "token_types"))
    return "F32" if small or columns % TYPES[kind][1] else kind


def pieces(name, rows, columns, kind, scale, mean):
    """The tensor's bytes, `PIECE` values at a time."""
    _, length, _, make = TYPES[kind]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    left = max(rows, 1) * columns // length
    while left > 0:
        blocks = min(left, PIECE // length)
        yield make(rng, blocks, scale, mean).tobytes()
        left -= blocks


def write(shape, kind, dense, path):
    listed = [(*tensor, type_of(*tensor[:3], kind)) for tensor in tensors(shape, dense)]
    entries = [*numbers(shape, dense), *tokenizer(shape)]
    infos, offset = [], 0
    for name, rows, columns, _, _, stored in listed:
        number, length, size, _ = TYPES[stored]
        dimensions = (columns, rows) if rows else (columns,)
        infos.append(text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, number, offset))
        data = max(rows, 1) * columns // length * size
        offset += -(-data // ALIGNMENT) * ALIGNMENT
    unfinished = path.with_name(path.name + ".part")
    try:
        with open(unfinished, "wb") as file:
            file.write(b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(entries)) + b"".join(entries) + b"".join(infos))
            done = 0
            for name, rows, columns, scale, mean, stored in listed:
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                for piece in pieces(name, rows, columns, stored, scale, mean):
                    file.write(piece)
                    done += len(piece)
                    if sys.stderr.isatty():
                        print(f"\r{path.name}: {done / 1e6:.0f} of {offset / 1e6:.0f} MB", end="", file=sys.stderr)
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
        if sys.stderr.isatty():
            print(file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description="Writes a GGUF file of a real shape with random weights.")
    parser.add_argument("shape", nargs="?", choices=SHAPES)
    parser.add_argument("type", nargs="?", choices=TYPES)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--dense", action="store_true", help="with the dense layers behind an EmbeddingGemma")
    parser.add_argument("--list", action="store_true", help="list shapes with their sizes")
    given = parser.parse_args()
    if given.list:
        for name, shape in SHAPES.items():
            count = sum(max(rows, 1) * columns for _, rows, columns, _, _ in tensors(shape, False))
            print(f"{name:20} {shape['architecture']:16} {count / 1e6:8.0f} M parameters")
        return
    if given.out is None:
        parser.error("expected SHAPE TYPE OUT")
    if given.dense and SHAPES[given.shape]["architecture"] != "gemma-embedding":
        parser.error("--dense is for embeddinggemma-300m")
    write(SHAPES[given.shape], given.type, given.dense, given.out)


if __name__ == "__main__":
    main()
