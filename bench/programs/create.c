// Microseconds for pthread_create and pthread_join of a thread that does nothing.
#include <pthread.h>
#include <stdio.h>
#include <time.h>
static void* nothing(void* p) { return p; }
int main(void) {
  enum { kRounds = 20000 };
  struct timespec a, b;
  pthread_t t;
  for (int i = 0; i < 100; ++i) pthread_create(&t, 0, nothing, 0), pthread_join(t, 0);
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < kRounds; ++i) pthread_create(&t, 0, nothing, 0), pthread_join(t, 0);
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.4f\n", ((b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) / 1e3) / kRounds);
  return 0;
}
