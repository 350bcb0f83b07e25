"""`pcam-ssl recipes`: list, show, copy."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List, show, and copy the shipped recipes.", no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """One line a recipe: its name and what it is for.

    Example: pcam-ssl recipes list
    """
    from pcam_ssl.recipe.loading import recipe_names, recipe_path

    for name in recipe_names():
        first = recipe_path(name).read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
        print(f"{name:<20} {first}")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="shipped name or .yaml file")],
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change one key first; repeatable")] = None,
    keys: Annotated[bool, typer.Option("--keys", help="say what every key means")] = False,
) -> None:
    """Every key of a recipe, resolved.

    Example: pcam-ssl recipes show baseline --keys
    """
    from pcam_ssl.recipe.loading import describe_keys, load_recipe, to_yaml

    recipe = load_recipe(name, set or [])
    print("\n".join(describe_keys(recipe)) if keys else to_yaml(recipe), end="\n" if keys else "")


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="shipped name")],
    target: Annotated[Path, typer.Argument(help="file to write, ending in .yaml")],
) -> None:
    """Copy a recipe to change it.

    Example: pcam-ssl recipes copy baseline mine.yaml
    """
    from pcam_ssl.errors import UserError
    from pcam_ssl.files import check_target, write_text
    from pcam_ssl.recipe.loading import recipe_path

    check_target("recipes copy", target, ".yaml", ".yml")
    if target.exists():
        raise UserError(f"{target}: exists already; choose another name")
    write_text(target, recipe_path(name).read_text(encoding="utf-8"))
    print(f"{target}: change it, then `pcam-ssl baseline --recipe {target}`")
