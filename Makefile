# A thin front: Meson and Ninja do the work.
#   make              programs in build/bin
#   make quickstart   install what is needed, build, boot a Debian kernel
#   make check        all tests       make check-long   the slow proofs
#   make bench        ratios against QEMU, libvirtd    make bench-engine   programs in the guest; BENCHFLAGS, see bench/engine -h
#   make install      honours PREFIX and DESTDIR
PREFIX ?= /usr/local
BUILD := build
MESONFLAGS ?=

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet
	@mkdir -p $(BUILD)/bin
	@ln -f $(BUILD)/src/cli/keel $(BUILD)/src/vmm/keel-vmm $(BUILD)/src/daemon/keeld $(BUILD)/bin/

$(BUILD)/build.ninja:
	@scripts/deps
	@meson setup $(BUILD) --prefix=$(PREFIX) $(MESONFLAGS) >/dev/null

guest: all
	@scripts/guest $(BUILD)/guest

quickstart:
	@scripts/deps
	@$(MAKE) --no-print-directory guest
	@scripts/quickstart $(BUILD)

check:
	@scripts/deps
	@scripts/check $(BUILD)

check-long: guest
	@scripts/check-long $(BUILD)

bench: guest
	@bench/run $(BUILD)
	@bench/image $(BUILD)
	@bench/daemon $(BUILD) --check

bench-engine: guest
	@bench/engine $(BUILD)/bin/keel-vmm $(BUILD)/guest/vmlinuz --check $(BENCHFLAGS)

install: all
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	@ninja -C $(BUILD) --quiet
	@meson install -C $(BUILD) --no-rebuild --quiet $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))

clean:
	rm -rf $(BUILD)

.PHONY: all guest quickstart check check-long bench bench-engine install clean
