/* Embeds with libmantle what embed_peers.py asks for on standard input: see there. mantle_worker MODEL THREADS [TYPE] */
#define _POSIX_C_SOURCE 200809L
#include <mantle.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static mantle_error *error;

static void check(mantle_status status)
{
    if (status != MANTLE_OK) {
        fprintf(stderr, "%s: %s\n", mantle_error_context(error), mantle_error_message(error));
        exit(EXIT_FAILURE);
    }
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory) {
        exit(EXIT_FAILURE);
    }
    return memory;
}

int main(int argc, char **argv)
{
    mantle_runtime_options runtime_options;
    mantle_model_options model_options;
    mantle_runtime *runtime;
    mantle_model *model;
    mantle_embedder *embedder;
    if (argc < 3) {
        return EXIT_FAILURE;
    }
    check(mantle_runtime_options_init(&runtime_options, sizeof runtime_options, &error));
    check(mantle_model_options_init(&model_options, sizeof model_options, &error));
    runtime_options.threads = (uint32_t)atoi(argv[2]);
    if (argc > 3) {
        model_options.weight_type = strcmp(argv[3], "bf16") == 0 ? MANTLE_DTYPE_BF16 : MANTLE_DTYPE_Q8_0;
    }
    check(mantle_runtime_new(&runtime_options, &runtime, &error));
    check(mantle_model_open(runtime, argv[1], strlen(argv[1]), &model_options, &model, &error));
    check(mantle_embedder_new(model, NULL, NULL, &embedder, &error));
    size_t columns;
    check(mantle_embed_dimensions(embedder, NULL, &columns, &error));

    static char line[1 << 16];
    while (fgets(line, sizeof line, stdin)) {
        size_t documents, tokens;
        int runs;
        if (sscanf(line, "time %zu %zu %d", &documents, &tokens, &runs) == 3) {
            mantle_token *ids = allocate(documents * tokens * sizeof *ids);
            size_t *offsets = allocate((documents + 1) * sizeof *offsets);
            float *rows = allocate(documents * columns * sizeof *rows);
            double best = 1e9;
            for (size_t i = 0; i < documents * tokens; i++) {
                ids[i] = (mantle_token)(1000 + i * 7919 % 20000);
            }
            for (size_t i = 0; i <= documents; i++) {
                offsets[i] = i * tokens;
            }
            for (int run = 0; run < runs; run++) {
                double start = seconds();
                check(mantle_embed_tokens(embedder, ids, offsets, documents, NULL, rows, 0, NULL, &error));
                double time = seconds() - start;
                best = time < best ? time : best;
            }
            printf("%.9f\n", best);
            free(ids);
            free(offsets);
            free(rows);
        } else if (strncmp(line, "embed ", 6) == 0) {
            static mantle_token ids[8192];
            size_t offsets[2] = {0, 0};
            for (char *word = strtok(line + 6, " \n"); word && offsets[1] < 8192; word = strtok(NULL, " \n")) {
                ids[offsets[1]++] = (mantle_token)atoi(word);
            }
            float *row = allocate(columns * sizeof *row);
            check(mantle_embed_tokens(embedder, ids, offsets, 1, NULL, row, 0, NULL, &error));
            for (size_t i = 0; i < columns; i++) {
                printf("%.9g ", (double)row[i]);
            }
            putchar('\n');
            free(row);
        }
        fflush(stdout);
    }
    mantle_embedder_free(embedder);
    mantle_model_free(model);
    mantle_runtime_free(runtime);
    return EXIT_SUCCESS;
}
