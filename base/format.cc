// See base/format.h.
#include "base/format.h"

#include <stdint.h>
#include <string.h>

namespace husk {
namespace {

struct Output {
  char* buffer;
  size_t size;
  size_t length = 0;
  void put(char c) {
    if (length + 1 < size) buffer[length] = c;
    ++length;
  }
  void repeat(char c, int count) {
    for (int i = 0; i < count; ++i) put(c);
  }
  void text(const char* bytes, size_t count) {
    for (size_t i = 0; i < count; ++i) put(bytes[i]);
  }
};

struct Spec {
  bool left = false, zero = false, plus = false, space = false, alternate = false;
  int width = 0;
  int precision = -1;
  int length_bytes = sizeof(int);
};

int max_of(int a, int b) { return a > b ? a : b; }

void put_padded(Output& out, const Spec& spec, const char* prefix, const char* digits, int count) {
  int prefix_length = static_cast<int>(strlen(prefix));
  int zeros = max_of(0, spec.precision - count);
  int padding = spec.width - prefix_length - zeros - count;
  if (spec.zero && !spec.left && spec.precision < 0 && padding > 0) {
    zeros = padding;
    padding = 0;
  }
  if (!spec.left) out.repeat(' ', padding);
  out.text(prefix, static_cast<size_t>(prefix_length));
  out.repeat('0', zeros);
  out.text(digits, static_cast<size_t>(count));
  if (spec.left) out.repeat(' ', padding);
}

void put_number(Output& out, const Spec& spec, uint64_t value, const char* prefix, unsigned base, char first_letter) {
  char digits[24];
  int count = 0;
  for (; value != 0; value /= base) {
    unsigned digit = static_cast<unsigned>(value % base);
    digits[sizeof(digits) - 1 - static_cast<size_t>(count++)] =
        static_cast<char>(digit < 10 ? '0' + digit : static_cast<unsigned>(first_letter) + digit - 10);
  }
  if (count == 0 && spec.precision != 0) digits[sizeof(digits) - 1 - static_cast<size_t>(count++)] = '0';
  put_padded(out, spec, prefix, digits + sizeof(digits) - count, count);
}

uint64_t narrow_unsigned(uint64_t value, int bytes) { return bytes >= 8 ? value : value & ((uint64_t{1} << (bytes * 8)) - 1); }

int64_t narrow_signed(uint64_t value, int bytes) {
  int shift = 64 - bytes * 8;
  return static_cast<int64_t>(value << shift) >> shift;
}

// va_list passed by reference: it is an array type on this ABI, so it travels in a struct.
struct Arguments {
  va_list list;
  uint64_t integer(int bytes) { return bytes == 8 ? va_arg(list, uint64_t) : va_arg(list, unsigned); }
};

const char* parse_spec(const char* p, Spec& spec, Arguments& arguments) {
  for (;; ++p) {
    if (*p == '-') spec.left = true;
    else if (*p == '0') spec.zero = true;
    else if (*p == '+') spec.plus = true;
    else if (*p == ' ') spec.space = true;
    else if (*p == '#') spec.alternate = true;
    else break;
  }
  auto number = [&](int& value) {
    if (*p == '*') {
      value = static_cast<int>(arguments.integer(4));
      ++p;
      return;
    }
    for (value = 0; *p >= '0' && *p <= '9' && value < 100000; ++p) value = value * 10 + (*p - '0');
  };
  number(spec.width);
  if (spec.width < 0) {
    spec.left = true;
    spec.width = -spec.width;
  }
  if (*p == '.') {
    ++p;
    number(spec.precision);
  }
  for (;; ++p) {
    if (*p == 'h') spec.length_bytes /= 2;
    else if (*p == 'l' || *p == 'z' || *p == 'j' || *p == 't') spec.length_bytes = 8;
    else break;
  }
  if (spec.length_bytes < 1) spec.length_bytes = 1;
  return p;
}

void put_conversion(Output& out, Spec& spec, char conversion, Arguments& arguments) {
  switch (conversion) {
    case 'd':
    case 'i': {
      int64_t value = narrow_signed(arguments.integer(spec.length_bytes), spec.length_bytes);
      const char* sign = value < 0 ? "-" : spec.plus ? "+" : spec.space ? " " : "";
      uint64_t magnitude = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
      return put_number(out, spec, magnitude, sign, 10, 'a');
    }
    case 'u': return put_number(out, spec, narrow_unsigned(arguments.integer(spec.length_bytes), spec.length_bytes), "", 10, 'a');
    case 'o': return put_number(out, spec, narrow_unsigned(arguments.integer(spec.length_bytes), spec.length_bytes), "", 8, 'a');
    case 'x':
    case 'X': {
      uint64_t value = narrow_unsigned(arguments.integer(spec.length_bytes), spec.length_bytes);
      const char* prefix = spec.alternate && value != 0 ? (conversion == 'x' ? "0x" : "0X") : "";
      return put_number(out, spec, value, prefix, 16, conversion == 'x' ? 'a' : 'A');
    }
    case 'p': return put_number(out, spec, arguments.integer(8), "0x", 16, 'a');
    case 'c': {
      char c = static_cast<char>(arguments.integer(4));
      spec.precision = -1;
      spec.zero = false;
      return put_padded(out, spec, "", &c, 1);
    }
    case 's': {
      auto text = reinterpret_cast<const char*>(arguments.integer(8));
      if (text == nullptr) text = "(null)";
      size_t limit = spec.precision < 0 ? SIZE_MAX : static_cast<size_t>(spec.precision);
      size_t count = 0;
      while (count < limit && text[count] != '\0') ++count;
      spec.precision = -1;
      spec.zero = false;
      return put_padded(out, spec, "", text, static_cast<int>(count));
    }
    default:
      out.put('%');
      if (conversion != '%') out.put(conversion);
  }
}

}  // namespace

size_t format_to_v(char* buffer, size_t size, const char* format, va_list list) {
  Output out{buffer, size};
  Arguments arguments;
  va_copy(arguments.list, list);
  for (const char* p = format; *p != '\0'; ++p) {
    if (*p != '%') {
      out.put(*p);
      continue;
    }
    Spec spec;
    p = parse_spec(p + 1, spec, arguments);
    if (*p == '\0') break;
    put_conversion(out, spec, *p, arguments);
  }
  va_end(arguments.list);
  if (size > 0) buffer[out.length < size ? out.length : size - 1] = '\0';
  return out.length;
}

size_t format_to(char* buffer, size_t size, const char* format, ...) {
  va_list list;
  va_start(list, format);
  size_t length = format_to_v(buffer, size, format, list);
  va_end(list);
  return length;
}

}  // namespace husk
