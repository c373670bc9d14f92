/* Written by declarations.py, which says what the fields are and how to write this file anew. */

enum { TRACES = 0, SPIKES = 1, DISTANCE = 2, MEMBRANE = 3, KEPT = 4 };
enum { FIXED = 0, ADAPTIVE = 1, STATIC = 2 };
enum { SIGMOID = 0, FAST_SIGMOID = 1, ARCTAN = 2, PIECEWISE_LINEAR = 3, RECTANGLE = 4, EXPONENTIAL = 5, STRAIGHT_THROUGH = 6, GIVEN = 7 };

#define SMALLEST 1.17549435e-38f
#define LEAST_EXPONENT 87.0f

typedef struct {
    int64_t steps, batch, neurons; /* T, B, N */
    int64_t rows, columns, channels; /* of the neurons, where pooled; channels = 0: no pooling */
    int64_t samples; /* that ASSG remembers */
    float membrane_decay, synaptic_decay; /* 1 - 1/tau_m, 1 - 1/tau_s */
    float trace_of_spike, rest; /* 1/tau_s, threshold[0] */
    float gain; /* of the pooled mean */
    float input_decay, input_tau; /* 1 - 1/tau, tau of the filter of a constant input */
    float relax; /* of ASSG */
    float width, extra; /* of the surrogate; its clamp or its peak */
    int32_t soft, emit, bfloat16, surrogate; /* reset; output; type of currents and output */
    int32_t leak, reset, threshold; /* whether these paths carry a gradient */
    int32_t at_rest; /* whether the surrogate is evaluated at u - threshold[0] */
    int32_t constant_steps; /* not 0: one input [B][N] for all time steps, through a synaptic filter */
    int32_t learning; /* whether ASSG remembers these distances */
} Neuron;

typedef struct {
    const void *currents; /* [T][B][N], or [B][N] of a constant input */
    const float *target; /* u* [T][N]; the thresholds themselves where there is no k; NULL: fixed threshold */
    const float *adaptation; /* k [N]; NULL: thresholds do not adapt */
    const float *initial; /* state of a constant input's filter before the first step [N]; NULL: 0 */
    const void *derivative; /* h [T][B][N], for the surrogate GIVEN */
    const void *gradient; /* dL/d output */
    void *output; /* forward: as `emit` says; backward: dL/d currents */
    float *adaptation_gradient; /* [N], sum over T and B; NULL if not asked for, as the following */
    float *target_gradient; /* [T][N] */
    float *initial_gradient; /* [N] */
    float *membrane_sum, *current_sum; /* [N], of u and of dL/d currents over T and B */
    float *mean, *deviation; /* [T][samples][N], what ASSG remembers */
    const int64_t *sample_rows; /* [B], which of the samples these are */
    const float *keep, *scale; /* [B], weight of what is remembered; a of each sample */
} Arrays;
