// flags: -O2 -std=c++20
// A line between two TAP interfaces that loses, repeats, overtakes, delays and damages frames, each by its probability; every choice comes from
// the seed. interop.py runs it between Linux and a husk machine.
//
// The interfaces are opened without a vnet header: so the kernel cuts large segments and fills in checksums before a frame comes here, and believes
// no checksum of a frame that goes out. Damage is one to three bits of one byte behind the Ethernet header: the Internet checksum finds that always,
// so a changed byte that reaches a program is a bug. ARP has no checksum, its frames stay whole.
//
//   interop_link TAP TAP [seed=N] [loss=P] [duplicate=P] [reorder=P] [corrupt=P] [delay-us=N] [late-us=N]     P from 0 to 1; SIGTERM: counts, end
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <queue>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr size_t kFrameMax = 65536, kQueueMax = 2000, kEthernetHeader = 14;
constexpr int kBatch = 64;
volatile sig_atomic_t stopped = 0;

std::map<std::string, double> settings = {{"seed", 1},    {"loss", 0},       {"duplicate", 0}, {"reorder", 0},
                                          {"corrupt", 0}, {"delay-us", 100}, {"late-us", 2000}};
std::mt19937_64 generator;

bool happens(const char* what) { return std::uniform_real_distribution<>(0, 1)(generator) < settings[what]; }

uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1'000'000'000 + uint64_t(now.tv_nsec);
}

int open_tap(const char* name) {
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0) {
    fprintf(stderr, "interop_link: %s: %s\n", name, strerror(errno));
    exit(1);
  }
  return fd;
}

struct Frame {
  uint64_t due_ns, order;
  std::vector<unsigned char> bytes;
  bool operator<(const Frame& other) const { return due_ns != other.due_ns ? due_ns > other.due_ns : order > other.order; }
};

/// One direction.
struct Line {
  int from, to;
  std::priority_queue<Frame> queue{};
  uint64_t order = 0, frames = 0, lost = 0, repeated = 0, late = 0, damaged = 0, full = 0;

  void take(const unsigned char* data, size_t size, uint64_t now) {
    ++frames;
    if (happens("loss")) {
      ++lost;
      return;
    }
    int copies = happens("duplicate") ? 2 : 1;
    repeated += uint64_t(copies - 1);
    for (int i = 0; i < copies; ++i) put({data, data + size}, now);
  }

  void put(std::vector<unsigned char> bytes, uint64_t now) {
    if (queue.size() >= kQueueMax) {
      ++full;
      return;
    }
    bool is_ip = bytes.size() > kEthernetHeader && (bytes[12] == 0x86 || bytes[13] == 0x00);
    if (is_ip && happens("corrupt")) {
      ++damaged;
      unsigned char bits = 0;
      for (int i = 0; i < 3; ++i) bits |= static_cast<unsigned char>(1u << generator() % 8);
      bytes[kEthernetHeader + generator() % (bytes.size() - kEthernetHeader)] ^= bits;
    }
    uint64_t due = now + uint64_t(settings["delay-us"]) * 1000;
    if (happens("reorder")) {
      ++late;
      due += generator() % (uint64_t(settings["late-us"]) * 1000 + 1);
    }
    queue.push({due, order++, std::move(bytes)});
  }

  void receive() {
    static unsigned char buffer[kFrameMax];
    uint64_t now = now_ns();
    for (int i = 0; i < kBatch; ++i) {
      ssize_t size = read(from, buffer, sizeof buffer);
      if (size <= 0) return;
      take(buffer, size_t(size), now);
    }
  }

  void send() {
    uint64_t now = now_ns();
    while (!queue.empty() && queue.top().due_ns <= now) {
      const auto& bytes = queue.top().bytes;
      if (write(to, bytes.data(), bytes.size()) < 0) ++full;
      queue.pop();
    }
  }

  void report(const char* name) const {
    printf("%s: %lu frames, %lu lost, %lu repeated, %lu late, %lu damaged, %lu found the line full\n", name, frames, lost, repeated, late, damaged,
           full);
  }
};

}  // namespace

int main(int count, char** words) {
  for (int i = 3; i < count; ++i) {
    std::string word = words[i], name = word.substr(0, word.find('='));
    if (!settings.count(name) || name == word) {
      fprintf(stderr, "interop_link: %s: no such setting\n", words[i]);
      return 2;
    }
    settings[name] = atof(word.c_str() + name.size() + 1);
  }
  if (count < 3) return 2;
  signal(SIGTERM, [](int) { stopped = 1; });
  prctl(PR_SET_TIMERSLACK, 1000);
  generator.seed(uint64_t(settings["seed"]));
  int a = open_tap(words[1]), b = open_tap(words[2]);
  Line lines[2] = {{a, b}, {b, a}};
  puts("ready");
  fflush(stdout);
  while (!stopped) {
    uint64_t next = now_ns() + 100'000'000;
    for (Line& line : lines) {
      if (!line.queue.empty()) next = std::min(next, line.queue.top().due_ns);
    }
    uint64_t now = now_ns(), wait = next > now ? next - now : 0;
    timespec timeout{time_t(wait / 1'000'000'000), long(wait % 1'000'000'000)};
    pollfd polls[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    if (ppoll(polls, 2, &timeout, nullptr) < 0) continue;
    for (int i = 0; i < 2; ++i) {
      if (polls[i].revents) lines[i].receive();
    }
    for (Line& line : lines) line.send();
  }
  lines[0].report(words[1]);
  lines[1].report(words[2]);
}
