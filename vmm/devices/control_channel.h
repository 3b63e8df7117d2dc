// The control console's other end in the monitor: records from the guest are taken apart, records to the guest are queued.
//
// Record layout: abi/control_records.h. The guest is not trusted: after the first malformed record everything else from it is ignored.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <vector>

#include "abi/control_records.h"
#include "vmm/devices/byte_stream.h"

namespace husk::vmm {

class ControlReceiver : public ByteSink {
 public:
  using Handler = std::function<void(abi::RecordType, std::span<const u8>)>;
  using Ready = std::function<bool()>;  // false: write() takes nothing now
  explicit ControlReceiver(
      Handler handler, Ready ready = [] { return true; })
      : handler_(std::move(handler)), ready_(std::move(ready)) {}
  ssize_t write(std::span<const iovec> buffers) override;
  void feed(std::span<const u8> bytes);
  bool malformed() const { return malformed_; }

 private:
  Handler handler_;
  Ready ready_;
  std::vector<u8> pending_;  // at most one record
  bool malformed_ = false;
};

// Any thread may send; the reader is the console.
class ControlSender : public ByteSource {
 public:
  explicit ControlSender(std::function<void()> wake) : wake_(std::move(wake)) {}
  ssize_t read(std::span<const iovec> buffers) override;
  void send(abi::RecordType type, std::span<const u8> payload);
  template <typename T>
  void send_value(abi::RecordType type, const T& value) {
    send(type, {reinterpret_cast<const u8*>(&value), sizeof(value)});
  }
  void send_output_closed(u32 which, int error) { send_value(abi::RecordType::output_closed, which | static_cast<u32>(error) << 8); }

 private:
  static constexpr size_t kPendingMax = 1 << 20;  // a guest that does not read gets no more events
  std::function<void()> wake_;
  std::mutex mutex_;
  std::vector<u8> pending_;
};

}  // namespace husk::vmm
