"""`python -m simulation.day`: the day with automation or without, its figures, its picture, and a page of both."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from simulation.day.page import page, rows
from simulation.day.picture import picture
from simulation.day.run import Shown, run
from simulation.day.scenario import load


def main() -> None:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="simulate-day", description=__doc__)
    parser.add_argument("--mails", type=int, default=0, help="as many mails as this; without it, as the scenario says")
    parser.add_argument("--sources", type=float, default=1.0, help="this share of the scenario's sources")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--automation", choices=("on", "off"), default="on")
    parser.add_argument("--into", type=Path, help="folder for figures, pictures and the page")
    given = parser.parse_args()
    scenario = load(given.mails, given.sources)
    figures = run(given.mails, given.sources, given.automation == "on", given.processes, _line(given.automation))
    print(file=sys.stderr)
    for key, value in rows(figures, scenario).items():
        print(f"{key:70} {value}")
    if given.into:
        _write(given.into, figures, picture(figures, scenario))
        (given.into / "README.md").write_text(page(_runs(given.into, scenario.mails), scenario))


def _write(folder: Path, figures: dict[str, Any], drawn: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = "on" if figures["automation"] else "off"
    (folder / f"day-{name}.svg").write_text(drawn)
    told = {key: value for key, value in figures.items() if key not in ("states", "attempted", "queue", "delivered")}
    (folder / f"day-{name}.json").write_text(json.dumps(_plain(told), indent=1, sort_keys=True) + "\n")


def _runs(folder: Path, mails: int) -> list[dict[str, Any]]:
    """What the folder has of days of this size, the one with automation first."""
    found = [
        json.loads(path.read_text()) for path in (folder / "day-on.json", folder / "day-off.json") if path.exists()
    ]
    return [figures for figures in found if figures["mails"] == mails]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {" ".join(map(str, key)) if isinstance(key, tuple) else key: _plain(item) for key, item in value.items()}
    return value


def _line(name: str) -> Shown:
    began = time.monotonic()

    def shown(done: float, ended: int, queued: int) -> None:
        rate = ended / max(0.001, time.monotonic() - began)
        told = f"automation {name}  {done:4.0%}  {ended:,} mails ended  {rate:,.0f}/s  {queued:,} wait"
        print(f"\r{told:78}", end="", file=sys.stderr, flush=True)

    return shown


if __name__ == "__main__":
    main()
