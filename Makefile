# The commands of the project; everything else is CMake (see CMakeLists.txt).
#   make          build/husk
#   make demo     Debian's own programs as unikernels
#   make check    every test; what CI runs
#   make bench    the figures (BENCH="getppid hello" selects, JSON=FILE also writes JSON)
#   make fuzz     every fuzz target for SECONDS=60 each
#   make nightly  what takes long: BYTES=10G each way to and from Linux over a bad line; redis and nginx under load for MINUTES=20 each
#   make format, make tidy, make clean
BUILD ?= build
JOBS ?= $(shell nproc)
SECONDS ?= 60
BYTES ?= 10G
MINUTES ?= 20
.PHONY: all setup demo check bench fuzz nightly format tidy clean

all: setup
	@cmake -S . -B $(BUILD) -G Ninja > $(BUILD).cmake.log 2>&1 || { cat $(BUILD).cmake.log; rm -f $(BUILD).cmake.log; exit 1; }
	@rm -f $(BUILD).cmake.log
	@ninja -C $(BUILD) -j $(JOBS) --quiet
	@echo "built $(BUILD)/husk"

setup:
	@tools/setup.sh packages.txt

demo: all
	@tools/setup.sh packages-test.txt
	@/usr/bin/python3 examples/demo.py --husk $(BUILD)/husk

check: all
	@tools/setup.sh packages-test.txt
	@/usr/bin/python3 tools/check.py --build $(BUILD) --jobs $(JOBS)

bench: all
	@tools/setup.sh packages-test.txt
	@/usr/bin/python3 bench/run.py --husk $(BUILD)/husk $(if $(JSON),--json $(JSON)) $(BENCH)

fuzz:
	@tools/setup.sh packages.txt packages-test.txt
	@cmake -S . -B $(BUILD)-fuzz -G Ninja -DHUSK_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ > /dev/null
	@ninja -C $(BUILD)-fuzz -j $(JOBS) --quiet fuzzers
	@tools/fuzz.sh $(BUILD)-fuzz $(SECONDS)

nightly: all
	@tools/setup.sh packages-test.txt
	@/usr/bin/python3 tests/net/interop.py --husk $(BUILD)/husk --bytes $(BYTES); one=$$?; \
	 /usr/bin/python3 tests/nightly/soak.py --husk $(BUILD)/husk --minutes $(MINUTES) && exit $$one

format:
	@git ls-files '*.cc' '*.h' | xargs clang-format -i

tidy: all
	@git ls-files 'vmm/*.cc' 'image/*.cc' 'cli/*.cc' 'host/*.cc' | grep -v _test.cc | xargs -P $(JOBS) -n 1 clang-tidy --quiet -p $(BUILD) && echo "tidy: nothing to say"

clean:
	@rm -rf $(BUILD) $(BUILD)-fuzz
