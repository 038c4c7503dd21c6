#!/bin/sh
# Builds the demo guest: build.sh OUTPUT.elf [C flags, e.g. -DWITH_MMU]
# The same compiler gives the same bytes wherever the sources lie.  CROSS_COMPILE chooses the tools.
set -eu
output=${1:?usage: build.sh OUTPUT.elf [C flags]}
shift
case $output in /*) ;; *) output=$PWD/$output ;; esac
sources=$(cd "$(dirname "$0")" && pwd)
compiler=${CROSS_COMPILE:-aarch64-linux-gnu-}gcc
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
cd "$objects" # the objects' names, which the symbol table repeats, are then the same every time
for source in start.S main.c heap.c board.c; do
    "$compiler" -c -std=c11 -g -gno-record-gcc-switches -O1 -Wall -Wextra -Werror -march=armv8-a -mgeneral-regs-only \
        -mstrict-align -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables \
        -fno-tree-loop-distribute-patterns "-ffile-prefix-map=$sources=." "-ffile-prefix-map=$objects=." \
        "$@" -o "${source%.*}.o" "$sources/$source"
done
"$compiler" -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,max-page-size=4096 "-Wl,-T,$sources/demo.ld" \
    -o "$output" start.o main.o heap.o board.o
