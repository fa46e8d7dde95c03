"""The one table of what goes with what: every rule can be broken and is said, and the docs print the table."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gpu_sublinear import GaussNewton, SketchOptions
from gpu_sublinear.errors import OptionError
from gpu_sublinear.model.activation import activation_of
from gpu_sublinear.options import Options
from gpu_sublinear.training import support
from gpu_sublinear.training.prepare import KINDS, masks
from tests.helpers.repository import ROOT

WITH = {  # options, network or use that have the feature
    "csr": {"jacobian": "csr"},
    "iterative": {"solver": "cg"},
    "neuron sketch": {"solver": "sketch-cg"},
    "row sketch": {"solver": "sketch-cg", "sketch": SketchOptions("rows")},
    "factored": {},
    "margin": {"margin": 0.1},
    "bits": {"mask": "bits"},
    "flips": {"mask": "flips"},
    "batches": {"batch_size": 4},
    "both layers": {"both_layers": True},
    "fraction": {"validation_fraction": 0.2},
    "outputs": {"outputs": 3},
    "activation": {"activation": activation_of("softshrink")},
    "slope": {"activation": activation_of("leaky")},
    "constant": {"activation": activation_of("max")},
    "first layer": {},
    "trained second": {"second": 1.0},
    "session": {"use": support.SESSION},
    "scan": {"use": support.SHARED_SCAN},
}


def chosen(*features: str) -> tuple[Options, SimpleNamespace, str]:
    """Return options, network and use that have these features and no others."""
    given = {name: value for feature in features for name, value in WITH[feature].items()}
    network = SimpleNamespace(outputs=1, activation=activation_of("relu"), second=None)
    for name in ("outputs", "activation", "second"):
        setattr(network, name, given.pop(name, getattr(network, name)))
    use = given.pop("use", support.FIT)
    if network.second is not None and "both layers" not in features and "first layer" not in features:
        given["both_layers"] = True
    return Options(**given), network, use


@pytest.mark.parametrize("rule", support.RULES, ids=lambda rule: f"{rule.one} x {rule.other}")
def test_every_rule_is_said_where_it_is_broken(rule):
    options, network, use = chosen(rule.one, rule.other)
    with pytest.raises(OptionError) as refused:
        support.check(options, network, use)
    said = [
        r.sentence.format(options=options, network=network) for r in support.RULES if r.one in (rule.one, rule.other)
    ]
    assert str(refused.value) in said and "{" not in str(refused.value)


@pytest.mark.parametrize("feature", support.FEATURES)
def test_a_feature_alone_is_taken(feature):
    if feature != "row sketch":  # needs the entries of J
        support.check(*chosen(feature))


def test_rules_name_features_and_say_each_pair_once():
    pairs = [frozenset((rule.one, rule.other)) for rule in support.RULES]
    assert len(pairs) == len(set(pairs)) and set().union(*pairs) == set(support.FEATURES) == set(WITH)


def test_options_are_checked_when_they_are_given():
    with pytest.raises(OptionError, match="both_layers=True trains on all points"):
        GaussNewton(both_layers=True, batch_size=3)
    with pytest.raises(OptionError, match="mask must be one of auto, lists, bits, flips; got 'no'"):
        GaussNewton(mask="no")
    assert set(masks()) == {"auto", *KINDS} - {"trees"}


def test_the_documentation_prints_the_table():
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    table = page.partition("<!-- support -->\n")[2].partition("<!-- /support -->")[0]
    assert table.strip() == support.markdown().strip()
