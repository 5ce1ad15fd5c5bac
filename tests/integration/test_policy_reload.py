"""An edited traffic policy comes into force on a running fleet, and a wrong one does not."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path

from support.mailfleet import Fleet, fleet
from support.scripted_mx import ScriptedMx
from support.scripted_town import scripted_town
from support.town import until

SITE = "mx.calm.test"
CLOSED = f"""\
version: 1
limits:
- name: closed for now
  per: [site]
  cases: [{{if: {{site: [{SITE}]}}, suspend: true}}]
"""
OPEN = """\
version: 1
limits:
- name: slowly
  per: [site]
  cases: [{if: {site: [mx.calm.test]}, message_rate: 1/s, burst: 1}]
"""


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def hand_in(running: Fleet, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", running.port, timeout=30) as client:
        for number in range(count):
            client.sendmail("me@sender.test", f"r{number}@calm.test", "Subject: x\r\n\r\nx\r\n")


def delivered(running: Fleet) -> list[float]:
    return sorted(event.at for event in running.events() if event.kind == "delivered")


def test_a_policy_that_comes_later_is_obeyed(tmp_path: Path) -> None:
    policy = tmp_path / "own" / "policy.yaml"
    policy.parent.mkdir()
    named = {"router": {"policy_file": str(policy)}}
    with scripted_town({"calm.test": ScriptedMx()}) as town, fleet(tmp_path, more=town.settings | named) as running:
        hand_in(running, 1)
        until(lambda: len(delivered(running)) == 1, 20, running.logs)
        replace(policy, CLOSED)
        until(lambda: any(event.kind == "policy" for event in running.events()), 20, running.logs)
        hand_in(running, 1)
        until(lambda: sum(event.kind == "queued" for event in running.events()) >= 2, 20, running.logs)
        time.sleep(2.0)  # the first mail took less
        assert len(delivered(running)) == 1, "the policy that came closes the site"


def test_a_policy_is_reloaded_told_and_obeyed(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(CLOSED)
    with scripted_town({"calm.test": ScriptedMx()}) as town, fleet(tmp_path, more=town.settings) as running:
        hand_in(running, 4)
        until(lambda: sum(event.kind == "queued" for event in running.events()) >= 4, 20, running.logs)
        replace(policy, CLOSED.replace("suspend", "suspended"))
        until(lambda: "the one in force stays" in running.logs(), 20, running.logs)
        assert delivered(running) == []
        replace(policy, OPEN)
        until(lambda: len(delivered(running)) == 4, 40, running.logs)
        told = [event for event in running.events() if event.kind == "policy"]
        assert [event.text for event in told] == ["the traffic policy was changed: 1 limits and 0 rules of its own"]
        at = delivered(running)
        assert at[-1] - at[0] >= 2.8, "one a second, and no burst from before"
