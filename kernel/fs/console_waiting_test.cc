// Threads and a terminal that wait for the consoles (kernel/drivers/console.h), against fake devices.
#include <sanitizer/lsan_interface.h>

#include "abi/virtio/queue.h"
#include "kernel/drivers/console.h"
#include "kernel/drivers/fake_device_test.h"
#include "kernel/fs/test_support.h"
#include "kernel/sched/scheduler.h"
#include "kernel/vfs/tty.h"

namespace husk {
namespace {

using namespace abi::virtio;
using drivers::DeviceQueue;
using drivers::FakeTransport;

class TerminalStream final : public vfs::Stream {
 public:
  explicit TerminalStream(drivers::Stream out) : out_(out) {}
  Result<size_t> read(vfs::IoBuffer& buffer, bool nonblocking) override { return drivers::read_input(buffer, nonblocking); }
  bool input_ready() override { return drivers::input_ready(); }
  sched::WaitQueue& input_queue() override { return drivers::input_queue(); }
  Result<size_t> write(vfs::IoBuffer& buffer, bool nonblocking) override { return drivers::write_output(out_, buffer, nonblocking); }
  bool output_ready() override { return drivers::output_ready(out_); }
  sched::WaitQueue& output_queue() override { return drivers::output_queue(out_); }

 private:
  const drivers::Stream out_;
};

struct NoHandler final : vfs::TerminalHandler {
  void terminal_signal(int, i64) override {}
  void terminal_mode(bool) override {}
} no_handler;

class ConsoleWaiting : public test::Machine {
 protected:
  void SetUp() override {
    Machine::SetUp();
    Owned<drivers::virtio::Transport> transports[3];
    FakeTransport* fakes[3];
    for (int i = 0; i < 3; ++i) {
      auto fake = std::make_unique<FakeTransport>();
      fake->offered = feature_bit(kFeatureVersion1) | feature_bit(kFeatureEventIndex);
      fakes[i] = fake.get();
      transports[i] = Owned<drivers::virtio::Transport>(fake.release());
    }
    __lsan_disable();  // they live as long as their machine
    ASSERT_TRUE(drivers::init_consoles(transports, false).ok());
    __lsan_enable();
    u64 base = reinterpret_cast<u64>(mem::direct(PhysAddr{0}));
    input_ = std::make_unique<DeviceQueue>(fakes[0]->queues[0], base);
    output_ = std::make_unique<DeviceQueue>(fakes[0]->queues[1], base);
  }
  static size_t write(drivers::Stream stream, std::string text) {
    vfs::IoSegment segment = vfs::IoBuffer::kernel_segment(text.data(), text.size());
    vfs::IoBuffer buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel);
    return drivers::write_output(stream, buffer, false).value();
  }
  std::unique_ptr<DeviceQueue> input_, output_;
};

// Standard output is a pipe with a slow reader, standard error the terminal on which a key is typed while the machine is idle.
TEST_F(ConsoleWaiting, a_terminal_echoes_without_sleeping_for_the_other_stream) {
  TerminalStream stream(drivers::Stream::error);
  auto terminal = vfs::make_terminal(stream, no_handler, {24, 80}).release();
  std::string typed;
  spawn([&] {
    write(drivers::Stream::input_output, "output\n");
    typed = test::read(*terminal, 10);
  });
  sched::run_until_quiet();
  ASSERT_EQ(input_->give("x\n"), 2u);
  sched::run_until_quiet();
  EXPECT_EQ(typed, "x\n");
}

TEST_F(ConsoleWaiting, a_writer_that_sleeps_is_woken_although_another_writes_meanwhile) {
  bool done = false, other_wrote = false;
  spawn([&] { done = write(drivers::Stream::input_output, std::string(3 << 20, 'x')) == 3 << 20; });
  sched::run_until_quiet();
  ASSERT_FALSE(done);
  for (DeviceQueue::Chain chain; !done && output_->next(&chain);) {
    output_->finish(chain.id, 0);
    if (!output_->interrupt_is_due()) continue;
    if (!std::exchange(other_wrote, true)) {  // before the interrupt is taken
      spawn([&] { write(drivers::Stream::input_output, "y"); });
      sched::scheduler().switch_to_next();
    }
    sched::run_until_quiet();
  }
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace husk
