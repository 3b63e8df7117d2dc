// How much memory the buffers of all connections hold (Limits::memory).
//
// Senders may use three quarters, so that what arrives always finds room; and a connection that holds nothing may go a quarter beyond the limit
// with one small buffer each way, so that no connection waits for another's program.
#pragma once

#include "base/panic.h"
#include "base/types.h"

namespace husk::net::tcp {

class Memory {
 public:
  explicit Memory(u64 limit) : limit_(limit) {}
  ~Memory() { HUSK_ASSERT(used_ == 0); }
  u64 used() const { return used_; }
  u64 room() const { return used_ < limit_ ? limit_ - used_ : 0; }
  bool has_minimum() const { return used_ < limit_ + limit_ / 4; }
  // Above it windows stop growing.
  bool under_pressure() const { return used_ > limit_ - limit_ / 4; }
  void take(u64 bytes) { used_ += bytes; }
  void give(u64 bytes) {
    HUSK_ASSERT(bytes <= used_);
    used_ -= bytes;
  }
  u64 limit() const { return limit_; }

 private:
  const u64 limit_;
  u64 used_ = 0;
};

}  // namespace husk::net::tcp
