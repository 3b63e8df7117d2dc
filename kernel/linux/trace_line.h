// A line of a trace, and the arguments of socket calls in it. For trace.cc and trace_sockets.cc.
#pragma once
#undef linux

#include <stdarg.h>
#include <string.h>

#include <span>

#include "base/format.h"
#include "base/types.h"

namespace husk::linux {

struct FlagName {
  u64 bit;
  const char* name;
};
// One line of text of limited length.
class Line {
 public:
  [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    size_t wanted = format_to_v(text_ + size_, sizeof(text_) - size_, format, arguments);
    va_end(arguments);
    size_ = size_ + wanted < sizeof(text_) ? size_ + wanted : sizeof(text_) - 1;
  }
  void add_flags(u64 value, std::span<const FlagName> names, const char* first) {
    const char* separator = first;
    for (const FlagName& flag : names) {
      if ((value & flag.bit) != flag.bit) continue;
      add("%s%s", separator, flag.name);
      separator = "|";
      value &= ~flag.bit;
    }
    if (value != 0 || (*separator == '\0')) add("%s%#lx", separator, value);
  }
  void add_quoted(const u8* bytes, size_t size, bool more) {
    add("\"");
    for (size_t i = 0; i < size; ++i) {
      u8 c = bytes[i];
      if (c == '\n') add("\\n");
      else if (c == '"' || c == '\\') add("\\%c", c);
      else if (c >= ' ' && c < 0x7f) add("%c", c);
      else add("\\x%02x", c);
    }
    add(more ? "\"..." : "\"");
  }
  std::span<const u8> bytes() const { return {reinterpret_cast<const u8*>(text_), size_}; }

 private:
  char text_[400];
  size_t size_ = 0;
};

void add_buffer(Line& line, u64 address, u64 size);  // the first bytes there, quoted

// An argument of a socket call; `previous` and `next` are the arguments beside it. False: it is not of a kind that is known here.
// F family, Y type, K protocol level, J option, N message flags, W how of shutdown; a address (its size follows), A address that the call writes
// (a pointer to its size follows), L that pointer, m message header to send, R one that was received, V option value (its size follows), v the same with a pointer to the size.
bool add_socket_argument(Line& line, char kind, u64 value, u64 previous, u64 next, i64 result, bool after);

}  // namespace husk::linux
