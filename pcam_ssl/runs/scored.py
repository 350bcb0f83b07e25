"""What a run says of each patch, by networks that never learned its label. No torch."""

import pandas as pd

from pcam_ssl.runs.run import Run
from pcam_ssl.tables import PREDICTION_COLUMNS, conform, read_predictions


def scored_predictions(run: Run) -> pd.DataFrame:
    """Predictions by id: out of fold where a patch was scored so, else the mean over folds (fold -1) of the test split.

    Empty where the run has neither table, as a run of pooled rounds without a test split.
    """
    parts = [conform(pd.DataFrame(columns=list(PREDICTION_COLUMNS)), PREDICTION_COLUMNS)]
    if (run.path / "oof.parquet").exists():
        parts.append(read_predictions(run.path / "oof.parquet"))
    if (run.path / "test.parquet").exists():
        test = read_predictions(run.path / "test.parquet")
        parts.append(test[test.fold == -1])
    return pd.concat(parts).drop_duplicates("id").set_index("id")
