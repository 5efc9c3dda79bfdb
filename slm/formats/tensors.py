# SPDX-License-Identifier: Apache-2.0
"""What every reader of weights produces: named, typed ranges of open files."""

import math
from typing import NamedTuple

from slm.formats.files import InputFile


class TensorType(NamedTuple):
    name: str
    block: int  # elements per block; a row is a whole number of blocks
    block_bytes: int


class TensorInfo(NamedTuple):
    name: str
    type: TensorType
    shape: tuple[int, ...]  # row-major: the contiguous dimension last
    offset: int  # of the first byte in the file
    size: int  # bytes
    header_offset: int | None  # of its entry in the header, where that is known
    file: InputFile

    @property
    def elements(self) -> int:
        return math.prod(self.shape)
