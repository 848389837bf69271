"""Take figures over from what `clipseg eval` wrote into `docs/figures.json`, against which tables of docs are checked.

    python -m benchmarks.collect runs/eval/NAME-several --table methods --column "40 images"
    python -m benchmarks.collect runs/eval/NAME-vanilla-pamr10 --table refinements --row="--pamr 10"

A row is a method, or what `--row` says; beside mIoU stands the pixel accuracy. In a page, a line
`<!-- figures: TABLE -->` above a table says that its first column names the rows and its header the columns.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).parent.parent / "docs" / "figures.json"
ACCURACY = "pixel accuracy"


def main() -> None:
    """Parse, read, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of clipseg eval")
    parser.add_argument("--table", required=True)
    parser.add_argument("--column", default="mIoU", help="of the mIoU; the accuracy stands beside it")
    parser.add_argument("--row", help="left out: the method")
    options = parser.parse_args()
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    table = figures.setdefault(options.table, {})
    for folder in options.folders:
        for row, values in rows_of(folder, options.column).items():
            table.setdefault(options.row or row, {}).update(values)
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def rows_of(folder: Path, column: str) -> dict[str, dict[str, Any]]:
    """Method -> figures in %, of a folder with one method or with several."""
    accuracy = ACCURACY if column == "mIoU" else f"{column}, {ACCURACY}"
    several = folder / "methods.json"
    if several.exists():
        data = json.loads(several.read_text(encoding="utf-8"))
        found = {
            row["method"].replace("-", "_"): (row["miou"], row["pixel_accuracy"]) for row in data["rows"]
        }
        model = next(iter(data["models"].values()))
    else:
        data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        found = {data["method"]: (data["scores"]["mIoU"], data["scores"]["pixel_accuracy"])}
        model = data["model"]
    weights = {"weights": model["fingerprint"], "images": data["images"]}
    return {
        method: {column: round(100 * miou, 4), accuracy: round(100 * right, 4), f"{column}, of": weights}
        for method, (miou, right) in found.items()
    }


if __name__ == "__main__":
    main()
