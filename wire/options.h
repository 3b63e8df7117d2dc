// Lists of kind-length-value options as IPv4 and TCP have them (RFC 791 §3.1, RFC 9293 §3.2): 0 ends the list, 1 is padding, and every other
// has a length that includes its two first bytes.
#pragma once

#include <optional>
#include <span>

#include "wire/endian.h"

namespace husk::wire {

struct Option {
  u8 kind;
  std::span<const u8> data;
};

class OptionReader {
 public:
  explicit OptionReader(std::span<const u8> bytes) : rest_(bytes) {}
  // Nothing at the end, and after an option whose length cannot be: then malformed() is true.
  std::optional<Option> next() {
    while (!rest_.empty() && rest_[0] == 1) rest_ = rest_.subspan(1);
    if (rest_.empty() || rest_[0] == 0) return std::nullopt;
    if (rest_.size() < 2 || rest_[1] < 2 || rest_[1] > rest_.size()) {
      malformed_ = true;
      rest_ = {};
      return std::nullopt;
    }
    Option option{rest_[0], rest_.subspan(2, rest_[1] - 2u)};
    rest_ = rest_.subspan(rest_[1]);
    return option;
  }
  bool malformed() const { return malformed_; }

 private:
  std::span<const u8> rest_;
  bool malformed_ = false;
};

}  // namespace husk::wire
