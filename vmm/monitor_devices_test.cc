// The end of a machine whose output nobody reads: MonitorDevices::drain() with both threads.
#include "vmm/monitor_devices.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <future>

#include "vmm/devices/fake_guest.h"

namespace husk::vmm {
namespace {

using namespace abi::virtio;
using testing::FakeGuest;

struct Pipe {
  Pipe() { EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0); }
  ~Pipe() {
    close(ends[0]);
    close(ends[1]);
  }
  void fill() {
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    std::vector<char> bytes(4096);
    while (write(ends[1], bytes.data(), bytes.size()) > 0) continue;
    fcntl(ends[1], F_SETFL, 0);
  }
  int ends[2];
};

// Console 0 has input to give and output that does not fit into its pipe.
class Drain : public ::testing::Test {
 protected:
  Drain() {
    signal(SIGPIPE, SIG_IGN);
    FakeGuest::add_memory(memory_);
    devices_.emplace(memory_, MonitorDevices::Streams{in_.ends[0], out_.ends[1], error_.ends[1]}, std::nullopt,
                     MonitorDevices::Hooks{.notify_guest = [] {},
                                           .frames_arrived = [] {},
                                           .guest_failed = [](const std::string& why) { ADD_FAILURE() << why; },
                                           .record = [](abi::RecordType, std::span<const u8>) {},
                                           .input_arrived = [this](std::span<const iovec>) { devices_->abandon(); },
                                           .output_closed = [](u32, int) {},
                                           .spare_time =
                                               [this] {
                                                 ++rounds_;
                                                 return false;
                                               }});
    auto store = [&](u64 offset, u64 value) { devices_->store(offset, 4, value); };
    u64 features = feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex);
    for (u32 half = 0; half < 2; ++half) {
      store(kMmioDriverFeaturesSelect, half);
      store(kMmioDriverFeatures, static_cast<u32>(features >> (32 * half)));
    }
    for (u32 i = 0; i < 2; ++i) {
      const QueueLayout& layout = (i == kConsoleReceiveQueue ? receive_ : transmit_).layout;
      store(kMmioQueueSelect, i);
      store(kMmioQueueSize, layout.size);
      store(kMmioQueueDescriptorsLow, layout.descriptors);
      store(kMmioQueueAvailableLow, layout.available);
      store(kMmioQueueUsedLow, layout.used);
      store(kMmioQueueReady, 1);
    }
    store(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
    out_.fill();
    receive_.descriptor(memory_, 0, 0x20000, 4096, kDescriptorWrite);
    receive_.offer(memory_, 0);
    transmit_.descriptor(memory_, 0, 0x30000, 4096, 0);
    transmit_.offer(memory_, 0);
    devices_->start();
    drained_ = std::async(std::launch::async, [this] { devices_->drain(); });
  }
  bool ends(int seconds) { return drained_.wait_for(std::chrono::seconds(seconds)) == std::future_status::ready; }

  Pipe in_, out_, error_;
  GuestMemory memory_;
  FakeGuest receive_{0, 8}, transmit_{0x8000, 8};
  std::atomic<u64> rounds_{0};
  std::optional<MonitorDevices> devices_;
  std::future<void> drained_;
};

TEST_F(Drain, ends_when_the_reader_comes_back) {
  EXPECT_FALSE(ends(0));
  std::vector<char> bytes(1 << 20);
  EXPECT_GT(read(out_.ends[0], bytes.data(), bytes.size()), 0);
  EXPECT_TRUE(ends(20));
}

// Ctrl-C three times: the power is cut by whoever reads the input, with the device's mutex held.
class DrainIsAbandoned : public Drain, public ::testing::WithParamInterface<int> {};
TEST_P(DrainIsAbandoned, by_what_is_typed) {
  usleep(static_cast<useconds_t>(GetParam()) * 200);
  ASSERT_EQ(write(in_.ends[1], "\3", 1), 1);
  if (!ends(20)) {
    fputs("drain() does not return\n", stderr);
    abort();  // two threads hang
  }
}
INSTANTIATE_TEST_SUITE_P(at_some_time, DrainIsAbandoned, ::testing::Range(0, 50));

TEST_F(Drain, waits_without_work) {
  usleep(500'000);
  EXPECT_LT(rounds_.load(), 20u);
  devices_->abandon();
  EXPECT_TRUE(ends(20));
}

}  // namespace
}  // namespace husk::vmm
