/* SPDX-License-Identifier: Apache-2.0
 * batch.c: many texts, shared out over the threads of the pool one by one. Each is encoded as it would be alone. */
#include <stdatomic.h>

#include "base/status.h"
#include "base/threads.h"

typedef struct batch {
    const slm_tokenizer *tokenizer;
    const slm_text_view *texts;
    size_t count;
    const slm_encode_options *options;
    slm_tokens *tokens;
    atomic_bool failed;       /* some text did: the others need not be begun */
    atomic_flag error_is_set; /* by the first that failed */
    slm_status status;
    slm_error error;
} batch;

/* A text of a batch asks its team whether to go on, and the team asks the caller. */
static int ask_team(void *user, const slm_event *event) {
    (void)event;
    return slm_team_cancelled(user);
}

static void encode_texts(void *arg, slm_team *team) {
    batch *b = arg;
    const slm_call call = {.event = ask_team, .user = team};
    for (int64_t i; (i = slm_team_take(team, 0)) < (int64_t)b->count;) {
        if (atomic_load_explicit(&b->failed, memory_order_relaxed) || slm_team_cancelled(team)) break;
        slm_error error;
        const slm_text_view *text = &b->texts[i];
        slm_status status = slm_tokenizer_encode(b->tokenizer, text->bytes, text->size, b->options, &call, &b->tokens[i], &error);
        if (!status) continue;
        atomic_store_explicit(&b->failed, true, memory_order_relaxed);
        if (!atomic_flag_test_and_set(&b->error_is_set)) {
            b->status = status;
            b->error = error;
        }
    }
}

slm_status slm_tokenizer_encode_batch(const slm_tokenizer *tokenizer, const slm_text_view *texts, size_t count,
                                      const slm_encode_options *options, const slm_call *call, slm_tokens *tokens,
                                      slm_error *error) {
    batch b = {.tokenizer = tokenizer, .texts = texts, .count = count, .options = options, .tokens = tokens};
    atomic_init(&b.failed, false);
    atomic_flag_clear(&b.error_is_set);
    slm_clock clock;
    slm_clock_start(&clock, call);
    slm_threads_run(call ? call->threads : 0, &clock, encode_texts, &b);
    if (clock.cancelled) return slm_fail_cancelled(error);
    if (b.status) *error = b.error;
    return b.status;
}
