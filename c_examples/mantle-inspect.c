/* Shows what is in a model file, and how much memory it takes to run. */
#include "common.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static bool as_json, every_value;

static const struct option options[] = {
    {"-a", "--all", OPTION_FLAG, &every_value, NULL, "show long metadata values whole", 0, 0},
    {NULL, "--json", OPTION_FLAG, &as_json, NULL, "print one JSON object: model, metadata, tensors, memory", 0, 0},
};

static const struct program program = {
    .name = "mantle-inspect",
    .usage = "MODEL [--all] [--json]",
    .about = "Shows a model file: its shape, metadata, tensors with types and sizes, and the memory it needs.",
    .examples = "  mantle-inspect model.gguf\n"
                "  mantle-inspect model.gguf --json | python3 -m json.tool",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .max_arguments = 1,
};

struct state {
    const char *path;
    mantle_runtime *runtime;
    mantle_model *model;
    mantle_model_info info;
    mantle_memory weights;
    size_t n_metadata, n_tensors;
    mantle_error *error;
};

/* The context sizes whose memory is shown: the model's own, and powers of four below it. */
static size_t contexts(const struct state *state, uint32_t sizes[8])
{
    size_t count = 0;
    for (uint32_t size = 512; size < state->info.context && count < 7; size *= 4) {
        sizes[count++] = size;
    }
    sizes[count++] = state->info.context;
    return count;
}

/* What works on a model: decoders generate in sessions, encoders embed in embedders. */
static const char *worker(const struct state *state)
{
    return state->info.capabilities & MANTLE_CAPABILITY_GENERATION ? "session" : "embedder";
}

/* The memory of a session or embedder for `context` tokens. */
static mantle_status worker_memory(struct state *state, uint32_t context, mantle_memory *memory)
{
    if (!(state->info.capabilities & MANTLE_CAPABILITY_GENERATION)) {
        mantle_embedder_options embedder_options;
        mantle_status status = mantle_embedder_options_init(&embedder_options, sizeof embedder_options, &state->error);
        memory->struct_size = sizeof *memory;
        if (status == MANTLE_OK) {
            embedder_options.max_tokens = context;
            status = mantle_embedder_bytes(state->model, &embedder_options, memory, &state->error);
        }
        return status;
    }
    mantle_session_options session_options;
    mantle_status status = mantle_session_options_init(&session_options, sizeof session_options, &state->error);
    memory->struct_size = sizeof *memory;
    if (status == MANTLE_OK) {
        session_options.max_context = context;
        status = mantle_session_bytes(state->model, &session_options, memory, &state->error);
    }
    return status;
}

static double bits_per_weight(const mantle_tensor_info *tensor)
{
    double values = 1;
    for (uint32_t i = 0; i < tensor->dimensions; i++) {
        values *= (double)tensor->shape[i];
    }
    return values > 0 ? 8 * (double)tensor->bytes / values : 0;
}

/* Key and value of a metadata entry; the value is JSON in `value`, which is emptied first. */
static mantle_status metadata_entry(struct state *state, size_t index, const char **key, size_t *key_length,
                                    struct buffer *value)
{
    size_t size = 0;
    value->size = 0;
    mantle_status status = mantle_model_metadata_key(state->model, index, key, key_length, &state->error);
    if (status != MANTLE_OK) {
        return status;
    }
    status = mantle_model_metadata_value(state->model, *key, *key_length, NULL, 0, &size, &state->error);
    if (status != MANTLE_ERROR_BUFFER_TOO_SMALL) {
        return status;
    }
    mantle_error_free(state->error);
    state->error = NULL;
    char *grown = realloc(value->data, size + 1);
    if (!grown) {
        return MANTLE_ERROR_NO_MEMORY;
    }
    value->data = grown;
    value->capacity = size + 1;
    status = mantle_model_metadata_value(state->model, *key, *key_length, value->data, size, &size, &state->error);
    value->size = status == MANTLE_OK ? size : 0;
    value->data[value->size] = '\0';
    return status;
}

/* How many values a JSON array has. */
static size_t array_length(const char *json)
{
    size_t commas = 0;
    int depth = 0;
    bool in_string = false, empty = true;
    for (const char *c = json; *c; c++) {
        if (in_string) {
            if (*c == '\\' && c[1]) {
                c++;
            } else if (*c == '"') {
                in_string = false;
            }
            continue;
        }
        in_string = *c == '"';
        empty = empty && (depth == 0 || *c == ' ' || *c == ']');
        depth += (*c == '[') - (*c == ']');
        commas += *c == ',' && depth == 1;
    }
    return empty ? 0 : commas + 1;
}

static int print_metadata(struct state *state)
{
    struct table table = {.alignment = "<<"};
    struct buffer value = {0};
    mantle_status status = MANTLE_OK;
    for (size_t i = 0; i < state->n_metadata && status == MANTLE_OK; i++) {
        const char *key;
        size_t length;
        status = metadata_entry(state, i, &key, &length, &value);
        if (status != MANTLE_OK) {
            break;
        }
        enum { SHOWN = 64 };
        if (every_value) {
            printf("  %.*s = %s\n", (int)length, key, value.size ? value.data : "");
            continue;
        }
        table_cell(&table, "%.*s", (int)length, key);
        if (value.size <= SHOWN) {
            table_cell(&table, "%s", value.size ? value.data : "");
        } else if (value.data[0] == '[') {
            table_cell(&table, "%.*s ...] (%zu values)", SHOWN, value.data, array_length(value.data));
        } else {
            table_cell(&table, "%.*s ...\" (%zu bytes)", SHOWN, value.data, value.size);
        }
    }
    table_print(&table, stdout, 2);
    buffer_free(&value);
    return status == MANTLE_OK ? EXIT_SUCCESS : report(&program, status, state->error);
}

static int print_tensors(struct state *state)
{
    struct table table = {.alignment = "<<>>>"};
    table_cell(&table, "name");
    table_cell(&table, "type");
    table_cell(&table, "shape");
    table_cell(&table, "size");
    table_cell(&table, "bits/weight");
    for (size_t i = 0; i < state->n_tensors; i++) {
        mantle_tensor_info tensor = {.struct_size = sizeof tensor};
        mantle_status status = mantle_model_tensor_info(state->model, i, &tensor, &state->error);
        if (status != MANTLE_OK) {
            table_print(&table, stdout, 2);
            return report(&program, status, state->error);
        }
        char shape[128] = "", size[32];
        for (uint32_t d = 0; d < tensor.dimensions && d < MANTLE_MAX_DIMENSIONS; d++) {
            size_t used = strlen(shape);
            snprintf(shape + used, sizeof shape - used, "%s%" PRIu64, d ? " x " : "", tensor.shape[d]);
        }
        table_cell(&table, "%.*s", (int)tensor.name_length, tensor.name);
        table_cell(&table, "%s", mantle_dtype_name(tensor.dtype));
        table_cell(&table, "%s", shape);
        table_cell(&table, "%s", format_bytes(size, (double)tensor.bytes));
        table_cell(&table, "%.2f", bits_per_weight(&tensor));
    }
    table_print(&table, stdout, 2);
    return EXIT_SUCCESS;
}

static int print_memory(struct state *state)
{
    uint32_t sizes[8];
    char text[32];
    struct table table = {.alignment = "<>>>"};
    size_t count = contexts(state, sizes);
    table_cell(&table, "context");
    table_cell(&table, "%s", worker(state));
    table_cell(&table, "weights");
    table_cell(&table, "together");
    for (size_t i = 0; i < count; i++) {
        mantle_memory memory;
        mantle_status status = worker_memory(state, sizes[i], &memory);
        if (status != MANTLE_OK) {
            table_print(&table, stdout, 2);
            return report(&program, status, state->error);
        }
        table_cell(&table, "%" PRIu32 " tokens", sizes[i]);
        table_cell(&table, "%s", format_bytes(text, (double)memory.total));
        table_cell(&table, "%s", format_bytes(text, (double)state->weights.total));
        table_cell(&table, "%s", format_bytes(text, (double)(memory.total + state->weights.total)));
    }
    table_print(&table, stdout, 2);
    return EXIT_SUCCESS;
}

static int print_tables(struct state *state)
{
    const mantle_model_info *info = &state->info;
    char file[32], packed[32];
    double bits = info->parameters ? 8 * (double)info->file_bytes / (double)info->parameters : 0;
    printf("%s\n", state->path);
    printf("  %s%s%s: %" PRIu32 " layers of %" PRIu32 ", %" PRIu32 " heads (%" PRIu32 " for keys) of %" PRIu32
           ", feed-forward %" PRIu32 "\n",
           info->architecture, *info->name ? ", " : "", info->name, info->layers, info->embedding, info->heads,
           info->kv_heads, info->head_size, info->feed_forward);
    printf("  vocabulary %" PRIu32 ", context %" PRIu32 "%s%s\n", info->vocabulary, info->context,
           info->capabilities & MANTLE_CAPABILITY_GENERATION ? ", generates text" : "",
           info->capabilities & MANTLE_CAPABILITY_EMBEDDING ? ", gives embeddings" : "");
    printf("  %.1f million weights, file %s (%.2f bits per weight), packed %s\n", (double)info->parameters / 1e6,
           format_bytes(file, (double)info->file_bytes), bits, format_bytes(packed, (double)info->packed_bytes));
    printf("\nmetadata (%zu)\n", state->n_metadata);
    int result = print_metadata(state);
    if (result == EXIT_SUCCESS) {
        printf("\ntensors (%zu)\n", state->n_tensors);
        result = print_tensors(state);
    }
    if (result == EXIT_SUCCESS) {
        printf("\nmemory needed%s\n",
               state->info.capabilities & MANTLE_CAPABILITY_GENERATION ? " (keys and values in F16)" : "");
        result = print_memory(state);
    }
    return result;
}

static int print_json_tensors(struct state *state)
{
    for (size_t i = 0; i < state->n_tensors; i++) {
        mantle_tensor_info tensor = {.struct_size = sizeof tensor};
        mantle_status status = mantle_model_tensor_info(state->model, i, &tensor, &state->error);
        if (status != MANTLE_OK) {
            return report(&program, status, state->error);
        }
        fputs(i ? ", {\"name\": " : "{\"name\": ", stdout);
        json_string(stdout, tensor.name, tensor.name_length);
        printf(", \"type\": \"%s\", \"shape\": [", mantle_dtype_name(tensor.dtype));
        for (uint32_t d = 0; d < tensor.dimensions && d < MANTLE_MAX_DIMENSIONS; d++) {
            printf("%s%" PRIu64, d ? ", " : "", tensor.shape[d]);
        }
        printf("], \"offset\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"bits_per_weight\": ", tensor.offset, tensor.bytes);
        json_number(stdout, bits_per_weight(&tensor));
        putchar('}');
    }
    return EXIT_SUCCESS;
}

static int print_json(struct state *state)
{
    const mantle_model_info *info = &state->info;
    fputs("{\"file\": ", stdout);
    json_string(stdout, state->path, strlen(state->path));
    fputs(", \"architecture\": ", stdout);
    json_string(stdout, info->architecture, strlen(info->architecture));
    fputs(", \"name\": ", stdout);
    json_string(stdout, info->name, strlen(info->name));
    printf(", \"layers\": %" PRIu32 ", \"embedding\": %" PRIu32 ", \"heads\": %" PRIu32 ", \"kv_heads\": %" PRIu32
           ", \"head_size\": %" PRIu32 ", \"feed_forward\": %" PRIu32 ", \"vocabulary\": %" PRIu32
           ", \"context\": %" PRIu32 ", \"parameters\": %" PRIu64 ", \"file_bytes\": %" PRIu64
           ", \"packed_bytes\": %" PRIu64,
           info->layers, info->embedding, info->heads, info->kv_heads, info->head_size, info->feed_forward,
           info->vocabulary, info->context, info->parameters, info->file_bytes, info->packed_bytes);
    fputs(", \"metadata\": {", stdout);
    struct buffer value = {0};
    for (size_t i = 0; i < state->n_metadata; i++) {
        const char *key;
        size_t length;
        mantle_status status = metadata_entry(state, i, &key, &length, &value);
        if (status != MANTLE_OK) {
            buffer_free(&value);
            return report(&program, status, state->error);
        }
        fputs(i ? ", " : "", stdout);
        json_string(stdout, key, length);
        printf(": %s", value.size ? value.data : "null");
    }
    buffer_free(&value);
    fputs("}, \"tensors\": [", stdout);
    int result = print_json_tensors(state);
    fputs("], \"memory\": [", stdout);
    uint32_t sizes[8];
    size_t count = contexts(state, sizes);
    for (size_t i = 0; i < count && result == EXIT_SUCCESS; i++) {
        mantle_memory memory;
        mantle_status status = worker_memory(state, sizes[i], &memory);
        if (status != MANTLE_OK) {
            return report(&program, status, state->error);
        }
        printf("%s{\"context\": %" PRIu32 ", \"%s\": %" PRIu64 ", \"weights\": %" PRIu64 ", \"total\": %" PRIu64 "}",
               i ? ", " : "", sizes[i], worker(state), memory.total, state->weights.total,
               memory.total + state->weights.total);
    }
    fputs("]}\n", stdout);
    return result;
}

static int open_model(struct state *state)
{
    mantle_status status = mantle_runtime_new(NULL, &state->runtime, &state->error);
    if (status == MANTLE_OK) {
        status = mantle_model_open(state->runtime, state->path, strlen(state->path), NULL, &state->model,
                                   &state->error);
    }
    state->info.struct_size = sizeof state->info;
    if (status == MANTLE_OK) {
        status = mantle_model_get_info(state->model, &state->info, &state->error);
    }
    state->weights.struct_size = sizeof state->weights;
    if (status == MANTLE_OK) {
        status = mantle_model_memory(state->model, &state->weights, &state->error);
    }
    if (status == MANTLE_OK) {
        status = mantle_model_metadata_count(state->model, &state->n_metadata, &state->error);
    }
    if (status == MANTLE_OK) {
        status = mantle_model_tensor_count(state->model, &state->n_tensors, &state->error);
    }
    return status == MANTLE_OK ? EXIT_SUCCESS : report(&program, status, state->error);
}

int main(int argc, char **argv)
{
    struct state state = {0};
    if (parse_options(&program, argc, argv, &state.path) == 0) {
        usage_error(&program, "MODEL is missing");
    }
    int result = open_model(&state);
    if (result == EXIT_SUCCESS) {
        result = as_json ? print_json(&state) : print_tables(&state);
    }
    mantle_model_free(state.model);
    mantle_runtime_free(state.runtime);
    return finish(&program, result);
}
