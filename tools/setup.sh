#!/bin/sh
# Installs the Debian packages that a list names, if any is missing. Usage: tools/setup.sh LIST...
# Needs root (or sudo) only when something is missing.
set -eu
cd "$(dirname "$0")"
missing=""
for package in $(cat "$@"); do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || {
  echo "setup: missing packages:$missing; this system has no apt-get, install their equivalents" >&2
  exit 1
}
sudo=""
[ "$(id -u)" = 0 ] || sudo=sudo
echo "setup: installing$missing"
log=$(mktemp)
# Some packages start a service when they are installed (redis, nginx); tests want only their programs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
  $sudo chmod 755 "$policy"
  trap '$sudo rm -f "$policy"' EXIT INT TERM
fi
if ! { $sudo apt-get update && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "setup: apt-get could not install:$missing" >&2
  rm -f "$log"
  exit 1
fi
rm -f "$log"
