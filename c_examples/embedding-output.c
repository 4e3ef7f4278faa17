#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include "embedding-output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NPY_HEADER = 128, SHOWN = 12, LABEL = 40 };

/* ---- JSON ---- */

/*
 * Writes a number with 9 digits, which give every 32-bit float back, as printf("%.9g") does but ten times as fast.
 * The ninth digit may differ from printf's by one: 64-bit arithmetic is exact to 15 digits.
 */
static size_t write_float(char *to, float value)
{
    static double powers[128]; /* 10^(i - 64) */
    if (powers[64] != 1.0) {
        for (int i = 0; i < 128; i++) {
            powers[i] = pow(10.0, i - 64);
        }
    }
    char *start = to;
    if (!isfinite(value)) {
        memcpy(to, "null", 4);
        return 4;
    }
    if (signbit(value)) {
        *to++ = '-';
    }
    double size = fabs((double)value);
    if (size == 0) {
        *to++ = '0';
        return (size_t)(to - start);
    }
    int binary, exponent;
    frexp(size, &binary);
    exponent = (int)floor((binary - 1) * 0.30102999566398120);
    exponent += size >= powers[exponent + 1 + 64];
    uint64_t digits = (uint64_t)(size * powers[8 - exponent + 64] + 0.5);
    if (digits >= 1000000000) {
        digits /= 10;
        exponent++;
    }
    char text[9];
    int count = 9;
    for (int i = 8; i >= 0; i--, digits /= 10) {
        text[i] = (char)('0' + digits % 10);
    }
    while (count > 1 && text[count - 1] == '0') {
        count--;
    }
    if (exponent < -5 || exponent > 8) {
        *to++ = text[0];
        if (count > 1) {
            *to++ = '.';
            memcpy(to, text + 1, (size_t)count - 1);
            to += count - 1;
        }
        return (size_t)(to - start) + (size_t)sprintf(to, "e%d", exponent);
    }
    if (exponent < 0) {
        memcpy(to, "0.0000", (size_t)(1 - exponent));
        to += 1 - exponent;
        memcpy(to, text, (size_t)count);
        return (size_t)(to - start) + (size_t)count;
    }
    for (int i = 0; i < count || i <= exponent; i++) {
        if (i == exponent + 1) {
            *to++ = '.';
        }
        *to++ = i < count ? text[i] : '0';
    }
    return (size_t)(to - start);
}

static void write_array(const float *row, size_t columns)
{
    char number[32];
    for (size_t i = 0; i < columns; i++) {
        number[0] = i ? ',' : '[';
        fwrite(number, 1, 1 + write_float(number + 1, row[i]), stdout);
    }
    putchar(']');
}

/* ---- NumPy ---- */

/* https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
static void write_npy_header(const struct output *output)
{
    char header[NPY_HEADER] = "\x93NUMPY\x01\x00\x76\x00";
    int size = snprintf(header + 10, sizeof header - 10,
                        "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", output->rows,
                        output->columns);
    memset(header + 10 + size, ' ', sizeof header - 10 - (size_t)size);
    header[sizeof header - 1] = '\n';
    fwrite(header, 1, sizeof header, stdout);
}

/* The number of rows stands before them but is known after them. In a file the header is written twice; elsewhere the
 * rows wait in a file without a name. */
static int begin_npy(const struct program *program, struct output *output)
{
    struct stat status;
    int flags = fcntl(STDOUT_FILENO, F_GETFL);
    bool is_file = fstat(STDOUT_FILENO, &status) == 0 && S_ISREG(status.st_mode);
    if (is_file && flags >= 0 && !(flags & O_APPEND)) {
        output->start = (long long)lseek(STDOUT_FILENO, 0, SEEK_CUR);
    }
    if (output->start >= 0) {
        write_npy_header(output);
        return EXIT_SUCCESS;
    }
    output->spool = tmpfile();
    return output->spool ? EXIT_SUCCESS : fail(program, "cannot make a temporary file: %s", strerror(errno));
}

static int end_npy(const struct program *program, struct output *output)
{
    if (!output->spool) {
        if (fseeko(stdout, (off_t)output->start, SEEK_SET) == 0) {
            write_npy_header(output);
            if (fseeko(stdout, 0, SEEK_END) == 0) {
                return EXIT_SUCCESS;
            }
        }
        return fail(program, "cannot write the number of rows: %s", strerror(errno));
    }
    write_npy_header(output);
    char bytes[1 << 14];
    size_t count;
    rewind(output->spool);
    while ((count = fread(bytes, 1, sizeof bytes, output->spool)) > 0) {
        fwrite(bytes, 1, count, stdout);
    }
    return ferror(output->spool) ? fail(program, "the temporary file: %s", strerror(errno)) : EXIT_SUCCESS;
}

/* ---- the table of cosines ---- */

static bool keep(struct output *output, const float *row, const char *text, size_t size)
{
    if (output->rows == output->capacity) {
        size_t capacity = output->capacity > 0 ? 2 * output->capacity : 64;
        float *kept = realloc(output->kept, capacity * output->columns * sizeof *kept);
        if (!kept) {
            return false;
        }
        output->kept = kept;
        char(*labels)[44] = realloc(output->labels, capacity * sizeof *labels);
        if (!labels) {
            return false;
        }
        output->labels = labels;
        output->capacity = capacity;
    }
    memcpy(output->kept + output->rows * output->columns, row, output->columns * sizeof *row);
    size_t length = text ? size : 0;
    if (length > LABEL) {
        /* Not in the middle of a character. */
        for (length = LABEL; length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80;) {
            length--;
        }
    }
    char *label = output->labels[output->rows];
    memcpy(label, text ? text : "", length);
    memcpy(label + length, size > LABEL && text ? "..." : "", size > LABEL && text ? 4 : 1);
    return true;
}

static double cosine(const float *a, const float *b, size_t count)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < count; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

static void write_similarity(const struct output *output)
{
    char alignment[SHOWN + 3] = "><";
    size_t shown = output->rows < SHOWN ? output->rows : SHOWN;
    struct table table = {.alignment = alignment};
    for (size_t i = 0; i < shown; i++) {
        memcpy(alignment + 2 + i, ">", 2);
    }
    table_cell(&table, "%s", "");
    table_cell(&table, "%s", "");
    for (size_t column = 0; column < shown; column++) {
        table_cell(&table, "%zu", column + 1);
    }
    for (size_t row = 0; row < output->rows; row++) {
        table_cell(&table, "%zu", row + 1);
        table_cell(&table, "%s", output->labels[row]);
        for (size_t column = 0; column < shown; column++) {
            const float *a = output->kept + row * output->columns, *b = output->kept + column * output->columns;
            table_cell(&table, "%.3f", cosine(a, b, output->columns));
        }
    }
    table_print(&table, stdout, 0);
    if (shown < output->rows) {
        printf("(columns for the first %zu of %zu records)\n", shown, output->rows);
    }
}

/* ---- all forms ---- */

int output_begin(const struct program *program, struct output *output)
{
    output->start = -1;
    return output->form == OUTPUT_NPY ? begin_npy(program, output) : EXIT_SUCCESS;
}

int output_record(const struct program *program, struct output *output, const float *rows, size_t count,
                  const char *text, size_t size)
{
    switch (output->form) {
    case OUTPUT_JSON:
        for (size_t row = 0; row < count; row++) {
            if (output->is_nested) {
                putchar(row ? ',' : '[');
            }
            write_array(rows + row * output->columns, output->columns);
        }
        fputs(output->is_nested ? "]\n" : "\n", stdout);
        break;
    case OUTPUT_SIMILARITY:
        if (!keep(output, rows, text, size)) {
            return fail(program, "no memory for %zu embeddings", output->rows + 1);
        }
        break;
    case OUTPUT_NPY:
    case OUTPUT_BINARY: {
        FILE *to = output->spool ? output->spool : stdout;
        if (fwrite(rows, sizeof *rows * output->columns, count, to) != count && output->spool) {
            return fail(program, "the temporary file: %s", strerror(errno));
        }
        break;
    }
    }
    output->rows += count;
    return EXIT_SUCCESS;
}

int output_end(const struct program *program, struct output *output, bool is_complete)
{
    if (output->form == OUTPUT_NPY) {
        return end_npy(program, output);
    }
    if (output->form == OUTPUT_SIMILARITY && is_complete && output->rows > 0) {
        write_similarity(output);
    }
    return EXIT_SUCCESS;
}

void output_free(struct output *output)
{
    if (output->spool) {
        fclose(output->spool);
    }
    free(output->kept);
    free(output->labels);
}
