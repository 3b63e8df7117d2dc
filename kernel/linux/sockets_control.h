// Control messages of sendmsg(2) and recvmsg(2): struct cmsghdr in program memory, to and from what a vfs::SocketMessage carries. cmsg(3)
#pragma once
#undef linux

#include "kernel/vfs/socket.h"

namespace husk::linux {

// What came with a message to send.
struct ControlToSend {
  Result<void> read(int domain, u64 address, u64 size);
  void attach_to(vfs::SocketMessage& message);

  Vec<Ref<vfs::File>> files;
  Vec<vfs::ControlData> data;
  vfs::SocketCredentials credentials;
  bool has_credentials = false;
};

// Room for what comes with a received message.
struct ControlReceived {
  void attach_to(vfs::SocketMessage& message);
  // Gives the bytes used. Files get descriptors; what does not fit is closed or cut, and *flags says MSG_CTRUNC.
  Result<u64> write(const vfs::SocketMessage& message, u64 address, u64 room, bool close_on_exec, u32* flags);

  Vec<Ref<vfs::File>> files;
  Vec<vfs::ControlData> data;
  vfs::SocketCredentials credentials;
};

}  // namespace husk::linux
