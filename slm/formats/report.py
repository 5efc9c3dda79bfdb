# SPDX-License-Identifier: Apache-2.0
"""How a reader says what is wrong with its file: path, format, code and its one-line meaning filled in once."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from slm.errors import FormatError, LimitError, UnsupportedError

REQUIRED: Any = object()  # as the default of a typed getter: the value must be there
MAX_LISTED = 8  # things of one kind in one message


class Report:
    """Builds (does not raise) the exceptions about one file. codes: code without the format's prefix -> its meaning."""

    def __init__(self, path: str | os.PathLike[str], format: str, codes: Mapping[str, str]) -> None:
        self.path = path
        self.format = format
        self.codes = codes

    def _common(self, code: str) -> dict[str, Any]:
        return {"what": self.codes[code], "path": self.path, "format": self.format, "code": f"{self.format}_{code}"}

    def bad(
        self, code: str, offset: int | None, field: str, expected: str | None, found: object, *, index: int | None = None
    ) -> FormatError:
        return FormatError(**self._common(code), offset=offset, field=field, expected=expected, found=str(found), index=index)

    def unsupported(self, code: str, offset: int | None, field: str, expected: str | None, found: object) -> UnsupportedError:
        return UnsupportedError(**self._common(code), offset=offset, field=field, expected=expected, found=str(found))

    def limit(self, code: str, offset: int | None, field: str, value: int, maximum: int) -> LimitError:
        return LimitError(**self._common(code), offset=offset, limit=field, value=value, maximum=maximum)


def listed(items: Sequence[str]) -> str:
    """ "a, b and 3 more" """
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return ", ".join(items[:MAX_LISTED]) + more
