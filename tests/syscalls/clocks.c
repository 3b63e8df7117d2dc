// Clocks agree with each other, advance, and sleep long enough.
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
static long long ns(struct timespec t) { return t.tv_sec * 1000000000ll + t.tv_nsec; }
int main(void) {
  struct timespec a, b, r;
  for (int clock = 0; clock < 8; ++clock) printf("%d:%d ", clock, clock_gettime(clock, &a));
  puts("");
  clock_gettime(CLOCK_MONOTONIC, &a);
  struct timespec nap = {0, 20000000};
  nanosleep(&nap, 0);
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%d %d\n", ns(b) - ns(a) >= 20000000, ns(b) - ns(a) < 2000000000);
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &r);
  printf("%d\n", ns(r) >= ns(b) && ns(r) - ns(b) < 1000000000);
  long long last = 0;
  for (int i = 0; i < 100000; ++i) {
    clock_gettime(CLOCK_MONOTONIC, &a);
    if (ns(a) < last) puts("went backwards");
    last = ns(a);
  }
  struct timeval tv;
  gettimeofday(&tv, 0);
  clock_gettime(CLOCK_REALTIME, &a);
  printf("%d %d\n", tv.tv_sec > 1700000000, a.tv_sec - tv.tv_sec <= 1);
  printf("%d\n", time(0) - tv.tv_sec <= 1);
  a.tv_nsec += 10000000;
  if (a.tv_nsec >= 1000000000) a.tv_sec++, a.tv_nsec -= 1000000000;
  printf("%d\n", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &a, 0));
  clock_getres(CLOCK_MONOTONIC, &r);
  printf("%ld\n", r.tv_nsec);
  clock_t c = clock();
  volatile double x = 0;
  for (int i = 0; i < 20000000; ++i) x += i;
  printf("%d\n", clock() > c);
  return 0;
}
