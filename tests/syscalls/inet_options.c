// Options of TCP and UDP sockets, as servers set them: what is accepted, what is read back, and which errors come.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/in6.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int stream, datagram, stream6;
struct option {
  const char* name;
  int level, option, value;
};
static void try_number(int fd, const struct option* o, int value) {
  int back = -12345;
  socklen_t size = sizeof back;
  errno = 0;
  int set = setsockopt(fd, o->level, o->option, &value, sizeof value), set_error = errno;
  errno = 0;
  int got = getsockopt(fd, o->level, o->option, &back, &size), got_error = errno;
  printf(" set %d: %d %d, get %d %d = %d", value, set, set ? set_error : 0, got, got ? got_error : 0, got ? 0 : back);
}
#define O(level, option, value) {#option, level, option, value}
static const struct option numbers[] = {
    O(SOL_SOCKET, SO_REUSEADDR, 1),
    O(SOL_SOCKET, SO_REUSEPORT, 5),
    O(SOL_SOCKET, SO_KEEPALIVE, 1),
    O(SOL_SOCKET, SO_BROADCAST, 1),
    O(SOL_SOCKET, SO_OOBINLINE, 1),
    O(SOL_SOCKET, SO_DONTROUTE, 1),
    O(SOL_SOCKET, SO_PRIORITY, 3),
    O(SOL_SOCKET, SO_RCVLOWAT, 9),
    O(SOL_SOCKET, SO_SNDLOWAT, 9),
    O(SOL_SOCKET, SO_SNDBUF, 10000),
    O(SOL_SOCKET, SO_RCVBUF, 10000),
    O(SOL_SOCKET, SO_SNDBUF, 1),
    O(SOL_SOCKET, SO_RCVBUF, 1),
    O(SOL_SOCKET, SO_TIMESTAMP, 1),
    O(SOL_SOCKET, SO_ACCEPTCONN, 1),
    O(SOL_SOCKET, SO_ERROR, 1),
    O(SOL_SOCKET, 9999, 1),
    O(IPPROTO_TCP, TCP_NODELAY, 1),
    O(IPPROTO_TCP, TCP_CORK, 1),
    O(IPPROTO_TCP, TCP_CORK, 0),
    O(IPPROTO_TCP, TCP_KEEPIDLE, 60),
    O(IPPROTO_TCP, TCP_KEEPIDLE, 0),
    O(IPPROTO_TCP, TCP_KEEPINTVL, 10),
    O(IPPROTO_TCP, TCP_KEEPCNT, 3),
    O(IPPROTO_TCP, TCP_KEEPCNT, 128),
    O(IPPROTO_TCP, TCP_SYNCNT, 4),
    O(IPPROTO_TCP, TCP_DEFER_ACCEPT, 5),
    O(IPPROTO_TCP, TCP_USER_TIMEOUT, 30000),
    O(IPPROTO_TCP, TCP_USER_TIMEOUT, -1),
    O(IPPROTO_TCP, TCP_MAXSEG, 1000),
    O(IPPROTO_TCP, TCP_MAXSEG, 10),
    O(IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384),
    O(IPPROTO_TCP, TCP_FASTOPEN, 16),
    O(IPPROTO_TCP, 999, 1),
    O(IPPROTO_IP, IP_TOS, 0x10),
    O(IPPROTO_IP, IP_TTL, 32),
    O(IPPROTO_IP, IP_TTL, 0),
    O(IPPROTO_IP, IP_TTL, 256),
    O(IPPROTO_IP, IP_TTL, -1),
    O(IPPROTO_IP, IP_PKTINFO, 1),
    O(IPPROTO_IP, IP_RECVERR, 1),
    O(IPPROTO_IP, IP_RECVTOS, 1),
    O(IPPROTO_IP, IP_FREEBIND, 1),
    O(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1),
    O(IPPROTO_IP, IP_MTU_DISCOVER, 2),
    O(IPPROTO_IP, IP_MTU_DISCOVER, 9),
    O(IPPROTO_IP, IP_MULTICAST_TTL, 4),
    O(IPPROTO_IP, IP_MULTICAST_LOOP, 0),
    O(IPPROTO_IP, 999, 1),
    O(IPPROTO_IPV6, IPV6_V6ONLY, 1),
    O(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9),
    O(IPPROTO_IPV6, IPV6_UNICAST_HOPS, -1),
    O(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 256),
    O(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1),
    O(IPPROTO_IPV6, IPV6_TCLASS, 8),
    O(IPPROTO_IPV6, IPV6_MTU, 1280),
    O(IPPROTO_IPV6, IPV6_MTU, 1279),
    O(IPPROTO_UDP, 999, 1),
    O(4711, 1, 1),
};

int main(void) {
  stream = socket(AF_INET, SOCK_STREAM, 0);
  datagram = socket(AF_INET, SOCK_DGRAM, 0);
  stream6 = socket(AF_INET6, SOCK_STREAM, 0);
  for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; ++i) {
    printf("%s\n  stream:", numbers[i].name);
    try_number(stream, &numbers[i], numbers[i].value);
    printf("\n  datagram:");
    try_number(datagram, &numbers[i], numbers[i].value);
    printf("\n  stream6:");
    try_number(stream6, &numbers[i], numbers[i].value);
    puts("");
  }
  int fd[2] = {stream, datagram};
  for (int i = 0; i < 2; ++i) {
    int value = -1;
    socklen_t size = sizeof value;
    printf("type %d", getsockopt(fd[i], SOL_SOCKET, SO_TYPE, &value, &size));
    printf(" %d", value);
    getsockopt(fd[i], SOL_SOCKET, SO_DOMAIN, &value, &size);
    printf(" domain %d", value);
    getsockopt(fd[i], SOL_SOCKET, SO_PROTOCOL, &value, &size);
    printf(" protocol %d\n", value);
    struct linger linger = {1, 7};
    printf("linger %d", setsockopt(fd[i], SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    size = sizeof linger;
    printf(" %d", getsockopt(fd[i], SOL_SOCKET, SO_LINGER, &linger, &size));
    if (i == 0) printf(" %d %d", linger.l_onoff, linger.l_linger);
    printf(" size %d\n", size);
    unsigned char byte = 40;
    size = 1;
    int set = setsockopt(fd[i], IPPROTO_IP, IP_TTL, &byte, 1);
    byte = 0;
    int got = getsockopt(fd[i], IPPROTO_IP, IP_TTL, &byte, &size);
    printf("a byte: %d %d %d size %d\n", set, got, byte, size);
    set = setsockopt(fd[i], SOL_SOCKET, SO_KEEPALIVE, &byte, 1);
    printf("a byte for SO_KEEPALIVE: %d %d\n", set, errno);
    set = setsockopt(fd[i], IPPROTO_TCP, TCP_NODELAY, &byte, 1);
    printf("a byte for TCP_NODELAY: %d %d\n", set, errno);
  }
  char name[16] = "";
  socklen_t size = sizeof name;
  printf("congestion: %d size %d\n", getsockopt(stream, IPPROTO_TCP, TCP_CONGESTION, name, &size), size);
  printf("to reno: %d\n", setsockopt(stream, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
  size = sizeof name;
  getsockopt(stream, IPPROTO_TCP, TCP_CONGESTION, name, &size);
  printf("%s\n", name);
  printf("to nonsense: %d", setsockopt(stream, IPPROTO_TCP, TCP_CONGESTION, "nonsense", 8));
  printf(" %d\n", errno);
  struct tcp_info info;
  memset(&info, 0xff, sizeof info);
  size = sizeof info;
  printf("info: %d size ok %d state %d\n", getsockopt(stream, IPPROTO_TCP, TCP_INFO, &info, &size), size >= 100, info.tcpi_state);
  size = 1;
  printf("short info: %d %d\n", getsockopt(stream, IPPROTO_TCP, TCP_INFO, &info, &size), size);
  printf("device: %d", setsockopt(stream, SOL_SOCKET, SO_BINDTODEVICE, "nosuch0", 8));
  printf(" %d\n", errno);
  struct ip_mreq group = {.imr_multiaddr.s_addr = htonl(0x7f000001)};
  printf("no group: %d", setsockopt(datagram, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
  printf(" %d\n", errno);
  group.imr_multiaddr.s_addr = htonl(0xe9000001);
  group.imr_interface.s_addr = htonl(0x7f000001);
  printf("group: %d\n", setsockopt(datagram, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
  printf("twice: %d", setsockopt(datagram, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
  printf(" %d\n", errno);
  printf("leave: %d\n", setsockopt(datagram, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
  printf("twice: %d", setsockopt(datagram, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
  printf(" %d\n", errno);
  return 0;
}
