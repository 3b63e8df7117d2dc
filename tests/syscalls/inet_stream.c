// flags: -pthread
// TCP over the loopback: connections, blocking and not, half-close, resets, messages, epoll, dual stack. Prints no port and no time.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#define SHOW(e) do { errno = 0; long show_ = (long)(e); int error_ = errno; printf("%s: %ld %d\n", #e, show_, show_ < 0 ? error_ : 0); } while (0)

static struct sockaddr_in address4(const char* text, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, text, &a.sin_addr);
  return a;
}
static struct sockaddr_in6 address6(const char* text, int port) {
  struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  inet_pton(AF_INET6, text, &a.sin6_addr);
  return a;
}
static int port_of(int fd) {
  struct sockaddr_in6 a;
  socklen_t size = sizeof a;
  getsockname(fd, (void*)&a, &size);
  return ntohs(a.sin6_port);
}
static int events_of(int fd, int wanted, int wait_ms) {
  struct pollfd p = {.fd = fd, .events = wanted};
  return poll(&p, 1, wait_ms) <= 0 ? 0 : p.revents;
}
static int error_of(int fd) {
  int error = -1;
  socklen_t size = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}
static int listener, port;
static void pair(int* client, int* server) {
  struct sockaddr_in to = address4("127.0.0.1", port);
  *client = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(*client, (void*)&to, sizeof to) != 0) perror("connect");
  *server = accept(listener, 0, 0);
}
static void* late_writer(void* p) {
  usleep(20000);
  write(*(int*)p, "later", 5);
  return 0;
}
static char read_all[100];
static void* bulk_reader(void* p) {
  static char b[65536];
  long total = 0, sum = 0, n;
  while ((n = read(*(int*)p, b, sizeof b)) > 0) {
    for (long i = 0; i < n; ++i) sum += (unsigned char)b[i] * (1 + (total + i) % 7);
    total += n;
  }
  sprintf(read_all, "reader: %ld bytes, sum %ld, end %ld\n", total, sum, n);
  return 0;
}
static char accepted[100];
static void* acceptor(void* p) {
  struct sockaddr_in peer;
  socklen_t size = sizeof peer;
  int s = accept4(*(int*)p, (void*)&peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
  sprintf(accepted, "accept4: %d flags %d %d, peer size %d %s\n", s >= 0, !!(fcntl(s, F_GETFL) & O_NONBLOCK), fcntl(s, F_GETFD), size,
         inet_ntoa(peer.sin_addr));
  close(s);
  return 0;
}

static void connecting(void) {
  puts("-- connecting");
  int c, s;
  struct sockaddr_in a = address4("127.0.0.1", 0);
  SHOW(bind(listener, (void*)&a, sizeof a));
  port = port_of(listener);
  SHOW(bind(listener, (void*)&a, sizeof a));
  c = socket(AF_INET, SOCK_STREAM, 0);
  a = address4("127.0.0.1", port);
  SHOW(bind(c, (void*)&a, sizeof a));
  SHOW(connect(c, (void*)&a, sizeof a));
  SHOW(error_of(c));
  SHOW(accept(listener, 0, 0));
  SHOW(listen(listener, 16));
  SHOW(listen(listener, 32));
  SHOW(connect(c, (void*)&a, sizeof a));
  SHOW(connect(c, (void*)&a, sizeof a));
  struct sockaddr_in peer;
  socklen_t size = sizeof peer;
  SHOW(s = accept(listener, (void*)&peer, &size) >= 0);
  printf("%d %d %d\n", size, peer.sin_family, ntohs(peer.sin_port) == port_of(c));
  size = 4;
  SHOW(getpeername(c, (void*)&peer, &size));
  printf("%d\n", size);
  SHOW(getpeername(listener, (void*)&peer, &size));
  SHOW(listen(c, 1));
  SHOW(connect(listener, (void*)&a, sizeof a));
  close(c);
  pthread_t t;
  pthread_create(&t, 0, acceptor, &listener);
  usleep(5000);
  c = socket(AF_INET, SOCK_STREAM, 0);
  a = address4("0.0.0.0", port);
  SHOW(connect(c, (void*)&a, sizeof a));
  pthread_join(t, 0);
  fputs(accepted, stdout);
  close(c);
  fcntl(listener, F_SETFL, O_NONBLOCK);
  SHOW(accept(listener, 0, 0));
  SHOW(events_of(listener, POLLIN | POLLOUT, 0));
  fcntl(listener, F_SETFL, 0);
}

static void nonblocking_connect(void) {
  puts("-- nonblocking connect");
  struct sockaddr_in a = address4("127.0.0.1", port);
  int c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  SHOW(events_of(c, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(connect(c, (void*)&a, sizeof a));
  SHOW(events_of(c, POLLIN | POLLOUT | POLLRDHUP, 1000));
  SHOW(error_of(c));
  SHOW(connect(c, (void*)&a, sizeof a));
  SHOW(connect(c, (void*)&a, sizeof a));
  int s = accept(listener, 0, 0);
  char b[8];
  SHOW(read(c, b, 8));
  SHOW(write(c, "ab", 2));
  SHOW(read(s, b, 8));
  close(c);
  close(s);
  // nobody listens
  int other = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in nobody = address4("127.0.0.1", 0);
  bind(other, (void*)&nobody, sizeof nobody);
  nobody = address4("127.0.0.1", port_of(other));
  close(other);
  c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  SHOW(connect(c, (void*)&nobody, sizeof nobody));
  SHOW(events_of(c, POLLIN | POLLOUT, 1000));
  SHOW(error_of(c));
  SHOW(error_of(c));
  SHOW(connect(c, (void*)&a, sizeof a));
  SHOW(connect(c, (void*)&a, sizeof a));
  SHOW(events_of(c, POLLOUT, 1000));
  close(accept(listener, 0, 0));
  close(c);
  c = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(connect(c, (void*)&nobody, sizeof nobody));
  SHOW(send(c, "x", 1, MSG_NOSIGNAL));
  SHOW(recv(c, b, 1, 0));
  SHOW(connect(c, (void*)&a, sizeof a));
  close(accept(listener, 0, 0));
  close(c);
  c = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(send(c, "x", 1, MSG_NOSIGNAL));
  SHOW(recv(c, b, 1, 0));
  SHOW(shutdown(c, SHUT_RDWR));
  close(c);
}

static void data(void) {
  puts("-- data");
  int c, s;
  char b[64];
  pair(&c, &s);
  SHOW(write(c, "hello world", 11));
  SHOW(recv(s, b, 5, MSG_PEEK));
  SHOW(recv(s, b, 5, 0));
  printf("%.5s\n", b);
  int left = -1;
  SHOW(ioctl(s, FIONREAD, &left));
  printf("left %d\n", left);
  SHOW(recv(s, b, sizeof b, MSG_DONTWAIT));
  SHOW(recv(s, b, sizeof b, MSG_DONTWAIT));
  SHOW(recv(s, b, 1, MSG_OOB));
  SHOW(recv(s, b, 1, MSG_ERRQUEUE | MSG_DONTWAIT));
  SHOW(recv(s, b, 0, MSG_DONTWAIT));
  SHOW(send(c, b, 0, 0));
  SHOW(read(s, b, 0));
  pthread_t t;
  pthread_create(&t, 0, late_writer, &c);
  SHOW(recv(s, b, sizeof b, 0));
  pthread_join(t, 0);
  SHOW(write(c, "123", 3));
  pthread_create(&t, 0, late_writer, &c);
  SHOW(recv(s, b, 8, MSG_WAITALL));
  printf("%.8s\n", b);
  pthread_join(t, 0);
  SHOW(send(c, "more", 4, MSG_MORE));
  SHOW(send(c, "less", 4, 0));
  usleep(10000);
  SHOW(recv(s, b, 3, MSG_TRUNC));
  SHOW(recv(s, b, sizeof b, 0));
  printf("%.5s\n", b);
  struct iovec parts[2] = {{"one ", 4}, {"two", 3}};
  struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
  SHOW(sendmsg(c, &m, 0));
  struct iovec in[2] = {{b, 2}, {b + 10, 20}};
  struct sockaddr_in from;
  m = (struct msghdr){.msg_iov = in, .msg_iovlen = 2, .msg_name = &from, .msg_namelen = sizeof from};
  SHOW(recvmsg(s, &m, 0));
  printf("%.2s|%.5s name %d flags %x\n", b, b + 10, m.msg_namelen, m.msg_flags);
  socklen_t size = sizeof from;
  write(c, "z", 1);
  SHOW(recvfrom(s, b, 9, 0, (void*)&from, &size));
  printf("%d\n", size);
  struct timeval limit = {0, 20000};
  SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
  SHOW(recv(s, b, 1, 0));
  int outq = -1;
  SHOW(ioctl(c, TIOCOUTQ, &outq));
  SHOW(ioctl(s, 0x8905 /* SIOCATMARK */, &outq));
  printf("%d\n", outq);
  close(c);
  close(s);

  pair(&c, &s);
  pthread_create(&t, 0, bulk_reader, &s);
  static char big[300000];
  for (unsigned i = 0; i < sizeof big; ++i) big[i] = (char)(i * 31 + i / 253);
  long sent = 0;
  for (int i = 0; i < 10; ++i) sent += write(c, big, sizeof big);
  printf("sent %ld\n", sent);
  SHOW(shutdown(c, SHUT_WR));
  pthread_join(t, 0);
  fputs(read_all, stdout);
  close(c);
  close(s);
  // a full pipe, not blocking
  pair(&c, &s);
  fcntl(c, F_SETFL, O_NONBLOCK);
  long filled = 0, n;
  while ((n = write(c, big, sizeof big)) > 0) filled += n;
  printf("full: %d %d, writable %d\n", errno == EAGAIN, filled > 50000, events_of(c, POLLOUT, 0));
  long drained = 0;
  while (drained < filled && (n = read(s, big, sizeof big)) > 0) drained += n;
  printf("drained all %d, writable %d\n", drained == filled, events_of(c, POLLOUT, 1000));
  close(c);
  close(s);
}

static void endings(void) {
  puts("-- endings");
  int c, s;
  char b[64];
  pair(&c, &s);
  SHOW(write(c, "last", 4));
  SHOW(shutdown(c, SHUT_WR));
  SHOW(shutdown(c, SHUT_WR));
  SHOW(send(c, "x", 1, MSG_NOSIGNAL));
  usleep(5000);
  SHOW(events_of(s, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(read(s, b, 64));
  SHOW(read(s, b, 64));
  SHOW(read(s, b, 64));
  SHOW(write(s, "answer", 6));
  SHOW(read(c, b, 64));
  close(s);
  SHOW(read(c, b, 64));
  SHOW(events_of(c, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(shutdown(c, 7));
  close(c);
  // the other end is gone
  pair(&c, &s);
  close(s);
  usleep(5000);
  SHOW(events_of(c, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(send(c, "x", 1, MSG_NOSIGNAL));
  usleep(5000);
  SHOW(events_of(c, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(send(c, "x", 1, MSG_NOSIGNAL));
  SHOW(read(c, b, 64));
  close(c);
  // unread data: the close is a reset
  pair(&c, &s);
  write(c, "unread", 6);
  usleep(5000);
  close(s);
  usleep(5000);
  SHOW(events_of(c, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(read(c, b, 64));
  SHOW(read(c, b, 64));
  SHOW(send(c, "x", 1, MSG_NOSIGNAL));
  close(c);
  // lingering for no time is a reset
  pair(&c, &s);
  struct linger linger = {1, 0};
  SHOW(setsockopt(s, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
  close(s);
  usleep(5000);
  SHOW(error_of(c));
  SHOW(error_of(c));
  SHOW(read(c, b, 64));
  close(c);
  // reading is closed here
  pair(&c, &s);
  SHOW(shutdown(s, SHUT_RD));
  SHOW(read(s, b, 64));
  SHOW(events_of(s, POLLIN | POLLOUT | POLLRDHUP, 0));
  close(c);
  close(s);
  // lingering for a while returns when all is acknowledged
  pair(&c, &s);
  linger.l_linger = 5;
  SHOW(setsockopt(c, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
  write(c, "lingering", 9);
  SHOW(close(c));
  SHOW(read(s, b, 64));
  SHOW(read(s, b, 64));
  close(s);
}

static void* acceptor_of_nothing(void* p) {
  errno = 0;
  int s = accept(*(int*)p, 0, 0);
  sprintf(accepted, "accept of a listener that was shut down: %d %d\n", s, errno);
  return 0;
}

static void listeners(void) {
  puts("-- listeners");
  int l = socket(AF_INET, SOCK_STREAM, 0), c;
  struct sockaddr_in a;
  SHOW(listen(l, 1));  // without a name: a port is chosen
  a = address4("127.0.0.1", port_of(l));
  printf("chosen %d\n", a.sin_port != 0);
  c = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(connect(c, (void*)&a, sizeof a));
  pthread_t t;
  close(accept(l, 0, 0));
  pthread_create(&t, 0, acceptor_of_nothing, &l);
  usleep(10000);
  SHOW(shutdown(l, SHUT_RD));
  pthread_join(t, 0);
  fputs(accepted, stdout);
  close(l);
  close(c);
  // connections that nobody accepted end with the listener
  l = socket(AF_INET, SOCK_STREAM, 0);
  listen(l, 5);
  a = address4("127.0.0.1", port_of(l));
  c = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(connect(c, (void*)&a, sizeof a));
  close(l);
  usleep(5000);
  char b[4];
  SHOW(read(c, b, 4));
  close(c);
  // the port may be used again at once with SO_REUSEADDR, and shared with SO_REUSEPORT
  int one = 1, l2;
  l = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(l, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  a = address4("127.0.0.1", 0);
  SHOW(bind(l, (void*)&a, sizeof a));
  a = address4("127.0.0.1", port_of(l));
  SHOW(listen(l, 5));
  l2 = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(bind(l2, (void*)&a, sizeof a));
  setsockopt(l2, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  SHOW(bind(l2, (void*)&a, sizeof a));
  setsockopt(l2, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  SHOW(bind(l2, (void*)&a, sizeof a));
  SHOW(listen(l2, 5));
  close(l2);
  close(l);
}

static int exclusive_woken;
static void* exclusive_waiter(void* p) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE}, out;
  int e = epoll_create1(0);
  epoll_ctl(e, EPOLL_CTL_ADD, *(int*)p, &event);
  __sync_fetch_and_add(&exclusive_woken, epoll_wait(e, &out, 1, 500));
  close(e);
  return 0;
}
static int accepted_by_all;
static void* one_of_many(void* p) {
  int s = accept(*(int*)p, 0, 0);
  if (s >= 0) {
    __sync_fetch_and_add(&accepted_by_all, 1);
    close(s);
  }
  return 0;
}
// One connection wakes one of those who wait for it.
static void one_by_one(void) {
  puts("-- one by one");
  pthread_t t[4];
  int c[4];
  struct sockaddr_in to = address4("127.0.0.1", port);
  for (int i = 0; i < 3; ++i) pthread_create(&t[i], 0, exclusive_waiter, &listener);
  usleep(100000);
  c[0] = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(connect(c[0], (void*)&to, sizeof to));
  for (int i = 0; i < 3; ++i) pthread_join(t[i], 0);
  printf("woken %d\n", exclusive_woken);
  close(accept(listener, 0, 0));
  close(c[0]);
  for (int i = 0; i < 4; ++i) pthread_create(&t[i], 0, one_of_many, &listener);
  usleep(20000);
  for (int i = 0; i < 4; ++i) connect(c[i] = socket(AF_INET, SOCK_STREAM, 0), (void*)&to, sizeof to);
  for (int i = 0; i < 4; ++i) pthread_join(t[i], 0);
  printf("accepted by four: %d\n", accepted_by_all);
  for (int i = 0; i < 4; ++i) close(c[i]);
}

// Any-address is this machine, by the address that the socket is bound to.
static void to_any(const char* from, const char* to) {
  struct sockaddr_in6 a = address6(from, 0), peer;
  char text[64] = "none";
  socklen_t size = sizeof peer;
  int c = socket(AF_INET6, SOCK_STREAM, 0), l = socket(AF_INET6, SOCK_STREAM, 0);
  if (listen(l, 1) != 0 || bind(c, (void*)&a, sizeof a) != 0) perror("to_any");
  a = address6(to, port_of(l));
  SHOW(connect(c, (void*)&a, sizeof a));
  if (getpeername(c, (void*)&peer, &size) == 0) inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text);
  printf("%s to %s: %s\n", from, to, text);
  close(c);
  close(l);
}

static volatile int handled, enough;
static void handler(int number) { handled = number; }
static void* signaller(void* p) {  // again and again: a busy machine may not sleep yet
  while (!enough) {
    usleep(20000);
    pthread_kill(*(pthread_t*)p, SIGUSR1);
  }
  return 0;
}
static void* wake_up(void* p) {
  usleep(100000);
  write(*(int*)p, "x", 1);
  return 0;
}
// signal(7): with a time limit, EINTR in spite of SA_RESTART.
static void interrupted(void) {
  puts("-- interrupted");
  int c, s;
  char b[8];
  static char big[1 << 20];
  struct timeval limit = {30, 0}, none = {0, 0};
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, 0);
  pthread_t self = pthread_self(), t, t2;
  pair(&c, &s);
  fcntl(s, F_SETFL, O_NONBLOCK);
  for (int i = 0; i < 5; ++i) {
    while (write(s, big, sizeof big) > 0) continue;
    usleep(20000);  // what the other end takes
  }
  while (write(s, b, 1) > 0) continue;
  fcntl(s, F_SETFL, 0);
  pthread_create(&t, 0, signaller, &self);
  pthread_create(&t2, 0, wake_up, &c);
  SHOW(recv(s, b, 8, 0));
  pthread_join(t2, 0);
  setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  pthread_create(&t2, 0, wake_up, &c);
  SHOW(read(s, b, 8));
  pthread_join(t2, 0);
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  SHOW(recv(s, b, 8, 0));
  SHOW(read(s, b, 8));
  SHOW(send(s, b, 8, 0));
  SHOW(write(s, b, 8));
  setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  SHOW(accept(listener, 0, 0));
  setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none);
  enough = 1;
  pthread_join(t, 0);
  printf("handled %d\n", handled);
  close(c);
  close(s);
}

static void watching(void) {
  puts("-- epoll");
  int c, s, e = epoll_create1(0);
  char b[64];
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.u64 = 1}, out[8];
  pair(&c, &s);
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, s, &event));
  SHOW(epoll_wait(e, out, 8, 0));
  write(c, "abc", 3);
  SHOW(epoll_wait(e, out, 8, 1000));
  printf("%x\n", out[0].events);
  SHOW(epoll_wait(e, out, 8, 0));
  read(s, b, 64);
  SHOW(epoll_wait(e, out, 8, 0));
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  SHOW(epoll_ctl(e, EPOLL_CTL_MOD, s, &event));
  SHOW(epoll_wait(e, out, 8, 0));
  printf("%x\n", out[0].events);
  SHOW(epoll_wait(e, out, 8, 0));
  write(c, "abc", 3);
  SHOW(epoll_wait(e, out, 8, 1000));
  printf("%x\n", out[0].events);
  SHOW(epoll_wait(e, out, 8, 0));
  write(c, "def", 3);
  SHOW(epoll_wait(e, out, 8, 1000));
  SHOW(read(s, b, 64));
  SHOW(epoll_wait(e, out, 8, 0));
  shutdown(c, SHUT_WR);
  SHOW(epoll_wait(e, out, 8, 1000));
  printf("%x\n", out[0].events);
  close(c);
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = 2;
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, listener, &event));
  close(s);
  int c2, n = 0;
  struct sockaddr_in to = address4("127.0.0.1", port);
  c = socket(AF_INET, SOCK_STREAM, 0);
  c2 = socket(AF_INET, SOCK_STREAM, 0);
  connect(c, (void*)&to, sizeof to);
  connect(c2, (void*)&to, sizeof to);
  SHOW(epoll_wait(e, out, 8, 1000));
  printf("%lu %x\n", (unsigned long)out[0].data.u64, out[0].events);
  fcntl(listener, F_SETFL, O_NONBLOCK);
  while ((s = accept(listener, 0, 0)) >= 0) {
    ++n;
    close(s);
  }
  printf("accepted %d then %d\n", n, errno);
  SHOW(epoll_wait(e, out, 8, 0));
  fcntl(listener, F_SETFL, 0);
  close(c);
  close(c2);
  close(e);
}

static void dual_stack(void) {
  puts("-- IPv6");
  int l = socket(AF_INET6, SOCK_STREAM, 0), c, s, zero = 0, one = 1;
  char text[64];
  struct sockaddr_in6 a = address6("::", 0), peer;
  socklen_t size = sizeof peer;
  SHOW(setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero));
  SHOW(bind(l, (void*)&a, sizeof a));
  SHOW(setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one));
  SHOW(listen(l, 5));
  int p = port_of(l);
  struct sockaddr_in a4 = address4("127.0.0.1", p);
  c = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(connect(c, (void*)&a4, sizeof a4));
  SHOW((s = accept(l, (void*)&peer, &size)) >= 0);
  printf("%d %s\n", size, inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text));
  getsockname(s, (void*)&peer, &size);
  printf("%d %s\n", size, inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text));
  close(c);
  close(s);
  c = socket(AF_INET6, SOCK_STREAM, 0);
  a = address6("::1", p);
  SHOW(connect(c, (void*)&a, sizeof a));
  SHOW((s = accept(l, (void*)&peer, &size)) >= 0);
  printf("%d %s scope %d\n", size, inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text), peer.sin6_scope_id);
  SHOW(write(c, "six", 3));
  SHOW(read(s, text, 64));
  close(c);
  close(s);
  c = socket(AF_INET6, SOCK_STREAM, 0);
  a = address6("::ffff:127.0.0.1", p);
  SHOW(connect(c, (void*)&a, sizeof a));
  size = sizeof peer;
  getpeername(c, (void*)&peer, &size);
  printf("%s\n", inet_ntop(AF_INET6, &peer.sin6_addr, text, sizeof text));
  close(c);
  c = socket(AF_INET6, SOCK_STREAM, 0);
  SHOW(setsockopt(c, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one));
  SHOW(connect(c, (void*)&a, sizeof a));
  close(c);
  close(l);
  l = socket(AF_INET6, SOCK_STREAM, 0);
  setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  a = address6("::", p);
  SHOW(bind(l, (void*)&a, sizeof a));
  SHOW(listen(l, 5));
  c = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(connect(c, (void*)&a4, sizeof a4));
  close(c);
  close(l);
}

int main(void) {
  setvbuf(stdout, 0, _IOLBF, 0);
  signal(SIGPIPE, SIG_IGN);
  listener = socket(AF_INET, SOCK_STREAM, 0);
  connecting();
  nonblocking_connect();
  data();
  endings();
  listeners();
  watching();
  dual_stack();
  one_by_one();
  to_any("::", "::");
  to_any("::", "::ffff:0.0.0.0");
  to_any("::1", "::");
  to_any("::ffff:127.0.0.5", "::ffff:0.0.0.0");
  interrupted();
  puts("-- errors");
  int c = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = address4("127.0.0.1", 1);
  struct sockaddr_in6 a6 = address6("::1", 1);
  struct sockaddr any = {.sa_family = AF_UNSPEC};
  SHOW(connect(c, (void*)&a, 8));
  SHOW(connect(c, (void*)&a, 1));
  SHOW(connect(c, (void*)&a6, sizeof a6));
  SHOW(bind(c, (void*)&a6, sizeof a6));
  SHOW(bind(c, (void*)&a, 8));
  SHOW(connect(c, &any, sizeof any));
  a = address4("203.0.113.77", 80);
  SHOW(bind(c, (void*)&a, sizeof a));
  SHOW(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
  SHOW(socket(AF_INET, SOCK_SEQPACKET, 0));
  SHOW(socket(AF_INET, SOCK_RAW, 0));
  SHOW(socket(AF_INET6, SOCK_DGRAM, IPPROTO_TCP));
  SHOW(recv(c, &a, 1, MSG_DONTWAIT));
  SHOW(accept4(c, 0, 0, 1));
  SHOW(lseek(c, 0, SEEK_SET));
  SHOW(pread(c, &a, 1, 0));
  return 0;
}
