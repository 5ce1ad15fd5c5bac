#!/usr/bin/env bash
# Build the Go programs that tests of the chart and of a cluster use:   tools.sh NAME…     (tools.sh --list names them)
#
# Each goes once into $MAILFLEET_TOOLS/NAME-VERSION/bin (~/.cache/mailfleet/tools), from Go modules alone. On stdout one
# such directory for each NAME, as they were asked for; what is going on is on stderr. Two runs at once wait for each other.
# MAILFLEET_TOOLS_JOBS: compilers at once (all cores). GO: the go to use.
set -euo pipefail
cd "$(dirname "$0")/tools"

tools="${MAILFLEET_TOOLS:-${MAILFLEET_CACHE:-$HOME/.cache/mailfleet}/tools}"
go="${GO:-go}"
kubernetes=1.34.4
stamp=k8s.io/component-base/version
stamps="-X $stamp.gitVersion=v$kubernetes -X $stamp.gitMajor=1 -X $stamp.gitMinor=34 -X $stamp.gitTreeState=clean"

# name, version, module (a folder beside this file whose go.sum pins all of it, or the tool's own), package, linker flags
table() {
  cat <<END
helm|4.3.1|-|helm.sh/helm/v4/cmd/helm|-X helm.sh/helm/v4/internal/version.version=v4.3.1
kube-apiserver|$kubernetes|kubernetes|k8s.io/kubernetes/cmd/kube-apiserver|$stamps
kube-controller-manager|$kubernetes|kubernetes|k8s.io/kubernetes/cmd/kube-controller-manager|$stamps
kube-scheduler|$kubernetes|kubernetes|k8s.io/kubernetes/cmd/kube-scheduler|$stamps
kube-proxy|$kubernetes|kubernetes|k8s.io/kubernetes/cmd/kube-proxy|$stamps
kubelet|$kubernetes|kubernetes|k8s.io/kubernetes/cmd/kubelet|$stamps
kubectl|$kubernetes|kubernetes|k8s.io/kubernetes/cmd/kubectl|$stamps
coredns|1.12.4|coredns|.|
pause|1|pause|.|
helm-unittest|1.1.2|helm-unittest|github.com/helm-unittest/helm-unittest/cmd/helm-unittest|
kubeconform|0.7.0|-|github.com/yannh/kubeconform/cmd/kubeconform|
kube-score|1.20.0|-|github.com/zegl/kube-score/cmd/kube-score|-X main.version=v1.20.0
END
}

say() { echo "tools: $*" >&2; }
fail() { say "$@"; exit 1; }

look_up() { # look_up NAME: sets version, module, package, flags and directory
  local line
  line="$(table | grep "^$1|")" || fail "there is no $1 among $(table | cut -d'|' -f1 | tr '\n' ' ')"
  IFS='|' read -r _ version module package flags <<<"$line"
  directory="$tools/$1-$version"
}

build() { # build NAME INTO: one executable INTO/NAME
  if [ "$module" = - ]; then
    GOBIN="$2" quietly "$go" install -ldflags "-s -w $flags" "$package@v$version"
  else
    (cd "$module" && quietly "$go" build -o "$2/$1" -ldflags "-s -w $flags" "$package")
  fi
}

quietly() { # Go's output only when it fails
  local output status=0
  output="$(CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false ${MAILFLEET_TOOLS_JOBS:+-p=$MAILFLEET_TOOLS_JOBS}" \
    nice "$@" 2>&1)" || status=$?
  [ "$status" = 0 ] || { grep -v '^go: downloading' <<<"$output" >&2 || true; }
  return "$status"
}

provide() { # provide NAME: build it unless it is there
  look_up "$1"
  [ -x "$directory/bin/$1" ] && return
  command -v "$go" >/dev/null || fail "$1 is built from source, for which Go 1.26 or newer is needed"
  mkdir -p "$tools"
  (
    flock -n 9 || { say "$1 $version: another run builds it, waiting"; flock 9; }
    [ -x "$directory/bin/$1" ] && exit
    arriving="$tools/.arriving-$1-$version"
    rm -rf "$arriving"
    mkdir -p "$arriving/bin"
    say "$1 $version: building, once"
    began=$SECONDS
    build "$1" "$arriving/bin" || fail "$1 $version: could not be built"
    rm -rf "$directory"
    mv -T "$arriving" "$directory"
    say "$1 $version: $((SECONDS - began)) s, $(du -m "$directory/bin/$1" | cut -f1) MiB"
  ) 9>"$tools/.lock-$1"
}

main() {
  [ "${1:-}" = --list ] && { table | cut -d'|' -f1,2 --output-delimiter=' '; return; }
  [ $# -gt 0 ] || fail "which of $(table | cut -d'|' -f1 | tr '\n' ' ')?"
  for name in "$@"; do provide "$name"; done
  for name in "$@"; do look_up "$name"; echo "$directory/bin"; done
}

main "$@"
