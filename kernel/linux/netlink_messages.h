// rtnetlink(7): the kernel's answers to questions about links, addresses and routes, as bytes. No socket here: tested hosted.
#pragma once
#undef linux

#include "base/vec.h"
#include "kernel/net/stack.h"

namespace husk::linux {

// Answers of one request: datagrams one behind the other. A dump is cut so that each fits the small buffers of libc and Go.
class NetlinkAnswer {
 public:
  static constexpr size_t kDatagramMax = 3 * kKiB;
  Vec<Vec<u8>> datagrams;

  // One message: begin(), attributes, end().
  Result<void> begin(u16 type, u16 flags, u32 sequence, u32 port, const void* body, size_t size);
  Result<void> attribute(u16 type, const void* data, size_t size);
  template <typename T>
  Result<void> attribute(u16 type, const T& value) {
    return attribute(type, &value, sizeof(value));
  }
  void end();

 private:
  Result<void> append(const void* data, size_t size);
  size_t message_start_ = 0;
};

// Answers every request in `bytes`, as a program sent them. `port`: the socket's.
Result<void> answer_netlink(const net::Stack& stack, std::span<const u8> bytes, u32 port, NetlinkAnswer& out);

}  // namespace husk::linux
