// Runs the hostile micro-guest (hostile_guest.cc) under the whole monitor, with sanitizers and pipes for streams. Label "guest".
//
// Every machine must end by itself within its time: with the guest's own status, or with 125 and one line that says what the guest did.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>

#include "abi/boot_config.h"
#include "tests/guest/micro_image.h"
#include "vmm/kvm/vm.h"
#include "vmm/monitor.h"
#include "vmm/monitor_error.h"

namespace husk::test {
namespace {

constexpr int kSurvived = 42, kFaulted = 44, kError = 125;  // the first two are hostile_guest.cc's
constexpr auto kLimit = std::chrono::seconds(30);
constexpr u64 kRam = 16 * kMiB;
constexpr const char* kRulesBroken = "the guest broke the rules of a device: ";

struct Pipe {
  Pipe() {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) abort();
    read_end = vmm::FileDescriptor(fds[0]);
    write_end = vmm::FileDescriptor(fds[1]);
  }
  vmm::FileDescriptor read_end, write_end;
};

// Reads until the other end is closed; keeps the first 4 KiB.
class Drain {
 public:
  Drain() : thread_([this] { drain(); }) {}
  int fd() const { return pipe_.write_end.get(); }
  ~Drain() { text(); }
  std::string text() {
    { vmm::FileDescriptor closed = std::move(pipe_.write_end); }
    if (thread_.joinable()) thread_.join();
    return text_;
  }

 private:
  void drain() {
    std::vector<char> buffer(1 << 16);
    for (ssize_t n; (n = read(pipe_.read_end.get(), buffer.data(), buffer.size())) > 0;) {
      if (text_.size() < 4096) text_.append(buffer.data(), static_cast<size_t>(n));
    }
  }
  Pipe pipe_;
  std::string text_;
  std::thread thread_;
};

// Cuts the machine's power, as a dying parent does, when it takes too long.
class Watchdog {
 public:
  Watchdog() : thread_([this] { watch(); }) {}
  ~Watchdog() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  int fd() const { return life_.read_end.get(); }

 private:
  void watch() {
    std::unique_lock lock(mutex_);
    if (!wake_.wait_for(lock, kLimit, [this] { return done_; })) (void)!write(life_.write_end.get(), "x", 1);
  }
  Pipe life_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  std::thread thread_;
};

// The other end of the network device: sends back what comes, with a TAP interface's header before it, and often something more.
class Echo {
 public:
  Echo() {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0) abort();
    guests_ = vmm::FileDescriptor(fds[0]);
    ours_ = vmm::FileDescriptor(fds[1]);
    thread_ = std::thread([this] { answer(); });
  }
  ~Echo() {
    shutdown(ours_.get(), SHUT_RDWR);
    thread_.join();
  }
  int fd() const { return guests_.get(); }

 private:
  void answer() {
    std::vector<char> frame(1 << 17);
    u32 count = 0;
    for (;;) {
      pollfd ready{ours_.get(), POLLIN, 0};
      if (poll(&ready, 1, 1) > 0) {
        ssize_t size = read(ours_.get(), frame.data(), frame.size());
        if (size == 0 || (size < 0 && errno != EAGAIN)) return;
        if (size > 0) (void)!write(ours_.get(), frame.data(), static_cast<size_t>(size));
      }
      (void)!write(ours_.get(), frame.data(), ++count * 977 % 66000);
    }
  }
  vmm::FileDescriptor guests_, ours_;
  std::thread thread_;
};

struct Outcome {
  vmm::MonitorResult result;
  std::string output;
};

const std::vector<u8>& image() {
  static const std::vector<u8> bytes = make_micro_image(HUSK_NUB_PATH, HUSK_HOSTILE_PATH, {}, 0);
  return bytes;
}

Outcome run_guest(const std::string& program) {
  vmm::FileDescriptor file(memfd_create("image", MFD_CLOEXEC)), endless(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  if (write(file.get(), image().data(), image().size()) != static_cast<ssize_t>(image().size())) abort();
  Drain out, error;
  Watchdog watchdog;
  Echo echo;
  vmm::MonitorOptions options;
  options.image_path = "/proc/self/fd/" + std::to_string(file.get());
  options.memory_size = kRam;
  abi::append_config(options.config, abi::ConfigTag::program, program);
  options.stdin_fd = endless.get();
  options.stdout_fd = out.fd();
  options.stderr_fd = error.fd();
  options.life_fd = watchdog.fd();
  options.network = vmm::NetworkDevice{.fd = echo.fd(), .vnet_header = true, .mac = {2, 0, 0, 0, 0, 1}, .mtu = 1500, .pcap_fd = -1};
  Outcome outcome;
  outcome.result = vmm::Monitor().run(options);
  outcome.output = out.text();  // the monitor and its duplicate of the pipe are gone
  return outcome;
}

class Hostile : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    try {
      vmm::Vm vm;
    } catch (const vmm::MonitorError& error) {
      GTEST_SKIP() << error.what();
    }
  }
};
class HostileWithoutConsequence : public Hostile {};

void expect_clear_end(const vmm::MonitorResult& result, const std::string& program) {
  if (result.status == kSurvived) {
    EXPECT_EQ(result.error, "") << program;
    return;
  }
  EXPECT_EQ(result.status, kError) << program << ": " << result.error;
  EXPECT_EQ(result.error.rfind(kRulesBroken, 0), 0u) << program << ": " << result.error;
  EXPECT_EQ(result.error.find('\n'), std::string::npos) << program;
}

TEST_P(Hostile, ends_itself_only) {
  int survived = 0;
  std::map<std::string, int> reasons;
  for (int seed = 1; seed <= 12; ++seed) {
    std::string program = std::string(GetParam()) + " " + std::to_string(seed);
    vmm::MonitorResult result = run_guest(program).result;
    expect_clear_end(result, program);
    if (result.status == kSurvived) ++survived;
    else ++reasons[result.error.substr(0, result.error.find('\n'))];
  }
  std::cout << survived << " survived\n";
  for (const auto& [reason, count] : reasons) std::cout << count << " " << reason << "\n";
}
TEST_P(HostileWithoutConsequence, goes_on) {
  for (int seed = 1; seed <= 4; ++seed) {
    std::string program = std::string(GetParam()) + " " + std::to_string(seed);
    vmm::MonitorResult result = run_guest(program).result;
    EXPECT_EQ(result.status, kSurvived) << program << ": " << result.error;
  }
}
auto name_of = [](const auto& info) { return std::string(info.param); };
INSTANTIATE_TEST_SUITE_P(monitor, Hostile, testing::Values("registers", "wild_rings", "subtle_rings", "self_modifying_rings", "batches"), name_of);
INSTANTIATE_TEST_SUITE_P(monitor, HostileWithoutConsequence, testing::Values("monitor_registers", "maps", "copies"), name_of);

// Devices and batches are refused the nub's memory (nub/invariants.md, 5).
class Nub : public Hostile {};
TEST_P(Nub, is_out_of_reach_of_what_the_monitor_writes) {
  vmm::MonitorResult result = run_guest(std::string(GetParam()) + " 1").result;
  bool refused = result.status == kError && result.error.rfind(kRulesBroken, 0) == 0;
  EXPECT_TRUE(refused || result.status == kFaulted) << result.status << " " << result.error;
}
INSTANTIATE_TEST_SUITE_P(monitor, Nub, testing::Values("nub_by_batch", "nub_by_ring", "nub_by_copy"), name_of);

class Neighbours : public Hostile {};
TEST_F(Neighbours, of_a_hostile_guest_work) {
  for (int round = 1; round <= 4; ++round) {
    std::vector<Outcome> outcomes(4);
    std::vector<std::thread> threads;
    const std::string programs[] = {"normal 1", "wild_rings " + std::to_string(round), "normal 2", "registers " + std::to_string(round)};
    for (size_t i = 0; i < outcomes.size(); ++i) threads.emplace_back([&, i] { outcomes[i] = run_guest(programs[i]); });
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < outcomes.size(); ++i) {
      if (i % 2 == 1) {
        expect_clear_end(outcomes[i].result, programs[i]);
        continue;
      }
      EXPECT_EQ(outcomes[i].result.status, 0) << outcomes[i].result.error;
      EXPECT_EQ(outcomes[i].output, "all is well\n");
    }
  }
}

}  // namespace
}  // namespace husk::test
