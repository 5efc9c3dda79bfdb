/* SPDX-License-Identifier: Apache-2.0
 * test_model.c: a model from plain structs, without Python: tokens are generated, the bits do not depend on threads, chunks,
 * forks or rewinds, every allocation fails once, and cancelled or failed calls leave a session as it was. */
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/half.h"
#include "check.h"
#include "generate/random.h"
#include "generate/sampler.h"
#include "model/session.h"
#include "slm.h"

enum { VOCAB = 70, HIDDEN = 64, INNER = 96, LAYERS = 3, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 16, CONTEXT = 700, PROMPT = 600 };

typedef struct files {
    int fd;
    uint64_t end;
    float inv_freq[HEAD_DIM / 2];
    slm_layer_weights layers[LAYERS];
    slm_weights weights;
    slm_config config;
} files;

/* Appends a random tensor of the type to the file. */
static slm_tensor write_tensor(files *f, slm_type type, int64_t rows, int64_t cols) {
    slm_tensor tensor = {.type = type, .fd = f->fd, .offset = f->end, .rows = rows, .cols = cols};
    size_t block_bytes = (size_t)slm_type_block_bytes(type), size = (size_t)(rows * cols / slm_type_block(type)) * block_bytes;
    uint8_t *bytes = malloc(size);
    for (size_t i = 0; i < size; i += block_bytes) {
        for (size_t j = 0; j < block_bytes; j++) bytes[i + j] = (uint8_t)random_u32();
        float x = rows == 1 ? 1 + 0.1f * random_float() : random_float() * 0.3f;
        uint16_t half = slm_f32_to_bf16(x), scale = 0x2000 | (random_u32() & 0x83ff); /* f16 near 2^-7 */
        if (type == SLM_TYPE_F32) memcpy(bytes + i, &x, 4);
        if (type == SLM_TYPE_BF16) memcpy(bytes + i, &half, 2);
        if (type == SLM_TYPE_F16) scale |= 0x1000, memcpy(bytes + i, &scale, 2);
        if (slm_type_block(type) == 32) memcpy(bytes + i, &scale, 2);
        if (type == SLM_TYPE_Q4_1) scale ^= 0x8800, memcpy(bytes + i + 2, &scale, 2);
    }
    CHECK(pwrite(f->fd, bytes, size, (off_t)f->end) == (ssize_t)size);
    free(bytes);
    f->end += size + 24; /* ranges need no alignment */
    return tensor;
}

static void write_files(files *f, slm_type type, bool tied) {
    char path[] = "/tmp/slm-test-XXXXXX";
    memset(f, 0, sizeof *f);
    f->fd = mkstemp(path);
    CHECK(f->fd >= 0 && unlink(path) == 0);
    for (int i = 0; i < HEAD_DIM / 2; i++) f->inv_freq[i] = powf(10000, -(float)i / (HEAD_DIM / 2));
    f->weights.embed_tokens = write_tensor(f, type, VOCAB, HIDDEN);
    f->weights.norm.weight = write_tensor(f, SLM_TYPE_F32, 1, HIDDEN);
    if (!tied) f->weights.lm_head.weight = write_tensor(f, type, VOCAB, HIDDEN);
    for (int i = 0; i < LAYERS; i++) {
        f->layers[i] = (slm_layer_weights){
            .input_layernorm = {.weight = write_tensor(f, SLM_TYPE_F32, 1, HIDDEN)},
            .q_proj = {.weight = write_tensor(f, type, HEADS * HEAD_DIM, HIDDEN)},
            .k_proj = {.weight = write_tensor(f, type, KV_HEADS * HEAD_DIM, HIDDEN)},
            .v_proj = {.weight = write_tensor(f, type, KV_HEADS * HEAD_DIM, HIDDEN)},
            .o_proj = {.weight = write_tensor(f, type, HIDDEN, HEADS * HEAD_DIM)},
            .post_attention_layernorm = {.weight = write_tensor(f, SLM_TYPE_F32, 1, HIDDEN)},
            .gate_proj = {.weight = write_tensor(f, type, INNER, HIDDEN)},
            .up_proj = {.weight = write_tensor(f, type, INNER, HIDDEN)},
            .down_proj = {.weight = write_tensor(f, type, HIDDEN, INNER)},
            .down_proj_group = i % 2 ? 16 : 32,
        };
    }
    f->weights.layers = f->layers;
    f->config = (slm_config){.vocab_size = VOCAB,
                             .hidden_size = HIDDEN,
                             .intermediate_size = INNER,
                             .num_hidden_layers = LAYERS,
                             .num_attention_heads = HEADS,
                             .num_key_value_heads = KV_HEADS,
                             .head_dim = HEAD_DIM,
                             .max_position_embeddings = CONTEXT,
                             .norm_eps = 1e-5f,
                             .hidden_act = SLM_ACTIVATION_SILU,
                             .rope_style = SLM_ROPE_HALF,
                             .rotary_dim = HEAD_DIM,
                             .n_rope_tables = 1,
                             .rope_inv_freq = f->inv_freq,
                             .attention_scale = 0.25f};
}

static int32_t prompt[PROMPT];

static int always_stop(void *user, const slm_event *event) {
    (void)event;
    ++*(int *)user;
    return 1;
}

/* ---- bits -------------------------------------------------------------------------------------------------------------------
 */

static bool run(slm_model *model, int64_t chunk, int threads, int64_t n, float *logits) {
    slm_session *session = NULL;
    slm_error error;
    slm_call call = {.threads = threads, .prefill_chunk = chunk};
    bool ok = slm_session_create(model, &session, &error) == SLM_OK &&
              slm_session_forward(session, prompt, n, SLM_LOGITS_ALL, logits, &call, &error) == SLM_OK;
    slm_session_release(session);
    return ok;
}

static void test_bits(slm_model *model) {
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

/* ---- windows -----------------------------------------------------------------------------------------------------------------
 */

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

/* ---- bidirectional
 * ------------------------------------------------------------------------------------------------------------- */

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

/* ---- generation
 * ---------------------------------------------------------------------------------------------------------------- */

static void test_generation(slm_model *model) {
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

/* ---- allowed tokens -------------------------------------------------------------------------------------------------------- */

typedef struct grammar {
    int32_t ids[20][VOCAB]; /* of each step */
    int64_t counts[20];     /* 0: all */
    size_t asked;
    int stop_at; /* this question is not answered but ends the call; -1: none */
} grammar;

static int answer(void *user, const slm_event *event) {
    grammar *g = user;
    if (event->kind != SLM_EVENT_ALLOWED) return 0;
    CHECK(!event->allowed->ids && event->n_tokens < 20);
    for (size_t i = 0; i < event->n_tokens && g->counts[i]; i++) { /* what was drawn was allowed */
        int64_t at = 0;
        while (at < g->counts[i] && g->ids[i][at] != event->tokens[i]) at++;
        CHECK(at < g->counts[i]);
    }
    if ((int)g->asked == g->stop_at) return g->stop_at = -1, 1;
    g->asked++;
    if (g->counts[event->n_tokens])
        *event->allowed = (slm_allowed){.ids = g->ids[event->n_tokens], .count = g->counts[event->n_tokens]};
    return 0;
}

/* The definition: the logits of what is allowed, and a draw from these. One allowed token follows without any logits. */
static void test_allowed(slm_model *model) {
    static grammar g;
    slm_error error;
    slm_session *session = NULL, *other = NULL;
    slm_generation *generation = NULL;
    slm_chunk chunk;
    slm_generate_options options = {.max_tokens = 20, .top_p = 1, .constrained = true};
    for (int i = 0; i < 20; i++) {
        g.counts[i] = 0;
        for (int32_t id = 0; id < VOCAB && i % 7 != 3; id++) {
            bool take = i % 7 == 5 ? id == (i * 5) % VOCAB : random_u32() % (1 + (uint32_t)i % 5) == 0;
            if (take) g.ids[i][g.counts[i]++] = id;
        }
    }
    for (int kind = 0; kind < 5; kind++) { /* greedy, top-k, top-p alone, nothing cut, penalties */
        options.temperature = kind ? 2 : 0;
        options.top_k = kind == 1 ? 7 : 0;
        options.top_p = kind == 2 ? 0.8f : 1;
        options.frequency_penalty = kind == 4;
        options.penalty_window = 12;
        g.asked = 0;
        g.stop_at = 5;
        slm_call call = {.event = answer, .user = &g, .threads = 1 + kind % 2};
        CHECK(slm_session_create(model, &session, &error) == SLM_OK && slm_session_create(model, &other, &error) == SLM_OK);
        CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
        CHECK(slm_generation_next(generation, true, &call, &chunk, &error) == SLM_CANCELLED);
        CHECK(slm_generation_next(generation, true, &call, &chunk, &error) == SLM_OK && chunk.n_tokens == 20 && g.asked == 20);
        slm_sampler sampler;
        CHECK(slm_sampler_create(&sampler, &options, VOCAB, &error) == SLM_OK);
        for (int i = 0; i < 20 && chunk.n_tokens == 20; i++) {
            float logits[VOCAB], some[VOCAB];
            const int32_t *input = i ? &chunk.tokens[i - 1] : prompt;
            CHECK(slm_session_forward(other, input, i ? 1 : 9, SLM_LOGITS_LAST, logits, NULL, &error) == SLM_OK);
            int64_t n = g.counts[i] ? g.counts[i] : VOCAB;
            for (int64_t j = 0; j < n; j++) some[j] = n == 1 ? 0 : logits[g.counts[i] ? g.ids[i][j] : j];
            for (int64_t k = i - 12; kind == 4 && k < i; k++) {
                int32_t seen = k < 0 ? prompt[9 + k] : chunk.tokens[k];
                for (int64_t j = 0; k >= -9 && j < n; j++) some[j] -= (g.counts[i] ? g.ids[i][j] : j) == seen;
            }
            int64_t at = slm_sampler_draw(&sampler, some, n, slm_random(0, 0, (uint64_t)i));
            CHECK(chunk.tokens[i] == (g.counts[i] ? g.ids[i][at] : at));
        }
        slm_sampler_release(&sampler);
        slm_generation_release(generation);

        /* Wrong answers are errors that lose nothing. */
        int32_t wrong[][2] = {{-1, 0}, {3, 3}, {4, 2}, {1, VOCAB}};
        CHECK(slm_session_rewind(session, 0, &error) == SLM_OK);
        CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
        for (size_t i = 0; i < 4; i++) {
            static grammar bad;
            memcpy(bad.ids[0], wrong[i], sizeof wrong[i]);
            bad.counts[0] = 2;
            bad.stop_at = -1;
            slm_call lie = {.event = answer, .user = &bad};
            CHECK(slm_generation_next(generation, true, &lie, &chunk, &error) == SLM_BAD_ARGUMENT && error.index == (i > 0));
            bad.counts[0] = -1;
            CHECK(slm_generation_next(generation, true, &lie, &chunk, &error) == SLM_BAD_ARGUMENT);
            CHECK(slm_session_length(session) == 0);
        }
        g.stop_at = -1;
        CHECK(slm_generation_next(generation, true, &call, &chunk, &error) == SLM_OK && chunk.n_tokens == 20);
        slm_generation_release(generation);

        /* The only one that is allowed is banned. */
        slm_generate_options banned = options;
        banned.bias_ids = &g.ids[5][0];
        banned.bias = &(float){-INFINITY};
        banned.n_bias = 1;
        CHECK(slm_session_rewind(session, 0, &error) == SLM_OK);
        CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &banned, &generation, &error) == SLM_OK);
        for (int again = 0; again < 2; again++) {
            CHECK(slm_generation_next(generation, true, &call, &chunk, &error) == SLM_BAD_ARGUMENT);
            CHECK(slm_session_length(session) == 9 + 4);
        }
        slm_generation_release(generation);
        slm_session_release(session);
        slm_session_release(other);
    }
}

/* ---- several sessions in one step
 * ---------------------------------------------------------------------------------------------------------------- */

/* Tokens of three sessions together, some behind others, in steps of any width: each session's logits and its cache are
 * the same bits as alone; stopped before the end, all are as before. */
static void test_parts(slm_model *model) {
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

/* ---- scores ------------------------------------------------------------------------------------------------------------- */

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

/* ---- what fails
 * ------------------------------------------------------------------------------------------------------------------ */

static const slm_load_options plain = {.context = CONTEXT};
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

int main(int argc, char **argv) {
    slm_error error;
    CHECK(slm_init(getenv("SLM_ISA"), &error) == SLM_OK);
    for (int i = 0; i < PROMPT; i++) prompt[i] = (int32_t)(random_u32() % VOCAB);
    const slm_type types[] = {SLM_TYPE_F32, SLM_TYPE_F16, SLM_TYPE_BF16, SLM_TYPE_Q8_0, SLM_TYPE_Q4_0, SLM_TYPE_Q4_1};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!asked_for(slm_type_name(types[i]), argc, argv)) continue;
        files f;
        write_files(&f, types[i], i % 2);
        int64_t before = slm_alloc_outstanding();
        slm_model *model = NULL;
        CHECK(slm_model_load(&f.config, &f.weights, &plain, NULL, &model, &error) == SLM_OK);
        slm_cpu_info cpu;
        slm_cpu(&cpu);
        /* BLIS promises bits for any number of threads only. */
        if (types[i] != SLM_TYPE_F32 || !*cpu.blas_arch) test_bits(model);
        test_stats(model, types[i] == SLM_TYPE_F32 ? SLM_KV_F32 : SLM_KV_BF16);
        if (types[i] != SLM_TYPE_F32 || !*cpu.blas_arch) test_parts(model);
        test_generation(model);
        test_allowed(model);
        if (types[i] != SLM_TYPE_F32 || !*cpu.blas_arch) test_scores(model);
        slm_model_release(model);
        const slm_kv_type kv = types[i] == SLM_TYPE_Q4_1 ? SLM_KV_INT8 : SLM_KV_BF16;
        const slm_load_options high = {.context = CONTEXT, .kv = kv, .precision = SLM_PRECISION_HIGH};
        CHECK(slm_model_load(&f.config, &f.weights, &high, NULL, &model, &error) == SLM_OK);
        if (types[i] != SLM_TYPE_F32 || !*cpu.blas_arch) test_bits(model);
        test_stats(model, kv);
        slm_model_release(model);
        CHECK(slm_alloc_outstanding() == before);
        if (types[i] == SLM_TYPE_Q4_1 || types[i] == SLM_TYPE_F32) test_allocation_failures(&f, &plain);
        const slm_load_options quantized = {.context = CONTEXT, .quantize = SLM_TYPE_Q5_1};
        if (types[i] == SLM_TYPE_BF16) test_allocation_failures(&f, &quantized);
        test_failures(&f);
        if (types[i] == SLM_TYPE_Q8_0) test_windows(&f, SLM_KV_BF16);
        if (types[i] == SLM_TYPE_Q4_0) test_windows(&f, SLM_KV_INT8);
        if (types[i] == SLM_TYPE_F16) test_bidirectional(&f);
        close(f.fd);
        printf("%s done\n", slm_type_name(types[i]));
    }
    test_not_a_number(SLM_KV_BF16);
    test_not_a_number(SLM_KV_INT8);
    test_not_a_number_behind_a_window();
    return finish();
}
