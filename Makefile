# SPDX-License-Identifier: LGPL-2.1-or-later
# make demo   a real Xen guest crashes, is dumped and recovers, in QEMU
# make test   everything that must hold
# make check   the fast part of it: no Xen, seconds
# make test-faults   every call refused, late, panicking; the process killed at each
# make test-faults-host   and xl on the emulated host, KILLS=100 times
# make test-worlds   crashes with faults by chance (WORLDS=30000)
# make mutants   which faults in the code no test would see (FOLDERS="src/drain src/story")
# make coverage   what tests run through; of code that gives memory away, all
# make fuzz   a minute of each fuzz target (FUZZ_SECONDS=60)
# make deny   licences, versions and sources of the crates, and flaws known of them
# make test-emulator   whether the emulated host can be believed (BOOTS=200 guests)
# make bench-dump   the speed of dumping (RUNS=5 rounds), against makedumpfile
# make bench-dump-host   the same on the emulated host, against xl dump-core (RUNS=3)
# make bench-verdict   how soon a crash's record says what the guest died of (RUNS=3)
# make bench-plan   the speed of looking at page descriptors, against memory's, and
#                   how long it takes to find the kernel of real guests
# make bench-budget   dumps with every limit, of made-up and real guests (STEPS=200)
# make bench-downtime   a database's downtime, against xl's own restart (RUNS=3)
# make bench-pacing   disk I/O policies on a model, in thousands of scenarios
# make bench-pacing-host   the same on the emulated host (RUNS=1, LOADS, POLICIES)
# make compare-makedumpfile   which pages are left out, against makedumpfile
# make compare-levels   the same, of guests of every kind on the emulated host (KINDS=pv)
# make test-matrix   every kind of guest on every kind of disk, on both Xens (KINDS=pvh)
# make compare-drgn   what drgn and crash find in a small dump, against a full one
# XEN=4.17 (the default) or 4.20: the Xen of the emulated host.
# All install the Debian packages they need, and say so first.

prefix ?= /usr
bindir ?= $(prefix)/bin
libdir ?= $(prefix)/lib/$(shell $(CC) -print-multiarch)
includedir ?= $(prefix)/include
INSTALL ?= install
built = $(or $(CARGO_TARGET_DIR),target)/release
bench = $(or $(CARGO_TARGET_DIR),target)/bench
FUZZ_SECONDS ?= 60
WORLDS ?= 30000
# tests/cargo-tool fetches with any pip; Debian's, where there is none.
PIP = $(shell python3 -m pip --version > /dev/null 2>&1 || echo python3-pip)
GUESTS ?= linux-6.1 linux-6.12
version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: all test-faults test-faults-host test-worlds demo test-emulator bench-dump bench-dump-host bench-verdict bench-plan bench-budget \
    bench-downtime bench-pacing bench-pacing-host compare-makedumpfile compare-levels compare-drgn \
    test test-matrix check fuzz deny mutants coverage install clean

all:
	cargo build --release --locked

demo:
	@tests/install-deps
	@tests/demo

test-emulator:
	@tests/install-deps
	@tests/emulator

bench-dump:
	@tests/install-deps busybox-static xz-utils
	@tests/bench/dump

bench-verdict:
	@tests/install-deps busybox-static xz-utils
	@tests/bench/verdict

bench-dump-host:
	@tests/install-deps
	@tests/bench/dump-host

bench-plan:
	@tests/install-deps busybox-static xz-utils
	cargo bench --locked --no-default-features --bench plan

# Curves as a picture also when a limit is not kept to.
bench-budget:
	@tests/install-deps busybox-static xz-utils
	@images=$$(tests/images/build $(GUESTS)) || exit 1; status=0; \
	IMAGES="$$(echo "$$images" | awk '{print $$2}')" \
	cargo bench --locked --no-default-features --bench budget || status=1; \
	python3 -B tests/bench/budget_picture.py $(bench)/budget.json $(bench)/budget.svg && exit $$status

bench-downtime:
	@tests/install-deps
	@tests/bench/downtime

bench-pacing:
	@tests/install-deps
	@status=0; \
	cargo bench --locked --no-default-features --bench pacing || status=1; \
	python3 -B tests/bench/pacing_picture.py $(bench)/pacing.json $(bench)/pacing.svg && exit $$status

bench-pacing-host:
	@tests/install-deps
	@tests/bench/pacing-host

compare-makedumpfile:
	@tests/install-deps busybox-static xz-utils
	@tests/compare/run

compare-levels:
	@tests/install-deps busybox-static xz-utils
	@tests/compare/levels $(KINDS)

test-matrix:
	@tests/install-deps busybox-static xz-utils
	@tests/matrix $(KINDS)

compare-drgn:
	@tests/install-deps busybox-static xz-utils
	@tests/compare/drgn

test:
	@tests/install-deps valgrind $(PIP)
	@tests/all

# The fast part of the tests: no Xen, seconds.
check:
	cargo test --locked

test-faults:
	@tests/install-deps
	@tests/faults

test-faults-host:
	@tests/install-deps
	@tests/faults host

test-worlds:
	@tests/install-deps
	WORLDS=$(WORLDS) cargo test --locked --release --lib story::tests::worlds -- --nocapture

fuzz:
	@tests/install-deps $(PIP)
	@fuzz/run $(FUZZ_SECONDS)

deny:
	@tests/install-deps $(PIP)
	@tests/deny

mutants:
	@tests/install-deps
	@tests/mutants/run $(FOLDERS)

coverage:
	@tests/install-deps
	@tests/coverage

install: all
	$(INSTALL) -D -m 755 $(built)/libvicover.so $(DESTDIR)$(libdir)/libvicover.so.0
	ln -sf libvicover.so.0 $(DESTDIR)$(libdir)/libvicover.so
	$(INSTALL) -D -m 644 $(built)/libvicover.a $(DESTDIR)$(libdir)/libvicover.a
	$(INSTALL) -D -m 755 $(built)/vicover $(DESTDIR)$(bindir)/vicover
	$(INSTALL) -D -m 644 include/vicover.h $(DESTDIR)$(includedir)/vicover.h
	$(INSTALL) -d $(DESTDIR)$(libdir)/pkgconfig
	printf '%s\n' $(pc_lines) > $(DESTDIR)$(libdir)/pkgconfig/vicover.pc

# What the static library needs besides: Xen's libraries, as pkg-config names
# them, and the system's.
pc_lines = 'prefix=$(prefix)' 'libdir=$(libdir)' 'includedir=$(includedir)' '' \
    'Name: vicover' 'Version: $(version)' \
    'Description: Dumps a crashed Xen guest while its replacement already boots' \
    'Requires.private: xenlight xencontrol xenforeignmemory xenstore' \
    'Libs: -L$${libdir} -lvicover' \
    'Libs.private: -lgcc_s -lutil -lrt -lpthread -lm -ldl' \
    'Cflags: -I$${includedir}'

clean:
	cargo clean
