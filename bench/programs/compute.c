// Milliseconds of pure computation: integer, floating point with vectors, branches, and cache misses within 64 MiB.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
int main(void) {
  enum { kN = 300, kWords = 8 << 20 };
  static double a[kN][kN], b[kN][kN], c[kN][kN];
  uint64_t* memory = malloc(kWords * sizeof *memory);
  memset(memory, 1, kWords * sizeof *memory);
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < kN; ++i)
    for (int j = 0; j < kN; ++j) a[i][j] = i + j, b[i][j] = i - j, c[i][j] = 0;
  for (int round = 0; round < 4; ++round)
    for (int i = 0; i < kN; ++i)
      for (int k = 0; k < kN; ++k)
        for (int j = 0; j < kN; ++j) c[i][j] += a[i][k] * b[k][j];
  uint64_t x = 88172645463325252ull, sum = 0;
  for (int i = 0; i < 20000000; ++i) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    sum += memory[x % kWords] + (x & 1 ? x : 3);
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  fprintf(stderr, "%g %lu\n", c[7][9], (unsigned long)sum);
  printf("%.3f\n", (end.tv_sec - start.tv_sec) * 1e3 + (end.tv_nsec - start.tv_nsec) / 1e6);
  return 0;
}
