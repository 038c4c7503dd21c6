#!/bin/sh
# Builds the bare guests into a folder: build.sh FOLDER.  CROSS_COMPILE chooses the tools; the same ones give the same bytes.
set -eu
folder=${1:?usage: build.sh FOLDER}
folder=$(cd "$folder" && pwd)
sources=$(cd "$(dirname "$0")" && pwd)
tools=${CROSS_COMPILE:-aarch64-linux-gnu-}
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
cd "$objects"
build() { # NAME SOURCE [FLAGS]
    name=$1 source=$2
    shift 2
    "${tools}gcc" -c -g "-ffile-prefix-map=$sources=." "-ffile-prefix-map=$objects=." "$@" -o $name.o "$sources/$source"
    "${tools}ld" -z max-page-size=4096 --build-id=none --no-warn-rwx-segments -T "$sources/$script" -o "$folder/$name.elf" $name.o
}
script=bare.ld
build arm64 arm64.S
build arm64_mmu arm64.S -DWITH_MMU
build irq irq.S
build power power.S
script=bare_c.ld
build disk disk.c -O2 -Wall -Wextra -std=gnu11 -ffreestanding -fno-tree-loop-distribute-patterns -fno-pic -fno-stack-protector \
    -mgeneral-regs-only -mstrict-align -fno-asynchronous-unwind-tables
