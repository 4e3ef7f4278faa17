/*
 * Records of an input, block after block: lines of text, texts between NUL bytes, or lines of token ids.
 *
 * A block ends when it has enough records or bytes, or when the input pauses: then what came so far can be answered
 * at once, so that a program may write a line and wait for its answer.
 */
#ifndef RECORDS_H
#define RECORDS_H

#include "common.h"

struct records {
    /* Settings. */
    bool are_ids;          /* token ids, separated by blanks or commas */
    bool end_with_nul;     /* instead of a newline */
    /* The block: record i is offsets[i] up to offsets[i + 1], in bytes of text or in ids. */
    struct buffer content; /* bytes, or mantle_token */
    size_t *offsets;
    size_t count;
    /* Of the whole input. */
    size_t first;          /* records before the block */
    double size, taken;    /* bytes; size is 0 when it is not known */
    /* The rest is the reader's own. */
    const char *name;
    int file;
    bool at_end;
    char *bytes;
    size_t begin, end, capacity;
};

/* Opens `path`; NULL or "-" is standard input. EXIT_SUCCESS, or EXIT_FAILURE with a message. */
int records_open(const struct program *program, struct records *records, const char *path);

/* Reads the next block; it is empty at the end of the input. EXIT_SUCCESS, or EXIT_FAILURE with a message: then the
 * block holds the records before the one that is wrong. */
int records_read(const struct program *program, struct records *records);

void records_close(struct records *records);

#endif
