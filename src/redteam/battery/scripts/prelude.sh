# Every line that a script prints begins with its token, which is unique to the dispatch.
say() { echo "$token say $*"; }
tried() { echo "$token tried $*"; }
breach() { echo "$token breach $*"; }
cannot() { echo "$token cannot $*"; }
# Runs a program, or busybox under that name if there is no such program.
have() { command -v "$1" >/dev/null 2>&1 || busybox "$1" --help >/dev/null 2>&1; }
run() { if command -v "$1" >/dev/null 2>&1; then "$@"; else busybox "$@"; fi; }
