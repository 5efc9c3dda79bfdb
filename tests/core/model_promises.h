/* SPDX-License-Identifier: Apache-2.0
 * model_promises.h: what holds of every model, with adapters and windows too: the bits do not depend on threads, chunks, forks,
 * rewinds and other sessions in the same step, and what is generated is what the logits say. */
#ifndef SLM_TESTS_MODEL_PROMISES_H
#define SLM_TESTS_MODEL_PROMISES_H

#include <string.h>

#include "check.h"
#include "model/session.h"
#include "slm.h"
#include "tiny_model.h"

static inline void test_bits(slm_model *model) {
    static float expected[PROMPT * VOCAB], found[PROMPT * VOCAB];
    const int64_t chunks[] = {1, 7, 32, 257};
    slm_error error;
    CHECK(run(model, PROMPT, 1, PROMPT, expected));
    for (int i = 0; i < 8; i++) {
        memset(found, 0, sizeof found);
        CHECK(run(model, chunks[i / 2], 1 + i % 2, PROMPT, found));
        CHECK(!memcmp(expected, found, sizeof expected));
    }
    for (int i = 0; i < VOCAB; i++) CHECK(expected[i] != expected[VOCAB + i]); /* not all the same */

    /* A fork and its parent write the same shared page differently; a rewind goes back over a page border. */
    slm_session *session = NULL, *fork = NULL;
    float a[VOCAB], b[VOCAB];
    int32_t other = (prompt[100] + 1) % VOCAB;
    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    CHECK(slm_session_forward(session, prompt, 100, SLM_NO_OUTPUT, NULL, NULL, &error) == SLM_OK);
    CHECK(slm_session_fork(session, &fork, &error) == SLM_OK && slm_session_length(fork) == 100);
    CHECK(slm_session_forward(fork, &other, 1, SLM_LOGITS_LAST, b, NULL, &error) == SLM_OK);
    CHECK(slm_session_forward(session, prompt + 100, 1, SLM_LOGITS_LAST, a, NULL, &error) == SLM_OK);
    CHECK(!memcmp(a, expected + 100 * VOCAB, sizeof a) && memcmp(a, b, sizeof a));
    CHECK(slm_session_rewind(fork, 60, &error) == SLM_OK && slm_session_rewind(fork, 61, &error) == SLM_BAD_ARGUMENT);
    CHECK(slm_session_forward(fork, prompt + 60, 500, SLM_LOGITS_LAST, b, NULL, &error) == SLM_OK);
    CHECK(!memcmp(b, expected + 559 * VOCAB, sizeof b));
    CHECK(slm_session_forward(session, prompt + 101, 100, SLM_LOGITS_LAST, a, NULL, &error) == SLM_OK);
    CHECK(!memcmp(a, expected + 200 * VOCAB, sizeof a));
    slm_session_release(session);
    slm_session_release(fork);
}

/* Tokens of three sessions together, some behind others, in steps of any width: each session's logits and its cache are
 * the same bits as alone; stopped before the end, all are as before. */
static inline void test_parts(slm_model *model) {
    static float expected[3][20 * VOCAB], found[60 * VOCAB];
    const int64_t held[] = {0, 70, 3}, counts[] = {20, 1, 13}, n_outputs[] = {1, 1, 13};
    slm_error error;
    for (int64_t chunk = 0; chunk < 9; chunk++) {
        slm_part parts[3];
        float after[2][VOCAB];
        slm_clock clock;
        int64_t failed;
        int events = 0;
        slm_call call = {.threads = 1 + (int)chunk % 3, .prefill_chunk = chunk};
        slm_call stop = {.event = always_stop, .user = &events, .prefill_chunk = 11};
        for (int i = 0; i < 3; i++) {
            slm_session *session = NULL;
            CHECK(slm_session_create(model, &session, &error) == SLM_OK);
            if (held[i]) CHECK(!slm_session_forward(session, prompt, held[i], SLM_NO_OUTPUT, NULL, NULL, &error));
            parts[i] =
                (slm_part){.session = session, .tokens = prompt + held[i] + i, .n_tokens = counts[i], .n_outputs = n_outputs[i]};
            slm_session *alone = NULL;
            CHECK(slm_session_fork(session, &alone, &error) == SLM_OK);
            CHECK(!slm_session_forward(alone, parts[i].tokens, counts[i], SLM_LOGITS_ALL, expected[i], NULL, &error));
            slm_session_release(alone);
        }
        slm_clock_start(&clock, &stop);
        CHECK(slm_session_run(parts, 3, false, found, NULL, &stop, &clock, &failed, &error) == SLM_CANCELLED);
        for (int i = 0; i < 3; i++) CHECK(slm_session_length(parts[i].session) == held[i]);
        slm_clock_start(&clock, &call);
        CHECK(slm_session_run(parts, 3, false, found, NULL, &call, &clock, &failed, &error) == SLM_OK);
        const float *row = found;
        for (int i = 0; i < 3; i++) {
            const float *last = expected[i] + (counts[i] - n_outputs[i]) * VOCAB;
            CHECK(!memcmp(row, last, (size_t)(n_outputs[i] * VOCAB) * sizeof *row));
            row += n_outputs[i] * VOCAB;
            slm_session *again = NULL;
            CHECK(slm_session_create(model, &again, &error) == SLM_OK);
            if (held[i]) CHECK(!slm_session_forward(again, prompt, held[i], SLM_NO_OUTPUT, NULL, NULL, &error));
            CHECK(!slm_session_forward(again, parts[i].tokens, counts[i], SLM_NO_OUTPUT, NULL, NULL, &error));
            CHECK(!slm_session_forward(again, prompt, 1, SLM_LOGITS_LAST, after[0], NULL, &error));
            CHECK(!slm_session_forward(parts[i].session, prompt, 1, SLM_LOGITS_LAST, after[1], NULL, &error));
            CHECK(!memcmp(after[0], after[1], sizeof after[0]));
            slm_session_release(again);
            slm_session_release(parts[i].session);
        }
    }
}

static inline void test_generation(slm_model *model) {
    slm_error error;
    slm_session *session = NULL;
    slm_generation *generation = NULL;
    slm_generate_options options = {.max_tokens = 20, .top_p = 1};
    slm_chunk chunk;
    int32_t greedy[20];
    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
    for (int i = 0; i < 20; i++) {
        CHECK(slm_generation_next(generation, false, NULL, &chunk, &error) == SLM_OK && chunk.n_tokens == 1);
        CHECK(chunk.finish == (i == 19 ? SLM_FINISH_LENGTH : SLM_FINISH_NONE));
        greedy[i] = chunk.tokens[0];
    }
    CHECK(slm_session_length(session) == 9 + 19); /* the last token has not been run */
    slm_generation_release(generation);

    /* The definition: the largest logit after everything so far. */
    float logits[VOCAB];
    CHECK(slm_session_rewind(session, 0, &error) == SLM_OK);
    CHECK(slm_session_forward(session, prompt, 9, SLM_LOGITS_LAST, logits, NULL, &error) == SLM_OK);
    for (int i = 0; i < 20; i++) {
        int best = 0;
        for (int j = 1; j < VOCAB; j++) best = logits[j] > logits[best] ? j : best;
        CHECK(greedy[i] == best);
        CHECK(slm_session_forward(session, &greedy[i], 1, SLM_LOGITS_LAST, logits, NULL, &error) == SLM_OK);
    }

    /* An end token ends it and is not part of it; ignore_eos goes on. */
    int repeats = 0;
    for (int i = 0; i < 7; i++) repeats += greedy[i] == greedy[7];
    options.end_tokens = &greedy[7];
    options.n_end_tokens = 1;
    for (int ignore = 0; ignore < 2 && !repeats; ignore++) {
        options.ignore_eos = ignore;
        CHECK(slm_session_rewind(session, 0, &error) == SLM_OK);
        CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
        CHECK(slm_generation_next(generation, true, NULL, &chunk, &error) == SLM_OK);
        CHECK(chunk.n_tokens == (ignore ? 20 : 7) && chunk.finish == (ignore ? SLM_FINISH_LENGTH : SLM_FINISH_STOP));
        CHECK(!memcmp(chunk.tokens, greedy, chunk.n_tokens * sizeof *greedy));
        slm_generation_release(generation);
    }

    /* A seed gives the same tokens, another seed others; cancelled, it goes on where it was. */
    int32_t sampled[3][20];
    for (int i = 0; i < 3; i++) {
        int events = 0;
        slm_call stop = {.event = always_stop, .user = &events};
        options = (slm_generate_options){.max_tokens = 20, .temperature = 1.5f, .top_k = 50, .top_p = 0.95f, .seed = 7 + i / 2};
        CHECK(slm_session_rewind(session, 0, &error) == SLM_OK);
        CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
        CHECK(slm_generation_next(generation, true, &stop, &chunk, &error) == SLM_CANCELLED && events == 1);
        CHECK(slm_session_length(session) == 0);
        CHECK(slm_generation_next(generation, true, NULL, &chunk, &error) == SLM_OK && chunk.n_tokens == 20);
        memcpy(sampled[i], chunk.tokens, sizeof sampled[i]);
        for (int j = 0; j < 20; j++) CHECK(sampled[i][j] >= 0 && sampled[i][j] < VOCAB);
        slm_generation_release(generation);
    }
    CHECK(!memcmp(sampled[0], sampled[1], sizeof sampled[0]) && memcmp(sampled[0], sampled[2], sizeof sampled[0]));

    /* The end of the context ends a generation; a prompt that does not fit is refused. */
    options = (slm_generate_options){.max_tokens = 1000, .top_p = 1};
    CHECK(slm_session_rewind(session, 0, &error) == SLM_OK);
    CHECK(slm_generation_create(session, NULL, prompt, PROMPT, 0, &options, &generation, &error) == SLM_OK);
    CHECK(slm_generation_next(generation, true, NULL, &chunk, &error) == SLM_OK && chunk.finish == SLM_FINISH_LENGTH);
    CHECK(chunk.n_tokens == CONTEXT - PROMPT + 1 && slm_session_length(session) == CONTEXT);
    slm_generation_release(generation);
    CHECK(slm_session_forward(session, prompt, 1, SLM_NO_OUTPUT, NULL, NULL, &error) == SLM_CONTEXT_FULL);
    slm_session_release(session);
}

#endif
