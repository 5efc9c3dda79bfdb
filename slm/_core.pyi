"""The boundary between Python and the C core: every name of the extension module, with shapes and errors.

Status codes of the core arrive as exceptions: MemoryError, ValueError (argument), OSError (read), slm.errors.FormatError,
LimitError, ContextLengthError, NumericsError, UnsupportedError, InternalError. Every call that computes releases the GIL and can
be interrupted by a signal. Objects are safe to share; a session or generation that is already running raises BusyError.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal, NotRequired, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray

# (type name such as "Q4_1", file descriptor, byte offset in the file, rows, cols). For float types also transposed_ld: the file
# holds [cols, transposed_ld], of which the first `rows` columns from the offset on are the rows
Piece = tuple[str, int, int, int, int] | tuple[str, int, int, int, int, int]
# A list: pieces whose rows (of a vector: elements) follow each other, in tensors of layers only.
# None or no such field: the tensor does not exist
Tensor = Piece | list[Piece] | None
# What has come of a prompt: text, token ids, finish reason; prefill and decode seconds, prompt tokens that another prompt of its
# batch has run, drafted tokens and those of them that were drawn, all so far; if asked for, (id, log-probability) of each new
# token and, behind it, of the likeliest there
Chunk = tuple[str, list[int], Literal["stop", "length"] | None, float, float, int, int, int, list[list[tuple[int, float]]] | None]
Processor = Callable[[NDArray[np.int32], NDArray[np.float32]], None]
# A site, as slm_site has it in lower case, and its layer; an array that gets it [n_tokens, hidden_size], of attn_weights
# [num_attention_heads, n_tokens, positions then held]; or a function that gets its rows of one text in one step,
# [n, hidden_size], and their positions [n], and changes them in place or returns others
Edit = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.floating[Any]] | None]
Tap = tuple[str, int, NDArray[np.float32] | Edit]
# Of (number of the text in its batch, ids of its tokens so far, without the prompt): a bit for each token of the vocabulary, set
# where it may come next, and one behind them, set where the text may end
Guide = Callable[[int, NDArray[np.int32]], bytes]
Strings = tuple[bytes, NDArray[np.uint64]]  # joined bytes; offsets [count + 1]: string i is bytes[offsets[i]:offsets[i + 1]]

# None, or a function that every call in this context calls at least every 20 ms or so of its work: an exception of it ends the
# call, as a signal handler's does on the main thread
interrupt: ContextVar[Callable[[], None] | None]

class CpuInfo(TypedDict):
    isa: str
    supported: list[str]
    blas: str
    blas_arch: str
    threads: int
    affinity: int
    quota: int
    physical_cores: int

class Stats(TypedDict):
    weight_bytes: int
    token_bytes: int
    kv_bytes: int  # as Memory has it
    context: int
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    kv: Literal["f32", "bf16", "int8"]
    precision: Literal["default", "high"]
    bidirectional: bool

class Memory(TypedDict):
    """Resident are at most weight_bytes + load_bytes, and then weight_bytes + kv_bytes + workspace_bytes."""

    weight_bytes: int  # packed weights
    load_bytes: int  # buffers while loading
    kv_bytes: int  # keys and values of a session over the whole context; pages are taken as needed
    workspace_bytes: int  # of a call that runs a prompt in default chunks
    kv: Literal["f32", "bf16", "int8"]
    encoded: dict[str, int]  # elements of each float type that quantize= turns into its own

class Limits(TypedDict, total=False):
    """What a text may be."""

    constraint: Constraint | None  # over the same tokenizer
    guide: Guide | None  # not with a constraint. Generation.next takes it once more

class GenerateArguments(Limits):
    """What Model.generate and Session.generate take beside their prompts. The first ones also go by position: tokenizer, the
    prompt or prompts, then the others in this order up to draft, then threads or n_held."""

    tokenizer: Tokenizer | None
    max_tokens: int
    ignore_eos: bool
    temperature: float
    top_k: int
    top_p: float
    seed: int
    sample: int  # of those with this seed
    stop: Sequence[bytes]
    end_tokens: Sequence[int]
    draft: NotRequired[Literal["none", "lookup"]]
    min_p: NotRequired[float]
    typical_p: NotRequired[float]
    repetition_penalty: NotRequired[float]
    presence_penalty: NotRequired[float]
    frequency_penalty: NotRequired[float]
    penalty_window: NotRequired[int]
    no_repeat_ngram: NotRequired[int]
    bias_ids: NotRequired[Sequence[int]]
    bias: NotRequired[Sequence[float]]  # as many; -inf bans
    n: NotRequired[int]  # samples of each prompt, `sample` the first of them; of Model.generate only
    logprobs: NotRequired[int]
    processors: NotRequired[tuple[Processor, ...]]  # Generation.next takes them once more

def cpu_info() -> CpuInfo: ...
def measure_bandwidth(size: int = 1 << 30, sweeps: int = 5, threads: int = 0) -> float:
    """Bytes per second of the best of `sweeps` read-only passes over `size` bytes."""

def types() -> dict[str, tuple[int, int]]:
    """Name -> (elements per block, bytes per block) of each tensor type that the core packs."""

def encodes() -> list[str]:
    """Names of the types that float matrices can become while they are read."""

def split_strings(data: bytes | memoryview, count: int, max_string: int) -> tuple[bytes, NDArray[np.uint64], int]:
    """Split `count` strings (little-endian u64 length, then bytes) at the start of data: joined bytes, offsets, bytes read.

    Raises FormatError with .index = the first string that leaves data or is longer than max_string.
    """

def unpack(type: str, data: bytes | memoryview, rows: int, cols: int) -> NDArray[np.float32]:
    """Pack one matrix of the file's type into the kernel layout and read it back: [rows, cols], exact."""

class Model:
    """Packed weights. Immutable; shared by any number of sessions and threads."""

    def __init__(
        self,
        # The fields of slm_config by name; enums as lower-case strings ("silu", "half", "rms"); what may be absent may be left
        # out; rope_inv_freq: the tables one after another, which give n_rope_tables.
        config: Mapping[str, Any],
        # The fields of slm_weights by name: Tensor, and "<name>_bias" of linear layers and norms; "layers": a sequence of
        # mappings with the fields of slm_layer_weights. A field that is not one of them raises ValueError.
        weights: Mapping[str, Any],
        context: int,
        *,
        kv: Literal["auto", "f32", "bf16", "int8"] = "auto",
        precision: Literal["default", "high"] = "default",
        quantize: str | None = None,  # one of encodes(): what float linears and embeddings become, where whole blocks fit
        threads: int = 0,
        progress: Callable[[int, int], None] | None = None,  # (bytes done, bytes in all)
    ) -> None: ...
    @classmethod
    def measure(cls, config: Mapping[str, Any], weights: Mapping[str, Any], context: int, **options: Any) -> Memory:
        """What a model made of the same arguments will take. Checks them all, and reads no weights."""

    def adapt(self, loras: list[tuple[str, int, Piece, Piece | list[Piece], float]], threads: int = 0) -> Model:
        """A model that shares these weights and adds low-rank addends: (target, layer, a, b, scale), the fields of slm_lora.

        FormatError: a tensor holds NaN or infinity; ValueError: it has another shape, or the model no such target.
        """

    def stats(self) -> Stats: ...
    def session(self) -> Session: ...
    def unembed(self, hidden: NDArray[np.float32], threads: int = 0) -> NDArray[np.float32]:
        """The logits [n, vocab_size] of rows [n, hidden_size] of the residual stream, by the final norm and lm_head."""

    def restore(self, state: bytes | memoryview, length: int, settled: int, /) -> Session:
        """The session that Session.save() gave these of, with this model; FormatError where it has no session like that."""

    def generate(
        self,
        *,
        prompts: Sequence[Sequence[int] | NDArray[np.integer]],
        threads: int = 0,
        progress: Callable[[int, int], None] | None = None,  # (texts finished, texts in all)
        so_far: list[Chunk] = ...,  # gets what has come of the prompts where an exception ends the call
        taps: tuple[Tap, ...] = (),  # functions
        **arguments: Unpack[GenerateArguments],
    ) -> list[Chunk]:
        """All prompts to their ends, together. An error's message names the prompt.

        Of n samples a prompt has n pieces, one behind another.
        """

    def score(
        self,
        texts: Sequence[Sequence[int] | NDArray[np.integer]],
        n_scored: Sequence[int],  # of each text the last so many tokens: at least one, and not all
        threads: int = 0,
        prefill_chunk: int = 0,  # most tokens of one step, of all texts
        progress: Callable[[int, int], None] | None = None,  # (texts finished, texts in all)
    ) -> list[tuple[list[float], bool]]:
        """ln of the probability of each scored token, given all before it; and is each of them the likeliest?

        What texts begin with in common runs once. An error's message names the text.
        """

class Session:
    """One KV state: a table of pages."""

    @property
    def length(self) -> int: ...
    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values held, those shared with forks included."""

    @property
    def rewind_limit(self) -> int:
        """The least n_tokens > 0 that rewind() still takes: layers with windows drop what no query reaches."""

    def fork(self) -> Session: ...
    def save(self) -> tuple[bytes, int, int]:
        """Keys and values, positions, and how many there were at most (what windows did not reach then is gone)."""

    def rewind(self, n_tokens: int) -> None:
        """Keep the first n_tokens positions: 0, or rewind_limit to length, of which length - 64 always is one."""

    @overload
    def forward(
        self,
        tokens: Sequence[int] | NDArray[np.integer],
        output: Literal["last", "all", "hidden_last", "hidden_all"] = "last",
        threads: int = 0,
        prefill_chunk: int = 0,
        taps: tuple[Tap, ...] = (),  # with some, each token runs through all of the model
    ) -> NDArray[np.float32]:
        """Append tokens: their logits ("last" [1, vocab_size], "all" [n_tokens, vocab_size]), what the final norm gives
        ("hidden_last" [1, hidden_size], "hidden_all" [n_tokens, hidden_size]), or None.

        A bidirectional model takes one text, whole, and gives no logits.
        """

    @overload
    def forward(
        self,
        tokens: Sequence[int] | NDArray[np.integer],
        output: Literal["none"],
        threads: int = 0,
        prefill_chunk: int = 0,
        taps: tuple[Tap, ...] = (),
    ) -> None: ...
    def generate(
        self,
        *,
        prompt: Sequence[int] | NDArray[np.integer],
        n_held: int = 0,
        **arguments: Unpack[GenerateArguments],
    ) -> Generation:
        """Continue a prompt, of which the first n_held tokens are the last ones that the session holds."""

class Generation:
    """The token loop over one session, which it keeps alive and occupies until it ends or is closed."""

    def next(
        self,
        whole: bool,
        threads: int = 0,
        prefill_chunk: int = 0,
        processors: tuple[Processor, ...] = (),
        taps: tuple[Tap, ...] = (),  # functions
        guide: Guide | None = None,
    ) -> Chunk:
        """Run to the next piece of text (whole: to the end).

        After a KeyboardInterrupt, or an exception of a processor, a tap or a guide, what was generated so far stays and the next
        call goes on.
        """

    def so_far(self) -> Chunk:
        """The next piece, as far as it has come: where an exception has ended next(), what that leaves."""

    def close(self) -> None: ...

class Tokenizer:
    """A vocabulary and its rules. Immutable and shareable. Arguments: the fields of slm_tokenizer_spec in csrc/slm.h."""

    def __init__(
        self,
        *,
        model: Literal["byte_bpe", "bpe", "unigram", "wordpiece"],
        pieces: Strings,
        kinds: bytes,  # [vocab_size] slm_token_kind
        splits: tuple[str | tuple[str, str], ...],  # slm_split in lower case; or it and an slm_behavior
        flags: bytes | None = None,  # [vocab_size] slm_token_flag
        normalizers: tuple[tuple[str, *tuple[bytes, ...]], ...] = (),  # name of slm_normalizer_kind in lower case, operands
        space_prefix: Literal["none", "always", "missing", "first"] = "none",
        scores: bytes | None = None,  # [vocab_size] float64
        merges: Strings = ...,
        ignore_merges: bool = False,
        unk: int = -1,
        byte_fallback: bool = False,
        fuse_unk: bool = False,
        continuing_prefix: bytes = b"",
        max_word_length: int = 100,
        prefix: Sequence[int] = (),  # token ids
        suffix: Sequence[int] = (),
    ) -> None: ...
    @property
    def vocab_size(self) -> int: ...
    @overload
    def encode(
        self,
        text: str | bytes,
        add_special_tokens: bool = True,
        parse_special: bool = False,
        guards: Sequence[int] = (),  # ascending byte offsets into the UTF-8 text that no control token may cover
        spans: Literal[False] = False,
    ) -> list[int]:
        """Token ids; with spans also of which characters of the text each token is made.

        A str with a lone surrogate raises UnicodeEncodeError.

        Bytes for which the vocabulary has no piece leave no token, as in `tokenizers`, and a UnicodeWarning counts them.
        """

    @overload
    def encode(
        self, text: str | bytes, add_special_tokens: bool, parse_special: bool, guards: Sequence[int], spans: Literal[True]
    ) -> tuple[list[int], list[tuple[int, int]]]: ...
    def encode_batch(
        self, texts: Sequence[str | bytes], add_special_tokens: bool = True, parse_special: bool = False, threads: int = 0
    ) -> list[list[int]]:
        """What encode() gives for each text, by all threads."""

    def decode(self, ids: Sequence[int] | NDArray[np.integer], skip_special_tokens: bool = False) -> str:
        """Text of the tokens without the space that encoding adds; bytes that are not UTF-8 become U+FFFD."""

    def token_bytes(self, id: int) -> bytes: ...
    def kind(self, id: int) -> int: ...
    def find(self, piece: str | bytes) -> int | None:
        """The id whose piece is exactly this text: an added token as plain text, else a published piece."""

class Automaton:
    """A regular expression over bytes, compiled. Immutable and shareable."""

    def __init__(self, expressions: bytes) -> None:
        """expressions: int32 [n, 4], the fields of slm_expression; the last one is compiled. LimitError: too many states;
        ValueError: nothing matches."""

    @property
    def n_states(self) -> int: ...
    def matches(self, text: bytes, /) -> bool: ...

class Constraint:
    """An automaton over a vocabulary. It keeps which tokens may come in each state that it has met. Shareable."""

    def __init__(self, automaton: Automaton, tokenizer: Tokenizer) -> None: ...
    def allowed(self, text: bytes, /) -> list[int]:
        """The tokens of text that may follow these bytes, in ascending order."""
