/*
 * Writes a tiny model of the llama architecture as GGUF (version 3) into memory: a writer of its own, independent
 * of everything else in the project, so that every call can be tested without a download. The weights are
 * pseudo-random; the tokenizer is byte-level with one token per byte and one merge.
 *
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include <mantle.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TINY_EMBEDDING = 64,
    TINY_HEADS = 4,
    TINY_KV_HEADS = 2,
    TINY_FEED_FORWARD = 96,
    TINY_LAYERS = 2,
    TINY_CONTEXT = 128,
    TINY_VOCABULARY = 259, /* 256 bytes, one merged token, begin, end */
    TINY_MERGED = 256,
    TINY_BEGIN = 257,
    TINY_END = 258,
    TINY_TENSORS = 2 + 9 * TINY_LAYERS
};

struct tiny_options {
    const char *architecture;   /* NULL: llama */
    const char *tokenizer;      /* NULL: gpt2 */
    mantle_dtype odd_dtype;     /* stored type of blk.1.ffn_down.weight; 0 (F32) as the others */
    const char *without_tensor; /* leaves this tensor out; NULL: none */
};

struct tiny_model {
    unsigned char *data;
    size_t size, capacity;
};

static inline void tiny_bytes(struct tiny_model *model, const void *bytes, size_t size)
{
    if (model->size + size > model->capacity) {
        model->capacity = 2 * (model->size + size);
        model->data = (unsigned char *)realloc(model->data, model->capacity);
        if (!model->data) {
            abort();
        }
    }
    memcpy(model->data + model->size, bytes, size);
    model->size += size;
}

static inline void tiny_u32(struct tiny_model *model, uint32_t value)
{
    tiny_bytes(model, &value, sizeof value);
}

static inline void tiny_u64(struct tiny_model *model, uint64_t value)
{
    tiny_bytes(model, &value, sizeof value);
}

static inline void tiny_string(struct tiny_model *model, const char *text)
{
    tiny_u64(model, strlen(text));
    tiny_bytes(model, text, strlen(text));
}

/* GGUF value types. */
enum { TINY_TYPE_U32 = 4, TINY_TYPE_I32 = 5, TINY_TYPE_F32 = 6, TINY_TYPE_STRING = 8, TINY_TYPE_ARRAY = 9 };

static inline void tiny_key(struct tiny_model *model, const char *prefix, const char *key, uint32_t type)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, key);
    tiny_string(model, name);
    tiny_u32(model, type);
}

static inline int tiny_printable(unsigned byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/* The character that stands for a byte in the vocabularies of the gpt2 family, as UTF-8. */
static inline void tiny_byte_token(unsigned byte, char text[4])
{
    unsigned code = byte;
    if (!tiny_printable(byte)) {
        code = 256;
        for (unsigned other = 0; other < byte; other++) {
            code += !tiny_printable(other);
        }
    }
    if (code < 128) {
        text[0] = (char)code;
        text[1] = '\0';
    } else {
        text[0] = (char)(0xc0 | code >> 6);
        text[1] = (char)(0x80 | (code & 0x3f));
        text[2] = '\0';
    }
}

enum { TINY_TOKENIZER_KEYS = 7 };

static inline void tiny_tokenizer(struct tiny_model *model, const struct tiny_options *options)
{
    tiny_key(model, "tokenizer.ggml.", "model", TINY_TYPE_STRING);
    tiny_string(model, options->tokenizer ? options->tokenizer : "gpt2");
    tiny_key(model, "tokenizer.ggml.", "pre", TINY_TYPE_STRING);
    tiny_string(model, "smollm");
    tiny_key(model, "tokenizer.ggml.", "tokens", TINY_TYPE_ARRAY);
    tiny_u32(model, TINY_TYPE_STRING);
    tiny_u64(model, TINY_VOCABULARY);
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[4];
        tiny_byte_token(byte, text);
        tiny_string(model, text);
    }
    tiny_string(model, "ab");
    tiny_string(model, "<|begin|>");
    tiny_string(model, "<|end|>");
    tiny_key(model, "tokenizer.ggml.", "token_type", TINY_TYPE_ARRAY);
    tiny_u32(model, TINY_TYPE_I32);
    tiny_u64(model, TINY_VOCABULARY);
    for (unsigned i = 0; i < TINY_VOCABULARY; i++) {
        tiny_u32(model, i >= TINY_BEGIN ? 3 : 1); /* control, normal */
    }
    tiny_key(model, "tokenizer.ggml.", "merges", TINY_TYPE_ARRAY);
    tiny_u32(model, TINY_TYPE_STRING);
    tiny_u64(model, 1);
    tiny_string(model, "a b");
    tiny_key(model, "tokenizer.ggml.", "bos_token_id", TINY_TYPE_U32);
    tiny_u32(model, TINY_BEGIN);
    tiny_key(model, "tokenizer.ggml.", "eos_token_id", TINY_TYPE_U32);
    tiny_u32(model, TINY_END);
}

static inline void tiny_metadata(struct tiny_model *model, const struct tiny_options *options)
{
    static const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {
        {"block_count", TINY_LAYERS},
        {"context_length", TINY_CONTEXT},
        {"embedding_length", TINY_EMBEDDING},
        {"feed_forward_length", TINY_FEED_FORWARD},
        {"attention.head_count", TINY_HEADS},
        {"attention.head_count_kv", TINY_KV_HEADS},
        {"rope.dimension_count", TINY_EMBEDDING / TINY_HEADS},
        {"vocab_size", TINY_VOCABULARY},
    };
    const size_t count = sizeof numbers / sizeof *numbers;
    const char *architecture = options->architecture ? options->architecture : "llama";
    const float epsilon = 1e-5f, base = 10000.0f;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.", architecture);
    tiny_u64(model, 2 + count + 2 + TINY_TOKENIZER_KEYS);
    tiny_key(model, "general.", "architecture", TINY_TYPE_STRING);
    tiny_string(model, architecture);
    tiny_key(model, "general.", "name", TINY_TYPE_STRING);
    tiny_string(model, "tiny");
    for (size_t i = 0; i < count; i++) {
        tiny_key(model, prefix, numbers[i].key, TINY_TYPE_U32);
        tiny_u32(model, numbers[i].value);
    }
    tiny_key(model, prefix, "attention.layer_norm_rms_epsilon", TINY_TYPE_F32);
    tiny_bytes(model, &epsilon, sizeof epsilon);
    tiny_key(model, prefix, "rope.freq_base", TINY_TYPE_F32);
    tiny_bytes(model, &base, sizeof base);
    tiny_tokenizer(model, options);
}

struct tiny_tensor {
    char name[64];
    uint64_t columns, rows; /* rows 0: one dimension */
    mantle_dtype dtype;
};

static inline size_t tiny_add(struct tiny_tensor *tensors, size_t count, const struct tiny_options *options,
                              const char *name, uint64_t columns, uint64_t rows)
{
    struct tiny_tensor *tensor = &tensors[count];
    if (options->without_tensor && strcmp(options->without_tensor, name) == 0) {
        return count;
    }
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->columns = columns;
    tensor->rows = rows;
    tensor->dtype = strcmp(name, "blk.1.ffn_down.weight") == 0 ? options->odd_dtype : MANTLE_DTYPE_F32;
    return count + 1;
}

static inline size_t tiny_list(struct tiny_tensor *tensors, const struct tiny_options *options)
{
    const uint64_t kv = TINY_EMBEDDING / TINY_HEADS * TINY_KV_HEADS;
    const struct {
        const char *name;
        uint64_t columns, rows;
    } layer[] = {
        {"attn_norm", TINY_EMBEDDING, 0},
        {"attn_q", TINY_EMBEDDING, TINY_EMBEDDING},
        {"attn_k", TINY_EMBEDDING, kv},
        {"attn_v", TINY_EMBEDDING, kv},
        {"attn_output", TINY_EMBEDDING, TINY_EMBEDDING},
        {"ffn_norm", TINY_EMBEDDING, 0},
        {"ffn_gate", TINY_EMBEDDING, TINY_FEED_FORWARD},
        {"ffn_up", TINY_EMBEDDING, TINY_FEED_FORWARD},
        {"ffn_down", TINY_FEED_FORWARD, TINY_EMBEDDING},
    };
    size_t count = tiny_add(tensors, 0, options, "token_embd.weight", TINY_EMBEDDING, TINY_VOCABULARY);
    for (int block = 0; block < TINY_LAYERS; block++) {
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", block, layer[i].name);
            count = tiny_add(tensors, count, options, name, layer[i].columns, layer[i].rows);
        }
    }
    return tiny_add(tensors, count, options, "output_norm.weight", TINY_EMBEDDING, 0);
}

static inline size_t tiny_tensor_bytes(const struct tiny_tensor *tensor)
{
    size_t row = 0;
    if (mantle_row_bytes(tensor->dtype, (size_t)tensor->columns, &row, NULL) != MANTLE_OK) {
        abort();
    }
    return row * (size_t)(tensor->rows ? tensor->rows : 1);
}

/* The weights: norms near 1, the rest small and both signs, from a linear congruential generator. */
static inline void tiny_weights(struct tiny_model *model, const struct tiny_tensor *tensor, uint32_t *seed)
{
    size_t bytes = tiny_tensor_bytes(tensor);
    for (size_t i = 0; i < bytes; i += sizeof(float)) {
        *seed = *seed * 1664525u + 1013904223u;
        float value = ((float)(*seed >> 8) / 8388608.0f - 1.0f) * 0.25f + (tensor->rows == 0 ? 1.0f : 0.0f);
        if (tensor->dtype != MANTLE_DTYPE_F32) {
            value = 0.0f;
        }
        tiny_bytes(model, &value, bytes - i < sizeof value ? bytes - i : sizeof value);
    }
}

/* The model as bytes of a file; `options` may be NULL. Give it back with tiny_free. */
static inline struct tiny_model tiny_make(const struct tiny_options *options)
{
    static const struct tiny_options plain;
    struct tiny_model model = {NULL, 0, 0};
    struct tiny_tensor tensors[TINY_TENSORS];
    uint32_t seed = 1;
    uint64_t offset = 0;
    if (!options) {
        options = &plain;
    }
    size_t count = tiny_list(tensors, options);
    tiny_bytes(&model, "GGUF", 4);
    tiny_u32(&model, 3);
    tiny_u64(&model, count);
    tiny_metadata(&model, options);
    for (size_t i = 0; i < count; i++) {
        tiny_string(&model, tensors[i].name);
        tiny_u32(&model, tensors[i].rows ? 2 : 1);
        tiny_u64(&model, tensors[i].columns);
        if (tensors[i].rows) {
            tiny_u64(&model, tensors[i].rows);
        }
        tiny_u32(&model, (uint32_t)tensors[i].dtype);
        tiny_u64(&model, offset);
        offset = (offset + tiny_tensor_bytes(&tensors[i]) + 31) / 32 * 32;
    }
    for (size_t i = 0; i < count; i++) {
        while (model.size % 32 != 0) {
            tiny_bytes(&model, "", 1);
        }
        tiny_weights(&model, &tensors[i], &seed);
    }
    return model;
}

static inline void tiny_free(struct tiny_model *model)
{
    free(model->data);
    model->data = NULL;
}

#endif
