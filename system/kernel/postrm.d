#!/bin/sh
# A kernel package has been removed: VERSION IMAGE.
if [ -x /usr/lib/kdump-rs/kernel-changed ]; then /usr/lib/kdump-rs/kernel-changed remove "${1:-}"; fi
