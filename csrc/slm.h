/* SPDX-License-Identifier: Apache-2.0
 *
 * slm.h: the public interface of the C core. Everything a running model needs crosses here as plain structs:
 * the description of the architecture, where each tensor's bytes lie in which open file, the vocabulary.
 * Objects are opaque and reference counted. Tensor layouts, pages and threads stay behind it.
 *
 * What can fail returns a status and fills *error (never NULL); on failure outputs are untouched.
 * Ids of tokens are int32_t, counts and positions int64_t. Shapes are row-major, the last dimension contiguous.
 */
#ifndef SLM_H
#define SLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- status and errors ------------------------------------------------------------------------------------ */

typedef enum slm_status {
    SLM_OK = 0,
    SLM_CANCELLED,    /* the event callback asked to stop; objects are as before the call */
    SLM_NO_MEMORY,    /* an allocation failed */
    SLM_BAD_ARGUMENT, /* a value outside its range: the message names parameter, value and range */
    SLM_BAD_DATA,     /* data from a file that cannot be used; error.index is the element */
    SLM_IO_ERROR,     /* the system refused a read: error.os_error is errno */
    SLM_CONTEXT_FULL, /* more positions than the context holds */
    SLM_NOT_A_NUMBER, /* NaN or infinity; error.index is the first position where it showed */
    SLM_UNSUPPORTED,  /* well-formed but not handled */
    SLM_TOO_LARGE,    /* more than the core accepts of what the message names */
    SLM_INTERNAL,     /* a broken invariant: a defect of slm */
} slm_status;

typedef struct slm_error {
    slm_status status;
    int os_error;
    int64_t index; /* which element, tensor or position, where the status says so; else -1 */
    char message[256];
} slm_error;

/* ---- the one way out: events --------------------------------------------------------------------------------- */

typedef enum slm_event_kind {
    SLM_EVENT_INTERRUPT,  /* at least every 5 ms of work: does the caller want to go on? */
    SLM_EVENT_PROGRESS,   /* done of total: bytes while loading, tokens while prefilling */
    SLM_EVENT_ENDED,      /* done of total texts of a batch or a score are finished */
    SLM_EVENT_LOGITS,     /* before each token of a text that asks for it: its logits may change */
    SLM_EVENT_ACTIVATION, /* at a site that slm_call.taps has edited: rows of one text may change */
    SLM_EVENT_ALLOWED,    /* before each token of a text that asks for it: which tokens may come? */
} slm_event_kind;

typedef struct slm_event {
    slm_event_kind kind;
    uint64_t done, total;
    const int32_t *tokens; /* LOGITS: [n_tokens] of prompt and text; ALLOWED: of the text alone */
    size_t n_tokens;
    float *logits; /* LOGITS: [n_logits] of all tokens, -infinity for one that may not be drawn */
    size_t n_logits;
    size_t tap;  /* ACTIVATION: index in slm_call.taps */
    float *rows; /* ACTIVATION: row i, at rows + i * ld, is [hidden_size], of position first_position + i */
    int64_t n_rows, hidden_size, ld, first_position;
    uint64_t text;     /* ALLOWED: which text of a batch, as in slm_batch_chunk */
    uint64_t *allowed; /* ALLOWED: zeros, to be filled: n_allowed bits, of each token of the vocabulary and, last, of the end */
    size_t n_allowed;
} slm_event;

/* Runs on the calling thread only, outside barriers. Nonzero cancels the call, which returns SLM_CANCELLED. It may call slm, but
 * wait for no other thread that does: that one may be waiting for this step to end. */
typedef int (*slm_event_fn)(void *user, const slm_event *event);

/* Named activations of a step. Of all but weights a token has a row [hidden_size]. */
typedef enum slm_site {
    SLM_SITE_EMBED,        /* the residual stream that the first layer reads: embeddings, scaled, normalised, positions added */
    SLM_SITE_ATTN_IN,      /* what attention reads: the stream behind the norm in front of it */
    SLM_SITE_ATTN_WEIGHTS, /* probabilities of the positions that a query sees, 0 elsewhere */
    SLM_SITE_ATTN_OUT,     /* what o_proj gives: before a norm or a factor on its way into the stream */
    SLM_SITE_MLP_IN,       /* what the MLP reads */
    SLM_SITE_MLP_OUT,      /* what down_proj gives */
    SLM_SITE_OUT,          /* the stream behind a layer */
    SLM_SITE_FINAL_NORM,   /* what lm_head reads */
} slm_site;

typedef struct slm_tap {
    slm_site site;
    int64_t layer; /* 0 where a site is not of a layer */
    /* Gets [n_tokens, hidden_size] of a call of slm_session_forward, no other; weights: [num_attention_heads, n_tokens, session's
     * length and n_tokens]. NULL: the site is edited, by SLM_EVENT_ACTIVATION for each text of a step; not weights. */
    float *rows;
} slm_tap;

enum { SLM_PREFILL_CHUNK = 256 };

/* How one call runs. Zeroed: no callback, default threads and chunk, no taps. */
typedef struct slm_call {
    slm_event_fn event; /* may be NULL */
    void *user;
    int threads;           /* 0: slm_thread_count() */
    int64_t prefill_chunk; /* tokens per prefill step; 0: SLM_PREFILL_CHUNK. Never changes a bit of the result, but by edits that
                              do */
    const slm_tap *taps;   /* [n_taps]; those of one site in their order */
    size_t n_taps;
} slm_call;

/* ---- the machine ------------------------------------------------------------------------------------------- */

typedef struct slm_cpu_info {
    const char *isa;       /* the kernel tier: "scalar", "avx2", "avx2_vnni", "avx512", "avx512_bf16", "neon", "neon_i8mm" */
    char supported[64];    /* the tiers this CPU and OS can run, space separated, fastest last */
    const char *blas;      /* "blis <version>" or "none: packed f32 kernel" */
    const char *blas_arch; /* BLIS's configuration, e.g. "skx"; "" without BLIS */
    int threads;           /* default: min(affinity, cgroup quota, physical cores) */
    int affinity, quota, physical_cores;
} slm_cpu_info;

/* Chooses the kernel tier once. isa: a tier's name, or NULL for the best one. Must come first; later calls only check. */
slm_status slm_init(const char *isa, slm_error *error);
void slm_cpu(slm_cpu_info *info);
int slm_thread_count(void);

/* Best of `sweeps` read-only passes of all threads over `bytes` of fresh memory, in bytes per second. */
slm_status slm_measure_bandwidth(size_t bytes, int sweeps, const slm_call *call, double *bytes_per_second, slm_error *error);

/* ---- weights --------------------------------------------------------------------------------------------------- */

/* Element and block types of files. */
typedef enum slm_type {
    SLM_TYPE_NONE = 0,
    SLM_TYPE_F32,
    SLM_TYPE_F16,
    SLM_TYPE_BF16,
    SLM_TYPE_Q8_0,
    SLM_TYPE_Q4_0,
    SLM_TYPE_Q4_1,
    SLM_TYPE_Q5_0,
    SLM_TYPE_Q5_1,
    SLM_TYPE_Q2_K,
    SLM_TYPE_Q3_K,
    SLM_TYPE_Q4_K,
    SLM_TYPE_Q5_K,
    SLM_TYPE_Q6_K,
    SLM_TYPE_IQ4_NL,
    SLM_TYPE_IQ4_XS,
    SLM_TYPE_COUNT,
} slm_type;

const char *slm_type_name(slm_type type);
int64_t slm_type_block(slm_type type);       /* elements per block */
int64_t slm_type_block_bytes(slm_type type); /* bytes per block */
bool slm_type_encodes(slm_type type);        /* slm_load_options.quantize may be this type */

/* A matrix [rows, cols] or a vector [1, cols] in an open file; the caller has checked that the range lies inside it.
 * type SLM_TYPE_NONE: the tensor does not exist. */
typedef struct slm_tensor {
    slm_type type;
    int fd;
    uint64_t offset; /* of the first byte in the file; rows follow each other without gaps */
    int64_t rows, cols;
    int64_t transposed_ld; /* 0; else the file holds [cols, transposed_ld] and row i here is its column i (float types only) */
    const struct slm_tensor *below; /* NULL, or the rows that follow, of the same type and cols; of a vector, elements */
} slm_tensor;

/* A linear layer or a norm. bias: [1, rows of the matrix], of a norm as its weight; of SLM_TYPE_NONE where there is none. */
typedef struct slm_affine {
    slm_tensor weight, bias;
} slm_affine;

typedef enum slm_rope_style {
    SLM_ROPE_HALF,        /* pairs (i, i + n/2): Hugging Face's order of rows */
    SLM_ROPE_INTERLEAVED, /* pairs (2i, 2i + 1): the order of rows that some GGUF files keep */
} slm_rope_style;

typedef enum slm_activation {
    SLM_ACTIVATION_SILU,      /* x / (1 + exp(-x)) */
    SLM_ACTIVATION_GELU,      /* x / 2 * (1 + erf(x / sqrt 2)) */
    SLM_ACTIVATION_GELU_TANH, /* x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
    SLM_ACTIVATION_RELU2,     /* max(x, 0)^2 */
} slm_activation;

typedef enum slm_norm_kind {
    SLM_NORM_RMS,   /* x / sqrt(mean(x^2) + eps) * weight */
    SLM_NORM_LAYER, /* (x - mean) / sqrt(variance + eps) * weight + bias */
} slm_norm_kind;

/* Fields have Hugging Face's names where it has one. What is zeroed is absent: no cap, no factor, no such behaviour. */
typedef struct slm_config {
    int64_t vocab_size; /* rows of embed_tokens and lm_head */
    int64_t hidden_size;
    int64_t intermediate_size;
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t num_key_value_heads;
    int64_t head_dim;
    int64_t max_position_embeddings; /* trained context */
    slm_norm_kind norm_kind;         /* of all norms of the model */
    float norm_eps;
    float norm_offset; /* added to all norm weights: 1 where a file stores w - 1 */
    slm_activation hidden_act;
    slm_rope_style rope_style;
    int64_t rotary_dim;         /* even, <= head_dim: how many leading elements of a head are rotated */
    int64_t n_rope_tables;      /* layers choose one */
    const float *rope_inv_freq; /* [n_rope_tables, rotary_dim / 2] */
    float rope_factor;          /* multiplies cosines and sines */
    float attention_scale;      /* of scores, usually 1 / sqrt(head_dim) */
    float attention_softcap;    /* c: score = c * tanh(score / c) */
    float logits_softcap;
    float logits_scale;       /* multiplies logits, before their cap */
    float embedding_scale;    /* multiplies rows of embed_tokens */
    float residual_scale;     /* multiplies what a block adds to the residual stream */
    bool parallel_residual;   /* attention and MLP read the same residual stream */
    bool norm_after_residual; /* output norms are taken of the stream after the addition, not of what is added */
    bool kv_f32;              /* keys need more digits than bf16 has: SLM_KV_AUTO is f32, and SLM_KV_INT8 keeps them in bf16 */
    bool bidirectional;       /* a token sees all of its text, which runs whole; such a model has no windows and no lm_head */
} slm_config;

/* Norms, biases, q_norm, k_norm and gate_proj may be absent. In a parallel residual without a norm of its own the MLP reads what
 * attention read; else a block without a norm reads the residual stream itself. */
typedef struct slm_layer_weights {
    slm_affine input_layernorm;          /* [1, hidden_size], of what attention reads */
    slm_affine q_proj, k_proj, v_proj;   /* [heads * head_dim, hidden_size] */
    slm_affine q_norm, k_norm;           /* before rope: [1, head_dim] for each head, [heads, head_dim] with weights of each
                                          * head's own, or [1, heads * head_dim] of all at once */
    slm_affine o_proj;                   /* [hidden_size, num_attention_heads * head_dim] */
    slm_affine attn_output_norm;         /* [1, hidden_size], of what attention gives */
    slm_affine post_attention_layernorm; /* [1, hidden_size], of what the MLP reads */
    slm_affine gate_proj, up_proj;       /* [intermediate_size, hidden_size]; without gate_proj: down_proj(act(up_proj)) */
    slm_affine down_proj;                /* [hidden_size, intermediate_size] */
    slm_affine mlp_output_norm;          /* [1, hidden_size], of what the MLP gives */
    int64_t down_proj_group;             /* elements of one int8 scale of down_proj's input: 32, or 16 where outliers need it */
    int64_t sliding_window;              /* a query sees so many positions, its own included; 0: all */
    int64_t rope_table;                  /* index; -1: positions are not rotated */
} slm_layer_weights;

typedef struct slm_weights {
    slm_tensor embed_tokens;         /* [vocab_size, hidden_size] */
    slm_tensor position_embeddings;  /* [max_position_embeddings, hidden_size], added to the embedding; may be absent */
    slm_tensor token_type_embedding; /* [1, hidden_size], added to every embedding; may be absent */
    slm_affine embedding_norm;       /* [1, hidden_size]; may be absent */
    slm_affine norm;                 /* [1, hidden_size]; may be absent */
    slm_affine lm_head;              /* [vocab_size, hidden_size]; weight SLM_TYPE_NONE: tied to embed_tokens, or none */
    const slm_layer_weights *layers; /* [num_hidden_layers] */
} slm_weights;

/* ---- model: immutable, shareable ----------------------------------------------------------------------------- */

typedef enum slm_kv_type {
    SLM_KV_AUTO, /* f32 in high precision, where the config says so, and when every linear weight is F32; else bf16 */
    SLM_KV_F32,
    SLM_KV_BF16,
    SLM_KV_INT8, /* with a scale for each 32 elements of a head; keys in bf16 where the config has kv_f32 */
} slm_kv_type;

/* What linears with weights of fewer than 32 bits multiply them with. F32 weights are run in f32 either way. */
typedef enum slm_precision {
    SLM_PRECISION_DEFAULT, /* block types: activations in int8, in groups; BF16: in bf16; F16: in f32 */
    SLM_PRECISION_HIGH,    /* activations in f32, weights widened to f32 without loss */
} slm_precision;

/* How a model is made from weights. Zeroed but for the context: as the file has them, run as fast as the types allow. */
typedef struct slm_load_options {
    int64_t context; /* the most positions a session may hold, >= 1 */
    slm_kv_type kv;
    slm_precision precision;
    /* NONE, or what float matrices become while they are read: linears and embeddings, but position embeddings, whose columns
     * are whole blocks. Norms, biases and what is no float matrix stay as they are. */
    slm_type quantize;
    /* A large output layer of 8-bit codes takes a form, 3 % larger, from which the likeliest tokens are found without reading it
     * whole. Tokens and logits stay the same bits. */
    bool screening;
} slm_load_options;

typedef struct slm_model slm_model;

/* Reads and packs all weights. config, weights and options are only read during the call. The files may be closed afterwards. */
slm_status slm_model_load(const slm_config *config, const slm_weights *weights, const slm_load_options *options,
                          const slm_call *call, slm_model **model, slm_error *error);

/* What slm_model_load with the same arguments and a session on it will take. Resident are at most weight_bytes + load_bytes, and
 * then weight_bytes + kv_bytes + workspace_bytes. */
typedef struct slm_memory {
    size_t weight_bytes;    /* packed weights */
    size_t load_bytes;      /* buffers of all threads, while loading */
    size_t kv_bytes;        /* keys and values of a session that is full: pages of 64 positions of one layer, taken as needed; a
                               layer with a window holds those that its queries reach. SIZE_MAX: more than that */
    size_t workspace_bytes; /* activations of a prompt that runs in default chunks, logits */
    slm_kv_type kv;         /* not SLM_KV_AUTO */
    int64_t encoded[SLM_TYPE_COUNT]; /* elements of each float type that become slm_load_options.quantize */
} slm_memory;

/* Checks all that slm_model_load checks before it reads. */
slm_status slm_model_measure(const slm_config *config, const slm_weights *weights, const slm_load_options *options,
                             const slm_call *call, slm_memory *memory, slm_error *error);
slm_model *slm_model_retain(slm_model *model);
void slm_model_release(slm_model *model); /* NULL is fine */

/* What an adapter can change. */
typedef enum slm_target {
    SLM_TARGET_EMBED_TOKENS,
    SLM_TARGET_LM_HEAD, /* also of a model whose output layer is tied to the embedding, which stays as it is */
    SLM_TARGET_Q_PROJ,  /* from here on of a layer */
    SLM_TARGET_K_PROJ,
    SLM_TARGET_V_PROJ,
    SLM_TARGET_O_PROJ,
    SLM_TARGET_GATE_PROJ,
    SLM_TARGET_UP_PROJ,
    SLM_TARGET_DOWN_PROJ,
} slm_target;
enum { SLM_TARGETS = SLM_TARGET_DOWN_PROJ + 1, SLM_MAX_RANK = 1 << 16 };

/* A low-rank addend (Hu et al. 2021, LoRA): the target gives y + scale * b (a x), of its f32 input x and in f32 whatever the
 * types and the precision of the model. Tensors are of floats and hold neither NaN nor infinity. */
typedef struct slm_lora {
    slm_target target;
    int64_t layer; /* 0 where the target is of none */
    slm_tensor a;  /* [rank, columns of the target]; of EMBED_TOKENS [vocab_size, rank], a row for each token */
    slm_tensor b;  /* [rows of the target, rank]; of EMBED_TOKENS [hidden_size, rank] */
    float scale;   /* finite; 0: nothing is added, bit for bit */
} slm_lora;

/* A model that shares all weights of another one, which it retains, and adds n_loras low-rank addends to what that one computes;
 * of one target they add up. Its sessions are its own. SLM_BAD_ARGUMENT, SLM_UNSUPPORTED, SLM_BAD_DATA: error.index is the layer.
 */
slm_status slm_model_adapt(slm_model *model, const slm_lora *loras, int64_t n_loras, const slm_call *call, slm_model **adapted,
                           slm_error *error);

typedef struct slm_model_stats {
    size_t weight_bytes; /* held by packed weights, those that are shared included */
    size_t token_bytes;  /* of them, read whole for each token */
    size_t kv_bytes;     /* as slm_memory has it */
    int64_t context, vocab_size, hidden_size, num_hidden_layers, num_attention_heads;
    slm_kv_type kv;
    bool bidirectional;
    slm_precision precision;
} slm_model_stats;
void slm_model_describe(const slm_model *model, slm_model_stats *stats);

/* ---- session: one KV state, one thread at a time ---------------------------------------------------------------- */

typedef struct slm_session slm_session;

slm_status slm_session_create(slm_model *model, slm_session **session, slm_error *error);
/* Shares all pages; the first write to a shared page copies it. */
slm_status slm_session_fork(const slm_session *session, slm_session **fork, slm_error *error);
void slm_session_release(slm_session *session); /* NULL is fine */
int64_t slm_session_length(const slm_session *session);
slm_model *slm_session_model(const slm_session *session); /* borrowed */
/* Bytes of keys and values held, those shared with forks included. */
size_t slm_session_kv_bytes(const slm_session *session);
/* Layers with windows drop what no query reaches: n_tokens from here to length can be rewound to, length - 64 always among them.
 */
int64_t slm_session_rewind_limit(const slm_session *session);
/* Keeps the first n_tokens positions: 0, or rewind_limit to length; else SLM_BAD_ARGUMENT, and nothing has changed. */
slm_status slm_session_rewind(slm_session *session, int64_t n_tokens, slm_error *error);

/* A session as bytes, of which the same model, loaded with the same types, makes it again. */
typedef struct slm_saved {
    int64_t length;  /* positions */
    int64_t settled; /* the most there ever were: layers with windows have dropped what these did not reach */
    size_t size;     /* bytes of keys and values */
} slm_saved;
/* bytes: [saved.size], or NULL: only *saved is wanted. */
void slm_session_save(const slm_session *session, slm_saved *saved, uint8_t *bytes);
/* SLM_BAD_DATA where this model has no session of that kind. Its numbers are not checked. */
slm_status slm_session_restore(slm_model *model, const slm_saved *saved, const uint8_t *bytes, slm_session **session,
                               slm_error *error);

typedef enum slm_output {
    SLM_NO_OUTPUT,   /* only fills the cache */
    SLM_LOGITS_LAST, /* [1, vocab_size] */
    SLM_LOGITS_ALL,  /* [n_tokens, vocab_size] */
    SLM_HIDDEN_LAST, /* [1, hidden_size]: what the final norm gives, which lm_head reads */
    SLM_HIDDEN_ALL,  /* [n_tokens, hidden_size] */
} slm_output;

/* Runs n_tokens >= 1 tokens at positions length, length + 1, ...; cancelled or failed, the session keeps its length
 * and the output is undefined. A bidirectional model takes a text in one call and one step, at position 0, and gives hidden
 * states only: SLM_UNSUPPORTED for logits. */
slm_status slm_session_forward(slm_session *session, const int32_t *tokens, int64_t n_tokens, slm_output which, float *output,
                               const slm_call *call, slm_error *error);

/* The logits [n_rows, vocab_size] of rows [n_rows, hidden_size] of the residual stream, by the final norm and lm_head: those of a
 * step, bit for bit, where rows are what SLM_SITE_OUT of the last layer gave (F32 weights through BLIS: all rows of the step). */
slm_status slm_model_unembed(slm_model *model, const float *rows, int64_t n_rows, float *logits, const slm_call *call,
                             slm_error *error);

/* ---- tokenizer: immutable, shareable -------------------------------------------------------------------------------- */

/* String i is bytes[offsets[i]] .. bytes[offsets[i + 1] - 1]; offsets: [count + 1], ascending. No terminator, NUL allowed. */
typedef struct slm_strings {
    const char *bytes;
    const uint64_t *offsets;
    size_t count;
} slm_strings;

/* The one bounded helper for vocabularies: splits `count` strings, each a little-endian u64 length and its bytes, that begin
 * at data[0]. Writes count + 1 offsets and the joined bytes (joined: at least size - 8 * count bytes), and how many bytes of
 * data were read. SLM_BAD_DATA with error.index = the first string that leaves data or is longer than max_string. */
slm_status slm_strings_split(const uint8_t *data, size_t size, size_t count, size_t max_string, uint64_t *offsets, char *joined,
                             size_t *consumed, slm_error *error);

/* GGUF's numbers. */
typedef enum slm_token_kind {
    SLM_TOKEN_NORMAL = 1,
    SLM_TOKEN_UNKNOWN = 2,
    SLM_TOKEN_CONTROL = 3,      /* matched with parse_special only; left out of text when specials are skipped */
    SLM_TOKEN_USER_DEFINED = 4, /* an added token that is text: matched always */
    SLM_TOKEN_UNUSED = 5,
    SLM_TOKEN_BYTE = 6,
} slm_token_kind;

/* How text is cut into words before merging: what one step looks for, a regular expression as Oniguruma reads it. */
typedef enum slm_split {
    SLM_SPLIT_GPT2_WORDS,         /* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
    SLM_SPLIT_LINE_WORDS,         /* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|
                                     \s*[\r\n]+|\s+(?!\S)|\s+ , and with: */
    SLM_SPLIT_LINE_WORDS_1,       /* \p{N} for \p{N}+ */
    SLM_SPLIT_LINE_WORDS_3,       /* \p{N}{1,3} */
    SLM_SPLIT_LINE_WORDS_MARKS,   /* \p{N}, and [\p{L}\p{M}] for \p{L} */
    SLM_SPLIT_LINE_WORDS_BARE,    /* \p{N}, and no [\r\n]* behind symbols */
    SLM_SPLIT_LINE_WORDS_PLAIN,   /* \p{N}, and no alternative for contractions */
    SLM_SPLIT_LINE_WORDS_BLOCKS,  /* \p{N}{1,3}, and \s{512}(?!\S)|\s{256}(?!\S)|...|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}
                                     for \s+(?!\S)|\s+ */
    SLM_SPLIT_LINE_PHRASES,       /* \p{N}, (?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+ for \p{L}+, and [\r\n]? for [\r\n]* */
    SLM_SPLIT_CASED_WORDS_1,      /* of U: [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], L: [\p{Ll}\p{Lm}\p{Lo}\p{M}]: [^\r\n\p{L}\p{N}]?U*L+|
                                     [^\r\n\p{L}\p{N}]?U+L*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
    SLM_SPLIT_CASED_WORDS_3,      /* the same with \p{N}{1,3}, and U*L+ and U+L* take (?i:'s|'t|'re|'ve|'m|'ll|'d)? along */
    SLM_SPLIT_CASED_WORDS_TAILED, /* that with \p{N} */
    SLM_SPLIT_HAN_OR_CASED_WORDS, /* \p{Han}+| and CASED_WORDS_3 with U and L without \p{Han}, and [\r\n]* for [\r\n/]* */
    SLM_SPLIT_SYMBOL_WORDS,       /* [!-\/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|
                                     \s*[\r\n]+|\s+(?!\S)|\s+ */
    SLM_SPLIT_SYMBOL_WORDS_BARE,  /* the same without [\r\n]* , and [\r\n] for \s*[\r\n]+ */
    SLM_SPLIT_LINES,              /* [^\n]+|[\n]+ */
    SLM_SPLIT_PHRASES,            /*  ?[^(\s|.,!?…。，、।۔،)]+ */
    SLM_SPLIT_LETTERS,            /* \s?\p{L}+ */
    SLM_SPLIT_CASED_LETTERS,      /* \s? and a run of the letters of alphabets with case that DeepSeek LLM lists */
    SLM_SPLIT_SIGNS,              /* \s?\p{P}+ */
    SLM_SPLIT_LISTED_SIGNS,       /* \s?[!-/:-~！-／：-～‘-‟\u3000-。]+ */
    SLM_SPLIT_KANA_OR_HAN,        /* [\u4E00-\u9FA5\u3040-\u30FF]+ */
    SLM_SPLIT_EAST_OF_ARABIC,     /* [\u0800-\u9FA5\uAC00-\uD7FF]+ */
    SLM_SPLIT_EAST_ASIAN, /* [가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-\u303F︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ヿ]+
                           */
    SLM_SPLIT_UNSPACED_SCRIPTS,   /* a run of Chinese and kana, of Thai, Lao, Khmer, Myanmar, or Hangul: blocks of Unicode */
    SLM_SPLIT_NUMBER,             /* \p{N} */
    SLM_SPLIT_NUMBERS_3,          /* \p{N}{1,3} */
    SLM_SPLIT_NUMBERS,            /* \p{N}+ */
    SLM_SPLIT_BYTE_DIGIT,         /* \p{N} of the letters that stand for bytes in GPT-2's alphabet: also parts of characters */
    SLM_SPLIT_BYTE_DIGITS,        /* \p{N}+ of them */
    SLM_SPLIT_THREE_DIGITS,       /* [0-9][0-9][0-9] */
    SLM_SPLIT_DIGIT_GROUPS,       /* \p{Nd}{1,3}(?=(?:\p{Nd}{3})*(?!\p{Nd})) : from the end of the run */
    SLM_SPLIT_BOUNDED_GROUPS,     /* \d{1,3}(?=(?:\d{3})*\b) */
    SLM_SPLIT_BEFORE_GROUPS,      /* (?=(\d{3})+(?!\d)) , which is empty: pieces begin there */
    SLM_SPLIT_NEWLINE,            /* [\r\n] */
    SLM_SPLIT_INDENTS,            /* ([\t\n]|    |  ) */
    SLM_SPLIT_SENTINELS,          /* <sentinel:[0-9]+> */
    SLM_SPLIT_IMAGE_CODES,        /* (IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z */
    SLM_SPLIT_PUNCTUATION,        /* one character of what BERT takes for punctuation: \p{P} and all signs of ASCII */
    SLM_SPLIT_WHITE_SPACE,        /* \s+ */
    SLM_SPLIT_WORDS_AND_SIGNS,    /* \w+|[^\w\s]+ , \w with joiners, as in UTS 18 */
    SLM_SPLIT_WHITE_SPACE_AT_END, /* \s+$ */
    SLM_SPLIT_SPACE_WORDS, /* where pieces hold spaces: each space begins a word; without it BPE cuts where no piece reaches
                              across. Only WHITE_SPACE, removed, may come before it */
} slm_split;
enum { SLM_MAX_SPLITS = 8 };

/* What becomes of matches and of what lies between them. Names are those of Hugging Face's tokenizers. */
typedef enum slm_behavior {
    SLM_BEHAVIOR_ISOLATED,             /* both are pieces */
    SLM_BEHAVIOR_REMOVED,              /* matches are left out */
    SLM_BEHAVIOR_KEPT,                 /* what lies between is left out */
    SLM_BEHAVIOR_MERGED_WITH_PREVIOUS, /* a match goes with what lies in front of it */
    SLM_BEHAVIOR_MERGED_WITH_NEXT,     /* with what lies behind it */
    SLM_BEHAVIOR_CONTIGUOUS,           /* matches side by side are one piece */
} slm_behavior;

/* One step. It cuts each piece that the step before left, as if that were a text of its own. */
typedef struct slm_split_step {
    slm_split kind;
    slm_behavior behavior; /* of SPACE_WORDS: ISOLATED */
} slm_split_step;

/* What makes tokens of a word. */
typedef enum slm_tokenizer_model {
    SLM_TOKENIZER_BYTE_BPE, /* merges from bytes, in the order of `merges` */
    SLM_TOKENIZER_BPE, /* merges from characters, by `scores` (the piece of the highest first) or in the order of `merges`; what
                          is no piece becomes byte tokens */
    SLM_TOKENIZER_UNIGRAM,   /* the pieces whose scores have the largest sum */
    SLM_TOKENIZER_WORDPIECE, /* the longest piece first; those inside a word begin with continuing_prefix */
} slm_tokenizer_model;

/* Of an added token; as Hugging Face's AddedToken. */
enum slm_token_flag {
    SLM_TOKEN_LSTRIP = 1,      /* takes the white space before it along */
    SLM_TOKEN_RSTRIP = 2,      /* and behind it */
    SLM_TOKEN_SINGLE_WORD = 4, /* only where no word character is on either side */
    SLM_TOKEN_NORMALIZED = 8,  /* looked for in the text once it is normalized */
};

typedef enum slm_normalizer_kind {
    SLM_NORMALIZER_NFC,
    SLM_NORMALIZER_NFD,
    SLM_NORMALIZER_NFKC,
    SLM_NORMALIZER_NFKD,
    SLM_NORMALIZER_LOWERCASE,
    SLM_NORMALIZER_STRIP_MARKS,      /* removes \p{M} */
    SLM_NORMALIZER_STRIP_NONSPACING, /* removes \p{Mn} */
    SLM_NORMALIZER_CLEAN,            /* removes NUL, U+FFFD and control characters; white space becomes a space */
    SLM_NORMALIZER_SPACE_CJK,        /* a space on either side of every CJK ideograph */
    SLM_NORMALIZER_REPLACE,          /* a by b */
    SLM_NORMALIZER_COLLAPSE,         /* two or more spaces by b */
    SLM_NORMALIZER_PREPEND,          /* b in front, unless the text is empty */
    SLM_NORMALIZER_STRIP_LEFT,       /* white space */
    SLM_NORMALIZER_STRIP_RIGHT,
    SLM_NORMALIZER_CHARSMAP, /* a: SentencePiece's precompiled_charsmap */
} slm_normalizer_kind;

typedef struct slm_normalizer {
    slm_normalizer_kind kind;
    const uint8_t *a, *b; /* [a_size], [b_size] UTF-8 */
    size_t a_size, b_size;
} slm_normalizer;

/* Where a space is put in front of text. Text: what lies between added tokens, if it is not empty. */
typedef enum slm_space_prefix {
    SLM_SPACE_PREFIX_NONE,
    SLM_SPACE_PREFIX_ALWAYS,
    SLM_SPACE_PREFIX_MISSING, /* unless a space is there */
    SLM_SPACE_PREFIX_FIRST,   /* the same, and only where the whole text begins */
} slm_space_prefix;

/* Text goes through added tokens, normalizers, the space prefix, the pre-tokenizer, the model, in this order. Pieces of all
 * models but byte-level BPE and WordPiece have U+2581 for a space. */
typedef struct slm_tokenizer_spec {
    slm_tokenizer_model model;
    slm_strings pieces;   /* [vocab_size] added tokens as plain text; others in the byte-level alphabet of GPT-2, or characters; a
                             byte token as <0x00> to <0xFF> */
    const uint8_t *kinds; /* [vocab_size] slm_token_kind */
    const uint8_t *flags; /* [vocab_size] slm_token_flag; NULL: none */
    const slm_normalizer *normalizers; /* [n_normalizers], each of what the one before it gives */
    size_t n_normalizers;
    slm_space_prefix space_prefix;
    const slm_split_step *splits; /* [n_splits], at most SLM_MAX_SPLITS; none: a text is one word */
    size_t n_splits;
    const double *scores;             /* [vocab_size]; NULL: none */
    slm_strings merges;               /* "left right" in the alphabet of pieces; the index is the rank */
    bool ignore_merges;               /* a word that is a piece is that token, whatever the merges would make of it */
    int32_t unk;                      /* the token of what is no piece; -1: none */
    bool byte_fallback;               /* what is no piece becomes byte tokens, if there is one for each of its bytes */
    bool fuse_unk;                    /* neighbouring unk become one */
    const uint8_t *continuing_prefix; /* [continuing_size] WordPiece: "##" */
    size_t continuing_size;
    int32_t max_word_length;        /* WordPiece: characters; a longer word is unk */
    const int32_t *prefix, *suffix; /* [n_prefix], [n_suffix] tokens put around a text, such as bos */
    size_t n_prefix, n_suffix;
} slm_tokenizer_spec;

typedef struct slm_tokenizer slm_tokenizer;

/* SLM_BAD_DATA: error.message names the field, error.index the element. */
slm_status slm_tokenizer_create(const slm_tokenizer_spec *spec, slm_tokenizer **tokenizer, slm_error *error);
slm_tokenizer *slm_tokenizer_retain(slm_tokenizer *tokenizer);
void slm_tokenizer_release(slm_tokenizer *tokenizer); /* NULL is fine */

typedef struct slm_encode_options {
    bool add_special_tokens; /* prefix and suffix */
    bool parse_special;      /* control tokens written in the text become control tokens ... */
    const uint64_t *guards;  /* ... but none that would cover both bytes text[g - 1] and text[g], for each guard g */
    size_t n_guards;         /* ascending byte offsets */
    bool spans;              /* say of which characters each token is made */
} slm_encode_options;

typedef struct slm_span { /* characters [start, end) of a text; a byte that is not UTF-8 counts as one */
    uint32_t start, end;
} slm_span;

typedef struct slm_tokens { /* zero it first; the callee allocates, slm_tokens_free frees */
    int32_t *ids;           /* [count] */
    slm_span *spans;        /* [count] if asked for; empty for what add_special_tokens adds */
    size_t count, capacity;
    bool with_spans; /* were they asked for? */
    size_t dropped; /* bytes of text for which the vocabulary has no piece: they left no token, as in Hugging Face's tokenizers */
} slm_tokens;

typedef struct slm_text { /* zero it first; the callee allocates, slm_text_free frees */
    char *bytes;          /* [size], no terminator */
    size_t size, capacity;
} slm_text;

void slm_tokens_free(slm_tokens *tokens);
void slm_text_free(slm_text *text);

/* text: UTF-8 of `size` bytes (invalid sequences are encoded byte by byte, they never fail). Appends to *tokens, which has spans
 * of all its tokens or of none. */
slm_status slm_tokenizer_encode(const slm_tokenizer *tokenizer, const char *text, size_t size, const slm_encode_options *options,
                                const slm_call *call, slm_tokens *tokens, slm_error *error);
typedef struct slm_text_view {
    const char *bytes; /* [size] */
    size_t size;
} slm_text_view;
/* The same for each of `count` texts, by all threads of the call; options->n_guards is 0. tokens: [count], zeroed; on failure the
 * caller frees what some of them hold. */
slm_status slm_tokenizer_encode_batch(const slm_tokenizer *tokenizer, const slm_text_view *texts, size_t count,
                                      const slm_encode_options *options, const slm_call *call, slm_tokens *tokens,
                                      slm_error *error);
/* Appends the exact bytes of the tokens (perhaps not valid UTF-8) to *text. Ids outside the vocabulary: SLM_BAD_ARGUMENT. On
 * failure text is as before. call: may be NULL. */
slm_status slm_tokenizer_decode(const slm_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                const slm_call *call, slm_text *text, slm_error *error);
int64_t slm_tokenizer_size(const slm_tokenizer *tokenizer);
/* Is the text of a whole decoded sequence to lose one space at its start, which encoding has put there? */
bool slm_tokenizer_strips_space(const slm_tokenizer *tokenizer);
slm_token_kind slm_tokenizer_kind(const slm_tokenizer *tokenizer, int32_t id); /* 0 <= id < size */
/* The id whose piece is exactly this text, an added token or a published piece; -1: none. */
int32_t slm_tokenizer_find(const slm_tokenizer *tokenizer, const char *piece, size_t size);

/* Streaming UTF-8: holds back at most 3 bytes of an unfinished character, replaces what cannot be UTF-8 by U+FFFD exactly as
 * Python's bytes.decode("utf-8", "replace") does. Zero it first. */
typedef struct slm_utf8_stream {
    uint8_t held[4];
    uint8_t n_held;
} slm_utf8_stream;
/* Appends all whole characters of held + bytes; with `finish` also a replacement for what is left. */
slm_status slm_utf8_push(slm_utf8_stream *stream, const char *bytes, size_t size, bool finish, slm_text *text, slm_error *error);

/* ---- constraints: what the text of a generation must match ------------------------------------------------------------ */

typedef enum slm_expression_kind {
    SLM_EXPRESSION_EMPTY,         /* the empty text */
    SLM_EXPRESSION_BYTES,         /* one byte from a to b */
    SLM_EXPRESSION_CONCATENATION, /* a, then b */
    SLM_EXPRESSION_ALTERNATION,   /* a or b */
    SLM_EXPRESSION_INTERSECTION,  /* what matches both a and b */
    SLM_EXPRESSION_DIFFERENCE,    /* what matches a and not b */
    SLM_EXPRESSION_REPETITION,    /* a, at least b and at most `most` times */
} slm_expression_kind;

/* A regular expression over bytes. It stands in an array behind its operands, which are indices there. */
typedef struct slm_expression {
    int32_t kind;
    int32_t a, b;
    int32_t most; /* -1: without end */
} slm_expression;

/* The last of n expressions as a deterministic automaton. Immutable, shareable. SLM_TOO_LARGE: it has too many states; no text
 * matches: SLM_BAD_ARGUMENT. */
typedef struct slm_automaton slm_automaton;
slm_status slm_automaton_create(const slm_expression *expressions, size_t n, const slm_call *call, slm_automaton **automaton,
                                slm_error *error);
slm_automaton *slm_automaton_retain(slm_automaton *automaton);
void slm_automaton_release(slm_automaton *automaton);       /* NULL is fine */
int64_t slm_automaton_size(const slm_automaton *automaton); /* states */
/* In linear time. */
bool slm_automaton_matches(const slm_automaton *automaton, const char *text, size_t size);

/* An automaton over a vocabulary: which tokens may follow. It keeps what it has found out. Shareable. */
typedef struct slm_constraint slm_constraint;
slm_status slm_constraint_create(slm_automaton *automaton, slm_tokenizer *tokenizer, slm_constraint **constraint,
                                 slm_error *error);
slm_constraint *slm_constraint_retain(slm_constraint *constraint);
void slm_constraint_release(slm_constraint *constraint); /* NULL is fine */
/* The tokens of text that may follow this text, ascending. tokens: zeroed. */
slm_status slm_constraint_follow(slm_constraint *constraint, const char *text, size_t size, slm_tokens *tokens, slm_error *error);

/* ---- generation: the token loop --------------------------------------------------------------------------------------- */

/* Guesses of what will be drawn, which a step checks all at once. They change the time, and not one token. */
typedef enum slm_draft {
    SLM_DRAFT_NONE,
    /* What followed the last tokens where they stood before; while at least 30 % of the last guesses were right. */
    SLM_DRAFT_LOOKUP,
} slm_draft;

typedef struct slm_generate_options {
    int64_t max_tokens; /* >= 0 */
    bool ignore_eos;
    float temperature; /* 0: greedy, ties to the lowest id */
    int32_t top_k;     /* 0: off */
    float top_p;       /* (0, 1]; 1: off */
    float min_p;       /* [0, 1]: least probability, as a part of the largest; 0: off */
    float typical_p;   /* (0, 1]: mass of those that surprise as much as is expected; 0 and 1: off */
    /* Added to logits: -infinity bans a token, NaN and infinity are refused. */
    const int32_t *bias_ids; /* [n_bias] */
    const float *bias;       /* [n_bias] */
    size_t n_bias;
    /* Of the last penalty_window >= 1 tokens of prompt and text: logits divided, negative ones multiplied; 0 and 1: off */
    float repetition_penalty;
    float presence_penalty, frequency_penalty; /* taken from their logits, and once more for each time they stand there */
    int64_t penalty_window;
    int64_t no_repeat_ngram; /* so many tokens never stand together twice, the prompt included; 0: off */
    uint64_t seed;
    uint64_t sample;           /* index of this sample under the seed; of n samples, of the first one */
    int64_t n;                 /* samples of each prompt of a batch; 0 and 1: one */
    slm_strings stop;          /* none empty; needs a tokenizer */
    const int32_t *end_tokens; /* [n_end_tokens]; they end the text and are not part of it */
    size_t n_end_tokens;
    slm_constraint *constraint; /* of the same tokenizer; NULL: any text. End tokens come where the text matches */
    bool guided;                /* raise SLM_EVENT_ALLOWED instead of a constraint; needs a tokenizer */
    bool processed;             /* raise SLM_EVENT_LOGITS, with what penalties have left; not for what a constraint demands */
    /* With each token its log-probability and those of so many likeliest ones there, by the model's own logits: before bias,
     * penalties, processing and temperature, and among what is allowed; 0: off */
    int64_t logprobs;
    slm_draft draft; /* for texts without limits */
} slm_generate_options;

typedef enum slm_finish {
    SLM_FINISH_NONE = 0, /* not finished yet */
    SLM_FINISH_STOP,     /* an end token or a stop string */
    SLM_FINISH_LENGTH,   /* max_tokens, or the end of the context */
} slm_finish;

typedef struct slm_logprob {
    int32_t id;
    float logprob; /* ln of its probability */
} slm_logprob;

/* Valid until the next call on the same generation. */
typedef struct slm_chunk {
    const char *text; /* whole characters only; without the stop string */
    size_t text_size;
    const int32_t *tokens; /* generated since the last chunk, without the end token */
    size_t n_tokens;
    const slm_logprob
        *logprobs; /* [n_tokens][1 + options.logprobs]: the token, and the likeliest, falling; id -1: fewer. Or NULL */
    slm_finish finish;
    double prefill_seconds;        /* of the whole generation so far: until the first token */
    double decode_seconds;         /* and after it */
    int64_t n_shared;              /* tokens of the prompt that another one of its batch has run for it */
    int64_t n_drafted, n_accepted; /* tokens that were guessed so far, and those of them that were drawn */
} slm_chunk;

typedef struct slm_generation slm_generation;

/* Copies prompt and options; borrows the session, which must outlive it and be used by nobody else meanwhile. The first n_held <
 * n_prompt tokens of the prompt are the last ones that the session holds; the others are run by the first slm_generation_next.
 * tokenizer may be NULL: no text. */
slm_status slm_generation_create(slm_session *session, slm_tokenizer *tokenizer, const int32_t *prompt, int64_t n_prompt,
                                 int64_t n_held, const slm_generate_options *options, slm_generation **generation,
                                 slm_error *error);
/* Runs until there is text to show (whole: until the end). Cancelled: what was generated stays and a later call goes on. */
slm_status slm_generation_next(slm_generation *generation, bool whole, const slm_call *call, slm_chunk *chunk, slm_error *error);
/* What has come since the last chunk, without running: also behind a call that was cancelled or failed. */
void slm_generation_chunk(slm_generation *generation, slm_chunk *chunk);
void slm_generation_release(slm_generation *generation); /* NULL is fine */

/* Many prompts at once: the next tokens of up to SLM_BATCH_MOST texts are the columns of the same linears. What prompts have in
 * common at their beginning is run once. Each gives what it would alone, but where weights are F32 and run by BLIS. */
typedef struct slm_batch slm_batch;
typedef struct slm_prompt {
    const int32_t *tokens; /* [n_tokens], at least one */
    int64_t n_tokens;
} slm_prompt;

enum { SLM_BATCH_MOST = 32 };

/* Copies prompts and options. Fewer texts run at once where their keys and values, if all came to max_tokens, would take more
 * bytes than those of one session that is full, and than the weights. error.index: the prompt. */
slm_status slm_batch_create(slm_model *model, slm_tokenizer *tokenizer, const slm_prompt *prompts, size_t n_prompts,
                            const slm_generate_options *options, slm_batch **batch, slm_error *error);
/* Runs all of them to their ends. Cancelled: what was generated stays and a later call goes on, unless SLM_EVENT_LOGITS
 * cancelled. The message of an error names the prompt. */
slm_status slm_batch_run(slm_batch *batch, const slm_call *call, slm_error *error);
/* What has come of sample i % n of prompt i / n. Seconds are those by the clock, from its first step on, in which the others ran
 * too. */
void slm_batch_chunk(slm_batch *batch, size_t i, slm_chunk *chunk);
void slm_batch_release(slm_batch *batch); /* NULL is fine */

/* ---- scores: what the model thinks of given tokens ------------------------------------------------------------------------ */

typedef struct slm_scored {
    const int32_t *tokens; /* [n_tokens] a context and what is scored behind it */
    int64_t n_tokens;
    int64_t n_scored; /* the last so many of them: at least one, and not all */
    double *logprobs; /* [n_scored] to be filled: ln of the probability of each, given all tokens before it */
    bool greedy;      /* to be filled: each of them is the likeliest, ties to the lowest id */
} slm_scored;

/* Fills all of texts. What they begin with in common is run once, and up to a prefill chunk of tokens at once, of as many texts
 * as it takes; the same bits for any order and for any other texts beside (F32 weights through BLIS: for any number of threads).
 * Logits take up to 64 MB, or one row; keys and values as in a batch. The message of an error names the text. */
slm_status slm_score(slm_model *model, slm_scored *texts, size_t n_texts, const slm_call *call, slm_error *error);

#endif
