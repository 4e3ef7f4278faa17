"""A forward pass of EmbeddingGemma in float64, written apart from the library, and how near the library comes to it.

    python3 tests/tools/embedding_reference.py MODEL.gguf [--program build/bin/mantle-embed] [--least 0.9995]

Both see the same file, so that what is compared is the arithmetic: the quantization of activations, 32-bit sums, the
order of additions. Prints the cosine for documents of several lengths, and fails when one is below --least.
`tests/tools/write_model.py embeddinggemma-300m TYPE OUT` writes a file of full size.

Needs numpy: python3 -m pip install numpy.
"""

import argparse
import math
import struct
import subprocess
import sys
from pathlib import Path

try:
    import numpy as np
except ImportError:
    sys.exit("embedding_reference.py needs numpy: python3 -m pip install numpy")

LENGTHS = (1, 5, 12, 60, 256, 700)

# ---- the file ----


class Reader:
    """Reads GGUF 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

    SIMPLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, path):
        self.data = np.memmap(path, np.uint8, "r")
        self.at = 0
        if bytes(self.data[:4]) != b"GGUF":
            sys.exit(f"{path}: not a GGUF file")
        self.at = 4
        _, tensors, entries = self.take("IQQ")
        self.metadata = {}
        for _ in range(entries):
            key = self.text()
            self.metadata[key] = self.value(self.take("I")[0])
        self.tensors = {}
        for _ in range(tensors):
            name = self.text()
            (dimensions,) = self.take("I")
            shape = self.take(f"{dimensions}Q")
            kind, offset = self.take("IQ")
            self.tensors[name] = (shape, kind, offset)
        alignment = self.metadata.get("general.alignment", 32)
        self.start = -(-self.at // alignment) * alignment

    def take(self, layout):
        size = struct.calcsize("<" + layout)
        values = struct.unpack("<" + layout, self.data[self.at : self.at + size].tobytes())
        self.at += size
        return values

    def text(self):
        (size,) = self.take("Q")
        self.at += size
        return self.data[self.at - size : self.at].tobytes().decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind != 9:
            return self.take(self.SIMPLE[kind])[0]
        kind, count = self.take("IQ")
        if kind == 8:
            return [self.text() for _ in range(count)]
        return list(self.take(f"{count}{self.SIMPLE[kind]}"))

    def rows(self, name, which=None):
        """The tensor's rows as float64, or those of the numbers `which`."""
        shape, kind, offset = self.tensors[name]
        if kind not in DECODERS:
            sys.exit(f"tensor {name}: type {kind} is not decoded here")
        length, size, decode = DECODERS[kind]
        count = math.prod(shape[1:])
        start = self.start + offset
        blocks = self.data[start : start + count * shape[0] // length * size].reshape(count, -1)
        blocks = np.ascontiguousarray(blocks if which is None else blocks[which])
        return decode(blocks.reshape(-1, size)).reshape(len(blocks), shape[0])


def halves(blocks, at=0):
    return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float64)


def nibbles(codes):
    return np.hstack([codes & 15, codes >> 4]).astype(np.float64)


# Type: values of a block, its bytes, blocks to float64 (ggml-common.h).
DECODERS = {
    0: (1, 4, lambda b: b.view(np.float32).astype(np.float64)),
    1: (1, 2, lambda b: b.view(np.float16).astype(np.float64)),
    2: (32, 18, lambda b: halves(b) * (nibbles(b[:, 2:]) - 8)),
    3: (32, 20, lambda b: halves(b) * nibbles(b[:, 4:]) + halves(b, 2)),
    8: (32, 34, lambda b: halves(b) * b[:, 2:].copy().view(np.int8)),
    30: (1, 2, lambda b: (b.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)),
}

# ---- the model ----


def rms(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rotate(x, base):
    """x: tokens x heads x dims; pairs (i, i + dims / 2)."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None] * base ** (-np.arange(half) / half)
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


class EmbeddingGemma:
    def __init__(self, file):
        def key(name, default=None):
            value = file.metadata.get(f"gemma-embedding.{name}", default)
            return sys.exit(f"the file lacks gemma-embedding.{name}") if value is None else value

        self.file = file
        self.layers, self.width = key("block_count"), key("embedding_length")
        self.heads, self.kv_heads = key("attention.head_count"), key("attention.head_count_kv")
        self.head = key("attention.key_length", self.width // self.heads)
        self.epsilon = key("attention.layer_norm_rms_epsilon")
        self.window = key("attention.sliding_window", 512)
        self.bases = key("rope.freq_base"), key("rope.freq_base_swa", 10000.0)
        self.pattern = key("attention.sliding_window_pattern", 6)

    def slides(self, layer):
        if isinstance(self.pattern, list):
            return self.pattern[layer]
        return layer % self.pattern < self.pattern - 1

    def embed(self, documents):
        """The embeddings of lists of ids. Layer by layer, so that each weight is decoded once."""
        table = [self.file.rows("token_embd.weight", ids) * math.sqrt(self.width) for ids in documents]
        for layer in range(self.layers):

            def weights(name):
                return self.file.rows(f"blk.{layer}.{name}.weight")

            names = "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split()
            norms = "attn_norm attn_q_norm attn_k_norm post_attention_norm ffn_norm post_ffw_norm".split()
            w = {name: weights(name).T for name in names} | {name: weights(name)[0] for name in norms}
            table = [self.block(x, w, self.slides(layer)) for x in table]
        final = self.file.rows("output_norm.weight")[0]
        pooled = np.stack([rms(x, final, self.epsilon).mean(axis=0) for x in table])
        for name in ("dense_2.weight", "dense_3.weight"):
            if name in self.file.tensors:
                pooled = pooled @ self.file.rows(name).T
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def block(self, x, w, slides):
        a = rms(x, w["attn_norm"], self.epsilon)
        q = (a @ w["attn_q"]).reshape(len(x), self.heads, self.head)
        k = (a @ w["attn_k"]).reshape(len(x), self.kv_heads, self.head)
        v = (a @ w["attn_v"]).reshape(len(x), self.kv_heads, self.head)
        base = self.bases[slides]
        q = rotate(rms(q, w["attn_q_norm"], self.epsilon), base)
        k = rotate(rms(k, w["attn_k_norm"], self.epsilon), base)
        attended = np.concatenate([self.attend(q, k, v, head, slides) for head in range(self.heads)], axis=1)
        x = x + rms(attended @ w["attn_output"], w["post_attention_norm"], self.epsilon)
        f = rms(x, w["ffn_norm"], self.epsilon)
        gate = f @ w["ffn_gate"]
        gate = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        return x + rms((gate * (f @ w["ffn_up"])) @ w["ffn_down"], w["post_ffw_norm"], self.epsilon)

    def attend(self, q, k, v, head, slides):
        shared = head * self.kv_heads // self.heads
        scores = q[:, head] @ k[:, shared].T / math.sqrt(self.head)
        if slides:
            place = np.arange(len(q))
            scores[np.abs(place[:, None] - place) > self.window // 2] = -np.inf
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True) @ v[:, shared]


# ---- the comparison ----


def main():
    parser = argparse.ArgumentParser(description="Compares mantle-embed with a float64 pass over the same file.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--program", default="build/bin/mantle-embed")
    parser.add_argument("--weights", help="passed on to the program: bf16 or q8_0")
    parser.add_argument("--least", type=float, default=0.9995, help="smallest cosine that is accepted")
    parser.add_argument("--texts-per-length", type=int, default=3)
    given = parser.parse_args()
    file = Reader(given.model)
    if file.metadata.get("general.architecture") != "gemma-embedding":
        sys.exit(f"{given.model}: the architecture is not gemma-embedding")
    model = EmbeddingGemma(file)
    vocabulary = file.tensors["token_embd.weight"][0][1]
    rng = np.random.default_rng(3)
    documents = [
        [2, *rng.integers(4, vocabulary, max(length - 2, 0)).tolist(), 1][:length]
        for length in LENGTHS
        for _ in range(given.texts_per_length)
    ]
    command = [given.program, "-m", str(given.model), "--ids", "--bin"]
    command += ["--weights", given.weights] if given.weights else []
    records = "\n".join(" ".join(map(str, ids)) for ids in documents)
    run = subprocess.run(command, input=records.encode(), stdout=subprocess.PIPE, check=True)
    rows = np.frombuffer(run.stdout, np.float32).reshape(len(documents), -1).astype(np.float64)
    expected = model.embed(documents)
    cosines = np.sum(rows * expected, axis=1) / np.linalg.norm(rows, axis=1)
    for length in LENGTHS:
        chosen = [cosine for ids, cosine in zip(documents, cosines) if len(ids) == length]
        print(f"{length:4} tokens: smallest cosine {min(chosen):.8f}")
    print(f"smallest cosine {min(cosines):.8f}")
    if not min(cosines) >= given.least:
        sys.exit(f"expected at least {given.least}")


if __name__ == "__main__":
    main()
