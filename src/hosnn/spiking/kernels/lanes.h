/* The work of neuron.c with registers of VECTOR bytes; included once for each set of instructions. */

#define W (VECTOR / 4)

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

INLINE V NAME(every)(float x) {
    V value;
    for (int i = 0; i < W; i++) value[i] = x;
    return value;
}

INLINE V NAME(only)(M mask, V value) { return (V)((M)value & mask); }

INLINE V NAME(where)(M mask, V yes, V no) { return (V)(((M)yes & mask) | ((M)no & ~mask)); }

INLINE V NAME(size)(V x) { return (V)((M)x & 0x7fffffff); }

/* n numbers, by registers of which the last lies over the tail of the one before. */
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
        for (int64_t i = 0; i < n; i++) to[i] = widened(half[i]);
    } else {
        NAME(copy)(to, (const float *)from + at, n);
    }
}

INLINE void NAME(store)(void *to, int64_t at, const float *from, int64_t n, int bfloat16) {
    if (bfloat16) {
        uint16_t *half = (uint16_t *)to + at;
        for (int64_t i = 0; i < n; i++) half[i] = narrowed(from[i]);
    } else {
        NAME(copy)((float *)to + at, from, n);
    }
}

/* Lanes of an array, one after the other, up to a whole register. */
static void NAME(gather)(float *to, const void *array, int64_t from, Lanes lanes, int bfloat16) {
    const int64_t piece = smaller(lanes.piece, lanes.n);
    for (int64_t done = 0, at = from + lanes.at; done < lanes.n; done += piece, at += lanes.stride)
        NAME(load)(to + done, array, at, piece, bfloat16);
    for (int64_t i = lanes.n; i % W; i++) to[i] = 0.0f;
}

static void NAME(scatter)(void *array, int64_t to, const float *from, Lanes lanes, int bfloat16) {
    const int64_t piece = smaller(lanes.piece, lanes.n);
    for (int64_t done = 0, at = to + lanes.at; done < lanes.n; done += piece, at += lanes.stride)
        NAME(store)(array, at, from + done, piece, bfloat16);
}

static void NAME(accumulate)(float *array, int64_t to, const float *from, Lanes lanes) {
    const int64_t piece = smaller(lanes.piece, lanes.n);
    for (int64_t done = 0, at = to + lanes.at; done < lanes.n; done += piece, at += lanes.stride)
        for (int64_t i = 0; i < piece; i++) array[at + i] += from[done + i];
}

/* exp(x) for -87 <= x <= 0, within 3e-7 of it; NaN for NaN. */
INLINE V NAME(exponential)(V x) {
    const M power = __builtin_convertvector(x * 1.44269504f - 0.5f, M); /* towards zero, of a negative number: nearest */
    const V large = __builtin_convertvector(power, V);
    const V rest = x - large * 0.693359375f + large * 2.12194440e-4f;
    V series = rest * 8.3124777302e-3f + 4.1890550405e-2f; /* nearest on +-log(2)/2: 1.1e-7 */
    series = series * rest + 1.6667115688e-1f;
    series = series * rest + 4.9999228120e-1f;
    series = series * rest * rest + rest + 1.0f;
    return series * (V)((power + 127) << 23);
}

/* 1/x for 1 <= x <= 4, within 3e-7 of it: a division takes as long as all else of a Sigmoid.  NaN for NaN. */
INLINE V NAME(inverse)(V x) {
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

/* exp(-|x|/w) with |x|/w at most `bound`. */
INLINE V NAME(decayed)(V x, float inverse, float bound) {
    const V z = NAME(size)(x) * inverse, most = NAME(every)(bound);
    return NAME(exponential)(-NAME(where)(z > most, most, z));
}

/* h(x) of the surrogate in place of n numbers x, a multiple of W. */
FUSED static void NAME(derivative)(const Neuron *of, float *h, int64_t n) {
    const float w = of->width, inverse = 1.0f / w, extra = of->extra;
    const float bound = of->surrogate == SIGMOID && extra < LEAST_EXPONENT ? extra : LEAST_EXPONENT;
    const V zero = {0}, ones = NAME(every)(1.0f);
    switch (of->surrogate) {
    case SIGMOID:
        for (int64_t i = 0; i < n; i += W) {
            const V e = NAME(decayed)(NAME(get)(h + i), inverse, bound), one = e + 1.0f;
            NAME(put)(h + i, e * NAME(inverse)(one * one) * inverse);
        }
        break;
    case FAST_SIGMOID:
        for (int64_t i = 0; i < n; i += W) {
            const V one = NAME(size)(NAME(get)(h + i)) * inverse + 1.0f;
            NAME(put)(h + i, 0.5f / (one * one * w));
        }
        break;
    case ARCTAN:
        for (int64_t i = 0; i < n; i += W) {
            const V z = NAME(get)(h + i) * (3.14159265f * inverse);
            NAME(put)(h + i, 1.0f / ((z * z + 1.0f) * w));
        }
        break;
    case PIECEWISE_LINEAR:
        for (int64_t i = 0; i < n; i += W) {
            const V left = 1.0f - NAME(size)(NAME(get)(h + i)) * inverse;
            NAME(put)(h + i, NAME(only)(~(left <= zero), left) * inverse);
        }
        break;
    case RECTANGLE:
        for (int64_t i = 0; i < n; i += W)
            NAME(put)(h + i, NAME(only)(NAME(size)(NAME(get)(h + i)) < ones * (0.5f * w), ones * inverse));
        break;
    case EXPONENTIAL:
        for (int64_t i = 0; i < n; i += W) NAME(put)(h + i, NAME(decayed)(NAME(get)(h + i), inverse, bound) * extra);
        break;
    default:
        for (int64_t i = 0; i < n; i += W) NAME(put)(h + i, ones);
    }
}

/* GROUP registers of lanes of one sample over time, from register r on: what they emit, or membranes, thresholds and
   where the surrogate is evaluated.  Each step waits for the one before; several registers fill the time. */
INLINE void NAME(over_time)(const Neuron *of, const Block *b, int r, int group, int kind, int soft, int emit) {
    const float decay = of->membrane_decay, fade = of->synaptic_decay;
    const V zero = {0}, ones = NAME(every)(1.0f), jump = NAME(every)(of->trace_of_spike), rest = NAME(every)(of->rest);
    const int at_rest = of->at_rest;
    const float *current = b->currents, *target = b->target;
    const int32_t *from = b->from + r, *place = b->place + r, *plain = b->plain + r;
    float *membrane = b->membrane + r * W, *threshold = b->threshold + r * W, *slope = b->slope + r * W;
    float *emitted = b->emitted;
    V v[GROUP], theta[GROUP], trace[GROUP], rate[GROUP];
    for (int g = 0; g < group; g++) {
        v[g] = trace[g] = zero;
        theta[g] = rest;
        rate[g] = kind == ADAPTIVE ? NAME(get)(b->rate + place[g]) : zero;
    }
    for (int64_t t = 0; t < b->steps; t++) {
        for (int g = 0; g < group; g++) {
            PREFETCH(current + from[g] + b->ahead, 0);
            const V u = v[g] * decay + NAME(get)(current + from[g]);
            if (kind == ADAPTIVE) theta[g] = theta[g] + rate[g] * (u - NAME(get)(target + place[g]));
            if (kind == STATIC) theta[g] = NAME(get)(target + place[g]);
            const V distance = u - theta[g];
            const M fired = distance > zero;
            if (soft)
                v[g] = NAME(where)(fired, u - theta[g], u - theta[g] * zero);
            else
                v[g] = NAME(where)(fired, u * zero, u);
            if (emit == KEPT) {
                NAME(put)(membrane + g * W, u);
                NAME(put)(threshold + g * W, theta[g]);
                NAME(put)(slope + g * W, at_rest ? u - rest : distance);
            } else if (emit == TRACES) {
                trace[g] = trace[g] * fade + NAME(only)(fired, jump);
                NAME(put)(emitted + plain[g], trace[g]);
            } else if (emit == DISTANCE) {
                NAME(put)(emitted + plain[g], at_rest ? u - rest : distance);
            } else {
                NAME(put)(emitted + plain[g], emit == SPIKES ? NAME(only)(fired, ones) : u);
            }
        }
        current += b->currents_step;
        if (kind != FIXED) target += b->target_step;
        membrane += b->width;
        threshold += b->width;
        slope += b->width;
        if (emit != KEPT) emitted += b->emitted_step;
    }
}

/* Calls with constants, so that each case is a loop of its own without a branch inside. */
static void NAME(run)(const Neuron *of, const Block *b, int emit) {
    int r = 0;
#define AT(K, S, E) (((K) * 2 + (S)) * (KEPT + 1) + (E))
#define CASE(K, S, E)                                                                              \
    case AT(K, S, E):                                                                              \
        for (; r + GROUP <= b->registers; r += GROUP) NAME(over_time)(of, b, r, GROUP, K, S, E);  \
        for (; r < b->registers; r++) NAME(over_time)(of, b, r, 1, K, S, E);                       \
        break;
#define EACH(K, S) CASE(K, S, TRACES) CASE(K, S, SPIKES) CASE(K, S, DISTANCE) CASE(K, S, MEMBRANE) CASE(K, S, KEPT)
    switch (AT(kind_of(b), !!of->soft, emit)) {
        EACH(FIXED, 0) EACH(FIXED, 1) EACH(ADAPTIVE, 0) EACH(ADAPTIVE, 1) EACH(STATIC, 0) EACH(STATIC, 1)
    }
#undef EACH
#undef CASE
#undef AT
}

/* The backward of the lanes of one sample: dL/d currents.  `kind`: of the threshold, FIXED where it gets no gradient. */
INLINE void NAME(back_over_time)(const Neuron *of, const Block *b, int r, int group, int kind, int soft, int sums) {
    const int traces = of->emit == TRACES;
    const float decay = of->membrane_decay, fade = traces ? of->synaptic_decay : 0.0f;
    const float jump = traces ? of->trace_of_spike : 1.0f;
    const V zero = {0}, least = NAME(every)(SMALLEST);
    const M none = {0}, leaks = none - !!of->leak, resets = none - !!of->reset;
    const int32_t *to = b->to + r, *place = b->place + r, *plain = b->plain + r;
    const int64_t last = b->steps - 1;
    const float *u_at = b->membrane + last * b->width + r * W, *theta_at = b->threshold + last * b->width + r * W;
    const float *gradient = b->gradient + last * b->gradient_step, *slope = b->slope + last * b->width + r * W;
    const float *target = kind == ADAPTIVE ? b->target + last * b->target_step : NULL;
    float *output = b->output + last * b->output_step;
    V rate[GROUP], along[GROUP], to_current[GROUP], to_theta[GROUP], to_rate[GROUP], membranes[GROUP], to_currents[GROUP];
    for (int g = 0; g < group; g++) {
        rate[g] = kind == ADAPTIVE ? NAME(get)(b->rate + place[g]) : zero;
        along[g] = to_current[g] = to_theta[g] = to_rate[g] = membranes[g] = to_currents[g] = zero;
    }
    M leak = none, reset = none; /* after the last step nothing follows */
    for (int64_t t = last; t >= 0; t--) {
        for (int g = 0; g < group; g++) {
            PREFETCH(gradient + plain[g] + LANES, 0);
            PREFETCH(output + to[g] + b->ahead, 1);
            const V u = NAME(get)(u_at + g * W), theta = NAME(get)(theta_at + g * W);
            const M fired = u - theta > zero;
            along[g] = NAME(get)(gradient + plain[g]) + along[g] * fade;
            const V to_v = to_current[g] * decay;
            /* Selected, not multiplied by 0 or 1: a membrane may be infinite.  Asked so that NaN stays NaN. */
            const V to_spike = along[g] * jump - NAME(only)(reset, to_v * (soft ? theta : u));
            V to_distance = to_spike * NAME(get)(slope + g * W);
            to_distance = NAME(only)(~(NAME(size)(to_distance) <= least), to_distance);
            V to_u = to_distance + NAME(only)(soft ? leak : leak & ~fired, to_v);
            if (kind == STATIC) to_theta[g] = -(soft ? to_distance + NAME(only)(reset & fired, to_v) : to_distance);
            if (kind == ADAPTIVE) {
                to_theta[g] = to_theta[g] - (soft ? to_distance + NAME(only)(reset & fired, to_v) : to_distance);
                to_u = to_u + rate[g] * to_theta[g];
                to_rate[g] = to_rate[g] + to_theta[g] * (u - NAME(get)(target + place[g]));
            }
            to_current[g] = to_u;
            NAME(put)(output + to[g], to_u);
            if (sums) {
                membranes[g] = membranes[g] + u;
                to_currents[g] = to_currents[g] + to_u;
                NAME(put)(b->to_target + t * b->dense + plain[g], kind == STATIC ? to_theta[g] : -rate[g] * to_theta[g]);
            }
        }
        leak = leaks;
        reset = resets;
        if (kind == ADAPTIVE) target -= b->target_step;
        u_at -= b->width;
        theta_at -= b->width;
        gradient -= b->gradient_step;
        slope -= b->width;
        output -= b->output_step;
    }
    for (int g = 0; g < group; g++) {
        NAME(put)(b->to_rate + plain[g], to_rate[g]);
        if (sums) {
            NAME(put)(b->membranes + plain[g], membranes[g]);
            NAME(put)(b->to_currents + plain[g], to_currents[g]);
        }
    }
}

FUSED static void NAME(back)(const Neuron *of, const Block *b, int sums) {
    int r = 0;
#define AT(K, S, X) (((K) * 2 + (S)) * 2 + (X))
#define CASE(K, S, X)                                                                                    \
    case AT(K, S, X):                                                                                    \
        for (; r + GROUP <= b->registers; r += GROUP) NAME(back_over_time)(of, b, r, GROUP, K, S, X);   \
        for (; r < b->registers; r++) NAME(back_over_time)(of, b, r, 1, K, S, X);                        \
        break;
#define EACH(K, S) CASE(K, S, 0) CASE(K, S, 1)
    switch (AT(of->threshold ? kind_of(b) : FIXED, !!of->soft, !!sums)) {
        EACH(FIXED, 0) EACH(FIXED, 1) EACH(ADAPTIVE, 0) EACH(ADAPTIVE, 1) EACH(STATIC, 0) EACH(STATIC, 1)
    }
#undef EACH
#undef CASE
#undef AT
}

/* Currents of all time steps from one constant input, through its synaptic filter. */
static void NAME(unroll)(const Neuron *of, const float *input, const float *initial, float *currents, int64_t width) {
    for (int64_t i = 0; i < width; i += W) {
        const V fed = NAME(get)(input + i) / of->input_tau;
        V current = {0};
        if (initial) current = NAME(get)(initial + i);
        for (int64_t t = 0; t < of->steps; t++) {
            current = current * of->input_decay + fed;
            NAME(put)(currents + t * width + i, current);
        }
    }
}

/* Its backward: dL/d input and dL/d initial from dL/d currents. */
static void NAME(unroll_back)(const Neuron *of, const float *to_currents, float *to_input, float *to_initial,
                              int64_t width) {
    for (int64_t i = 0; i < width; i += W) {
        V along = {0}, sum = {0};
        for (int64_t t = of->steps - 1; t >= 0; t--) {
            along = NAME(get)(to_currents + t * width + i) + along * of->input_decay;
            sum = sum + along;
        }
        NAME(put)(to_input + i, sum / of->input_tau);
        NAME(put)(to_initial + i, along * of->input_decay);
    }
}

/* How long a row of lanes one after the other is: registers may reach beyond the last piece. */
INLINE int64_t NAME(dense)(Lanes lanes) {
    const int64_t piece = smaller(lanes.piece, lanes.n), beyond = piece < W ? W - piece : 0;
    return (lanes.n + beyond + W - 1) / W * W;
}

/* The currents, thresholds' targets and rates of these lanes of one sample. */
static Block NAME(block)(const Neuron *of, const Arrays *in, const Scratch *scratch, Lanes lanes, int64_t sample) {
    const int64_t step = of->batch * of->neurons, first = sample * of->neurons, piece = smaller(lanes.piece, lanes.n);
    const int64_t most = lanes.at + (lanes.n / piece - 1) * lanes.stride + (piece < W ? W : piece);
    /* Pieces shorter than a register but not by much: the register reads on into what follows, if there is something,
       and gives results that the next one overwrites. */
    const int readable = piece >= W || (2 * piece >= W && most <= of->neurons), plain = !of->bfloat16 && !of->constant_steps;
    Block b = {.steps = of->steps, .dense = NAME(dense)(lanes), .writes = plain && piece >= W};
    if (readable) { /* pieces of registers, of which the last lies over the tail of the one before */
        for (int64_t done = 0, at = 0; done < lanes.n; done += piece, at += lanes.stride)
            for (int64_t i = 0; i < piece; i += W, b.registers++) {
                const int64_t from = i + W <= piece || !i ? i : piece - W;
                b.plain[b.registers] = (int32_t)(done + from);
                b.place[b.registers] = (int32_t)(at + from);
            }
    } else {
        for (; b.registers * W < lanes.n; b.registers++) b.plain[b.registers] = b.place[b.registers] = b.registers * W;
    }
    for (; b.registers > 1 && b.registers % GROUP; b.registers++) { /* some do the work of the last again */
        b.plain[b.registers] = b.plain[b.registers - 1];
        b.place[b.registers] = b.place[b.registers - 1];
    }
    b.width = b.registers * W;
    b.ahead = piece < lanes.n ? lanes.n / piece * lanes.stride : lanes.n;
    b.membrane = scratch->membrane;
    b.threshold = scratch->threshold;
    b.slope = scratch->slope;
    memcpy(b.from, readable && plain ? b.place : b.plain, sizeof b.from);
    memcpy(b.to, b.writes ? b.place : b.plain, sizeof b.to);
    if (readable && plain) {
        b.currents = (const float *)in->currents + first + lanes.at;
        b.currents_step = step;
    } else {
        b.currents = scratch->currents;
        b.currents_step = b.dense;
        if (of->constant_steps) {
            float *input = scratch->rows + ROOM, *initial = in->initial ? scratch->rows + 5 * ROOM : NULL;
            NAME(gather)(input, in->currents, first, lanes, of->bfloat16);
            if (initial) NAME(gather)(initial, in->initial, 0, lanes, 0);
            NAME(unroll)(of, input, initial, scratch->currents, b.dense);
        }
        for (int64_t t = 0; !of->constant_steps && t < of->steps; t++)
            NAME(gather)(scratch->currents + t * b.dense, in->currents, t * step + first, lanes, of->bfloat16);
    }
    if (!in->target) return b;
    if (readable) {
        b.target = in->target + lanes.at;
        b.target_step = of->neurons;
        if (in->adaptation) b.rate = in->adaptation + lanes.at;
    } else {
        for (int64_t t = 0; t < of->steps; t++)
            NAME(gather)(scratch->target + t * b.dense, in->target, t * of->neurons, lanes, 0);
        b.target = scratch->target;
        b.target_step = b.dense;
        if (in->adaptation) {
            NAME(gather)(scratch->rows, in->adaptation, 0, lanes, 0);
            b.rate = scratch->rows;
        }
    }
    return b;
}

static int NAME(forward)(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    Scratch scratch;
    if (!allocate(of, &scratch)) return 1;
    const int64_t across = of->columns / 2, pooled = of->rows / 2 * across * of->channels;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < of->batch; sample++) {
            if (!of->channels) {
                const int64_t first = sample * of->neurons;
                for (int64_t offset = 0; offset < TILE && unit * TILE + offset < of->neurons; offset += LANES) {
                    const Lanes lanes = tiled(of, unit, offset);
                    Block b = NAME(block)(of, in, &scratch, lanes, sample);
                    b.emitted = b.writes ? (float *)in->output + first + lanes.at : scratch.emitted;
                    b.emitted_step = b.writes ? of->batch * of->neurons : b.dense;
                    NAME(run)(of, &b, of->emit);
                    if (b.writes) continue;
                    for (int64_t t = 0; t < of->steps; t++)
                        NAME(store)(in->output, t * of->batch * of->neurons + first + lanes.at,
                                    scratch.emitted + t * b.dense, lanes.n, of->bfloat16);
                }
                continue;
            }
            for (int64_t x = 0; x < across; x += abreast(of))
                for (int64_t channel = 0; channel < of->channels; channel += LANES) {
                    const Lanes lanes = windowed(of, unit, x, channel, 0);
                    const int64_t n = lanes.n, width = NAME(dense)(lanes);
                    for (int place = 0; place < 4; place++) {
                        Block b = NAME(block)(of, in, &scratch, windowed(of, unit, x, channel, place), sample);
                        b.emitted = place ? scratch.emitted : scratch.sum;
                        b.emitted_step = width;
                        NAME(run)(of, &b, of->emit);
                        for (int64_t i = 0; place && i < of->steps * width; i++) scratch.sum[i] += scratch.emitted[i];
                    }
                    for (int64_t i = 0; i < of->steps * width; i++) scratch.sum[i] = scratch.sum[i] / 4.0f * of->gain;
                    for (int64_t t = 0; t < of->steps; t++)
                        NAME(store)(in->output,
                                    (t * of->batch + sample) * pooled + (unit * across + x) * of->channels + channel,
                                    scratch.sum + t * width, n, of->bfloat16);
                }
        }
    free(scratch.memory);
    return 0;
}

/* Back through the lanes of one sample; the gradient of what they emit is in the block, or in the scratch memory. */
static void NAME(backward_lanes)(const Neuron *of, const Arrays *in, const Scratch *scratch, Lanes lanes, int64_t sample,
                                 const float *gradient, int64_t gradient_step) {
    const int64_t step = of->batch * of->neurons, first = sample * of->neurons;
    const int sums = in->target_gradient || in->membrane_sum || in->current_sum;
    Block b = NAME(block)(of, in, scratch, lanes, sample);
    b.gradient = gradient;
    b.gradient_step = gradient_step;
    NAME(run)(of, &b, KEPT);
    if (of->surrogate != GIVEN) NAME(derivative)(of, scratch->slope, of->steps * b.width);
    for (int64_t t = 0; of->surrogate == GIVEN && t < of->steps; t++) {
        NAME(gather)(scratch->sum, in->derivative, t * step + first, lanes, of->bfloat16);
        for (int r = 0; r < b.registers; r++)
            NAME(put)(scratch->slope + t * b.width + r * W, NAME(get)(scratch->sum + b.plain[r]));
    }
    b.output = b.writes ? (float *)in->output + first + lanes.at : scratch->output;
    b.output_step = b.writes ? step : b.dense;
    b.to_rate = scratch->rows + 2 * ROOM;
    b.membranes = scratch->rows + 3 * ROOM;
    b.to_currents = scratch->rows + 4 * ROOM;
    b.to_target = scratch->currents; /* read no more */
    NAME(back)(of, &b, sums);
    if (of->constant_steps) {
        float *to_input = scratch->rows + ROOM, *to_initial = scratch->rows + 6 * ROOM;
        NAME(unroll_back)(of, scratch->output, to_input, to_initial, b.dense);
        NAME(scatter)(in->output, first, to_input, lanes, of->bfloat16);
        if (in->initial_gradient) NAME(accumulate)(in->initial_gradient, 0, to_initial, lanes);
    } else if (!b.writes) {
        for (int64_t t = 0; t < of->steps; t++)
            NAME(scatter)(in->output, t * step + first, scratch->output + t * b.dense, lanes, of->bfloat16);
    }
    if (in->adaptation_gradient) NAME(accumulate)(in->adaptation_gradient, 0, b.to_rate, lanes);
    if (in->membrane_sum) NAME(accumulate)(in->membrane_sum, 0, b.membranes, lanes);
    if (in->current_sum) NAME(accumulate)(in->current_sum, 0, b.to_currents, lanes);
    for (int64_t t = 0; in->target_gradient && t < of->steps; t++)
        NAME(accumulate)(in->target_gradient, t * of->neurons, b.to_target + t * b.dense, lanes);
}

static int NAME(backward)(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    Scratch scratch;
    if (!allocate(of, &scratch)) return 1;
    const int64_t across = of->columns / 2, pooled = of->rows / 2 * across * of->channels;
    const int64_t step = of->batch * of->neurons;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < of->batch; sample++) {
            if (!of->channels) {
                for (int64_t offset = 0; offset < TILE && unit * TILE + offset < of->neurons; offset += LANES) {
                    const Lanes lanes = tiled(of, unit, offset);
                    const int64_t at = sample * of->neurons + lanes.at, width = NAME(dense)(lanes);
                    if (!of->bfloat16 && lanes.n >= W) {
                        NAME(backward_lanes)(of, in, &scratch, lanes, sample, (const float *)in->gradient + at, step);
                        continue;
                    }
                    for (int64_t t = 0; t < of->steps; t++)
                        NAME(load)(scratch.emitted + t * width, in->gradient, t * step + at, lanes.n, of->bfloat16);
                    NAME(backward_lanes)(of, in, &scratch, lanes, sample, scratch.emitted, width);
                }
                continue;
            }
            for (int64_t x = 0; x < across; x += abreast(of))
                for (int64_t channel = 0; channel < of->channels; channel += LANES) {
                    const Lanes lanes = windowed(of, unit, x, channel, 0);
                    const int64_t n = lanes.n, width = NAME(dense)(lanes);
                    for (int64_t t = 0; t < of->steps; t++) {
                        float *g = scratch.emitted + t * width;
                        NAME(load)(g, in->gradient,
                                   (t * of->batch + sample) * pooled + (unit * across + x) * of->channels + channel, n,
                                   of->bfloat16);
                        for (int64_t i = 0; i < width; i++) g[i] = g[i] * of->gain / 4.0f;
                    }
                    for (int place = 0; place < 4; place++)
                        NAME(backward_lanes)(of, in, &scratch, windowed(of, unit, x, channel, place), sample,
                                             scratch.emitted, width);
                }
        }
    free(scratch.memory);
    return 0;
}

/* The surrogate of ASSG (estimators/sharpness.py): h from distances x, after they are remembered. */
static void NAME(sharpen)(const Neuron *of, const Arrays *in, const Scratch *scratch, const float *x, int64_t width,
                          int64_t sample, Lanes lanes) {
    float *mean = scratch->rows, *deviation = scratch->rows + ROOM, *h = scratch->rows + 2 * ROOM;
    const float keep = in->keep[sample], scale = in->scale[sample], relax = of->relax;
    const int64_t step = of->samples * of->neurons, remembered = in->sample_rows[sample] * of->neurons;
    for (int64_t t = 0; t < of->steps; t++, x += width) {
        NAME(gather)(mean, in->mean, t * step + remembered, lanes, 0);
        NAME(gather)(deviation, in->deviation, t * step + remembered, lanes, 0);
        for (int64_t i = 0; i < width; i += W) {
            const V at = NAME(get)(x + i), size = NAME(size)(at);
            const V m = size + (NAME(get)(mean + i) - size) * keep, off = NAME(size)(size - m);
            const V d = off + (NAME(get)(deviation + i) - off) * keep;
            const V alpha = scale / (m + d * relax + 1e-4f), z = alpha * 1.57079633f * at;
            NAME(put)(mean + i, m);
            NAME(put)(deviation + i, d);
            NAME(put)(h + i, alpha * 0.5f / (z * z + 1.0f));
        }
        if (of->learning) {
            NAME(scatter)(in->mean, t * step + remembered, mean, lanes, 0);
            NAME(scatter)(in->deviation, t * step + remembered, deviation, lanes, 0);
        }
        NAME(scatter)(in->output, (t * of->batch + sample) * of->neurons, h, lanes, of->bfloat16);
    }
}

static int NAME(sharpness)(const Neuron *of, const Arrays *in, int64_t begin, int64_t end) {
    Scratch scratch;
    if (!allocate(of, &scratch)) return 1;
    for (int64_t unit = begin; unit < end; unit++)
        for (int64_t sample = 0; sample < of->batch; sample++)
            for (int64_t offset = 0; offset < TILE && unit * TILE + offset < of->neurons; offset += LANES) {
                const Lanes lanes = tiled(of, unit, offset);
                Block b = NAME(block)(of, in, &scratch, lanes, sample);
                b.emitted = scratch.emitted;
                b.emitted_step = b.dense;
                NAME(run)(of, &b, of->emit);
                NAME(sharpen)(of, in, &scratch, scratch.emitted, b.dense, sample, lanes);
            }
    free(scratch.memory);
    return 0;
}

#undef V
#undef M
#undef W
#undef NAME
#undef VECTOR
