"""`benchmarks.cost`: every case in a process of its own, in a table and in two plots."""

from __future__ import annotations

import json
import sys

from PIL import Image

from benchmarks import cost


def test_cost_by_words_and_by_megapixels(warm_python, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(warm_python))
    monkeypatch.setattr(cost, "WORDS", (1, 30))
    monkeypatch.setattr(cost, "MEGAPIXELS", (0.02, 0.2, 1.0))
    words = ("--arch", "emoji", "--clock", "cpu", "--images", "2", "--most", "0.2", "--plots", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["cost", *words])
    cost.main()
    found = json.loads(capsys.readouterr().out)
    assert [point["words"] for point in found["words"]] == [1, 30]
    assert [point["megapixels"] for point in found["megapixels"]] == [0.02, 0.2]
    assert all(0 < point["seconds"] < 60 for points in found.values() for point in points)
    small, large = (point["mib"] for point in found["megapixels"])
    assert 0 < small < large
    for name in ("words", "megapixels"):
        with Image.open(tmp_path / f"cost_{name}.png") as image:
            assert len(image.convert("L").resize((50, 50)).getcolors()) > 10  # something is drawn
