"""A Kubernetes API server and its etcd on loopback, thrown away afterwards: admission, schemas and rights are real, and
nothing acts on what is written (no controllers, no nodes)."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from support import addresses
from support.helm_chart import tool

ADMIN = "admin-token"
USERS = ("operator",)
"""Others who may do everything: the audit tells them from the administrator."""
READY_SECONDS = 240.0


class ControlPlane:
    """Use as a context manager; `kubeconfig` is an administrator's."""

    def __init__(self, audit: bool = False) -> None:
        """`audit`: every request of USERS is written down, for `calls`."""
        self._audit = audit
        self._directory = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port = addresses.free_port()
        self.kubeconfig = self._directory / "kubeconfig"

    def __enter__(self) -> ControlPlane:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End both processes and forget everything."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> None:
        here, client, peer = self._directory, addresses.free_port(), addresses.free_port()
        etcd, server = tool("etcd"), tool("kube-apiserver")
        subprocess.run(["openssl", "genrsa", "-out", str(here / "sa.key"), "2048"], check=True, capture_output=True)
        tokens = [
            f'{ADMIN},admin,1,"system:masters"',
            *(f'{name}-token,{name},{name},"system:masters"' for name in USERS),
        ]
        (here / "tokens.csv").write_text("\n".join(tokens) + "\n")
        self.kubeconfig.write_text(json.dumps(self._config(ADMIN)))
        self._run(
            etcd, f"--data-dir={here}/etcd", f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}", "--unsafe-no-fsync",
        )  # fmt: skip
        self._run(
            server, f"--etcd-servers=http://127.0.0.1:{client}", f"--secure-port={self._port}",
            "--bind-address=127.0.0.1", f"--cert-dir={here}/certs", "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://localhost", f"--service-account-key-file={here}/sa.key",
            f"--service-account-signing-key-file={here}/sa.key", f"--token-auth-file={here}/tokens.csv",
            "--authorization-mode=RBAC", "--allow-privileged=true", "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none", *self._audit_words(),
        )  # fmt: skip
        self._until_ready()

    def _audit_words(self) -> list[str]:
        if not self._audit:
            return []
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "rules": [{"level": "Metadata", "users": list(USERS)}],
        }
        (self._directory / "audit.yaml").write_text(json.dumps(policy))
        return [f"--audit-policy-file={self._directory}/audit.yaml", f"--audit-log-path={self._directory}/audit.log"]

    def calls(self, user: str) -> Counter[str]:
        """Requests of a user so far, by verb and resource; watches that were begun count once."""
        found: Counter[str] = Counter()
        for line in (self._directory / "audit.log").read_text().splitlines():
            said = json.loads(line)
            if said["user"]["username"] == user and said["stage"] == "RequestReceived":
                about = said.get("objectRef") or {}
                parts = [about.get("resource", said["requestURI"]), about.get("subresource", "")]
                found[f"{said['verb']} {'/'.join(filter(None, parts))}"] += 1
        return found

    def as_user(self, name: str) -> Path:
        """The kubeconfig of one of USERS, who may do everything."""
        path = self._directory / f"{name}.kubeconfig"
        path.write_text(json.dumps(self._config(f"{name}-token")))
        return path

    def _run(self, *command: str) -> None:
        with (self._directory / "log").open("ab") as log:
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def _until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        context = ssl._create_unverified_context()
        asked = urllib.request.Request(self._address() + "/readyz", headers={"Authorization": f"Bearer {ADMIN}"})
        while True:
            try:
                with urllib.request.urlopen(asked, context=context, timeout=2) as answer:
                    if answer.read() == b"ok":
                        return
            except (OSError, urllib.error.URLError):
                pass
            dead = [process.args for process in self._processes if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                raise RuntimeError((self._directory / "log").read_text(errors="replace")[-3000:])
            time.sleep(0.1)

    def _address(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    def _config(self, token: str) -> dict[str, Any]:
        cluster = {"server": self._address(), "insecure-skip-tls-verify": True}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": {"token": token}}],
        }

    def run(self, *command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Any program that reads KUBECONFIG."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(
            command, input=text, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """What kubectl prints; fails when it does."""
        done = self.run(tool("kubectl"), *words, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout
