"""The runner, the report, the comparison and the README tables, on experiments made for the purpose."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.experiments import ALL, BY_NAME, of_suite
from bench.harness import regions
from bench.harness import suite as suite_module
from bench.harness.compare import changes, comparison
from bench.harness.experiment import Experiment, Panel, Table
from bench.harness.measure import power_law
from bench.harness.records import RESULTS, dumps, load_results, plain, write_json
from bench.harness.report import write
from bench.harness.suite import is_done, run_apart, run_suite
from bench.harness.words import listed, number, seconds, versus


def make(name: str, measure, number: int = 1) -> Experiment:
    return Experiment(
        name,
        number,
        f"What about {name}?",
        {"tiny": {"k": 3}},
        measure,
        lambda content: f"It is {content['value']}.",
        lambda content: [Table("values", ["x", "y"], [["1", str(content["value"])]])],
        lambda content: [Panel("a", "x", "y", {"c": [(1, content["value"]), (2, 5)]})],
    )


def fail(k, device):
    raise MemoryError("too large")


GOOD, BAD = make("good", lambda k, device: {"value": k}), make("bad", fail, 2)


def run(folder: Path, experiments=(BAD, GOOD), **options) -> list[dict]:
    return run_suite(experiments, "tiny", "cpu", folder, apart=False, say=lambda line: None, **options)


def test_a_failing_experiment_is_recorded_and_the_others_go_on(tmp_path):
    bad, good = run(tmp_path)
    assert bad["error"] == "MemoryError: too large"
    assert good["error"] is None and good["content"] == {"value": 3}
    assert set(load_results(tmp_path, "tiny")) == {"bad", "good"}
    assert {"commit", "cpu", "torch"} <= set(good["environment"])


def test_resume_skips_good_results_of_the_same_code_and_size_only(tmp_path, monkeypatch):
    run(tmp_path)
    assert [result["experiment"] for result in run(tmp_path, resume=True)] == ["bad"]
    monkeypatch.setitem(GOOD.sizes, "tiny", {"k": 4})
    assert not is_done(GOOD, "tiny", "cpu", tmp_path)
    monkeypatch.setitem(GOOD.sizes, "tiny", {"k": 3})
    assert is_done(GOOD, "tiny", "cpu", tmp_path) and not is_done(GOOD, "tiny", "cuda", tmp_path)
    monkeypatch.setattr(suite_module, "code_version", lambda: "other")
    assert not is_done(GOOD, "tiny", "cpu", tmp_path)


def test_no_experiment_starts_when_the_time_is_used_up(tmp_path):
    assert run(tmp_path, limit=0.0) == []


def test_a_process_that_dies_or_hangs_leaves_a_result(tmp_path, monkeypatch):
    result = run_apart(GOOD, "tiny", "cpu", tmp_path, 60)  # the worker knows no such experiment, so it ends at once
    assert "ended with code" in result["error"]
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    assert "ended with code" in run_apart(GOOD, "tiny", "cpu", tmp_path, 60)["error"]
    assert "stopped after" in run_apart(BY_NAME["layers"], "tiny", "cpu", tmp_path, 0.0)["error"]


def test_the_report_depends_on_the_results_alone(tmp_path):
    run(tmp_path)
    results = load_results(tmp_path, "tiny")
    texts = [write([GOOD, BAD], results, "tiny", tmp_path / name / "REPORT.md").read_bytes() for name in "ab"]
    assert texts[0] == texts[1]
    text = texts[0].decode()
    assert "It is 3." in text and "**This experiment failed:** `MemoryError: too large`" in text
    assert "| 1 | 3 |" in text and "figures/tiny/good.png" in text and "FAILED" in text
    pictures = [(tmp_path / name / "figures" / "tiny" / "good.png").read_bytes() for name in "ab"]
    assert pictures[0] == pictures[1]


def sample(median: float, width: float = 0.01) -> dict:
    return {"median": median, "low": median * (1 - width), "high": median * (1 + width)}


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (sample(2.0), "SLOWER"),
        (sample(0.5), "faster"),
        (sample(1.05), "same"),
        (sample(1.3, 0.5), "same"),
    ],
)
def test_compare_flags_what_is_slower_by_more_than_the_noise(tmp_path, after, verdict):
    for name, step in (("old", sample(1.0)), ("new", after)):
        rows = [{"m": 64, "shift": 1.0, "step": step}, {"m": 128, "shift": 1.0, "step": sample(1.0)}]
        write_json(tmp_path / f"{name}.json", {"content": {"rows": rows}})
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    assert [change.verdict for change in changes(old, new)] == [verdict, "same"]
    assert comparison(old, new)[1] == (verdict == "SLOWER")
    assert main(["--compare", str(old), str(new)]) == int(verdict == "SLOWER")


def test_readme_regions_are_filled_and_filling_again_changes_nothing():
    text = (
        "before\n<!-- bench:full/engine:1 -->\nold\n<!-- /bench -->\nbetween\n"
        "<!-- bench:full/faithful -->\n<!-- /bench -->\nafter"
    )
    filled = regions.fill(text)
    assert "old" not in filled and filled.endswith("after")
    assert "engine:1 -->\n\n| data | m | b |" in filled  # one table alone has no caption
    assert "below 1 we lose:\n\n| n | m |" in filled
    assert regions.fill(filled) == filled


def test_the_pages_hold_what_the_results_say():
    assert [page.name for page in regions.pages()] == ["README.md", "kernels.md"]
    for page in regions.pages():
        text = page.read_text(encoding="utf-8")
        assert regions.fill(text) == text, f"python -m bench --pages fills {page.name}"


def test_a_result_has_one_record_a_line():
    row = {"m": 64, "step": {"median": 1.0, "low": 1.0, "high": 2.0}, "by_step": [1.5] * 100}
    content = {"rows": [row, row], "cases": [{"name": "long", "opponents": {"a": row, "b": row}}], "none": [], "k": {}}
    text = dumps(content)
    assert json.loads(text) == content
    assert text.splitlines()[1:5] == [' "rows": [', f"  {json.dumps(row)},", f"  {json.dumps(row)}", " ],"]
    assert f'"a": {json.dumps(row)}' in text


def test_committed_results_are_of_experiments_and_in_this_form():
    for path in RESULTS.glob("*/*.json"):
        if path.parent.name != "tiny":
            text = path.read_text(encoding="utf-8")
            assert path.stem in BY_NAME and dumps(json.loads(text)) + "\n" == text, path


def test_readme_region_of_an_unknown_name_is_refused():
    with pytest.raises(KeyError, match="no experiment"):
        regions.fill("<!-- bench:full/nonsense -->\n<!-- /bench -->")


def test_readme_region_of_a_suite_result(tmp_path):
    content = {"rows": [], "m": 64, "shift": 1.0}
    write_json(tmp_path / "full" / "layers.json", {"error": None, "content": content})
    assert "GELU" not in regions.region("full/layers", tmp_path)
    write_json(tmp_path / "full" / "layers.json", {"error": "OSError: x", "content": None})
    assert "failed: OSError" in regions.region("full/layers", tmp_path)


def test_all_fourteen_questions_have_an_experiment_in_quick_and_full():
    for name in ("quick", "full"):
        assert {one.number for one in of_suite(name)} >= set(range(1, 15))
    assert {one.name for one in of_suite("gpu")} == {"micro", "gpu-steps", "gpu-widths"}
    assert all("tiny" in one.sizes for one in ALL) and len(BY_NAME) == len(ALL)
    assert all(json.loads(json.dumps(one.sizes)) is not None for one in ALL)


def test_a_power_law_is_found_with_its_interval():
    sizes = [2.0**k for k in range(8)]
    fit = power_law(sizes, [3 * size**0.7 for size in sizes])
    assert fit is not None
    assert abs(fit["value"] - 0.7) < 1e-12 and fit["high"] - fit["low"] < 1e-9
    noisy = power_law(sizes, [3 * size**0.7 * (1 + 0.2 * (-1) ** k) for k, size in enumerate(sizes)])
    assert noisy is not None and noisy["low"] < 0.7 < noisy["high"]
    assert power_law([1, 2], [1, 2]) is None and power_law([1, 2, 4], [0, 0, 1]) is None


def test_words_and_plain_values():
    assert versus(1.0, 2.0) == "wins by a factor of 2"
    assert versus(2.0, 1.0) == "loses by a factor of 2"
    assert versus(1.0, 1.05).startswith("ties")
    assert (listed("abc"), listed("a"), listed("")) == ("a, b and c", "a", "")
    assert (seconds(0.0123), seconds(None), number(None), number(12345.0)) == ("12.3 ms", "-", "-", "1.23e+04")
    assert plain({1: (float("nan"), float("inf"), 2)}) == {"1": [None, None, 2]}


def test_one_experiment_runs_at_full_size_unless_told(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        "bench.__main__.run_suite", lambda chosen, *rest, **options: asked.append((chosen, *rest)) or []
    )
    output = ["--results", str(tmp_path), "--output", str(tmp_path / "REPORT.md")]
    assert main(["--only", "costs", *output]) == 0
    assert main(["--only", "costs", "--suite", "tiny", *output]) == 0
    assert [(chosen[0].name, suite) for chosen, suite, *_ in asked] == [("costs", "full"), ("costs", "tiny")]
    with pytest.raises(SystemExit):
        main(["--only", "gpu-steps", *output])
    assert "the suite full has no gpu-steps" in capsys.readouterr().err


def test_help_and_list(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--suite quick" in capsys.readouterr().out
    assert main(["--list"]) == 0
    assert "race" in capsys.readouterr().out
