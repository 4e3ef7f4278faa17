#define _POSIX_C_SOURCE 200809L
#include "records.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A block holds enough records to fill passes of the model, and few enough to see answers soon. */
enum { MOST_RECORDS = 256, MOST_BYTES = 1 << 20, READ_BYTES = 1 << 16 };
/* No model reads texts that long; memory stays bounded even when the separator never comes. */
enum { LONGEST_RECORD = 1 << 28 };

int records_open(const struct program *program, struct records *records, const char *path)
{
    struct stat status;
    bool is_standard = !path || strcmp(path, "-") == 0;
    records->name = is_standard ? "standard input" : path;
    records->file = is_standard ? STDIN_FILENO : open(path, O_RDONLY);
    records->bytes = malloc(READ_BYTES);
    if (records->file < 0) {
        return fail(program, "%s: %s", path, strerror(errno));
    }
    if (!records->bytes) {
        return fail(program, "no memory to read %s", records->name);
    }
    if (fstat(records->file, &status) == 0 && S_ISREG(status.st_mode)) {
        records->size = (double)status.st_size;
    }
    return EXIT_SUCCESS;
}

void records_close(struct records *records)
{
    if (records->file > STDIN_FILENO) {
        close(records->file);
    }
    buffer_free(&records->content);
    free(records->offsets);
    free(records->bytes);
}

/* Whether bytes (or the end) can be read without waiting. */
static bool is_ready(const struct records *records)
{
    struct pollfd waited = {.fd = records->file, .events = POLLIN};
    return poll(&waited, 1, 0) != 0;
}

/* Reads more bytes. */
static int fill(const struct program *program, struct records *records)
{
    ssize_t count = read(records->file, records->bytes, READ_BYTES);
    if (count < 0) {
        return fail(program, "%s: %s", records->name, strerror(errno));
    }
    records->begin = 0;
    records->end = (size_t)count;
    records->at_end = count == 0;
    return EXIT_SUCCESS;
}

/* Room for one more record and the offset behind it. */
static bool grow_offsets(struct records *records)
{
    if (records->count + 2 > records->capacity) {
        size_t capacity = records->capacity > 0 ? 2 * records->capacity : MOST_RECORDS + 1;
        size_t *grown = realloc(records->offsets, capacity * sizeof *grown);
        if (!grown) {
            return false;
        }
        records->offsets = grown;
        records->capacity = capacity;
    }
    return true;
}

/* Takes bytes up to the separator or the end of those that were read; whether the separator came. */
static bool take(struct records *records, struct buffer *to, bool *added)
{
    const char *start = records->bytes + records->begin;
    size_t left = records->end - records->begin;
    const char *separator = memchr(start, records->end_with_nul ? '\0' : '\n', left);
    size_t size = separator ? (size_t)(separator - start) : left;
    *added = to->size <= LONGEST_RECORD && buffer_add(to, start, size);
    records->begin += size + (separator ? 1 : 0);
    records->taken += (double)(size + (separator ? 1 : 0));
    return separator != NULL;
}

/* Turns the ids written in `record` into numbers behind those of the block. */
static int add_ids(const struct program *program, struct records *records, const struct buffer *record, size_t number)
{
    const char *text = record->data ? record->data : "", *problem;
    size_t count;
    if (strlen(text) != record->size) {
        return fail(program, "record %zu holds a NUL byte", number);
    }
    mantle_token *ids = parse_ids(text, &count, &problem);
    if (!ids) {
        return problem ? fail(program, "record %zu: '%.20s' is no token id", number, problem)
                       : fail(program, "no memory for the ids of record %zu", number);
    }
    bool added = buffer_add(&records->content, ids, count * sizeof *ids);
    free(ids);
    return added ? EXIT_SUCCESS : fail(program, "no memory for record %zu", number);
}

/* Reads one record into the block; `*found` is false at the end of the input. */
static int read_record(const struct program *program, struct records *records, struct buffer *line, bool *found)
{
    size_t number = records->first + records->count + 1;
    struct buffer *to = records->are_ids ? line : &records->content;
    size_t before = records->are_ids ? 0 : to->size;
    bool is_whole = false, added = true;
    line->size = 0;
    *found = false;
    while (!is_whole) {
        if (records->begin == records->end && !records->at_end && fill(program, records) != EXIT_SUCCESS) {
            return EXIT_FAILURE;
        }
        if (records->at_end) {
            if (to->size == before) {
                return EXIT_SUCCESS; /* The last record ended as it should. */
            }
            break;
        }
        is_whole = take(records, to, &added);
        if (!added) {
            return fail(program, "record %zu is too long", number);
        }
    }
    if (records->are_ids && add_ids(program, records, line, number) != EXIT_SUCCESS) {
        return EXIT_FAILURE;
    }
    *found = true;
    return EXIT_SUCCESS;
}

int records_read(const struct program *program, struct records *records)
{
    struct buffer line = {0};
    size_t item = records->are_ids ? sizeof(mantle_token) : 1;
    int result = EXIT_SUCCESS;
    bool found = true;
    records->first += records->count;
    records->count = 0;
    records->content.size = 0;
    while (found && records->count < MOST_RECORDS && records->content.size < MOST_BYTES) {
        bool pauses = records->begin == records->end && !records->at_end && !is_ready(records);
        if (records->count > 0 && pauses) {
            break;
        }
        if (!grow_offsets(records)) {
            result = fail(program, "no memory for %zu records", records->count);
            break;
        }
        result = read_record(program, records, &line, &found);
        if (result != EXIT_SUCCESS || !found) {
            break;
        }
        records->offsets[0] = 0;
        records->offsets[++records->count] = records->content.size / item;
    }
    buffer_free(&line);
    return result;
}
