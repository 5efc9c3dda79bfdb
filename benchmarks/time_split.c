/* SPDX-License-Identifier: Apache-2.0
 * time_split.c: where a token's time goes, as the calling thread sees it. time_split.py links slm._core once more with this file
 * and the linker's --wrap for the functions below, so that the core is the product's own, with a clock around its ops.
 *
 * Times are exclusive: a part's clock stands while another part runs inside it. They begin anew when a generation's first token
 * is drawn, so that what is read after a generation is its decoding. */
#include <string.h>

#include "generate/sequence.h"
#include "model/decoder.h"
#include "ops/attention.h"
#include "ops/rope.h"

typedef enum part {
    OUTSIDE, /* Python, and its boundary */
    LOOP,    /* the token loop's own work, and that of the session */
    REGION,  /* waking the other threads, and waiting for them at the end */
    STEP,    /* the decoder's own work: embedding, adding, what enters the cache */
    MATRICES,
    ATTENTION,
    VECTORS, /* norms, rope, activations into int8 */
    HEAD,    /* the output layer, and finding the largest logits */
    BARRIERS,
    DRAWING, /* a token from its logits, and its text */
    PARTS
} part;

static _Thread_local struct {
    double seconds[PARTS];
    double since;
    part now;
    bool decoding;
} split;

static part enter(part next) {
    double time = slm_seconds();
    part before = split.now;
    split.seconds[before] += time - split.since;
    split.since = time;
    split.now = next;
    return before;
}

static void begin_anew(void) {
    memset(split.seconds, 0, sizeof split.seconds);
    split.since = slm_seconds();
}

/* seconds: [PARTS], of the calling thread since its last generation drew its first token. */
__attribute__((visibility("default"))) void slm_time_split(double *seconds);
void slm_time_split(double *seconds) {
    enter(split.now);
    memcpy(seconds, split.seconds, sizeof split.seconds);
}

/* The types are the headers' own, so that the compiler refuses a wrapper that no longer fits. */
#define WRAP(PART, NAME, PARAMETERS, ARGUMENTS)                                                                                  \
    __typeof__(NAME) __real_##NAME, __wrap_##NAME;                                                                               \
    void __wrap_##NAME PARAMETERS {                                                                                              \
        part before = enter(PART);                                                                                               \
        __real_##NAME ARGUMENTS;                                                                                                 \
        enter(before);                                                                                                           \
    }
#define WRAP_RESULT(PART, TYPE, NAME, PARAMETERS, ARGUMENTS)                                                                     \
    __typeof__(NAME) __real_##NAME, __wrap_##NAME;                                                                               \
    TYPE __wrap_##NAME PARAMETERS {                                                                                              \
        part before = enter(PART);                                                                                               \
        TYPE result = __real_##NAME ARGUMENTS;                                                                                   \
        enter(before);                                                                                                           \
        return result;                                                                                                           \
    }

WRAP(REGION, slm_threads_run, (int threads, slm_clock *clock, slm_region body, void *arg), (threads, clock, body, arg))
WRAP(BARRIERS, slm_team_barrier, (slm_team * team), (team))
WRAP(STEP, slm_decoder_step, (slm_step * step, slm_team *team), (step, team))
WRAP(MATRICES, slm_linear_run,
     (const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linears *linears, const slm_linears *next,
      const slm_linear_scratch *scratch),
     (kernels, team, input, linears, next, scratch))
WRAP(ATTENTION, slm_attention_run,
     (const slm_kernels *kernels, slm_team *team, const slm_attention *attention, const slm_attention_scratch *scratch),
     (kernels, team, attention, scratch))
WRAP(VECTORS, slm_linear_prepare,
     (const slm_kernels *kernels, slm_team *team, slm_input *input, const slm_linears *linears, int64_t first, int64_t last),
     (kernels, team, input, linears, first, last))
WRAP(VECTORS, slm_norm_run, (const slm_kernels *kernels, const slm_norm *norm, const float *x, float *y), (kernels, norm, x, y))
WRAP(VECTORS, slm_norm_heads, (const slm_kernels *kernels, const slm_norm *norm, float *x, int64_t first, int64_t n_heads),
     (kernels, norm, x, first, n_heads))
WRAP(VECTORS, slm_rope, (float *x, const float *table, int64_t half, slm_rope_style style), (x, table, half, style))
WRAP_RESULT(HEAD, bool, slm_head_choose,
            (const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_head *head, slm_choice *choices,
             const slm_linear_scratch *scratch),
            (kernels, team, input, head, choices, scratch))
WRAP_RESULT(LOOP, slm_status, slm_generation_next,
            (slm_generation * generation, bool whole, const slm_call *call, slm_chunk *chunk, slm_error *error),
            (generation, whole, call, chunk, error))

__typeof__(slm_generation_create) __real_slm_generation_create, __wrap_slm_generation_create;
slm_status __wrap_slm_generation_create(slm_session *session, slm_tokenizer *tokenizer, const int32_t *prompt, int64_t n_prompt,
                                        int64_t n_held, const slm_generate_options *options, slm_generation **generation,
                                        slm_error *error) {
    split.decoding = false;
    return __real_slm_generation_create(session, tokenizer, prompt, n_prompt, n_held, options, generation, error);
}

__typeof__(slm_sequence_accept) __real_slm_sequence_accept, __wrap_slm_sequence_accept;
slm_status __wrap_slm_sequence_accept(slm_sequence *sequence, slm_rules *rules, slm_session *session, int64_t first_row,
                                      slm_clock *clock, slm_error *error) {
    part before = enter(DRAWING);
    slm_status status = __real_slm_sequence_accept(sequence, rules, session, first_row, clock, error);
    enter(before);
    if (!split.decoding) begin_anew();
    split.decoding = true;
    return status;
}
