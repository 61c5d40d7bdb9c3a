#!/usr/bin/env bash
# Runs the tests of the crate that has unsafe code, `actor`, under AddressSanitizer with leak detection.
#   scripts/sanitize.sh
# The stable compiler does it with RUSTC_BOOTSTRAP=1; needs x86_64 Linux. Two rounds:
#   1. `--cfg otava_sanitize`: the pool of pieces keeps nothing, so each use of freed memory is seen;
#   2. as shipped: the pool's own code, with what a thread keeps given back when it ends.
# The standard library is not instrumented. Races are the models' to find (scripts/loom.sh):
# ThreadSanitizer needs a standard library built with it, or it reports races that are none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=x86_64-unknown-linux-gnu
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "skipped: AddressSanitizer is set up for x86_64 Linux here, this is $(uname -sm)"
  exit 0
fi
if ! ls "$(rustc --print target-libdir --target "$target")"/librustc*_rt.asan.a >/dev/null 2>&1; then
  echo "skipped: this toolchain has no AddressSanitizer runtime"
  exit 0
fi
export RUSTC_BOOTSTRAP=1 RUST_BACKTRACE=0 CARGO_INCREMENTAL=0
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:detect_stack_use_after_return=1}
# A panic's payload that panics when dropped is forgotten on purpose, and a test has one.
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
echo "leak:otava_actor::failure::describe_panic" >"$suppressions"
export LSAN_OPTIONS=suppressions=$suppressions

round() { # round FOLDER FLAGS: the unit tests, then the tests of the public API
  export CARGO_TARGET_DIR=target/$1 RUSTFLAGS="-Zsanitizer=address $2"
  cargo test --locked -p otava-actor --target "$target" --lib
  cargo test --locked -p otava-actor --target "$target" --test it
}

echo "=== AddressSanitizer, nothing pooled"
round asan "--cfg otava_sanitize"
echo "=== AddressSanitizer, as shipped"
round asan-pool ""

if [ -d "$(rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
  echo "=== ThreadSanitizer, with a standard library of its own"
  export CARGO_TARGET_DIR=target/tsan RUSTFLAGS="-Zsanitizer=thread"
  cargo test --locked -Zbuild-std -p otava-actor --target "$target" --lib
  cargo test --locked -Zbuild-std -p otava-actor --target "$target" --test it
else
  echo "skipped: ThreadSanitizer needs -Zbuild-std, and the source of the standard library (rust-src) is not installed"
fi
