"""The scikit-learn face: its rules in full, and what it adds to them."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpu_sublinear import SublinearClassifier, SublinearRegressor
from gpu_sublinear.errors import DataError, DeviceMemoryError, OptionError
from tests.helpers.problems import sphere

TINY = {"width": 128, "shift": 0.5, "tolerance": 1e-2, "max_steps": 4, "device": "cpu"}
SAME = 1e-9  # relative; float64 sums in another order, magnified by cond(G + kappa I) of some hundreds

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # four steps are enough here


FOLDS_OF_5 = KFold(5, shuffle=True, random_state=0)
FOLDS = {"alpha": "cv", "alphas": [10.0, 0.1], "cv": 2}


@parametrize_with_checks([
    SublinearRegressor(**TINY),
    SublinearClassifier(**TINY),
    SublinearRegressor(**TINY, **FOLDS),
    SublinearClassifier(**TINY, **FOLDS, per_target=True),
])
def test_rules_of_scikit_learn(estimator, check):
    check(estimator)


def regression(n: int = 60, d: int = 4) -> tuple[np.ndarray, np.ndarray]:
    X, y = sphere(n, d)
    return 3 * X + 1, 10 * y - 5


def classes(n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(n, 6, n_informative=4, n_classes=3, random_state=0)
    return X, np.array(["ant", "bee", "cat"])[y]


# ---- fit and predict ------------------------------------------------------------------------------------


def test_the_regressor_learns_and_remembers_its_training():
    X, y = regression(200)
    model = SublinearRegressor(**TINY | {"width": 2048, "max_steps": 20}).fit(X[:150], y[:150])
    assert model.score(X[150:], y[150:]) > 0.8  # smooth targets, no noise
    assert model.history_[-1].mse < model.history_[0].mse
    assert model.n_iter_ == model.history_[-1].step > 0
    assert model.alpha_ < 0.1
    assert model.converged_ and model.reason_


def test_columns_of_several_targets_come_back_in_their_units():
    X, y = regression()
    Y = np.stack([y, 1000 - 3 * y], axis=1)
    options = {"width": 1024, "max_steps": 15, "preprocessing": "standard"}
    P = SublinearRegressor(**TINY | options, alpha=0).fit(X, Y).predict(X)
    assert P.shape == Y.shape
    np.testing.assert_allclose(P, Y, atol=0.1 * Y.std(axis=0).max())


def test_classes_of_any_kind_come_back():
    X, y = classes()
    model = SublinearClassifier(**TINY, preprocessing="standard").fit(X, y)
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert model.decision_function(X).shape == (90, 3)
    assert (model.predict(X) == y).mean() == model.score(X, y) > 0.9
    two = SublinearClassifier(**TINY).fit(X, y == "bee")
    assert two.decision_function(X).shape == (90,)
    assert two.predict(X).dtype == bool


def test_weights_reach_preprocessing_scaling_and_loss():
    X, y = regression(40)
    w = np.random.default_rng(0).integers(0, 4, 40)
    weighted = SublinearRegressor(**TINY).fit(X, y, sample_weight=w)
    repeated = SublinearRegressor(**TINY).fit(np.repeat(X, w, axis=0), np.repeat(y, w))
    assert weighted.alpha_ == repeated.alpha_
    np.testing.assert_allclose(weighted.preprocessing_.mean, repeated.preprocessing_.mean, rtol=SAME)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=0, atol=SAME * abs(y).max())


def test_a_constant_target_is_predicted():
    X, _ = regression()
    np.testing.assert_array_equal(SublinearRegressor(**TINY).fit(X, np.full(60, 7.0)).predict(X), np.full(60, 7.0))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"dtype": "half"}, "dtype"),
        ({"width": 7}, "width"),
        ({"alpha": "best"}, "alpha"),
    ],
)
def test_options_that_do_not_exist_are_named(option, words):
    with pytest.raises(OptionError, match=words):
        SublinearRegressor(**TINY | option).fit(*regression())


@pytest.mark.parametrize(
    "option",
    [
        {"damping": "none"},
        {"damping": 0.1},
        {"batch_size": 20},
        {"both_layers": True},
        {"mask": "bits"},
        {"mask": "flips"},
        {"activation": "abs"},
    ],
    ids=str,
)
def test_options_of_the_trainer_reach_it(option):
    X, y = regression()
    model = SublinearRegressor(**TINY | {"max_steps": 20}, alpha=0.0, **option).fit(X, y)
    assert model.score(X, y) > 0.95
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert (model.network_.second is not None) == ("both_layers" in option)


def test_early_stopping_keeps_points_for_it():
    X, y = regression(80)
    y = y + 8 * np.random.default_rng(0).standard_normal(80)
    options = TINY | {"max_steps": 20, "tolerance": 1e-6, "alpha": 0.0}
    model = SublinearRegressor(**options, validation_fraction=0.25, patience=2).fit(X, y)
    whole = SublinearRegressor(**options).fit(X, y)
    assert "validation" in model.reason_
    assert model.n_iter_ < whole.n_iter_
    assert all(record.validation_mse > 0 for record in model.history_)
    assert whole.history_[0].validation_mse is None
    with pytest.raises(OptionError, match="keep no points for early stopping"):
        SublinearRegressor(**options | FOLDS, validation_fraction=0.25).fit(X, y)
    with pytest.raises(OptionError, match="validation_fraction cannot hold points out"):
        SublinearRegressor(**options, validation_fraction=0.25).partial_fit(X, y)


def test_a_run_that_does_not_converge_says_so():
    with pytest.warns(ConvergenceWarning, match="max_steps ended the run after 1 step"):
        SublinearRegressor(**TINY | {"tolerance": 0.0, "max_steps": 1}, alpha=0.0).fit(*regression())


def test_float32_stays_float32():
    X, y = regression()
    assert SublinearRegressor(**TINY).fit(X.astype(np.float32), y).network_.dtype == "float32"
    assert SublinearRegressor(**TINY).fit(X, y).network_.dtype == "float64"


# ---- a penalty by folds, a network for each target -------------------------------------------------------


def test_folds_choose_the_penalty_that_a_grid_search_chooses():
    X, y = regression(80)
    y = y + 8 * np.random.default_rng(0).standard_normal(80)
    options = TINY | {"tolerance": 1e-4, "max_steps": 40}
    alphas = [100.0, 10.0, 1.0, 0.1]
    model = SublinearRegressor(**options, alpha="cv", alphas=alphas[::-1]).fit(X, y)
    grid = GridSearchCV(SublinearRegressor(**options), {"alpha": alphas}, scoring="neg_mean_squared_error").fit(X, y)
    assert model.alpha_ == grid.best_params_["alpha"]
    assert model.alphas_.tolist() == alphas
    assert model.mse_path_.shape == (4, 5)
    theirs = np.stack([grid.cv_results_[f"split{k}_test_score"] for k in range(5)], axis=1)
    np.testing.assert_allclose(model.mse_path_ * y.var(), -theirs, rtol=0.2)  # whose folds are prepared by themselves
    alone = SublinearRegressor(**options, alpha=model.alpha_).fit(X, y)
    np.testing.assert_allclose(model.predict(X), alone.predict(X), atol=0.1 * y.std())  # which begins at W_0
    assert not hasattr(model.set_params(alpha="auto").fit(X, y), "mse_path_")


def test_the_model_is_of_the_kind_that_folds_judged():
    """In one dimension small penalties end in far worse minima when trained from the initial weights."""
    X = np.random.default_rng(0).uniform(-1, 1, (150, 1))
    y = np.sin(6 * X[:, 0])
    options = TINY | {"width": 1024, "max_steps": 60, "tolerance": 1e-3, "alpha": "cv", "cv": FOLDS_OF_5}
    model = SublinearRegressor(**options).fit(X, y)
    promised = model.mse_path_[model.alphas_ == model.alpha_].mean()  # of the variance
    assert 1 - model.score(X, y) < 2 * promised
    assert model.score(X, y) > SublinearRegressor(**options | {"alpha": model.alpha_}).fit(X, y).score(X, y)
    first = SublinearRegressor(**options).partial_fit(X, y)
    np.testing.assert_array_equal(first.predict(X), model.predict(X))
    assert first.partial_fit(X[:5], y[:5]).score(X, y) > 0.9


def test_folds_of_any_kind_and_points_without_weight():
    X, y = regression(60)
    w = np.ones(60)
    w[::7] = 0
    splits = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    model = SublinearRegressor(**TINY, alpha="cv", alphas=[3.0, 0.3], cv=splits).fit(X, y, sample_weight=w)
    kept = np.flatnonzero(w)
    where = [tuple(np.flatnonzero(np.isin(kept, part)) for part in fold) for fold in splits]
    without = SublinearRegressor(**TINY, alpha="cv", alphas=[3.0, 0.3], cv=where).fit(X[kept], y[kept])
    np.testing.assert_allclose(model.mse_path_, without.mse_path_, rtol=SAME)
    lists = [(train.tolist(), test.tolist()) for train, test in splits]
    listed = SublinearRegressor(**TINY, alpha="cv", alphas=[3.0, 0.3], cv=lists).fit(X, y, sample_weight=w)
    np.testing.assert_array_equal(listed.mse_path_, model.mse_path_)
    SublinearRegressor(**TINY, alphas=[-1.0]).fit(X, y)  # which only "cv" reads
    w[:12] = 0  # a whole fold
    assert SublinearRegressor(**TINY, **FOLDS | {"cv": 5}).fit(X, y, sample_weight=w).mse_path_.shape == (2, 4)
    for bad, words in (
        ([-1], "numbers from 0 to 59; got -1"),
        ([60], "got 60"),
        (np.arange(60) > 30, "numpy.flatnonzero"),
    ):
        with pytest.raises(OptionError, match=words):
            SublinearRegressor(**TINY, alpha="cv", cv=[(bad, [3]), splits[0]]).fit(X, y, sample_weight=w)
    with pytest.raises(OptionError, match="above 0 and at most 1e.100; got -1"):
        SublinearRegressor(**TINY, alpha="cv", alphas=[-1.0]).fit(X, y)
    with pytest.raises(OptionError, match="shared scans.*both_layers=True"):
        SublinearRegressor(**TINY, alpha="cv", both_layers=True).fit(X, y)


def test_given_penalties_are_all_tried_and_the_usual_ones_until_errors_rise():
    X, y = load_diabetes(return_X_y=True)
    X, y, options = X[:150], y[:150], TINY | {"preprocessing": "standard"}
    usual = SublinearRegressor(**options, alpha="cv").fit(X, y)
    given = SublinearRegressor(**options, alpha="cv", alphas=usual.alphas_).fit(X, y)
    count = np.isfinite(usual.mse_path_).all(axis=1).sum()
    assert 4 <= count < 15
    assert np.isfinite(given.mse_path_).all()
    np.testing.assert_array_equal(given.mse_path_[:count], usual.mse_path_[:count])


def test_memory_is_planned_for_all_folds():
    X, y = regression(60)
    options = TINY | {"width": 4096}
    limit = 425_000_000  # bytes; the program alone is planned with 420 million
    SublinearRegressor(**options, alpha=1.0, memory_limit=limit).fit(X, y)
    with pytest.raises(DeviceMemoryError):
        SublinearRegressor(**options, **FOLDS | {"cv": 60}, memory_limit=limit).fit(X, y)


@pytest.mark.parametrize(
    ("many", "named"), [({"alpha": "cv"}, "alpha='cv'"), ({"per_target": True}, "per_target=True")]
)
def test_a_time_budget_is_for_one_training(many, named):
    X, y = regression()
    with pytest.raises(OptionError, match=f"{named} makes many; leave out one"):
        SublinearRegressor(**TINY, **many, time_budget=1.0).fit(X, np.stack([y, -y], axis=1))
    SublinearRegressor(**TINY, per_target=True, time_budget=1.0).fit(X, y)  # there is but one


def test_points_are_added_to_one_network_only():
    X, y = regression()
    model = (
        SublinearRegressor(**TINY, per_target=True).fit(X, np.stack([y, -(y**2)], axis=1)).set_params(per_target=False)
    )
    with pytest.raises(OptionError, match="one for each target; call fit anew"):
        model.partial_fit(X, np.stack([y, y], axis=1))


@pytest.mark.parametrize("alpha", ["cv", "auto", 0.5])
def test_targets_apart_are_models_of_their_own(alpha):
    X, y = regression(80)
    noise = np.random.default_rng(0).standard_normal(80)
    Y = np.stack([y, 1000 - 3 * y + 100 * noise, noise], axis=1)
    options = TINY | {"max_steps": 20, "alpha": alpha, "alphas": [100.0, 1.0, 0.01], "mask": "flips", "cv": 3}
    model = SublinearRegressor(**options, per_target=True).fit(X, Y)
    for k, column in enumerate(Y.T):
        alone = SublinearRegressor(**options).fit(X, column)
        np.testing.assert_allclose(model.predict(X)[:, k], alone.predict(X), atol=1e-6 * np.abs(column).max())
        assert model.alpha_[k] == alone.alpha_ and len(model.history_[k]) == len(alone.history_)
    assert len(set(model.alpha_)) > 1 or alpha == 0.5
    assert model.n_iter_ == max(len(history) for history in model.history_) - 1
    assert "target 2: " in model.reason_
    assert hasattr(model, "mse_path_") == (alpha == "cv")
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert not hasattr(model, "partial_fit")


def test_classes_apart_may_follow_flips():
    X, y = classes()
    model = SublinearClassifier(**TINY, mask="flips", preprocessing="standard", per_target=True).fit(X, y)
    assert model.decision_function(X).shape == (90, 3)
    assert model.alpha_.shape == (3,)
    assert model.score(X, y) > 0.9


def test_partial_fit_keeps_the_penalty_of_the_first_folds():
    X, y = regression(80)
    whole = SublinearRegressor(**TINY, **FOLDS).fit(X[:60], y[:60])
    model = SublinearRegressor(**TINY, **FOLDS).partial_fit(X[:60], y[:60])
    np.testing.assert_array_equal(model.mse_path_, whole.mse_path_)
    np.testing.assert_array_equal(model.predict(X), whole.predict(X))
    before = model.alpha_
    assert model.partial_fit(X[60:], y[60:]).alpha_ == before


# ---- the tools of scikit-learn --------------------------------------------------------------------------


def test_pipeline_and_grid_search():
    X, y = classes()
    pipeline = make_pipeline(StandardScaler(), SublinearClassifier(**TINY))
    grid = {"sublinearclassifier__shift": [0.0, 1.0], "sublinearclassifier__alpha": [1e-3, "auto"]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.5  # chance is 1/3
    again = clone(search.best_estimator_).fit(X, y)
    np.testing.assert_array_equal(again.predict(X), search.predict(X))


def test_a_pickle_predicts_the_same_bytes_and_holds_no_device():
    X, y = regression()
    model = SublinearRegressor(**TINY).fit(X, y)
    data = pickle.dumps(model)
    assert b"CpuDevice" not in data
    np.testing.assert_array_equal(pickle.loads(data).predict(X), model.predict(X))


def test_tables_give_feature_names():
    pandas = pytest.importorskip("pandas")
    X, y = regression()
    table = pandas.DataFrame(X, columns=list("abcd"))
    model = SublinearRegressor(**TINY).fit(table, pandas.Series(y))
    assert model.feature_names_in_.tolist() == list("abcd")
    np.testing.assert_array_equal(model.predict(table), SublinearRegressor(**TINY).fit(X, y).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table[list("badc")])


# ---- points that arrive later ---------------------------------------------------------------------------


def test_partial_fit_trains_on_all_points_given():
    X, y = regression(80)
    model = SublinearRegressor(**TINY, alpha=1e-6).partial_fit(X[:50], y[:50]).partial_fit(X[50:], y[50:])
    assert len(model._session.X) == 80
    assert model.score(X, y) > 0.95  # nothing of the first points is forgotten
    assert model.preprocessing_.mean == pytest.approx(X[:50].mean(axis=0))


def test_partial_fit_after_fit_or_a_pickle_starts_from_the_weights():
    X, y = regression(80)
    model = SublinearRegressor(**TINY).fit(X[:50], y[:50])
    before = model.network_.W.copy()
    loaded = pickle.loads(pickle.dumps(model)).partial_fit(X[50:], y[50:])
    model.partial_fit(X[50:], y[50:])
    assert len(model._session.X) == 30
    assert model.alpha_ == loaded.alpha_
    assert abs(model.network_.W - before).max() > 0
    np.testing.assert_array_equal(model.predict(X), loaded.predict(X))
    assert model.fit(X, y)._session is None


def test_partial_fit_knows_all_classes_from_the_first_call():
    X, y = classes()
    few = y != "cat"
    model = SublinearClassifier(**TINY).partial_fit(X[few], y[few], classes=["ant", "bee", "cat"]).partial_fit(X, y)
    assert "cat" in model.predict(X)
    with pytest.raises(DataError, match="none of classes_"):
        model.partial_fit(X, np.full(90, "dog"))
    with pytest.raises(DataError, match="must stay"):
        model.partial_fit(X, y, classes=["ant", "bee"])
    with pytest.raises(DataError, match="none of classes_"):
        SublinearClassifier(**TINY).partial_fit(X, y, classes=["ant", "bee"])


# ---- arrays of other libraries --------------------------------------------------------------------------


def test_tensors_of_pytorch_come_back_as_tensors():
    torch = pytest.importorskip("torch")
    X, y = regression()
    model = SublinearRegressor(**TINY).fit(torch.from_numpy(X), torch.from_numpy(y))
    want = SublinearRegressor(**TINY).fit(X, y).predict(X)
    single = model.predict(torch.from_numpy(X).float())
    assert single.dtype == torch.float32
    np.testing.assert_array_equal(model.predict(torch.from_numpy(X).requires_grad_()).numpy(), want)
    assert model.score(torch.from_numpy(X), torch.from_numpy(y)) == pytest.approx(model.score(X, y))
    labels = SublinearClassifier(**TINY).fit(torch.from_numpy(X), torch.from_numpy(y > 0)).predict(torch.from_numpy(X))
    assert labels.dtype == torch.bool
    with pytest.raises(DataError, match="give float32 or float64"):
        model.predict(torch.from_numpy(X).bfloat16())


def test_arrays_of_jax_come_back_as_arrays_of_jax():
    jax = pytest.importorskip("jax")
    X, y = regression()
    X = X.astype(np.float32)
    model = SublinearRegressor(**TINY).fit(X, y)
    answer = model.predict(jax.numpy.asarray(X))
    assert isinstance(answer, jax.Array)
    np.testing.assert_array_equal(np.asarray(answer), model.predict(X).astype(np.float32))


class OnGpu:
    """An array of some library that is on a GPU."""

    __cuda_array_interface__ = {}

    def __init__(self, host):
        self.host, self.dtype = host, host.dtype

    def get(self):
        return self.host


def test_arrays_on_a_gpu_pass_through_cupy(monkeypatch):
    X, y = regression()
    model = SublinearRegressor(**TINY).fit(X, y)
    stand_in = types.ModuleType("cupy")
    stand_in.asarray = lambda a: a if isinstance(a, OnGpu) else OnGpu(a)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    answer = model.predict(OnGpu(X))
    assert isinstance(answer, OnGpu)
    np.testing.assert_array_equal(answer.host, model.predict(X))
    monkeypatch.setattr(OnGpu, "__module__", "cupy._core.core")
    np.testing.assert_array_equal(model.predict(OnGpu(X)).host, model.predict(X))


# ---- without scikit-learn -------------------------------------------------------------------------------


def test_the_package_works_without_scikit_learn_and_says_what_is_missing():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import gpu_sublinear\n"
        "try: gpu_sublinear.SublinearRegressor\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "SublinearRegressor needs scikit-learn 1.6" in said
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        import gpu_sublinear

        gpu_sublinear.nothing  # noqa: B018
