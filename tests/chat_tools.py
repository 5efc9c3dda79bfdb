# SPDX-License-Identifier: Apache-2.0
"""Functions that are passed as tools, for the oracle and for the test that is held against it."""

from enum import Enum
from typing import Any, Literal, Optional, Union

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


class Colour(Enum):
    RED = "red"
    NONE = None
    THREE = 3


class Thermostat:
    def heat(self, degrees: float, room: str = "hall") -> bool:
        """Heat a room.

        Args:
            degrees (float): To how many degrees, as in
                "21.5"; see: the manual

            room: Which room.
        """


def weather(city: str, unit: str = "C", days: int | None = None, tags: list[str] = []) -> str:  # noqa: B006
    """
    Get the weather.

    Asks a service; may take a while.

    Args:
        city: The city, e.g. "Oslo" or
            'Århus'
        unit: The unit (choices: ["C", " F "])
        days: How many: days
        tags: Tags
    Returns:
        The weather,
          as text
    Raises:
        OSError: without a network
    """


def everything(
    a: Any,
    b: bool,
    c: tuple[int, str],
    d: dict[str, list[float]],
    e: Union[int, float],  # noqa: UP007
    f: int | list[int] | None,
    g: Literal["x", 2],
    h: Colour,
    i: Optional[dict] = None,  # noqa: UP045
    j: "list | tuple | None" = None,
) -> None:
    """Takes everything.

    Args:
        a: 1
        b: 2
        c: 3
        d: 4
        e: 5
        f: 6
        g: 7
        h: 8
        i: 9
        j: 10
    """


def nothing():
    """Does nothing."""


def gives_an_object() -> Thermostat:
    """Gives something that JSON has no word for.

    Returns:
        It.
    """


TOOLS = [weather, Thermostat().heat, everything, nothing, gives_an_object]
