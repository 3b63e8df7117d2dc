// flags: -pthread
// Handlers, masks, alternate stacks, restart, timers, registers kept across an asynchronous handler.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t count, on_stack;
static char alternate[65536];
static void handler(int signal) { (void)signal; ++count; }
static void info_handler(int signal, siginfo_t* info, void* context) {
  ucontext_t* u = context;
  char here;
  on_stack = &here > alternate && &here < alternate + sizeof alternate;
  printf("%d %d %d %d\n", signal, info->si_code, info->si_value.sival_int, u->uc_mcontext.gregs[REG_RIP] != 0);
}
static sigjmp_buf jump;
static void fpe(int signal, siginfo_t* info, void* context) {
  (void)context;
  printf("%d %d\n", signal, info->si_code);
  siglongjmp(jump, 1);
}
static volatile int awake;
static void* sleeper(void* p) {
  (void)p;
  struct timespec t = {10, 0};
  int r = nanosleep(&t, &t);
  awake = 1;
  printf("nanosleep %d %d %d\n", r, errno, t.tv_sec >= 9);
  return 0;
}

int main(void) {
  setbuf(stdout, 0);
  struct sigaction action = {0};
  action.sa_handler = handler;
  sigaction(SIGUSR1, &action, 0);
  raise(SIGUSR1);
  kill(getpid(), SIGUSR1);
  printf("%d\n", count);

  sigset_t set, old, pending;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, &old);
  raise(SIGUSR1);
  sigpending(&pending);
  printf("%d %d\n", count, sigismember(&pending, SIGUSR1));
  sigprocmask(SIG_SETMASK, &old, 0);
  printf("%d\n", count);

  stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
  sigaltstack(&stack, 0);
  action.sa_sigaction = info_handler;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGUSR2, &action, 0);
  union sigval value = {.sival_int = 77};
  sigqueue(getpid(), SIGUSR2, value);
  printf("%d\n", on_stack);

  action.sa_sigaction = fpe;
  sigaction(SIGFPE, &action, 0);
  sigaction(SIGILL, &action, 0);
  sigaction(SIGTRAP, &action, 0);
  if (!sigsetjmp(jump, 1)) {
    volatile int zero = 0;
    volatile int x = 1 / zero;
    (void)x;
  }
  if (!sigsetjmp(jump, 1)) __asm__ volatile("ud2");
  if (!sigsetjmp(jump, 1)) __asm__ volatile("int3");

  // Vector and general registers survive a handler that arrives in the middle of a computation.
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, 0);
  struct itimerval timer = {{0, 1000}, {0, 1000}};
  count = 0;
  setitimer(ITIMER_REAL, &timer, 0);
  double total = 0;
  long rounds = 0;
  while (count < 20) {
    double part = 0;
    for (int i = 1; i <= 1000; ++i) part += 1.0 / i;
    if (rounds == 0) total = part;
    if (part != total) puts("vector registers changed");
    ++rounds;
  }
  memset(&timer, 0, sizeof timer);
  setitimer(ITIMER_REAL, &timer, 0);
  puts("registers kept");

  // A blocking read is interrupted, or restarted with SA_RESTART.
  int ends[2];
  pipe(ends);
  action.sa_flags = 0;
  sigaction(SIGALRM, &action, 0);
  timer.it_value.tv_usec = 5000;
  setitimer(ITIMER_REAL, &timer, 0);
  char byte;
  long r = read(ends[0], &byte, 1);
  printf("%ld %d\n", r, errno == EINTR);

  pthread_t thread;
  pthread_create(&thread, 0, sleeper, 0);
  // Again until it has an effect: on a busy machine the thread may not sleep yet.
  while (!awake) {
    usleep(10000);
    if (!awake) pthread_kill(thread, SIGALRM);
  }
  pthread_join(thread, 0);

  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, 0);
  timer.it_value.tv_usec = 5000;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, 0);
  setitimer(ITIMER_REAL, &timer, 0);
  if (0) write(ends[1], "x", 1);
  timer_t posix_timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  timer_create(CLOCK_MONOTONIC, &event, &posix_timer);
  struct itimerspec spec = {{0, 0}, {0, 3000000}};
  int before = count;
  timer_settime(posix_timer, 0, &spec, 0);
  while (count < before + 2) pause();
  timer_delete(posix_timer);
  puts("timers");

  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, 0);
  sigqueue(getpid(), SIGUSR2, value);
  siginfo_t info;
  struct timespec limit = {1, 0};
  int got = sigtimedwait(&set, &info, &limit);
  printf("%d %d\n", got, info.si_value.sival_int);
  limit.tv_sec = 0;
  limit.tv_nsec = 1000000;
  printf("%d", sigtimedwait(&set, &info, &limit));
  printf(" %d\n", errno == EAGAIN);
  int fd = signalfd(-1, &set, 0);
  kill(getpid(), SIGUSR2);
  struct signalfd_siginfo from_fd;
  long size = read(fd, &from_fd, sizeof from_fd);
  printf("%ld %u\n", size, from_fd.ssi_signo);

  signal(SIGPIPE, SIG_IGN);
  close(ends[0]);
  r = write(ends[1], "x", 1);
  printf("%ld %d\n", r, errno == EPIPE);
  fflush(stdout);
  raise(SIGTERM);
  return 0;
}
