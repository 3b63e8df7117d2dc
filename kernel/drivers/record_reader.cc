#include "kernel/drivers/record_reader.h"

#include <string.h>

#include <algorithm>

namespace husk::drivers {

namespace {
// Size of the records that the monitor sends, -1 for others.
int known_size(abi::RecordType type) {
  switch (type) {
    case abi::RecordType::input_end: return 8;
    case abi::RecordType::window_size: return 4;
    case abi::RecordType::signal: return 4;
    case abi::RecordType::output_closed: return 4;
    default: return -1;
  }
}
}  // namespace

void RecordReader::feed(std::span<const u8> bytes) {
  while (!deaf_ && !bytes.empty()) {
    bool in_header = header_bytes_ < sizeof(header_);
    size_t wanted = in_header ? sizeof(header_) - header_bytes_ : header_.size - body_bytes_;
    size_t step = std::min(wanted, bytes.size());
    if (in_header) {
      memcpy(reinterpret_cast<u8*>(&header_) + header_bytes_, bytes.data(), step);
      header_bytes_ += step;
      take_header();
    } else {
      if (body_bytes_ < kBodyMax) memcpy(body_ + body_bytes_, bytes.data(), std::min(step, kBodyMax - body_bytes_));
      body_bytes_ += step;
      take_body();
    }
    bytes = bytes.subspan(step);
  }
}

void RecordReader::take_header() {
  if (header_bytes_ < sizeof(header_)) return;
  int size = known_size(header_.type);
  deaf_ = header_.size > abi::kRecordSizeMax || (size >= 0 && header_.size != static_cast<u32>(size));
  if (header_.size == 0) take_body();
}

void RecordReader::take_body() {
  if (deaf_ || body_bytes_ < header_.size) return;
  if (known_size(header_.type) >= 0) handler_(context_, header_.type, {body_, header_.size});
  header_bytes_ = body_bytes_ = 0;
}

}  // namespace husk::drivers
