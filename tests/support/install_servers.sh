#!/bin/bash
# Installs the real servers and clients that the tests talk to. For Debian and Ubuntu, as root; quick when all is there.
# Nothing is left running, and what Debian calls conflicting (Exim, OpenSMTPD) is unpacked beside Postfix, not installed.
set -euo pipefail

cache="${MAILFLEET_CACHE:-$HOME/.cache/mailfleet}"
export DEBIAN_FRONTEND=noninteractive

packages=(
  postfix dovecot-core dovecot-imapd dovecot-lmtpd knot swaks curl openssl iptables iproute2 e2fsprogs util-linux
  libnet-ssleay-perl libio-socket-ssl-perl libmail-deliverystatus-bounceparser-perl
  prometheus libidn12 libgnutls-dane0 libevent-2.1-7 libdb5.3 libnsl2 libpcre2-8-0
)
unpacked=(exim4-daemon-light opensmtpd)
modules=(nodemailer@10.6.0 mailparser@3.9.1)

have() { command -v "$1" >/dev/null 2>&1; }

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || echo "$package"
  done
  { have java || echo openjdk-17-jre-headless; } && { have mvn || echo maven; }
  { have node || echo nodejs; } && { have npm || echo npm; }
}

no_services() { # Debian's own way to say that an installed service is not to be started.
  [ -e /usr/sbin/policy-rc.d ] && return
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

refresh_lists() {
  [ -n "${lists_fresh:-}" ] && return
  apt-get update -qq
  lists_fresh=1
}

install_packages() {
  local wanted
  mapfile -t wanted < <(missing_packages)
  [ "${#wanted[@]}" -eq 0 ] && return
  echo "installing ${wanted[*]}"
  no_services
  refresh_lists
  echo 'postfix postfix/main_mailer_type select Local only' | debconf-set-selections
  echo 'postfix postfix/mailname string localhost.localdomain' | debconf-set-selections
  apt-get install -qq -y --no-install-recommends "${wanted[@]}" >/dev/null
}

unpack() { # unpack PACKAGE: its files under $cache/PACKAGE, for a server that cannot be installed beside Postfix.
  [ -e "$cache/$1/.complete" ] && return
  echo "unpacking $1"
  refresh_lists
  local work
  work="$(mktemp -d)"
  (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$1")
  rm -rf "${cache:?}/$1"
  mkdir -p "$cache/$1"
  dpkg -x "$work"/"$1"_*.deb "$cache/$1"
  rm -rf "$work"
  touch "$cache/$1/.complete"
}

system_user() { # Exim and OpenSMTPD look these up by name when they start.
  getent passwd "$1" >/dev/null || useradd --system --user-group --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin "$1"
}

node_modules() {
  local stamp="$cache/node/.complete"
  [ -e "$stamp" ] && [ "$(cat "$stamp")" = "${modules[*]}" ] && return
  echo "installing ${modules[*]}"
  mkdir -p "$cache/node"
  (cd "$cache/node" && npm install --loglevel=error --no-audit --no-fund --prefix . "${modules[@]}" >/dev/null)
  echo "${modules[*]}" >"$stamp"
}

main() {
  if [ "$(id -u)" -ne 0 ] || ! have apt-get; then
    echo "install_servers.sh needs root and apt; tests that need real servers will be skipped" >&2
    exit 3
  fi
  install_packages
  for package in "${unpacked[@]}"; do unpack "$package"; done
  for user in Debian-exim opensmtpd opensmtpq vmail; do system_user "$user"; done
  node_modules
}

main
