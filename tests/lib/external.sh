#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Usage: external.sh BUILD-DIR KEELD SOURCE-DIR
# The public header alone as C99 and as C++; a program built by pkg-config's word, run before a keeld; and the library
# shows nothing but its own names.
set -eu
build=$1 keeld=$2 source=$3
dir=$(mktemp -d /tmp/keel-ext-XXXXXX)
pid=
trap '[ -z "$pid" ] || kill $pid; rm -rf "$dir"' EXIT
export PKG_CONFIG_PATH="$build/meson-uninstalled" LD_LIBRARY_PATH="$build/src/lib"

flags=$(pkg-config --cflags keel-uninstalled 2>/dev/null || pkg-config --cflags keel)
libs=$(pkg-config --libs keel-uninstalled 2>/dev/null || pkg-config --libs keel)
echo '#include <keel/keel.h>' >"$dir/h.c"
cc -std=c99 -pedantic -Wall -Wextra -Werror $flags -fsyntax-only "$dir/h.c"
if command -v clang >/dev/null; then
	clang -x c++ -std=c++11 -pedantic -Wall -Wextra -Werror $flags -fsyntax-only "$dir/h.c"
fi
cc -std=c99 -Wall -Wextra -Werror $flags "$source/external.c" -o "$dir/external" $libs

strange=$(nm -D --defined-only "$build/src/lib/libkeel.so.0" | awk '{ print $3 }' | grep -v -e '^keel_' -e '^KEEL_' || true)
[ -z "$strange" ] || { echo "libkeel.so shows $strange" >&2; exit 1; }
readelf -d "$build/src/lib/libkeel.so.0" | grep -q 'soname: \[libkeel.so.0\]'

"$keeld" --root "$dir/root" &
pid=$!
n=0
while [ ! -S "$dir/root/run/libvirt-sock-ro" ]; do
	n=$((n + 1)); [ $n -lt 300 ]
	sleep 0.1
done
mode=system
[ "$(id -u)" = 0 ] || mode=session
out=$("$dir/external" "qemu:///$mode?socket=$dir/root/run/libvirt-sock")
[ "$out" = "outside shut off" ] || { echo "the program says: $out" >&2; exit 1; }
