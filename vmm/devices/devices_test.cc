// Transport, console, entropy device and control channel, with a driver in fake guest memory.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "abi/virtio/console.h"
#include "host/event_loop.h"
#include "vmm/devices/console.h"
#include "vmm/devices/control_channel.h"
#include "vmm/devices/fake_guest.h"
#include "vmm/devices/mmio_transport.h"
#include "vmm/devices/rng.h"

namespace husk::vmm {
namespace {

using namespace abi::virtio;
using testing::FakeGuest;

struct FakeStream : ByteSource, ByteSink {
  std::string input, output;
  bool at_end = false, closed = false;
  size_t room = ~size_t{0};
  ssize_t read(std::span<const iovec> buffers) override {
    if (input.empty()) return at_end ? 0 : -EAGAIN;
    size_t done = 0;
    for (const iovec& part : buffers) {
      size_t count = std::min(part.iov_len, input.size() - done);
      memcpy(part.iov_base, input.data() + done, count);
      done += count;
    }
    input.erase(0, done);
    return static_cast<ssize_t>(done);
  }
  ssize_t write(std::span<const iovec> buffers) override {
    if (closed) return -EPIPE;
    size_t done = 0;
    for (const iovec& part : buffers) {
      size_t count = std::min(part.iov_len, room - done);
      output.append(static_cast<const char*>(part.iov_base), count);
      done += count;
      if (done == room) break;
    }
    room -= done;
    return done == 0 ? -EAGAIN : static_cast<ssize_t>(done);
  }
};

// A driver that follows virtio 1.2 §3.1.1 through the registers.
class TransportDriver {
 public:
  TransportDriver(Device& device, GuestMemory& memory, std::vector<FakeGuest*> queues) : transport(device, memory, [this] { ++doorbells; }) {
    set(kMmioStatus, kStatusAcknowledge | kStatusDriver);
    set(kMmioDriverFeaturesSelect, 1);
    set(kMmioDriverFeatures, 1);
    set(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk);
    for (u32 i = 0; i < queues.size(); ++i) {
      const QueueLayout& layout = queues[i]->layout;
      set(kMmioQueueSelect, i);
      set(kMmioQueueSize, layout.size);
      set(kMmioQueueDescriptorsLow, static_cast<u32>(layout.descriptors));
      set(kMmioQueueAvailableLow, static_cast<u32>(layout.available));
      set(kMmioQueueUsedLow, static_cast<u32>(layout.used));
      set(kMmioQueueReady, 1);
    }
    set(kMmioStatus, kStatusAcknowledge | kStatusDriver | kStatusFeaturesOk | kStatusDriverOk);
  }
  void set(u64 offset, u32 value) { transport.store(offset, 4, value); }
  u32 get(u64 offset) { return static_cast<u32>(transport.load(offset, 4)); }
  int doorbells = 0;
  MmioTransport transport;
};

struct TestMemory : GuestMemory {
  TestMemory() { FakeGuest::add_memory(*this); }
};

class ConsoleTest : public ::testing::Test {
 protected:
  TestMemory memory;
  FakeGuest receive{0}, transmit{0x5000};
  FakeStream stream;
  u64 ended_at = ~u64{0};
  int closed = 0;
  ConsoleDevice console{"console", &stream, &stream, {[this](u64 bytes) { ended_at = bytes; }, [this](int error) { closed = error; }, [](auto) {}}};
  TransportDriver driver{console, memory, {&receive, &transmit}};
};

TEST_F(ConsoleTest, registers_identify_the_device) {
  EXPECT_EQ(driver.get(kMmioMagic), kMmioMagicValue);
  EXPECT_EQ(driver.get(kMmioVersion), 2u);
  EXPECT_EQ(driver.get(kMmioDeviceId), 3u);
  EXPECT_EQ(driver.get(kMmioQueueReady), 1u);
  EXPECT_EQ(driver.get(kMmioStatus) & kStatusDriverOk, kStatusDriverOk);
  EXPECT_GT(driver.doorbells, 0);
}

TEST_F(ConsoleTest, output_reaches_the_sink_in_order) {
  FakeGuest::put(memory, 0x10000, "hello ");
  FakeGuest::put(memory, 0x20000, "world");
  transmit.descriptor(memory, 0, 0x10000, 6, 0);
  transmit.descriptor(memory, 1, 0x20000, 5, 0);
  transmit.offer(memory, 0);
  transmit.offer(memory, 1);
  EXPECT_FALSE(console.is_drained());
  console.process();
  EXPECT_EQ(stream.output, "hello world");
  EXPECT_EQ(transmit.used_index(memory), 2);
  EXPECT_TRUE(console.is_drained());
}

TEST_F(ConsoleTest, slow_sink_holds_the_buffers_back) {
  FakeGuest::put(memory, 0x10000, "0123456789");
  transmit.descriptor(memory, 0, 0x10000, 10, 0);
  transmit.offer(memory, 0);
  stream.room = 4;
  console.process();
  EXPECT_EQ(stream.output, "0123");
  EXPECT_EQ(transmit.used_index(memory), 0);
  EXPECT_FALSE(console.is_drained());
  stream.room = 100;
  console.process();
  EXPECT_EQ(stream.output, "0123456789");
  EXPECT_EQ(transmit.used_index(memory), 1);
}

TEST_F(ConsoleTest, closed_sink_is_reported_once_and_output_is_dropped) {
  stream.closed = true;
  transmit.descriptor(memory, 0, 0x10000, 10, 0);
  transmit.offer(memory, 0);
  console.process();
  EXPECT_EQ(closed, EPIPE);
  EXPECT_EQ(transmit.used_index(memory), 1);
  closed = 0;
  transmit.offer(memory, 0);
  console.process();
  EXPECT_EQ(closed, 0);
  EXPECT_TRUE(console.is_drained());
}

TEST_F(ConsoleTest, input_is_read_only_into_offered_buffers) {
  stream.input = "abcdefgh";
  console.process();
  EXPECT_EQ(stream.input, "abcdefgh");
  receive.descriptor(memory, 0, 0x10000, 5, kDescriptorWrite);
  receive.descriptor(memory, 1, 0x20000, 100, kDescriptorWrite);
  receive.offer(memory, 0);
  receive.offer(memory, 1);
  console.process();
  EXPECT_EQ(receive.used_index(memory), 2);
  EXPECT_EQ(receive.used(memory, 0).length, 5u);
  EXPECT_EQ(receive.used(memory, 1).length, 3u);
  EXPECT_EQ(FakeGuest::get(memory, 0x10000, 5) + FakeGuest::get(memory, 0x20000, 3), "abcdefgh");
  stream.at_end = true;
  receive.offer(memory, 0);
  console.process();
  EXPECT_EQ(ended_at, 8u);
}

TEST_F(ConsoleTest, driver_that_breaks_a_ring_fails_the_device_with_words) {
  transmit.set_available_index(memory, 100);
  console.process();
  EXPECT_EQ(console.error(), "console, queue 1: available index runs ahead of the queue");
}

TEST_F(ConsoleTest, reset_forgets_everything) {
  stream.room = 0;
  transmit.descriptor(memory, 0, 0x10000, 10, 0);
  transmit.offer(memory, 0);
  console.process();
  driver.set(kMmioStatus, 0);
  EXPECT_FALSE(console.driver_ok);
  EXPECT_EQ(driver.get(kMmioQueueReady), 0u);
  stream.room = 100;
  console.process();
  EXPECT_EQ(stream.output, "");
}

TEST(Transport, virtio_3_1_1_features_that_were_not_offered_are_refused) {
  GuestMemory memory;
  RngDevice rng;
  MmioTransport transport(rng, memory, [] {});
  transport.store(kMmioDriverFeaturesSelect, 4, 1);
  transport.store(kMmioDriverFeatures, 4, 0xffffffff);
  transport.store(kMmioStatus, 4, kStatusFeaturesOk);
  EXPECT_EQ(transport.load(kMmioStatus, 4) & kStatusFeaturesOk, 0u);
}

TEST(Transport, nonsense_accesses_do_nothing) {
  GuestMemory memory;
  RngDevice rng;
  MmioTransport transport(rng, memory, [] {});
  for (u64 offset = 0; offset < 4096; ++offset) {
    for (u32 size : {1u, 2u, 4u, 8u}) {
      (void)transport.load(offset, size);
      transport.store(offset, size, ~u64{0});
    }
  }
  transport.store(kMmioQueueSelect, 4, 0);
  transport.store(kMmioQueueReady, 4, 1);
  EXPECT_NE(rng.error(), "");
}

TEST(Rng, fills_what_is_offered) {
  GuestMemory memory;
  FakeGuest::add_memory(memory);
  FakeGuest guest;
  RngDevice rng;
  TransportDriver driver(rng, memory, {&guest});
  guest.descriptor(memory, 0, 0x10000, 64, kDescriptorWrite);
  guest.offer(memory, 0);
  rng.process();
  EXPECT_EQ(guest.used(memory, 0).length, 64u);
  EXPECT_NE(FakeGuest::get(memory, 0x10000, 64), std::string(64, '\0'));
}

TEST(Control, records_cut_anywhere_are_put_together) {
  std::vector<std::string> seen;
  ControlReceiver receiver([&](abi::RecordType type, std::span<const u8> bytes) {
    seen.push_back(std::to_string(static_cast<u32>(type)) + ":" + std::string(bytes.begin(), bytes.end()));
  });
  const u8 bytes[] = {2, 0, 0, 0, 3, 0, 0, 0, 'a', 'b', 'c', 5, 0, 0, 0, 0, 0, 0, 0};
  for (u8 byte : bytes) receiver.feed({&byte, 1});
  EXPECT_EQ(seen, (std::vector<std::string>{"2:abc", "5:"}));
  receiver.feed(bytes);
  EXPECT_EQ(seen.size(), 4u);
}

// Buffers of a hostile guest may be as large as its memory, and the same again and again.
TEST(Control, a_write_is_bounded) {
  u64 seen = 0;
  ControlReceiver receiver([&](abi::RecordType, std::span<const u8>) { ++seen; });
  std::vector<abi::RecordHeader> records(1 << 17, {abi::RecordType::trace, 0});
  std::vector<iovec> buffers(512, {records.data(), records.size() * sizeof(records[0])});
  EXPECT_EQ(receiver.write(buffers), 1 << 20);
  EXPECT_EQ(seen, (1u << 20) / sizeof(records[0]));
}

// The reader of what is made of the records is slow: what follows stays with the guest.
TEST(Control, takes_nothing_while_nobody_is_ready) {
  u64 seen = 0;
  ControlReceiver receiver([&](abi::RecordType, std::span<const u8>) { ++seen; }, [&] { return seen < 2; });
  abi::RecordHeader record{abi::RecordType::trace, 0};
  std::vector<iovec> buffers(5, {&record, sizeof(record)});
  EXPECT_EQ(receiver.write(buffers), 2 * static_cast<ssize_t>(sizeof(record)));
  EXPECT_EQ(receiver.write(buffers), -EAGAIN);
  EXPECT_EQ(seen, 2u);
}

TEST(Control, malformed_record_ends_the_listening) {
  int seen = 0;
  ControlReceiver receiver([&](abi::RecordType, std::span<const u8>) { ++seen; });
  const u8 huge[] = {2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
  const u8 good[] = {5, 0, 0, 0, 0, 0, 0, 0};
  receiver.feed(huge);
  receiver.feed(good);
  EXPECT_TRUE(receiver.malformed());
  EXPECT_EQ(seen, 0);
}

TEST(HostStream, pipe_does_not_block_and_reports_the_end) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  HostStream in(pipes[0], HostStream::Direction::in), out(pipes[1], HostStream::Direction::out);
  std::string block(1 << 16, 'x');
  iovec part{block.data(), block.size()};
  EXPECT_EQ(in.read({&part, 1}), -EAGAIN);
  in.set_ready();
  size_t written = 0;
  for (ssize_t count; (count = out.write({&part, 1})) != -EAGAIN; written += static_cast<size_t>(count)) ASSERT_GT(count, 0);
  size_t total = 0;
  for (ssize_t count; (count = in.read({&part, 1})) != -EAGAIN; total += static_cast<size_t>(count)) ASSERT_GT(count, 0);
  EXPECT_EQ(total, written);
  in.set_ready();
  close(pipes[1]);
  EXPECT_EQ(in.read({&part, 1}), 0);
  close(pipes[0]);
}

TEST(EventLoop, handlers_run_until_stopped) {
  host::EventLoop loop;
  int pipes[2], calls = 0;
  ASSERT_EQ(pipe(pipes), 0);
  ASSERT_EQ(write(pipes[1], "x", 1), 1);
  EXPECT_TRUE(loop.add(pipes[0], EPOLLIN, [&](u32) {
    if (++calls == 3) loop.stop();
  }));
  loop.run();
  EXPECT_EQ(calls, 3);
  close(pipes[0]);
  close(pipes[1]);
}

}  // namespace
}  // namespace husk::vmm
