// TCP options to and from bytes. Runs for every segment: the form that established connections send (NOP NOP timestamps) is tried first.
#include "wire/tcp.h"

namespace husk::wire {

namespace {

enum Kind : u8 { kEnd = 0, kNop = 1, kMss = 2, kWindowScale = 3, kSackPermitted = 4, kSack = 5, kTimestamps = 8 };

void parse_sack(std::span<const u8> data, TcpOptions* result) {
  if (data.empty() || data.size() % 8 != 0 || data.size() > 32) return;
  result->sack_count = static_cast<u8>(data.size() / 8);
  for (u32 i = 0; i < result->sack_count; ++i) result->sack[i] = {load_be32(&data[i * 8]), load_be32(&data[i * 8 + 4])};
}

void parse_timestamps(const u8* data, TcpOptions* result) {
  result->has_timestamps = true;
  result->timestamp_value = load_be32(data);
  result->timestamp_echo = load_be32(data + 4);
}

u8* put_timestamps(u8* to, const TcpOptions& options) {
  to[0] = kTimestamps, to[1] = 10;
  store_be32(to + 2, options.timestamp_value);
  store_be32(to + 6, options.timestamp_echo);
  return to + 10;
}

u8* put_sack(u8* to, const TcpOptions& options, u32 count) {
  to[0] = to[1] = kNop, to[2] = kSack, to[3] = static_cast<u8>(2 + 8 * count);
  to += 4;
  for (u32 i = 0; i < count; ++i, to += 8) {
    store_be32(to, options.sack[i].first);
    store_be32(to + 4, options.sack[i].end);
  }
  return to;
}

}  // namespace

TcpOptions Tcp::parse_tcp_options(std::span<const u8> options) {
  TcpOptions result;
  // RFC 7323 appendix A.
  if (options.size() == 12 && load_be32(options.data()) == 0x0101080a) {
    parse_timestamps(&options[4], &result);
    return result;
  }
  OptionReader reader(options);
  while (auto option = reader.next()) {
    auto data = option->data;
    if (option->kind == kMss && data.size() == 2) result.mss = load_be16(data.data());
    if (option->kind == kWindowScale && data.size() == 1) result.window_scale = data[0] > 14 ? i8{14} : static_cast<i8>(data[0]);
    if (option->kind == kSackPermitted && data.empty()) result.sack_permitted = true;
    if (option->kind == kTimestamps && data.size() == 8) parse_timestamps(data.data(), &result);
    if (option->kind == kSack) parse_sack(data, &result);
  }
  return result;
}

size_t build_tcp_options(const TcpOptions& options, std::span<u8> out) {
  size_t room = out.size() < kTcpOptionsMax ? out.size() & ~size_t{3} : kTcpOptionsMax;
  size_t fixed = (options.mss != 0 ? 4u : 0u) + (options.window_scale >= 0 ? 4u : 0u) + (options.has_timestamps ? 12u : 0u) +
                 (options.sack_permitted && !options.has_timestamps ? 4u : 0u);
  if (fixed > room) return 0;
  size_t blocks = room - fixed < 12 ? 0 : (room - fixed - 4) / 8;
  if (blocks > options.sack_count) blocks = options.sack_count;
  if (blocks > 4) blocks = 4;

  u8* to = out.data();
  if (options.mss != 0) {
    to[0] = kMss, to[1] = 4;
    store_be16(to + 2, options.mss);
    to += 4;
  }
  if (options.sack_permitted || options.has_timestamps) {  // two bytes, so that what follows is aligned; beside timestamps in the place of two NOPs
    to[0] = options.sack_permitted ? kSackPermitted : kNop, to[1] = options.sack_permitted ? 2 : kNop;
    to += 2;
    if (options.has_timestamps) to = put_timestamps(to, options);
    else *to++ = kNop, *to++ = kNop;
  }
  if (options.window_scale >= 0) {
    to[0] = kNop, to[1] = kWindowScale, to[2] = 3, to[3] = static_cast<u8>(options.window_scale);
    to += 4;
  }
  if (blocks != 0) to = put_sack(to, options, static_cast<u32>(blocks));
  return static_cast<size_t>(to - out.data());
}

}  // namespace husk::wire
