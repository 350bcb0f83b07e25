"""What a round says of the pool, for the next to learn from: each unit by its own network, or by those of all members of a blend."""

from dataclasses import replace

import numpy as np
import pandas as pd

from pcam_ssl.blending.blend_inner import INNER, as_member
from pcam_ssl.blending.inference_blend import mean_over
from pcam_ssl.blending.members import Member
from pcam_ssl.blending.tables import blended_table
from pcam_ssl.cross_validation.context import Setting, Unit
from pcam_ssl.device import choose_precision
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_text
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.teacher import check_teachers, pool_table, teacher_digest


def opinion(rounds: Rounds, number: int, unit: Unit, pool: pd.DataFrame) -> pd.DataFrame:
    """What unit K of round `number` says of the patches `pool`, as of `teacher.pool_table`.

    Where round 0 is a blend: the blend of what its members' own networks of unit K say, each by its own recipe's test views. All of
    them are blind to the labels that K scores; `knn_prob` is their mean, NaN where a member has none.
    """
    if number or not rounds.members:
        run = rounds.run(number)
        return pool_table(rounds.setting(number), unit, unit.folder(run), pool)
    heads = {}
    for member in rounds.members:
        if member.run.path not in heads:
            heads[member.run.path] = pool_table(_setting(rounds, member), unit, unit.folder(member.run), pool)
    tables = [as_member(heads[member.run.path], member.table, unit.folder(member.run)) for member in rounds.members]
    weights = np.array([member.weight for member in rounds.members])
    blended = blended_table(tables, rounds.start.info()["blend"]["method"], weights, {})
    return blended.assign(knn_prob=mean_over([table.knn_prob for table in tables], weights))


def opinion_digest(rounds: Rounds, number: int, unit: Unit) -> str:
    """Of the networks whose opinion it is."""
    if number or not rounds.members:
        return teacher_digest(unit.folder(rounds.run(number)))
    return digest_text("".join(teacher_digest(unit.folder(member.run)) for member in rounds.members))


def check_round_0(rounds: Rounds) -> None:
    """Raises UserError where round 0 lacks what rounds start from, or a member of it does where it is a blend."""
    if not rounds.members:
        check_teachers(rounds.start, rounds.units)
        return
    for member in rounds.members:
        check_teachers(member.run, rounds.units)
        if rounds.recipe.pseudo.agreement and not member.recipe.neighbours.use:
            raise UserError(
                f"pseudo.agreement: {member.run.path}, which {rounds.start.path} blends, has no kNN; blend runs that have"
            )
    for unit in rounds.units:
        inner = unit.folder(rounds.start) / INNER
        if not inner.exists():
            raise UserError(f"{inner}: no such file, so no threshold can be chosen; blend the same runs again into another --out")


def _setting(rounds: Rounds, member: Member) -> Setting:
    """The member's own test views, neighbours and number format."""
    recipe = member.recipe
    precision = choose_precision(rounds.world.device, recipe.train.precision, recipe.train.channels_last)
    return replace(rounds.setting_of(member.run), recipe=recipe, precision=precision)
