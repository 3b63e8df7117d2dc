// How the command fails: one line for the user and an exit status.
#pragma once

#include <stdexcept>
#include <string>

namespace husk::cli {

constexpr int kStatusHusk = 125, kStatusCannotRun = 126, kStatusNotFound = 127;

// The message follows the pattern "what: why; what to do"; main() adds "husk: ".
class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& message, int status = kStatusHusk) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

}  // namespace husk::cli
