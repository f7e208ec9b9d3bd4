"""Gradient boosting of trees: what an embedding says through thresholds and their interplay.

scikit-learn's `HistGradientBoostingRegressor` and `HistGradientBoostingClassifier` (Friedman 2001;
histograms after Ke et al. 2017, "LightGBM"), a model for each target. The last inner fold of the
training units judges: it says after how many trees of each of `LEAVES` to stop, and which has the
least loss then, squared error or log-loss; a model of so many trees learns from all of them. One
inner fold and not all, for a model costs what hundreds of ridges cost. No tree at all, the mean or
the commonest class, may be best too.

Where a value is missing the tree itself learns where to send it. Unlike the other probes, a fit
holds its units' features in float64 for a while.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from urbancli.bench.probes.base import Fold, Integers, Predicted, in_threads, is_regression

KINDS = ("regression", "classification")
VERSION = 1

LEAVES = (4, 16)
"""Of a tree, which of them is reported as chosen: hardly any interplay of features, or much."""

LEARNING_RATE = 0.1
MOST_TREES = 500
PATIENCE = 10
"""Trees without a lower loss on the judges, after which no more are grown."""

BINS = 63
"""Of each feature's values; four times as fast as scikit-learn's 255, and as good on cities' units.
"""


class _Model(NamedTuple):
    """A model to be fitted.

    Attributes:
        y: (N,) numbers, or class numbers.
        regression: whether they are numbers.
        leaves: of a tree.
        seed: of the bins, where units are so many that some stand for all.
    """

    y: npt.NDArray[Any]
    regression: bool
    leaves: int
    seed: int

    def unfitted(self, trees: int, *, stopping: bool) -> Any:
        """Return the model of up to so many trees, or of just as many."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        make = HistGradientBoostingRegressor if self.regression else HistGradientBoostingClassifier
        return make(
            max_leaf_nodes=self.leaves,
            learning_rate=LEARNING_RATE,
            max_iter=trees,
            max_bins=BINS,
            early_stopping=stopping,
            n_iter_no_change=PATIENCE,
            random_state=self.seed,
        )

    def judged(self, x: npt.NDArray[Any], learnt: Integers, out: Integers) -> tuple[float, int]:
        """Return the least loss on the judges, and after how many trees it is reached."""
        if not self.regression:
            # No loss is defined of a class that the model has not met.
            out = out[np.isin(self.y[out], self.y[learnt])]
        if not len(out) or self._constant(x, learnt):
            return 0.0, 0
        model = self.unfitted(MOST_TREES, stopping=True)
        model.fit(x[learnt], self.y[learnt], X_val=x[out], y_val=self.y[out])
        best = int(np.argmax(model.validation_score_))
        return -float(model.validation_score_[best]), best

    def predicted(
        self,
        x: npt.NDArray[Any],
        learnt: Integers,
        trees: int,
        tested: npt.NDArray[Any],
        asked: Integers,
    ) -> npt.NDArray[Any]:
        """Return the predictions (M,) for units asked of a model of so many trees."""
        own = self.y[learnt]
        if not trees or self._constant(x, learnt):
            middle = own.mean() if self.regression else np.bincount(own).argmax()
            return np.full(len(asked), middle)
        model = self.unfitted(trees, stopping=False).fit(x[learnt], own)
        return np.asarray(model.predict(tested[asked]))

    def _constant(self, x: npt.NDArray[Any], learnt: Integers) -> bool:
        return not x.shape[1] or bool((self.y[learnt] == self.y[learnt[0]]).all())


def fit_predict_folds(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    folds: Sequence[Fold],
    x_test: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> list[Predicted]:
    """Return predictions of the setting and number of trees, per target, best when judged.

    Args:
        x: (N, D) features, NaN where missing; D may be 0: the mean or commonest class.
        y: (N,) or (N, T) numbers, or (N,) classes.
        folds: see `Fold`.
        x_test: (N, D) features of units as they are predicted, where those differ.
        seed: see `_Model`.
    """
    import sklearn.ensemble  # noqa: F401 - has threads of its own, limited once it is loaded

    tested = x if x_test is None else x_test
    regression = is_regression(y)
    names = None if regression else np.unique(y)
    targets = (y if names is None else np.searchsorted(names, y)).reshape(len(y), -1)
    task_bytes = 24 * len(x) * x.shape[1]
    models = [
        [_Model(target, regression, leaves, seed) for leaves in LEAVES] for target in targets.T
    ]
    every = [(fold, number) for fold in folds for number in range(len(models))]

    def judged(fold: Fold, target: int) -> tuple[_Model, int]:
        found = [model.judged(x, *fold.last_judgement()) for model in models[target]]
        best = int(np.argmin([loss for loss, _ in found]))
        return models[target][best], found[best][1]

    def predicted(fold: Fold, model: _Model, trees: int) -> npt.NDArray[Any]:
        return model.predicted(x, fold.learnt(), trees, tested, fold.tested())

    best = in_threads(judged, every, task_bytes)
    asked = [(fold, *choice) for (fold, _), choice in zip(every, best, strict=True)]
    values = in_threads(predicted, asked, task_bytes)
    results = []
    for start in range(0, len(every), len(models)):
        part = slice(start, start + len(models))
        found = np.stack(values[part], axis=1)
        chosen = tuple(float(model.leaves) for model, _ in best[part])
        found = (found if names is None else names[found]).reshape(-1, *y.shape[1:])
        results.append(Predicted(found, chosen, 0))
    return results
