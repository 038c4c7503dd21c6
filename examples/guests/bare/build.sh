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
for guest in arm64 irq; do
    "${tools}gcc" -c -g "-ffile-prefix-map=$sources=." "-ffile-prefix-map=$objects=." -o $guest.o "$sources/$guest.S"
    "${tools}ld" -z max-page-size=4096 --build-id=none --no-warn-rwx-segments -T "$sources/bare.ld" -o "$folder/$guest.elf" $guest.o
done
