/* SPDX-License-Identifier: Apache-2.0
 * tiny_model.h: what programs that run models share: a model of random weights in a file, a prompt, and a loop over types of
 * weights. */
#ifndef SLM_TESTS_TINY_MODEL_H
#define SLM_TESTS_TINY_MODEL_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/half.h"
#include "check.h"
#include "slm.h"

enum { VOCAB = 70, HIDDEN = 64, INNER = 96, LAYERS = 3, HEADS = 4, KV_HEADS = 2, HEAD_DIM = 16, CONTEXT = 700, PROMPT = 600 };

static const slm_load_options plain = {.context = CONTEXT};
static int32_t prompt[PROMPT];

typedef struct files {
    int fd;
    uint64_t end;
    float inv_freq[HEAD_DIM / 2];
    slm_layer_weights layers[LAYERS];
    slm_weights weights;
    slm_config config;
} files;

/* Appends a random tensor of the type to the file. */
static inline slm_tensor write_tensor(files *f, slm_type type, int64_t rows, int64_t cols) {
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

static inline void write_files(files *f, slm_type type, bool tied) {
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

/* Runs the test with a model of each type that the program's arguments ask for; it gives back all memory. */
static inline void each_type(int argc, char **argv, void (*test)(files *f, slm_type type)) {
    const slm_type types[] = {SLM_TYPE_F32, SLM_TYPE_F16, SLM_TYPE_BF16, SLM_TYPE_Q8_0, SLM_TYPE_Q4_0, SLM_TYPE_Q4_1};
    for (int i = 0; i < PROMPT; i++) prompt[i] = (int32_t)(random_u32() % VOCAB);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!asked_for(slm_type_name(types[i]), argc, argv)) continue;
        files f;
        write_files(&f, types[i], i % 2);
        int64_t before = slm_alloc_outstanding();
        test(&f, types[i]);
        CHECK(slm_alloc_outstanding() == before);
        close(f.fd);
        printf("%s done\n", slm_type_name(types[i]));
    }
}

/* BLIS promises bits for any number of threads only. */
static inline bool promises_bits(slm_type type) {
    slm_cpu_info cpu;
    slm_cpu(&cpu);
    return type != SLM_TYPE_F32 || !*cpu.blas_arch;
}

/* Logits of the first n tokens of the prompt. */
static inline bool run(slm_model *model, int64_t chunk, int threads, int64_t n, float *logits) {
    slm_session *session = NULL;
    slm_error error;
    slm_call call = {.threads = threads, .prefill_chunk = chunk};
    bool ok = slm_session_create(model, &session, &error) == SLM_OK &&
              slm_session_forward(session, prompt, n, SLM_LOGITS_ALL, logits, &call, &error) == SLM_OK;
    slm_session_release(session);
    return ok;
}

static inline int always_stop(void *user, const slm_event *event) {
    (void)event;
    ++*(int *)user;
    return 1;
}

#endif
