// Streams and records against a fake device; waiting is console.cc's and is tested in the machine.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "kernel/drivers/console_input.h"
#include "kernel/drivers/console_output.h"
#include "kernel/drivers/fake_device_test.h"
#include "kernel/drivers/record_reader.h"
#include "kernel/mem/frames.h"
#include "kernel/mem/user_copy.h"

namespace husk::mem {
// Frames from the host's heap; the sanitizer then sees what is leaked or used late.
u64 free_memory = 1 * kGiB;
std::map<u64, unsigned> allocated;
Result<PhysAddr> allocate_frames(unsigned order, Zeroed) {
  if ((kPageSize << order) > free_memory) return Error(ENOMEM);
  u64 address = reinterpret_cast<u64>(::operator new(kPageSize << order, std::align_val_t(kPageSize)));
  allocated[address] = order;
  return PhysAddr{address};
}
void free_frames(PhysAddr frame, unsigned order) {
  ASSERT_EQ(allocated.at(frame.value), order);
  allocated.erase(frame.value);
  ::operator delete(reinterpret_cast<void*>(frame.value), std::align_val_t(kPageSize));
}
u8* direct(PhysAddr address) { return reinterpret_cast<u8*>(address.value); }
MemoryStatistics memory_statistics() { return {free_memory, free_memory, 0}; }
size_t copy_to_user_partial(u64, const void*, size_t) { return 0; }  // no program here
size_t copy_from_user_partial(void*, u64, size_t) { return 0; }
}  // namespace husk::mem

namespace husk::drivers {
namespace {

struct Memory {  // an IoBuffer over a string
  explicit Memory(std::string& text)
      : segment(vfs::IoBuffer::kernel_segment(text.data(), text.size())), buffer({&segment, 1}, vfs::IoBuffer::Memory::kernel) {}
  vfs::IoSegment segment;
  vfs::IoBuffer buffer;
};

std::string pattern(size_t size, unsigned seed = 1) {
  std::minstd_rand random(seed);
  std::string text(size, 0);
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

struct Console : testing::Test {
  FakeTransport transport;
  FakeQueue fake{64, true};
  ~Console() override {
    input.reset();
    output.reset();
    EXPECT_TRUE(mem::allocated.empty());
    mem::free_memory = 1 * kGiB;
  }
  std::unique_ptr<InputStream> input = std::make_unique<InputStream>(transport, *fake.queue, 0);
  std::unique_ptr<OutputStream> output = std::make_unique<OutputStream>(transport, *fake.queue, 1);
  size_t write(std::string text) {
    Memory memory(text);
    output->poll();
    return output->write(memory.buffer).value();
  }
  std::string read(size_t size) {
    std::string text(size, 0);
    Memory memory(text);
    text.resize(input->read(memory.buffer).value());
    return text;
  }
};

TEST_F(Console, a_small_write_is_published_with_one_doorbell_and_one_page) {
  EXPECT_TRUE(output->idle());
  EXPECT_EQ(write("hello\n"), 6u);
  EXPECT_EQ(mem::allocated.size(), 1u);
  EXPECT_EQ(transport.doorbells, 1);
  EXPECT_TRUE(output->all_published());
  EXPECT_FALSE(output->idle());
  EXPECT_EQ(fake.take_all(), "hello\n");
  EXPECT_TRUE(output->poll());
  EXPECT_TRUE(output->idle());
}

TEST_F(Console, order_is_kept_when_the_ring_grows_and_wraps) {
  std::minstd_rand random(7);
  std::string sent, received;
  for (int round = 0; round < 3000; ++round) {
    std::string text = pattern(random() % (round < 1500 ? 300 : 20000), round);
    size_t done = write(text);
    sent += text.substr(0, done);
    if (random() % 4 == 0) received += fake.take_all();
  }
  for (int i = 0; i < 1000 && !output->idle(); ++i) received += fake.take_all(), output->poll();
  EXPECT_TRUE(output->idle());
  EXPECT_TRUE(sent == received) << sent.size() << " " << received.size();
}

TEST_F(Console, a_full_ring_takes_what_fits_and_a_small_machine_keeps_a_small_ring) {
  mem::free_memory = 128 * kKiB;
  size_t first = write(pattern(100000));
  EXPECT_GE(first, 4096u);
  EXPECT_LT(first, 100000u);
  EXPECT_EQ(write("x"), 0u);
  EXPECT_FALSE(output->roomy());
  EXPECT_EQ(fake.take_all().size(), first);
  output->poll();
  EXPECT_TRUE(output->roomy());
  EXPECT_EQ(write("x"), 1u);
}

// Half of the chains, of which most are small, are not enough to wake a writer for: then it hears of the others.
TEST_F(Console, a_writer_that_sleeps_hears_of_room_although_its_interrupt_came_too_early) {
  mem::free_memory = 128 * kKiB;
  for (int i = 0; i < 32; ++i) ASSERT_EQ(write("x"), 1u);
  while (write(pattern(1000)) == 1000) continue;
  ASSERT_FALSE(output->roomy());
  output->want_interrupt();
  bool writable = false;
  auto finish = [&] {
    FakeQueue::Chain chain;
    ASSERT_TRUE(fake.next(&chain));
    fake.finish(chain.id, 0);
  };
  for (int heard = 0; !writable;) {
    finish();
    if (!fake.interrupt_is_due()) continue;
    EXPECT_TRUE(output->poll_for_writers(&writable));
    ASSERT_LT(++heard, 10);
    if (heard == 1) {
      EXPECT_FALSE(writable);
    }
  }
  EXPECT_TRUE(output->roomy());
}

TEST_F(Console, a_megabyte_is_in_flight_for_a_large_writer) { EXPECT_GE(write(pattern(3 << 20)), size_t{1} << 20); }

TEST_F(Console, records_go_whole_or_not_at_all) {
  mem::free_memory = 128 * kKiB;
  std::string body = pattern(3000);
  std::span<const u8> bytes(reinterpret_cast<const u8*>(body.data()), body.size());
  u8 head[8] = {'h'};
  EXPECT_TRUE(output->write_all(head, bytes));
  EXPECT_FALSE(output->write_all(head, bytes));
  EXPECT_EQ(fake.take_all().size(), 3008u);
  output->poll();
  EXPECT_TRUE(output->write_all(head, bytes));
}

TEST_F(Console, out_of_order_completion_frees_the_ring_in_order) {
  write("one");
  write("two");
  FakeQueue::Chain one, two;
  ASSERT_TRUE(fake.next(&one) && fake.next(&two));
  fake.finish(two.id, 0);
  output->poll();
  EXPECT_FALSE(output->idle());
  fake.finish(one.id, 0);
  output->poll();
  EXPECT_TRUE(output->idle());
}

TEST_F(Console, a_misbehaving_device_gives_EIO) {
  write("one");
  fake.finish(63, 0);
  output->poll();
  std::string text = "two";
  Memory memory(text);
  EXPECT_EQ(output->write(memory.buffer).error().code(), EIO);
  EXPECT_TRUE(output->idle());
}

TEST_F(Console, nothing_is_taken_from_the_host_before_somebody_wants_it) {
  EXPECT_EQ(fake.give("early"), 0u);
  ASSERT_TRUE(input->want().ok());
  EXPECT_EQ(transport.doorbells, 1);
  EXPECT_EQ(fake.give("now"), 3u);
  EXPECT_TRUE(input->poll());
  EXPECT_EQ(fake.give("later"), 0u);
  EXPECT_EQ(read(2), "no");
  ASSERT_TRUE(input->want().ok());  // there are bytes left: nothing more is asked for
  EXPECT_EQ(fake.give("later"), 0u);
  EXPECT_EQ(read(10), "w");
  EXPECT_FALSE(input->has_bytes());
}

TEST_F(Console, the_end_counts_bytes_wherever_the_record_comes) {
  ASSERT_TRUE(input->want().ok());
  input->set_end(3);
  EXPECT_FALSE(input->at_end());
  fake.give("abc");
  input->poll();
  EXPECT_FALSE(input->at_end());
  EXPECT_EQ(read(10), "abc");
  EXPECT_TRUE(input->at_end());
}

TEST_F(Console, a_stream_gets_a_megabyte_of_buffers_and_arrives_in_order) {
  std::string text = pattern(8 << 20), received;
  size_t given = 0, most = 0;
  while (received.size() < text.size()) {
    ASSERT_TRUE(input->want().ok());
    size_t step = fake.give(std::string_view(text).substr(given));
    most = std::max(most, step);
    given += step;
    input->poll();
    received += read(2 << 20);
  }
  EXPECT_TRUE(received == text);
  EXPECT_GE(most, size_t{1} << 20);
}

TEST_F(Console, a_used_length_beyond_the_buffer_ends_the_input) {
  ASSERT_TRUE(input->want().ok());
  FakeQueue::Chain chain;
  ASSERT_TRUE(fake.next(&chain));
  fake.finish(chain.id, 5000);
  EXPECT_FALSE(input->poll());
  EXPECT_TRUE(input->at_end());
}

// --- records -----------------------------------------------------------------------------------------------------------

struct Records : testing::Test {
  static void take(void* self, abi::RecordType type, std::span<const u8> body) {
    static_cast<Records*>(self)->taken.push_back({type, std::string(body.begin(), body.end())});
  }
  std::string record(u32 type, std::string body, u32 size = 0) {
    u32 head[2] = {type, size != 0 ? size : static_cast<u32>(body.size())};
    return std::string(reinterpret_cast<char*>(head), 8) + body;
  }
  void feed(std::string_view bytes) { reader.feed({reinterpret_cast<const u8*>(bytes.data()), bytes.size()}); }
  std::vector<std::pair<abi::RecordType, std::string>> taken;
  RecordReader reader{take, this};
};

TEST_F(Records, any_cut_gives_the_same_records_and_unknown_ones_are_skipped) {
  std::string stream = record(64, "12345678") + record(999, std::string(5000, 'x')) + record(998, "") + record(65, "abcd");
  for (size_t cut : {1u, 3u, 8u, 11u, 5000u}) {
    taken.clear();
    for (size_t at = 0; at < stream.size(); at += cut) feed(std::string_view(stream).substr(at, cut));
    ASSERT_EQ(taken.size(), 2u);
    EXPECT_EQ(taken[0].second, "12345678");
    EXPECT_EQ(taken[1].first, abi::RecordType::window_size);
  }
}

TEST_F(Records, a_malformed_record_makes_the_reader_deaf) {
  feed(record(64, "1234567"));
  EXPECT_TRUE(reader.deaf());
  feed(record(65, "abcd"));
  EXPECT_TRUE(taken.empty());
}

TEST_F(Records, a_size_beyond_the_limit_makes_the_reader_deaf) {
  feed(record(999, "", 65537));
  EXPECT_TRUE(reader.deaf());
}

}  // namespace
}  // namespace husk::drivers
