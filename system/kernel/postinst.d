#!/bin/sh
# A kernel package has been configured: VERSION IMAGE.
if [ -x /usr/lib/kdump-rs/kernel-changed ]; then /usr/lib/kdump-rs/kernel-changed add "${1:-}"; fi
