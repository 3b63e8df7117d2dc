// The monitor's network device with a real interface and a real guest (net_guest.cc), in a network name space of its own. Label "guest".
//
// Needs root, /dev/net/tun and /dev/kvm; otherwise skipped. Prints round-trip times: HUSK_ROUNDS sets how many are measured.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <thread>

#include "abi/boot_config.h"
#include "tests/guest/micro_image.h"
#include "vmm/kvm/vm.h"
#include "vmm/monitor.h"
#include "vmm/monitor_error.h"
#include "vmm/net/tap.h"

namespace husk::test {
namespace {

double now_us() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

// An echo guest on a TAP interface, and a socket of the host's that is connected to it.
class EchoMachine {
 public:
  EchoMachine(u64 poll_ticks, u64 frames) : tap_(vmm::net::open_tap("")), file_(memfd_create("image", MFD_CLOEXEC)) {
    std::vector<u8> image = make_micro_image(HUSK_NUB_PATH, HUSK_NET_GUEST_PATH, {}, 0);
    if (write(file_.get(), image.data(), image.size()) != static_cast<ssize_t>(image.size())) abort();
    options_.image_path = "/proc/self/fd/" + std::to_string(file_.get());
    options_.memory_size = 16 * kMiB;
    options_.network = vmm::NetworkDevice{.fd = tap_.fd.get(), .vnet_header = true, .mac = {2, 0, 0, 0, 0, 1}, .mtu = tap_.mtu, .pcap_fd = -1};
    options_.stdin_fd = options_.stdout_fd = options_.stderr_fd = null_.get();
    abi::append_config(options_.config, abi::ConfigTag::program, std::to_string(poll_ticks) + " " + std::to_string(frames));
    socket_ = vmm::FileDescriptor(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in guest{};
    guest.sin_family = AF_INET;
    guest.sin_port = htons(7);
    inet_pton(AF_INET, tap_.guest_address.c_str(), &guest.sin_addr);
    timeval patience{20, 0};  // a lost wake-up is for good; an emulated host may stand still for seconds
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(socket_.get(), reinterpret_cast<sockaddr*>(&guest), sizeof(guest)) != 0) abort();
    thread_ = std::thread([this] { result_ = monitor_.run(options_); });
  }
  ~EchoMachine() {
    if (!thread_.joinable()) return;
    monitor_.power_off();
    thread_.join();
  }
  EchoMachine(const EchoMachine&) = delete;
  EchoMachine& operator=(const EchoMachine&) = delete;

  int socket_fd() const { return socket_.get(); }
  // In microseconds; negative: no answer within the socket's patience.
  double round_trip(u32 size) {
    std::string sent(size, 'q'), answer(size, 0);
    double start = now_us();
    if (send(socket_.get(), sent.data(), size, 0) != static_cast<ssize_t>(size)) return -1;
    if (recv(socket_.get(), answer.data(), size, 0) != static_cast<ssize_t>(size)) return -1;
    return answer == sent ? now_us() - start : -1;
  }
  vmm::MonitorResult finish() {
    thread_.join();
    return result_;
  }

 private:
  vmm::net::TapResult tap_;
  vmm::FileDescriptor file_, null_{open("/dev/null", O_RDWR | O_CLOEXEC)}, socket_;
  vmm::MonitorOptions options_;
  vmm::Monitor monitor_;
  vmm::MonitorResult result_;
  std::thread thread_;
};

class Network : public testing::Test {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    static const bool possible = geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0 && unshare(CLONE_NEWNET) == 0;
    if (!possible) GTEST_SKIP() << "needs root and /dev/net/tun";
    try {
      vmm::Vm vm;
    } catch (const vmm::MonitorError& error) {
      GTEST_SKIP() << error.what();
    }
  }
  static u64 rounds() {
    const char* wish = getenv("HUSK_ROUNDS");
    return wish != nullptr ? strtoul(wish, nullptr, 10) : 1000;
  }
  static void measure(u64 poll_ticks, u64 count, useconds_t pause_us) {
    EchoMachine machine(poll_ticks, count + 1);
    ASSERT_GE(machine.round_trip(64), 0);  // with ARP
    std::vector<double> times;
    for (u64 i = 0; i < count; ++i) {
      times.push_back(machine.round_trip(1 + static_cast<u32>(i % 1400)));
      ASSERT_GE(times.back(), 0) << "lost after " << i;
      if (pause_us != 0) usleep(pause_us);
    }
    vmm::MonitorResult result = machine.finish();
    EXPECT_EQ(result.status, 0) << result.error;
    std::sort(times.begin(), times.end());
    std::cout << "round trip p50 " << times[count / 2] << " µs, p99 " << times[count * 99 / 100] << ", max " << times.back() << "; doorbells "
              << result.doorbells << ", interrupts " << result.interrupts << "\n";
  }
};

TEST_F(Network, guest_that_polls) { measure(u64{1} << 40, rounds(), 0); }
TEST_F(Network, guest_that_polls_a_while) { measure(150000, rounds(), 0); }
TEST_F(Network, guest_that_parks_at_once) { measure(0, rounds(), 0); }
TEST_F(Network, guest_that_has_parked_long_ago) { measure(0, 200, 1000); }

TEST_F(Network, burst_comes_back_whole_or_is_dropped_by_the_host) {
  constexpr u64 kBursts = 50, kBurst = 40;
  EchoMachine machine(0, kBursts * kBurst + 1);
  ASSERT_GE(machine.round_trip(64), 0);
  std::string datagram(1000, 'b');
  for (u64 i = 0; i < kBursts; ++i) {
    for (u64 n = 0; n < kBurst; ++n) ASSERT_EQ(send(machine.socket_fd(), datagram.data(), datagram.size(), 0), 1000);
    for (u64 n = 0; n < kBurst; ++n) ASSERT_EQ(recv(machine.socket_fd(), datagram.data(), datagram.size(), 0), 1000) << i << " " << n;
  }
  EXPECT_EQ(machine.finish().status, 0);
}

}  // namespace
}  // namespace husk::test
