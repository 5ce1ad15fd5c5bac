"""The router's shell on the memory log: what is written when, end to end."""

from __future__ import annotations

from typing import Any


async def test_a_mail_goes_from_put_to_done(fleet: Any) -> None:
    unit = await fleet.put()
    await fleet.until(lambda: "delivered" in fleet.kinds(unit) and fleet.tags(unit)[-1] == "D")
    assert fleet.kinds(unit).count("delivered") == 1
    assert len(fleet.dispatches) == 1
