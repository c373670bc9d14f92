/* A layer of spiking neurons over all time steps, forward and backward: the equations of dynamics.py, the gradients of
   gradient.py.  No state outlives a call, nothing is written but the arrays that are handed in.

   Memory: currents and everything of their shape lie as [T][B][N]; signature [T][N]; adaptation [N].  With pooling, N
   is [rows][columns][channels] and the output [T][B][rows/2][columns/2][channels].
   Work is cut into units (tiles of neurons, or pooled rows).  A unit sees the whole batch, so sums over the batch have
   one order whatever the number of threads.

   The forward equals the eager specification bit for bit: build with -ffp-contract=off, or a multiply and an add become
   one rounding. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 64
#define TILE 1024
#define REGISTER 16
#define ROOM (LANES + REGISTER)
#define DEEPEST 87.0f /* exp(-87) is the last power of e before float32 runs out of normal numbers */

/* One build for every x86-64: the loader picks the widest registers there are. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(HOSNN_ONE_TARGET)
#if defined(__clang__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#else
#define WIDE
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* Time steps lie far apart in memory, more streams than a processor foresees by itself. */
#if defined(__GNUC__)
#define PREFETCH(address, written) __builtin_prefetch(address, written, 3)
#else
#define PREFETCH(address, written)
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { TRACES, SPIKES, DISTANCE };
enum { SIGMOID, FAST_SIGMOID, ARCTAN, PIECEWISE_LINEAR, RECTANGLE, EXPONENTIAL, STRAIGHT_THROUGH, GIVEN };

typedef struct {
    int64_t steps, batch, neurons;                              /* T, B, N */
    int64_t rows, columns, channels;                            /* of the neurons; channels = 0: no pooling */
    int64_t samples;                                            /* that sharpness is remembered of */
    float membrane_decay, synaptic_decay, trace_of_spike, rest; /* 1 - 1/tau_m, 1 - 1/tau_s, 1/tau_s, threshold[0] */
    float gain;                                                 /* of the pooled mean */
    float input_decay, input_tau;                               /* of the filter of a held input */
    float relax;                                                /* of the adaptive sharpness */
    float width, extra;                                         /* of the surrogate; its clamp or its peak */
    int32_t soft, emit, bfloat16, surrogate;
    int32_t leak, reset, threshold, at_rest; /* paths of the gradient that are open; where the surrogate looks */
    int32_t held;     /* one input [B][N] for all time steps, behind a synaptic filter, in place of currents */
    int32_t learning; /* whether sharpness is remembered */
} Neuron;

typedef struct {
    const void *currents;      /* [T][B][N] */
    const float *signature;    /* [T][N], NULL: plain LIF */
    const float *adaptation;   /* [N], NULL: plain LIF */
    const void *derivative;    /* h [T][B][N], for the surrogate GIVEN */
    const void *gradient;      /* dL/d output */
    void *output;              /* forward: as `emit` says; backward: dL/d currents [T][B][N] */
    float *adaptation_gradient;/* [N], sum over T and B; NULL if not asked for */
    float *signature_gradient; /* [T][N]; NULL if not asked for */
    float *membrane_sum;       /* [N], sum over T and B; NULL if not asked for */
    float *current_sum;        /* [N], of dL/d currents over T and B; NULL if not asked for */
    float *mean, *deviation;   /* [T][samples][N], what sharpness remembers */
    const int64_t *rows;       /* [B], which of the samples these are */
    const float *keep, *scale; /* [B], weight of what is remembered; a of each sample */
} Arrays;

/* What a unit works in, each [T][LANES]. */
typedef struct {
    float *membrane, *threshold, *emitted;
} Scratch;

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

/* Which neurons are worked on at a time: `n` of them from `at` on, in pieces without gaps, `stride` apart. */
typedef struct {
    int64_t at, n, piece, stride;
} Lanes;

/* What comes next in memory, while these lanes are worked on. */
INLINE void expect(const void *array, int64_t from, Lanes lanes, int bfloat16, int written) {
    const int64_t size = bfloat16 ? 2 : 4, after = lanes.piece < lanes.n ? lanes.n / lanes.piece * lanes.stride : lanes.n;
    const char *next = (const char *)array + (from + lanes.at + after) * size;
    for (int64_t line = 0; line < LANES * size; line += 64) PREFETCH(next + line, written);
}

INLINE void load(float *to, const void *from, int64_t at, int64_t n, int bfloat16) {
    if (bfloat16) {
        const uint16_t *half = (const uint16_t *)from + at;
        for (int64_t i = 0; i < n; i++) to[i] = widened(half[i]);
    } else {
        const float *full = (const float *)from + at;
        for (int64_t i = 0; i < n; i++) to[i] = full[i];
    }
}

INLINE void store(void *to, int64_t at, const float *from, int64_t n, int bfloat16) {
    if (bfloat16) {
        uint16_t *half = (uint16_t *)to + at;
        for (int64_t i = 0; i < n; i++) half[i] = narrowed(from[i]);
    } else {
        float *full = (float *)to + at;
        for (int64_t i = 0; i < n; i++) full[i] = from[i];
    }
}

/* Lanes of an array that ends at `end`.  Short pieces are copied by whole registers, each over the tail of the one
   before; `to` has room for one more. */
INLINE void gather(float *to, const void *array, int64_t from, int64_t end, Lanes lanes, int bfloat16) {
    if (lanes.piece >= lanes.n) {
        load(to, array, from + lanes.at, lanes.n, bfloat16);
        return;
    }
    const int64_t whole = (lanes.piece + REGISTER - 1) / REGISTER * REGISTER;
    for (int64_t done = 0, at = from + lanes.at; done < lanes.n; done += lanes.piece, at += lanes.stride)
        if (at + whole <= end)
            for (int64_t i = 0; i < whole; i += REGISTER) load(to + done + i, array, at + i, REGISTER, bfloat16);
        else
            load(to + done, array, at, lanes.piece, bfloat16);
    for (int64_t i = lanes.n; i < LANES; i++) to[i] = 0.0f;
}

INLINE void scatter(void *array, int64_t to, const float *from, Lanes lanes, int bfloat16) {
    if (lanes.piece >= lanes.n) {
        store(array, to + lanes.at, from, lanes.n, bfloat16);
        return;
    }
    if (bfloat16) {
        for (int64_t done = 0, at = to + lanes.at; done < lanes.n; done += lanes.piece, at += lanes.stride)
            store(array, at, from + done, lanes.piece, bfloat16);
        return;
    }
    const int32_t piece = (int32_t)lanes.piece;
    for (int64_t done = 0, at = to + lanes.at; done < lanes.n; done += lanes.piece, at += lanes.stride)
        for (int32_t whole = 0; whole < piece; whole += REGISTER) {
            float *target = (float *)array + at + whole;
            const float *source = from + done + whole;
            for (int32_t i = 0; i < REGISTER; i++) /* a register under a mask */
                if (whole + i < piece) target[i] = source[i];
        }
}

INLINE void accumulate(float *array, int64_t to, const float *from, Lanes lanes) {
    for (int64_t done = 0, at = to + lanes.at; done < lanes.n; done += lanes.piece, at += lanes.stride)
        for (int64_t i = 0; i < (lanes.piece < lanes.n ? lanes.piece : lanes.n); i++) array[at + i] += from[done + i];
}

/* exp(x) for -87 <= x <= 0, within 2 units in the last place. */
INLINE float exponential(float x) {
    const int32_t power = (int32_t)(x * 1.44269504f - 0.5f); /* towards zero, of a negative number: nearest */
    const float large = (float)power;
    const float rest = x - large * 0.693359375f + large * 2.12194440e-4f;
    float series = 1.9875691500e-4f;
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    series = series * rest * rest + rest + 1.0f;
    union {
        int32_t bits;
        float value;
    } scale = {.bits = (power + 127) << 23};
    return series * scale.value;
}

/* exp(-|x|/w) with |x|/w at most `most`.  Two loops: a bound known inside would make the compiler branch on it. */
INLINE void decayed(const float *x, float *e, float inverse, float most, int64_t n) {
    const float bound = most < DEEPEST ? most : DEEPEST;
    for (int64_t i = 0; i < n; i++) {
        float z = fabsf(x[i]) * inverse;
        e[i] = z < bound ? -z : -bound;
    }
    for (int64_t i = 0; i < n; i++) e[i] = exponential(e[i]);
}

/* h(x) of the surrogate, over n lanes; `x` and `h` may be the same. */
INLINE void derivative(const Neuron *of, const float *x, float *h, int64_t n) {
    const float w = of->width, inverse = 1.0f / w, extra = of->extra;
    switch (of->surrogate) {
    case SIGMOID:
        decayed(x, h, inverse, extra, n);
        for (int64_t i = 0; i < n; i++) {
            float one = 1.0f + h[i];
            h[i] = h[i] / (w * one * one);
        }
        break;
    case FAST_SIGMOID:
        for (int64_t i = 0; i < n; i++) {
            float one = 1.0f + fabsf(x[i]) * inverse;
            h[i] = 0.5f / (w * one * one);
        }
        break;
    case ARCTAN:
        for (int64_t i = 0; i < n; i++) {
            float z = 3.14159265f * inverse * x[i];
            h[i] = 1.0f / (w * (1.0f + z * z));
        }
        break;
    case PIECEWISE_LINEAR:
        for (int64_t i = 0; i < n; i++) {
            float left = 1.0f - fabsf(x[i]) * inverse;
            h[i] = (left > 0.0f ? left : 0.0f) * inverse;
        }
        break;
    case RECTANGLE:
        for (int64_t i = 0; i < n; i++) h[i] = fabsf(x[i]) < 0.5f * w ? inverse : 0.0f;
        break;
    case EXPONENTIAL:
        decayed(x, h, inverse, DEEPEST, n);
        for (int64_t i = 0; i < n; i++) h[i] = extra * h[i];
        break;
    default:
        for (int64_t i = 0; i < n; i++) h[i] = 1.0f;
    }
}

/* Lanes of one sample over time: membranes and thresholds, or what they emit, into the scratch.
   Lanes beyond `n` idle on zeros. */
INLINE void run(const Neuron *of, const Arrays *in, Scratch to, int64_t sample, Lanes lanes, int adaptive, int soft,
                int emit, int keep) {
    float v[LANES], theta[LANES], trace[LANES], current[ROOM] = {0}, input[ROOM] = {0}, target[ROOM] = {0};
    float rate[ROOM] = {0};
    const float decay = of->membrane_decay, fade = of->synaptic_decay, jump = of->trace_of_spike, rest = of->rest;
    const float input_decay = of->input_decay, input_tau = of->input_tau;
    const int64_t step = of->batch * of->neurons, first = sample * of->neurons;
    const int at_rest = of->at_rest;
    for (int i = 0; i < LANES; i++) {
        v[i] = 0.0f;
        theta[i] = rest;
        trace[i] = 0.0f;
    }
    if (adaptive) gather(rate, in->adaptation, 0, of->neurons, lanes, 0);
    if (of->held) {
        gather(input, in->currents, first, step, lanes, of->bfloat16);
        expect(in->currents, first, lanes, of->bfloat16, 0);
        for (int i = 0; i < LANES; i++) input[i] = input[i] / input_tau;
    }
    for (int64_t t = 0; t < of->steps; t++) {
        float *emitted = to.emitted + t * LANES, *membrane = to.membrane + t * LANES;
        float *threshold = to.threshold + t * LANES;
        if (of->held) {
            for (int i = 0; i < LANES; i++) current[i] = input_decay * current[i] + input[i];
        } else {
            gather(current, in->currents, t * step + first, of->steps * step, lanes, of->bfloat16);
            expect(in->currents, t * step + first, lanes, of->bfloat16, 0);
        }
        if (adaptive) gather(target, in->signature, t * of->neurons, of->steps * of->neurons, lanes, 0);
        for (int i = 0; i < LANES; i++) {
            float u = decay * v[i] + current[i];
            if (adaptive) theta[i] = theta[i] + rate[i] * (u - target[i]);
            float distance = u - theta[i];
            float spike = distance > 0.0f ? 1.0f : 0.0f;
            v[i] = soft ? u - theta[i] * spike : u * (1.0f - spike);
            trace[i] = fade * trace[i] + (distance > 0.0f ? jump : 0.0f);
            if (keep) {
                membrane[i] = u;
                threshold[i] = theta[i];
            } else {
                emitted[i] = emit == TRACES ? trace[i] : emit == SPIKES ? spike : u - (at_rest ? rest : theta[i]);
            }
        }
    }
}

/* Calls with constants, so that each case is loops of their own without a branch inside. */
#define CASE(A, S, E, FULL, DO) \
    if (adaptive == A && of->soft == S && (E) && (lanes.n == LANES && lanes.piece >= LANES) == FULL) DO;

INLINE void forward_run(const Neuron *of, const Arrays *in, Scratch to, int64_t sample, Lanes lanes) {
    const int adaptive = in->signature != NULL;
    const Lanes full = {lanes.at, LANES, LANES, 0};
#define EACH(A, S, E) \
    CASE(A, S, of->emit == E, 1, run(of, in, to, sample, full, A, S, E, 0)) \
    CASE(A, S, of->emit == E, 0, run(of, in, to, sample, lanes, A, S, E, 0))
    EACH(0, 0, TRACES) EACH(0, 0, SPIKES) EACH(0, 0, DISTANCE) EACH(0, 1, TRACES) EACH(0, 1, SPIKES) EACH(0, 1, DISTANCE)
    EACH(1, 0, TRACES) EACH(1, 0, SPIKES) EACH(1, 0, DISTANCE) EACH(1, 1, TRACES) EACH(1, 1, SPIKES) EACH(1, 1, DISTANCE)
#undef EACH
}

/* The way back: dL/d currents of the lanes of one sample, from dL/d emitted in the scratch. */
INLINE void back(const Neuron *of, const Arrays *in, Scratch to, int64_t sample, Lanes lanes, int adaptive, int soft) {
    float along_input[LANES] = {0}, to_input[ROOM] = {0};
    float along_trace[LANES] = {0}, to_current[ROOM] = {0}, to_theta[LANES] = {0}, rate[ROOM] = {0};
    float target[ROOM] = {0}, to_rate[LANES] = {0}, membranes[LANES] = {0}, currents[LANES] = {0};
    float h[ROOM] = {0}, at_threshold[LANES];
    const float decay = of->membrane_decay, fade = of->synaptic_decay, jump = of->trace_of_spike, rest = of->rest;
    const float input_decay = of->input_decay, input_tau = of->input_tau;
    const int64_t step = of->batch * of->neurons, first = sample * of->neurons;
    const float least = 1.17549435e-38f;
    const int open = adaptive && of->threshold, at_rest = of->at_rest;
    if (adaptive) gather(rate, in->adaptation, 0, of->neurons, lanes, 0);
    for (int64_t t = of->steps - 1; t >= 0; t--) {
        const float *u = to.membrane + t * LANES, *theta = to.threshold + t * LANES, *given = to.emitted + t * LANES;
        if (of->surrogate == GIVEN) {
            gather(h, in->derivative, t * step + first, of->steps * step, lanes, of->bfloat16);
        } else {
            for (int i = 0; i < LANES; i++) at_threshold[i] = u[i] - (at_rest ? rest : theta[i]);
            derivative(of, at_threshold, h, LANES);
        }
        /* Selected, not multiplied by 0 or 1: a membrane may be infinite.  After the last step nothing follows. */
        const int leak = of->leak && t + 1 < of->steps, reset = of->reset && t + 1 < of->steps;
        if (open) gather(target, in->signature, t * of->neurons, of->steps * of->neurons, lanes, 0);
        for (int i = 0; i < LANES; i++) {
            float spike = u[i] - theta[i] > 0.0f ? 1.0f : 0.0f;
            along_trace[i] = given[i] + fade * along_trace[i];
            float to_spike = of->emit == TRACES ? along_trace[i] * jump : given[i];
            float to_v = decay * to_current[i];
            to_spike -= reset ? to_v * (soft ? theta[i] : u[i]) : 0.0f;
            float to_distance = to_spike * h[i];
            to_distance = fabsf(to_distance) <= least ? 0.0f : to_distance;
            float to_u = to_distance + (leak ? to_v * (soft ? 1.0f : 1.0f - spike) : 0.0f);
            if (open) {
                to_theta[i] -= to_distance + (soft && reset ? to_v * spike : 0.0f);
                to_u += rate[i] * to_theta[i];
                to_rate[i] += to_theta[i] * (u[i] - target[i]);
            }
            to_current[i] = to_u;
            membranes[i] += u[i];
            currents[i] += to_u;
        }
        if (of->held) {
            for (int i = 0; i < LANES; i++) {
                along_input[i] = to_current[i] + input_decay * along_input[i];
                to_input[i] += along_input[i];
            }
        } else {
            scatter(in->output, t * step + first, to_current, lanes, of->bfloat16);
            expect(in->output, t * step + first, lanes, of->bfloat16, 1);
        }
        if (open && in->signature_gradient) {
            for (int i = 0; i < LANES; i++) at_threshold[i] = -rate[i] * to_theta[i];
            accumulate(in->signature_gradient, t * of->neurons, at_threshold, lanes);
        }
    }
    if (of->held) {
        for (int i = 0; i < LANES; i++) to_input[i] = to_input[i] / input_tau;
        scatter(in->output, first, to_input, lanes, of->bfloat16);
    }
    if (in->adaptation_gradient) accumulate(in->adaptation_gradient, 0, to_rate, lanes);
    if (in->membrane_sum) accumulate(in->membrane_sum, 0, membranes, lanes);
    if (in->current_sum) accumulate(in->current_sum, 0, currents, lanes);
}

INLINE void backward_run(const Neuron *of, const Arrays *in, Scratch to, int64_t sample, Lanes lanes) {
    const int adaptive = in->signature != NULL;
    const Lanes full = {lanes.at, LANES, LANES, 0};
#define BOTH(L, A, S) (run(of, in, to, sample, L, A, S, TRACES, 1), back(of, in, to, sample, L, A, S))
#define EACH(A, S) CASE(A, S, 1, 1, BOTH(full, A, S)) CASE(A, S, 1, 0, BOTH(lanes, A, S))
    EACH(0, 0) EACH(0, 1) EACH(1, 0) EACH(1, 1)
#undef EACH
#undef BOTH
}

/* The surrogate of ASSG (estimators/sharpness.py): h from the distances in the scratch, after they are remembered. */
INLINE void sharpen(const Neuron *of, const Arrays *in, Scratch from, int64_t sample, Lanes lanes) {
    float mean[ROOM] = {0}, deviation[ROOM] = {0}, h[ROOM];
    const float keep = in->keep[sample], scale = in->scale[sample], relax = of->relax;
    const int64_t step = of->samples * of->neurons, remembered = in->rows[sample] * of->neurons;
    for (int64_t t = 0; t < of->steps; t++) {
        const float *x = from.emitted + t * LANES;
        gather(mean, in->mean, t * step + remembered, of->steps * step, lanes, 0);
        gather(deviation, in->deviation, t * step + remembered, of->steps * step, lanes, 0);
        for (int i = 0; i < LANES; i++) {
            float size = fabsf(x[i]);
            mean[i] = size + keep * (mean[i] - size);
            float off = fabsf(size - mean[i]);
            deviation[i] = off + keep * (deviation[i] - off);
            float alpha = scale / (mean[i] + relax * deviation[i] + 1e-4f), z = 1.57079633f * alpha * x[i];
            h[i] = 0.5f * alpha / (1.0f + z * z);
        }
        if (of->learning) {
            scatter(in->mean, t * step + remembered, mean, lanes, 0);
            scatter(in->deviation, t * step + remembered, deviation, lanes, 0);
        }
        scatter(in->output, (t * of->batch + sample) * of->neurons, h, lanes, of->bfloat16);
    }
}

static int allocate(const Neuron *of, Scratch *scratch, float **memory) {
    size_t size = (size_t)of->steps * LANES;
    *memory = calloc(4 * size, sizeof(float));
    if (!*memory) return 0;
    scratch->membrane = *memory;
    scratch->threshold = *memory + size;
    scratch->emitted = *memory + 2 * size;
    return 1;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

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

/* How many units of work there are. */
EXPORT int64_t hosnn_units(const Neuron *of) {
    return of->channels ? of->rows / 2 : (of->neurons + TILE - 1) / TILE;
}

/* Units begin .. end of the forward.  Returns 0, or 1 if there is no memory. */
EXPORT WIDE int hosnn_forward(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    Scratch scratch;
    float *memory;
    if (!allocate(of, &scratch, &memory)) return 1;
    float *sum = memory + 3 * of->steps * LANES;
    const int64_t across = of->columns / 2, pooled = of->rows / 2 * across * of->channels;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < of->batch; sample++) {
            if (!of->channels) {
                for (int64_t offset = 0; offset < TILE && unit * TILE + offset < of->neurons; offset += LANES) {
                    const Lanes lanes = tiled(of, unit, offset);
                    forward_run(of, in, scratch, sample, lanes);
                    for (int64_t t = 0; t < of->steps; t++)
                        store(in->output, (t * of->batch + sample) * of->neurons + lanes.at, scratch.emitted + t * LANES,
                              lanes.n, of->bfloat16);
                }
                continue;
            }
            for (int64_t x = 0; x < across; x += abreast(of))
                for (int64_t channel = 0; channel < of->channels; channel += LANES) {
                    for (int place = 0; place < 4; place++) {
                        forward_run(of, in, scratch, sample, windowed(of, unit, x, channel, place));
                        for (int64_t i = 0; i < of->steps * LANES; i++)
                            sum[i] = place ? sum[i] + scratch.emitted[i] : scratch.emitted[i];
                    }
                    for (int64_t i = 0; i < of->steps * LANES; i++) sum[i] = sum[i] / 4.0f * of->gain;
                    for (int64_t t = 0; t < of->steps; t++)
                        store(in->output,
                              (t * of->batch + sample) * pooled + (unit * across + x) * of->channels + channel,
                              sum + t * LANES, windowed(of, unit, x, channel, 0).n, of->bfloat16);
                }
        }
    free(memory);
    return 0;
}

/* Units begin .. end of the backward; `output` and the sums of its neurons are written to.  Returns as the forward. */
EXPORT WIDE int hosnn_backward(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    Scratch scratch;
    float *memory;
    if (!allocate(of, &scratch, &memory)) return 1;
    const int64_t across = of->columns / 2, pooled = of->rows / 2 * across * of->channels;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < of->batch; sample++) {
            if (!of->channels) {
                for (int64_t offset = 0; offset < TILE && unit * TILE + offset < of->neurons; offset += LANES) {
                    const Lanes lanes = tiled(of, unit, offset);
                    for (int64_t t = 0; t < of->steps; t++) {
                        const int64_t first = (t * of->batch + sample) * of->neurons;
                        load(scratch.emitted + t * LANES, in->gradient, first + lanes.at, lanes.n, of->bfloat16);
                        expect(in->gradient, first, lanes, of->bfloat16, 0);
                    }
                    backward_run(of, in, scratch, sample, lanes);
                }
                continue;
            }
            for (int64_t x = 0; x < across; x += abreast(of))
                for (int64_t channel = 0; channel < of->channels; channel += LANES) {
                    for (int64_t t = 0; t < of->steps; t++) {
                        float *g = scratch.emitted + t * LANES;
                        load(g, in->gradient,
                             (t * of->batch + sample) * pooled + (unit * across + x) * of->channels + channel,
                             windowed(of, unit, x, channel, 0).n, of->bfloat16);
                        for (int i = 0; i < LANES; i++) g[i] = g[i] * of->gain / 4.0f;
                    }
                    for (int place = 0; place < 4; place++)
                        backward_run(of, in, scratch, sample, windowed(of, unit, x, channel, place));
                }
        }
    free(memory);
    return 0;
}

/* Units begin .. end of ASSG's surrogate: h [T][B][N] into `output`, `mean` and `deviation` brought up to date.  Neurons lie in tiles, pooled or not.  Returns as above. */
EXPORT WIDE int hosnn_sharpness(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    Scratch scratch;
    float *memory;
    if (!allocate(of, &scratch, &memory)) return 1;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < of->batch; sample++)
            for (int64_t offset = 0; offset < TILE && unit * TILE + offset < of->neurons; offset += LANES) {
                const Lanes lanes = tiled(of, unit, offset);
                forward_run(of, in, scratch, sample, lanes);
                sharpen(of, in, scratch, sample, lanes);
            }
    free(memory);
    return 0;
}

/* Sizes of the structures, for the caller to see that it speaks of the same ones. */
EXPORT int64_t hosnn_structures(void) { return (int64_t)(1000 * sizeof(Neuron) + sizeof(Arrays)); }

/* Python loads this file by its name, not as a module; a linker that exports modules only finds this one. */
EXPORT void *PyInit__neuron(void) { return NULL; }
