# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk with programs of the host's Debian and a script for the test guest's "tools": what is measured inside of guests."""
import pathlib
import re
import shutil
import subprocess


def disk(path, programs, script, size="64M"):
    """An ext4 image with these programs, what they are linked with, a busybox and /run.sh."""
    root = path.with_suffix(".d")
    for directory in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        (root / directory).mkdir(parents=True)
    files = set()
    for program in map(shutil.which, programs):
        shutil.copy(program, root / "bin")
        out = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= set(re.findall(r"(/\S+) \(0x", out))
    for file in files:
        to = root / pathlib.Path(file).parent.relative_to("/")
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(pathlib.Path(file).resolve(), to / pathlib.Path(file).name)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    (root / "run.sh").write_text("export PATH=/bin; busybox --install -s /bin 2>/dev/null\n"
                                 'say() { echo "KEEL $*" >/dev/console; }\n' + script)
    subprocess.run(["truncate", "-s", size, path], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, path], check=True)
    shutil.rmtree(root)
    return path
