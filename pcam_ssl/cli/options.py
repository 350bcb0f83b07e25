"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

from typer import Option

DataOption = Annotated[Path, Option("--data", envvar="PCAM_SSL_DATA", help="DATASET that `pcam-ssl data import` made")]
RecipeOption = Annotated[str | None, Option("--recipe", help="shipped name (`pcam-ssl recipes list`) or a .yaml file")]
SetOption = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="change one key of the recipe; repeatable")]
OutOption = Annotated[Path | None, Option("--out", metavar="RUN", help="run folder; continued where it exists")]
FoldOption = Annotated[list[int] | None, Option("--fold", metavar="K", help="train this fold only; repeatable, for job arrays")]
JsonOption = Annotated[bool, Option("--json", help="print scores.json instead of a table")]
SweepOption = Annotated[
    list[str] | None,
    Option("--sweep", metavar="KEY=A,B", help="one run for each value, then compare them; repeatable for every combination"),
]
PageOption = Annotated[Path | None, Option("--html", metavar="FILE", help="with --sweep: also write the comparison as a page")]
DeviceOption = Annotated[str, Option("--device", help="auto, cpu, cuda or mps")]
MovedOption = Annotated[Path | None, Option("--data", metavar="DATASET", help="the run's dataset, where it has moved")]
RoundOption = Annotated[int | None, Option("--round", metavar="R", help="this pseudo-label round of RUN, not the best one")]
