"""etcd, the API server, the controllers and the scheduler, as processes in the node's network namespace."""

from __future__ import annotations

import time
from pathlib import Path

from cluster.lab.daemons import Daemon, start
from cluster.lab.keys import Keys
from cluster.lab.kubectl import Kubectl
from cluster.lab.places import NODE, PODS, SERVICES
from cluster.lab.programs import built
from cluster.lab.spaces import Space
from support.needs import program

ETCD = "http://127.0.0.1:2379"
READY_SECONDS = 180.0


def start_store(space: Space, directory: Path) -> Daemon:
    """etcd, which may lose what the machine loses: a lab lives shorter than that."""
    return start("etcd", space.inside(
        str(program("etcd")), "--data-dir", str(directory / "etcd"), "--unsafe-no-fsync",
        f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}", "--listen-peer-urls=http://127.0.0.1:2380",
    ), directory)  # fmt: skip


def start_api(space: Space, directory: Path, keys: Keys) -> Daemon:
    """The API server on the node's own address."""
    accounts = keys.directory / "accounts.pub"
    return start("apiserver", space.inside(
        str(built("kube-apiserver")), f"--etcd-servers={ETCD}", "--secure-port=6443", f"--advertise-address={NODE}",
        f"--tls-cert-file={keys.certificate('server')}", f"--tls-private-key-file={keys.key('server')}",
        f"--client-ca-file={keys.certificate('authority')}",
        f"--kubelet-client-certificate={keys.certificate('admin')}", f"--kubelet-client-key={keys.key('admin')}",
        f"--kubelet-certificate-authority={keys.certificate('authority')}",
        f"--service-account-key-file={accounts}", f"--service-account-signing-key-file={keys.key('accounts')}",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-cluster-ip-range={SERVICES}",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC", "--allow-privileged=true", "--profiling=false",
    ), directory)  # fmt: skip


def start_controllers(space: Space, directory: Path, keys: Keys) -> list[Daemon]:
    """What makes pods of deployments and gives them a node."""
    common = lambda name: [  # noqa: E731 - three options, twice
        f"--{kind}kubeconfig={keys.configuration(name)}" for kind in ("", "authentication-", "authorization-")
    ]
    return [
        start("controller-manager", space.inside(
            str(built("kube-controller-manager")), *common("controller-manager"), "--leader-elect=false",
            f"--service-account-private-key-file={keys.key('accounts')}", "--use-service-account-credentials=true",
            f"--root-ca-file={keys.certificate('authority')}", f"--cluster-cidr={PODS}",
            "--node-monitor-grace-period=20s",
        ), directory),
        start("scheduler", space.inside(
            str(built("kube-scheduler")), *common("scheduler"), "--leader-elect=false",
        ), directory),
    ]  # fmt: skip


def await_api(kubectl: Kubectl, api: Daemon) -> None:
    """Return when the API answers. Raises RuntimeError with the end of its log."""
    deadline = time.monotonic() + READY_SECONDS
    while kubectl.fails("get", "--raw", "/readyz"):
        if not api.running or time.monotonic() > deadline:
            raise RuntimeError(f"the API server does not answer:\n{api.tail()}")
        time.sleep(0.3)
