/* Embeds with llama.cpp what embed_peers.py asks for on standard input: see there. llama_worker MODEL THREADS UBATCH */
#define _POSIX_C_SOURCE 200809L
#include <ggml-backend.h>
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct llama_context *context;
static int most_tokens, columns;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void quiet(enum ggml_log_level level, const char *text, void *user_data)
{
    (void)user_data;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

/* The documents, as many at once as a batch holds; `row` gets the last one's embedding. */
static void embed(const llama_token *ids, int documents, int tokens, float *row)
{
    struct llama_batch batch = llama_batch_init(most_tokens, 0, 1);
    for (int document = 0; document < documents;) {
        int sequences = 0;
        batch.n_tokens = 0;
        while (document < documents && batch.n_tokens + tokens <= most_tokens) {
            for (int i = 0; i < tokens; i++) {
                int at = batch.n_tokens++;
                batch.token[at] = ids[document * tokens + i];
                batch.pos[at] = i;
                batch.n_seq_id[at] = 1;
                batch.seq_id[at][0] = sequences;
                batch.logits[at] = 1;
            }
            document++;
            sequences++;
        }
        if (sequences == 0 || llama_encode(context, batch) != 0) {
            fputs("llama_encode failed\n", stderr);
            exit(EXIT_FAILURE);
        }
        const float *pooled = llama_get_embeddings_seq(context, sequences - 1);
        if (!pooled) {
            fputs("no embedding\n", stderr);
            exit(EXIT_FAILURE);
        }
        memcpy(row, pooled, (size_t)columns * sizeof *row);
    }
    llama_batch_free(batch);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        return EXIT_FAILURE;
    }
    llama_log_set(quiet, NULL);
    const char *backends = getenv("LLAMA_BACKENDS");
    if (backends) {
        ggml_backend_load_all_from_path(backends);
    } else {
        ggml_backend_load_all();
    }
    llama_backend_init();
    struct llama_model_params model_params = llama_model_default_params();
    struct llama_model *model = llama_model_load_from_file(argv[1], model_params);
    if (!model) {
        return EXIT_FAILURE;
    }
    most_tokens = atoi(argv[3]);
    struct llama_context_params params = llama_context_default_params();
    /* A header of another version would put these elsewhere. */
    if (params.n_ctx != 512 || params.n_batch != 2048 || params.n_ubatch != 512 || params.embeddings) {
        fputs("llama.h does not fit the library\n", stderr);
        return EXIT_FAILURE;
    }
    params.n_ctx = params.n_batch = params.n_ubatch = (uint32_t)most_tokens;
    params.n_seq_max = 128;
    params.n_threads = params.n_threads_batch = atoi(argv[2]);
    params.embeddings = true;
    params.kv_unified = true;
    params.pooling_type = LLAMA_POOLING_TYPE_MEAN;
    context = llama_init_from_model(model, params);
    if (!context) {
        return EXIT_FAILURE;
    }
    columns = llama_model_n_embd(model);
    float *row = malloc((size_t)columns * sizeof *row);
    static char line[1 << 16];
    while (row && fgets(line, sizeof line, stdin)) {
        int documents, tokens, runs;
        if (sscanf(line, "time %d %d %d", &documents, &tokens, &runs) == 3) {
            llama_token *ids = malloc((size_t)documents * (size_t)tokens * sizeof *ids);
            double best = 1e9;
            for (int i = 0; ids && i < documents * tokens; i++) {
                ids[i] = 1000 + (llama_token)((long)i * 7919 % 20000);
            }
            for (int run = 0; ids && run < runs; run++) {
                double start = seconds();
                embed(ids, documents, tokens, row);
                double time = seconds() - start;
                best = time < best ? time : best;
            }
            printf("%.9f\n", best);
            free(ids);
        } else if (strncmp(line, "embed ", 6) == 0) {
            static llama_token ids[8192];
            int count = 0;
            for (char *word = strtok(line + 6, " \n"); word && count < 8192; word = strtok(NULL, " \n")) {
                ids[count++] = atoi(word);
            }
            embed(ids, 1, count, row);
            for (int i = 0; i < columns; i++) {
                printf("%.9g ", (double)row[i]);
            }
            putchar('\n');
        }
        fflush(stdout);
    }
    llama_free(context);
    llama_model_free(model);
    return EXIT_SUCCESS;
}
