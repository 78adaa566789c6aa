"""Texts of strangers on a terminal: what would act on it is shown, not done."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def printable(text: object, longest: int = 200, keep: str = "") -> str:
    r"""A text without anything that a terminal obeys: `ESC [2J` comes out as `\x1b[2J`.

    Control characters, line ends, marks that turn the direction of writing and halves of surrogate
    pairs (which no terminal and no UTF-8 file takes) become their Python escapes; everything that
    is seen stays as it is.

    Args:
        text: anything; `str` of it is shown.
        longest: characters above which the end is left out.
        keep: characters that are let through all the same, as a line end.
    """
    shown = str(text)
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in shown
    )


def first_problem(error: "ValidationError") -> str:
    """The first thing that is wrong with data of a stranger, on one line: where, what came, and
    what is wrong with it."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = printable(".".join(map(str, first["loc"])) or "the whole", 80)
    came = (
        ""
        if first["type"] in ("missing", "json_invalid")
        else f" = {printable(repr(first['input']), 60)}"
    )
    return f"{place}{came}: {printable(first['msg'])}"
