"""Does the information account recover what was planted in the demo city?

    python -m benchmarks.account [WORKSPACE [SEED …]]      (default a temporary one, seed 0)

Each city is made, fetched and trained on as `urban demo` does, and `urban bench --account` draws up
its account. A cell is a factor and a modality; the verdicts on it are as planted where

- `shows`: the modality alone surely tells the factor (its interval lies above 0.02) exactly where
  the truth says that it shows;
- `unique`: what only this modality tells is surely above 0.02 exactly where the factor is unique to
  it; of shared factors that all tell, what is unique is below 0.1;
- `synergy`: products of the two modalities of the synergy surely add more than 0.1, those of other
  pairs less than 0.05.

`ratio` is the share of all verdicts that are as planted.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._result import finish
from urbancli.bench.run import BenchOptions, bench
from urbancli.demo.factors import FACTORS, MODALITIES, SYNERGY
from urbancli.demo.recipe import Recipe
from urbancli.workspace import Workspace

SURE, SMALL, PRODUCT, NO_PRODUCT = 0.02, 0.1, 0.1, 0.05

Found = Mapping[tuple[str, str, str], Mapping[str, Any]]


def drawn_up(workspace: Workspace, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the account of a demo city, which is made and trained on where it is not there."""
    from urbancli.cli._demo import fetch_demo, make_demo_inputs
    from urbancli.layers import open_city
    from urbancli.runs import RunOptions, create_run

    if recipe.key not in workspace.cities():
        fetch_demo(workspace, recipe, make_demo_inputs(workspace, recipe), quiet=True)
    run = create_run(workspace, open_city(workspace, recipe.key), "urbanfusion", RunOptions())
    options = BenchOptions((recipe.key,), (run.name,), suite="demo", account=True)
    return [dict(row) for row in bench(workspace, options).account]


def judged(rows: list[dict[str, Any]]) -> dict[str, tuple[bool, str]]:
    """Return verdict → whether it is as planted, and the figure it rests on."""
    found = {(r["task"], r["modality"], r["quantity"]): r for r in rows if not r["run"]}
    verdicts: dict[str, tuple[bool, str]] = {}
    for factor in FACTORS:
        for modality in MODALITIES:
            alone = found[f"factor_{factor.name}", modality, "alone"]
            shows = modality in factor.shows_in
            said = (alone["low"] > SURE) == shows
            verdicts[f"{factor.name} shows in {modality}"] = (said, _text(alone))
            only = found[f"factor_{factor.name}", modality, "unique"]
            if factor.kind == "unique":
                said = (only["low"] > SURE) == shows
            else:
                said = only["value"] < SMALL
            verdicts[f"{factor.name} unique to {modality}"] = (said, _text(only))
    return {**verdicts, **_products(found)}


def _products(found: Found) -> dict[str, tuple[bool, str]]:
    owner = {factor.name: factor.shows_in[0] for factor in FACTORS}
    planted = {owner[name] for name in SYNERGY}
    verdicts = {}
    for (task, pair, quantity), row in found.items():
        if task == "factor_synergy" and quantity == "synergistic" and "×" in pair:
            both = set(pair.split("×")) == planted
            said = row["low"] > PRODUCT if both else row["value"] < NO_PRODUCT
            verdicts[f"synergy of {pair}"] = (said, _text(row))
    return verdicts


def _text(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def main(folder: Path, seeds: list[int]) -> None:
    """Judge every city and print what is not as planted."""
    right, total, wrong = 0, 0, []
    for seed in seeds:
        verdicts = judged(drawn_up(Workspace(folder), Recipe(seed)))
        right += sum(said for said, _ in verdicts.values())
        total += len(verdicts)
        wrong += [f"{seed}: {name}: {text}" for name, (said, text) in verdicts.items() if not said]
    print(f"{right} of {total} verdicts as planted, cities of seeds {seeds}")
    for line in wrong:
        print(f"not as planted: {line}")
    finish("account", {
        "ratio": round(right / total, 3), "verdicts": total, "seeds": seeds, "not_as_planted": wrong
    })  # fmt: skip


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:]] or [0]
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), numbers)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary), numbers)
