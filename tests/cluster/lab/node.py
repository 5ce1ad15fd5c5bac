"""The one node: containerd, kubelet and kube-proxy, with everything they keep below one directory."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.lab.daemons import Daemon, start
from cluster.lab.keys import Keys
from cluster.lab.places import (
    CLUSTER_NAMESERVER,
    CONTROL_GROUP,
    NAMESERVER,
    NODE,
    NODE_NAME,
    PODS,
)
from cluster.lab.programs import built
from cluster.lab.spaces import Space
from support.needs import program
from support.processes import run

PLUGINS = "/usr/lib/cni"
PAUSE = "docker.io/library/mfc-pause:1"

CONTAINERD = """\
version = 2
root = "{directory}/containerd/root"
state = "{directory}/containerd/state"
[grpc]
  address = "{directory}/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def pod_network(directory: Path) -> dict[str, object]:
    """Each pod on a line of its own to the node, so that all it sends passes the node's rules; the rest of the world
    sees the node's address, as in most clusters."""
    addresses = {"type": "host-local", "dataDir": str(directory / "addresses"), "ranges": [[{"subnet": PODS}]],
                 "routes": [{"dst": "0.0.0.0/0"}]}  # fmt: skip
    return {
        "cniVersion": "0.4.0",
        "name": "mfc",
        "plugins": [
            {"type": "ptp", "ipMasq": True, "ipam": addresses},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet_settings(directory: Path, keys: Keys) -> dict[str, object]:
    """What a kubelet needs on a machine that is itself a container: cgroup v1 or v2 without systemd, few rights."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(keys.certificate("authority"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(keys.certificate("kubelet")),
        "tlsPrivateKeyFile": str(keys.key("kubelet")),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CONTROL_GROUP}",
        "cgroupsPerQOS": True,
        "failSwapOn": False,
        "failCgroupV1": False,
        "oomScoreAdj": 0,
        "localStorageCapacityIsolation": True,
        "containerRuntimeEndpoint": f"unix://{directory}/containerd/containerd.sock",
        "clusterDNS": [CLUSTER_NAMESERVER],
        "clusterDomain": "cluster.local",
        "resolvConf": str(directory / "resolv.conf"),
        "podLogsDir": str(directory / "pods"),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "4s",
        "syncFrequency": "10s",
        "configMapAndSecretChangeDetectionStrategy": "Watch",
    }


def start_containerd(space: Space, directory: Path) -> Daemon:
    """The container runtime."""
    for part in ("cni", "containerd"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    settings = directory / "containerd.toml"
    settings.write_text(CONTAINERD.format(directory=directory, pause=PAUSE, plugins=PLUGINS))
    (directory / "cni" / "10-mfc.conflist").write_text(json.dumps(pod_network(directory)))
    return start("containerd", space.inside(str(program("containerd")), "-c", str(settings)), directory)


def start_kubelet(space: Space, directory: Path, keys: Keys) -> Daemon:
    """The agent of the node."""
    _make_control_group()
    (directory / "resolv.conf").write_text(f"nameserver {NAMESERVER}\n")
    settings = directory / "kubelet.json"
    settings.write_text(json.dumps(kubelet_settings(directory, keys)))
    return start("kubelet", space.inside(
        str(built("kubelet")), f"--config={settings}", f"--kubeconfig={keys.configuration('kubelet')}",
        f"--hostname-override={NODE_NAME}", f"--root-dir={directory / 'kubelet'}", f"--node-ip={NODE}",
    ), directory)  # fmt: skip


def start_proxy(space: Space, directory: Path, keys: Keys) -> Daemon:
    """What leads the addresses of services to pods."""
    return start("kube-proxy", space.inside(
        str(built("kube-proxy")), f"--kubeconfig={keys.configuration('proxy')}", "--proxy-mode=iptables",
        f"--hostname-override={NODE_NAME}", f"--cluster-cidr={PODS}", "--conntrack-max-per-core=0",
    ), directory)  # fmt: skip


def import_image(directory: Path, archive: Path) -> None:
    """Make an image known to the node."""
    _ctr(directory, "images", "import", str(archive))


def processes(directory: Path) -> dict[str, int]:
    """Container → the id of its main process, of all that run."""
    lines = _ctr(directory, "tasks", "ls").splitlines()[1:]
    return {container: int(process) for container, process, *_ in map(str.split, lines)}


def _ctr(directory: Path, *arguments: str) -> str:
    socket = directory / "containerd" / "containerd.sock"
    command = [str(program("ctr")), "-a", str(socket), "-n", "k8s.io", *arguments]
    return run(command, 300).stdout.decode()


def control_groups() -> list[Path]:
    """The directories of the lab's control group, one for each hierarchy."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root / CONTROL_GROUP]
    return [
        hierarchy / CONTROL_GROUP
        for hierarchy in sorted(root.iterdir())
        if hierarchy.is_dir() and not hierarchy.is_symlink()
    ]


def _make_control_group() -> None:
    for group in control_groups():
        group.mkdir(exist_ok=True)
        if group.parent.name == "cpuset":
            for name in ("cpuset.cpus", "cpuset.mems"):
                (group / name).write_text((group.parent / name).read_text())
