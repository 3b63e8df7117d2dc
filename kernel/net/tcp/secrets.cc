// See secrets.h.
#include "kernel/net/tcp/secrets.h"

namespace husk::net::tcp {

namespace {
enum Purpose : u64 { kSequence = 1, kTimestamp, kPort, kPortCounter, kCookie };
constexpr u64 kCookiePeriod = 64'000'000'000;  // ns
constexpr u16 kCookieMss[8] = {216, 536, 1024, 1220, 1300, 1400, 1440, 1460};
constexpr u32 kTimestampBits = 5;  // 4: window scale, 15: none; 1: SACK
}  // namespace

void SipHash::round() {
  v_[0] += v_[1], v_[1] = std::rotl(v_[1], 13) ^ v_[0], v_[0] = std::rotl(v_[0], 32);
  v_[2] += v_[3], v_[3] = std::rotl(v_[3], 16) ^ v_[2];
  v_[0] += v_[3], v_[3] = std::rotl(v_[3], 21) ^ v_[0];
  v_[2] += v_[1], v_[1] = std::rotl(v_[1], 17) ^ v_[2], v_[2] = std::rotl(v_[2], 32);
}

Secrets::Secrets(Lower& lower) {
  lower.random(key_, sizeof(key_));
  lower.random(flow_hash.key, sizeof(flow_hash.key));
  lower.random(port_counters_, sizeof(port_counters_));
}

u64 Secrets::hash(const Flow& flow, u64 purpose, u64 extra) const {
  return SipHash(key_[0], key_[1]).add(flow.local).add(flow.remote).add(purpose).add(extra).finish();
}

SeqNum Secrets::initial_sequence(const Flow& flow, u64 now_ns) const {
  return {static_cast<u32>(hash(flow, kSequence, 0)) + static_cast<u32>(now_ns / 4000)};
}

u32 Secrets::timestamp_offset(const Flow& flow) const { return static_cast<u32>(hash(flow, kTimestamp, 0)); }

u32 Secrets::port_offset(const IpAddress& local, const Endpoint& remote) const { return static_cast<u32>(hash({{local, 0}, remote}, kPort, 0)); }

u16& Secrets::port_counter(const Endpoint& remote) { return port_counters_[hash({{}, remote}, kPortCounter, 0) % std::size(port_counters_)]; }

SeqNum Secrets::cookie(const Flow& flow, SeqNum peer_sequence, u16 mss, u64 now_ns) const {
  u32 index = 0;
  while (index < 7 && kCookieMss[index + 1] <= mss) ++index;
  u32 top = (static_cast<u32>(now_ns / kCookiePeriod) & 31) << 27 | index << 24;
  return {top | static_cast<u32>(hash(flow, kCookie, u64{peer_sequence.value} << 32 | top) & 0xffffff)};
}

u32 Secrets::cookie_timestamp(u32 timestamp, const Segment& syn) {
  u32 scale = syn.window_scale < 0 ? 15 : static_cast<u32>(syn.window_scale);
  u32 content = scale << 1 | (syn.sack_permitted ? 1 : 0);
  u32 result = (timestamp & ~((1u << kTimestampBits) - 1)) | content;
  return static_cast<i32>(result - timestamp) > 0 ? result - (1u << kTimestampBits) : result;  // ahead of later ones it would fail PAWS
}

std::optional<CookieContent> Secrets::check_cookie(const Flow& flow, SeqNum peer_sequence, SeqNum cookie, const Segment& ack, u64 now_ns) const {
  u32 age = (static_cast<u32>(now_ns / kCookiePeriod) - (cookie.value >> 27)) & 31;
  if (age > 1) return std::nullopt;
  u32 top = cookie.value & 0xff000000;
  if ((hash(flow, kCookie, u64{peer_sequence.value} << 32 | top) & 0xffffff) != (cookie.value & 0xffffff)) return std::nullopt;
  CookieContent content;
  content.mss = kCookieMss[cookie.value >> 24 & 7];
  if (!ack.has_timestamps) return content;
  u32 bits = ack.timestamp_echo & ((1u << kTimestampBits) - 1);
  content.has_timestamps = true;
  content.sack_permitted = (bits & 1) != 0;
  content.window_scale = bits >> 1 == 15 ? i8{-1} : static_cast<i8>(bits >> 1);
  return content;
}

}  // namespace husk::net::tcp
