"""YAML as people write it by hand: plain values only, and a key that stands twice is a fault and not silently the last one."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["parse_yaml", "yaml_fault"]


class _OnceLoader(yaml.SafeLoader):
    """Builds plain values; keys of a mapping differ."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            first = lines.get((key.tag, key.value))
            if first is not None:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key '{key.value}' stands in line {first} and again",
                    key.start_mark,
                )
            lines[key.tag, key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str) -> Any:
    """Read a YAML text; nothing in it is executed.

    Raises:
        yaml.YAMLError: If it is none, or a mapping has a key twice.

    Example:
        >>> parse_yaml("a: 1")
        {'a': 1}
        >>> parse_yaml("a: {b: 1, b: 2}")
        Traceback (most recent call last):
            ...
        yaml.constructor.ConstructorError: the key 'b' stands in line 1 and again
          in "<unicode string>", line 1, column 11:
            a: {b: 1, b: 2}
                      ^
    """
    loader = _OnceLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def yaml_fault(error: Exception) -> str:
    r"""What is wrong with a text that is no YAML, as the end of a sentence.

    Example:
        >>> try:
        ...     parse_yaml("a:\n\tb: 1")
        ... except yaml.YAMLError as error:
        ...     print(yaml_fault(error))
        not readable as YAML (line 2, column 1): a tab, where YAML takes spaces
    """
    if isinstance(error, UnicodeDecodeError | yaml.reader.ReaderError):
        return "no text in UTF-8; save it as UTF-8"
    where = ""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        where = f" (line {mark.line + 1}, column {mark.column + 1})"
    problem = getattr(error, "problem", None) or type(error).__name__
    if "'\\t'" in problem:
        problem = "a tab, where YAML takes spaces"
    return f"not readable as YAML{where}: {problem}"
