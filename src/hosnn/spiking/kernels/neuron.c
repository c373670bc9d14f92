/* A layer of spiking neurons over all time steps, forward and backward: the equations of dynamics.py, the gradients
   of gradient_rule.py.  No state outlives a call; only the arrays passed in are written.

   Memory: currents and everything of their shape are [T][B][N], target is [T][N], adaptation [N].  With pooling, N is
   [rows][columns][channels] and the output [T][B][rows/2][columns/2][channels].
   Work is divided into units (tiles of neurons, or rows of pooling windows).  A unit takes the whole batch, so that
   sums over the batch are added in the same order whatever the number of threads.

   The forward equals the eager specification bit for bit: build with -ffp-contract=off, or a multiply and an add are
   rounded once instead of twice.  The computation is in lanes.h, included once per instruction set, of which each call
   chooses the widest available one, so that one build runs on every processor.  Needs vector types of GCC and Clang.

   A lane is one neuron of one sample in a vector register. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define LANES 64
#define TILE 1024
#define GROUP 4                 /* registers processed together */
#define MAX_REGISTERS 36        /* for 64 lanes in pieces, where registers overlap */
#define ROW (4 * MAX_REGISTERS) /* floats in a row of lanes, whatever the width of a register */

/* Gradients need not equal the specification's to the bit: here a multiply and an add may be one operation. */
#if defined(__clang__)
#define FUSED
#else
#define FUSED __attribute__((optimize("fp-contract=fast")))
#endif

#define INLINE static inline __attribute__((always_inline))

/* Time steps are far apart in memory, in more streams than a processor prefetches by itself. */
#define PREFETCH(address, written) __builtin_prefetch(address, written, 3)

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#include "declarations.h"

/* The neurons processed at a time: `n` of them from number `at` on, in contiguous pieces that begin `stride` apart.
   Passed by address: a copy waits for the stores before it, which costs more than the work on so few neurons. */
typedef struct {
    int64_t at, n, piece, stride;
} Lanes;

/* Where the lanes of one sample are read and written: directly in the arrays if these hold float32 in pieces of at
   least a register, else in scratch memory, filled before and copied out afterwards.  Offsets of each register: in
   currents (`from`), in output (`to`), in target and rate (`place`), and in a row of lanes without gaps (`packed`).
   Registers may overlap; lanes in two of them get the same values twice. */
typedef struct {
    int64_t steps, width, row, ahead; /* T; floats in a row of registers, in a row of lanes; offset of the next lanes */
    int writes, registers; /* whether output is written in place; number of registers */
    const float *currents, *target, *rate, *gradient;
    int64_t currents_step, target_step, gradient_step, emitted_step, output_step; /* floats from one step to the next */
    float *output, *emitted;
    float *membrane, *threshold, *slope; /* [T][width]; slope: x, then the surrogate's h(x) */
    float *to_target, *to_rate; /* dL/d target [T][row], dL/dk [row] */
    float *membrane_sum, *current_sum; /* sums over time [row] of u and of dL/d currents */
    int32_t from[MAX_REGISTERS], to[MAX_REGISTERS], place[MAX_REGISTERS], packed[MAX_REGISTERS];
} Block;

/* Scratch memory of a unit: rows of `ROW` floats, T of them for each array over time. */
typedef struct {
    float *memory, *membrane, *threshold, *emitted, *slope, *currents, *target, *output, *sum, *rows;
} Scratch;

static int allocate(const LayerSpec *spec, Scratch *scratch) {
    const size_t size = (size_t)spec->steps * ROW;
    float *memory = calloc(8 * size + 8 * ROW, sizeof(float));
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

INLINE int threshold_kind(const Block *b) { return !b->target ? FIXED : b->rate ? ADAPTIVE : STATIC; }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE Lanes tiled(const LayerSpec *spec, int64_t unit, int64_t offset) {
    const int64_t at = unit * TILE + offset;
    const int64_t n = smaller(LANES, smaller((unit + 1) * TILE, spec->neurons) - at);
    return (Lanes){at, n, n, 0};
}

/* Number of pooling windows of a row processed at a time: several where channels are few. */
INLINE int64_t abreast(const LayerSpec *spec) { return spec->channels < LANES ? LANES / spec->channels : 1; }

/* One of the four neurons of each pooling window, from window x on: row 2y or 2y+1, column 2x or 2x+1. */
INLINE Lanes windowed(const LayerSpec *spec, int64_t y, int64_t x, int64_t channel, int place) {
    const int64_t windows = smaller(abreast(spec), spec->columns / 2 - x);
    const int64_t piece = smaller(LANES, spec->channels - channel);
    const int64_t at = ((2 * y + place / 2) * spec->columns + 2 * x + place % 2) * spec->channels + channel;
    return (Lanes){at, windows * piece, piece, 2 * spec->channels};
}

INLINE float from_bfloat16(uint16_t number) {
    uint32_t bits = (uint32_t)number << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE uint16_t to_bfloat16(float value) { /* round to nearest, ties to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}

/* Tests set HOSNN_WIDEST, in bytes, to leave out wider registers. */
#ifndef HOSNN_WIDEST
#define HOSNN_WIDEST 64
#endif

/* Functions between BEGIN and END may use the named instructions; GCC is also told which registers to prefer. */
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

/* The function for the widest registers of this processor. */
#if defined(HAS_64)
#define WIDEST(name) (HAS_64 ? name##_64 : HAS_32 ? name##_32 : name##_16)
#elif defined(HAS_32)
#define WIDEST(name) (HAS_32 ? name##_32 : name##_16)
#else
#define WIDEST(name) (name##_16)
#endif

/* The number of units of work. */
EXPORT int64_t hosnn_units(const LayerSpec *spec) {
    return spec->channels ? spec->rows / 2 : (spec->neurons + TILE - 1) / TILE;
}

/* The forward of units begin to end - 1.  Returns 0, or 1 if memory cannot be allocated. */
EXPORT int hosnn_forward(const LayerSpec *spec, const Arrays *arrays, int64_t begin, int64_t end) {
    return WIDEST(forward)(spec, arrays, begin, end);
}

/* The backward of units begin to end - 1: writes `output`, adds to the gradients and sums of its neurons. */
EXPORT int hosnn_backward(const LayerSpec *spec, const Arrays *arrays, int64_t begin, int64_t end) {
    return WIDEST(backward)(spec, arrays, begin, end);
}

/* ASSG's surrogate for units begin to end - 1: writes h [T][B][N] to `output` and updates `mean` and `deviation`.
   Units are tiles of neurons, pooled or not. */
EXPORT int hosnn_sharpness(const LayerSpec *spec, const Arrays *arrays, int64_t begin, int64_t end) {
    return WIDEST(sharpness)(spec, arrays, begin, end);
}

/* Sizes of the structures, by which the caller checks that it was built from the same declarations. */
EXPORT int64_t hosnn_structures(void) { return (int64_t)(1000 * sizeof(LayerSpec) + sizeof(Arrays)); }

/* Python loads the library by path, not as a module; some linkers demand a module's entry point nevertheless. */
EXPORT void *PyInit__neuron(void) { return NULL; }
