"""What a unit's training starts from."""

from itertools import product

import numpy as np

from pcam_ssl.cross_validation.fitting import unit_seed
from pcam_ssl.data.folds import Unit

NONE = np.zeros(0, bool)


def seed_of(seed, number, round):
    return unit_seed(seed, Unit(f"fold-{number}", number, NONE, NONE, NONE, round))


def test_every_unit_of_every_round_and_seed_starts_from_a_seed_of_its_own():
    # Five folds, a refit, and the precision checks of all: eleven units.
    cases = list(product(range(5), range(11), range(4)))
    assert len({seed_of(*case) for case in cases}) == len(cases)


def test_a_student_does_not_start_where_its_teacher_did():
    assert seed_of(0, 2, 1) != seed_of(0, 2, 0)
