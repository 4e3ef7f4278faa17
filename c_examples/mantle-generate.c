/* Continues a text: greedy generation, shown token by token. */
#include "common.h"

#include <errno.h>
#include <inttypes.h>
#include <mantle_experimental.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOP = 10, BANDWIDTH_MILLISECONDS = 200 };

static const char *model_path, *prompt, *prompt_path;
static bool prompt_is_ids, as_json, show_logits, parse_special, show_stats, show_profile, ignore_end;
static long count = 128, threads, context;

static const struct option options[] = {
    {"-m", "--model", OPTION_TEXT, &model_path, "MODEL", "model file (GGUF)", 0, 0},
    {"-p", "--prompt", OPTION_TEXT, &prompt, "PROMPT", "text to continue", 0, 0},
    {"-f", "--file", OPTION_TEXT, &prompt_path, "FILE", "read the prompt from a file; - is standard input", 0, 0},
    {NULL, "--ids", OPTION_FLAG, &prompt_is_ids, NULL, "PROMPT is a list of token ids, such as '504,1235'", 0, 0},
    {"-s", "--special", OPTION_FLAG, &parse_special, NULL, "read tokens such as <|im_start|> in PROMPT", 0, 0},
    {"-n", "--count", OPTION_NUMBER, &count, "N", "most tokens to generate (default 128)", 0, INT32_MAX},
    {NULL, "--ignore-end", OPTION_FLAG, &ignore_end, NULL, "go on when the model ends its answer", 0, 0},
    {"-t", "--threads", OPTION_NUMBER, &threads, "THREADS", "threads that compute (default: all processors)", 1, 1024},
    {"-c", "--context", OPTION_NUMBER, &context, "N",
     "most tokens of prompt and answer together\n(default: as many as they need, up to the model's own limit)", 1,
     INT32_MAX},
    {NULL, "--logits", OPTION_FLAG, &show_logits, NULL, "show the ten likeliest tokens after the prompt", 0, 0},
    {NULL, "--json", OPTION_FLAG, &as_json, NULL,
     "print one JSON object: prompt_ids, ids, text, stop;\nwith --logits also top10 and lse (log-sum-exp)", 0, 0},
    {NULL, "--stats", OPTION_FLAG, &show_stats, NULL,
     "show tokens/s, and the share of this machine's memory\nbandwidth that they mean", 0, 0},
    {NULL, "--profile", OPTION_FLAG, &show_profile, NULL, "show where the time goes, per op", 0, 0},
};

static const struct program program = {
    .name = "mantle-generate",
    .usage = "-m MODEL -p PROMPT [--ids] [-n N] [-t THREADS] [--json] [--logits]",
    .about = "Writes the continuation of a prompt, always with the likeliest token: the same answer every time.",
    .examples = "  mantle-generate -m model.gguf -p 'The capital of France is' -n 20\n"
                "  mantle-generate -m model.gguf --ids -p '504 3575 282' --json --logits\n"
                "  mantle-generate -m model.gguf -s -p '<|im_start|>user\n"
                "  Name three colours.<|im_end|>\n"
                "  <|im_start|>assistant\n"
                "  '",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .max_arguments = 0,
};

/* Everything that the program holds; what is NULL or empty has not been made yet. */
struct state {
    mantle_runtime *runtime;
    mantle_model *model;
    mantle_session *session;
    mantle_cancel *cancel;
    const mantle_tokenizer *tokenizer;
    mantle_error *error;
    struct buffer prompt;     /* the text */
    mantle_token *prompt_ids;
    size_t n_prompt;
    struct buffer ids, text;  /* what was generated */
    double logits[TOP];
    mantle_token likeliest[TOP];
    size_t n_likeliest;
    double log_sum_exp;
    mantle_generation result;
};

static int read_prompt(struct state *state)
{
    if (!prompt_path) {
        return buffer_add(&state->prompt, prompt, strlen(prompt)) ? EXIT_SUCCESS : fail(&program, "no memory");
    }
    bool standard = strcmp(prompt_path, "-") == 0;
    FILE *file = standard ? stdin : fopen(prompt_path, "rb");
    if (!file) {
        return fail(&program, "%s: %s", prompt_path, strerror(errno));
    }
    char block[4096];
    size_t got;
    int result = EXIT_SUCCESS;
    while (result == EXIT_SUCCESS && (got = fread(block, 1, sizeof block, file)) > 0) {
        if (!buffer_add(&state->prompt, block, got)) {
            result = fail(&program, "%s: no memory for the prompt", prompt_path);
        }
    }
    if (ferror(file)) {
        result = fail(&program, "%s: %s", prompt_path, strerror(errno));
    }
    if (!standard) {
        fclose(file);
    }
    return result;
}

static int make_prompt_ids(struct state *state)
{
    const char *text = state->prompt.data ? state->prompt.data : "", *problem;
    size_t size = state->prompt.size;
    if (prompt_is_ids) {
        state->prompt_ids = parse_ids(text, &state->n_prompt, &problem);
        if (!state->prompt_ids) {
            return problem ? fail(&program, "the prompt is no list of token ids: '%.20s' is no number", problem)
                           : fail(&program, "no memory for the prompt");
        }
    } else {
        uint32_t flags = MANTLE_TOKENIZE_ADD_SPECIAL | (parse_special ? MANTLE_TOKENIZE_PARSE_SPECIAL : 0);
        mantle_status status = mantle_tokenize(state->tokenizer, text, size, flags, NULL, 0, &state->n_prompt,
                                               &state->error);
        if (status == MANTLE_ERROR_BUFFER_TOO_SMALL) {
            mantle_error_free(state->error);
            state->error = NULL;
            state->prompt_ids = malloc(state->n_prompt * sizeof *state->prompt_ids);
            if (!state->prompt_ids) {
                return fail(&program, "no memory for %zu token ids", state->n_prompt);
            }
            status = mantle_tokenize(state->tokenizer, text, size, flags, state->prompt_ids, state->n_prompt,
                                     &state->n_prompt, &state->error);
        }
        if (status != MANTLE_OK) {
            return report(&program, status, state->error);
        }
    }
    return state->n_prompt > 0 ? EXIT_SUCCESS : fail(&program, "the prompt is empty: there is nothing to continue");
}

static int open_model(struct state *state)
{
    mantle_runtime_options runtime_options;
    mantle_model_options model_options;
    mantle_status status = mantle_cancel_new(&state->cancel, &state->error);
    if (status == MANTLE_OK) {
        cancel_on_interrupt(state->cancel);
        status = mantle_runtime_options_init(&runtime_options, sizeof runtime_options, &state->error);
    }
    if (status == MANTLE_OK) {
        if (threads > 0) {
            runtime_options.threads = (uint32_t)threads;
        }
        status = mantle_runtime_new(&runtime_options, &state->runtime, &state->error);
    }
    if (status == MANTLE_OK) {
        status = mantle_model_options_init(&model_options, sizeof model_options, &state->error);
    }
    if (status == MANTLE_OK) {
        model_options.cancel = state->cancel;
        status = mantle_model_open(state->runtime, model_path, strlen(model_path), &model_options, &state->model,
                                   &state->error);
    }
    if (status == MANTLE_OK) {
        status = mantle_model_tokenizer(state->model, &state->tokenizer, &state->error);
    }
    return status == MANTLE_OK ? EXIT_SUCCESS : report(&program, status, state->error);
}

/* A session just large enough: a cache for the model's whole context could be larger than the model. */
static int open_session(struct state *state)
{
    mantle_session_options session_options;
    mantle_model_info info = {.struct_size = sizeof info};
    mantle_status status = mantle_session_options_init(&session_options, sizeof session_options, &state->error);
    if (status == MANTLE_OK) {
        status = mantle_model_get_info(state->model, &info, &state->error);
    }
    if (status == MANTLE_OK) {
        uint64_t needed = (uint64_t)state->n_prompt + (uint64_t)count;
        session_options.max_context = context > 0              ? (uint32_t)context
                                      : needed < info.context ? (uint32_t)needed
                                                               : info.context;
        status = mantle_session_new(state->model, &session_options, NULL, &state->session, &state->error);
    }
    if (status == MANTLE_OK && show_profile) {
        status = mantle_session_set_profiling(state->session, true, &state->error);
    }
    return status == MANTLE_OK ? EXIT_SUCCESS : report(&program, status, state->error);
}

/* The likeliest tokens, the largest logit first and the lowest id among equals; and the log-sum-exp of all. */
static void read_logits(struct state *state, const float *logits, size_t size)
{
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < size; i++) {
        double logit = logits[i];
        size_t place = state->n_likeliest;
        while (place > 0 && logit > state->logits[place - 1]) {
            place--;
        }
        if (place < TOP) {
            state->n_likeliest += state->n_likeliest < TOP;
            for (size_t k = state->n_likeliest - 1; k > place; k--) {
                state->logits[k] = state->logits[k - 1];
                state->likeliest[k] = state->likeliest[k - 1];
            }
            state->logits[place] = logit;
            state->likeliest[place] = (mantle_token)i;
        }
        largest = logit > largest ? logit : largest;
    }
    for (size_t i = 0; i < size; i++) {
        sum += exp(logits[i] - largest);
    }
    state->log_sum_exp = largest + log(sum);
}

/* Computes the prompt's logits, then takes its last token back, which mantle_generate begins with. */
static int look_at_logits(struct state *state)
{
    const int32_t sequence = 0;
    const size_t offsets[2] = {0, state->n_prompt};
    const float *logits = NULL;
    size_t size = 0;
    mantle_status status = mantle_forward(state->session, &sequence, state->prompt_ids, offsets, 1, MANTLE_LOGITS_LAST,
                                          state->cancel, &state->error);
    if (status == MANTLE_OK) {
        status = mantle_logits(state->session, 0, &logits, &size, &state->error);
    }
    if (status == MANTLE_OK) {
        read_logits(state, logits, size);
        status = mantle_sequence_truncate(state->session, sequence, (uint32_t)state->n_prompt - 1, &state->error);
    }
    return status == MANTLE_OK ? EXIT_SUCCESS : report(&program, status, state->error);
}

static bool on_token(void *user_data, mantle_token id, const char *piece, size_t length)
{
    struct state *state = user_data;
    if (!as_json) {
        fwrite(piece, 1, length, stdout);
        fflush(stdout);
        return !ferror(stdout);
    }
    return (id == MANTLE_TOKEN_NONE || buffer_add(&state->ids, &id, sizeof id)) &&
           buffer_add(&state->text, piece, length);
}

static int generate(struct state *state)
{
    size_t begin = show_logits ? state->n_prompt - 1 : 0;
    mantle_generate_options generate_options;
    mantle_status status = mantle_generate_options_init(&generate_options, sizeof generate_options, &state->error);
    if (status == MANTLE_OK) {
        generate_options.max_tokens = (uint32_t)count;
        generate_options.flags = ignore_end ? MANTLE_GENERATE_IGNORE_END : 0;
        state->result.struct_size = sizeof state->result;
        status = mantle_generate(state->session, state->tokenizer, 0, state->prompt_ids + begin,
                                 state->n_prompt - begin, &generate_options, on_token, state, state->cancel,
                                 &state->result, &state->error);
    }
    if (!as_json) {
        putchar('\n');
    }
    if (status != MANTLE_OK) {
        return report(&program, status, state->error);
    }
    /* The callback stops only when the output is closed or memory ran out. */
    return state->result.stop == MANTLE_STOP_CALLBACK && as_json ? fail(&program, "no memory for the answer")
                                                                 : EXIT_SUCCESS;
}

/* The text of one token, for people; the answer lives until the next call. */
static const char *piece_of(const struct state *state, mantle_token id, char *text, size_t capacity)
{
    size_t size = 0;
    if (mantle_detokenize(state->tokenizer, &id, 1, 0, text, capacity - 1, &size, NULL) != MANTLE_OK) {
        size = 0;
    }
    text[size] = '\0';
    return text;
}

static void print_logits(const struct state *state)
{
    struct table table = {.alignment = ">>><"};
    table_cell(&table, "id");
    table_cell(&table, "logit");
    table_cell(&table, "probability");
    table_cell(&table, "token");
    for (size_t i = 0; i < state->n_likeliest; i++) {
        char piece[64];
        table_cell(&table, "%" PRId32, state->likeliest[i]);
        table_cell(&table, "%.4f", state->logits[i]);
        table_cell(&table, "%.4f", exp(state->logits[i] - state->log_sum_exp));
        table_cell(&table, "'%s'", piece_of(state, state->likeliest[i], piece, sizeof piece));
    }
    table_print(&table, stdout, 0);
    printf("log-sum-exp %.6f\n\n", state->log_sum_exp);
}

static const char *stop_name(int32_t stop)
{
    switch (stop) {
    case MANTLE_STOP_END:
        return "end";
    case MANTLE_STOP_MAX_TOKENS:
        return "max_tokens";
    case MANTLE_STOP_CONTEXT_FULL:
        return "context_full";
    default:
        return "none";
    }
}

static void print_json(const struct state *state)
{
    fputs("{\"prompt_ids\": ", stdout);
    json_ids(stdout, state->prompt_ids, state->n_prompt);
    fputs(", \"ids\": ", stdout);
    json_ids(stdout, (const mantle_token *)(const void *)state->ids.data, state->ids.size / sizeof(mantle_token));
    fputs(", \"text\": ", stdout);
    json_string(stdout, state->text.data, state->text.size);
    printf(", \"stop\": \"%s\"", stop_name(state->result.stop));
    if (show_logits) {
        fputs(", \"top10\": [", stdout);
        for (size_t i = 0; i < state->n_likeliest; i++) {
            printf("%s[%" PRId32 ", ", i ? ", " : "", state->likeliest[i]);
            json_number(stdout, state->logits[i]);
            putchar(']');
        }
        fputs("], \"lse\": ", stdout);
        json_number(stdout, state->log_sum_exp);
    }
    fputs("}\n", stdout);
}

/* Speed on standard error; a share of memory bandwidth, because each pass of generation reads every weight. */
static int print_stats(struct state *state)
{
    const mantle_generation *result = &state->result;
    mantle_runtime_info runtime_info = {.struct_size = sizeof runtime_info};
    struct model_work work = {0};
    double bandwidth = 0;
    mantle_status status = mantle_runtime_get_info(state->runtime, &runtime_info, &state->error);
    if (status == MANTLE_OK) {
        status = model_work(state->model, &work, &state->error);
    }
    if (status == MANTLE_OK) {
        /* Sixteen times the cache, so that next to nothing of it comes from there. */
        size_t bytes = 16 * mantle_last_level_cache() / runtime_info.threads;
        status = mantle_measure_limit(MANTLE_LIMIT_READ, runtime_info.threads, bytes, BANDWIDTH_MILLISECONDS,
                                      &bandwidth, &state->error);
    }
    if (status != MANTLE_OK) {
        return report(&program, status, state->error);
    }
    double prompt_seconds = (double)result->prompt_nanoseconds * 1e-9;
    double seconds_per_pass = (double)result->generation_nanoseconds * 1e-9 / (double)result->passes;
    fflush(stdout);
    fprintf(stderr, "\n%s, %" PRIu32 " threads\n", mantle_isa_name(runtime_info.isa), runtime_info.threads);
    fprintf(stderr, "prompt:     %5" PRIu64 " tokens, %8.1f tokens/s\n", result->prompt_tokens,
            (double)result->prompt_tokens / prompt_seconds);
    if (result->passes > 0) {
        double rate = work.bytes / seconds_per_pass;
        fprintf(stderr, "generation: %5" PRIu64 " tokens, %8.1f tokens/s\n", result->passes, 1 / seconds_per_pass);
        fprintf(stderr, "weights:    %.1f MB per token, %.1f GB/s: %.0f %% of the %.1f GB/s that this machine reads\n",
                work.bytes / 1e6, rate / 1e9, 100 * rate / bandwidth, bandwidth / 1e9);
    }
    return EXIT_SUCCESS;
}

static int show_where_time_goes(struct state *state)
{
    mantle_profile *profile = NULL;
    mantle_status status = mantle_session_profile(state->session, &profile, &state->error);
    if (status == MANTLE_OK) {
        fflush(stdout);
        fputc('\n', stderr);
        status = print_profile(stderr, profile, false, &state->error);
    }
    mantle_profile_free(profile);
    return status == MANTLE_OK ? EXIT_SUCCESS : report(&program, status, state->error);
}

int main(int argc, char **argv)
{
    struct state state = {0};
    parse_options(&program, argc, argv, NULL);
    if (!model_path) {
        usage_error(&program, "-m MODEL is missing");
    }
    if (!prompt == !prompt_path) {
        usage_error(&program, prompt ? "-p and -f exclude each other" : "-p PROMPT (or -f FILE) is missing");
    }
    int result = read_prompt(&state);
    if (result == EXIT_SUCCESS) {
        result = open_model(&state);
    }
    if (result == EXIT_SUCCESS) {
        result = make_prompt_ids(&state);
    }
    if (result == EXIT_SUCCESS) {
        result = open_session(&state);
    }
    if (result == EXIT_SUCCESS && show_logits) {
        result = look_at_logits(&state);
    }
    if (result == EXIT_SUCCESS && show_logits && !as_json) {
        print_logits(&state);
    }
    if (result == EXIT_SUCCESS && count > 0) {
        result = generate(&state);
    }
    if (result == EXIT_SUCCESS && as_json) {
        print_json(&state);
    }
    if (result == EXIT_SUCCESS && show_stats && count > 0) {
        result = print_stats(&state);
    }
    if (result == EXIT_SUCCESS && show_profile) {
        result = show_where_time_goes(&state);
    }
    free(state.prompt_ids);
    buffer_free(&state.prompt);
    buffer_free(&state.ids);
    buffer_free(&state.text);
    mantle_session_free(state.session);
    mantle_model_free(state.model);
    mantle_runtime_free(state.runtime);
    mantle_cancel_free(state.cancel);
    return finish(&program, result);
}
