"""`pcam-ssl recipes` and `pcam-ssl doctor`."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from typer import Option

app = typer.Typer(help="List, show, and copy the shipped recipes.", no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """One line a recipe: its name and what it is for. Then the weights that are on this machine.

    Example: pcam-ssl recipes list
    """
    from pcam_ssl.api import recipes
    from pcam_ssl.models.weights import weight_lines

    for name, purpose in recipes().items():
        print(f"{name:<20} {purpose}")
    print("\nweights on this machine:")
    print("\n".join(weight_lines()))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="shipped name or .yaml file")],
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change one key first; repeatable")] = None,
    keys: Annotated[bool, typer.Option("--keys", help="say what every key means")] = False,
) -> None:
    """Every key of a recipe, resolved.

    Example: pcam-ssl recipes show baseline --keys
    """
    from pcam_ssl.api import recipe
    from pcam_ssl.recipe.loading import describe_keys, to_yaml

    chosen = recipe(name, set or [])
    print("\n".join(describe_keys(chosen)) if keys else to_yaml(chosen), end="\n" if keys else "")


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(help="shipped name")],
    target: Annotated[Path, typer.Argument(help="file to write, ending in .yaml")],
) -> None:
    """Copy a recipe to change it.

    Example: pcam-ssl recipes copy baseline mine.yaml
    """
    from pcam_ssl.api import copy_recipe

    copy_recipe(name, target)
    print(f"{target}: change it, then `pcam-ssl baseline --recipe {quote(str(target))}`")


def doctor(
    data: Annotated[
        Path | None, Option("--data", metavar="DATASET", help="dataset to look at; default $PCAM_SSL_DATA, else data/pcam")
    ] = None,
    verify: Annotated[bool, Option("--verify", help="read all pixels of the dataset again and compare their digest")] = False,
    as_json: Annotated[bool, Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Check versions, device, precision, speed, disk, and dataset; one line each, the mend beside what is wrong.

    Exits with 2 where something must be mended. Example: pcam-ssl doctor --data data/pcam --verify
    """
    import json
    from dataclasses import asdict

    from pcam_ssl.api import doctor

    findings = doctor(data, verify=verify)
    print(json.dumps([asdict(finding) for finding in findings], indent=2) if as_json else "\n".join(f.line() for f in findings))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(2)
