"""YAML 1.2 as recipes are written in it, with one-line errors."""

import re
from pathlib import Path
from reprlib import Repr
from typing import Any

import yaml

from pcam_ssl.errors import UserError, first_line

LONGEST_VALUE = 80
"""An error shows at most this many characters of a wrong value. YAML aliases can turn one line into gigabytes."""


class KeyTwice(yaml.YAMLError):
    """A mapping contains a key twice."""


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2. PyYAML follows YAML 1.1: it reads 1e-3 as text and yes/on as booleans, and it accepts a repeated key."""

    def construct_mapping(self, node, deep=False):
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                raise KeyTwice(f"line {line} gives the key {key.value} again, first given in line {lines[key.value]}; keep one")
            lines[str(key.value)] = line
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_yaml(path: Path, expected: str = "a recipe is a mapping of sections (model:, train:, ...)") -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError with file and line where it is not YAML, or with `expected` where it is not a mapping."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except KeyTwice as error:
        raise UserError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a recipe file") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path}: {expected}, this is a {type(values).__name__}")
    odd = next((key for key in values or {} if not isinstance(key, str)), None)
    if odd is not None:
        raise UserError(f"{path}: {brief(odd)} is no section of a recipe; `pcam-ssl recipes show baseline` lists every key")
    return values or {}


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises YAMLError for any problem."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # PyYAML lets Python's errors for 2024-99-99, `!!int ''`, or ten thousand brackets through
        raise yaml.YAMLError(first_line(error)) from None


def brief(value: Any) -> str:
    """The repr of a value, shortened where it is long."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = LONGEST_VALUE
    try:
        return short.repr(value)
    except ValueError:  # Python refuses to print an integer of more than 4300 digits
        return "a number of thousands of digits"
