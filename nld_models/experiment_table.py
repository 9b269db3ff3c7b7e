"""One table of many experiments: `python -m nld_models.experiment_table DIR > TABLE.md`.

DIR holds the documents of `nld experiment` (its `experiment.json`, or what it prints with --json), one file each, under
any name. Every seed counts: where a number is not defined for a seed (no such state, no energy), the table says for how
many it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nld_models.errors import CheckpointError
from nld_models.experiment import counted_states, variant
from nld_models.published import ACCURACY, DATA_DIFFER, L1

Document = Mapping[str, Any]
Row = Mapping[str, Any]


def read_documents(folder: Path) -> list[dict[str, Any]]:
    """The documents of all .json files in a folder, by name of the file. CheckpointError for one that is none."""
    documents = []
    for path in sorted(folder.glob("*.json")):
        try:
            document = json.loads(path.read_text())
            _ = variant(document), document["seeds"][0]["accuracy"], document["true_rates"]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise CheckpointError(f"{path} is no document of nld experiment: {error}") from None
        documents.append(document)
    if not documents:
        raise CheckpointError(f"{folder} holds no .json file of nld experiment")
    return documents


def experiments_table(documents: Sequence[Document]) -> str:
    """Markdown: all experiments, a line each; then every seed of each."""
    lines = [
        "# The published experiments, every seed",
        "",
        "Each line is one run of `nld experiment`; the documents are in `docs/experiments/`, and this page is what "
        "`python -m nld_models.experiment_table docs/experiments` prints.",
        "",
        f"Note: {DATA_DIFFER}. Published values are means over models chosen by their 2nd-order weights (experiment 1: "
        "the best five of many); ours are over all seeds.",
        "",
        *_table(SUMMARY, documents),
        "",
        "states: seeds with exactly three states of exact basin mass above .001 (free drift: of counted draws). l1: "
        "distance of the weights to the chain's, mean and (largest) over seeds. rates: simulated, log(T(15))/15 over "
        "the chain's log P, geometric mean of all entries of all seeds, then the range of single entries. pairs: seeds "
        "where every pair of states has a saddle of its own. NaN: seeds that the guard stopped at a number that was "
        "not finite. failed rollbacks: seeds whose parameters are not all finite afterwards. CPU s: a seed, training, "
        "second stage and evaluation. n/d: not defined, since there is no energy.",
    ]
    for document in documents:
        rows = document["seeds"]
        lines += [
            "",
            f"## Experiment {document['experiment']}, {variant(document)}",
            "",
            f"Seeds {rows[0]['seed']} to {rows[-1]['seed']}, test data of seed {document['test_seed']}.",
            "",
            *_table(SEED, [{"truth": np.array(document["true_rates"]), **row} for row in rows]),
        ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m nld_models.experiment_table DIR", file=sys.stderr)
        return 2
    try:
        print(experiments_table(read_documents(Path(arguments[0]))), end="")
    except CheckpointError as error:
        print(f"experiment_table: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _table(columns: Mapping[str, Callable[[Any], str]], items: Sequence[Any]) -> list[str]:
    cells = [list(columns), ["---"] * len(columns), *([cell(item) for cell in columns.values()] for item in items)]
    return ["| " + " | ".join(row) + " |" for row in cells]


def rate_ratios(row: Row, truth: np.ndarray) -> np.ndarray:
    """Simulated rates over the chain's, one for each pair of different states; empty where states do not match."""
    if row["rate_error"] is None:
        return np.empty(0)
    off = ~np.eye(len(truth), dtype=bool)
    return np.array(row["rates"], dtype=float)[off] / truth[off]


def _l1(method: str) -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        if document["dynamics"] == "nsde" and not method.startswith("draws"):
            return "n/d"
        found = [row["l1"][method] for row in document["seeds"] if row["l1"][method] is not None]
        missing = len(document["seeds"]) - len(found)
        text = f"{np.mean(found):.4f} ({max(found):.4f})" if found else "-"
        return text + (f", {missing} without" if missing else "")

    return cell


def _published_l1(document: Document) -> str:
    found = L1.get((document["experiment"], document["dynamics"]), {}).get("2nd order")
    return "-" if found is None else f"{found.mean:.3f}"


def _accuracy(document: Document) -> str:
    shares = 100 * np.array([row["accuracy"] for row in document["seeds"]])
    return f"{shares.mean():.2f} ({shares.min():.2f})"


def _published_accuracy(document: Document) -> str:
    found = ACCURACY.get((document["experiment"], document["dynamics"]))
    return "-" if found is None else f"{100 * found[0].mean:.1f}"


def _rates(document: Document) -> str:
    truth = np.array(document["true_rates"])
    by_seed = [rate_ratios(row, truth) for row in document["seeds"]]
    found = np.concatenate(by_seed)
    missing = sum(1 for ratios in by_seed if not len(ratios))
    if not len(found):
        return "-"
    mean = f"{np.exp(np.log(found).mean()):.3f}" if (found > 0).all() else "-"
    return f"{mean}, {found.min():.2f} to {found.max():.2f}" + (f", {missing} without" if missing else "")


def _pairs(document: Document) -> str:
    if document["dynamics"] == "nsde":
        return "n/d"
    n = len(document["true_rates"])
    wanted = {(i, j) for i in range(n) for j in range(i + 1, n)}
    return _share(document, lambda row: wanted <= {(int(a), int(b)) for a, b in row["saddles"]})


def _share(document: Document, holds: Callable[[Row], bool]) -> str:
    return f"{sum(1 for row in document['seeds'] if holds(row))} of {len(document['seeds'])}"


def _right_states(document: Document) -> str:
    return _share(document, lambda row: counted_states(row) == len(document["true_weights"]))


SUMMARY: dict[str, Callable[[Document], str]] = {
    "experiment": lambda document: f"{document['experiment']}, {variant(document)}",
    "seeds": lambda document: str(len(document["seeds"])),
    "three states": _right_states,
    "accuracy % (worst)": _accuracy,
    "published": _published_accuracy,
    "l1 exact": _l1("exact"),
    "l1 2nd order": _l1("2nd order"),
    "published l1": _published_l1,
    "l1 1e5 draws": _l1("draws 100000"),
    "rates": _rates,
    "pairs": _pairs,
    "NaN": lambda document: str(sum(1 for row in document["seeds"] if row["stopped"])),
    "failed rollbacks": lambda document: str(sum(1 for row in document["seeds"] if not row["finite"])),
    "CPU s": lambda document: f"{document['cpu_seconds'] / len(document['seeds']):.0f}",
}


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"


def _seed_rates(row: Row) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in rate_ratios(row, row["truth"])) or "-"


def _weights(row: Row) -> str:
    exact = row["weights"]["exact"]
    shown = exact if any(w is not None for w in exact) else row["weights"]["draws 100000"]
    return ", ".join(_number(w, 3) for w in shown)


def _refined(row: Row) -> str:
    found = row["refinement"]
    return "-" if found is None else f"{found['outcome']}, {found['rounds']} rounds"


SEED: dict[str, Callable[[Row], str]] = {
    "seed": lambda row: str(row["seed"]),
    "draw": lambda row: str(row["emission"]),
    "states": lambda row: str(counted_states(row)),
    "accuracy %": lambda row: _number(row["accuracy"], 2, 100),
    "one sample %": lambda row: _number(row["sample_accuracy"], 2, 100),
    "weights": _weights,
    "l1 exact": lambda row: _number(row["l1"]["exact"], 4),
    "l1 0th": lambda row: _number(row["l1"]["0th order"], 4),
    "l1 2nd": lambda row: _number(row["l1"]["2nd order"], 4),
    "rates 01, 02, 10, 12, 20, 21": _seed_rates,
    "saddles": lambda row: " ".join(f"{a}-{b}" for a, b in row["saddles"]) or "-",
    "second stage": _refined,
    "stopped": lambda row: row["stopped"]["reason"] if row["stopped"] else "-",
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
