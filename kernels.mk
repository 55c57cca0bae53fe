# CPU kernels beyond this machine and beyond plain runs; included by the Makefile.
#   make test-neon      NEON kernels, cross-compiled and emulated (Debian: g++-aarch64-linux-gnu, qemu-user)
#   make test-sanitize  kernel tests under the address and undefined-behaviour sanitizers
#   make fuzz           many random layouts against the NumPy oracle
#   make callgrind      instructions per element of each path's scalar-equivalent work (needs valgrind)
CPU = src/dropkit/kernels/cpu
DRIVER = tests/kernels/driver.cpp $(CPU)/dispatch.cpp $(CPU)/pages.cpp $(CPU)/pool.cpp
EXACT = -std=c++17 -O3 -ffp-contract=off -Wall -Wextra -Wshadow -Wconversion -pthread

.PHONY: test-neon test-sanitize fuzz callgrind

build/vectors.txt: setup tests/kernels/vectors.py tests/golden/mask_vectors.json
	mkdir -p build
	$(BIN)/python tests/kernels/vectors.py > $@

build/driver-neon: $(DRIVER) $(wildcard $(CPU)/*)
	mkdir -p build
	aarch64-linux-gnu-g++ $(EXACT) -static -DDROPKIT_NEON $(DRIVER) $(CPU)/path_portable.cpp $(CPU)/path_neon.cpp -o $@

test-neon: build/driver-neon build/vectors.txt
	qemu-aarch64 build/driver-neon check < build/vectors.txt

build/driver: $(DRIVER) $(wildcard $(CPU)/*)
	mkdir -p build
	$(CXX) $(EXACT) -g -Wno-maybe-uninitialized -Wno-uninitialized -mavx512f -mavx512bw -mavx512dq -mavx512vl -mf16c -c $(CPU)/path_avx512.cpp -o build/avx512.o
	$(CXX) $(EXACT) -g -mavx2 -mfma -mf16c -c $(CPU)/path_avx2.cpp -o build/avx2.o
	$(CXX) $(EXACT) -g -DDROPKIT_AVX2 -DDROPKIT_AVX512 $(DRIVER) $(CPU)/path_portable.cpp build/avx2.o build/avx512.o -ldl -o $@

test-driver: build/driver build/vectors.txt
	build/driver check < build/vectors.txt

# Two runs that differ by 10 passes over 65536 elements: their difference is free of what starting costs.
callgrind: build/driver
	@for path in portable avx2; do for p in 0.5 0.25 0.1; do for n in 1 11; do \
	    valgrind --tool=callgrind --callgrind-out-file=/dev/null build/driver repeat $$path $$p $$n 2>&1 | \
	    sed -n 's/.*Collected : //p'; done | paste -s -d' ' | \
	    awk -v path=$$path -v p=$$p '{ printf "%s p=%s: %.2f instructions per element\n", path, p, ($$2 - $$1) / 655360 }'; done; done

# A copy of the package with a sanitized extension in it, imported in place of the installed one. What needs PyTorch is
# left out: it does not load under the sanitizers.
SANITIZED = build/sanitized
test-sanitize: setup
	@command -v cmake > /dev/null || { echo "test-sanitize builds with cmake, which is not here: apt install cmake" >&2; exit 2; }
	cmake -S . -B $(SANITIZED) -DDROPKIT_SANITIZE=ON -DPython_EXECUTABLE=$(abspath $(BIN)/python) > /dev/null
	cmake --build $(SANITIZED) --target _cpu
	rm -rf $(SANITIZED)/package && mkdir $(SANITIZED)/package && cp -rL src/dropkit $(SANITIZED)/package/
	cp $(SANITIZED)/_cpu*.so $(SANITIZED)/package/dropkit/kernels/cpu/
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 SANITIZED=$(abspath $(SANITIZED)) \
	    $(BIN)/python tests/kernels/sanitized.py tests/kernels -p no:cacheprovider -k "cpu and not openmp"

fuzz: setup
	DROPKIT_FUZZ=10000 $(BIN)/python -m pytest tests/kernels/test_cpu_fuzz.py
