// What the monitor cannot do, in words for the user: what failed, where, and what to do about it.
//
// Thrown inside vmm/ while a machine is being made; vmm/monitor catches it. Nothing is thrown because of what a guest does.
#pragma once

#include <stdexcept>

namespace husk::vmm {

class MonitorError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// "opening /dev/kvm: Permission denied (hint)" from errno.
[[noreturn]] void throw_errno(const std::string& what, const std::string& hint = "");

}  // namespace husk::vmm
