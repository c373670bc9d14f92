/* A layer of spiking neurons over all time steps, forward and backward: the equations of dynamics.py, the gradients
   of gradient_rule.py.  No state outlives a call; only the arrays passed in are written.

   Memory: currents and everything of their shape lie as [T][B][N]; target [T][N]; adaptation [N].  With pooling, N
   is [rows][columns][channels] and the output [T][B][rows/2][columns/2][channels].
   Work is cut into units (tiles of neurons, or pooled rows).  A unit sees the whole batch, so sums over the batch have
   one order whatever the number of threads.

   The forward equals the eager specification bit for bit: build with -ffp-contract=off, or a multiply and an add become
   one rounding.  The work itself is in lanes.h, here once for each set of instructions; the widest is chosen when it is
   called, so that one build runs on every processor of its kind.  Needs the vector types of GCC and Clang. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LANES 64
#define TILE 1024
#define GROUP 4        /* registers worked on together */
#define MOST 36        /* registers that 64 lanes in pieces take, with shared lanes */
#define ROOM (4 * MOST) /* numbers in them, whatever their width */

/* Gradients need not be those of the specification to the bit: there a multiply and an add may be one operation. */
#if defined(__clang__)
#define FUSED
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif

#define INLINE static inline __attribute__((always_inline))

/* Time steps lie far apart in memory, more streams than a processor foresees by itself. */
#define PREFETCH(address, written) __builtin_prefetch(address, written, 3)

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#include "declarations.h"

/* Which neurons are worked on at a time: `n` of them from `at` on, in pieces without gaps, `stride` apart. */
typedef struct {
    int64_t at, n, piece, stride;
} Lanes;

/* Where the lanes of one sample are read and written: in the arrays themselves where they lie as registers of float32,
   else in scratch memory, filled before and copied out after.  Of every register: where it lies in currents (`from`), in
   output (`to`), in target and rate (`place`), and in rows of lanes one after the other (`plain`).  Registers may share
   lanes, which get the same values twice. */
typedef struct {
    int64_t steps, width, dense, ahead; /* T; lengths of rows of registers, of lanes; where the next lanes lie */
    int writes, registers; /* whether output is written in place */
    int32_t from[MOST], to[MOST], place[MOST], plain[MOST];
    const float *currents, *target, *rate, *gradient;
    int64_t currents_step, target_step, gradient_step, emitted_step, output_step;
    float *output, *emitted;
    float *membrane, *threshold, *slope; /* [T][width] */
    float *to_target, *to_rate, *membranes, *to_currents;
} Block;

/* Scratch memory of a unit: rows of `ROOM` lanes, of which [T] each for the arrays over time. */
typedef struct {
    float *memory, *membrane, *threshold, *emitted, *slope, *currents, *target, *output, *sum, *rows;
} Scratch;

static int allocate(const Neuron *of, Scratch *scratch) {
    const size_t size = (size_t)of->steps * ROOM;
    float *memory = calloc(8 * size + 8 * ROOM, sizeof(float));
    if (!memory) return 0;
    *scratch = (Scratch){memory,
                         memory,
                         memory + size,
                         memory + 2 * size,
                         memory + 3 * size,
                         memory + 4 * size,
                         memory + 5 * size,
                         memory + 6 * size,
                         memory + 7 * size,
                         memory + 8 * size};
    return 1;
}

INLINE int kind_of(const Block *b) { return !b->target ? FIXED : b->rate ? ADAPTIVE : STATIC; }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE Lanes tiled(const Neuron *of, int64_t unit, int64_t offset) {
    const int64_t at = unit * TILE + offset;
    const int64_t n = smaller(LANES, smaller((unit + 1) * TILE, of->neurons) - at);
    return (Lanes){at, n, n, 0};
}

/* Of a pooled row: how many windows are worked on at a time, as their channels are few. */
INLINE int64_t abreast(const Neuron *of) { return of->channels < LANES ? LANES / of->channels : 1; }

/* One of the four neurons of each window, from window x on: row 2y or 2y+1, column 2x or 2x+1. */
INLINE Lanes windowed(const Neuron *of, int64_t y, int64_t x, int64_t channel, int place) {
    const int64_t windows = smaller(abreast(of), of->columns / 2 - x), piece = smaller(LANES, of->channels - channel);
    const int64_t at = ((2 * y + place / 2) * of->columns + 2 * x + place % 2) * of->channels + channel;
    return (Lanes){at, windows * piece, piece, 2 * of->channels};
}

INLINE float widened(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint16_t narrowed(float value) { /* round to nearest, ties to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}

/* HOSNN_WIDEST, bytes of a register, leaves out wider ones: for tests. */
#ifndef HOSNN_WIDEST
#define HOSNN_WIDEST 64
#endif

/* Functions between BEGIN and END may use the instructions named; for GCC also which registers to prefer. */
#define PRAGMA(words) _Pragma(#words)
#if defined(__clang__)
#define BEGIN(instructions, preference) \
    PRAGMA(clang attribute push(__attribute__((target(instructions))), apply_to = function))
#define END PRAGMA(clang attribute pop)
#else
#define BEGIN(instructions, preference) PRAGMA(GCC push_options) PRAGMA(GCC target(instructions, preference))
#define END PRAGMA(GCC pop_options)
#endif

#if defined(__x86_64__) && HOSNN_WIDEST >= 64
#define HAS_64 (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
#define NAME(name) name##_64
#define VECTOR 64
BEGIN("avx512f,avx512dq,avx512bw,avx512vl,fma", "prefer-vector-width=512")
#include "lanes.h"
END
#endif

#if defined(__x86_64__) && HOSNN_WIDEST >= 32
#define HAS_32 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define NAME(name) name##_32
#define VECTOR 32
BEGIN("avx2,fma", "prefer-vector-width=256")
#include "lanes.h"
END
#endif

#define NAME(name) name##_16
#define VECTOR 16
#include "lanes.h"

/* The work with the widest registers that this processor has. */
#if defined(HAS_64)
#define WIDEST(name) (HAS_64 ? name##_64 : HAS_32 ? name##_32 : name##_16)
#elif defined(HAS_32)
#define WIDEST(name) (HAS_32 ? name##_32 : name##_16)
#else
#define WIDEST(name) (name##_16)
#endif

/* How many units of work there are. */
EXPORT int64_t hosnn_units(const Neuron *of) {
    return of->channels ? of->rows / 2 : (of->neurons + TILE - 1) / TILE;
}

/* Units begin .. end of the forward.  Returns 0, or 1 if there is no memory. */
EXPORT int hosnn_forward(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    return WIDEST(forward)(of, in, begin, end);
}

/* Units begin .. end of the backward; `output` and the sums of its neurons are written to.  Returns as the forward. */
EXPORT int hosnn_backward(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    return WIDEST(backward)(of, in, begin, end);
}

/* Units begin .. end of ASSG's surrogate: h [T][B][N] into `output`, `mean` and `deviation` brought up to date.  Neurons
   lie in tiles, pooled or not.  Returns as above. */
EXPORT int hosnn_sharpness(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    return WIDEST(sharpness)(of, in, begin, end);
}

/* Sizes of the structures, for the caller to see that it speaks of the same ones. */
EXPORT int64_t hosnn_structures(void) { return (int64_t)(1000 * sizeof(Neuron) + sizeof(Arrays)); }

/* Python loads this file by its name, not as a module; a linker that exports modules only finds this one. */
EXPORT void *PyInit__neuron(void) { return NULL; }
