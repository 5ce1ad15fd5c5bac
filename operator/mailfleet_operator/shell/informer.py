"""kopf, which watches: it tells of every change of our resources and of senders, and does nothing else.

It runs in a thread with a loop of its own: it takes over signals of the loop that it is in, and it would stop our service.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from mailfleet_operator.decisions.resources import GROUP, LANE_LABEL, VERSION

log = logging.getLogger(__name__)

Changed = Callable[[str, bool, dict[str, Any]], None]
"""Kind, whether it is there still, and the object."""
RESTART_SECONDS = 5.0


class Informer:
    """Watches until it is stopped."""

    def __init__(
        self,
        namespaces: Sequence[str],
        plurals: Sequence[str],
        kubeconfig: str,
        changed: Changed,
        began: Callable[[], None],
    ) -> None:
        """Both are called on the loop that starts it: `began` for each object that a watch begins with, at the start and when
        it could not go on from where it was. What was deleted before that, nobody is told of."""
        self._namespaces, self._plurals = sorted(set(namespaces)), plurals
        self._kubeconfig, self._changed, self._began = kubeconfig, changed, began
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin; what there is already is told of too."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._watch, name="informer", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """End, and wait for it a little."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5.0)

    @property
    def alive(self) -> bool:
        """Is it watching?"""
        return self._thread is not None and self._thread.is_alive()

    def _watch(self) -> None:
        if self._kubeconfig:
            os.environ["KUBECONFIG"] = self._kubeconfig
        while not self._stop.is_set():
            try:
                asyncio.run(
                    kopf.operator(
                        registry=self._registry(), settings=_settings(), standalone=True, namespaces=self._namespaces,
                        stop_flag=self._stop,
                    )
                )  # fmt: skip
            except Exception:
                log.exception("watching failed; it begins anew")
            self._stop.wait(RESTART_SECONDS)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(
            kopf.login_with_kubeconfig if self._kubeconfig else kopf.login_with_service_account
        )
        for plural in self._plurals:
            kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"tell-{plural}")(self._tell)
        kopf.on.event(
            "apps", "v1", "deployments", registry=registry, labels={LANE_LABEL: kopf.PRESENT}, id="tell-senders"
        )(self._tell)
        return registry

    async def _tell(self, event: Any, **_: Any) -> None:
        assert self._loop is not None
        body = dict(event["object"])
        if event["type"] is None:
            self._loop.call_soon_threadsafe(self._began)
        self._loop.call_soon_threadsafe(self._changed, body.get("kind", ""), event["type"] != "DELETED", body)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = (
        True  # It would ask for the cluster's resource types and namespaces, which we may not read.
    )
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    settings.watching.initial_streaming = False  # An etcd before 3.5 makes the apiserver refuse it.
    settings.networking.request_timeout, settings.networking.connect_timeout = 30.0, 10.0
    return settings
