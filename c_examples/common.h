/*
 * What the programs share: options, messages, JSON, tables, time.
 *
 * Exit codes of every program: 0 success, 1 error (a sentence on standard error), 2 wrong usage.
 */
#ifndef COMMON_H
#define COMMON_H

#include <mantle.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { EXIT_USAGE = 2 };

/* ---- options ---- */

enum option_kind {
    OPTION_FLAG,   /* value: bool *, set to true */
    OPTION_TEXT,   /* value: const char **, the argument */
    OPTION_NUMBER, /* value: long *, a whole number from minimum to maximum */
    OPTION_LIST    /* value: struct list *, positive whole numbers separated by commas */
};

/* A list of positive numbers, such as 12,512. */
struct list {
    long values[32];
    size_t count;
};

struct option {
    const char *letter; /* "-n", or NULL */
    const char *name;   /* "--count", or NULL */
    enum option_kind kind;
    void *value;
    const char *argument; /* what the help calls the argument, or NULL for a flag */
    const char *help;     /* one line; further lines are indented like the first */
    long minimum, maximum;
};

struct program {
    const char *name;
    const char *usage;    /* after the name, on the first line of the help */
    const char *about;    /* what it does: a few lines */
    const char *examples; /* shown at the end of the help: whole lines */
    const struct option *options;
    size_t n_options;
    size_t max_arguments; /* how many arguments that are not options it takes */
};

/*
 * Reads the command line; --help and --version are added to every program. Arguments that are not options are
 * written to `arguments` (max_arguments of them). Returns how many there were, or leaves the program: with
 * 0 after --help or --version, with EXIT_USAGE and a message after a mistake.
 */
size_t parse_options(const struct program *program, int argc, char **argv, const char **arguments);

/* Ends the program with a message about wrong usage (format as in printf). */
void usage_error(const struct program *program, const char *format, ...);

/* ---- messages ---- */

/* Prints "program: context: message" to standard error, frees the error, returns EXIT_FAILURE. */
int report(const struct program *program, mantle_status status, mantle_error *error);

/* Prints "program: message" to standard error and returns EXIT_FAILURE. */
int fail(const struct program *program, const char *format, ...);

/* Flushes standard output; `code`, or EXIT_FAILURE with a message when what was written did not arrive. */
int finish(const struct program *program, int code);

/* ---- text ---- */

/* Bytes that grow. Starts as {0}; buffer_free gives them back. */
struct buffer {
    char *data;
    size_t size, capacity;
};

/* Adds bytes; false when memory runs out. A NUL that `size` does not count always follows them. */
bool buffer_add(struct buffer *buffer, const void *data, size_t size);
void buffer_free(struct buffer *buffer);

/*
 * Reads whole numbers separated by blanks or commas, each within int32_t. Returns a new array (free it) and
 * its length, or NULL with `*problem` pointing at what is no number (NULL: no memory).
 */
mantle_token *parse_ids(const char *text, size_t *count, const char **problem);

/* ---- JSON ---- */

/* A string in quotes; bytes that are no UTF-8 become U+FFFD, so that the output is JSON whatever they are. */
void json_string(FILE *out, const char *text, size_t size);
/* A number, or null when it is not finite. */
void json_number(FILE *out, double number);
void json_ids(FILE *out, const mantle_token *ids, size_t count);

/* ---- tables ---- */

/* Rows of cells, printed with aligned columns. */
struct table {
    const char *alignment; /* one character per column (at most 16): '<' left, '>' right */
    char **cells;
    size_t count, capacity;
};

/* Adds a cell (format as in printf); cells fill row after row. Running out of memory ends the program. */
void table_cell(struct table *table, const char *format, ...);
/* Prints the rows, each line after `indent` blanks, and frees them. */
void table_print(struct table *table, FILE *out, int indent);

/* "1.5 GB", "98.4 MB", "12 B": decimal units. The text lives in `text`, which is also returned. */
char *format_bytes(char text[32], double bytes);

/* ---- models ---- */

/* What one token costs: bytes of weights that are read, and multiplications with weights. */
struct model_work {
    double bytes, multiply_adds;
};

/* Sums up the model's tensors as the file stores them. Of the token embeddings, one row is read: they count only
 * where they are the output head too. A prompt needs the head for its last token only: it is no multiply_add. */
mantle_status model_work(const mantle_model *model, struct model_work *work, mantle_error **error);

/* Prints the table of a profile, with `by_layer` also each layer's share. */
mantle_status print_profile(FILE *out, const mantle_profile *profile, bool by_layer, mantle_error **error);

/* ---- time and interruption ---- */

/* Seconds since some moment. */
double seconds(void);

/*
 * From now on the first interrupt (Ctrl-C) fires `cancel`, so that the library's call ends in order; the second
 * one ends the program.
 */
void cancel_on_interrupt(const mantle_cancel *cancel);

#endif
