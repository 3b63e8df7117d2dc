// --trace of socket calls: families, types and options by name, addresses decoded.
#include <asm/socket.h>
#include <linux/in.h>
#include <linux/net.h>
#include <linux/tcp.h>

#include "kernel/linux/sockets.h"
#include "kernel/linux/trace_line.h"

namespace husk::linux {

void add_buffer(Line& line, u64 address, u64 size) {
  constexpr size_t kShown = 32;
  u8 bytes[kShown];
  size_t wanted = size < kShown ? size : kShown;
  size_t got = mem::copy_from_user_partial(bytes, address, wanted);
  if (got < wanted) return line.add("%#lx", address);
  line.add_quoted(bytes, got, size > kShown);
}

namespace {

struct ValueName {
  u16 value;
  const char* name;
};
constexpr ValueName kFamilies[] = {{0, "UNSPEC"}, {1, "UNIX"}, {2, "INET"}, {10, "INET6"}, {16, "NETLINK"}, {17, "PACKET"}, {40, "VSOCK"}};
constexpr ValueName kTypes[] = {{1, "STREAM"}, {2, "DGRAM"}, {3, "RAW"}, {5, "SEQPACKET"}};
constexpr ValueName kLevels[] = {{0, "SOL_IP"}, {1, "SOL_SOCKET"}, {6, "SOL_TCP"}, {17, "SOL_UDP"}, {41, "SOL_IPV6"}, {270, "SOL_NETLINK"}};
constexpr ValueName kSocketOptions[] = {{SO_REUSEADDR, "REUSEADDR"},
                                        {SO_TYPE, "TYPE"},
                                        {SO_ERROR, "ERROR"},
                                        {SO_BROADCAST, "BROADCAST"},
                                        {SO_SNDBUF, "SNDBUF"},
                                        {SO_RCVBUF, "RCVBUF"},
                                        {SO_KEEPALIVE, "KEEPALIVE"},
                                        {SO_LINGER, "LINGER"},
                                        {SO_REUSEPORT, "REUSEPORT"},
                                        {SO_PASSCRED, "PASSCRED"},
                                        {SO_PEERCRED, "PEERCRED"},
                                        {SO_RCVTIMEO_OLD, "RCVTIMEO"},
                                        {SO_SNDTIMEO_OLD, "SNDTIMEO"},
                                        {SO_ACCEPTCONN, "ACCEPTCONN"},
                                        {SO_PROTOCOL, "PROTOCOL"},
                                        {SO_DOMAIN, "DOMAIN"},
                                        {SO_BINDTODEVICE, "BINDTODEVICE"}};
constexpr ValueName kTcpOptions[] = {{TCP_NODELAY, "NODELAY"},
                                     {TCP_MAXSEG, "MAXSEG"},
                                     {TCP_CORK, "CORK"},
                                     {TCP_KEEPIDLE, "KEEPIDLE"},
                                     {TCP_KEEPINTVL, "KEEPINTVL"},
                                     {TCP_KEEPCNT, "KEEPCNT"},
                                     {TCP_DEFER_ACCEPT, "DEFER_ACCEPT"},
                                     {TCP_INFO, "INFO"},
                                     {TCP_QUICKACK, "QUICKACK"},
                                     {TCP_CONGESTION, "CONGESTION"},
                                     {TCP_USER_TIMEOUT, "USER_TIMEOUT"},
                                     {TCP_FASTOPEN, "FASTOPEN"}};
constexpr FlagName kTypeFlags[] = {{02000000, "SOCK_CLOEXEC"}, {04000, "SOCK_NONBLOCK"}};
constexpr FlagName kMessageFlags[] = {{0x1, "MSG_OOB"},
                                      {0x2, "MSG_PEEK"},
                                      {0x8, "MSG_CTRUNC"},
                                      {0x20, "MSG_TRUNC"},
                                      {0x40, "MSG_DONTWAIT"},
                                      {0x80, "MSG_EOR"},
                                      {0x100, "MSG_WAITALL"},
                                      {0x2000, "MSG_ERRQUEUE"},
                                      {0x4000, "MSG_NOSIGNAL"},
                                      {0x8000, "MSG_MORE"},
                                      {0x40000000, "MSG_CMSG_CLOEXEC"}};

void add_name(Line& line, u64 value, std::span<const ValueName> names, const char* prefix) {
  for (const ValueName& candidate : names) {
    if (candidate.value == value) return line.add("%s%s", prefix, candidate.name);
  }
  line.add("%d", static_cast<int>(value));
}

void add_option(Line& line, u64 level, u64 option) {
  if (level == SOL_SOCKET) return add_name(line, option, kSocketOptions, "SO_");
  if (level == 6) return add_name(line, option, kTcpOptions, "TCP_");
  line.add("%lu", option);
}

// RFC 5952: the longest run of zeros as "::".
void add_ipv6(Line& line, const u8* bytes) {
  u16 groups[8];
  for (int i = 0; i < 8; ++i) groups[i] = static_cast<u16>(bytes[2 * i] << 8 | bytes[2 * i + 1]);
  int start = -1, length = 1;
  for (int i = 0; i < 8; ++i) {
    int end = i;
    while (end < 8 && groups[end] == 0) ++end;
    if (end - i > length) start = i, length = end - i;
  }
  for (int i = 0; i < 8; ++i) {
    if (i == start) {
      line.add("::");
      i += length - 1;
    } else {
      line.add(i > 0 && i != start + length ? ":%x" : "%x", groups[i]);
    }
  }
}

void add_address(Line& line, u64 address, u64 size) {
  u8 bytes[vfs::SocketAddress::kMax];
  size = size < sizeof(bytes) ? size : sizeof(bytes);
  if (address == 0) return line.add("NULL");
  if (size < 2 || mem::copy_from_user_partial(bytes, address, size) < size) return line.add("%#lx", address);
  u16 family;
  memcpy(&family, bytes, sizeof(family));
  const int port = bytes[2] << 8 | bytes[3];
  line.add("{");
  add_name(line, family, kFamilies, "AF_");
  if (family == 1 && size > 2) {
    const bool abstract = bytes[2] == 0;
    const char* path = reinterpret_cast<const char*>(bytes) + 2 + (abstract ? 1 : 0);
    size_t length = abstract ? size - 3 : strnlen(path, size - 2);
    line.add(abstract ? " @" : " ");
    line.add_quoted(reinterpret_cast<const u8*>(path), length, false);
  } else if (family == 2 && size >= 8) {
    line.add(" %d.%d.%d.%d:%d", bytes[4], bytes[5], bytes[6], bytes[7], port);
  } else if (family == 10 && size >= 24) {
    line.add(" [");
    add_ipv6(line, bytes + 8);
    line.add("]:%d", port);
  }
  line.add("}");
}

// The value of a pointer to int; -1 if it cannot be read.
int int_at(u64 address) {
  Result<int> value = mem::read_user(mem::UserPtr<int>(address));
  return value.ok() ? *value : -1;
}

// struct msghdr: its name and the first buffer. What was received is `moved` bytes.
void add_message(Line& line, u64 address, bool received, i64 moved) {
  struct {
    u64 name;
    u32 name_size, pad;
    u64 vector, count, control, control_size;
    u32 flags, pad2;
  } header;
  u64 first[2] = {0, 0};
  if (!mem::copy_from_user(&header, address, sizeof(header)).ok()) return line.add("%#lx", address);
  line.add("{");
  if (header.name != 0) {
    add_address(line, header.name, header.name_size);
    line.add(", ");
  }
  if (header.count > 0) (void)mem::copy_from_user(first, header.vector, sizeof(first)).ok();
  line.add("[");
  if (header.count > 0) add_buffer(line, first[0], received && static_cast<u64>(moved) < first[1] ? static_cast<u64>(moved) : first[1]);
  line.add(header.count > 1 ? ", ...%lu]" : "]", header.count);
  if (header.control_size > 0) line.add(", control %lu", header.control_size);
  if (received && header.flags != 0) line.add_flags(header.flags, kMessageFlags, ", ");
  line.add("}");
}

void add_option_value(Line& line, u64 address, int size) {
  if (size == sizeof(int)) return line.add("[%d]", int_at(address));
  line.add("%#lx", address);
}

}  // namespace

bool add_socket_argument(Line& line, char kind, u64 value, u64 previous, u64 next, i64 result, bool after) {
  const bool good = after && result >= 0;
  switch (kind) {
    case 'F': add_name(line, static_cast<u32>(value), kFamilies, "AF_"); return true;
    case 'Y':
      add_name(line, value & 0xf, kTypes, "SOCK_");
      if ((value & 0xfffffff0) != 0) line.add_flags(value & 0xfffffff0, kTypeFlags, "|");
      return true;
    case 'K': add_name(line, static_cast<u32>(value), kLevels, ""); return true;
    case 'J': add_option(line, static_cast<u32>(previous), static_cast<u32>(value)); return true;
    case 'N':
      if (static_cast<u32>(value) == 0) line.add("0");
      else line.add_flags(static_cast<u32>(value), kMessageFlags, "");
      return true;
    case 'W':
      if (value > 2) return false;
      line.add("SHUT_%s", value == 0 ? "RD" : value == 1 ? "WR" : "RDWR");
      return true;
    case 'a': add_address(line, value, next); return true;
    case 'A':
      if (good && value != 0) add_address(line, value, static_cast<u64>(int_at(next)));
      else line.add(value == 0 ? "NULL" : "%#lx", value);
      return true;
    case 'L':
      if (value == 0) line.add("NULL");
      else line.add("[%d]", int_at(value));
      return true;
    case 'm': add_message(line, value, false, result); return true;
    case 'R':
      if (good) add_message(line, value, true, result);
      else line.add("%#lx", value);
      return true;
    case 'V': add_option_value(line, value, static_cast<int>(next)); return true;
    case 'v': add_option_value(line, value, good ? int_at(next) : -1); return true;
    default: return false;
  }
}

}  // namespace husk::linux
