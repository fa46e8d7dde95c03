"""Question 13: what 'weights are maintained implicitly' means: which rows are touched."""

from __future__ import annotations

from bench.experiments.common import DATA_SETS, TINY
from bench.experiments.sparsity import good, measure
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.words import number, percent, power_of_two


def answer(content: Content) -> str:
    rows = good(content)
    moved = [row["ever_moved"] for row in rows]
    looked = [max(row["looked"]) for row in rows]
    return (
        "It means that only rows which fire are written and only those whose pre-activations may have crossed the "
        "threshold are looked at again. "
        f"Over a whole training {percent(min(moved))} to {percent(max(moved))} of the rows of W change at all, the "
        f"others "
        "keep every bit; a query looks at "
        f"{percent(min(looked))} to {percent(max(looked))} of all n m pre-activations. Where b is small nearly every "
        f"row "
        "fires on some point, so there is nothing implicit about W: it is written in full."
    )


def tables(content: Content) -> list[Table]:
    head = ["data", "b", "rows ever changed", "rows written, step 0", "last step", "rows refreshed, step 0",
    "last step",
            "pairs looked at, step 0", "movement: median", "99 %", "largest"]  # fmt: skip
    body = [
        [
            row["data"], f"{row['shift']:g}", percent(row["ever_moved"]), percent(row["moved"][0]),
            percent(row["moved"][-1]), percent(row["refreshed"][0]), percent(row["refreshed"][-1]),
            percent(row["looked"][0]), *(number(value) for value in row["movement"]),
        ]
        for row in good(content) if row["moved"]
    ]  # fmt: skip
    return [Table(f"shares of the m = {power_of_two(content['rows'][0]['m'])} rows of W", head, body)]


def panels(content: Content) -> list[Panel]:
    curves = {
        f"{row['data'].split(':')[0]}, b={row['shift']:g}": [(k, max(v, 1e-7)) for k, v in enumerate(row["refreshed"])]
        for row in good(content)
    }
    return [Panel("rows looked at afresh", "step", "share of all rows", curves, "y")]


EXPERIMENT = Experiment(
    "implicit", 13, "What does 'weights are maintained implicitly' mean here?",
    {
        "tiny": {"data": [TINY], "shifts": [1.0], "m": 512, "limit": None},
        "quick": {"data": DATA_SETS[:2], "shifts": [0.0, 2.0, 2.5], "m": 2**15, "limit": 200},
        "full": {"data": DATA_SETS, "shifts": [0.0, 1.0, 2.0, 3.0, 3.5], "m": 2**18, "limit": 512},
    },
    measure, answer, tables, panels,
)  # fmt: skip
