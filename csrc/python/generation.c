/* SPDX-License-Identifier: Apache-2.0
 * generation.c: slm._core.Generation: the token loop over one session, pulled chunk by chunk; and batches, which run whole. */
#include <float.h>
#include <string.h>

#include "python/objects.h"

/* ---- arguments of both kinds of generate ------------------------------------------------------------------------------- */

/* What a call to generate is given. Zero it first; free_arguments. */
typedef struct arguments {
    slm_tokenizer *tokenizer;           /* borrowed; NULL: none */
    PyObject *processors;               /* borrowed; NULL: none */
    PyObject *guide;                    /* borrowed; NULL: none */
    PyObject *progress, *so_far, *taps; /* borrowed; of batches; NULL: none */
    PyObject *prompt, *last; /* borrowed: the argument `prompt` or `prompts`, and the one of the method's own, or NULL */
    slm_generate_options options;
    int32_t *end_tokens, *bias_ids;
    PyObject *stop_bytes, *stop_offsets, *bias;
} arguments;

/* The stop strings as one block of bytes and its offsets, both `bytes` objects for the caller to release. */
static bool read_stop(PyObject *sequence, slm_strings *stop, PyObject **bytes, PyObject **offsets) {
    PyObject *list = PySequence_List(sequence), *empty = list ? PyBytes_FromStringAndSize(NULL, 0) : NULL;
    Py_ssize_t n = list ? PyList_Size(list) : 0;
    for (Py_ssize_t i = 0; empty && i < n; i++) {
        if (PyBytes_Check(PyList_GetItem(list, i))) continue;
        PyErr_Format(PyExc_TypeError, "stop[%zd]: expected bytes, found %R", i, (PyObject *)Py_TYPE(PyList_GetItem(list, i)));
        Py_CLEAR(empty);
    }
    *bytes = empty ? PyObject_CallMethod(empty, "join", "O", list) : NULL;
    *offsets = *bytes ? PyBytes_FromStringAndSize(NULL, (n + 1) * (Py_ssize_t)sizeof(uint64_t)) : NULL;
    uint64_t *at = *offsets ? (uint64_t *)(void *)PyBytes_AsString(*offsets) : NULL, total = 0;
    for (Py_ssize_t i = 0; at && i <= n; i++) {
        at[i] = total;
        if (i < n) total += (uint64_t)PyBytes_Size(PyList_GetItem(list, i));
    }
    Py_XDECREF(empty);
    Py_XDECREF(list);
    if (!at) return false;
    *stop = (slm_strings){.bytes = PyBytes_AsString(*bytes), .offsets = at, .count = (size_t)n};
    return true;
}

static bool read_draft(const char *name, slm_draft *draft) {
    *draft = strcmp(name, "lookup") ? SLM_DRAFT_NONE : SLM_DRAFT_LOOKUP;
    if (*draft || !strcmp(name, "none")) return true;
    PyErr_Format(PyExc_ValueError, "draft: expected 'none' or 'lookup', found '%.32s'", name);
    return false;
}

/* In f32, where only 0 becomes 0: it has a meaning of its own. */
static float not_zero(double x) {
    return x > 0 && (float)x == 0 ? FLT_TRUE_MIN : (float)x;
}

/* A mapping of ids to numbers, as two sequences. */
static bool read_bias(PyObject *ids, PyObject *values, arguments *a) {
    int64_t n_ids = 0, n_values = 0;
    if (ids && !(a->bias_ids = slm_py_tokens(ids, "bias_ids", &n_ids))) return false;
    if (values && !(a->options.bias = slm_py_floats(values, "bias", &n_values, &a->bias))) return false;
    a->options.bias_ids = a->bias_ids;
    a->options.n_bias = (size_t)n_ids;
    if (n_ids == n_values) return true;
    PyErr_Format(PyExc_ValueError, "bias: expected as many values as bias_ids, found %lld for %lld", (long long)n_values,
                 (long long)n_ids);
    return false;
}

/* *processors: NULL where there are none. */
static bool read_processors(PyObject *given, PyObject **processors) {
    if (given && !PyTuple_Check(given)) {
        PyErr_Format(PyExc_TypeError, "processors: expected a tuple, found %R", (PyObject *)Py_TYPE(given));
        return false;
    }
    *processors = given && PyTuple_Size(given) ? given : NULL;
    return true;
}

/* False with an exception. */
static bool read_arguments(const slm_py_state *state, PyObject *args, PyObject *kwargs, bool batch, arguments *a) {
    char *names[] = {"tokenizer",
                     batch ? "prompts" : "prompt",
                     "max_tokens",
                     "ignore_eos",
                     "temperature",
                     "top_k",
                     "top_p",
                     "seed",
                     "sample",
                     "stop",
                     "end_tokens",
                     "draft",
                     batch ? "threads" : "n_held",
                     "min_p",
                     "typical_p",
                     "repetition_penalty",
                     "presence_penalty",
                     "frequency_penalty",
                     "penalty_window",
                     "no_repeat_ngram",
                     "bias_ids",
                     "bias",
                     "n",
                     "logprobs",
                     "processors",
                     "constraint",
                     "guide",
                     batch ? "progress" : NULL,
                     "so_far",
                     "taps",
                     NULL};
    const char *format = batch ? "OOOpdOdOOOO|sO$fddffOOOOOOOOOOOO" : "OOOpdOdOOOO|sO$fddffOOOOOOOOO";
    PyObject *tokenizer, *max_tokens, *top_k_object, *seed, *sample, *stop, *end_tokens;
    PyObject *window = NULL, *ngram = NULL, *n = NULL, *logprobs = NULL, *processors = NULL, *bias_ids = NULL, *bias = NULL;
    PyObject *constraint = Py_None, *guide = Py_None, *progress = Py_None;
    slm_generate_options *o = &a->options;
    const char *draft = "none";
    double temperature, top_p, typical_p = 1, repetition = 1;
    int ignore_eos;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &tokenizer, &a->prompt, &max_tokens, &ignore_eos, &temperature,
                                     &top_k_object, &top_p, &seed, &sample, &stop, &end_tokens, &draft, &a->last, &o->min_p,
                                     &typical_p, &repetition, &o->presence_penalty, &o->frequency_penalty, &window, &ngram,
                                     &bias_ids, &bias, &n, &logprobs, &processors, &constraint, &guide, &progress, &a->so_far,
                                     &a->taps)) {
        return false;
    }
    int64_t n_end, top_k;
    if (!slm_py_int(max_tokens, "max_tokens", 0, INT64_MAX, &o->max_tokens) ||
        !slm_py_int(top_k_object, "top_k", 0, INT32_MAX, &top_k) || !slm_py_uint64(seed, "seed", &o->seed) ||
        !slm_py_uint64(sample, "sample", &o->sample) || !read_draft(draft, &o->draft) ||
        (tokenizer != Py_None && !(a->tokenizer = slm_py_tokenizer(state, tokenizer))) ||
        (constraint != Py_None && !(o->constraint = slm_py_constraint(state, constraint))) ||
        !(a->end_tokens = slm_py_tokens(end_tokens, "end_tokens", &n_end)) ||
        !read_stop(stop, &o->stop, &a->stop_bytes, &a->stop_offsets) ||
        (window && !slm_py_int(window, "penalty_window", 0, INT64_MAX, &o->penalty_window)) ||
        (ngram && !slm_py_int(ngram, "no_repeat_ngram", 0, INT64_MAX, &o->no_repeat_ngram)) ||
        (n && !slm_py_int(n, "n", 1, INT32_MAX, &o->n)) ||
        (logprobs && !slm_py_int(logprobs, "logprobs", 0, INT32_MAX, &o->logprobs)) ||
        !read_processors(processors, &a->processors) || !read_bias(bias_ids, bias, a)) {
        return false;
    }
    if (a->so_far && !PyList_Check(a->so_far)) {
        PyErr_Format(PyExc_TypeError, "so_far: expected a list, found %R", (PyObject *)Py_TYPE(a->so_far));
        return false;
    }
    a->progress = progress == Py_None ? NULL : progress;
    a->guide = guide == Py_None ? NULL : guide;
    o->guided = a->guide;
    o->processed = a->processors != NULL;
    o->ignore_eos = ignore_eos;
    o->temperature = not_zero(temperature);
    o->top_p = not_zero(top_p);
    o->typical_p = not_zero(typical_p);
    o->repetition_penalty = not_zero(repetition);
    o->top_k = (int32_t)top_k;
    o->end_tokens = a->end_tokens;
    o->n_end_tokens = (size_t)n_end;
    return true;
}

static void free_arguments(arguments *a) {
    slm_py_free(a->end_tokens);
    slm_py_free(a->bias_ids);
    Py_XDECREF(a->bias);
    Py_XDECREF(a->stop_bytes);
    Py_XDECREF(a->stop_offsets);
}

/* (id, log-probability) of each token and then of the likeliest there; fewer where there were fewer to choose from. */
static PyObject *logprobs_object(const slm_chunk *chunk, int64_t n_likeliest) {
    if (!n_likeliest) Py_RETURN_NONE;
    PyObject *list = PyList_New((Py_ssize_t)chunk->n_tokens);
    const slm_logprob *at = chunk->logprobs;
    for (size_t i = 0; list && i < chunk->n_tokens; i++, at += 1 + n_likeliest) {
        Py_ssize_t n = 1;
        while (n <= n_likeliest && at[n].id >= 0) n++;
        PyObject *row = PyList_New(n);
        for (Py_ssize_t j = 0; row && j < n; j++) {
            PyObject *pair = Py_BuildValue("(id)", (int)at[j].id, (double)at[j].logprob);
            if (!pair || PyList_SetItem(row, j, pair)) Py_CLEAR(row);
        }
        if (!row || PyList_SetItem(list, (Py_ssize_t)i, row)) Py_CLEAR(list);
    }
    return list;
}

static PyObject *chunk_object(const slm_chunk *chunk, int64_t n_likeliest) {
    static const char *const finishes[] = {[SLM_FINISH_NONE] = NULL, [SLM_FINISH_STOP] = "stop", [SLM_FINISH_LENGTH] = "length"};
    PyObject *result = NULL, *tokens = PyList_New((Py_ssize_t)chunk->n_tokens);
    for (size_t i = 0; tokens && i < chunk->n_tokens; i++) {
        PyObject *id = PyLong_FromLong(chunk->tokens[i]);
        if (!id || PyList_SetItem(tokens, (Py_ssize_t)i, id)) Py_CLEAR(tokens);
    }
    PyObject *text = tokens ? PyUnicode_DecodeUTF8(chunk->text ? chunk->text : "", (Py_ssize_t)chunk->text_size, "strict") : NULL;
    PyObject *logprobs = text ? logprobs_object(chunk, n_likeliest) : NULL;
    if (logprobs) {
        result =
            Py_BuildValue("(OOzddLLLO)", text, tokens, finishes[chunk->finish], chunk->prefill_seconds, chunk->decode_seconds,
                          (long long)chunk->n_shared, (long long)chunk->n_drafted, (long long)chunk->n_accepted, logprobs);
    }
    Py_XDECREF(logprobs);
    Py_XDECREF(text);
    Py_XDECREF(tokens);
    return result;
}

/* ---- a generation --------------------------------------------------------------------------------------------------------- */

typedef struct slm_py_generation {
    PyObject_HEAD slm_generation *generation; /* NULL when closed */
    slm_py_session *session;                  /* strong; busy because of us while `occupies` */
    int64_t n_logprobs;
    bool occupies, running;
} slm_py_generation;

/* Takes over the generation, also on failure; marks the session busy until the generation ends. */
static PyObject *wrap(slm_py_state *state, slm_generation *generation, slm_py_session *session) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(state->Generation, Py_tp_alloc);
    slm_py_generation *self = (slm_py_generation *)allocate(state->Generation, 0);
    if (!self) {
        slm_generation_release(generation);
        return NULL;
    }
    self->generation = generation;
    self->session = (slm_py_session *)Py_NewRef((PyObject *)session);
    self->occupies = session->busy = true;
    return (PyObject *)self;
}

PyObject *slm_py_session_generate(PyObject *object, PyObject *args, PyObject *kwargs) {
    slm_py_session *self = (slm_py_session *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    PyObject *result = NULL;
    arguments a = {0};
    int32_t *prompt = NULL;
    int64_t n_prompt, n_held = 0;
    slm_generation *generation = NULL;
    slm_error error;
    if (read_arguments(state, args, kwargs, false, &a) && (prompt = slm_py_tokens(a.prompt, "prompt", &n_prompt)) &&
        (!a.last || slm_py_int(a.last, "n_held", 0, INT64_MAX, &n_held)) && slm_py_claim(state, self)) {
        /* From claim to wrap nothing runs Python: another thread must not come between. */
        if (slm_generation_create(self->session, a.tokenizer, prompt, n_prompt, n_held, &a.options, &generation, &error)) {
            slm_py_raise(state, &error);
        } else {
            result = wrap(state, generation, self);
            if (result) ((slm_py_generation *)result)->n_logprobs = a.options.logprobs;
        }
    }
    slm_py_free(prompt);
    free_arguments(&a);
    return result;
}

static void vacate(slm_py_generation *self) {
    if (self->occupies) self->session->busy = false;
    self->occupies = false;
}

static PyObject *generation_next(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"whole", "threads", "prefill_chunk", "processors", "taps", "guide", NULL};
    slm_py_generation *self = (slm_py_generation *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    int whole;
    PyObject *threads = NULL, *prefill_chunk = NULL, *processors = NULL, *taps = NULL, *guide = Py_None;
    slm_py_call call = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "p|OOOOO", names, &whole, &threads, &prefill_chunk, &processors, &taps,
                                     &guide) ||
        !slm_py_call_options(threads, prefill_chunk, &call.call) || !read_processors(processors, &call.processors)) {
        return NULL;
    }
    call.guide = guide == Py_None ? NULL : guide;
    if (self->running) return PyErr_Format(state->BusyError, "the generation is already running");
    if (!self->generation) return PyErr_Format(state->ClosedError, "the generation is closed");
    slm_chunk chunk;
    slm_error error;
    if (!slm_py_read_taps(taps, slm_session_model(self->session->session), -1, 0, &call)) {
        slm_py_free_taps(&call);
        return NULL;
    }
    self->running = true;
    Py_INCREF(object); /* a signal handler may drop the last other reference */
    slm_py_call_begin(&call, state);
    slm_status status = slm_generation_next(self->generation, whole, &call.call, &chunk, &error);
    bool ok = slm_py_call_end(&call) && !status;
    slm_py_free_taps(&call);
    self->running = false;
    self->session->length = slm_session_length(self->session->session);
    PyObject *result = NULL;
    if (!ok) {
        if (status) slm_py_raise(state, &error);
    } else {
        if (chunk.finish != SLM_FINISH_NONE) vacate(self);
        result = chunk_object(&chunk, self->n_logprobs);
    }
    Py_DECREF(object);
    return result;
}

static PyObject *generation_so_far(PyObject *object, PyObject *unused) {
    (void)unused;
    slm_py_generation *self = (slm_py_generation *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    slm_chunk chunk;
    if (self->running) return PyErr_Format(state->BusyError, "the generation is running in another thread");
    if (!self->generation) return PyErr_Format(state->ClosedError, "the generation is closed");
    slm_generation_chunk(self->generation, &chunk);
    return chunk_object(&chunk, self->n_logprobs);
}

static PyObject *generation_close(PyObject *object, PyObject *unused) {
    (void)unused;
    slm_py_generation *self = (slm_py_generation *)object;
    if (self->running) {
        return PyErr_Format(slm_py_state_of(Py_TYPE(object))->BusyError, "the generation is running in another thread");
    }
    vacate(self);
    slm_generation_release(self->generation);
    self->generation = NULL;
    Py_RETURN_NONE;
}

static void generation_dealloc(PyObject *object) {
    slm_py_generation *self = (slm_py_generation *)object;
    PyTypeObject *type = Py_TYPE(object);
    vacate(self);
    slm_generation_release(self->generation);
    Py_XDECREF((PyObject *)self->session);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* ---- a batch -------------------------------------------------------------------------------------------------------------- */

/* Prompts from a sequence of sequences of ids; *count of them are there to be freed also on failure, where it is false with an
 * exception. */
static bool read_prompts(PyObject *list, slm_prompt *prompts, Py_ssize_t *count) {
    for (Py_ssize_t n = PyList_Size(list); *count < n; ++*count) {
        char name[32];
        PyOS_snprintf(name, sizeof name, "prompts[%zd]", *count);
        slm_prompt *p = &prompts[*count];
        int32_t *tokens = slm_py_tokens(PyList_GetItem(list, *count), name, &p->n_tokens);
        if (!tokens) return false;
        p->tokens = tokens;
    }
    return true;
}

/* What has come of n texts. */
static PyObject *chunk_objects(slm_batch *batch, Py_ssize_t n, int64_t n_likeliest) {
    PyObject *list = PyList_New(n);
    for (Py_ssize_t i = 0; list && i < n; i++) {
        slm_chunk chunk;
        slm_batch_chunk(batch, (size_t)i, &chunk);
        PyObject *item = chunk_object(&chunk, n_likeliest);
        if (!item || PyList_SetItem(list, i, item)) Py_CLEAR(list);
    }
    return list;
}

/* The same behind what `so_far` holds, while an exception is set, which stays; where memory is short, nothing. */
static void keep(PyObject *so_far, slm_batch *batch, Py_ssize_t n, int64_t n_likeliest) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *list = chunk_objects(batch, n, n_likeliest);
    if (list) (void)PyList_SetSlice(so_far, PyList_Size(so_far), PyList_Size(so_far), list);
    Py_XDECREF(list);
    PyErr_Restore(type, value, traceback);
}

PyObject *slm_py_model_generate(PyObject *object, PyObject *args, PyObject *kwargs) {
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    slm_model *model = ((slm_py_model *)object)->model;
    arguments a = {0};
    slm_py_call call = {0};
    slm_error error;
    slm_batch *batch = NULL;
    PyObject *result = NULL, *list = NULL;
    slm_prompt *prompts = NULL;
    Py_ssize_t n = 0, count = 0;
    if (!model) return PyErr_Format(state->ClosedError, "the model was not initialised");
    if (!read_arguments(state, args, kwargs, true, &a) || !slm_py_call_options(a.last, NULL, &call.call) ||
        !slm_py_read_taps(a.taps, model, -1, 0, &call) || !(list = PySequence_List(a.prompt))) {
        goto end;
    }
    n = PyList_Size(list);
    prompts = PyMem_Calloc((size_t)n + 1, sizeof *prompts);
    if (!prompts) {
        PyErr_NoMemory();
        goto end;
    }
    if (!read_prompts(list, prompts, &count)) goto end;
    if (slm_batch_create(model, a.tokenizer, prompts, (size_t)n, &a.options, &batch, &error)) {
        slm_py_raise(state, &error);
        goto end;
    }
    call.processors = a.processors;
    call.guide = a.guide;
    call.progress = a.progress;
    call.progress_kind = SLM_EVENT_ENDED;
    slm_py_call_begin(&call, state);
    slm_status status = slm_batch_run(batch, &call.call, &error);
    bool ok = slm_py_call_end(&call) && !status;
    if (status) slm_py_raise(state, &error);
    n *= a.options.n ? (Py_ssize_t)a.options.n : 1;
    if (ok) {
        result = chunk_objects(batch, n, a.options.logprobs);
    } else if (a.so_far) {
        keep(a.so_far, batch, n, a.options.logprobs);
    }
end:
    slm_batch_release(batch);
    for (Py_ssize_t i = 0; i < count; i++) slm_py_free((void *)(uintptr_t)prompts[i].tokens);
    PyMem_Free(prompts);
    Py_XDECREF(list);
    slm_py_free_taps(&call);
    free_arguments(&a);
    return result;
}

static PyMethodDef methods[] = {
    {"next", (PyCFunction)(void (*)(void))generation_next, METH_VARARGS | METH_KEYWORDS,
     "next(whole, threads=0, prefill_chunk=0, processors=(), taps=(), guide=None)\n--\n\nText, token ids, finish reason; prefill "
     "and decode seconds, prompt tokens that others have run, drafted tokens and those of them that were drawn, all so far; "
     "log-probabilities of the new tokens."},
    {"so_far", generation_so_far, METH_NOARGS,
     "so_far()\n--\n\nThe next piece, as far as it has come: where an exception has ended next(), what that leaves."},
    {"close", generation_close, METH_NOARGS, "close()\n--\n\nStop here; the session is free again."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The token loop over one session, which it keeps alive and occupies until it ends or is closed."},
    {Py_tp_dealloc, generation_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "slm._core.Generation",
    .basicsize = sizeof(slm_py_generation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int slm_py_add_generation(PyObject *module, slm_py_state *state) {
    state->Generation = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return state->Generation ? PyModule_AddType(module, state->Generation) : -1;
}
