// UDP over the loopback: datagrams, connected sockets, errors that come back, control messages, truncation.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
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
static void show_control(struct msghdr* m) {
  for (struct cmsghdr* c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
    printf("control %d %d size %d", c->cmsg_level, c->cmsg_type, (int)c->cmsg_len);
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(c), sizeof info);
      printf(" at interface %d for %s", info.ipi_ifindex, inet_ntoa(info.ipi_addr));
    }
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) printf(" ttl %d", *(int*)CMSG_DATA(c));
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) printf(" tos %d", *CMSG_DATA(c));
    if (c->cmsg_level == IPPROTO_IPV6) printf(" is %d", *(int*)CMSG_DATA(c));
    puts("");
  }
}
static long send_with(int fd, void* to, int level, int type, int value, int size) {
  char control[64] = {0};
  struct iovec part = {"x", 1};
  struct msghdr m = {to, *(short*)to == AF_INET ? 16 : 28, &part, 1, control, CMSG_SPACE(size), 0};
  struct cmsghdr* c = CMSG_FIRSTHDR(&m);
  *c = (struct cmsghdr){CMSG_LEN(size), level, type};
  memcpy(CMSG_DATA(c), &value, size);
  return sendmsg(fd, &m, 0);
}

int main(void) {
  setvbuf(stdout, 0, _IOLBF, 0);
  int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), one = 1;
  char buffer[70000];
  struct sockaddr_in at = address4("127.0.0.1", 0), from;
  socklen_t size = sizeof from;
  SHOW(bind(a, (void*)&at, sizeof at));
  SHOW(bind(a, (void*)&at, sizeof at));
  at = address4("127.0.0.1", port_of(a));
  SHOW(bind(b, (void*)&at, sizeof at));
  SHOW(send(b, "x", 1, 0));
  SHOW(recv(b, buffer, 1, 0));
  SHOW(events_of(b, POLLIN | POLLOUT, 0));
  SHOW(sendto(b, "hello", 5, 0, (void*)&at, sizeof at));
  SHOW(events_of(a, POLLIN | POLLOUT, 1000));
  int waiting = -1;
  SHOW(ioctl(a, FIONREAD, &waiting));
  printf("%d\n", waiting);
  SHOW(recvfrom(a, buffer, 3, MSG_PEEK | MSG_TRUNC, (void*)&from, &size));
  SHOW(recvfrom(a, buffer, sizeof buffer, 0, (void*)&from, &size));
  printf("%.5s from %s %d\n", buffer, inet_ntoa(from.sin_addr), ntohs(from.sin_port) == port_of(b));
  SHOW(sendto(a, "answer", 6, 0, (void*)&from, sizeof from));
  struct iovec part = {buffer, 2};
  struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
  SHOW(events_of(b, POLLIN, 1000));
  SHOW(recvmsg(b, &m, 0));
  printf("flags %x\n", m.msg_flags);
  SHOW(sendto(b, "", 0, 0, (void*)&at, sizeof at));
  SHOW(recv(a, buffer, 9, 0));
  SHOW(sendto(b, buffer, 65508, 0, (void*)&at, sizeof at));
  SHOW(sendto(b, buffer, 65507, 0, (void*)&at, sizeof at));
  SHOW(recv(a, buffer, sizeof buffer, 0));

  puts("-- connected");
  SHOW(connect(b, (void*)&at, sizeof at));
  SHOW(send(b, "connected", 9, 0));
  SHOW(recv(a, buffer, sizeof buffer, 0));
  SHOW(write(b, "written", 7));
  SHOW(read(a, buffer, sizeof buffer));
  size = sizeof from;
  SHOW(getpeername(b, (void*)&from, &size));
  printf("%s\n", inet_ntoa(from.sin_addr));
  SHOW(getpeername(a, (void*)&from, &size));
  int stranger = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in to_b = address4("127.0.0.1", port_of(b));
  SHOW(sendto(stranger, "x", 1, 0, (void*)&to_b, sizeof to_b));
  SHOW(recv(b, buffer, 9, 0));  // from another than it is connected to
  close(stranger);
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  SHOW(connect(b, &none, sizeof none));
  SHOW(getpeername(b, (void*)&from, &size));
  SHOW(send(b, "x", 1, 0));

  puts("-- errors that come back");
  int port = port_of(a);
  close(a);
  at = address4("127.0.0.1", port);
  int c = socket(AF_INET, SOCK_DGRAM, 0);
  SHOW(connect(c, (void*)&at, sizeof at));
  SHOW(send(c, "x", 1, 0));
  SHOW(events_of(c, POLLIN, 1000));
  SHOW(recv(c, buffer, 9, 0));
  SHOW(recv(c, buffer, 9, MSG_DONTWAIT));
  SHOW(send(c, "x", 1, 0));
  SHOW(send(c, "x", 1, 0));
  int error = -1;
  size = sizeof error;
  usleep(5000);
  SHOW(getsockopt(c, SOL_SOCKET, SO_ERROR, &error, &size));
  printf("%d\n", error);
  close(c);
  // nobody hears of it who is not connected
  SHOW(sendto(b, "x", 1, 0, (void*)&at, sizeof at));
  usleep(5000);
  SHOW(recv(b, buffer, 9, 0));
  at.sin_port = 0;
  SHOW(sendto(b, "x", 1, 0, (void*)&at, sizeof at));
  SHOW(sendto(b, "x", 1, 0, (void*)&at, 8));
  struct sockaddr_in everybody = address4("255.255.255.255", 9);
  SHOW(sendto(b, "x", 1, 0, (void*)&everybody, sizeof everybody));
  SHOW(shutdown(b, SHUT_RD));
  SHOW(listen(b, 1));
  SHOW(accept(b, 0, 0));
  close(b);

  puts("-- control messages");
  a = socket(AF_INET, SOCK_DGRAM, 0);
  b = socket(AF_INET, SOCK_DGRAM, 0);
  at = address4("0.0.0.0", 0);
  SHOW(bind(a, (void*)&at, sizeof at));
  SHOW(setsockopt(a, IPPROTO_IP, IP_PKTINFO, &one, sizeof one));
  SHOW(setsockopt(a, IPPROTO_IP, IP_RECVTTL, &one, sizeof one));
  at = address4("127.0.0.2", port_of(a));
  SHOW(sendto(b, "info", 4, 0, (void*)&at, sizeof at));
  char control[256];
  part = (struct iovec){buffer, 100};
  m = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  SHOW(recvmsg(a, &m, 0));
  printf("flags %x\n", m.msg_flags);
  show_control(&m);
  SHOW(send_with(b, &at, IPPROTO_IP, IP_TTL, 7, 4));
  SHOW(recvmsg(a, &m, 0));
  show_control(&m);
  SHOW(setsockopt(a, IPPROTO_IP, IP_RECVTOS, &one, sizeof one));
  SHOW(send_with(b, &at, IPPROTO_IP, IP_TOS, 0x48, 4));
  m.msg_controllen = sizeof control;
  SHOW(recvmsg(a, &m, 0));
  show_control(&m);
  SHOW(send_with(b, &at, IPPROTO_IP, IP_TOS, 0x28, 1));
  m.msg_controllen = sizeof control;
  SHOW(recvmsg(a, &m, 0));
  show_control(&m);
  SHOW(sendto(b, "info", 4, 0, (void*)&at, sizeof at));
  m.msg_controllen = sizeof control;
  SHOW(recvmsg(a, &m, 0));
  show_control(&m);
  SHOW(send_with(b, &at, IPPROTO_IP, IP_TTL, 0, 4));
  SHOW(send_with(b, &at, IPPROTO_IP, IP_TTL, 256, 4));
  SHOW(send_with(b, &at, IPPROTO_IP, IP_TTL, 7, 1));
  SHOW(send_with(b, &at, IPPROTO_IP, IP_TOS, -1, 4));
  SHOW(send_with(b, &at, IPPROTO_IP, IP_HDRINCL, 1, 4));
  close(a);
  close(b);
  a = socket(AF_INET6, SOCK_DGRAM, 0);
  b = socket(AF_INET6, SOCK_DGRAM, 0);
  struct sockaddr_in6 v6 = address6("::1", 0);
  SHOW(bind(a, (void*)&v6, sizeof v6));
  v6 = address6("::1", port_of(a));
  SHOW(setsockopt(a, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, &one, sizeof one));
  SHOW(setsockopt(a, IPPROTO_IPV6, IPV6_RECVTCLASS, &one, sizeof one));
  for (int i = 0; i < 4; ++i) {
    if (i < 2) SHOW(send_with(b, &v6, IPPROTO_IPV6, i == 0 ? IPV6_HOPLIMIT : IPV6_TCLASS, 9, 4));
    else SHOW(send_with(b, &v6, IPPROTO_IPV6, i == 2 ? IPV6_HOPLIMIT : IPV6_TCLASS, -1, 4));
    m.msg_controllen = sizeof control;
    SHOW(recvmsg(a, &m, 0));
    show_control(&m);
  }
  SHOW(send_with(b, &v6, IPPROTO_IPV6, IPV6_HOPLIMIT, 256, 4));
  SHOW(send_with(b, &v6, IPPROTO_IPV6, IPV6_TCLASS, 9, 1));
  close(a);
  close(b);

  puts("-- IPv6");
  a = socket(AF_INET6, SOCK_DGRAM, 0);
  b = socket(AF_INET, SOCK_DGRAM, 0);
  c = socket(AF_INET6, SOCK_DGRAM, 0);
  struct sockaddr_in6 at6 = address6("::", 0), from6;
  char text[64];
  SHOW(bind(a, (void*)&at6, sizeof at6));
  at = address4("127.0.0.1", port_of(a));
  SHOW(sendto(b, "four", 4, 0, (void*)&at, sizeof at));
  size = sizeof from6;
  SHOW(recvfrom(a, buffer, 100, 0, (void*)&from6, &size));
  printf("%d %s\n", size, inet_ntop(AF_INET6, &from6.sin6_addr, text, sizeof text));
  SHOW(sendto(a, "back", 4, 0, (void*)&from6, sizeof from6));
  SHOW(recv(b, buffer, 100, 0));
  at6 = address6("::1", port_of(a));
  SHOW(sendto(c, "six", 3, 0, (void*)&at6, sizeof at6));
  SHOW(recvfrom(a, buffer, 100, 0, (void*)&from6, &size));
  printf("%d %s\n", size, inet_ntop(AF_INET6, &from6.sin6_addr, text, sizeof text));
  SHOW(sendto(c, "x", 1, 0, (void*)&at, sizeof at));  // AF_INET at an IPv6 socket
  SHOW(recv(a, buffer, 100, 0));
  struct timeval limit = {0, 10000};
  SHOW(setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
  SHOW(recv(a, buffer, 100, 0));
  struct mmsghdr many[3];
  struct iovec parts[3];
  memset(many, 0, sizeof many);
  for (int i = 0; i < 3; ++i) {
    parts[i] = (struct iovec){buffer + 100 * i, (size_t)(10 + i)};
    many[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1, .msg_name = &at6, .msg_namelen = sizeof at6};
  }
  SHOW(sendmmsg(c, many, 3, 0));
  for (int i = 0; i < 3; ++i) many[i].msg_hdr.msg_name = 0, many[i].msg_hdr.msg_namelen = 0, parts[i].iov_len = 100;
  SHOW(recvmmsg(a, many, 3, MSG_DONTWAIT, 0));
  printf("%u %u %u\n", many[0].msg_len, many[1].msg_len, many[2].msg_len);
  return 0;
}
