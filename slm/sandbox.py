# SPDX-License-Identifier: Apache-2.0
"""A Jinja environment for the templates of model files, which are programs written by strangers.

It is configured as Transformers configures its own (trimmed blocks, loop controls, `tojson`, `raise_exception`, `strftime_now`,
generation blocks), so the same template gives the same text. Two things differ. Attributes, methods, filters and globals are
allowed by name, not forbidden by name. And a render has a budget: steps, processor time, nesting, and the size of every string
and container it makes; what could exceed one is refused before it is computed. Jinja itself loops only over finite iterables,
so counting each iteration, call, filter and operator bounds the whole render.
"""

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MAX_STEPS = 200_000
MAX_SECONDS = 0.25  # of this thread's processor time: a busy machine must not fail an honest template
MAX_SIZE = 1 << 20  # characters and elements of one value, and of the output, beyond what the caller passed in
MAX_DEPTH = 64
MAX_BITS = 4096  # of an integer that * or ** makes

METHODS: dict[type, frozenset[str]] = {
    str: frozenset({
        "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdecimal", "isdigit", "islower", "isnumeric",
        "isspace", "isupper", "join", "lower", "lstrip", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rsplit",
        "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
    }),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    int: frozenset(),
    float: frozenset(),
}  # fmt: skip
FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int", "items", "last", "length",
    "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "round", "safe", "select", "selectattr", "sort",
    "string", "title", "trim", "unique", "upper",
)  # fmt: skip
# Internal filters that the rewriting below inserts; no identifier can spell them.
EACH, MADE, CONCAT = "(each)", "(made)", "(concat)"


class BudgetError(jinja2.TemplateError):
    """The template asked for more than a render may use."""


class Budget:
    """What one render has used. size_limit: the largest value, in characters and elements, that it may make."""

    def __init__(self, input_size: int) -> None:
        self.size_limit = MAX_SIZE + 2 * input_size
        self._steps_left = MAX_STEPS + 8 * input_size
        self._deadline = time.thread_time() + MAX_SECONDS + 1e-6 * input_size
        self._next_look = self._steps_left

    def spend(self, work: int = 0) -> None:
        """Count one step, and the characters or elements it touches."""
        self._steps_left -= 1 + (work >> 8)
        if self._steps_left < 0:
            raise BudgetError(f"the template takes more than {MAX_STEPS} steps")
        if self._steps_left <= self._next_look:  # reading the clock costs more than a step
            self._next_look = self._steps_left - 32
            if time.thread_time() > self._deadline:
                raise BudgetError(f"the template runs longer than {MAX_SECONDS} s")

    def allow(self, size: int) -> None:
        if size > self.size_limit:
            raise BudgetError(
                f"the template makes a value of {size} characters or elements, above the limit of {self.size_limit}"
            )
        self.spend(size)

    def weigh(self, value: Any) -> int:
        """Size of a value written out: shared parts count each time, since printing and comparing visit them each time."""
        if isinstance(value, str):
            self.allow(len(value))
            return len(value)
        size, todo = 0, [(value, 1)]
        while todo:
            item, depth = todo.pop()
            size += 1
            if isinstance(item, str):
                size += len(item)
            elif isinstance(item, dict | list | tuple):
                if depth > MAX_DEPTH:
                    raise BudgetError(f"the template nests containers more than {MAX_DEPTH} deep")
                parts = (x for pair in item.items() for x in pair) if isinstance(item, dict) else item
                todo.extend((part, depth + 1) for part in parts)
            if size + len(todo) > self.size_limit:
                self.allow(size + len(todo))
        self.allow(size)
        return size


class Variables(Namespace):
    """`namespace()` whose values are weighed, and which prints as one word: namespaces that hold each other must not."""

    def __init__(self, budget: Budget, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "_budget", budget)

    def __setitem__(self, name: str, value: Any) -> None:
        object.__getattribute__(self, "_budget").weigh(value)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


class Generation(Extension):
    """{% generation %} ... {% endgeneration %}: marks the assistant's words for training; rendering only scopes it."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own type)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class Rewriter(NodeTransformer):
    """Sends what Jinja's sandbox does not intercept through filters: iteration, `~` and container literals."""

    def _filtered(self, node: Any, name: str, args: list[nodes.Expr]) -> nodes.Filter:
        return nodes.Filter(node, name, args, [], None, None, lineno=node.lineno, environment=node.environment)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._filtered(node.iter, EACH, [])
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filtered(node.nodes[0], CONCAT, node.nodes[1:])

    def visit_List(self, node: nodes.List | nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self._filtered(node, MADE, [])

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return self._filtered(node, MADE, []) if node.ctx == "load" else node


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[loopcontrols, Generation])
        self._local = threading.local()
        self.finalize = self._made
        self.filters = {name: self._counted(self.filters[name]) for name in FILTERS}
        own = {"indent": self._indent, "join": self._join_filter, "replace": self._replace, "tojson": self._tojson}
        self.filters |= own | {EACH: self._each, MADE: self._made, CONCAT: self._concat}
        self.globals = {
            "dict": dict,
            "namespace": lambda *args, **kwargs: Variables(self.budget, *args, **kwargs),
            "raise_exception": self._raise_exception,
            "range": self.globals["range"],
            "strftime_now": self._strftime_now,
        }

    @property
    def budget(self) -> Budget:
        return self._local.budget

    @contextmanager
    def limited(self, input_size: int) -> Iterator[None]:
        """A budget for what this thread compiles or renders inside; input_size: size of what the caller passes in."""
        self._local.budget = Budget(input_size)
        try:
            yield
        finally:
            del self._local.budget

    # ---- what Jinja calls -----------------------------------------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return Rewriter().visit(super()._parse(source, name, filename))

    def concat(self, parts: Iterable[str]) -> str:  # the bodies of blocks, macros and {% set %}, and the whole text
        return self._join("", parts)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, names in METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return isinstance(obj, LoopContext | Macro | Namespace | TemplateReference)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        # Jinja's own would print as nothing and fail only when used further.
        raise SecurityError(f"the template may not use the attribute {attribute!r} of {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> None:
        return None  # str.format is not among METHODS: its widths and nested fields have no bound

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.spend()
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name in ("join", "replace"):
            kwargs = {key: value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")}  # Jinja's own
            return self._join(owner, *args, **kwargs) if name == "join" else self._replace(owner, *args, **kwargs)
        return self._made(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = self.budget
        budget.spend()
        if operator == "+":
            budget.allow(budget.weigh(left) + budget.weigh(right))
        elif operator == "%" and isinstance(left, str):
            if re.search(r"%[^%a-zA-Z]*(?:\*|\d{4})", left):
                raise BudgetError("a format asks for a width of more than 999 characters")
            budget.allow(1000 * left.count("%") + len(left) + budget.weigh(right))
        elif isinstance(left, int) and isinstance(right, int):
            if operator == "*" and left.bit_length() + right.bit_length() > MAX_BITS:
                raise BudgetError(f"the template multiplies to an integer of more than {MAX_BITS} bits")
            if operator == "**" and left.bit_length() * max(right, 0) > MAX_BITS:
                raise BudgetError(f"the template raises to an integer of more than {MAX_BITS} bits")
        elif operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    budget.allow(budget.weigh(sequence) * max(times, 0))
        return super().call_binop(context, operator, left, right)

    # ---- filters and globals --------------------------------------------------------------------------------------------

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # keeps Jinja's marks for functions that take the environment or the context
        def counted(*args: Any, **kwargs: Any) -> Any:
            for arg in args:
                if isinstance(arg, str | dict | list | tuple):
                    self.budget.weigh(arg)
            return self._made(function(*args, **kwargs))

        return counted

    def _made(self, value: Any) -> Any:
        self.budget.weigh(value)
        return value

    def _each(self, iterable: Iterable[Any]) -> Iterator[Any]:
        for item in iterable:
            self.budget.spend()
            yield item

    def _concat(self, *parts: Any) -> str:
        return self._join("", parts)

    def _join(self, separator: str, parts: Iterable[Any], /) -> str:
        total, texts = 0, []
        for part in parts:
            text = part if isinstance(part, str) else str(self._made(part))
            total += len(text) + len(separator)
            self.budget.allow(total)
            texts.append(text)
        return separator.join(texts)

    def _join_filter(self, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = [self.getitem(item, attribute) for item in self._each(value)]
        return self._join(str(d), self._each(value))

    def _replace(self, s: Any, old: str, new: str, count: int = -1) -> str:
        text = str(self._made(s))
        found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
        self.budget.allow(len(text) + found * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _indent(self, s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        pad = width if isinstance(width, str) else " " * min(width, self.budget.size_limit)
        head, *rest = (s + "\n").splitlines()  # Jinja's rule: a last empty line counts
        self.budget.allow(len(s) + len(pad) * (len(rest) + 1))
        rest = [pad + line if line or blank else line for line in rest]
        return "\n".join([pad + head if first else head, *rest])

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Jinja's own filter escapes HTML; Transformers writes plain JSON, and so do models read it."""
        step = indent if isinstance(indent, int) else len(indent or "")
        self.budget.allow(self.budget.weigh(value) * (1 + step + (5 if ensure_ascii else 0)))
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def _raise_exception(self, message: Any) -> NoReturn:
        raise jinja2.TemplateError(str(message))

    def _strftime_now(self, format: str) -> str:
        return self._local.now.strftime(format[:256])

    def render(self, template: jinja2.Template, variables: Mapping[str, Any], input_size: int, now: datetime) -> str:
        """Text of a template; every exception it can cause is an Exception of Jinja or Python, for the caller to name."""
        with self.limited(input_size):
            self._local.now = now
            return self.concat(template.generate(**variables))
