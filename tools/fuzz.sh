#!/bin/sh
# Runs every libFuzzer target of a build for a number of seconds: tools/fuzz.sh BUILD SECONDS.
# New inputs stay in BUILD/corpus/NAME; the checked-in corpus is only read. Crashing inputs are named and kept.
set -eu
build=$1 seconds=$2
root=$(cd "$(dirname "$0")/.." && pwd)
failed=0 count=0
for target in $(find "$build" -type f -name '*_fuzz' -perm -u+x | sort); do
  name=$(basename "$target")
  mkdir -p "$build/corpus/$name" "$build/crashes"
  echo "fuzz: $name for $seconds s"
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=0 -verbosity=0 -print_funcs=0 \
    -artifact_prefix="$build/crashes/$name-" "$build/corpus/$name" "$root/tests/fuzz/corpus/$name" > "$build/$name.log" 2>&1 || { tail -n 40 "$build/$name.log";  failed=$((failed + 1)); }
  count=$((count + 1))
done
echo "fuzz: $count targets, $failed failed; crashing inputs, if any, in $build/crashes"
[ "$failed" = 0 ] && [ "$count" -gt 0 ]
