"""Reading and writing recipes: files, `--set a.b=c`, one-line errors, the digest, and differences."""

import json
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError, create_model

from pcam_ssl.errors import UserError, first_line, nearest
from pcam_ssl.files import digest_file, digest_text
from pcam_ssl.recipe.extensions import METHODS, SELECTORS, extension_names, load_extension
from pcam_ssl.recipe.schema import LBFGS, MACHINE_KEYS, PLACE_KEYS, STOP_KEYS, Method, Pseudo, Recipe
from pcam_ssl.recipe.yaml_text import KeyTwice, brief, parse_yaml, read_yaml

MADE_BY = "# Made by pcam-ssl"
"""How the recipe.yaml of a run begins."""


def recipe_folder() -> Path:
    """The folder of the shipped recipes: inside the package when installed from a wheel, else beside it in the repository."""
    package = Path(__file__).parent.parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """Sorted names of the shipped recipes."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def recipe_path(name: str | Path) -> Path:
    """The path of a recipe, given by the name of a shipped one or as a .yaml file. Raises UserError with the nearest names."""
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
    """The defaults (or `base`), changed first by a recipe (shipped name or file), then by `a.b=c` settings.

    What shipped recipes and files of runs say is `stated` in it. Raises UserError with one line per problem: an unknown recipe,
    unreadable YAML, unknown keys, wrong values.
    """
    values: dict[str, Any] = {} if base is None else base.dump()
    stated = {} if base is None else base.stated
    source = "--set"
    if name is not None:
        source = str(name)
        written = _with_names(_with_file_policy(read_yaml(recipe_path(name))))
        if not _is_users_own(recipe_path(name)):
            stated = stated | flatten(written)
        _overlay(values, written)
        _drop_old_digest(values, written)
    # Names first: a name clears its section before the section's keys are set, in whatever order they were typed.
    settings = sorted(settings, key=lambda setting: not setting.partition("=")[0].strip().endswith(".name"))
    changes: dict[str, Any] = {}
    for setting in settings:
        apply_setting(changes, setting)
    if _with_file_policy(changes) != changes:
        settings.append("views.policy=file")
    for setting in settings:
        apply_setting(values, setting)
    _drop_old_digest(values, changes)
    recipe = _with_weights_digest(_with_transform(validate(_with_frozen_defaults(values), source)))
    # Another name clears its section, so what was stated for the old one is gone.
    renamed = {
        key.partition(".")[0]
        for key, value in flatten(recipe.dump()).items()
        if key.endswith(".name") and stated.get(key, value) != value
    }
    return recipe.with_stated({key: value for key, value in stated.items() if key.partition(".")[0] not in renamed})


def all_stated(recipe: Recipe) -> Recipe:
    """The recipe with all its values `stated`: what its user chose has been looked at before."""
    return recipe.with_stated(flatten(recipe.dump()))


def _is_users_own(path: Path) -> bool:
    """Whether a user wrote the file: it is no shipped recipe, and no run wrote it."""
    return path.resolve().parent != recipe_folder().resolve() and not path.read_text(encoding="utf-8").startswith(MADE_BY)


def _overlay(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change sections of `values` in place. A section whose name changes is replaced, because its keys belong to the old name."""
    for key, change in changes.items():
        before = values.get(key)
        old = before if isinstance(before, dict) else {}
        renamed = key != "model" and isinstance(change, dict) and "name" in change and change["name"] != old.get("name")
        if isinstance(before, dict) and isinstance(change, dict) and not renamed:
            before.update(change)
        else:
            values[key] = change


def _with_file_policy(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes with `views.policy: file` added where they set `views.file` without a policy."""
    views = changes.get("views")
    if isinstance(views, dict) and views.get("file") is not None and "policy" not in views:
        return {**changes, "views": {**views, "policy": "file"}}
    return changes


def _with_frozen_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The values with other defaults where the backbone is frozen: views that its cache holds, and a linear head fitted by L-BFGS."""
    model, method = _section(values, "model"), _section(values, "method")
    if model.get("freeze_backbone") is not True or model.get("init") is not None:
        return values
    values = dict(values)
    if not _section(values, "features").get("random_views"):
        values["views"] = {"policy": "d4", **_section(values, "views")}
        values["pseudo"] = {"noise": "same", **_section(values, "pseudo")}
    linear = method.get("name", "supervised") == "supervised" and model.get("head", "linear") == "linear"
    # Keys of another optimizer ask for that one.
    if linear and set(_section(values, "optim")) <= LBFGS.model_fields.keys() - {"name"}:
        values["optim"] = {"name": "lbfgs", **_section(values, "optim")}
    return values


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of the values as they were written; empty where it is absent or no mapping, which validation reports."""
    section = values.get(name)
    return section if isinstance(section, dict) else {}


def _with_transform(recipe: Recipe) -> Recipe:
    """The recipe with the content of `views.file` in `views.transform`, because the content decides numbers and the path does not."""
    transform = recipe.views.transform if recipe.draws_from_file else None
    if recipe.views.file is not None:
        transform = _read_transform(Path(recipe.views.file))
    return recipe.model_copy(update={"views": recipe.views.model_copy(update={"file": None, "transform": transform})})


def _drop_old_digest(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Forget the digest of `model.weights` in place where `changes` name another file without one."""
    section, changed = values.get("model"), changes.get("model")
    if isinstance(section, dict) and isinstance(changed, dict) and "weights" in changed and "weights_digest" not in changed:
        section["weights_digest"] = None


def _with_weights_digest(recipe: Recipe) -> Recipe:
    """The recipe with the SHA-256 of `model.weights`, because the content decides numbers and the path does not.

    A digest that is there stays: a run's recipe is read when its file may be gone, and loading the weights compares them.
    """
    model = recipe.model
    if model.weights is None or model.weights_digest is not None:
        return recipe
    try:
        digest = digest_file(model.weights)
    except OSError as error:
        raise UserError(f"model.weights: {model.weights}: {error.strerror.lower()}; name a file of weights") from None
    return recipe.model_copy(update={"model": model.model_copy(update={"weights_digest": digest})})


def _read_transform(path: Path) -> dict[str, Any]:
    """Plain values of a file that `albumentations.save` wrote, YAML or JSON. Raises UserError for any other file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise UserError(f"views.file: {path}: {what}; albumentations.save(transform, {str(path)!r}) writes one")
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


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Apply `a.b=c` to nested `values` in place. A new name clears its section, because the keys belong to the old name.

    Raises UserError where the setting is not KEY=VALUE, the value is not YAML, or a section in KEY is a value.
    """
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {setting}: write KEY=VALUE, for example --set train.epochs=3")
    *sections, leaf = key.strip().split(".")
    try:
        value = parse_yaml(text)
    except KeyTwice as error:
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
    """A Recipe from plain values. Raises UserError with one line per wrong key, naming the nearest valid keys."""
    schema = _schema(values)
    try:
        return schema.model_validate(_with_names(values))
    except ValidationError as error:
        problems: dict[str, list[dict[str, Any]]] = {}
        for entry in error.errors():
            problems.setdefault(_place(entry, schema)[0], []).append(entry)
        raise UserError(*(_problem(entries, source, schema) for entries in problems.values())) from None


def _schema(values: dict[str, Any]) -> type[Recipe]:
    """`Recipe`, extended by the method and selectors of other packages that `values` name. Raises UserError where one cannot be loaded."""
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


def _with_names(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the default name added to named sections (method, optim, schedule) that leave it out."""
    defaults = Recipe()
    tagged = {}
    for section, value in values.items():
        default = getattr(getattr(defaults, section, None), "name", None)
        if isinstance(value, dict) and default and section != "model" and "name" not in value:
            value = {"name": default, **value}
        tagged[section] = value
    return tagged


def _problem(entries: list[dict[str, Any]], source: str, schema: type[Recipe]) -> str:
    """One line about one key. A key that takes a number or a word has one entry for each."""
    where, section = _place(entries[0], schema)
    entry = entries[0]
    if entry["type"] == "extra_forbidden":
        choices = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else schema.model_fields
        return f"recipe {source}: unknown key {where}.{nearest(where.rpartition('.')[2], choices)} `pcam-ssl recipes show {_recipe_to_show(source)}` lists every key"
    messages = dict.fromkeys(each["msg"].removeprefix("Value error, ").removeprefix("Input should be ") for each in entries)
    message = f"{'Input should be ' if 'Input should be ' in entry['msg'] else ''}{', or '.join(messages)}"
    got = f" (got {brief(entry['input'])})" if where and not isinstance(entry["input"], dict) else ""
    return f"recipe {source}: {where + ': ' if where else ''}{message}{got}"


def _place(entry: dict[str, Any], schema: type[Recipe]) -> tuple[str, Any]:
    """The key of an error entry in the recipe's notation, and the section or type that it belongs to."""
    section: Any = schema
    keys: list[str] = []
    for part in map(str, entry["loc"]):
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            if (tag := _tagged(section, part)) is not None:
                section = tag
            # Otherwise the part is pydantic's name for a branch of a union, not a key.
            continue
        keys.append(part)
        section = section.model_fields[part].annotation if part in section.model_fields else section
    return ".".join(keys), section


def _tagged(union: Any, name: str) -> type[BaseModel] | None:
    """The member of a tagged union with this name, None where there is none."""
    members = [member for member in get_args(union) if isinstance(member, type) and issubclass(member, BaseModel)]
    return next((member for member in members if member.model_fields["name"].default == name), None)


def _recipe_to_show(source: str) -> str:
    return source if source in recipe_names() else "baseline"


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML; `load_recipe` reads an equal recipe from it."""
    return yaml.safe_dump(recipe.dump(), sort_keys=False)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict as {'a.b': value}. Dicts in a list are numbered."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, list) and any(isinstance(each, dict) for each in value):
            value = {str(number): each for number, each in enumerate(value)}
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def identity(recipe: Recipe, rounds: bool = False) -> dict[str, Any]:
    """The flat keys that decide a run's numbers. The `pseudo` section is part of them for pseudo-label `rounds` only."""
    free = (*MACHINE_KEYS, *PLACE_KEYS, *(f"pseudo.{key}" for key in STOP_KEYS))
    flat = {key: value for key, value in flatten(recipe.dump()).items() if key not in free}
    # Recipes of runs made before these keys existed have the same identity where the keys are not used.
    flat["cv.inner_folds"] = 0 if flat["cv.inner_folds"] == "auto" else flat["cv.inner_folds"]
    flat["train.compile"] = False if flat["train.compile"] == "auto" else flat["train.compile"]
    if flat["views.engine"] != "tensor":
        del flat["views.engine"]
    if flat["data.slide_budget"] is None:
        del flat["data.slide_budget"]
    if not flat["spatial.use"]:
        flat = {key: value for key, value in flat.items() if not key.startswith("spatial.")}
    if not flat["graph.use"]:
        flat = {key: value for key, value in flat.items() if not key.startswith("graph.")}
    elif not flat["graph.transductive"]:
        del flat["graph.transductive"]
    return flat if rounds else {key: value for key, value in flat.items() if not key.startswith("pseudo.")}


def recipe_digest(recipe: Recipe, rounds: bool = False) -> str:
    """SHA-256 of the keys that decide a run's numbers (`identity`)."""
    return digest_text(json.dumps(identity(recipe, rounds), sort_keys=True))


def differences(old: Recipe, new: Recipe, rounds: bool = False) -> list[str]:
    """`key: old -> new` for each key of `identity` that differs."""
    before, after = identity(old, rounds), identity(new, rounds)
    changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    # `identity` omits keys that are not used; what is shown are the recipes' own values.
    before, after = flatten(old.dump()), flatten(new.dump())
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in changed if before.get(key) != after.get(key)]


def describe_keys(recipe: Recipe) -> list[str]:
    """One line `key = value   # description` for every key of a recipe."""
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
