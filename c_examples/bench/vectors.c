/* mantle-bench ops: functions of vectors and rows, against reading as much from the cache as they read and write, or the arithmetic peak. */
#include "bench.h"

/* Rows of one head size, with whatever a function takes beside them. */
struct vectors {
    mantle_runtime *runtime;
    size_t rows, columns;
    float *x, *y, *weight, *cosine, *sine;
};
enum { HEAD = 64 };

static size_t values_of(const struct vectors *vectors)
{
    return vectors->rows * vectors->columns;
}

#define RUN(name, call)                                    \
    static void name(void *state, size_t count)            \
    {                                                      \
        struct vectors *v = state;                         \
        for (size_t i = 0; i < count; i++) {               \
            CHECK(call);                                   \
        }                                                  \
    }
RUN(axpy, mantle_vector_axpy(v->runtime, 1e-6f, v->x, values_of(v), v->y, &error))
RUN(softmax, mantle_vector_softmax(v->runtime, v->x, v->rows, v->columns, v->columns, v->y, v->columns, &error))
RUN(rms_norm, mantle_vector_rms_norm(v->runtime, v->x, v->rows, v->columns, v->columns, v->weight, 1e-6f, v->y, v->columns,
                                     &error))
RUN(layer_norm, mantle_vector_layer_norm(v->runtime, v->x, v->rows, v->columns, v->columns, v->weight, v->weight, 1e-6f, v->y,
                                         v->columns, &error))
RUN(gelu_tanh, mantle_vector_apply(v->runtime, MANTLE_FUNCTION_GELU_TANH, v->x, values_of(v), v->y, &error))
RUN(gelu_erf, mantle_vector_apply(v->runtime, MANTLE_FUNCTION_GELU_ERF, v->x, values_of(v), v->y, &error))
RUN(silu, mantle_vector_apply(v->runtime, MANTLE_FUNCTION_SILU, v->x, values_of(v), v->y, &error))
RUN(geglu, mantle_vector_gate(v->runtime, MANTLE_FUNCTION_GELU_TANH, v->x, v->x, values_of(v), v->y, &error))
RUN(swiglu, mantle_vector_gate(v->runtime, MANTLE_FUNCTION_SILU, v->x, v->x, values_of(v), v->y, &error))
RUN(rope, mantle_vector_rope(v->runtime, MANTLE_ROPE_HALVES, v->cosine, v->sine, v->rows, HEAD, NULL, v->y, v->rows,
                             v->columns / HEAD, HEAD, v->columns, &error))

/* What a function takes for a value, and which of the two holds it back: reading and writing, or its polynomial. */
static const struct {
    const char *name;
    void (*run)(void *state, size_t count);
    double operations, bytes;
    enum kind kind;
} functions[] = {
    {"axpy", axpy, 2, 12, OF_CACHE},          {"rms_norm", rms_norm, 4, 8, OF_CACHE},
    {"layer_norm", layer_norm, 7, 8, OF_CACHE}, {"rope", rope, 3, 8, OF_CACHE},
    {"softmax", softmax, 20, 8, OF_FMA},      {"gelu_tanh", gelu_tanh, 28, 8, OF_FMA},
    {"gelu_erf", gelu_erf, 28, 8, OF_FMA},    {"silu", silu, 20, 8, OF_FMA},
    {"geglu", geglu, 29, 8, OF_FMA},          {"swiglu", swiglu, 21, 8, OF_FMA},
};

void add_vectors(struct results *results, mantle_runtime *runtime)
{
    static const struct shape shapes[] = {{1, 4096}, {256, 768}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct vectors vectors = {.runtime = runtime, .rows = shapes[s].rows, .columns = shapes[s].columns};
        vectors.x = random_values(values_of(&vectors));
        vectors.y = random_values(values_of(&vectors));
        vectors.weight = random_values(vectors.columns);
        vectors.cosine = random_values(vectors.rows * HEAD / 2);
        vectors.sine = random_values(vectors.rows * HEAD / 2);
        CHECK(mantle_rope_table(vectors.rows, HEAD, 10000, 1, vectors.cosine, vectors.sine, &error));
        for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
            double values = (double)values_of(&vectors);
            results_add(results, (struct figure){
                .bench = "ops",
                .op = functions[i].name,
                .where = "cache",
                .dtype = -1,
                .rows = vectors.rows,
                .columns = vectors.columns,
                .tokens = vectors.rows,
                .seconds = best_time(functions[i].run, &vectors),
                .operations = functions[i].operations * values,
                .bytes = functions[i].bytes * values,
                .kind = functions[i].kind,
            });
        }
        free(vectors.x);
        free(vectors.y);
        free(vectors.weight);
        free(vectors.cosine);
        free(vectors.sine);
    }
}
