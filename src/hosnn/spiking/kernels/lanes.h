/* The computation of neuron.c with registers of VECTOR bytes; included once per instruction set. */

#define W (VECTOR / 4) /* floats in a register */

typedef float NAME(Reals) __attribute__((vector_size(VECTOR)));
typedef int32_t NAME(Bits) __attribute__((vector_size(VECTOR)));
#define V NAME(Reals)
#define M NAME(Bits)

INLINE V NAME(get)(const float *from) {
    V value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE void NAME(put)(float *to, V value) { memcpy(to, &value, sizeof value); }

INLINE V NAME(broadcast)(float x) {
    V value;
    for (int i = 0; i < W; i++) value[i] = x;
    return value;
}

INLINE V NAME(masked)(M mask, V value) { return (V)((M)value & mask); }

INLINE V NAME(where)(M mask, V yes, V no) { return (V)(((M)yes & mask) | ((M)no & ~mask)); }

INLINE V NAME(absolute)(V x) { return (V)((M)x & 0x7fffffff); }

/* n floats, a register at a time; the last one overlaps the one before. */
INLINE void NAME(copy)(float *to, const float *from, int64_t n) {
    if (n >= W) {
        for (int64_t i = 0; i + W <= n; i += W) NAME(put)(to + i, NAME(get)(from + i));
        if (n % W) NAME(put)(to + n - W, NAME(get)(from + n - W));
    } else if (n >= 8) {
        memcpy(to, from, 32);
        memcpy(to + n - 8, from + n - 8, 32);
    } else {
        for (int64_t i = 0; i < n; i++) to[i] = from[i];
    }
}

INLINE void NAME(load)(float *to, const void *from, int64_t at, int64_t n, int bfloat16) {
    if (bfloat16) {
        const uint16_t *half = (const uint16_t *)from + at;
        for (int64_t i = 0; i < n; i++) to[i] = from_bfloat16(half[i]);
    } else {
        NAME(copy)(to, (const float *)from + at, n);
    }
}

INLINE void NAME(store)(void *to, int64_t at, const float *from, int64_t n, int bfloat16) {
    if (bfloat16) {
        uint16_t *half = (uint16_t *)to + at;
        for (int64_t i = 0; i < n; i++) half[i] = to_bfloat16(from[i]);
    } else {
        NAME(copy)((float *)to + at, from, n);
    }
}

/* Copy lanes from an array to a row without gaps, padded with zeros to a whole register. */
static void NAME(gather)(float *to, const void *array, int64_t from, const Lanes *lanes, int bfloat16) {
    const int64_t piece = lanes->piece;
    for (int64_t done = 0, at = from + lanes->at; done < lanes->n; done += piece, at += lanes->stride)
        NAME(load)(to + done, array, at, piece, bfloat16);
    for (int64_t i = lanes->n; i % W; i++) to[i] = 0.0f;
}

static void NAME(scatter)(void *array, int64_t to, const float *from, const Lanes *lanes, int bfloat16) {
    const int64_t piece = lanes->piece;
    for (int64_t done = 0, at = to + lanes->at; done < lanes->n; done += piece, at += lanes->stride)
        NAME(store)(array, at, from + done, piece, bfloat16);
}

static void NAME(accumulate)(float *array, int64_t to, const float *from, const Lanes *lanes) {
    const int64_t piece = lanes->piece;
    for (int64_t done = 0, at = to + lanes->at; done < lanes->n; done += piece, at += lanes->stride)
        for (int64_t i = 0; i < piece; i++) array[at + i] += from[done + i];
}

/* exp(x) for -87 <= x <= 0, within 3e-7 of it; NaN for NaN. */
INLINE V NAME(exponential)(V x) {
    /* Conversion rounds towards zero, so for negative numbers subtracting 1/2 first gives the nearest integer. */
    const M power = __builtin_convertvector(x * 1.44269504f - 0.5f, M);
    const V large = __builtin_convertvector(power, V);
    const V rest = x - large * 0.693359375f + large * 2.12194440e-4f;
    V series = rest * 8.3124777302e-3f + 4.1890550405e-2f; /* minimax polynomial on +-log(2)/2, error 1.1e-7 */
    series = series * rest + 1.6667115688e-1f;
    series = series * rest + 4.9999228120e-1f;
    series = series * rest * rest + rest + 1.0f;
    return series * (V)((power + 127) << 23);
}

/* 1/x for 1 <= x <= 4, within 3e-7 of it: a division would take as long as the rest of a Sigmoid.  NaN for NaN. */
INLINE V NAME(reciprocal)(V x) {
#if VECTOR == 64
    const V near = (V)_mm512_rcp14_ps((__m512)x);
    return near * (2.0f - x * near);
#elif VECTOR == 32
    const V near = (V)_mm256_rcp_ps((__m256)x);
    return near * (2.0f - x * near);
#else
    return 1.0f / x;
#endif
}

/* exp(-min(|x| scale, bound)). */
INLINE V NAME(exponential_decay)(V x, float scale, float bound) {
    const V z = NAME(absolute)(x) * scale, largest = NAME(broadcast)(bound);
    return NAME(exponential)(-NAME(where)(z > largest, largest, z));
}

/* Replace n numbers x by the surrogate's h(x); n is a multiple of W. */
FUSED static void NAME(derivative)(const LayerSpec *spec, float *h, int64_t n) {
    const float width = spec->width, scale = 1.0f / width, extra = spec->extra;
    const float bound = spec->surrogate == SIGMOID && extra < LEAST_EXPONENT ? extra : LEAST_EXPONENT;
    const V zero = {0}, ones = NAME(broadcast)(1.0f);
    switch (spec->surrogate) {
    case SIGMOID:
        for (int64_t i = 0; i < n; i += W) {
            const V e = NAME(exponential_decay)(NAME(get)(h + i), scale, bound), one = e + 1.0f;
            NAME(put)(h + i, e * NAME(reciprocal)(one * one) * scale);
        }
        break;
    case FAST_SIGMOID:
        for (int64_t i = 0; i < n; i += W) {
            const V one = NAME(absolute)(NAME(get)(h + i)) * scale + 1.0f;
            NAME(put)(h + i, 0.5f / (one * one * width));
        }
        break;
    case ARCTAN:
        for (int64_t i = 0; i < n; i += W) {
            const V z = NAME(get)(h + i) * (3.14159265f * scale);
            NAME(put)(h + i, 1.0f / ((z * z + 1.0f) * width));
        }
        break;
    case PIECEWISE_LINEAR:
        for (int64_t i = 0; i < n; i += W) {
            const V left = 1.0f - NAME(absolute)(NAME(get)(h + i)) * scale;
            NAME(put)(h + i, NAME(masked)(~(left <= zero), left) * scale);
        }
        break;
    case RECTANGLE:
        for (int64_t i = 0; i < n; i += W)
            NAME(put)(h + i, NAME(masked)(NAME(absolute)(NAME(get)(h + i)) < ones * (0.5f * width), ones * scale));
        break;
    case EXPONENTIAL:
        for (int64_t i = 0; i < n; i += W)
            NAME(put)(h + i, NAME(exponential_decay)(NAME(get)(h + i), scale, bound) * extra);
        break;
    default:
        for (int64_t i = 0; i < n; i += W) NAME(put)(h + i, ones);
    }
}

/* The forward over time of `group` registers of lanes of one sample, from register r on: writes what they emit or, for
   the backward, membranes, thresholds and where the surrogate is evaluated.  Each step waits for the one before, so
   several registers are interleaved. */
INLINE void NAME(over_time)(const LayerSpec *spec, const Block *b, int r, int group, int kind, int soft, int emit) {
    const float membrane_decay = spec->membrane_decay, synaptic_decay = spec->synaptic_decay;
    const V zero = {0}, ones = NAME(broadcast)(1.0f);
    const V increment = NAME(broadcast)(spec->spike_increment), resting = NAME(broadcast)(spec->resting_threshold);
    const int at_resting = spec->at_resting_threshold;
    const float *current = b->currents, *target = b->target;
    const int32_t *from = b->from + r, *place = b->place + r, *packed = b->packed + r;
    float *membrane = b->membrane + r * W, *threshold = b->threshold + r * W, *slope = b->slope + r * W;
    float *emitted = b->emitted;
    V v[GROUP], theta[GROUP], trace[GROUP], rate[GROUP];
    for (int g = 0; g < group; g++) {
        v[g] = trace[g] = zero;
        theta[g] = resting;
        rate[g] = kind == ADAPTIVE ? NAME(get)(b->rate + place[g]) : zero;
    }
    for (int64_t t = 0; t < b->steps; t++) {
        for (int g = 0; g < group; g++) {
            PREFETCH(current + from[g] + b->ahead, 0);
            const V u = v[g] * membrane_decay + NAME(get)(current + from[g]);
            if (kind == ADAPTIVE) theta[g] = theta[g] + rate[g] * (u - NAME(get)(target + place[g]));
            if (kind == STATIC) theta[g] = NAME(get)(target + place[g]);
            const V distance = u - theta[g];
            const M fired = distance > zero;
            if (soft)
                v[g] = NAME(where)(fired, u - theta[g], u - theta[g] * zero);
            else
                v[g] = NAME(where)(fired, u * zero, u);
            if (emit == FOR_BACKWARD) {
                NAME(put)(membrane + g * W, u);
                NAME(put)(threshold + g * W, theta[g]);
                NAME(put)(slope + g * W, at_resting ? u - resting : distance);
            } else if (emit == TRACES) {
                trace[g] = trace[g] * synaptic_decay + NAME(masked)(fired, increment);
                NAME(put)(emitted + packed[g], trace[g]);
            } else if (emit == DISTANCE) {
                NAME(put)(emitted + packed[g], at_resting ? u - resting : distance);
            } else {
                NAME(put)(emitted + packed[g], emit == SPIKES ? NAME(masked)(fired, ones) : u);
            }
        }
        current += b->currents_step;
        if (kind != FIXED) target += b->target_step;
        membrane += b->width;
        threshold += b->width;
        slope += b->width;
        if (emit != FOR_BACKWARD) emitted += b->emitted_step;
    }
}

/* The forward of all registers, called with constants so that each case is compiled without branches in its loop. */
static void NAME(run)(const LayerSpec *spec, const Block *b, int emit) {
    int r = 0;
#define AT(K, S, E) (((K) * 2 + (S)) * (FOR_BACKWARD + 1) + (E))
#define CASE(K, S, E)                                                                              \
    case AT(K, S, E):                                                                              \
        for (; r + GROUP <= b->registers; r += GROUP) NAME(over_time)(spec, b, r, GROUP, K, S, E); \
        for (; r < b->registers; r++) NAME(over_time)(spec, b, r, 1, K, S, E);                     \
        break;
#define EACH(K, S)                                                                                 \
    CASE(K, S, TRACES) CASE(K, S, SPIKES) CASE(K, S, DISTANCE) CASE(K, S, MEMBRANE) CASE(K, S, FOR_BACKWARD)
    switch (AT(threshold_kind(b), !!spec->soft, emit)) {
        EACH(FIXED, 0) EACH(FIXED, 1) EACH(ADAPTIVE, 0) EACH(ADAPTIVE, 1) EACH(STATIC, 0) EACH(STATIC, 1)
    }
#undef EACH
#undef CASE
#undef AT
}

/* The backward over time of `group` registers: dL/d currents.  `kind`: of threshold, FIXED also if it gets no gradient;
   `sums`: whether to write the sums over time and dL/d target.  to_x is dL/dx. */
INLINE void NAME(back_over_time)(const LayerSpec *spec, const Block *b, int r, int group, int kind, int soft,
                                 int sums) {
    const int traces = spec->emit == TRACES;
    const float membrane_decay = spec->membrane_decay, synaptic_decay = traces ? spec->synaptic_decay : 0.0f;
    const float increment = traces ? spec->spike_increment : 1.0f;
    const V zero = {0}, smallest = NAME(broadcast)(SMALLEST);
    const M closed = {0}, leak_open = closed - !!spec->leak, reset_open = closed - !!spec->reset;
    const int32_t *to = b->to + r, *place = b->place + r, *packed = b->packed + r;
    const int64_t last = b->steps - 1;
    const float *u_at = b->membrane + last * b->width + r * W, *theta_at = b->threshold + last * b->width + r * W;
    const float *gradient = b->gradient + last * b->gradient_step, *slope = b->slope + last * b->width + r * W;
    const float *target = kind == ADAPTIVE ? b->target + last * b->target_step : NULL;
    float *output = b->output + last * b->output_step;
    V rate[GROUP], to_trace[GROUP], to_current[GROUP], to_theta[GROUP], to_rate[GROUP];
    V membrane_sum[GROUP], current_sum[GROUP];
    for (int g = 0; g < group; g++) {
        rate[g] = kind == ADAPTIVE ? NAME(get)(b->rate + place[g]) : zero;
        to_trace[g] = to_current[g] = to_theta[g] = to_rate[g] = membrane_sum[g] = current_sum[g] = zero;
    }
    M leak = closed, reset = closed; /* after the last step nothing follows */
    for (int64_t t = last; t >= 0; t--) {
        for (int g = 0; g < group; g++) {
            PREFETCH(gradient + packed[g] + LANES, 0);
            PREFETCH(output + to[g] + b->ahead, 1);
            const V u = NAME(get)(u_at + g * W), theta = NAME(get)(theta_at + g * W);
            const M fired = u - theta > zero;
            to_trace[g] = NAME(get)(gradient + packed[g]) + to_trace[g] * synaptic_decay;
            const V to_v = to_current[g] * membrane_decay;
            /* Masked, not multiplied by 0 or 1, as a membrane may be infinite; the comparison below keeps NaN. */
            const V to_spike = to_trace[g] * increment - NAME(masked)(reset, to_v * (soft ? theta : u));
            V to_distance = to_spike * NAME(get)(slope + g * W);
            to_distance = NAME(masked)(~(NAME(absolute)(to_distance) <= smallest), to_distance);
            V to_u = to_distance + NAME(masked)(soft ? leak : leak & ~fired, to_v);
            if (kind == STATIC) to_theta[g] = -(soft ? to_distance + NAME(masked)(reset & fired, to_v) : to_distance);
            if (kind == ADAPTIVE) {
                to_theta[g] = to_theta[g] - (soft ? to_distance + NAME(masked)(reset & fired, to_v) : to_distance);
                to_u = to_u + rate[g] * to_theta[g];
                to_rate[g] = to_rate[g] + to_theta[g] * (u - NAME(get)(target + place[g]));
            }
            to_current[g] = to_u;
            NAME(put)(output + to[g], to_u);
            if (sums) {
                membrane_sum[g] = membrane_sum[g] + u;
                current_sum[g] = current_sum[g] + to_u;
                NAME(put)(b->to_target + t * b->row + packed[g], kind == STATIC ? to_theta[g] : -rate[g] * to_theta[g]);
            }
        }
        leak = leak_open;
        reset = reset_open;
        if (kind == ADAPTIVE) target -= b->target_step;
        u_at -= b->width;
        theta_at -= b->width;
        gradient -= b->gradient_step;
        slope -= b->width;
        output -= b->output_step;
    }
    for (int g = 0; g < group; g++) {
        NAME(put)(b->to_rate + packed[g], to_rate[g]);
        if (sums) {
            NAME(put)(b->membrane_sum + packed[g], membrane_sum[g]);
            NAME(put)(b->current_sum + packed[g], current_sum[g]);
        }
    }
}

FUSED static void NAME(back)(const LayerSpec *spec, const Block *b, int sums) {
    int r = 0;
#define AT(K, S, X) (((K) * 2 + (S)) * 2 + (X))
#define CASE(K, S, X)                                                                              \
    case AT(K, S, X):                                                                              \
        for (; r + GROUP <= b->registers; r += GROUP) NAME(back_over_time)(spec, b, r, GROUP, K, S, X);\
        for (; r < b->registers; r++) NAME(back_over_time)(spec, b, r, 1, K, S, X);                \
        break;
#define EACH(K, S) CASE(K, S, 0) CASE(K, S, 1)
    switch (AT(spec->threshold ? threshold_kind(b) : FIXED, !!spec->soft, !!sums)) {
        EACH(FIXED, 0) EACH(FIXED, 1) EACH(ADAPTIVE, 0) EACH(ADAPTIVE, 1) EACH(STATIC, 0) EACH(STATIC, 1)
    }
#undef EACH
#undef CASE
#undef AT
}

/* Currents of all time steps from one constant input, through its synaptic filter. */
static void NAME(unroll)(const LayerSpec *spec, const float *input, const float *initial, float *currents,
                         int64_t width) {
    for (int64_t i = 0; i < width; i += W) {
        const V rise = NAME(get)(input + i) / spec->input_tau;
        V current = {0};
        if (initial) current = NAME(get)(initial + i);
        for (int64_t t = 0; t < spec->steps; t++) {
            current = current * spec->input_decay + rise;
            NAME(put)(currents + t * width + i, current);
        }
    }
}

/* Its backward: dL/d input and dL/d initial from dL/d currents. */
static void NAME(unroll_back)(const LayerSpec *spec, const float *to_currents, float *to_input, float *to_initial,
                              int64_t width) {
    for (int64_t i = 0; i < width; i += W) {
        V to_current = {0}, sum = {0};
        for (int64_t t = spec->steps - 1; t >= 0; t--) {
            to_current = NAME(get)(to_currents + t * width + i) + to_current * spec->input_decay;
            sum = sum + to_current;
        }
        NAME(put)(to_input + i, sum / spec->input_tau);
        NAME(put)(to_initial + i, to_current * spec->input_decay);
    }
}

/* The length of a row of lanes without gaps, where the last register may reach beyond the last piece. */
INLINE int64_t NAME(row_length)(const Lanes *lanes) {
    const int64_t piece = lanes->piece, beyond = piece < W ? W - piece : 0;
    return (lanes->n + beyond + W - 1) / W * W;
}

/* Prepare the block of these lanes of one sample: offsets, currents, targets and rates. */
static void NAME(block)(Block *b, const LayerSpec *spec, const Arrays *arrays, const Scratch *scratch,
                        const Lanes *lanes, int64_t sample) {
    const int64_t step = spec->batch * spec->neurons, first = sample * spec->neurons;
    const int64_t piece = lanes->piece;
    const int64_t most = lanes->at + (lanes->n / piece - 1) * lanes->stride + (piece < W ? W : piece);
    /* A register may be somewhat longer than a piece, if it stays inside the array: it then also computes lanes behind
       the piece, whose results the next register overwrites. */
    const int readable = piece >= W || (2 * piece >= W && most <= spec->neurons);
    const int direct = !spec->bfloat16 && !spec->constant_steps;
    memset(b, 0, offsetof(Block, from));
    b->steps = spec->steps;
    b->row = NAME(row_length)(lanes);
    b->writes = direct && piece >= W;
    int registers = 0;
    if (readable) { /* each piece by registers, the last of which overlaps the one before */
        for (int64_t done = 0, at = 0; done < lanes->n; done += piece, at += lanes->stride)
            for (int64_t i = 0; i < piece; i += W, registers++) {
                const int64_t from = i + W <= piece || !i ? i : piece - W;
                b->packed[registers] = (int32_t)(done + from);
                b->place[registers] = (int32_t)(at + from);
            }
    } else {
        for (; registers * W < lanes->n; registers++) b->packed[registers] = b->place[registers] = registers * W;
    }
    for (; registers > 1 && registers % GROUP; registers++) { /* fill the last group with copies of a register */
        b->packed[registers] = b->packed[registers - 1];
        b->place[registers] = b->place[registers - 1];
    }
    b->registers = registers;
    b->width = registers * W;
    b->ahead = piece < lanes->n ? lanes->n / piece * lanes->stride : lanes->n;
    b->membrane = scratch->membrane;
    b->threshold = scratch->threshold;
    b->slope = scratch->slope;
    memcpy(b->from, readable && direct ? b->place : b->packed, sizeof b->from);
    memcpy(b->to, b->writes ? b->place : b->packed, sizeof b->to);
    if (readable && direct) {
        b->currents = (const float *)arrays->currents + first + lanes->at;
        b->currents_step = step;
    } else {
        b->currents = scratch->currents;
        b->currents_step = b->row;
        if (spec->constant_steps) {
            float *input = scratch->rows + ROW, *initial = arrays->initial ? scratch->rows + 5 * ROW : NULL;
            NAME(gather)(input, arrays->currents, first, lanes, spec->bfloat16);
            if (initial) NAME(gather)(initial, arrays->initial, 0, lanes, 0);
            NAME(unroll)(spec, input, initial, scratch->currents, b->row);
        }
        for (int64_t t = 0; !spec->constant_steps && t < spec->steps; t++)
            NAME(gather)(scratch->currents + t * b->row, arrays->currents, t * step + first, lanes, spec->bfloat16);
    }
    if (!arrays->target) return;
    if (readable) {
        b->target = arrays->target + lanes->at;
        b->target_step = spec->neurons;
        if (arrays->adaptation) b->rate = arrays->adaptation + lanes->at;
    } else {
        for (int64_t t = 0; t < spec->steps; t++)
            NAME(gather)(scratch->target + t * b->row, arrays->target, t * spec->neurons, lanes, 0);
        b->target = scratch->target;
        b->target_step = b->row;
        if (arrays->adaptation) {
            NAME(gather)(scratch->rows, arrays->adaptation, 0, lanes, 0);
            b->rate = scratch->rows;
        }
    }
}

static int NAME(forward)(const LayerSpec *spec, const Arrays *arrays, int64_t begin, int64_t end) {
    Scratch scratch;
    if (!allocate(spec, &scratch)) return 1;
    const int64_t across = spec->columns / 2, pooled = spec->rows / 2 * across * spec->channels;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < spec->batch; sample++) {
            if (!spec->channels) {
                const int64_t first = sample * spec->neurons;
                for (int64_t offset = 0; offset < TILE && unit * TILE + offset < spec->neurons; offset += LANES) {
                    const Lanes lanes = tiled(spec, unit, offset);
                    Block b;
                    NAME(block)(&b, spec, arrays, &scratch, &lanes, sample);
                    b.emitted = b.writes ? (float *)arrays->output + first + lanes.at : scratch.emitted;
                    b.emitted_step = b.writes ? spec->batch * spec->neurons : b.row;
                    NAME(run)(spec, &b, spec->emit);
                    if (b.writes) continue;
                    for (int64_t t = 0; t < spec->steps; t++)
                        NAME(store)(arrays->output, t * spec->batch * spec->neurons + first + lanes.at,
                                    scratch.emitted + t * b.row, lanes.n, spec->bfloat16);
                }
                continue;
            }
            for (int64_t x = 0; x < across; x += abreast(spec))
                for (int64_t channel = 0; channel < spec->channels; channel += LANES) {
                    const Lanes lanes = windowed(spec, unit, x, channel, 0);
                    const int64_t n = lanes.n, width = NAME(row_length)(&lanes);
                    for (int place = 0; place < 4; place++) {
                        const Lanes quarter = windowed(spec, unit, x, channel, place);
                        Block b;
                        NAME(block)(&b, spec, arrays, &scratch, &quarter, sample);
                        b.emitted = place ? scratch.emitted : scratch.sum;
                        b.emitted_step = width;
                        NAME(run)(spec, &b, spec->emit);
                        for (int64_t i = 0; place && i < spec->steps * width; i++) scratch.sum[i] += scratch.emitted[i];
                    }
                    for (int64_t i = 0; i < spec->steps * width; i++)
                        scratch.sum[i] = scratch.sum[i] / 4.0f * spec->gain;
                    for (int64_t t = 0; t < spec->steps; t++) {
                        const int64_t window = unit * across + x;
                        const int64_t at = (t * spec->batch + sample) * pooled + window * spec->channels + channel;
                        NAME(store)(arrays->output, at, scratch.sum + t * width, n, spec->bfloat16);
                    }
                }
        }
    free(scratch.memory);
    return 0;
}

/* The backward of the lanes of one sample from `gradient`, that of what they emit, steps `gradient_step` apart. */
static void NAME(backward_lanes)(const LayerSpec *spec, const Arrays *arrays, const Scratch *scratch,
                                 const Lanes *lanes, int64_t sample, const float *gradient, int64_t gradient_step) {
    const int64_t step = spec->batch * spec->neurons, first = sample * spec->neurons;
    const int sums = arrays->target_gradient || arrays->membrane_sum || arrays->current_sum;
    Block b;
    NAME(block)(&b, spec, arrays, scratch, lanes, sample);
    b.gradient = gradient;
    b.gradient_step = gradient_step;
    NAME(run)(spec, &b, FOR_BACKWARD);
    if (spec->surrogate != PRECOMPUTED) NAME(derivative)(spec, scratch->slope, spec->steps * b.width);
    for (int64_t t = 0; spec->surrogate == PRECOMPUTED && t < spec->steps; t++) {
        NAME(gather)(scratch->sum, arrays->derivative, t * step + first, lanes, spec->bfloat16);
        for (int r = 0; r < b.registers; r++)
            NAME(put)(scratch->slope + t * b.width + r * W, NAME(get)(scratch->sum + b.packed[r]));
    }
    b.output = b.writes ? (float *)arrays->output + first + lanes->at : scratch->output;
    b.output_step = b.writes ? step : b.row;
    b.to_rate = scratch->rows + 2 * ROW;
    b.membrane_sum = scratch->rows + 3 * ROW;
    b.current_sum = scratch->rows + 4 * ROW;
    b.to_target = scratch->currents; /* no longer needed for currents */
    NAME(back)(spec, &b, sums);
    if (spec->constant_steps) {
        float *to_input = scratch->rows + ROW, *to_initial = scratch->rows + 6 * ROW;
        NAME(unroll_back)(spec, scratch->output, to_input, to_initial, b.row);
        NAME(scatter)(arrays->output, first, to_input, lanes, spec->bfloat16);
        if (arrays->initial_gradient) NAME(accumulate)(arrays->initial_gradient, 0, to_initial, lanes);
    } else if (!b.writes) {
        for (int64_t t = 0; t < spec->steps; t++)
            NAME(scatter)(arrays->output, t * step + first, scratch->output + t * b.row, lanes, spec->bfloat16);
    }
    if (arrays->adaptation_gradient) NAME(accumulate)(arrays->adaptation_gradient, 0, b.to_rate, lanes);
    if (arrays->membrane_sum) NAME(accumulate)(arrays->membrane_sum, 0, b.membrane_sum, lanes);
    if (arrays->current_sum) NAME(accumulate)(arrays->current_sum, 0, b.current_sum, lanes);
    for (int64_t t = 0; arrays->target_gradient && t < spec->steps; t++)
        NAME(accumulate)(arrays->target_gradient, t * spec->neurons, b.to_target + t * b.row, lanes);
}

static int NAME(backward)(const LayerSpec *spec, const Arrays *arrays, int64_t begin, int64_t end) {
    Scratch scratch;
    if (!allocate(spec, &scratch)) return 1;
    const int64_t across = spec->columns / 2, pooled = spec->rows / 2 * across * spec->channels;
    const int64_t step = spec->batch * spec->neurons;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < spec->batch; sample++) {
            if (!spec->channels) {
                for (int64_t offset = 0; offset < TILE && unit * TILE + offset < spec->neurons; offset += LANES) {
                    const Lanes lanes = tiled(spec, unit, offset);
                    const int64_t at = sample * spec->neurons + lanes.at, width = NAME(row_length)(&lanes);
                    if (!spec->bfloat16 && lanes.n >= W) {
                        NAME(backward_lanes)(spec, arrays, &scratch, &lanes, sample,
                                             (const float *)arrays->gradient + at, step);
                        continue;
                    }
                    for (int64_t t = 0; t < spec->steps; t++)
                        NAME(load)(scratch.emitted + t * width, arrays->gradient, t * step + at, lanes.n,
                                   spec->bfloat16);
                    NAME(backward_lanes)(spec, arrays, &scratch, &lanes, sample, scratch.emitted, width);
                }
                continue;
            }
            for (int64_t x = 0; x < across; x += abreast(spec))
                for (int64_t channel = 0; channel < spec->channels; channel += LANES) {
                    const Lanes lanes = windowed(spec, unit, x, channel, 0);
                    const int64_t n = lanes.n, width = NAME(row_length)(&lanes);
                    for (int64_t t = 0; t < spec->steps; t++) {
                        float *g = scratch.emitted + t * width;
                        const int64_t window = unit * across + x;
                        const int64_t at = (t * spec->batch + sample) * pooled + window * spec->channels + channel;
                        NAME(load)(g, arrays->gradient, at, n, spec->bfloat16);
                        for (int64_t i = 0; i < width; i++) g[i] = g[i] * spec->gain / 4.0f;
                    }
                    for (int place = 0; place < 4; place++) {
                        const Lanes quarter = windowed(spec, unit, x, channel, place);
                        NAME(backward_lanes)(spec, arrays, &scratch, &quarter, sample, scratch.emitted, width);
                    }
                }
        }
    free(scratch.memory);
    return 0;
}

/* ASSG (estimators/sharpness.py): update the moments M and D by the distances x, then h(x). */
static void NAME(sharpen)(const LayerSpec *spec, const Arrays *arrays, const Scratch *scratch, const float *x,
                          int64_t width, int64_t sample, const Lanes *lanes) {
    float *mean = scratch->rows, *deviation = scratch->rows + ROW, *h = scratch->rows + 2 * ROW;
    const float keep = arrays->keep[sample], scale = arrays->scale[sample], relax = spec->relax;
    const int64_t step = spec->samples * spec->neurons, moments = arrays->sample_rows[sample] * spec->neurons;
    for (int64_t t = 0; t < spec->steps; t++, x += width) {
        NAME(gather)(mean, arrays->mean, t * step + moments, lanes, 0);
        NAME(gather)(deviation, arrays->deviation, t * step + moments, lanes, 0);
        for (int64_t i = 0; i < width; i += W) {
            const V distance = NAME(get)(x + i), size = NAME(absolute)(distance);
            const V m = size + (NAME(get)(mean + i) - size) * keep, residual = NAME(absolute)(size - m);
            const V d = residual + (NAME(get)(deviation + i) - residual) * keep;
            const V alpha = scale / (m + d * relax + 1e-4f), z = alpha * 1.57079633f * distance;
            NAME(put)(mean + i, m);
            NAME(put)(deviation + i, d);
            NAME(put)(h + i, alpha * 0.5f / (z * z + 1.0f));
        }
        if (spec->learning) {
            NAME(scatter)(arrays->mean, t * step + moments, mean, lanes, 0);
            NAME(scatter)(arrays->deviation, t * step + moments, deviation, lanes, 0);
        }
        NAME(scatter)(arrays->output, (t * spec->batch + sample) * spec->neurons, h, lanes, spec->bfloat16);
    }
}

static int NAME(sharpness)(const LayerSpec *spec, const Arrays *arrays, int64_t begin, int64_t end) {
    Scratch scratch;
    if (!allocate(spec, &scratch)) return 1;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < spec->batch; sample++)
            for (int64_t offset = 0; offset < TILE && unit * TILE + offset < spec->neurons; offset += LANES) {
                const Lanes lanes = tiled(spec, unit, offset);
                Block b;
                NAME(block)(&b, spec, arrays, &scratch, &lanes, sample);
                b.emitted = scratch.emitted;
                b.emitted_step = b.row;
                NAME(run)(spec, &b, spec->emit);
                NAME(sharpen)(spec, arrays, &scratch, scratch.emitted, b.row, sample, &lanes);
            }
    free(scratch.memory);
    return 0;
}

#undef V
#undef M
#undef W
#undef NAME
#undef VECTOR
