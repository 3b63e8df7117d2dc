// Where a console's bytes come from and go to: a host descriptor, or something in the monitor.
//
// Never blocks, although the descriptors are shared with other processes, so that O_NONBLOCK must not be set on them: pipes are used with
// RWF_NOWAIT, sockets with MSG_DONTWAIT, terminals through a file description of our own; what has none of these is polled first and
// written in pieces that fit.
#pragma once

#include <sys/uio.h>

#include <span>

#include "host/file_descriptor.h"

namespace husk::vmm {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Bytes read; 0 at the end; -errno, of which -EAGAIN means later.
  virtual ssize_t read(std::span<const iovec> buffers) = 0;
};

class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual ssize_t write(std::span<const iovec> buffers) = 0;
};

class HostStream : public ByteSource, public ByteSink {
 public:
  enum class Direction { in, out };
  // Does not own `fd`. -1 reads as empty and writes as closed.
  HostStream(int fd, Direction direction);
  ssize_t read(std::span<const iovec> buffers) override;
  ssize_t write(std::span<const iovec> buffers) override;
  int fd() const { return own_ ? own_.get() : fd_; }
  // A duplicate for epoll, which takes each descriptor once: stdin, stdout and stderr may be one file.
  int watch_fd();
  // The file cannot be waited for (epoll said EPERM): plain reads and writes do not block.
  void set_always_ready() { mode_ = Mode::plain, always_ready_ = true; }
  // From the event loop, edge-triggered: until then a stream that said EAGAIN is not asked again.
  void set_ready() { ready_ = true; }

 private:
  enum class Mode { plain, no_wait, socket, polled };
  ssize_t transfer(std::span<const iovec> buffers, Direction direction);
  int fd_;
  Mode mode_ = Mode::no_wait;
  bool ready_ = true, always_ready_ = false;
  host::FileDescriptor own_, watched_;
};

}  // namespace husk::vmm
