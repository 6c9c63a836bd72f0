# SPDX-License-Identifier: GPL-2.0-or-later
"""The other ways to boot: PVH (Debian's own vmlinux), multiboot with modules, firmware; debugcon and debug exit."""
import pathlib
import struct
import subprocess

import pytest

# Prints the multiboot command line and each module's text to port 0xe9, then leaves through port 0xf4.
MULTIBOOT = r"""
	.code32
	.section .text
	.align 4
header:	.long 0x1badb002, 0x00010003, -(0x1badb002 + 0x00010003)
	.long header, start_of_image, 0, bss_end, entry
	.globl entry
entry:	movl $stack, %esp
	cmpl $0x2badb002, %eax
	jne fail
	movl %ebx, %ebp
	movl 16(%ebp), %esi
	call print
	movl 20(%ebp), %ecx
	movl 24(%ebp), %ebx
next:	jecxz done
	movl 8(%ebx), %esi
	call print
	movl (%ebx), %esi
	movl 4(%ebx), %edi
text:	cmpl %edi, %esi
	je end
	lodsb
	outb %al, $0xe9
	jmp text
end:	movb $'\n', %al
	outb %al, $0xe9
	addl $16, %ebx
	decl %ecx
	jmp next
done:	movb $STATUS, %al
	outb %al, $0xf4
fail:	hlt
	jmp fail
print:	lodsb
	testb %al, %al
	jz 1f
	outb %al, $0xe9
	jmp print
1:	movb $'|', %al
	outb %al, $0xe9
	ret
	.bss
	.skip 4096
stack:
"""


@pytest.fixture
def multiboot(scratch):
    source, image = scratch / "m.S", scratch / "m"
    source.write_text(MULTIBOOT)
    script = scratch / "m.ld"
    script.write_text("ENTRY(entry) SECTIONS { . = 0x100000; start_of_image = .; .text : { *(.text) } .bss : { *(.bss) } bss_end = .; }")
    subprocess.run(["gcc", "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-DSTATUS=21", "-Wl,-T," + str(script),
                    "-o", scratch / "m.elf", source], check=True)
    subprocess.run(["objcopy", "-O", "binary", scratch / "m.elf", image], check=True)
    return image


def test_multiboot_with_modules(guest, multiboot, scratch):
    (scratch / "one").write_text("first module")
    (scratch / "two").write_text("second")
    log = scratch / "log"
    g = guest("--kernel", multiboot, "--append", "the command line", "--initrd", f"{scratch}/one its arguments,{scratch}/two",
              "--debugcon", f"file:{log}", "--debug-exit", "--serial", "null", kernel=False)
    assert g.wait() == 21 * 2 + 1, g.errors
    assert log.read_text() == "the command line|its arguments|first module\n|second\n"


def test_pvh_boots_debians_vmlinux(guest, build, scratch):
    """The ELF kernel inside Debian's bzImage carries a PVH note. Where it lies: boot.rst, payload_offset and payload_length."""
    image = (build / "guest/vmlinuz").read_bytes()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1f1] + 1) * 512 + offset
    payload = image[start : start + length - 4]  # the size of the contents follows them
    unpackers = {b"\x02\x21\x4c\x18": ["lz4", "-dc"], b"\xfd7zX": ["xz", "-dc"], b"\x28\xb5\x2f\xfd": ["zstd", "-dc"]}
    if payload[:4] not in unpackers:
        pytest.skip(f"the kernel is packed in an unknown way: {payload[:4]}")
    vmlinux = subprocess.run(unpackers[payload[:4]], input=payload, capture_output=True).stdout
    assert vmlinux.startswith(b"\x7fELF")
    (scratch / "vmlinux").write_bytes(vmlinux)
    g = guest("--kernel", scratch / "vmlinux", "--initrd", build / "guest/initrd", "--append",
              "console=ttyS0 panic=-1 loglevel=4 keel.run=facts", kernel=False)
    assert g.expect("cpus") == "1"
    assert g.wait() == 0


def test_seabios_looks_for_a_disk(guest):
    """Unmodified SeaBIOS finds its tables in fw_cfg and gets as far as a machine without disks lets it."""
    bios = pathlib.Path("/usr/share/seabios/bios-256k.bin")
    if not bios.exists():
        pytest.skip("the package seabios is not installed")
    g = guest("--firmware", bios, "--serial", "null", "--debugcon", "stdio", kernel=False)
    seen = []
    while not any("No bootable device" in line for line in seen):
        seen.append(g.lines.get(timeout=60))
        assert seen[-1] is not None, seen[-20:]
    assert any("SeaBIOS" in line for line in seen)
