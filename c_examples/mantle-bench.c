/* Measures the library against the machine it runs on: every time comes with a percentage of a limit. */
#include "bench/bench.h"

struct settings settings = {.prompts = {{12, 512}, 2}, .milliseconds = 300, .generated = 64};

static const struct option options[] = {
    {"-t", "--threads", OPTION_LIST, &settings.threads, "T[,T..]", "threads (default: all processors)", 1, 1024},
    {NULL, "--types", OPTION_TEXT, &settings.type_names, "TYPES",
     "weight types, such as q8_0,q4_1 (default: all that are multiplied)", 0, 0},
    {NULL, "--shapes", OPTION_TEXT, &settings.shape_names, "SHAPES", "ROWSxCOLUMNS[,..] of the matrices", 0, 0},
    {NULL, "--tokens", OPTION_LIST, &settings.tokens, "N[,N..]",
     "tokens at once (default for matmul 6,32,256, for crossover 1 to 96)", 1, 1 << 16},
    {NULL, "--where", OPTION_TEXT, &settings.where, "WHERE",
     "weights in 'cache', in main memory ('dram'), or 'both'\n(default: both for matvec, cache for matmul)", 0, 0},
    {"-m", "--model", OPTION_TEXT, &settings.model_path, "FILE", "model, embed: the model file or folder", 0, 0},
    {"-p", "--prompts", OPTION_LIST, &settings.prompts, "N[,N..]", "model: prompt lengths (default 12,512)", 1, 1 << 20},
    {"-n", "--count", OPTION_NUMBER, &settings.generated, "N", "model: tokens to generate, 0 for none (default 64)", 0, 1 << 20},
    {NULL, "--profile", OPTION_FLAG, &settings.profile, NULL, "model: then show where the time goes, per op (embed always does)",
     0, 0},
    {NULL, "--layers", OPTION_FLAG, &settings.by_layer, NULL, "profiles: also per layer", 0, 0},
    {NULL, "--milliseconds", OPTION_NUMBER, &settings.milliseconds, "MS", "time for each figure; the best counts (default 300)", 1,
     60000},
    {NULL, "--json", OPTION_FLAG, &settings.as_json, NULL, "print one JSON object per line", 0, 0},
};

const struct program program = {
    .name = "mantle-bench",
    .usage = "limits|matvec|matmul|gemm|crossover|ops|model|embed [options]",
    .about = "limits     this machine's peaks: arithmetic, and reading memory by size\n"
             "matvec     one token times a matrix: as fast as the weights can be read?\n"
             "matmul     many tokens times a matrix: as fast as the arithmetic allows?\n"
             "gemm       products of floats: f32, f16 and bf16\n"
             "crossover  weights decoded in registers or in the cache: does the library take the faster?\n"
             "ops        what stands between the products: attention, norms, activations, fork and join\n"
             "model      tokens/s of a model, for prompts and for generation\n"
             "embed      latency, documents/s and memory of a model that makes embeddings\n\n"
             "Limits are measured before and after, in the same run. Other programs disturb: the best of several counts.",
    .examples = "  mantle-bench limits -t 1,2\n"
                "  mantle-bench matvec --types q4_1 --shapes 2048x2048 -t 2\n"
                "  mantle-bench matmul --types q8_0,bf16 --tokens 1,4,16,64,256 --json\n"
                "  mantle-bench model -m model.gguf -p 12,512 -n 64 -t 2 --profile\n"
                "  mantle-bench embed -m model.gguf -t 1,2",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .max_arguments = 1,
};

static void limits(mantle_runtime *runtime, uint32_t threads)
{
    (void)runtime;
    bench_limits(threads);
}

static const struct command {
    const char *name;
    void (*run)(mantle_runtime *runtime, uint32_t threads);
    bool needs_model;
} commands[] = {
    {"limits", limits, false},       {"matvec", bench_matvec, false}, {"matmul", bench_matmul, false},
    {"gemm", bench_gemm, false},     {"crossover", bench_crossover, false}, {"ops", bench_ops, false},
    {"model", bench_model, true},    {"embed", bench_embed, true},
};

/* Runs a command once, with `wanted` threads (0: as many as the library chooses). */
static void run(const struct command *command, long wanted)
{
    mantle_runtime *runtime = NULL;
    mantle_runtime_options runtime_options;
    mantle_runtime_info info = {.struct_size = sizeof info};
    CHECK(mantle_runtime_options_init(&runtime_options, sizeof runtime_options, &error));
    if (wanted > 0) {
        runtime_options.threads = (uint32_t)wanted;
    }
    CHECK(mantle_runtime_new(&runtime_options, &runtime, &error));
    CHECK(mantle_runtime_get_info(runtime, &info, &error));
    command->run(runtime, info.threads);
    mantle_runtime_free(runtime);
}

int main(int argc, char **argv)
{
    const char *name = NULL;
    const struct command *command = NULL;
    if (parse_options(&program, argc, argv, &name) == 0) {
        usage_error(&program, "the command is missing: limits, matvec, matmul, gemm, crossover, ops, model or embed");
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        command = strcmp(name, commands[i].name) == 0 ? &commands[i] : command;
    }
    if (!command) {
        usage_error(&program, "'%s' is no command: expected limits, matvec, matmul, gemm, crossover, ops, model or embed", name);
    }
    if (command->needs_model && !settings.model_path) {
        usage_error(&program, "%s needs -m FILE", name);
    }
    if (settings.where && strcmp(settings.where, "cache") != 0 && strcmp(settings.where, "dram") != 0 &&
        strcmp(settings.where, "both") != 0) {
        usage_error(&program, "--where takes cache, dram or both, not '%s'", settings.where);
    }
    check_types();
    if (settings.threads.count == 0) {
        run(command, 0);
    }
    for (size_t i = 0; i < settings.threads.count; i++) {
        run(command, settings.threads.values[i]);
    }
    return finish(&program, EXIT_SUCCESS);
}
