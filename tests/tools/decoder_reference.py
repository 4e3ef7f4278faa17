#!/usr/bin/env python3
"""Writes tests/data/decoders: tiny random decoders and the logits that float64 gives for them.

Needs numpy and the package gguf. The models are written twice, as GGUF and as a folder of safetensors with a
config.json; the reference below reads neither, and follows the papers with plain matrices.
"""

import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np

DATA = Path(__file__).resolve().parent.parent / "data" / "decoders"
VOCABULARY, WIDTH, HEADS, KV_HEADS, HEAD, HIDDEN, LAYERS, CONTEXT = 64, 32, 4, 2, 16, 48, 3, 128
EPSILON = 1e-6
SLIDING = [True, False, True]

# name: architecture, what config.json says beside the sizes, what GGUF says beside them.
MODELS = {
    "qwen2": ("qwen2", {"rope_theta": 1e6, "tie_word_embeddings": True}, {"rope.freq_base": 1e6}),
    "qwen3-yarn": (
        "qwen3",
        {
            "head_dim": HEAD,
            "rope_theta": 1e6,
            "tie_word_embeddings": False,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
        },
        {
            "rope.freq_base": 1e6,
            "attention.key_length": HEAD,
            "attention.value_length": HEAD,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32,
        },
    ),
    "mistral": (
        "mistral",
        {"head_dim": HEAD, "rope_theta": 1e4, "sliding_window": 12, "tie_word_embeddings": False},
        {"attention.key_length": HEAD, "attention.value_length": HEAD, "rope.freq_base": 1e4,
         "attention.sliding_window": 12},
    ),
    "llama3": (
        "llama",
        {
            "head_dim": HEAD,
            "rope_theta": 5e5,
            "tie_word_embeddings": False,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
        {"attention.key_length": HEAD, "attention.value_length": HEAD, "rope.freq_base": 5e5},
    ),
    "gemma3": (
        "gemma3",
        {
            "head_dim": HEAD,
            "rope_theta": 1e6,
            "rope_local_base_freq": 1e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window": 10,
            "layer_types": ["sliding_attention" if s else "full_attention" for s in SLIDING],
            "query_pre_attn_scalar": HEAD,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
        },
        {
            "attention.key_length": HEAD,
            "attention.value_length": HEAD,
            "rope.freq_base": 1e6,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
            "attention.sliding_window": 10,
            "attention.sliding_window_pattern": SLIDING,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
        },
    ),
}


def make_weights(architecture, random):
    """Tensors by their GGUF names: matrices as float16, vectors as float32."""
    weights = {}

    def matrix(name, rows, columns, size=1.0):
        weights[f"{name}.weight"] = (random.standard_normal((rows, columns)) * size / columns**0.5).astype(np.float16)

    def vector(name, length, middle=0.0):
        weights[name] = (middle + 0.3 * random.standard_normal(length)).astype(np.float32)

    matrix("token_embd", VOCABULARY, WIDTH, 4.0)
    vector("output_norm.weight", WIDTH, 1.0)
    if architecture in ("qwen3", "mistral", "llama"):
        matrix("output", VOCABULARY, WIDTH, 2.0)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            matrix(f"{block}.attn_{part}", rows * HEAD, WIDTH, 1.5)
            if architecture == "qwen2":
                vector(f"{block}.attn_{part}.bias", rows * HEAD)
        matrix(f"{block}.attn_output", WIDTH, HEADS * HEAD)
        matrix(f"{block}.ffn_gate", HIDDEN, WIDTH)
        matrix(f"{block}.ffn_up", HIDDEN, WIDTH)
        matrix(f"{block}.ffn_down", WIDTH, HIDDEN)
        norms = ["attn_norm", "ffn_norm"]
        if architecture == "gemma3":
            norms += ["post_attention_norm", "post_ffw_norm"]
        for norm in norms:
            vector(f"{block}.{norm}.weight", WIDTH, 1.0)
        if architecture in ("qwen3", "gemma3"):
            vector(f"{block}.attn_q_norm.weight", HEAD, 1.0)
            vector(f"{block}.attn_k_norm.weight", HEAD, 1.0)
    return weights


def frequencies(config):
    """Frequency of each pair, and the factor of cosine and sine."""
    exact = config["rope_theta"] ** (-np.arange(0, HEAD, 2) / HEAD)
    scaling = config.get("rope_scaling", {"rope_type": "default"})
    factor = scaling.get("factor", 1.0)
    if scaling["rope_type"] == "linear":
        return exact / factor, 1.0
    if scaling["rope_type"] == "llama3":
        first = scaling["original_max_position_embeddings"]
        wavelength = 2 * np.pi / exact
        low, high = first / scaling["low_freq_factor"], first / scaling["high_freq_factor"]
        smooth = (first / wavelength - scaling["low_freq_factor"]) / (
            scaling["high_freq_factor"] - scaling["low_freq_factor"]
        )
        between = (1 - smooth) * exact / factor + smooth * exact
        return np.where(wavelength > low, exact / factor, np.where(wavelength < high, exact, between)), 1.0
    if scaling["rope_type"] == "yarn":
        first = scaling["original_max_position_embeddings"]

        def pair(rotations):
            return HEAD * np.log(first / (rotations * 2 * np.pi)) / (2 * np.log(config["rope_theta"]))

        low, high = max(np.floor(pair(32)), 0), min(np.ceil(pair(1)), HEAD - 1)
        ramp = np.clip((np.arange(HEAD // 2) - low) / max(high - low, 0.001), 0, 1)
        return exact / factor * ramp + exact * (1 - ramp), 0.1 * np.log(factor) + 1
    return exact, 1.0


def rms(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * weight


def forward(architecture, config, weights, tokens):
    """Logits of the last token, in float64; heads rotate their halves."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    gemma = architecture == "gemma3"
    n = len(tokens)
    positions = np.arange(n)
    x = w["token_embd.weight"][tokens] * (WIDTH**0.5 if gemma else 1.0)
    distance = positions[:, None] - positions[None, :]
    for layer in range(LAYERS):
        p = f"blk.{layer}."
        sliding = SLIDING[layer] if gemma else architecture == "mistral"
        if gemma and sliding:
            frequency, magnitude = config["rope_local_base_freq"] ** (-np.arange(0, HEAD, 2) / HEAD), 1.0
        else:
            frequency, magnitude = frequencies(config)
        angle = positions[:, None] * frequency
        cosine, sine = magnitude * np.cos(angle)[:, None], magnitude * np.sin(angle)[:, None]

        def project(part, heads):
            y = a @ w[f"{p}attn_{part}.weight"].T + w.get(f"{p}attn_{part}.bias", 0)
            y = y.reshape(n, heads, HEAD)
            norm = w.get(f"{p}attn_{part}_norm.weight")
            if part == "v":
                return y
            if norm is not None:
                y = rms(y, norm)
            first, second = y[..., : HEAD // 2], y[..., HEAD // 2 :]
            return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)

        a = rms(x, w[p + "attn_norm.weight"])
        q, k, v = project("q", HEADS), project("k", KV_HEADS), project("v", KV_HEADS)
        k, v = (np.repeat(t, HEADS // KV_HEADS, axis=1) for t in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / HEAD**0.5
        if gemma:
            scores = config["attn_logit_softcapping"] * np.tanh(scores / config["attn_logit_softcapping"])
        seen = distance >= 0
        if sliding:
            seen &= distance < config["sliding_window"]
        scores = np.where(seen, scores, -np.inf)
        weight = np.exp(scores - scores.max(-1, keepdims=True))
        weight /= weight.sum(-1, keepdims=True)
        y = np.einsum("hij,jhd->ihd", weight, v).reshape(n, -1) @ w[p + "attn_output.weight"].T
        x = x + (rms(y, w[p + "post_attention_norm.weight"]) if gemma else y)
        f = rms(x, w[p + "ffn_norm.weight"])
        gate, up = f @ w[p + "ffn_gate.weight"].T, f @ w[p + "ffn_up.weight"].T
        if gemma:
            gate = gate / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        y = (gate * up) @ w[p + "ffn_down.weight"].T
        x = x + (rms(y, w[p + "post_ffw_norm.weight"]) if gemma else y)
    x = rms(x[-1], w["output_norm.weight"])
    logits = x @ w.get("output.weight", w["token_embd.weight"]).T
    if gemma:
        logits = config["final_logit_softcapping"] * np.tanh(logits / config["final_logit_softcapping"])
    return logits


def halves_to_pairs(value, heads):
    """The rows of each head from the order of halves to that of pairs, as GGUF files of llamas have them."""
    return value.reshape(heads, 2, HEAD // 2, -1).swapaxes(1, 2).reshape(value.shape)


def write_gguf(name, architecture, numbers, config, weights):
    writer = gguf.GGUFWriter(DATA / f"{name}.gguf", architecture)
    for key, value in (
        ("block_count", LAYERS),
        ("embedding_length", WIDTH),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("feed_forward_length", HIDDEN),
        ("context_length", CONTEXT),
        ("attention.layer_norm_rms_epsilon", EPSILON),
        *numbers.items(),
    ):
        key = f"{architecture}.{key}"
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_float32(key, value)
    if config.get("rope_scaling", {}).get("rope_type") == "llama3":
        exact = config["rope_theta"] ** (-np.arange(0, HEAD, 2) / HEAD)
        writer.add_tensor("rope_freqs.weight", (exact / frequencies(config)[0]).astype(np.float32))
    for tensor, value in weights.items():
        if architecture in ("llama", "mistral"):
            heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(tensor.split(".")[-2])
            value = halves_to_pairs(value, heads) if heads else value
        writer.add_tensor(tensor, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


PARTS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
GEMMA_PARTS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def write_folder(name, architecture, config, weights):
    gemma = architecture == "gemma3"
    folder = DATA / name
    folder.mkdir(exist_ok=True)
    parts = {**PARTS, **(GEMMA_PARTS if gemma else {})}
    tensors = {}
    for tensor, value in weights.items():
        pieces = tensor.split(".")
        if pieces[0] == "blk":
            theirs = f"model.layers.{pieces[1]}.{parts[pieces[2]]}.{pieces[3]}"
        else:
            top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
            theirs = f"{top[pieces[0]]}.{pieces[1]}"
        if gemma and theirs.endswith("norm.weight"):
            value = value - np.float32(1)
        tensors[theirs] = value
    header, offset = {}, 0
    for tensor, value in tensors.items():
        kind = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32"}[value.dtype]
        header[tensor] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [offset, offset + value.nbytes]}
        offset += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in tensors.values():
            file.write(np.ascontiguousarray(value).tobytes())
    sizes = {
        "model_type": "gemma3_text" if gemma else architecture,
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": HIDDEN,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPSILON,
        "hidden_activation" if gemma else "hidden_act": "gelu_pytorch_tanh" if gemma else "silu",
    }
    if architecture == "qwen2":
        # 4 heads of 16 in a width of 32: config.json of Qwen2 knows no head_dim, so here it must be said.
        sizes["head_dim"] = HEAD
    (folder / "config.json").write_text(json.dumps({**sizes, **config}, indent=1) + "\n")


def main():
    DATA.mkdir(exist_ok=True)
    answers = {}
    for seed, (name, (architecture, config, numbers)) in enumerate(MODELS.items()):
        random = np.random.default_rng(seed)
        weights = make_weights(architecture, random)
        if architecture == "qwen2":
            numbers = {**numbers, "attention.key_length": HEAD, "attention.value_length": HEAD}
        write_gguf(name, architecture, numbers, config, weights)
        # GGUF holds Gemma's norms with the 1; what is written to the folder is rounded once more, beyond notice.
        write_folder(name, architecture, config, weights)
        cases = []
        for length in (1, 7, 40, 100):
            tokens = random.integers(0, VOCABULARY, length)
            logits = forward(architecture, config, weights, tokens)
            cases.append({"ids": tokens.tolist(), "logits_last": [round(v, 6) for v in logits.tolist()]})
        answers[name] = cases
    (DATA / "logits.json").write_text(json.dumps(answers, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
