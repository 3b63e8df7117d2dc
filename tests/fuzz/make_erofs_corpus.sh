#!/bin/sh
# Makes the corpus of kernel_erofs_fuzz: small EROFS images, one with data behind inodes, one without. Needs mkfs.erofs.
set -eu
corpus=$(dirname "$0")/corpus/kernel_erofs_fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$corpus" "$work/tree/sub"
echo hello > "$work/tree/file"
echo deep > "$work/tree/sub/deep"
ln -s sub/deep "$work/tree/link"
mknod "$work/tree/null" c 1 3
U=00000000-0000-0000-0000-000000000000
mkfs.erofs -x-1 -T0 -U$U "$corpus/inline.erofs" "$work/tree" > /dev/null
mkfs.erofs -x-1 -T0 -U$U -Enoinline_data,force-inode-extended "$corpus/plain.erofs" "$work/tree" > /dev/null
