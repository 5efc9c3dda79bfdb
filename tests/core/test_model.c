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
#include "generate/constraint.h"
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

/* ---- constraints ----------------------------------------------------------------------------------------------------------- */

/* VOCAB tokens: an unknown one, all texts of up to two of the letters a to d and 48 of three, and one that ends texts. */
static slm_tokenizer *letters_tokenizer(slm_error *error) {
    enum { END = VOCAB - 1 };
    char bytes[4 * VOCAB] = "?";
    uint64_t offsets[VOCAB + 1] = {0, 1};
    uint8_t kinds[VOCAB] = {SLM_TOKEN_UNKNOWN};
    double scores[VOCAB] = {0};
    for (int id = 1, size = 1, number = 0; id < VOCAB; id++, number++) {
        if (number == 1 << 2 * size) number = 0, size++;
        for (int i = 0; i < size; i++) bytes[offsets[id] + (uint64_t)i] = (char)('a' + (number >> 2 * i) % 4);
        if (id == END) bytes[offsets[id]] = '.';
        offsets[id + 1] = offsets[id] + (uint64_t)(id == END ? 1 : size);
        kinds[id] = id == END ? SLM_TOKEN_CONTROL : SLM_TOKEN_NORMAL;
    }
    const slm_tokenizer_spec spec = {.model = SLM_TOKENIZER_UNIGRAM,
                                     .pieces = {.bytes = bytes, .offsets = offsets, .count = VOCAB},
                                     .kinds = kinds,
                                     .scores = scores};
    slm_tokenizer *tokenizer = NULL;
    slm_tokenizer_create(&spec, &tokenizer, error);
    return tokenizer;
}

/* a[a-d]{2,30}bcdab(d|(ca)*): many ways, one way, and an end or none. */
static const slm_expression expressions[] = {
    {SLM_EXPRESSION_BYTES, 'a', 'a', 0},     {SLM_EXPRESSION_BYTES, 'a', 'd', 0},     {SLM_EXPRESSION_REPETITION, 1, 2, 30},
    {SLM_EXPRESSION_CONCATENATION, 0, 2, 0}, {SLM_EXPRESSION_BYTES, 'b', 'b', 0},     {SLM_EXPRESSION_BYTES, 'c', 'c', 0},
    {SLM_EXPRESSION_BYTES, 'd', 'd', 0},     {SLM_EXPRESSION_CONCATENATION, 4, 5, 0}, {SLM_EXPRESSION_CONCATENATION, 7, 6, 0},
    {SLM_EXPRESSION_CONCATENATION, 0, 4, 0}, {SLM_EXPRESSION_CONCATENATION, 8, 9, 0}, {SLM_EXPRESSION_CONCATENATION, 5, 0, 0},
    {SLM_EXPRESSION_REPETITION, 11, 0, -1},  {SLM_EXPRESSION_ALTERNATION, 6, 12, 0},  {SLM_EXPRESSION_CONCATENATION, 10, 13, 0},
    {SLM_EXPRESSION_CONCATENATION, 3, 14, 0}};

static slm_status make_constraint(slm_tokenizer *tokenizer, slm_constraint **constraint, slm_error *error) {
    slm_automaton *automaton = NULL;
    slm_status status = slm_automaton_create(expressions, sizeof expressions / sizeof *expressions, NULL, &automaton, error);
    if (!status) status = slm_constraint_create(automaton, tokenizer, constraint, error);
    slm_automaton_release(automaton);
    return status;
}

/* The token that must come: all that may come are beginnings of it, and it is the longest of them. */
static int32_t longest_of_chain(slm_tokenizer *tokenizer, const slm_tokens *allowed) {
    slm_error error;
    int32_t longest = allowed->ids[0];
    char text[2][8] = {{0}};
    for (size_t i = 0; i < allowed->count; i++) {
        slm_text one = {0};
        CHECK(slm_tokenizer_decode(tokenizer, &allowed->ids[i], 1, false, NULL, &one, &error) == SLM_OK);
        memcpy(text[1], one.bytes, one.size);
        text[1][one.size] = 0;
        slm_text_free(&one);
        size_t n = strlen(text[0]), m = strlen(text[1]);
        if (memcmp(text[0], text[1], n < m ? n : m)) return -1;
        if (m > n) longest = allowed->ids[i], memcpy(text[0], text[1], sizeof text[0]);
    }
    return longest;
}

typedef struct guide {
    slm_constraint *constraint;
    slm_automaton *automaton;
    slm_tokenizer *tokenizer;
    uint64_t texts; /* a bit for each that was asked about */
} guide;

/* Allows what the constraint does: what must come alone. */
static int allow(void *user, const slm_event *event) {
    guide *g = user;
    slm_error error;
    slm_text text = {0};
    slm_tokens allowed = {0};
    if (event->kind != SLM_EVENT_ALLOWED) return 0;
    g->texts |= (uint64_t)1 << event->text;
    CHECK(event->n_allowed == VOCAB + 1);
    CHECK(slm_tokenizer_decode(g->tokenizer, event->tokens, event->n_tokens, false, NULL, &text, &error) == SLM_OK);
    CHECK(slm_constraint_follow(g->constraint, text.bytes, text.size, &allowed, &error) == SLM_OK);
    bool ends = slm_automaton_matches(g->automaton, text.bytes, text.size);
    uint32_t state = SLM_START;
    for (size_t i = 0; i < text.size; i++) state = slm_automaton_next(g->automaton, state, (uint8_t)text.bytes[i]);
    int32_t forced = slm_constraint_forced(g->constraint, state);
    for (size_t i = 0; i < allowed.count; i++) {
        if (forced < 0 || allowed.ids[i] == forced) event->allowed[allowed.ids[i] / 64] |= (uint64_t)1 << allowed.ids[i] % 64;
    }
    if (ends) event->allowed[VOCAB / 64] |= (uint64_t)1 << VOCAB % 64;
    slm_tokens_free(&allowed);
    slm_text_free(&text);
    return 0;
}

static bool same_text(const slm_chunk *a, const slm_chunk *b) {
    return a->n_tokens == b->n_tokens && a->finish == b->finish && !memcmp(a->tokens, b->tokens, a->n_tokens * sizeof *a->tokens);
}

/* The definition: the logits of what may come, and a draw from these. A guide that allows the same gives the same. */
static void test_constraint(slm_model *model) {
    slm_error error;
    slm_session *session = NULL, *other = NULL;
    slm_generation *generation = NULL;
    slm_constraint *constraint = NULL;
    slm_tokenizer *tokenizer = letters_tokenizer(&error);
    CHECK(tokenizer && make_constraint(tokenizer, &constraint, &error) == SLM_OK);
    slm_automaton *automaton = NULL;
    CHECK(slm_automaton_create(expressions, sizeof expressions / sizeof *expressions, NULL, &automaton, &error) == SLM_OK);
    const int32_t end = VOCAB - 1;
    int64_t n_forced = 0, n_drawn = 0, n_cases = 0;
    for (int i = 0; i < 12; i++) { /* greedy, top-k, top-p alone, nothing cut */
        slm_chunk chunk;
        slm_generate_options options = {.max_tokens = i < 8 ? 40 : 5,
                                        .top_p = i % 4 == 2 ? 0.8f : 1,
                                        .end_tokens = &end,
                                        .n_end_tokens = 1,
                                        .seed = (uint64_t)i};
        options.constraint = constraint;
        options.temperature = i % 4 ? 2 : 0;
        options.top_k = i % 4 == 1 ? 7 : 0;
        int events = 0;
        slm_call stop = {.event = always_stop, .user = &events}, call = {.threads = 1 + i % 2};
        CHECK(slm_session_create(model, &session, &error) == SLM_OK && slm_session_create(model, &other, &error) == SLM_OK);
        CHECK(slm_generation_create(session, tokenizer, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
        CHECK(slm_generation_next(generation, true, &stop, &chunk, &error) == SLM_CANCELLED);
        CHECK(slm_generation_next(generation, true, &call, &chunk, &error) == SLM_OK && chunk.finish != SLM_FINISH_NONE);
        bool matches = slm_automaton_matches(automaton, chunk.text, chunk.text_size);
        CHECK(chunk.finish == SLM_FINISH_STOP ? matches : chunk.n_tokens == (size_t)options.max_tokens);
        slm_sampler sampler;
        CHECK(slm_sampler_create(&sampler, slm_kernels_active(), &options, VOCAB, &error) == SLM_OK);
        size_t at = 0;
        for (size_t n = 0; n < chunk.n_tokens; n++) {
            float logits[VOCAB], some[VOCAB];
            slm_tokens allowed = {0};
            slm_text text = {0};
            CHECK(slm_constraint_follow(constraint, chunk.text, at, &allowed, &error) == SLM_OK && allowed.count);
            if (slm_automaton_matches(automaton, chunk.text, at)) allowed.ids[allowed.count++] = end; /* the last id of all */
            CHECK(
                !slm_session_forward(other, n ? &chunk.tokens[n - 1] : prompt, n ? 1 : 9, SLM_LOGITS_LAST, logits, NULL, &error));
            for (size_t j = 0; j < allowed.count; j++) some[j] = logits[allowed.ids[j]];
            int64_t best = slm_sampler_draw(&sampler, some, (int64_t)allowed.count, slm_random(options.seed, 0, n));
            bool forced = longest_of_chain(tokenizer, &allowed) == chunk.tokens[n];
            CHECK(forced || chunk.tokens[n] == allowed.ids[best]);
            n_forced += forced;
            n_drawn += !forced;
            CHECK(slm_tokenizer_decode(tokenizer, &chunk.tokens[n], 1, false, NULL, &text, &error) == SLM_OK);
            at += text.size;
            slm_text_free(&text);
            slm_tokens_free(&allowed);
        }
        CHECK(at == chunk.text_size);
        CHECK(slm_session_length(session) + 2 - (matches ? 1 : 0) >= 9 + (int64_t)chunk.n_tokens); /* but for the last */

        /* In a batch, the same. */
        slm_batch *batch = NULL;
        const slm_prompt prompts[] = {{prompt, 50}, {prompt, 9}, {prompt + 1, 49}};
        slm_chunk found;
        CHECK(slm_batch_create(model, tokenizer, prompts, 3, &options, &batch, &error) == SLM_OK);
        CHECK(slm_batch_run(batch, &call, &error) == SLM_OK);
        slm_batch_chunk(batch, 1, &found);
        CHECK(same_text(&found, &chunk));
        slm_batch_release(batch);

        /* Guided, alone and in a batch. */
        guide g = {.constraint = constraint, .automaton = automaton, .tokenizer = tokenizer};
        slm_call guided = {.event = allow, .user = &g};
        slm_generation *alone = NULL;
        options.constraint = NULL;
        options.guided = true;
        CHECK(slm_session_rewind(other, 0, &error) == SLM_OK);
        CHECK(slm_generation_create(other, tokenizer, prompt, 9, 0, &options, &alone, &error) == SLM_OK);
        CHECK(slm_generation_next(alone, true, &stop, &found, &error) == SLM_CANCELLED);
        CHECK(slm_generation_next(alone, true, &guided, &found, &error) == SLM_OK && same_text(&found, &chunk) && g.texts == 1);
        slm_generation_release(alone);
        CHECK(slm_batch_create(model, tokenizer, prompts, 3, &options, &batch, &error) == SLM_OK);
        CHECK(slm_batch_run(batch, &stop, &error) == SLM_CANCELLED);
        CHECK(slm_batch_run(batch, &guided, &error) == SLM_OK);
        slm_batch_chunk(batch, 1, &found);
        CHECK(same_text(&found, &chunk) && g.texts == 7);
        slm_batch_release(batch);
        slm_sampler_release(&sampler);
        slm_generation_release(generation);
        slm_session_release(session);
        slm_session_release(other);
        n_cases += chunk.finish == SLM_FINISH_STOP;
    }
    CHECK(n_forced > 2 && n_drawn > 20 && n_cases > 2 && n_cases < 12);
    slm_generate_options options = {.max_tokens = 1, .top_p = 1, .constraint = constraint, .draft = SLM_DRAFT_LOOKUP};
    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    CHECK(slm_generation_create(session, tokenizer, prompt, 9, 0, &options, &generation, &error) == SLM_BAD_ARGUMENT);
    options.draft = SLM_DRAFT_NONE;
    CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_BAD_ARGUMENT);
    options.guided = true;
    CHECK(slm_generation_create(session, tokenizer, prompt, 9, 0, &options, &generation, &error) == SLM_BAD_ARGUMENT);
    options.constraint = NULL;
    CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_BAD_ARGUMENT);
    CHECK(slm_generation_create(session, tokenizer, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
    slm_chunk chunk; /* nobody to ask */
    CHECK(slm_generation_next(generation, true, NULL, &chunk, &error) == SLM_UNSUPPORTED);
    slm_generation_release(generation);
    slm_session_release(session);
    slm_automaton_release(automaton);
    slm_constraint_release(constraint);
    slm_tokenizer_release(tokenizer);
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

/* ---- activations -------------------------------------------------------------------------------------------------------- */

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

/* ---- adapters ----------------------------------------------------------------------------------------------------------------
 */

enum { RANK = 5, LORAS = 9 * LAYERS };

/* Addends of all targets, of three types; rows of one b lie in two places, and one a is stored as columns. */
static int64_t write_loras(files *f, slm_lora *loras, slm_tensor *below) {
    const int64_t rows[] = {VOCAB, VOCAB, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, HIDDEN, INNER,
                            INNER, HIDDEN};
    const int64_t cols[] = {HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HEADS * HEAD_DIM, HIDDEN, HIDDEN, INNER};
    const slm_type types[] = {SLM_TYPE_F32, SLM_TYPE_F16, SLM_TYPE_BF16};
    int64_t n = 0;
    for (int target = 0; target < SLM_TARGETS; target++) {
        bool embeds = target == SLM_TARGET_EMBED_TOKENS;
        for (int layer = 0; layer < (target < SLM_TARGET_Q_PROJ ? 1 : LAYERS); layer++, n++) {
            int64_t rank = RANK + 14 * layer;
            slm_type type = types[n % 3];
            loras[n] = (slm_lora){.target = target, .layer = layer, .scale = 0.5f};
            loras[n].a = write_tensor(f, type, rank, embeds ? rows[target] : cols[target]);
            loras[n].b = write_tensor(f, type, embeds ? cols[target] : rows[target], rank);
        }
    }
    loras[0].a = (slm_tensor){loras[0].a.type, f->fd, loras[0].a.offset, VOCAB, RANK, VOCAB, NULL};
    slm_tensor *b = &loras[2].b;
    *below = *b;
    below->rows = 3;
    below->offset += (uint64_t)((b->rows - 3) * b->cols * slm_type_block_bytes(b->type));
    b->rows -= 3;
    b->below = below;
    return n;
}

static void test_adapters(files *f) {
    static float expected[PROMPT * VOCAB], found[PROMPT * VOCAB];
    static slm_lora loras[LORAS];
    slm_tensor below;
    slm_error error;
    int64_t n = write_loras(f, loras, &below), before = slm_alloc_outstanding();
    slm_model *base = NULL, *adapted = NULL, *twice = NULL;
    slm_model_stats stats[2];
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &base, &error) == SLM_OK);
    CHECK(run(base, PROMPT, 1, PROMPT, expected));
    CHECK(slm_model_adapt(base, loras, n, NULL, &adapted, &error) == SLM_OK);
    test_bits(adapted);
    test_parts(adapted);
    test_generation(adapted);
    CHECK(run(adapted, PROMPT, 1, PROMPT, found) && memcmp(expected, found, sizeof found));
    slm_model_describe(base, &stats[0]);
    slm_model_describe(adapted, &stats[1]);
    CHECK(stats[1].weight_bytes > stats[0].weight_bytes && stats[1].token_bytes > stats[0].token_bytes);

    /* What two adapters add is summed; those of no scale add nothing at all. */
    for (int64_t i = 0; i < n; i++) loras[i].scale = 0;
    CHECK(slm_model_adapt(adapted, loras, n, NULL, &twice, &error) == SLM_OK && run(twice, 99, 2, PROMPT, expected));
    CHECK(!memcmp(expected, found, sizeof found));
    slm_model_release(twice);
    for (int64_t i = 0; i < n; i++) loras[i].scale = -0.5f;
    CHECK(slm_model_adapt(adapted, loras, n, NULL, &twice, &error) == SLM_OK);
    test_bits(twice);
    slm_model_release(base);
    slm_model_release(adapted);
    CHECK(run(twice, PROMPT, 2, PROMPT, found) && memcmp(expected, found, sizeof found)); /* it holds their weights */
    slm_model_release(twice);
    CHECK(slm_alloc_outstanding() == before);

    /* Every allocation fails once, a call is cancelled, and what is wrong is refused. */
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &base, &error) == SLM_OK);
    int64_t held = slm_alloc_outstanding();
    slm_status status = SLM_NO_MEMORY;
    adapted = NULL;
    for (int64_t k = 0; status == SLM_NO_MEMORY && k < 1000; k++) {
        slm_alloc_fail_at(k, false);
        status = slm_model_adapt(base, loras, n, NULL, &adapted, &error);
        slm_alloc_fail_at(-1, false);
        CHECK(status == SLM_OK ? k > 5 : status == SLM_NO_MEMORY && !adapted && slm_alloc_outstanding() == held);
    }
    CHECK(status == SLM_OK);
    slm_model_release(adapted);
    adapted = NULL;
    int events = 0;
    slm_call stop = {.event = always_stop, .user = &events};
    CHECK(slm_model_adapt(base, loras, n, &stop, &adapted, &error) == SLM_CANCELLED && events);
    CHECK(slm_model_adapt(base, loras, 0, NULL, &adapted, &error) == SLM_BAD_ARGUMENT);
    slm_lora wrong[] = {loras[2], loras[2], loras[2], loras[2], loras[2], loras[2],
                        loras[0], loras[1], loras[3], loras[3], loras[3]};
    wrong[0].layer = LAYERS;
    wrong[1].layer = -1;
    wrong[2].target = (slm_target)SLM_TARGETS;
    wrong[3].scale = INFINITY;
    wrong[4].a.cols--;
    wrong[5].b.below = NULL;
    wrong[6].a.rows--;
    wrong[7].layer = 1;
    wrong[8].a.rows++;
    wrong[9].a.type = SLM_TYPE_Q8_0;
    wrong[10].a.rows = 0;
    for (int i = 0; i < 11; i++) {
        slm_status expect = i == 9 ? SLM_UNSUPPORTED : SLM_BAD_ARGUMENT;
        CHECK(slm_model_adapt(base, &wrong[i], 1, NULL, &adapted, &error) == expect && !adapted);
    }
    float nan = NAN;
    slm_lora *last = &loras[n - 1];
    last->b = write_tensor(f, SLM_TYPE_F32, HIDDEN, last->b.cols);
    CHECK(pwrite(f->fd, &nan, sizeof nan, (off_t)(last->b.offset + 4)) == sizeof nan);
    CHECK(slm_model_adapt(base, loras, n, NULL, &adapted, &error) == SLM_BAD_DATA && !adapted && error.index == LAYERS - 1);
    CHECK(strstr(error.message, "lora_b of down_proj of layer 2"));
    slm_model_release(base);
    CHECK(slm_alloc_outstanding() == before);
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
        if (types[i] == SLM_TYPE_Q4_1 || types[i] == SLM_TYPE_F16) test_activations(model);
        test_generation(model);
        test_constraint(model);
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
        if (types[i] == SLM_TYPE_Q4_0 || types[i] == SLM_TYPE_BF16) test_adapters(&f);
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
