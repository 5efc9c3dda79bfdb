/* SPDX-License-Identifier: Apache-2.0
 * test_model.c: a model from plain structs, without Python: what it promises, windows, texts read in both directions,
 * activations, scores. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "model_promises.h"
#include "slm.h"
#include "tiny_model.h"

/* Of a key or a value. */
static size_t head_bytes(slm_kv_type kv) {
    return kv == SLM_KV_F32 ? HEAD_DIM * 4 : kv == SLM_KV_BF16 ? HEAD_DIM * 2 : HEAD_DIM + 4;
}

static void test_stats(const slm_model *model, slm_kv_type kv) {
    slm_model_stats stats;
    slm_model_describe(model, &stats);
    CHECK(stats.kv == kv && stats.vocab_size == VOCAB && stats.context == CONTEXT);
    CHECK(stats.kv_bytes == (size_t)(CONTEXT + 63) / 64 * 64 * LAYERS * KV_HEADS * 2 * head_bytes(kv));
}

/* ---- windows --------------------------------------------------------------------------------------------------------------- */

typedef struct watch {
    slm_session *session;
    size_t most;      /* bytes of keys and values held after a chunk, before pages are dropped */
    uint64_t stop_at; /* tokens */
} watch;

static int watch_pages(void *user, const slm_event *event) {
    watch *w = user;
    if (event->kind != SLM_EVENT_PROGRESS) return 0;
    size_t held = slm_session_kv_bytes(w->session);
    w->most = held > w->most ? held : w->most;
    return event->done >= w->stop_at;
}

/* Pages out of a window's reach go, also in the middle of a prompt; cancelled, those of the beginning are still there. */
static void test_windows(files *f, slm_kv_type kv) {
    static float expected[PROMPT * VOCAB], found[PROMPT * VOCAB];
    const int64_t windows[LAYERS] = {100, 0, 24};
    for (int i = 0; i < LAYERS; i++) f->layers[i].sliding_window = windows[i];
    slm_model *model = NULL;
    slm_session *session = NULL, *fork = NULL;
    slm_model_stats stats;
    slm_error error;
    const slm_load_options options = {.context = CONTEXT, .kv = kv};
    CHECK(slm_model_load(&f->config, &f->weights, &options, NULL, &model, &error) == SLM_OK);
    test_bits(model);
    slm_model_describe(model, &stats);
    slm_memory memory;
    CHECK(slm_model_measure(&f->config, &f->weights, &options, NULL, &memory, &error) == SLM_OK);
    CHECK(stats.kv_bytes == memory.kv_bytes && stats.weight_bytes == memory.weight_bytes && memory.kv == kv);
    CHECK(stats.kv_bytes < (size_t)(CONTEXT + 63) / 64 * 64 * LAYERS * KV_HEADS * 2 * head_bytes(kv));
    CHECK(run(model, PROMPT, 1, PROMPT, expected));

    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    watch w = {.session = session, .stop_at = UINT64_MAX};
    slm_call call = {.event = watch_pages, .user = &w, .prefill_chunk = 32};
    CHECK(slm_session_forward(session, prompt, 300, SLM_LOGITS_ALL, found, &call, &error) == SLM_OK);
    size_t at_300 = slm_session_kv_bytes(session);
    CHECK(at_300 < w.most && w.most < stats.kv_bytes);
    CHECK(slm_session_fork(session, &fork, &error) == SLM_OK && slm_session_kv_bytes(fork) == at_300);
    w.stop_at = 290;
    CHECK(slm_session_forward(session, prompt + 300, 300, SLM_NO_OUTPUT, NULL, &call, &error) == SLM_CANCELLED);
    CHECK(slm_session_length(session) == 300 && slm_session_kv_bytes(session) == at_300 && w.most < stats.kv_bytes);
    CHECK(slm_session_forward(session, prompt + 300, 300, SLM_LOGITS_ALL, found + 300 * VOCAB, NULL, &error) == SLM_OK);
    CHECK(!memcmp(expected, found, sizeof expected));
    memset(found + 300 * VOCAB, 0, 300 * VOCAB * sizeof(float));
    CHECK(slm_session_forward(fork, prompt + 300, 300, SLM_LOGITS_ALL, found + 300 * VOCAB, NULL, &error) == SLM_OK);
    CHECK(!memcmp(expected, found, sizeof expected));

    int64_t limit = slm_session_rewind_limit(session);
    CHECK(limit == (600 - 64 - 24 + 1) / 64 * 64 + 24 - 1 && limit <= 600 - 64);
    CHECK(slm_session_rewind(session, limit - 1, &error) == SLM_BAD_ARGUMENT && slm_session_length(session) == 600);
    CHECK(slm_session_rewind(session, limit, &error) == SLM_OK);
    CHECK(slm_session_forward(session, prompt + limit, 600 - limit, SLM_LOGITS_ALL, found, NULL, &error) == SLM_OK);
    CHECK(!memcmp(expected + limit * VOCAB, found, (size_t)((600 - limit) * VOCAB) * sizeof *found));
    CHECK(slm_session_rewind(session, 0, &error) == SLM_OK && slm_session_kv_bytes(session) == 0);
    slm_session_release(session);
    slm_session_release(fork);
    slm_model_release(model);
}

/* ---- bidirectional --------------------------------------------------------------------------------------------------------- */

/* Every token sees the whole text, which runs as one step however long; the model gives hidden states and no logits. */
static void test_bidirectional(files *f) {
    static float expected[PROMPT * HIDDEN], found[PROMPT * HIDDEN], causal[PROMPT * HIDDEN];
    const slm_load_options options = {.context = CONTEXT, .kv = SLM_KV_BF16};
    slm_model *model = NULL;
    slm_session *session = NULL;
    slm_model_stats stats;
    slm_error error;
    int events = 0;
    slm_call stop = {.event = always_stop, .user = &events};
    CHECK(slm_model_load(&f->config, &f->weights, &options, NULL, &model, &error) == SLM_OK);
    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    CHECK(slm_session_forward(session, prompt, PROMPT, SLM_HIDDEN_ALL, causal, NULL, &error) == SLM_OK);
    CHECK(slm_session_rewind(session, 0, &error) == SLM_OK);
    CHECK(slm_session_forward(session, prompt, PROMPT, SLM_HIDDEN_LAST, found, NULL, &error) == SLM_OK);
    CHECK(!memcmp(causal + (PROMPT - 1) * HIDDEN, found, HIDDEN * sizeof *found));
    slm_session_release(session);
    slm_model_release(model);

    f->config.bidirectional = true;
    CHECK(slm_model_load(&f->config, &f->weights, &options, NULL, &model, &error) == SLM_OK);
    slm_model_describe(model, &stats);
    CHECK(stats.bidirectional && stats.hidden_size == HIDDEN);
    for (int i = 0; i < 4; i++) {
        slm_call call = {.threads = 1 + i % 2, .prefill_chunk = i < 2 ? 0 : 7};
        CHECK(slm_session_create(model, &session, &error) == SLM_OK);
        CHECK(slm_session_forward(session, prompt, PROMPT, SLM_HIDDEN_ALL, found, &stop, &error) == SLM_CANCELLED);
        CHECK(slm_session_length(session) == 0 && slm_session_kv_bytes(session) == 0);
        CHECK(slm_session_forward(session, prompt, PROMPT, SLM_LOGITS_LAST, found, &call, &error) == SLM_UNSUPPORTED);
        CHECK(slm_session_forward(session, prompt, PROMPT, SLM_HIDDEN_ALL, i ? found : expected, &call, &error) == SLM_OK);
        CHECK(slm_session_forward(session, prompt, 1, SLM_HIDDEN_ALL, causal, &call, &error) == SLM_BAD_ARGUMENT);
        if (i) CHECK(!memcmp(expected, found, sizeof found));
        slm_session_release(session);
    }
    for (int i = 0; i < PROMPT * HIDDEN; i += HIDDEN) CHECK(expected[i] != causal[i]);
    slm_model_release(model);
    model = NULL;
    f->layers[1].sliding_window = 5;
    CHECK(slm_model_load(&f->config, &f->weights, &options, NULL, &model, &error) == SLM_UNSUPPORTED && !model);
    f->layers[1].sliding_window = 0;
    f->weights.lm_head.weight = f->weights.embed_tokens;
    CHECK(slm_model_load(&f->config, &f->weights, &options, NULL, &model, &error) == SLM_UNSUPPORTED && !model);
}

/* ---- activations ----------------------------------------------------------------------------------------------------------- */

typedef struct edits {
    int64_t n, stop; /* events so far; the one that cancels, -1: none */
} edits;

/* Changes nothing, but in the padding of a row nothing may stand. */
static int on_activation(void *user, const slm_event *event) {
    edits *e = user;
    if (event->kind != SLM_EVENT_ACTIVATION) return 0;
    for (int64_t i = 0; i < event->n_rows; i++) {
        for (int64_t j = event->hidden_size; j < event->ld; j++) CHECK(event->rows[i * event->ld + j] == 0);
    }
    return e->n++ == e->stop;
}

/* All sites captured behind edits that change nothing: the same logits, and what is captured is the same for any step. */
static void test_activations(slm_model *model) {
    enum { TOKENS = 70, PASSES = 4, ROWS = TOKENS * HIDDEN, WEIGHTS = HEADS * TOKENS * TOKENS, SITES = LAYERS * 5 + 2 };
    static float logits[2][TOKENS * VOCAB], rows[PASSES][SITES * ROWS + LAYERS * WEIGHTS], again[TOKENS * VOCAB];
    const int64_t chunks[PASSES] = {0, 1, 7, 64};
    slm_error error;
    CHECK(run(model, 0, 1, TOKENS, logits[0]));
    for (int pass = 0; pass < PASSES; pass++) {
        slm_tap taps[2 * SITES + LAYERS];
        edits e = {.stop = -1};
        size_t n = 0;
        float *to = rows[pass];
        for (int site = SLM_SITE_EMBED; site <= SLM_SITE_FINAL_NORM; site++) {
            int n_layers = site == SLM_SITE_EMBED || site == SLM_SITE_FINAL_NORM ? 1 : LAYERS;
            for (int layer = 0; layer < n_layers; layer++) {
                bool weights = site == SLM_SITE_ATTN_WEIGHTS;
                if (!weights) taps[n++] = (slm_tap){.site = site, .layer = layer};
                taps[n++] = (slm_tap){.site = site, .layer = layer, .rows = to};
                to += weights ? WEIGHTS : ROWS;
            }
        }
        slm_session *session = NULL;
        slm_call call = {.event = on_activation,
                         .user = &e,
                         .threads = 1 + pass % 3,
                         .prefill_chunk = chunks[pass],
                         .taps = taps,
                         .n_taps = n};
        CHECK(slm_session_create(model, &session, &error) == SLM_OK);
        CHECK(slm_session_forward(session, prompt, TOKENS, SLM_LOGITS_ALL, logits[1], &call, &error) == SLM_OK);
        CHECK(!memcmp(logits[0], logits[1], sizeof logits[0]));
        CHECK(!memcmp(rows[0], rows[pass], sizeof rows[0]));
        int64_t n_steps = chunks[pass] ? (TOKENS + chunks[pass] - 1) / chunks[pass] : 1;
        CHECK(e.n == n_steps * SITES);
        slm_session_release(session);
    }
    /* Stopped at some site, the session is as before. */
    for (int64_t stop = 0; stop < SITES; stop += 3) {
        edits e = {.stop = stop};
        slm_tap taps[SITES];
        size_t n = 0;
        for (int site = SLM_SITE_EMBED; site <= SLM_SITE_FINAL_NORM; site++) {
            int n_layers = site == SLM_SITE_EMBED || site == SLM_SITE_FINAL_NORM ? 1 : LAYERS;
            for (int layer = 0; layer < n_layers && site != SLM_SITE_ATTN_WEIGHTS; layer++)
                taps[n++] = (slm_tap){.site = site, .layer = layer};
        }
        slm_session *session = NULL;
        slm_call call = {.event = on_activation, .user = &e, .threads = 1 + (int)stop % 2, .taps = taps, .n_taps = n};
        CHECK(slm_session_create(model, &session, &error) == SLM_OK);
        CHECK(slm_session_forward(session, prompt, TOKENS, SLM_LOGITS_ALL, again, &call, &error) == SLM_CANCELLED);
        CHECK(e.n == stop + 1 && slm_session_length(session) == 0);
        CHECK(slm_session_forward(session, prompt, TOKENS, SLM_LOGITS_ALL, again, NULL, &error) == SLM_OK);
        CHECK(!memcmp(logits[0], again, sizeof again));
        slm_session_release(session);
    }
    /* The stream behind the last layer makes the logits. */
    const float *out = rows[0] + (1 + 4 * LAYERS) * ROWS + LAYERS * WEIGHTS + (LAYERS - 1) * ROWS;
    for (int64_t n = 1; n <= TOKENS; n += 23) {
        slm_call call = {.threads = 1 + (int)n % 3};
        CHECK(slm_model_unembed(model, out, n, again, &call, &error) == SLM_OK);
        CHECK(!memcmp(logits[0], again, (size_t)(n * VOCAB) * sizeof *again));
    }
}

/* ---- scores ---------------------------------------------------------------------------------------------------------------- */

/* Texts that branch: what each gets is what its logits say, in steps of any width; stopped, it ends at once. */
static void test_scores(slm_model *model) {
    static float logits[PROMPT * VOCAB];
    static double expected[9][90], found[9][90];
    int32_t tokens[9][90];
    slm_scored texts[9];
    bool greedy[9];
    slm_error error;
    for (int i = 0; i < 9; i++) {
        int64_t n = i < 3 ? 90 - 20 * i : 72 + i % 4, n_scored = i < 3 ? n - 1 : 1 + i % 4;
        for (int64_t j = 0; j < n; j++) tokens[i][j] = prompt[i && j >= 70 + i / 5 ? j + i : j];
        texts[i] = (slm_scored){.tokens = tokens[i], .n_tokens = n, .n_scored = n_scored, .logprobs = found[i]};
        slm_session *session = NULL;
        CHECK(slm_session_create(model, &session, &error) == SLM_OK);
        CHECK(slm_session_forward(session, tokens[i], n, SLM_LOGITS_ALL, logits, NULL, &error) == SLM_OK);
        slm_session_release(session);
        greedy[i] = true;
        for (int64_t j = 0; j < n_scored; j++) {
            const float *row = logits + (n - n_scored - 1 + j) * VOCAB;
            int32_t token = tokens[i][n - n_scored + j];
            int best = 0;
            double total = 0;
            for (int k = 0; k < VOCAB; k++) best = row[k] > row[best] ? k : best;
            for (int k = 0; k < VOCAB; k++) total += exp((double)row[k] - row[best]);
            expected[i][j] = (double)row[token] - row[best] - log(total);
            greedy[i] = greedy[i] && token == best;
        }
    }
    for (int64_t chunk = 0; chunk < 40; chunk += 3) {
        slm_call call = {.threads = 1 + (int)chunk % 2, .prefill_chunk = chunk};
        memset(found, 0, sizeof found);
        CHECK(slm_score(model, texts, 9, &call, &error) == SLM_OK);
        for (int i = 0; i < 9; i++) {
            CHECK(texts[i].greedy == greedy[i]);
            for (int64_t j = 0; j < texts[i].n_scored; j++) CHECK(fabs(found[i][j] - expected[i][j]) < 1e-5);
        }
    }
    int events = 0;
    slm_call stop = {.event = always_stop, .user = &events, .prefill_chunk = 11};
    CHECK(slm_score(model, texts, 9, &stop, &error) == SLM_CANCELLED && events == 1);
    texts[4].n_scored = texts[4].n_tokens;
    CHECK(slm_score(model, texts, 9, NULL, &error) == SLM_BAD_ARGUMENT && strstr(error.message, "text[4]"));
}

static void test_type(files *f, slm_type type) {
    slm_model *model = NULL;
    slm_error error;
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &model, &error) == SLM_OK);
    if (promises_bits(type)) test_bits(model);
    test_stats(model, type == SLM_TYPE_F32 ? SLM_KV_F32 : SLM_KV_BF16);
    if (promises_bits(type)) test_parts(model);
    if (type == SLM_TYPE_Q4_1 || type == SLM_TYPE_F16) test_activations(model);
    test_generation(model);
    if (promises_bits(type)) test_scores(model);
    slm_model_release(model);
    const slm_kv_type kv = type == SLM_TYPE_Q4_1 ? SLM_KV_INT8 : SLM_KV_BF16;
    const slm_load_options high = {.context = CONTEXT, .kv = kv, .precision = SLM_PRECISION_HIGH};
    CHECK(slm_model_load(&f->config, &f->weights, &high, NULL, &model, &error) == SLM_OK);
    if (promises_bits(type)) test_bits(model);
    test_stats(model, kv);
    slm_model_release(model);
    if (type == SLM_TYPE_Q8_0) test_windows(f, SLM_KV_BF16);
    if (type == SLM_TYPE_Q4_0) test_windows(f, SLM_KV_INT8);
    if (type == SLM_TYPE_F16) test_bidirectional(f);
}

int main(int argc, char **argv) {
    slm_error error;
    CHECK(slm_init(getenv("SLM_ISA"), &error) == SLM_OK);
    each_type(argc, argv, test_type);
    return finish();
}
