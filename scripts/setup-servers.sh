#!/bin/sh
# Installs the servers that the tests of targets send to, where they are missing: Debian's nginx, age and openssl, and
# the moto server 5.2.5 (S3) in a Python environment of its own in the cache. Prints that environment's path. Where to
# download from is apt's and pip's own configuration.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/apt.sh"

"$here/setup.sh" nginx age openssl >&2
version=5.2.5
venv="$cache/moto-$version"
if ! "$venv/bin/python" -c 'import moto.server, boto3' 2> /dev/null; then
    say "installing moto $version into $venv"
    # Debian's interpreter first: one of another origin may lack venv or a wheel.
    python=python3
    if [ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import venv, ensurepip' 2> /dev/null; then
        python=/usr/bin/python3
    fi
    rm -rf "$venv"
    mkdir -p "$cache"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "moto[server]==$version" >&2
    "$venv/bin/python" -c 'import moto.server, boto3'
fi
echo "$venv"
