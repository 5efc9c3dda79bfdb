/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.c: slm._core.Tokenizer, immutable, and split_strings. */
#include <string.h>

#include "base/alloc.h"
#include "python/objects.h"
#include "python/token_lists.h"
#include "python/tokenizer_spec.h"

/* Bytes to encode, or ids to decode: below this it takes some 50 us, and handing the GIL over costs more than it gives. */
enum { RELEASE_GIL_FROM = 4096 };

typedef struct tokenizer_object {
    PyObject_HEAD slm_tokenizer *tokenizer;
} tokenizer_object;

static slm_tokenizer *tokenizer_of(PyObject *self) {
    return ((tokenizer_object *)self)->tokenizer;
}

slm_tokenizer *slm_py_tokenizer(const slm_py_state *state, PyObject *object) {
    if (Py_TYPE(object) == state->Tokenizer) return tokenizer_of(object);
    PyErr_Format(PyExc_TypeError, "tokenizer: expected a Tokenizer, found %R", (PyObject *)Py_TYPE(object));
    return NULL;
}

static bool read_bytes(PyObject *object, const char *name, const char **text, Py_ssize_t *size) {
    if (PyUnicode_Check(object)) return (*text = PyUnicode_AsUTF8AndSize(object, size)) != NULL;
    if (PyBytes_Check(object)) return PyBytes_AsStringAndSize(object, (char **)text, size) == 0;
    PyErr_Format(PyExc_TypeError, "%s: expected str or bytes, found %R", name, (PyObject *)Py_TYPE(object));
    return false;
}

/* The UTF-8 of a str, or a bytes object as it is; borrowed from object. A lone surrogate raises UnicodeEncodeError. To make the
 * UTF-8 of a long str takes Python as long as some stages of encoding, so signal handlers run behind it. */
static bool read_text(PyObject *object, const char *name, const char **text, Py_ssize_t *size) {
    return read_bytes(object, name, text, size) && (*size < RELEASE_GIL_FROM || !PyErr_CheckSignals());
}

static PyObject *tokenizer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    slm_py_tokenizer_spec read = {0};
    PyObject *self = NULL;
    if (!slm_py_read_tokenizer_spec(args, kwargs, &read)) goto done;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    self = allocate(type, 0);
    if (!self) goto done;
    slm_error error;
    if (slm_tokenizer_create(&read.spec, &((tokenizer_object *)self)->tokenizer, &error)) {
        slm_py_raise(slm_py_state_of(type), &error);
        Py_CLEAR(self);
    }
done:
    slm_py_release_tokenizer_spec(&read);
    return self;
}

static void tokenizer_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    slm_tokenizer_release(tokenizer_of(self));
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *tokenizer_vocab_size(PyObject *self, void *closure) {
    (void)closure;
    return PyLong_FromLongLong(slm_tokenizer_size(tokenizer_of(self)));
}

/* A block to be freed with slm_free; NULL with an exception. */
static uint64_t *read_guards(PyObject *object, size_t *count) {
    Py_ssize_t n = PySequence_Check(object) && !PyUnicode_Check(object) ? PySequence_Size(object) : -1;
    if (n < 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_TypeError, "guards: expected a sequence of byte offsets, found %R", (PyObject *)Py_TYPE(object));
        return NULL;
    }
    uint64_t *guards = slm_alloc_array((size_t)n, sizeof *guards);
    if (!guards) PyErr_NoMemory();
    for (Py_ssize_t i = 0; guards && i < n; i++) {
        int64_t guard = 0;
        PyObject *item = PySequence_GetItem(object, i);
        bool ok = item && slm_py_int(item, "guards", 0, INT64_MAX, &guard);
        Py_XDECREF(item);
        guards[i] = (uint64_t)guard;
        if (!ok) {
            slm_free(guards);
            guards = NULL;
        }
    }
    *count = (size_t)n;
    return guards;
}

/* False with an exception, where the caller has made warnings errors. */
static bool warn_of_dropped(size_t dropped) {
    return dropped == 0 ||
           PyErr_WarnFormat(PyExc_UnicodeWarning, 1, "the vocabulary has no token for %zu bytes of the text, which are left out",
                            dropped) == 0;
}

PyDoc_STRVAR(encode_doc,
             "encode($self, /, text, add_special_tokens=True, parse_special=False, guards=(), spans=False)\n--\n\n"
             "Token ids of a str, or of UTF-8 bytes (what is not UTF-8 is encoded byte by byte).\n\n"
             "parse_special: control tokens written in the text become control tokens, but none that would cover both\n"
             "text[g - 1] and text[g] for a byte offset g of guards (ascending). spans: returns (ids, [(start, end)]), of which\n"
             "characters of the text each token is made. A str with a lone surrogate raises UnicodeEncodeError. Bytes for which\n"
             "the vocabulary has no piece leave no token, and a UnicodeWarning says so.");

static PyObject *tokenizer_encode(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"text", "add_special_tokens", "parse_special", "guards", "spans", NULL};
    PyObject *object, *add_special = Py_True, *parse_special = Py_False, *guards = NULL, *spans = Py_False, *result = NULL;
    const char *text;
    Py_ssize_t size;
    slm_encode_options options = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOOO:encode", names, &object, &add_special, &parse_special, &guards,
                                     &spans) ||
        !read_text(object, "text", &text, &size) ||
        !slm_py_bool(add_special, "add_special_tokens", &options.add_special_tokens) ||
        !slm_py_bool(parse_special, "parse_special", &options.parse_special) || !slm_py_bool(spans, "spans", &options.spans) ||
        (guards && !(options.guards = read_guards(guards, &options.n_guards))))
        return NULL;

    slm_py_state *state = slm_py_state_of(Py_TYPE(self));
    slm_tokens tokens = {0};
    slm_error error;
    slm_status status;
    bool ok = true;
    if (size < RELEASE_GIL_FROM) {
        status = slm_tokenizer_encode(tokenizer_of(self), text, (size_t)size, &options, NULL, &tokens, &error);
    } else {
        slm_py_call call = {0};
        slm_py_call_begin(&call, state);
        status = slm_tokenizer_encode(tokenizer_of(self), text, (size_t)size, &options, &call.call, &tokens, &error);
        ok = slm_py_call_end(&call);
    }
    if (ok && status) slm_py_raise(state, &error);
    if (ok && !status && warn_of_dropped(tokens.dropped)) {
        result = slm_py_list_of_ids(state, &tokens);
        if (result && options.spans) {
            PyObject *list = slm_py_list_of_spans(state, &tokens);
            result = list ? Py_BuildValue("NN", result, list) : (Py_DECREF(result), NULL);
        }
    }
    slm_tokens_free(&tokens);
    slm_free((void *)options.guards);
    return result;
}

PyDoc_STRVAR(encode_batch_doc, "encode_batch($self, /, texts, add_special_tokens=True, parse_special=False, threads=0)\n--\n\n"
                               "What encode() gives for each text of a list, by `threads` threads (0: all).");

/* Lists of ids of all texts; NULL with an exception. */
static PyObject *list_of_lists(const slm_py_state *state, const slm_tokens *tokens, Py_ssize_t count) {
    size_t dropped = 0;
    for (Py_ssize_t i = 0; i < count; i++) dropped += tokens[i].dropped;
    PyObject *list = warn_of_dropped(dropped) ? PyList_New(count) : NULL;
    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *ids = slm_py_list_of_ids(state, &tokens[i]);
        if (ids)
            PyList_SetItem(list, i, ids);
        else
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *tokenizer_encode_batch(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"texts", "add_special_tokens", "parse_special", "threads", NULL};
    PyObject *given, *add_special = Py_True, *parse_special = Py_False, *threads = NULL, *result = NULL;
    slm_encode_options options = {0};
    int64_t n_threads = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOO:encode_batch", names, &given, &add_special, &parse_special, &threads) ||
        !slm_py_bool(add_special, "add_special_tokens", &options.add_special_tokens) ||
        !slm_py_bool(parse_special, "parse_special", &options.parse_special) ||
        (threads && !slm_py_int(threads, "threads", 0, SLM_PY_MAX_THREADS, &n_threads)))
        return NULL;
    PyObject *items = PySequence_Tuple(given); /* keeps the texts while others run */
    if (!items) return NULL;
    Py_ssize_t count = PyTuple_Size(items), size;
    slm_text_view *texts = slm_alloc_array((size_t)count, sizeof *texts);
    slm_tokens *tokens = slm_alloc_zero((size_t)count, sizeof *tokens);
    bool ok = texts && tokens;
    if (!ok) PyErr_NoMemory();
    for (Py_ssize_t i = 0; ok && i < count; i++) {
        ok = read_text(PyTuple_GetItem(items, i), "texts", &texts[i].bytes, &size);
        if (ok) texts[i].size = (size_t)size;
    }
    if (ok) {
        slm_py_state *state = slm_py_state_of(Py_TYPE(self));
        slm_py_call call = {.call.threads = (int)n_threads};
        slm_error error;
        slm_py_call_begin(&call, state);
        slm_status status =
            slm_tokenizer_encode_batch(tokenizer_of(self), texts, (size_t)count, &options, &call.call, tokens, &error);
        ok = slm_py_call_end(&call);
        if (ok && status) slm_py_raise(state, &error);
        if (ok && !status) result = list_of_lists(state, tokens, count);
    }
    for (Py_ssize_t i = 0; tokens && i < count; i++) slm_tokens_free(&tokens[i]);
    slm_free(tokens);
    slm_free(texts);
    Py_DECREF(items);
    return result;
}

static PyObject *without_prefix(const slm_tokenizer *tokenizer, const slm_text *text) {
    size_t start = slm_tokenizer_strips_space(tokenizer) && text->size && text->bytes[0] == ' ';
    return PyUnicode_DecodeUTF8(text->bytes + start, (Py_ssize_t)(text->size - start), "replace");
}

PyDoc_STRVAR(decode_doc,
             "decode($self, /, ids, skip_special_tokens=False)\n--\n\n"
             "Text of a flat sequence or integer array of token ids; bytes that are not UTF-8 become U+FFFD. It loses the space\n"
             "at its start that encoding adds, where the vocabulary asks for one.\n"
             "An id outside the vocabulary raises ValueError.");

static PyObject *tokenizer_decode(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"ids", "skip_special_tokens", NULL};
    PyObject *object, *skip_special = Py_False, *result = NULL;
    bool skip;
    int64_t count;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:decode", names, &object, &skip_special) ||
        !slm_py_bool(skip_special, "skip_special_tokens", &skip))
        return NULL;
    int32_t *ids = slm_py_tokens(object, "ids", &count);
    if (!ids) return NULL;
    slm_py_state *state = slm_py_state_of(Py_TYPE(self));
    slm_text text = {0};
    slm_error error;
    slm_status status;
    bool ok = true;
    if (count < RELEASE_GIL_FROM) {
        status = slm_tokenizer_decode(tokenizer_of(self), ids, (size_t)count, skip, NULL, &text, &error);
    } else {
        slm_py_call call = {0};
        slm_py_call_begin(&call, state);
        status = slm_tokenizer_decode(tokenizer_of(self), ids, (size_t)count, skip, &call.call, &text, &error);
        ok = slm_py_call_end(&call);
    }
    if (ok && status) slm_py_raise(state, &error);
    if (ok && !status) result = without_prefix(tokenizer_of(self), &text);
    slm_text_free(&text);
    slm_free(ids);
    return result;
}

static bool read_id(PyObject *self, PyObject *object, int32_t *id) {
    int64_t value;
    if (!slm_py_int(object, "id", 0, slm_tokenizer_size(tokenizer_of(self)) - 1, &value)) return false;
    *id = (int32_t)value;
    return true;
}

PyDoc_STRVAR(token_bytes_doc, "token_bytes($self, id, /)\n--\n\nThe exact bytes of one token.");

static PyObject *tokenizer_token_bytes(PyObject *self, PyObject *object) {
    int32_t id;
    if (!read_id(self, object, &id)) return NULL;
    slm_text text = {0};
    slm_error error;
    if (slm_tokenizer_decode(tokenizer_of(self), &id, 1, false, NULL, &text, &error))
        return slm_py_raise(slm_py_state_of(Py_TYPE(self)), &error);
    PyObject *result = PyBytes_FromStringAndSize(text.bytes, (Py_ssize_t)text.size);
    slm_text_free(&text);
    return result;
}

PyDoc_STRVAR(kind_doc, "kind($self, id, /)\n--\n\n"
                       "1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte: the numbers that GGUF uses.");

static PyObject *tokenizer_kind(PyObject *self, PyObject *object) {
    int32_t id;
    return read_id(self, object, &id) ? PyLong_FromLong(slm_tokenizer_kind(tokenizer_of(self), id)) : NULL;
}

PyDoc_STRVAR(find_doc,
             "find($self, piece, /)\n--\n\n"
             "The id whose piece is exactly this text: an added token as plain text, else a published piece. None: none.");

static PyObject *tokenizer_find(PyObject *self, PyObject *object) {
    const char *piece;
    Py_ssize_t size;
    if (!read_text(object, "piece", &piece, &size)) return NULL;
    int32_t id = slm_tokenizer_find(tokenizer_of(self), piece, (size_t)size);
    if (id < 0) Py_RETURN_NONE;
    return PyLong_FromLong(id);
}

PyDoc_STRVAR(split_strings_doc,
             "split_strings(data, count, max_string)\n--\n\n"
             "Split count strings (little-endian u64 length, then bytes) at the start of data:\n"
             "joined bytes, offsets [count + 1], bytes read. Raises FormatError with .index = the first string that\n"
             "leaves data or is longer than max_string.");

static PyObject *split_strings(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"data", "count", "max_string", NULL};
    PyObject *count_object, *max_object, *offsets_array = NULL, *result = NULL;
    Py_buffer data;
    int64_t count, max_string;
    char *joined = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*OO:split_strings", names, &data, &count_object, &max_object)) return NULL;
    if (!slm_py_int(count_object, "count", 0, INT64_MAX, &count) ||
        !slm_py_int(max_object, "max_string", 0, INT64_MAX, &max_string))
        goto done;
    /* More strings than lengths fit into data are refused before anything is written: room for those that fit is enough. */
    size_t fit = (size_t)data.len / 8, n = (uint64_t)count < fit ? (size_t)count : fit, room = (size_t)data.len - 8 * n;
    if (n == 0 || (uint64_t)max_string < room / n) room = n * (size_t)max_string;
    uint64_t *offsets;
    offsets_array = slm_py_new_array_u64((int64_t)n + 1, &offsets);
    joined = slm_alloc(room);
    if (!joined) PyErr_NoMemory();
    if (!offsets_array || !joined) goto done;
    slm_error error;
    size_t consumed;
    if (slm_strings_split(data.buf, (size_t)data.len, (size_t)count, (size_t)max_string, offsets, joined, &consumed, &error))
        slm_py_raise(PyModule_GetState(module), &error);
    else
        result = Py_BuildValue("y#On", joined, (Py_ssize_t)offsets[n], offsets_array, (Py_ssize_t)consumed);
done:
    slm_free(joined);
    Py_XDECREF(offsets_array);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef tokenizer_methods[] = {
    {"encode", (PyCFunction)(void (*)(void))tokenizer_encode, METH_VARARGS | METH_KEYWORDS, encode_doc},
    {"encode_batch", (PyCFunction)(void (*)(void))tokenizer_encode_batch, METH_VARARGS | METH_KEYWORDS, encode_batch_doc},
    {"decode", (PyCFunction)(void (*)(void))tokenizer_decode, METH_VARARGS | METH_KEYWORDS, decode_doc},
    {"token_bytes", tokenizer_token_bytes, METH_O, token_bytes_doc},
    {"kind", tokenizer_kind, METH_O, kind_doc},
    {"find", tokenizer_find, METH_O, find_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef tokenizer_getset[] = {
    {"vocab_size", tokenizer_vocab_size, NULL, "Number of tokens.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot tokenizer_slots[] = {
    {Py_tp_doc, "A vocabulary and its rules. Immutable and shareable."},
    {Py_tp_new, tokenizer_new},
    {Py_tp_dealloc, tokenizer_dealloc},
    {Py_tp_methods, tokenizer_methods},
    {Py_tp_getset, tokenizer_getset},
    {0, NULL},
};

static PyType_Spec tokenizer_spec = {
    .name = "slm._core.Tokenizer",
    .basicsize = sizeof(tokenizer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tokenizer_slots,
};

static PyMethodDef functions[] = {
    {"split_strings", (PyCFunction)(void (*)(void))split_strings, METH_VARARGS | METH_KEYWORDS, split_strings_doc},
    {NULL, NULL, 0, NULL},
};

int slm_py_add_tokenizer(PyObject *module, slm_py_state *state) {
    state->Tokenizer = (PyTypeObject *)PyType_FromModuleAndSpec(module, &tokenizer_spec, NULL);
    if (!state->Tokenizer || PyModule_AddType(module, state->Tokenizer)) return -1;
    return PyModule_AddFunctions(module, functions);
}
