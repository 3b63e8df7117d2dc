// A TCP segment, decoded: what the state machine works on. wire/tcp.h knows the bytes; tests are tables of these.
#pragma once

#include <compare>

#include "base/types.h"

namespace husk::net::tcp {

// RFC 9293 §3.4: arithmetic modulo 2^32. Comparisons are right for numbers less than 2^31 apart.
struct SeqNum {
  u32 value = 0;
  bool operator==(const SeqNum&) const = default;
  bool operator<(SeqNum other) const { return static_cast<i32>(value - other.value) < 0; }
  bool operator<=(SeqNum other) const { return static_cast<i32>(value - other.value) <= 0; }
  bool operator>(SeqNum other) const { return other < *this; }
  bool operator>=(SeqNum other) const { return other <= *this; }
  SeqNum operator+(u32 bytes) const { return {value + bytes}; }
  SeqNum operator-(u32 bytes) const { return {value - bytes}; }
  u32 operator-(SeqNum other) const { return value - other.value; }  // distance, when other <= *this
  SeqNum& operator+=(u32 bytes) {
    value += bytes;
    return *this;
  }
};

enum Flags : u8 { kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16, kUrg = 32, kEce = 64, kCwr = 128 };

struct SackBlock {
  SeqNum first, end;  // end: one behind the last byte
  bool operator==(const SackBlock&) const = default;
};

struct Segment {
  SeqNum seq, ack;
  u8 flags = 0;
  u16 window = 0;  // as on the wire, not scaled
  u16 urgent_pointer = 0;
  u32 payload_size = 0;
  // Options (RFC 9293 §3.2, RFC 7323, RFC 2018). Absent: 0, -1, false.
  u16 mss = 0;
  i8 window_scale = -1;
  bool sack_permitted = false;
  bool has_timestamps = false;
  u32 timestamp_value = 0, timestamp_echo = 0;
  u8 sack_count = 0;
  SackBlock sack[4];

  bool has(u8 flag) const { return (flags & flag) != 0; }
  // Sequence numbers that it takes: payload, SYN and FIN.
  u32 length() const { return payload_size + (has(kSyn) ? 1 : 0) + (has(kFin) ? 1 : 0); }
};

}  // namespace husk::net::tcp
