// Takes control records apart as they arrive (abi/control_records.h), cut anywhere.
//
// Records of unknown type are skipped; at the first malformed one the reader goes deaf, because nothing behind it can be believed.
#pragma once

#include <span>

#include "abi/control_records.h"

namespace husk::drivers {

class RecordReader {
 public:
  using Handler = void (*)(void* context, abi::RecordType type, std::span<const u8> body);
  RecordReader(Handler handler, void* context) : handler_(handler), context_(context) {}
  void feed(std::span<const u8> bytes);
  bool deaf() const { return deaf_; }

 private:
  static constexpr size_t kBodyMax = 16;  // of the records that a guest knows
  void take_header();
  void take_body();

  Handler handler_;
  void* context_;
  abi::RecordHeader header_{};
  u8 body_[kBodyMax];
  size_t header_bytes_ = 0;
  size_t body_bytes_ = 0;  // of header_.size, seen so far
  bool deaf_ = false;
};

}  // namespace husk::drivers
