// What the socket calls share: finding the socket, addresses in and out.
#pragma once
#undef linux

#include "kernel/linux/files.h"
#include "kernel/mem/user_copy.h"
#include "kernel/vfs/socket.h"
#include "kernel/vfs/unix_socket.h"

namespace husk::linux {

constexpr int kUnixFamily = 1;

Result<Ref<vfs::Socket>> socket_of(int fd);                      // EBADF, ENOTSOCK
Result<vfs::SocketAddress> read_address(u64 address, int size);  // EINVAL, EFAULT
// As much of it as *size_at says fits, and its real size there.
Result<void> write_address(const vfs::SocketAddress& name, u64 out, mem::UserPtr<int> size_at);
vfs::UnixEnvironment& unix_environment();  // sockets_unix.cc

}  // namespace husk::linux
