// Serving a parked vCPU, with one end of a socket pair that plays a TAP interface, and the driver's side in fake guest memory.
#include "vmm/monitor_parked.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "vmm/devices/fake_guest.h"
#include "vmm/devices/mmio_transport.h"

namespace husk::vmm {
namespace {

using namespace abi::virtio;
using testing::FakeGuest;

class Parked : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends_), 0);
    FakeGuest::add_memory(memory_);
    device_ = std::make_unique<NetDevice>(NetDevice::Link{.fd = ends_[0], .vnet_header = true, .mtu = 65000});
    transport_ = std::make_unique<MmioTransport>(*device_, memory_, [] {});
    start_device();
    loop_.add(ends_[0], kEvents, [this](u32) {
      std::lock_guard lock(device_->mutex());
      device_->set_ready(true, true);
    });
    loop_.set_after_round([this] {
      device_->write_handed();
      std::lock_guard lock(device_->mutex());
      return !service_.value().serving() && device_->process();
    });
    service_.emplace(*device_, loop_, ends_[0], kEvents);
    service_->tell_guest = [this](bool serving) { told_ = serving; };
    thread_ = std::thread([this] { loop_.run(); });
  }
  void TearDown() override {
    loop_.stop();
    if (thread_.joinable()) thread_.join();
    for (int end : ends_) close(end);
  }
  void start_device() {
    auto set = [this](u64 offset, u64 value) { transport_->store(offset, 4, static_cast<u32>(value)); };
    u64 features = feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex);
    for (u32 half = 0; half < 2; ++half) {
      set(kMmioDriverFeaturesSelect, half);
      set(kMmioDriverFeatures, features >> (32 * half));
    }
    const FakeGuest* guests[] = {&receive_, &transmit_};
    for (u32 i = 0; i < 2; ++i) {
      set(kMmioQueueSelect, i);
      set(kMmioQueueSize, guests[i]->layout.size);
      set(kMmioQueueDescriptorsLow, guests[i]->layout.descriptors);
      set(kMmioQueueAvailableLow, guests[i]->layout.available);
      set(kMmioQueueUsedLow, guests[i]->layout.used);
      set(kMmioQueueReady, 1);
    }
    set(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
    for (u16 i = 0; i < kBuffers; ++i) {
      receive_.descriptor(memory_, i, FakeGuest::kBuffers + 2048u * i, 2048, kDescriptorWrite);
      receive_.offer(memory_, i);
    }
  }
  bool serve() {
    return service_->serve(0, [] { return false; });
  }
  bool serving() {
    std::lock_guard lock(device_->mutex());
    return service_->serving();
  }
  void arrive(size_t size = 60) {
    std::string frame(sizeof(NetHeader) + size, '\0');
    ASSERT_EQ(write(ends_[1], frame.data(), frame.size()), static_cast<ssize_t>(frame.size()));
  }
  void send(u16 count = 1) {  // without a doorbell
    for (u16 i = 0; i < count; ++i) {
      transmit_.descriptor(memory_, i, FakeGuest::kBuffers + 0x80000, sizeof(NetHeader) + 60, 0);
      transmit_.offer(memory_, i);
    }
  }
  bool left() {
    char byte[256];
    return read(ends_[1], byte, sizeof(byte)) > 0;
  }
  template <typename Condition>
  static bool soon(Condition condition) {
    for (int i = 0; i < 5000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  static constexpr int kBuffers = 32;
  static constexpr u32 kEvents = EPOLLIN | EPOLLOUT | EPOLLET;
  int ends_[2];
  GuestMemory memory_;
  FakeGuest receive_{0, 32}, transmit_{0x5000, 8};
  std::unique_ptr<NetDevice> device_;
  std::unique_ptr<MmioTransport> transport_;
  host::EventLoop loop_;
  std::optional<ParkedService> service_;
  std::atomic<bool> told_ = false;
  std::thread thread_;
};

TEST_F(Parked, sleeps_when_nothing_comes_and_the_other_thread_watches_again) {
  EXPECT_FALSE(serve());
  EXPECT_FALSE(serving());
  EXPECT_FALSE(told_);
  arrive();
  EXPECT_TRUE(soon([this] { return receive_.used_index(memory_) == 1; }));
}

TEST_F(Parked, wakes_once_for_what_the_guest_does_not_heed) {
  arrive();
  EXPECT_TRUE(serve());
  EXPECT_EQ(receive_.used_index(memory_), 1);
  EXPECT_FALSE(serve());
  receive_.set_used_event(memory_, 1);  // it looks, and wishes to hear of the next
  arrive();
  EXPECT_TRUE(serve());
  EXPECT_EQ(receive_.used_index(memory_), 2);
}

TEST_F(Parked, what_was_sent_without_a_doorbell_leaves) {
  send();
  serve();
  EXPECT_TRUE(left());
}

TEST_F(Parked, the_other_thread_takes_over_from_a_guest_that_does_not_park_again) {
  // A frame that comes once the other thread does not watch any more. A test that is held up is too late for it: then again.
  bool met = false;
  for (int i = 0; i < kBuffers && !met; ++i) {
    bool sent = false;
    bool news = service_->serve(0, [&] {
      if (!std::exchange(sent, true)) arrive();
      return false;
    });
    met = news && serving();
    receive_.set_used_event(memory_, receive_.used_index(memory_));
  }
  ASSERT_TRUE(met);
  EXPECT_TRUE(told_);
  send();
  EXPECT_TRUE(soon([this] { return left(); }));
  EXPECT_FALSE(serving());
  EXPECT_FALSE(told_);
}

TEST_F(Parked, one_that_sends_much_is_not_served_for_a_while) {
  for (u16 i = 0; i < 3; ++i) {
    transmit_.descriptor(memory_, i, FakeGuest::kBuffers + 0x80000, sizeof(NetHeader) + 60000, 0);
    transmit_.offer(memory_, i);
  }
  serve();
  EXPECT_FALSE(serving());
  EXPECT_FALSE(told_);
  EXPECT_FALSE(service_->serve(0, [] { return ADD_FAILURE(), true; }));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(left());
}

// The other thread is started late, and looks only when it is woken.
TEST_F(Parked, what_a_guest_sends_that_is_given_much_is_written_by_the_other_thread) {
  loop_.stop();
  thread_.join();
  host::EventLoop loop;
  int rounds = 0;
  loop.set_after_round([&] {
    if (rounds++ > 0) device_->write_handed();
    return false;
  });
  service_.emplace(*device_, loop, ends_[0], kEvents);
  for (int i = 0; i < 20; ++i) arrive(2000);
  EXPECT_TRUE(serve());
  EXPECT_EQ(receive_.used_index(memory_), 20);
  receive_.set_used_event(memory_, 20);
  send();
  arrive();
  EXPECT_TRUE(serve());
  EXPECT_EQ(receive_.used_index(memory_), 21);
  EXPECT_FALSE(left());
  thread_ = std::thread([&loop] { loop.run(); });
  EXPECT_TRUE(soon([this] { return left(); }));
  loop.stop();
  thread_.join();
  EXPECT_EQ(transmit_.used_index(memory_), 0);
  serve();
  EXPECT_EQ(transmit_.used_index(memory_), 1);
  service_.reset();
}

// The other thread does nothing here.
TEST_F(Parked, several_answers_are_handed_over_if_the_other_thread_has_time_for_them) {
  loop_.stop();
  thread_.join();
  auto round = [this](u16 answers) {
    send(answers);
    for (u32 i = 0; i < ParkedService::kManyFrames; ++i) arrive();
    EXPECT_TRUE(serve());
    for (FakeGuest* queue : {&receive_, &transmit_}) queue->set_used_event(memory_, queue->used_index(memory_));
  };
  auto all_left = [this] {
    int frames = 0;
    while (left()) ++frames;
    return frames;
  };
  for (int i = 0; i < 4; ++i) {  // it is trusted with one more each time, and with none while that is not worth waking it
    round(4);
    EXPECT_EQ(all_left(), 4);
  }
  round(3);
  EXPECT_EQ(all_left(), 3);
  round(6);
  EXPECT_EQ(all_left(), 1);
  round(6);  // late: half as many, which are not worth it
  EXPECT_EQ(all_left(), 5 + 6);
  round(5);
  EXPECT_EQ(all_left(), 1);
  EXPECT_EQ(device_->write_handed(), 4u);
  round(6);
  EXPECT_EQ(all_left(), 4 + 1);
}

TEST_F(Parked, what_was_handed_over_in_vain_is_written_when_nothing_else_is_to_do) {
  loop_.stop();
  thread_.join();
  for (int i = 0; i < 20; ++i) arrive(2000);
  EXPECT_TRUE(serve());
  receive_.set_used_event(memory_, 20);
  send();
  serve();
  EXPECT_TRUE(left());
}

TEST_F(Parked, ends_at_once_if_the_vcpu_is_wanted_or_its_time_has_come) {
  EXPECT_FALSE(service_->serve(0, [] { return true; }));
  EXPECT_FALSE(service_->serve(1, [] { return false; }));
}

}  // namespace
}  // namespace husk::vmm
