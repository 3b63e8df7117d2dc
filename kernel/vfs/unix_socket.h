// Makers of AF_UNIX sockets: streams, datagrams and sequenced packets; pairs, names in the tree and abstract names. unix(7).
#pragma once

#include "kernel/vfs/socket.h"

namespace husk::vfs {

// What a socket must ask about its caller: vfs knows no working directory, no umask and no process.
class UnixEnvironment {
 public:
  virtual Result<Ref<Inode>> make_node(std::string_view path) = 0;  // a new socket inode there; EEXIST
  virtual Result<Ref<Inode>> find_node(std::string_view path) = 0;  // what is there, links followed
  virtual SocketCredentials credentials() = 0;
  virtual Result<i64> ioctl(u32 request, u64 argument) = 0;  // what every socket answers (SIOCGIF*); ENOTTY

 protected:
  ~UnixEnvironment() = default;
};

// `type`: SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET; SOCK_RAW is taken for SOCK_DGRAM, as on Linux. ESOCKTNOSUPPORT, EPROTONOSUPPORT.
Result<Ref<Socket>> make_unix_socket(UnixEnvironment& environment, int type, int protocol, u32 file_flags);
Result<FilePair> make_unix_pair(UnixEnvironment& environment, int type, int protocol, u32 file_flags);

}  // namespace husk::vfs
