"""What every cluster has and a bare one lacks, as resources: DNS, volumes, and the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.lab.places import CLUSTER_NAMESERVER, NAMESERVER

Resource = dict[str, Any]
COREFILE = f"""\
.:5353 {{
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        fallthrough in-addr.arpa ip6.arpa
    }}
    forward . {NAMESERVER}
    cache 5
}}
"""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
KAFKA_NAMESPACE = "kafka"
KAFKA = f"kafka.{KAFKA_NAMESPACE}.svc.cluster.local"
BOOTSTRAP = f"{KAFKA}:9092"
PROPERTIES = f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://:9092,CONTROLLER://127.0.0.1:9093
advertised.listeners=PLAINTEXT://{BOOTSTRAP}
controller.listener.names=CONTROLLER
log.dirs=/data/log
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""
START_KAFKA = """\
[ -e /data/log/meta.properties ] ||
  java -Xmx128m kafka.tools.StorageTool format -t bWFpbGZsZWV0LXRlc3RzLQ -c /settings/server.properties
exec java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 kafka.Kafka /settings/server.properties
"""


def named(kind: str, name: str, namespace: str = "", version: str = "v1", **more: Any) -> Resource:
    """A resource."""
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **place}, **more}


def workload(kind: str, name: str, namespace: str, pod: Resource, **more: Any) -> Resource:
    """A Deployment or a StatefulSet of one pod."""
    labels = {"app": name}
    spec = {"replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod}, **more}  # fmt: skip
    return named(kind, name, namespace, "apps/v1", spec=spec)


def cluster_dns(image: str) -> list[Resource]:
    """CoreDNS: names of services, and all else from the nameserver that knows the mail world."""
    space = "kube-system"
    pod = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "containers": [{
            "name": "coredns", "image": image, "args": ["-conf", "/settings/Corefile"],
            "securityContext": RESTRICTED,
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
            "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
        }],
        "volumes": [{"name": "settings", "configMap": {"name": "coredns"}}],
    }  # fmt: skip
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io/v1"
    ports = [{"name": name, "port": 53, "targetPort": 5353, "protocol": name.upper()} for name in ("udp", "tcp")]
    return [
        named("ServiceAccount", "coredns", space),
        named("ClusterRole", "coredns", version=rbac, rules=rules),
        named("ClusterRoleBinding", "coredns", version=rbac,
              roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"},
              subjects=[{"kind": "ServiceAccount", "name": "coredns", "namespace": space}]),
        named("ConfigMap", "coredns", space, data={"Corefile": COREFILE}),
        workload("Deployment", "coredns", space, pod),
        named("Service", "kube-dns", space,
              spec={"selector": {"app": "coredns"}, "clusterIP": CLUSTER_NAMESERVER, "ports": ports}),
    ]  # fmt: skip


def volumes(directory: Path, count: int) -> list[Resource]:
    """Volumes on the node's disk for claims that name no class."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    kept = named("StorageClass", "disk", version="storage.k8s.io/v1", provisioner="kubernetes.io/no-provisioner",
                 volumeBindingMode="WaitForFirstConsumer")  # fmt: skip
    kept["metadata"]["annotations"] = default
    found = [kept]
    for number in range(count):
        place = directory / f"volume-{number}"
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777)
        found.append(named("PersistentVolume", place.name, spec={
            "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "disk",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": str(place)},
        }))  # fmt: skip
    return found


def kafka(image: str) -> list[Resource]:
    """One broker whose data outlives its pod."""
    pod = {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 20,
        "containers": [{
            "name": "kafka", "image": image, "command": ["sh", "-c", START_KAFKA], "securityContext": RESTRICTED,
            "ports": [{"name": "kafka", "containerPort": 9092}],
            "readinessProbe": {"tcpSocket": {"port": 9092}, "periodSeconds": 1},
            "volumeMounts": [
                {"name": "data", "mountPath": "/data"}, {"name": "settings", "mountPath": "/settings"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }],
        "volumes": [
            {"name": "settings", "configMap": {"name": "kafka"}}, {"name": "tmp", "emptyDir": {}},
        ],
    }  # fmt: skip
    claim = {"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}},
    }}  # fmt: skip
    return [
        named("Namespace", KAFKA_NAMESPACE),
        named("ConfigMap", "kafka", KAFKA_NAMESPACE, data={"server.properties": PROPERTIES}),
        workload("StatefulSet", "kafka", KAFKA_NAMESPACE, pod, serviceName="kafka", volumeClaimTemplates=[claim]),
        named("Service", "kafka", KAFKA_NAMESPACE, spec={"selector": {"app": "kafka"}, "ports": [{"port": 9092}]}),
    ]
