"""A layer of spiking neurons over all time steps on a GPU: equations of dynamics.py, gradients of gradient_rule.py.

The same computation as `neuron.c`, on arrays of the same layout.  A program takes BLOCK neurons (lanes), sample after
sample; state stays in registers, in float32.  T time, B batch, N neurons, M outputs per step (N, or N pooled).

Time is divided into chunks of CHUNK unrolled steps.  A chunk reads everything before it writes its first result, as a
store might alias a later load, which would then have to wait.  Steps past the last read zeros and write nothing.

The forward equals the eager specification bit for bit if the launch forbids fused multiply-adds.
"""

import triton
import triton.language as tl

# As in declarations.py.
FIXED, ADAPTIVE, STATIC = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
TRACES, SPIKES, DISTANCE, MEMBRANE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
SIGMOID, FAST_SIGMOID, ARCTAN = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
PIECEWISE_LINEAR, RECTANGLE, EXPONENTIAL = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
PRECOMPUTED = tl.constexpr(7)
LEAST_EXPONENT, SMALLEST, PI = tl.constexpr(87.0), tl.constexpr(1.17549435e-38), tl.constexpr(3.14159265)


@triton.jit
def forward(
    currents,  # [T, B, N]
    target,  # u* [T, N], the thresholds themselves where there is no k; None: fixed threshold
    adaptation,  # k [N], None: thresholds do not adapt
    output,  # [T, B, M], as EMIT says
    batch,
    neurons,
    outputs,
    columns,
    channels,
    membrane_decay,
    synaptic_decay,
    spike_increment,
    resting_threshold,
    gain,
    STEPS: tl.constexpr,
    CHUNK: tl.constexpr,
    THRESHOLD: tl.constexpr,
    SOFT: tl.constexpr,
    EMIT: tl.constexpr,
    AT_RESTING_THRESHOLD: tl.constexpr,
    POOLED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    WINDOW: tl.constexpr = 4 if POOLED else 1
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < outputs
    stride = tl.cast(neurons, tl.int64)
    for sample in range(tl.program_id(1), batch, tl.num_programs(1)):
        start = tl.cast(sample, tl.int64)
        membranes, thresholds, traces = (), (), ()
        for _ in tl.static_range(WINDOW):
            membranes += (tl.full([BLOCK], 0.0, tl.float32),)
            thresholds += (tl.full([BLOCK], 0.0, tl.float32) + resting_threshold,)
            traces += (tl.full([BLOCK], 0.0, tl.float32),)
        for chunk in range((STEPS + CHUNK - 1) // CHUNK):
            first = chunk * CHUNK
            left = tl.full([BLOCK], STEPS - first, tl.int32)  # time steps
            emitted = ()
            next_membranes, next_thresholds, next_traces = (), (), ()
            for w in tl.static_range(WINDOW):
                n = _in_window(lanes, w, columns, channels) if POOLED else lanes
                rate, targets = None, ()
                if THRESHOLD == ADAPTIVE:
                    rate = tl.load(adaptation + n, mask=inside, other=0.0)
                if THRESHOLD != FIXED:
                    targets = _read(target + n + first * stride, stride, left, inside, CHUNK)
                inputs = _read(currents + (first * batch + start) * stride + n, batch * stride, left, inside, CHUNK)
                v, theta, trace = membranes[w], thresholds[w], traces[w]
                window = emitted
                emitted = ()
                for t in tl.static_range(CHUNK):
                    u, theta, spike, v = _step(inputs[t], targets, t, rate, v, theta, membrane_decay, THRESHOLD, SOFT)
                    trace = synaptic_decay * trace + spike * spike_increment
                    if EMIT == TRACES:
                        emitted_t = trace
                    elif EMIT == SPIKES:
                        emitted_t = spike
                    elif EMIT == MEMBRANE:
                        emitted_t = u
                    else:
                        emitted_t = u - (resting_threshold if AT_RESTING_THRESHOLD else theta)
                    emitted += (emitted_t if w == 0 else window[t] + emitted_t,)
                next_membranes += (v,)
                next_thresholds += (theta,)
                next_traces += (trace,)
            membranes, thresholds, traces = next_membranes, next_thresholds, next_traces
            for t in tl.static_range(CHUNK):
                emitted_t = emitted[t] * 0.25 * gain if POOLED else emitted[t]
                to = output + ((first + t) * batch + start) * outputs + lanes
                tl.store(to, emitted_t, mask=inside & (left > t))


@triton.jit
def backward(
    currents,  # [T, B, N]
    target,  # u* [T, N], the thresholds themselves where there is no k; None: fixed threshold
    adaptation,  # k [N], None: thresholds do not adapt
    derivative,  # h [T, B, N], for the surrogate PRECOMPUTED
    gradient,  # dL/d output [T, B, M]
    output,  # dL/d currents [T, B, N]
    adaptation_sum,  # [splits, N], dL/dk over T and the split's samples; None if not asked for, as the next three
    target_sum,  # [splits, T, N], dL/d target, zeros at first
    membrane_sum,  # [splits, N]
    current_sum,  # [splits, N], of dL/d currents
    states,  # [chunks, 2, splits, blocks, BLOCK], v and θ before each chunk; None if there is one chunk only
    batch,
    neurons,
    outputs,
    rows,
    columns,
    channels,
    membrane_decay,
    synaptic_decay,
    spike_increment,
    resting_threshold,
    gain,
    width,
    extra,
    STEPS: tl.constexpr,
    CHUNK: tl.constexpr,
    THRESHOLD: tl.constexpr,
    SOFT: tl.constexpr,
    EMIT: tl.constexpr,
    SURROGATE: tl.constexpr,
    LEAK_OPEN: tl.constexpr,
    RESET_OPEN: tl.constexpr,
    THRESHOLD_OPEN: tl.constexpr,
    AT_RESTING_THRESHOLD: tl.constexpr,
    POOLED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    CHUNKS: tl.constexpr = (STEPS + CHUNK - 1) // CHUNK
    THROUGH_THRESHOLD: tl.constexpr = THRESHOLD != FIXED and THRESHOLD_OPEN
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < neurons
    stride = tl.cast(neurons, tl.int64)
    outputs_int64 = tl.cast(outputs, tl.int64)
    split = tl.cast(tl.program_id(1), tl.int64)
    zeros = tl.full([BLOCK], 0.0, tl.float32)
    pooled_lanes, pooled_mask = lanes, inside
    if POOLED:
        pooled_lanes, pooled_mask = _pooled(lanes, inside, rows, columns, channels)
    rate = None
    if THRESHOLD == ADAPTIVE:
        rate = tl.load(adaptation + lanes, mask=inside, other=0.0)
    to_rate, membranes_sum, currents_sum = zeros, zeros, zeros
    programs = tl.num_programs(0) * tl.cast(tl.num_programs(1), tl.int64)
    slot = (split * tl.num_programs(0) + tl.program_id(0)) * BLOCK + tl.arange(0, BLOCK)

    for sample in range(tl.program_id(1), batch, tl.num_programs(1)):
        start = tl.cast(sample, tl.int64)
        v, theta = zeros, zeros + resting_threshold
        if CHUNKS > 1:
            tl.store(states + slot, v)
            tl.store(states + programs * BLOCK + slot, theta)
            for chunk in range(1, CHUNKS):
                first = (chunk - 1) * CHUNK
                left = tl.full([BLOCK], STEPS - first, tl.int32)
                targets = ()
                if THRESHOLD != FIXED:
                    targets = _read(target + first * stride + lanes, stride, left, inside, CHUNK)
                inputs = _read(currents + (first * batch + start) * stride + lanes, batch * stride, left, inside, CHUNK)
                for t in tl.static_range(CHUNK):
                    _, theta, _, v = _step(inputs[t], targets, t, rate, v, theta, membrane_decay, THRESHOLD, SOFT)
                tl.store(states + 2 * chunk * programs * BLOCK + slot, v)
                tl.store(states + (2 * chunk + 1) * programs * BLOCK + slot, theta)
            tl.debug_barrier()  # threads read what others wrote

        to_trace, to_current, to_theta = zeros, zeros, zeros
        for chunk_from_end in range(CHUNKS):
            chunk = CHUNKS - 1 - chunk_from_end
            first = chunk * CHUNK
            left = tl.full([BLOCK], STEPS - first, tl.int32)  # time steps
            now = first * batch + start
            v, theta = zeros, zeros + resting_threshold
            if CHUNKS > 1:
                v = tl.load(states + 2 * chunk * programs * BLOCK + slot)
                theta = tl.load(states + (2 * chunk + 1) * programs * BLOCK + slot)
            targets = ()
            if THRESHOLD != FIXED:
                targets = _read(target + first * stride + lanes, stride, left, inside, CHUNK)
            inputs = _read(currents + now * stride + lanes, batch * stride, left, inside, CHUNK)
            upstream = _read(gradient + now * outputs + pooled_lanes, batch * outputs_int64, left, pooled_mask, CHUNK)
            slopes = ()
            if SURROGATE == PRECOMPUTED:
                slopes = _read(derivative + now * stride + lanes, batch * stride, left, inside, CHUNK)
            membranes, thresholds = (), ()
            for t in tl.static_range(CHUNK):
                u, theta, _, v = _step(inputs[t], targets, t, rate, v, theta, membrane_decay, THRESHOLD, SOFT)
                membranes += (u,)
                thresholds += (theta,)

            for t in tl.static_range(CHUNK - 1, -1, -1):
                u, theta = membranes[t], thresholds[t]
                valid = inside & (left > t)
                upstream_t = upstream[t] * gain * 0.25 if POOLED else upstream[t]
                at = u - (resting_threshold if AT_RESTING_THRESHOLD else theta)
                h = slopes[t] if SURROGATE == PRECOMPUTED else _derivative(at, width, extra, SURROGATE)
                spike = tl.where(u - theta > 0, 1.0, 0.0)
                to_trace = upstream_t + synaptic_decay * to_trace
                to_spike = to_trace * spike_increment if EMIT == TRACES else upstream_t
                to_v = membrane_decay * to_current
                if RESET_OPEN:  # the last step's reset affects nothing, even if the membrane is infinite
                    to_spike -= tl.where(first + t + 1 < STEPS, to_v * (theta if SOFT else u), 0.0)
                to_distance = to_spike * h
                to_distance = tl.where(tl.abs(to_distance) <= SMALLEST, 0.0, to_distance)
                to_current = to_distance
                if LEAK_OPEN:
                    to_current += to_v if SOFT else to_v * (1 - spike)
                if THROUGH_THRESHOLD:
                    to_theta = (zeros if THRESHOLD == STATIC else to_theta) - to_distance
                    if SOFT and RESET_OPEN:
                        to_theta -= to_v * spike
                    to_target = to_theta
                    if THRESHOLD == ADAPTIVE:
                        to_current += rate * to_theta
                        to_rate += to_theta * (u - targets[t])
                        to_target = -rate * to_theta
                    if target_sum is not None:
                        total = target_sum + (split * STEPS + first + t) * stride + lanes
                        tl.store(total, tl.load(total, mask=valid, other=0.0) + to_target, mask=valid)
                membranes_sum += tl.where(pooled_mask & (left > t), u, 0.0)
                currents_sum += to_current
                tl.store(output + (now + t * batch) * stride + lanes, to_current, mask=valid)
        if CHUNKS > 1 or target_sum is not None:
            tl.debug_barrier()

    if adaptation_sum is not None:
        tl.store(adaptation_sum + split * stride + lanes, to_rate, mask=inside)
    if membrane_sum is not None:
        tl.store(membrane_sum + split * stride + lanes, membranes_sum, mask=inside)
    if current_sum is not None:
        tl.store(current_sum + split * stride + lanes, currents_sum, mask=inside)


@triton.jit
def _step(current, targets, t: tl.constexpr, rate, v, theta, decay, THRESHOLD: tl.constexpr, SOFT: tl.constexpr):
    """u, θ, s and the next v."""
    u = decay * v + current
    if THRESHOLD == ADAPTIVE:
        theta = theta + rate * (u - targets[t])
    if THRESHOLD == STATIC:
        theta = targets[t]
    spike = tl.where(u - theta > 0, 1.0, 0.0)
    v = u - theta * spike if SOFT else u * (1 - spike)
    return u, theta, spike, v


@triton.jit
def _read(start, stride, left, mask, CHUNK: tl.constexpr):
    """CHUNK steps in float32, zeros where fewer are left."""
    steps = ()
    for t in tl.static_range(CHUNK):
        step = tl.load(start + t * stride, mask=mask & (left > t), other=0.0)
        steps += (step.to(tl.float32),)
    return steps


@triton.jit
def _in_window(lanes, w: tl.constexpr, columns, channels):
    """The neuron at place w (0 to 3) of each pooling window: row 2y or 2y+1, column 2x or 2x+1."""
    channel, pixel = lanes % channels, lanes // channels
    x, y = pixel % (columns // 2), pixel // (columns // 2)
    return ((2 * y + w // 2) * columns + 2 * x + w % 2) * channels + channel


@triton.jit
def _pooled(lanes, inside, rows, columns, channels):
    """The window that pools each neuron, and whether one does: none pools an odd last row or column."""
    channel, pixel = lanes % channels, lanes // channels
    x, y = (pixel % columns) // 2, (pixel // columns) // 2
    return (y * (columns // 2) + x) * channels + channel, inside & (x < columns // 2) & (y < rows // 2)


@triton.jit
def _derivative(x, width, extra, SURROGATE: tl.constexpr):
    """h(x) of the surrogate.  Bounded by `where`, not by minima, to keep NaN."""
    z = tl.abs(x) / width
    if SURROGATE == SIGMOID:
        z = tl.where(z > extra, extra, z)
        e = tl.exp(-tl.where(z > LEAST_EXPONENT, LEAST_EXPONENT, z))
        h = e / (width * (1 + e) * (1 + e))
    elif SURROGATE == FAST_SIGMOID:
        h = 0.5 / (width * (1 + z) * (1 + z))
    elif SURROGATE == ARCTAN:
        h = 1 / (width * (1 + PI * z * (PI * z)))
    elif SURROGATE == PIECEWISE_LINEAR:
        h = tl.where(z >= 1, 0.0, 1 - z) / width
    elif SURROGATE == RECTANGLE:
        h = tl.where(tl.abs(x) < width * 0.5, 1 / width, 0.0)
    elif SURROGATE == EXPONENTIAL:
        h = extra * tl.exp(-tl.where(z > LEAST_EXPONENT, LEAST_EXPONENT, z))
    else:
        h = tl.full(x.shape, 1.0, tl.float32)
    return h
