"""``python -m tests.helpers.kill [--times N] [--seed S] [--runs KIND ...]``: SIGKILL at random moments, then resume.

The program is killed from outside, so nothing can be tidied up: at start-up, in steps, while a checkpoint is written,
while models and histories are written.  What comes out in the end must be what an undisturbed run gives.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.helpers.repository import ROOT

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
CLOCKS = {"seconds", "phases", "peak_bytes", "refreshed", "tree_nodes_visited"}  # of a step, see docs/checkpoints.md
RUNS = {  # full steps on contradicting near-duplicates never settle, so that every bit counts until the end
    "lists": ["--shift", "2", "--damping", "none", "--tolerance", "0", "--max-steps", "150"],
    "faithful": ["--shift", "2", "--engine", "faithful", "--damping", "none", "--tolerance", "0", "--max-steps", "60"],
    "bits": [
        "--shift",
        "0.5",
        "--damping",
        "none",
        "--tolerance",
        "0",
        "--max-steps",
        "100",
        "--checkpoint-every",
        "3",
    ],
    "ridge": [
        "--shift",
        "2",
        "--alpha",
        "1e-5",
        "--tolerance",
        "0",
        "--validation-fraction",
        "0.2",
        "--patience",
        "99",
    ],
    "leaky": ["--shift", "1", "--activation", "leaky", "--damping", "none", "--tolerance", "0", "--max-steps", "60"],
    "softshrink": ["--shift", "2", "--activation", "softshrink", "--tolerance", "0", "--max-steps", "100"],
    "both layers": ["--shift", "2", "--both-layers", "--tolerance", "0", "--max-steps", "100"],
    "flips": ["--shift", "0.5", "--mask", "flips", "--damping", "none", "--tolerance", "0", "--max-steps", "60"],
    "flips, damped": ["--shift", "1", "--mask", "flips", "--tolerance", "0", "--max-steps", "60"],
    "batches": ["--shift", "2", "--batch-size", "20", "--tolerance", "0", "--max-steps", "60"],
    "batches, ridge": [
        *("--shift", "2", "--batch-size", "20", "--alpha", "1e-4"),
        *("--tolerance", "0", "--max-steps", "60"),
    ],
    "both layers, ridge": [
        *("--shift", "2", "--both-layers", "--alpha", "1e-5"),
        *("--tolerance", "0", "--max-steps", "60"),
    ],
    "flips, ridge": [
        *("--shift", "0.5", "--mask", "flips", "--alpha", "1e-5"),
        *("--tolerance", "0", "--max-steps", "60"),
    ],
    "bits, ridge": ["--shift", "0.5", "--alpha", "1e-5", "--tolerance", "0", "--max-steps", "60"],
}
AFTER_START = 0.25  # share of the kills that are timed from the start of the process, others from a new checkpoint


@dataclass
class Tally:
    """What a campaign did: kills, by the steps that the checkpoint held and by what was being done."""

    kills: int = 0
    runs: int = 0
    steps: list[int] = field(default_factory=list)
    moments: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)


def data(path: Path) -> None:
    """Write 80 points around 16 places, with targets that contradict each other."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((16, 6))[np.arange(80) % 16] + 0.1 * rng.standard_normal((80, 6))
    np.savetxt(path, np.column_stack([X, rng.choice([-1.0, 1.0], 80)]), delimiter=",")


def command(folder: Path, data: Path, options: Sequence[str], name: str) -> list[str]:
    files = {"--checkpoint": f"{name}.checkpoint", "--out": f"{name}.model", "--history": f"{name}.json"}
    written = [word for option, file in files.items() for word in (option, str(folder / file))]
    return [sys.executable, "-m", "gpu_sublinear", "train", str(data), *options, *written, "--resume"]


def results(folder: Path, name: str) -> tuple[bytes, list[dict], list]:
    """Return the model, the history without clocks, and how the run ended."""
    history = json.loads((folder / f"{name}.json").read_text())
    steps = [{key: value for key, value in step.items() if key not in CLOCKS} for step in history["steps"]]
    ending = [history["result"][key] for key in ("converged", "reason", "training", "held_out")]
    return (folder / f"{name}.model").read_bytes(), steps, ending


def kill_once(command: list[str], folder: Path, name: str, rng: random.Random, span: float, tally: Tally) -> bool:
    """Start the program and kill it at a random moment; return whether it had ended before."""
    checkpoint = folder / f"{name}.checkpoint"
    before = _stamp(checkpoint)
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        if rng.random() >= AFTER_START:
            while process.poll() is None and _stamp(checkpoint) == before:
                time.sleep(0.001)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.random() ** 2 * span)
        ended = process.poll() is not None
        process.kill()
        error = process.stderr.read().decode() if process.stderr else ""
    if ended:
        assert process.returncode == 0, f"the program failed: {error}"
        return True
    tally.kills += 1
    tally.steps.append(_steps(checkpoint))
    tally.moments[_moment(folder, name, before)] += 1
    return False


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def _steps(checkpoint: Path) -> int:
    """Return how many steps the checkpoint holds; reading it proves that it is whole."""
    from gpu_sublinear.training.checkpoints.file import Checkpoint

    return len(Checkpoint.load(checkpoint).history) if checkpoint.exists() else 0


def _moment(folder: Path, name: str, before: tuple[int, int]) -> str:
    """Say what the program was doing when it was killed, from the files that it left."""
    left = [path for path in folder.iterdir() if path.name.startswith(".gpu-sublinear-")]
    if left:
        return "writing a file"
    if (folder / f"{name}.json").exists():
        return "writing the results"
    return (
        "before the first checkpoint of its own" if _stamp(folder / f"{name}.checkpoint") == before else "between steps"
    )


def one_run(folder: Path, options: Sequence[str], rng: random.Random, times: int, span: float, tally: Tally) -> None:
    """Train once undisturbed and once killed again and again, at most ``times``, until it ends; compare."""
    data(folder / "data.csv")
    name = f"run{tally.runs}"
    if not (folder / "whole.json").exists():
        subprocess.run(command(folder, folder / "data.csv", options, "whole"), env=ENVIRONMENT, check=True,
                       capture_output=True)  # fmt: skip
    arguments, first = command(folder, folder / "data.csv", options, name), tally.kills
    ended = False
    while not ended and tally.kills - first < times:
        ended = kill_once(arguments, folder, name, rng, span, tally)
        for path in folder.glob(".gpu-sublinear-*"):
            path.unlink()  # so that the next moment is told from its own files
    if not ended:
        subprocess.run(arguments, env=ENVIRONMENT, check=True, capture_output=True)
    tally.runs += 1
    print(f"{tally.kills} kills, run {tally.runs} ended", flush=True)
    tally.different += [f"{name}: {part}" for part, mine, other in zip(
        ("model", "history", "ending"), results(folder, name), results(folder, "whole"), strict=True
    ) if mine != other]  # fmt: skip


def campaign(times: int, seed: int, device: str, span: float, runs: Sequence[str] = tuple(RUNS)) -> Tally:
    """Kill at least ``times``, in runs of every kind in turn."""
    rng, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory() as place:
        while tally.kills < times:
            kind = runs[tally.runs % len(runs)]
            folder = Path(place) / kind
            folder.mkdir(exist_ok=True)
            share = -(-times // len(runs))
            options = [*RUNS[kind], "--device", device, "--width", "2^14" if device != "reference" else "2^10"]
            one_run(folder, options, rng, min(share, times - tally.kills), span, tally)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.helpers.kill", description=__doc__)
    parser.add_argument("--times", type=int, default=60, help="kills (default: 60)")
    parser.add_argument("--runs", nargs="+", choices=tuple(RUNS), default=tuple(RUNS), help="kinds (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--device", default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--span", type=float, default=2.0, help="longest wait before a kill, seconds (default: 2)")
    options = parser.parse_args()
    tally = campaign(options.times, options.seed, options.device, options.span, options.runs)
    print(f"{tally.kills} kills in {tally.runs} runs")
    for moment, count in tally.moments.most_common():
        print(f"  {moment:<40} {count:>4}")
    steps = np.array(tally.steps)
    for low, high in ((0, 1), (1, 10), (10, 30), (30, 60), (60, 100), (100, 10**9)):
        count = ((steps >= low) & (steps < high)).sum()
        print(f"  steps in the checkpoint {low:>4} to {min(high, 1000) - 1:<4} {count:>14}")
    for text in tally.different:
        print(f"DIFFERENT  {text}")
    print("all runs ended with the bytes of an undisturbed run" if not tally.different else "FAILED")
    return 1 if tally.different else 0


if __name__ == "__main__":
    sys.exit(main())
