// Reads the numbers and pointers of DWARF tables in order. Pure; for the files of this folder.
// Specification: DWARF 5 §7.6 (LEB128), LSB 5.0 core §10.5 (pointer encodings).
#pragma once

#include <string_view>

#include "image/file.h"

namespace husk::image {

constexpr u8 kPointerOmitted = 0xff, kPointerPcRelative = 0x10, kPointerIndirect = 0x80;

// Reads forward; after a failure every read gives 0 and ok() is false.
class DwarfCursor {
 public:
  DwarfCursor(Bytes bytes, u64 address) : bytes_(bytes), address_(address) {}
  bool ok() const { return ok_; }
  u64 offset() const { return offset_; }
  u64 address() const { return address_ + offset_; }
  Bytes rest() const { return ok_ ? bytes_.subspan(offset_) : Bytes(); }
  bool at_end() const { return !ok_ || offset_ >= bytes_.size(); }
  void skip(u64 count) {
    if (!ok_ || bytes_.size() - offset_ < count) {
      ok_ = false;
    } else {
      offset_ += count;
    }
  }
  template <typename T>
  T get() {
    auto value = ok_ ? read_at<T>(bytes_, offset_) : std::nullopt;
    skip(sizeof(T));
    return ok_ ? *value : T{};
  }
  u64 uleb() { return leb(nullptr); }
  i64 sleb() {
    unsigned bits;
    u64 value = leb(&bits);
    if (ok_ && bits < 64 && (last_ & 0x40)) value |= ~u64{0} << bits;
    return static_cast<i64>(value);
  }
  // A pointer; relative ones are made absolute. Zero stays zero (it means "none").
  u64 pointer(u8 encoding) {
    u64 here = address(), value = 0;
    switch (encoding & 0x0f) {
      case 0x00:
      case 0x04:
      case 0x0c: value = get<u64>(); break;
      case 0x01: value = uleb(); break;
      case 0x02: value = get<u16>(); break;
      case 0x03: value = get<u32>(); break;
      case 0x09: value = static_cast<u64>(sleb()); break;
      case 0x0a: value = static_cast<u64>(i64{get<int16_t>()}); break;
      case 0x0b: value = static_cast<u64>(i64{get<int32_t>()}); break;
      default: ok_ = false;
    }
    u8 base = encoding & 0x70;
    if ((encoding & kPointerIndirect) || (base != 0 && base != kPointerPcRelative)) ok_ = false;
    return value != 0 && base == kPointerPcRelative ? value + here : value;
  }
  std::string_view text() {
    auto start = offset_;
    while (ok_ && get<u8>() != 0) {}
    return ok_ ? as_text(bytes_.subspan(start, offset_ - start - 1)) : std::string_view{};
  }

 private:
  u64 leb(unsigned* bits) {
    u64 value = 0;
    unsigned shift = 0;
    do {
      last_ = get<u8>();
      if (shift < 64) value |= u64{last_ & 0x7fu} << shift;
      shift += 7;
    } while (ok_ && (last_ & 0x80) && shift < 70);
    if (bits) *bits = shift;
    return value;
  }
  Bytes bytes_;
  u64 address_, offset_ = 0;
  u8 last_ = 0;
  bool ok_ = true;
};

}  // namespace husk::image
