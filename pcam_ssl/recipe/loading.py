"""Recipes in and out: YAML files, `--set a.b=c`, one-line errors, digest, and differences."""

import json
import re
from pathlib import Path
from reprlib import Repr
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError, create_model

from pcam_ssl.errors import UserError, first_line, nearest
from pcam_ssl.files import digest_text
from pcam_ssl.recipe.extensions import METHODS, SELECTORS, extension_names, load_extension
from pcam_ssl.recipe.schema import MACHINE_KEYS, STOP_KEYS, Method, Pseudo, Recipe

LONGEST_VALUE = 80
"""Characters of a wrong value that an error shows: YAML's aliases can make a value of gigabytes from one line."""


class _KeyTwice(yaml.YAMLError):
    """A mapping gives a key twice."""


class _Loader(yaml.SafeLoader):
    """PyYAML reads 1e-3 as text and yes/on as booleans (YAML 1.1), and takes a key twice; recipes are read as YAML 1.2 does."""

    def construct_mapping(self, node, deep=False):
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                raise _KeyTwice(f"line {line} gives the key {key.value} again, first given in line {lines[key.value]}; keep one")
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


def recipe_folder() -> Path:
    """Where the shipped recipes lie: inside the package when installed from a wheel, else beside it in the repository."""
    package = Path(__file__).parent.parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def recipe_path(name: str | Path) -> Path:
    """The file of a shipped recipe's name, or the file itself. Raises UserError with the nearest names."""
    if (path := Path(name)).suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UserError(f"--recipe {name}: no such file; `pcam-ssl recipes list` names the shipped ones")
    if str(name) in recipe_names():
        return recipe_folder() / f"{name}.yaml"
    raise UserError(
        f"--recipe {name}: no shipped recipe has that name.{nearest(str(name), recipe_names())} `pcam-ssl recipes list` names all; a file must end in .yaml"
    )


def load_recipe(name: str | Path | None = None, settings: list[str] | tuple[str, ...] = (), base: Recipe | None = None) -> Recipe:
    """The defaults (or `base`), changed by a recipe (shipped name or file), changed by `a.b=c` settings, in that order."""
    values: dict[str, Any] = {} if base is None else base.dump()
    source = "--set"
    if name is not None:
        source = str(name)
        _overlay(values, _with_tags(_choosing_own_views(read_yaml(recipe_path(name)))))
    # Names first: whatever the order typed, a name clears its section before the section's keys are set.
    settings = sorted(settings, key=lambda setting: not setting.partition("=")[0].strip().endswith(".name"))
    changes: dict[str, Any] = {}
    for setting in settings:
        apply_setting(changes, setting)
    if _choosing_own_views(changes) != changes:
        settings.append("views.policy=file")
    for setting in settings:
        apply_setting(values, setting)
    return _with_own_views(validate(values, source))


def _overlay(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change sections of `values` in place; one whose name changes is replaced whole, for its keys belong to the old name."""
    for key, change in changes.items():
        before = values.get(key)
        old = before if isinstance(before, dict) else {}
        renamed = key != "model" and isinstance(change, dict) and "name" in change and change["name"] != old.get("name")
        if isinstance(before, dict) and isinstance(change, dict) and not renamed:
            before.update(change)
        else:
            values[key] = change


def _choosing_own_views(changes: dict[str, Any]) -> dict[str, Any]:
    """Naming a file of views chooses it, unless the same changes name a policy."""
    views = changes.get("views")
    if isinstance(views, dict) and views.get("file") is not None and "policy" not in views:
        return {**changes, "views": {**views, "policy": "file"}}
    return changes


def _with_own_views(recipe: Recipe) -> Recipe:
    """The recipe with the content of `views.file` in place of its name: what is in the file decides numbers, not where it lies."""
    transform = recipe.views.transform if recipe.draws_from_file else None
    if recipe.views.file is not None:
        transform = _read_transform(Path(recipe.views.file))
    return recipe.model_copy(update={"views": recipe.views.model_copy(update={"file": None, "transform": transform})})


def _read_transform(path: Path) -> dict[str, Any]:
    """Plain values of a file that `albumentations.save` wrote; JSON is YAML, too. Raises UserError where it is none."""
    if not path.is_file():
        raise UserError(f"views.file: {path}: no such file; albumentations.save(transform, {str(path)!r}) writes one")
    try:
        content = read_yaml(path, "what albumentations.save writes is a mapping (__version__, transform)")
        if not isinstance(content.get("transform"), dict):
            raise UserError(f"{path}: not what albumentations.save writes, which has a mapping `transform`")
        return json.loads(json.dumps(content, allow_nan=False))
    except UserError as error:
        raise UserError(*(f"views.file: {problem}" for problem in error.problems)) from None
    except OSError as error:
        raise UserError(f"views.file: {path}: cannot be read ({error.strerror})") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"views.file: {path}: holds more than numbers, text and lists ({first_line(error)})") from None


def read_yaml(path: Path, expected: str = "a recipe is a mapping of sections (model:, train:, ...)") -> dict[str, Any]:
    """A YAML mapping. Raises UserError naming file and line, or what was `expected` instead."""
    try:
        values = _parsed(path.read_text(encoding="utf-8"))
    except _KeyTwice as error:
        raise UserError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a recipe file") from None
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path}: {expected}, this is a {type(values).__name__}")
    odd = next((key for key in values or {} if not isinstance(key, str)), None)
    if odd is not None:
        raise UserError(f"{path}: {_brief(odd)} is no section of a recipe; `pcam-ssl recipes show baseline` lists every key")
    return values or {}


def _parsed(text: str) -> Any:
    """What YAML says. Raises YAMLError for whatever is wrong with it."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # PyYAML passes on what Python says of 2024-99-99, of `!!int ''`, or of ten thousand brackets
        raise yaml.YAMLError(first_line(error)) from None


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Apply `a.b=c` to nested `values`, in place. Changing a section's name clears the section: its keys belong to the old name."""
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {setting}: write KEY=VALUE, for example --set train.epochs=3")
    *sections, leaf = key.strip().split(".")
    try:
        value = _parsed(text)
    except _KeyTwice as error:
        raise UserError(f"--set {setting}: {error}") from None
    except yaml.YAMLError:
        raise UserError(f"--set {setting}: the value is not readable as YAML; quote it") from None
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {setting}: {section} is a value, not a section")
        values = inner
    if leaf == "name" and sections and sections[-1] != "model" and values.get("name") != value:
        values.clear()
    values[leaf] = value


def validate(values: dict[str, Any], source: str) -> Recipe:
    """A Recipe from plain values. Raises UserError with one line per wrong key, naming the nearest right ones."""
    schema = _schema(values)
    try:
        return schema.model_validate(_with_tags(values))
    except ValidationError as error:
        problems: dict[str, list[dict[str, Any]]] = {}
        for entry in error.errors():
            problems.setdefault(_place(entry, schema)[0], []).append(entry)
        raise UserError(*(_problem(entries, source, schema) for entries in problems.values())) from None


def _schema(values: dict[str, Any]) -> type[Recipe]:
    """`Recipe`, with a method and selectors of other packages where `values` name them. Raises UserError where one cannot be loaded."""
    method, pseudo = (section if isinstance(section := values.get(key), dict) else {} for key in ("method", "pseudo"))
    name, changes = method.get("name"), {}
    if isinstance(name, str) and name not in _method_names() and name in extension_names(METHODS):
        changes["method"] = (load_extension(METHODS, name).Options, ...)
    keys = [key for key in pseudo if key not in Pseudo.model_fields and key in extension_names(SELECTORS)]
    if keys:
        extended = create_model("Pseudo", __base__=Pseudo, **{key: load_extension(SELECTORS, key).key for key in keys})
        changes["pseudo"] = (extended, ...)
    return create_model("Recipe", __base__=Recipe, **changes) if changes else Recipe


def _method_names() -> set[str]:
    union, _ = get_args(Method)
    return {member.model_fields["name"].default for member in get_args(union)}


def _with_tags(values: dict[str, Any]) -> dict[str, Any]:
    """Tagged sections that leave their name out mean the default's name."""
    defaults = Recipe()
    tagged = {}
    for section, value in values.items():
        default = getattr(getattr(defaults, section, None), "name", None)
        if isinstance(value, dict) and default and section != "model" and "name" not in value:
            value = {"name": default, **value}
        tagged[section] = value
    return tagged


def _problem(entries: list[dict[str, Any]], source: str, schema: type[Recipe]) -> str:
    """One line on a key; a key that takes a number or a word has an entry for each."""
    where, section = _place(entries[0], schema)
    entry = entries[0]
    if entry["type"] == "extra_forbidden":
        choices = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else schema.model_fields
        return f"recipe {source}: unknown key {where}.{nearest(where.rpartition('.')[2], choices)} `pcam-ssl recipes show {_shown(source)}` lists every key"
    told = dict.fromkeys(each["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for each in entries)
    message = f"{'Input should be ' if 'Input should be ' in entry['msg'] else ''}{', or '.join(told)}"
    got = f" (got {_brief(entry['input'])})" if where and not isinstance(entry["input"], dict) else ""
    return f"recipe {source}: {where + ': ' if where else ''}{message}{got}"


def _place(entry: dict[str, Any], schema: type[Recipe]) -> tuple[str, Any]:
    """The key that an entry is about, as the recipe names it, and the section or type that takes it."""
    section: Any = schema
    keys: list[str] = []
    for part in map(str, entry["loc"]):
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            if (tag := _tagged(section, part)) is not None:
                section = tag
            # Else pydantic names the branch of a union, which is no key.
            continue
        keys.append(part)
        section = section.model_fields[part].annotation if part in section.model_fields else section
    return ".".join(keys), section


def _brief(value: Any) -> str:
    """The value as Python writes it, cut where it is long."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = LONGEST_VALUE
    try:
        return short.repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"


def _tagged(union: Any, name: str) -> type[BaseModel] | None:
    """The member of a tagged union that has this name."""
    members = [member for member in get_args(union) if isinstance(member, type) and issubclass(member, BaseModel)]
    return next((member for member in members if member.model_fields["name"].default == name), None)


def _shown(source: str) -> str:
    return source if source in recipe_names() else "baseline"


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML that `load_recipe` reads back to an equal one."""
    return yaml.safe_dump(recipe.dump(), sort_keys=False)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dict to {'a.b': value}; dicts in a list are numbered."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list) and any(isinstance(each, dict) for each in value):
            value = {str(number): each for number, each in enumerate(value)}
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def identity(recipe: Recipe, rounds: bool = False) -> dict[str, Any]:
    """The flat keys that decide a run's numbers; the `pseudo` section decides those of pseudo-label rounds only."""
    free = (*MACHINE_KEYS, *(f"pseudo.{key}" for key in STOP_KEYS))
    flat = {key: value for key, value in flatten(recipe.dump()).items() if key not in free}
    return flat if rounds else {key: value for key, value in flat.items() if not key.startswith("pseudo.")}


def recipe_digest(recipe: Recipe, rounds: bool = False) -> str:
    """SHA-256 over the keys that decide a run's numbers."""
    return digest_text(json.dumps(identity(recipe, rounds), sort_keys=True))


def differences(old: Recipe, new: Recipe, rounds: bool = False) -> list[str]:
    """`key: old -> new` for each key that decides numbers and differs."""
    before, after = identity(old, rounds), identity(new, rounds)
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in sorted(before | after) if before.get(key) != after.get(key)]


def describe_keys(recipe: Recipe) -> list[str]:
    """`key = value   # what it means` for every key of a recipe."""
    lines = []
    for name in type(recipe).model_fields:
        section = getattr(recipe, name)
        if not isinstance(section, BaseModel):
            lines.append(f"{name} = {section}")
            continue
        for key, field in type(section).model_fields.items():
            left = f"{name}.{key} = {getattr(section, key)}"
            lines.append(f"{left:<36} # {field.description}" if field.description else left)
    return lines
