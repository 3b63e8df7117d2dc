// flags: -pthread
// epoll: level, edge and one-shot items, exclusive ones, nesting, closing, waking one thread, many idle connections, errors.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#define SHOW(e) do { errno = 0; long show_ = (long)(e); printf("%s: %ld %d\n", #e, show_, errno); } while (0)

static char b[65536];

static int control(int e, int operation, int fd, unsigned events, int tag) {
  struct epoll_event event = {.events = events, .data.u64 = (unsigned long)tag};
  return epoll_ctl(e, operation, fd, &event);
}
static int by_tag(const void* a, const void* c) { return (int)((const struct epoll_event*)a)->data.u32 - (int)((const struct epoll_event*)c)->data.u32; }
static void show(int e) {
  struct epoll_event out[16];
  int n = epoll_wait(e, out, 16, 0);
  printf("%d:", n);
  if (n > 0) qsort(out, (size_t)n, sizeof out[0], by_tag);
  for (int i = 0; i < n; ++i) printf(" %lu/%x", (unsigned long)out[i].data.u64, out[i].events);
  puts("");
}

static void modes(void) {
  int e = epoll_create1(EPOLL_CLOEXEC), level[2], edge[2], once[2];
  SHOW(fcntl(e, F_GETFD));
  int* all[3] = {level, edge, once};
  for (int i = 0; i < 3; ++i) socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, all[i]);
  SHOW(control(e, EPOLL_CTL_ADD, level[0], EPOLLIN | EPOLLRDHUP, 1));
  SHOW(control(e, EPOLL_CTL_ADD, edge[0], EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 2));
  SHOW(control(e, EPOLL_CTL_ADD, once[0], EPOLLIN | EPOLLONESHOT, 3));
  show(e);
  show(e);
  for (int i = 0; i < 3; ++i) write(all[i][1], "xy", 2);
  show(e);
  show(e);
  for (int i = 0; i < 3; ++i) write(all[i][1], "z", 1);  // another edge
  show(e);
  read(edge[0], b, 1);  // no edge
  show(e);
  read(level[0], b, 10);
  show(e);
  SHOW(control(e, EPOLL_CTL_MOD, once[0], EPOLLIN | EPOLLONESHOT, 4));
  show(e);
  show(e);
  SHOW(control(e, EPOLL_CTL_MOD, edge[0], EPOLLIN | EPOLLET, 5));  // asks anew
  show(e);
  show(e);
  while (write(edge[0], b, sizeof b) > 0) {}
  SHOW(control(e, EPOLL_CTL_MOD, edge[0], EPOLLOUT | EPOLLET, 6));
  show(e);
  while (read(edge[1], b, sizeof b) > 0) {}
  show(e);
  show(e);
  for (int i = 0; i < 3; ++i) shutdown(all[i][1], SHUT_WR);
  show(e);
  for (int i = 0; i < 3; ++i) close(all[i][1]);
  show(e);
  show(e);
  SHOW(control(e, EPOLL_CTL_DEL, once[0], 0, 0));
  close(level[0]);
  show(e);
  int copy = dup(edge[0]);
  SHOW(control(e, EPOLL_CTL_MOD, edge[0], EPOLLIN, 7));
  close(edge[0]);
  show(e);  // the file is still open
  SHOW(control(e, EPOLL_CTL_ADD, copy, EPOLLIN | EPOLLRDNORM, 8));
  show(e);
  close(copy);
  show(e);
  close(e);
}

static void errors(void) {
  int e = epoll_create1(0), other = epoll_create1(0), v = eventfd(0, 0), file = open("/etc/passwd", O_RDONLY);
  struct epoll_event out[2];
  volatile int negative = -1;
  void* volatile bad_address = (void*)8;
  SHOW(epoll_create(0));
  SHOW(epoll_create1(1));
  SHOW(control(e, EPOLL_CTL_ADD, 999, EPOLLIN, 1));
  SHOW(control(999, EPOLL_CTL_ADD, e, EPOLLIN, 1));
  SHOW(control(v, EPOLL_CTL_ADD, e, EPOLLIN, 1));
  SHOW(control(e, EPOLL_CTL_ADD, e, EPOLLIN, 1));
  SHOW(control(e, EPOLL_CTL_ADD, file, EPOLLIN, 1));
  SHOW(control(file, EPOLL_CTL_ADD, file, EPOLLIN, 1));
  SHOW(control(e, EPOLL_CTL_MOD, v, EPOLLIN, 1));
  SHOW(control(e, EPOLL_CTL_DEL, v, EPOLLIN, 1));
  SHOW(control(e, 9, v, EPOLLIN, 1));
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, v, (void*)8));
  SHOW(epoll_wait(e, out, 0, 0));
  SHOW(epoll_wait(e, out, negative, 0));
  SHOW(epoll_wait(v, out, 1, 0));
  unsigned long one = 1;
  control(e, EPOLL_CTL_ADD, v, EPOLLIN | EPOLLET, 1);
  write(v, &one, 8);
  SHOW(epoll_wait(e, bad_address, 1, 0));
  SHOW(epoll_wait(e, out, 1, 0));
  read(v, &one, 8);
  control(e, EPOLL_CTL_DEL, v, 0, 1);
  SHOW(epoll_wait(999, out, 1, 0));
  SHOW(control(e, EPOLL_CTL_ADD, v, EPOLLIN | EPOLLEXCLUSIVE | EPOLLRDHUP, 1));
  SHOW(control(e, EPOLL_CTL_ADD, v, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1));
  SHOW(control(e, EPOLL_CTL_ADD, other, EPOLLIN | EPOLLEXCLUSIVE, 1));
  SHOW(control(e, EPOLL_CTL_ADD, v, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, 1));
  SHOW(control(e, EPOLL_CTL_ADD, v, EPOLLIN, 1));
  SHOW(control(e, EPOLL_CTL_MOD, v, EPOLLIN, 1));
  SHOW(control(e, EPOLL_CTL_DEL, v, EPOLLIN, 1));
  SHOW(control(e, EPOLL_CTL_ADD, v, EPOLLIN, 1));
  SHOW(control(e, EPOLL_CTL_MOD, v, EPOLLIN | EPOLLEXCLUSIVE, 1));
  SHOW(read(e, b, 1));
  struct timespec t = {0, 1000000}, bad = {0, -1};
  SHOW(syscall(SYS_epoll_pwait2, e, out, 2, &t, 0, 8));
  SHOW(syscall(SYS_epoll_pwait2, e, out, 2, &bad, 0, 8));
  sigset_t none;
  sigemptyset(&none);
  SHOW(syscall(SYS_epoll_pwait, e, out, 2, 1, &none, 4));
  SHOW(epoll_pwait(e, out, 2, 1, &none));
  int chain[8];
  for (int i = 0; i < 8; ++i) chain[i] = epoll_create1(0);
  for (int i = 1; i < 8; ++i) SHOW(control(chain[i], EPOLL_CTL_ADD, chain[i - 1], EPOLLIN, i));
  SHOW(control(chain[0], EPOLL_CTL_ADD, chain[2], EPOLLIN, 1));
  close(e), close(other), close(v), close(file);
  for (int i = 0; i < 8; ++i) close(chain[i]);
}

static void nesting(void) {
  int inner = epoll_create1(0), outer = epoll_create1(0), p[2];
  pipe(p);
  SHOW(control(inner, EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
  SHOW(control(outer, EPOLL_CTL_ADD, inner, EPOLLIN, 2));
  show(outer);
  write(p[1], "x", 1);
  struct pollfd poller = {outer, POLLIN, 0};
  SHOW(poll(&poller, 1, 0));
  show(outer);
  show(inner);
  show(outer);
  read(p[0], b, 1);
  show(outer);
  SHOW(control(outer, EPOLL_CTL_MOD, inner, EPOLLIN | EPOLLET, 3));
  write(p[1], "x", 1);
  show(outer);
  show(outer);
  write(p[1], "x", 1);
  show(outer);
  close(inner);
  show(outer);
  close(outer), close(p[0]), close(p[1]);
}

static int shared, wakes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void* waiter(void* p) {
  struct epoll_event out;
  int n = epoll_wait(p ? *(int*)p : shared, &out, 1, 300);
  pthread_mutex_lock(&lock);
  wakes += n == 1;
  pthread_mutex_unlock(&lock);
  return 0;
}
// How many of four threads wake for one event.
static void woken(unsigned events, int separate) {
  int v = eventfd(0, 0), each[4];
  pthread_t t[4];
  shared = epoll_create1(0);
  wakes = 0;
  if (!separate) control(shared, EPOLL_CTL_ADD, v, events, 1);
  for (int i = 0; i < 4; ++i) {
    each[i] = epoll_create1(0);
    if (separate) control(each[i], EPOLL_CTL_ADD, v, events, 1);
    pthread_create(&t[i], 0, waiter, separate ? &each[i] : 0);
  }
  usleep(50000);
  unsigned long one = 1;
  write(v, &one, 8);
  for (int i = 0; i < 4; ++i) pthread_join(t[i], 0);
  printf("%s, %s: %d\n", events & EPOLLET ? "edge" : events & EPOLLEXCLUSIVE ? "exclusive" : "plain", separate ? "an epoll each" : "one epoll", wakes);
  close(v), close(shared);
  for (int i = 0; i < 4; ++i) close(each[i]);
}

static void many(void) {
  struct rlimit limit = {4096, 4096};
  setrlimit(RLIMIT_NOFILE, &limit);
  int e = epoll_create1(0), pairs[500][2];
  for (int i = 0; i < 500; ++i) {
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i])) perror("socketpair");
    control(e, EPOLL_CTL_ADD, pairs[i][0], EPOLLIN, i);
  }
  show(e);
  for (int i = 0; i < 500; i += 100) write(pairs[i][1], "x", 1);
  show(e);
  for (int i = 0; i < 500; ++i) write(pairs[i][1], "x", 1);
  static struct epoll_event all[1000];
  SHOW(epoll_wait(e, all, 1000, 0));
  static char seen[500];
  int distinct = 0;
  for (int round = 0; round < 60; ++round) {  // items take turns
    struct epoll_event out[10];
    int n = epoll_wait(e, out, 10, 0);
    for (int i = 0; i < n; ++i) distinct += !seen[out[i].data.u32], seen[out[i].data.u32] = 1;
  }
  printf("%d\n", distinct);
  for (int i = 0; i < 500; ++i) close(pairs[i][0]), close(pairs[i][1]);
  show(e);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  modes();
  errors();
  nesting();
  woken(EPOLLIN | EPOLLET, 0);
  woken(EPOLLIN | EPOLLET | EPOLLEXCLUSIVE, 1);
  woken(EPOLLIN, 1);
  many();
  return 0;
}
