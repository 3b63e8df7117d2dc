// A capture of the guest's frames in a file that tcpdump and Wireshark read (pcap, nanosecond form, LINKTYPE_ETHERNET).
//
// Frames are collected in memory and written when there are many, or when the I/O thread has nothing else to do. A descriptor that takes nothing
// (a pipe, non-blocking, whose reader is slow) costs frames of the capture, never of the guest. Used by vmm/monitor_devices on the thread that
// works the network device, with its mutex held.
#pragma once

#include <sys/uio.h>

#include <span>
#include <vector>

#include "base/types.h"

namespace husk::vmm::net {

class PcapWriter {
 public:
  static constexpr u32 kSnapLength = 65535;
  explicit PcapWriter(int fd);  // not owned
  ~PcapWriter() { flush(); }
  PcapWriter(const PcapWriter&) = delete;

  void add(std::span<const iovec> frame);
  void flush();
  u64 dropped() const { return dropped_; }
  int error() const { return error_; }  // errno of the write after which nothing was written any more

 private:
  void append(const void* bytes, size_t size);
  int fd_;
  std::vector<u8> buffer_;  // whole records, but for what is written of the first
  int error_ = 0;
  u64 dropped_ = 0;
};

}  // namespace husk::vmm::net
