"""The script that builds the Go programs of other tests, with a compiler that only pretends."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "tools.sh"
COMPILER = """#!/bin/sh
echo "$@" >> {calls}
sleep 0.3
[ -e {broken} ] && {{ echo "it does not compile"; exit 1; }}
while [ $# -gt 0 ]; do
  case "$1" in
    -o) into="$2" ;;
    */cmd/*)
      name="${{1##*/}}"
      built="${{into:-$GOBIN}}/${{name%@*}}"
      printf '#!/bin/sh\\n' > "$built"
      chmod +x "$built" ;;
  esac
  shift
done
"""


class Workshop:
    """The script with a directory of its own and a compiler that writes down how it is called."""

    def __init__(self, directory: Path) -> None:
        self.tools = directory / "tools"
        self.calls, self.broken = directory / "calls", directory / "broken"
        go = directory / "go"
        go.write_text(COMPILER.format(calls=self.calls, broken=self.broken))
        go.chmod(0o755)
        self._environment = os.environ | {"GO": str(go), "MAILFLEET_TOOLS": str(self.tools)}

    def start(self, *names: str) -> subprocess.Popen[str]:
        """Begin to provide tools."""
        return subprocess.Popen(
            [str(SCRIPT), *names], env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *names: str) -> tuple[int, list[str], str]:
        """Exit code, the lines of stdout and all of stderr."""
        started = self.start(*names)
        out, progress = started.communicate(timeout=30)
        return started.returncode, out.splitlines(), progress

    @property
    def builds(self) -> int:
        """How often the compiler was called."""
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """One where nothing is built yet."""
    return Workshop(tmp_path)


def test_a_tool_is_built_once_and_its_directory_is_printed(workshop: Workshop) -> None:
    """In the order asked for, one line each."""
    code, directories, progress = workshop.run("kube-proxy", "helm")
    assert code == 0, progress
    assert [(Path(each) / name).exists() for each, name in zip(directories, ("kube-proxy", "helm"), strict=True)] == [
        True,
        True,
    ]
    assert workshop.run("helm", "kube-proxy")[1] == directories[::-1]
    assert workshop.builds == 2


def test_parts_of_one_module_are_built_by_one_call(workshop: Workshop) -> None:
    """Those that are there already are left alone."""
    workshop.run("kubelet")
    code, directories, progress = workshop.run("kube-apiserver", "helm", "kubelet", "kube-proxy")
    assert code == 0, progress
    assert workshop.builds == 3
    assert all((Path(each) / Path(each).parent.name.rpartition("-")[0]).exists() for each in directories)
    assert not list(workshop.tools.glob(".arriving*"))


def test_two_runs_at_once_build_once(workshop: Workshop) -> None:
    """The second waits, says so, and finds what the first made."""
    runs = [workshop.start("helm") for _ in range(2)]
    ends = [run.communicate(timeout=30) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert workshop.builds == 1
    assert sum("another run builds it" in progress for _, progress in ends) == 1


def test_what_failed_is_not_taken_for_built(workshop: Workshop) -> None:
    """The compiler's words are shown, nothing is left in place, and the next run tries again."""
    workshop.broken.touch()
    code, directories, progress = workshop.run("helm")
    assert (code, directories) == (1, [])
    assert "it does not compile" in progress
    assert not list(workshop.tools.glob("helm-*"))
    workshop.broken.unlink()
    assert workshop.run("helm")[0] == 0


def test_an_unknown_tool_is_named_with_those_there_are(workshop: Workshop) -> None:
    """Nothing is built then."""
    code, _, progress = workshop.run("hlem")
    assert code == 1
    assert "there is no hlem among helm kube-apiserver" in progress
    assert workshop.builds == 0
