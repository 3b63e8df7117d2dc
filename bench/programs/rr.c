// TCP request-response: `rr server PORT` answers one byte with one byte, for ever; `rr client ADDRESS PORT SECONDS` prints the median and the
// 99th percentile of the round trip in microseconds and the round trips per second; the last number is the median.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int by_value(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static void die(const char* what) {
  perror(what);
  exit(1);
}

static void serve(int port) {
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void*)&address, sizeof address) != 0 || listen(listener, 16) != 0) die("listen");
  for (;;) {
    int client = accept(listener, 0, 0);
    if (client < 0) die("accept");
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char byte;
    while (read(client, &byte, 1) == 1 && write(client, &byte, 1) == 1) {}
    close(client);
  }
}

static void measure(const char* host, int port, double seconds) {
  int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, host, &address.sin_addr);
  if (connect(s, (void*)&address, sizeof address) != 0) die("connect");
  setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  size_t count = 0, room = 4 << 20;
  double* times = malloc(room * sizeof *times);
  double start = now(), before = start, end = start + seconds * 1e6;
  while (before < end && count < room) {
    char byte = 'x';
    if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1) die("round trip");
    double after = now();
    times[count++] = after - before;
    before = after;
  }
  qsort(times, count, sizeof *times, by_value);
  printf("p99_us %.1f per_second %.0f p50_us %.2f\n", times[count * 99 / 100], count / ((before - start) / 1e6), times[count / 2]);
}

int main(int count, char** words) {
  if (count == 3 && strcmp(words[1], "server") == 0) serve(atoi(words[2]));
  if (count == 5 && strcmp(words[1], "client") == 0) return measure(words[2], atoi(words[3]), atof(words[4])), 0;
  fprintf(stderr, "usage: rr server PORT | rr client ADDRESS PORT SECONDS\n");
  return 2;
}
