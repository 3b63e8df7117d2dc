// The loopback interface, as programs ask for it: getifaddrs, if_nameindex, ioctls, rtnetlink, /sys/class/net, getaddrinfo of numbers.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#define SHOW(e) do { errno = 0; long show_ = (long)(e); int error_ = errno; printf("%s: %ld %d\n", #e, show_, show_ < 0 ? error_ : 0); } while (0)

static const char* text_of(struct sockaddr* a) {
  static char text[2][64];
  static int which;
  which ^= 1;
  if (!a) return "none";
  if (a->sa_family == AF_INET) return inet_ntop(AF_INET, &((struct sockaddr_in*)a)->sin_addr, text[which], 64);
  if (a->sa_family == AF_INET6) return inet_ntop(AF_INET6, &((struct sockaddr_in6*)a)->sin6_addr, text[which], 64);
  return "other";
}
static void show_file(const char* name) {
  char path[100], b[100];
  snprintf(path, sizeof path, "/sys/class/net/lo/%s", name);
  FILE* f = fopen(path, "r");
  printf("%s: %s", name, f && fgets(b, sizeof b, f) ? b : "nothing\n");
  if (f) fclose(f);
}

int main(void) {
  struct ifaddrs *all, *i;
  SHOW(getifaddrs(&all));
  for (i = all; i; i = i->ifa_next) {
    if (strcmp(i->ifa_name, "lo") || !i->ifa_addr) continue;
    printf("lo %d flags %x address %s", i->ifa_addr->sa_family, i->ifa_flags, text_of(i->ifa_addr));
    printf(" mask %s\n", i->ifa_addr->sa_family == AF_PACKET ? "-" : text_of(i->ifa_netmask));
  }
  freeifaddrs(all);
  char name[IF_NAMESIZE];
  SHOW(if_nametoindex("lo"));
  SHOW(if_nametoindex("nosuch0"));
  printf("%s\n", if_indextoname(1, name));
  struct if_nameindex* names = if_nameindex();
  printf("first: %u %s\n", names[0].if_index, names[0].if_name);
  if_freenameindex(names);

  int s = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq r = {.ifr_name = "lo"};
  SHOW(ioctl(s, SIOCGIFFLAGS, &r));
  printf("%x\n", r.ifr_flags & 0xffff);
  SHOW(ioctl(s, SIOCGIFADDR, &r));
  printf("%s\n", text_of(&r.ifr_addr));
  SHOW(ioctl(s, SIOCGIFNETMASK, &r));
  printf("%s\n", text_of(&r.ifr_addr));
  SHOW(ioctl(s, SIOCGIFMTU, &r));
  printf("%d\n", r.ifr_mtu);
  SHOW(ioctl(s, SIOCGIFHWADDR, &r));
  printf("%d\n", r.ifr_hwaddr.sa_family);
  SHOW(ioctl(s, SIOCGIFINDEX, &r));
  printf("%d\n", r.ifr_ifindex);
  strcpy(r.ifr_name, "nosuch0");
  SHOW(ioctl(s, SIOCGIFFLAGS, &r));
  struct ifreq list[8];
  struct ifconf conf = {.ifc_len = sizeof list, .ifc_req = list};
  SHOW(ioctl(s, SIOCGIFCONF, &conf));
  printf("%s %s\n", list[0].ifr_name, text_of(&list[0].ifr_addr));
  SHOW(ioctl(s, 0x1234, &r));

  puts("-- rtnetlink");
  int n = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  struct sockaddr_nl me = {.nl_family = AF_NETLINK};
  socklen_t size = sizeof me;
  SHOW(bind(n, (void*)&me, sizeof me));
  SHOW(getsockname(n, (void*)&me, &size));
  printf("%d %d %d\n", me.nl_family, me.nl_pid != 0, size);
  struct {
    struct nlmsghdr head;
    struct rtmsg route;
    struct rtattr attribute;
    struct in_addr to;
  } ask = {{sizeof ask, RTM_GETROUTE, NLM_F_REQUEST, 9, 0}, {.rtm_family = AF_INET, .rtm_dst_len = 32}, {8, RTA_DST}, {htonl(0x7f000001)}};
  SHOW(send(n, &ask, sizeof ask, 0));
  char answer[4096];
  SHOW(recv(n, answer, sizeof answer, 0) > 0);
  struct nlmsghdr* h = (void*)answer;
  struct rtmsg* route = NLMSG_DATA(h);
  printf("type %d sequence %u family %d bits %d kind %d table %d\n", h->nlmsg_type, h->nlmsg_seq, route->rtm_family, route->rtm_dst_len,
         route->rtm_type, route->rtm_table);
  int left = RTM_PAYLOAD(h);
  for (struct rtattr* a = RTM_RTA(route); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
    if (a->rta_type == RTA_OIF) printf("interface %d\n", *(int*)RTA_DATA(a));
    if (a->rta_type == RTA_PREFSRC) printf("from %s\n", inet_ntoa(*(struct in_addr*)RTA_DATA(a)));
  }
  SHOW(recv(n, answer, sizeof answer, MSG_DONTWAIT));
  struct {
    struct nlmsghdr head;
    struct ifinfomsg link;
  } nolink = {{sizeof nolink, RTM_GETLINK, NLM_F_REQUEST, 10, 0}, {.ifi_index = 4711}};
  SHOW(send(n, &nolink, sizeof nolink, 0));
  SHOW(recv(n, answer, sizeof answer, MSG_PEEK | MSG_TRUNC) > 0);
  SHOW(recv(n, answer, sizeof answer, 0) > 0);
  printf("type %d error %d\n", h->nlmsg_type, ((struct nlmsgerr*)NLMSG_DATA(h))->error);
  SHOW(socket(AF_NETLINK, SOCK_STREAM, 0));

  puts("-- files");
  show_file("address");
  show_file("mtu");
  show_file("ifindex");
  show_file("type");
  show_file("flags");
  show_file("operstate");

  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found;
  const char* hosts[] = {"127.0.0.1", "::1", "not a number"};
  for (int k = 0; k < 3; ++k) {
    int code = getaddrinfo(hosts[k], "80", &hints, &found);
    printf("%s: %d %s\n", hosts[k], code, code ? "-" : text_of(found->ai_addr));
    if (!code) freeaddrinfo(found);
  }
  return 0;
}
