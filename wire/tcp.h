// TCP headers and options (RFC 9293 §3.1 and §3.2; RFC 7323 window scale and timestamps, RFC 2018 SACK).
#pragma once

#include <optional>
#include <span>

#include "wire/options.h"

namespace husk::wire {

struct TcpHeader {
  Be16 source_port, destination_port;
  Be32 sequence, acknowledgement;
  u8 size_and_reserved;  // upper four bits: header size in words of 4 bytes
  u8 flags;              // FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128
  Be16 window, checksum, urgent_pointer;
};
static_assert(sizeof(TcpHeader) == 20);
constexpr u32 kTcpOptionsMax = 40;

struct TcpSackBlock {
  u32 first, end;  // end: one behind the last byte
  bool operator==(const TcpSackBlock&) const = default;
};

// Absent: 0, -1, false.
struct TcpOptions {
  u16 mss = 0;
  i8 window_scale = -1;  // at most 14 (RFC 7323 §2.3)
  bool sack_permitted = false;
  bool has_timestamps = false;
  u32 timestamp_value = 0, timestamp_echo = 0;
  u8 sack_count = 0;
  TcpSackBlock sack[4] = {};
  bool operator==(const TcpOptions&) const = default;
};

struct Tcp {
  const TcpHeader* header;
  u32 header_size;
  std::span<const u8> options;
  std::span<const u8> payload;  // what of it lies in `bytes`

  // `bytes` is the contiguous beginning of an IP payload and contains the whole header.
  static std::optional<Tcp> parse(std::span<const u8> bytes) {
    auto* header = view_at<TcpHeader>(bytes);
    if (header == nullptr) return std::nullopt;
    u32 size = (header->size_and_reserved >> 4) * 4u;
    if (size < sizeof(TcpHeader) || size > bytes.size()) return std::nullopt;
    return Tcp{header, size, bytes.subspan(sizeof(TcpHeader), size - sizeof(TcpHeader)), bytes.subspan(size)};
  }
  // Options of wrong length are as absent; what follows one whose length cannot be is ignored.
  TcpOptions parse_options() const { return parse_tcp_options(options); }
  static TcpOptions parse_tcp_options(std::span<const u8> options);
};

// Writes the options, padded to a multiple of 4 bytes, and gives their size. SACK blocks that do not fit into `out` or the 40 bytes are left out (three fit
// beside timestamps); 0 if the others do not fit.
size_t build_tcp_options(const TcpOptions& options, std::span<u8> out);

}  // namespace husk::wire
