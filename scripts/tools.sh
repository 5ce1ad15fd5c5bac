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

build() { # build INTO NAME…: executables INTO/NAME of one module, with one call of the compiler, which shares its work
  local into=$1 packages=() name
  shift
  for name in "$@"; do look_up "$name"; packages+=("$package"); done
  if [ "$module" = - ]; then
    GOBIN="$into" quietly "$go" install -ldflags "-s -w $flags" "$package@v$version"
  else
    (cd "$module" && quietly "$go" build -o "$into/" -ldflags "-s -w $flags" "${packages[@]}")
  fi
}

quietly() { # Go's output only when it fails
  local output status=0
  output="$(CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false ${MAILFLEET_TOOLS_JOBS:+-p=$MAILFLEET_TOOLS_JOBS}" \
    nice "$@" 2>&1)" || status=$?
  [ "$status" = 0 ] || { grep -v '^go: downloading' <<<"$output" >&2 || true; }
  return "$status"
}

absent() { # absent NAME…: those that are not there
  local name
  for name in "$@"; do
    look_up "$name"
    [ -x "$directory/bin/$name" ] || echo "$name"
  done
}

provide() { # provide NAME…: build those of one module that are not there
  local names together
  names="$(absent "$@")"
  [ -n "$names" ] || return 0
  look_up "$1"
  command -v "$go" >/dev/null || fail "${names//$'\n'/, } are built from source, for which Go 1.26 or newer is needed"
  together="$module"
  [ "$module" != - ] || together="$1"
  mkdir -p "$tools"
  (
    flock -n 9 || { say "$together: another run builds it, waiting"; flock 9; }
    names="$(absent "$@")"
    [ -n "$names" ] || exit 0
    arriving="$tools/.arriving-$together"
    rm -rf "$arriving"
    mkdir -p "$arriving"
    say "${names//$'\n'/, } $version: building, once"
    began=$SECONDS
    # shellcheck disable=SC2086 # names are words
    build "$arriving" $names || fail "${names//$'\n'/, } $version: could not be built"
    for name in $names; do put "$name" "$arriving/$name"; done
    rm -rf "$arriving"
    say "${names//$'\n'/, } $version: $((SECONDS - began)) s"
  ) 9>"$tools/.lock-$together"
}

put() { # put NAME FILE: in its place, in one step
  look_up "$1"
  local placed
  placed="$tools/.placed-$1-$version"
  rm -rf "$placed" "$directory"
  mkdir -p "$placed/bin"
  mv "$2" "$placed/bin/$1"
  mv -T "$placed" "$directory"
}

of_module() { # of_module MODULE NAME…: those of NAME… that it has
  local wanted=$1 name
  shift
  for name in "$@"; do
    look_up "$name"
    [ "$module" != "$wanted" ] || echo "$name"
  done
}

main() {
  [ "${1:-}" = --list ] && { table | cut -d'|' -f1,2 --output-delimiter=' '; return; }
  [ $# -gt 0 ] || fail "which of $(table | cut -d'|' -f1 | tr '\n' ' ')?"
  local name
  for name in "$@"; do look_up "$name"; done
  for name in "$@"; do
    look_up "$name"
    if [ "$module" = - ]; then
      provide "$name"
    else
      # shellcheck disable=SC2046 # names are words
      provide $(of_module "$module" "$@")
    fi
  done
  for name in "$@"; do look_up "$name"; echo "$directory/bin"; done
}

main "$@"
