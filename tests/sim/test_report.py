"""The report says what was recorded, and nothing else."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.sim import counts, report

RECORDED = {
    "sim-long": {"seeds": 60, "operations": 123456, "violations": 0},
    "faults.long": {"kill": 120, "power_loss": 0},
    "faults.short": {"kill": 30},
    "mutants": {"M1": 3, "M20": 41},
}


def test_text_holds_every_number_and_adds_up_what_several_campaigns_fired() -> None:
    text = report.text(RECORDED, "Nightly")
    assert text.startswith("Nightly\n")
    rows = {tuple(line.split()) for line in text.splitlines()}
    assert {("operations", "123,456"), ("violations", "0"), ("kill", "150")} <= rows
    assert ("M20", "41") in rows


def test_bars_are_longer_for_more_and_red_for_none() -> None:
    chart = ElementTree.fromstring(report.bars({"few": 1, "many": 1000, "none": 0, "<&>": 2}))
    bars = [(float(bar.attrib["width"]), bar.attrib["fill"]) for bar in chart.iter("rect")]
    assert [width for width, _ in bars] == sorted((w for w, _ in bars), reverse=True)
    colours = [colour for _, colour in bars]
    assert colours[-1] not in colours[:-1]
    labels = [text.text for text in chart.iter("text")]
    assert labels[0] == "many"
    assert "<&>" in labels


def test_a_directory_becomes_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(counts.VARIABLE, str(tmp_path / "counts"))
    counts.record("histories", checked=400, wrong=0)
    page = tmp_path / "page.html"
    report.main([str(tmp_path / "counts"), "--html", str(page), "--title", "One"])
    assert "400" in capsys.readouterr().out
    assert "<h1>One</h1>" in page.read_text()
    with pytest.raises(SystemExit):
        report.main([str(tmp_path / "nothing")])
