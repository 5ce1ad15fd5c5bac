"""`[operator]`: where it works, what it makes senders from, how patient it is."""

from __future__ import annotations

from typing import Annotated

import msgspec

from mailfleet_core.settings import Section, SettingsError


def _doc(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class OperatorSettings(Section, frozen=True):
    """`[operator]`: the program that scales sender pools in Kubernetes."""

    namespace: Annotated[
        str, _doc("Where its resources are; empty: `POD_NAMESPACE`, else that of its service account.")
    ] = ""
    egress_namespace: Annotated[
        str, _doc("Where senders with the host's network run, which restricted namespaces refuse; empty: the same.")
    ] = ""
    release: Annotated[str, _doc("Prefix of what it makes: Deployments, the policy's ConfigMap, the Lease.")] = (
        "mailfleet"
    )
    template: Annotated[
        str, _doc("File with the PodTemplateSpec of a sender (YAML), with a container called `sender`.")
    ] = "/etc/mailfleet-operator/sender.yaml"
    kubeconfig: Annotated[str, _doc("Outside of a cluster: how to reach it.")] = ""
    webhook: Annotated[str, _doc("`host:port` of the admission webhook; empty: none.")] = ""
    webhook_directory: Annotated[
        str, _doc("Its certificate and key: `tls.crt`, `tls.key`; read anew when changed.")
    ] = "/etc/mailfleet-webhook"
    proxy_users_file: Annotated[
        str, _doc("Lines of `user:password` of egress proxies, to try addresses through them; empty: none.")
    ] = ""
    workers: Annotated[int, _doc("Reconciliations at once, each of another resource."), msgspec.Meta(ge=1)] = 4
    resync_seconds: Annotated[
        float, _doc("Everything is looked at again this often; what has passed is only time.")
    ] = 60.0
    list_seconds: Annotated[
        float, _doc("Everything is listed again this often, beside each time that a watch has to begin anew.")
    ] = 600.0
    look_seconds: Annotated[float, _doc("What statistics say is looked at this often.")] = 5.0
    status_seconds: Annotated[float, _doc("Figures alone (sent today, score) are written at most this often.")] = 30.0
    figures_per_minute: Annotated[
        float,
        _doc("Writes of figures alone, of all resources together: of many resources each is written more rarely."),
        msgspec.Meta(gt=0),
    ] = 120.0
    settle_seconds: Annotated[
        float, _doc("A lane that was given up keeps its sender at least so long, and until nothing is under way in it.")
    ] = 30.0
    lease_seconds: Annotated[float, _doc("Another operator takes over after so long without a sign of the leader.")] = (
        15.0
    )
    renew_seconds: Annotated[float, _doc("A leader that could not renew its lease for so long stops.")] = 10.0
    retry_seconds: Annotated[float, _doc("Between two looks at the lease.")] = 2.0


def check(settings: OperatorSettings) -> None:
    """Raises SettingsError for what types do not catch."""
    if not settings.retry_seconds < settings.renew_seconds < settings.lease_seconds:
        raise SettingsError(
            "[operator] retry_seconds < renew_seconds < lease_seconds is needed, or two may lead at once"
        )
