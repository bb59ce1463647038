r"""Requirements on a record, as one writes them in CI: ``utilization.audio >= 0.05``.

The grammar is small and declarative; nothing in it is evaluated as code::

    requirement = path operator bound
    path        = MEASURE ("." name)? ("." label "=" value)*
    operator    = ">=" | ">" | "<=" | "<"          for numbers
                | "==" | "!="                      for verdicts
    bound       = NUMBER | VERDICT

``MEASURE`` is a measure of the record (``utilization``), a score of the whole model (``accuracy``, ``R2``) or ``verdict``. The
name behind it is a modality, or a coalition where the measure is about coalitions. Names with dots, spaces or signs stand in
quotes: ``contributions.'left.eye' >= 0``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from mmaudit.exceptions import MMAuditError
from mmaudit.report.labels import clean, shorten
from mmaudit.report.schema import VerdictName

__all__ = [
    "VERDICT",
    "Operator",
    "Requirement",
    "RequirementError",
    "did_you_mean",
    "parse_requirement",
]

VERDICT = "verdict"
"""The path's first part where a requirement is about a verdict."""

Operator = Literal[">=", ">", "<=", "<", "==", "!="]

_OPERATORS = re.compile(r">=|<=|==|!=|>|<|=")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<number>(?<==)\s*[-+]?\d+\.\d+(?=\s*(\.|$)))
      | (?P<sign>[.=])
      | (?P<bare>[^\s.='"<>!]+)
    )\s*""",
    re.VERBOSE,
)
_FOR_EXAMPLE = "write for example utilization.audio >= 0.05"


class RequirementError(MMAuditError, ValueError):
    """A requirement is malformed, or names what a record cannot have."""


class Requirement(NamedTuple):
    """One requirement, read but not yet held against a record."""

    text: str
    """As it was written, on one line."""
    measure: str
    """First part of the path: a measure, a score of the whole model, or ``verdict``."""
    name: str | None
    """The part behind it: a modality or a coalition."""
    labels: dict[str, str]
    """What was said by ``label=value``."""
    operator: Operator
    bound: float | str
    """A finite number; the words of a verdict where ``measure`` is ``verdict``."""


def parse_requirement(text: str) -> Requirement:
    """Read a requirement.

    Args:
        text: For example ``utilization.audio >= 0.05``, ``coalitions.coalition=audio+image.score=log-likelihood > -0.4``,
            ``missing_modality.rate=0.5.quantity=worst >= 0.7`` or ``verdict.audio != harmful``.

    Raises:
        RequirementError: If it is not of this grammar; the sentence says what was expected.

    Example:
        >>> found = parse_requirement("utilization.'my audio'.given=image >= 0.05")
        >>> found.name, found.labels, found.operator, found.bound
        ('my audio', {'given': 'image'}, '>=', 0.05)
        >>> parse_requirement("verdict.audio == well used").bound
        'well used'
    """
    said = text.strip()
    at = _operator(said)
    if at is None:
        raise _malformed(said, "a comparison with >=, >, <= or <")
    path, operator, bound = said[: at[0]], said[at[0] : at[1]], said[at[1] :].strip()
    measure, name, labels = _path(said, path)
    if measure == VERDICT:
        return _verdict(said, name, labels, operator, bound)
    if operator in ("==", "!=", "="):
        raise RequirementError(
            f"requirement '{shorten(said, 120)}': numbers are compared with >=, >, <= or <, found {operator}; "
            "only verdicts are compared with == and !="
        )
    if not _NUMBER.fullmatch(bound) or abs(float(bound)) == float("inf"):
        raise _malformed(said, f"a number behind {operator}, such as 0.05,")
    checked: Operator = operator  # type: ignore[assignment]
    return Requirement(clean(said), measure, name, labels, checked, float(bound))


def _operator(text: str) -> tuple[int, int] | None:
    """Where the operator stands: the first outside of quotes; ``=`` alone binds a label unless no other follows."""
    lone = None
    for start, part in _outside_quotes(text):
        for found in _OPERATORS.finditer(part):
            place = (start + found.start(), start + found.end())
            if found.group() != "=":
                return place
            lone = place
    # 'verdict.audio = harmful' is refused with the right word, where no other comparison is there.
    return lone


def _outside_quotes(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for quoted in re.finditer(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", text):
        yield start, text[start : quoted.start()]
        start = quoted.end()
    yield start, text[start:]


def _path(said: str, path: str) -> tuple[str, str | None, dict[str, str]]:
    parts = _parts(said, path)
    (first, value), rest = parts[0], parts[1:]
    if value is not None:
        raise _malformed(said, "the name of a measure at the beginning")
    name = None
    if rest and rest[0][1] is None:
        name, rest = rest[0][0], rest[1:]
    labels: dict[str, str] = {}
    for key, value in rest:
        if value is None:
            raise _malformed(
                said, f"label=value in place of '{shorten(key)}' (names with dots stand in quotes)"
            )
        if key in labels:
            raise _malformed(said, f"the label '{shorten(key)}' once")
        labels[key] = value
    return first, name, labels


def _parts(said: str, path: str) -> list[tuple[str, str | None]]:
    """Split ``a.b.c=d`` into ``[("a", None), ("b", None), ("c", "d")]``."""
    tokens: list[tuple[str, bool]] = []
    place = 0
    while place < len(path):
        found = _TOKEN.match(path, place)
        if found is None:
            raise _malformed(said, f"a name or a closed quote at '{shorten(path[place:], 20)}'")
        place = found.end()
        if found["quoted"] is not None:
            tokens.append((re.sub(r"\\(.)", r"\1", found["quoted"][1:-1]), False))
        elif found["sign"] is not None:
            tokens.append((found["sign"], True))
        else:
            tokens.append(((found["number"] or found["bare"]).strip(), False))
    parts: list[tuple[str, str | None]] = []
    expected = "name"
    for word, is_sign in tokens:
        if expected == "name" and not is_sign:
            parts.append((word, None))
            expected = "sign"
        elif expected == "value" and not is_sign:
            parts[-1] = (parts[-1][0], word)
            expected = "dot"
        elif expected in ("sign", "dot") and is_sign and word == ".":
            expected = "name"
        elif expected == "sign" and is_sign and word == "=":
            expected = "value"
        else:
            raise _malformed(
                said, "names joined by dots, those with spaces, dots or signs in quotes,"
            )
    if not parts or expected in ("name", "value"):
        raise _malformed(said, "the name of a measure, and a name behind every dot and =,")
    return parts


def _verdict(
    said: str, name: str | None, labels: dict[str, str], operator: str, bound: str
) -> Requirement:
    if name is None or labels:
        raise RequirementError(
            f"requirement '{shorten(said, 120)}': a verdict is asked for by its modality alone; "
            "write for example verdict.audio != harmful"
        )
    if operator not in ("==", "!="):
        raise RequirementError(
            f"requirement '{shorten(said, 120)}': verdicts are compared with == or !=, found {operator}"
        )
    words = bound
    if len(bound) > 1 and bound[0] == bound[-1] and bound[0] in "'\"":
        words = bound[1:-1]
    words = words.strip()
    verdicts = get_args(VerdictName)
    if words not in verdicts:
        raise RequirementError(
            f"requirement '{shorten(said, 120)}': expected one of the verdicts {', '.join(verdicts)}, "
            f"found '{shorten(words, 40)}'{did_you_mean(words, verdicts)}"
        )
    checked: Operator = "==" if operator == "==" else "!="
    return Requirement(clean(said), VERDICT, name, {}, checked, words)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of a sentence that names the closest known word; empty where none is close.

    Example:
        >>> did_you_mean("audoi", ["audio", "image"]), did_you_mean("x", ["audio"])
        ("; did you mean 'audio'?", '')
    """
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{shorten(close[0], 60)}'?" if close else ""


def _malformed(said: str, expected: str) -> RequirementError:
    shown = shorten(said, 120)
    return RequirementError(
        f"requirement '{shown}': expected {expected.rstrip(',')}; {_FOR_EXAMPLE}"
    )
