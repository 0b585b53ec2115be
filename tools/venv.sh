#!/bin/sh
# Make the virtual environment that the Makefile works in: `sh tools/venv.sh .venv`.
# Takes the newest of python3.13, python3.12, python3.11 and python3 that runs, is 3.11 or later and has venv with pip.
# PYTHON=/path/to/python overrides the choice.
set -eu

venv=${1:?usage: tools/venv.sh DIRECTORY}
python=
bare=
found=

if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exit 0
fi

look() {
    python= bare= found=
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        found="${found:+$found, }$candidate is $version"
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        # Debian and Ubuntu put ensurepip, without which a virtual environment has no pip, into a package of its own.
        if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            python=$candidate
            return
        fi
        [ -n "$bare" ] || bare="python$version"
    done
}

look
if [ -z "$python" ] && [ -n "$bare" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing $bare-venv, which this system keeps apart from Python"
        apt-get install -y -qq "$bare-venv" >/dev/null </dev/null ||
            { apt-get update -qq && apt-get install -y -qq "$bare-venv" >/dev/null </dev/null; } ||
            apt-get install -y -qq python3-venv >/dev/null </dev/null || true
        look
    fi
    if [ -z "$python" ]; then
        echo "error: $bare is here, but without the module that makes virtual environments" >&2
        echo "why:   Debian and Ubuntu keep it in a package of its own" >&2
        echo "next:  sudo apt-get install python3-venv   and run make again" >&2
        exit 1
    fi
fi
if [ -z "$python" ]; then
    echo "error: no Python 3.11 or later (${found:-none of python3.13, python3.12, python3.11, python3 runs here})" >&2
    echo "why:   AgentMesh needs Python 3.11" >&2
    echo "next:  install one, or name it: make PYTHON=/path/to/python3.12" >&2
    exit 1
fi

echo "making $venv with $("$python" --version)"
"$python" -m venv --clear "$venv"
