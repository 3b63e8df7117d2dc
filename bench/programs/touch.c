// Milliseconds to touch 512 MiB of anonymous memory for the first time, one byte a page. `touch huge` asks the system for 2 MiB pages.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
int main(int argc, char** argv) {
  (void)argv;
  const unsigned long size = 512ul << 20, huge = 2ul << 20;
  struct timespec a, b;
  char* start = mmap(0, size + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  volatile char* p = start + (huge - (uintptr_t)start % huge) % huge;
  if (argc > 1) madvise((char*)p, size, MADV_HUGEPAGE);
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (unsigned long i = 0; i < size; i += 4096) p[i] = 1;
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.3f\n", (b.tv_sec - a.tv_sec) * 1e3 + (b.tv_nsec - a.tv_nsec) / 1e6);
  return 0;
}
