// flags: -pthread
// AF_UNIX: names in the tree, abstract names, streams, datagrams, sequenced packets, descriptors and credentials in messages, options, errors.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#define SHOW(e) do { errno = 0; long show_ = (long)(e); printf("%s: %ld %d\n", #e, show_, errno); } while (0)
#define MADE(e) ((e) < 0 ? -1 : 0)

static char b[4096];

static socklen_t named(struct sockaddr_un* a, const char* path, size_t length) {
  memset(a, 0, sizeof *a);
  a->sun_family = AF_UNIX;
  memcpy(a->sun_path, path, length);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}
static int bind_to(int fd, const char* path, size_t length) {
  struct sockaddr_un a;
  socklen_t n = named(&a, path, length);
  return bind(fd, (struct sockaddr*)&a, n);
}
static int connect_to(int fd, const char* path, size_t length) {
  struct sockaddr_un a;
  socklen_t n = named(&a, path, length);
  return connect(fd, (struct sockaddr*)&a, n);
}
static long send_to(int fd, const char* text, const char* path) {
  struct sockaddr_un a;
  socklen_t n = named(&a, path, strlen(path) + 1);
  return sendto(fd, text, strlen(text), 0, (struct sockaddr*)&a, n);
}
#define PATH(p) p, sizeof(p)           // with its NUL
#define TEXT(p) p, sizeof(p) - 1       // without
static void show_address(const char* what, const struct sockaddr_un* a, socklen_t n) {
  printf("%s: %u family %d ", what, n, a->sun_family);
  for (size_t i = 0; i + offsetof(struct sockaddr_un, sun_path) < n && i < sizeof a->sun_path; ++i) {
    char c = a->sun_path[i];
    c ? putchar(c) : printf("\\0");
  }
  puts("");
}
static void show_names(int fd) {
  struct sockaddr_un a = {0};
  socklen_t n = sizeof a;
  SHOW(getsockname(fd, (struct sockaddr*)&a, &n));
  show_address("name", &a, n);
  memset(&a, 0, sizeof a);
  n = sizeof a;
  errno = 0;
  int r = getpeername(fd, (struct sockaddr*)&a, &n);
  printf("peer %d %d\n", r, errno);
  if (!r) show_address("peer", &a, n);
}
static int events(int fd) {
  struct pollfd p = {fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI | POLLRDNORM | POLLWRNORM, 0};
  poll(&p, 1, 0);
  return p.revents;
}
static int option(int fd, int name) {
  int value = -7;
  socklen_t n = sizeof value;
  return getsockopt(fd, SOL_SOCKET, name, &value, &n) < 0 ? -errno : value;
}
static void set(int fd, int name, int value) { SHOW(setsockopt(fd, SOL_SOCKET, name, &value, sizeof value)); }

static void making(void) {
  SHOW(MADE(socket(AF_UNIX, SOCK_STREAM, 0)));
  SHOW(MADE(socket(AF_UNIX, SOCK_STREAM, 1)));
  SHOW(MADE(socket(AF_UNIX, SOCK_STREAM, 2)));
  SHOW(MADE(socket(AF_UNIX, SOCK_RAW, 0)));
  SHOW(MADE(socket(AF_UNIX, SOCK_RDM, 0)));
  SHOW(MADE(socket(AF_UNIX, 12, 0)));
  SHOW(MADE(socket(AF_UNIX, SOCK_STREAM | 0x100, 0)));
  SHOW(MADE(socket(99, SOCK_STREAM, 0)));
  SHOW(MADE(socket(-1, SOCK_STREAM, 0)));
  int s[2];
  SHOW(socketpair(AF_UNIX, SOCK_STREAM, 7, s));
  SHOW(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, s));
  SHOW(fcntl(s[0], F_GETFL));
  SHOW(fcntl(s[0], F_GETFD));
  show_names(s[0]);
  struct stat st;
  fstat(s[0], &st);
  printf("%o\n", st.st_mode);
  SHOW(lseek(s[0], 0, SEEK_CUR));
  SHOW(pread(s[0], b, 1, 0));
  SHOW(listen(0, 1));
  SHOW(bind(4000, 0, 0));
  close(s[0]);
  show_names(s[1]);
  close(s[1]);
}

static void stream_by_name(void) {
  int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  printf("%x\n", events(server));
  SHOW(listen(server, 5));
  SHOW(accept(server, 0, 0));
  umask(027);
  SHOW(bind_to(server, PATH("s")));
  SHOW(bind_to(server, PATH("t")));
  SHOW(bind_to(server, PATH("s")));
  SHOW(bind_to(client, PATH("s")));
  SHOW(bind_to(client, PATH("none/s")));
  SHOW(bind_to(client, PATH("s/t")));
  struct stat st;
  SHOW(stat("s", &st));
  printf("%o %ld\n", st.st_mode, (long)st.st_size);
  SHOW(open("s", O_RDWR));
  SHOW(connect_to(client, PATH("s")));
  SHOW(connect_to(client, PATH("none")));
  SHOW(connect_to(client, PATH("/")));
  SHOW(connect_to(client, "s", 0));
  SHOW(listen(server, 1));
  printf("%x\n", events(server));
  SHOW(option(server, SO_ACCEPTCONN));
  fcntl(server, F_SETFL, O_NONBLOCK);
  SHOW(accept(server, 0, 0));
  SHOW(accept4(server, 0, 0, 1));
  int wrong = socket(AF_UNIX, SOCK_DGRAM, 0);
  SHOW(connect_to(wrong, PATH("s")));
  SHOW(listen(wrong, 1));
  SHOW(accept(wrong, 0, 0));
  close(wrong);
  SHOW(symlink("s", "link"));
  SHOW(connect_to(client, PATH("link")));
  show_names(client);
  SHOW(connect_to(client, PATH("s")));
  printf("%x %x\n", events(server), events(client));
  SHOW(send(client, "early", 5, 0));
  int others[3];
  for (int i = 0; i < 3; ++i) {
    others[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW(connect_to(others[i], PATH("s")));
  }
  struct sockaddr_un a;
  socklen_t n = sizeof a;
  int accepted = accept(server, (struct sockaddr*)&a, &n);
  printf("accepted %d %u\n", accepted < 0 ? errno : 0, n);
  SHOW(fcntl(accepted, F_GETFL));
  show_names(accepted);
  SHOW(recv(accepted, b, sizeof b, 0));
  printf("%x %x\n", events(accepted), events(client));
  SHOW(send_to(client, "x", "s"));
  SHOW(shutdown(client, SHUT_WR));
  printf("%x %x\n", events(accepted), events(client));
  SHOW(recv(accepted, b, 1, 0));
  SHOW(send(client, "x", 1, MSG_NOSIGNAL));
  SHOW(send(accepted, "back", 4, 0));
  SHOW(shutdown(accepted, 5));
  SHOW(recv(client, b, 2, 0));
  close(client);
  printf("%x\n", events(accepted));
  SHOW(send(accepted, "x", 1, MSG_NOSIGNAL));
  close(accepted);
  close(server);
  printf("%x\n", events(others[0]));
  SHOW(recv(others[0], b, 1, 0));
  SHOW(recv(others[0], b, 1, 0));
  SHOW(connect_to(others[2], PATH("s")));
  SHOW(unlink("s"));
  SHOW(connect_to(others[2], PATH("s")));
  for (int i = 0; i < 3; ++i) close(others[i]);
  char longest[108];
  memset(longest, 'n', sizeof longest);
  int full = socket(AF_UNIX, SOCK_STREAM, 0);
  SHOW(bind_to(full, longest, sizeof longest));
  show_names(full);
  SHOW(listen(full, 1));
  client = socket(AF_UNIX, SOCK_STREAM, 0);
  SHOW(connect_to(client, longest, sizeof longest));
  close(client);
  close(full);
  longest[107] = 0;
  umask(022);
}

static void abstract(void) {
  int server = socket(AF_UNIX, SOCK_SEQPACKET, 0), client = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  SHOW(bind_to(server, TEXT("\0husk test")));
  SHOW(bind_to(client, TEXT("\0husk test")));
  SHOW(connect_to(client, TEXT("\0husk test")));
  SHOW(send(client, "x", 1, 0));
  SHOW(recv(client, b, 1, 0));
  SHOW(listen(server, 3));
  SHOW(connect_to(client, TEXT("\0husk tes")));
  SHOW(bind_to(client, "", 0));
  struct sockaddr_un a;
  socklen_t n = sizeof a;
  getsockname(client, (struct sockaddr*)&a, &n);
  printf("%u %d\n", n, a.sun_path[0]);
  SHOW(bind_to(client, "", 0));
  SHOW(bind_to(client, TEXT("\0other")));
  SHOW(connect_to(client, TEXT("\0husk test")));
  SHOW(send(client, "one", 3, 0));
  SHOW(send(client, "second", 6, 0));
  SHOW(send(client, "", 0, 0));
  SHOW(send_to(client, "named", "nowhere"));
  int accepted = accept(server, (struct sockaddr*)&a, &n);
  printf("%u %x\n", n, events(accepted));
  n = 4;
  SHOW(getpeername(accepted, (struct sockaddr*)&a, &n));
  printf("%u\n", n);
  n = sizeof a;
  getsockname(accepted, (struct sockaddr*)&a, &n);
  show_address("accepted", &a, n);
  int waiting = -1;
  SHOW(ioctl(accepted, FIONREAD, &waiting));
  printf("%d\n", waiting);
  SHOW(recv(accepted, b, sizeof b, MSG_PEEK));
  SHOW(recv(accepted, b, 1, MSG_TRUNC));
  struct iovec iov = {b, 3};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_name = &a, .msg_namelen = sizeof a};
  SHOW(recvmsg(accepted, &m, 0));
  printf("%x %u\n", m.msg_flags, m.msg_namelen);
  SHOW(recv(accepted, b, sizeof b, 0));
  SHOW(recv(accepted, b, sizeof b, 0));
  SHOW(recv(accepted, b, 1, MSG_DONTWAIT));
  close(client);
  printf("%x\n", events(accepted));
  SHOW(recv(accepted, b, 1, 0));
  SHOW(send(accepted, "x", 1, 0));
  SHOW(recv(accepted, b, 1, MSG_OOB));
  close(accepted);
  close(server);
}

static void datagrams(void) {
  int a = socket(AF_UNIX, SOCK_DGRAM, 0), c = socket(AF_UNIX, SOCK_DGRAM, 0), d = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  SHOW(bind_to(a, PATH("a")));
  SHOW(bind_to(c, PATH("c")));
  printf("%x\n", events(a));
  SHOW(send(c, "x", 1, 0));
  SHOW(shutdown(d, SHUT_RD));
  SHOW(recv(d, b, 1, 0));
  SHOW(send_to(c, "hello", "a"));
  SHOW(send_to(c, "hello", "none"));
  struct sockaddr_un from;
  socklen_t n = sizeof from;
  SHOW(recvfrom(a, b, 3, 0, (struct sockaddr*)&from, &n));
  show_address("from", &from, n);
  SHOW(send_to(d, "unnamed", "a"));
  n = sizeof from;
  SHOW(recvfrom(a, b, sizeof b, 0, (struct sockaddr*)&from, &n));
  printf("%u\n", n);
  SHOW(connect_to(a, PATH("c")));
  show_names(a);
  SHOW(send_to(d, "x", "a"));
  SHOW(connect_to(d, PATH("a")));
  SHOW(send(a, "to c", 4, 0));
  SHOW(send_to(a, "to a", "a"));
  SHOW(recv(c, b, sizeof b, 0));
  struct sockaddr none = {AF_UNSPEC};
  SHOW(connect(a, &none, sizeof none));
  SHOW(send(a, "x", 1, 0));
  SHOW(connect_to(d, PATH("a")));
  int sent = 0;
  while (send(d, "fill", 4, 0) == 4) ++sent;
  printf("%d %d %x\n", sent, errno, events(d));
  SHOW(recv(a, b, sizeof b, 0));
  printf("%x\n", events(d));
  static char large[400000];
  SHOW(send(d, large, sizeof large, 0));
  close(a);
  SHOW(send(d, "x", 1, 0));
  SHOW(send(d, "x", 1, 0));
  SHOW(send_to(d, "x", "a"));
  SHOW(rename("c", "moved"));
  SHOW(send_to(d, "x", "moved"));
  SHOW(recv(c, b, sizeof b, MSG_PEEK | MSG_TRUNC));
  SHOW(recv(c, b, 0, MSG_TRUNC));
  close(c);
  int s[2];
  socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
  SHOW(send(s[0], "", 0, 0));
  SHOW(recv(s[1], b, 1, 0));
  close(s[1]);
  printf("%x\n", events(s[0]));
  SHOW(send(s[0], "x", 1, 0));
  close(s[0]);
  close(d);
}

union control {
  char bytes[256];
  struct cmsghdr align;
};
static struct cmsghdr* add(struct msghdr* m, struct cmsghdr* at, int type, const void* data, size_t size) {
  at = at ? (struct cmsghdr*)((char*)at + CMSG_ALIGN(at->cmsg_len)) : (struct cmsghdr*)m->msg_control;
  at->cmsg_level = SOL_SOCKET;
  at->cmsg_type = type;
  at->cmsg_len = CMSG_LEN(size);
  memcpy(CMSG_DATA(at), data, size);
  m->msg_controllen = (size_t)((char*)at - (char*)m->msg_control) + CMSG_SPACE(size);
  return at;
}
static void receive_control(int fd, size_t room, size_t size, int flags) {
  union control c;
  memset(&c, 0, sizeof c);
  struct iovec iov = {b, size};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room ? c.bytes : 0, .msg_controllen = room};
  long r = recvmsg(fd, &m, flags);
  printf("received %ld flags %x control %ld\n", r, m.msg_flags, (long)m.msg_controllen);
  for (struct cmsghdr* h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
    printf("  %d %d %ld", h->cmsg_level, h->cmsg_type, (long)h->cmsg_len);
    if (h->cmsg_type == SCM_CREDENTIALS) {
      struct ucred u;
      memcpy(&u, CMSG_DATA(h), sizeof u);
      printf(" %s %u %u", u.pid == getpid() ? "me" : u.pid ? "other" : "0", u.uid == getuid() ? 0 : u.uid, u.gid == getgid() ? 0 : u.gid);
    }
    for (size_t i = 0; h->cmsg_type == SCM_RIGHTS && CMSG_LEN(4 * i) < h->cmsg_len; ++i) {
      int got;
      memcpy(&got, CMSG_DATA(h) + 4 * i, 4);
      char text[8] = "";
      lseek(got, 0, SEEK_SET);
      printf(" fd %ld %d", (long)read(got, text, 4), fcntl(got, F_GETFD));
      close(got);
    }
    puts("");
  }
}
static void ancillary(int type) {
  int s[2], file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600), fds[3] = {file, file, file};
  write(file, "data", 4);
  socketpair(AF_UNIX, type, 0, s);
  union control c;
  struct iovec iov = {"text", 4};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.bytes};
  write(s[0], "before", 6);
  add(&m, 0, SCM_RIGHTS, fds, sizeof fds);
  SHOW(sendmsg(s[0], &m, 0));
  write(s[0], "behind", 6);
  receive_control(s[1], sizeof c, 2, 0);
  receive_control(s[1], sizeof c, 100, MSG_PEEK);
  receive_control(s[1], sizeof c, 100, 0);
  receive_control(s[1], sizeof c, 100, MSG_DONTWAIT);
  receive_control(s[1], sizeof c, 100, MSG_DONTWAIT);
  sendmsg(s[0], &m, 0);
  receive_control(s[1], CMSG_LEN(8), 100, MSG_CMSG_CLOEXEC);
  sendmsg(s[0], &m, 0);
  receive_control(s[1], 20, 100, 0);
  sendmsg(s[0], &m, 0);
  receive_control(s[1], 0, 100, 0);
  sendmsg(s[0], &m, 0);
  SHOW(read(s[1], b, 100));
  fds[1] = 999;
  add(&m, 0, SCM_RIGHTS, fds, sizeof fds);
  SHOW(sendmsg(s[0], &m, 0));
  add(&m, 0, 77, fds, 4);
  SHOW(sendmsg(s[0], &m, 0));
  struct ucred u = {getpid(), getuid(), getgid()};
  add(&m, 0, SCM_CREDENTIALS, &u, 4);
  SHOW(sendmsg(s[0], &m, 0));
  struct cmsghdr* first = add(&m, 0, SCM_CREDENTIALS, &u, sizeof u);
  add(&m, first, SCM_RIGHTS, &file, sizeof file);
  SHOW(sendmsg(s[0], &m, 0));
  set(s[1], SO_PASSCRED, 1);
  SHOW(option(s[1], SO_PASSCRED));
  receive_control(s[1], sizeof c, 100, 0);
  write(s[0], "x", 1);
  receive_control(s[1], sizeof c, 100, 0);
  SHOW(sendmsg(s[0], &m, 0));
  receive_control(s[1], sizeof c, 100, 0);
  write(s[0], "x", 1);
  receive_control(s[1], 24, 100, 0);
  u.pid = 0x3fffffff;
  add(&m, 0, SCM_CREDENTIALS, &u, sizeof u);
  SHOW(sendmsg(s[0], &m, 0));
  m.msg_controllen = 5;
  SHOW(sendmsg(s[0], &m, 0));
  m.msg_iovlen = 2000;
  SHOW(sendmsg(s[0], &m, 0));
  close(s[0]);
  close(s[1]);
  close(file);
}

static void options(void) {
  int s = socket(AF_UNIX, SOCK_STREAM, 0), p[2];
  socketpair(AF_UNIX, SOCK_STREAM, 0, p);
  SHOW(option(s, SO_TYPE));
  SHOW(option(s, SO_DOMAIN));
  SHOW(option(s, SO_PROTOCOL));
  SHOW(option(s, SO_ERROR));
  SHOW(option(s, SO_SNDBUF));
  SHOW(option(s, SO_RCVBUF));
  SHOW(option(s, SO_ACCEPTCONN));
  SHOW(option(s, 12345));
  set(s, SO_SNDBUF, 10000);
  SHOW(option(s, SO_SNDBUF));
  set(s, SO_SNDBUF, 1);
  SHOW(option(s, SO_SNDBUF));
  set(s, SO_RCVBUF, 1);
  SHOW(option(s, SO_RCVBUF));
  set(s, SO_REUSEADDR, 5);
  SHOW(option(s, SO_REUSEADDR));
  set(s, SO_TYPE, 1);
  set(s, 12345, 1);
  SHOW(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, b, 2));
  SHOW(setsockopt(s, 6, 1, b, 4));
  socklen_t n = 4;
  SHOW(getsockopt(s, 6, 1, b, &n));
  n = -1;
  SHOW(getsockopt(s, SOL_SOCKET, SO_TYPE, b, &n));
  struct timeval t = {1, 500000}, got;
  SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
  n = sizeof got;
  SHOW(getsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &got, &n));
  printf("%ld.%06ld\n", got.tv_sec, got.tv_usec);
  t.tv_usec = 2000000;
  SHOW(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
  struct timeval brief = {0, 2000};
  SHOW(setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief));
  SHOW(recv(p[0], b, 1, 0));
  SHOW(setsockopt(p[0], SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof brief));
  static char large[1000000];
  SHOW(send(p[0], large, sizeof large, 0) > 100000);
  SHOW(send(p[0], large, sizeof large, 0));
  printf("%x\n", events(p[0]));
  struct ucred u;
  n = sizeof u;
  SHOW(getsockopt(s, SOL_SOCKET, SO_PEERCRED, &u, &n));
  printf("%d %d %d\n", u.pid, (int)u.uid, (int)u.gid);
  SHOW(getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &u, &n));
  printf("%d %d %d\n", u.pid == getpid(), u.uid == getuid(), u.gid == getgid());
  close(p[1]);
  SHOW(option(p[0], SO_ERROR));
  close(p[0]);
  close(s);
}

static void* reader(void* p) {
  usleep(5000);
  int fd = *(int*)p;
  for (int i = 0; i < 3; ++i) write(fd, "12345", 5), usleep(2000);
  close(fd);
  return 0;
}
static volatile int pipes;
static void broken(int signal) {
  (void)signal;
  ++pipes;
}
static void* drain(void* p) {
  long sum = 0, n;
  static char buffer[30000];
  while ((n = read(*(int*)p, buffer, sizeof buffer)) > 0)
    for (long i = 0; i < n; ++i) sum += (unsigned char)buffer[i];
  return (void*)sum;
}
static void waiting(void) {
  int p[2];
  pthread_t t;
  socketpair(AF_UNIX, SOCK_STREAM, 0, p);
  pthread_create(&t, 0, reader, &p[1]);
  SHOW(recv(p[0], b, 12, MSG_WAITALL));
  SHOW(recv(p[0], b, 12, MSG_WAITALL));
  SHOW(recv(p[0], b, 12, MSG_WAITALL));
  pthread_join(t, 0);
  signal(SIGPIPE, broken);
  SHOW(write(p[0], "x", 1));
  SHOW(send(p[0], "x", 1, 0));
  SHOW(send(p[0], "x", 1, MSG_NOSIGNAL));
  printf("%d\n", pipes);
  int q[2];
  socketpair(AF_UNIX, SOCK_SEQPACKET, 0, q);
  close(q[1]);
  SHOW(write(q[0], "x", 1));
  SHOW(send(q[0], "x", 1, 0));
  printf("%d\n", pipes);
  close(q[0]);
  close(p[0]);

  int file = open("large", O_RDWR | O_CREAT | O_TRUNC, 0600);
  long sum = 0;
  for (int i = 0; i < 300; ++i) {
    for (size_t j = 0; j < sizeof b; ++j) sum += (unsigned char)(b[j] = (char)(i + (int)j * 3));
    write(file, b, sizeof b);
  }
  socketpair(AF_UNIX, SOCK_STREAM, 0, p);
  pthread_create(&t, 0, drain, &p[1]);
  off_t offset = 4096;
  lseek(file, 0, SEEK_SET);
  SHOW(sendfile(p[0], file, 0, 4096));
  SHOW(lseek(file, 0, SEEK_CUR));
  SHOW(sendfile(p[0], file, &offset, 10000000));
  printf("%ld\n", (long)offset);
  SHOW(sendfile(p[0], file, &offset, 10));
  shutdown(p[0], SHUT_WR);
  void* result;
  pthread_join(t, &result);
  printf("%d\n", (long)result == sum);
  close(p[1]);
  offset = 0;
  SHOW(sendfile(p[0], file, &offset, 10));
  printf("%d\n", pipes);
  close(p[0]);

  socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p);
  long total = 0, moved;
  offset = 0;
  int again = 0;
  while (total < 300 * 4096) {
    moved = sendfile(p[0], file, &offset, 300 * 4096);
    if (moved > 0) continue;
    if (moved < 0 && errno == EAGAIN) ++again;
    else break;
    while ((moved = read(p[1], b, sizeof b)) > 0) total += moved;
    if (offset == 300 * 4096) break;
  }
  while ((moved = read(p[1], b, sizeof b)) > 0) total += moved;
  printf("%ld %d %ld\n", total, again > 1, (long)offset);
  int pipe_ends[2];
  pipe(pipe_ends);
  // Not the target is in the way: what waits for it would wait for ever.
  fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK);
  SHOW(sendfile(p[0], pipe_ends[0], 0, 10));
  SHOW(sendfile(p[0], p[1], 0, 10));
  fcntl(pipe_ends[0], F_SETFL, 0);
  write(pipe_ends[1], "through a pipe", 14);
  SHOW(splice(pipe_ends[0], 0, pipe_ends[1], 0, 14, 0));
  SHOW(splice(pipe_ends[0], 0, p[0], 0, 100, 0));
  SHOW(splice(p[1], 0, pipe_ends[1], 0, 7, 0));
  SHOW(splice(p[1], 0, pipe_ends[1], 0, 100, 0));
  SHOW(splice(p[1], 0, pipe_ends[1], 0, 100, 0));
  SHOW(read(pipe_ends[0], b, 100));
  printf("%.14s\n", b);
  SHOW(splice(p[1], 0, p[0], 0, 100, 0));
}

static void many(void) {
  int p[2];
  socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
  struct iovec out[3] = {{"a", 1}, {"bc", 2}, {"def", 3}};
  struct mmsghdr m[3];
  memset(m, 0, sizeof m);
  for (int i = 0; i < 3; ++i) m[i].msg_hdr.msg_iov = &out[i], m[i].msg_hdr.msg_iovlen = 1;
  SHOW(sendmmsg(p[0], m, 3, 0));
  printf("%u %u %u\n", m[0].msg_len, m[1].msg_len, m[2].msg_len);
  struct iovec in[4];
  struct mmsghdr r[4];
  memset(r, 0, sizeof r);
  for (int i = 0; i < 4; ++i) in[i] = (struct iovec){b + 10 * i, 2}, r[i].msg_hdr.msg_iov = &in[i], r[i].msg_hdr.msg_iovlen = 1;
  SHOW(recvmmsg(p[1], r, 4, MSG_WAITFORONE, 0));
  for (int i = 0; i < 3; ++i) printf("%u %x\n", r[i].msg_len, r[i].msg_hdr.msg_flags);
  SHOW(recvmmsg(p[1], r, 4, MSG_DONTWAIT, 0));
}

int main(void) {
  char dir[] = "/tmp/husk-unix-XXXXXX";
  if (!mkdtemp(dir) || chdir(dir)) return 1;
  making();
  stream_by_name();
  abstract();
  datagrams();
  signal(SIGPIPE, SIG_IGN);
  ancillary(SOCK_STREAM);
  ancillary(SOCK_SEQPACKET);
  options();
  waiting();
  many();
  DIR *left = opendir(".");  // nothing stays behind
  for (struct dirent *entry; (entry = readdir(left));) unlink(entry->d_name);
  closedir(left);
  return chdir("/") || rmdir(dir);
}
