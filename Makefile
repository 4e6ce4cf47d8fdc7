# make demo       a real kernel panics in QEMU; ends in its post-mortem
# make test       everything: lints, docs, all tests, the full cycle on four kernels
# make test-full  that, and what takes longer: the support matrix with generic kernels, every way to crash on each kernel and
#                 CPU, EFI firmware, memory of other kinds, Debian systems installed, crashed and read
# make test-unit  tests that need neither root, network nor QEMU
# make package    the Debian package: target/package/kdump-rs_VERSION_amd64.deb
# make bench      our times beside the peers'
# make bench-reserve  the smallest crashkernel= beside the one that Debian's kdump-tools needs: about half an hour

CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kdump-rs
RELEASE := target/x86_64-unknown-linux-gnu/release
KERNELS := 5.10 6.1 6.12 7.3
ALL_KERNELS := 5.10 6.1 6.12 7.2 7.3 5.10-amd64 6.1-amd64 6.12-amd64 7.2-amd64 7.3-amd64
# Tests of `make test-full` alone.
FULL    := causes_full durable_full firmware formats hotplug_full matrix system targets_full

.PHONY: demo test test-full test-unit package bench bench-reserve setup release clean

demo: setup
	scripts/fetch-kernel.sh 6.12
	$(MAKE) release
	$(RELEASE)/kdump-rs rehearse --kernel $(CACHE)/kernels/6.12/vmlinuz

# One release build serves the lints' dependencies, the unit tests and the guests.
test: setup
	scripts/fetch-kernel.sh $(KERNELS)
	scripts/build-guest-module.sh 6.12
	scripts/fetch-memtest.sh
	scripts/fetch-kexec-tools.sh
	scripts/setup-oracle.sh
	scripts/setup-servers.sh
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets --features full-tests -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --release --locked --workspace --no-deps --document-private-items --quiet
	cargo test --release --locked --workspace -- --include-ignored

# Writes docs/support-matrix.md.
test-full: test
	scripts/fetch-kernel.sh $(ALL_KERNELS)
	scripts/build-guest-module.sh 6.1 6.12 7.3
	scripts/fetch-ovmf.sh
	scripts/setup.sh debootstrap
	scripts/setup-peers.sh programs
	cargo test --release --locked --features full-tests $(addprefix --test ,$(FULL)) -- --include-ignored

test-unit:
	cargo test --workspace

package: release
	scripts/package.sh

bench: setup release
	scripts/fetch-kernel.sh 6.12
	scripts/bench.sh

# Both by the same bisection, on a 1 GiB guest. Needs root or sudo, for debootstrap.
bench-reserve: setup release
	scripts/fetch-kernel.sh 6.12
	scripts/setup.sh debootstrap
	cargo build --release --locked --quiet -p kdump-rehearse --example smallest_crashkernel
	image=$$(scripts/debian-guest.sh kdump-tools) && $(RELEASE)/examples/smallest_crashkernel \
		$(RELEASE) $(CACHE)/kernels/6.12/vmlinuz $(CACHE)/bench/smallest $$image

setup:
	scripts/setup.sh

release:
	cargo build --release --locked

clean:
	cargo clean
	rm -rf kdump-rehearsal
