// flags: -O2 -static
// One end of a connection on which both ends send at once; the same program runs on Linux and on husk (interop.py).
//
//   interop_peer listen PORT BYTES SEED COUNT          COUNT connections, one after the other
//   interop_peer connect PORT BYTES SEED ADDRESS...    one connection to each
//
// Each end sends BYTES of a pseudo-random stream in pieces of random size, then FIN, and compares every byte of the other's stream, which must end
// exactly there. Now and then a reader sleeps, so that windows close. At the end it says "done" and waits to be killed: a machine that ends takes with
// it what its peer has not yet acknowledged.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { kBlock = 65536, kPatienceMs = 60000, kReadsPerNap = 4000, kNapUs = 30000 };

struct stream {
  uint64_t state, left;  // left: bytes that are still to be sent or received
  size_t at;             // in the block
  unsigned char block[kBlock];
};

static struct stream out, in;
static uint64_t choices;

static void die(const char* what) {
  fprintf(stderr, "interop_peer: %s: %s; %llu bytes still to send, %llu to receive\n", what, errno ? strerror(errno) : "wrong",
          (unsigned long long)out.left, (unsigned long long)in.left);
  exit(1);
}

static uint64_t next(uint64_t* state) {  // xorshift64*
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1dull;
}

static void fill(struct stream* s) {
  for (size_t i = 0; i < kBlock; i += 8) {
    uint64_t word = next(&s->state);
    memcpy(s->block + i, &word, 8);
  }
  s->at = 0;
}

static void start(struct stream* s, uint64_t bytes, uint64_t seed) {
  s->state = (seed + 1) * 0x9e3779b97f4a7c15ull;
  s->left = bytes;
  fill(s);
}

/* Pieces: mostly large, sometimes a few bytes. */
static size_t piece(void) {
  uint64_t choice = next(&choices) >> 20;
  return choice % 16 == 0 ? choice / 16 % 100 + 1 : choice / 16 % kBlock + 1;
}

static void check(const unsigned char* data, size_t size) {
  errno = 0;
  if (size > in.left) die("more bytes than were sent");
  in.left -= size;
  while (size != 0) {
    if (in.at == kBlock) fill(&in);
    size_t part = kBlock - in.at < size ? kBlock - in.at : size;
    if (memcmp(data, in.block + in.at, part) != 0) die("the bytes received");
    in.at += part, data += part, size -= part;
  }
}

/* Gives whether there is more to come. */
static int receive(int fd) {
  static unsigned char buffer[kBlock];
  ssize_t size = recv(fd, buffer, piece(), MSG_DONTWAIT);
  if (size < 0 && errno == EAGAIN) return 1;
  if (size < 0) die("recv");
  errno = 0;
  if (size == 0 && in.left != 0) die("the stream ended early");
  check(buffer, (size_t)size);
  if (next(&choices) % kReadsPerNap == 0) usleep(kNapUs);
  return size != 0;
}

static void send_some(int fd) {
  if (out.at == kBlock) fill(&out);
  size_t size = piece();
  if (size > kBlock - out.at) size = kBlock - out.at;
  if (size > out.left) size = out.left;
  ssize_t sent = send(fd, out.block + out.at, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno == EAGAIN) return;
  if (sent < 0) die("send");
  out.at += (size_t)sent, out.left -= (uint64_t)sent;
  if (out.left == 0 && shutdown(fd, SHUT_WR) != 0) die("shutdown");
}

static void transfer(int fd, int number) {
  struct timespec begin, end;
  uint64_t bytes = out.left;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int more = 1; more || out.left != 0;) {
    struct pollfd wait = {fd, (short)((more ? POLLIN : 0) | (out.left ? POLLOUT : 0)), 0};
    errno = 0;
    if (poll(&wait, 1, kPatienceMs) <= 0) die("nothing moved for a minute");
    if (more && (wait.revents & (POLLIN | POLLERR | POLLHUP))) more = receive(fd);
    if (out.left && (wait.revents & (POLLOUT | POLLERR))) send_some(fd);
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  close(fd);
  printf("connection %d: %llu bytes each way, %.2f s\n", number, (unsigned long long)bytes,
         (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec));
  fflush(stdout);
}

static int listen_at(int port) {
  struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  int fd = socket(AF_INET6, SOCK_STREAM, 0), yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (fd < 0 || bind(fd, (struct sockaddr*)&address, sizeof address) != 0 || listen(fd, 5) != 0) die("listen");
  puts("listening");
  fflush(stdout);
  return fd;
}

static int connect_to(const char* text, int port) {
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int is_six = inet_pton(AF_INET6, text, &six.sin6_addr) == 1;
  if (!is_six && inet_pton(AF_INET, text, &four.sin_addr) != 1) die("the address");
  int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, is_six ? (void*)&six : (void*)&four, is_six ? sizeof six : sizeof four) != 0) die("connect");
  return fd;
}

int main(int count, char** words) {
  if (count < 6) return 2;
  int listens = strcmp(words[1], "listen") == 0, port = atoi(words[2]);
  uint64_t bytes = strtoull(words[3], NULL, 10), seed = strtoull(words[4], NULL, 10);
  int listener = listens ? listen_at(port) : -1, connections = listens ? atoi(words[5]) : count - 5;
  choices = seed * 2 + (uint64_t)listens + 1;
  for (int i = 0; i < connections; ++i) {
    int fd = listens ? accept(listener, NULL, NULL) : connect_to(words[5 + i], port);
    if (fd < 0) die("accept");
    start(&out, bytes, seed * 1000 + (uint64_t)(2 * i + listens));
    start(&in, bytes, seed * 1000 + (uint64_t)(2 * i + !listens));
    transfer(fd, i);
  }
  puts("done");
  fflush(stdout);
  for (;;) pause();
}
