// How a socket of the stack tells its owner that something changed. Numbers are those of poll(2).
#pragma once

#include "base/types.h"

namespace husk::net {

enum SocketEvents : u32 { kReadable = 0x001, kWritable = 0x004, kError = 0x008, kHangUp = 0x010, kReadHangUp = 0x2000 };

class SocketObserver {
 public:
  virtual void socket_changed(u32 events) = 0;  // must not call back into the socket

 protected:
  ~SocketObserver() = default;
};

}  // namespace husk::net
