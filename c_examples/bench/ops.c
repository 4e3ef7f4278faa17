/* mantle-bench ops: everything between matrix products. */
#include "bench.h"

/* A step that the library measures by itself. */
static void add_step(struct results *results, mantle_runtime *runtime, const char *op, int32_t step, mantle_step_shape shape,
                     enum kind kind, const char *where)
{
    mantle_step_result result = {.struct_size = sizeof result};
    shape.struct_size = sizeof shape;
    CHECK(mantle_measure_step(runtime, step, &shape, (uint32_t)settings.milliseconds, &result, &error));
    results_add(results, (struct figure){
        .bench = "ops",
        .op = op,
        .where = where,
        .dtype = -1,
        .rows = shape.rows,
        .columns = shape.columns,
        .tokens = shape.rows,
        .seconds = result.seconds,
        .operations = (double)result.operations,
        .bytes = (double)result.bytes,
        .kind = kind,
        .limit = 1e-6, /* the target of a fork and a join */
    });
}

static void add_steps(struct results *results, mantle_runtime *runtime)
{
    const uint64_t dram = dram_bytes() / 4;
    add_step(results, runtime, "fork_join", MANTLE_STEP_FORK_JOIN, (mantle_step_shape){.rows = 1, .columns = 1}, OF_TARGET, NULL);
    add_step(results, runtime, "quantize", MANTLE_STEP_QUANTIZE, (mantle_step_shape){.rows = 256, .columns = 768}, OF_CACHE,
             "cache");
    add_step(results, runtime, "quantize", MANTLE_STEP_QUANTIZE, (mantle_step_shape){.rows = 1, .columns = 4096}, OF_CACHE,
             "cache");
    add_step(results, runtime, "attention", MANTLE_STEP_ATTENTION,
             (mantle_step_shape){.rows = 512, .columns = 512, .heads = 12, .kv_heads = 12, .head_dim = 64}, OF_FMA, "cache");
    add_step(results, runtime, "attention", MANTLE_STEP_ATTENTION,
             (mantle_step_shape){.rows = 512, .columns = 512, .heads = 3, .kv_heads = 1, .head_dim = 256}, OF_FMA, "cache");
    add_step(results, runtime, "cached_attention", MANTLE_STEP_CACHED_ATTENTION,
             (mantle_step_shape){.rows = 512, .columns = 512, .heads = 32, .kv_heads = 8, .head_dim = 128}, OF_FMA, "cache");
    add_step(results, runtime, "cached_attention", MANTLE_STEP_CACHED_ATTENTION,
             (mantle_step_shape){.rows = 1, .columns = 8192, .heads = 32, .kv_heads = 8, .head_dim = 128, .working_set = dram},
             OF_READ, "dram");
    add_step(results, runtime, "cached_attention", MANTLE_STEP_CACHED_ATTENTION,
             (mantle_step_shape){.rows = 1, .columns = 8192, .heads = 9, .kv_heads = 3, .head_dim = 64, .working_set = dram},
             OF_READ, "dram");
}

void bench_ops(mantle_runtime *runtime, uint32_t threads)
{
    struct results results;
    results_begin(&results, threads);
    add_steps(&results, runtime);
    add_vectors(&results, runtime);
    results_end(&results);
}
