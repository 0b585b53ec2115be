#!/bin/sh
# Install what the console's tests look at it with: Debian's Chromium, and a font that has Chinese. Ends well in any case:
# without a browser those tests skip and say so.
set -u
if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || [ -n "${AGENTMESH_CHROMIUM:-}" ]; then
    exit 0
fi
skipped() {
    echo "the console's tests in a browser are skipped: $1" >&2
    exit 0
}
command -v apt-get >/dev/null || skipped "no chromium on this machine, and no apt-get to install it with"
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    skipped "no chromium on this machine; install it:   sudo apt-get install chromium fonts-noto-cjk"
fi
echo "installing Chromium, to test the console in (once; a minute or so)"
install() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" </dev/null >/dev/null 2>&1; }
install chromium fonts-noto-cjk || { $as_root apt-get update -qq </dev/null >/dev/null 2>&1; install chromium fonts-noto-cjk; } ||
    skipped "apt-get could not install chromium"
