# SPDX-License-Identifier: Apache-2.0
"""What stands beside the vocabulary in a Hugging Face folder: tokenizer_config.json, special_tokens_map.json, added_tokens.json
and chat templates. Files that are not there count as empty."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slm.errors import quoted
from slm.formats.files import InputFile
from slm.formats.json_text import Object, read_object, shown
from slm.formats.report import Report
from slm.formats.tokenizer_json import CODES, MAX_VOCAB, AddedToken, read_added_token

CONFIG, SPECIAL_MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
TEMPLATE, TEMPLATES = "chat_template.jinja", "additional_chat_templates"
MAX_TEMPLATE = 1 << 20  # bytes
MAX_TEMPLATES = 64
MAX_LINES = 32 << 20  # bytes of a vocabulary or of merges in lines
EXTRA = ("extra_special_tokens", "additional_special_tokens")  # as Transformers 5 and 4 call them


@dataclass(frozen=True)
class TokenizerConfig:
    """settings: tokenizer_config.json. special: "bos_token", ... -> its text.

    added: by text, what these files say of added tokens; an id of -1: none of them gives one. chat_templates: name -> source,
    "default" the one for every conversation.
    """

    settings: Object
    special: Mapping[str, str]
    added: Mapping[str, AddedToken]
    chat_templates: Mapping[str, str]


NO_CONFIG = TokenizerConfig(Object({}, "$", Report(CONFIG, "TOKENIZER", CODES)), {}, {}, {})


def read_tokenizer_config(folder: str | os.PathLike[str]) -> TokenizerConfig:
    """Raises OSError, FormatError, LimitError."""
    settings, special_map, ids = (read_optional(Path(folder, name)) for name in (CONFIG, SPECIAL_MAP, ADDED))
    added = {token.content: token for token in read_decoder(settings)}
    special: dict[str, str] = {}
    for place in (special_map, settings):  # the later one holds
        for name in place:
            if name.endswith("_token") and isinstance(place.values[name], str | dict):
                token = read_special(place.values[name], place.where(name), place.report)
                special[name] = token.content
                add_special(added, token)
        for where, value in extras(place):
            add_special(added, read_special(value, where, place.report))
    for name in ids:
        id = ids.get_int(name, 0, MAX_VOCAB - 1)
        token = added.get(name, AddedToken(-1, name, special=False, where=ids.where(name)))
        added[name] = replace(token, id=id) if token.id < 0 else token
    return TokenizerConfig(settings, special, added, read_chat_templates(folder, settings))


def read_optional(path: Path) -> Object:
    report = Report(path, "TOKENIZER", CODES)
    return read_object(path, report) if path.exists() else Object({}, "$", report)


def read_decoder(settings: Object) -> Iterator[AddedToken]:
    """added_tokens_decoder: id, as text -> an added token."""
    decoder = settings.get_object("added_tokens_decoder", None)
    for name in decoder or ():
        if not name.isascii() or not name.isdecimal() or len(name) > 7 or int(name) >= MAX_VOCAB:
            raise settings.report.bad("ADDED", None, decoder.where(name), f"an id below {MAX_VOCAB}", quoted(name))
        yield read_added_token(decoder.get_object(name), int(name))


def read_special(value: Any, where: str, report: Report) -> AddedToken:
    """A special token, written as its text or as an object with flags."""
    if isinstance(value, dict):
        return read_added_token(Object(value | {"special": True}, where, report), -1)
    if not isinstance(value, str) or not value:
        raise report.bad("JSON_TYPE", None, where, "the text of a token", shown(value))
    return AddedToken(-1, value, special=True, normalized=False, where=where)


def extras(place: Object) -> Iterator[tuple[str, Any]]:
    for name in EXTRA:
        value = place.values.get(name)
        if isinstance(value, dict):  # by name, as Transformers 5 allows
            yield from ((f"{place.where(name)}[{quoted(key)}]", item) for key, item in value.items())
        else:
            yield from ((f"{place.where(name)}[{i}]", item) for i, item in enumerate(place.get_list(name, [])))


def add_special(added: dict[str, AddedToken], token: AddedToken) -> None:
    """A special token is one whatever else is said of it; its flags are those of added_tokens_decoder, if it stands there."""
    known = added.get(token.content)
    added[token.content] = token if known is None else replace(known, special=True)


def read_chat_templates(folder: str | os.PathLike[str], settings: Object) -> dict[str, str]:
    """Files of their own come before tokenizer_config.json, which holds one template or a list of named ones."""
    files = {"default": Path(folder, TEMPLATE)} if Path(folder, TEMPLATE).exists() else {}
    if Path(folder, TEMPLATES).is_dir():
        named = sorted(path for path in Path(folder, TEMPLATES).iterdir() if path.suffix == ".jinja")
        files |= {path.stem: path for path in named}
    if files:
        if len(files) > MAX_TEMPLATES:
            raise settings.report.limit("LIMIT", None, f"files in {TEMPLATES}", len(files), MAX_TEMPLATES)
        return {name: read_template(path) for name, path in files.items()}
    value = settings.get("chat_template", (str, list, dict), "a template or an array of named ones", None)
    if value is None or isinstance(value, str):
        return {} if value is None else {"default": value}
    where = settings.where("chat_template")
    if isinstance(value, list):
        items = [named_template(item, f"{where}[{i}]", settings.report) for i, item in enumerate(value)]
    else:
        items = list(value.items())
    templates: dict[str, str] = {}
    for name, template in items:
        if not isinstance(template, str) or name in templates:
            found = f"{shown(template)} for {quoted(name)}"
            raise settings.report.bad("JSON_TYPE", None, where, "one template for each name", found)
        templates[name] = template
    return templates


def named_template(item: Any, where: str, report: Report) -> tuple[str, Any]:
    if not isinstance(item, dict):
        raise report.bad("JSON_TYPE", None, where, "an object with name and template", shown(item))
    entry = Object(item, where, report)
    return entry.get_string("name"), entry.get_string("template")


def read_template(path: Path) -> str:
    return read_text(path, MAX_TEMPLATE).replace("\r\n", "\n").replace("\r", "\n")  # as Python reads text, and so Transformers


def read_lines(path: Path) -> list[str]:
    """The lines of a file, which may end with one line end or without."""
    lines = read_text(path, MAX_LINES).replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def read_text(path: Path, max_bytes: int) -> str:
    report = Report(path, "TOKENIZER", CODES)
    with InputFile(path, report) as file:
        if file.size > max_bytes:
            raise report.limit("LIMIT", None, "file size", file.size, max_bytes)
        with open(file.fileno(), "rb", closefd=False) as stream:
            data = stream.read(file.size)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise report.bad("JSON", error.start, "text", "UTF-8", f"byte {data[error.start]:#04x}") from None
