/*
 * mantle-bench embed: how long documents take alone, how many go through in batches, what memory that takes, and where the
 * time goes.
 */
#include "bench.h"

/* Ordinary words; the documents are made of them. */
static const char *const words[] = {
    "the",    "keeper",  "of",    "a",     "lighthouse", "finds",   "message", "in",    "bottle",  "and",    "reads", "it",
    "slowly", "while",   "waves", "break", "against",    "rocks",   "below",   "tower", "where",   "every",  "night", "lamp",
    "turns",  "through", "fog",   "that",  "covers",     "harbour", "town",    "with",  "silence", "before", "storm", "comes",
};
enum { WORDS = sizeof words / sizeof *words, BATCH = 96, MOST_SAMPLES = 4096 };

struct opened {
    mantle_model *model;
    mantle_embedder *embedder;
    bool has_tokenizer;
    uint32_t vocabulary;
    size_t dimensions;
    uint32_t threads;
    struct limits limits;
    mantle_dtype dtype; /* of most weights */
};

/* Documents as text, or as ids where there is no tokenizer. */
struct documents {
    size_t words, count;
    struct buffer text;
    mantle_token *ids;
    size_t *offsets;
    float *rows;
};

static void add_text(struct buffer *buffer, const char *text)
{
    if (!buffer_add(buffer, text, strlen(text))) {
        exit(fail(&program, "no memory for the documents"));
    }
}

/* Every document begins with another word. */
static struct documents make_texts(const struct opened *opened, size_t count, size_t n_words)
{
    struct documents documents = {.words = n_words, .count = count};
    documents.offsets = allocate(count + 1, sizeof *documents.offsets);
    documents.rows = allocate(count * opened->dimensions, sizeof *documents.rows);
    for (size_t i = 0; i < count; i++) {
        documents.offsets[i] = documents.text.size;
        for (size_t word = 0; word < n_words; word++) {
            add_text(&documents.text, word ? " " : "");
            add_text(&documents.text, words[(i + word) % WORDS]);
        }
    }
    documents.offsets[count] = documents.text.size;
    return documents;
}

static struct documents make_ids(const struct opened *opened, size_t count, size_t tokens)
{
    struct documents documents = {.count = count};
    documents.offsets = allocate(count + 1, sizeof *documents.offsets);
    documents.rows = allocate(count * opened->dimensions, sizeof *documents.rows);
    documents.ids = allocate(count * tokens, sizeof *documents.ids);
    for (size_t i = 0; i <= count; i++) {
        documents.offsets[i] = i * tokens;
    }
    for (size_t i = 0; i < count * tokens; i++) {
        documents.ids[i] = (mantle_token)((uint32_t)i * 7919u % opened->vocabulary);
    }
    return documents;
}

static struct documents make_documents(const struct opened *opened, size_t count, size_t n_words)
{
    if (opened->has_tokenizer) {
        return make_texts(opened, count, n_words);
    }
    /* As many tokens as English has: 12 for 9 words, 60 for 49. */
    struct documents documents = make_ids(opened, count, n_words * 6 / 5 + 2);
    documents.words = n_words;
    return documents;
}

static void free_documents(struct documents *documents)
{
    buffer_free(&documents->text);
    free(documents->ids);
    free(documents->offsets);
    free(documents->rows);
}

/* Seconds of one call. */
static double embed(const struct opened *opened, const struct documents *documents)
{
    mantle_embed_options options;
    CHECK(mantle_embed_options_init(&options, sizeof options, &error));
    options.flags = MANTLE_EMBED_TRUNCATE;
    double start = seconds();
    if (documents->ids) {
        CHECK(mantle_embed_tokens(opened->embedder, documents->ids, documents->offsets, documents->count, &options,
                                  documents->rows, 0, NULL, &error));
    } else {
        CHECK(mantle_embed_texts(opened->embedder, documents->text.data, documents->offsets, documents->count, &options,
                                 documents->rows, 0, NULL, &error));
    }
    return seconds() - start;
}

/* ---- what was measured ---- */

struct timing {
    const char *phase;
    size_t words, documents, samples;
    double best, p50, p95, tokens, operations; /* of one call */
};

static int compare(const void *left, const void *right)
{
    const double *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

/* Tokens and operations with weights, from a profile of one call. */
static void count_work(const struct opened *opened, const struct documents *documents, struct timing *timing)
{
    static const int32_t products[] = {MANTLE_OP_QKV, MANTLE_OP_ATTENTION_OUTPUT, MANTLE_OP_GATE_UP, MANTLE_OP_DOWN,
                                       MANTLE_OP_DENSE};
    mantle_profile *profile = NULL;
    mantle_profile_info info = {.struct_size = sizeof info};
    CHECK(mantle_embedder_set_profiling(opened->embedder, true, &error));
    embed(opened, documents);
    CHECK(mantle_embedder_profile(opened->embedder, &profile, &error));
    CHECK(mantle_embedder_set_profiling(opened->embedder, false, &error));
    CHECK(mantle_profile_get_info(profile, &info, &error));
    timing->tokens = (double)info.tokens;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        mantle_profile_entry entry = {.struct_size = sizeof entry};
        CHECK(mantle_profile_get_entry(profile, products[i], MANTLE_ALL_LAYERS, &entry, &error));
        timing->operations += (double)entry.operations;
    }
    mantle_profile_free(profile);
}

/* At least `least` calls, for the time that the user sets. */
static struct timing measure_calls(const struct opened *opened, const char *phase, size_t count, size_t n_words, size_t least)
{
    struct documents documents = make_documents(opened, count, n_words);
    struct timing timing = {.phase = phase, .words = n_words, .documents = count};
    double *samples = allocate(MOST_SAMPLES, sizeof *samples);
    count_work(opened, &documents, &timing);
    embed(opened, &documents);
    double end = seconds() + (double)settings.milliseconds * 1e-3;
    while (timing.samples < MOST_SAMPLES && (timing.samples < least || seconds() < end)) {
        samples[timing.samples++] = embed(opened, &documents);
    }
    qsort(samples, timing.samples, sizeof *samples, compare);
    timing.best = samples[0];
    timing.p50 = samples[timing.samples / 2];
    timing.p95 = samples[timing.samples * 95 / 100];
    free(samples);
    free_documents(&documents);
    return timing;
}

/* Bytes of this process, as /proc/self/status tells them; below 0 where it does not. */
struct memory {
    double anonymous, file, peak;
};

static struct memory read_memory(void)
{
    struct memory memory = {-1, -1, -1};
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    while (file && fgets(line, sizeof line, file)) {
        double kib;
        if (sscanf(line, "RssAnon: %lf", &kib) == 1) {
            memory.anonymous = kib * 1024;
        } else if (sscanf(line, "RssFile: %lf", &kib) == 1) {
            memory.file = kib * 1024;
        } else if (sscanf(line, "VmHWM: %lf", &kib) == 1) {
            memory.peak = kib * 1024;
        }
    }
    if (file) {
        fclose(file);
    }
    return memory;
}

/* Measuring limits took memory that is no concern of the model: the peak starts anew. */
static void forget_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file) {
        fputs("5", file);
        fclose(file);
    }
}

/* ---- output ---- */

static double limit_of(const struct opened *opened, const char **name)
{
    const struct limits *limits = &opened->limits;
    bool floats = opened->dtype == MANTLE_DTYPE_F32 || opened->dtype == MANTLE_DTYPE_F16;
    bool bf16 = opened->dtype == MANTLE_DTYPE_BF16 && limits->bf16 > 0;
    *name = bf16 ? "bf16" : floats || opened->dtype == MANTLE_DTYPE_BF16 ? "fma" : "vnni";
    return bf16 ? limits->bf16 : strcmp(*name, "fma") == 0 ? limits->fma : limits->vnni;
}

static void give_timing(struct table *table, const struct opened *opened, const struct timing *timing)
{
    const char *limit;
    bool alone = timing->documents == 1;
    double time = alone ? timing->p50 : timing->best;
    double percent = 100 * timing->operations / time / limit_of(opened, &limit);
    if (settings.as_json) {
        printf("{\"bench\": \"embed\", \"phase\": \"%s\", \"type\": \"%s\", \"rows\": null, \"cols\": null, \"words\": %zu, "
               "\"documents\": %zu, \"tokens\": %.0f, \"threads\": %" PRIu32 ", \"us\": %.3f, \"p50_us\": %.3f, \"p95_us\": %.3f, "
               "\"best_us\": %.3f, \"samples\": %zu, \"documents_per_second\": %.2f, \"tokens_per_second\": %.1f, "
               "\"limit\": \"%s\", \"percent\": %.2f}\n",
               timing->phase, mantle_dtype_name(opened->dtype), timing->words, timing->documents, timing->tokens, opened->threads,
               time * 1e6, timing->p50 * 1e6, timing->p95 * 1e6, timing->best * 1e6, timing->samples,
               (double)timing->documents / time, timing->tokens / time, limit, percent);
        fflush(stdout);
        return;
    }
    table_cell(table, "%zu x %zu words", timing->documents, timing->words);
    table_cell(table, "%.0f", timing->tokens);
    table_cell(table, "%.2f", timing->p50 * 1e3);
    table_cell(table, "%.2f", timing->p95 * 1e3);
    table_cell(table, "%.2f", timing->best * 1e3);
    table_cell(table, "%.1f", (double)timing->documents / time);
    table_cell(table, "%.0f", timing->tokens / time);
    table_cell(table, "%.1f %% of %s", percent, limit);
}

static void give_memory(const struct opened *opened, const char *when, const struct memory *memory)
{
    if (settings.as_json) {
        printf("{\"bench\": \"embed\", \"phase\": \"memory\", \"when\": \"%s\", \"type\": null, \"rows\": null, \"cols\": null, "
               "\"tokens\": null, \"threads\": %" PRIu32 ", \"us\": null, \"limit\": null, \"percent\": null, "
               "\"anonymous_bytes\": %.0f, \"file_bytes\": %.0f, \"peak_bytes\": %.0f}\n",
               when, opened->threads, memory->anonymous, memory->file, memory->peak);
        return;
    }
    char anonymous[32], file[32], peak[32];
    printf("memory %s: %s anonymous, %s of files; most so far %s\n", when, format_bytes(anonymous, memory->anonymous),
           format_bytes(file, memory->file), format_bytes(peak, memory->peak));
}

static void give_profile_of(const struct opened *opened, size_t tokens)
{
    struct documents documents = make_ids(opened, 1, tokens);
    mantle_profile *profile = NULL;
    char title[64];
    embed(opened, &documents);
    CHECK(mantle_embedder_set_profiling(opened->embedder, true, &error));
    double end = seconds() + (double)settings.milliseconds * 1e-3;
    do {
        embed(opened, &documents);
    } while (seconds() < end);
    CHECK(mantle_embedder_profile(opened->embedder, &profile, &error));
    CHECK(mantle_embedder_set_profiling(opened->embedder, false, &error));
    snprintf(title, sizeof title, "document of %zu tokens", tokens);
    give_profile(profile, title, opened->threads);
    mantle_profile_free(profile);
    free_documents(&documents);
}

/* ---- the command ---- */

/* The type that most bytes of the layers' matrices have. */
static mantle_dtype type_of_layers(const mantle_model *model)
{
    uint64_t sums[512] = {0};
    const size_t known = sizeof sums / sizeof *sums;
    size_t count = 0, most = 0;
    CHECK(mantle_model_tensor_count(model, &count, &error));
    for (size_t i = 0; i < count; i++) {
        mantle_tensor_info tensor = {.struct_size = sizeof tensor};
        CHECK(mantle_model_tensor_info(model, i, &tensor, &error));
        bool in_table = tensor.name_length >= 4 && memcmp(tensor.name, "blk.", 4) != 0;
        if (tensor.dimensions > 1 && !in_table && tensor.dtype >= 0 && (size_t)tensor.dtype < known) {
            sums[tensor.dtype] += tensor.bytes;
        }
    }
    for (size_t dtype = 0; dtype < known; dtype++) {
        most = sums[dtype] > sums[most] ? dtype : most;
    }
    return (mantle_dtype)most;
}

static void open_model(struct opened *opened, mantle_runtime *runtime)
{
    mantle_model_info info = {.struct_size = sizeof info};
    const mantle_tokenizer *tokenizer = NULL;
    CHECK(mantle_model_open(runtime, settings.model_path, strlen(settings.model_path), NULL, &opened->model, &error));
    CHECK(mantle_embedder_new(opened->model, NULL, NULL, &opened->embedder, &error));
    CHECK(mantle_model_get_info(opened->model, &info, &error));
    CHECK(mantle_embed_dimensions(opened->embedder, NULL, &opened->dimensions, &error));
    opened->vocabulary = info.vocabulary;
    opened->has_tokenizer = mantle_model_tokenizer(opened->model, &tokenizer, NULL) == MANTLE_OK;
    opened->dtype = type_of_layers(opened->model);
}

void bench_embed(mantle_runtime *runtime, uint32_t threads)
{
    static const size_t lengths[] = {9, 49, 400};
    enum { ALONE = sizeof lengths / sizeof *lengths, ALL = ALONE + 2 };
    static const char *const headings[] = {"documents", "tokens", "P50 ms", "P95 ms", "best ms", "documents/s", "tokens/s",
                                           "reached"};
    struct opened opened = {.threads = threads, .limits = measure_limits(threads)};
    struct timing timings[ALL];
    struct table table = {.alignment = "<>>>>>><"};
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) {
        table_cell(&table, "%s", headings[i]);
    }
    forget_peak();
    open_model(&opened, runtime);
    struct documents first = make_documents(&opened, 1, 9);
    embed(&opened, &first);
    free_documents(&first);
    struct memory idle = read_memory();
    for (size_t i = 0; i < ALONE; i++) {
        timings[i] = measure_calls(&opened, "latency", 1, lengths[i], 20);
    }
    for (size_t i = 0; i < 2; i++) {
        timings[ALONE + i] = measure_calls(&opened, "batch", BATCH, lengths[i], 3);
    }
    struct memory busy = read_memory();
    improve_limits(&opened.limits);
    for (size_t i = 0; i < ALL; i++) {
        give_timing(&table, &opened, &timings[i]);
    }
    if (!settings.as_json) {
        printf("%s\n", settings.model_path);
        print_limits(&opened.limits);
        table_print(&table, stdout, 0);
    }
    give_memory(&opened, "idle", &idle);
    give_memory(&opened, "after the batches", &busy);
    give_profile_of(&opened, 12);
    give_profile_of(&opened, 256);
    mantle_embedder_free(opened.embedder);
    mantle_model_free(opened.model);
}
