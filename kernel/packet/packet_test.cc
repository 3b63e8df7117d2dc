#include "kernel/packet/packet.h"

#include <gtest/gtest.h>

#include <string>

namespace husk::packet {
namespace {

Slice text_slice(std::string_view text) {
  auto buffer = Buffer::create(static_cast<u32>(text.size())).release();
  memcpy(buffer->data(), text.data(), text.size());
  return {std::move(buffer), 0, static_cast<u32>(text.size())};
}
std::string text_of(const Packet& packet) {
  std::string out(packet.size(), 0);
  packet.copy_out(0, out.data(), packet.size());
  return out;
}
PacketPtr make(std::initializer_list<std::string_view> parts) {
  auto packet = Packet::create().release();
  for (auto part : parts) EXPECT_TRUE(packet->append(text_slice(part)).ok());
  return packet;
}

TEST(Packet, trimming_crosses_slices) {
  auto packet = make({"abc", "de", "fgh"});
  packet->trim_front(4);
  EXPECT_EQ(text_of(*packet), "efgh");
  packet->trim_back(3);
  EXPECT_EQ(text_of(*packet), "e");
  packet->trim_back(1);
  EXPECT_EQ(packet->size(), 0u);
  EXPECT_TRUE(packet->slices().empty());
}

TEST(Packet, pull_up_makes_headers_contiguous) {
  auto packet = make({"abc", "de", "fgh"});
  EXPECT_FALSE(packet->pull_up(9));
  ASSERT_TRUE(packet->pull_up(4));
  EXPECT_GE(packet->head().size(), 4u);
  EXPECT_EQ(text_of(*packet), "abcdefgh");
}

TEST(Packet, push_front_does_not_write_into_shared_memory) {
  auto packet = Packet::create(4).release();
  memcpy(packet->head().data(), "body", 4);
  auto copy = packet->clone().release();
  memcpy(packet->push_front(2).release(), "1:", 2);
  memcpy(copy->push_front(2).release(), "2:", 2);
  EXPECT_EQ(text_of(*packet), "1:body");
  EXPECT_EQ(text_of(*copy), "2:body");
}

TEST(Packet, push_front_uses_the_room_of_its_own_buffer) {
  auto packet = Packet::create(10).release();
  ASSERT_TRUE(packet->push_front(Packet::kHeaderRoom).ok());
  EXPECT_EQ(packet->slices().size(), 1u);
  ASSERT_TRUE(packet->push_front(1).ok());
  EXPECT_EQ(packet->slices().size(), 2u);
}

TEST(Packet, slices_are_limited) {
  auto packet = Packet::create().release();
  for (u32 i = 0; i < Packet::kSlicesMax; ++i) ASSERT_TRUE(packet->append(text_slice("x")).ok());
  EXPECT_EQ(packet->append(text_slice("x")).error(), Error(EMSGSIZE));
}

}  // namespace
}  // namespace husk::packet
