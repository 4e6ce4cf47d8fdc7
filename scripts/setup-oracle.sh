#!/bin/sh
# Installs the independent reader of the tests, drgn 0.3.0 (with libkdumpfile inside), into a
# Python environment of its own in the cache. Prints the interpreter's path. Does nothing when it
# is there. Where to download from is pip's own configuration.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

version=0.3.0
venv="$cache/drgn-$version"
if ! "$venv/bin/python" -c 'import drgn' 2> /dev/null; then
    say "installing drgn $version into $venv"
    # Debian's interpreter first: one of another origin may lack venv or a wheel.
    python=python3
    if [ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import venv, ensurepip' 2> /dev/null; then
        python=/usr/bin/python3
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' || die "drgn needs Python 3.8 or later"
    rm -rf "$venv"
    mkdir -p "$cache"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "drgn==$version" >&2
    "$venv/bin/python" -c 'import drgn'
fi
echo "$venv/bin/python"
