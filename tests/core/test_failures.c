/* SPDX-License-Identifier: Apache-2.0
 * test_failures.c: every allocation fails once, weights are wrong or not finite, calls are cancelled: nothing leaks, and models
 * and sessions stay as they were. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "check.h"
#include "slm.h"
#include "tiny_model.h"
#include "tiny_tokenizer.h"

static slm_status everything(const files *f, const slm_load_options *load, float *logits, slm_error *error) {
    slm_model *model = NULL;
    slm_session *session = NULL, *fork = NULL;
    slm_generation *generation = NULL;
    const int32_t banned[] = {1, 2};
    const float bias[] = {-INFINITY, -INFINITY};
    slm_generate_options options = {.max_tokens = 3,
                                    .temperature = 1,
                                    .top_p = 1,
                                    .typical_p = 0.9f,
                                    .presence_penalty = 1,
                                    .penalty_window = 9,
                                    .bias_ids = banned,
                                    .bias = bias,
                                    .n_bias = 2};
    slm_chunk chunk;
    slm_memory memory;
    slm_call call = {.threads = 1, .prefill_chunk = 30};
    slm_status status = slm_model_measure(&f->config, &f->weights, load, &call, &memory, error);
    if (!status) status = slm_model_load(&f->config, &f->weights, load, &call, &model, error);
    if (!status) status = slm_session_create(model, &session, error);
    if (!status) status = slm_session_forward(session, prompt, 70, SLM_LOGITS_ALL, logits, &call, error);
    if (!status) status = slm_session_fork(session, &fork, error);
    if (!status) status = slm_generation_create(fork, NULL, prompt, 5, 0, &options, &generation, error);
    if (!status) status = slm_generation_next(generation, true, &call, &chunk, error);
    const slm_prompt prompts[] = {{.tokens = prompt, .n_tokens = 40}, {.tokens = prompt, .n_tokens = 39}};
    slm_batch *batch = NULL;
    options.draft = SLM_DRAFT_LOOKUP;
    if (!status) status = slm_batch_create(model, NULL, prompts, 2, &options, &batch, error);
    if (!status) status = slm_batch_run(batch, &call, error);
    slm_batch_release(batch);
    double logprobs[3][30];
    slm_scored texts[] = {{.tokens = prompt, .n_tokens = 40, .n_scored = 30, .logprobs = logprobs[0]},
                          {.tokens = prompt, .n_tokens = 33, .n_scored = 1, .logprobs = logprobs[1]},
                          {.tokens = prompt + 1, .n_tokens = 9, .n_scored = 8, .logprobs = logprobs[2]}};
    if (!status) status = slm_score(model, texts, 3, &call, error);
    static uint8_t state[1 << 20];
    slm_saved saved = {.size = 0};
    slm_session *restored = NULL;
    if (!status) slm_session_save(session, &saved, NULL);
    if (!status) status = saved.size > sizeof state ? SLM_INTERNAL : SLM_OK;
    if (!status) slm_session_save(session, &saved, state);
    if (!status) status = slm_session_restore(model, &saved, state, &restored, error);
    slm_session_release(restored);
    batch = NULL;
    slm_tokenizer *tokenizer = status ? NULL : letters_tokenizer(error);
    if (!status && !tokenizer) status = error->status;
    options = (slm_generate_options){.max_tokens = 8, .top_p = 1};
    if (!status) status = make_constraint(tokenizer, &options.constraint, error);
    if (!status) status = slm_batch_create(model, tokenizer, prompts, 2, &options, &batch, error);
    if (!status) status = slm_batch_run(batch, &call, error);
    slm_batch_release(batch);
    slm_constraint_release(options.constraint);
    options.constraint = NULL;
    options.guided = true;
    batch = NULL;
    if (!status) status = slm_batch_create(model, tokenizer, prompts, 2, &options, &batch, error);
    slm_batch_release(batch);
    slm_tokenizer_release(tokenizer);
    slm_generation_release(generation);
    slm_session_release(fork);
    slm_session_release(session);
    slm_model_release(model);
    return status;
}

static void test_allocation_failures(const files *f, const slm_load_options *load) {
    static float expected[70 * VOCAB], found[70 * VOCAB];
    slm_error error;
    int64_t before = slm_alloc_outstanding(), k = 0;
    CHECK(everything(f, load, expected, &error) == SLM_OK && slm_alloc_outstanding() == before);
    for (int persistent = 0; persistent < 2; persistent++) {
        for (k = 0;; k++) {
            slm_alloc_fail_at(k, persistent);
            slm_status status = everything(f, load, found, &error);
            slm_alloc_fail_at(-1, 0);
            CHECK(slm_alloc_outstanding() == before);
            if (status == SLM_OK) break;
            CHECK(status == SLM_NO_MEMORY && error.status == SLM_NO_MEMORY);
        }
        CHECK(k > 50);
    }
    CHECK(!memcmp(expected, found, sizeof expected));
}

static void test_failures(files *f) {
    slm_model *model = NULL;
    slm_session *session = NULL;
    slm_error error;
    slm_config bad = f->config;
    const slm_load_options none = {0}, odd = {.context = CONTEXT, .precision = 7};
    bad.num_key_value_heads = 3;
    CHECK(slm_model_load(&bad, &f->weights, &plain, NULL, &model, &error) == SLM_BAD_ARGUMENT && !model);
    bad = f->config;
    bad.hidden_size = HIDDEN + 32;
    CHECK(slm_model_load(&bad, &f->weights, &plain, NULL, &model, &error) == SLM_BAD_ARGUMENT && !model);
    CHECK(strstr(error.message, "expected") && strstr(error.message, "found"));
    CHECK(slm_model_load(&f->config, &f->weights, &none, NULL, &model, &error) == SLM_BAD_ARGUMENT);
    CHECK(slm_model_load(&f->config, &f->weights, &odd, NULL, &model, &error) == SLM_BAD_ARGUMENT);
    slm_tensor good = f->layers[1].up_proj.weight;
    f->layers[1].up_proj.weight.offset = f->end;
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &model, &error) == SLM_BAD_DATA);
    CHECK(strstr(error.message, "up_proj") && error.index == 1);
    f->layers[1].up_proj.weight.fd = -1;
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &model, &error) == SLM_IO_ERROR && error.os_error);
    f->layers[1].up_proj.weight = good;
    const slm_load_options quantized = {.context = CONTEXT, .quantize = SLM_TYPE_Q8_0};
    const slm_type unknown[] = {SLM_TYPE_NONE, SLM_TYPE_COUNT, (slm_type)-1};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        f->layers[1].up_proj.weight.type = unknown[i];
        CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &model, &error) == SLM_UNSUPPORTED && !model);
        CHECK(slm_model_load(&f->config, &f->weights, &quantized, NULL, &model, &error) == SLM_UNSUPPORTED && !model);
    }
    f->layers[1].up_proj.weight = good;
    f->layers[1].up_proj.weight.transposed_ld = INT64_MAX;
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &model, &error) == SLM_BAD_ARGUMENT && !model);
    f->layers[1].up_proj.weight = good;
    int events = 0;
    slm_call stop = {.event = always_stop, .user = &events};
    CHECK(slm_model_load(&f->config, &f->weights, &plain, &stop, &model, &error) == SLM_CANCELLED && !model && events == 1);

    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &model, &error) == SLM_OK);
    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    float logits[VOCAB], again[VOCAB];
    CHECK(slm_session_forward(session, prompt, 66, SLM_NO_OUTPUT, NULL, NULL, &error) == SLM_OK);
    CHECK(slm_session_forward(session, prompt + 66, 1, SLM_LOGITS_LAST, logits, NULL, &error) == SLM_OK);
    CHECK(slm_session_rewind(session, 66, &error) == SLM_OK);
    CHECK(slm_session_forward(session, prompt + 66, 300, SLM_LOGITS_LAST, again, &stop, &error) == SLM_CANCELLED);
    CHECK(slm_session_length(session) == 66);
    int32_t wrong[2] = {3, VOCAB};
    CHECK(slm_session_forward(session, wrong, 2, SLM_LOGITS_LAST, again, NULL, &error) == SLM_BAD_ARGUMENT && error.index == 1);
    CHECK(slm_session_forward(session, wrong, 0, SLM_LOGITS_LAST, again, NULL, &error) == SLM_BAD_ARGUMENT);
    CHECK(slm_session_forward(session, prompt + 66, 1, SLM_LOGITS_LAST, again, NULL, &error) == SLM_OK);
    CHECK(!memcmp(logits, again, sizeof logits));
    slm_session_release(session);
    slm_model_release(model);
}

/* A NaN in one row of up_proj reaches the logits as an error, never as a token; the session survives it. */
static void test_not_a_number(slm_kv_type kv) {
    const slm_load_options options = {.context = CONTEXT, .kv = kv};
    files f;
    write_files(&f, SLM_TYPE_Q8_0, true);
    uint16_t nan = 0x7e00;
    CHECK(pwrite(f.fd, &nan, 2, (off_t)f.layers[0].up_proj.weight.offset + 34 * 9) == 2);
    slm_model *model = NULL;
    slm_session *session = NULL;
    slm_error error;
    float logits[3 * VOCAB];
    CHECK(slm_model_load(&f.config, &f.weights, &options, NULL, &model, &error) == SLM_OK);
    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    for (int i = 0; i < 2; i++) {
        CHECK(slm_session_forward(session, prompt, 3, SLM_LOGITS_ALL, logits, NULL, &error) == SLM_NOT_A_NUMBER &&
              error.index == 0);
        CHECK(slm_session_forward(session, prompt, 3, SLM_LOGITS_LAST, logits, NULL, &error) == SLM_NOT_A_NUMBER &&
              error.index == 0);
        CHECK(slm_session_forward(session, prompt, 3, SLM_NO_OUTPUT, NULL, NULL, &error) == SLM_NOT_A_NUMBER && error.index == 0);
        CHECK(slm_session_length(session) == 0);
    }
    slm_session_release(session);
    slm_model_release(model);
    close(f.fd);

    /* One token's embedding is not finite: after it failed, the others give what they give in a session that never saw
     * it. */
    write_files(&f, SLM_TYPE_Q8_0, false);
    CHECK(pwrite(f.fd, &nan, 2, (off_t)f.weights.embed_tokens.offset + 34 * 2 * 7) == 2);
    CHECK(slm_model_load(&f.config, &f.weights, &options, NULL, &model, &error) == SLM_OK);
    float expected[VOCAB];
    const int32_t good[] = {1, 2, 3, 4, 5}, bad[] = {1, 2, 3, 4, 7, 7};
    for (int i = 0; i < 2; i++) {
        CHECK(slm_session_create(model, &session, &error) == SLM_OK);
        if (i) CHECK(slm_session_forward(session, bad, 6, SLM_NO_OUTPUT, NULL, NULL, &error) == SLM_NOT_A_NUMBER);
        CHECK(slm_session_forward(session, good, 4, SLM_NO_OUTPUT, NULL, NULL, &error) == SLM_OK);
        if (i)
            CHECK(slm_session_forward(session, bad + 4, 1, SLM_NO_OUTPUT, NULL, NULL, &error) == SLM_NOT_A_NUMBER &&
                  error.index == 4);
        CHECK(slm_session_forward(session, good + 4, 1, SLM_LOGITS_LAST, i ? logits : expected, NULL, &error) == SLM_OK);
        slm_session_release(session);
    }
    CHECK(!memcmp(logits, expected, sizeof expected));
    slm_model_release(model);
    close(f.fd);
}

/* A token that is not finite, out of all windows before the last one: the call fails in one step as in many. */
static void test_not_a_number_behind_a_window(void) {
    files f;
    write_files(&f, SLM_TYPE_Q8_0, false);
    uint16_t nan = 0x7e00;
    CHECK(pwrite(f.fd, &nan, 2, (off_t)f.weights.embed_tokens.offset + 34 * 2 * 7) == 2);
    for (int i = 0; i < LAYERS; i++) f.layers[i].sliding_window = 2;
    static float logits[VOCAB];
    int32_t tokens[90];
    slm_model *model = NULL;
    slm_session *session = NULL;
    slm_error error;
    for (int i = 0; i < 90; i++) tokens[i] = i == 5 ? 7 : 1;
    CHECK(slm_model_load(&f.config, &f.weights, &plain, NULL, &model, &error) == SLM_OK);
    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    const slm_output outputs[] = {SLM_NO_OUTPUT, SLM_LOGITS_LAST, SLM_HIDDEN_LAST, SLM_LOGITS_LAST};
    for (int i = 0; i < 4; i++) {
        slm_call call = {.prefill_chunk = i < 3 ? 0 : 1};
        slm_status status = slm_session_forward(session, tokens, 90, outputs[i], logits, &call, &error);
        CHECK(status == SLM_NOT_A_NUMBER && error.index <= 5 && slm_session_length(session) == 0);
    }
    CHECK(slm_session_forward(session, tokens, 5, SLM_LOGITS_LAST, logits, NULL, &error) == SLM_OK);
    slm_session_release(session);
    slm_model_release(model);
    close(f.fd);
}

static void test_type(files *f, slm_type type) {
    const slm_load_options quantized = {.context = CONTEXT, .quantize = SLM_TYPE_Q5_1};
    if (type == SLM_TYPE_Q4_1 || type == SLM_TYPE_F32) test_allocation_failures(f, &plain);
    if (type == SLM_TYPE_BF16) test_allocation_failures(f, &quantized);
    test_failures(f);
}

int main(int argc, char **argv) {
    slm_error error;
    CHECK(slm_init(getenv("SLM_ISA"), &error) == SLM_OK);
    each_type(argc, argv, test_type);
    test_not_a_number(SLM_KV_BF16);
    test_not_a_number(SLM_KV_INT8);
    test_not_a_number_behind_a_window();
    return finish();
}
