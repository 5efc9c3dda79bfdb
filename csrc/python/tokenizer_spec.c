/* SPDX-License-Identifier: Apache-2.0
 * tokenizer_spec.c: the keyword arguments of slm._core.Tokenizer -> slm_tokenizer_spec. */
#include "python/tokenizer_spec.h"

#include <string.h>

#include "base/alloc.h"

/* The index of a str among names, which end with NULL; -1 with an exception. */
static int read_name(PyObject *object, const char *what, const char *const *names) {
    for (int i = 0; PyUnicode_Check(object) && names[i]; i++)
        if (PyUnicode_CompareWithASCIIString(object, names[i]) == 0) return i;
    PyErr_Format(PyExc_ValueError, "%s: found %R, which is none of those that slm has", what, object);
    return -1;
}

static const char *const splits[] = {
    [SLM_SPLIT_GPT2_WORDS] = "gpt2_words",
    [SLM_SPLIT_LINE_WORDS] = "line_words",
    [SLM_SPLIT_LINE_WORDS_1] = "line_words_1",
    [SLM_SPLIT_LINE_WORDS_3] = "line_words_3",
    [SLM_SPLIT_LINE_WORDS_MARKS] = "line_words_marks",
    [SLM_SPLIT_LINE_WORDS_BARE] = "line_words_bare",
    [SLM_SPLIT_LINE_WORDS_PLAIN] = "line_words_plain",
    [SLM_SPLIT_LINE_WORDS_BLOCKS] = "line_words_blocks",
    [SLM_SPLIT_LINE_PHRASES] = "line_phrases",
    [SLM_SPLIT_CASED_WORDS_1] = "cased_words_1",
    [SLM_SPLIT_CASED_WORDS_3] = "cased_words_3",
    [SLM_SPLIT_CASED_WORDS_TAILED] = "cased_words_tailed",
    [SLM_SPLIT_HAN_OR_CASED_WORDS] = "han_or_cased_words",
    [SLM_SPLIT_SYMBOL_WORDS] = "symbol_words",
    [SLM_SPLIT_SYMBOL_WORDS_BARE] = "symbol_words_bare",
    [SLM_SPLIT_LINES] = "lines",
    [SLM_SPLIT_PHRASES] = "phrases",
    [SLM_SPLIT_LETTERS] = "letters",
    [SLM_SPLIT_CASED_LETTERS] = "cased_letters",
    [SLM_SPLIT_SIGNS] = "signs",
    [SLM_SPLIT_LISTED_SIGNS] = "listed_signs",
    [SLM_SPLIT_KANA_OR_HAN] = "kana_or_han",
    [SLM_SPLIT_EAST_OF_ARABIC] = "east_of_arabic",
    [SLM_SPLIT_EAST_ASIAN] = "east_asian",
    [SLM_SPLIT_UNSPACED_SCRIPTS] = "unspaced_scripts",
    [SLM_SPLIT_NUMBER] = "number",
    [SLM_SPLIT_NUMBERS_3] = "numbers_3",
    [SLM_SPLIT_NUMBERS] = "numbers",
    [SLM_SPLIT_BYTE_DIGIT] = "byte_digit",
    [SLM_SPLIT_BYTE_DIGITS] = "byte_digits",
    [SLM_SPLIT_THREE_DIGITS] = "three_digits",
    [SLM_SPLIT_DIGIT_GROUPS] = "digit_groups",
    [SLM_SPLIT_BOUNDED_GROUPS] = "bounded_groups",
    [SLM_SPLIT_BEFORE_GROUPS] = "before_groups",
    [SLM_SPLIT_NEWLINE] = "newline",
    [SLM_SPLIT_INDENTS] = "indents",
    [SLM_SPLIT_SENTINELS] = "sentinels",
    [SLM_SPLIT_IMAGE_CODES] = "image_codes",
    [SLM_SPLIT_PUNCTUATION] = "punctuation",
    [SLM_SPLIT_WHITE_SPACE] = "white_space",
    [SLM_SPLIT_WORDS_AND_SIGNS] = "words_and_signs",
    [SLM_SPLIT_WHITE_SPACE_AT_END] = "white_space_at_end",
    [SLM_SPLIT_SPACE_WORDS] = "space_words",
    NULL,
};

static const char *const behaviors[] = {
    [SLM_BEHAVIOR_ISOLATED] = "isolated",
    [SLM_BEHAVIOR_REMOVED] = "removed",
    [SLM_BEHAVIOR_KEPT] = "kept",
    [SLM_BEHAVIOR_MERGED_WITH_PREVIOUS] = "merged_with_previous",
    [SLM_BEHAVIOR_MERGED_WITH_NEXT] = "merged_with_next",
    [SLM_BEHAVIOR_CONTIGUOUS] = "contiguous",
    NULL,
};

/* A kind, which isolates its matches, or a kind and a behavior. */
static bool read_split(PyObject *object, slm_split_step *step) {
    bool pair = PyTuple_Check(object) && PyTuple_Size(object) == 2;
    int kind = read_name(pair ? PyTuple_GetItem(object, 0) : object, "splits", splits);
    int behavior = pair && kind >= 0 ? read_name(PyTuple_GetItem(object, 1), "splits", behaviors) : SLM_BEHAVIOR_ISOLATED;
    if (kind < 0 || behavior < 0) return false;
    *step = (slm_split_step){(slm_split)kind, (slm_behavior)behavior};
    return true;
}

static bool read_splits(PyObject *tuple, slm_py_tokenizer_spec *read) {
    if (!PyTuple_Check(tuple)) {
        PyErr_Format(PyExc_TypeError, "splits: expected a tuple, found %R", (PyObject *)Py_TYPE(tuple));
        return false;
    }
    size_t n = (size_t)PyTuple_Size(tuple);
    slm_split_step *steps = slm_alloc_zero(n, sizeof *steps);
    read->spec.splits = steps;
    if (!steps) PyErr_NoMemory();
    for (size_t i = 0; steps && i < n; i++)
        if (!read_split(PyTuple_GetItem(tuple, (Py_ssize_t)i), &steps[i])) return false;
    read->spec.n_splits = n;
    return steps != NULL;
}

static bool read_bytes(PyObject *object, const char *name, const uint8_t **bytes, size_t *size) {
    char *data;
    Py_ssize_t n;
    if (!PyBytes_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: expected bytes, found %R", name, (PyObject *)Py_TYPE(object));
        return false;
    }
    if (PyBytes_AsStringAndSize(object, &data, &n)) return false;
    *bytes = (const uint8_t *)data;
    *size = (size_t)n;
    return true;
}

/* Of one element for each piece; None: *data stays. */
static bool read_array(PyObject *object, const char *name, const char *element, size_t count, size_t size, const uint8_t **data) {
    if (object == Py_None) return true;
    const uint8_t *bytes;
    size_t n;
    if (!read_bytes(object, name, &bytes, &n)) return false;
    if (n != count * size) {
        PyErr_Format(PyExc_ValueError, "%s: expected the bytes of %zu %s, one for each piece, found %zu bytes", name, count,
                     element, n);
        return false;
    }
    *data = bytes;
    return true;
}

/* A copy, because bytes objects need not be aligned to doubles. */
static bool read_scores(PyObject *object, slm_tokenizer_spec *spec) {
    const uint8_t *bytes = NULL;
    size_t count = spec->pieces.count;
    if (!read_array(object, "scores", "float64", count, sizeof(double), &bytes)) return false;
    if (!bytes) return true;
    double *scores = slm_alloc_array(count, sizeof *scores);
    if (!scores) {
        PyErr_NoMemory();
        return false;
    }
    memcpy(scores, bytes, count * sizeof *scores);
    spec->scores = scores;
    return true;
}

/* Numbers are those of slm_normalizer_kind. operands: which of a and b it takes. */
static const struct {
    const char *name;
    bool a, b;
} normalizers[] = {
    [SLM_NORMALIZER_NFC] = {"nfc", false, false},
    [SLM_NORMALIZER_NFD] = {"nfd", false, false},
    [SLM_NORMALIZER_NFKC] = {"nfkc", false, false},
    [SLM_NORMALIZER_NFKD] = {"nfkd", false, false},
    [SLM_NORMALIZER_LOWERCASE] = {"lowercase", false, false},
    [SLM_NORMALIZER_STRIP_MARKS] = {"strip_marks", false, false},
    [SLM_NORMALIZER_STRIP_NONSPACING] = {"strip_nonspacing", false, false},
    [SLM_NORMALIZER_CLEAN] = {"clean", false, false},
    [SLM_NORMALIZER_SPACE_CJK] = {"space_cjk", false, false},
    [SLM_NORMALIZER_REPLACE] = {"replace", true, true},
    [SLM_NORMALIZER_COLLAPSE] = {"collapse", false, true},
    [SLM_NORMALIZER_PREPEND] = {"prepend", false, true},
    [SLM_NORMALIZER_STRIP_LEFT] = {"strip_left", false, false},
    [SLM_NORMALIZER_STRIP_RIGHT] = {"strip_right", false, false},
    [SLM_NORMALIZER_CHARSMAP] = {"charsmap", true, false},
};

static bool read_normalizer(PyObject *item, slm_normalizer *out) {
    if (!PyTuple_Check(item) || PyTuple_Size(item) < 1) {
        PyErr_SetString(PyExc_TypeError, "normalizers: expected tuples of a name and its operands");
        return false;
    }
    PyObject *name = PyTuple_GetItem(item, 0);
    for (size_t kind = 0; PyUnicode_Check(name) && kind < sizeof normalizers / sizeof *normalizers; kind++) {
        if (PyUnicode_CompareWithASCIIString(name, normalizers[kind].name) != 0) continue;
        bool a = normalizers[kind].a, b = normalizers[kind].b;
        if (PyTuple_Size(item) != 1 + a + b) {
            PyErr_Format(PyExc_TypeError, "normalizers: %R takes %d operands, found %zd", name, a + b, PyTuple_Size(item) - 1);
            return false;
        }
        out->kind = (slm_normalizer_kind)kind;
        return (!a || read_bytes(PyTuple_GetItem(item, 1), "normalizers", &out->a, &out->a_size)) &&
               (!b || read_bytes(PyTuple_GetItem(item, 1 + a), "normalizers", &out->b, &out->b_size));
    }
    PyErr_Format(PyExc_ValueError, "normalizers: found %R, which is none of those that slm has", name);
    return false;
}

static bool read_normalizers(PyObject *tuple, slm_py_tokenizer_spec *read) {
    if (!PyTuple_Check(tuple)) {
        PyErr_Format(PyExc_TypeError, "normalizers: expected a tuple, found %R", (PyObject *)Py_TYPE(tuple));
        return false;
    }
    size_t n = (size_t)PyTuple_Size(tuple);
    slm_normalizer *steps = slm_alloc_zero(n, sizeof *steps);
    read->spec.normalizers = steps;
    if (!steps) PyErr_NoMemory();
    for (size_t i = 0; steps && i < n; i++)
        if (!read_normalizer(PyTuple_GetItem(tuple, (Py_ssize_t)i), &steps[i])) return false;
    read->spec.n_normalizers = n;
    return steps != NULL;
}

static bool read_ids(PyObject *object, const char *name, const int32_t **ids, size_t *count) {
    int64_t n = 0;
    *ids = slm_py_tokens(object, name, &n);
    *count = (size_t)n;
    return *ids != NULL;
}

static bool read_int32(PyObject *object, const char *name, int64_t least, int32_t *out) {
    int64_t value;
    if (!slm_py_int(object, name, least, INT32_MAX, &value)) return false;
    *out = (int32_t)value;
    return true;
}

/* Each reads one argument that is there into the spec. */
static bool read_optional(PyObject *const *optional, slm_py_tokenizer_spec *read) {
    static const char *const space_prefixes[] = {"none", "always", "missing", "first", NULL};
    slm_tokenizer_spec *spec = &read->spec;
    size_t count = spec->pieces.count;
    int space_prefix = optional[2] ? read_name(optional[2], "space_prefix", space_prefixes) : 0;
    if (space_prefix < 0) return false;
    spec->space_prefix = (slm_space_prefix)space_prefix;
    PyObject *const *o = optional;
    return (!o[0] || read_array(o[0], "flags", "uint8", count, 1, &spec->flags)) && (!o[1] || read_normalizers(o[1], read)) &&
           (!o[3] || read_scores(o[3], spec)) && (!o[4] || slm_py_strings(o[4], "merges", &spec->merges, &read->keep_merges)) &&
           (!o[5] || slm_py_bool(o[5], "ignore_merges", &spec->ignore_merges)) &&
           (!o[6] || read_int32(o[6], "unk", -1, &spec->unk)) &&
           (!o[7] || slm_py_bool(o[7], "byte_fallback", &spec->byte_fallback)) &&
           (!o[8] || slm_py_bool(o[8], "fuse_unk", &spec->fuse_unk)) &&
           (!o[9] || read_bytes(o[9], "continuing_prefix", &spec->continuing_prefix, &spec->continuing_size)) &&
           (!o[10] || read_int32(o[10], "max_word_length", 1, &spec->max_word_length)) &&
           (!o[11] || read_ids(o[11], "prefix", &spec->prefix, &spec->n_prefix)) &&
           (!o[12] || read_ids(o[12], "suffix", &spec->suffix, &spec->n_suffix));
}

bool slm_py_read_tokenizer_spec(PyObject *args, PyObject *kwargs, slm_py_tokenizer_spec *read) {
    static char *names[] = {
        "model",           "pieces", "kinds",         "splits", "flags",         "normalizers", "space_prefix",
        "scores",          "merges", "ignore_merges", "unk",    "byte_fallback", "fuse_unk",    "continuing_prefix",
        "max_word_length", "prefix", "suffix",        NULL};
    static const char *const models[] = {"byte_bpe", "bpe", "unigram", "wordpiece", NULL};
    static const uint64_t no_offsets[1] = {0};
    PyObject *model, *pieces, *kinds, *split_names, *o[13] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOSO|$OOOOOOOOOOOOO:Tokenizer", names, &model, &pieces, &kinds, &split_names,
                                     &o[0], &o[1], &o[2], &o[3], &o[4], &o[5], &o[6], &o[7], &o[8], &o[9], &o[10], &o[11],
                                     &o[12]))
        return false;
    slm_tokenizer_spec *spec = &read->spec;
    *spec = (slm_tokenizer_spec){.merges = {.bytes = "", .offsets = no_offsets}, .unk = -1, .max_word_length = 100};
    int index = read_name(model, "model", models);
    if (index < 0) return false;
    spec->model = (slm_tokenizer_model)index;
    return slm_py_strings(pieces, "pieces", &spec->pieces, &read->keep_pieces) &&
           read_array(kinds, "kinds", "uint8", spec->pieces.count, 1, &spec->kinds) && read_splits(split_names, read) &&
           read_optional(o, read);
}

void slm_py_release_tokenizer_spec(slm_py_tokenizer_spec *read) {
    slm_py_free((void *)read->spec.prefix);
    slm_py_free((void *)read->spec.suffix);
    slm_free((void *)read->spec.normalizers);
    slm_free((void *)read->spec.scores);
    slm_free((void *)read->spec.splits);
    Py_XDECREF(read->keep_merges);
    Py_XDECREF(read->keep_pieces);
}
