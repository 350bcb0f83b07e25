"""What a threshold is proven on: slides, or the groups that stand in for them; and what a network says of its pool."""

import numpy as np
import pandas as pd
import pytest
from round_outputs import table

from pcam_ssl.data.folds import Folds
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.pseudo_labels.setup import open_rounds
from pcam_ssl.pseudo_labels.teacher import inner_evidence, pool_table
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import PREDICTION_COLUMNS, conform, read_table, write_table

IDS = ["p0", "p1", "p2", "p3"]


@pytest.fixture
def unit(tmp_path):
    """Inner Predictions of four patches whose slides nobody knows."""
    table = pd.DataFrame({"id": IDS, "label": [0, 1, 0, 1], "fold": 0, "logit": 0.0, "prob": 0.5, "view_std": 0.0})
    table = table.assign(wsi=pd.array([None] * 4, dtype="str"))
    write_table(tmp_path / "inner.parquet", conform(table, PREDICTION_COLUMNS), {})
    return tmp_path


def folds(grouping: str) -> Folds:
    groups = ["stain-1", "stain-1", "stain-0", "stain-0"] if grouping == "stain clusters" else IDS
    frame = pd.DataFrame({"id": IDS, "group": groups, "fold": 1, "visible": True, "inner_0": True, "inner_1": np.zeros(4, bool)})
    return Folds(frame.iloc[::-1].reset_index(drop=True), grouping)


def test_stain_clusters_stand_in_for_slides_that_nobody_knows(unit):
    inner, cluster = inner_evidence(unit, folds("stain clusters"))
    assert inner.wsi.tolist() == ["stain-1", "stain-1", "stain-0", "stain-0"]
    assert cluster == "stain cluster"


def test_without_any_groups_each_patch_stands_for_itself(unit):
    inner, cluster = inner_evidence(unit, folds("none"))
    assert inner.wsi.isna().all()
    assert cluster == "patch"


@pytest.mark.parametrize("same_network", [True, False])
def test_what_was_kept_of_another_network_is_predicted_anew(two_rounds_copy, same_network):
    """The kept logits are raised by 1: they are used only where their digest is that of the weights."""
    rounds = open_rounds(Run(two_rounds_copy), None, [], two_rounds_copy)
    unit = rounds.units[0]
    folder = two_rounds_copy / unit.name
    kept, notes = read_table(folder / "pool.parquet")
    raised = kept.assign(logit=kept.logit + 1)
    write_table(folder / "pool.parquet", raised, notes if same_network else {"network_digest": "another"})
    pool = pool_rows(rounds.dataset, rounds.folds, unit)
    found = pool_table(rounds.context(0), unit, pool, False).set_index("id").logit.loc[kept.id]
    assert np.allclose(found, (raised if same_network else kept).logit)
    assert len(table(folder / "pool.parquet")) == len(kept)


class TestHeadsSideBySide:
    """The pools of a fold and of its inner networks, whose linear heads read the features once."""

    @pytest.fixture(scope="class")
    def rounds(self, train, tmp_path_factory):
        frozen = ("model.freeze_backbone=true", "optim.name=lbfgs", "views.policy=d4", "data.label_budget=56", "cv.inner_folds=2")
        run = train(tmp_path_factory.mktemp("frozen") / "run", *frozen, "predict.d4=true").path
        return open_rounds(Run(run), None, ["pseudo.headroom=false"], run)

    @pytest.fixture(scope="class")
    def tables(self, rounds):
        return {unit.name: self.predict(rounds, unit) for unit in self.units(rounds)}

    def units(self, rounds):
        return [rounds.units[0], *rounds.units[0].parts]

    def predict(self, rounds, unit, pooled=False):
        return pool_table(rounds.context(0), unit, pool_rows(rounds.dataset, rounds.folds, unit), pooled)

    def forget(self, rounds, units):
        for unit in units:
            (rounds.start.unit(unit.name) / "pool.parquet").unlink()

    def test_all_of_them_are_kept_at_once(self, rounds, tables):
        self.forget(rounds, self.units(rounds))
        self.predict(rounds, self.units(rounds)[1])
        for unit in self.units(rounds):
            pool, tested = pool_rows(rounds.dataset, rounds.folds, unit), unit.part is None
            expected = pool[pool.split != "test"] if tested else pool
            assert table(rounds.start.unit(unit.name) / "pool.parquet").id.tolist() == expected.id.tolist()

    def test_each_says_what_it_says_alone(self, rounds, tables):
        self.forget(rounds, self.units(rounds))
        for unit in self.units(rounds):
            alone = self.predict(rounds, unit, pooled=True)
            assert np.allclose(alone.logit, tables[unit.name].logit, rtol=0, atol=1e-5)
            assert np.allclose(alone.view_std, tables[unit.name].view_std, rtol=0, atol=1e-5)
        assert tables["fold-0"].logit.std() > 0.01
        assert not np.allclose(tables["fold-0"].logit.iloc[:5], tables["fold-0/inner-0"].logit.iloc[:5], rtol=0, atol=1e-3)

    @pytest.mark.parametrize("lost", [[0], [1], [0, 2]])
    def test_what_a_kill_left_out_is_made_again_to_the_bit(self, rounds, tables, lost):
        self.forget(rounds, self.units(rounds))
        self.predict(rounds, self.units(rounds)[0])
        self.forget(rounds, [self.units(rounds)[number] for number in lost])
        for unit in self.units(rounds):
            assert self.predict(rounds, unit).equals(tables[unit.name])
