// Nanoseconds for one switch between two threads that hand a futex back and forth.
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
enum { kRounds = 100000 };
static volatile int turn;
static void pass(int mine, int other) {
  while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != mine) syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, other, 0, 0, 0);
  __atomic_store_n(&turn, other, __ATOMIC_RELEASE);
  syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}
static void* second(void* p) {
  for (int i = 0; i < kRounds; ++i) pass(1, 0);
  return p;
}
int main(void) {
  pthread_t t;
  struct timespec a, b;
  pthread_create(&t, 0, second, 0);
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < kRounds; ++i) pass(0, 1);
  pthread_join(t, 0);
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.3f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / (2.0 * kRounds));
  return 0;
}
