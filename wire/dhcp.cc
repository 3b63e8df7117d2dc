// DHCP options to and from bytes.
#include "wire/dhcp.h"

namespace husk::wire {

std::optional<DhcpOption> DhcpOptionReader::next() {
  while (true) {
    while (!rest_.empty() && rest_[0] == kDhcpPad) rest_ = rest_.subspan(1);
    bool end = rest_.size() < 2 || rest_[0] == kDhcpEnd || rest_[1] > rest_.size() - 2;  // what is cut off ends its field
    if (!end) break;
    if ((overload_ & 1) != 0) rest_ = header_->file, overload_ &= static_cast<u8>(~1);
    else if ((overload_ & 2) != 0) rest_ = header_->server_name, overload_ &= static_cast<u8>(~2);
    else return std::nullopt;
  }
  DhcpOption option{rest_[0], rest_.subspan(2, rest_[1])};
  rest_ = rest_.subspan(2u + rest_[1]);
  // It counts in the options field only: the other two end at their end.
  bool in_options = rest_.data() < header_->server_name || rest_.data() >= reinterpret_cast<const u8*>(header_ + 1);
  if (option.code == kDhcpOverload && option.data.size() == 1 && in_options) overload_ = option.data[0] & 3;
  return option;
}

std::span<const u8> Dhcp::find(u8 code, size_t size) const {
  auto options_reader = reader();
  while (auto option = options_reader.next()) {
    if (option->code == code && option->data.size() >= size) return option->data;
  }
  return {};
}

size_t Dhcp::copy(u8 code, std::span<u8> out) const {
  size_t size = 0;
  auto options_reader = reader();
  while (auto option = options_reader.next()) {
    if (option->code != code || option->data.empty()) continue;
    size_t part = option->data.size() < out.size() - size ? option->data.size() : out.size() - size;
    if (part == 0) break;
    memcpy(&out[size], option->data.data(), part);
    size += part;
  }
  return size;
}

std::optional<DhcpRoute> DhcpRouteReader::next() {
  if (rest_.empty() || rest_[0] > 32) return std::nullopt;
  DhcpRoute route{rest_[0], {}, {}};
  size_t significant = (route.prefix_bits + 7u) / 8;
  if (rest_.size() < 1 + significant + 4) return std::nullopt;
  memcpy(route.network, rest_.data() + 1, significant);
  memcpy(route.router, rest_.data() + 1 + significant, 4);
  rest_ = rest_.subspan(1 + significant + 4);
  return route;
}

DhcpBuilder::DhcpBuilder(std::span<u8> out, DhcpType type, u32 transaction, const u8* mac) : out_(out) {
  auto* message = header();
  if (message == nullptr) {
    overflow_ = true;
    return;
  }
  memset(message, 0, sizeof(*message));
  message->operation = 1, message->hardware = 1, message->hardware_size = 6;
  message->transaction = transaction;
  memcpy(message->client_mac, mac, 6);
  message->magic = kDhcpMagic;
  u8 code = type;
  add(kDhcpMessageType, {&code, 1});
}

void DhcpBuilder::add(u8 code, std::span<const u8> data) {
  overflow_ = overflow_ || data.size() > 255 || out_.size() - size_ < 2 + data.size();
  if (overflow_) return;
  out_[size_] = code, out_[size_ + 1] = static_cast<u8>(data.size());
  if (!data.empty()) memcpy(&out_[size_ + 2], data.data(), data.size());
  size_ += 2 + data.size();
}

void DhcpBuilder::add_u16(u8 code, u16 value) {
  u8 bytes[2];
  store_be16(bytes, value);
  add(code, bytes);
}

void DhcpBuilder::add_u32(u8 code, u32 value) {
  u8 bytes[4];
  store_be32(bytes, value);
  add(code, bytes);
}

size_t DhcpBuilder::finish() {
  if (overflow_ || out_.size() < kSizeMin || out_.size() == size_) return 0;
  out_[size_++] = kDhcpEnd;
  if (size_ < kSizeMin) {
    memset(&out_[size_], 0, kSizeMin - size_);
    size_ = kSizeMin;
  }
  return size_;
}

}  // namespace husk::wire
