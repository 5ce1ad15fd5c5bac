"""Ingest runs on uvloop, so its tests over sockets do too."""

from __future__ import annotations

import uvloop


def pytest_asyncio_loop_factories():
    """The loops that each test is run on."""
    return {"uvloop": uvloop.new_event_loop}
