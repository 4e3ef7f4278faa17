/* The forms in which mantle-embed writes embeddings, row after row, whatever their number. */
#ifndef EMBEDDING_OUTPUT_H
#define EMBEDDING_OUTPUT_H

#include "common.h"

enum output_form { OUTPUT_JSON, OUTPUT_NPY, OUTPUT_BINARY, OUTPUT_SIMILARITY };

struct output {
    enum output_form form;
    size_t columns;
    bool is_nested;       /* a record has several rows: one JSON array holds their arrays */
    size_t rows;          /* written so far */
    /* The rest is the writer's own. */
    FILE *spool;          /* NumPy rows that wait for their number, where standard output cannot be gone back in */
    long long start;      /* where the NumPy header stands in standard output */
    float *kept;          /* rows of the similarity table */
    char (*labels)[44];   /* beginnings of their texts */
    size_t capacity;
};

/* Before the first row. EXIT_SUCCESS, or EXIT_FAILURE with a message, as the others. */
int output_begin(const struct program *program, struct output *output);

/* Writes the `count` rows of one record; `text` is the record, or NULL. */
int output_record(const struct program *program, struct output *output, const float *rows, size_t count,
                  const char *text, size_t size);

/* Behind the last row, also when a record was refused (`is_complete` is false): what stands there is whole. */
int output_end(const struct program *program, struct output *output, bool is_complete);

void output_free(struct output *output);

#endif
