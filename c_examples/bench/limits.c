/* mantle-bench limits: what the machine can do. */
#include "bench.h"

static void print_limit(struct table *table, const char *limit, uint32_t threads, size_t bytes, double rate)
{
    char size[32];
    if (settings.as_json) {
        printf("{\"bench\": \"limits\", \"type\": null, \"rows\": null, \"cols\": null, \"tokens\": null, "
               "\"threads\": %" PRIu32 ", \"us\": null, \"limit\": \"%s\", \"percent\": 100, ", threads, limit);
        if (bytes) {
            printf("\"bytes_per_thread\": %zu, \"gbps\": %.2f}\n", bytes, rate / 1e9);
        } else {
            printf("\"gops\": %.2f}\n", rate / 1e9);
        }
        return;
    }
    table_cell(table, "%s", limit);
    table_cell(table, "%s", bytes ? format_bytes(size, (double)bytes) : "");
    table_cell(table, "%" PRIu32, threads);
    table_cell(table, "%.1f", rate / 1e9);
    table_cell(table, "%s", bytes ? "GB/s" : "Gop/s");
}

void bench_limits(uint32_t threads)
{
    static const size_t sizes[] = {32 << 10, 128 << 10, 256 << 10, 512 << 10, 768 << 10, 2 << 20, 8 << 20, 64 << 20};
    struct table table = {.alignment = "<>>><"};
    table_cell(&table, "limit");
    table_cell(&table, "per thread");
    table_cell(&table, "threads");
    table_cell(&table, "peak");
    table_cell(&table, "");
    struct limits limits = measure_limits(threads);
    print_limit(&table, "vnni", threads, 0, limits.vnni);
    print_limit(&table, "fma", threads, 0, limits.fma);
    if (limits.bf16 > 0) {
        print_limit(&table, "bf16", threads, 0, limits.bf16);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i] < dram_bytes() / threads) {
            print_limit(&table, "cache", threads, sizes[i], measure(MANTLE_LIMIT_READ, threads, sizes[i]));
        }
    }
    print_limit(&table, "dram", threads, dram_bytes() / threads, limits.dram);
    if (!settings.as_json) {
        table_print(&table, stdout, 0);
    }
}
