#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- options ---- */

static void print_help(const struct program *program)
{
    printf("usage: %s %s\n\n%s\n\noptions:\n", program->name, program->usage, program->about);
    for (size_t i = 0; i <= program->n_options; i++) {
        static const struct option help = {"-h", "--help", OPTION_FLAG, NULL, NULL,
                                           "show this help; --version shows the library's version", 0, 0};
        const struct option *option = i < program->n_options ? &program->options[i] : &help;
        char left[80];
        snprintf(left, sizeof left, "%s%s%s%s%s", option->letter ? option->letter : "",
                 option->letter && option->name ? ", " : "", option->name ? option->name : "",
                 option->argument ? " " : "", option->argument ? option->argument : "");
        printf("  %-24s ", left);
        for (const char *c = option->help; *c; c++) {
            putchar(*c);
            if (*c == '\n') {
                printf("%27s", "");
            }
        }
        putchar('\n');
    }
    printf("\nexamples:\n%s\n\nexit codes: 0 success, 1 error, 2 wrong usage\n", program->examples);
}

static void print_problem(const struct program *program, const char *format, va_list values)
{
    fprintf(stderr, "%s: ", program->name);
    vfprintf(stderr, format, values);
}

void usage_error(const struct program *program, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    print_problem(program, format, values);
    va_end(values);
    fprintf(stderr, "\nusage: %s %s\nTry '%s --help'.\n", program->name, program->usage, program->name);
    exit(EXIT_USAGE);
}

/* A whole number that uses up `text`; false otherwise. */
static bool whole_number(const char *text, const char **end, long *value)
{
    char *stop;
    errno = 0;
    *value = strtol(text, &stop, 10);
    *end = stop;
    return stop != text && errno == 0;
}

static void set_option(const struct program *program, const struct option *option, const char *written,
                       const char *argument)
{
    const char *end;
    if (option->kind == OPTION_TEXT) {
        *(const char **)option->value = argument;
    } else if (option->kind == OPTION_NUMBER) {
        long number;
        if (!whole_number(argument, &end, &number) || *end) {
            usage_error(program, "%s takes a whole number, not '%s'", written, argument);
        }
        if (number < option->minimum || number > option->maximum) {
            usage_error(program, "%s %ld is out of range: %ld to %ld", written, number, option->minimum,
                        option->maximum);
        }
        *(long *)option->value = number;
    } else {
        struct list *list = option->value;
        list->count = 0;
        end = argument;
        do {
            long number;
            if (!whole_number(end + (list->count > 0), &end, &number) || (*end && *end != ',')) {
                usage_error(program, "%s takes numbers separated by commas, not '%s'", written, argument);
            }
            if (number < option->minimum || number > option->maximum) {
                usage_error(program, "%s %ld is out of range: %ld to %ld", written, number, option->minimum,
                            option->maximum);
            }
            if (list->count == sizeof list->values / sizeof *list->values) {
                usage_error(program, "%s takes at most %zu numbers", written, list->count);
            }
            list->values[list->count++] = number;
        } while (*end);
    }
}

/* The option that `word` names; its value after '=' (if any) goes to `*inside`. */
static const struct option *find_option(const struct program *program, const char *word, const char **inside)
{
    const char *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    *inside = equals ? equals + 1 : NULL;
    for (size_t i = 0; i < program->n_options; i++) {
        const struct option *option = &program->options[i];
        if (option->name && strlen(option->name) == length && strncmp(option->name, word, length) == 0) {
            return option;
        }
        if (option->letter && strcmp(option->letter, word) == 0) {
            return option;
        }
    }
    return NULL;
}

size_t parse_options(const struct program *program, int argc, char **argv, const char **arguments)
{
    size_t count = 0;
    bool options_end = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *inside;
        if (options_end || word[0] != '-' || word[1] == '\0') {
            if (count == program->max_arguments) {
                usage_error(program, "unexpected argument '%s'", word);
            }
            arguments[count++] = word;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            options_end = true;
            continue;
        }
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            print_help(program);
            exit(finish(program, EXIT_SUCCESS));
        }
        if (strcmp(word, "--version") == 0) {
            printf("%s (%s)\n", program->name, mantle_build_info());
            exit(finish(program, EXIT_SUCCESS));
        }
        const struct option *option = find_option(program, word, &inside);
        if (!option) {
            usage_error(program, "unknown option %s", word);
        }
        if (option->kind == OPTION_FLAG) {
            if (inside) {
                usage_error(program, "%s takes no value", option->name);
            }
            *(bool *)option->value = true;
            continue;
        }
        if (!inside) {
            if (i + 1 == argc) {
                usage_error(program, "%s needs a value: %s", word, option->argument);
            }
            inside = argv[++i];
        }
        set_option(program, option, option->name ? option->name : option->letter, inside);
    }
    return count;
}

/* ---- messages ---- */

int report(const struct program *program, mantle_status status, mantle_error *error)
{
    const char *context = mantle_error_context(error), *message = mantle_error_message(error);
    fflush(stdout);
    fprintf(stderr, "%s: %s%s%s\n", program->name, context, *context ? ": " : "",
            *message ? message : mantle_status_name(status));
    mantle_error_free(error);
    return EXIT_FAILURE;
}

int fail(const struct program *program, const char *format, ...)
{
    va_list values;
    fflush(stdout);
    va_start(values, format);
    print_problem(program, format, values);
    va_end(values);
    fputc('\n', stderr);
    return EXIT_FAILURE;
}

int finish(const struct program *program, int code)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return fail(program, "cannot write the output: %s", strerror(errno));
    }
    return code;
}

/* ---- text ---- */

bool buffer_add(struct buffer *buffer, const void *data, size_t size)
{
    if (size >= (size_t)-1 / 2 - buffer->size) {
        return false;
    }
    size_t needed = buffer->size + size + 1;
    if (needed > buffer->capacity) {
        size_t capacity = needed > 2 * buffer->capacity ? needed : 2 * buffer->capacity;
        char *grown = realloc(buffer->data, capacity);
        if (!grown) {
            return false;
        }
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    if (size > 0) {
        memcpy(buffer->data + buffer->size, data, size);
    }
    buffer->size += size;
    buffer->data[buffer->size] = '\0';
    return true;
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

mantle_token *parse_ids(const char *text, size_t *count, const char **problem)
{
    static const char separators[] = " \t\r\n,";
    /* Each number has at least one digit and one separator. */
    mantle_token *ids = malloc((strlen(text) / 2 + 1) * sizeof *ids);
    *count = 0;
    *problem = NULL;
    if (!ids) {
        return NULL;
    }
    for (text += strspn(text, separators); *text; text += strspn(text, separators)) {
        const char *end;
        long id;
        if (!whole_number(text, &end, &id) || id < INT32_MIN || id > INT32_MAX ||
            (*end && !strchr(separators, *end))) {
            *problem = text;
            free(ids);
            return NULL;
        }
        ids[(*count)++] = (mantle_token)id;
        text = end;
    }
    return ids;
}

/* ---- JSON ---- */

/* The length of the UTF-8 character at `text`, or 0 when there is none (RFC 3629). */
static size_t utf8_length(const unsigned char *text, size_t size)
{
    if (text[0] < 0x80) {
        return 1;
    }
    size_t length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (text[0] < 0xc2 || text[0] > 0xf4 || size < length) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xf0 && text[1] < 0x90);
    bool surrogate = text[0] == 0xed && text[1] > 0x9f;
    bool too_large = text[0] == 0xf4 && text[1] > 0x8f;
    return overlong || surrogate || too_large ? 0 : length;
}

void json_string(FILE *out, const char *text, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)text;
    fputc('"', out);
    for (size_t i = 0; i < size;) {
        size_t length = utf8_length(bytes + i, size - i);
        if (length == 0) {
            fputs("\\ufffd", out);
            i++;
            continue;
        }
        if (bytes[i] == '"' || bytes[i] == '\\') {
            fprintf(out, "\\%c", bytes[i]);
        } else if (bytes[i] == '\n') {
            fputs("\\n", out);
        } else if (bytes[i] == '\t') {
            fputs("\\t", out);
        } else if (bytes[i] < 0x20 || bytes[i] == 0x7f) {
            fprintf(out, "\\u%04x", bytes[i]);
        } else {
            fwrite(bytes + i, 1, length, out);
        }
        i += length;
    }
    fputc('"', out);
}

void json_number(FILE *out, double number)
{
    if (isfinite(number)) {
        fprintf(out, "%.9g", number);
    } else {
        fputs("null", out);
    }
}

void json_ids(FILE *out, const mantle_token *ids, size_t count)
{
    fputc('[', out);
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s%" PRId32, i ? ", " : "", ids[i]);
    }
    fputc(']', out);
}

/* ---- tables ---- */

void table_cell(struct table *table, const char *format, ...)
{
    if (table->count == table->capacity) {
        size_t capacity = table->capacity ? 2 * table->capacity : 64;
        char **grown = realloc(table->cells, capacity * sizeof *grown);
        if (!grown) {
            fputs("out of memory\n", stderr);
            exit(EXIT_FAILURE);
        }
        table->cells = grown;
        table->capacity = capacity;
    }
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    /* A control character would break the row. */
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        }
    }
    char *copy = malloc(strlen(text) + 1);
    if (!copy) {
        fputs("out of memory\n", stderr);
        exit(EXIT_FAILURE);
    }
    table->cells[table->count++] = strcpy(copy, text);
}

/* Columns on the screen: one per UTF-8 character. */
static int width(const char *text)
{
    int columns = 0;
    for (; *text; text++) {
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return columns;
}

void table_print(struct table *table, FILE *out, int indent)
{
    size_t columns = strlen(table->alignment);
    int widest[16] = {0};
    for (size_t i = 0; i < table->count; i++) {
        int cell = width(table->cells[i]);
        widest[i % columns] = cell > widest[i % columns] ? cell : widest[i % columns];
    }
    for (size_t i = 0; i < table->count; i++) {
        size_t column = i % columns;
        bool last = column + 1 == columns;
        int padding = widest[column] - width(table->cells[i]);
        fprintf(out, "%*s", column == 0 ? indent : 2, "");
        if (table->alignment[column] == '>') {
            fprintf(out, "%*s%s", padding, "", table->cells[i]);
        } else {
            fprintf(out, "%s%*s", table->cells[i], last ? 0 : padding, "");
        }
        if (last) {
            fputc('\n', out);
        }
    }
    for (size_t i = 0; i < table->count; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    table->cells = NULL;
    table->count = table->capacity = 0;
}

char *format_bytes(char text[32], double bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    size_t unit = 0;
    while (bytes >= 999.5 && unit < 6) {
        bytes /= 1000;
        unit++;
    }
    snprintf(text, 32, "%.*f %s", unit > 0 && bytes < 99.95 ? 1 : 0, bytes, units[unit]);
    return text;
}

/* ---- models ---- */

mantle_status model_work(const mantle_model *model, struct model_work *work, mantle_error **error)
{
    static const char embedding[] = "token_embd.weight", head[] = "output.weight", layer[] = "blk.";
    size_t count = 0;
    double embedding_bytes = 0;
    bool has_head = false;
    *work = (struct model_work){0};
    mantle_status status = mantle_model_tensor_count(model, &count, error);
    for (size_t i = 0; i < count && status == MANTLE_OK; i++) {
        mantle_tensor_info tensor = {.struct_size = sizeof tensor};
        status = mantle_model_tensor_info(model, i, &tensor, error);
        if (status != MANTLE_OK) {
            break;
        }
        work->bytes += (double)tensor.bytes;
        if (tensor.name_length == strlen(embedding) && memcmp(tensor.name, embedding, tensor.name_length) == 0) {
            embedding_bytes = (double)tensor.bytes;
        }
        has_head = has_head || (tensor.name_length == strlen(head) && memcmp(tensor.name, head, strlen(head)) == 0);
        if (tensor.dimensions > 1 && tensor.name_length > strlen(layer) &&
            memcmp(tensor.name, layer, strlen(layer)) == 0) {
            double values = 1;
            for (uint32_t d = 0; d < tensor.dimensions; d++) {
                values *= (double)tensor.shape[d];
            }
            work->multiply_adds += values;
        }
    }
    if (has_head) {
        work->bytes -= embedding_bytes;
    }
    return status;
}

mantle_status print_profile(FILE *out, const mantle_profile *profile, bool by_layer, mantle_error **error)
{
    size_t size = 0;
    char *text = NULL;
    mantle_status status = mantle_profile_table(profile, by_layer, NULL, 0, &size, error);
    if (status == MANTLE_ERROR_BUFFER_TOO_SMALL && (text = malloc(size)) != NULL) {
        if (error) {
            mantle_error_free(*error);
        }
        status = mantle_profile_table(profile, by_layer, text, size, &size, error);
        fwrite(text, 1, status == MANTLE_OK ? size : 0, out);
    }
    free(text);
    return status;
}

/* ---- time and interruption ---- */

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static const mantle_cancel *fired_by_interrupt;

static void on_interrupt(int number)
{
    mantle_cancel_fire(fired_by_interrupt);
    signal(number, SIG_DFL);
}

void cancel_on_interrupt(const mantle_cancel *cancel)
{
    struct sigaction action = {0};
    action.sa_handler = on_interrupt;
    sigemptyset(&action.sa_mask);
    fired_by_interrupt = cancel;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}
