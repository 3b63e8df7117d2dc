// Boot configuration: what to run and how, from the image's manifest or from `husk run`, as tagged records.
//
// A sequence of {u32 tag, u32 size, size bytes, padding to 8}. It ends with tag `end` or with the buffer. Unknown tags are skipped.
// Strings carry no NUL. The monitor gives the whole configuration (it replaces the image's default); QEMU gets it as
// PVH module 0. Both ends treat it as untrusted: see ConfigReader.
#pragma once

#include <string.h>

#include <optional>
#include <span>
#include <string_view>

#include "base/types.h"

namespace husk::abi {

enum class ConfigTag : u32 {
  end = 0,
  program = 1,      // path in the root file system
  argument = 2,     // argv[0], argv[1], ... in order
  environment = 3,  // NAME=VALUE, in order
  directory = 4,    // working directory
  host_name = 5,
  user = 6,                    // u32 uid, u32 gid
  terminal = 7,                // u8 stdin, stdout, stderr: 1 if it is a terminal; u8 pad; u16 rows, u16 columns
  trace = 8,                   // empty: print every system call
  random_seed = 9,             // 32 bytes from the host's generator; fresh for each start
  wall_clock = 10,             // u64 Unix time in ns, u64 TSC value at that time
  tsc_frequency = 11,          // u64 Hz
  address_randomisation = 12,  // u8: 0 switches it off (for debugging)
  log_level = 13,              // u8: 0 error, 1 warning, 2 info, 3 debug
  jit = 14,                    // empty: as ImageFlags::kImageJit
  stack_limit = 15,            // u64 bytes
  network = 16,                // u8: NetworkMode. Absent: no network but the loopback
  network_address = 17,        // NetworkAddress; several are allowed
  network_gateway = 18,        // NetworkAddress, prefix_bits 0; one per family
  name_server = 19,            // NetworkAddress, prefix_bits 0, in order of preference
  search_domain = 20,          // text, as in resolv.conf(5): names separated by spaces
  host_entry = 21,             // "ADDRESS NAME", for hosts(5)
  memory_size = 22,            // u64 bytes that an image asks for; for whoever starts it
};

enum class NetworkMode : u8 { none = 0, manual = 1, automatic = 2 };  // automatic: DHCPv4 and SLAAC; addresses given are added

struct NetworkAddress {
  u8 family;  // 4 or 6
  u8 prefix_bits;
  u8 padding[2];
  u8 address[16];  // network order; IPv4 in the first 4 bytes
};
static_assert(sizeof(NetworkAddress) == 20);

struct ConfigRecord {
  ConfigTag tag;
  std::span<const u8> bytes;
  std::string_view text() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
};

// Walks a configuration without trusting it; stops at the first malformed record.
class ConfigReader {
 public:
  explicit ConfigReader(std::span<const u8> bytes) : rest_(bytes) {}
  std::optional<ConfigRecord> next() {
    u32 head[2];
    if (rest_.size() < sizeof(head)) return std::nullopt;
    memcpy(head, rest_.data(), sizeof(head));
    if (head[0] == 0 || head[1] > rest_.size() - sizeof(head)) return std::nullopt;
    ConfigRecord record{static_cast<ConfigTag>(head[0]), rest_.subspan(sizeof(head), head[1])};
    u64 step = align_up(sizeof(head) + u64{head[1]}, 8);
    rest_ = step >= rest_.size() ? std::span<const u8>{} : rest_.subspan(step);
    return record;
  }

 private:
  std::span<const u8> rest_;
};

// Appends one record to anything with push_back(u8) (std::vector on the host).
template <typename Bytes>
void append_config(Bytes& out, ConfigTag tag, std::string_view value) {
  u32 head[2] = {static_cast<u32>(tag), static_cast<u32>(value.size())};
  const u8* bytes = reinterpret_cast<const u8*>(head);
  for (size_t i = 0; i < sizeof(head); ++i) out.push_back(bytes[i]);
  for (char c : value) out.push_back(static_cast<u8>(c));
  for (u64 i = value.size(); i % 8 != 0; ++i) out.push_back(0);
}

}  // namespace husk::abi
