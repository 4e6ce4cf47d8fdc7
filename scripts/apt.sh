# Sourced, not run: a private view of the Debian archive for the other scripts.
#
# The machine's own apt configuration says where its Debian mirror is; this file writes an extra
# source list for that mirror into the cache and gives apt its own lists and packages there, so
# that suites the machine does not use can be read without changing the machine, and without root.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/kdump-rs"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "${0##*/}: $*" >&2; }
die() { say "$*"; exit 1; }

# Prints the URIs under which this machine reads a Debian suite's `main`, one-line (.list) and
# deb822 (.sources) files alike; the security archive holds no kernels of other suites.
debian_uris() {
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    cat "$list" "$parts"/*.list 2>/dev/null | awk '
        $1 == "deb" { i = 2; if ($2 ~ /^\[/) while (i < NF && $i !~ /\]$/) i++; if ($2 ~ /^\[/) i++
            for (c = i + 2; c <= NF; c++) if ($c == "main") print $i, $(i + 1) }' | debian_only
    for f in "$parts"/*.sources; do [ -e "$f" ] && { cat "$f"; echo; }; done | awk '
        function flush(   u, s, i, j) { if (types ~ /(^| )deb( |$)/ && comps ~ /(^| )main( |$)/ && enabled !~ /no|false|0/) {
            u = split(uris, U, " "); s = split(suites, S, " ")
            for (i = 1; i <= u; i++) for (j = 1; j <= s; j++) print U[i], S[j] }
            types = uris = suites = comps = enabled = key = "" }
        /^[ \t]*#/ { next }
        /^[ \t]*$/ { flush(); next }
        /^[ \t]/ { add($0); next }
        { key = tolower($0); sub(/:.*/, "", key); v = $0; sub(/^[^:]*:/, "", v); add(v) }
        function add(v) { gsub(/^[ \t]+|[ \t]+$/, "", v)
            if (key == "types") types = types " " v; else if (key == "uris") uris = uris " " v
            else if (key == "suites") suites = suites " " v; else if (key == "components") comps = comps " " v
            else if (key == "enabled") enabled = v }
        END { flush() }' | debian_only
}

# Of `URI SUITE` lines keeps the URIs whose suite is one of Debian's, each once.
debian_only() {
    awk '$2 ~ /^(bullseye|bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)$/ && $1 !~ /security/ && !seen[$1]++ { print $1 }'
}

# Runs an apt program in the private view: private_apt get|cache ARGS.
private_apt() {
    program=apt-$1; shift
    "$program" -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none -o APT::Default-Release= -o APT::Architecture=amd64 \
        -o Acquire::Retries=3 "$@"
}

# Reads the package lists of a suite, or of several together: private_suite SUITE... Tries each of the machine's mirrors.
private_suite() {
    apt="$cache/apt/$(echo "$*" | tr ' ' +)"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    [ -r "$keyring" ] || die "$keyring is missing: apt-get install debian-archive-keyring"
    uris=$(debian_uris)
    [ -n "$uris" ] || die "this machine's apt configuration names no Debian mirror"
    for uri in $uris; do
        for suite in "$@"; do echo "deb [signed-by=$keyring] $uri $suite main"; done > "$apt/sources.list"
        if private_apt get update -qq -o APT::Update::Error-Mode=any > "$apt/update.log" 2>&1; then return 0; fi
    done
    cat "$apt/update.log" >&2
    if grep -q NO_PUBKEY "$apt/update.log"; then
        die "the keyring of this machine does not know the key that signs $*:" \
            "apt-get install --only-upgrade debian-archive-keyring"
    fi
    die "cannot read the package lists of $*"
}
