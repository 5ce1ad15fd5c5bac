"""The operator: stands by, leads when the Lease is its, and answers the apiserver about policies all the time."""

from __future__ import annotations

import asyncio
import logging
import os

from mailfleet_core.clock import Clock
from mailfleet_core.service import Context
from mailfleet_operator.decisions.election import Terms
from mailfleet_operator.decisions.senders import Place
from mailfleet_operator.settings import OperatorSettings
from mailfleet_operator.shell import files
from mailfleet_operator.shell.cluster import Cluster, namespace_of_pod
from mailfleet_operator.shell.leading import Leading
from mailfleet_operator.shell.log_side import LogSide
from mailfleet_operator.shell.probing import Dns, Probing, Way
from mailfleet_operator.shell.reconciling import Reconciling, Surroundings
from mailfleet_operator.shell.webhook import Webhook

log = logging.getLogger(__name__)


class Operator:
    """The service."""

    def __init__(self, context: Context, settings: OperatorSettings, dns: Dns, way: Way) -> None:
        """Raises SettingsError when the template cannot be used."""
        self._settings, self._dns, self._way = settings, dns, way
        self._clock: Clock = context.clock
        namespace = settings.namespace or os.environ.get("POD_NAMESPACE") or namespace_of_pod()
        self._place = Place(namespace, settings.egress_namespace, settings.release)
        self._template = files.template(settings.template)
        terms = Terms(settings.lease_seconds, settings.renew_seconds, settings.retry_seconds)
        self._instance = context.instance
        self.leading = Leading(context.clock, f"{settings.release}-operator", namespace, context.instance, terms)
        self._log_side = LogSide(context.bus, context.clock, self.leading.leads, sum_seconds=settings.look_seconds)
        self._webhook = Webhook(settings.webhook, settings.webhook_directory) if settings.webhook else None
        self._cluster: Cluster | None = None
        self._standing: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """See `Service.ready`. One that stands by is ready: it answers the webhook and can take over."""
        return self._standing is not None and not self._standing.done()

    @property
    def webhook_port(self) -> int:
        """Where the webhook listens."""
        assert self._webhook is not None
        return self._webhook.port

    async def start(self) -> None:
        """See `Service.start`."""
        await self._log_side.start(self._instance)
        self._cluster = Cluster(self._settings.kubeconfig, self._place.namespace, self.leading.leads)
        if self._webhook is not None:
            await self._webhook.start()
        self._standing = asyncio.create_task(self.leading.run(self._cluster, self._lead))

    async def drain(self) -> None:
        """See `Service.drain`: work ends first, then the lease is given back."""
        if self._standing is not None:
            self._standing.cancel()
            await asyncio.gather(self._standing, return_exceptions=True)
        if self._cluster is not None:
            try:
                await self.leading.give_back(self._cluster)
            except Exception as error:
                log.warning("the lease could not be given back", extra={"error": str(error) or type(error).__name__})
            await self._cluster.close()
        if self._webhook is not None:
            await self._webhook.stop()
        await self._log_side.stop()

    async def _lead(self) -> None:
        assert self._cluster is not None
        around = Surroundings(self._settings, self._place, self._template, self._cluster, self._log_side, self._clock)
        reconciling: Reconciling | None = None

        def changed(name: str) -> None:
            if reconciling is not None:
                reconciling.about(name)

        probing = Probing(self._dns, self._way, self._clock, changed)
        reconciling = Reconciling(around, probing)
        try:
            await reconciling.run()
        finally:
            await probing.stop()
