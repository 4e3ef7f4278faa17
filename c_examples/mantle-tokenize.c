/* Text to token ids and back: a filter for the shell. */
#include "common.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *model_path;
static bool decode, null_separated, parse_special, no_special;

static const struct option options[] = {
    {"-m", "--model", OPTION_TEXT, &model_path, "MODEL", "model file (GGUF) whose tokenizer is used", 0, 0},
    {"-d", "--decode", OPTION_FLAG, &decode, NULL, "read lines of ids, write the texts", 0, 0},
    {"-0", "--null", OPTION_FLAG, &null_separated, NULL,
     "texts end with a NUL byte instead of a newline,\nso that they may hold newlines (ids stay in lines)", 0, 0},
    {"-s", "--special", OPTION_FLAG, &parse_special, NULL, "read tokens such as <|im_start|> in the text", 0, 0},
    {NULL, "--plain", OPTION_FLAG, &no_special, NULL,
     "no tokens that the model expects around a text;\nwith --decode: leave control tokens out", 0, 0},
};

static const struct program program = {
    .name = "mantle-tokenize",
    .usage = "-m MODEL [--decode] [-0] < INPUT",
    .about = "Reads texts from standard input, one a line, and writes a line of token ids for each.",
    .examples = "  echo 'Hello world' | mantle-tokenize -m model.gguf\n"
                "  echo '19556 905' | mantle-tokenize -m model.gguf --decode\n"
                "  printf 'two\\nlines\\0one' | mantle-tokenize -m model.gguf -0",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .max_arguments = 0,
};

/* What the work on one record needs; the buffers are used again for the next one. */
struct work {
    const mantle_tokenizer *tokenizer;
    mantle_token *ids;
    size_t ids_capacity;
    struct buffer text;
};

static int encode_record(struct work *work, const char *record, size_t size)
{
    mantle_error *error = NULL;
    uint32_t flags = (no_special ? 0 : MANTLE_TOKENIZE_ADD_SPECIAL) |
                     (parse_special ? MANTLE_TOKENIZE_PARSE_SPECIAL : 0);
    size_t count = 0;
    mantle_status status = mantle_tokenize(work->tokenizer, record, size, flags, work->ids, work->ids_capacity,
                                           &count, &error);
    if (status == MANTLE_ERROR_BUFFER_TOO_SMALL) {
        mantle_error_free(error);
        mantle_token *grown = realloc(work->ids, count * sizeof *grown);
        if (!grown) {
            return fail(&program, "no memory for %zu token ids", count);
        }
        work->ids = grown;
        work->ids_capacity = count;
        status = mantle_tokenize(work->tokenizer, record, size, flags, work->ids, work->ids_capacity, &count, &error);
    }
    if (status != MANTLE_OK) {
        return report(&program, status, error);
    }
    for (size_t i = 0; i < count; i++) {
        printf("%s%" PRId32, i ? " " : "", work->ids[i]);
    }
    putchar('\n');
    return EXIT_SUCCESS;
}

static int decode_record(struct work *work, const char *record, size_t number)
{
    mantle_error *error = NULL;
    size_t count, size = 0;
    const char *problem;
    mantle_token *ids = parse_ids(record, &count, &problem);
    if (!ids) {
        return problem ? fail(&program, "line %zu: '%.20s' is no token id", number, problem)
                       : fail(&program, "no memory for the ids of line %zu", number);
    }
    uint32_t flags = no_special ? MANTLE_DETOKENIZE_SKIP_SPECIAL : 0;
    mantle_status status = mantle_detokenize(work->tokenizer, ids, count, flags, NULL, 0, &size, &error);
    if (status == MANTLE_ERROR_BUFFER_TOO_SMALL) {
        mantle_error_free(error);
        error = NULL;
        work->text.size = 0;
        if (size > work->text.capacity) {
            char *grown = realloc(work->text.data, size);
            if (!grown) {
                free(ids);
                return fail(&program, "no memory for a text of %zu bytes", size);
            }
            work->text.data = grown;
            work->text.capacity = size;
        }
        status = mantle_detokenize(work->tokenizer, ids, count, flags, work->text.data, size, &size, &error);
    }
    free(ids);
    if (status != MANTLE_OK) {
        return report(&program, status, error);
    }
    fwrite(work->text.data, 1, size, stdout);
    putchar(null_separated ? '\0' : '\n');
    return EXIT_SUCCESS;
}

/* Reads record after record and writes each answer at once, so that the program can stand in a pipe. */
static int filter(struct work *work)
{
    int end = null_separated && !decode ? '\0' : '\n';
    int result = EXIT_SUCCESS, c = 0;
    struct buffer record = {0};
    for (size_t number = 1; result == EXIT_SUCCESS && c != EOF; number++) {
        record.size = 0;
        while ((c = getchar()) != EOF && c != end) {
            char byte = (char)c;
            if (!buffer_add(&record, &byte, 1)) {
                buffer_free(&record);
                return fail(&program, "no memory for record %zu of the input", number);
            }
        }
        if (c == EOF && record.size == 0) {
            break; /* The last record ended as it should. */
        }
        /* Closes the record with a NUL, also when it is empty. */
        if (!buffer_add(&record, "", 0)) {
            buffer_free(&record);
            return fail(&program, "no memory for record %zu of the input", number);
        }
        if (decode && strlen(record.data) != record.size) {
            result = fail(&program, "line %zu holds a NUL byte", number);
        } else {
            result = decode ? decode_record(work, record.data, number)
                            : encode_record(work, record.data, record.size);
        }
        fflush(stdout);
    }
    buffer_free(&record);
    if (result == EXIT_SUCCESS && ferror(stdin)) {
        return fail(&program, "cannot read the input: %s", strerror(errno));
    }
    return result;
}

int main(int argc, char **argv)
{
    parse_options(&program, argc, argv, NULL);
    if (!model_path) {
        usage_error(&program, "-m MODEL is missing");
    }
    mantle_runtime *runtime = NULL;
    mantle_model *model = NULL;
    mantle_error *error = NULL;
    struct work work = {0};
    mantle_status status = mantle_runtime_new(NULL, &runtime, &error);
    if (status == MANTLE_OK) {
        status = mantle_model_open(runtime, model_path, strlen(model_path), NULL, &model, &error);
    }
    if (status == MANTLE_OK) {
        status = mantle_model_tokenizer(model, &work.tokenizer, &error);
    }
    int result = status == MANTLE_OK ? filter(&work) : report(&program, status, error);
    free(work.ids);
    buffer_free(&work.text);
    mantle_model_free(model);
    mantle_runtime_free(runtime);
    return finish(&program, result);
}
