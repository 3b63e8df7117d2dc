// flags: -pthread
// Pipes, eventfd, timerfd, epoll (level, edge, oneshot), poll, select, socketpair with descriptors in messages.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>
#define SHOW(e) do { errno = 0; long show_ = (long)(e); printf("%s: %ld %d\n", #e, show_, errno); } while (0)
static void* writer(void* p) {
  usleep(5000);
  write(*(int*)p, "late", 4);
  return 0;
}
int main(void) {
  int p[2];
  char b[70000];
  SHOW(pipe2(p, O_NONBLOCK));
  SHOW(read(p[0], b, 1));
  memset(b, 'p', sizeof b);
  SHOW(write(p[1], b, sizeof b));
  SHOW(write(p[1], b, 1));
  SHOW(fcntl(p[0], F_GETPIPE_SZ));
  SHOW(read(p[0], b, sizeof b));
  fcntl(p[0], F_SETFL, 0);
  pthread_t t;
  pthread_create(&t, 0, writer, &p[1]);
  SHOW(read(p[0], b, 10));
  pthread_join(t, 0);

  int e = epoll_create1(0), v = eventfd(0, EFD_NONBLOCK);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1}, out[8];
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &event));
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, p[0], &event));
  event.data.u64 = 2;
  event.events = EPOLLIN | EPOLLET;
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, v, &event));
  SHOW(epoll_wait(e, out, 8, 0));
  uint64_t one = 3;
  SHOW(write(v, &one, 8));
  SHOW(epoll_wait(e, out, 8, 1000));
  printf("%lu %x\n", out[0].data.u64, out[0].events);
  SHOW(epoll_wait(e, out, 8, 0));
  SHOW(read(v, &one, 8));
  printf("%lu\n", one);
  SHOW(read(v, &one, 8));
  write(p[1], "x", 1);
  SHOW(epoll_wait(e, out, 8, 0));
  SHOW(epoll_wait(e, out, 8, 0));
  event.events = EPOLLIN | EPOLLONESHOT;
  event.data.u64 = 5;
  SHOW(epoll_ctl(e, EPOLL_CTL_MOD, p[0], &event));
  SHOW(epoll_wait(e, out, 8, 0));
  SHOW(epoll_wait(e, out, 8, 0));
  SHOW(epoll_ctl(e, EPOLL_CTL_DEL, p[0], 0));
  SHOW(epoll_ctl(e, EPOLL_CTL_DEL, p[0], 0));
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, e, &event));
  int file = open("/etc/passwd", O_RDONLY);
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, file, &event));

  struct pollfd fds[3] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}, {9999, POLLIN, 0}};
  SHOW(poll(fds, 3, 0));
  printf("%x %x %x\n", fds[0].revents, fds[1].revents, fds[2].revents);
  read(p[0], b, 100);
  SHOW(poll(fds, 1, 5));
  fd_set set;
  FD_ZERO(&set);
  FD_SET(p[0], &set);
  struct timeval tv = {0, 2000};
  SHOW(select(p[0] + 1, &set, 0, 0, &tv));
  pthread_create(&t, 0, writer, &p[1]);
  fds[0].revents = 0;
  SHOW(poll(fds, 1, 2000));
  pthread_join(t, 0);
  read(p[0], b, 100);
  close(p[1]);
  SHOW(poll(fds, 1, 0));
  printf("%x\n", fds[0].revents);
  SHOW(read(p[0], b, 1));

  int timer = timerfd_create(CLOCK_MONOTONIC, 0);
  struct itimerspec spec = {{0, 1000000}, {0, 2000000}};
  SHOW(timerfd_settime(timer, 0, &spec, 0));
  uint64_t ticks;
  SHOW(read(timer, &ticks, 8));
  event.events = EPOLLIN;
  SHOW(epoll_ctl(e, EPOLL_CTL_ADD, timer, &event));
  SHOW(epoll_wait(e, out, 8, 1000));

  int s[2];
  SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
  SHOW(write(s[0], "abc", 3));
  SHOW(read(s[1], b, 10));
  struct iovec iov = {"fd", 2};
  union {
    char buffer[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof control.buffer};
  struct cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &file, sizeof file);
  SHOW(sendmsg(s[0], &message, 0));
  iov.iov_base = b;
  iov.iov_len = 10;
  memset(control.buffer, 0, sizeof control.buffer);
  SHOW(recvmsg(s[1], &message, 0));
  int received = -1;
  c = CMSG_FIRSTHDR(&message);
  if (c) memcpy(&received, CMSG_DATA(c), sizeof received);
  SHOW(received != file && read(received, b, 4) == 4);
  SHOW(shutdown(s[0], SHUT_WR));
  SHOW(read(s[1], b, 1));
  SHOW(write(s[1], "back", 4));
  SHOW(read(s[0], b, 10));
  int type = 0;
  socklen_t size = sizeof type;
  SHOW(getsockopt(s[0], SOL_SOCKET, SO_TYPE, &type, &size));
  printf("%d\n", type);
  SHOW(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
  write(s[0], "one", 3);
  write(s[0], "second", 6);
  SHOW(read(s[1], b, 100));
  SHOW(read(s[1], b, 2));
  fcntl(s[1], F_SETFL, O_NONBLOCK);
  SHOW(read(s[1], b, 2));

  // Sockets that nobody answers.
  struct sockaddr_un name = {AF_UNIX, "/no/such/socket"};
  struct sockaddr* address = (struct sockaddr*)&name;
  int lone = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
  SHOW(connect(lone, address, sizeof name));
  SHOW(connect(datagram, address, sizeof name));
  SHOW(sendto(datagram, "x", 1, MSG_NOSIGNAL, address, sizeof name));
  strcpy(name.sun_path, "/");
  SHOW(connect(lone, address, sizeof name));
  SHOW(connect(lone, address, 1));
  SHOW(read(lone, b, 1));
  SHOW(send(lone, "x", 1, MSG_NOSIGNAL));
  SHOW(send(datagram, "x", 1, MSG_NOSIGNAL));
  SHOW(shutdown(lone, SHUT_RDWR));
  size = sizeof name;
  SHOW(getpeername(lone, address, &size));
  return 0;
}
