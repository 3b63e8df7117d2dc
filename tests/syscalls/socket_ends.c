// flags: -pthread
// What sockets say when something ends: errors in the middle of a call, shutdown, a failed connect, full queues; and what is waited for.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#define SHOW(e) do { errno = 0; long show_ = (long)(e); int error_ = errno; printf("%s: %ld %d\n", #e, show_, show_ < 0 ? error_ : 0); } while (0)

static char bytes[4 << 20];
static struct sockaddr_in address4(const char* text, int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, text, &a.sin_addr);
  return a;
}
static struct sockaddr_in name_of(int fd) {
  struct sockaddr_in a;
  socklen_t size = sizeof a;
  getsockname(fd, (void*)&a, &size);
  return a;
}
static int events_of(int fd, int wanted, int wait_ms) {
  struct pollfd p = {.fd = fd, .events = wanted};
  return poll(&p, 1, wait_ms) <= 0 ? 0 : p.revents;
}
static int option_of(int fd, int level, int option) {
  int value = -1;
  socklen_t size = sizeof value;
  return getsockopt(fd, level, option, &value, &size) == 0 ? value : -errno;
}
static int set(int fd, int level, int option, int value) { return setsockopt(fd, level, option, &value, sizeof value); }
static int bound(int type) {  // to a port of 127.0.0.1
  struct sockaddr_in a = address4("127.0.0.1", 0);
  int fd = socket(AF_INET, type, 0);
  if (bind(fd, (void*)&a, sizeof a) != 0) perror("bind");
  return fd;
}
static void pair(int* client, int* server) {
  int listener = bound(SOCK_STREAM);
  listen(listener, 1);
  struct sockaddr_in to = name_of(listener);
  *client = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(*client, (void*)&to, sizeof to) != 0) perror("connect");
  *server = accept(listener, 0, 0);
  close(listener);
}
static void reset(int fd) {
  struct linger at_once = {1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close(fd);
}
static void* later(void* body) {
  usleep(50000);
  ((void (*)(void))body)();
  return 0;
}
static pthread_t begin_later(void (*body)(void)) {
  pthread_t thread;
  pthread_create(&thread, 0, later, (void*)body);
  return thread;
}
static int one;  // what later() works on
static void reset_one(void) { reset(one); }
static void shut_one(void) { printf("shutdown: %d\n", shutdown(one, SHUT_RDWR) == 0 ? 0 : errno); }

// The call that was under way says how much it moved; the next one says what happened.
static void errors_inside(void) {
  int a;
  pair(&a, &one);
  pthread_t thread = begin_later(reset_one);
  long sent = send(a, bytes, sizeof bytes, MSG_NOSIGNAL);
  printf("send: some %d\n", sent > 0 && sent < (long)sizeof bytes);
  pthread_join(thread, 0);
  SHOW(send(a, bytes, 1, MSG_NOSIGNAL));
  SHOW(send(a, bytes, 1, MSG_NOSIGNAL));
  close(a);

  pair(&a, &one);
  send(one, "abc", 3, 0);
  thread = begin_later(reset_one);
  SHOW(recv(a, bytes, 10, MSG_WAITALL));
  pthread_join(thread, 0);
  SHOW(recv(a, bytes, 10, 0));
  SHOW(recv(a, bytes, 10, 0));
  close(a);
}

static void shutdown_of_udp(void) {
  one = bound(SOCK_DGRAM);
  pthread_t thread = begin_later(shut_one);
  SHOW(recv(one, bytes, 10, 0));
  pthread_join(thread, 0);
  printf("unconnected: %x\n", events_of(one, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(recv(one, bytes, 10, MSG_DONTWAIT));
  close(one);

  int fd = bound(SOCK_DGRAM), other = bound(SOCK_DGRAM);
  struct sockaddr_in to = name_of(fd), from = name_of(other);
  connect(fd, (void*)&from, sizeof from);
  connect(other, (void*)&to, sizeof to);
  SHOW(shutdown(fd, SHUT_WR));
  printf("SHUT_WR: %x\n", events_of(fd, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
  SHOW(shutdown(fd, SHUT_RD));
  printf("both: %x\n", events_of(fd, POLLIN | POLLOUT | POLLRDHUP, 0));
  SHOW(send(other, "abc", 3, 0));
  SHOW(recv(fd, bytes, 10, MSG_DONTWAIT));
  SHOW(recv(fd, bytes, 10, 0));
  close(fd), close(other);
}

static int queued(int from, const struct sockaddr_un* to) {
  int count = 0;
  while (sendto(from, "x", 1, MSG_DONTWAIT, (void*)to, sizeof *to) == 1) ++count;
  return count;
}
// The queue of the receiver was filled by another: there is room again, and epoll says so by an edge.
static void room_of_another(void) {
  struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0room"};
  int receiver = socket(AF_UNIX, SOCK_DGRAM, 0), sender = socket(AF_UNIX, SOCK_DGRAM, 0), other = socket(AF_UNIX, SOCK_DGRAM, 0);
  bind(receiver, (void*)&name, sizeof name);
  connect(sender, (void*)&name, sizeof name);
  int epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLOUT | EPOLLET};
  epoll_ctl(epoll, EPOLL_CTL_ADD, sender, &event);
  SHOW(epoll_wait(epoll, &event, 1, 0));
  printf("some queued: %d\n", queued(other, &name) > 0);
  SHOW(send(sender, "y", 1, MSG_DONTWAIT));
  SHOW(epoll_wait(epoll, &event, 1, 0));
  while (recv(receiver, bytes, 1, MSG_DONTWAIT) == 1) {}
  SHOW(epoll_wait(epoll, &event, 1, 100));
  printf("%x\n", event.events);
  SHOW(send(sender, "y", 1, MSG_DONTWAIT));
  close(receiver), close(sender), close(other), close(epoll);
}

static void peeking(void) {
  int a, b;
  pair(&a, &b);
  send(b, "abc", 3, 0);
  events_of(a, POLLIN, 1000);
  struct timeval limit = {0, 20000};
  setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  SHOW(recv(a, bytes, 10, MSG_PEEK | MSG_WAITALL));
  SHOW(recv(a, bytes, 10, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT));
  SHOW(set(a, SOL_SOCKET, SO_RCVLOWAT, 5));
  SHOW(recv(a, bytes, 10, MSG_PEEK));
  SHOW(recv(a, bytes, 10, MSG_DONTWAIT));
  SHOW(recv(a, bytes, 10, MSG_PEEK | MSG_DONTWAIT));
  close(a), close(b);
}

static int handled;
static void handler(int number) { handled = number; }
static void waiting(void) {
  int pipes[2];
  pipe(pipes);
  close(pipes[1]);
  fd_set set_of, none;
  struct timeval tv = {0, 20000};
  FD_ZERO(&set_of);
  FD_ZERO(&none);
  FD_SET(pipes[0], &set_of);
  SHOW(select(pipes[0] + 1, &none, 0, &set_of, &tv));  // hung up, and nobody asks
  printf("time is up: %d\n", tv.tv_sec == 0 && tv.tv_usec == 0);
  FD_SET(pipes[0], &set_of);
  SHOW(select(pipes[0] + 1, &set_of, 0, &none, &tv));
  close(pipes[0]);
  pipe(pipes);
  close(pipes[0]);
  FD_ZERO(&set_of);
  FD_SET(pipes[1], &set_of);
  tv.tv_usec = 20000;
  SHOW(select(pipes[1] + 1, 0, &set_of, 0, &tv));
  FD_ZERO(&set_of);
  FD_SET(pipes[1], &set_of);
  tv.tv_usec = 20000;
  SHOW(select(pipes[1] + 1, &set_of, 0, 0, &tv));
  close(pipes[1]);

  struct sigaction action = {.sa_handler = handler};
  sigaction(SIGUSR1, &action, 0);
  sigset_t mask, nothing;
  sigemptyset(&mask), sigemptyset(&nothing);
  sigaddset(&mask, SIGUSR1);
  sigprocmask(SIG_BLOCK, &mask, 0);
  struct timespec no_time = {0, 0};
  raise(SIGUSR1);
  SHOW(ppoll(0, 0, &no_time, &nothing));
  SHOW(handled);
  handled = 0, raise(SIGUSR1);
  SHOW(pselect(0, 0, 0, 0, &no_time, &nothing));
  SHOW(handled);
  int epoll = epoll_create1(0);
  struct epoll_event event;
  handled = 0, raise(SIGUSR1);
  SHOW(epoll_pwait(epoll, &event, 1, 0, &nothing));
  SHOW(handled);
  close(epoll);
  sigprocmask(SIG_UNBLOCK, &mask, 0);
}

// A socket keeps the name that it was given, whatever becomes of its connections.
static void names(void) {
  int nobody = bound(SOCK_STREAM), fd = bound(SOCK_STREAM);
  struct sockaddr_in gone = name_of(nobody), was = name_of(fd), any = {.sin_family = AF_UNSPEC}, is;
  close(nobody), close(fd);
  fd = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(bind(fd, (void*)&was, sizeof was));
  SHOW(connect(fd, (void*)&gone, sizeof gone));
  is = name_of(fd);
  printf("after a failed connect: port %d address %d\n", is.sin_port == was.sin_port, is.sin_addr.s_addr == was.sin_addr.s_addr);
  SHOW(connect(fd, (void*)&any, sizeof any));
  is = name_of(fd);
  printf("after AF_UNSPEC: port %d address %d\n", is.sin_port == was.sin_port, is.sin_addr.s_addr == was.sin_addr.s_addr);
  SHOW(listen(fd, 1));
  printf("listens: port %d\n", name_of(fd).sin_port == was.sin_port);
  SHOW(shutdown(fd, SHUT_RD));
  printf("after shutdown: port %d\n", name_of(fd).sin_port == was.sin_port);
  SHOW(listen(fd, 1));
  int client = socket(AF_INET, SOCK_STREAM, 0);
  SHOW(connect(client, (void*)&was, sizeof was));
  int server = accept(fd, 0, 0);
  SHOW(connect(client, (void*)&any, sizeof any));  // a reset
  SHOW(recv(server, bytes, 1, 0));
  SHOW(connect(client, (void*)&was, sizeof was));
  close(fd), close(client), close(server);
}

// Nobody will read: the sender is told.
static void data_after_the_end(void) {
  int a, b;
  pair(&a, &b);
  SHOW(shutdown(a, SHUT_RDWR));
  SHOW(send(b, "abc", 3, MSG_NOSIGNAL));
  printf("%x\n", events_of(b, POLLERR, 1000) & (POLLERR | POLLHUP));
  SHOW(option_of(b, SOL_SOCKET, SO_ERROR));
  SHOW(send(b, "abc", 3, MSG_NOSIGNAL));
  close(a), close(b);
  pair(&a, &b);
  SHOW(shutdown(a, SHUT_RD));  // reading alone: what comes is still taken
  SHOW(send(b, "abc", 3, MSG_NOSIGNAL));
  events_of(a, POLLIN, 1000), usleep(10000);
  SHOW(recv(a, bytes, 10, MSG_DONTWAIT));
  SHOW(option_of(b, SOL_SOCKET, SO_ERROR));
  close(a), close(b);
}

static void datagrams(void) {
  // In pieces, one datagram.
  int fd = bound(SOCK_DGRAM), to = bound(SOCK_DGRAM);
  struct sockaddr_in there = name_of(to);
  connect(fd, (void*)&there, sizeof there);
  SHOW(send(fd, "abc", 3, MSG_MORE));
  SHOW(recv(to, bytes, 10, MSG_DONTWAIT));
  SHOW(send(fd, "de", 2, 0));
  SHOW(recv(to, bytes, 10, 0));
  printf("%.5s\n", bytes);
  // Unconnected, and told of errors all the same.
  struct sockaddr_in gone = name_of(to);
  close(to), close(fd);
  fd = socket(AF_INET, SOCK_DGRAM, 0);
  SHOW(sendto(fd, "x", 1, 0, (void*)&gone, sizeof gone));
  usleep(10000);
  SHOW(option_of(fd, SOL_SOCKET, SO_ERROR));
  SHOW(set(fd, SOL_IP, IP_RECVERR, 1));
  SHOW(sendto(fd, "x", 1, 0, (void*)&gone, sizeof gone));
  usleep(10000);
  SHOW(sendto(fd, "x", 1, 0, (void*)&gone, sizeof gone));
  close(fd);
  // IPv6, connected to IPv6, sends to IPv4.
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(9)}, four = six;
  to = bound(SOCK_DGRAM);
  there = name_of(to);
  inet_pton(AF_INET6, "::ffff:127.0.0.1", &four.sin6_addr);
  four.sin6_port = there.sin_port;
  fd = socket(AF_INET6, SOCK_DGRAM, 0);
  SHOW(connect(fd, (void*)&six, sizeof six));
  SHOW(sendto(fd, "abc", 3, 0, (void*)&four, sizeof four));
  SHOW(recv(to, bytes, 10, MSG_DONTWAIT));
  close(fd), close(to);
  // The newer of two has the port.
  fd = socket(AF_INET, SOCK_DGRAM, 0), to = socket(AF_INET, SOCK_DGRAM, 0);
  set(fd, SOL_SOCKET, SO_REUSEADDR, 1), set(to, SOL_SOCKET, SO_REUSEADDR, 1);
  there = address4("127.0.0.1", 0);
  SHOW(bind(fd, (void*)&there, sizeof there));
  there = name_of(fd);
  SHOW(bind(to, (void*)&there, sizeof there));
  int from = socket(AF_INET, SOCK_DGRAM, 0);
  SHOW(sendto(from, "abc", 3, 0, (void*)&there, sizeof there));
  SHOW(recv(fd, bytes, 10, MSG_DONTWAIT));
  SHOW(recv(to, bytes, 10, MSG_DONTWAIT));
  close(fd), close(to), close(from);
  fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct in_addr loopback = {htonl(INADDR_LOOPBACK)};
  SHOW(setsockopt(fd, SOL_IP, IP_MULTICAST_IF, &loopback, sizeof loopback));
  printf("%x\n", ntohl(option_of(fd, SOL_IP, IP_MULTICAST_IF)));
  close(fd);
}

// Members of a group, and who is only bound to the port.
static void groups(void) {
  struct sockaddr_in any = address4("0.0.0.0", 0), group = address4("239.1.2.3", 0);
  struct ip_mreq request = {.imr_multiaddr = group.sin_addr, .imr_interface = {htonl(INADDR_LOOPBACK)}};
  int member = socket(AF_INET, SOCK_DGRAM, 0), stranger = socket(AF_INET, SOCK_DGRAM, 0), closed = socket(AF_INET, SOCK_DGRAM, 0);
  set(member, SOL_SOCKET, SO_REUSEADDR, 1), set(stranger, SOL_SOCKET, SO_REUSEADDR, 1), set(closed, SOL_SOCKET, SO_REUSEADDR, 1);
  SHOW(set(closed, SOL_IP, IP_MULTICAST_ALL, 0));
  SHOW(bind(member, (void*)&any, sizeof any));
  group.sin_port = any.sin_port = name_of(member).sin_port;
  SHOW(bind(stranger, (void*)&any, sizeof any));
  SHOW(bind(closed, (void*)&any, sizeof any));
  SHOW(setsockopt(member, SOL_IP, IP_ADD_MEMBERSHIP, &request, sizeof request));
  int from = socket(AF_INET, SOCK_DGRAM, 0);
  setsockopt(from, SOL_IP, IP_MULTICAST_IF, &request.imr_interface, sizeof request.imr_interface);
  SHOW(sendto(from, "abc", 3, 0, (void*)&group, sizeof group));
  usleep(10000);
  SHOW(recv(member, bytes, 10, MSG_DONTWAIT));
  SHOW(recv(stranger, bytes, 10, MSG_DONTWAIT));
  SHOW(recv(closed, bytes, 10, MSG_DONTWAIT));
  close(member), close(stranger), close(closed), close(from);
}

static int pipe_signals;
static void count_pipe(int number) { pipe_signals += number == SIGPIPE; }
static void small(void) {
  int fd = bound(SOCK_STREAM), value = 0, pairs[2];
  listen(fd, 1);
  SHOW(ioctl(fd, FIONREAD, &value));
  close(fd);
  signal(SIGPIPE, count_pipe);
  int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
  for (int i = 0; i < 3; ++i) {
    socketpair(AF_UNIX, types[i], 0, pairs);
    shutdown(pairs[0], SHUT_WR);
    pipe_signals = 0;
    SHOW(send(pairs[0], "x", 1, 0));
    printf("type %d: %d SIGPIPE\n", types[i], pipe_signals);
    close(pairs[1]);
    SHOW(send(pairs[0], "x", 1, 0));
    printf("type %d: %d SIGPIPE\n", types[i], pipe_signals);
    close(pairs[0]);
  }
  socketpair(AF_UNIX, SOCK_DGRAM, 0, pairs);
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  SHOW(connect(pairs[0], &none, sizeof none));
  SHOW(send(pairs[0], "x", 1, 0));
  SHOW(send(pairs[1], "x", 1, 0));
  close(pairs[0]), close(pairs[1]);
  socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pairs);
  close(pairs[1]);
  struct iovec part = {bytes, 10};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  SHOW(recvmsg(pairs[0], &message, MSG_TRUNC));
  printf("%x\n", message.msg_flags);
  close(pairs[0]);
  fd = bound(SOCK_DGRAM);
  struct sockaddr_in to = name_of(fd);
  union {
    struct cmsghdr header;
    char room[CMSG_SPACE(4)];
  } control = {.header = {.cmsg_len = CMSG_LEN(4), .cmsg_level = SOL_IP, .cmsg_type = 999}};
  message = (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  SHOW(sendmsg(fd, &message, 0));
  control.header.cmsg_level = SOL_SOCKET, control.header.cmsg_type = SCM_RIGHTS;
  SHOW(sendmsg(fd, &message, 0));
  close(fd);
}

int main(void) {
  setvbuf(stdout, 0, _IOLBF, 0);
  errors_inside();
  shutdown_of_udp();
  room_of_another();
  peeking();
  waiting();
  names();
  data_after_the_end();
  datagrams();
  groups();
  small();
  return 0;
}
