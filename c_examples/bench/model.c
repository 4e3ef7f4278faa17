/* mantle-bench model: tokens/s of a decoder, for prompts and for generation. */
#include "bench.h"

static void print_model(struct table *table, const char *phase, size_t tokens, uint32_t threads, double seconds_per_token,
                        const char *limit, double percent)
{
    if (settings.as_json) {
        printf("{\"bench\": \"model\", \"type\": null, \"rows\": null, \"cols\": null, \"tokens\": %zu, "
               "\"threads\": %" PRIu32 ", \"us\": %.3f, \"limit\": \"%s\", \"percent\": %.2f, \"phase\": \"%s\", "
               "\"tokens_per_second\": %.2f}\n",
               tokens, threads, seconds_per_token * (double)tokens * 1e6, limit, percent, phase, 1 / seconds_per_token);
        fflush(stdout);
        return;
    }
    table_cell(table, "%s", phase);
    table_cell(table, "%zu", tokens);
    table_cell(table, "%.1f", 1 / seconds_per_token);
    table_cell(table, "%.2f", seconds_per_token * (double)tokens * 1e3);
    table_cell(table, "%.1f %% of %s", percent, limit);
}

/* Seconds per token of a prompt: the best of at least three passes. */
static double best_prompt(mantle_session *session, const mantle_token *ids, size_t tokens)
{
    const int32_t sequence = 0;
    const size_t offsets[2] = {0, tokens};
    double best = 0, end = seconds() + (double)settings.milliseconds * 1e-3;
    for (int pass = 0; pass < 4 || seconds() < end; pass++) {
        CHECK(mantle_sequence_truncate(session, sequence, 0, &error));
        double start = seconds();
        CHECK(mantle_forward(session, &sequence, ids, offsets, 1, MANTLE_LOGITS_LAST, NULL, &error));
        double took = seconds() - start;
        /* The first pass warms up. */
        best = pass == 1 || (pass > 1 && took < best) ? took : best;
    }
    return best / (double)tokens;
}

/* Seconds per generated token after a short prompt: the best of at least three answers. */
static double best_generation(mantle_session *session, const mantle_tokenizer *tokenizer, const mantle_token *ids)
{
    enum { PROMPT = 12 };
    mantle_generate_options generate_options;
    CHECK(mantle_generate_options_init(&generate_options, sizeof generate_options, &error));
    generate_options.max_tokens = (uint32_t)settings.generated;
    generate_options.flags = MANTLE_GENERATE_IGNORE_END;
    double best = 0, end = seconds() + (double)settings.milliseconds * 1e-3;
    for (int answer = 0; answer < 3 || seconds() < end; answer++) {
        mantle_generation result = {.struct_size = sizeof result};
        CHECK(mantle_sequence_truncate(session, 0, 0, &error));
        CHECK(mantle_generate(session, tokenizer, 0, ids, PROMPT, &generate_options, NULL, NULL, NULL, &result, &error));
        double took = result.passes ? (double)result.generation_nanoseconds * 1e-9 / (double)result.passes : 0;
        best = answer == 0 || took < best ? took : best;
    }
    return best;
}

/* A run of its own, so that the figures above are those without a profile. */
static void profile_phase(mantle_session *session, const mantle_tokenizer *tokenizer, const mantle_token *ids, size_t prompt,
                          uint32_t threads)
{
    char title[64];
    mantle_profile *profile = NULL;
    CHECK(mantle_session_set_profiling(session, true, &error));
    if (prompt > 0) {
        snprintf(title, sizeof title, "prompt of %zu tokens", prompt);
        best_prompt(session, ids, prompt);
    } else {
        snprintf(title, sizeof title, "generation");
        best_generation(session, tokenizer, ids);
    }
    CHECK(mantle_session_profile(session, &profile, &error));
    give_profile(profile, title, threads);
    mantle_profile_free(profile);
    CHECK(mantle_session_set_profiling(session, false, &error));
}

static void bench_opened(mantle_model *model, mantle_session *session, const mantle_token *ids, uint32_t threads)
{
    const mantle_tokenizer *tokenizer = NULL;
    double times[32] = {0}, generation = 0;
    struct model_work work;
    struct table table = {.alignment = "<>>><"};
    static const char *const headings[] = {"", "tokens", "tokens/s", "ms", "reached"};
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) {
        table_cell(&table, "%s", headings[i]);
    }
    CHECK(mantle_model_tokenizer(model, &tokenizer, &error));
    CHECK(model_work(model, &work, &error));
    struct limits limits = measure_limits(threads);
    for (size_t i = 0; i < settings.prompts.count; i++) {
        times[i] = best_prompt(session, ids, (size_t)settings.prompts.values[i]);
    }
    if (settings.generated > 1) {
        generation = best_generation(session, tokenizer, ids);
    }
    improve_limits(&limits);
    for (size_t i = 0; i < settings.prompts.count; i++) {
        double percent = 100 * 2 * work.multiply_adds / times[i] / limits.vnni;
        print_model(&table, "prompt", (size_t)settings.prompts.values[i], threads, times[i], "vnni", percent);
    }
    if (settings.generated > 1) {
        double percent = 100 * work.bytes / generation / limits.dram;
        print_model(&table, "generation", (size_t)settings.generated, threads, generation, "dram", percent);
    }
    if (!settings.as_json) {
        printf("%s: %.1f MB of weights and %.1f million multiply-adds per token\n", settings.model_path, work.bytes / 1e6,
               work.multiply_adds / 1e6);
        print_limits(&limits);
        table_print(&table, stdout, 0);
    }
    for (size_t i = 0; settings.profile && i < settings.prompts.count; i++) {
        profile_phase(session, tokenizer, ids, (size_t)settings.prompts.values[i], threads);
    }
    if (settings.profile && settings.generated > 1) {
        profile_phase(session, tokenizer, ids, 0, threads);
    }
}

void bench_model(mantle_runtime *runtime, uint32_t threads)
{
    mantle_model *model = NULL;
    mantle_session *session = NULL;
    mantle_model_info info = {.struct_size = sizeof info};
    mantle_session_options session_options;
    CHECK(mantle_model_open(runtime, settings.model_path, strlen(settings.model_path), NULL, &model, &error));
    CHECK(mantle_model_get_info(model, &info, &error));
    long longest = 12 + settings.generated;
    for (size_t i = 0; i < settings.prompts.count; i++) {
        longest = settings.prompts.values[i] > longest ? settings.prompts.values[i] : longest;
    }
    CHECK(mantle_session_options_init(&session_options, sizeof session_options, &error));
    session_options.max_context = (uint32_t)longest;
    CHECK(mantle_session_new(model, &session_options, NULL, &session, &error));
    mantle_token *ids = allocate((size_t)longest, sizeof *ids);
    for (long i = 0; i < longest; i++) {
        ids[i] = (mantle_token)((uint32_t)i * 7919u % info.vocabulary);
    }
    bench_opened(model, session, ids, threads);
    free(ids);
    mantle_session_free(session);
    mantle_model_free(model);
}
